"""The targets and surroundings of the cross compiler."""

from pathlib import Path

import pytest

from lab.architectures import ARCHITECTURES
from lab.build import zig
from lab.errors import BuildFailed
from lab.images.musl import toolchain


def test_glibc_targets_name_interpreter_and_tag_as_distributions_do() -> None:
    found = [zig.target(architecture, "glibc") for architecture in ARCHITECTURES]
    assert [(each.triple, each.interpreter, each.platform_tag) for each in found] == [
        ("x86_64-linux-gnu.2.17", "/lib64/ld-linux-x86-64.so.2", "manylinux_2_17_x86_64"),
        ("x86-linux-gnu.2.17", "/lib/ld-linux.so.2", "manylinux_2_17_i686"),
        ("aarch64-linux-gnu.2.17", "/lib/ld-linux-aarch64.so.1", "manylinux_2_17_aarch64"),
        ("arm-linux-gnueabihf.2.17", "/lib/ld-linux-armhf.so.3", "manylinux_2_17_armv7l"),
        ("riscv64-linux-gnu.2.31", "/lib/ld-linux-riscv64-lp64d.so.1", "manylinux_2_31_riscv64"),
        ("powerpc64le-linux-gnu.2.19", "/lib64/ld64.so.2", "manylinux_2_17_ppc64le"),
        ("s390x-linux-gnu.2.17", "/lib/ld64.so.1", "manylinux_2_17_s390x"),
        (
            "loongarch64-linux-gnu.2.36",
            "/lib64/ld-linux-loongarch-lp64d.so.1",
            "manylinux_2_36_loongarch64",
        ),
    ]


def test_musl_targets_name_interpreter_and_tag_as_distributions_do() -> None:
    found = [zig.target(architecture, "musl") for architecture in ARCHITECTURES]
    assert [(each.triple, each.interpreter, each.platform_tag) for each in found] == [
        ("x86_64-linux-musl", "/lib/ld-musl-x86_64.so.1", "musllinux_1_2_x86_64"),
        ("x86-linux-musl", "/lib/ld-musl-i386.so.1", "musllinux_1_2_i686"),
        ("aarch64-linux-musl", "/lib/ld-musl-aarch64.so.1", "musllinux_1_2_aarch64"),
        ("arm-linux-musleabihf", "/lib/ld-musl-armhf.so.1", "musllinux_1_2_armv7l"),
        ("riscv64-linux-musl", "/lib/ld-musl-riscv64.so.1", "musllinux_1_2_riscv64"),
        ("powerpc64le-linux-musl", "/lib/ld-musl-powerpc64le.so.1", "musllinux_1_2_ppc64le"),
        ("s390x-linux-musl", "/lib/ld-musl-s390x.so.1", "musllinux_1_2_s390x"),
        ("loongarch64-linux-musl", "/lib/ld-musl-loongarch64.so.1", "musllinux_1_2_loongarch64"),
    ]


def test_debian_keeps_a_32_bit_x86_in_two_folders() -> None:
    for libc, multiarch in (("glibc", "i386-linux-gnu"), ("musl", "i386-linux-musl")):
        found = zig.target("i686", libc)
        assert (found.multiarch, found.debian_triple) == (multiarch, "i686-linux-gnu")


def test_a_wheel_asks_for_musl_by_the_name_alpine_gives_it() -> None:
    names = {each: zig.target(each, "musl").libraries[-1] for each in ("x86_64", "i686", "armv7l", "s390x")}
    assert names == {
        "x86_64": "libc.musl-x86_64.so.1",
        "i686": "libc.musl-x86.so.1",
        "armv7l": "libc.musl-armv7.so.1",
        "s390x": "libc.musl-s390x.so.1",
    }


def test_no_wheel_promises_an_older_glibc_than_its_symbols_have() -> None:
    for architecture in ARCHITECTURES:
        found = zig.target(architecture, "glibc")
        assert found.platform_tag == f"manylinux_{found.glibc_version.replace('.', '_')}_{architecture}"
        # The oldest glibc of a guest.
        oldest = (2, 43) if architecture == "loongarch64" else (2, 31)
        assert tuple(map(int, found.glibc_version.split("."))) <= oldest


def test_userland_and_programs_agree_on_the_loader() -> None:
    for architecture in ARCHITECTURES:
        userland = toolchain.target(architecture)
        program = zig.target(architecture, "musl")
        assert f"/lib/{userland.loader}" == program.interpreter
        assert (userland.triple, userland.zig) == (program.multiarch, program.triple)


@pytest.mark.parametrize(("architecture", "libc"), [("vax", "glibc"), ("x86_64", "uclibc")])
def test_an_unknown_target_is_one_clear_line(architecture: str, libc: str) -> None:
    with pytest.raises(BuildFailed) as error:
        zig.target(architecture, libc)
    assert str(error.value) == (
        f"nothing is cross-built for {libc} on {architecture}; "
        "known: x86_64, i686, aarch64, armv7l, riscv64, ppc64le, s390x, loongarch64; glibc, musl"
    )


def test_flags_are_the_same_for_every_target_but_one() -> None:
    flags = {
        (architecture, libc): [
            word for word in zig.compiler(zig.target(architecture, libc)) if "-linux-" not in word
        ]
        for architecture in ARCHITECTURES
        for libc in ("glibc", "musl")
    }
    ordinary = flags["x86_64", "glibc"]
    assert {name: words for name, words in flags.items() if words != ordinary} == {
        # Debian's long double there is IBM's, not the one that zig takes.
        ("ppc64le", "glibc"): [*ordinary[:-2], "-mabi=ibmlongdouble", *ordinary[-2:]]
    }


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
