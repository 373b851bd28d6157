"""The version of faultprobe: read by the build (pyproject.toml) and stored in every Run document."""

RUN_SCHEMA_VERSION = 2
"""Of the Run document. Here, because who writes one need not know its schema (see document)."""

__version__ = "0.1.0"
