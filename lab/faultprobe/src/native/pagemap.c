/*
 * /proc/PID/pagemap as a follower reads it: the entries of pages that are there, and those of the
 * pages that all processes share because they were only read.
 */
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ZERO_PAGES_ASKED = 32 };

/*
 * zero_page_entries() -> the pagemap entries of fresh memory that was only read. Several pages,
 * because s390x and mips choose among a few zero pages by the address.
 */
PyObject *zero_page_entries(PyObject *module, PyObject *unused)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    volatile char *memory =
        mmap(NULL, ZERO_PAGES_ASKED * page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t entries[ZERO_PAGES_ASKED];
    int pagemap, saved;
    ssize_t got = -1;
    PyObject *answer;

    (void)module;
    (void)unused;
    if (memory == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    for (size_t at = 0; at < ZERO_PAGES_ASKED; at++)
        (void)memory[at * page_size];
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap >= 0)
        got = pread(pagemap, entries, sizeof entries,
                    (off_t)((uintptr_t)memory / page_size * sizeof *entries));
    saved = errno;
    if (pagemap >= 0)
        close(pagemap);
    munmap((void *)memory, ZERO_PAGES_ASKED * page_size);
    errno = saved;
    if (got < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    answer = PyTuple_New(got / (ssize_t)sizeof *entries);
    for (Py_ssize_t at = 0; answer != NULL && at < got / (ssize_t)sizeof *entries; at++) {
        PyObject *entry = PyLong_FromUnsignedLongLong(entries[at]);

        if (entry == NULL || PyTuple_SetItem(answer, at, entry) != 0) {
            Py_DECREF(answer);
            return NULL;
        }
    }
    return answer;
}

/*
 * add_pagemap(pagemap, page, count, entries): puts the entries of all present or swapped pages
 * among `count` from `page` on into the dictionary `entries`, by page number. Raises OSError.
 */
PyObject *add_pagemap(PyObject *module, PyObject *args)
{
    const uint64_t is_there = 3ULL << 62; /* present, swapped */
    unsigned long long page;
    Py_ssize_t count, got;
    uint64_t *read;
    PyObject *entries;
    int pagemap, failed = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "iKnO!:add_pagemap", &pagemap, &page, &count, &PyDict_Type,
                          &entries))
        return NULL;
    read = malloc((size_t)count * sizeof *read);
    if (read == NULL)
        return PyErr_NoMemory();
    got = pread(pagemap, read, (size_t)count * sizeof *read, (off_t)(page * sizeof *read));
    if (got < 0)
        PyErr_SetFromErrno(PyExc_OSError);
    for (Py_ssize_t at = 0; !failed && at < got / (Py_ssize_t)sizeof *read; at++) {
        PyObject *number, *entry;

        if (!(read[at] & is_there))
            continue;
        number = PyLong_FromUnsignedLongLong(page + (unsigned long long)at);
        entry = PyLong_FromUnsignedLongLong(read[at]);
        failed = number == NULL || entry == NULL || PyDict_SetItem(entries, number, entry) != 0;
        Py_XDECREF(number);
        Py_XDECREF(entry);
    }
    free(read);
    if (failed || got < 0)
        return NULL;
    Py_RETURN_NONE;
}
