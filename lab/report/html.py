"""The report as one HTML file: nothing is fetched, so it can be mailed, printed and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2

from lab.report import accounts, figures, ledgers, linking, memorymaps, pagegrid, residues, startup, words
from lab.report.sides import facts_of, origin_of
from lab.results import causes, pages, rules
from lab.results.builds import Build
from lab.results.comparison import Cell, Comparison, Row, Status
from lab.results.document import GuestRun
from lab.results.mirror import Details
from lab.results.startup import STAGES
from lab.results.store import Result

_TEMPLATES = Path(__file__).parent / "templates"

PROGRAMS = {
    Build.IN_PROCESS: ("faultprobe", "in one process, readings only"),
    Build.DYNAMIC: ("pagefault-demo", "a program that prints between the steps"),
    Build.STATIC: ("pagefault-demo-static", "the same program with its own copy of libc"),
}
"""Name of each way to run the phases, and what it is. Other ways to link have a table of their own."""

_SHOWN = 3
"""Pages shown at each end of the buffer; those between are summed up."""


@dataclass(frozen=True)
class StripCell:
    """One page of the buffer, or the gap that stands for many."""

    text: str
    by_malloc: bool = False
    gap: bool = False


@dataclass(frozen=True)
class Strip:
    """The buffer of one guest, page by page at both ends."""

    label: str
    in_malloc: str
    in_memset: str
    description: str
    cells: tuple[StripCell, ...]


@dataclass(frozen=True)
class ShownCell:
    """One count with what stands beside and below it."""

    observed: str
    difference: str
    note: str
    state: str


@dataclass(frozen=True)
class ReasonLine:
    """Why a guest differs, and whether that is an alarm."""

    text: str
    alert: bool


@dataclass(frozen=True)
class ShownRow:
    """One phase."""

    phase: str
    cells: tuple[ShownCell, ...]
    reasons: tuple[ReasonLine, ...]


@dataclass(frozen=True)
class ShownProgram:
    """One program's phases."""

    title: str
    note: str
    rows: tuple[ShownRow, ...]


def environment() -> jinja2.Environment:
    """Where the templates are, and how they are read: a name that nobody defined is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(comparison: Comparison, result: Result) -> str:
    """The whole page; transcripts are read from the result. Raises BadDocument when one is missing."""
    labels = words.labels(comparison)
    guests = [{"name": run.guest.name, "label": labels[run.guest.name]} for run in comparison.runs]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            answer=words.answer(comparison),
            result_id=result.id,
            findings=comparison.findings(),
            why=words.why(comparison),
            strips=[strip for run in comparison.runs if (strip := _strip(run, labels[run.guest.name]))],
            guests=guests,
            columns=len(guests) + (2 if len(guests) > 1 else 1),
            programs=_programs(comparison, labels),
            chart=_chart(comparison, labels),
            again=any(
                cell.observed for row in comparison.rows if row.phase == rules.AGAIN for cell in row.cells
            ),
            unknown=list(causes.unknown(comparison.runs)),
            causes_heading=accounts.heading(comparison),
            maps=memorymaps.shown(comparison, labels),
            patterns=pagegrid.PATTERNS,
            no_maps=list(pages.unknown(comparison.runs)),
            alike=accounts.alike(comparison.accounts),
            accounts=ledgers.shown(comparison),
            residual=any(each.residual for row in comparison.accounts for each in row.accounts if each),
            glossary=ledgers.glossary_of(comparison),
            stages=[(stage, startup.EXPLAINED[stage]) for stage in STAGES],
            bills=ledgers.bills(comparison, labels),
            published=startup.published(comparison, labels),
            linking=linking.of(comparison),
            steps=[heading for _, heading in linking.STEPS],
            rules=comparison.rules(),
            transcripts=_transcripts(comparison, labels, result),
            residues=residues.table(comparison.runs, labels),
            certificates=_certificates(comparison, labels),
            facts=facts_of(comparison.runs),
            origin=origin_of(comparison.runs),
        )
    )


def _strip(run: GuestRun, label: str) -> Strip | None:
    """Which pages of the buffer malloc had touched; None when the probe could not see them."""
    found = next((each for each in run.probe.experiments if each.name == rules.LAZY_MALLOC), None)
    if found is None or found.details.touched_after_malloc is None:
        return None
    spanned = found.details.pages_spanned
    by_malloc = _touched(found.details)
    if spanned <= 2 * _SHOWN + 1:
        cells = [StripCell(str(page), page in by_malloc) for page in range(spanned)]
    else:
        between = range(_SHOWN, spanned - _SHOWN)
        early = sum(page in by_malloc for page in between)
        gap = f"{len(between) - early:,} more"
        cells = [
            *(StripCell(str(page), page in by_malloc) for page in range(_SHOWN)),
            StripCell(f"{gap}, {early:,} by malloc" if early else gap, gap=True),
            *(StripCell(str(page), page in by_malloc) for page in range(spanned - _SHOWN, spanned)),
        ]
    rises = {phase.name: phase.rise_minor for phase in found.phases}
    touched = words.listed([str(page) for page in sorted(by_malloc)[:8]]) if by_malloc else "none"
    return Strip(
        label,
        words.counted(len(by_malloc), "page"),
        words.counted(rises.get(rules.MEMSET, 0), "page"),
        f"{label}: of the pages 0 to {spanned - 1}, malloc touched {touched} and memset the others.",
        tuple(cells),
    )


def _touched(details: Details) -> set[int]:
    runs = details.touched_after_malloc or ()
    return {page for run in runs for page in range(run.first, run.first + run.count)}


def _programs(comparison: Comparison, labels: dict[str, str]) -> list[ShownProgram]:
    programs: list[ShownProgram] = []
    for build, size in dict.fromkeys((row.build, row.size_bytes) for row in comparison.rows):
        if build not in PROGRAMS:
            continue
        rows = [row for row in comparison.rows_of(build) if row.size_bytes == size]
        title, note = PROGRAMS[build]
        shown = tuple(_row(comparison, row, labels) for row in rows)
        programs.append(ShownProgram(title, f"{note}, {words.size(size)}", shown))
    return programs


def _row(comparison: Comparison, row: Row, labels: dict[str, str]) -> ShownRow:
    reasons: list[ReasonLine] = []
    for index, cell in enumerate(row.cells):
        text = accounts.reason(comparison, row, index)
        if not text:
            continue
        alert = cell.difference.status is Status.UNEXPLAINED
        if len(row.cells) == 2:
            reasons.extend(ReasonLine(side, alert) for side in text.split("; "))
        else:
            # With many guests the sums stand below the counts already: the rules are enough.
            rules_at_work = "; ".join(rule.short for rule in cell.difference.rules)
            reasons.append(ReasonLine(f"{labels[cell.guest]}: {rules_at_work or text}", alert))
    return ShownRow(row.phase, tuple(_cell(cell) for cell in row.cells), tuple(reasons))


def _cell(cell: Cell) -> ShownCell:
    state = {True: "as-predicted", False: "not-predicted", None: "not-claimed"}[cell.as_predicted]
    faults = cell.difference.faults
    observed = "not measured" if cell.observed is None else f"{cell.observed:,}"
    return ShownCell(observed, words.signed(faults) if faults else "", _note(cell), state)


def _note(cell: Cell) -> str:
    """The sum that predicts the count; the predicted counts when it is another; why none is claimed."""
    if cell.prediction.not_claimed:
        return "no number claimed"
    counts = " or ".join(f"{count:,}" for count in cell.prediction.counts())
    if not cell.as_predicted:
        return f"predicted {counts}" + (f", and no major fault ({cell.major} seen)" if cell.major else "")
    chosen = cell.prediction.selecting(cell.observed) if cell.observed is not None else None
    terms = [term.faults for term in chosen.terms if term.faults] if chosen else []
    if len(terms) > 1:
        total = " ".join(
            f"{'−' if t < 0 else '+'} {abs(t):,}" if i else f"{t:,}" for i, t in enumerate(terms)
        )
        return f"= {total}" + (f"; {counts} possible" if len(cell.prediction.possible) > 1 else "")
    return f"{counts} possible" if len(cell.prediction.possible) > 1 else ""


def _chart(comparison: Comparison, labels: dict[str, str]) -> str:
    groups: list[figures.Group] = []
    for build in PROGRAMS:
        rows = {row.phase: row for row in comparison.rows_of(build)}
        if not rows:
            continue
        bars = tuple(
            figures.Bar(
                labels[run.guest.name], *(rows[phase].cells[index].observed or 0 for phase in rules.PHASES)
            )
            for index, run in enumerate(comparison.runs)
        )
        groups.append(figures.Group(PROGRAMS[build][0], bars))
    spoken = "; ".join(
        f"{group.title}, {bar.label}: {bar.malloc} in malloc, {bar.memset} in the first memset"
        for group in groups
        for bar in group.bars
    )
    return figures.faults_by_phase(groups, "Page faults by step and guest", spoken)


def _transcripts(comparison: Comparison, labels: dict[str, str], result: Result) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = []
    for build in (Build.DYNAMIC, Build.STATIC):
        texts = [
            {
                "label": labels[run.guest.name],
                "text": result.transcript(demonstration.transcript).rstrip("\n"),
            }
            for run in comparison.runs
            if (demonstration := run.demonstrations.get(build.value))
        ]
        if texts:
            shown.append({"title": build.value, "texts": texts})
    return shown


def _certificates(comparison: Comparison, labels: dict[str, str]) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = []
    for run in comparison.runs:
        certificate = run.probe.certificate
        cost = certificate.cost.process
        rise = certificate.idle_rise_minor + certificate.idle_rise_major
        shown.append(
            {
                "label": labels[run.guest.name],
                "readings": f"{certificate.idle_readings:,}",
                "rise": f"{rise:,}",
                "bad": rise != 0,
                "cost": f"{cost.median_ns:,.0f} ns",
                "bare": f"{cost.bare_median_ns:,.0f} ns",
                "ratio": f"{cost.ratio:.2f}",
            }
        )
    return shown
