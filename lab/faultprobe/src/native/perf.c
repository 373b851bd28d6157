/*
 * perf_event_open for page faults, and the ring its records arrive in. What the bytes of a record
 * mean is known to perfrecords.py and records.c; here they are only carried.
 */
#include "native.h"

#include <errno.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Why these and not PERF_COUNT_SW_PAGE_FAULTS: see perf.py. */
enum { MINOR_FAULTS = PERF_COUNT_SW_PAGE_FAULTS_MIN, MAJOR_FAULTS = PERF_COUNT_SW_PAGE_FAULTS_MAJ };

enum { EMPTY_RECORD = -1, NO_RECORD = -2 };

/* PERF_SAMPLE_DATA_PAGE_SIZE: in the kernel from 5.11 on, not in every header. */
#define DATA_PAGE_SIZE (UINT64_C(1) << 22)

/*
 * What a record tells. Each field is paid for at every fault (docs/experiments/cost.md), so minor
 * faults do without what is known otherwise: who it was stands in the record of the last switch,
 * and which event it is in the record's size. `is_named` is for the others: both are in the record.
 */
static uint64_t sample_type(int is_named, int detail)
{
    uint64_t type = PERF_SAMPLE_IP | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR;

    if (is_named)
        type |= PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID;
    if (detail >= 1)
        type |= PERF_SAMPLE_PHYS_ADDR;
    if (detail >= 2)
        type |= DATA_PAGE_SIZE;
    return type;
}

/* What perf_open does; -1 with errno when the kernel refuses. */
int open_fault_event(int major, pid_t pid, int cpu, int from_exec, int user_only, int sideband,
                     unsigned int watermark, int detail)
{
    struct perf_event_attr attr;

    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = major ? MAJOR_FAULTS : MINOR_FAULTS;
    attr.sample_period = detail == NO_RECORD ? 0 : 1;
    attr.sample_type = detail <= EMPTY_RECORD ? 0 : sample_type(major, detail);
    attr.disabled = from_exec ? 1 : 0;
    attr.enable_on_exec = from_exec ? 1 : 0;
    attr.inherit = cpu >= 0 || detail == NO_RECORD ? 1 : 0;
    attr.exclude_kernel = user_only ? 1 : 0;
    attr.exclude_hv = user_only ? 1 : 0;
    attr.mmap = attr.mmap_data = attr.mmap2 = sideband ? 1 : 0;
    attr.comm = attr.comm_exec = attr.task = attr.context_switch = sideband ? 1 : 0;
    attr.sample_id_all = sideband ? 1 : 0;
    attr.watermark = 1;
    attr.wakeup_watermark = watermark;
    /* One clock for all processors, and one a program can read: the records are sorted by it. */
    attr.use_clockid = 1;
    attr.clockid = CLOCK_MONOTONIC;
    return (int)syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
}

/*
 * perf_open(major, pid, cpu, from_exec, user_only, sideband, watermark, detail) -> descriptor
 *
 * One record for each minor (or major) fault of `pid` and of all its later threads and children on
 * `cpu`; with cpu -1 those of the thread `pid` alone, on any: the kernel has no ring for both. A
 * count needs none, and has threads and children on any.
 * from_exec: count nothing before the next exec. sideband: mappings, names, forks, exits and
 * switches too; only with major, whose records name their event. watermark: bytes in the ring that
 * wake a poller. detail: 1 for the physical address behind the data address, 2 for the size of its
 * page as well, both as they are once the fault is served. Less than 0 is for the benchmark:
 * a record of nothing, or a count and no record.
 */
PyObject *perf_open(PyObject *module, PyObject *args)
{
    int major, pid, cpu, from_exec, user_only, sideband, detail, descriptor;
    unsigned int watermark;

    (void)module;
    if (!PyArg_ParseTuple(args, "piipppIi:perf_open", &major, &pid, &cpu, &from_exec, &user_only,
                          &sideband, &watermark, &detail))
        return NULL;
    descriptor =
        open_fault_event(major, pid, cpu, from_exec, user_only, sideband, watermark, detail);
    if (descriptor < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(descriptor);
}

/*
 * perf_open_mark(pid, cpu, address, detail) -> descriptor
 *
 * One record, of the layout of major faults, when thread `pid` executes the instruction at
 * `address` on `cpu`: a breakpoint of the processor's, which changes no memory. On 32-bit ARM, bit
 * 0 of an address of code says that it is Thumb code, as in a symbol table; the record has it
 * clear.
 */
PyObject *perf_open_mark(PyObject *module, PyObject *args)
{
    struct perf_event_attr attr;
    int pid, cpu, detail, descriptor;
    unsigned long long address;

    (void)module;
    if (!PyArg_ParseTuple(args, "iiKi:perf_open_mark", &pid, &cpu, &address, &detail))
        return NULL;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_BREAKPOINT;
    attr.bp_type = HW_BREAKPOINT_X;
    attr.bp_addr = address;
    attr.bp_len = sizeof(long);
#ifdef __arm__
    /* An instruction of Thumb code begins at any even address; four bytes must be aligned to four.
     */
    if (address & 1) {
        attr.bp_addr = address - 1;
        attr.bp_len = HW_BREAKPOINT_LEN_2;
    }
#endif
    attr.sample_period = 1;
    attr.sample_type = sample_type(1, detail);
    attr.exclude_kernel = attr.exclude_hv = 1;
    attr.sample_id_all = 1;
    attr.use_clockid = 1;
    attr.clockid = CLOCK_MONOTONIC;
    descriptor = (int)syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    if (descriptor < 0 && errno == EINVAL && sizeof(long) < sizeof(uint64_t)) {
        /* The kernel means its own long, and it may be a 64-bit one with 32-bit programs. */
        attr.bp_len = sizeof(uint64_t);
        descriptor = (int)syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    }
    if (descriptor < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(descriptor);
}

/*
 * perf_open_tracepoint(pid, cpu, number) -> descriptor
 *
 * One record for each hit of a tracepoint: IDENTIFIER, TID, TIME and the tracepoint's own data
 * (RAW). pid -1 is everybody. The number is in the tracepoint's directory of tracefs.
 */
PyObject *perf_open_tracepoint(PyObject *module, PyObject *args)
{
    struct perf_event_attr attr;
    int pid, cpu, descriptor;
    unsigned long long number;

    (void)module;
    if (!PyArg_ParseTuple(args, "iiK:perf_open_tracepoint", &pid, &cpu, &number))
        return NULL;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_TRACEPOINT;
    attr.config = number;
    attr.sample_period = 1;
    attr.sample_type =
        PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_RAW;
    attr.use_clockid = 1;
    attr.clockid = CLOCK_MONOTONIC;
    descriptor = (int)syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    if (descriptor < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(descriptor);
}

/* perf_id(descriptor) -> the number by which records name their event. */
PyObject *perf_id(PyObject *module, PyObject *args)
{
    int descriptor;
    uint64_t id;

    (void)module;
    if (!PyArg_ParseTuple(args, "i:perf_id", &descriptor))
        return NULL;
    if (ioctl(descriptor, PERF_EVENT_IOC_ID, &id) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromUnsignedLongLong(id);
}

/* perf_redirect(descriptor, into): the records of one event go into the ring of another. */
PyObject *perf_redirect(PyObject *module, PyObject *args)
{
    int descriptor, into;

    (void)module;
    if (!PyArg_ParseTuple(args, "ii:perf_redirect", &descriptor, &into))
        return NULL;
    if (ioctl(descriptor, PERF_EVENT_IOC_SET_OUTPUT, into) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

struct ring {
    PyObject_HEAD struct mapped_ring is;
};

/* Maps the ring of an event, with `data_bytes` for records; -1 with errno. */
int map_ring(struct mapped_ring *ring, int descriptor, size_t data_bytes)
{
    void *mapping;

    ring->page_size = (size_t)sysconf(_SC_PAGESIZE);
    ring->data_bytes = data_bytes;
    mapping =
        mmap(NULL, ring->page_size + data_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    ring->mapping = mapping != MAP_FAILED ? mapping : NULL;
    return ring->mapping != NULL ? 0 : -1;
}

void unmap_ring(struct mapped_ring *ring)
{
    if (ring->mapping != NULL)
        munmap(ring->mapping, ring->page_size + ring->data_bytes);
    ring->mapping = NULL;
}

/*
 * How many bytes the kernel has written that nobody took yet.
 * The head is 64 bits wide and only grows; read twice, so that a 32-bit machine cannot see half of
 * a store.
 */
size_t waiting_in_ring(const struct mapped_ring *ring)
{
    volatile struct perf_event_mmap_page *control = (void *)ring->mapping;
    uint64_t head;

    do {
        head = control->data_head;
    } while (head != control->data_head);
    __sync_synchronize();
    return (size_t)(head - control->data_tail);
}

/* Copies that many bytes of those to `into`, and gives their room back. */
void take_from_ring(struct mapped_ring *ring, char *into, size_t length)
{
    volatile struct perf_event_mmap_page *control = (void *)ring->mapping;
    const unsigned char *data = ring->mapping + ring->page_size;
    size_t offset = (size_t)(control->data_tail & (ring->data_bytes - 1));
    size_t first = length < ring->data_bytes - offset ? length : ring->data_bytes - offset;

    memcpy(into, data + offset, first);
    memcpy(into + first, data, length - first);
    __sync_synchronize();
    control->data_tail += length;
}

static PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    int descriptor;
    Py_ssize_t data_bytes;
    struct ring *ring;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);

    if (keywords != NULL && PyDict_Size(keywords) != 0) {
        PyErr_SetString(PyExc_TypeError, "Ring takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "in:Ring", &descriptor, &data_bytes))
        return NULL;
    ring = (struct ring *)allocate(type, 0);
    if (ring == NULL)
        return NULL;
    ring->is.mapping = NULL;
    if (data_bytes <= 0 || (data_bytes & (data_bytes - 1)) != 0 ||
        data_bytes < (Py_ssize_t)sysconf(_SC_PAGESIZE)) {
        PyErr_SetString(PyExc_ValueError, "a ring is a power of two of bytes, at least one page");
        Py_DECREF(ring);
        return NULL;
    }
    if (map_ring(&ring->is, descriptor, (size_t)data_bytes) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(ring);
        return NULL;
    }
    return (PyObject *)ring;
}

static void ring_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    unmap_ring(&((struct ring *)self)->is);
    release(self);
    Py_DECREF(type);
}

/* drain() -> everything the kernel wrote since the last call, and gives the room back. */
static PyObject *ring_drain(PyObject *self, PyObject *unused)
{
    struct mapped_ring *ring = &((struct ring *)self)->is;
    PyObject *records;
    size_t available;

    (void)unused;
    if (ring->mapping == NULL) {
        PyErr_SetString(PyExc_ValueError, "the ring is closed");
        return NULL;
    }
    available = waiting_in_ring(ring);
    records = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)available);
    if (records != NULL)
        take_from_ring(ring, PyBytes_AsString(records), available);
    return records;
}

static PyObject *ring_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    unmap_ring(&((struct ring *)self)->is);
    Py_RETURN_NONE;
}

static PyMethodDef ring_methods[] = {
    {"drain", ring_drain, METH_NOARGS, "drain() -> bytes, the records since the last call"},
    {"close", ring_close, METH_NOARGS, "close(): unmaps the ring"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_new, (void *)ring_new},
    {Py_tp_dealloc, (void *)ring_dealloc},
    {Py_tp_methods, ring_methods},
    {Py_tp_doc, (void *)"Ring(descriptor, data_bytes): the records of a perf event"},
    {0, NULL},
};

static PyType_Spec ring_spec = {
    .name = "faultprobe._native.Ring",
    .basicsize = sizeof(struct ring),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = ring_slots,
};

int ring_add_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&ring_spec);

    if (type == NULL)
        return -1;
    if (PyModule_AddObject(module, "Ring", type) < 0) {
        Py_DECREF(type);
        return -1;
    }
    return 0;
}
