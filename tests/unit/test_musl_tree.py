"""The root tree laid out from a finished build, and a build that fails."""

import os
import stat
from pathlib import Path

import pytest

from lab.errors import BuildFailed
from lab.images import musl
from lab.images.musl import sources, toolchain, tree

VERSIONS = {"busybox": "1.37.0", "dropbear": "2025.89", "python": "3.13.5"}
EPOCH = 1_000_000_000
ROOTFS = musl.RECIPE / "rootfs"


def built(work: Path) -> Path:
    """A work folder as make leaves it, every program a line of text."""
    files = {
        "busybox/busybox": "busybox",
        "busybox/busybox.links": "/bin/sh\n/sbin/init\n/usr/bin/awk\n/usr/bin/scp\n",
        "dropbear/dropbearmulti": "dropbear",
        "python/python": "python",
        "python/build/lib.linux-x86_64-3.13/_sysconfigdata__linux_x86_64-linux-musl.py": (
            f"# made by make\nbuild_time_vars = {{'srcdir': '{work}/python', 'SIZEOF_LONG': 8}}\n"
        ),
        "library/os.py": "",
        "library/json/__init__.py": "",
    }
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    return work


def laid_out(folder: Path) -> Path:
    destination = folder / "tree"
    tree.lay_out(toolchain.target("x86_64"), built(folder / "work"), destination, EPOCH)
    return destination


def listing(root: Path) -> list[tuple[str, str, float, str]]:
    """Name, mode, time and content of everything in a tree."""
    rows = []
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        rows.append((str(path.relative_to(root)), stat.filemode(status.st_mode), status.st_mtime, content))
    return rows


def test_the_tree_has_an_init_a_server_and_a_python(tmp_path: Path) -> None:
    root = laid_out(tmp_path)
    programs = (
        "sbin/init",
        "bin/sh",
        "usr/bin/python3",
        "usr/sbin/dropbear",
    )
    assert {name: (root / name).read_text() for name in programs} == {
        "sbin/init": "busybox",
        "bin/sh": "busybox",
        "usr/bin/python3": "python",
        "usr/sbin/dropbear": "dropbear",
    }
    assert str((root / "lib/libc.so").readlink()) == "ld-musl-x86_64.so.1"


def test_links_stay_inside_the_tree(tmp_path: Path) -> None:
    root = laid_out(tmp_path)
    assert [path for path in root.rglob("*") if path.is_symlink() and path.readlink().is_absolute()] == []


def test_a_program_of_its_own_goes_before_the_applet(tmp_path: Path) -> None:
    assert (laid_out(tmp_path) / "usr/bin/scp").read_text() == "dropbear"


def test_modes_and_times_follow_neither_the_umask_nor_the_folder(tmp_path: Path) -> None:
    listings = []
    for name, mask in (("one", 0o022), ("another-folder", 0o077)):
        (tmp_path / name).mkdir()
        before = os.umask(mask)
        try:
            listings.append(listing(laid_out(tmp_path / name)))
        finally:
            os.umask(before)
    assert listings[0] == listings[1]
    assert {time for _, _, time, _ in listings[0]} == {EPOCH}
    modes = {name: mode for name, mode, _, _ in listings[0]}
    asked = ("root", "tmp", "etc", "usr/bin/python3.13", "usr/lib/python3.13/os.py")
    assert [modes[name] for name in asked] == [
        "drwx------",
        "drwxrwxrwt",
        "drwxr-xr-x",
        "-rwxr-xr-x",
        "-rw-r--r--",
    ]


def test_pythons_record_of_its_build_hides_the_work_folder(tmp_path: Path) -> None:
    record = laid_out(tmp_path) / "usr/lib/python3.13/_sysconfigdata__linux_x86_64-linux-musl.py"
    assert record.read_text() == (
        "build_time_vars = {\n    'SIZEOF_LONG': 8,\n    'srcdir': '/usr/src/python',\n}\n"
    )


def test_the_library_is_staged_without_what_a_guest_cannot_use(tmp_path: Path) -> None:
    for name in ("os.py", "turtle.py", "test/test_os.py", "json/__init__.py", "unittest/case.py"):
        file = tmp_path / "python/Lib" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    tree.stage_library(tmp_path)
    staged = sorted(
        str(p.relative_to(tmp_path / "library")) for p in tmp_path.glob("library/**/*") if p.is_file()
    )
    assert staged == ["json/__init__.py", "os.py", "unittest/case.py"]


def test_a_part_that_does_not_build_is_named_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(archives: object, work: Path) -> dict[str, str]:
        for name in ("bin", "zlib", "python/Lib"):
            (work / name).mkdir(parents=True)
        for name in ("target-cc", "build-python"):
            (work / "bin" / name).write_text("#!/bin/sh\necho no space for rent >&2\nexit 3\n")
            (work / "bin" / name).chmod(0o755)
        return dict(VERSIONS)

    monkeypatch.setattr(sources, "unpack", unpack)
    monkeypatch.setattr(toolchain, "install", lambda *_: None)
    work = tmp_path / "work"
    work.mkdir()
    nothing = tmp_path / "nothing"
    inputs = musl.Inputs("x86_64", {}, ("zig",), nothing, 1, EPOCH)
    with pytest.raises(BuildFailed) as caught:
        musl.build_userland(inputs, work, tmp_path / "tree")
    assert caught.value.what == "zlib does not build"
    assert caught.value.hint == f"log: {work}/logs/zlib.log, its end:\n    no space for rent"
    assert not (tmp_path / "tree").exists()


def test_the_programs_of_the_boot_can_be_executed() -> None:
    programs = ("etc/faultlab/boot", "etc/faultlab/ready")
    assert [bool((ROOTFS / name).stat().st_mode & 0o100) for name in programs] == [True, True]


def test_init_starts_nothing_that_is_not_there(tmp_path: Path) -> None:
    applets = {"/sbin/reboot", "/bin/umount"}
    lines = [line for line in (ROOTFS / "etc/inittab").read_text().splitlines() if not line.startswith("#")]
    programs = [line.split(":")[3].split()[0] for line in lines]
    root = laid_out(tmp_path)
    missing = [
        p
        for p in programs
        if p not in applets and not os.path.lexists(root / p[1:]) and not (ROOTFS / p[1:]).exists()
    ]
    assert missing == []
    assert "/etc/faultlab/boot" in programs
