"""The facts of the machine and of this process that decide a page-fault count.

Every input named in the kernel's fault path is recorded, whether or not an experiment depends on it:
a number that differs between two machines is explained by a fact that differs, or it is a finding.
Gathering allocates and may start a process (musl's version), so it belongs after the experiments.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

from faultprobe import _native, procfs
from faultprobe.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from faultprobe.document import Ancestor, Aslr, Facts, Libc, Limit, ProbeIdentity, Thp

ADDR_NO_RANDOMIZE = 0x0040000
THP_DIRECTORY = "/sys/kernel/mm/transparent_hugepage"
DEBUGFS_FILE = "/sys/kernel/debug/fault_around_bytes"
TUNABLE = re.compile(r"GLIBC_TUNABLES|MALLOC_\w+|LD_BIND_NOW|LD_PRELOAD|LD_LIBRARY_PATH|PYTHONMALLOC")
# What names the processor in /proc/cpuinfo, by architecture: x86 and loongarch "model name", ppc64le
# "cpu", s390x "processor 0", riscv "uarch"; arm has no name, only numbers, handled apart.
CPU_NAME_KEYS = ("model name", "cpu model", "cpu", "processor 0", "uarch", "isa")


def collect(child: int | None = None) -> Facts:
    """All facts. What cannot be read is None with a reason beside it; nothing is raised for that.

    With `child`, a process that this one has started by its own interpreter and that has changed none of
    what it inherited (environment, limits, user, personality), they are that process's.
    """
    process = "self" if child is None else str(child)
    system = os.uname()
    libc = libc_facts()
    fault_around, reason = fault_around_bytes()
    return {
        "kernel_release": system.release,
        "kernel_version": system.version,
        "architecture": system.machine,
        "pointer_bits": 64 if sys.maxsize > 2**32 else 32,
        "byte_order": sys.byteorder,
        "cpu_model": cpu_model(procfs.read("/proc/cpuinfo") or ""),
        "cpus_online": os.sysconf("SC_NPROCESSORS_ONLN"),
        "page_size_bytes": os.sysconf("SC_PAGE_SIZE"),
        "libc": libc,
        "thp": thp(),
        "fault_around_bytes": fault_around,
        "fault_around_reason": reason,
        "fault_around_measured_bytes": measured_fault_around_bytes(libc["path"]),
        "aslr": aslr(),
        "overcommit": {
            "memory": procfs.read_int("/proc/sys/vm/overcommit_memory"),
            "ratio": procfs.read_int("/proc/sys/vm/overcommit_ratio"),
        },
        "swap_total_bytes": swap_total_bytes(procfs.read("/proc/meminfo") or ""),
        "rlimits": {"stack": limit(resource.RLIMIT_STACK), "memlock": limit(resource.RLIMIT_MEMLOCK)},
        "perf_event_paranoid": procfs.read_int("/proc/sys/kernel/perf_event_paranoid"),
        "tunables": {name: value for name, value in sorted(os.environ.items()) if TUNABLE.fullmatch(name)},
        "environment_bytes": bytes_of(f"/proc/{process}/environ"),
        "argv_bytes": bytes_of(f"/proc/{process}/cmdline"),
        "launcher": launcher(os.getppid() if child is None else os.getpid()),
        "effective_uid": os.geteuid(),
        "python": {
            "version": sys.version.split()[0],
            "implementation": sys.implementation.name,
            "executable": sys.executable or "",
        },
    }


def identity() -> ProbeIdentity:
    """Version, wheel tag and compiler of this faultprobe."""
    return {"version": __version__, "tag": wheel_tag(), "compiler": _native.COMPILER}


def wheel_tag() -> str | None:
    """The tag in the installed wheel's metadata, None in a source tree.

    Read by hand: importlib.metadata costs tens of milliseconds to import on an emulated machine.
    """
    site = Path(__file__).resolve().parent.parent
    text = procfs.read(str(site / f"faultprobe-{__version__}.dist-info" / "WHEEL"))
    tags = re.findall(r"^Tag: (.+)$", text or "", re.MULTILINE)
    return ".".join(tags) if tags else None


def cpu_model(cpuinfo: str) -> str | None:
    """The processor's name from the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    for key in CPU_NAME_KEYS:
        if fields.get(key):
            return fields[key]
    if "CPU implementer" in fields:
        return f"arm implementer {fields['CPU implementer']} part {fields.get('CPU part', 'unknown')}"
    return None


def libc_facts() -> Libc:
    """Family, exact version and file of the C library this process runs on."""
    family, version = _native.libc_identity()
    mapping = procfs.mapping_at(procfs.maps(), _native.libc_address())
    path = mapping.path if mapping is not None else None
    reason = None
    if version is None and path is not None:
        version, reason = musl_version(path)
    return {"family": family, "version": version, "version_reason": reason, "path": path}


def musl_version(loader: str) -> tuple[str | None, str | None]:
    """musl's version as its loader prints it when run without arguments, or None and the reason.

    musl has no function for its version; libc.so and the loader are one file, which we know from the
    mappings. posix_spawn: nothing of this process is copied for it.
    """
    read_end, write_end = os.pipe()
    try:
        pid = os.posix_spawn(
            loader,
            [loader],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 2), (os.POSIX_SPAWN_CLOSE, read_end)],
        )
    except OSError as error:
        os.close(read_end)
        return None, f"{loader}: {error.strerror}"
    finally:
        os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        said = stream.read().decode(errors="replace")
    os.waitpid(pid, 0)
    found = re.search(r"^Version (\S+)", said, re.MULTILINE)
    return (found.group(1), None) if found else (None, f"{loader} printed no version line")


def thp() -> Thp:
    """The modes of transparent huge pages, of all sizes this kernel knows (mTHP from Linux 6.8)."""
    directory = Path(THP_DIRECTORY)
    there = [each.name for each in directory.iterdir()] if directory.is_dir() else []
    names = sorted(each for each in there if each.startswith("hugepages-"))
    modes = {name: procfs.read_choice(f"{THP_DIRECTORY}/{name}/enabled") for name in names}
    return {
        "enabled": procfs.read_choice(f"{THP_DIRECTORY}/enabled"),
        "defrag": procfs.read_choice(f"{THP_DIRECTORY}/defrag"),
        "shmem_enabled": procfs.read_choice(f"{THP_DIRECTORY}/shmem_enabled"),
        # Sizes only shared memory can have carry no `enabled` file.
        "sizes": {name: mode for name, mode in modes.items() if mode is not None},
    }


def fault_around_bytes() -> tuple[int | None, str | None]:
    """The kernel's fault-around window in bytes, or None and why it cannot be read (debugfs is root's)."""
    mounted = procfs.read(DEBUGFS_FILE)
    if mounted is not None:
        return int(mounted), None
    try:
        descriptor = _native.debugfs_open("fault_around_bytes", os.O_RDONLY)
    except OSError as error:
        if os.geteuid() != 0:
            return None, f"debugfs is readable by root only: {error.strerror}"
        return None, f"debugfs: {error.strerror} (a locked-down kernel forbids this file to root too)"
    try:
        return int(os.read(descriptor, 64)), None
    finally:
        os.close(descriptor)


def measured_fault_around_bytes(path: str | None) -> int | None:
    """The window as it shows: bytes that one read fault in a fresh mapping of a cached file makes present.

    None when the file or pagemap cannot be read.
    """
    if path is None:
        return None
    try:
        return _native.measure_fault_around(path)
    except OSError:
        return None


def aslr() -> Aslr:
    """Address-space randomization: the system's setting and what this process was exec'ed with."""
    personality = _native.get_personality()
    setting = procfs.read_int("/proc/sys/kernel/randomize_va_space")
    return {
        "randomize_va_space": setting,
        "personality": personality,
        "off_for_this_process": setting == 0 or bool(personality & ADDR_NO_RANDOMIZE),
    }


def swap_total_bytes(meminfo: str) -> int | None:
    """Swap space in bytes from the text of /proc/meminfo."""
    found = re.search(r"^SwapTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def limit(which: int) -> Limit:
    """A resource limit in bytes, None for unlimited."""
    soft, hard = (None if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(which))
    return {"soft": soft, "hard": hard}


def bytes_of(path: str) -> int | None:
    """Length of the strings exec copied to a process's stack, terminating zeros included."""
    try:
        return len(Path(path).read_bytes())
    except OSError:
        return None


def launcher(pid: int) -> list[Ancestor]:
    """The chain of parents from `pid` up to process 1: ru_minflt survives exec, so it matters who forked."""
    chain: list[Ancestor] = []
    while pid > 0:
        stat = procfs.read(f"/proc/{pid}/stat")
        if stat is None:
            break
        # The name is in parentheses and may hold anything, parentheses too.
        name = stat[stat.index("(") + 1 : stat.rindex(")")]
        chain.append({"pid": pid, "command": name})
        pid = int(stat[stat.rindex(")") + 2 :].split()[1])
    return chain
