"""Images built for real, offline: from a mirror made of the packages that the user's cache already holds."""

from __future__ import annotations

import contextlib
import lzma
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import matrix, paths
from lab.errors import MissingTool
from lab.images import Image, apt, disk, fetch, image_for, tools
from lab.images.kernel import kernel
from lab.matrix import Guest
from lab.process import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def guest() -> Guest:
    """The glibc guest of this host's architecture."""
    return next(g for g in matrix.load().guests if (g.libc, g.architecture) == ("glibc", platform.machine()))


@pytest.fixture(scope="module")
def image(guest: Guest) -> Image:
    """Its image in the user's own cache, built when it is not there."""
    return image_for(guest)


@pytest.fixture(scope="module")
def mirror(guest: Guest, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with what this guest is built from, made of links to the user's downloads."""
    root = tmp_path_factory.mktemp("mirror")
    for recipe in ("tools", "glibc", f"kernel-{guest.architecture}"):
        chosen = fetch.locked_set(recipe, guest.suite, guest.architecture)
        files = fetch.fetch(chosen.packages)
        for package in chosen.packages:
            target = root / package.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(files[package.name])
    return root


@contextlib.contextmanager
def environment(cache: Path, mirror: Path | str, mask: int = 0o022) -> Iterator[None]:
    before = os.umask(mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.CACHE_VARIABLE, str(cache))
        patch.setenv(apt.MIRROR_VARIABLE, f"file:{mirror}" if isinstance(mirror, Path) else mirror)
        try:
            yield
        finally:
            os.umask(before)


@pytest.fixture(scope="module")
def second(guest: Guest, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Image]:
    """The same image built from nothing, in an empty cache elsewhere, under another umask."""
    cache = tmp_path_factory.mktemp("a-cache-with-a-longer-name") / "deeper" / "cache"
    resolved = paths.cache() / "resolved"
    if resolved.is_dir():
        run(["mkdir", "-p", cache], what="x", log=cache.with_suffix(".log"))
        run(["cp", "-a", resolved, cache], what="x", log=cache.with_suffix(".log"))
    with environment(cache, mirror, 0o077):
        return cache, image_for(guest)


def command(guest: Guest) -> list[str]:
    return [sys.executable, "-m", "lab", "images", "--guests", guest.name]


def images(guest: Guest, cache: Path, mirror: Path | str, *before: str) -> subprocess.CompletedProcess[str]:
    """Run the command with this cache and mirror."""
    with environment(cache, mirror):
        argv = [*before, *command(guest)]
        return subprocess.run(argv, cwd=paths.REPOSITORY, capture_output=True, text=True, check=False)


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that tell an error."""
    return [line for line in done.stderr.splitlines() if line.startswith("faultlab: ")]


def entries(cache: Path) -> list[str]:
    """The entries of a store that count as built, and temporary folders."""
    kinds = (cache / "store").glob("[!.]*/*")
    return sorted(str(path.relative_to(cache / "store")) for path in kinds if path.is_dir())


def test_a_second_build_is_the_same_bytes(image: Image, second: tuple[Path, Image]) -> None:
    other = second[1]
    assert (other.key, other.kernel_release, other.deviations) == (
        image.key,
        image.kernel_release,
        image.deviations,
    )
    for one, two in ((image.disk, other.disk), (image.kernel, other.kernel), (image.initrd, other.initrd)):
        assert one != two
        assert one.read_bytes() == two.read_bytes()


def test_the_root_disk_holds_what_a_guest_needs(image: Image, tmp_path: Path) -> None:
    debugfs = tools.utilities().command("debugfs")
    wanted = ("/sbin/init", "/usr/sbin/sshd", "/usr/bin/python3.13", "/usr/lib/python3.13/__pycache__")
    for path in wanted:
        run([*debugfs, "-R", f"stat {path}", image.disk], what=path, log=tmp_path / "log")
    text = (tmp_path / "log").read_text()
    assert "not found" not in text
    assert set(re.findall(r"User: +(\d+) +Group: +(\d+)", text)) == {("0", "0")}
    assert {int(seconds, 16) for seconds in re.findall(r"mtime: 0x([0-9a-f]+)", text)} == {
        disk.SOURCE_DATE_EPOCH
    }


def test_the_initrd_holds_the_modules_in_the_order_of_their_dependencies(image: Image) -> None:
    content = image.initrd.read_bytes()
    start = content.index(b"modules/order\0")
    order = re.search(rb"(?:[a-z0-9_-]+\.ko\n)+", content[start : start + 4000])
    assert order is not None
    names = order[0].decode().split()
    assert [name for name in names if name in ("failover.ko", "net_failover.ko", "virtio_net.ko")] == [
        "failover.ko",
        "net_failover.ko",
        "virtio_net.ko",
    ]
    assert content.count(b"virtio_net.ko\0") == 1
    # The kernel image knows its own release.
    assert image.kernel_release.encode() in _unpacked(image.kernel.read_bytes())


def _unpacked(boot_image: bytes) -> bytes:
    """A kernel image's content in which its version can be read: as it is, or from its xz stream."""
    start = boot_image.find(lzma.FORMAT_XZ.to_bytes() + b"7zXZ\x00")
    return boot_image if start < 0 else lzma.LZMADecompressor().decompress(boot_image[start:])


@pytest.mark.parametrize(
    ("program", "argument", "answer"),
    [
        ("mke2fs", "-V", r"mke2fs 1\.47\.[1-9]"),
        ("qemu-img", "--version", r"qemu-img version 10\."),
        ("modprobe", "--version", r"kmod version"),
        ("python3.13", "--version", r"Python 3\.13\."),
    ],
)
def test_the_tool_directory_runs_in_place(tmp_path: Path, program: str, argument: str, answer: str) -> None:
    run([*tools.utilities().command(program), argument], what=program, log=tmp_path / "log")
    assert re.search(answer, (tmp_path / "log").read_text())


def test_the_emulator_runs_in_place(guest: Guest, tmp_path: Path) -> None:
    program = f"qemu-system-{guest.architecture}"
    run(
        [*tools.emulator(guest.architecture).command(program), "--version"],
        what=program,
        log=tmp_path / "log",
    )
    assert "QEMU emulator version 10." in (tmp_path / "log").read_text()


def test_a_program_that_is_no_tool_is_told() -> None:
    with pytest.raises(MissingTool, match="no such-program"):
        tools.utilities().command("such-program")


def test_a_tree_becomes_the_same_disk_from_another_folder_and_umask(tmp_path: Path) -> None:
    for name, mask in (("one", 0o022), ("a longer name", 0o077)):
        tree = tmp_path / name / "tree"
        before = os.umask(mask)
        try:
            tree.mkdir(parents=True)
            (tree / "file").write_text("content\n" * 10000)
            (tree / "file").chmod(0o4755)
            (tree / "sparse").write_bytes(b"\0" * 1_000_000)
            (tree / "sparse").chmod(0o600)
            (tree / "other-name").hardlink_to(tree / "file")
            (tree / "link").symlink_to("/no/such/file")
            (tree / "folder").mkdir()
            (tree / "folder").chmod(0o1777)
            disk.write_disk(tree, tmp_path / name / "disk.img", tmp_path / "log")
        finally:
            os.umask(before)
    assert (tmp_path / "one/disk.img").read_bytes() == (tmp_path / "a longer name/disk.img").read_bytes()
    run(
        [*tools.utilities().command("e2fsck"), "-fn", tmp_path / "one/disk.img"],
        what="e2fsck",
        log=tmp_path / "log",
    )


def test_without_a_network_the_first_build_ends_with_one_line(guest: Guest, tmp_path: Path) -> None:
    done = images(guest, tmp_path / "cache", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (12, "")
    (line,) = told(done)
    assert "Failed to fetch http://127.0.0.1:9/pool/" in line
    assert line.endswith("; is there a network? the mirror is the host's apt's, or FAULTLAB_MIRROR")
    assert entries(tmp_path / "cache") == []


@pytest.mark.parametrize(("full", "size"), [("downloads", "8m"), ("store", "90m"), (".", "70m")])
def test_on_a_full_disk_the_build_ends_with_one_line(
    guest: Guest, mirror: Path, tmp_path: Path, full: str, size: str
) -> None:
    cache = tmp_path / "cache"
    (cache / full).mkdir(parents=True)
    script = f"""
mount -t tmpfs -o size={size} full '{cache / full}' || exit 99
"$0" "$@"
status=$?
find '{cache}/store' -mindepth 2 -maxdepth 2 -type d
exit $status
"""
    # Where the tests run as root in a chroot, the kernel allows no user namespace, and none is needed.
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = images(guest, cache, mirror, "unshare", *as_root, "--mount", "sh", "-c", script)
    assert done.returncode == 13, done.stderr
    (line,) = told(done)
    assert "no space left on the device" in line
    # What was finished before the disk was full may stay: the kernel and the image were not.
    assert [entry for entry in done.stdout.split() if "/tools/" not in entry] == []


def test_an_altered_file_of_the_same_size_and_time_is_told_and_built_again(
    guest: Guest, mirror: Path, second: tuple[Path, Image]
) -> None:
    # The store treats all it holds alike: an initrd takes a quarter of a root disk's time to be built again.
    cache, image = second
    kept = image.initrd.read_bytes()
    before = image.initrd.stat()
    with image.initrd.open("r+b") as file:
        file.seek(len(kept) // 2)
        file.write(bytes([kept[len(kept) // 2] ^ 1]))
    os.utime(image.initrd, ns=(before.st_atime_ns, before.st_mtime_ns))

    done = images(guest, cache, mirror)
    assert (done.returncode, done.stdout) == (14, "")
    (line,) = told(done)
    assert line.startswith(f"faultlab: {image.initrd.parent}: initrd is not what was built; moved to ")
    assert line.endswith("; run again to rebuild it")

    done = images(guest, cache, mirror)
    assert (done.returncode, done.stdout) == (0, f"{guest.name} {image.key} {image.disk}\n")
    assert image.initrd.read_bytes() == kept


def test_a_truncated_kernel_is_told_and_built_again(
    guest: Guest, mirror: Path, second: tuple[Path, Image]
) -> None:
    cache, image = second
    kept = image.kernel.read_bytes()
    os.truncate(image.kernel, len(kept) // 2)
    done = images(guest, cache, mirror)
    assert done.returncode == 14
    assert told(done)[0].startswith(f"faultlab: {image.kernel.parent}: kernel is not what was built; ")
    assert images(guest, cache, mirror).returncode == 0
    assert image.kernel.read_bytes() == kept


def test_a_truncated_download_is_fetched_again(
    guest: Guest, mirror: Path, second: tuple[Path, Image]
) -> None:
    cache, image = second
    recipe = f"kernel-{guest.architecture}"
    with environment(cache, mirror):
        for file in fetch.fetch(fetch.locked_set(recipe, guest.suite, guest.architecture).packages).values():
            os.truncate(file, 100)
        run(["rm", "-r", image.kernel.parent], what="x", log=cache / "log")
        assert kernel(guest.architecture, guest.kernel, guest.page_size).kernel.stat().st_size > 1_000_000


def test_an_interrupted_build_is_not_taken_for_a_finished_one(
    guest: Guest, mirror: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with environment(cache, mirror):
        building = subprocess.Popen(command(guest), cwd=paths.REPOSITORY, stderr=subprocess.PIPE, text=True)
        with building:
            while not list(cache.glob("store/image/.*-*/tree/usr/lib/*")):
                assert building.poll() is None
            building.terminate()
            _, messages = building.communicate(timeout=30)
    assert building.returncode == 130
    assert messages.splitlines()[-1] == "faultlab: interrupted; nothing was left running"
    assert entries(cache) == []
