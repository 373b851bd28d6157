"""Ansible callback: write how each host fared to a JSON file, for lab.provisioning."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: faultlab_recap
type: aggregate
short_description: Write counts, changed tasks and failures of each host to a JSON file
description:
  - Ansible's own recap is meant for people; this one is for a program that started ansible-playbook.
options:
  file:
    description: Where to write; nothing is written when this is not set.
    env:
      - name: FAULTLAB_RECAP
    type: path
"""


def message(result: dict[str, Any]) -> str:
    """Why a task failed, in one line; of a loop, why its first failing item did."""
    for item in result.get("results") or []:
        if item.get("failed") or item.get("unreachable"):
            return message(item)
    # A module that crashed gave no message of its own: the last line of its traceback says why.
    crash = str(result.get("module_stderr") or "").strip().splitlines()
    if crash:
        return crash[-1]
    lines = str(result.get("msg") or "").strip().splitlines() or ["no message"]
    # ssh frames its warnings and says at the end what it made of them.
    line = lines[-1] if result.get("unreachable") else lines[0]
    return line.removeprefix("Task failed: ")


class CallbackModule(CallbackBase):
    """Collects, and writes once at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "faultlab_recap"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._changed: list[dict[str, str]] = []
        self._failures: list[dict[str, Any]] = []
        self._left: list[dict[str, str]] = []
        self._restored: dict[str, int] = {}

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember what changed something, and what was put back or could not be."""
        host, found = result.host.get_name(), result.result
        if found.get("was_provisioned"):
            self._restored[host] = len(found["restored"])
        self._left += [{"host": host, "line": line} for line in found.get("faultlab_left") or ()]
        if result.result.get("changed"):
            self._changed.append({"host": result.host.get_name(), "task": result.task.get_name()})

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Remember a failure that ends the host's play."""
        if not ignore_errors:
            self._fail(result, result.result.get("faultlab_error"))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Remember a host that cannot be spoken to."""
        self._fail(result, "unreachable")

    def _fail(self, result: Any, error: str | None) -> None:
        self._failures.append(
            {
                "host": result.host.get_name(),
                "task": result.task.get_name(),
                "message": message(result.result),
                "error": error,
            }
        )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the file."""
        file = self.get_option("file")
        if not file:
            return
        hosts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        recap = {"hosts": hosts, "changed": self._changed, "failures": self._failures}
        recap |= {"left": self._left, "restored": self._restored}
        draft = Path(f"{file}.{os.getpid()}")
        draft.write_text(json.dumps(recap, indent=2) + "\n")
        draft.replace(file)
