"""faultlab: start guests that differ in one thing, count their page faults, explain each difference."""

__version__ = "0.1.0"
