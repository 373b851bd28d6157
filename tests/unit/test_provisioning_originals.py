"""What was on a machine before: kept before a change, put back to the byte, however often and whenever."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansiblemodules import shared
from filetree import snapshot

originals = shared("originals")
OVERCOMMIT = "/proc/sys/vm/overcommit_memory"


@dataclass(frozen=True)
class Machine:
    """A folder that stands for a machine with a program, a configuration file and a kernel setting."""

    root: Path

    @property
    def program(self) -> Path:
        return self.root / "usr/bin/program"

    @property
    def new(self) -> Path:
        return self.root / "usr/share/faultlab/sub/new"

    @property
    def link(self) -> Path:
        return self.root / "usr/bin/link"

    @property
    def setting(self) -> Path:
        return self.root / OVERCOMMIT.lstrip("/")

    def originals(self) -> Any:
        return originals.Originals(str(self.root / "var/lib/faultlab/originals"), str(self.root))

    def tree(self) -> dict[str, Any]:
        found: dict[str, Any] = snapshot(str(self.root))
        # A kernel setting's value is what counts of it.
        del found[str(self.setting)]
        return found | {"setting": self.setting.read_text()}

    def keep(self, content: bytes = b"ours") -> bool:
        ours = [originals.hashlib.sha256(content).hexdigest()]
        files = {str(path): ours for path in (self.program, self.new, self.link)}
        return bool(self.originals().keep(files, folders=[str(self.new.parent)], settings={OVERCOMMIT: "0"}))

    def provision(self, content: bytes = b"ours") -> None:
        """As the roles do it: recorded first, then written in another file's name and renamed."""
        self.keep(content)
        for path in (self.program, self.new, self.link):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name("draft")
            draft.write_bytes(content)
            draft.chmod(0o755)
            draft.replace(path)
        self.setting.write_text("0")

    def leave(self) -> Any:
        return self.originals().put_back()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path / "machine")
    for path, content in {found.program: "theirs", found.setting: "1"}.items():
        path.parent.mkdir(parents=True)
        path.write_text(content)
    (found.root / "var/lib").mkdir(parents=True)
    found.program.chmod(0o4750)
    found.link.symlink_to("program")
    for path in (found.program, found.program.parent, found.root / "usr", found.root / "var/lib"):
        os.utime(path, ns=(10**18, 10**18))
    os.utime(found.link, ns=(10**18, 10**18), follow_symlinks=False)
    return found


def test_all_is_as_it_was_byte_for_byte(machine: Machine) -> None:
    before = machine.tree()
    machine.provision()
    assert machine.tree() != before
    done = machine.leave()
    assert (machine.tree(), done.left) == (before, [])
    assert f"{OVERCOMMIT}: 0 -> 1" in done.changed
    again = machine.leave()
    assert (machine.tree(), again.changed, again.left) == (before, [], [])


def test_first_state_counts_and_a_second_run_records_nothing(machine: Machine) -> None:
    before = machine.tree()
    machine.provision()
    journal = machine.originals().journal
    written = journal.stat()
    assert machine.keep() is False
    assert journal.stat() == written
    machine.provision(b"newer")
    assert (machine.leave().left, machine.tree()) == ([], before)


@pytest.mark.parametrize("name", ["program", "new", "link"])
def test_what_somebody_changed_is_told_and_left(machine: Machine, name: str) -> None:
    path: Path = getattr(machine, name)
    machine.provision()
    path.write_text("theirs, later")
    (line, *more) = machine.leave().left
    assert line.startswith(f"{path} is not what faultlab put there")
    assert path.read_text() == "theirs, later"
    stays = f"{path.parent} stays, for what faultlab did not put there: new"
    assert more == ([stays] if name == "new" else [])


def test_old_content_waits_until_what_replaced_it_is_gone(machine: Machine) -> None:
    before = machine.tree()
    machine.provision()
    machine.program.write_text("theirs, later")
    assert machine.leave().left != []
    assert machine.originals().is_new is False
    machine.program.unlink()
    assert (machine.leave().left, machine.tree()) == ([], before)


def test_setting_that_somebody_changed_is_told_and_left(machine: Machine) -> None:
    machine.provision()
    machine.setting.write_text("2")
    assert machine.leave().left == [f"{OVERCOMMIT} is 2, which faultlab did not set (it was 1 before)"]
    assert machine.setting.read_text() == "2"


def test_setting_that_a_reboot_put_back_is_nothing_to_tell(machine: Machine) -> None:
    machine.provision()
    machine.setting.write_text("1")
    done = machine.leave()
    assert (done.left, [line for line in done.changed if OVERCOMMIT in line]) == ([], [])


def test_file_that_somebody_removed_is_put_back(machine: Machine) -> None:
    before = machine.tree()
    machine.provision()
    machine.program.unlink()
    machine.new.unlink()
    assert (machine.leave().left, machine.tree()) == ([], before)


def test_drafts_of_a_run_that_was_killed_go(machine: Machine) -> None:
    before = machine.tree()
    machine.provision()
    # As Ansible names what it writes beside its target (atomic_move), and as this module does.
    machine.new.with_name(".ansible_tmpab_c1new").touch()
    machine.program.with_name(".program.faultlab").touch()
    assert (machine.leave().left, machine.tree()) == ([], before)


def test_time_of_a_folder_tells_of_what_others_put_there(machine: Machine) -> None:
    machine.provision()
    (machine.program.parent / "other").touch()
    machine.leave()
    assert machine.program.parent.stat().st_mtime_ns != 10**18


def test_machine_that_was_never_provisioned(machine: Machine) -> None:
    before = machine.tree()
    assert machine.originals().is_new
    assert machine.leave() == ([], [])
    assert machine.tree() == before


class CutShort(Exception):
    """In the place of a kill."""


def interrupted(patch: pytest.MonkeyPatch, after: int, work: Callable[[], object]) -> bool:
    """Do the work until so many calls that change the file system are made; whether it was cut short."""
    left = after

    def counted(name: str, real: Callable[..., Any]) -> None:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                raise CutShort(name)
            left -= 1
            return real(*arguments, **options)

        owner: Any = os if name in ("utime", "chown", "fsync") else Path
        patch.setattr(owner, name, call)

    with patch.context() as patch:
        names = ("unlink", "rmdir", "replace", "chmod", "mkdir", "write_text", "symlink_to")
        for name in names:
            counted(name, getattr(Path, name))
        for name in ("utime", "chown", "fsync"):
            counted(name, getattr(os, name))
        try:
            work()
        except CutShort:
            return True
    return False


def test_provisioning_that_was_cut_short_anywhere_is_undone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = machine.tree()
    cuts = 0
    while interrupted(monkeypatch, cuts, machine.provision):
        # The roles' own drafts are Ansible's, tested on a guest.
        for draft in machine.root.rglob("draft"):
            draft.unlink()
        done = machine.leave()
        assert done.left == [], cuts
        found = machine.tree()
        # Killed before anything is recorded, only the record's own folder was made.
        assert found.keys() == before.keys(), cuts
        assert {key for key in found if found[key] != before[key]} <= {str(machine.root / "var/lib")}, cuts
        os.utime(machine.root / "var/lib", ns=(10**18, 10**18))
        cuts += 1
    assert cuts > 15


def test_leaving_that_was_cut_short_anywhere_is_completed_by_the_next(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = machine.tree()
    cuts = 0
    machine.provision()
    while interrupted(monkeypatch, cuts, machine.leave):
        assert machine.leave().left == [], cuts
        found = machine.tree()
        # Killed behind the journal's end, nobody knows the time of the folder above the record's any more.
        assert {key for key in found | before if found.get(key) != before.get(key)} <= {
            str(machine.root / "var/lib")
        }, cuts
        os.utime(machine.root / "var/lib", ns=(10**18, 10**18))
        machine.provision()
        cuts += 1
    assert cuts > 15
