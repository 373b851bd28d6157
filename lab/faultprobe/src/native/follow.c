/*
 * Following a program by ptrace(2): attaching without a stop, asking which system call a stopped
 * thread is in, letting it go on. Nothing here reads or writes the program's memory: a page that
 * the tracer touched would be present where the program alone would have faulted.
 */
#include "native.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "syscall_names.h"

/* struct ptrace_syscall_info of <linux/ptrace.h>, which collides with libc's <sys/ptrace.h>. */
struct system_call_info {
    uint8_t op; /* 0 none, AT_ENTRY, AT_EXIT */
    uint8_t padding[3];
    uint32_t arch;
    uint64_t instruction;
    uint64_t stack;
    union {
        struct {
            uint64_t number;
            uint64_t args[6];
        } entry;
        struct {
            int64_t result;
            uint8_t is_error;
        } exit;
    } as;
};

enum { GET_SYSCALL_INFO = 0x420e, SET_PTRACER = 0x59616d61 };
enum { AT_ENTRY = 1, AT_EXIT = 2 };
/* With PTRACE_O_TRACESYSGOOD. */
enum { SYSTEM_CALL_STOP = SIGTRAP | 0x80 };

/* glibc's ptrace is variadic and types the request as an enum, musl's as int: one call for both. */
static long trace(long request, int pid, uintptr_t address, uintptr_t data)
{
    return syscall(SYS_ptrace, request, (long)pid, address, data);
}

/* ptrace_request(request, pid, data): PTRACE_SEIZE, _SYSCALL, _CONT, _LISTEN, _INTERRUPT, _DETACH.
 */
PyObject *ptrace_request(PyObject *module, PyObject *args)
{
    long request;
    int pid;
    unsigned long data;

    (void)module;
    if (!PyArg_ParseTuple(args, "lik:ptrace_request", &request, &pid, &data))
        return NULL;
    if (trace(request, pid, 0, data) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* ptrace_event_message(pid) -> the number that comes with an event: a new pid, an exit status. */
PyObject *ptrace_event_message(PyObject *module, PyObject *args)
{
    int pid;
    unsigned long message = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "i:ptrace_event_message", &pid))
        return NULL;
    if (trace(PTRACE_GETEVENTMSG, pid, 0, (uintptr_t)&message) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromUnsignedLong(message);
}

/* The counters of a stopped thread, minor and major faults together, from its /proc/PID/stat. */
static int read_counts(int stat, unsigned long long *counts)
{
    char text[4096], *at;
    ssize_t got = pread(stat, text, sizeof text - 1, 0);

    if (got < 0)
        return -1;
    text[got] = '\0';
    /* The name may be any bytes: the last ')' ends it. What follows begins with field 3. */
    at = strrchr(text, ')');
    *counts = 0;
    for (int field = 3; at != NULL && field <= 12; field++) {
        at = strchr(at + 1, ' ');
        if (at != NULL && (field == 10 || field == 12))
            *counts += strtoull(at, NULL, 10);
    }
    if (at != NULL)
        return 0;
    errno = EINVAL;
    return -1;
}

/* A thread that is stopped at a system call; `pid` is 0 for none. */
struct call_stop {
    int pid;
    struct system_call_info info;
    long long time_ns;
    unsigned long long counts;
};

/* Fills in `stop`, with none when the thread was killed meanwhile. -1: exception. */
static int look_at_call(int pid, PyObject *thread, struct call_stop *stop)
{
    PyObject *stat = PyObject_GetAttrString(thread, "stat");
    int descriptor = stat != NULL ? (int)PyLong_AsLong(stat) : -1;
    struct timespec time;

    Py_XDECREF(stat);
    if (PyErr_Occurred())
        return -1;
    memset(stop, 0, sizeof *stop);
    if (trace(GET_SYSCALL_INFO, pid, sizeof stop->info, (uintptr_t)&stop->info) < 0 ||
        clock_gettime(CLOCK_MONOTONIC, &time) != 0 || read_counts(descriptor, &stop->counts) != 0) {
        if (errno == ESRCH)
            return 0;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    stop->pid = pid;
    stop->time_ns = (long long)time.tv_sec * 1000000000LL + (long long)time.tv_nsec;
    return 0;
}

/* The `call` of next_stop. */
static PyObject *told(const struct call_stop *stop)
{
    const struct system_call_info *info = &stop->info;
    unsigned long long given[6], ip = info->instruction, sp = info->stack;

    if (stop->pid == 0)
        Py_RETURN_NONE;
    if (info->op == AT_ENTRY) {
        for (int at = 0; at < 6; at++)
            given[at] = info->as.entry.args[at];
        return Py_BuildValue("(iLKKKK(KKKKKK))", AT_ENTRY, stop->time_ns, stop->counts, ip, sp,
                             (unsigned long long)info->as.entry.number, given[0], given[1],
                             given[2], given[3], given[4], given[5]);
    }
    if (info->op != AT_EXIT)
        return Py_BuildValue("(iLKKKKL)", 0, stop->time_ns, stop->counts, ip, sp, 0ULL, 0LL);
    /* On a 32-bit machine an address in the upper half comes sign-extended. */
    return Py_BuildValue("(iLKKKKL)", AT_EXIT, stop->time_ns, stop->counts, ip, sp, 0ULL,
                         info->as.exit.is_error ? (long long)info->as.exit.result
                                                : (long long)(unsigned long)info->as.exit.result);
}

/* Whether nobody need look at the entry of this call. -1: exception. */
static int is_quiet(const struct call_stop *stop, PyObject *thread, PyObject *looked_at)
{
    PyObject *number, *stack_seen;
    int answer;

    if (looked_at == Py_None || stop->info.op != AT_ENTRY)
        return 0;
    stack_seen = PyObject_GetAttrString(thread, "stack_seen");
    number = PyLong_FromUnsignedLongLong(stop->info.as.entry.number);
    answer = stack_seen != NULL && number != NULL ? PySet_Contains(looked_at, number) : -1;
    if (answer >= 0)
        answer = answer == 0 && PyObject_IsTrue(stack_seen) == 1;
    Py_XDECREF(stack_seen);
    Py_XDECREF(number);
    return answer;
}

static int is_stop(const siginfo_t *info)
{
    return info->si_code == CLD_TRAPPED || info->si_code == CLD_STOPPED;
}

/*
 * The next stop, which is taken, or the next end, which is left to be reaped; `si_pid` is 0 when
 * there is none and it is not to be waited for. Begun anew after a signal whose handler did not
 * raise. -1: errno, or an exception.
 */
static int wait_for_any(siginfo_t *info, int is_waiting)
{
    const int options = WEXITED | WSTOPPED | WNOWAIT | __WALL | __WNOTHREAD;

    for (;;) {
        PyThreadState *others_run;
        int failed;

        memset(info, 0, sizeof *info);
        others_run = PyEval_SaveThread();
        failed = waitid(P_ALL, 0, info, options | (is_waiting ? 0 : WNOHANG));
        PyEval_RestoreThread(others_run);
        if (failed && errno == EINTR && PyErr_CheckSignals() == 0)
            continue;
        if (failed || !is_stop(info))
            return failed;
        /* Not there any more when the thread was killed meanwhile: what it does next is told next.
         */
        if (waitid(P_PID, (id_t)info->si_pid, info, WSTOPPED | WNOHANG | __WALL) != 0)
            return -1;
        if (info->si_pid != 0)
            return 0;
    }
}

/*
 * next_stop(threads, looked_at, is_waiting) -> (tid, status, call, entered)
 *
 * The next stop of a thread that this one follows, which stays stopped, or the end of one, which
 * stays to be reaped; tid is 0 when there is none and it is not to be waited for. The status is
 * None for an end, and otherwise the signal and, above its lowest 8 bits, the event. `threads` are
 * those followed, by number; the `stat` of each is the descriptor of its /proc/PID/stat. For one of
 * these that is stopped at a system call, `call` is (op, nanoseconds of CLOCK_MONOTONIC, minor +
 * major faults, instruction, stack, number, args or result): op is 1 at the entry, where the last
 * item is a tuple of six, 2 at the exit, where number is 0 and the last item is the result
 * (negative errno on failure), and 0 elsewhere. It is None everywhere else, and when the thread was
 * killed meanwhile.
 *
 * A stop at the entry of a call whose number is not in the set `looked_at` is passed over, and so
 * is its exit when the counters have not risen and nothing was told in between: most of a program's
 * calls change nothing, and it waits for whoever looks. A call that was entered so and did not end
 * so is told with what came instead: `entered` is (tid, its call). With None in place of the set,
 * and for a thread whose `stack_seen` is false, nothing is passed over.
 *
 * Raises ChildProcessError when nothing is followed.
 */
PyObject *next_stop(PyObject *module, PyObject *args)
{
    PyObject *threads, *looked_at, *key, *thread;
    struct call_stop stop = {.pid = 0}, entered = {.pid = 0};
    siginfo_t info;
    int is_waiting, is_passed_over;

    (void)module;
    if (!PyArg_ParseTuple(args, "O!Op:next_stop", &PyDict_Type, &threads, &looked_at, &is_waiting))
        return NULL;
    do {
        is_passed_over = stop.pid = 0;
        if (wait_for_any(&info, is_waiting) != 0)
            return PyErr_Occurred() ? NULL : PyErr_SetFromErrno(PyExc_OSError);
        if (!is_stop(&info) || info.si_status != SYSTEM_CALL_STOP)
            break;
        key = PyLong_FromLong(info.si_pid);
        thread = key != NULL ? PyDict_GetItemWithError(threads, key) : NULL;
        Py_XDECREF(key);
        if (thread == NULL || look_at_call(info.si_pid, thread, &stop) != 0 || stop.pid == 0)
            break;
        if (entered.pid == 0) {
            is_passed_over = is_quiet(&stop, thread, looked_at) > 0;
            if (is_passed_over)
                entered = stop;
        } else if (entered.pid == stop.pid && stop.info.op == AT_EXIT &&
                   stop.counts == entered.counts) {
            is_passed_over = 1;
            entered.pid = 0;
        }
        /* It fails for one that was killed meanwhile, whose end comes next. */
        if (is_passed_over)
            (void)trace(PTRACE_SYSCALL, stop.pid, 0, 0);
    } while (is_passed_over && PyErr_CheckSignals() == 0);
    if (PyErr_Occurred())
        return NULL;
    return Py_BuildValue(
        "(lNNN)", (long)info.si_pid,
        is_stop(&info) ? PyLong_FromLong(info.si_status) : Py_BuildValue(""), told(&stop),
        entered.pid != 0 ? Py_BuildValue("(iN)", entered.pid, told(&entered)) : Py_BuildValue(""));
}

/*
 * allow_tracer(pid): lets a process that is not an ancestor follow this one, where the Yama
 * security module would forbid it (prctl(2), PR_SET_PTRACER). 0 takes it back. Without Yama nothing
 * is needed.
 */
PyObject *allow_tracer(PyObject *module, PyObject *args)
{
    long pid;

    (void)module;
    if (!PyArg_ParseTuple(args, "l:allow_tracer", &pid))
        return NULL;
    if (prctl(SET_PTRACER, pid, 0, 0, 0) != 0 && errno != EINVAL)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* same_memory(pid, pid) -> whether the two share one address space (kcmp(2)). Raises OSError. */
PyObject *same_memory(PyObject *module, PyObject *args)
{
    int one, other;
    long order;

    (void)module;
    if (!PyArg_ParseTuple(args, "ii:same_memory", &one, &other))
        return NULL;
    order = syscall(SYS_kcmp, (long)one, (long)other, (long)KCMP_VM, 0L, 0L);
    if (order < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBool_FromLong(order == 0);
}

/* system_calls() -> {number: name} of this architecture, for the calls that touch memory. */
PyObject *system_calls(PyObject *module, PyObject *unused)
{
    PyObject *names = PyDict_New();

    (void)module;
    (void)unused;
    if (names == NULL)
        return NULL;
    for (size_t at = 0; at < sizeof system_call_names / sizeof *system_call_names; at++) {
        PyObject *number = PyLong_FromLong(system_call_names[at].number);
        PyObject *name = PyUnicode_FromString(system_call_names[at].name);
        int failed = number == NULL || name == NULL || PyDict_SetItem(names, number, name) != 0;

        Py_XDECREF(number);
        Py_XDECREF(name);
        if (failed) {
            Py_DECREF(names);
            return NULL;
        }
    }
    return names;
}
