"""apt with a private root: signed indexes of any suite and architecture, the host's own settings left alone.

The mirror, proxies and other ``Acquire`` settings are the host's; the package state is empty, so apt computes
a complete set of dependencies. Nothing here needs root.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from lab import paths
from lab.architectures import ARCHITECTURES
from lab.errors import BuildFailed, DiskFull, FetchFailed, MissingTool, NoMirror
from lab.images.lock import Package
from lab.process import ENGLISH, captured
from lab.steps import step
from lab.suites import expires

MIRROR_VARIABLE = "FAULTLAB_MIRROR"
_MIRROR_LIST = "mirror+file:"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def debian_architecture(architecture: str) -> str:
    """Debian's name of an architecture, e.g. amd64 for x86_64."""
    return ARCHITECTURES[architecture].debian


def host_architecture() -> str:
    """This machine's architecture, as the kernel names it."""
    return platform.machine()


def run_captured(argv: list[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of apt's programs with its messages in English, whatever its status.

    Raises MissingTool on a host that does not have it.
    """
    try:
        return captured(argv, env={**os.environ, **(env or {}), **ENGLISH})
    except FileNotFoundError as error:
        raise MissingTool(
            f"no program {argv[0]}", where="this host", hint="the lab needs a Debian host"
        ) from error


def mirror() -> str:
    """The address of the Debian mirror: ``$FAULTLAB_MIRROR``, or the first Debian archive of the host's apt.

    Raises NoMirror when neither names one.
    """
    chosen = os.environ.get(MIRROR_VARIABLE)
    if chosen:
        return chosen.rstrip("/")
    try:
        listing = run_captured(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(LABEL)", "Created-By: Packages"]
        ).stdout
    except MissingTool:
        listing = ""
    rows = [row.split("|") for row in listing.splitlines() if row.count("|") == 2]
    known = [uri for uri, origin, label in rows if origin == label == "Debian"]
    # Before the first apt-get update apt knows no origins: then the address itself has to tell.
    likely = [uri for uri, _, _ in rows if re.search(r"/debian(\.list)?/?$", uri)]
    for uri in known + likely:
        address = _first_of_mirror_list(uri) if uri.startswith(_MIRROR_LIST) else uri
        if address:
            return address.rstrip("/")
    raise NoMirror(
        "the host's apt configuration names no Debian mirror",
        where="images",
        hint=f"set {MIRROR_VARIABLE} to the address of one, as in a sources.list line",
    )


def _first_of_mirror_list(uri: str) -> str | None:
    """The first address in a list of mirrors, which Debian's cloud images have (apt-transport-mirror(1))."""
    try:
        lines = Path(uri.removeprefix(_MIRROR_LIST).rstrip("/")).read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[0] for line in lines if line.strip() and not line.startswith("#")), None)


def _acquire_settings() -> str:
    """The host's own download settings (proxies, validity checks), to be used in the private root as well."""
    kept = []
    for line in run_captured(["apt-config", "dump", "Acquire"]).stdout.splitlines():
        if not line.startswith(("Acquire::IndexTargets", "Acquire::Languages", "Acquire::GzipIndexes")):
            kept.append(line)
    return "\n".join(kept)


@dataclass(frozen=True)
class PrivateApt:
    """An apt root in a folder of the cache, for one architecture."""

    root: Path
    architecture: str

    def _env(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self.root / "apt.conf")}

    def prepare(self, suites: tuple[str, ...], components: tuple[str, ...] = ()) -> None:
        """Write the configuration and fetch the suites' signed indexes (network), of main and ``components``.

        Raises NoMirror, FetchFailed (no network, bad signature), MissingTool.
        """
        if not KEYRING.is_file():
            raise MissingTool(
                f"no {KEYRING}", where="this host", hint="install the package debian-archive-keyring"
            )
        self._configure(suites, ("main", *components), mirror())
        with step(
            f"Read the package indexes of {', '.join(suites)} ({debian_architecture(self.architecture)})"
        ):
            done = run_captured(["apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any"], self._env())
        if done.returncode:
            raise failure(done.stderr, "apt-get update", self.root)

    def _configure(self, suites: tuple[str, ...], components: tuple[str, ...], address: str) -> None:
        for folder in (
            "etc/none",
            "etc/preferences.d",
            "etc/trusted.gpg.d",
            "lists/partial",
            "archives/partial",
            "dpkg",
        ):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "dpkg/status").write_text("")
        debian = debian_architecture(self.architecture)
        lines = []
        for suite in suites:
            # A suite that still changes has indexes that expire; a mirror's snapshot of it is older, and as
            # well signed.
            expiry = " check-valid-until=no" if expires(suite) else ""
            options = f"signed-by={KEYRING}{expiry}"
            from_where = f"{address} {suite} {' '.join(components)}"
            lines.append(f"deb [arch={debian} {options}] {from_where}")
            lines.append(f"deb-src [{options}] {from_where}")
        (self.root / "etc/sources.list").write_text("\n".join(lines) + "\n")
        (self.root / "apt.conf").write_text(
            _acquire_settings()
            + f"""
Dir "{self.root}";
Dir::Etc "{self.root}/etc";
Dir::Etc::parts "{self.root}/etc/none";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::State "{self.root}";
Dir::State::status "{self.root}/dpkg/status";
Dir::Cache "{self.root}";
APT::Architecture "{debian}";
APT::Architectures {{ "{debian}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
        )

    def with_dependencies(self, suite: str, names: tuple[str, ...]) -> tuple[Package, ...]:
        """The packages and all they depend on, as apt would install them on an empty machine."""
        if not names:
            return ()
        argv = ["apt-get", "install", "--print-uris", "-y", "-qq", "-t", suite, *names]
        done = run_captured(argv, self._env())
        if done.returncode:
            raise BuildFailed(first_error(done.stderr), where=f"apt, {suite}", hint="mend the recipe")
        wanted = []
        for line in done.stdout.splitlines():
            # 'address' name_version_architecture.deb size hash
            parts = line.split()
            if len(parts) >= 2 and parts[1].endswith(".deb"):
                name, version, _ = parts[1].removesuffix(".deb").rsplit("_", 2)
                wanted.append(f"{name}={unquote(version)}")
        return self._records(wanted, suite)

    def alone(self, suite: str, names: tuple[str, ...]) -> tuple[Package, ...]:
        """The newest version of each package in a suite, without what it depends on."""
        return self._records([f"{name}/{suite}" for name in names], suite) if names else ()

    def behind(self, suite: str, meta: str) -> tuple[str, ...]:
        """The packages that a meta package stands for: of linux-image-amd64, those with the kernel.

        From Linux 7 on that is a meta package again: of the kernel, its modules, and lists of them.
        """
        needed = self._depends(suite, meta)
        if not needed:
            raise BuildFailed(f"{meta} depends on nothing", where=f"apt, {suite}", hint="mend the recipe")
        first = next((name for name in needed if name.startswith("linux-image-")), needed[0])
        return self._parts(suite, first)

    def newest(self, suite: str, pattern: str) -> tuple[str, ...]:
        """The packages of the newest kernel whose image's name matches a regular expression.

        A suite of backports keeps kernels of several series, and its meta package names the last of them.
        """
        names = run_captured(["apt-cache", "pkgnames", "linux-image-"], self._env()).stdout.split()
        found = [name for name in names if re.fullmatch(pattern, name)]
        if not found:
            raise BuildFailed(f"no package like {pattern}", where=f"apt, {suite}", hint="mend lab/suites.py")
        records = self._show([f"{name}/{suite}" for name in found], suite)
        last = max(records, key=lambda record: [int(part) for part in re.findall(r"\d+", record["Version"])])
        return self._parts(suite, last["Package"])

    def _parts(self, suite: str, image: str) -> tuple[str, ...]:
        """The packages with what a kernel's image package stands for; itself, up to Linux 6.19."""
        parts = [
            name for name in self._depends(suite, image) if re.match(r"linux-(base|binary|modules)-\d", name)
        ]
        return tuple(parts) if any(name.startswith("linux-binary-") for name in parts) else (image,)

    def _depends(self, suite: str, name: str) -> list[str]:
        """The packages that a package depends on; of alternatives the first."""
        record = self._show([f"{name}/{suite}"], suite)[0]
        depends = record.get("Depends", "")
        return [re.split(r"[ (|]", each.strip())[0] for each in depends.split(",") if each.strip()]

    def sources(self, suite: str, names: tuple[str, ...]) -> tuple[Package, ...]:
        """The pristine upstream tarball of each source package in a suite."""
        found = []
        for name in names:
            done = run_captured(["apt-cache", "showsrc", "--only-source", name], self._env())
            records = [r for r in _paragraphs(done.stdout) if r.get("Package") == name]
            best = self._of_suite(name, suite, records)
            for row in best["Checksums-Sha256"].split("\n"):
                fields = row.split()
                if len(fields) == 3 and re.search(r"\.orig\.tar\.\w+$", fields[2]):
                    filename = f"{best['Directory']}/{fields[2]}"
                    found.append(
                        Package(name, best["Version"], "source", filename, fields[0], int(fields[1]))
                    )
                    break
            else:
                raise BuildFailed(f"source package {name} has no .orig tarball", where=f"apt, {suite}")
        return tuple(found)

    def _of_suite(self, name: str, suite: str, records: list[dict[str, str]]) -> dict[str, str]:
        """The record of a source package that one suite holds, when this root reads several suites."""
        argv = ["apt-get", "source", "--print-uris", "-qq", "-t", suite, name]
        addresses = unquote(run_captured(argv, self._env()).stdout)
        for record in records:
            version = record["Version"].split(":", 1)[-1]
            if f"{name}_{version}.dsc" in addresses:
                return record
        raise BuildFailed(f"no source package {name}", where=f"apt, {suite}", hint="mend the recipe")

    def _show(self, wanted: list[str], suite: str) -> list[dict[str, str]]:
        """The records of packages given as NAME/SUITE or NAME=VERSION."""
        done = run_captured(["apt-cache", "show", "--no-all-versions", *wanted], self._env())
        records = _paragraphs(done.stdout)
        missing = {re.split("[/=]", each)[0] for each in wanted} - {record["Package"] for record in records}
        if done.returncode or missing:
            reason = f"no package {', '.join(sorted(missing))}" if missing else first_error(done.stderr)
            raise BuildFailed(reason, where=f"apt, {suite}", hint="mend the recipe")
        return records

    def _records(self, wanted: list[str], suite: str) -> tuple[Package, ...]:
        packages = [
            Package(r["Package"], r["Version"], r["Architecture"], r["Filename"], r["SHA256"], int(r["Size"]))
            for r in self._show(wanted, suite)
        ]
        if len(packages) != len(wanted):
            raise BuildFailed(
                f"apt described {len(packages)} of {len(wanted)} packages", where=f"apt, {suite}"
            )
        return tuple(sorted(packages, key=lambda package: package.name))


def _paragraphs(text: str) -> list[dict[str, str]]:
    """Debian control paragraphs as mappings; continuation lines are joined with line feeds."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line[:1].isspace():
                fields[key] = f"{fields[key]}\n{line.strip()}"
            elif ":" in line:
                key, value = line.split(":", 1)
                fields[key] = value.strip()
        if fields:
            found.append(fields)
    return found


def first_error(text: str) -> str:
    """The first reason that apt gives in its output, as one line."""
    for line in text.splitlines():
        if line.startswith("E:"):
            return " ".join(line.removeprefix("E:").split())
    return " ".join(text.split())[:300] or "apt gave no reason"


def failure(output: str, where: str, folder: Path) -> FetchFailed | DiskFull:
    """The error for what apt printed while it wrote below a folder."""
    if os.strerror(errno.ENOSPC) in output:
        return DiskFull(
            "no space left on the device",
            where=str(folder),
            hint=f"free some, or set {paths.CACHE_VARIABLE}",
        )
    hint = f"is there a network? the mirror is the host's apt's, or {MIRROR_VARIABLE}"
    return FetchFailed(first_error(output), where=where, hint=hint)
