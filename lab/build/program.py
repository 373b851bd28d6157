"""Programs whose faults are counted, for one target: one object file, linked in several ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from lab import paths, process
from lab.build import elf, sysroot, zig
from lab.errors import BuildFailed

STATIC, STATIC_PIE = "static", "static-pie"
DYNAMIC, NO_PIE, BIND_NOW = "dynamic", "no-pie", "bind-now"
LINKS = (DYNAMIC, STATIC, STATIC_PIE, NO_PIE, BIND_NOW)
"""Every way to link. The dynamic ones differ from the first, a lazily bound PIE, in one thing each."""


@dataclass(frozen=True)
class Program:
    """A C program of one file, the flags its meaning depends on, and the ways it is linked."""

    name: str
    source: Path
    flags: tuple[str, ...]
    links: tuple[str, ...]

    def file(self, link: str) -> str:
        """The name of the executable."""
        return self.name if link == DYNAMIC else f"{self.name}-{link}"

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all its executables."""
        return tuple(self.file(link) for link in self.links)


DEMONSTRATION = Program("pagefault-demo", paths.REPOSITORY / "lab/demo/pagefault-demo.c", (), LINKS)
# As faultprobe compiles them itself (selftest/program.py).
MICRO = Program(
    "micro",
    paths.REPOSITORY / "lab/faultprobe/src/faultprobe/selftest/micro.c",
    ("-std=gnu11", "-O1", "-fno-builtin", "-pthread"),
    (DYNAMIC, STATIC, STATIC_PIE),
)
PROGRAMS = (DEMONSTRATION, MICRO)

# The plain default of a C toolchain (gcc as upstream and Debian have it): a position-independent executable
# with read-only relocations, whose functions are bound at the first call. zig's own default binds at start.
# Counted on x86_64 with glibc 2.36, with address randomisation off, both give the same rises: the loader has
# written the table of functions already when it relocates the program. musl's loader binds at start, whatever
# is asked.
#
# Its own functions are exported (-rdynamic), because zig's linker drops either no symbols or all: without
# main's the ledger could not tell libc's start-up from the program.
DYNAMIC_FLAGS = {
    DYNAMIC: ("-pie", "-rdynamic", "-Wl,-z,relro", "-Wl,-z,lazy"),
    NO_PIE: ("-no-pie", "-rdynamic", "-Wl,-z,relro", "-Wl,-z,lazy"),
    BIND_NOW: ("-pie", "-rdynamic", "-Wl,-z,relro", "-Wl,-z,now"),
}


def build_program(
    program: Program, target: zig.Target, root: Path, work: Path, destination: Path, *, cache: Path, log: Path
) -> None:
    """Compile a program and put an executable for each way it is linked into the destination.

    ``root`` is a sysroot with the guest's own libc and libgcc, ``cache`` a folder for zig. There is no
    static-pie where the libc has no start file for it. Raises BuildFailed when a command fails or when a
    result is not what it is called (wrong machine, interpreter or libc).
    """
    work.mkdir(parents=True, exist_ok=True)
    destination.mkdir(parents=True, exist_ok=True)
    environment = zig.environment(cache)
    compiler = zig.compiler(target)
    libgcc = sysroot.libgcc_folder(root, target)
    support = [str(libgcc / "libgcc.a"), str(libgcc / "libgcc_eh.a")]
    built_object = work / f"{program.name}.o"
    process.run(
        [*compiler, "-std=c11", *program.flags, "-fPIE", "-c", program.source, "-o", built_object],
        what=f"Compile {program.name} for {target.triple}",
        log=log,
        cwd=work,
        env=environment,
    )
    for link in program.links:
        if link == STATIC_PIE and not sysroot.has_static_pie(root, target):
            continue
        made = work / program.file(link)
        threads = [flag for flag in program.flags if flag == "-pthread"]
        if link in DYNAMIC_FLAGS:
            flags = [*DYNAMIC_FLAGS[link], *zig.LINK_FLAGS, *threads]
            # What a machine cannot do, and on arm the unwinder that every function refers to. Left to zig's
            # own support library, which is one piece, they would bring its memset along, in libc's place.
            command = [*compiler, *flags, str(built_object), *support]
        else:
            arguments = static_link(target, root, is_pie=link == STATIC_PIE, has_threads=bool(threads))
            command = [*zig.linker(), *arguments, str(built_object)]
        process.run(
            [*command, "-o", made],
            what=f"Link {made.name} for {target.triple}",
            log=log,
            cwd=work,
            env=environment,
        )
        _check(target, made, link)
        (destination / made.name).write_bytes(made.read_bytes())
        (destination / made.name).chmod(0o755)


def static_link(
    target: zig.Target, root: Path, *, is_pie: bool = False, has_threads: bool = False
) -> list[str]:
    """The linker's arguments for a static program of the guest's own libc, all but the object and the output.

    zig cannot link glibc statically, and its musl is its own build of it: what would be measured there is
    zig's libc, not the guest's. So each start file and library is named, as gcc -static does it; with
    ``is_pie`` as gcc -static-pie does it: rcrt1.o relocates the program, which can then lie anywhere.
    ``has_threads`` adds the library that threads were in before glibc 2.34; since then it is empty.
    """
    libc = sysroot.libc_folder(root, target)
    libgcc = sysroot.libgcc_folder(root, target)
    begin, end = [libc / ("rcrt1.o" if is_pie else "crt1.o"), libc / "crti.o"], [libc / "crtn.o"]
    libraries = [libc / "libc.a", libgcc / "libgcc.a"]
    if target.libc == "glibc":
        # glibc's libc.a refers to the unwinder and to the frame tables that gcc's start files open and close;
        # musl's does neither.
        begin.append(libgcc / ("crtbeginS.o" if is_pie else "crtbeginT.o"))
        end.insert(0, libgcc / ("crtendS.o" if is_pie else "crtend.o"))
        libraries.append(libgcc / "libgcc_eh.a")
        if has_threads:
            libraries.insert(0, libc / "libpthread.a")
    return [
        *(["-static", "-pie", "--no-dynamic-linker", "-z", "text"] if is_pie else ["-static"]),
        "--strip-debug",
        "-z",
        "relro",
        *map(str, begin),
        "--start-group",
        *map(str, libraries),
        "--end-group",
        *map(str, end),
    ]


def _check(target: zig.Target, made: Path, link: str) -> None:
    """Refuse what would not run in a guest, or is not what its name says."""
    data = made.read_bytes()
    found = elf.parse(data)
    if link in DYNAMIC_FLAGS:
        # Before 2.34 glibc had its threads in a library of their own, and we link against an older one.
        needed = [(libc,) for libc in target.libraries] + [("libc.so.6", "libpthread.so.0")]
        is_pie = link != NO_PIE
        wanted = [
            elf.Elf(target.machine, target.interpreter, each, is_pie, link == BIND_NOW) for each in needed
        ]
    else:
        wanted = [elf.Elf(target.machine, None, (), link == STATIC_PIE)]
    if found not in wanted:
        raise BuildFailed(f"{made.name} came out as {found}, not {link} for {target}", where=target.triple)
    symbols = elf.symbols(data)
    if link in DYNAMIC_FLAGS and "memset" not in symbols.undefined:
        raise BuildFailed(f"{made.name} has a memset of its own, not libc's", where=target.triple)
    newer = too_new(symbols.versions, target.glibc_version)
    if newer:
        raise BuildFailed(f"{made.name} needs {', '.join(newer)}", where=target.triple)


def too_new(versions: Iterable[str], glibc: str) -> list[str]:
    """Those of the symbol versions (``GLIBC_2.34``) that a glibc does not have yet."""
    numbers = ((name, name.removeprefix("GLIBC_")) for name in versions if name.startswith("GLIBC_"))
    return sorted(name for name, number in numbers if Version(number) > Version(glibc))
