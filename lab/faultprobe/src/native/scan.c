/*
 * The state of every page of a stretch of an address space, run-length encoded (runs.h): by the
 * ioctl PAGEMAP_SCAN (Linux 6.7), which skips what has no page tables and answers in runs itself,
 * or by reading /proc/PID/pagemap in large blocks. Documentation/admin-guide/mm/pagemap.rst has
 * both.
 *
 * The interpreter's lock is let go meanwhile, so that a Ctrl-C and other threads have their turn.
 */
#include "native.h"
#include "runs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of <linux/fs.h>, which is older than the kernel on many a machine that compiles this. */
struct page_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

struct pm_scan_arg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};

#define SCAN_PAGEMAP _IOWR('f', 16, struct pm_scan_arg)
enum {
    IS_FILE = 1 << 2,
    IS_PRESENT = 1 << 3,
    IS_SWAPPED = 1 << 4,
    IS_ZERO = 1 << 5,
    IS_HUGE = 1 << 6,
    IS_SOFT_DIRTY = 1 << 7, /* Linux 6.7 */
    IS_GUARD = 1 << 8,      /* Linux 6.15 */
};
enum { REGIONS = 4096, BLOCK_ENTRIES = 1 << 16 };

/* The bits of an entry of /proc/PID/pagemap. */
#define ENTRY_PRESENT (1ULL << 63)
#define ENTRY_SWAPPED (1ULL << 62)
#define ENTRY_FILE (1ULL << 61)
#define ENTRY_GUARD (1ULL << 58) /* Linux 6.15 */
#define ENTRY_EXCLUSIVE (1ULL << 56)
#define ENTRY_SOFT_DIRTY (1ULL << 55)
#define ENTRY_FRAME ((1ULL << 55) - 1)

/* The marks of model.py. UNSURE ones are this reader's: Python settles them by the mapping's sums.
 */
enum {
    ABSENT = '.',
    ZERO = 'z',
    ANONYMOUS = 'a',
    FILE_PAGE = 'f',
    SWAPPED = 's',
    GUARD = 'g',
    HUGE_ZERO = 'y',
    HUGE_ANONYMOUS = 'h',
    HUGE_FILE = 'b',
    UNSURE = 'q',
    HUGE_UNSURE = 'r',
};

static char upper_if(char mark, int is_upper)
{
    return is_upper && mark >= 'a' ? (char)(mark - 'a' + 'A') : mark;
}

static char mark_of(uint64_t categories)
{
    int is_huge = (categories & IS_HUGE) != 0;
    char mark = is_huge ? HUGE_ANONYMOUS : ANONYMOUS;

    if (categories & IS_GUARD)
        return GUARD;
    if (categories & IS_SWAPPED)
        mark = SWAPPED;
    else if (categories & IS_ZERO)
        mark = is_huge ? HUGE_ZERO : ZERO;
    else if (categories & IS_FILE)
        mark = is_huge ? HUGE_FILE : FILE_PAGE;
    return upper_if(mark, (categories & IS_SOFT_DIRTY) != 0);
}

static int scan_once(int file, struct pm_scan_arg *arg)
{
    int got;

    Py_BEGIN_ALLOW_THREADS got = ioctl(file, SCAN_PAGEMAP, arg);
    Py_END_ALLOW_THREADS return got;
}

/*
 * probe_scan(pagemap) -> the categories that PAGEMAP_SCAN of this kernel can tell, 0 without it.
 * Asked of the first page, which is never mapped: the question is whether the kernel knows the
 * words.
 */
PyObject *probe_scan(PyObject *module, PyObject *args)
{
    const uint64_t known = IS_FILE | IS_PRESENT | IS_SWAPPED | IS_ZERO | IS_HUGE;
    const uint64_t tries[] = {known | IS_SOFT_DIRTY | IS_GUARD, known | IS_SOFT_DIRTY, known};
    int file;

    (void)module;
    if (!PyArg_ParseTuple(args, "i:probe_scan", &file))
        return NULL;
    for (size_t at = 0; at < sizeof tries / sizeof *tries; at++) {
        struct page_region region;
        struct pm_scan_arg arg = {
            .size = sizeof arg,
            .end = (uint64_t)sysconf(_SC_PAGESIZE),
            .vec = (uint64_t)(uintptr_t)&region,
            .vec_len = 1,
            .category_anyof_mask = IS_PRESENT | IS_SWAPPED,
            .return_mask = tries[at],
        };

        if (scan_once(file, &arg) >= 0)
            return PyLong_FromUnsignedLongLong(tries[at]);
    }
    return PyLong_FromLong(0);
}

/* Whatever ended a loop over the kernel's answers: the runs as bytes, or the error. */
static PyObject *answer_of(struct runs *runs, void *buffer, int is_error)
{
    PyObject *answer = NULL;

    free(buffer);
    if (!is_error) {
        if (runs_finish(runs) == 0)
            answer = PyBytes_FromStringAndSize(runs->text, (Py_ssize_t)runs->length);
        else
            PyErr_NoMemory();
    }
    runs_free(runs);
    return answer;
}

/*
 * scan_pages(pagemap, start, end, categories) -> runs
 * `categories` are those to be told. Without IS_FILE the kernel need not look at each page's own
 * structure, which makes it several times faster: not asked where the mapping decides it.
 */
PyObject *scan_pages(PyObject *module, PyObject *args)
{
    struct runs runs = {0};
    struct page_region *regions;
    unsigned long long start, end, categories;
    uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE), done;
    int file, is_error = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "iKKK:scan_pages", &file, &start, &end, &categories))
        return NULL;
    regions = malloc(REGIONS * sizeof *regions);
    if (regions == NULL)
        return PyErr_NoMemory();
    done = start;
    while (done < end && !is_error) {
        struct pm_scan_arg arg = {
            .size = sizeof arg,
            .start = done,
            .end = end,
            .vec = (uint64_t)(uintptr_t)regions,
            .vec_len = REGIONS,
            .category_anyof_mask = IS_PRESENT | IS_SWAPPED,
            .return_mask = categories,
        };
        uint64_t from = done;
        int got = scan_once(file, &arg);

        if (got < 0 && errno == EFAULT) /* above what a process owns, as [vsyscall] */
            break;
        if (got < 0) {
            is_error = errno != EINTR || PyErr_CheckSignals() != 0;
            if (is_error && !PyErr_Occurred())
                PyErr_SetFromErrno(PyExc_OSError);
            continue;
        }
        for (int at = 0; at < got; at++) {
            runs_add(&runs, (regions[at].start - from) / page_size, ABSENT);
            runs_add(&runs, (regions[at].end - regions[at].start) / page_size,
                     mark_of(regions[at].categories));
            from = regions[at].end;
        }
        /* walk_end is where the walk stopped for want of room, and everything before it was told.
         */
        done = arg.walk_end > done ? arg.walk_end : end;
        runs_add(&runs, (done - from) / page_size, ABSENT);
        is_error = PyErr_CheckSignals() != 0;
    }
    if (done < end)
        runs_add(&runs, (end - done) / page_size, ABSENT);
    return answer_of(&runs, regions, is_error);
}

/* What the reader of entries must know: which frames are zero pages, how large a huge page is. */
struct knowledge {
    const uint64_t *zero_frames;
    size_t zero_count;
    uint64_t huge_zero_frame; /* 0: none known */
    uint64_t huge_pages;      /* pages of a huge page, 0: do not look for any */
    int sees_frames;
    int is_anonymous; /* the mapping can hold no file's page */
};

static char mark_of_entry(uint64_t entry, const struct knowledge *known)
{
    uint64_t frame = entry & ENTRY_FRAME;
    char mark = ANONYMOUS;

    if (entry & ENTRY_GUARD)
        return GUARD;
    if (!(entry & (ENTRY_PRESENT | ENTRY_SWAPPED)))
        return ABSENT;
    if (entry & ENTRY_SWAPPED)
        mark = SWAPPED;
    else if (entry & ENTRY_FILE)
        mark = FILE_PAGE;
    else if (!known->sees_frames && !(entry & ENTRY_EXCLUSIVE))
        mark = UNSURE;
    else
        for (size_t at = 0; at < known->zero_count; at++)
            if (frame == known->zero_frames[at])
                mark = ZERO;
    return upper_if(mark, (entry & ENTRY_SOFT_DIRTY) != 0);
}

/*
 * The mark of `pages` entries that one huge page may map, 0 when none can: all present, all of one
 * sort, equally soft-dirty, and in one aligned stretch of memory where frames are told.
 */
static char huge_mark(const uint64_t *entries, const struct knowledge *known)
{
    const uint64_t same =
        ENTRY_PRESENT | ENTRY_SWAPPED | ENTRY_FILE | ENTRY_SOFT_DIRTY | ENTRY_GUARD;
    uint64_t frame = entries[0] & ENTRY_FRAME, all = entries[0];
    char mark = HUGE_ANONYMOUS;

    if (!(entries[0] & ENTRY_PRESENT) || (known->sees_frames && frame % known->huge_pages != 0))
        return 0;
    for (uint64_t at = 1; at < known->huge_pages; at++) {
        if ((entries[at] ^ entries[0]) & same)
            return 0;
        if (known->sees_frames && (entries[at] & ENTRY_FRAME) != frame + at)
            return 0;
        all |= entries[at];
    }
    /* Nobody owns the huge zero page, so it looks like a file's (Linux 6.18, pagemap_pmd_range). */
    if ((known->sees_frames && known->huge_zero_frame && frame == known->huge_zero_frame) ||
        (known->is_anonymous && entries[0] & ENTRY_FILE))
        mark = HUGE_ZERO;
    else if (entries[0] & ENTRY_FILE)
        mark = HUGE_FILE;
    else if (!known->sees_frames && !(all & ENTRY_EXCLUSIVE))
        mark = HUGE_UNSURE;
    return upper_if(mark, (entries[0] & ENTRY_SOFT_DIRTY) != 0);
}

static void add_entries(struct runs *runs, const uint64_t *entries, size_t count,
                        uint64_t first_page, const struct knowledge *known)
{
    for (size_t at = 0; at < count;) {
        int may_be_huge = known->huge_pages && (first_page + at) % known->huge_pages == 0 &&
                          count - at >= known->huge_pages;
        char mark = may_be_huge ? huge_mark(entries + at, known) : 0;
        size_t pages = mark ? (size_t)known->huge_pages : 1;

        runs_add(runs, pages, mark ? mark : mark_of_entry(entries[at], known));
        at += pages;
    }
}

static ssize_t read_block(int file, uint64_t *entries, size_t count, uint64_t page)
{
    ssize_t got;

    Py_BEGIN_ALLOW_THREADS got =
        pread(file, entries, count * sizeof *entries, (off_t)(page * sizeof *entries));
    Py_END_ALLOW_THREADS return got;
}

/*
 * read_pages(pagemap, start, end, zero_frames, huge_zero_frame, huge_pages, sees_frames,
 *            is_anonymous) -> runs
 * From /proc/PID/pagemap. `zero_frames`: native uint64 one behind the other. Every huge mark is a
 * possibility only: an entry does not tell how its page is mapped.
 */
PyObject *read_pages(PyObject *module, PyObject *args)
{
    struct runs runs = {0};
    struct knowledge known = {0};
    const char *frames;
    uint64_t *entries, *zero_frames, page, end_page;
    unsigned long long start, end, huge_zero_frame, huge_pages;
    uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);
    Py_ssize_t frames_bytes;
    int file, is_error = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "iKKy#KKpp:read_pages", &file, &start, &end, &frames, &frames_bytes,
                          &huge_zero_frame, &huge_pages, &known.sees_frames, &known.is_anonymous))
        return NULL;
    entries = malloc(BLOCK_ENTRIES * sizeof *entries + (size_t)frames_bytes);
    if (entries == NULL)
        return PyErr_NoMemory();
    /* Behind the block: the frames come as bytes, which need not be aligned. */
    zero_frames = memcpy(entries + BLOCK_ENTRIES, frames, (size_t)frames_bytes);
    known.zero_frames = zero_frames;
    known.zero_count = (size_t)frames_bytes / sizeof *zero_frames;
    known.huge_zero_frame = huge_zero_frame;
    known.huge_pages = huge_pages <= BLOCK_ENTRIES ? huge_pages : 0;
    page = start / page_size;
    end_page = end / page_size;
    while (page < end_page && !is_error) {
        /* Blocks end where a huge page may end, so that none is cut. */
        uint64_t block = BLOCK_ENTRIES - page % BLOCK_ENTRIES;
        size_t count = (size_t)(end_page - page < block ? end_page - page : block);
        ssize_t got = read_block(file, entries, count, page);

        if (got < 0) {
            is_error = errno != EINTR || PyErr_CheckSignals() != 0;
            if (is_error && !PyErr_Occurred())
                PyErr_SetFromErrno(PyExc_OSError);
            continue;
        }
        if (got < (ssize_t)sizeof *entries) /* beyond the address space, or the process is gone */
            break;
        count = (size_t)got / sizeof *entries;
        add_entries(&runs, entries, count, page, &known);
        page += count;
        is_error = PyErr_CheckSignals() != 0;
    }
    runs_add(&runs, end_page - page, ABSENT);
    return answer_of(&runs, entries, is_error);
}

/*
 * huge_zero_frame(huge_bytes) -> the first frame of the huge zero page, 0 when it is not ours to
 * know or there is none. Fresh memory that may be huge is read once; if one aligned stretch of
 * frames came, it is the huge zero page.
 */
PyObject *huge_zero_frame(PyObject *module, PyObject *args)
{
    unsigned long long huge_bytes;
    uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE), ends[2] = {0}, frame = 0;
    char *memory;
    int file = -1;

    (void)module;
    if (!PyArg_ParseTuple(args, "K:huge_zero_frame", &huge_bytes))
        return NULL;
    if (huge_bytes > SIZE_MAX / 2)
        return PyLong_FromLong(0);
    memory = mmap(NULL, (size_t)huge_bytes * 2, PROT_READ,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED) {
        uint64_t first = ((uint64_t)(uintptr_t)memory + huge_bytes - 1) / huge_bytes * huge_bytes;
        uint64_t last = first + huge_bytes - page_size;

        (void)madvise(memory, (size_t)huge_bytes * 2, MADV_HUGEPAGE);
        (void)*(volatile char *)(uintptr_t)first;
        file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        if (file >= 0 &&
            pread(file, &ends[0], sizeof *ends, (off_t)(first / page_size * sizeof *ends)) > 0 &&
            pread(file, &ends[1], sizeof *ends, (off_t)(last / page_size * sizeof *ends)) > 0 &&
            ends[1] & ENTRY_PRESENT)
            frame = ends[0] & ENTRY_FRAME;
        if (file >= 0)
            close(file);
        munmap(memory, (size_t)huge_bytes * 2);
    }
    return PyLong_FromUnsignedLongLong(frame);
}
