"""Build of the C extension; everything else about the package is in pyproject.toml.

The compiler is the environment's: CC, CFLAGS and LDFLAGS are honoured by setuptools, so that the
same source is built by gcc on the machine itself and by a cross compiler for another one. No flag
here may depend on the machine that builds.
"""

from setuptools import Extension, setup

NATIVE = "src/native"
SOURCES = (
    "module.c",
    "counters.c",
    "lazy_malloc.c",
    "certificate.c",
    "machine.c",
    "spawn.c",
    "course.c",
    "perf.c",
    "records.c",
    "follow.c",
    "pagemap.c",
    "loop.c",
    "stopwatch.c",
    "runs.c",
    "scan.c",
)

native = Extension(
    "faultprobe._native",
    sources=[f"{NATIVE}/{name}" for name in SOURCES],
    depends=[f"{NATIVE}/native.h", f"{NATIVE}/runs.h", f"{NATIVE}/spawn.h", f"{NATIVE}/syscall_names.h"],
    include_dirs=[NATIVE],
    define_macros=[("Py_LIMITED_API", "0x03090000")],
    # -fno-builtin: an experiment that says "malloc" or "memset" calls libc's, never an expansion of the
    # compiler's. -O2 after the interpreter's own flags: one optimisation level on every machine. An
    # undeclared function is outside the limited API of this interpreter: called, it loses half a pointer.
    extra_compile_args=[
        "-std=c11",
        "-O2",
        "-fno-builtin",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Werror=implicit-function-declaration",
    ],
    py_limited_api=True,
)

setup(ext_modules=[native], options={"bdist_wheel": {"py_limited_api": "cp39"}})
