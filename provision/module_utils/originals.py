"""What was on a machine before faultlab changed it: kept there, in one folder, until it is put back.

Whoever is about to change something calls :meth:`Originals.keep` first. The journal is on disk before the
change is made, so that a run that is cut short can be undone, too. What is known already is never recorded
again: the state before the first change is the one that counts.

Python 3.9 and the standard library, because it runs on the machine itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = "/var/lib/faultlab/originals"
"""Where it is kept on every machine."""

ANYTHING = "*"
"""In the place of a SHA-256: whatever stands there is faultlab's, because its content is not known before."""

SCHEMA = 1
_CHOSEN = re.compile(r"\[([^\]]*)\]")
_ANSIBLE_DRAFT = ".ansible_tmp"
"""How the file begins that Ansible writes beside its target and renames."""


class PutBack(NamedTuple):
    """What was done to be rid of faultlab; one line for each thing."""

    changed: list[str]
    left: list[str]
    """What somebody else changed meanwhile, and is left as it is."""


def read_setting(path: Path) -> str:
    """The value in force; of a list of choices such as ``always [madvise] never`` the one in brackets.

    Raises OSError.
    """
    text = path.read_text().strip()
    chosen = _CHOSEN.search(text)
    return chosen.group(1) if chosen else text


def sha256(path: Path) -> str:
    """Of a file's content. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """What stands at a path, without following a link."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return {"kind": "absent"}
    found: dict[str, Any] = {"uid": status.st_uid, "gid": status.st_gid}
    found["mode"] = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return {**found, "kind": "folder"}
    found["mtime_ns"] = status.st_mtime_ns
    if stat.S_ISLNK(status.st_mode):
        return {**found, "kind": "link", "target": str(path.readlink())}
    if stat.S_ISREG(status.st_mode):
        return {**found, "kind": "file", "sha256": sha256(path)}
    return {**found, "kind": "other"}


def _names(folder: Path) -> str:
    """A hash of what a folder holds, by name."""
    return hashlib.sha256(b"\0".join(sorted(os.fsencode(path.name) for path in folder.iterdir()))).hexdigest()


def draft_of(path: Path) -> Path:
    """Where a file is written before it is renamed."""
    return path.with_name(f".{path.name}.faultlab")


def write_draft(path: Path, content: bytes) -> Path:
    """Write a file beside its place, so that it stays after a power cut; where it is."""
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    with draft.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return draft


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    write_draft(path, content).replace(path)


class Originals:
    """The journal of one machine. ``root`` is where /proc and /sys begin; only tests change it."""

    def __init__(self, folder: str = FOLDER, root: str = "/") -> None:
        self.folder = Path(folder)
        self.root = Path(root)
        self.journal = self.folder / "journal.json"
        self.content = self.folder / "content"
        try:
            known = json.loads(self.journal.read_text())
        except FileNotFoundError:
            known = {}
        self.is_new = not known
        self.settings: dict[str, Any] = known.get("settings", {})
        self.files: dict[str, Any] = known.get("files", {})
        self.folders: dict[str, Any] = known.get("folders", {})

    # -- before a change ------------------------------------------------------------------------------------

    def keep(
        self,
        files: Mapping[str, Iterable[str]] | None = None,
        *,
        folders: Iterable[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> bool:
        """Record what stands there now, unless it is recorded already; whether anything was new.

        ``files`` maps each path that will be written or removed to the SHA-256 of what faultlab may write
        there. ``folders`` are those whose mode or owner it may change. ``settings`` maps kernel settings to
        the value they will be given.
        """
        before = json.dumps([self.settings, self.files, self.folders], sort_keys=True)
        self._around(str(self.journal))
        for path, hashes in (files or {}).items():
            self._around(path)
            entry = self.files.setdefault(path, None) or self._backed_up(path)
            entry["ours"] = sorted({*entry.get("ours", ()), *hashes})
            self.files[path] = entry
        for path in folders:
            self._around(path)
            if path not in self.files and path not in self.folders:
                found = describe(Path(path))
                (self.folders if found["kind"] == "absent" else self.files)[path] = {**found, "ours": []}
        for name, wanted in (settings or {}).items():
            entry = self.settings.setdefault(name, {"before": self._setting(name), "ours": []})
            entry["ours"] = sorted({*entry["ours"], wanted})
        if json.dumps([self.settings, self.files, self.folders], sort_keys=True) == before:
            return False
        self._save()
        return True

    def _setting(self, name: str) -> str | None:
        try:
            return read_setting(self.root / name.lstrip("/"))
        except OSError:
            return None

    def _backed_up(self, path: str) -> dict[str, Any]:
        found = describe(Path(path))
        if found["kind"] == "file":
            copy = self.content / found["sha256"]
            if not copy.exists():
                self.content.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(copy, Path(path).read_bytes())
        return found

    def _around(self, path: str) -> None:
        """Record the folders above a path: those that are missing, and the first one that is there."""
        for folder in Path(path).parents:
            name = str(folder)
            if name in self.folders:
                return
            try:
                status = folder.stat()
            except FileNotFoundError:
                self.folders[name] = {"kind": "absent"}
                continue
            self.folders[name] = {"kind": "folder", "mtime_ns": status.st_mtime_ns, "names": _names(folder)}
            return

    def _save(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = {
            "schema": SCHEMA,
            "settings": self.settings,
            "files": self.files,
            "folders": self.folders,
        }
        write_whole(self.journal, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())

    # -- afterwards -----------------------------------------------------------------------------------------

    def put_back(self) -> PutBack:
        """Bring everything to what it was; may be called again after it was cut short at any moment.

        The journal goes last. Where somebody put something of his own in the place of a file that was there
        before, the journal and the file's old content stay.
        """
        done = PutBack([], [])
        for name, setting in sorted(self.settings.items()):
            self._put_setting(name, setting, done)
        waiting = {}
        for name in sorted(self.files, reverse=True):
            if not self._put_file(Path(name), self.files[name], done):
                waiting[name] = self.files[name]
        own = (self.folder, *self.folder.parents)
        others = [Path(name) for name in self.folders if Path(name) not in own]
        for folder in sorted(others, reverse=True):
            self._put_folder(folder, done)
        if waiting:
            self.settings, self.files = {}, waiting
            self._save()
            return done
        if self.content.is_dir():
            for path in self.content.iterdir():
                path.unlink()
            self.content.rmdir()
        for path in (draft_of(self.journal), self.journal):
            path.unlink(missing_ok=True)
        for folder in own:
            if str(folder) in self.folders:
                self._put_folder(folder, done)
        if self.is_new:
            # Cut short between the journal's end and its folder's.
            for folder in (self.folder, self.folder.parent):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return done

    def _put_setting(self, name: str, setting: dict[str, Any], done: PutBack) -> None:
        now, before = self._setting(name), setting["before"]
        if now == before or now is None or before is None:
            return
        if now not in setting["ours"]:
            done.left.append(f"{name} is {now}, which faultlab did not set (it was {before} before)")
            return
        (self.root / name.lstrip("/")).write_text(before)
        done.changed.append(f"{name}: {now} -> {before}")

    def _put_file(self, path: Path, before: dict[str, Any], done: PutBack) -> bool:
        """Put one path back; False when its old content has to wait."""
        # What a run that was cut short left beside the path: Ansible's draft, or that of an earlier attempt.
        for draft in (*path.parent.glob(f"{_ANSIBLE_DRAFT}*{path.name}"), draft_of(path)):
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
                done.changed.append(f"{draft}: removed")
        now = describe(path)
        wanted = {key: value for key, value in before.items() if key != "ours"}
        if now == wanted or (now["kind"] == wanted["kind"] and now["kind"] in ("other", "absent")):
            return True
        ours = now["kind"] == "file" and bool({now["sha256"], ANYTHING} & set(before["ours"]))
        if before["kind"] == "absent":
            if ours:
                path.unlink()
                done.changed.append(f"{path}: removed")
            else:
                done.left.append(f"{path} is not what faultlab put there")
            return True
        same_kind = now["kind"] == before["kind"] and now.get("sha256") == before.get("sha256")
        if not (ours or same_kind or now["kind"] == "absent"):
            done.left.append(f"{path} is not what faultlab put there; what was there before is kept")
            return False
        self._restore(path, before)
        done.changed.append(f"{path}: as it was before")
        return True

    def _restore(self, path: Path, before: dict[str, Any]) -> None:
        if before["kind"] == "folder":
            path.mkdir(exist_ok=True)
            os.chown(path, before["uid"], before["gid"])
            path.chmod(before["mode"])
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if before["kind"] == "link":
            draft = draft_of(path)
            draft.unlink(missing_ok=True)
            draft.symlink_to(before["target"])
        else:
            draft = write_draft(path, (self.content / before["sha256"]).read_bytes())
        os.chown(draft, before["uid"], before["gid"], follow_symlinks=False)
        if before["kind"] == "file":
            # After the owner: a change of it takes setuid bits away.
            draft.chmod(before["mode"])
        os.utime(draft, ns=(before["mtime_ns"], before["mtime_ns"]), follow_symlinks=False)
        draft.replace(path)

    def _put_folder(self, folder: Path, done: PutBack) -> None:
        before = self.folders[str(folder)]
        if before["kind"] == "absent":
            try:
                folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                # Of folders in folders only the innermost, which has what the others are kept for.
                held = [path for path in folder.iterdir() if str(path) not in self.folders]
                if held:
                    names = ", ".join(sorted(path.name for path in held))
                    done.left.append(f"{folder} stays, for what faultlab did not put there: {names}")
                return
            done.changed.append(f"{folder}: removed")
            return
        # The time tells of changes that are all undone; with something else in it, it tells of that.
        with contextlib.suppress(FileNotFoundError):
            status = folder.stat()
            if status.st_mtime_ns != before["mtime_ns"] and _names(folder) == before["names"]:
                os.utime(folder, ns=(status.st_atime_ns, before["mtime_ns"]))
