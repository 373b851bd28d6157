"""From a journal to an account: every fault with its place, its code and its cause, and what balances.

Walks the journal and the kernel's records together in order of time, so that each fault is judged by the
mappings and the pages as they were at that moment.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from faultprobe.ledger import calls, causes, elf
from faultprobe.ledger.findings import Finding
from faultprobe.ledger.journal import (
    Born,
    Call,
    Ended,
    Entry,
    Executed,
    Journal,
    MapsRead,
    MapTaken,
    Released,
    StackSeen,
)
from faultprobe.ledger.machine import machine_of
from faultprobe.ledger.makers import History, LastMap
from faultprobe.ledger.pagemap import Snapshot
from faultprobe.ledger.pages import Pages
from faultprobe.ledger.places import BSS, DATA, THREAD_STACK, UNKNOWN, Code, Names, Place
from faultprobe.ledger.space import Space
from faultprobe.perf import Event, Fault, Forked, Named, Reached


class Untrapped(NamedTuple):
    """Faults that reached the counters without a record: the kernel took them inside a system call."""

    pid: int
    tid: int
    call: str
    instruction: Code
    address: int
    length: int
    faults: int
    is_exec: bool
    time_ns: int


class Process(NamedTuple):
    """One process's balance: what its counters rose by, and what of it has a record or a system call."""

    pid: int
    parent_pid: int
    path: str
    inherited: int
    rise_minor: int
    rise_major: int
    recorded: int
    untrapped: int
    has_ended: bool
    status: int
    was_released: bool = False

    @property
    def residual(self) -> int:
        return self.rise_minor + self.rise_major - self.recorded - self.untrapped


class Image(NamedTuple):
    """One exec: when it began and ended, and what was executed by which loader.

    At `alone_ns` the other threads were gone, and the one that called exec had the process's id.
    """

    pid: int
    space: int
    path: str
    loader: str
    entered_ns: int
    alone_ns: int
    time_ns: int
    is_secure: bool


@dataclass
class Account:
    """All that is known about one followed program."""

    findings: list[Finding] = field(default_factory=list)
    untrapped: list[Untrapped] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    entry: int = 0
    main: int = 0
    marks: list[Reached] = field(default_factory=list)
    unexplained_pages: int = 0
    map_disagreements: int = 0
    resident: Counter[tuple[Place, bool]] = field(default_factory=Counter)
    maps: list[LastMap] = field(default_factory=list)

    def reached(self, address: int) -> list[int]:
        """When a marked instruction was executed."""
        return [each.time_ns for each in self.marks if address and each.address == address]

    def faults_at(self, instruction: int) -> list[int]:
        """When an instruction faulted."""
        faults = (each.fault for each in self.findings)
        return [each.time_ns for each in faults if instruction and each.instruction == instruction]


def account_of(journal: Journal) -> Account:
    """The account of a journal."""
    return _Walk(journal).run()


class _Walk:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.account = Account(entry=journal.entry, main=journal.main)
        self.machine = machine_of(journal)
        self.pages: dict[int, Pages] = {}
        self.names: dict[int, Names] = {}
        self._add(Pages(0, Space(), self.machine))
        self.space_of: dict[int, int] = {journal.pid: 0}
        self.parents: dict[int, int] = {journal.pid: 0}
        self.loaders: dict[int, str] = {}
        self.programs: dict[int, str] = {}
        self.entered: set[int] = set()
        self.thread_stacks: set[tuple[int, int]] = set()
        self.births: dict[int, deque[Born]] = defaultdict(deque)
        self.execs: dict[int, deque[Executed]] = defaultdict(deque)
        self.record_times: dict[int, list[int]] = defaultdict(list)
        self.calls: list[Call] = []
        self.ends: list[Ended | Released] = []
        self.unseen: set[int] = set()
        self.history = History()
        if journal.is_attached:
            self.pages[0].attach()

    def run(self) -> Account:
        for entry in self.journal.entries:
            if isinstance(entry, Born):
                self.births[entry.pid].append(entry)
            elif isinstance(entry, Executed):
                self.execs[entry.pid].append(entry)
        steps: list[Entry | Event] = [*self.journal.events, *self.journal.entries]
        for step in sorted(steps, key=_applies_ns):
            self._step(step)
        self._name_thread_stacks()
        self._balance()
        self.account.unexplained_pages = sum(each.unexplained for each in self.pages.values())
        return self.account

    def _step(self, step: Entry | Event) -> None:
        if isinstance(step, Fault):
            self._fault(step)
        elif isinstance(step, Reached):
            self.account.marks.append(step)
            self.entered.add(self.space_of.get(step.pid, 0))
        elif isinstance(step, Forked):
            if step.pid != step.parent_pid:
                self._forked(step.pid)
        elif isinstance(step, Named):
            if step.by_exec and step.pid == step.tid and self.execs[step.pid]:
                self._executing(self.execs[step.pid].popleft(), step.time_ns)
        elif isinstance(step, Call):
            self._call(step)
        elif isinstance(step, Snapshot):
            self.pages[step.space].look(step)
        elif isinstance(step, StackSeen):
            piece = self.pages[step.space].space.find(step.pointer)
            if piece is not None:
                self.thread_stacks.add((step.space, piece.birth))
        elif isinstance(step, MapsRead):
            space = self.pages[step.space].space
            if step.is_check:
                self.account.map_disagreements += space.disagreements(step.mappings)
                if not self.machine.has_records:
                    self.account.resident.update(self.pages[step.space].resident())
            else:
                space.load(step.mappings)
                space.program_break = step.program_break or space.program_break
        elif isinstance(step, MapTaken):
            path = self.programs.get(step.space, "") or self.journal.path
            self.account.maps.append(LastMap(step, path, self.history, self.pages[step.space]))
        elif isinstance(step, Born):
            self._forked(step.pid)
        elif isinstance(step, Executed):
            if step in self.execs[step.pid]:
                # The record of the new name was lost: the stop at the end of exec is late but certain.
                self.execs[step.pid].remove(step)
                self._executing(step, step.time_ns)
        elif isinstance(step, (Ended, Released)):
            self.ends.append(step)

    # Processes and images

    def _forked(self, pid: int) -> None:
        if not self.births[pid]:
            return
        born = self.births[pid].popleft()
        self.parents[pid] = born.parent_pid
        parent = self.pages[self.space_of.get(born.parent_pid, 0)]
        if born.is_copy:
            self._add(parent.fork(born.space))
            self.history.copied(self.pages[born.space], parent, born.time_ns)
            self.loaders[born.space] = self.loaders.get(parent.number, "")
            self.programs[born.space] = self.programs.get(parent.number, "")
            if parent.number in self.entered:
                self.entered.add(born.space)
            self.thread_stacks |= {
                (born.space, birth) for space, birth in self.thread_stacks if space == parent.number
            }
        self.space_of[pid] = born.space

    def _executing(self, executed: Executed, alone_ns: int) -> None:
        pages = Pages(executed.space, Space(), self.machine)
        pages.space.load(executed.mappings)
        pages.space.program_break = executed.program_break
        self._add(pages)
        self.space_of[executed.pid] = executed.space
        if executed.is_secure:
            self.unseen.add(executed.pid)
        files = {each.path for each in pages.space if each.is_file}
        loader = next(iter(files - {executed.path}), "")
        self.loaders[executed.space] = loader
        self.programs[executed.space] = executed.path
        self.account.images.append(
            Image(
                executed.pid,
                executed.space,
                executed.path,
                loader,
                executed.entered_ns,
                alone_ns,
                executed.time_ns,
                executed.is_secure,
            )
        )
        stack = next((each for each in pages.space if each.grows_down), None)
        if stack is not None:
            # What the snapshot at the end of exec shows there without a record are the arguments' pages.
            pages.populating = (stack.start, stack.end)

    def _add(self, pages: Pages) -> None:
        self.pages[pages.number] = pages
        self.names[pages.number] = Names(pages.space)

    # Faults and calls

    def _fault(self, fault: Fault) -> None:
        self.record_times[fault.tid].append(fault.time_ns)
        number = self.space_of.get(fault.pid, 0)
        pages, names = self.pages[number], self.names[number]
        piece = pages.space.find(fault.address)
        is_growth = False
        if piece is None:
            piece = pages.space.grow(fault.address)
            is_growth = piece is not None
        place = Place(UNKNOWN, "") if piece is None else names.place_of(piece, fault.address)
        code = names.code_of(fault.instruction, fault.in_kernel)
        finding = Finding(fault, number, piece, place, code)
        if is_growth:
            finding.is_growth = True
        if self._is_relocating(number, place, code):
            finding.is_relocation = True
        pages.take(finding)
        self.account.findings.append(finding)
        if self.journal.with_maps:
            self.history.took(pages, finding)

    def _is_relocating(self, space: int, place: Place, code: Code) -> bool:
        """Whether the loader is writing addresses into an object: all it does to another object's data.

        musl's loader is its libc, too: once the program is entered, the program may have asked it to write.
        """
        if code.object and code.object == self.programs.get(space):
            self.entered.add(space)
        loader = self.loaders.get(space, "")
        if place.kind not in (DATA, BSS) or not loader or code.object != loader or place.object == loader:
            return False
        return space not in self.entered or not _is_libc(loader)

    def _call(self, call: Call) -> None:
        self.calls.append(call)
        pages = self.pages[call.space]
        if call.name in calls.CHANGING:
            pages.space.apply(call)
        if call.counts_left != call.counts_entered:
            pages.populating = calls.range_populated(call.name, call.args, call.result)
            code = self.names[call.space].code_of(call.instruction, False)
            rise = call.counts_left - call.counts_entered
            faults = self._without_record(call.pid, call.tid, call.entered_ns, call.time_ns, rise)
            if faults:
                extent = pages.populating or (0, 0)
                self.account.untrapped.append(
                    Untrapped(
                        call.pid,
                        call.tid,
                        call.name,
                        code,
                        extent[0],
                        extent[1] - extent[0],
                        faults,
                        False,
                        call.time_ns,
                    )
                )
            else:
                pages.populating = None

    def _without_record(self, pid: int, tid: int, start: int, end: int, rise: int) -> int:
        if self.journal.lost or pid in self.unseen:
            # A fault without a record may have had one: nothing can be said of it.
            return 0
        return rise - self._recorded(tid, start, end)

    def _recorded(self, tid: int, start: int, end: int) -> int:
        times = self.record_times[tid]
        return bisect_right(times, end) - bisect_left(times, start)

    # The end

    def _name_thread_stacks(self) -> None:
        for finding in self.account.findings:
            piece = finding.piece
            if piece is not None and (finding.address_space, piece.birth) in self.thread_stacks:
                finding.place = Place(THREAD_STACK, "")

    def _balance(self) -> None:
        for image in self.account.images:
            self._untrapped_of_exec(image)
        recorded: dict[int, int] = defaultdict(int)
        untrapped: dict[int, int] = defaultdict(int)
        for finding in self.account.findings:
            recorded[finding.fault.pid] += 1
        for each in self.account.untrapped:
            untrapped[each.pid] += each.faults
        paths = {self.journal.pid: self.journal.path}
        paths.update((image.pid, image.path) for image in self.account.images)
        ended = {end.pid: end for end in self.ends}
        # The first process first: the ids of its children may be smaller, once the numbers have wrapped.
        for pid in sorted(
            {*self.parents, *ended, *recorded}, key=lambda each: (each != self.journal.pid, each)
        ):
            end = ended.get(pid)
            is_root = pid == self.journal.pid
            brought = (self.journal.inherited_minor, self.journal.inherited_major) if is_root else (0, 0)
            parent = self.parents.get(pid, 0)
            self.account.processes.append(
                Process(
                    pid,
                    parent,
                    paths.get(pid, paths.get(parent, "")),
                    sum(brought),
                    end.minor - brought[0] if end else 0,
                    end.major - brought[1] if end else 0,
                    recorded[pid],
                    untrapped[pid],
                    isinstance(end, Ended),
                    end.status if isinstance(end, Ended) else 0,
                    isinstance(end, Released),
                )
            )

    def _untrapped_of_exec(self, image: Image) -> None:
        executed = next(e for e in self.journal.entries if isinstance(e, Executed) and e.space == image.space)
        rise = executed.counts - executed.counts_entered
        start = image.entered_ns
        if executed.caller != image.pid:
            # Until it is alone it has an id of its own: the first thread's faults beside it are not exec's.
            rise -= self._recorded(executed.caller, start, image.time_ns)
            start = image.alone_ns
        faults = self._without_record(image.pid, image.pid, start, image.time_ns, rise)
        if faults:
            stack = next((each for each in executed.mappings if each.path == "[stack]"), None)
            extent = (stack.start, stack.end) if stack else (0, 0)
            self.account.untrapped.append(
                Untrapped(
                    image.pid,
                    image.pid,
                    "execve",
                    Code(image.path, ""),
                    extent[0],
                    extent[1] - extent[0],
                    faults,
                    True,
                    image.time_ns,
                )
            )


def _is_libc(loader: str) -> bool:
    parsed = elf.read(loader)
    return parsed is not None and parsed.address_of_symbol("printf") is not None


def _applies_ns(step: Entry | Event) -> int:
    # What munmap frees may be mapped by another thread before the caller is seen to return.
    if isinstance(step, Call) and step.name == "munmap":
        return step.entered_ns
    return step.time_ns


__all__ = ["Account", "Finding", "Process", "Untrapped", "account_of", "causes"]
