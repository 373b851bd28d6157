"""What runs the phases of an experiment: the probe itself, or the demonstration, in one of five links."""

from __future__ import annotations

import enum


class Build(enum.StrEnum):
    """What runs the phases; the values are the names under which a run stores the counts."""

    IN_PROCESS = "faultprobe"
    DYNAMIC = "pagefault-demo"
    STATIC = "pagefault-demo-static"
    STATIC_PIE = "pagefault-demo-static-pie"
    NO_PIE = "pagefault-demo-no-pie"
    BIND_NOW = "pagefault-demo-bind-now"

    @property
    def is_static(self) -> bool:
        """Whether the program holds its own copy of libc."""
        return self in (Build.STATIC, Build.STATIC_PIE)


DEMONSTRATIONS = tuple(build for build in Build if build is not Build.IN_PROCESS)
"""Every way the demonstration is linked; a run holds those that were measured."""

EVERYWHERE = (Build.IN_PROCESS, Build.DYNAMIC, Build.STATIC)
"""What every guest can run. The other ways to link are not there for every libc."""
