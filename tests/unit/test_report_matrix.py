"""The matrix report: guests as rows in the terminal, in HTML and as Markdown, from one set of tables."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic
from rich.console import Console
from synthetic import GLIBC, MUSL, Run, guest, written

from lab import cli, paths, reporting
from lab.report.matrix import changes, data, labels, markdown, page, plot, series, tables, text
from lab.report.matrix.series import Curve, Panel
from lab.results import comparison, pairs
from lab.results.axes import Axis
from lab.results.builds import Build
from lab.results.pairs import Matrix
from lab.results.store import Result


def matrix_of(runs: list[Run]) -> Matrix:
    return pairs.matrix(comparison.compare([synthetic.read(run) for run in runs]))


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return matrix_of(synthetic.matrix())


def in_terminal(matrix: Matrix, width: int = 80) -> str:
    with io.StringIO() as stream:
        text.render(matrix, Console(file=stream, width=width, color_system=None), Path("report.html"))
        return stream.getvalue()


def in_html(matrix: Matrix) -> str:
    return page.render(matrix, Result(Path("20260101T000000Z-0000")))


def row(table: tables.Table, guest: str) -> list[str]:
    (found,) = [line for group in table.groups for line in group.lines if line.guest == guest]
    return [count.text + count.mark for count in found.counts]


def test_counts_have_a_row_for_each_guest_below_its_architecture(matrix: Matrix) -> None:
    table = tables.counts(matrix.comparison, labels.labels(matrix.comparison.runs))
    assert [group.architecture for group in table.groups] == ["x86_64", "aarch64", "riscv64", "ppc64le"]
    assert table.programs() == [(Build.IN_PROCESS, 2), (Build.DYNAMIC, 3), (Build.STATIC, 3)]
    assert row(table, GLIBC) == ["1✓", "256✓", "82", "6✓", "256✓", "50", "2·", "256✓"]
    assert row(table, "musl-1.2.5-ppc64le-64k")[:2] == ["2✓", "15✓"]
    assert tables.again(matrix.comparison) == "The second memset costs nothing anywhere."


def test_labels_tell_only_what_is_unusual(matrix: Matrix) -> None:
    named = labels.labels(matrix.comparison.runs)
    found = {run.guest.name: named.guest(index) for index, run in enumerate(matrix.comparison.runs)}
    assert found[GLIBC] == "glibc 2.41"
    assert found["glibc-2.41-aarch64-16k"] == "glibc 2.41, 16 KiB"
    assert found["glibc-2.41-x86_64-linux-5.10.244"] == "glibc 2.41, Linux 5.10"
    told = {pair.axis: named.pair(pair) for pair in matrix.pairs}
    assert told == {
        Axis.LIBC: "glibc 2.41 → musl 1.2.5 on ppc64le, 64 KiB",
        Axis.VERSION: "glibc 2.41 → 2.43 on aarch64",
        Axis.ARCHITECTURE: "x86_64 → ppc64le, musl 1.2.5",
        Axis.PAGE_SIZE: "4 KiB → 64 KiB, musl 1.2.5 on ppc64le",
        Axis.KERNEL: "Linux 6.1 → 6.12, glibc 2.41 on x86_64",
        Axis.LINK: "musl 1.2.5, 64 KiB on ppc64le",
    }


def test_the_usual_kernel_is_the_most_frequent_and_of_equals_the_newest() -> None:
    old, older = (
        synthetic.read(guest(base, kernel=kernel))
        for base, kernel in ((GLIBC, "6.1.153"), (GLIBC, "5.10.244"))
    )
    new, musl_old = synthetic.read(guest(GLIBC)), synthetic.read(guest(MUSL, kernel="6.1.153"))
    assert labels.labels([new, old]).usual == {"x86_64": "6.12"}
    assert labels.labels([new, old, musl_old, older]).usual == {"x86_64": "6.1"}


def test_a_map_has_a_number_in_each_cell_and_a_shade_from_it(matrix: Matrix) -> None:
    named = labels.labels(matrix.comparison.runs)
    memset = next(iter(tables.heats(matrix.comparison, named)))
    assert memset.libcs == ("glibc 2.31", "glibc 2.36", "glibc 2.41", "glibc 2.43", "musl 1.2.5")
    rows = {name: [(cell.text, cell.level) for cell in cells] for name, cells in memset.rows}
    assert rows["x86_64"] == [("256", 4), ("256", 4), ("256", 4), ("256", 4), ("255", 3)]
    assert rows["ppc64le, 64 KiB"] == [("", None), ("", None), ("16", 0), ("", None), ("15", 0)]


def test_a_map_shows_the_usual_kernel_and_another_one_only_where_there_is_nothing_else() -> None:
    old = guest(GLIBC, kernel="5.10.244", loader=7)
    older_libc = guest(GLIBC, version="2.31", kernel="5.10.244", loader=8, suite="bullseye")
    found = matrix_of([guest(GLIBC), guest(MUSL), old, older_libc])
    _, start, _ = tables.heats(found.comparison, labels.labels(found.comparison.runs))
    assert start.libcs == ("glibc 2.31", "glibc 2.41", "musl 1.2.5")
    assert [(name, [cell.text for cell in cells]) for name, cells in start.rows] == [
        ("x86_64", ["90", "82", "39"])
    ]


def test_the_bill_by_object_adds_up_to_the_start(matrix: Matrix) -> None:
    named = labels.labels(matrix.comparison.runs)
    bill = tables.by_object(matrix.comparison, named, Build.DYNAMIC)
    stages = tables.start_up(matrix.comparison, named, Build.DYNAMIC)
    assert [column.heading for column in bill.columns][-1] == "others"
    for name in (GLIBC, MUSL, "glibc-2.43-aarch64"):
        brought, *_, printed = (int(each) for each in row(stages, name))
        assert sum(int(each) for each in row(bill, name)) + brought == printed


def test_series_are_in_the_order_of_versions_with_a_line_for_each_architecture(matrix: Matrix) -> None:
    found = series.series(matrix.comparison, labels.labels(matrix.comparison.runs))
    assert [each.title for each in found] == ["glibc by version", "Linux by version"]
    start = found[0].panels[0]
    assert start.ticks == ("2.31", "2.36", "2.41", "2.43")
    assert start.curves == (Curve("x86_64", (61, 59, 55, 64)), Curve("aarch64", (61, 59, 58, 64)))
    assert found[0].constant()[1] == "first memset in one process 256"
    assert found[1].panels[0].ticks == ("5.10", "6.1", "6.12")


def test_a_drawing_prints_each_number_once_and_needs_no_colour() -> None:
    panel = Panel("faults", ("1", "2"), (Curve("a", (10, 30)), Curve("b <", (10, None))))
    drawn = plot.svg(panel, "it")
    assert re.findall(r'class="middle number">([^<]+)<', drawn) == ["10", "30"]
    assert "a: 1 10, 2 30; b &lt;: 1 10" in drawn
    assert len(set(re.findall(r'class="point curve-(\d)" d="M[^a-z]+([a-z])', drawn))) == 2
    assert 'stroke-dasharray="7 3"' in drawn


def test_equal_changes_are_told_once_with_all_their_pairs(matrix: Matrix) -> None:
    told = {each.axis: each for each in changes.along(matrix, labels.labels(matrix.comparison.runs))}
    first = told[Axis.LIBC].entries[0]
    assert (first.step, first.counts, first.faults, len(first.pairs)) == ("malloc", "1 → 2", "+1", 6)
    assert first.sides == ("1 (glibc: header in the first page)", "2 (musl: first and last page)")
    assert told[Axis.VERSION].entries == ()
    assert len(told[Axis.VERSION].unchanged) == 6
    assert told[Axis.VERSION].starts[0].sides == (
        "exec and loader without ASLR: 61 → 59",
        "by place: −2 libc text",
    )


def test_the_facts_that_differ_stand_beside_a_pair(matrix: Matrix) -> None:
    told = {each.axis: each for each in changes.along(matrix, labels.labels(matrix.comparison.runs))}
    (page_size, *_) = told[Axis.PAGE_SIZE].facts
    assert page_size == (
        "4 KiB → 16 KiB, glibc 2.41 on aarch64; 4 KiB → 16 KiB, musl 1.2.5 on aarch64",
        "page size: 4 KiB → 16 KiB",
    )
    _, libc = told[Axis.LIBC].facts[0]
    assert "libc: glibc 2.41 → musl 1.2.5" in libc
    assert "pages of the block that malloc writes: 0 → 0 and 256" in libc


def test_a_start_that_only_aslr_moves_says_so() -> None:
    other = guest(GLIBC, version="2.43", loader=2)
    other["traces"]["pagefault-demo"]["by_shell"]["images"][-1]["loader"] -= 2
    found = matrix_of([guest(GLIBC), other, guest(MUSL)])
    told = {each.axis: each for each in changes.along(found, labels.labels(found.comparison.runs))}
    assert told[Axis.VERSION].starts[0].sides[0] == (
        "exec and loader cost 55 on both without ASLR, which moves the rest by a few"
    )


def test_the_terminal_fits_80_columns(matrix: Matrix) -> None:
    lines = in_terminal(matrix).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "  glibc 2.41, 64 KiB         1✓    16✓   82      6·    16✓   50      2·    16✓" in lines
    assert "What changes with the page size: 4 pairs" in lines


def test_other_ways_to_link_have_a_table_of_their_own(matrix: Matrix) -> None:
    named = labels.labels(matrix.comparison.runs)
    assert tables.links(matrix.comparison, named) is None
    run = synthetic.linked(guest(GLIBC), Build.BIND_NOW, Build.DYNAMIC, loader=3)
    found = matrix_of([run, guest(MUSL), guest(GLIBC, architecture="aarch64")])
    table = tables.links(found.comparison, labels.labels(found.comparison.runs))
    assert table is not None
    assert table.programs() == [(Build.DYNAMIC, 3), (Build.BIND_NOW, 3)]
    assert row(table, GLIBC) == ["82", "6✓", "256✓", "85", "6·", "256✓"]
    assert row(table, MUSL)[3:] == ["", "", ""]
    assert "Other ways to link" in in_html(found)
    assert "## Other ways to link" in markdown.render(found, "id")


def with_finding() -> Matrix:
    return matrix_of([*synthetic.matrix(), synthetic.with_memset(guest(GLIBC, architecture="armv7l"), 300)])


def test_findings_stand_on_top_everywhere() -> None:
    found = with_finding()
    line = "glibc-2.41-armv7l: faultprobe, memset: 300 seen, 256 predicted"
    assert in_terminal(found).splitlines()[1].strip() == line
    written_page = in_html(found)
    assert written_page.index(line) < written_page.index("<main>")
    published = markdown.render(found, "id")
    assert published.index(f"- {line}") < published.index("## Page faults of each step")
    assert json.loads(data.to_json(found))["verdict"] == "not-as-predicted"


class Checked(HTMLParser):
    """Collects what a page fetches, its ids, and whether every element is closed."""

    VOID = ("meta", "br", "path")

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.fetched += [f"{tag} {found[key]}" for key in ("src", "data", "srcset") if key in found]
        self.fetched += [str(found["href"])] if not str(found.get("href", "#")).startswith("#") else []
        self.ids += [str(found["id"])] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(matrix: Matrix) -> None:
    checked = Checked()
    checked.feed(in_html(matrix))
    assert (checked.fetched, checked.open) == ([], [])
    assert len(checked.ids) == len(set(checked.ids))
    assert {"counts", "maps", "series", "axes", "bills", "rules", "facts", "origin"} <= set(checked.ids)


def test_the_page_names_every_guest_and_where_it_comes_from(matrix: Matrix) -> None:
    written_page = in_html(matrix)
    for run in matrix.comparison.runs:
        assert f'<th scope="row">{run.guest.name}</th>' in written_page
        assert run.image.key in written_page
    assert "0123456789abcdef0123456789abcdef01234567" in written_page


def test_the_same_result_gives_the_same_bytes_in_any_order(matrix: Matrix) -> None:
    again = matrix_of(synthetic.matrix())
    assert markdown.render(again, "id") == markdown.render(matrix, "id")
    assert data.to_json(again) == data.to_json(matrix)
    assert in_html(again) == in_html(matrix)


def test_markdown_has_images_and_commit_and_tables_of_one_width(matrix: Matrix) -> None:
    published = markdown.render(matrix, "20260101T000000Z-0000")
    assert "0123456789abcdef0123456789abcdef01234567" in published
    assert all(run.image.key in published for run in matrix.comparison.runs)
    for block in published.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1
    assert "## Findings" not in published


def test_two_guests_keep_the_report_of_a_pair(tmp_path: Path) -> None:
    pair = written(tmp_path / "pair", [guest(GLIBC), guest(MUSL)])
    assert not (pair.path / "matrix.json").exists()
    assert "Who touched which page" in pair.report.read_text()
    three = written(tmp_path / "three", [guest(GLIBC), guest(MUSL), guest(GLIBC, architecture="aarch64")])
    assert [each["axis"] for each in json.loads((three.path / "matrix.json").read_bytes())["pairs"]] == [
        "libc",
        "architecture",
        "linking",
        "linking",
        "linking",
    ]
    assert "Architecture by libc" in three.report.read_text()


def test_one_command_writes_the_results_as_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = written(tmp_path / "20260101T000000Z-0000", synthetic.matrix())
    monkeypatch.setattr("lab.commands.report.store.load", lambda which: result)
    assert cli.main(["report", "--markdown", str(tmp_path / "results.md")]) == 0
    first = (tmp_path / "results.md").read_text()
    assert first.startswith("# Results: the matrix as measured\n")
    assert "result `20260101T000000Z-0000`" in first
    assert str(paths.REPOSITORY) not in first
    assert cli.main(["report", "--markdown", str(tmp_path / "results.md")]) == 0
    assert (tmp_path / "results.md").read_text() == first
    assert "What changes with the libc: 6 pairs" in capsys.readouterr().out


def test_the_verdict_of_a_matrix_counts_its_pairs(tmp_path: Path) -> None:
    other = synthetic.without_prediction(synthetic.with_memset(guest(GLIBC, architecture="s390x"), 512))
    other["probe"]["experiments"][0].update(ledger=None, ledger_refused="not allowed")
    result = written(tmp_path / "result", [guest(GLIBC), guest(MUSL), other])
    found = pairs.matrix(comparison.compare(result.runs()))
    assert (found.comparison.verdict(), reporting.verdict(found)) == (0, 1)
