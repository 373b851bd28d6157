"""A guest's way through the lab as one unit of work, and who runs many of them: a local pool or a cluster."""
