"""What a command imports: a module that it does not need is felt in every emulated guest."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = {
    "faultprobe.document",
    "inspect",
    "random",
    "shutil",
    "socket",
    "statistics",
    "subprocess",
    "tempfile",
}
PROGRAM = """
import os, sys
from faultprobe.cli import main
sys.stdout = open(os.devnull, "w")
main(sys.argv[1:])
print(*sorted(sys.modules), sep="\\n", file=sys.stderr)
"""


@pytest.mark.parametrize("command", [["counters"], ["facts"], ["run", "--no-ledger", "--json", "-"]])
def test_a_command_imports_nothing_slow_that_it_does_not_need(command: list[str]) -> None:
    # Without site (-S): what other packages have installed there is none of our business.
    package = __import__("faultprobe").__path__[0].rpartition("/")[0]
    program = f"import sys; sys.path.insert(0, {package!r})\n{PROGRAM}"
    argv = [sys.executable, "-I", "-S", "-c", program, *command]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stderr.split()
    assert "faultprobe.cli" in loaded
    assert SLOW & set(loaded) == set()
