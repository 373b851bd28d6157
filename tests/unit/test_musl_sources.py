"""Unpacking and patching the sources of the musl userland."""

import errno
import io
import os
import tarfile
from pathlib import Path

import pytest

from lab.errors import BuildFailed
from lab.images.musl import sources, toolchain

TRIPLET = "# else\n#  ifdef __DEFINED_va_list\n#   define LIBC musl\n"
TRYLINK = 'INFO_OPTS() {\n\techo "-Wl,--warn-common -Wl,-Map,$EXE.map -Wl,--verbose"\n}\n'

CONTENTS = {
    "busybox": ("busybox-1.37.0", {"scripts/trylink": TRYLINK}),
    "dropbear": ("dropbear-2025.89", {"configure": ""}),
    "libffi": ("libffi-3.4.4", {"src/prep_cif.c": ""}),
    "zlib": ("zlib-1.3.1", {"adler32.c": ""}),
    "python3.13": (
        "Python-3.13.5",
        {"Misc/platform_triplet.c": TRIPLET, "Lib/os.py": "", "Lib/test/test_os.py": "", "Doc/index.rst": ""},
    ),
}


def tarball(path: Path, top: str, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, Path]:
    return {name: tarball(tmp_path / f"{name}.tar.gz", top, files) for name, (top, files) in CONTENTS.items()}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_sources_lie_side_by_side_under_plain_names(archives: dict[str, Path], work: Path) -> None:
    versions = sources.unpack(archives, work)
    assert versions == {
        "busybox": "1.37.0",
        "dropbear": "2025.89",
        "libffi": "3.4.4",
        "zlib": "1.3.1",
        "python": "3.13.5",
    }
    assert sorted(folder.name for folder in work.iterdir()) == [
        "busybox",
        "dropbear",
        "libffi",
        "python",
        "zlib",
    ]


def test_what_no_build_needs_is_not_unpacked(archives: dict[str, Path], work: Path) -> None:
    sources.unpack(archives, work)
    files = sorted(
        str(path.relative_to(work / "python")) for path in work.glob("python/**/*") if path.is_file()
    )
    assert files == ["Lib/os.py", "Misc/platform_triplet.c"]


def test_the_patches_are_applied(archives: dict[str, Path], work: Path) -> None:
    sources.unpack(archives, work)
    assert (work / "python/Misc/platform_triplet.c").read_text() == "# else\n#  if 1\n#   define LIBC musl\n"
    assert (work / "busybox/scripts/trylink").read_text() == "INFO_OPTS() {\n\techo\n}\n"


def test_a_source_that_a_patch_does_not_fit_is_refused(
    archives: dict[str, Path], work: Path, tmp_path: Path
) -> None:
    tarball(archives["busybox"], "busybox-2.0", {"scripts/trylink": "INFO_OPTS() { :; }\n"})
    with pytest.raises(BuildFailed) as caught:
        sources.unpack(archives, work)
    assert caught.value.where == "busybox/scripts/trylink"
    assert caught.value.what.endswith("is there 0 times, not once")


def test_a_missing_source_is_named(archives: dict[str, Path], work: Path) -> None:
    del archives["zlib"], archives["dropbear"]
    with pytest.raises(BuildFailed) as caught:
        sources.unpack(archives, work)
    assert caught.value.what == "sources missing: dropbear, zlib"


def test_a_truncated_tarball_is_named(archives: dict[str, Path], work: Path) -> None:
    whole = archives["libffi"].read_bytes()
    archives["libffi"].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BuildFailed) as caught:
        sources.unpack(archives, work)
    assert caught.value.where == str(archives["libffi"])


def test_a_full_disk_is_not_taken_for_a_bad_tarball(
    archives: dict[str, Path], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(OSError, match="No space left") as caught:
        sources.unpack(archives, work)
    assert caught.value.errno == errno.ENOSPC


def test_make_is_told_the_target(tmp_path: Path) -> None:
    sources.write_config(toolchain.target("aarch64"), tmp_path / "recipe", tmp_path)
    lines = (tmp_path / "config.mk").read_text().splitlines()
    assert lines[:7] == [
        f"RECIPE = {tmp_path}/recipe",
        "TRIPLE = aarch64-linux-musl",
        "BUSYBOX_ARCH = aarch64",
        "FFI_TARGET = AARCH64",
        "FFI_FOLDER = aarch64",
        "FFI_SOURCES = ffi.c sysv.S",
        "ANSWERS = ac_cv_alignof_long=8 ac_cv_alignof_max_align_t=16 ac_cv_alignof_size_t=8 "
        "ac_cv_sizeof_long=8 ac_cv_sizeof_long_double=16 ac_cv_sizeof_pthread_t=8 ac_cv_sizeof_size_t=8 "
        "ac_cv_sizeof_uintptr_t=8 ac_cv_sizeof_void_p=8 ac_cv_type___uint128_t=yes",
    ]
