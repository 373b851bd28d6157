"""The matrix: what may be declared, one clear line for what may not, and how guests are selected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import matrix
from lab.errors import MatrixError, UnknownGuest
from lab.matrix import Box, Guest, Matrix

ENTRY: dict[str, Any] = {
    "libc": "glibc",
    "libc_version": "2.41",
    "architecture": "x86_64",
    "page_size": 4096,
    "suite": "trixie",
}

Absent = object()


def written(folder: Path, content: object) -> Path:
    path = folder / "guests.yml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def loaded(folder: Path, **changes: Any) -> Guest:
    """The one guest `g` declared as ENTRY with these changes; a key that is Absent is left out."""
    entry = {key: value for key, value in (ENTRY | changes).items() if value is not Absent}
    (guest,) = matrix.load(written(folder, {"guests": {"hosts": {"g": entry}}})).guests
    return guest


def refused(folder: Path, content: object) -> str:
    with pytest.raises(MatrixError) as caught:
        matrix.load(written(folder, content))
    return str(caught.value)


def test_a_declared_guest_is_read_with_its_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path) == Guest(
        name="g",
        libc="glibc",
        libc_version="2.41",
        architecture="x86_64",
        page_size=4096,
        suite="trixie",
        kernel="6.12",
        provider="qemu",
        memory_mib=512,
        cpus=1,
        vagrant=None,
        ansible_host=None,
        ansible_port=None,
        ansible_user="root",
    )


def test_every_optional_key_is_read(tmp_path: Path) -> None:
    guest = loaded(
        tmp_path,
        provider="ssh",
        memory_mib=1024,
        cpus=1,
        vagrant={"box": "a/b", "box_version": "1.0"},
        ansible_host="192.0.2.1",
        ansible_port=2222,
        ansible_user="student",
        ansible_ssh_private_key_file="~/.ssh/a board",
    )
    assert (guest.provider, guest.memory_mib, guest.cpus) == ("ssh", 1024, 1)
    assert guest.vagrant == Box("a/b", "1.0")
    assert (guest.ansible_host, guest.ansible_port, guest.ansible_user) == ("192.0.2.1", 2222, "student")
    assert guest.ansible_ssh_private_key_file == "~/.ssh/a board"


ARCHITECTURES = "x86_64, i686, aarch64, armv7l, riscv64, ppc64le, s390x, loongarch64"
VERSION = 'a version in quotes, such as "2.41"'
BOX = "a mapping with box: OWNER/NAME and box_version: TEXT, and perhaps libc_version: TEXT"


@pytest.mark.parametrize(
    ("key", "value", "found", "allowed"),
    [
        ("libc", "uclibc", "'uclibc' is not allowed", "glibc, musl"),
        ("libc", Absent, "is missing", "glibc, musl"),
        ("libc_version", 2.41, "2.41 is not allowed", VERSION),
        ("libc_version", "new", "'new' is not allowed", VERSION),
        ("libc_version", Absent, "is missing", VERSION),
        ("architecture", "amd64", "'amd64' is not allowed", ARCHITECTURES),
        ("architecture", ["x86_64"], "['x86_64'] is not allowed", ARCHITECTURES),
        ("page_size", 4096.0, "4096.0 is not allowed", "4096 on x86_64 with provider qemu"),
        ("page_size", 16384, "16384 is not allowed", "4096 on x86_64 with provider qemu"),
        ("page_size", True, "True is not allowed", "4096 on x86_64 with provider qemu"),
        ("suite", "sid", "'sid' is not allowed", "bullseye, bookworm, trixie, forky"),
        ("kernel", "6.13", "'6.13' is not allowed", "5.10, 6.1, 6.12, 6.16, 6.17, 6.18, 7.2, 7.3"),
        ("libc_version", "2.36", "'2.36' is not allowed", '"2.41", the glibc of trixie'),
        ("provider", "docker", "'docker' is not allowed", "qemu, vagrant, ssh"),
        ("memory_mib", 64, "64 is not allowed", "a whole number from 128 to 65536"),
        ("memory_mib", "512", "'512' is not allowed", "a whole number from 128 to 65536"),
        ("cpus", True, "True is not allowed", "a whole number from 1 to 64"),
        ("ansible_port", 70000, "70000 is not allowed", "a whole number from 1 to 65535"),
        ("ansible_user", "two words", "'two words' is not allowed", "a user name"),
        ("ansible_host", "", "'' is not allowed", "a host name or address"),
        ("vagrant", "a/b", "'a/b' is not allowed", BOX),
        ("vagrant", {"box": "a/b"}, "{'box': 'a/b'} is not allowed", BOX),
        ("vagrant", {"box": "a/b", "version": "1"}, "{'box': 'a/b', 'version': '1'} is not allowed", BOX),
        ("vagrant", {"box": "a/b", "box_version": 1}, "{'box': 'a/b', 'box_version': 1} is not allowed", BOX),
    ],
)
def test_a_wrong_value_gets_guest_key_value_and_what_is_allowed(
    tmp_path: Path, key: str, value: object, found: str, allowed: str
) -> None:
    with pytest.raises(MatrixError) as caught:
        loaded(tmp_path, **{key: value})
    assert str(caught.value) == f"inventory/guests.yml: guest g: {key}: {found}; allowed: {allowed}"


def test_a_box_may_have_a_libc_version_of_its_own(tmp_path: Path) -> None:
    box = {"box": "a/b", "box_version": "1", "libc_version": "1.2.4"}
    guest = loaded(tmp_path, vagrant=box)
    assert guest.vagrant == Box("a/b", "1", "1.2.4")
    with pytest.raises(MatrixError) as caught:
        loaded(tmp_path, vagrant=box | {"libc_version": "newest"})
    assert str(caught.value) == (
        "inventory/guests.yml: guest g: vagrant: libc_version: 'newest' is not allowed; "
        'allowed: a version in quotes, such as "1.2.4"'
    )


def test_a_guest_reached_by_ssh_needs_a_host(tmp_path: Path) -> None:
    with pytest.raises(
        MatrixError, match="guest g: ansible_host: is missing; allowed: a host name or address"
    ):
        loaded(tmp_path, provider="ssh")


def a_machine(folder: Path, **changes: Any) -> Guest:
    return loaded(folder, **({"provider": "ssh", "ansible_host": "h", "suite": Absent} | changes))


@pytest.mark.parametrize(
    ("libc", "version", "suite"),
    [
        ("glibc", "2.41", "trixie"),
        ("glibc", "2.40", "bookworm"),
        ("glibc", "2.100", "forky"),
        ("glibc", "2.28", "bullseye"),
        ("musl", "1.2.4", "bookworm"),
        ("musl", "1.1.24", "bullseye"),
    ],
)
def test_a_machine_that_is_there_has_the_nearest_suite(
    tmp_path: Path, libc: str, version: str, suite: str
) -> None:
    assert a_machine(tmp_path, libc=libc, libc_version=version).suite == suite


def test_a_machine_that_is_there_may_name_another_suite_and_any_kernel(tmp_path: Path) -> None:
    assert a_machine(tmp_path, suite="bookworm").suite == "bookworm"
    assert (a_machine(tmp_path).kernel, a_machine(tmp_path, kernel="6.6").kernel) == ("any", "6.6")
    with pytest.raises(MatrixError, match=r"kernel: 6\.6 is not allowed; allowed: a series in quotes"):
        a_machine(tmp_path, kernel=6.6)


def test_a_guest_that_the_lab_builds_needs_a_suite(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="suite: is missing"):
        loaded(tmp_path, suite=Absent)


def test_a_misspelt_key_is_told_before_what_it_leaves_missing(tmp_path: Path) -> None:
    with pytest.raises(MatrixError) as caught:
        loaded(tmp_path, libc=Absent, lib="glibc")
    assert str(caught.value) == (
        "inventory/guests.yml: guest g: lib: 'glibc': there is no such key; "
        "allowed: libc (did you mean that?)"
    )


def test_a_strange_key_gets_the_list_of_keys(tmp_path: Path) -> None:
    with pytest.raises(
        MatrixError, match=r"there is no such key; allowed: libc, libc_version, architecture, "
    ):
        loaded(tmp_path, zzz=1)


@pytest.mark.parametrize("name", ["Big", "two words", "all", "x-", 7])
def test_a_wrong_name_is_refused(tmp_path: Path, name: object) -> None:
    assert refused(tmp_path, {"guests": {"hosts": {name: ENTRY}}}) == (
        f"inventory/guests.yml: guest {name}: name: {name!r} is not allowed; "
        "allowed: lower-case letters, digits and - . _ between them, and not all"
    )


@pytest.mark.parametrize(
    "content", ["", "[]", "guests: []", "guests: {hosts: }", "guests: {hosts: {}}", "a: b"]
)
def test_a_file_without_guests_is_refused(tmp_path: Path, content: str) -> None:
    assert refused(tmp_path, content) == (
        "inventory/guests.yml: no guests are declared; declare them below guests: hosts:"
    )


def test_an_entry_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "guests: {hosts: {g: glibc}}").startswith(
        "inventory/guests.yml: guest g: entry: 'glibc' is not allowed; allowed: a mapping of keys"
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            "guests:\n  hosts:\n    g: {libc: glibc\n",
            "line 4, column 1: expected ',' or '}', but got '<stream end>'",
        ),
        ("guests:\n  hosts: 'open\n", "line 3, column 1: found unexpected end of stream"),
        ("guests:\n\thosts: x\n", "line 2, column 1: found character '\\t' that cannot start any token"),
        ("guests:\n  hosts:\n    g: {}\n    h: {}\n    g: {}\n", "line 5, column 5: g stands twice"),
        ("guests:\n  hosts:\n    g: {libc: glibc, libc: musl}\n", "line 3, column 22: libc stands twice"),
    ],
)
def test_malformed_yaml_gets_its_line(tmp_path: Path, content: str, line: str) -> None:
    assert refused(tmp_path, content) == f"inventory/guests.yml: {line}; mend the YAML"


def test_bytes_that_are_no_text_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "guests.yml"
    path.write_bytes(b"guests:\n  hosts: \xff\xfe\n")
    with pytest.raises(
        MatrixError, match=r"^inventory/guests\.yml: .*invalid start byte.*; mend the YAML$"
    ) as caught:
        matrix.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(MatrixError) as caught:
        matrix.load(tmp_path / "guests.yml")
    assert str(caught.value) == (
        f"inventory/guests.yml: No such file or directory: {tmp_path}/guests.yml; restore it from git"
    )


@pytest.fixture
def four(tmp_path: Path) -> Matrix:
    hosts = {
        f"{libc}-{architecture}": ENTRY
        | {
            "libc": libc,
            "architecture": architecture,
            "libc_version": {"glibc": "2.41", "musl": "1.2.5"}[libc],
        }
        for architecture in ("x86_64", "aarch64")
        for libc in ("glibc", "musl")
    }
    return matrix.load(written(tmp_path, {"guests": {"hosts": hosts}}))


def names(guests: tuple[Guest, ...]) -> list[str]:
    return [guest.name for guest in guests]


@pytest.mark.parametrize(
    ("wanted", "host", "selected"),
    [
        (None, "x86_64", ["glibc-x86_64", "musl-x86_64"]),
        (" ", "aarch64", ["glibc-aarch64", "musl-aarch64"]),
        ("", "riscv64", ["glibc-x86_64", "musl-x86_64"]),
        ("all", "x86_64", ["glibc-x86_64", "musl-x86_64", "glibc-aarch64", "musl-aarch64"]),
        ("musl-x86_64 all", "x86_64", ["glibc-x86_64", "musl-x86_64", "glibc-aarch64", "musl-aarch64"]),
        ("musl-x86_64", "aarch64", ["musl-x86_64"]),
        ("musl-x86_64,glibc-x86_64  musl-x86_64", "x86_64", ["musl-x86_64", "glibc-x86_64"]),
    ],
)
def test_selection(four: Matrix, wanted: str | None, host: str, selected: list[str]) -> None:
    assert names(four.select(wanted, host)) == selected


def test_an_unknown_guest_gets_a_suggestion(four: Matrix) -> None:
    with pytest.raises(UnknownGuest) as caught:
        four.select("glibc-x86-64")
    assert str(caught.value) == (
        "inventory/guests.yml: no guest is called 'glibc-x86-64'; did you mean glibc-x86_64?"
    )


def test_a_name_like_no_other_gets_the_list(four: Matrix) -> None:
    with pytest.raises(UnknownGuest) as caught:
        four.select("all zzz")
    assert str(caught.value) == (
        "inventory/guests.yml: no guest is called 'zzz'; "
        "declared are: glibc-x86_64, musl-x86_64, glibc-aarch64, musl-aarch64, or all"
    )


def test_the_repositorys_own_matrix_has_a_pair_of_libcs_for_each_architecture() -> None:
    declared = matrix.load()
    for architecture in ("x86_64", "aarch64"):
        pair = declared.default(architecture)
        assert sorted(guest.libc for guest in pair) == ["glibc", "musl"]
        assert {guest.architecture for guest in pair} == {architecture}
