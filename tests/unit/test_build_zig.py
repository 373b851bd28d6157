"""The targets and surroundings of the cross compiler."""

from pathlib import Path

import pytest

from lab.build import zig
from lab.errors import BuildFailed


def test_targets_name_interpreter_and_tag_as_distributions_do() -> None:
    named = {
        (architecture, libc): (found.triple, found.interpreter, found.platform_tag)
        for architecture in ("x86_64", "aarch64")
        for libc in ("glibc", "musl")
        for found in [zig.target(architecture, libc)]
    }
    assert named == {
        ("x86_64", "glibc"): (
            "x86_64-linux-gnu.2.17",
            "/lib64/ld-linux-x86-64.so.2",
            "manylinux_2_17_x86_64",
        ),
        ("aarch64", "glibc"): (
            "aarch64-linux-gnu.2.17",
            "/lib/ld-linux-aarch64.so.1",
            "manylinux_2_17_aarch64",
        ),
        ("x86_64", "musl"): ("x86_64-linux-musl", "/lib/ld-musl-x86_64.so.1", "musllinux_1_2_x86_64"),
        ("aarch64", "musl"): ("aarch64-linux-musl", "/lib/ld-musl-aarch64.so.1", "musllinux_1_2_aarch64"),
    }


@pytest.mark.parametrize(("architecture", "libc"), [("vax", "glibc"), ("x86_64", "uclibc")])
def test_an_unknown_target_is_one_clear_line(architecture: str, libc: str) -> None:
    with pytest.raises(BuildFailed) as error:
        zig.target(architecture, libc)
    assert str(error.value) == (
        f"nothing is cross-built for {libc} on {architecture}; known: x86_64, aarch64; glibc, musl"
    )


def test_flags_are_the_same_for_every_target() -> None:
    commands = [
        zig.compiler(zig.target(a, libc)) for a in ("x86_64", "aarch64") for libc in ("glibc", "musl")
    ]
    without_triples = [[word for word in command if "-linux-" not in word] for command in commands]
    assert without_triples == [without_triples[0]] * 4


def test_nothing_of_the_user_gets_into_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("CPATH", "CFLAGS", "LIBRARY_PATH", "PYTHONPATH", "ZIG_LIB_DIR", "HOME"):
        monkeypatch.setenv(name, "/somewhere")
    cache = tmp_path / "zig"
    found = zig.environment(cache, python_path=[tmp_path / "a", tmp_path / "b"])
    del found["PATH"]
    assert found == {
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache),
        "PYTHONPATH": f"{tmp_path}/a:{tmp_path}/b",
    }
    assert cache.is_dir()
