"""Recipes: which packages a tool directory, a kernel or a root file system is made of.

One YAML file for each in provision/images/; those of kernels and emulators follow from the table of
architectures (:func:`kernel_recipe`, and the name of an emulator's package).

Every list may be absent: ``with_dependencies`` (packages and all they depend on), ``alone`` (just these
files), ``behind`` (the package that a meta package names), ``newest`` (the newest kernel of those whose names
match a regular expression), ``sources`` (upstream tarballs), ``components`` (of the archive, read beside
main); lists of another suite than the guest's own stand below ``from: {SUITE: {...}}``, and what only guests
of one suite get, because the others call it otherwise, below ``only: {SUITE: {...}}``. What is another list
for one architecture stands, as a whole, below ``instead: {DEBIAN'S NAME OF IT: {...}}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from lab.architectures import ARCHITECTURES, pages_text
from lab.errors import BuildFailed
from lab.images.apt import PrivateApt
from lab.images.lock import Package
from lab.paths import RECIPES
from lab.suites import BACKPORTS, KERNELS, USUAL_SUITE


class Lists(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to take from one suite."""

    with_dependencies: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    newest: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    components: tuple[str, ...] = ()

    def __add__(self, other: Lists) -> Lists:
        """Both together."""
        return Lists(
            self.with_dependencies + other.with_dependencies,
            self.alone + other.alone,
            self.behind + other.behind,
            self.newest + other.newest,
            self.sources + other.sources,
            self.components + other.components,
        )

    @property
    def has_binaries(self) -> bool:
        """Whether it names anything but sources."""
        return bool(self.with_dependencies or self.alone or self.behind or self.newest)

    def resolve(self, apt: PrivateApt, suite: str) -> tuple[Package, ...]:
        """What the archive has for these lists now, sources apart."""
        behind = tuple(name for meta in self.behind for name in apt.behind(suite, meta))
        behind += tuple(name for pattern in self.newest for name in apt.newest(suite, pattern))
        return (
            *apt.with_dependencies(suite, self.with_dependencies),
            *apt.alone(suite, self.alone + behind),
        )


def kernel_recipe(architecture: str, page_size: int, series: str) -> str:
    """The name of the recipe for a kernel.

    The usual page size (bytes) of an architecture is not named, nor is the series where its suite has just
    that one.
    """
    usual = page_size == ARCHITECTURES[architecture].page_size
    return (
        f"kernel-{architecture}"
        + ("" if usual else f"-{pages_text(page_size)}")
        + (f"-linux-{series}" if KERNELS[series] == BACKPORTS else "")
    )


def box_kernel_recipe(architecture: str, page_size: int, series: str) -> str:
    """The same for the kernel of a Vagrant box."""
    return f"box-{kernel_recipe(architecture, page_size, series)}"


# It runs the initrd.
_INITRD = Lists(alone=("busybox-static",))


def _kernel(meta: str, series: str) -> dict[str, Lists]:
    """What a kernel is made of, by the suite it comes from; ``meta`` is its meta package."""
    if KERNELS[series] != BACKPORTS:
        return {"": Lists(behind=(meta,)) + _INITRD}
    flavour = meta.removeprefix("linux-image-")
    newest = rf"linux-image-{re.escape(series)}\.[^-]+-{re.escape(flavour)}"
    return {"": Lists(newest=(newest,)), USUAL_SUITE: _INITRD}


def _of_architectures() -> dict[str, dict[str, Lists]]:
    """The recipes that follow from the table of architectures, by name."""
    found = {}
    for architecture in ARCHITECTURES.values():
        package = architecture.hardware.package
        firmware = architecture.hardware.firmware
        found[package] = {"": Lists(with_dependencies=(package,), alone=firmware[:1] if firmware else ())}
        if architecture.kernel_of:
            continue
        boxed = architecture.standalone.kernels if architecture.standalone else {}
        for name, kernels in ((kernel_recipe, architecture.kernels), (box_kernel_recipe, boxed)):
            for page_size, meta in kernels.items():
                for series in KERNELS:
                    found[name(architecture.name, page_size, series)] = _kernel(meta, series)
    return found


def load(name: str, suite: str, architecture: str) -> dict[str, Lists]:
    """A recipe's lists for guests of a suite and architecture, by the suite they come from; the guests' own
    has the key ``""``.
    """
    followed = _of_architectures().get(name)
    if followed:
        return followed
    path = RECIPES / f"{name}.yml"
    try:
        content: Mapping[str, Any] = yaml.safe_load(path.read_text())
        instead = content.get("instead", {}).get(ARCHITECTURES[architecture].debian, {})
        content = {**content, **instead}
        own = {key: value for key, value in content.items() if key not in ("from", "only", "instead")}
        only = msgspec.convert(content.get("only", {}), dict[str, Lists])
        found = {"": own, **content.get("from", {})}
        lists = {each: msgspec.convert(value, Lists) for each, value in found.items()}
        # What is from the guests' own suite is nothing foreign to them.
        own_lists = lists.pop("") + only.get(suite, Lists()) + lists.pop(suite, Lists())
        return {"": own_lists, **lists}
    except (OSError, yaml.YAMLError, msgspec.ValidationError, AttributeError, TypeError) as error:
        raise BuildFailed(f"not a recipe: {error}", where=f"provision/images/{name}.yml") from error
