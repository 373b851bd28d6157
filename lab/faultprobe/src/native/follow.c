/*
 * Following a program by ptrace(2): attaching without a stop, asking which system call a stopped
 * thread is in, letting it go on. Nothing here reads or writes the program's memory: a page that
 * the tracer touched would be present where the program alone would have faulted.
 */
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "syscall_names.h"

/* struct ptrace_syscall_info of <linux/ptrace.h>, which collides with libc's <sys/ptrace.h>. */
struct system_call_info {
    uint8_t op; /* 0 none, 1 entry, 2 exit */
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

/*
 * ptrace_system_call(pid) -> (op, instruction, stack, number, args or result)
 * op is 1 at the entry, where the last item is a tuple of six, 2 at the exit, where number is 0 and
 * the last item is the result (negative errno on failure), and 0 elsewhere.
 */
PyObject *ptrace_system_call(PyObject *module, PyObject *args)
{
    int pid;
    struct system_call_info info;
    unsigned long long ip, sp;

    (void)module;
    if (!PyArg_ParseTuple(args, "i:ptrace_system_call", &pid))
        return NULL;
    memset(&info, 0, sizeof info);
    if (trace(GET_SYSCALL_INFO, pid, sizeof info, (uintptr_t)&info) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    ip = info.instruction;
    sp = info.stack;
    if (info.op == 1) {
        unsigned long long given[6];

        for (int at = 0; at < 6; at++)
            given[at] = info.as.entry.args[at];
        return Py_BuildValue("(iKKK(KKKKKK))", 1, ip, sp, (unsigned long long)info.as.entry.number,
                             given[0], given[1], given[2], given[3], given[4], given[5]);
    }
    if (info.op != 2)
        return Py_BuildValue("(iKKKL)", 0, ip, sp, 0ULL, 0LL);
    /* On a 32-bit machine an address in the upper half comes sign-extended. */
    return Py_BuildValue("(iKKKL)", 2, ip, sp, 0ULL,
                         info.as.exit.is_error ? (long long)info.as.exit.result
                                               : (long long)(unsigned long)info.as.exit.result);
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
 * stamped_reading(who) -> (minor, major, nanoseconds of CLOCK_MONOTONIC)
 * The clock is the one that perf's records carry, so that they can be told apart by readings.
 */
PyObject *stamped_reading(PyObject *module, PyObject *args)
{
    int who;
    struct reading now;
    struct timespec time;

    (void)module;
    if (!PyArg_ParseTuple(args, "i:stamped_reading", &who))
        return NULL;
    if (take_reading(who, &now) != 0 || clock_gettime(CLOCK_MONOTONIC, &time) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("(llL)", now.minor, now.major,
                         (long long)time.tv_sec * 1000000000LL + (long long)time.tv_nsec);
}
