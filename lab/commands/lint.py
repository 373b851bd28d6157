"""``lint``: every checker the project uses; all are run, then the failed ones are named."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from lab import paths
from lab.steps import step

_BIN = Path(sys.executable).parent


def _tracked(*patterns: str) -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=paths.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return listing.stdout.split()


def _checks() -> dict[str, list[str]]:
    return {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "mypy lab": ["mypy"],
        "mypy faultprobe": ["mypy"],
        "clang-format": ["clang-format", "--dry-run", "--Werror", *_tracked("*.c", "*.h")],
        "yamllint": ["yamllint", "--strict", "."],
        "ansible-lint": ["ansible-lint", "--offline", "--profile", "production", "provision", "inventory"],
    }


_FOLDERS = {"mypy faultprobe": paths.REPOSITORY / "lab" / "faultprobe"}
"""Checks that begin in another folder than the repository's root: faultprobe is a project of its own."""


def run(arguments: argparse.Namespace) -> int:
    """Run each checker; 0 when all are content, else 1."""
    failed = []
    for name, argv in _checks().items():
        with step(name):
            done = subprocess.run(
                [_BIN / argv[0], *argv[1:]], cwd=_FOLDERS.get(name, paths.REPOSITORY), check=False
            )
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"faultlab: not clean: {', '.join(failed)}", file=sys.stderr)
        return 1
    print("clean: " + ", ".join(_checks()))
    return 0
