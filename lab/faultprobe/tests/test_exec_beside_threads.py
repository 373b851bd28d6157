"""An exec while the process's first thread goes on faulting: whose fault is whose?"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from conftest import Probe

SOURCE = """
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#define BYTES ((size_t)1 << 30)

static void *execute(void *program)
{
    execl(program, program, NULL);
    return NULL;
}

int main(int count, char **arguments)
{
    pthread_t id;
    volatile char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (count < 2 || memory == MAP_FAILED || madvise((void *)memory, BYTES, MADV_NOHUGEPAGE) != 0 ||
        pthread_create(&id, NULL, execute, arguments[1]) != 0)
        return 1;
    for (size_t at = 0; at < BYTES; at += 4096)
        memory[at] = 1;
    pause();
    return 1;
}
"""


def test_what_the_first_thread_does_meanwhile_is_not_taken_for_a_part_of_exec(
    probe: Probe, tmp_path: Path
) -> None:
    source, program, ledger = tmp_path / "beside.c", tmp_path / "beside", tmp_path / "ledger.json"
    source.write_text(SOURCE)
    compiler, true = shutil.which("cc"), shutil.which("true")
    assert compiler is not None and true is not None
    subprocess.run([compiler, "-O1", "-pthread", "-o", program, source], check=True)
    for _ in range(5):
        done = probe("trace", "--json", str(ledger), "--", str(program), true)
        assert done.returncode == 0, done.stderr
        made = json.loads(ledger.read_text())
        assert made["totals"]["residual"] == 0
        assert made["verdict"]["balanced"]
