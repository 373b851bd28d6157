"""Everything with which a guest provisions itself, in one archive: for a host that has no Ansible.

::

    ansible/      ansible-core and what it needs, in Python alone: it runs on every libc and architecture
    provision/    the playbook and its roles
    inventory/
    payload/      the guest's payload
"""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lab import paths
from lab.build.payload import Payload
from lab.errors import BuildFailed

_DISTRIBUTIONS = ("ansible-core", "mitogen", "jinja2", "markupsafe", "pyyaml", "packaging", "resolvelib")
"""ansible-core does without cryptography, which its vault needs. With mitogen it is four times as fast."""

_LEFT_OUT = (".so", ".pyc")
"""MarkupSafe and PyYAML have the same in Python."""


def pack(payload: Payload, archive: Path) -> None:
    """Write the archive, whole or not at all; the same bytes for the same inputs. Raises BuildFailed."""
    part = archive.with_name(f".{archive.name}.part")
    try:
        with (
            part.open("wb") as file,
            gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for name, source in sorted(_members(payload)):
                _add(tar, name, source)
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)


def _members(payload: Payload) -> Iterator[tuple[str, Path]]:
    for name in _DISTRIBUTIONS:
        yield from _distribution(name)
    for folder in (paths.PROVISION, paths.INVENTORY):
        for file in folder.rglob("*"):
            apart = any(file.is_relative_to(other) for other in (paths.RECIPES, paths.PROVISION / "host"))
            if file.is_file() and not apart and "__pycache__" not in file.parts:
                yield file.relative_to(paths.REPOSITORY).as_posix(), file
    for file in payload.folder.iterdir():
        yield f"payload/{file.name}", file


def _distribution(name: str) -> Iterator[tuple[str, Path]]:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise BuildFailed(
            f"the distribution {name!r} is not installed", hint="install the requirements"
        ) from error
    for file in distribution.files or ():
        if ".." not in file.parts and file.suffix not in _LEFT_OUT:
            yield f"ansible/{file}", Path(str(distribution.locate_file(file)))


def _add(tar: tarfile.TarFile, name: str, source: Path) -> None:
    content = source.read_bytes()
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
    tar.addfile(member, io.BytesIO(content))
