"""A machine of somebody's: a guest started bare plays it. It joins, is measured, and is left as it was.

The lab knows it only by an entry in an inventory of the test's own, its host key by a known_hosts file of the
test's own, and enters it as an ordinary user who may use sudo.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filetree
import pytest
import yaml

from lab import matrix, paths
from lab.errors import LabError
from lab.guests import identity, inspection, qemu, ssh
from lab.images import fetch
from lab.images.fetch import PackageSet
from lab.images.tools import TOOLS_SUITE
from lab.remote import Remote
from lab.results import comparison, document, rules, store
from lab.results.builds import Build

SpecMaker = Any
NAME = "board"
GOLDEN = paths.REPOSITORY / "tests" / "golden" / "lazy-malloc" / "runs" / "glibc-2.41-x86_64.json"
"""A run of a guest of the lab's own."""
SKIPPED = ("/proc", "/sys", "/dev", "/tmp", "/run", "/var/run", "/var/log")
"""What changes by itself: who is logged in, for one, in /var/run/utmp, where that is no link to /run."""
SETTINGS = ("/sys/kernel/mm/transparent_hugepage", "/proc/sys/kernel", "/proc/sys/vm")
OF_ITSELF = re.compile(
    r"random/|/pty/nr|ns_last_pid|/stat_refresh|drop_caches|compact_memory|khugepaged|perf_event_max_sample_rate"
    r"|min_free_kbytes"
)
"""What the kernel itself changes, or that is a command and no setting.

vm.min_free_kbytes is computed anew whenever huge pages are switched (set_recommended_min_free_kbytes in
mm/khugepaged.c), from the memory there is then. Writing the old value would pin it: the owner's no longer.
"""


@dataclass(frozen=True)
class Board:
    """The machine, and a user of the lab who knows it."""

    root: Remote
    repository: Path
    environment: dict[str, str]
    entry: dict[str, Any]

    @property
    def results(self) -> Path:
        return Path(self.environment["FAULTLAB_RESULTS"])

    def declare(self, **changes: Any) -> None:
        """Put it into the inventory, with other claims than the true ones where given."""
        declared = yaml.safe_load(paths.GUESTS_FILE.read_text())
        declared["guests"]["hosts"][NAME] = self.entry | changes
        (self.repository / "inventory" / "guests.yml").write_text(yaml.safe_dump(declared, sort_keys=False))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lab", *arguments],
            cwd=self.repository,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lab(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            out, errors = process.communicate(timeout=400)
        except BaseException:
            process.terminate()
            process.communicate(timeout=60)
            raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, errors)

    def tree(self) -> dict[str, Any]:
        """All files that outlive a reboot, and the kernel's settings."""
        program = "/tmp/filetree.py"
        self.root.put(Path(filetree.__file__), program)
        found: dict[str, Any] = json.loads(self.root.succeed(["python3", "-B", program, "/", *SKIPPED]))
        files = f"find {' '.join(SETTINGS)} /sys/kernel/debug/fault_around_bytes -type f -perm -u=rw"
        told = self.root.succeed(f"{files} -exec grep -H '' {{}} + 2>/dev/null; true")
        settings = (line for line in told.splitlines() if not OF_ITSELF.search(line))
        return found | {"settings": sorted(settings)}


def cache_in(folder: Path) -> Path:
    """A cache with everything that is built but nothing running."""
    cache = folder / "cache"
    cache.mkdir()
    for entry in paths.cache().iterdir():
        if entry.name not in ("running", "in-use", "logs", "keys"):
            (cache / entry.name).symlink_to(entry)
    return cache


def different(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        key: (before.get(key), after.get(key))
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key)
    }


def sudo_package(architecture: str) -> Path:
    """Debian's own sudo, which the images of the lab do without."""
    found: list[Path] = []

    def use(chosen: PackageSet) -> Path:
        found.append(fetch.fetch(chosen.packages)["sudo"])
        return found[-1]

    fetch.building("sudo", TOOLS_SUITE, architecture, use)
    return found[-1]


def add_users(root: Remote, sudo: Path) -> None:
    """Make ``pi``, who may use sudo without a password, and ``guest``, who may not."""
    files = subprocess.run(["dpkg-deb", "--fsys-tarfile", sudo], stdout=subprocess.PIPE, check=True).stdout
    root.feed("tar -xpf - --keep-directory-symlink -C /", io.BytesIO(files))
    # What libpam-runtime's maintainer script would write, without the passwords.
    kinds = "auth account password session session-noninteractive"
    permit = 'echo "${kind%-*} required pam_permit.so" > /etc/pam.d/common-$kind'
    root.succeed(f"for kind in {kinds}; do {permit}; done")
    root.succeed("echo 'pi ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/pi; chmod 440 /etc/sudoers.d/pi")
    # The tests knock so often in vain that OpenSSH would let their address in no more (since 9.8).
    quiet = "echo PerSourcePenalties no >> /etc/ssh/sshd_config"
    root.succeed(f"{quiet}; kill -HUP $(cat /run/sshd.pid)")
    for number, name in enumerate(("pi", "guest"), start=1000):
        root.succeed(
            f"echo {name}:x:{number}:{number}::/home/{name}:/bin/sh >> /etc/passwd;"
            f"echo {name}:x:{number}: >> /etc/group;"
            f"mkdir -p /home/{name}; cp -r /root/.ssh /home/{name}; chown -R {number}:{number} /home/{name}"
        )


@pytest.fixture(scope="module")
def board(make_spec: SpecMaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """The machine, as its owner has it."""
    home, repository = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("repository")
    environment = {
        **os.environ,
        "HOME": str(home),
        "FAULTLAB_CACHE": str(cache_in(home)),
        "FAULTLAB_RESULTS": str(home / "results"),
    }
    for folder in ("inventory", "lab", "provision", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(paths.REPOSITORY / folder, repository / folder, symlinks=True, ignore=ignored)
    shutil.copy(paths.REPOSITORY / "pyproject.toml", repository)
    sudo = sudo_package(platform.machine())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.CACHE_VARIABLE, str(tmp_path_factory.mktemp("boards-own-cache")))
        with qemu.start(make_spec("board-host")) as machine, machine.remote() as root:
            keys = identity.keys()
            add_users(root, sudo)
            (home / ".ssh").mkdir(mode=0o700)
            host_key = keys.known_hosts.read_text().split(maxsplit=1)[1]
            known = f"[127.0.0.1]:{machine.address.port} {host_key}"
            (home / ".ssh" / "known_hosts").write_text(known)
            entry = {
                "provider": "ssh",
                "libc": "glibc",
                "libc_version": make_spec("x").guest.libc_version,
                "architecture": platform.machine(),
                "page_size": os.sysconf("SC_PAGESIZE"),
                "ansible_host": "127.0.0.1",
                "ansible_port": machine.address.port,
                "ansible_user": "pi",
                "ansible_ssh_private_key_file": str(keys.client),
            }
            found = Board(root, repository, environment, entry)
            found.declare()
            yield found


@pytest.fixture(scope="module")
def before(board: Board) -> dict[str, Any]:
    """Everything on the machine before the lab first came to it."""
    return board.tree()


def refusal(board: Board, **changes: Any) -> LabError:
    """How the lab refuses the machine when its entry has other claims than the true ones."""
    board.declare(**changes)
    try:
        (guest,) = matrix.load(board.repository / "inventory" / "guests.yml").select(NAME)
    finally:
        board.declare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", board.environment["HOME"])
        with pytest.raises(LabError) as caught, ssh.reached([guest]) as (machine,):
            inspection.inspect(machine)
    return caught.value


def test_machine_without_python_is_refused(board: Board) -> None:
    board.root.succeed("mv /usr/bin/python3 /usr/bin/python3.away")
    try:
        error = refusal(board)
    finally:
        board.root.succeed("mv /usr/bin/python3.away /usr/bin/python3")
    assert (error.exit_code, str(error)) == (
        31,
        f"{NAME}: no python3 on its PATH; install Python 3.9 or later there",
    )


@pytest.mark.parametrize(
    ("changes", "status", "lines"),
    [
        ({"architecture": "s390x"}, 31, ["architecture: s390x is declared, but the machine has {machine}"]),
        (
            {"libc": "musl", "libc_version": "1.2.5"},
            31,
            [
                "libc: musl is declared, but the machine has glibc",
                "libc_version: 1.2.5 is declared, but the machine has 2.41",
            ],
        ),
        ({"kernel": "6.6"}, 31, ["kernel: 6.6 is declared, but the machine has 6.12"]),
        ({"ansible_port": 1}, 26, ["no SSH to pi@127.0.0.1:1"]),
        ({"ansible_user": "nobody"}, 26, ["does not let this key in"]),
        ({"ansible_user": "guest"}, 31, ["guest cannot become root there without a password: sudo: "]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_machine_that_is_not_as_declared_is_refused(
    board: Board, before: dict[str, Any], changes: dict[str, Any], status: int, lines: list[str]
) -> None:
    error = refusal(board, **changes)
    told = str(error).splitlines()
    assert (error.exit_code, len(told)) == (status, len(lines))
    for line, wanted in zip(told, lines, strict=True):
        assert line.startswith(f"{NAME}: ")
        assert wanted.format(machine=platform.machine()) in line


def test_machine_with_another_page_size_is_refused(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    # The inventory allows only what an architecture can have, and most have one size.
    true = matrix.load(board.repository / "inventory" / "guests.yml").select(NAME)[0]
    monkeypatch.setenv("HOME", board.environment["HOME"])
    with (
        ssh.reached([dataclasses.replace(true, page_size=65536)]) as (machine,),
        pytest.raises(LabError, match="page_size: 65536 is declared, but the machine has 4096"),
    ):
        inspection.inspect(machine)


def test_machine_with_another_host_key_is_refused(board: Board, tmp_path: Path) -> None:
    known = Path(board.environment["HOME"]) / ".ssh" / "known_hosts"
    right = known.read_text()
    other = identity.make_keys(tmp_path / "keys").known_hosts.read_text().split(maxsplit=1)[1]
    try:
        for text, line in ((f"{right.split()[0]} {other}", "is not the pinned one"), ("", "no host key of")):
            known.write_text(text)
            error = refusal(board)
            assert (error.exit_code, line in str(error)) == (18, True)
    finally:
        known.write_text(right)


def test_refused_machine_is_untouched(board: Board, before: dict[str, Any]) -> None:
    board.declare(libc_version="2.36")
    try:
        done = board.lab("lab", "--guests", NAME)
    finally:
        board.declare()
    assert done.returncode == 31
    assert done.stderr.splitlines()[-1].startswith(f"faultlab: {NAME}: libc_version: 2.36 is declared")
    assert different(before, board.tree()) == {}


def test_provisioning_that_was_interrupted_is_undone(board: Board, before: dict[str, Any]) -> None:
    process = board.start("up", "--guests", NAME)
    try:
        board.root.wait_until_succeeds("test -e /usr/local/bin/pagefault-demo", 400)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    done = board.lab("leave", NAME)
    assert (done.returncode, "things put back" in done.stdout) == (0, True), done.stderr
    assert different(before, board.tree()) == {}


@pytest.fixture(scope="module")
def whole(board: Board, before: dict[str, Any]) -> Iterator[subprocess.CompletedProcess[str]]:
    """The lab, on a machine that `make up` has set up."""
    # systemd does not run it; what is written for systemd is made to be.
    board.root.succeed("mkdir -p /run/systemd/system")
    up = board.lab("up", "--guests", NAME)
    assert up.returncode == 0, up.stderr
    assert f"{NAME}: pi@127.0.0.1:" in up.stdout
    yield board.lab("lab", "--guests", NAME)


def test_second_run_changes_nothing_and_measures(
    board: Board, whole: subprocess.CompletedProcess[str]
) -> None:
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert re.search(rf"{NAME}: · \d+ tasks, 0 changed", whole.stderr)
    assert "Calibrate" not in whole.stderr
    assert re.findall("^ *✗.*", whole.stdout, re.MULTILINE) == []
    assert "is not the lab's own" in whole.stdout
    assert whole.stdout.count(": not run: board has no image of the lab's (board)") == 2


def test_it_is_compared_with_a_guest_of_the_labs_own(
    board: Board, whole: subprocess.CompletedProcess[str]
) -> None:
    (own,) = store.load(root=board.results).runs()
    # A stored run: another guest here would double what this test costs.
    guest = document.read_run(GOLDEN)
    assert own.guest.provider == "ssh"
    assert own.image.key != guest.image.key
    compared = comparison.compare([own, guest])
    row = compared.row(Build.IN_PROCESS, rules.MEMSET)
    assert row is not None
    assert len({cell.observed for cell in row.cells}) == 1


def test_it_is_entered_and_not_stopped(board: Board, whole: subprocess.CompletedProcess[str]) -> None:
    said = board.lab("shell", NAME, "--", "uname", "-m")
    assert (said.returncode, said.stdout.strip()) == (0, platform.machine())
    down = board.lab("down", "--guests", NAME)
    assert (down.returncode, down.stdout.strip()) == (
        0,
        f"stopped: none was running; not the lab's to stop: {NAME}",
    )


def test_no_process_of_the_labs_stays_there(board: Board, whole: subprocess.CompletedProcess[str]) -> None:
    # The tree of files does not show it: a session that stays has its pipes in /run.
    assert whole.returncode == 0
    assert board.root.fail("grep -l '[f]aultprobe' /proc/[0-9]*/cmdline 2>/dev/null") == ""
    board.root.succeed("! test -e /run/faultprobe")


def test_all_is_as_it_was_but_what_its_owner_changed(
    board: Board, before: dict[str, Any], whole: subprocess.CompletedProcess[str]
) -> None:
    board.root.succeed("test -s /etc/sysctl.d/60-faultlab.conf && test -s /etc/tmpfiles.d/faultlab.conf")
    mine = "/usr/local/lib/faultlab/micro"
    board.root.succeed(f"echo mine > {mine}; echo 1 > /proc/sys/vm/overcommit_memory")
    done = board.lab("leave", NAME)
    assert done.returncode == 35
    assert f"{mine} is not what faultlab put there" in done.stderr
    assert "/proc/sys/vm/overcommit_memory is 1, which faultlab did not set" in done.stderr
    after = board.tree()
    # His file is kept with the folders that it is in; whatever else there was is as before.
    folders = {str(folder) for folder in Path(mine).parents}
    found = different(before, after).keys() - {"settings"}
    assert (mine in found, found - {mine} - folders) == (True, set())
    board.root.succeed(f"rm -r {Path(mine).parent}; echo 0 > /proc/sys/vm/overcommit_memory")
    left = board.tree()
    assert set(left.pop("settings")) ^ set(before["settings"]) == set()
    assert different(before, left).keys() - {"settings"} <= folders
    again = board.lab("leave", NAME)
    assert (again.returncode, "never provisioned" in again.stdout) == (0, True)


def test_guest_of_the_labs_own_is_not_left(board: Board) -> None:
    done = board.lab("leave", f"musl-1.2.5-{platform.machine()}")
    assert (done.returncode, done.stderr.count("\n")) == (11, 1)
