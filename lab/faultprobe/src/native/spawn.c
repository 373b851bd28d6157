/*
 * Starting a program so that it can be followed from its exec on: the child waits for a byte before
 * it executes the program, and reports the fault counters it had at that moment, because ru_minflt
 * is not reset by execve.
 *
 * Until exec the child runs in its parent's memory, as one of vfork or posix_spawn does, though
 * beside its parent. A fork of its own would copy the page tables of a whole interpreter and then
 * pay for each page it touches, and so would the parent: for every program that is started, more
 * faults than many a program takes itself.
 */
#include "native.h" /* first: Python.h sets macros that the libc looks at */

#include "spawn.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * What the child works with until exec, in one mapping: its stack, and above it the plan and its
 * strings. The capsule of this name that spawn returns unmaps it.
 */
#define MEMORY "faultprobe._native.spawn"
#define STACK_BYTES ((size_t)64 << 10)

/*
 * A handler would run in this process on the parent's variables: the program gets the default, as
 * exec would have given it.
 */
static int forget_handlers(void)
{
    struct sigaction action;

    for (int number = 1; number < NSIG; number++) {
        /* SIGRTMIN is where libc's own signals end. */
        if (number > SIGSYS && number < SIGRTMIN)
            continue;
        if (sigaction(number, NULL, &action) != 0)
            return -1;
        if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)
            continue;
        if (signal(number, SIG_DFL) == SIG_ERR)
            return -1;
    }
    return 0;
}

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
    if (forget_handlers() != 0 || signal(SIGPIPE, SIG_DFL) == SIG_ERR ||
        signal(SIGXFSZ, SIG_DFL) == SIG_ERR)
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
    return 0;
}

/* Leaves the report where the parent finds it; -1 when that was the pipe and nobody reads there. */
static int tell(struct memory *memory, const struct report *report)
{
    int into = memory->plan.report;

    memory->report = *report;
    return into < 0 || write(into, report, sizeof *report) == (ssize_t)sizeof *report ? 0 : -1;
}

/*
 * The child's side. Between the reading and the new image nothing may fault: execve's own text is
 * entered once before (an empty path is refused before anything is allocated), and so is write's;
 * the strings were written by the parent just now.
 *
 * Signals stay blocked until there is nothing left to do but exec: one that came meanwhile ends
 * this process, as its default, and the program is not run. Only then may the parent trace it: a
 * signal would stop it before, and nobody would notice. libc's errno is that of the parent's
 * thread here, which rests meanwhile: whoever has let this process go waits for it.
 */
static int run_child(void *argument)
{
    struct memory *memory = argument;
    const struct plan *plan = &memory->plan;
    struct report report;
    char byte;

    memset(&report, 0, sizeof report);
    if (apply(plan) != 0)
        goto failed;
    if ((plan->report >= 0 && write(plan->report, "", 0) != 0) || read(plan->go, &byte, 1) != 1)
        _exit(126);
    execve("", plan->argv, plan->envp);
    prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
    if (sigprocmask(SIG_SETMASK, &plan->mask, NULL) != 0)
        goto failed;
    if (plan->stop && ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        goto failed;
    for (int round = 0; round < 2; round++)
        take_reading(RUSAGE_SELF, &report.inherited);
    if (tell(memory, &report) != 0)
        _exit(126);
    execve(plan->path, plan->argv, plan->envp);
failed:
    report.failed_errno = errno;
    /* Nobody can be told when this fails too; the exit status still says that nothing was run. */
    if (tell(memory, &report) != 0)
        _exit(126);
    _exit(127);
}

void free_memory(struct memory *memory)
{
    munmap((char *)memory - STACK_BYTES, STACK_BYTES + memory->length);
}

static void unmap(PyObject *capsule)
{
    struct memory *memory = PyCapsule_GetPointer(capsule, MEMORY);

    if (memory != NULL)
        free_memory(memory);
}

/* Adds up what a list of bytes objects needs: its pointers, and its characters. -1: exception. */
static int add_needs(PyObject *list, size_t *pointers, size_t *characters)
{
    Py_ssize_t count = PyList_Size(list);

    if (count < 0)
        return -1;
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *item = PyList_GetItem(list, at);
        char *text;

        /* A null length pointer: embedded zero bytes are refused with ValueError. */
        if (item == NULL || PyBytes_AsStringAndSize(item, &text, NULL) != 0)
            return -1;
        *characters += strlen(text) + 1;
    }
    *pointers += (size_t)count + 1;
    return 0;
}

/* Copies one string to `*free_text` and moves that on. */
static char *copy(const char *text, char **free_text)
{
    size_t length = strlen(text) + 1;
    char *copied = memcpy(*free_text, text, length);

    *free_text += length;
    return copied;
}

/* Copies a list that add_needs has looked at; returns where the next list goes. */
static char **copy_list(PyObject *list, char **into, char **free_text)
{
    Py_ssize_t count = PyList_Size(list);
    char *text;

    for (Py_ssize_t at = 0; at < count; at++)
        if (PyBytes_AsStringAndSize(PyList_GetItem(list, at), &text, NULL) == 0)
            *into++ = copy(text, free_text);
    *into++ = NULL;
    return into;
}

/* The memory of a child with the plan's strings in it, or NULL with an exception. */
static struct memory *make_memory(const struct plan *plan, PyObject *argv, PyObject *envp)
{
    size_t pointers = 0, characters = strlen(plan->path) + 1, length;
    struct memory *memory;
    char **list, *free_text, *mapped;

    if (add_needs(argv, &pointers, &characters) != 0 ||
        add_needs(envp, &pointers, &characters) != 0)
        return NULL;
    length = sizeof *memory + pointers * sizeof(char *) + characters;
    mapped = mmap(NULL, STACK_BYTES + length, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (mapped == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        return NULL;
    }
    memory = (struct memory *)(mapped + STACK_BYTES);
    memory->length = length;
    memory->plan = *plan;
    list = (char **)(memory + 1);
    free_text = (char *)(list + pointers);
    memory->plan.path = copy(plan->path, &free_text);
    memory->plan.argv = list;
    memory->plan.envp = list = copy_list(argv, list, &free_text);
    copy_list(envp, list, &free_text);
    /* The page that the child begins its stack on, so that it brings no fault along for it. */
    mapped[STACK_BYTES - 1] = 0;
    return memory;
}

/* See spawn.h. */
pid_t start_child(const struct plan *plan, PyObject *argv, PyObject *envp, struct memory **memory)
{
    sigset_t all, *mask;
    pid_t pid;
    int saved;

    *memory = make_memory(plan, argv, envp);
    if (*memory == NULL)
        return -1;
    mask = &(*memory)->plan.mask;
    sigfillset(&all);
    /* The child begins with all signals blocked, and only the child goes on so. On Linux the mask
       is the calling thread's; the function with its name is in libpthread alone before glibc 2.32.
     */
    sigprocmask(SIG_SETMASK, &all, mask);
    pid = clone(run_child, *memory, CLONE_VM | SIGCHLD, *memory);
    saved = errno;
    sigprocmask(SIG_SETMASK, mask, NULL);
    errno = saved;
    return pid;
}

/* See spawn.h. */
int wait_for_exec(pid_t pid, int *status)
{
    PyThreadState *others_run;
    pid_t waited;

    for (;;) {
        if (PyErr_CheckSignals() != 0)
            return -1;
        others_run = PyEval_SaveThread();
        waited = waitpid(pid, status, 0);
        PyEval_RestoreThread(others_run);
        if (waited < 0 && errno == EINTR)
            continue;
        if (waited < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (!WIFSTOPPED(*status) || WSTOPSIG(*status) == SIGTRAP)
            return 0;
        /*
         * A signal came between TRACEME and exec: it is the child's. What stops a process is told
         * a second time when it has done so, and then it goes on: detaching leaves it stopped if
         * nobody has continued it. It fails for one that was killed meanwhile, whose end comes
         * next.
         */
        (void)ptrace(PTRACE_CONT, pid, NULL, (void *)(uintptr_t)WSTOPSIG(*status));
    }
}

/*
 * spawn(path, argv, envp, (stdin, stdout, stderr), persona, stack, go, report, stop)
 *     -> (pid, memory)
 *
 * The child waits for one byte on `go`, writes its report to `report` and executes `path`. Both are
 * the child's ends of pipes, close-on-exec. argv and envp are lists of bytes. With `stop` the child
 * is stopped when exec is done, and goes on after detach(pid) by the thread that called spawn.
 *
 * `memory` has to be kept until the child has executed the program or has ended. The calling thread
 * waits for exec (await_exec, next_stop) or the report as soon as it has let the child go.
 */
PyObject *spawn(PyObject *module, PyObject *args)
{
    struct plan plan;
    struct memory *memory;
    PyObject *argv, *envp, *capsule;
    pid_t pid;
    int saved;

    (void)module;
    if (!PyArg_ParseTuple(args, "yOO(iii)lLiip:spawn", &plan.path, &argv, &envp,
                          &plan.descriptors[0], &plan.descriptors[1], &plan.descriptors[2],
                          &plan.persona, &plan.stack, &plan.go, &plan.report, &plan.stop))
        return NULL;
    plan.parent = getpid();
    pid = start_child(&plan, argv, envp, &memory);
    saved = errno;
    if (memory == NULL)
        return NULL;
    capsule = PyCapsule_New(memory, MEMORY, unmap);
    if (capsule == NULL) {
        /* The child finds that nobody lets it go. Its memory is lost. */
        return NULL;
    }
    if (pid < 0) {
        Py_DECREF(capsule);
        errno = saved;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("(lN)", (long)pid, capsule);
}

/*
 * await_exec(pid) -> wait's status of a child that was spawned with `stop` and let go: stopped at
 * the first instruction of its program, or ended. Raises OSError, and what a signal's handler does.
 */
PyObject *await_exec(PyObject *module, PyObject *args)
{
    int pid, status;

    (void)module;
    if (!PyArg_ParseTuple(args, "i:await_exec", &pid))
        return NULL;
    if (wait_for_exec(pid, &status) != 0)
        return NULL;
    return PyLong_FromLong(status);
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
