/*
 * The experiment lazy-malloc: malloc, memset, memset again, with a reading of the fault counters
 * behind each step. The measured section is C from end to end and touches nothing for the first
 * time but what is measured.
 *
 * Warmed beforehand, and why:
 *   - the readings' memory and the pagemap buffers: written to, so that storing an answer costs no
 *     fault (a page that was only read would still cost one for the copy);
 *   - the stack below this frame: malloc and memset may run deeper than anything before them;
 *   - getrusage, clock_gettime, pread, and write and read where maps are asked for: called twice
 * each, so that lazy binding (first call) and their text pages (second call, through the bound
 * slot) are behind us. Not warmed, on purpose: malloc and memset. A malloc of the measured size
 * would change libc's state (glibc raises its mmap threshold when such a chunk is freed, musl keeps
 * the group), and the first touch of their text is part of what a fresh process pays. The
 * interpreter has called both long before, so in practice their text is mapped; the addresses are
 * reported for those who doubt. Because libc remembers, the unit of measurement is a fresh process.
 */
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/*
 * libc's own functions, through pointers the compiler must load each time. An expanded memset is
 * another experiment: on s390x it reads each new page before it writes there and so faults twice.
 */
static void *(*volatile libc_malloc)(size_t) = malloc;
static void *(*volatile libc_memset)(void *, int, size_t) = memset;
static void (*volatile libc_free)(void *) = free;

enum { AT_START, AFTER_MALLOC, BEFORE_MEMSET, AFTER_MEMSET, AFTER_SECOND_MEMSET, READINGS };

/* One byte for each page of the buffer; the bits are this file's, decoded in experiment.py. */
enum { PAGE_PRESENT = 1, PAGE_SWAPPED = 2, PAGE_FILE_OR_SHARED = 4, PAGE_EXCLUSIVE = 8 };

#define PAGEMAP_BATCH 512
#define STACK_TO_TOUCH (64 * 1024)

static volatile struct reading readings[READINGS];
static volatile struct timespec stamps[READINGS]; /* CLOCK_MONOTONIC, the clock of perf's records */
static void *volatile program_break;              /* the end of the heap while the buffer lived */
static uint64_t pagemap_entries[PAGEMAP_BATCH];

/* Where the states of the buffer's pages go: two arrays between two guard pages. */
struct page_states {
    unsigned char *mapping;
    size_t mapping_bytes;
    unsigned char *after_malloc;
    unsigned char *after_memset;
    size_t capacity;
    int pagemap; /* descriptor, or -1 when the kernel does not let us look */
};

/*
 * The ends of the pipes to the process that takes memory maps of this one (memorymap/watcher.py),
 * -1 when none is wanted. It is asked with a byte and answers with a byte; this process only waits.
 * That it is about to begin is said too: whoever looks on need not have seen what is warmed.
 */
struct watcher {
    int requests;
    int answers;
};

enum { TAKE_A_MAP = 't', DO_NOTHING = 'n', ABOUT_TO_BEGIN = 'b', DONE = '+' };
static volatile char question, answer;

static int ask(const struct watcher *watcher, char what)
{
    if (watcher->requests < 0)
        return 0;
    question = what;
    if (write(watcher->requests, (const void *)&question, 1) != 1 ||
        read(watcher->answers, (void *)&answer, 1) != 1)
        return -1;
    if (answer == DONE)
        return 0;
    errno = EACCES;
    return -1;
}

/* A reading and when it was taken: faults recorded until then are in it. */
static int take_stamped_reading(int who, int at)
{
    return take_reading(who, (struct reading *)&readings[at]) |
           clock_gettime(CLOCK_MONOTONIC, (struct timespec *)&stamps[at]);
}

static long long nanoseconds(int at)
{
    return (long long)stamps[at].tv_sec * 1000000000LL + (long long)stamps[at].tv_nsec;
}

static __attribute__((noinline)) void touch_stack(long page_size)
{
    volatile unsigned char below[STACK_TO_TOUCH];

    for (size_t at = 0; at < sizeof below; at += (size_t)page_size)
        below[at] = 1;
    below[sizeof below - 1] = 1;
}

/*
 * The states' memory comes from mmap and not from malloc, which is being measured. The guard pages
 * keep the kernel from merging it with the mapping that malloc is about to make.
 */
static int page_states_open(struct page_states *states, size_t size, size_t page_size)
{
    size_t capacity = size / page_size + 2;
    size_t body = (2 * capacity + page_size - 1) / page_size * page_size;

    states->capacity = capacity;
    states->mapping_bytes = body + 2 * page_size;
    states->mapping =
        mmap(NULL, states->mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (states->mapping == MAP_FAILED)
        return -1;
    if (mprotect(states->mapping + page_size, body, PROT_READ | PROT_WRITE) != 0) {
        int saved = errno;
        munmap(states->mapping, states->mapping_bytes);
        errno = saved;
        return -1;
    }
    states->after_malloc = states->mapping + page_size;
    states->after_memset = states->after_malloc + capacity;
    for (size_t at = 0; at < body; at += page_size)
        ((volatile unsigned char *)states->after_malloc)[at] = 0;
    states->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return 0;
}

static void page_states_close(struct page_states *states)
{
    if (states->pagemap >= 0)
        close(states->pagemap);
    munmap(states->mapping, states->mapping_bytes);
}

/* Reads the states of `pages` pages from `first` on; on failure the descriptor becomes -1. */
static void look(struct page_states *states, uintptr_t first, size_t pages, unsigned char *into)
{
    for (size_t done = 0; done < pages && states->pagemap >= 0;) {
        size_t batch = pages - done < PAGEMAP_BATCH ? pages - done : PAGEMAP_BATCH;
        ssize_t got = pread(states->pagemap, pagemap_entries, batch * sizeof *pagemap_entries,
                            (off_t)((first + done) * sizeof *pagemap_entries));

        if (got < (ssize_t)sizeof *pagemap_entries) {
            close(states->pagemap);
            states->pagemap = -1;
            return;
        }
        batch = (size_t)got / sizeof *pagemap_entries;
        /* Bits of an entry: Documentation/admin-guide/mm/pagemap.rst. */
        for (size_t at = 0; at < batch; at++) {
            uint64_t entry = pagemap_entries[at];
            into[done + at] = (unsigned char)((entry >> 63 & 1 ? PAGE_PRESENT : 0) |
                                              (entry >> 62 & 1 ? PAGE_SWAPPED : 0) |
                                              (entry >> 61 & 1 ? PAGE_FILE_OR_SHARED : 0) |
                                              (entry >> 56 & 1 ? PAGE_EXCLUSIVE : 0));
        }
        done += batch;
    }
}

static size_t pages_spanned(uintptr_t address, size_t size, size_t page_size)
{
    return (address + size - 1) / page_size - address / page_size + 1;
}

/* The measured section. Returns the buffer, or NULL with errno set and nothing allocated. */
static __attribute__((noinline)) void *run_phases(int who, size_t size, int value, size_t page_size,
                                                  struct page_states *states,
                                                  const struct watcher *watcher)
{
    unsigned char *buffer;
    uintptr_t first;
    size_t pages;
    int failed = 0;

    failed |= ask(watcher, TAKE_A_MAP);
    failed |= take_stamped_reading(who, AT_START);
    buffer = libc_malloc(size);
    failed |= take_stamped_reading(who, AFTER_MALLOC);
    if (buffer == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    /* The look lies between two readings of its own: were it to fault, it would be in no phase. */
    first = (uintptr_t)buffer / page_size;
    pages = pages_spanned((uintptr_t)buffer, size, page_size);
    look(states, first, pages, states->after_malloc);
    failed |= ask(watcher, TAKE_A_MAP);
    failed |= take_stamped_reading(who, BEFORE_MEMSET);
    libc_memset(buffer, value, size);
    failed |= take_stamped_reading(who, AFTER_MEMSET);
    failed |= ask(watcher, TAKE_A_MAP);
    libc_memset(buffer, value, size);
    failed |= take_stamped_reading(who, AFTER_SECOND_MEMSET);
    look(states, first, pages, states->after_memset);
    failed |= ask(watcher, TAKE_A_MAP);
    if (failed) {
        int saved = errno;
        libc_free(buffer);
        errno = saved;
        return NULL;
    }
    return buffer;
}

static int warm_up(int who, size_t page_size, struct page_states *states,
                   const struct watcher *watcher)
{
    int failed = 0;

    touch_stack((long)page_size);
    for (int round = 0; round < 2; round++) {
        /* All slots, backwards, so that AT_START holds the latest of the warm-up readings. */
        for (int at = READINGS - 1; at >= 0; at--)
            take_stamped_reading(who, at);
        look(states, (uintptr_t)pagemap_entries / page_size, 1, states->after_malloc);
        failed |= ask(watcher, DO_NOTHING);
    }
    for (size_t at = 0; at < PAGEMAP_BATCH; at++)
        ((volatile uint64_t *)pagemap_entries)[at] = 0;
    return failed | ask(watcher, ABOUT_TO_BEGIN);
}

/* Function pointers fit uintptr_t on every platform Linux runs on; ISO C has no cast to say so. */
#define ADDRESS_OF(function) ((unsigned long long)(uintptr_t)(function))

PyObject *lazy_malloc(PyObject *module, PyObject *args)
{
    int who, value;
    Py_ssize_t size;
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    struct page_states states;
    struct watcher watcher = {-1, -1};
    unsigned char *buffer = NULL;
    PyObject *told;
    Py_ssize_t pages;

    (void)module;
    if (!PyArg_ParseTuple(args, "ini|ii:lazy_malloc", &who, &size, &value, &watcher.requests,
                          &watcher.answers))
        return NULL;
    if (size < 1) {
        PyErr_SetString(PyExc_ValueError, "size must be at least 1 byte");
        return NULL;
    }
    if (page_states_open(&states, (size_t)size, page_size) != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (warm_up(who, page_size, &states, &watcher) == 0)
        buffer = run_phases(who, (size_t)size, value, page_size, &states, &watcher);
    if (buffer == NULL) {
        int saved = errno;
        page_states_close(&states);
        errno = saved;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    program_break = sbrk(0);
    libc_free(buffer);
    pages = (Py_ssize_t)pages_spanned((uintptr_t)buffer, (size_t)size, page_size);
    told = Py_BuildValue(
        "{s:((ll)(ll)(ll)(ll)(ll)),s:(LLLLL),s:K,s:K,s:K,s:K,s:K,s:n,s:y#,s:y#}", "readings",
        readings[AT_START].minor, readings[AT_START].major, readings[AFTER_MALLOC].minor,
        readings[AFTER_MALLOC].major, readings[BEFORE_MEMSET].minor, readings[BEFORE_MEMSET].major,
        readings[AFTER_MEMSET].minor, readings[AFTER_MEMSET].major,
        readings[AFTER_SECOND_MEMSET].minor, readings[AFTER_SECOND_MEMSET].major, "stamps",
        nanoseconds(AT_START), nanoseconds(AFTER_MALLOC), nanoseconds(BEFORE_MEMSET),
        nanoseconds(AFTER_MEMSET), nanoseconds(AFTER_SECOND_MEMSET), "buffer", ADDRESS_OF(buffer),
        "program_break", ADDRESS_OF(program_break), "malloc", ADDRESS_OF(libc_malloc), "memset",
        ADDRESS_OF(libc_memset), "getrusage", ADDRESS_OF(getrusage), "pages", pages,
        "states_after_malloc", states.pagemap >= 0 ? (char *)states.after_malloc : NULL, pages,
        "states_after_memset", states.pagemap >= 0 ? (char *)states.after_memset : NULL, pages);
    page_states_close(&states);
    return told;
}
