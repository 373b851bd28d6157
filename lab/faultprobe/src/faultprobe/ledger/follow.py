"""Following a program by ptrace: at which system call its address space changed, and what it held before.

The kernel's fault records say where and when. What a fault *meant* depends on the mapping at that moment
and on the state of the page, both of which system calls take away; so each thread is stopped at the entry
and at the exit of its calls, and what is about to go is read first. A stop costs the program time, never
a fault: its memory is not read (a page read through ptrace would be faulted in), but for the arguments of
an mmap where they are passed in memory that the caller has just written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from faultprobe import _native, names, procfs
from faultprobe.ledger import calls, elf
from faultprobe.ledger.journal import (
    COUNTERS,
    Born,
    Call,
    Ended,
    Entry,
    Executed,
    Journal,
    MapsRead,
    MapTaken,
    PhaseEnded,
    StackSeen,
)
from faultprobe.ledger.threads import (
    Space,
    Thread,
    auxiliary,
    chunks_of_all,
    close,
    counts_of,
    draining,
    mmap_arguments,
    path_of,
    process_counts,
    program_break,
    shares_memory,
)
from faultprobe.ledger.touched import Touched
from faultprobe.perf import NoRecorder, Recorder

if TYPE_CHECKING:
    from faultprobe._native import SystemCallStop

PTRACE_CONT, PTRACE_SYSCALL, PTRACE_DETACH = 7, 24, 17
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_LISTEN = 0x4206, 0x4207, 0x4208
OPTION_SYSGOOD, OPTION_FORK, OPTION_VFORK, OPTION_CLONE = 1, 2, 4, 8
OPTION_EXEC, OPTION_EXIT, OPTION_KILL = 16, 64, 1 << 20
# Should the tracer be killed, the program must not stay behind stopped in the middle of a call.
OPTIONS = OPTION_SYSGOOD | OPTION_FORK | OPTION_VFORK | OPTION_CLONE | OPTION_EXEC | OPTION_EXIT | OPTION_KILL
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_EXIT, EVENT_STOP = 1, 2, 3, 4, 6, 128
SYSTEM_CALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000
STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
AT_ENTRY, AT_SECURE = 9, 23


class Follower:
    """Follows one process, its threads and its children until the last of them is gone.

    Everything happens in the thread that calls `follow`: ptrace belongs to a thread. Children of that
    thread that are not followed must not end meanwhile: they would be reaped. Without `reads_meanwhile` the
    rings are read at calls that are looked at alone.
    """

    def __init__(
        self, journal: Journal, recorder: Recorder | NoRecorder, reads_meanwhile: bool = True
    ) -> None:
        self.journal = journal
        self._reads_meanwhile = reads_meanwhile
        self.exit_status: int | None = None
        self.exec_count = 0
        # Until its exec the process runs in the memory of the one that has started it.
        self._has_image = journal.is_attached
        self._threads: dict[int, Thread] = {}
        self._early: dict[int, int] = {}
        self._touched = Touched(journal, recorder, self._threads)
        self._names = _native.system_calls()

    @property
    def _recorder(self) -> Recorder | NoRecorder:
        return self._touched.recorder

    def attach(self) -> None:
        """Takes hold of the process, which goes on waiting for its exec. Raises OSError when refused."""
        _native.ptrace_request(PTRACE_SEIZE, self.journal.pid, OPTIONS)
        self._add(self.journal.pid, self.journal.pid, self._touched.new_space())

    def start(self) -> None:
        """Follows the process to its exec, where it stays stopped, or to its end without one.

        Nothing of what it does until then is the program's; but a signal would stop it for ever if nobody
        followed.
        """
        while self._threads:
            tid, status, _, _ = _native.next_stop(self._threads, None, True)
            if status is None:
                self._ended(tid)
            elif status >> 8 == EVENT_EXEC:
                self._early[tid] = status
                return
            else:
                self._stopped(tid, status)

    def follow(self, is_done: Callable[[], bool] | None = None) -> None:
        """Runs until nothing followed is left, or until `is_done`, which is asked after each stop."""
        self._has_image = True
        at_exec = self._early.pop(self.journal.pid, None)
        if at_exec is not None:
            self._stopped(self.journal.pid, at_exec)
        looked_at = self._numbers_looked_at() if is_done is None else None
        with draining(self._recorder) if self._reads_meanwhile else contextlib.nullcontext():
            while (self._threads or self._early) and not (is_done is not None and is_done()):
                try:
                    tid, status, call, entered = _native.next_stop(self._threads, looked_at, True)
                except ChildProcessError:
                    break
                if entered is not None:
                    self._entered(self._threads[entered[0]], entered[1])
                self._take(tid, status, call)

    def _numbers_looked_at(self) -> frozenset[int]:
        """The numbers of the calls that change an address space or end a phase."""
        looked_at = calls.CHANGING | calls.LOOKED_AT_FIRST | {self.journal.phase_call}
        return frozenset(number for number, name in self._names.items() if name in looked_at)

    def kill(self) -> None:
        """Ends everything that is still followed, by the ids the kernel gave."""
        for pid in {thread.pid for thread in self._threads.values()}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    # Stops

    def _take(self, tid: int, status: int | None, call: SystemCallStop | None) -> None:
        """Deals with a stop or, without a status, with an end; see _native.next_stop."""
        if status is None:
            self._ended(tid)
        else:
            self._stopped(tid, status, call)

    def _stopped(self, tid: int, status: int, call: SystemCallStop | None = None) -> None:
        event, number = status >> 8, status & 0xFF
        thread = self._threads.get(tid)
        if thread is None:
            # A new thread or child may stop before its parent's event has told of it.
            self._early[tid] = status
            return
        try:
            if number == SYSTEM_CALL_STOP:
                if call is None:
                    # Killed while it was stopped: its end is what is told next.
                    return
                self._at_system_call(thread, call)
            elif event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
                self._born(thread, _native.ptrace_event_message(tid))
            elif event == EVENT_EXEC:
                thread = self._executed(thread)
            elif event == EVENT_EXIT:
                self._leaving(thread)
            elif event == EVENT_STOP and thread.is_copy:
                # Before its first instruction: fork copies no page tables of what can be faulted in again.
                thread.is_copy = False
                if thread.was_copied_from_many:
                    # What the parent's other threads were mapping meanwhile came along or did not.
                    self._read_maps(thread, is_check=False)
                self._touched.take_events()
                self._touched.snapshot(thread, set(thread.space.unread))
            elif event == EVENT_STOP and number in STOPPING:
                self._stay_stopped(tid)
                return
            deliver = number if event == 0 and number != SYSTEM_CALL_STOP else 0
            self._go_on(tid, deliver)
        except ProcessLookupError:
            # Killed while it was stopped: its end is what is told next.
            return

    def _go_on(self, tid: int, signal_number: int) -> None:
        """Lets a stopped thread run to its next stop, with the signal it was stopped for."""
        _native.ptrace_request(PTRACE_SYSCALL if self._has_image else PTRACE_CONT, tid, signal_number)

    def _stay_stopped(self, tid: int) -> None:
        """Leaves a thread to the signal that stopped its process, until SIGCONT."""
        _native.ptrace_request(PTRACE_LISTEN, tid, 0)

    def _at_system_call(self, thread: Thread, stop: SystemCallStop) -> None:
        op, now, counts, _, stack, _, args = stop
        if not thread.stack_seen:
            thread.stack_seen = True
            self._write(StackSeen(now, thread.tid, thread.space.number, stack))
        if op == 1 and isinstance(args, tuple):
            self._entered(thread, stop)
            if self._recorder.is_marked:
                self._recorder.take_back_marks()
            name = self._names.get(thread.number, "")
            if name == "mmap" and calls.MMAP_TAKES_A_POINTER:
                thread.args = mmap_arguments(thread.tid, args[0])
            if name in calls.LOOKED_AT_FIRST:
                self._look_before(thread, name)
            if name and name == self.journal.phase_call and thread.pid == self.journal.pid:
                self._write(PhaseEnded(now, *process_counts(thread.pid)))
        elif op == 2 and isinstance(args, int) and thread.number >= 0:
            self._left(thread, now, counts, args)
            thread.number = -1

    def _entered(self, thread: Thread, stop: SystemCallStop) -> None:
        _, thread.entered_ns, thread.counts_entered, thread.instruction, _, thread.number, args = stop
        assert isinstance(args, tuple)
        thread.args = args

    def _look_before(self, thread: Thread, name: str) -> None:
        gone = calls.range_at_stake(name, thread.args, thread.space.program_break)
        if gone is not None:
            self._touched.snapshot(thread, self._touched.chunks_of(gone, thread.space.unread))

    def _left(self, thread: Thread, now: int, counts: int, result: int) -> None:
        name = self._names.get(thread.number, f"system call {thread.number}")
        if name == "brk":
            thread.space.program_break = result
        changes = name in calls.CHANGING
        if not changes and counts == thread.counts_entered:
            return
        if name in ("execve", "execveat") and result == 0:
            return
        path = path_of(thread) if name in ("mmap", "mmap2") else ""
        call = Call(
            now, thread.pid, thread.tid, thread.space.number, name, thread.args, result, thread.entered_ns,
            thread.counts_entered, counts, thread.instruction, path,
        )  # fmt: skip
        self._write(call)
        if name in calls.TOO_RARE_TO_MODEL:
            self._read_maps(thread, is_check=False)
        asked = calls.range_populated(name, thread.args, result)
        if asked is not None and counts != thread.counts_entered:
            self._touched.snapshot(thread, self._touched.chunks_of(asked, None))

    def _born(self, parent: Thread, tid: int) -> None:
        is_thread = os.access(f"/proc/{parent.pid}/task/{tid}", os.F_OK)
        if is_thread:
            self._add(tid, parent.pid, parent.space)
        else:
            shares = shares_memory(parent.tid, tid)
            space = parent.space if shares else self._touched.new_space(parent.space)
            self._add(tid, tid, space)
            self._write(Born(time.monotonic_ns(), tid, parent.pid, space.number, not shares))
            self._threads[tid].is_copy = not shares
            others = [each for each in self._threads.values() if each.space is parent.space]
            self._threads[tid].was_copied_from_many = len(others) > 1
        early = self._early.pop(tid, None)
        if early is not None:
            self._stopped(tid, early)

    def _executed(self, thread: Thread) -> Thread:
        former = _native.ptrace_event_message(thread.tid)
        caller = self._threads.pop(former, thread)
        entered_ns, counts_entered = caller.entered_ns, caller.counts_entered
        if entered_ns == 0:
            # The first exec was entered before anything was followed.
            counts_entered = self.journal.inherited_minor + self.journal.inherited_major
        for each in [t for t in self._threads.values() if t.pid == thread.pid]:
            del self._threads[each.tid]
            close(each)
        pid = thread.pid
        if caller is not thread:
            close(caller)
        space = self._touched.new_space()
        self._add(pid, pid, space)
        new = self._threads[pid]
        mappings = procfs.maps(str(pid))
        space.program_break = program_break(pid, mappings)
        now = time.monotonic_ns()
        self._write(
            Executed(
                now,
                pid,
                space.number,
                mappings,
                space.program_break,
                names.as_in_maps(procfs.link(f"/proc/{pid}/exe")),
                bool(auxiliary(pid).get(AT_SECURE, 0)),
                entered_ns,
                counts_entered,
                counts_of(new),
                caller.tid,
            )
        )
        if self.exec_count == 0:
            self._mark_start_up(pid)
        self.exec_count += 1
        stack = next((each for each in mappings if each.path == "[stack]"), None)
        chunks = set() if stack is None else self._touched.chunks_of((stack.start, stack.end), None)
        self._touched.take_events()
        self._touched.snapshot(new, chunks | space.unread)
        return new

    def _mark_start_up(self, pid: int) -> None:
        """Has it told when the program is entered, and when main is, if the file still names it."""
        entry = auxiliary(pid).get(AT_ENTRY, 0)
        parsed = elf.read(procfs.link(f"/proc/{pid}/exe"))
        if parsed is None or not entry:
            return
        entry -= parsed.starts_in_thumb
        if not self._recorder.mark(pid, entry, parsed.starts_in_thumb):
            return
        self.journal.entry = entry
        main = parsed.address_of_symbol("main")
        if main is not None:
            address = main.address + entry - parsed.entry
            if self._recorder.mark(pid, address, main.is_thumb):
                self.journal.main = address

    def _leaving(self, thread: Thread) -> None:
        if not self._has_image:
            return
        thread.is_leaving = True
        if self._names.get(thread.number, "") in calls.CHANGING:
            # Ended in the middle of a call that nobody will see return: it may have done its work.
            self._read_maps(thread, is_check=False)
        self._touched.take_events()
        is_blind = self.journal.level == COUNTERS
        self._touched.snapshot(
            thread, chunks_of_all(procfs.maps(str(thread.tid))) if is_blind else set(thread.space.unread)
        )
        others = [t for t in self._threads.values() if t.space is thread.space and not t.is_leaving]
        if not others:
            self._read_maps(thread, is_check=True)
            self._take_map(thread)
        if thread.number >= 0:
            # exit and exit_group do not return; nor does a call that a signal ended.
            name = self._names.get(thread.number, f"system call {thread.number}")
            self._left_for_good(thread, name)
        thread.entered_ns, thread.counts_entered = time.monotonic_ns(), counts_of(thread)

    def _left_for_good(self, thread: Thread, name: str) -> None:
        counts = counts_of(thread)
        if counts != thread.counts_entered:
            self._write(
                Call(
                    time.monotonic_ns(),
                    thread.pid,
                    thread.tid,
                    thread.space.number,
                    name,
                    thread.args,
                    0,
                    thread.entered_ns,
                    thread.counts_entered,
                    counts,
                    thread.instruction,
                    "",
                )
            )
        thread.number = -1

    def _ended(self, tid: int) -> None:
        thread = self._threads.pop(tid, None)
        if thread is not None and thread.is_leaving:
            self._left_for_good(thread, calls.THREADS_END)
        is_process = thread is None or thread.pid == tid
        minor = major = 0
        if is_process:
            minor, major = process_counts(tid)
        _, status = os.waitpid(tid, WALL)
        if is_process:
            self._write(Ended(time.monotonic_ns(), tid, minor, major, status))
        if tid == self.journal.pid:
            self.exit_status = status
        if thread is not None:
            close(thread)

    # Looking at it

    def _read_maps(self, thread: Thread, is_check: bool) -> None:
        mappings = procfs.maps(str(thread.tid))
        self._write(MapsRead(time.monotonic_ns(), thread.space.number, mappings, is_check))

    def _take_map(self, thread: Thread) -> None:
        """The memory map, by a stopped thread's number: its process's first one may have ended already."""
        if not self.journal.with_maps:
            return
        from faultprobe.memorymap.reader import MapRefused
        from faultprobe.memorymap.taking import take_of

        taken, refusal = None, ""
        try:
            taken = replace(take_of(thread.tid), pid=thread.pid)
        except MapRefused as error:
            refusal = str(error)
        self._write(MapTaken(time.monotonic_ns(), thread.pid, thread.space.number, taken, refusal))

    # Bookkeeping

    def _write(self, entry: Entry) -> None:
        self.journal.entries.append(entry)

    def _add(self, tid: int, pid: int, space: Space) -> None:
        stat = os.open(f"/proc/{pid}/task/{tid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        self._threads[tid] = Thread(tid, pid, space, stat, stack_seen=tid == pid)
        self._touched.place(tid, space)
