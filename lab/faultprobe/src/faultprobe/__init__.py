"""Count, certify and attribute the page faults of one Linux machine.

    >>> import faultprobe
    >>> faultprobe.counters()
    faultprobe.Counters(minor=937, major=0)
    >>> with faultprobe.measure() as measured:
    ...     work()
    >>> print(measured)

The rest is in modules of its own, imported when wanted (start-up time matters under emulation):
`experiment`, `certificate`, `facts`, `run`, `document`; the command line is `python -m faultprobe`.
"""

from __future__ import annotations

from faultprobe._native import Counters, counters, thread_counters
from faultprobe.version import __version__

# typing's own is an import of milliseconds under emulation; checkers go by the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from faultprobe.decorator import measured
    from faultprobe.measurement import Measurement, measure

__all__ = [
    "Counters",
    "Measurement",
    "__version__",
    "counters",
    "measure",
    "measured",
    "thread_counters",
]

_ELSEWHERE = {"measure": "measurement", "Measurement": "measurement", "measured": "decorator"}


def __getattr__(name: str) -> object:
    """What is in a module of its own, imported when it is first asked for."""
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
    return value
