"""Where things live: the repository's own folders, and the cache that can be moved with one variable."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from lab.errors import LabError

REPOSITORY = Path(__file__).resolve().parent.parent
INVENTORY = REPOSITORY / "inventory"
GUESTS_FILE = INVENTORY / "guests.yml"
PROVISION = REPOSITORY / "provision"
RECIPES = PROVISION / "images"
RESULTS_VARIABLE = "FAULTLAB_RESULTS"
RESULTS = Path(os.environ.get(RESULTS_VARIABLE) or REPOSITORY / "results").absolute()
BOXES_VARIABLE = "FAULTLAB_BOXES"
BOXES = Path(os.environ.get(BOXES_VARIABLE) or REPOSITORY / "boxes").absolute()

CACHE_VARIABLE = "FAULTLAB_CACHE"
IN_USE = "in-use"
"""The cache's lock file."""
IN_CACHE = frozenset(
    {
        *("acceleration", "apt", "dask", "downloads", "keys", "logs"),
        *("resolved", "running", "store", "times.json", "ways", "workers", "zig"),
    }
)
"""What the lab puts into the cache beside its lock: what may be removed of a folder that a user named."""


def cache() -> Path:
    """The cache folder: ``$FAULTLAB_CACHE``, or ``faultlab`` in the XDG cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "faultlab"


def vagrant_notes() -> Path:
    """The folder in which Vagrant keeps what it knows of this repository's machines."""
    return REPOSITORY / (os.environ.get("VAGRANT_DOTFILE_PATH") or ".vagrant")


def runtime() -> Path:
    """A short private folder for sockets: their paths may have 107 bytes at most (unix(7)).

    Falls back to a folder in the system's temporary folder without an XDG_RUNTIME_DIR of the user's own.
    Raises LabError when somebody else was there first.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    own = base.is_dir() and base.stat().st_uid == os.getuid()
    folder = base / "faultlab" if own else Path(tempfile.gettempdir()) / f"faultlab-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LabError(
            "not a folder of this user alone", where=str(folder), hint="remove it, or set XDG_RUNTIME_DIR"
        )
    return folder
