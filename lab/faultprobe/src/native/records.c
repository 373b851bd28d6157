/*
 * What is read of records so often that no object is made for each step: the minor faults, which
 * most records are, and of all records of a run how many faults there are, what was lost and where
 * files were mapped. What else is in a record perfrecords.py says.
 */
#include "native.h"

#include <linux/perf_event.h>
#include <stddef.h>
#include <string.h>

/* The most that a record says of a page: see perf_open. */
enum { MOST_DETAIL = 2 };

/* A minor fault's record (perfrecords.py), and what of it makes an event. */
struct minor_fault {
    struct perf_event_header header;
    uint64_t instruction;
    uint64_t time_ns;
    uint64_t address;
    /* Physical address, size of the page: as many as the detail says. */
    uint64_t details[MOST_DETAIL];
};

/*
 * minor_faults(data, at, detail, (pid, tid), since_ns, slack_ns, make)
 *     -> (events, end, latest_ns, misdated)
 *
 * Decodes the records of minor faults that follow each other in `data` from the byte `at` on, up to
 * `end`. make((time, pid, tid, instruction, address, is_major, in_kernel, physical, page_bytes)) is
 * an event. `since_ns` is the least that the first one's time may be, `misdated` how many have a
 * time that is less than that, or than the one before, by more than `slack_ns`.
 */
PyObject *minor_faults(PyObject *module, PyObject *args)
{
    const char *data;
    Py_ssize_t length, at;
    int detail, pid, tid, failed = 0;
    long misdated = 0;
    long long latest_ns, slack_ns;
    PyObject *make, *events;
    size_t size;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#ni(ii)LLO:minor_faults", &data, &length, &at, &detail, &pid,
                          &tid, &latest_ns, &slack_ns, &make))
        return NULL;
    if (detail > MOST_DETAIL) {
        PyErr_SetString(PyExc_ValueError, "no record says so much");
        return NULL;
    }
    size = offsetof(struct minor_fault, details) + (detail > 0 ? (size_t)detail : 0) * 8;
    events = PyList_New(0);
    while (events != NULL && !failed && at <= length - (Py_ssize_t)size) {
        struct minor_fault fault = {.details = {0}};
        PyObject *fields, *event;

        memcpy(&fault, data + at, size);
        if (fault.header.type != PERF_RECORD_SAMPLE || fault.header.size != size)
            break;
        at += (Py_ssize_t)size;
        misdated += (long long)fault.time_ns < latest_ns - slack_ns;
        latest_ns = (long long)fault.time_ns;
        fields = Py_BuildValue(
            "(KiiKKOOKK)", (unsigned long long)fault.time_ns, pid, tid,
            (unsigned long long)fault.instruction, (unsigned long long)fault.address, Py_False,
            (fault.header.misc & PERF_RECORD_MISC_CPUMODE_MASK) == PERF_RECORD_MISC_KERNEL
                ? Py_True
                : Py_False,
            (unsigned long long)fault.details[0], (unsigned long long)fault.details[1]);
        event = fields != NULL ? PyObject_CallFunctionObjArgs(make, fields, NULL) : NULL;
        failed = event == NULL || PyList_Append(events, event) != 0;
        Py_XDECREF(fields);
        Py_XDECREF(event);
    }
    if (events == NULL || failed) {
        Py_XDECREF(events);
        return NULL;
    }
    return Py_BuildValue("(NnLl)", events, at, latest_ns, misdated);
}

/* The bodies of the records that are looked into, as far as they are; perf_event_open(2). */
struct mapped_file {
    uint32_t pid, tid;
    uint64_t start, length, offset;
    uint32_t device_major, device_minor;
    uint64_t inode, generation;
    uint32_t prot, flags;
    char path[];
};

struct lost_records {
    uint64_t id, count;
};

/* PERF_RECORD_LOST_SAMPLES, an enumerator since Linux 4.2. */
enum { LOST_SAMPLES = 13 };

/* Appends (path, start) for the mapping of a file; 0, or -1 with an exception. */
static int add_mapping(PyObject *mappings, const char *body, size_t length)
{
    const char *path = body + offsetof(struct mapped_file, path);
    size_t longest = length - offsetof(struct mapped_file, path);
    uint64_t start;
    PyObject *item;
    int failed;

    /* What is no file has a name of the kernel's: "//anon", "[heap]". */
    if (path[0] != '/' || path[1] == '/')
        return 0;
    memcpy(&start, body + offsetof(struct mapped_file, start), sizeof start);
    item =
        Py_BuildValue("(y#K)", path, (Py_ssize_t)strnlen(path, longest), (unsigned long long)start);
    failed = item == NULL || PyList_Append(mappings, item) != 0;
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

/*
 * skim_records(records) -> (faults, lost, [(path, start)])
 *
 * Of whole records: the samples, the records that the kernel says it dropped, and each mapping of a
 * file in order of the records, path and address as bytes and int.
 */
PyObject *skim_records(PyObject *module, PyObject *args)
{
    const char *records;
    Py_ssize_t length;
    unsigned long long faults = 0, lost = 0;
    PyObject *mappings;
    size_t left, size;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#:skim_records", &records, &length))
        return NULL;
    mappings = PyList_New(0);
    for (left = (size_t)length; mappings != NULL && left > 0; left -= size, records += size) {
        const char *body = records + sizeof(struct perf_event_header);
        struct perf_event_header header;
        struct lost_records told;
        uint64_t samples;

        size = left;
        if (left >= sizeof header) {
            memcpy(&header, records, sizeof header);
            size = header.size;
        }
        if (left < sizeof header || size < sizeof header || size > left) {
            PyErr_SetString(PyExc_ValueError, "not a text of whole records");
            Py_CLEAR(mappings);
            break;
        }
        size -= sizeof header;
        if (header.type == PERF_RECORD_SAMPLE)
            faults++;
        else if (header.type == PERF_RECORD_LOST && size >= sizeof told) {
            memcpy(&told, body, sizeof told);
            lost += told.count;
        } else if (header.type == LOST_SAMPLES && size >= sizeof samples) {
            memcpy(&samples, body, sizeof samples);
            lost += samples;
        } else if (header.type == PERF_RECORD_MMAP2 && size > sizeof(struct mapped_file) &&
                   add_mapping(mappings, body, size) != 0)
            Py_CLEAR(mappings);
        size += sizeof header;
    }
    return mappings != NULL ? Py_BuildValue("(KKN)", faults, lost, mappings) : NULL;
}
