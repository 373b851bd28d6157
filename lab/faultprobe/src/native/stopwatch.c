/*
 * Readings of the fault counters that Python code can take without a fault of their own: they go
 * into memory that was written to when the stopwatch was made, and no object is made for them.
 */
#include "native.h"

#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Readings there is room for at first; more room is made as it is needed. */
enum { FIRST_ROOM = 64 };

struct stamp {
    struct reading counts;
    long long time_ns;
};

struct stopwatch {
    PyObject_HEAD int who;
    long thread; /* whose counters they are, when they are one thread's */
    size_t taken;
    size_t room;
    struct stamp *stamps;
};

static PyObject *stopwatch_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    int who;
    struct stopwatch *watch;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);

    if (keywords != NULL && PyDict_Size(keywords) != 0) {
        PyErr_SetString(PyExc_TypeError, "Stopwatch takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "i:Stopwatch", &who))
        return NULL;
    watch = (struct stopwatch *)allocate(type, 0);
    if (watch == NULL)
        return NULL;
    watch->who = who;
    watch->thread = 0;
    watch->taken = 0;
    watch->room = FIRST_ROOM;
    watch->stamps = PyMem_Malloc(FIRST_ROOM * sizeof *watch->stamps);
    if (watch->stamps == NULL) {
        Py_DECREF(watch);
        return PyErr_NoMemory();
    }
    /* Written to, not only reserved; not with zeroes, or a compiler might ask for zeroed memory. */
    memset(watch->stamps, 0xff, FIRST_ROOM * sizeof *watch->stamps);
    return (PyObject *)watch;
}

static void stopwatch_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyMem_Free(((struct stopwatch *)self)->stamps);
    release(self);
    Py_DECREF(type);
}

/* Doubles the room. Before the reading, so that what it costs is in the phase that ends. */
static int stopwatch_grow(struct stopwatch *watch)
{
    struct stamp *stamps = PyMem_Realloc(watch->stamps, 2 * watch->room * sizeof *stamps);

    if (stamps == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(stamps + watch->room, 0xff, watch->room * sizeof *stamps);
    watch->stamps = stamps;
    watch->room *= 2;
    return 0;
}

/* take(): one more reading. Raises RuntimeError in another thread than the first, if that matters.
 */
static PyObject *stopwatch_take(PyObject *self, PyObject *unused)
{
    struct stopwatch *watch = (struct stopwatch *)self;
    struct stamp *stamp;
    struct timespec now;
    long thread;

    (void)unused;
    if (watch->who == RUSAGE_THREAD) {
        thread = (long)syscall(SYS_gettid);
        if (watch->taken == 0)
            watch->thread = thread;
        if (watch->thread != thread) {
            PyErr_SetString(PyExc_RuntimeError,
                            "the block was entered by another thread, whose faults it counts");
            return NULL;
        }
    }
    if (watch->taken == watch->room && stopwatch_grow(watch) != 0)
        return NULL;
    stamp = &watch->stamps[watch->taken];
    if (take_reading(watch->who, &stamp->counts) != 0 || clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    stamp->time_ns = (long long)now.tv_sec * 1000000000LL + (long long)now.tv_nsec;
    watch->taken++;
    Py_RETURN_NONE;
}

/* clear(): forgets all readings; their memory stays. */
static PyObject *stopwatch_clear(PyObject *self, PyObject *unused)
{
    (void)unused;
    ((struct stopwatch *)self)->taken = 0;
    Py_RETURN_NONE;
}

/* readings() -> [(minor, major, nanoseconds of CLOCK_MONOTONIC), ...] */
static PyObject *stopwatch_readings(PyObject *self, PyObject *unused)
{
    struct stopwatch *watch = (struct stopwatch *)self;
    PyObject *list = PyList_New((Py_ssize_t)watch->taken);

    (void)unused;
    if (list == NULL)
        return NULL;
    for (size_t at = 0; at < watch->taken; at++) {
        const struct stamp *stamp = &watch->stamps[at];
        PyObject *reading =
            Py_BuildValue("(llL)", stamp->counts.minor, stamp->counts.major, stamp->time_ns);

        if (reading == NULL || PyList_SetItem(list, (Py_ssize_t)at, reading) != 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static PyMethodDef stopwatch_methods[] = {
    {"take", stopwatch_take, METH_NOARGS, "take(): one more reading"},
    {"clear", stopwatch_clear, METH_NOARGS, "clear(): forgets all readings"},
    {"readings", stopwatch_readings, METH_NOARGS,
     "readings() -> list of (minor, major, nanoseconds)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot stopwatch_slots[] = {
    {Py_tp_new, (void *)stopwatch_new},
    {Py_tp_dealloc, (void *)stopwatch_dealloc},
    {Py_tp_methods, stopwatch_methods},
    {Py_tp_doc, (void *)"Stopwatch(who): readings that cost no fault"},
    {0, NULL},
};

static PyType_Spec stopwatch_spec = {
    .name = "faultprobe._native.Stopwatch",
    .basicsize = sizeof(struct stopwatch),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = stopwatch_slots,
};

int stopwatch_add_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&stopwatch_spec);

    if (type == NULL)
        return -1;
    if (PyModule_AddObject(module, "Stopwatch", type) < 0) {
        Py_DECREF(type);
        return -1;
    }
    return 0;
}
