/* The module faultprobe._native: its functions, its one type, and who compiled it. */
#include "native.h"

#ifdef __clang__
#define COMPILER __VERSION__
#else
#define COMPILER "GCC " __VERSION__
#endif

static PyMethodDef methods[] = {
    {"counters", counters_self, METH_NOARGS, "counters() -> Counters of this process"},
    {"thread_counters", counters_thread, METH_NOARGS,
     "thread_counters() -> Counters of this thread"},
    {"lazy_malloc", lazy_malloc, METH_VARARGS,
     "lazy_malloc(who, size, value, requests, answers) -> dict"},
    {"touch_pages", touch_pages, METH_VARARGS,
     "touch_pages(pages, calls) -> (wall ns, thread ns, faults)"},
    {"idle_rise", idle_rise, METH_VARARGS, "idle_rise(who, count) -> (minor, major)"},
    {"reading_costs", reading_costs, METH_VARARGS,
     "reading_costs(who, batches, count) -> (readings, bare), nanoseconds per call"},
    {"libc_identity", libc_identity, METH_NOARGS, "libc_identity() -> (family, version or None)"},
    {"libc_address", libc_address, METH_NOARGS, "libc_address() -> an address in libc's text"},
    {"old_page_read_faults", old_page_read_faults, METH_NOARGS,
     "old_page_read_faults() -> faults of a read of a page not accessed lately"},
    {"get_personality", get_personality, METH_NOARGS, "get_personality() -> int"},
    {"set_personality", set_personality, METH_VARARGS, "set_personality(persona)"},
    {"read_file", read_file, METH_VARARGS, "read_file(path) -> bytes"},
    {"debugfs_open", debugfs_open, METH_VARARGS, "debugfs_open(name, flags) -> descriptor"},
    {"measure_fault_around", measure_fault_around, METH_VARARGS,
     "measure_fault_around(path) -> bytes one read fault makes present"},
    {"spawn", spawn, METH_VARARGS,
     "spawn(path, argv, envp, descriptors, persona, stack, go, report, stop) -> pid"},
    {"await_exec", await_exec, METH_VARARGS,
     "await_exec(pid) -> status: stopped at the first instruction, or ended"},
    {"detach", detach, METH_VARARGS, "detach(pid): ends the stop at exec"},
    {"parse_report", parse_report, METH_VARARGS, "parse_report(bytes) -> (minor, major, errno)"},
    {"run_once", run_once, METH_VARARGS,
     "run_once(path, argv, envp, persona, stack, ring_bytes) -> what is known of the run"},
    {"skim_records", skim_records, METH_VARARGS,
     "skim_records(records) -> (faults, lost, [(path, start)])"},
    {"adopt_orphans", adopt_orphans, METH_VARARGS,
     "adopt_orphans(on): orphans become our children"},
    {"perf_open", perf_open, METH_VARARGS,
     "perf_open(major, pid, cpu, from_exec, user_only, sideband, watermark, detail) -> descriptor"},
    {"perf_open_mark", perf_open_mark, METH_VARARGS,
     "perf_open_mark(pid, cpu, address, detail) -> descriptor"},
    {"perf_open_tracepoint", perf_open_tracepoint, METH_VARARGS,
     "perf_open_tracepoint(pid, cpu, number) -> descriptor"},
    {"perf_id", perf_id, METH_VARARGS, "perf_id(descriptor) -> int"},
    {"perf_redirect", perf_redirect, METH_VARARGS, "perf_redirect(descriptor, into)"},
    {"minor_faults", minor_faults, METH_VARARGS,
     "minor_faults(data, at, detail, (pid, tid), since_ns, slack_ns, make) -> "
     "(events, end, latest_ns, misdated)"},
    {"ptrace_request", ptrace_request, METH_VARARGS, "ptrace_request(request, pid, data)"},
    {"ptrace_event_message", ptrace_event_message, METH_VARARGS,
     "ptrace_event_message(pid) -> int"},
    {"next_stop", next_stop, METH_VARARGS,
     "next_stop(threads, looked_at, is_waiting) -> (tid, status, call, entered)"},
    {"allow_tracer", allow_tracer, METH_VARARGS, "allow_tracer(pid)"},
    {"same_memory", same_memory, METH_VARARGS, "same_memory(pid, pid) -> bool"},
    {"system_calls", system_calls, METH_NOARGS, "system_calls() -> {number: name}"},
    {"zero_page_entries", zero_page_entries, METH_NOARGS,
     "zero_page_entries() -> pagemap entries of pages only read"},
    {"add_pagemap", add_pagemap, METH_VARARGS,
     "add_pagemap(pagemap, page, count, entries): the entries of pages that are there"},
    {"stamped_reading", stamped_reading, METH_VARARGS,
     "stamped_reading(who) -> (minor, major, nanoseconds)"},
    {"translate_runs", translate_runs, METH_VARARGS, "translate_runs(runs, table) -> runs"},
    {"slice_runs", slice_runs, METH_VARARGS, "slice_runs(runs, first, count) -> runs"},
    {"tally_runs", tally_runs, METH_VARARGS,
     "tally_runs(runs, marks, pages_per_cell) -> pages of each mark, cell by cell"},
    {"compare_runs", compare_runs, METH_VARARGS,
     "compare_runs(one, other) -> [(first page, pages, before, after)]"},
    {"probe_scan", probe_scan, METH_VARARGS, "probe_scan(pagemap) -> categories, 0: not supported"},
    {"scan_pages", scan_pages, METH_VARARGS, "scan_pages(pagemap, start, end, categories) -> runs"},
    {"read_pages", read_pages, METH_VARARGS,
     "read_pages(pagemap, start, end, zero_frames, huge_zero_frame, huge_pages, sees_frames, "
     "is_anonymous) -> runs"},
    {"huge_zero_frame", huge_zero_frame, METH_VARARGS, "huge_zero_frame(huge_bytes) -> frame or 0"},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    if (counters_add_type(module) != 0 || ring_add_type(module) != 0 ||
        stopwatch_add_type(module) != 0)
        return -1;
    if (PyModule_AddStringConstant(module, "COMPILER", COMPILER) != 0)
        return -1;
    if (PyModule_AddIntConstant(module, "RUSAGE_SELF", RUSAGE_SELF) != 0 ||
        PyModule_AddIntConstant(module, "RUSAGE_THREAD", RUSAGE_THREAD) != 0)
        return -1;
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);

    Py_VISIT(state->counters_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    Py_CLEAR(state->counters_type);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

/* A slot holds a function as void *, which ISO C does not convert but POSIX guarantees. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)module_exec},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "faultprobe._native",
    .m_doc = "The part of faultprobe that must not be Python: readings, experiments, perf.",
    .m_size = sizeof(struct module_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
