"""Whose fault it was, told from the order of the records of one processor."""

from __future__ import annotations

import sys

import pytest

from faultprobe import _native, perfrecords
from faultprobe.perfrecords import HEADER, MINOR, NAMED, TRAILER, Decoder, Event, Fault, Reached

MAJOR_ID, MARK_ID = 7, 8


def record(kind: int, body: bytes, misc: int = 0) -> bytes:
    return HEADER.pack(kind, misc, HEADER.size + len(body)) + body


def switch(pid: int, tid: int, misc: int = 0) -> bytes:
    return record(perfrecords.RECORD_SWITCH, TRAILER.pack(pid, tid, 1, MAJOR_ID), misc)


def minor(address: int, misc: int = 2) -> bytes:
    return record(perfrecords.RECORD_SAMPLE, MINOR.pack(0x400000, 5, address), misc)


def named(event_id: int, address: int, details: bytes = b"") -> bytes:
    body = NAMED.pack(event_id, 0x400000, 30, 31, 5, address) + details
    return record(perfrecords.RECORD_SAMPLE, body, 2)


def decoder(detail: int = 0) -> Decoder:
    return Decoder(detail, (10, 10), {MAJOR_ID}, {MARK_ID})


def who(events: list[Event]) -> list[tuple[int, int]]:
    return [(each.pid, each.tid) for each in events]


def test_a_fault_is_of_whoever_was_switched_to_last() -> None:
    records = minor(1) + switch(20, 21) + minor(2) + minor(3) + switch(10, 11) + minor(4)
    assert who(decoder().decode(records)) == [(10, 10), (20, 21), (20, 21), (10, 11)]


def test_the_last_switch_holds_for_what_is_read_later() -> None:
    one = decoder()
    assert one.decode(switch(20, 21)) == []
    assert who(one.decode(minor(1))) == [(20, 21)]


def test_a_fault_of_nobody_is_lost_and_never_guessed() -> None:
    one = decoder()
    leave = switch(10, 10, perfrecords.MISC_SWITCH_OUT)
    assert who(one.decode(leave + minor(1) + switch(20, 20) + minor(2))) == [(20, 20)]
    assert one.lost == 1


def test_an_exec_may_change_the_thread_without_a_switch() -> None:
    comm = record(
        perfrecords.RECORD_COMM,
        perfrecords.PID_AND_TID.pack(20, 20) + b"name\0\0\0\0" + TRAILER.pack(20, 20, 3, MAJOR_ID),
        perfrecords.MISC_COMM_EXEC,
    )
    events = decoder().decode(switch(20, 22) + minor(1) + comm + minor(2))
    assert who(events) == [(20, 22), (20, 20), (20, 20)]


@pytest.mark.parametrize("detail", [0, 1, 2])
def test_records_are_told_apart_by_their_size(detail: int) -> None:
    values = (0x1000, 4096)[:detail]
    details = b"".join(value.to_bytes(8, sys.byteorder) for value in values)
    short = record(perfrecords.RECORD_SAMPLE, MINOR.pack(0x400000, 5, 9) + details, 1)
    events = decoder(detail).decode(short + named(MAJOR_ID, 8, details) + named(MARK_ID, 0, details))
    assert events == [
        Fault(5, 10, 10, 0x400000, 9, False, True, *values),
        Fault(5, 30, 31, 0x400000, 8, True, False, *values),
        Reached(5, 30, 31, 0x400000),
    ]


def test_more_detail_than_a_record_has_is_refused() -> None:
    size = perfrecords.HEADER.size + MINOR.size + 3 * 8
    data = perfrecords.HEADER.pack(perfrecords.RECORD_SAMPLE, 2, size) + bytes(size - perfrecords.HEADER.size)
    with pytest.raises(ValueError, match="no record says so much"):
        _native.minor_faults(data, 0, 3, (1, 1), 0, 0, tuple)


def test_records_that_were_dropped_are_counted() -> None:
    one = decoder()
    dropped = record(perfrecords.RECORD_LOST, perfrecords.LOST.pack(MAJOR_ID, 40))
    samples = record(perfrecords.RECORD_LOST_SAMPLES, perfrecords.LOST_SAMPLES.pack(2))
    assert one.decode(dropped + samples) == []
    assert one.lost == 42


def dated(time_ns: int) -> bytes:
    return record(perfrecords.RECORD_SAMPLE, MINOR.pack(0x400000, time_ns, 0x1000), 2)


@pytest.mark.parametrize(
    ("times_ms", "misdated"),
    [
        ([100, 101, 101, 102], 0),
        ([100, 99, 100], 0),
        ([100, 98, 100], 1),
        ([98, 99], 1),
        ([100, 500, 101, 500, 102], 2),
    ],
    ids=["in order", "within the clock's own slack", "one before", "before it began", "two ahead"],
)
def test_a_time_that_runs_back_is_another_clocks(times_ms: list[int], misdated: int) -> None:
    reading = Decoder(0, (10, 10), {MAJOR_ID}, {MARK_ID}, began_ns=100_000_000)
    reading.decode(b"".join(dated(each * 1_000_000) for each in times_ms))
    assert reading.misdated == misdated
