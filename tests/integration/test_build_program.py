"""The cross builder at work: pagefault-demo for this machine, and a wheel of a package made up here."""

import platform
import subprocess
import zipfile
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from lab import process
from lab.build import program as programs
from lab.build import wheels, zig
from lab.errors import BuildFailed
from lab.images.store import digest

HOST = platform.machine()
HOST_LIBC = "glibc" if platform.libc_ver()[0] == "glibc" else "musl"


@pytest.fixture(scope="module")
def zig_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zig")


@pytest.fixture(scope="module", params=list(programs.DYNAMIC_FLAGS))
def program(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, zig_cache: Path
) -> Path:
    work = tmp_path_factory.mktemp("demo")
    output = work / "pagefault-demo"
    compiler = zig.compiler(zig.target(HOST, HOST_LIBC))
    process.run(
        [
            *compiler,
            *programs.DYNAMIC_FLAGS[request.param],
            *zig.LINK_FLAGS,
            "-fPIE",
            programs.DEMONSTRATION.source,
            "-o",
            output,
        ],
        what="Compile pagefault-demo",
        log=work / "log",
        env=zig.environment(zig_cache),
    )
    return output


def test_prints_the_counters_of_four_moments(program: Path) -> None:
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    moments = ["Initial state", "After malloc", "After memset", "After second memset"]
    assert lines[0::3] == moments
    assert [line.rsplit(" ", 1)[0] for line in lines[1::3]] == ["Major page faults"] * 4
    assert [line.rsplit(" ", 1)[0] for line in lines[2::3]] == ["Minor page faults"] * 4
    minor = [int(line.rsplit(" ", 1)[1]) for line in lines[2::3]]
    assert minor == sorted(minor)
    assert minor[3] == minor[2]


@pytest.mark.parametrize("arguments", [["0"], ["-1"], ["12x"], [""], ["9" * 30], ["4096", "4096"]])
def test_a_bad_size_is_one_line_and_status_2(program: Path, arguments: list[str]) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    expected = "usage: pagefault-demo [SIZE], SIZE a positive number of bytes\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_memory_that_is_refused_is_status_1_and_the_systems_reason(program: Path) -> None:
    size = str(2**63)
    done = subprocess.run([program, size], capture_output=True, text=True)
    reason = {"glibc": "Cannot allocate memory", "musl": "Out of memory"}[HOST_LIBC]
    assert done.returncode == 1
    assert done.stderr == f"pagefault-demo: malloc of {size} bytes: {reason}\n"


def test_output_that_cannot_be_written_is_status_1(program: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([program], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("pagefault-demo: standard output: No space left on device")


def test_memset_and_malloc_are_libcs_own(program: Path) -> None:
    with program.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        undefined = {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"}
    assert {"malloc", "memset", "getrusage"} <= undefined
    assert "free" not in undefined


SETUP = """
from setuptools import Extension, setup
macros = [("Py_LIMITED_API", "0x03090000")]
native = Extension("toy._native", ["native.c"], define_macros=macros, py_limited_api=True)
setup(
    name="toy", version="1", packages=["toy"], package_dir={"": "src"}, ext_modules=[native],
    options={"bdist_wheel": {"py_limited_api": "cp39"}},
)
"""

NATIVE = """
#include <Python.h>
#include <sys/resource.h>
extern void *PYTHON_FUNCTION(void);
void *PyInit__native(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : PYTHON_FUNCTION();
}
"""


def make_package(folder: Path, function: str) -> None:
    """A package with an extension, and headers that have nothing of Python in them."""
    (folder / "source/src/toy").mkdir(parents=True)
    (folder / "source/src/toy/__init__.py").touch()
    (folder / "source/setup.py").write_text(SETUP)
    (folder / "source/native.c").write_text(NATIVE.replace("PYTHON_FUNCTION", function))
    (folder / "headers/usr/include/python3.13").mkdir(parents=True)
    (folder / "headers/usr/include/python3.13/Python.h").touch()


def build(folder: Path, libc: str, zig_cache: Path, work: str) -> Path:
    return wheels.build_wheel(
        HOST,
        libc,
        folder / "headers",
        folder / work,
        folder / f"{work}-out",
        cache=zig_cache,
        log=folder / "log",
        source=folder / "source",
    )


@pytest.mark.parametrize(("libc", "tag"), [("glibc", "manylinux_2_17"), ("musl", "musllinux_1_2")])
def test_a_wheel_is_tagged_audited_and_the_same_twice(
    libc: str, tag: str, tmp_path: Path, zig_cache: Path
) -> None:
    make_package(tmp_path, "PyErr_NoMemory")
    before = sorted(tmp_path.joinpath("source").rglob("*"))
    first, second = (build(tmp_path, libc, zig_cache, work) for work in ("first", "second"))
    assert first.name == f"toy-1-cp39-abi3-{tag}_{HOST}.whl"
    assert digest(first) == digest(second)
    with zipfile.ZipFile(first) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".so")]
    assert modules == ["toy/_native.abi3.so"]
    assert sorted(tmp_path.joinpath("source").rglob("*")) == before


def test_a_function_outside_the_promised_stable_abi_is_found(tmp_path: Path, zig_cache: Path) -> None:
    # In the stable ABI from Python 3.11 on; the tag promises 3.9.
    make_package(tmp_path, "PyErr_GetHandledException")
    with pytest.raises(BuildFailed, match=r"^Audit the stable ABI of toy-1-cp39-abi3-manylinux_2_17"):
        build(tmp_path, "glibc", zig_cache, "work")
