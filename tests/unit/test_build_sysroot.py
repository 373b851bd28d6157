"""Sysroots: the right folders, and a clear line when a package is not what it should be."""

from pathlib import Path

import pytest

from lab.build import program, sysroot, zig
from lab.errors import BuildFailed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("usr/lib/x86_64-linux-gnu/libc.a", "usr/lib/x86_64-linux-musl/libc.a"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "usr/lib/gcc/x86_64-linux-gnu/14").mkdir(parents=True)
    (tmp_path / "usr/lib/gcc/x86_64-linux-gnu/14/libgcc.a").touch()
    return tmp_path


def test_a_sysroot_of_another_architecture_is_refused(root: Path) -> None:
    with pytest.raises(BuildFailed) as error:
        sysroot.libc_folder(root, zig.target("aarch64", "glibc"))
    assert str(error.value) == f"sysroot {root}: no usr/lib/aarch64-linux-gnu/libc.a"


def test_two_versions_of_libgcc_are_refused(root: Path) -> None:
    (root / "usr/lib/gcc/x86_64-linux-gnu/13").mkdir()
    (root / "usr/lib/gcc/x86_64-linux-gnu/13/libgcc.a").touch()
    with pytest.raises(BuildFailed) as error:
        sysroot.libgcc_folder(root, zig.target("x86_64", "musl"))
    assert str(error.value) == f"sysroot {root}: 2 libgcc.a for x86_64-linux-gnu, not one"


def test_a_link_takes_the_libgcc_that_its_suite_has() -> None:
    available = ["libc6-dev", "libgcc-10-dev", "libpython3.13-dev", "musl-dev"]
    assert sysroot.packages_for("glibc", available) == ("libc6-dev", "libgcc-10-dev", "libpython3.13-dev")
    assert sysroot.packages_for("musl", available) == ("musl-dev", "libgcc-10-dev", "libpython3.13-dev")


@pytest.mark.parametrize(
    ("available", "found"),
    [(["libc6-dev"], "none"), (["libgcc-14-dev", "libgcc-15-dev"], "libgcc-14-dev, libgcc-15-dev")],
)
def test_only_one_libgcc_will_do(available: list[str], found: str) -> None:
    with pytest.raises(BuildFailed) as error:
        sysroot.packages_for("glibc", available)
    assert str(error.value) == f"sysroot: not one package libgcc-N-dev but {found}"


def test_static_pie_needs_its_start_file(root: Path) -> None:
    target = zig.target("x86_64", "glibc")
    assert not sysroot.has_static_pie(root, target)
    (root / "usr/lib/x86_64-linux-gnu/rcrt1.o").touch()
    assert sysroot.has_static_pie(root, target)


@pytest.mark.parametrize(("minor", "works"), [(31, False), (34, False), (35, True), (41, True)])
def test_static_pie_of_an_old_glibc_on_aarch64_cannot_be_linked_by_llvm(
    tmp_path: Path, minor: int, works: bool
) -> None:
    folder = tmp_path / "usr/lib/aarch64-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libc.a").touch()
    (folder / "rcrt1.o").touch()
    target = zig.target("aarch64", "glibc")
    with pytest.raises(BuildFailed, match="no version of glibc in its headers"):
        sysroot.has_static_pie(tmp_path, target)
    (tmp_path / "usr/include").mkdir()
    features = f"#define\t__GLIBC__\t2\n#define\t__GLIBC_MINOR__\t{minor}\n"
    (tmp_path / "usr/include/features.h").write_text(features)
    assert sysroot.has_static_pie(tmp_path, target) is works


def test_a_package_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as error:
        sysroot.unpack({}, ("musl-dev",), tmp_path, log=tmp_path / "log")
    assert str(error.value) == "sysroot: package musl-dev was not fetched"


def test_glibc_is_linked_statically_as_gcc_does_it(root: Path) -> None:
    libc, gcc = f"{root}/usr/lib/x86_64-linux-gnu", f"{root}/usr/lib/gcc/x86_64-linux-gnu/14"
    inputs = [f"{libc}/crt1.o", f"{libc}/crti.o", f"{gcc}/crtbeginT.o", "--start-group", f"{libc}/libc.a"]
    inputs += [f"{gcc}/libgcc.a", f"{gcc}/libgcc_eh.a", "--end-group", f"{gcc}/crtend.o", f"{libc}/crtn.o"]
    found = program.static_link(zig.target("x86_64", "glibc"), root)
    assert found == ["-static", "--strip-debug", "-z", "relro", *inputs]


def test_glibc_is_linked_static_pie_as_gcc_does_it(root: Path) -> None:
    libc, gcc = f"{root}/usr/lib/x86_64-linux-gnu", f"{root}/usr/lib/gcc/x86_64-linux-gnu/14"
    inputs = [f"{libc}/rcrt1.o", f"{libc}/crti.o", f"{gcc}/crtbeginS.o", "--start-group", f"{libc}/libc.a"]
    inputs += [f"{gcc}/libgcc.a", f"{gcc}/libgcc_eh.a", "--end-group", f"{gcc}/crtendS.o", f"{libc}/crtn.o"]
    options = ["-static", "-pie", "--no-dynamic-linker", "-z", "text", "--strip-debug", "-z", "relro"]
    found = program.static_link(zig.target("x86_64", "glibc"), root, is_pie=True)
    assert found == [*options, *inputs]


def test_musl_is_linked_statically_as_musl_gcc_does_it(root: Path) -> None:
    libc, gcc = f"{root}/usr/lib/x86_64-linux-musl", f"{root}/usr/lib/gcc/x86_64-linux-gnu/14"
    inputs = [f"{libc}/crt1.o", f"{libc}/crti.o", "--start-group", f"{libc}/libc.a", f"{gcc}/libgcc.a"]
    inputs += ["--end-group", f"{libc}/crtn.o"]
    found = program.static_link(zig.target("x86_64", "musl"), root)
    assert found == ["-static", "--strip-debug", "-z", "relro", *inputs]


def test_threads_come_from_the_library_they_had_before_glibc_2_34(root: Path) -> None:
    libraries = {
        libc: [
            Path(each).name
            for each in program.static_link(zig.target("x86_64", libc), root, has_threads=True)
            if each.endswith(".a")
        ]
        for libc in ("glibc", "musl")
    }
    assert libraries == {
        "glibc": ["libpthread.a", "libc.a", "libgcc.a", "libgcc_eh.a"],
        "musl": ["libc.a", "libgcc.a"],
    }
