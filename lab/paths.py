"""Where things live: the repository's own folders, and the cache that can be moved with one variable."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
INVENTORY = REPOSITORY / "inventory"
GUESTS_FILE = INVENTORY / "guests.yml"
PROVISION = REPOSITORY / "provision"
RECIPES = PROVISION / "images"
RESULTS = REPOSITORY / "results"

CACHE_VARIABLE = "FAULTLAB_CACHE"


def cache() -> Path:
    """The cache folder: ``$FAULTLAB_CACHE``, or ``faultlab`` in the XDG cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "faultlab"


def runtime() -> Path:
    """A short private folder for sockets: their paths may have 107 bytes at most (unix(7)).

    Falls back to a folder in the system's temporary folder when the session has no XDG_RUNTIME_DIR.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "faultlab" if base else Path(tempfile.gettempdir()) / f"faultlab-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder
