"""The Ansible module that sets and records the kernel settings, on a copy of the files it works on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansiblemodules import UTILS, load

from lab.paths import PROVISION

LIBRARY = PROVISION / "roles" / "kernel_settings" / "library"
THP = "/sys/kernel/mm/transparent_hugepage"


kernel_settings = load("kernel_settings", "kernel_settings")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a kernel with two folio sizes and without debugfs."""
    for name, content in {
        f"{THP}/enabled": "always [madvise] never\n",
        f"{THP}/hugepages-64kB/enabled": "always inherit madvise [never]\n",
        f"{THP}/hugepages-2048kB/enabled": "always [inherit] madvise never\n",
        "/proc/sys/kernel/randomize_va_space": "2\n",
        "/proc/sys/vm/overcommit_memory": "1\n",
    }.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def run_module(root: Path, settings: dict[str, object], *options: str) -> dict[str, Any]:
    """What Ansible gets from the module when it runs it on this machine."""
    arguments = json.dumps({"settings": settings, "root": str(root)})
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-M", str(LIBRARY)]
    command += ["-m", "kernel_settings", "-a", arguments, "--tree", str(root / "results"), *options]
    environment = {**os.environ, "ANSIBLE_MODULE_UTILS": str(UTILS)}
    subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd=root, env=environment
    )
    result: dict[str, Any] = json.loads((root / "results" / "localhost").read_text())
    return result


@pytest.mark.parametrize(
    ("content", "value"),
    [("always [madvise] never\n", "madvise"), ("65536\n", "65536"), ("0\n", "0")],
)
def test_value_in_force_is_the_bracketed_choice_or_the_whole_file(
    tmp_path: Path, content: str, value: str
) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    assert kernel_settings.read(file) == value


def test_wildcard_stands_for_every_size_and_a_plain_path_overrides_it(root: Path) -> None:
    settings = {f"{THP}/hugepages-64kB/enabled": "always", f"{THP}/hugepages-*kB/enabled": "never"}
    assert kernel_settings.expand(settings, root) == {
        f"{THP}/hugepages-2048kB/enabled": "never",
        f"{THP}/hugepages-64kB/enabled": "always",
    }


def test_wildcard_without_a_match_stays_to_be_recorded_as_absent(root: Path) -> None:
    pattern = f"{THP}/hugepages-*kB/shmem_enabled"
    assert kernel_settings.expand({pattern: "never"}, root) == {pattern: "never"}


def test_value_that_does_not_take_is_an_error(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    deaf.symlink_to("/dev/null")
    with pytest.raises(kernel_settings.NotTakenError) as caught:
        kernel_settings.apply(deaf, "/proc/sys/deaf", "1", dry=False)
    assert str(caught.value) == "/proc/sys/deaf: set to '1', but the kernel has '' (it was '')"


def test_value_that_is_refused_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Path, "write_text", refuse)
    name = f"{THP}/enabled"
    with pytest.raises(kernel_settings.NotTakenError) as caught:
        kernel_settings.apply(root / name.lstrip("/"), name, "sometimes", dry=False)
    assert str(caught.value) == f"{name}: cannot set 'sometimes': Invalid argument; it is 'madvise'"


def test_first_run_changes_what_differs_and_the_second_nothing(root: Path) -> None:
    settings: dict[str, object] = {
        f"{THP}/enabled": "never",
        f"{THP}/hugepages-*kB/enabled": "never",
        "/sys/kernel/debug/fault_around_bytes": "65536",
        "/proc/sys/kernel/randomize_va_space": 2,
    }
    first = run_module(root, settings)
    assert first["changed"] is True
    assert first["changes"] == [
        f"{THP}/hugepages-2048kB/enabled: inherit -> never",
        f"{THP}/enabled: madvise -> never",
    ]
    assert first["settings"] == {
        f"{THP}/enabled": {"wanted": "never", "before": "madvise", "after": "never"},
        f"{THP}/hugepages-2048kB/enabled": {"wanted": "never", "before": "inherit", "after": "never"},
        f"{THP}/hugepages-64kB/enabled": {"wanted": "never", "before": "never", "after": "never"},
        "/proc/sys/kernel/randomize_va_space": {"wanted": "2", "before": "2", "after": "2"},
        "/sys/kernel/debug/fault_around_bytes": {
            "wanted": "65536",
            "before": None,
            "after": None,
            "absent": "No such file or directory",
        },
    }
    untouched = root / THP.lstrip("/") / "hugepages-64kB" / "enabled"
    assert untouched.read_text() == "always inherit madvise [never]\n"
    second = run_module(root, settings)
    assert (second["changed"], second["changes"]) == (False, [])


def test_check_mode_says_what_it_would_change_and_does_not(root: Path) -> None:
    result = run_module(root, {"/proc/sys/vm/overcommit_memory": "0"}, "--check")
    assert result["changes"] == ["/proc/sys/vm/overcommit_memory: 1 -> 0"]
    assert (root / "proc/sys/vm/overcommit_memory").read_text() == "1\n"


def test_failing_module_gives_one_line(root: Path) -> None:
    (root / "proc/sys/vm/overcommit_memory").unlink()
    (root / "proc/sys/vm/overcommit_memory").symlink_to("/dev/null")
    result = run_module(root, {"/proc/sys/vm/overcommit_memory": "0"})
    assert result["msg"] == "/proc/sys/vm/overcommit_memory: set to '0', but the kernel has '' (it was '')"


def test_boot_files_hold_each_setting_where_systemd_looks_for_it() -> None:
    every_size = f"{THP}/hugepages-*kB/enabled"
    settings = {f"{THP}/enabled": "never", "/proc/sys/vm/overcommit_memory": 0, every_size: "x"}
    files = kernel_settings.boot_files(settings)
    assert {path: content.decode().splitlines()[1:] for path, content in files.items()} == {
        "/etc/sysctl.d/60-faultlab.conf": ["vm/overcommit_memory = 0"],
        "/etc/tmpfiles.d/faultlab.conf": [
            f"w {THP}/enabled - - - - never",
            f"w {THP}/hugepages-*kB/enabled - - - - x",
        ],
    }


def test_boot_file_is_written_once(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "sysctl.d" / "60-faultlab.conf"
    assert kernel_settings.install(str(file), b"x = 1\n") is True
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"x = 1\n", 0o644)
    assert kernel_settings.install(str(file), b"x = 1\n") is False
    assert kernel_settings.install(str(file), b"x = 2\n") is True
