/*
 * Page states as run-length encoded text (runs.h): writing it, and the few questions that would
 * otherwise be loops over pages in Python.
 */
#include "native.h" /* first: Python.h sets macros that the libc looks at */

#include "runs.h"

#include <stdlib.h>
#include <string.h>

/* Digits of 2^64, a mark. */
enum { LONGEST_RUN = 21, FIRST_CAPACITY = 64 };

static void runs_close(struct runs *runs)
{
    char digits[LONGEST_RUN];
    size_t at = sizeof digits;
    uint64_t left = runs->count;

    if (runs->count == 0 || runs->failed)
        return;
    digits[--at] = runs->mark;
    for (; runs->count > 1 && left > 0; left /= 10)
        digits[--at] = (char)('0' + left % 10);
    if (runs->length + sizeof digits - at > runs->capacity) {
        size_t capacity = runs->capacity ? runs->capacity + runs->capacity / 2 : FIRST_CAPACITY;
        char *text = realloc(runs->text, capacity);

        if (text == NULL) {
            runs->failed = 1;
            return;
        }
        runs->text = text;
        runs->capacity = capacity;
    }
    memcpy(runs->text + runs->length, digits + at, sizeof digits - at);
    runs->length += sizeof digits - at;
    runs->count = 0;
}

/* Appends pages; neighbours of one mark become one run. */
void runs_add(struct runs *runs, uint64_t count, char mark)
{
    if (count == 0)
        return;
    if (mark != runs->mark) {
        runs_close(runs);
        runs->mark = mark;
    }
    runs->count += count;
}

/* Writes the open run. Returns 0, or -1 when memory ran out at any time. */
int runs_finish(struct runs *runs)
{
    runs_close(runs);
    return runs->failed ? -1 : 0;
}

void runs_free(struct runs *runs)
{
    free(runs->text);
    runs->text = NULL;
}

/* A position in a text of runs: `count` pages of `mark` are ahead. */
struct reader {
    const unsigned char *at;
    const unsigned char *end;
    uint64_t count;
    char mark;
};

/* The next run; 1 when there is one, 0 at the end, -1 (ValueError) when the text is none of ours.
 */
static int next_run(struct reader *reader)
{
    uint64_t count = 0;
    int has_digits = 0;

    if (reader->at == reader->end)
        return 0;
    for (; reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9'; reader->at++) {
        if (count > (UINT64_MAX - 9) / 10)
            break;
        count = count * 10 + (uint64_t)(*reader->at - '0');
        has_digits = 1;
    }
    if (reader->at == reader->end || (*reader->at >= '0' && *reader->at <= '9') ||
        *reader->at <= ' ' || *reader->at > '~' || (has_digits && count == 0)) {
        PyErr_SetString(PyExc_ValueError, "not a text of page runs");
        return -1;
    }
    reader->count = has_digits ? count : 1;
    reader->mark = (char)*reader->at++;
    return 1;
}

static PyObject *finished(struct runs *runs)
{
    PyObject *answer = runs_finish(runs) == 0
                           ? PyBytes_FromStringAndSize(runs->text, (Py_ssize_t)runs->length)
                           : PyErr_NoMemory();

    runs_free(runs);
    return answer;
}

/* translate_runs(runs, table) -> the runs with each mark exchanged (256 bytes), merged anew. */
PyObject *translate_runs(PyObject *module, PyObject *args)
{
    struct reader reader = {0};
    struct runs made = {0};
    const char *table;
    Py_ssize_t length, table_length;
    int more;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#y#:translate_runs", &reader.at, &length, &table, &table_length))
        return NULL;
    if (table_length != 256) {
        PyErr_SetString(PyExc_ValueError, "the table must have 256 bytes");
        return NULL;
    }
    reader.end = reader.at + length;
    while ((more = next_run(&reader)) > 0)
        runs_add(&made, reader.count, table[(unsigned char)reader.mark]);
    if (more < 0) {
        runs_free(&made);
        return NULL;
    }
    return finished(&made);
}

/* slice_runs(runs, first, count) -> the runs of those pages; fewer where the text ends before. */
PyObject *slice_runs(PyObject *module, PyObject *args)
{
    struct reader reader = {0};
    struct runs made = {0};
    unsigned long long first, count;
    Py_ssize_t length;
    int more = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#KK:slice_runs", &reader.at, &length, &first, &count))
        return NULL;
    reader.end = reader.at + length;
    while (count > 0 && (more = next_run(&reader)) > 0) {
        uint64_t skipped = reader.count < first ? reader.count : first;
        uint64_t taken = reader.count - skipped < count ? reader.count - skipped : count;

        first -= skipped;
        count -= taken;
        runs_add(&made, taken, reader.mark);
    }
    if (more < 0) {
        runs_free(&made);
        return NULL;
    }
    return finished(&made);
}

/*
 * tally_runs(runs, marks, pages_per_cell) -> for each cell, how many pages have each of the marks:
 * native uint64, cell by cell, in the order of `marks`. The last cell may be short; pages of other
 * marks are in no count. 0 pages per cell: one cell for all.
 */
PyObject *tally_runs(PyObject *module, PyObject *args)
{
    struct reader reader = {0};
    const char *marks;
    Py_ssize_t length, kinds;
    unsigned long long size;
    uint64_t *cells = NULL, total = 0, cell_count, at = 0;
    const unsigned char *text;
    PyObject *answer;
    int more;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#y#K:tally_runs", &text, &length, &marks, &kinds, &size))
        return NULL;
    reader.at = text;
    reader.end = text + length;
    while ((more = next_run(&reader)) > 0)
        total += reader.count;
    if (more < 0)
        return NULL;
    size = size ? size : total + !total;
    cell_count = total / size + (total % size != 0);
    if (cell_count + 1 > SIZE_MAX / sizeof *cells / (size_t)(kinds + 1))
        return PyErr_NoMemory();
    cells = calloc((size_t)cell_count * (size_t)kinds + 1, sizeof *cells);
    if (cells == NULL)
        return PyErr_NoMemory();
    reader.at = text;
    while (next_run(&reader) > 0) {
        const char *kind = memchr(marks, reader.mark, (size_t)kinds);

        while (reader.count > 0) {
            uint64_t room = size - at % size;
            uint64_t taken = reader.count < room ? reader.count : room;

            if (kind != NULL)
                cells[at / size * (uint64_t)kinds + (uint64_t)(kind - marks)] += taken;
            at += taken;
            reader.count -= taken;
        }
    }
    answer = PyBytes_FromStringAndSize((const char *)cells,
                                       (Py_ssize_t)(cell_count * (uint64_t)kinds * sizeof *cells));
    free(cells);
    return answer;
}

/* compare_runs(one, other) -> [(first page, pages, mark before, mark after)] where they differ. */
PyObject *compare_runs(PyObject *module, PyObject *args)
{
    struct reader one = {0}, other = {0};
    Py_ssize_t length_one, length_other;
    uint64_t page = 0, pages = 0;
    char before = 0, after = 0;
    PyObject *answer;

    (void)module;
    if (!PyArg_ParseTuple(args, "y#y#:compare_runs", &one.at, &length_one, &other.at,
                          &length_other))
        return NULL;
    one.end = one.at + length_one;
    other.end = other.at + length_other;
    answer = PyList_New(0);
    while (answer != NULL) {
        int has_one = one.count > 0 ? 1 : next_run(&one);
        int has_other = other.count > 0 ? 1 : next_run(&other);
        int is_end = has_one <= 0 || has_other <= 0;
        uint64_t taken = one.count < other.count ? one.count : other.count;

        if (has_one < 0 || has_other < 0)
            goto failed;
        if (is_end && has_one != has_other) {
            PyErr_SetString(PyExc_ValueError, "the two runs are of different length");
            goto failed;
        }
        if (pages > 0 && (is_end || one.mark != before || other.mark != after)) {
            PyObject *item = Py_BuildValue("(KKCC)", (unsigned long long)(page - pages),
                                           (unsigned long long)pages, (int)before, (int)after);
            int refused = item == NULL || PyList_Append(answer, item) != 0;

            Py_XDECREF(item);
            if (refused)
                goto failed;
            pages = 0;
        }
        if (is_end)
            return answer;
        if (one.mark != other.mark) {
            before = one.mark;
            after = other.mark;
            pages += taken;
        }
        page += taken;
        one.count -= taken;
        other.count -= taken;
    }
    return answer;
failed:
    Py_XDECREF(answer);
    return NULL;
}
