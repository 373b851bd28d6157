"""What the cache lacks for a guest's way."""

from __future__ import annotations

from dataclasses import dataclass

from lab.matrix import Guest

PROVISIONED = "provisioned"


@dataclass(frozen=True)
class Missing:
    """A thing that the cache lacks. ``packages``: the sizes in bytes, by hash, of what must be fetched."""

    kind: str
    key: str
    packages: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """As errors name it: see LabError.unbuilt."""
        return f"{self.kind}/{self.key}"


@dataclass(frozen=True)
class Found:
    """What one guest's way lacks. One on a machine of somebody's own is never known to be ready."""

    guest: Guest
    missing: tuple[Missing, ...]

    @property
    def builds(self) -> tuple[Missing, ...]:
        """What has to be built, beside provisioning."""
        return tuple(each for each in self.missing if each.kind != PROVISIONED)
