"""A small Debian archive on 127.0.0.1, signed with a key of its own, for the tests of fetching."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab import paths
from lab.images import apt, lock, recipe


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start: they inherit that it is ignored, as in a background job."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the tests read what the lab says."""


@dataclass(frozen=True)
class SigningKey:
    """A key made for one test session, and the keyring that holds its public half."""

    home: Path
    keyring: Path

    def sign(self, plain: Path, signed: Path) -> None:
        argv = ["gpg", "--homedir", self.home, "--batch", "--yes", "--output", signed, "--clearsign", plain]
        subprocess.run(argv, check=True, capture_output=True)


def _make_key(folder: Path) -> SigningKey:
    folder.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(folder), "--batch", "--yes"]
    make = ["--passphrase", "", "--quick-generate-key", "Test archive", "ed25519", "sign", "never"]
    subprocess.run([*gpg, *make], check=True, capture_output=True)
    keyring = folder / "keyring.gpg"
    subprocess.run([*gpg, "--output", keyring, "--export"], check=True, capture_output=True)
    return SigningKey(folder, keyring)


@pytest.fixture(scope="session")
def signing_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SigningKey, SigningKey]]:
    """The archive's key and a stranger's."""
    root = tmp_path_factory.mktemp("keys")
    keys = _make_key(root / "own"), _make_key(root / "stranger")
    yield keys
    for key in keys:
        subprocess.run(["gpgconf", "--homedir", key.home, "--kill", "all"], check=True)


@dataclass
class Archive:
    """A signed archive of one suite, `stable`, for amd64."""

    root: Path
    key: SigningKey
    address: str
    records: dict[str, str] = field(default_factory=dict)
    contrib: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    published: int = 0

    def add(self, name: str, version: str, depends: str = "", *, in_contrib: bool = False) -> Path:
        """Put a package in, in place of any other version of it; returns its file. Publish afterwards."""
        tree = self.root.parent / "tree" / name
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: T <t@example.org>\n"
        control += (f"Depends: {depends}\n" if depends else "") + "Description: test\n"
        (tree / "DEBIAN/control").write_text(control)
        (tree / "usr/share").mkdir(parents=True, exist_ok=True)
        (tree / "usr/share" / name).write_text(version)
        pool = self.root / "pool" / name
        pool.mkdir(parents=True, exist_ok=True)
        for old in pool.iterdir():
            old.unlink()
        file = pool / f"{name}_{version}_amd64.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", tree, file], check=True, capture_output=True
        )
        (self.contrib if in_contrib else self.records)[name] = control + self._checks(file, "Filename")
        return file

    def add_source(self, name: str, version: str) -> Path:
        """Put a source package in; returns its pristine tarball."""
        pool = self.root / "pool" / name
        pool.mkdir(parents=True, exist_ok=True)
        bare = version.rpartition(":")[2]
        upstream = bare.rpartition("-")[0]
        files = [pool / f"{name}_{upstream}.orig.tar.xz", pool / f"{name}_{bare}.debian.tar.xz"]
        dsc = pool / f"{name}_{bare}.dsc"
        for file in (*files, dsc):
            file.write_text(f"{file.name}\n")
        rows = "".join(
            f" {hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_size} {file.name}\n"
            for file in (dsc, *files)
        )
        self.sources[name] = (
            f"Package: {name}\nBinary: {name}\nVersion: {version}\nArchitecture: any\nFormat: 3.0 (quilt)\n"
            f"Directory: pool/{name}\nChecksums-Sha256:\n{rows}"
        )
        return files[0]

    def _checks(self, file: Path, key: str) -> str:
        content = file.read_bytes()
        name = file.relative_to(self.root)
        return f"{key}: {name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"

    def publish(self, key: SigningKey | None = None) -> None:
        """Write the indexes and sign them."""
        suite = self.root / "dists" / "stable"
        indexes = {
            "main/binary-amd64/Packages": "\n".join(self.records.values()).encode(),
            "main/source/Sources": "\n".join(self.sources.values()).encode(),
            "contrib/binary-amd64/Packages": "\n".join(self.contrib.values()).encode(),
            "contrib/source/Sources": b"",
        }
        rows = ""
        for index, plain in indexes.items():
            for name, content in ((index, plain), (f"{index}.gz", gzip.compress(plain, mtime=0))):
                file = suite / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                rows += f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
        release = suite / "Release"
        release.write_text(
            "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: stable\n"
            "Date: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: amd64\nComponents: main contrib\n"
            f"SHA256:\n{rows}"
        )
        signed = suite / "InRelease"
        (key or self.key).sign(release, signed)
        # HTTP's time stamps count in seconds: without this, an index of the same second would not be fetched.
        self.published += 1
        os.utime(signed, (self.published * 10, self.published * 10))


@pytest.fixture
def archive(
    tmp_path: Path, signing_keys: tuple[SigningKey, SigningKey], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Archive]:
    """An empty archive that the lab takes for the mirror, with cache, recipes and lock of this test alone."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "recipes").mkdir()

    def handler(*arguments: Any) -> _Quiet:
        return _Quiet(*arguments, directory=str(tmp_path / "archive"))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "apt.conf").write_text('Acquire::Retries "0";\nAcquire::http::Proxy "DIRECT";\n')
        for name, value in {
            paths.CACHE_VARIABLE: tmp_path / "cache",
            apt.MIRROR_VARIABLE: address,
            "APT_CONFIG": tmp_path / "apt.conf",
        }.items():
            monkeypatch.setenv(name, os.fspath(value))
        monkeypatch.setattr(apt, "KEYRING", signing_keys[0].keyring)
        monkeypatch.setattr(recipe, "RECIPES", tmp_path / "recipes")
        monkeypatch.setattr(lock, "LOCK_FILE", tmp_path / "recipes" / "lock.json")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Archive(tmp_path / "archive", signing_keys[0], address)
        finally:
            server.shutdown()
            thread.join()
