/*
 * Starting a program so that it can be followed from its exec on: the child waits for a byte before
 * it executes the program, and reports the fault counters it had at that moment, because ru_minflt
 * is not reset by execve.
 */
#include "native.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

struct plan {
    const char *path;
    char **argv;
    char **envp;
    int descriptors[3]; /* standard input, output and error of the program */
    long persona;       /* -1: as the parent */
    long long stack;    /* soft limit of the stack in bytes, -1: as the parent */
    int go, report;
    pid_t parent;
    int stop; /* stop at the first instruction of the program, until detached */
};

/* What the child tells: first its counters, then, when exec failed, the reason. */
struct report {
    struct reading inherited;
    int failed_errno;
};

static int apply(const struct plan *plan)
{
    struct rlimit limit;

    /* Until exec this process dies with its parent: it holds the other end of `go` itself, so that
       waiting there would never end. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        return -1;
    if (getppid() != plan->parent)
        _exit(126);
    for (int number = 0; number < 3; number++)
        if (dup2(plan->descriptors[number], number) < 0)
            return -1;
    /* Python ignores these two; the program expects the default. */
    if (signal(SIGPIPE, SIG_DFL) == SIG_ERR || signal(SIGXFSZ, SIG_DFL) == SIG_ERR)
        return -1;
    if (plan->persona >= 0 && personality((unsigned long)plan->persona) < 0)
        return -1;
    if (plan->stack >= 0) {
        if (getrlimit(RLIMIT_STACK, &limit) != 0)
            return -1;
        limit.rlim_cur = (rlim_t)plan->stack;
        if (setrlimit(RLIMIT_STACK, &limit) != 0)
            return -1;
    }
    if (plan->stop && ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        return -1;
    return 0;
}

static size_t strings_length(char **strings)
{
    size_t length = 0;

    for (; *strings != NULL; strings++)
        length += strlen(*strings);
    return length;
}

/*
 * The child's side. Between the reading and the new image nothing may fault: execve's own text is
 * entered once before (an empty path is refused before anything is allocated), and so is write's;
 * the strings are read, because the kernel will read them and a page shared with the parent since
 * fork may not be mapped yet.
 */
static __attribute__((noreturn)) void run_child(const struct plan *plan)
{
    struct report report;
    volatile size_t read_for_effect;
    char byte;

    memset(&report, 0, sizeof report);
    if (apply(plan) != 0)
        goto failed;
    if (write(plan->report, "", 0) != 0 || read(plan->go, &byte, 1) != 1)
        _exit(126);
    execve("", plan->argv, plan->envp);
    prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
    for (int round = 0; round < 2; round++) {
        read_for_effect =
            strlen(plan->path) + strings_length(plan->argv) + strings_length(plan->envp);
        take_reading(RUSAGE_SELF, &report.inherited);
    }
    (void)read_for_effect;
    if (write(plan->report, &report, sizeof report) != (ssize_t)sizeof report)
        _exit(126);
    execve(plan->path, plan->argv, plan->envp);
failed:
    report.failed_errno = errno;
    /* Nobody can be told when this fails too; the exit status still says that nothing was run. */
    if (write(plan->report, &report, sizeof report) != (ssize_t)sizeof report)
        _exit(126);
    _exit(127);
}

static void free_strings(char **strings)
{
    if (strings == NULL)
        return;
    for (char **each = strings; *each != NULL; each++)
        PyMem_Free(*each);
    PyMem_Free(strings);
}

/* A NULL-terminated copy of a list of bytes objects, or NULL with an exception. */
static char **strings_of(PyObject *list)
{
    Py_ssize_t count = PyList_Size(list);
    char **strings;

    if (count < 0)
        return NULL;
    strings = PyMem_Malloc(((size_t)count + 1) * sizeof *strings);
    if (strings == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(strings, 0, ((size_t)count + 1) * sizeof *strings);
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *item = PyList_GetItem(list, at);
        char *text;

        /* A null length pointer: embedded zero bytes are refused with ValueError. */
        if (item == NULL || PyBytes_AsStringAndSize(item, &text, NULL) != 0)
            goto failed;
        strings[at] = PyMem_Malloc(strlen(text) + 1);
        if (strings[at] == NULL) {
            PyErr_NoMemory();
            goto failed;
        }
        memcpy(strings[at], text, strlen(text) + 1);
    }
    return strings;

failed:
    free_strings(strings);
    return NULL;
}

/*
 * spawn(path, argv, envp, (stdin, stdout, stderr), persona, stack, go, report, stop) -> pid
 *
 * The child waits for one byte on `go`, writes its report to `report` and executes `path`. Both are
 * the child's ends of pipes, close-on-exec. argv and envp are lists of bytes. With `stop` the child
 * is stopped when exec is done, and goes on after detach(pid) by the thread that called spawn.
 */
PyObject *spawn(PyObject *module, PyObject *args)
{
    struct plan plan;
    PyObject *argv, *envp;
    pid_t pid;
    int saved;

    (void)module;
    if (!PyArg_ParseTuple(args, "yOO(iii)lLiip:spawn", &plan.path, &argv, &envp,
                          &plan.descriptors[0], &plan.descriptors[1], &plan.descriptors[2],
                          &plan.persona, &plan.stack, &plan.go, &plan.report, &plan.stop))
        return NULL;
    plan.argv = strings_of(argv);
    plan.envp = plan.argv != NULL ? strings_of(envp) : NULL;
    if (plan.envp == NULL) {
        free_strings(plan.argv);
        return NULL;
    }
    /* The child calls nothing of Python's, so the interpreter need not be told of this fork. */
    plan.parent = getpid();
    pid = fork();
    if (pid == 0)
        run_child(&plan);
    saved = errno;
    free_strings(plan.argv);
    free_strings(plan.envp);
    errno = saved;
    if (pid < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(pid);
}

/* detach(pid): lets a child go on that was spawned with `stop` and has stopped. */
PyObject *detach(PyObject *module, PyObject *args)
{
    int pid;

    (void)module;
    if (!PyArg_ParseTuple(args, "i:detach", &pid))
        return NULL;
    if (ptrace(PTRACE_DETACH, pid, NULL, NULL) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* parse_report(bytes) -> (minor, major, errno): what the child wrote, decoded where it is defined.
 */
PyObject *parse_report(PyObject *module, PyObject *args)
{
    const char *bytes;
    Py_ssize_t length;
    struct report report;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#:parse_report", &bytes, &length))
        return NULL;
    if ((size_t)length < sizeof report || (size_t)length % sizeof report != 0) {
        PyErr_SetString(PyExc_ValueError, "the child ended before it reported");
        return NULL;
    }
    /* The last one counts: a second report says why exec failed. */
    memcpy(&report, bytes + length - sizeof report, sizeof report);
    return Py_BuildValue("(lli)", report.inherited.minor, report.inherited.major,
                         report.failed_errno);
}

/*
 * adopt_orphans(on): whether descendants whose parent has ended become this process's children, so
 * that their counters can be read when they end (prctl(2), PR_SET_CHILD_SUBREAPER).
 */
PyObject *adopt_orphans(PyObject *module, PyObject *args)
{
    int on;

    (void)module;
    if (!PyArg_ParseTuple(args, "p:adopt_orphans", &on))
        return NULL;
    if (prctl(PR_SET_CHILD_SUBREAPER, (unsigned long)on, 0, 0, 0) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}
