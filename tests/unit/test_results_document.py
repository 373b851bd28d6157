"""The file boundary: what is read, and the one line a bad file gets."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab.errors import BadDocument
from lab.results import document, ledger, mirror, phasemaps

ROOT = Path(__file__).parent.parent.parent
RUN_FILE = ROOT / "tests" / "golden" / "without-ledgers" / "runs" / "glibc-2.41-x86_64.json"


def stored() -> Any:
    return json.loads(RUN_FILE.read_bytes())


FAULTPROBE = ROOT / "lab" / "faultprobe" / "src" / "faultprobe"


def fields_of(module: str, name: str) -> set[str]:
    """The fields a class of faultprobe's declares, from its source: the lab never imports the package."""
    tree = ast.parse((FAULTPROBE / f"{module}.py").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = classes[name]
    own = {ast.unparse(node.target) for node in found.body if isinstance(node, ast.AnnAssign)}
    bases = [ast.unparse(base) for base in found.bases]
    return own.union(*(fields_of(module, base) for base in bases if base in classes))


def schema_version(module: str) -> int:
    text = (FAULTPROBE / f"{module}.py").read_text()
    found = re.search(r"^(?:RUN_)?SCHEMA_VERSION = (\d+)$", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(
    ("module", "theirs", "ours"),
    [
        ("document", "Run", mirror.ProbeRun),
        ("document", "ProbeIdentity", mirror.ProbeIdentity),
        ("document", "Facts", mirror.Facts),
        ("document", "Libc", mirror.Libc),
        ("document", "Thp", mirror.Thp),
        ("document", "Aslr", mirror.Aslr),
        ("document", "Overcommit", mirror.Overcommit),
        ("document", "Limit", mirror.Limit),
        ("document", "Rlimits", mirror.Rlimits),
        ("document", "Ancestor", mirror.Ancestor),
        ("document", "Python", mirror.Python),
        ("document", "Certificate", mirror.Certificate),
        ("document", "Costs", mirror.Costs),
        ("document", "Cost", mirror.Cost),
        ("document", "Experiment", mirror.Experiment),
        ("document", "Parameters", mirror.Parameters),
        ("document", "Phase", mirror.Phase),
        ("document", "Details", mirror.Details),
        ("document", "PageRun", mirror.PageRun),
        ("document", "FunctionPlace", mirror.FunctionPlace),
        ("ledger/schema", "MeasuredLedger", ledger.MeasuredLedger),
        ("ledger/schema", "PhaseLedger", ledger.PhaseLedger),
        ("ledger/schema", "CauseLine", ledger.CauseLine),
        ("ledger/schema", "BillLine", ledger.BillLine),
        ("ledger/schema", "CodeLine", ledger.CodeLine),
        ("ledger/schema", "UntrappedLine", ledger.UntrappedLine),
        ("ledger/schema", "Verdict", ledger.Verdict),
        ("ledger/schema", "Totals", ledger.Totals),
        ("ledger/schema", "ImageLine", ledger.ImageLine),
        ("ledger/schema", "Ledger", ledger.Ledger),
        ("ledger/walks", "PhaseFaults", phasemaps.PhaseFaults),
        ("ledger/walks", "FaultWalk", phasemaps.FaultWalk),
        ("ledger/walks", "FaultKind", phasemaps.FaultKind),
        ("memorymap/schema", "PhaseMaps", phasemaps.PhaseMaps),
        ("memorymap/schema", "MappingState", phasemaps.MappingState),
        ("aslrmodel", "AslrReport", mirror.AslrReport),
        ("aslrmodel", "Observation", mirror.Observation),
        ("aslrmodel", "Prediction", mirror.ResiduePrediction),
        ("aslrmodel", "StackRange", mirror.StackRange),
        ("aslrmodel", "HeapRange", mirror.HeapRange),
    ],
)
def test_the_mirror_reads_only_fields_that_faultprobe_writes(
    module: str, theirs: str, ours: type[msgspec.Struct]
) -> None:
    # Fields that faultprobe has beside these are kept in the stored run, unread.
    assert {field.encode_name for field in msgspec.structs.fields(ours)} - fields_of(module, theirs) == set()


@pytest.mark.parametrize(
    ("module", "ours"),
    [
        ("version", mirror.SCHEMA_VERSION),
        ("aslr", document.SCHEMA_VERSION),
        ("memorymap/schema", document.MAPS_VERSION),
    ],
)
def test_the_mirror_reads_the_same_schema_version(module: str, ours: int) -> None:
    assert schema_version(module) == ours


def test_the_mirror_reads_the_same_schema_version_of_ledgers() -> None:
    assert schema_version("ledger/schema") == ledger.SCHEMA_VERSION


def test_a_stored_run_is_read() -> None:
    run = document.read_run(RUN_FILE)
    assert (run.guest.name, run.probe.facts.libc.version, run.probe.facts.page_size_bytes) == (
        "glibc-2.41-x86_64",
        "2.41",
        4096,
    )
    assert [phase.rise_minor for phase in run.probe.experiments[0].phases] == [0, 1, 256, 0]
    assert run.probe.certificate.cost.process.ratio == 1.026


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (["schema_version"], 2, "schema_version: is 2, this lab reads 1"),
        (["probe", "schema_version"], 7, "probe: schema_version: is 7, this lab reads 1"),
        (["aslr", "schema_version"], 0, "aslr: schema_version: is 0, this lab reads 1"),
        (
            ["probe", "facts", "page_size_bytes"],
            "4096",
            "probe.facts.page_size_bytes: Expected `int`, got `str`",
        ),
        (["probe", "facts", "libc"], None, "probe.facts.libc: Expected `object`, got `null`"),
        (["probe", "experiments", 0, "phases", 1, "minor"], True, "minor: Expected `int`, got `bool`"),
        (["guest"], [], "guest: Expected `object`, got `array`"),
    ],
)
def test_a_bad_field_is_named_with_its_file(path: list[Any], value: Any, line: str) -> None:
    data = stored()
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(BadDocument) as caught:
        document.parse_run(json.dumps(data).encode(), "runs/a.json")
    assert str(caught.value).startswith("runs/a.json: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    data = stored()
    del data["probe"]["facts"]["thp"]
    with pytest.raises(BadDocument, match=r"runs/a\.json: probe\.facts: Object missing required field `thp`"):
        document.parse_run(json.dumps(data).encode(), "runs/a.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}"])
def test_what_is_no_document_at_all(data: bytes) -> None:
    with pytest.raises(BadDocument, match=r"^runs/a\.json: "):
        document.parse_run(data, "runs/a.json")


def envelope(probe: Any, **changes: Any) -> bytes:
    data = stored()
    return document.envelope(
        guest=changes.get("guest", data["guest"]),
        image=document.ImageIdentity("key", "6.12", ("libffi: newer",)),
        provisioned_key="provisioned",
        commit=document.Commit("abc", True),
        accelerator="tcg",
        probe=json.dumps(probe).encode(),
        demonstrations={},
        aslr=None,
        traces=changes.get("traces", {}),
        plain=[json.dumps(each).encode() for each in changes.get("plain", [])],
    )


def test_the_envelope_keeps_what_the_probe_said_even_what_we_do_not_know() -> None:
    probe = stored()["probe"] | {"a later field": [1, 2]}
    kept = json.loads(envelope(probe))
    assert kept["probe"] == probe
    assert kept["image"] == {"key": "key", "kernel_release": "6.12", "deviations": ["libffi: newer"]}


def test_what_was_measured_with_nobody_looking_on_is_kept_and_its_version_checked() -> None:
    probe = stored()["probe"]
    written = envelope(probe, plain=[probe, probe | {"created": "later"}])
    assert [each.created for each in document.parse_run(written, "a").plain] == [probe["created"], "later"]
    with pytest.raises(BadDocument, match=r"the run of .*: probe: schema_version: is 99"):
        envelope(probe, plain=[probe | {"schema_version": 99}])


def test_the_envelope_refuses_what_cannot_be_read_again() -> None:
    probe = stored()["probe"]
    del probe["certificate"]
    with pytest.raises(
        BadDocument, match=r"faultprobe on glibc-2\.41-x86_64: Object missing required field `certificate`"
    ):
        envelope(probe)
    with pytest.raises(BadDocument, match="the run of nobody: guest: Object missing required field `libc`"):
        envelope(stored()["probe"], guest={"name": "nobody"})
