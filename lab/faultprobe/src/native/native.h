/*
 * What the files of the extension share: one reading of the fault counters, and the functions that
 * module.c offers to Python.
 */
#ifndef FAULTPROBE_NATIVE_H
#define FAULTPROBE_NATIVE_H

/* Python.h first: it may define _GNU_SOURCE and _FILE_OFFSET_BITS itself, with these same values.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX >= 0x030D0000
/*
 * The headers of 3.13 no longer choose the functions that take lengths as Py_ssize_t: there, all
 * do. Before it the plain ones refuse "#", and this extension is one file for every Python from 3.9
 * on.
 */
PyAPI_FUNC(int) _PyArg_ParseTuple_SizeT(PyObject *, const char *, ...);
PyAPI_FUNC(PyObject *) _Py_BuildValue_SizeT(const char *, ...);
#define PyArg_ParseTuple _PyArg_ParseTuple_SizeT
#define Py_BuildValue _Py_BuildValue_SizeT
#endif

#include <stdint.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/types.h>

/* The two fault counters of getrusage(2), in faults. */
struct reading {
    long minor;
    long major;
};

/*
 * One reading. Inline, so that the measured code of each experiment is one run of instructions in
 * one object; the only libc text it enters is getrusage.
 */
static inline int take_reading(int who, struct reading *into)
{
    struct rusage usage;

    if (getrusage(who, &usage) != 0)
        return -1;
    into->minor = usage.ru_minflt;
    into->major = usage.ru_majflt;
    return 0;
}

/* The mapped ring of a perf event. */
struct mapped_ring {
    unsigned char *mapping; /* the control page, then the data; NULL when there is none */
    size_t page_size;
    size_t data_bytes;
};

struct module_state {
    PyTypeObject *counters_type;
};

/* counters.c */
int counters_add_type(PyObject *module);
PyObject *counters_self(PyObject *module, PyObject *unused);
PyObject *counters_thread(PyObject *module, PyObject *unused);
PyObject *stamped_reading(PyObject *module, PyObject *args);

/* lazy_malloc.c */
PyObject *lazy_malloc(PyObject *module, PyObject *args);

/* loop.c */
PyObject *touch_pages(PyObject *module, PyObject *args);

/* certificate.c */
PyObject *idle_rise(PyObject *module, PyObject *args);
PyObject *reading_costs(PyObject *module, PyObject *args);

/* machine.c */
PyObject *libc_identity(PyObject *module, PyObject *unused);
PyObject *libc_address(PyObject *module, PyObject *unused);
PyObject *old_page_read_faults(PyObject *module, PyObject *unused);
PyObject *get_personality(PyObject *module, PyObject *unused);
PyObject *set_personality(PyObject *module, PyObject *args);
PyObject *read_file(PyObject *module, PyObject *args);
PyObject *debugfs_open(PyObject *module, PyObject *args);
PyObject *measure_fault_around(PyObject *module, PyObject *args);

/* spawn.c */
PyObject *spawn(PyObject *module, PyObject *args);
PyObject *await_exec(PyObject *module, PyObject *args);
PyObject *detach(PyObject *module, PyObject *args);
PyObject *parse_report(PyObject *module, PyObject *args);
PyObject *adopt_orphans(PyObject *module, PyObject *args);

/* perf.c */
PyObject *perf_open(PyObject *module, PyObject *args);
PyObject *perf_open_mark(PyObject *module, PyObject *args);
PyObject *perf_open_tracepoint(PyObject *module, PyObject *args);
PyObject *perf_id(PyObject *module, PyObject *args);
PyObject *perf_redirect(PyObject *module, PyObject *args);
int open_fault_event(int major, pid_t pid, int cpu, int from_exec, int user_only, int sideband,
                     unsigned int watermark, int detail);
int map_ring(struct mapped_ring *ring, int descriptor, size_t data_bytes);
void unmap_ring(struct mapped_ring *ring);
size_t waiting_in_ring(const struct mapped_ring *ring);
void take_from_ring(struct mapped_ring *ring, char *into, size_t length);
int ring_add_type(PyObject *module);

/* course.c */
PyObject *run_once(PyObject *module, PyObject *args);

/* records.c */
PyObject *minor_faults(PyObject *module, PyObject *args);
PyObject *skim_records(PyObject *module, PyObject *args);

/* stopwatch.c */
int stopwatch_add_type(PyObject *module);

/* follow.c */
PyObject *ptrace_request(PyObject *module, PyObject *args);
PyObject *ptrace_event_message(PyObject *module, PyObject *args);
PyObject *next_stop(PyObject *module, PyObject *args);
PyObject *allow_tracer(PyObject *module, PyObject *args);
PyObject *same_memory(PyObject *module, PyObject *args);
PyObject *system_calls(PyObject *module, PyObject *unused);

/* pagemap.c */
PyObject *zero_page_entries(PyObject *module, PyObject *unused);
PyObject *add_pagemap(PyObject *module, PyObject *args);

/* runs.c */
PyObject *translate_runs(PyObject *module, PyObject *args);
PyObject *slice_runs(PyObject *module, PyObject *args);
PyObject *tally_runs(PyObject *module, PyObject *args);
PyObject *compare_runs(PyObject *module, PyObject *args);

/* scan.c */
PyObject *probe_scan(PyObject *module, PyObject *args);
PyObject *scan_pages(PyObject *module, PyObject *args);
PyObject *read_pages(PyObject *module, PyObject *args);
PyObject *huge_zero_frame(PyObject *module, PyObject *args);

#endif
