"""The documents as text for people: aligned columns, no colours, no dependencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from faultprobe.names import shown

if TYPE_CHECKING:
    from faultprobe.aslrmodel import AslrReport
    from faultprobe.document import Certificate, Experiment, Facts, Run
    from faultprobe.recorder import Recording


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows as aligned columns: numbers to the right, words to the left; the first row is the heading."""
    cells = [[shown(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    is_number = [isinstance(cell, (int, float)) for cell in rows[-1]]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def experiment(result: Experiment) -> str:
    """One experiment: its phases with counters and rises, then what the buffer looked like."""
    details = result["details"]
    heading = ("phase", "minor", "major", "rise minor", "rise major")
    rows = [
        (phase["name"], phase["minor"], phase["major"], phase["rise_minor"], phase["rise_major"])
        for phase in result["phases"]
    ]
    touched = details["pages_touched_after_malloc"]
    return "\n".join(
        [
            f"{result['name']}, {result['parameters']['size_bytes']} bytes",
            table([heading, *rows]),
            f"The buffer spans {details['pages_spanned']} pages ({details['mapping']}); malloc touched "
            f"{'an unknown number' if touched is None else touched} of them.",
        ]
    )


def certificate(made: Certificate) -> str:
    """The certificate in two or three lines."""
    lines = [
        f"Idle rise over {made['idle_readings']} readings: "
        f"{made['idle_rise_minor']} minor, {made['idle_rise_major']} major"
    ]
    for name, cost in (("self", made["cost"]["self"]), ("thread", made["cost"]["thread"])):
        lines.append(
            f"One reading ({name}): {cost['min_ns']:.0f} ns at least, {cost['median_ns']:.0f} ns in the "
            f"median; {cost['ratio']:.2f} times a bare getrusage"
        )
    return "\n".join(lines)


def facts(collected: Facts) -> str:
    """The facts as "key: value" lines, nested keys joined by dots."""
    return "\n".join(f"{key}: {'unknown' if value is None else value}" for key, value in _flat("", collected))


def _flat(prefix: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(f"{prefix}.{key}".lstrip("."), item)]
    if isinstance(value, list):
        return [(prefix, " < ".join(str(item.get("command")) for item in value))]
    return [(prefix, value)]


def run(document: Run) -> str:
    """A whole Run: experiments, certificate, and the facts that matter most."""
    told = document["facts"]
    libc = told["libc"]
    aslr = "off" if told["aslr"]["off_for_this_process"] else "on"
    where = (
        f"{told['architecture']}, Linux {told['kernel_release']}, {libc['family']} {libc['version']}, "
        f"{told['page_size_bytes']} byte pages, ASLR {aslr}"
    )
    parts = [
        where,
        *(experiment(each) for each in document["experiments"]),
        certificate(document["certificate"]),
    ]
    return "\n\n".join(parts)


def recording(made: Recording, bill: Sequence[tuple[str, int]]) -> str:
    """A recording: its faults by object, and how they add up to the counters."""
    own = made.rusage.ru_minflt + made.rusage.ru_majflt
    lines = [
        table([("touched", "faults"), *bill]),
        f"{len(made.faults)} faults recorded + {made.without_trap} without a trap (exec's argument pages: "
        f"{made.argument_pages}) + {sum(made.inherited)} inherited before exec = {own} counted by getrusage",
    ]
    if made.faults_lost:
        lines.append(f"INVALID: {made.faults_lost} faults have no record, the ring was too small")
    return "\n".join(lines)


def aslr(report: AslrReport) -> str:
    """The predictions by residue and how the verifying runs compared."""
    rows: list[tuple[object, object]] = [
        ("residue", f"faults of each phase: {', '.join(report['phases'][1:])}")
    ]
    for prediction in report["predicted"]:
        counts = " or ".join(" ".join(map(str, each)) for each in prediction["counts"])
        rows.append(("any" if prediction["residue"] is None else prediction["residue"], counts))
    lines = [table(rows)]
    by_byte = [(each["first_offset"], each["last_offset"], each["extra"]) for each in report["stack"]]
    by_page = [(each["first_page"], each["last_page"], each["extra"]) for each in report["heap"]]
    for places, matter in (
        (by_byte, "stack in a page matters; bytes"),
        (by_page, "heap in a page table matters; pages"),
    ):
        if len(places) > 1:
            lines.append(f"The place of the {matter} where it begins and what each phase has more:")
            lines.extend(f"  {first}-{last}: {' '.join(map(str, extra))}" for first, last, extra in places)
    runs = (("steered", report["steered"]), ("ASLR on", report["aslr_on"]), ("ASLR off", report["aslr_off"]))
    for name, group in runs:
        lines.append(f"{name}: {sum(each['agreed'] for each in group)} of {len(group)} runs as predicted")
        lines.extend(
            f"  residue {each['residue']}, stack {each['stack_offset']}, heap {each['heap_page']}: "
            f"predicted {each['predicted']}, observed {each['observed']}; "
            f"{each['unmapped_neighbours']} pages its windows left out"
            for each in group
            if not each["agreed"]
        )
    if report["set_aside"]:
        lines.append(f"{report['set_aside']} runs met a page that was not cached and were repeated")
    return "\n".join(lines)
