/* The counters as Python sees them: a named tuple (minor, major), in faults. */
#include "native.h"

#include <time.h>

static PyStructSequence_Field counters_fields[] = {
    {"minor", "faults served without reading a device (ru_minflt)"},
    {"major", "faults that had to wait for a device or were tried before (ru_majflt)"},
    {NULL, NULL},
};

static PyStructSequence_Desc counters_desc = {
    .name = "faultprobe.Counters",
    .doc = "Page faults so far, as getrusage(2) counts them.",
    .fields = counters_fields,
    .n_in_sequence = 2,
};

int counters_add_type(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    state->counters_type = PyStructSequence_NewType(&counters_desc);
    if (state->counters_type == NULL)
        return -1;
    Py_INCREF(state->counters_type);
    if (PyModule_AddObject(module, "Counters", (PyObject *)state->counters_type) < 0) {
        Py_DECREF(state->counters_type);
        return -1;
    }
    return 0;
}

static PyObject *read_counters(PyObject *module, int who)
{
    struct module_state *state = PyModule_GetState(module);
    struct reading now;
    PyObject *counters, *minor, *major;

    /* The reading comes first: nothing that Python allocates for the answer is in it. */
    if (take_reading(who, &now) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    counters = PyStructSequence_New(state->counters_type);
    minor = PyLong_FromLong(now.minor);
    major = PyLong_FromLong(now.major);
    if (counters == NULL || minor == NULL || major == NULL) {
        Py_XDECREF(counters);
        Py_XDECREF(minor);
        Py_XDECREF(major);
        return NULL;
    }
    PyStructSequence_SetItem(counters, 0, minor);
    PyStructSequence_SetItem(counters, 1, major);
    return counters;
}

PyObject *counters_self(PyObject *module, PyObject *unused)
{
    (void)unused;
    return read_counters(module, RUSAGE_SELF);
}

PyObject *counters_thread(PyObject *module, PyObject *unused)
{
    (void)unused;
    return read_counters(module, RUSAGE_THREAD);
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
