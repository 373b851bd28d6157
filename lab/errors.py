"""What can go wrong, each with one clear line and an exit code of its own.

Exit codes 0 to 3 are the verdict of a run (see :class:`Verdict`); an error that ends a command before a
verdict could be reached has a code from 10 on, so that a script can tell a wrong guest name from a full disk.
"""

from __future__ import annotations

import enum


class Verdict(enum.IntEnum):
    """How a run of the lab ended."""

    AS_PREDICTED = 0
    NOT_AS_PREDICTED = 1
    LAB_FAILED = 2
    NO_RESULT = 3


class LabError(Exception):
    """Something ended the command; ``str()`` is one line: where, what is wrong, what to do."""

    exit_code = int(Verdict.LAB_FAILED)

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.unbuilt: tuple[str, ...] = ()
        """What of the store could not be built because of this, as ``kind/key``."""

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.hint}" if self.hint else line


class GivenUp(LabError):
    """A part of the work was given up: a part side by side with it failed, or it is done in another way."""


class NotThere(LabError):
    """Something that the cache lacks was looked for only, not to be made."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"{kind} {key} is not there")
        self.kind = kind
        self.key = key

    def __reduce__(self) -> tuple[type[NotThere], tuple[str, str]]:
        return type(self), (self.kind, self.key)


class NoResult(LabError):
    """A report was asked for and there is no run to make it from."""

    exit_code = int(Verdict.NO_RESULT)


class UnknownGuest(LabError):
    """A guest was named that inventory/guests.yml does not declare."""

    exit_code = 10


class MatrixError(LabError):
    """inventory/guests.yml holds an entry that is not allowed."""

    exit_code = 11


class FetchFailed(LabError):
    """Nothing could be fetched from the package mirror: no network, or the mirror refused."""

    exit_code = 12


class DiskFull(LabError):
    """No space left where the cache or the results live."""

    exit_code = 13


class CorruptCache(LabError):
    """A cached file is not what was written: truncated, altered or gone."""

    exit_code = 14


class PortTaken(LabError):
    """A port the lab needs is held by another process."""

    exit_code = 15


class BootFailed(LabError):
    """A guest did not reach its ready line: kernel panic, deadline, or an emulator that would not start."""

    exit_code = 16


class GuestDied(LabError):
    """A running guest went away in the middle of the work."""

    exit_code = 17


class WrongGuest(LabError):
    """The machine that answers is not the guest that was started: wrong host key or wrong boot token."""

    exit_code = 18


class WrongWheel(LabError):
    """A faultprobe wheel does not fit the guest: wrong libc family or architecture."""

    exit_code = 19


class LabBusy(LabError):
    """Another faultlab command holds the same cache."""

    exit_code = 20


class NoMirror(LabError):
    """The host's apt configuration names no Debian mirror and no variable does."""

    exit_code = 21


class BuildFailed(LabError):
    """A command that builds something failed."""

    exit_code = 22


class ProvisionFailed(LabError):
    """Ansible did not bring a guest to the documented set-up."""

    exit_code = 23


class CommandFailed(LabError):
    """A command in a guest ended with another exit status than asked for."""

    exit_code = 24


class MissingTool(LabError):
    """The host lacks a program that the lab cannot install by itself."""

    exit_code = 25


class Unreachable(LabError):
    """No SSH to a machine that should answer: nobody there, or it does not let the key in."""

    exit_code = 26


class BadDocument(LabError):
    """A stored or received document is not what this version of the lab reads."""

    exit_code = 27


class MergeRefused(LabError):
    """Results contradict each other and are not joined: a guest measured twice, or another lab measured."""

    exit_code = 28


class BadProgram(LabError):
    """CMD or FILES name something that cannot be run in the guests."""

    exit_code = 29


class ProgramFailed(LabError):
    """A program of the user's ended in a guest with another status than 0, or by a signal."""

    exit_code = 30


class UnfitMachine(LabError):
    """A machine that the lab did not build is not what is declared, or lacks what measuring needs."""

    exit_code = 31


class WorkerLost(LabError):
    """A process at work on a guest was killed, or the machine it ran on went away."""

    exit_code = 32


class NoCluster(LabError):
    """No Dask scheduler answers, or it has no worker that is large enough."""

    exit_code = 33


class UnfitWorker(LabError):
    """A Dask worker has another commit of the lab than this one, or none."""

    exit_code = 34


class LeftOtherwise(LabError):
    """Not all on a machine is as it was before: somebody changed what faultlab had put there."""

    exit_code = 35


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
