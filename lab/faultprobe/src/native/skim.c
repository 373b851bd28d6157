/*
 * What is asked of the records of every run, without an object for each: how many faults there are,
 * what was lost and where files were mapped. What else is in a record perfrecords.py says.
 */
#include "native.h"

#include <linux/perf_event.h>
#include <stddef.h>
#include <string.h>

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
