"""The benchmark for a person to read."""

from __future__ import annotations

from faultprobe.bench import Bench, Blocks, Way, WholeRun

HEADINGS = ("own time: min", "median", "elapsed: min", "median", "added", "ratio: min", "median", "goal")
WIDTHS = (13, 8, 14, 8, 8, 11, 7, 8)


def text(made: Bench) -> str:
    """Tables of nanoseconds for each fault, of whole runs, and the empty blocks."""
    facts, libc = made["facts"], made["facts"]["libc"]
    lines = [
        f"{facts['cpu_model'] or facts['architecture']}, {facts['cpus_online']} processors, "
        f"Linux {facts['kernel_release']}, {libc['family']} {libc['version'] or ''}".rstrip(),
        f"{made['batches']} batches for each way, in turn, of {made['pages']} pages of "
        f"{facts['page_size_bytes']} bytes; ns for each fault, added and ratio of own time",
        "",
        *_table("a process that runs already", made["own_process"]),
        *_table("a program run under a tool", made["command"]),
        *_table("the same, with a system call behind each page", made["calls"]),
        *_whole_runs(made["whole_runs"]),
        *(_blocks(each) for each in made["empty"]),
        *(f"left out: {each}" for each in made["left_out"]),
    ]
    return "\n".join(lines)


def _table(title: str, ways: list[Way]) -> list[str]:
    lines = [title, " " * 32 + "".join(f"{head:>{width}}" for head, width in zip(HEADINGS, WIDTHS))]
    for way in ways:
        cells = (
            f"{way['own_ns']['min']:.0f}",
            f"{way['own_ns']['median']:.0f}",
            f"{way['elapsed_ns']['min']:.0f}",
            f"{way['elapsed_ns']['median']:.0f}",
            f"{way['added_ns']:+.0f}",
            f"{way['own_ratio']['min']:.2f}",
            f"{way['own_ratio']['median']:.2f}",
            "" if way["goal"] is None else f"<= {way['goal']}",
        )
        row = "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS))
        lines.append(f"  {way['name']:30}{row}".rstrip())
    return [*lines, ""]


def _whole_runs(runs: list[WholeRun]) -> list[str]:
    lines = ["the whole run of both loops", f"{'':32}{'seconds, min':>14}{'median':>8}{'records':>10}"]
    for run in runs:
        delivered = "" if run["records"] is None else str(run["records"])
        seconds = run["seconds"]
        lines.append(
            f"  {run['name']:30}{seconds['min']:14.2f}{seconds['median']:8.2f}{delivered:>10}".rstrip()
        )
    return [*lines, ""]


def _blocks(blocks: Blocks) -> str:
    setting = "with ASLR" if blocks["aslr"] else "without ASLR"
    return f"{blocks['blocks']} empty blocks in measure(), {setting}: {blocks['faults']} faults (goal: 0)"
