"""faultprobe's wheels: cross-built for each (architecture, libc), audited, and checked against the guest."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from lab import paths, process
from lab.build import elf, sysroot, zig
from lab.errors import BuildFailed, WrongWheel

SOURCE = paths.REPOSITORY / "lab/faultprobe"

EPOCH = "1735689600"
"""SOURCE_DATE_EPOCH, seconds: the date of every file in a wheel; the same sources give the same bytes."""

_NOT_SOURCE = frozenset({"tests", "build", "dist", "__pycache__"})
_NOT_SOURCE_SUFFIXES = frozenset({".so", ".pyc", ".egg-info"})

_SETTINGS_MODULE = "_sysconfigdata_faultlab"


def source_files(source: Path = SOURCE) -> Iterator[Path]:
    """The files a wheel is built from, in order: neither tests nor what an earlier build left behind."""
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        if path.is_file() and not any(map(_is_generated, parts)):
            yield path


def _is_generated(name: str) -> bool:
    return name in _NOT_SOURCE or name.startswith(".") or Path(name).suffix in _NOT_SOURCE_SUFFIXES


def build_wheel(
    architecture: str,
    libc: str,
    headers: Path,
    work: Path,
    destination: Path,
    *,
    cache: Path,
    log: Path,
    root: Path | None = None,
    source: Path = SOURCE,
) -> Path:
    """Build faultprobe's wheel for one kind of guest, audit it, and return its path in the destination.

    ``headers`` is an unpacked libpython3.x-dev of that architecture, ``work`` a scratch folder, ``cache``
    zig's. ``root`` is a sysroot with the guest's libc and libgcc: what the machine cannot do (64-bit division
    on a 32-bit one) is taken from there, and every symbol that the module needs is looked for. Without it the
    module has neither. The repository is only read. Raises BuildFailed when a command fails, WrongWheel when
    the wheel is not what its tag says.
    """
    target = zig.target(architecture, libc)
    copy, built, settings = work / "source", work / "dist", work / "settings"
    for path in source_files(source):
        place = copy / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        place.chmod(0o644)
    settings.mkdir(parents=True, exist_ok=True)
    environment = zig.environment(cache, python_path=[settings])
    link = _link_command(target, root, work / "link", environment, log=log)
    (settings / f"{_SETTINGS_MODULE}.py").write_text(_settings(target, headers, link))
    environment["SOURCE_DATE_EPOCH"] = EPOCH
    environment["_PYTHON_SYSCONFIGDATA_NAME"] = _SETTINGS_MODULE
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built)]
    build += [f"--config-setting=--build-option=--plat-name={target.platform_tag}", str(copy)]
    process.run(
        # The modes of the files in the wheel must not depend on the user's umask.
        ["sh", "-c", 'umask 022; exec "$@"', "sh", *build],
        what=f"Build faultprobe for {target.triple}",
        log=log,
        cwd=work,
        env=environment,
    )
    wheels = sorted(built.glob("*.whl"))
    if len(wheels) != 1:
        raise BuildFailed(f"{len(wheels)} wheels came out, not one", where=target.triple, hint=f"log: {log}")
    check_wheel(wheels[0], architecture, libc)
    if root is not None:
        check_symbols(wheels[0], sysroot.libc_folder(root, target) / "libc.a")
    audit_wheel(wheels[0], work, log=log)
    destination.mkdir(parents=True, exist_ok=True)
    return shutil.copyfile(wheels[0], destination / wheels[0].name)


def _link_command(
    target: zig.Target, root: Path | None, work: Path, environment: Mapping[str, str], *, log: Path
) -> list[str]:
    """How an extension module is linked: bound when it is imported, so no phase of an experiment pays."""
    command = [*zig.compiler(target), "-shared", "-Wl,-z,now", *zig.LINK_FLAGS]
    if root is not None:
        # Of the second only arm takes anything: there every function refers to the unwinder.
        libgcc = sysroot.libgcc_folder(root, target)
        command += [str(libgcc / "libgcc.a"), str(libgcc / "libgcc_eh.a")]
    if target.libc == "glibc":
        return command
    # zig would record that the module needs "libc.so", musl's own name for itself. musl's loader takes that,
    # but the name a musllinux wheel may have (PEP 656 follows Alpine) is the other one. Only the name is
    # wanted: an empty library gives it, and the functions are found in the libc that the interpreter has
    # loaded long before.
    work.mkdir(parents=True, exist_ok=True)
    name = target.libraries[-1]
    empty = work / "empty.c"
    empty.write_text("")
    process.run(
        [*command, "-nostdlib", f"-Wl,-soname,{name}", empty, "-o", work / name],
        what=f"Link a stand-in for {name}",
        log=log,
        cwd=work,
        env=environment,
    )
    return [*command, "-nostdlib", "-Wl,--no-as-needed", str(work / name)]


def _settings(target: zig.Target, headers: Path, link: Sequence[str]) -> str:
    """A module in place of the host interpreter's own record of how it was built.

    setuptools takes compiler, flags and include folders from that record (sysconfig's build-time variables),
    and so the host's would leak into the extension. CPython's own cross builds replace it in the same way.
    """
    found = sorted((headers / "usr/include").glob("python3.*/Python.h"))
    if len(found) != 1:
        raise BuildFailed(f"{len(found)} Python.h below usr/include, not one", where=f"headers {headers}")
    include = found[0].parent
    compiler = shlex.join(zig.compiler(target))
    variables = {
        "CC": compiler,
        # pyconfig.h includes <ARCHITECTURE-linux-gnu/python3.x/pyconfig.h>.
        # setup.py asks for all warnings: with this one compiler there shall be none, on any architecture.
        "CFLAGS": shlex.join(["-I", str(include.parent), "-Werror"]),
        "CCSHARED": "-fPIC",
        "LDSHARED": shlex.join(link),
        # There is no C++ here, and yet setuptools insists on hearing of a compiler for it.
        "CXX": compiler,
        "LDCXXSHARED": compiler,
        "AR": "ar",
        "ARFLAGS": "rcs",
        "SHLIB_SUFFIX": ".so",
        # The form setuptools knows CPython by, and turns into .abi3.so.
        "EXT_SUFFIX": f".cpython-{include.name.removeprefix('python').replace('.', '')}.so",
        "INCLUDEPY": str(include),
        "CONFINCLUDEPY": str(include),
        "Py_ENABLE_SHARED": 0,
        "Py_GIL_DISABLED": 0,
    }
    return f"build_time_vars = {variables!r}\n"


def check_wheel(path: Path, architecture: str, libc: str) -> None:
    """Raise WrongWheel when a wheel would not work on such a guest: its tag or what is in it says so.

    Installers that run in a guest without pip check no tags, hence this comes before any copying.
    """
    target = zig.target(architecture, libc)
    family = "manylinux" if libc == "glibc" else "musllinux"
    guest = f"a guest with {libc} on {architecture}"
    try:
        _, _, _, tags = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise WrongWheel("is not the name of a wheel", where=path.name) from error
    platforms = sorted({tag.platform for tag in tags})
    if not all(re.fullmatch(rf"{family}_\d+_\d+_{re.escape(architecture)}", name) for name in platforms):
        raise WrongWheel(f"is tagged {', '.join(platforms)} and does not fit {guest}", where=path.name)
    try:
        modules = _extension_modules(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise WrongWheel(f"cannot be read: {error}", where=path.name) from error
    if not modules:
        raise WrongWheel("has no extension module in it", where=path.name)
    for name, data in modules.items():
        try:
            found = elf.parse(data)
        except ValueError as error:
            raise WrongWheel(f"{name} in it is damaged: {error}", where=path.name) from error
        if found.machine != target.machine:
            what = f"{name} in it is for ELF machine {found.machine}, {guest} has {target.machine}"
            raise WrongWheel(what, where=path.name)
        if not set(found.needed) & set(target.libraries):
            needs = ", ".join(found.needed) or "no library"
            what = f"{name} in it needs {needs}, {guest} has {target.libraries[0]}"
            raise WrongWheel(what, where=path.name)


def check_symbols(path: Path, libc: Path) -> None:
    """Raise WrongWheel when a module needs a symbol that neither Python nor the libc (libc.a) has.

    A link for a shared object leaves such a symbol open, and the import fails in the guest.
    """
    has = elf.archive_symbols(libc.read_bytes())
    for name, data in _extension_modules(path).items():
        needed = (each for each in elf.symbols(data).undefined if not each.startswith(("Py", "_Py")))
        missing = sorted(set(needed) - has)
        if missing:
            raise WrongWheel(f"{name} in it needs {', '.join(missing)}, which nothing has", where=path.name)


def _extension_modules(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if name.endswith(".so")}


class _Audit(msgspec.Struct):
    """What of auditwheel's report is used."""

    overall_tag: str


def audit_wheel(path: Path, work: Path, *, log: Path) -> None:
    """Have abi3audit and auditwheel confirm the wheel's tag.

    Raises BuildFailed when something outside the stable ABI is used, WrongWheel when auditwheel finds that
    the wheel needs a newer libc or another architecture than the tag promises.
    """
    process.run(
        [sys.executable, "-m", "abi3audit", "--strict", "--summary", path],
        what=f"Audit the stable ABI of {path.name}",
        log=log,
    )
    # auditwheel looks for needed libraries on this machine, which is not the guest: it gets a folder without
    # any.
    nothing = work / "no-libraries"
    nothing.mkdir(parents=True, exist_ok=True)
    report = work / "auditwheel.json"
    process.run(
        [sys.executable, "-m", "auditwheel", "show", "--json", "--ldpaths", nothing, path],
        what=f"Audit the platform tag of {path.name}",
        log=log,
        stdout=report,
    )
    found = msgspec.json.decode(report.read_bytes(), type=_Audit).overall_tag
    _, _, _, tags = parse_wheel_filename(path.name)
    for tag in tags:
        if not _covers(tag.platform, found):
            raise WrongWheel(f"auditwheel finds {found}, which the tag does not promise", where=path.name)


_PLATFORM = re.compile(r"(manylinux|musllinux)_(\d+)_(\d+)_(\w+)")


def _covers(tag: str, found: str) -> bool:
    """Whether the tag promises what was found: same family and architecture, no newer libc needed."""
    promised, actual = _PLATFORM.fullmatch(tag), _PLATFORM.fullmatch(found)
    if promised is None or actual is None or promised[1] != actual[1] or promised[4] != actual[4]:
        return False
    return (int(promised[2]), int(promised[3])) >= (int(actual[2]), int(actual[3]))
