"""The certificate: proof, made in the measuring process itself, that measuring changes nothing."""

from __future__ import annotations

from faultprobe import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from faultprobe.document import Certificate, Cost

IDLE_READINGS = 1000
BATCHES = 32
READINGS_PER_BATCH = 100


def _median(times: list[float]) -> float:
    """As statistics.median, whose import takes longer than all that is measured here."""
    middle = len(times) // 2
    in_order = sorted(times)
    return (in_order[middle] + in_order[-1 - middle]) / 2


def _cost(who: int) -> Cost:
    readings, bare = _native.reading_costs(who, BATCHES, READINGS_PER_BATCH)
    return {
        "min_ns": round(min(readings), 1),
        "median_ns": round(_median(readings), 1),
        "bare_min_ns": round(min(bare), 1),
        "bare_median_ns": round(_median(bare), 1),
        "ratio": round(min(readings) / min(bare), 3),
    }


def make(idle_readings: int = IDLE_READINGS) -> Certificate:
    """Takes `idle_readings` readings back to back and times batches of them.

    The rise between the first and the last is in faults and must be 0. It is the whole process's: the
    faults of other threads would be in it, even of one that was joined and is still on its way out.
    Costs are nanoseconds for one reading, of the process (RUSAGE_SELF) and of a thread (RUSAGE_THREAD).
    Raises ValueError for fewer than 2 readings, OSError when getrusage is refused.
    """
    minor, major = _native.idle_rise(_native.RUSAGE_SELF, idle_readings)
    return {
        "idle_readings": idle_readings,
        "idle_rise_minor": minor,
        "idle_rise_major": major,
        "cost": {"self": _cost(_native.RUSAGE_SELF), "thread": _cost(_native.RUSAGE_THREAD)},
    }


def holds(certificate: Certificate) -> bool:
    """Whether the idle rise was 0."""
    return certificate["idle_rise_minor"] == 0 and certificate["idle_rise_major"] == 0
