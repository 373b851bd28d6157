"""Fetch what the lock names, and go on honestly with what the mirror has when it dropped a version.

Downloads are kept by SHA-256 and checked whenever they are used. apt's own downloader does the transfer, so proxies and
certificates are those of the host's apt.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lab import paths, steps
from lab.errors import DiskFull, FetchFailed
from lab.images import apt, lock, recipe
from lab.images.lock import Package
from lab.images.store import digest, key_of

HELPER = "/usr/lib/apt/apt-helper"
BATCH = 24
"""Files fetched by one call of apt's downloader."""


@dataclass(frozen=True)
class PackageSet:
    """A recipe resolved for one suite and architecture: what it is made of, and where that differs from the lock."""

    name: str
    packages: tuple[Package, ...]
    deviations: tuple[str, ...]

    def hashes(self) -> dict[str, str]:
        """Package name to SHA-256: what decides the contents of anything built from this set."""
        return {package.name: package.sha256 for package in self.packages}

    def version(self, name: str) -> str:
        """The version of one package of the set."""
        return next(package.version for package in self.packages if package.name == name)


class Gone(Exception):
    """The mirror no longer has these files."""

    def __init__(self, packages: list[Package]) -> None:
        super().__init__(", ".join(package.filename for package in packages))
        self.packages = packages


class _Resolved(msgspec.Struct):
    packages: tuple[Package, ...]
    deviations: tuple[str, ...]


def set_name(recipe_name: str, suite: str, architecture: str) -> str:
    """The lock's name for a recipe on one suite and architecture."""
    return f"{recipe_name}/{suite}/{apt.debian_architecture(architecture)}"


def _resolved_file(name: str, locked: tuple[Package, ...]) -> Path:
    key = key_of({"locked": [package.sha256 for package in locked]})
    return paths.cache() / "resolved" / f"{name.replace('/', '-')}-{key}.json"


def locked_set(recipe_name: str, suite: str, architecture: str) -> PackageSet:
    """The packages to build from: the lock's, or what an earlier build had to take in place of dropped versions."""
    name = set_name(recipe_name, suite, architecture)
    locked = lock.read().get(name)
    if locked is None:
        raise FetchFailed(f"no package set {name}", where=str(lock.LOCK_FILE), hint="run make lock")
    file = _resolved_file(name, locked)
    if file.exists():
        resolved = msgspec.json.decode(file.read_bytes(), type=_Resolved)
        return PackageSet(name, resolved.packages, resolved.deviations)
    return PackageSet(name, locked, ())


def resolve_now(recipe_name: str, suite: str, architecture: str) -> tuple[Package, ...]:
    """What the mirror has today for a recipe, its indexes checked against the archive's signatures."""
    lists = recipe.load(recipe_name)
    suites = tuple(dict.fromkeys(own or suite for own in lists))
    root = paths.cache() / "apt" / f"{'-'.join(suites)}-{apt.debian_architecture(architecture)}"
    private = apt.PrivateApt(root, architecture)
    private.prepare(suites)
    return tuple(package for own, wanted in lists.items() for package in wanted.resolve(private, own or suite))


def building(recipe_name: str, suite: str, architecture: str, use: Callable[[PackageSet], Path]) -> Path:
    """Call ``use`` with the locked packages, and once more with today's when the mirror dropped one of them.

    ``use`` gets the set, computes its key from it and fetches within its build step. The substitution is told in one line, kept
    for the next run, and part of the set (``deviations``), so of every key made from it.
    """
    chosen = locked_set(recipe_name, suite, architecture)
    for deviation in chosen.deviations[:1]:
        more = f" and {len(chosen.deviations) - 1} more" if len(chosen.deviations) > 1 else ""
        steps.note(f"{chosen.name}: built from other versions than locked: {deviation}{more} (make lock renews it)")
    try:
        return use(chosen)
    except Gone as gone:
        locked = lock.read()[chosen.name]
        now = resolve_now(recipe_name, suite, architecture)
        changed = version_changes(locked, now)
        dropped = ", ".join(f"{package.name} {package.version}" for package in gone.packages[:3])
        more = f" and {len(gone.packages) - 3} more" if len(gone.packages) > 3 else ""
        steps.note(f"{chosen.name}: the mirror dropped {dropped}{more}; using what it has now (make lock renews it)")
        file = _resolved_file(chosen.name, locked)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}-{os.getpid()}")
        temporary.write_bytes(msgspec.json.encode(_Resolved(now, changed)))
        temporary.replace(file)
        try:
            return use(PackageSet(chosen.name, now, changed))
        except Gone as again:
            raise FetchFailed(
                f"the mirror lists {again} but does not have it", where=chosen.name, hint="try again later"
            ) from again


def version_changes(locked: Iterable[Package], used: Iterable[Package]) -> tuple[str, ...]:
    """One line for each package whose version differs."""
    before = {package.name: package.version for package in locked}
    after = {package.name: package.version for package in used}
    found = []
    for name in sorted(before | after):
        if before.get(name) != after.get(name):
            found.append(f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}")
    return tuple(found)


def fetch(packages: Iterable[Package]) -> dict[str, Path]:
    """The files of these packages by package name, fetched where they are not there yet.

    Raises Gone when the mirror lacks some, FetchFailed when it can't be reached, DiskFull.
    """
    folder = paths.cache() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    missing: list[Package] = []
    for package in packages:
        file = folder / package.sha256
        # A damaged download is simply fetched again: the archive still has it.
        if file.exists() and digest(file) == package.sha256:
            found[package.name] = file
        else:
            missing.append(package)
    if missing:
        total = sum(package.size for package in missing) / 1e6
        with steps.step(f"Fetch {len(missing)} packages, {total:.0f} MB"):
            gone: list[Package] = []
            for start in range(0, len(missing), BATCH):
                gone += _download(missing[start : start + BATCH], folder)
        if gone:
            raise Gone(gone)
        found |= {package.name: folder / package.sha256 for package in missing}
    return found


def _download(packages: list[Package], folder: Path) -> list[Package]:
    """Fetch one batch; returns the packages that the mirror says it does not have."""
    address = apt.mirror()
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        argv = [HELPER, "-o", "APT::Sandbox::User=", "download-file"]
        for package in packages:
            argv += [f"{address}/{package.filename}", f"{temporary}/{package.sha256}", f"SHA256:{package.sha256}"]
        done = apt.run_captured(argv)
        gone = []
        for package in packages:
            part = Path(temporary) / package.sha256
            if part.exists() and digest(part) == package.sha256:
                part.replace(folder / package.sha256)
            elif _says_not_found(done.stdout + done.stderr, package):
                gone.append(package)
            else:
                raise _failure(done.stderr or done.stdout, package, folder)
    return gone


def _says_not_found(output: str, package: Package) -> bool:
    base = package.filename.rsplit("/", 1)[-1]
    lines = output.replace("%2b", "+").replace("%7e", "~").replace("%3a", ":").splitlines()
    return any(base in line and ("404" in line or "410" in line) for line in lines) or any(
        base in line and index + 1 < len(lines) and lines[index + 1].strip().startswith(("404", "410"))
        for index, line in enumerate(lines)
    )


def _failure(output: str, package: Package, folder: Path) -> Exception:
    reason = apt.first_error(output)
    if "No space left" in output:
        return DiskFull("no space left on the device", where=str(folder), hint=f"free some, or set {paths.CACHE_VARIABLE}")
    return FetchFailed(reason, where=f"fetching {package.name}", hint="is there a network? the mirror is the host's apt's")
