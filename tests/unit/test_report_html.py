"""The HTML report: complete, self-contained, the same every time, and safe with any text in a run."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from lab.report import html
from lab.results import comparison
from lab.results.document import GuestRun
from lab.results.store import Result

GOLDEN = Path(__file__).parent.parent / "golden" / "lazy-malloc"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """What the tests ask of a page; every element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(result: Result | None = None, runs: tuple[GuestRun, ...] | None = None) -> str:
    result = result or Result(GOLDEN)
    return html.render(comparison.compare(runs or result.runs()), result)


@pytest.fixture(scope="module")
def parsed() -> Page:
    return Page(page())


def test_the_same_runs_give_the_same_bytes() -> None:
    assert page() == page()


def test_nothing_is_fetched(parsed: Page) -> None:
    outside = [
        (tag, name, value)
        for tag, attributes in parsed.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "action", "data")
        and not (value or "").startswith("#")
    ]
    assert outside == []
    assert [tag for tag, _ in parsed.elements if tag in ("script", "link", "iframe", "img", "object")] == []
    assert "@import" not in page()
    assert "url(http" not in page()


def test_the_sections_are_there_in_order(parsed: Page) -> None:
    sections = [attributes["id"] for attributes in parsed.all("section")]
    assert sections == [
        "why",
        "counts",
        "causes",
        "start",
        "rules",
        "transcripts",
        "aslr",
        "certificate",
        "facts",
        "origin",
    ]


def test_the_answer_is_the_heading(parsed: Page) -> None:
    assert (
        "The first memset of 1 MiB costs 256 page faults on glibc 2.41 and 255 on musl 1.2.5." in parsed.text
    )
    assert len(parsed.all("h1")) == 1


def test_every_table_has_headers_with_a_scope(parsed: Page) -> None:
    assert len(parsed.all("table")) == 9
    assert [attributes for attributes in parsed.all("th") if "scope" not in attributes] == []


def test_every_picture_has_a_name(parsed: Page) -> None:
    pictures = [attributes for _, attributes in parsed.elements if attributes.get("role") == "img"]
    assert len(pictures) == 3
    assert [each for each in pictures if not (each.get("aria-label") or each.get("aria-labelledby"))] == []


def test_ids_are_unique_and_references_resolve(parsed: Page) -> None:
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    named = {
        name
        for _, attributes in parsed.elements
        for key in ("aria-labelledby", "aria-describedby")
        for name in (attributes.get(key) or "").split()
    }
    assert named <= set(ids)


def test_it_is_made_for_phones_print_and_dark_rooms() -> None:
    text = page()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "@media print" in text
    assert "prefers-color-scheme: dark" in text


def test_what_differs_is_marked_in_words_too(parsed: Page) -> None:
    assert "libc (differs)" in " ".join(parsed.text.split())
    assert "page size (differs)" not in " ".join(parsed.text.split())


def test_transcripts_and_rules_are_shown(parsed: Page) -> None:
    assert parsed.text.count("After second memset\nMajor page faults 0\n") == 4
    assert "sysmalloc_mmap" in parsed.text


def test_deviations_are_shown() -> None:
    image = msgspec.structs.replace(
        Result(GOLDEN).runs()[0].image, deviations=("libffi 3.4.4-1: 3.4.4-2 from the mirror",)
    )
    run = msgspec.structs.replace(Result(GOLDEN).runs()[0], image=image)
    assert "libffi 3.4.4-1: 3.4.4-2 from the mirror" in Page(page(runs=(run,))).text


def test_a_finding_stands_on_top(tmp_path: Path) -> None:
    runs = Result(GOLDEN).runs()
    certificate = msgspec.structs.replace(runs[0].probe.certificate, idle_rise_minor=2)
    probe = msgspec.structs.replace(runs[0].probe, certificate=certificate)
    text = Page(page(runs=(msgspec.structs.replace(runs[0], probe=probe), runs[1]))).text
    said = " ".join(text[: text.index("Counts")].split())
    assert "1 finding: not as predicted, or not accounted for." in said
    assert "glibc-2.41-x86_64: 1000 idle readings: 2 seen, 0 predicted" in said


def test_text_from_a_guest_is_never_markup(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "result")
    evil = "<script>alert(1)</script>"
    transcript = tmp_path / "result" / "transcripts" / "musl-1.2.5-x86_64-pagefault-demo.txt"
    transcript.write_text(evil)
    runs = Result(GOLDEN).runs()
    facts = msgspec.structs.replace(runs[0].probe.facts, cpu_model=evil)
    evil_probe = msgspec.structs.replace(runs[0].probe, facts=facts)
    evil_guest = msgspec.structs.replace(runs[0].guest, name=evil)
    first = msgspec.structs.replace(runs[0], probe=evil_probe, guest=evil_guest)
    made = Page(page(Result(tmp_path / "result"), (first, runs[1])))
    assert made.all("script") == []
    assert made.text.count(evil) >= 3


def test_runs_without_demonstration_and_calibration() -> None:
    bare = tuple(
        msgspec.structs.replace(
            run, demonstrations={}, aslr=None, probe=msgspec.structs.replace(run.probe, experiments=())
        )
        for run in Result(GOLDEN).runs()
    )
    text = " ".join(Page(page(runs=bare)).text.split())
    assert "The demonstration was not run." in text
    assert "No calibration was stored with these runs." in text


def _luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("block", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_can_be_read_against_its_ground(block: int) -> None:
    # WCAG 2: 4.5 to 1 for text. A later block changes some of the first one's colours.
    blocks = re.findall(r":root \{(.*?)\}", page(), re.DOTALL)
    colours: dict[str, str] = {}
    for each in blocks[:1] if block != 1 else blocks[:2]:
        colours.update(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", each))
    if block == 2:
        short = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", blocks[2]))
        colours.update(
            {name: c if len(c) == 7 else "#" + "".join(x * 2 for x in c[1:]) for name, c in short.items()}
        )
    pairs = [(name, "paper") for name in ("ink", "quiet", "malloc", "memset", "good", "bad")]
    pairs += [("on-malloc", "malloc"), ("on-memset", "memset"), ("ink", "raised")]
    ratios = {}
    for text, ground in pairs:
        low, high = sorted((_luminance(colours[text]), _luminance(colours[ground])))
        ratios[text, ground] = (high + 0.05) / (low + 0.05)
    assert {pair: round(ratio, 2) for pair, ratio in ratios.items() if ratio < 4.5} == {}
