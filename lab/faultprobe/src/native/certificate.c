/*
 * The certificate's measurements: that a reading causes no fault, and what it costs beside a bare
 * call of getrusage.
 */
#include "native.h"

#include <time.h>

PyObject *idle_rise(PyObject *module, PyObject *args)
{
    static struct reading first, last;
    int who, count;

    (void)module;
    if (!PyArg_ParseTuple(args, "ii:idle_rise", &who, &count))
        return NULL;
    if (count < 2) {
        PyErr_SetString(PyExc_ValueError, "an idle rise takes at least 2 readings");
        return NULL;
    }
    /* One warm-up pair: both slots written, getrusage bound, its text mapped. */
    if (take_reading(who, &last) != 0 || take_reading(who, &first) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (take_reading(who, &first) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    for (int taken = 1; taken < count; taken++)
        take_reading(who, &last);
    return Py_BuildValue("(ll)", last.minor - first.minor, last.major - first.major);
}

static double nanoseconds_between(const struct timespec *start, const struct timespec *end)
{
    return (double)(end->tv_sec - start->tv_sec) * 1e9 + (double)(end->tv_nsec - start->tv_nsec);
}

/* Nanoseconds for each of `count` readings with their storage, as the experiments take them. */
static double time_readings(int who, int count)
{
    static struct reading slot;
    struct timespec start, end;

    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int done = 0; done < count; done++)
        take_reading(who, &slot);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return nanoseconds_between(&start, &end) / count;
}

/* The same for getrusage alone: what no reading can be cheaper than. */
static double time_bare_calls(int who, int count)
{
    struct rusage usage;
    struct timespec start, end;

    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int done = 0; done < count; done++)
        getrusage(who, &usage);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return nanoseconds_between(&start, &end) / count;
}

/*
 * reading_costs(who, batches, count) -> (readings, bare): nanoseconds per call, one number for each
 * batch. Batches of the two kinds alternate, so that a change of clock frequency hits both.
 */
PyObject *reading_costs(PyObject *module, PyObject *args)
{
    int who, batches, count;
    struct rusage usage;
    PyObject *readings, *bare;

    (void)module;
    if (!PyArg_ParseTuple(args, "iii:reading_costs", &who, &batches, &count))
        return NULL;
    if (batches < 1 || count < 1) {
        PyErr_SetString(PyExc_ValueError, "batches and count must be at least 1");
        return NULL;
    }
    if (getrusage(who, &usage) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    readings = PyList_New(0);
    bare = PyList_New(0);
    if (readings == NULL || bare == NULL)
        goto failed;
    for (int done = 0; done < batches; done++) {
        double cost[2] = {time_readings(who, count), time_bare_calls(who, count)};
        PyObject *lists[2] = {readings, bare};

        for (int kind = 0; kind < 2; kind++) {
            PyObject *number = PyFloat_FromDouble(cost[kind]);
            int failed = number == NULL || PyList_Append(lists[kind], number) != 0;

            Py_XDECREF(number);
            if (failed)
                goto failed;
        }
    }
    return Py_BuildValue("(NN)", readings, bare);

failed:
    Py_XDECREF(readings);
    Py_XDECREF(bare);
    return NULL;
}
