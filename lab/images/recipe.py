"""Recipes: which packages a tool directory, a kernel or a root file system is made of.

One YAML file for each in provision/images/; those of kernels and emulators follow from the table of
architectures (:func:`kernel_recipe`, and the name of an emulator's package).

Every list may be absent: ``with_dependencies`` (packages and all they depend on), ``alone`` (just these
files), ``behind`` (the package that a meta package names), ``sources`` (upstream tarballs); lists of another
suite than the guest's own stand below ``from: {SUITE: {...}}``, and what only guests of one suite get,
because the others call it otherwise, below ``only: {SUITE: {...}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from lab.architectures import ARCHITECTURES, pages_text
from lab.errors import BuildFailed
from lab.images.apt import PrivateApt
from lab.images.lock import Package
from lab.paths import RECIPES


class Lists(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to take from one suite."""

    with_dependencies: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __add__(self, other: Lists) -> Lists:
        """Both together."""
        return Lists(
            self.with_dependencies + other.with_dependencies,
            self.alone + other.alone,
            self.behind + other.behind,
            self.sources + other.sources,
        )

    def resolve(self, apt: PrivateApt, suite: str) -> tuple[Package, ...]:
        """What the archive has for these lists now."""
        behind = tuple(name for meta in self.behind for name in apt.behind(suite, meta))
        return (
            *apt.with_dependencies(suite, self.with_dependencies),
            *apt.alone(suite, self.alone + behind),
            *apt.sources(suite, self.sources),
        )


def kernel_recipe(architecture: str, page_size: int) -> str:
    """The name of the recipe for a kernel; the usual page size (bytes) of an architecture is not named."""
    usual = page_size == ARCHITECTURES[architecture].page_size
    return f"kernel-{architecture}" + ("" if usual else f"-{pages_text(page_size)}")


def _of_architectures() -> dict[str, Lists]:
    """The recipes that follow from the table of architectures, by name."""
    found = {}
    for architecture in ARCHITECTURES.values():
        package = architecture.hardware.package
        found[package] = Lists(with_dependencies=(package,))
        if architecture.kernel_of:
            continue
        for page_size, meta in architecture.kernels.items():
            # busybox-static runs the initrd.
            found[kernel_recipe(architecture.name, page_size)] = Lists(
                behind=(meta,), alone=("busybox-static",)
            )
    return found


def load(name: str, suite: str) -> dict[str, Lists]:
    """A recipe's lists for guests of a suite, by the suite they come from; that suite has the key ``""``."""
    followed = _of_architectures().get(name)
    if followed:
        return {"": followed}
    path = RECIPES / f"{name}.yml"
    try:
        content: Mapping[str, Any] = yaml.safe_load(path.read_text())
        own = {key: value for key, value in content.items() if key not in ("from", "only")}
        only = msgspec.convert(content.get("only", {}), dict[str, Lists])
        found = {"": own, **content.get("from", {})}
        lists = {each: msgspec.convert(value, Lists) for each, value in found.items()}
        return {**lists, "": lists[""] + only.get(suite, Lists())}
    except (OSError, yaml.YAMLError, msgspec.ValidationError, AttributeError, TypeError) as error:
        raise BuildFailed(f"not a recipe: {error}", where=f"provision/images/{name}.yml") from error
