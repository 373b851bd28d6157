"""The content-addressed store: what was built once is found again by the hash of what it was built from.

An entry is a folder ``store/<kind>/<key>`` with a manifest of its files' SHA-256. It is built in a temporary
folder beside its place and renamed when it is whole, so an interrupted build is never taken for a finished
one. Its contents are verified whenever it is used: a file whose inode, size and times are those of its last
full hash is taken as unaltered, any other is hashed again.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import CorruptCache, DiskFull, LabError, NotThere
from lab.exclusive import turn
from lab.files import write_whole

MANIFEST = "manifest.json"


_verified_while_looking: contextvars.ContextVar[set[Path] | None] = contextvars.ContextVar(
    "verified while looking", default=None
)
"""That there is a set means "only looking"; in it are the entries that were found whole since. Many guests
share a few entries of thousands of files.
"""


@contextlib.contextmanager
def looking_only() -> Iterator[None]:
    """Within this context nothing is built or fetched: what is missing raises NotThere.

    Each entry is verified once.
    """
    token = _verified_while_looking.set(set())
    try:
        yield
    finally:
        _verified_while_looking.reset(token)


def is_looking_only() -> bool:
    """Whether what is missing is only to be named."""
    return _verified_while_looking.get() is not None


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(parts: Mapping[str, Any]) -> str:
    """A key of 32 hexadecimal digits from whatever decides the contents (JSON values)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tree_digest(root: Path, *, without: tuple[str, ...] = ()) -> str:
    """One SHA-256 over the names, modes and contents of the files below a folder (or of one file).

    Names listed in ``without`` are left out at any depth.
    """
    total = hashlib.sha256()
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_symlink() or p.is_file())
    for path in files:
        relative = path.relative_to(root)
        if set(relative.parts) & {"__pycache__", *without}:
            continue
        executable = bool(path.lstat().st_mode & 0o100)
        total.update(f"{relative}\0{executable}\0{_content(path)}\0".encode())
    return total.hexdigest()


def _content(path: Path) -> str:
    """The hash of a file, or where a symbolic link points."""
    return f"-> {path.readlink()}" if path.is_symlink() else digest(path)


def _stat_signature(path: str) -> list[int]:
    status = os.lstat(path)
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _describe(root: Path) -> dict[str, str]:
    """Every file and symbolic link below the root, with its content."""
    found = (path for path in sorted(root.rglob("*")) if path.is_symlink() or path.is_file())
    return {str(path.relative_to(root)): _content(path) for path in found}


class Store:
    """Built things, by kind and key. Processes and threads that want the same one wait for each other."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or paths.cache() / "store"

    def path(self, kind: str, key: str) -> Path:
        """Where an entry is or would be."""
        return self.root / kind / key

    def find(self, kind: str, key: str) -> Path | None:
        """The entry when it is there and whole; None when it was never finished.

        Raises CorruptCache when it is there but altered; it is moved aside first, so that the next run builds
        it anew.
        """
        entry = self.path(kind, key)
        verified = _verified_while_looking.get()
        if verified is not None and entry in verified:
            return entry
        if not entry.is_dir():
            return None
        damage = self._damage(entry)
        if damage:
            aside = Path(tempfile.mkdtemp(prefix=f"{key}.damaged-", dir=entry.parent))
            entry.rename(aside / key)
            raise CorruptCache(
                f"{damage} is not what was built",
                where=str(entry),
                hint=f"moved to {aside}; run again to rebuild it",
            )
        # The time of its last use: what is pruned is what was not used for longest.
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._seen_file(entry))
        if verified is not None:
            verified.add(entry)
        return entry

    def ensure(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        """The entry, built now when it is not there: ``build`` fills the temporary folder it is given.

        Raises what ``build`` raises, DiskFull when no space is left, CorruptCache as in :meth:`find`.
        """
        found = self.find(kind, key)
        if found:
            return found
        if is_looking_only():
            raise NotThere(kind, key)
        entry = self.path(kind, key)
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            with self.locked(kind, key):
                # Somebody else may have built it meanwhile.
                return self.find(kind, key) or self._build(entry, build)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    "no space left on the device",
                    where=str(entry.parent),
                    hint=f"free some, or set {paths.CACHE_VARIABLE}",
                ) from error
            raise

    def locked(self, kind: str, key: str) -> contextlib.AbstractContextManager[None]:
        """Hold an entry alone: nobody builds it meanwhile."""
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return turn(locks / f"{kind}-{key}.lock")

    def _build(self, entry: Path, build: Callable[[Path], None]) -> Path:
        """Build one entry, with its lock held."""
        for leftover in entry.parent.glob(f".{entry.name}-*"):
            # Whoever made it was killed: the lock is ours.
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
        try:
            build(temporary)
            files = _describe(temporary)
            (temporary / MANIFEST).write_text(json.dumps({"files": files}, indent=1, sort_keys=True))
            temporary.chmod(0o755)
            temporary.rename(entry)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, LabError):
                error.unbuilt += (f"{entry.parent.name}/{entry.name}",)
            raise
        self._remember(entry, files)
        return entry

    def last_used(self, entry: Path) -> float:
        """When an entry was last found or built, in seconds since 1970."""
        seen = self._seen_file(entry)
        return (seen if seen.exists() else entry).stat().st_mtime

    def remove(self, entry: Path) -> None:
        """Take an entry away: it is gone at once, its files a moment later."""
        with self.locked(entry.parent.name, entry.name):
            aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
            entry.rename(aside / entry.name)
            self._seen_file(entry).unlink(missing_ok=True)
            shutil.rmtree(aside)

    def _seen_file(self, entry: Path) -> Path:
        return entry.parent / f"{entry.name}.seen.json"

    def _remember(self, entry: Path, files: Mapping[str, str]) -> None:
        seen = {name: _stat_signature(f"{entry}/{name}") for name in files}
        write_whole(self._seen_file(entry), json.dumps(seen).encode())

    def _seen(self, entry: Path) -> dict[str, Any]:
        """What each file looked like when it was last hashed; nothing when that is not known."""
        try:
            seen = json.loads(self._seen_file(entry).read_bytes())
        except (ValueError, OSError):
            return {}
        return seen if isinstance(seen, dict) else {}

    def _damage(self, entry: Path) -> str | None:
        """The name of the first file that is not as built, or None."""
        try:
            files: dict[str, str] = json.loads((entry / MANIFEST).read_bytes())["files"]
        except (ValueError, KeyError, TypeError, OSError):
            return MANIFEST
        seen = self._seen(entry)
        hashed_again = False
        for name, expected in files.items():
            try:
                # As text: making a Path takes longer than asking for the file, and there are thousands.
                if seen.get(name) == _stat_signature(f"{entry}/{name}"):
                    continue
                if _content(entry / name) != expected:
                    return name
            except OSError:
                return name
            hashed_again = True
        if hashed_again:
            self._remember(entry, files)
        return None
