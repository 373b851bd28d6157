"""The version of faultprobe: read by the build (pyproject.toml) and stored in every Run document."""

__version__ = "0.1.0"
