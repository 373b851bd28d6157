"""The report of more than two guests: guests as rows, series, and what changes along each axis."""
