"""Facts and origin of the guests side by side, as text, with a mark on what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.report import words
from lab.results.document import GuestRun
from lab.results.mirror import Facts, Limit


@dataclass(frozen=True)
class Side:
    """One fact in every guest."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether two guests have different values."""
        return len(set(self.values)) > 1


def _known(value: object, reason: str | None = None) -> str:
    return f"not known{f': {reason}' if reason else ''}" if value is None else str(value)


def _bytes(value: int | None) -> str:
    return "not known" if value is None else words.size(value)


def _limit(limit: Limit) -> str:
    return "unlimited" if limit.soft is None else words.size(limit.soft)


def _thp(facts: Facts) -> str:
    return facts.thp.enabled or "not in this kernel"


def _sizes(facts: Facts) -> str:
    on = [
        f"{name.removeprefix('hugepages-')} {mode}"
        for name, mode in facts.thp.sizes.items()
        if mode != "never"
    ]
    return ", ".join(on) or "never, all sizes"


def _fault_around(facts: Facts) -> str:
    if facts.fault_around_bytes is not None:
        return words.size(facts.fault_around_bytes)
    if facts.fault_around_measured_bytes is not None:
        return f"{words.size(facts.fault_around_measured_bytes)} (measured)"
    return _known(None, facts.fault_around_reason)


def _aslr(facts: Facts) -> str:
    off = "off for this process" if facts.aslr.off_for_this_process else "on"
    return f"{off} (randomize_va_space {_known(facts.aslr.randomize_va_space)})"


def _tunables(facts: Facts) -> str:
    return ", ".join(f"{name}={value}" for name, value in facts.tunables.items()) or "none set"


_FACTS: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("libc", lambda f: f"{f.libc.family} {_known(f.libc.version, f.libc.version_reason)}"),
    ("libc file", lambda f: _known(f.libc.path)),
    ("architecture", lambda f: f"{f.architecture}, {f.pointer_bits} bit, {f.byte_order} endian"),
    ("processor", lambda f: _known(f.cpu_model)),
    ("processors", lambda f: str(f.cpus_online)),
    ("page size", lambda f: words.size(f.page_size_bytes)),
    ("kernel", lambda f: f.kernel_release),
    ("kernel build", lambda f: f.kernel_version),
    ("transparent huge pages", _thp),
    ("multi-size huge pages", _sizes),
    ("fault-around", _fault_around),
    ("ASLR", _aslr),
    ("overcommit", lambda f: f"memory {_known(f.overcommit.memory)}, ratio {_known(f.overcommit.ratio)}"),
    ("swap", lambda f: "none" if f.swap_total_bytes == 0 else _bytes(f.swap_total_bytes)),
    ("stack limit", lambda f: _limit(f.rlimits.stack)),
    ("locked memory limit", lambda f: _limit(f.rlimits.memlock)),
    ("perf_event_paranoid", lambda f: _known(f.perf_event_paranoid)),
    ("tunables", _tunables),
    ("environment", lambda f: _bytes(f.environment_bytes)),
    ("arguments", lambda f: _bytes(f.argv_bytes)),
    ("launched by", lambda f: " < ".join(each.command for each in f.launcher) or "not known"),
    ("user id", lambda f: str(f.effective_uid)),
    ("Python", lambda f: f"{f.python.implementation} {f.python.version}"),
)


def facts_of(runs: Sequence[GuestRun]) -> list[Side]:
    """Every fact of every guest, as a reader says it."""
    return sides_of([run.probe.facts for run in runs])


def sides_of(facts: Sequence[Facts]) -> list[Side]:
    """The same for facts that stand alone."""
    return [Side(name, tuple(tell(each) for each in facts)) for name, tell in _FACTS]


def image(run: GuestRun) -> str:
    """What the numbers come from: an image, or what a machine of somebody's says of itself."""
    return (
        run.image.key
        if run.guest.is_built_here
        else f"none of the lab's: the machine as it is, {run.image.key}"
    )


_ORIGIN: tuple[tuple[str, Callable[[GuestRun], str]], ...] = (
    ("guest", lambda run: run.guest.name),
    ("measured", lambda run: run.probe.created),
    ("accelerator", lambda run: run.accelerator),
    ("image", image),
    ("deviations from the lock", lambda run: "; ".join(run.image.deviations) or "none"),
    ("provisioned state", lambda run: run.provisioned_key),
    ("commit of the lab", lambda run: run.commit.revision + (", with changes" if run.commit.dirty else "")),
    (
        "faultprobe",
        lambda run: f"{run.probe.faultprobe.version}, {run.probe.faultprobe.tag or 'from its source'}",
    ),
    ("compiled by", lambda run: run.probe.faultprobe.compiler),
)


def origin_of(runs: Sequence[GuestRun]) -> list[Side]:
    """Which image, commit and probe each run comes from."""
    return [Side(name, tuple(tell(run) for run in runs)) for name, tell in _ORIGIN]
