/*
 * Facts and settings of the machine that the standard library does not reach: libc's identity, the
 * personality, and debugfs without a mount point.
 */
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

/* libc_address() -> the address of a function of libc's, by which its mapping is found. */
PyObject *libc_address(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromUnsignedLongLong((unsigned long long)(uintptr_t)getrusage);
}

/* libc_identity() -> (family, version or None). musl has no call for its version: see facts.py. */
PyObject *libc_identity(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
#ifdef __GLIBC__
    return Py_BuildValue("(ss)", "glibc", gnu_get_libc_version());
#else
    return Py_BuildValue("(sz)", "musl", NULL);
#endif
}

PyObject *get_personality(PyObject *module, PyObject *unused)
{
    int now = personality(0xffffffff);

    (void)module;
    (void)unused;
    if (now < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(now);
}

PyObject *set_personality(PyObject *module, PyObject *args)
{
    unsigned int persona;

    (void)module;
    if (!PyArg_ParseTuple(args, "I:set_personality", &persona))
        return NULL;
    if (personality(persona) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* Reads a whole file into memory of malloc's; 0 at its end, -1 with errno. */
static ssize_t read_whole(int file, char **text, size_t *room, size_t *length)
{
    ssize_t got;

    do {
        if (*length == *room) {
            size_t doubled = *room ? *room * 2 : 16384;
            char *more = realloc(*text, doubled);

            if (more == NULL) {
                errno = ENOMEM;
                return -1;
            }
            *text = more;
            *room = doubled;
        }
        got = read(file, *text + *length, *room - *length);
        *length += got > 0 ? (size_t)got : 0;
    } while (got > 0);
    return got;
}

/*
 * read_file(path) -> bytes: a whole file, as they are in /proc and /sys, where the size of one is
 * not known before. Raises OSError.
 */
PyObject *read_file(PyObject *module, PyObject *args)
{
    PyObject *path, *answer = NULL;
    PyThreadState *others_run;
    const char *name;
    char *text = NULL;
    size_t room = 0, length = 0;
    ssize_t got;
    int file = -1, saved;

    (void)module;
    if (!PyArg_ParseTuple(args, "O&:read_file", PyUnicode_FSConverter, &path))
        return NULL;
    name = PyBytes_AsString(path);
    /* Begun anew, or gone on with, after a signal whose handler did not raise. */
    do {
        others_run = PyEval_SaveThread();
        if (file < 0)
            file = open(name, O_RDONLY | O_CLOEXEC);
        got = file >= 0 ? read_whole(file, &text, &room, &length) : -1;
        PyEval_RestoreThread(others_run);
    } while (got < 0 && errno == EINTR && PyErr_CheckSignals() == 0);
    saved = errno;
    if (file >= 0)
        close(file);
    errno = saved;
    if (got == 0)
        answer = PyBytes_FromStringAndSize(text, (Py_ssize_t)length);
    else if (!PyErr_Occurred())
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, name);
    free(text);
    Py_DECREF(path);
    return answer;
}

/*
 * System calls of Linux 5.2 that libc headers may lack. From number 424 on every architecture uses
 * the same numbers (Alpha excepted, which we do not build for).
 */
#ifndef SYS_fsopen
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
enum { FSCONFIG_CREATE = 6, FS_CLOEXEC = 1 };

/*
 * debugfs_open(name, flags) -> descriptor of a file at the root of debugfs. The file system is
 * mounted detached, in no directory: nobody sees a mount, and it goes with the last descriptor.
 * Needs CAP_SYS_ADMIN.
 */
PyObject *debugfs_open(PyObject *module, PyObject *args)
{
    const char *name;
    int flags, context, root, file = -1, saved = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "si:debugfs_open", &name, &flags))
        return NULL;
    context = (int)syscall(SYS_fsopen, "debugfs", FS_CLOEXEC);
    if (context < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    root = -1;
    if (syscall(SYS_fsconfig, context, FSCONFIG_CREATE, NULL, NULL, 0) == 0)
        root = (int)syscall(SYS_fsmount, context, FS_CLOEXEC, 0);
    if (root >= 0)
        file = openat(root, name, flags | O_CLOEXEC);
    if (file < 0)
        saved = errno;
    close(context);
    if (root >= 0)
        close(root);
    errno = saved;
    if (file < 0)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, name);
    return PyLong_FromLong(file);
}

/* Largest window looked for, in pages: beyond any power of two in use, within one page table. */
enum { WINDOW_LIMIT = 64 };

/* Reads a file through, so that all of it is in the page cache. */
static int read_through(int file)
{
    char block[4096];
    off_t at = 0;
    ssize_t got;

    while ((got = pread(file, block, sizeof block, at)) > 0)
        at += got;
    return got < 0 ? -1 : 0;
}

/*
 * Touches one page of a fresh mapping and asks pagemap how many pages from there on came along. The
 * page begins a window of any size up to half the mapping: the windows are aligned on the virtual
 * address and a power of two of pages long. Returns pages, 0 when the file is too small to tell, -1
 * with errno.
 */
static long window_of(const volatile unsigned char *mapping, size_t pages, size_t page_size)
{
    uintptr_t base = (uintptr_t)mapping / page_size;
    size_t alignment = WINDOW_LIMIT, room;
    uintptr_t target;
    uint64_t entries[WINDOW_LIMIT];
    ssize_t got;
    long present = 0;
    int pagemap;

    while (alignment > pages / 2)
        alignment /= 2;
    if (alignment == 0)
        return 0;
    target = (base + alignment - 1) / alignment * alignment;
    room = base + pages - target < alignment ? base + pages - target : alignment;
    (void)mapping[(target - base) * page_size];
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return -1;
    got = pread(pagemap, entries, room * sizeof *entries, (off_t)(target * sizeof *entries));
    close(pagemap);
    if (got < 0)
        return -1;
    while ((size_t)present < (size_t)got / sizeof *entries && entries[present] >> 63)
        present++;
    return present;
}

/* measure_fault_around(path) -> bytes made present by one read fault in the cached file `path`. */
PyObject *measure_fault_around(PyObject *module, PyObject *args)
{
    const char *path;
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE), pages;
    struct stat status;
    void *mapping;
    long window;
    int file, saved;

    (void)module;
    if (!PyArg_ParseTuple(args, "s:measure_fault_around", &path))
        return NULL;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    mapping = MAP_FAILED;
    pages = 0;
    if (fstat(file, &status) == 0 && read_through(file) == 0) {
        pages = (size_t)status.st_size / page_size;
        mapping = mmap(NULL, pages * page_size, PROT_READ, MAP_PRIVATE, file, 0);
    }
    saved = errno;
    close(file);
    errno = saved;
    if (mapping == MAP_FAILED)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    window = window_of(mapping, pages, page_size);
    saved = errno;
    munmap(mapping, pages * page_size);
    errno = saved;
    if (window < 0)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, "/proc/self/pagemap");
    if (window == 0)
        return PyErr_Format(PyExc_OSError, "%s: too small to show a fault-around window", path);
    return PyLong_FromUnsignedLongLong((unsigned long long)window * page_size);
}

/* Of Linux 5.4. */
#ifndef MADV_COLD
#define MADV_COLD 20
#endif

/*
 * old_page_read_faults() -> minor faults that reading a page costs which is there and marked as not
 * accessed lately: 0 where the processor sets the accessed bit, 1 where a trap lets the kernel do
 * it. Raises OSError where a page cannot be marked so (MADV_COLD, Linux 5.4).
 */
PyObject *old_page_read_faults(PyObject *module, PyObject *unused)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    struct reading before, after;
    volatile char *page;
    int failed;

    (void)module;
    (void)unused;
    page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    *page = 1;
    failed = madvise((void *)page, size, MADV_COLD);
    if (failed) {
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        /* One reading before: what the second one touches is there. */
        take_reading(RUSAGE_THREAD, &after);
        take_reading(RUSAGE_THREAD, &before);
        (void)*page;
        take_reading(RUSAGE_THREAD, &after);
    }
    munmap((void *)page, size);
    return failed ? NULL : PyLong_FromLong(after.minor - before.minor);
}
