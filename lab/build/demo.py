"""pagefault-demo, dynamic and static, for one target: one object file, linked twice."""

from __future__ import annotations

from pathlib import Path

from lab import paths, process
from lab.build import elf, sysroot, zig
from lab.errors import BuildFailed

SOURCE = paths.REPOSITORY / "lab/demo/pagefault-demo.c"
DYNAMIC = "pagefault-demo"
STATIC = "pagefault-demo-static"

# The plain default of a C toolchain (gcc as upstream and Debian have it): a position-independent executable
# with read-only relocations, whose functions are bound at the first call. zig's own default binds at start.
# Counted on x86_64 with glibc 2.36, with address randomisation off, both give the same rises: the loader has
# written the table of functions already when it relocates the program. musl's loader binds at start, whatever
# is asked.
#
# Its own functions are exported (-rdynamic), because zig's linker drops either no symbols or all: without
# main's the ledger could not tell libc's start-up from the program.
DYNAMIC_FLAGS = ("-pie", "-rdynamic", "-Wl,-z,relro", "-Wl,-z,lazy")


def build_demo(
    target: zig.Target, root: Path, work: Path, destination: Path, *, cache: Path, log: Path
) -> None:
    """Compile pagefault-demo and put ``pagefault-demo`` and ``pagefault-demo-static`` into the destination.

    ``root`` is a sysroot with the guest's own libc and libgcc, ``cache`` a folder for zig. Raises BuildFailed
    when a command fails or when a result is not what it is called (wrong machine, interpreter or libc).
    """
    work.mkdir(parents=True, exist_ok=True)
    environment = zig.environment(cache)
    compiler = zig.compiler(target)
    built_object = work / "pagefault-demo.o"
    process.run(
        [*compiler, "-std=c11", "-fPIE", "-c", SOURCE, "-o", built_object],
        what=f"Compile pagefault-demo for {target.triple}",
        log=log,
        cwd=work,
        env=environment,
    )
    process.run(
        [*compiler, *DYNAMIC_FLAGS, *zig.LINK_FLAGS, built_object, "-o", work / DYNAMIC],
        what=f"Link pagefault-demo for {target.triple}",
        log=log,
        cwd=work,
        env=environment,
    )
    process.run(
        [*zig.linker(), *static_link(target, root), built_object, "-o", work / STATIC],
        what=f"Link pagefault-demo-static for {target.triple}",
        log=log,
        cwd=work,
        env=environment,
    )
    _check(target, work)
    destination.mkdir(parents=True, exist_ok=True)
    for name in (DYNAMIC, STATIC):
        (destination / name).write_bytes((work / name).read_bytes())
        (destination / name).chmod(0o755)


def static_link(target: zig.Target, root: Path) -> list[str]:
    """The linker's arguments for a static program of the guest's own libc, all but the object and the output.

    zig cannot link glibc statically, and its musl is its own build of it: what would be measured there is
    zig's libc, not the guest's. So each start file and library is named, as gcc -static does it. No PIE,
    gcc's default for -static.
    """
    libc = sysroot.libc_folder(root, target)
    libgcc = sysroot.libgcc_folder(root, target)
    begin, end = [libc / "crt1.o", libc / "crti.o"], [libc / "crtn.o"]
    libraries = [libc / "libc.a", libgcc / "libgcc.a"]
    if target.libc == "glibc":
        # glibc's libc.a refers to the unwinder and to the frame tables that gcc's start files open and close;
        # musl's does neither.
        begin.append(libgcc / "crtbeginT.o")
        end.insert(0, libgcc / "crtend.o")
        libraries.append(libgcc / "libgcc_eh.a")
    return [
        "-static",
        "--strip-debug",
        "-z",
        "relro",
        *map(str, begin),
        "--start-group",
        *map(str, libraries),
        "--end-group",
        *map(str, end),
    ]


def _check(target: zig.Target, work: Path) -> None:
    dynamic = elf.parse((work / DYNAMIC).read_bytes())
    static = elf.parse((work / STATIC).read_bytes())
    if dynamic not in [elf.Elf(target.machine, target.interpreter, (libc,)) for libc in target.libraries]:
        raise BuildFailed(f"{DYNAMIC} came out as {dynamic}, not for {target}", where=target.triple)
    if static != elf.Elf(target.machine, None, ()):
        raise BuildFailed(f"{STATIC} came out as {static}, not a static program", where=target.triple)
