"""What a program of the user's cost on each guest, as one HTML file of the same form as the lab's report."""

from __future__ import annotations

from collections.abc import Sequence

from lab.report import accounts, glossary, html, ledgers, programwords, words
from lab.report.ledgers import BillLine, BillRow, ShownAccount, ShownBill
from lab.report.programwords import STAGES
from lab.report.sides import Side, sides_of
from lab.results import causes, startup
from lab.results.builds import Build
from lab.results.causes import Account, AccountRow
from lab.results.program import CopiedFile, ProgramRun
from lab.results.programcomparison import Image, ProgramComparison
from lab.results.store import Result


def render(compared: ProgramComparison, result: Result) -> str:
    """The whole page; transcripts are read from the result. Raises BadDocument when one is missing."""
    labels = programwords.labels(compared)
    names = [labels[guest.name] for guest in compared.guests]
    rows = [guest.account for guest in compared.guests]
    known = [each for each in rows if each is not None]
    runs = [guest.run for guest in compared.guests]
    return (
        html.environment()
        .get_template("program.html.j2")
        .render(
            answer=programwords.answer(compared),
            command=compared.command,
            result_id=result.id,
            findings=compared.findings(),
            failures=compared.failures(),
            unknown=compared.unknown(),
            guests=[{"name": guest.name, "label": labels[guest.name]} for guest in compared.guests],
            causes_heading=programwords.heading(compared),
            alike=[],
            accounts=_accounts(rows, compared),
            residual=any(each.residual for each in known),
            glossary=_glossary(known),
            bills=[],
            stages=[(stage, programwords.EXPLAINED[stage]) for stage in STAGES],
            images=[_image(image, names) for image in compared.images()],
            lines=_lines(compared),
            no_rule=programwords.NO_RULE,
            repeated=[
                (labels[guest.name], "on" if mode.aslr else "off", programwords.repeated(guest, mode))
                for guest in compared.guests
                for mode in guest.modes()
            ],
            outputs=_outputs(compared, labels, result),
            files=_files(runs),
            facts=sides_of([run.facts for run in runs]),
            origin=_origin(runs),
        )
    )


def _accounts(rows: Sequence[Account | None], compared: ProgramComparison) -> list[ShownAccount]:
    if not any(rows):
        return []
    # The row's program and size are those of the lab's own experiments, and not shown.
    shown = ledgers.account(AccountRow(Build.DYNAMIC, 0, "", tuple(rows)))
    return [ShownAccount(compared.command, "all processes", shown.totals, shown.lines, shown.residuals)]


def _glossary(known: Sequence[Account]) -> list[tuple[str, str]]:
    found = {each.cause: each.title for account in known for each in account.causes}
    return [
        (found[cause], glossary.SENTENCES[cause])
        for cause in sorted(found, key=causes.rank)
        if cause in glossary.SENTENCES
    ]


def _image(image: Image, labels: Sequence[str]) -> ShownBill:
    """One image's stages on all guests; bars of one image have one scale."""
    counts = [programwords.bill(line) for line in image.lines]
    longest = max((sum(each or 0 for each in row[1:]) for row in counts), default=1) or 1
    rows = []
    for label, line, row in zip(labels, image.lines, counts, strict=True):
        shown = tuple(
            (stage, _count(stage, count, line is not None), 100 * (count or 0) / longest if index else 0.0)
            for index, (stage, count) in enumerate(zip(STAGES, row, strict=True))
        )
        total = "not run" if line is None else f"{programwords.own(line):,}"
        rows.append(BillRow(label, shown, total, ""))
    return ShownBill(" / ".join(dict.fromkeys(image.names)), tuple(rows), ())


def _count(stage: str, count: int | None, was_run: bool) -> str:
    if count is not None:
        return f"{count:,}"
    return "with program" if was_run and stage == startup.LIBC else ""


def _lines(compared: ProgramComparison) -> list[BillLine]:
    """All faults by stage, place and cause on all guests."""
    counts = [{(e.stage, e.place, e.cause): e.faults for e in guest.lines} for guest in compared.guests]
    titles = {e.cause: e.title for guest in compared.guests for e in guest.lines}
    keys = {key for each in counts for key in each}
    return [
        BillLine(
            stage,
            place,
            accounts.short(titles[cause]),
            glossary.SENTENCES.get(cause, ""),
            len({each.get((stage, place, cause), 0) for each in counts}) > 1,
            tuple(f"{each.get((stage, place, cause), 0):,}" for each in counts),
        )
        for stage, place, cause in sorted(
            keys, key=lambda key: (startup.STAGES.index(key[0]), key[1], key[2])
        )
    ]


def _outputs(compared: ProgramComparison, labels: dict[str, str], result: Result) -> list[dict[str, object]]:
    return [
        {
            "title": title,
            "texts": [
                {
                    "label": f"{labels[guest.name]}, {guest.ended}",
                    "text": result.transcript(getattr(guest.trace, stream).transcript).rstrip("\n"),
                }
                for guest in compared.guests
            ],
        }
        for stream, title in (("stdout", "standard output"), ("stderr", "standard error"))
    ]


def _files(runs: Sequence[ProgramRun]) -> list[Side]:
    """Every file that was copied, with what it is on each guest."""
    by_name = [{each.asked: each for each in run.asked.files} for run in runs]
    asked = dict.fromkeys(name for files in by_name for name in files)
    return [Side(name, tuple(_file(files.get(name)) for files in by_name)) for name in asked]


def _file(file: CopiedFile | None) -> str:
    if file is None:
        return "not copied"
    if file.link is not None:
        return f"link to {file.link}"
    return f"{words.counted(file.size_bytes, 'byte')}, sha256 {(file.sha256 or '')[:16]}"


def _origin(runs: Sequence[ProgramRun]) -> list[Side]:
    rows = (
        ("guest", [run.guest.name for run in runs]),
        ("measured", [run.created for run in runs]),
        ("accelerator", [run.accelerator for run in runs]),
        ("image", [run.image.key for run in runs]),
        ("deviations from the lock", ["; ".join(run.image.deviations) or "none" for run in runs]),
        ("provisioned state", [run.provisioned_key for run in runs]),
        (
            "commit of the lab",
            [run.commit.revision + (", with changes" if run.commit.dirty else "") for run in runs],
        ),
    )
    return [Side(name, tuple(values)) for name, values in rows]
