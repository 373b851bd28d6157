"""Fetch what the lock names, and go on honestly with what the mirror has when it dropped a version.

Downloads are kept by SHA-256 and checked whenever they are used. apt's own downloader does the transfer, so
proxies and certificates are those of the host's apt.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from lab import paths, steps
from lab.errors import BuildFailed, CorruptCache, FetchFailed, GivenUp, NotThere
from lab.exclusive import turn
from lab.files import write_whole
from lab.images import apt, lock, recipe
from lab.images.lock import Package
from lab.images.store import digest, is_looking_only, key_of

HELPER = "/usr/lib/apt/apt-helper"
BATCH = 24
"""Files fetched by one call of apt's downloader."""

_PARTIAL = ".partial-"


@dataclass(frozen=True)
class PackageSet:
    """A recipe resolved for one suite and architecture, and where that differs from the lock."""

    name: str
    packages: tuple[Package, ...]
    deviations: tuple[str, ...]

    def hashes(self) -> dict[str, str]:
        """Package name to SHA-256: what decides the contents of anything built from this set."""
        return {package.name: package.sha256 for package in self.packages}

    @property
    def suite(self) -> str:
        """The suite it is of."""
        return self.name.split("/")[1]

    def version(self, name: str) -> str:
        """The version of one package of the set."""
        return next(package.version for package in self.packages if package.name == name)


class Gone(GivenUp):
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
    """The packages to build from: the lock's, or what an earlier build had to take in place of dropped
    versions.
    """
    name = set_name(recipe_name, suite, architecture)
    locked = lock.read().get(name)
    if locked is None:
        raise BuildFailed(f"no package set {name}", where=str(lock.LOCK_FILE), hint="run make lock")
    resolved = _read_resolved(_resolved_file(name, locked))
    if resolved:
        return PackageSet(name, resolved.packages, resolved.deviations)
    return PackageSet(name, locked, ())


def _read_resolved(file: Path) -> _Resolved | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Resolved)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        file.unlink()
        raise CorruptCache(
            "not what was written", where=str(file), hint="removed; run again to resolve it anew"
        ) from error


def resolve_now(recipe_name: str, suite: str, architecture: str) -> tuple[Package, ...]:
    """What the mirror has today for a recipe, its indexes checked against the archive's signatures."""
    lists = {own or suite: wanted for own, wanted in recipe.load(recipe_name, suite, architecture).items()}
    binaries = {each: wanted for each, wanted in lists.items() if wanted.has_binaries}
    sources = {each: wanted.sources for each, wanted in lists.items() if wanted.sources}
    found: list[Package] = []
    if binaries:
        components = tuple(dict.fromkeys(each for wanted in lists.values() for each in wanted.components))
        with _archive(tuple(binaries), architecture, components) as private:
            for each, wanted in binaries.items():
                found += wanted.resolve(private, each)
    if sources:
        # They are of no architecture, and a suite need not have the guest's.
        with _archive(tuple(sources), apt.host_architecture()) as private:
            for each, names in sources.items():
                found += private.sources(each, names)
    return tuple(found)


@contextlib.contextmanager
def _archive(
    suites: tuple[str, ...], architecture: str, components: tuple[str, ...] = ()
) -> Iterator[apt.PrivateApt]:
    """apt with the indexes of these suites as they are now, of main and of other ``components``."""
    root = paths.cache() / "apt" / f"{'-'.join(suites)}-{apt.debian_architecture(architecture)}"
    root.mkdir(parents=True, exist_ok=True)
    with turn(root.with_name(f".{root.name}.lock")):
        private = apt.PrivateApt(root, architecture)
        private.prepare(suites, components)
        yield private


def building(recipe_name: str, suite: str, architecture: str, use: Callable[[PackageSet], Path]) -> Path:
    """Call ``use`` with the locked packages, and once more with today's when the mirror dropped one of them.

    ``use`` gets the set, computes its key from it and fetches within its build step. The substitution is told
    in one line, kept for the next run, and part of the set (``deviations``), so of every key made from it.
    """
    chosen = locked_set(recipe_name, suite, architecture)
    if chosen.deviations:
        told = _first_of(chosen.deviations, 1)
        steps.note(f"{chosen.name}: built from other versions than locked: {told} (make lock renews it)")
    try:
        return use(chosen)
    except Gone as gone:
        dropped = _first_of([f"{package.name} {package.version}" for package in gone.packages], 3)
        steps.note(
            f"{chosen.name}: the mirror dropped {dropped}; using what it has now (make lock renews it)"
        )
    now = _substitute(chosen.name, resolve_now(recipe_name, suite, architecture))
    try:
        return use(now)
    except Gone as gone:
        raise FetchFailed(
            f"the mirror lists {gone} but does not have it", where=chosen.name, hint="try again later"
        ) from gone


def fetched(recipe_name: str, suite: str, architecture: str) -> PackageSet:
    """A package set with all its files fetched, dropped ones substituted as in :func:`building`."""

    def use(chosen: PackageSet) -> Path:
        fetch(chosen.packages)
        return paths.cache()

    building(recipe_name, suite, architecture, use)
    return locked_set(recipe_name, suite, architecture)


def _substitute(name: str, packages: tuple[Package, ...]) -> PackageSet:
    """A set in place of the lock's, kept for the next runs until the lock changes."""
    locked = lock.read()[name]
    now = PackageSet(name, packages, version_changes(locked, packages))
    file = _resolved_file(name, locked)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, msgspec.json.encode(_Resolved(now.packages, now.deviations)))
    return now


def _first_of(lines: Sequence[str], count: int) -> str:
    more = f" and {len(lines) - count} more" if len(lines) > count else ""
    return ", ".join(lines[:count]) + more


def version_changes(locked: Iterable[Package], used: Iterable[Package]) -> tuple[str, ...]:
    """One line for each package whose version differs, or whose file does under the same version."""
    before = {package.name: package for package in locked}
    after = {package.name: package for package in used}
    found = []
    for name in sorted(before | after):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or old.version != new.version:
            found.append(f"{name} {old.version if old else 'absent'} -> {new.version if new else 'absent'}")
        elif old.sha256 != new.sha256:
            found.append(f"{name} {old.version}: another file of this version")
    return tuple(found)


def fetch(packages: Iterable[Package]) -> dict[str, Path]:
    """The files of these packages by package name, fetched where they are not there yet.

    Raises Gone when the mirror lacks some, FetchFailed when it can't be reached, DiskFull.
    """
    wanted = list(packages)
    folder = paths.cache() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    if missing := _missing(wanted, folder):
        if is_looking_only():
            raise NotThere("package", missing[0].name)
        with turn(folder / ".downloads.lock"):
            for leftover in folder.glob(f"{_PARTIAL}*"):
                # Whoever made it was killed: the lock is ours.
                shutil.rmtree(leftover, ignore_errors=True)
            _download_all(_missing(wanted, folder), folder)
    return {package.name: folder / package.sha256 for package in wanted}


def _missing(packages: list[Package], folder: Path) -> list[Package]:
    """The packages whose files are not there whole: the archive still has what was damaged here."""
    there = ((package, folder / package.sha256) for package in packages)
    return [package for package, file in there if not file.exists() or digest(file) != package.sha256]


def _download_all(packages: list[Package], folder: Path) -> None:
    if not packages:
        return
    total = sum(package.size for package in packages) / 1e6
    gone: list[Package] = []
    with steps.step(f"Fetch {len(packages)} packages, {total:.0f} MB"):
        for start in range(0, len(packages), BATCH):
            gone += _download(packages[start : start + BATCH], folder)
    if gone:
        raise Gone(gone)


def _download(packages: list[Package], folder: Path) -> list[Package]:
    """Fetch one batch; returns the packages that the mirror says it does not have."""
    # Of a mirror in a folder, apt would hand out links into it.
    address = re.sub("^file:", "copy:", apt.mirror())
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=folder) as temporary:
        argv = [HELPER, "-o", "APT::Sandbox::User=", "download-file"]
        for package in packages:
            source = f"{address}/{quote(package.filename, safe='/+~')}"
            argv += [source, f"{temporary}/{package.sha256}", f"SHA256:{package.sha256}"]
        errors = apt.run_captured(argv).stderr
        gone = []
        for package in packages:
            part = Path(temporary) / package.sha256
            if part.exists() and digest(part) == package.sha256:
                part.replace(folder / package.sha256)
            elif _says_not_found(errors, package):
                gone.append(package)
            else:
                raise apt.failure(errors, f"fetching {package.name}", folder)
    return gone


_NOT_FOUND = re.compile(
    r"^E: Failed to fetch (\S+)\s+(?:404|410|File not found|Failed to stat)\b", re.MULTILINE
)


def _says_not_found(errors: str, package: Package) -> bool:
    base = package.filename.rpartition("/")[2]
    return any(unquote(found[1]).rpartition("/")[2] == base for found in _NOT_FOUND.finditer(errors))
