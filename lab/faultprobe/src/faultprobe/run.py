"""Making a Run: the experiments first, then the certificate, then the facts.

The order is part of the method: gathering facts allocates, frees and may start a process, all of which
would change the state of libc that an experiment finds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from faultprobe import certificate, experiment, facts
from faultprobe.version import RUN_SCHEMA_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from faultprobe.document import Certificate, Experiment, Facts, Run


def run(
    experiments: Sequence[str] = experiment.EXPERIMENTS,
    size_bytes: int = experiment.DEFAULT_SIZE,
    with_ledger: bool = False,
    with_maps: bool = False,
) -> Run:
    """Runs the named experiments in this process and returns the whole document.

    Raises ValueError for an unknown experiment or a size below 1 byte, OSError when the system refuses.
    """
    unknown = [name for name in experiments if name not in experiment.EXPERIMENTS]
    if unknown:
        raise ValueError(f"no experiment named {unknown[0]!r}; there is {', '.join(experiment.EXPERIMENTS)}")
    results = [
        experiment.lazy_malloc(size_bytes, with_ledger=with_ledger, with_maps=with_maps) for _ in experiments
    ]
    return whole(results, certificate.make(), facts.collect())


def whole(results: list[Experiment], certified: Certificate, known: Facts) -> Run:
    """The document of these experiments, made just now."""
    return {
        "schema_version": RUN_SCHEMA_VERSION,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "faultprobe": facts.identity(),
        "certificate": certified,
        "facts": known,
        "experiments": results,
    }
