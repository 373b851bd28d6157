/*
 * One run of a program from its exec to its end, without a step of the interpreter's in between.
 * What is run dozens of times to be counted each time spends most of its time there otherwise, when
 * it is emulated.
 */
#include "native.h" /* first: Python.h sets macros that the libc looks at */

#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/perf_event.h>

/* Linux 5.3, and the same number on every architecture. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum { MINOR, MAJOR, EVENTS };
/* /proc/PID/stat has 52 numbers of at most 20 digits and a name. */
enum { STAT_BYTES = 2048, FIRST_CAPACITY = 16 << 10 };

/*
 * Nothing wakes us when the program writes, which would take the processor from it. One that fills
 * its pipe, most often 64 KiB, waits that long at most.
 */
enum { PATIENCE_MILLISECONDS = 20 };

struct text {
    char *bytes;
    size_t length;
    size_t capacity;
};

/* All that a run holds; -1 for a descriptor, 0 for a process that is not there. */
struct course {
    pid_t pid;
    int end; /* readable once the process has ended */
    int go[2], output[2];
    int events[EVENTS];
    uint64_t counted, major_id;
    struct mapped_ring ring;
    struct memory *memory;
    struct text said, records;
    char stat[STAT_BYTES];
    size_t stat_length;
    int status;
    struct rusage usage;
};

static void close_one(int *descriptor)
{
    if (*descriptor >= 0)
        close(*descriptor);
    *descriptor = -1;
}

/* Makes room for more bytes behind the text; -1 with an exception. */
static int reserve(struct text *text, size_t more)
{
    size_t capacity = text->capacity ? text->capacity : FIRST_CAPACITY;
    char *bytes;

    while (capacity - text->length < more)
        capacity *= 2;
    if (capacity == text->capacity)
        return 0;
    bytes = realloc(text->bytes, capacity);
    if (bytes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    text->bytes = bytes;
    text->capacity = capacity;
    return 0;
}

/* Opens the events of the child's first thread, and their ring; -1 with an exception. */
static int watch(struct course *course, size_t ring_bytes)
{
    for (int major = MINOR; major < EVENTS; major++) {
        course->events[major] = open_fault_event(major, course->pid, -1, 1, 0, major,
                                                 (unsigned int)(ring_bytes / 4), 0);
        if (course->events[major] < 0)
            goto refused;
    }
    if (map_ring(&course->ring, course->events[MINOR], ring_bytes) == 0 &&
        ioctl(course->events[MAJOR], PERF_EVENT_IOC_SET_OUTPUT, course->events[MINOR]) == 0 &&
        ioctl(course->events[MAJOR], PERF_EVENT_IOC_ID, &course->major_id) == 0)
        return 0;
refused:
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, "perf_event_open");
    return -1;
}

/* Takes what the ring holds; -1 with an exception. */
static int take_records(struct course *course)
{
    size_t length = course->ring.mapping != NULL ? waiting_in_ring(&course->ring) : 0;

    if (length == 0)
        return 0;
    if (reserve(&course->records, length) != 0)
        return -1;
    take_from_ring(&course->ring, course->records.bytes + course->records.length, length);
    course->records.length += length;
    return 0;
}

/* Takes what the program has written; -1 with an exception. */
static int take_output(struct course *course)
{
    struct text *said = &course->said;
    ssize_t length;

    do {
        if (reserve(said, FIRST_CAPACITY / 2) != 0)
            return -1;
        length = read(course->output[0], said->bytes + said->length, said->capacity - said->length);
        said->length += length > 0 ? (size_t)length : 0;
    } while (length > 0);
    return 0;
}

/* Reads /proc/PID/stat; -1 with errno. */
static int take_stat(struct course *course)
{
    char path[sizeof "/proc//stat" + 3 * sizeof(long)];
    ssize_t length = -1;
    int descriptor;

    snprintf(path, sizeof path, "/proc/%ld/stat", (long)course->pid);
    descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0) {
        length = read(descriptor, course->stat, sizeof course->stat);
        close(descriptor);
    }
    course->stat_length = length > 0 ? (size_t)length : 0;
    return length >= 0 ? 0 : -1;
}

/* The exception for a child that a signal has ended before its exec. */
static void set_ended_early(int status, const char *path)
{
    PyObject *arguments = Py_BuildValue(
        "(iNN)", ECHILD,
        PyUnicode_FromFormat("ended by 0x%x before its first instruction", (unsigned int)status),
        PyUnicode_DecodeFSDefault(path));

    if (arguments != NULL)
        PyErr_SetObject(PyExc_OSError, arguments);
    Py_XDECREF(arguments);
}

/* From the start of the child to the stop at the program's first instruction; -1: exception. */
static int reach_first_instruction(struct course *course, const struct plan *plan, PyObject *argv,
                                   PyObject *envp, size_t ring_bytes)
{
    const struct report *report;

    course->pid = start_child(plan, argv, envp, &course->memory);
    if (course->pid < 0) {
        course->pid = 0;
        if (course->memory != NULL)
            PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (ring_bytes > 0 && watch(course, ring_bytes) != 0)
        return -1;
    if (write(course->go[1], "!", 1) != 1) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (wait_for_exec(course->pid, &course->status) != 0)
        return -1;
    if (WIFSTOPPED(course->status))
        return 0;
    course->pid = 0;
    /* What has ended it may be meant for both of us, as Ctrl-C is. */
    if (PyErr_CheckSignals() != 0)
        return -1;
    report = &course->memory->report;
    if (report->failed_errno == 0) {
        set_ended_early(course->status, plan->path);
        return -1;
    }
    errno = report->failed_errno;
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, plan->path);
    return -1;
}

/* From that stop to the program's end; -1 with an exception. */
static int reach_end(struct course *course)
{
    struct pollfd polled[] = {
        {.fd = course->end, .events = POLLIN},
        {.fd = course->events[MINOR], .events = POLLIN},
    };
    PyThreadState *others_run;
    int ready;

    if (take_stat(course) != 0 || ptrace(PTRACE_DETACH, course->pid, NULL, NULL) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    do {
        /* A signal that came elsewhere than in poll has left nothing but Python's note of it. */
        if (PyErr_CheckSignals() != 0)
            return -1;
        others_run = PyEval_SaveThread();
        ready = poll(polled, 2, PATIENCE_MILLISECONDS);
        PyEval_RestoreThread(others_run);
        if (ready < 0 && errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (take_records(course) != 0 || take_output(course) != 0)
            return -1;
        /* The events of a thread that has ended would wake us for ever. */
        if (ready > 0 && polled[1].revents & ~POLLIN)
            polled[1].fd = -1;
    } while (ready <= 0 || polled[0].revents == 0);
    /* It has ended: nothing is waited for, and no signal comes between. */
    if (wait4(course->pid, &course->status, 0, &course->usage) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    course->pid = 0;
    for (int event = MINOR; course->ring.mapping != NULL && event < EVENTS; event++) {
        uint64_t count_of_one;

        if (read(course->events[event], &count_of_one, sizeof count_of_one) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        course->counted += count_of_one;
    }
    return 0;
}

/* Everything goes, the process too. */
static void clean_up(struct course *course)
{
    if (course->pid > 0) {
        kill(course->pid, SIGKILL);
        while (waitpid(course->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    unmap_ring(&course->ring);
    for (int event = MINOR; event < EVENTS; event++)
        close_one(&course->events[event]);
    for (int end = 0; end < 2; end++) {
        close_one(&course->go[end]);
        close_one(&course->output[end]);
    }
    close_one(&course->end);
    if (course->memory != NULL)
        free_memory(course->memory);
    free(course->said.bytes);
    free(course->records.bytes);
}

static PyObject *bytes_of(const char *bytes, size_t length)
{
    return PyBytes_FromStringAndSize(length ? bytes : "", (Py_ssize_t)length);
}

/*
 * run_once(path, argv, envp, persona, stack, ring_bytes)
 *     -> (pid, (minor, major) inherited, stat, status, major, output, records, counted, major id)
 *
 * Runs a program to its end, with its output in a pipe; persona and stack are those of spawn. stat
 * is its /proc/PID/stat at its first instruction, status wait's, major its ru_majflt, records the
 * records of the faults of its first thread, counted how many faults that took, major id the number
 * of the event for major ones. With a ring of 0 bytes nothing is recorded.
 * Raises OSError: with the path when the program could not be executed or has ended before, with
 * the name perf_event_open when it may not be recorded. Use from one thread.
 */
PyObject *run_once(PyObject *module, PyObject *args)
{
    struct plan plan = {.report = -1, .stop = 1, .parent = getpid()};
    struct course course = {.end = -1, .go = {-1, -1}, .output = {-1, -1}, .events = {-1, -1}};
    PyObject *argv, *envp, *answer = NULL;
    Py_ssize_t ring_bytes;
    pid_t pid;

    (void)module;
    if (!PyArg_ParseTuple(args, "yOOlLn:run_once", &plan.path, &argv, &envp, &plan.persona,
                          &plan.stack, &ring_bytes))
        return NULL;
    if (pipe2(course.go, O_CLOEXEC) != 0 || pipe2(course.output, O_CLOEXEC) != 0 ||
        fcntl(course.output[0], F_SETFL, O_NONBLOCK) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto done;
    }
    plan.go = course.go[0];
    plan.descriptors[1] = course.output[1];
    plan.descriptors[2] = STDERR_FILENO;
    if (reach_first_instruction(&course, &plan, argv, envp, (size_t)ring_bytes) != 0)
        goto done;
    /* The child's end: only while it holds that alone does closing tell anything. */
    close_one(&course.output[1]);
    pid = course.pid;
    course.end = (int)syscall(SYS_pidfd_open, pid, 0);
    if (course.end < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto done;
    }
    if (reach_end(&course) != 0)
        goto done;
    answer = Py_BuildValue("(l(ll)NilNNKK)", (long)pid, course.memory->report.inherited.minor,
                           course.memory->report.inherited.major,
                           bytes_of(course.stat, course.stat_length), course.status,
                           course.usage.ru_majflt, bytes_of(course.said.bytes, course.said.length),
                           bytes_of(course.records.bytes, course.records.length),
                           (unsigned long long)course.counted, (unsigned long long)course.major_id);
done:
    clean_up(&course);
    return answer;
}
