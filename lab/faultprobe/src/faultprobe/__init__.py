"""Count, certify and attribute the page faults of one Linux machine.

    >>> import faultprobe
    >>> faultprobe.counters()
    faultprobe.Counters(minor=937, major=0)

The rest is in modules of its own, imported when wanted (start-up time matters under emulation):
`experiment`, `certificate`, `facts`, `run`, `document`; the command line is `python -m faultprobe`.
"""

from faultprobe._native import Counters, counters, thread_counters
from faultprobe.version import __version__

__all__ = ["Counters", "__version__", "counters", "thread_counters"]
