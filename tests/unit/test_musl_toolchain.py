"""zig behind the names that configure scripts call, and the Python that drives CPython's cross build."""

import bz2
import subprocess
from pathlib import Path

import pytest

from lab.errors import BuildFailed, MissingTool
from lab.images.musl import buildpython, toolchain

FAKE_ZIG = """#!/bin/sh
case "$1" in
env) echo '.{ .zig_exe = "@SELF@", .version = "0" }' ;;
*) case "$*" in
   *" -v "*) printf '%s\\n' '#include <...> search starts here:' ' /headers/clang' ' /headers/musl' >&2
             echo 'End of search list.' >&2 ;;
   *) echo "$@" ;;
   esac ;;
esac
"""


@pytest.fixture
def zig(tmp_path: Path) -> Path:
    program = tmp_path / "zig"
    program.write_text(FAKE_ZIG.replace("@SELF@", str(program)))
    program.chmod(0o755)
    return program


@pytest.fixture
def installed(tmp_path: Path, zig: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    toolchain.install(toolchain.target("aarch64"), (str(zig),), tmp_path / "python", work)
    return work / "bin"


def answer(program: Path, *arguments: str, text: str = "") -> list[str]:
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_an_unknown_architecture_is_named_with_the_known_ones() -> None:
    with pytest.raises(BuildFailed) as caught:
        toolchain.target("m68k")
    assert str(caught.value) == (
        "no musl userland for m68k; "
        "architectures: aarch64, armv7l, i686, loongarch64, ppc64le, riscv64, s390x, x86_64"
    )


@pytest.mark.parametrize("architecture", toolchain.known())
def test_every_target_is_whole(architecture: str) -> None:
    target = toolchain.target(architecture)
    # The bits of a word decide all of these at once: a file in which one was forgotten is wrong.
    long, pointer = target.answers["ac_cv_sizeof_long"], target.answers["ac_cv_sizeof_void_p"]
    assert long == pointer == target.answers["ac_cv_alignof_size_t"]
    assert target.answers["ac_cv_type___uint128_t"] == {8: "yes", 4: "no"}[int(long)]
    assert sorted(target.answers) == sorted(toolchain.target("x86_64").answers)
    assert target.loader.startswith("ld-musl-")


def test_musl_names_its_loaders_in_its_own_way() -> None:
    assert {name: toolchain.target(name).loader for name in toolchain.known()} == {
        "aarch64": "ld-musl-aarch64.so.1",
        "armv7l": "ld-musl-armhf.so.1",
        "i686": "ld-musl-i386.so.1",
        "loongarch64": "ld-musl-loongarch64.so.1",
        "ppc64le": "ld-musl-powerpc64le.so.1",
        "riscv64": "ld-musl-riscv64.so.1",
        "s390x": "ld-musl-s390x.so.1",
        "x86_64": "ld-musl-x86_64.so.1",
    }


def test_a_target_with_a_forgotten_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "TARGETS", tmp_path)
    (tmp_path / "vax.yml").write_text("triple: vax-linux-musl\n")
    with pytest.raises(BuildFailed) as caught:
        toolchain.target("vax")
    assert str(caught.value) == ("musl/targets/vax.yml: not a target: Object missing required field `zig`")


def test_the_compiler_says_which_multiarch_it_is_for(installed: Path) -> None:
    assert answer(installed / "target-cc", "--print-multiarch") == ["aarch64-linux-musl"]
    assert answer(installed / "target-cc", "-print-multi-os-directory") == ["../lib"]


def test_the_compiler_does_not_name_the_hosts_linker(installed: Path) -> None:
    assert answer(installed / "target-cc", "-print-prog-name=ld") == ["target-ld"]


@pytest.mark.parametrize("only", ["-c", "-E"])
def test_a_file_is_compiled_by_clang_with_zigs_headers(installed: Path, only: str) -> None:
    words = answer(installed / "target-cc", only, "a.c")
    assert words[:3] == ["clang", "-target", "aarch64-linux-musl"]
    assert [words[i + 1] for i, word in enumerate(words) if word == "-isystem"] == [
        "/headers/clang",
        "/headers/musl",
    ]
    assert words[-3:] == [f"-ffile-prefix-map={installed.parent}=/usr/src", only, "a.c"]


def test_a_program_is_linked_by_zig(installed: Path) -> None:
    words = answer(installed / "target-cc", "-o", "a", "a.o")
    assert words[:3] == ["cc", "-target", "aarch64-linux-musl"]
    assert "-dynamic" in words
    assert words[-3:] == ["-o", "a", "a.o"]


def test_the_host_compiler_is_not_told_the_target(installed: Path) -> None:
    assert "-target" not in answer(installed / "host-cc", "a.c")


def test_bzip2_compresses(installed: Path) -> None:
    done = subprocess.run([installed / "bzip2", "-1"], input=b"text", capture_output=True, check=True)
    assert bz2.decompress(done.stdout) == b"text"


def test_zig_that_does_not_run_is_a_missing_tool(tmp_path: Path) -> None:
    with pytest.raises(MissingTool) as caught:
        toolchain.install(toolchain.target("x86_64"), (str(tmp_path / "none"),), tmp_path, tmp_path)
    assert caught.value.what == "zig does not run"


def test_a_compiler_that_fails_is_not_taken_for_one_without_headers(tmp_path: Path) -> None:
    program = tmp_path / "zig"
    program.write_text("#!/bin/sh\n[ $1 = env ] || { echo no such target >&2; exit 1; }\n")
    program.chmod(0o755)
    with pytest.raises(BuildFailed) as caught:
        toolchain.install(toolchain.target("x86_64"), (str(program),), tmp_path, tmp_path)
    assert caught.value.what == "zig cc does not work: no such target"


def test_nothing_of_the_users_gets_into_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")
    environment = toolchain.environment(tmp_path, 7)
    assert "CFLAGS" not in environment
    assert environment["SOURCE_DATE_EPOCH"] == "7"
    assert environment["PATH"].split(":")[0] == str(tmp_path / "bin")


def test_the_build_python_runs_through_its_own_loader(tmp_path: Path) -> None:
    root = tmp_path / "tool root"
    loader = root / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    python = root / "usr/bin/python3.13"
    for file in (loader, python):
        file.parent.mkdir(parents=True)
        file.touch()
    loader.write_text('#!/bin/sh\necho "$PYTHONHOME"\nprintf "%s\\n" "$@"\n')
    loader.chmod(0o755)
    wrapper = tmp_path / "wrapper"
    buildpython.write_build_python(root, wrapper)
    done = subprocess.run([wrapper, "-c", "a b"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        str(root / "usr"),
        "--library-path",
        str(loader.parent),
        str(python),
        "-c",
        "a b",
    ]


def test_a_tool_directory_without_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingTool) as caught:
        buildpython.write_build_python(tmp_path, tmp_path / "wrapper")
    assert caught.value.what == "no python3.13 with a dynamic loader"
    assert not (tmp_path / "wrapper").exists()
