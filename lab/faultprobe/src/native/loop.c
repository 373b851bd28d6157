/*
 * The loop of the benchmark: fresh pages, each written once, timed from the first fault to the
 * last.
 */
#include "native.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return (long long)time.tv_sec * 1000000000LL + (long long)time.tv_nsec;
}

/*
 * touch_pages(pages, calls) -> (wall, cpu, faults): nanoseconds of CLOCK_MONOTONIC and of this
 * thread's own time, and the rise of its fault counters. A system call that does nothing (getppid)
 * follows each page `calls` times.
 */
PyObject *touch_pages(PyObject *module, PyObject *args)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    struct reading before, after;
    long long wall, cpu;
    Py_ssize_t pages;
    int calls;
    volatile char *memory;

    (void)module;
    if (!PyArg_ParseTuple(args, "ni:touch_pages", &pages, &calls))
        return NULL;
    if (pages < 1 || calls < 0) {
        PyErr_SetString(PyExc_ValueError, "touch_pages takes at least 1 page and 0 calls");
        return NULL;
    }
    memory = mmap(NULL, (size_t)pages * page_size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    /* One fault for each page. A kernel without huge pages refuses, and has none to forbid. */
    (void)madvise((void *)memory, (size_t)pages * page_size, MADV_NOHUGEPAGE);
    take_reading(RUSAGE_THREAD, &before);
    wall = nanoseconds(CLOCK_MONOTONIC);
    cpu = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
    for (Py_ssize_t page = 0; page < pages; page++) {
        memory[(size_t)page * page_size] = 1;
        for (int call = 0; call < calls; call++)
            syscall(SYS_getppid);
    }
    cpu = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    wall = nanoseconds(CLOCK_MONOTONIC) - wall;
    take_reading(RUSAGE_THREAD, &after);
    munmap((void *)memory, (size_t)pages * page_size);
    return Py_BuildValue("(LLl)", wall, cpu,
                         after.minor - before.minor + after.major - before.major);
}
