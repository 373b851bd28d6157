"""The lab's own keys: made once for each cache, given to every guest, and the only ones accepted.

``keys/client`` opens the guests, ``keys/host`` is what they answer with, ``keys/known_hosts`` pins it under
the alias that stands for every guest of this lab.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lab import paths
from lab.errors import CorruptCache

HOST_KEY_ALIAS = "faultlab-guest"
"""The name the guests' host key is pinned under: their ports change with each start, their key does not."""

_NAMES = ("client", "client.pub", "host", "host.pub", "known_hosts")


@dataclass(frozen=True)
class Keys:
    """The folder with the key pairs."""

    folder: Path

    @property
    def client(self) -> Path:
        """The private key that opens every guest."""
        return self.folder / "client"

    @property
    def known_hosts(self) -> Path:
        """The file that pins the guests' host key."""
        return self.folder / "known_hosts"

    def fingerprint(self) -> str:
        """A hash of both public keys: a state saved with other keys cannot be gone on from."""
        total = hashlib.sha256()
        for name in ("client.pub", "host.pub"):
            total.update((self.folder / name).read_bytes())
        return total.hexdigest()[:32]


def _new_pair(folder: Path, name: str) -> str:
    key = Ed25519PrivateKey.generate()
    private = folder / name
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    (folder / f"{name}.pub").write_text(f"{public} faultlab\n")
    return public


def make_keys(folder: Path) -> Keys:
    """Make new keys in a folder that does not exist yet; those of a command that was faster are as good."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".keys-", dir=folder.parent))
    try:
        _new_pair(temporary, "client")
        public = _new_pair(temporary, "host")
        (temporary / "known_hosts").write_text(f"{HOST_KEY_ALIAS} {public}\n")
        # Fails when the folder is there by now: a folder is only ever renamed onto an empty one.
        with contextlib.suppress(OSError):
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Keys(folder)


def keys() -> Keys:
    """The keys of this cache, made at the first call.

    Raises CorruptCache when some are missing or others than their owner may read a private one.
    """
    folder = paths.cache() / "keys"
    if not folder.exists():
        make_keys(folder)
    for name in _NAMES:
        file = folder / name
        if not file.is_file():
            raise CorruptCache(f"no {name}", where=str(folder), hint="remove the folder; new keys are made")
        if name in ("client", "host") and file.stat().st_mode & 0o077:
            raise CorruptCache(f"{name} can be read by others", where=str(folder), hint="chmod it to 600")
    return Keys(folder)


def write_identity(made_for: Keys, hostname: str, target: Path) -> None:
    """Write the tar archive that a guest unpacks at boot: its host key, who may log in, and its name."""
    contents = (
        ("etc/ssh/ssh_host_ed25519_key", 0o600, (made_for.folder / "host").read_bytes()),
        ("etc/ssh/ssh_host_ed25519_key.pub", 0o644, (made_for.folder / "host.pub").read_bytes()),
        ("root/.ssh/authorized_keys", 0o600, (made_for.folder / "client.pub").read_bytes()),
        ("etc/hostname", 0o644, f"{hostname}\n".encode()),
    )
    target.touch(mode=0o600)
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        folder = tarfile.TarInfo("root/.ssh")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        for name, mode, content in contents:
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(content)
            archive.addfile(member, io.BytesIO(content))
