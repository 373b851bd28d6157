"""The lab's keys and what a guest is given of them."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lab import paths
from lab.errors import CorruptCache
from lab.guests import identity


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> identity.Keys:
    monkeypatch.setenv(paths.CACHE_VARIABLE, os.fspath(tmp_path / "cache"))
    return identity.keys()


def test_keys_are_made_once_and_only_their_owner_reads_them(keys: identity.Keys) -> None:
    before = keys.client.read_bytes()
    assert identity.keys() == keys
    assert keys.client.read_bytes() == before
    modes = {name: (keys.folder / name).stat().st_mode & 0o777 for name in ("client", "host")}
    assert modes == {"client": 0o600, "host": 0o600}
    assert [path.name for path in keys.folder.parent.iterdir()] == ["keys"]


def test_openssh_reads_the_private_keys(keys: identity.Keys) -> None:
    for name in ("client", "host"):
        made = subprocess.run(
            ["ssh-keygen", "-y", "-P", "", "-f", keys.folder / name],
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        assert made[:2] == (keys.folder / f"{name}.pub").read_text().split()[:2]


def test_the_host_key_is_pinned_under_the_alias(keys: identity.Keys) -> None:
    pinned = keys.known_hosts.read_text().split()
    assert pinned == [identity.HOST_KEY_ALIAS, *(keys.folder / "host.pub").read_text().split()[:2]]


def test_keys_of_a_faster_command_are_kept(keys: identity.Keys) -> None:
    fingerprint = keys.fingerprint()
    assert identity.make_keys(keys.folder).fingerprint() == fingerprint
    assert [path.name for path in keys.folder.parent.iterdir()] == ["keys"]


def test_other_keys_have_another_fingerprint(keys: identity.Keys, tmp_path: Path) -> None:
    assert identity.make_keys(tmp_path / "other").fingerprint() != keys.fingerprint()


def test_a_key_others_can_read_is_refused(keys: identity.Keys) -> None:
    keys.client.chmod(0o644)
    with pytest.raises(CorruptCache, match="client can be read by others"):
        identity.keys()


def test_a_missing_key_is_named(keys: identity.Keys) -> None:
    (keys.folder / "host").unlink()
    with pytest.raises(CorruptCache, match="no host; remove the folder"):
        identity.keys()


def test_what_a_guest_unpacks(keys: identity.Keys, tmp_path: Path) -> None:
    identity.write_identity(keys, "glibc-2.41-x86_64", tmp_path / "identity.tar")
    with tarfile.open(tmp_path / "identity.tar") as archive:
        members = {member.name: (oct(member.mode), member.uid) for member in archive}
        content = {name: archive.extractfile(name).read() for name in members if name != "root/.ssh"}
    assert members == {
        "root/.ssh": ("0o700", 0),
        "etc/ssh/ssh_host_ed25519_key": ("0o600", 0),
        "etc/ssh/ssh_host_ed25519_key.pub": ("0o644", 0),
        "root/.ssh/authorized_keys": ("0o600", 0),
        "etc/hostname": ("0o644", 0),
    }
    assert content["etc/ssh/ssh_host_ed25519_key"] == (keys.folder / "host").read_bytes()
    assert content["root/.ssh/authorized_keys"] == (keys.folder / "client.pub").read_bytes()
    assert content["etc/hostname"] == b"glibc-2.41-x86_64\n"
    assert (tmp_path / "identity.tar").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "identity.tar").stat().st_size % 512 == 0
