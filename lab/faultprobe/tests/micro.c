/*
 * Micro-programs for the ledger: each does one thing to memory whose count and cause are known in
 * advance, in a region of its own that it names on standard output ("region START BYTES").
 * usage: micro CASE [FILE]      FILE: a cached file of 256 pages, for the cases that map one
 */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

enum { PAGES = 256, THREADS = 4, FORKS = 100, MAPPINGS = 10000 };

static size_t page;
static const char *file_name;
static char **arguments;
extern char **environ;

static void check(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static void name_region(volatile void *start, size_t bytes)
{
    printf("region %#lx %zu\n", (unsigned long)(uintptr_t)start, bytes);
    fflush(stdout);
}

/* A region between two guard pages, so that nothing merges with it. */
static volatile char *map(size_t bytes, int extra_flags)
{
    char *guarded = mmap(NULL, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *region;

    check(guarded != MAP_FAILED, "mmap");
    region =
        mmap(guarded + page, bytes, PROT_READ | PROT_WRITE,
             MAP_FIXED | MAP_ANONYMOUS | extra_flags | (extra_flags & MAP_SHARED ? 0 : MAP_PRIVATE),
             -1, 0);
    check(region != MAP_FAILED, "mmap");
    name_region(region, bytes);
    return region;
}

static volatile char *map_file(int flags)
{
    int descriptor = open(file_name, O_RDWR);
    char *region;

    check(descriptor >= 0, file_name);
    region = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, flags, descriptor, 0);
    check(region != MAP_FAILED, "mmap");
    name_region(region, PAGES * page);
    return region;
}

static void write_all(volatile char *region, size_t pages)
{
    for (size_t at = 0; at < pages; at++)
        region[at * page] = 1;
}

static void read_all(volatile char *region, size_t pages)
{
    for (size_t at = 0; at < pages; at++)
        (void)region[at * page];
}

static void wait_for(pid_t child)
{
    int status;

    check(child > 0, "fork");
    check(waitpid(child, &status, 0) == child && status == 0, "child");
}

static void zero_fill(void)
{
    write_all(map(PAGES * page, 0), PAGES);
}

static void read_then_write(void)
{
    volatile char *region = map(PAGES * page, 0);

    read_all(region, PAGES);
    write_all(region, PAGES);
}

static void populate(void)
{
    write_all(map(PAGES * page, MAP_POPULATE), PAGES);
}

static void lock(void)
{
    volatile char *region = map(PAGES * page, 0);

    check(mlock((void *)region, PAGES * page) == 0, "mlock");
    write_all(region, PAGES);
}

static void populate_write(void)
{
    volatile char *region = map(PAGES * page, 0);

    check(madvise((void *)region, PAGES * page, MADV_POPULATE_WRITE) == 0, "madvise");
    write_all(region, PAGES);
}

static void populate_read(void)
{
    volatile char *region = map(PAGES * page, 0);

    check(madvise((void *)region, PAGES * page, MADV_POPULATE_READ) == 0, "madvise");
    write_all(region, PAGES);
}

static void read_call(void)
{
    volatile char *region = map(PAGES * page, 0);
    int zeros = open("/dev/zero", O_RDONLY);

    check(zeros >= 0, "/dev/zero");
    check(read(zeros, (void *)region, PAGES * page) == (ssize_t)(PAGES * page), "read");
}

static void fork_child_writes(void)
{
    volatile char *region = map(PAGES * page, 0);
    pid_t child;

    write_all(region, PAGES);
    child = fork();
    if (child == 0) {
        write_all(region, PAGES);
        _exit(0);
    }
    wait_for(child);
    write_all(region, PAGES);
}

static void fork_parent_writes(void)
{
    volatile char *region = map(PAGES * page, 0);
    pid_t child;

    write_all(region, PAGES);
    child = fork();
    if (child == 0)
        _exit(0);
    wait_for(child);
    write_all(region, PAGES);
}

static void fork_child_reads(void)
{
    volatile char *region = map_file(MAP_PRIVATE);
    pid_t child;

    read_all(region, PAGES);
    child = fork();
    if (child == 0) {
        read_all(region, PAGES);
        _exit(0);
    }
    wait_for(child);
}

static void file_read(void)
{
    read_all(map_file(MAP_PRIVATE), PAGES);
}

static void file_write(void)
{
    write_all(map_file(MAP_PRIVATE), PAGES);
}

static void file_read_then_write(void)
{
    volatile char *region = map_file(MAP_PRIVATE);

    read_all(region, PAGES);
    write_all(region, PAGES);
}

static void shared_file_write(void)
{
    write_all(map_file(MAP_SHARED), PAGES);
}

static void shared_file_read(void)
{
    read_all(map_file(MAP_SHARED), PAGES);
}

static void shared_memory_write(void)
{
    write_all(map(PAGES * page, MAP_SHARED), PAGES);
}

/* Two aligned huge pages of 2 MiB each. */
static volatile char *map_huge(void)
{
    size_t huge = 2 << 20;
    char *start = mmap(NULL, 4 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *region = (char *)(((uintptr_t)start + huge - 1) / huge * huge);

    check(start != MAP_FAILED, "mmap");
    check(madvise(region, 2 * huge, MADV_HUGEPAGE) == 0, "madvise");
    name_region(region, 2 * huge);
    return region;
}

static void huge_write(void)
{
    write_all(map_huge(), (4 << 20) / page);
}

static void huge_read_then_write(void)
{
    volatile char *region = map_huge();

    read_all(region, (4 << 20) / page);
    write_all(region, (4 << 20) / page);
}

/* 1 MiB that huge pages of 64 KiB fit into, but none of 2 MiB. */
static void large_folios(void)
{
    size_t huge = 2 << 20;
    char *start = mmap(NULL, 2 * huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *region = (char *)(((uintptr_t)start + huge - 1) / huge * huge);

    check(start != MAP_FAILED, "mmap");
    check(mprotect(region, PAGES * page, PROT_READ | PROT_WRITE) == 0, "mprotect");
    check(madvise(region, PAGES * page, MADV_HUGEPAGE) == 0, "madvise");
    name_region(region, PAGES * page);
    write_all(region, PAGES);
}

static void stack_growth(void)
{
    size_t bytes = PAGES * page;
    volatile char *deep = __builtin_alloca(bytes);

    /* exec has made 33 pages or so: what lies below them grows the stack, page by page. */
    for (size_t at = bytes; at >= page; at -= page)
        deep[at - 1] = 1;
    name_region(deep, bytes);
}

static void empty_and_again(void)
{
    volatile char *region = map(PAGES * page, 0);

    write_all(region, PAGES);
    check(madvise((void *)region, PAGES * page, MADV_DONTNEED) == 0, "madvise");
    write_all(region, PAGES);
}

static void move(void)
{
    char *from =
        mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *to = mmap(NULL, 3 * PAGES * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile char *region;

    check(from != MAP_FAILED && to != MAP_FAILED, "mmap");
    write_all(from, PAGES);
    region = mremap(from, PAGES * page, 2 * PAGES * page, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    check(region == to, "mremap");
    name_region(region, 2 * PAGES * page);
    write_all(region, 2 * PAGES);
}

static void heap(void)
{
    /* The system call itself: musl's sbrk refuses to move the break. */
    uintptr_t start = (uintptr_t)syscall(SYS_brk, 0);
    uintptr_t first = (start + page - 1) / page * page;
    char *region = (char *)first;

    check((uintptr_t)syscall(SYS_brk, first + PAGES * page) == first + PAGES * page, "brk");
    name_region(region, PAGES * page);
    write_all(region, PAGES);
}

static void rights(void)
{
    volatile char *region = map(PAGES * page, 0);

    write_all(region, PAGES);
    check(mprotect((void *)region, PAGES * page, PROT_READ) == 0, "mprotect");
    read_all(region, PAGES);
    check(mprotect((void *)region, PAGES * page, PROT_READ | PROT_WRITE) == 0, "mprotect");
    write_all(region, PAGES);
}

static void *touch_part(void *part)
{
    write_all(part, PAGES);
    return NULL;
}

static void threads(void)
{
    volatile char *region = map(THREADS * PAGES * page, 0);
    pthread_t ids[THREADS];

    for (int at = 0; at < THREADS; at++)
        check(pthread_create(&ids[at], NULL, touch_part, (void *)(region + at * PAGES * page)) == 0,
              "pthread_create");
    for (int at = 0; at < THREADS; at++)
        check(pthread_join(ids[at], NULL) == 0, "pthread_join");
}

/* All threads on the same pages: only one of the racers' faults is the first touch. */
static void threads_racing(void)
{
    volatile char *region = map(PAGES * page, 0);
    pthread_t ids[THREADS];

    for (int at = 0; at < THREADS; at++)
        check(pthread_create(&ids[at], NULL, touch_part, (void *)region) == 0, "pthread_create");
    for (int at = 0; at < THREADS; at++)
        check(pthread_join(ids[at], NULL) == 0, "pthread_join");
}

static void fork_storm(void)
{
    volatile char *region = map(10 * page, 0);

    write_all(region, 10);
    for (int at = 0; at < FORKS; at++) {
        pid_t child = fork();

        if (child == 0) {
            write_all(region, 10);
            _exit(0);
        }
        wait_for(child);
    }
}

static void exec_chain(void)
{
    char left[16];
    int more = arguments[2] != NULL ? atoi(arguments[2]) : 5;
    volatile char *region = map(10 * page, 0);

    write_all(region, 10);
    if (more == 0)
        return;
    snprintf(left, sizeof left, "%d", more - 1);
    execl("/proc/self/exe", "micro", "exec-chain", left, (char *)NULL);
    check(0, "execl");
}

static void spawned(void)
{
    char *argv[] = {"micro", "zero-fill", NULL};
    pid_t child;

    check(posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ) == 0, "posix_spawn");
    wait_for(child);
}

static void mappings(void)
{
    for (int at = 0; at < MAPPINGS; at++) {
        /* Every other one without the right to write, so that no two become one. */
        int prot = at % 2 ? PROT_READ : PROT_READ | PROT_WRITE;
        volatile char *one = mmap(NULL, page, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        check(one != MAP_FAILED, "mmap");
        if (at % 2)
            (void)*one;
        else
            *one = 1;
    }
}

static void bad_addresses(void)
{
    int zeros = open("/dev/zero", O_RDONLY);
    volatile char *region = map(page, 0);
    void *volatile nowhere = (void *)8;

    check(zeros >= 0, "/dev/zero");
    /* The kernel's fault on page 0 fails: it is an event of the hardware, but no fault of
     * getrusage's. */
    for (int at = 0; at < PAGES; at++)
        check(read(zeros, nowhere, 1) == -1, "read to nowhere");
    region[0] = 1;
}

static void segmentation_fault(void)
{
    write_all(map(10 * page, 0), 10);
    *(volatile int *)8 = 1;
}

static void killed(void)
{
    write_all(map(PAGES * page, 0), PAGES);
    kill(getpid(), SIGKILL);
}

static void nothing(void)
{
    map(PAGES * page, 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"nothing", nothing},
    {"zero-fill", zero_fill},
    {"read-then-write", read_then_write},
    {"populate", populate},
    {"mlock", lock},
    {"populate-write", populate_write},
    {"populate-read", populate_read},
    {"read-call", read_call},
    {"fork-child-writes", fork_child_writes},
    {"fork-parent-writes", fork_parent_writes},
    {"fork-child-reads", fork_child_reads},
    {"file-read", file_read},
    {"file-write", file_write},
    {"file-read-then-write", file_read_then_write},
    {"shared-file-write", shared_file_write},
    {"shared-file-read", shared_file_read},
    {"shared-memory-write", shared_memory_write},
    {"huge-write", huge_write},
    {"huge-read-then-write", huge_read_then_write},
    {"large-folios", large_folios},
    {"stack-growth", stack_growth},
    {"empty-and-again", empty_and_again},
    {"move", move},
    {"heap", heap},
    {"rights", rights},
    {"threads", threads},
    {"threads-racing", threads_racing},
    {"fork-storm", fork_storm},
    {"exec-chain", exec_chain},
    {"spawned", spawned},
    {"mappings", mappings},
    {"bad-addresses", bad_addresses},
    {"segmentation-fault", segmentation_fault},
    {"killed", killed},
};

int main(int count, char **given)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    arguments = given;
    file_name = count > 2 ? given[2] : "";
    for (size_t at = 0; count > 1 && at < sizeof cases / sizeof *cases; at++) {
        if (strcmp(given[1], cases[at].name) == 0) {
            cases[at].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: micro CASE [FILE]\n");
    return 2;
}
