/*
 * Micro-programs for the ledger: each does one thing to memory whose count and cause are known in
 * advance, in a region of its own that it names on standard output ("region START BYTES").
 * usage: micro CASE [FILE | BYTES]
 * FILE: a cached file of 1 MiB, for the cases that map one; BYTES: the size of a huge page
 */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

enum {
    MIB = 1 << 20,
    BURST = 32,
    FEW = 10,
    THREADS = 4,
    FORKS = 20,
    FORKS_BESIDE = 20,
    EXECS = 5,
    MAPPINGS = 10000
};

static size_t page;
/* Pages of a mebibyte. */
static size_t pages;
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
    region = mmap(NULL, MIB, PROT_READ | PROT_WRITE, flags, descriptor, 0);
    check(region != MAP_FAILED, "mmap");
    name_region(region, MIB);
    return region;
}

static void write_all(volatile char *region, size_t count)
{
    for (size_t at = 0; at < count; at++)
        region[at * page] = 1;
}

static void read_all(volatile char *region, size_t count)
{
    for (size_t at = 0; at < count; at++)
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
    write_all(map(MIB, 0), pages);
}

/* Many pages without a system call in between. */
static void burst(void)
{
    write_all(map(BURST * MIB, 0), BURST * pages);
}

static void call_memset(void)
{
    memset((void *)map(MIB, 0), 1, MIB);
}

/* The chunk is named from its first byte: the page of its header may be the same. */
static void call_malloc(void)
{
    char *chunk = malloc(MIB);

    check(chunk != NULL, "malloc");
    memset(chunk, 1, MIB);
    name_region(chunk, MIB);
}

static void read_then_write(void)
{
    volatile char *region = map(MIB, 0);

    read_all(region, pages);
    write_all(region, pages);
}

static void populate(void)
{
    write_all(map(MIB, MAP_POPULATE), pages);
}

static void lock(void)
{
    volatile char *region = map(MIB, 0);

    check(mlock((void *)region, MIB) == 0, "mlock");
    write_all(region, pages);
}

static void populate_write(void)
{
    volatile char *region = map(MIB, 0);

    check(madvise((void *)region, MIB, MADV_POPULATE_WRITE) == 0, "madvise");
    write_all(region, pages);
}

static void populate_read(void)
{
    volatile char *region = map(MIB, 0);

    check(madvise((void *)region, MIB, MADV_POPULATE_READ) == 0, "madvise");
    write_all(region, pages);
}

static void read_call(void)
{
    volatile char *region = map(MIB, 0);
    int zeros = open("/dev/zero", O_RDONLY);

    check(zeros >= 0, "/dev/zero");
    check(read(zeros, (void *)region, MIB) == MIB, "read");
}

static void fork_child_writes(void)
{
    volatile char *region = map(MIB, 0);
    pid_t child;

    write_all(region, pages);
    child = fork();
    if (child == 0) {
        write_all(region, pages);
        _exit(0);
    }
    wait_for(child);
    write_all(region, pages);
}

static void fork_parent_writes(void)
{
    volatile char *region = map(MIB, 0);
    pid_t child;

    write_all(region, pages);
    child = fork();
    if (child == 0)
        _exit(0);
    wait_for(child);
    write_all(region, pages);
}

static void fork_child_reads_memory(void)
{
    volatile char *region = map(MIB, 0);
    pid_t child;

    write_all(region, pages);
    child = fork();
    if (child == 0) {
        read_all(region, pages);
        write_all(region, pages);
        _exit(0);
    }
    wait_for(child);
}

static void fork_child_reads(void)
{
    volatile char *region = map_file(MAP_PRIVATE);
    pid_t child;

    read_all(region, pages);
    child = fork();
    if (child == 0) {
        read_all(region, pages);
        _exit(0);
    }
    wait_for(child);
}

static void file_read(void)
{
    read_all(map_file(MAP_PRIVATE), pages);
}

static void file_write(void)
{
    write_all(map_file(MAP_PRIVATE), pages);
}

static void file_read_then_write(void)
{
    volatile char *region = map_file(MAP_PRIVATE);

    read_all(region, pages);
    write_all(region, pages);
}

static void shared_file_write(void)
{
    write_all(map_file(MAP_SHARED), pages);
}

static void shared_file_read(void)
{
    read_all(map_file(MAP_SHARED), pages);
}

/* Mapped half a window off, so that what the kernel maps around a fault and the folios the
 * file is kept in do not begin and end together. */
static void file_across_windows(int flags)
{
    size_t window = 16 * page;
    int descriptor = open(file_name, O_RDONLY);
    char *start = mmap(NULL, 2 * pages * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *half = (char *)(((uintptr_t)start + window - 1) / window * window + window / 2);
    char *region;

    check(descriptor >= 0, file_name);
    check(start != MAP_FAILED, "mmap");
    region = mmap(half, pages * page, PROT_READ, flags | MAP_FIXED, descriptor, 0);
    check(region != MAP_FAILED, "mmap");
    name_region(region, pages * page);
    (void)*(volatile char *)(region + window + window / 2);
}

static void file_across(void)
{
    file_across_windows(MAP_PRIVATE);
}

static void shared_file_across(void)
{
    file_across_windows(MAP_SHARED);
}

static void shared_memory_write(void)
{
    write_all(map(MIB, MAP_SHARED), pages);
}

/* The first multiple of `alignment` in a reservation of twice as many bytes. */
static char *reserve_aligned(size_t bytes, size_t alignment, int prot)
{
    char *start = mmap(NULL, bytes + alignment, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    check(start != MAP_FAILED, "mmap");
    return (char *)(((uintptr_t)start + alignment - 1) / alignment * alignment);
}

/* Two aligned huge pages; their size is what the kernel says it is. */
static volatile char *map_huge(size_t *count)
{
    size_t huge = strtoul(arguments[2], NULL, 10);
    char *region = reserve_aligned(2 * huge, huge, PROT_READ | PROT_WRITE);

    check(madvise(region, 2 * huge, MADV_HUGEPAGE) == 0, "madvise");
    name_region(region, 2 * huge);
    *count = 2 * huge / page;
    return region;
}

static void huge_write(void)
{
    size_t count;
    volatile char *region = map_huge(&count);

    write_all(region, count);
}

static void huge_read_then_write(void)
{
    size_t count;
    volatile char *region = map_huge(&count);

    read_all(region, count);
    write_all(region, count);
}

/* 1 MiB that huge pages of 64 KiB fit into, but none as large as a page table maps. */
static void large_folios(void)
{
    char *region = reserve_aligned(MIB, strtoul(arguments[2], NULL, 10), PROT_NONE);

    check(mprotect(region, MIB, PROT_READ | PROT_WRITE) == 0, "mprotect");
    check(madvise(region, MIB, MADV_HUGEPAGE) == 0, "madvise");
    name_region(region, MIB);
    write_all(region, pages);
}

/* Names the lowest address of the main stack as it is now ("stack START"). */
static void name_stack(void)
{
    static char text[1 << 16];
    size_t length = 0;
    ssize_t more;
    char *line;
    int maps = open("/proc/self/maps", O_RDONLY);

    check(maps >= 0, "/proc/self/maps");
    while ((more = read(maps, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)more;
    line = strstr(text, "[stack]");
    check(line != NULL, "[stack]");
    while (line > text && line[-1] != '\n')
        line--;
    printf("stack 0x%.*s\n", (int)strcspn(line, "-"), line);
    fflush(stdout);
}

/* Above the region is room for what start-up and the functions called here have touched already. */
static void grow_stack(bool is_read_first)
{
    size_t room = (64 << 10) + page;
    volatile char *region;

    name_stack();
    region = __builtin_alloca(MIB + room);
    region = (volatile char *)(((uintptr_t)region + page - 1) / page * page);
    for (size_t at = pages; is_read_first && at > 0; at--)
        (void)region[(at - 1) * page];
    for (size_t at = pages; at > 0; at--)
        region[(at - 1) * page] = 1;
    name_region(region, MIB);
}

static void stack_growth(void)
{
    grow_stack(false);
}

static void stack_read_then_write(void)
{
    grow_stack(true);
}

static void empty_and_again(void)
{
    volatile char *region = map(MIB, 0);

    write_all(region, pages);
    check(madvise((void *)region, MIB, MADV_DONTNEED) == 0, "madvise");
    write_all(region, pages);
}

static void move(void)
{
    char *from = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *to = mmap(NULL, 3 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile char *region;

    check(from != MAP_FAILED && to != MAP_FAILED, "mmap");
    write_all(from, pages);
    region = mremap(from, MIB, 2 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    check(region == to, "mremap");
    name_region(region, 2 * MIB);
    write_all(region, 2 * pages);
}

static void heap(void)
{
    /* The system call itself: musl's sbrk refuses to move the break. */
    uintptr_t start = (uintptr_t)syscall(SYS_brk, 0);
    uintptr_t first = (start + page - 1) / page * page;
    char *region = (char *)first;

    check((uintptr_t)syscall(SYS_brk, first + MIB) == first + MIB, "brk");
    name_region(region, MIB);
    write_all(region, pages);
}

static void rights(void)
{
    volatile char *region = map(MIB, 0);

    write_all(region, pages);
    check(mprotect((void *)region, MIB, PROT_READ) == 0, "mprotect");
    read_all(region, pages);
    check(mprotect((void *)region, MIB, PROT_READ | PROT_WRITE) == 0, "mprotect");
    write_all(region, pages);
}

static void *touch_part(void *part)
{
    write_all(part, pages);
    return NULL;
}

static void threads(void)
{
    volatile char *region = map(THREADS * MIB, 0);
    pthread_t ids[THREADS];

    for (int at = 0; at < THREADS; at++)
        check(pthread_create(&ids[at], NULL, touch_part, (void *)(region + at * MIB)) == 0,
              "pthread_create");
    for (int at = 0; at < THREADS; at++)
        check(pthread_join(ids[at], NULL) == 0, "pthread_join");
}

/* All threads on the same pages: only one of the racers' faults is the first touch. */
static void threads_racing(void)
{
    volatile char *region = map(MIB, 0);
    pthread_t ids[THREADS];

    for (int at = 0; at < THREADS; at++)
        check(pthread_create(&ids[at], NULL, touch_part, (void *)region) == 0, "pthread_create");
    for (int at = 0; at < THREADS; at++)
        check(pthread_join(ids[at], NULL) == 0, "pthread_join");
}

static void fork_storm(void)
{
    volatile char *region = map(FEW * page, 0);

    write_all(region, FEW);
    for (int at = 0; at < FORKS; at++) {
        pid_t child = fork();

        if (child == 0) {
            write_all(region, FEW);
            _exit(0);
        }
        wait_for(child);
    }
}

static void exec_chain(void)
{
    char left[16];
    int more = arguments[2] != NULL ? atoi(arguments[2]) : EXECS;
    volatile char *region = map(FEW * page, 0);

    write_all(region, FEW);
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

/* The child runs in its parent's memory until it is gone. */
static void vforked(void)
{
    volatile char *region = map(pages * page, 0);
    pid_t child = vfork();

    if (child == 0) {
        write_all(region, pages / 2);
        _exit(0);
    }
    wait_for(child);
    write_all(region, pages);
}

static volatile int churning;

/* Maps, reads, writes, empties and unmaps, until told to stop. */
static void *churn(void *unused)
{
    for (size_t turn = 0; churning; turn++) {
        size_t bytes = (1 + turn % FEW) * page;
        volatile char *mine =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        check(mine != MAP_FAILED, "mmap");
        read_all(mine, turn % 3 ? 0 : bytes / page);
        write_all(mine, bytes / page);
        check(madvise((void *)mine, bytes, MADV_DONTNEED) == 0, "madvise");
        write_all(mine, 1);
        check(munmap((void *)mine, bytes) == 0, "munmap");
    }
    return unused;
}

static void fork_beside_threads(void)
{
    volatile char *region = map(FEW * page, 0);
    pthread_t ids[2];

    write_all(region, FEW);
    churning = 1;
    for (int at = 0; at < 2; at++)
        check(pthread_create(&ids[at], NULL, churn, NULL) == 0, "pthread_create");
    for (int at = 0; at < FORKS_BESIDE; at++) {
        pid_t child = fork();

        if (child == 0) {
            write_all(region, FEW);
            _exit(0);
        }
        wait_for(child);
    }
    churning = 0;
    for (int at = 0; at < 2; at++)
        check(pthread_join(ids[at], NULL) == 0, "pthread_join");
}

static void *exec_zero_fill(void *unused)
{
    execl("/proc/self/exe", "micro", "zero-fill", (char *)NULL);
    check(0, "execl");
    return unused;
}

/* The first thread's end is part of the exec, the new image takes over its id. */
static void exec_from_thread(void)
{
    pthread_t ids[2];

    write_all(map(pages * page, 0), pages);
    churning = 1;
    check(pthread_create(&ids[0], NULL, churn, NULL) == 0, "pthread_create");
    check(pthread_create(&ids[1], NULL, exec_zero_fill, NULL) == 0, "pthread_create");
    pause();
}

/* What the kernel does when a thread is gone: it writes 0 to where set_tid_address said. */
static void *leave(void *region)
{
    int ends[2];
    char byte;
    pid_t child;

    syscall(SYS_set_tid_address, region);
    *(volatile int *)region = 1;
    check(pipe(ends) == 0, "pipe");
    child = fork();
    if (child == 0) {
        close(ends[1]);
        _exit((int)read(ends[0], &byte, 1));
    }
    check(child > 0, "fork");
    /* The child waits for the other end, so that the page is still shared when the thread goes. */
    syscall(SYS_exit, 0);
    return NULL;
}

static void exit_after_fork(void)
{
    volatile int *region = (volatile int *)map(page, 0);
    pthread_t id;

    *region = 1;
    check(pthread_create(&id, NULL, leave, (void *)region) == 0, "pthread_create");
    while (*region)
        usleep(1000);
}

static volatile int going;

/* Takes long enough to be ended in the middle. */
static void *populate_much(void *unused)
{
    going = 1;
    mmap(NULL, (size_t)256 * MIB, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return unused;
}

static void exit_while_mapping(void)
{
    pthread_t id;

    write_all(map(FEW * page, 0), FEW);
    check(pthread_create(&id, NULL, populate_much, NULL) == 0, "pthread_create");
    while (!going)
        usleep(100);
    usleep(5000);
    _exit(0);
}

static void mappings(void)
{
    char *region = mmap(NULL, MAPPINGS * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    check(region != MAP_FAILED, "mmap");
    check(munmap(region, MAPPINGS * page) == 0, "munmap");
    name_region(region, MAPPINGS * page);
    for (int at = 0; at < MAPPINGS; at++) {
        /* Every other one without the right to write, so that no two become one. */
        int prot = at % 2 ? PROT_READ : PROT_READ | PROT_WRITE;
        volatile char *one =
            mmap(region + at * page, page, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        check(one == region + at * page, "mmap");
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
    for (int at = 0; at < FORKS; at++)
        check(read(zeros, nowhere, 1) == -1, "read to nowhere");
    region[0] = 1;
}

static void segmentation_fault(void)
{
    write_all(map(FEW * page, 0), FEW);
    *(volatile int *)8 = 1;
}

static void killed(void)
{
    write_all(map(MIB, 0), pages);
    kill(getpid(), SIGKILL);
}

static void nothing(void)
{
    map(MIB, 0);
}

static const struct {
    const char *name;
    void (*run)(void);
    int wants_huge;
} cases[] = {
    {"start-up", nothing, 0},
    {"nothing", nothing, 0},
    {"zero-fill", zero_fill, 0},
    {"burst", burst, 0},
    {"memset", call_memset, 0},
    {"malloc", call_malloc, 0},
    {"read-then-write", read_then_write, 0},
    {"populate", populate, 0},
    {"mlock", lock, 0},
    {"populate-write", populate_write, 0},
    {"populate-read", populate_read, 0},
    {"read-call", read_call, 0},
    {"fork-child-writes", fork_child_writes, 0},
    {"fork-parent-writes", fork_parent_writes, 0},
    {"fork-child-reads", fork_child_reads, 0},
    {"fork-child-reads-memory", fork_child_reads_memory, 0},
    {"file-read", file_read, 0},
    {"file-write", file_write, 0},
    {"file-read-then-write", file_read_then_write, 0},
    {"shared-file-write", shared_file_write, 0},
    {"shared-file-read", shared_file_read, 0},
    {"file-across", file_across, 0},
    {"shared-file-across", shared_file_across, 0},
    {"shared-memory-write", shared_memory_write, 0},
    {"huge-write", huge_write, 1},
    {"huge-read-then-write", huge_read_then_write, 1},
    {"large-folios", large_folios, 1},
    {"stack-growth", stack_growth, 0},
    {"stack-read-then-write", stack_read_then_write, 0},
    {"empty-and-again", empty_and_again, 0},
    {"move", move, 0},
    {"heap", heap, 0},
    {"rights", rights, 0},
    {"threads", threads, 0},
    {"threads-racing", threads_racing, 0},
    {"fork-storm", fork_storm, 0},
    {"exec-chain", exec_chain, 0},
    {"spawned", spawned, 0},
    {"vforked", vforked, 0},
    {"fork-beside-threads", fork_beside_threads, 0},
    {"exec-from-thread", exec_from_thread, 0},
    {"exit-after-fork", exit_after_fork, 0},
    {"exit-while-mapping", exit_while_mapping, 0},
    {"mappings", mappings, 0},
    {"bad-addresses", bad_addresses, 0},
    {"segmentation-fault", segmentation_fault, 0},
    {"killed", killed, 0},
};

int main(int count, char **given)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    pages = MIB / page;
    arguments = given;
    file_name = count > 2 ? given[2] : "";
    for (size_t at = 0; count > 1 && at < sizeof cases / sizeof *cases; at++) {
        if (strcmp(given[1], cases[at].name) == 0 && count > 2 - !cases[at].wants_huge) {
            /* Base pages only, whatever the system's setting; children and images inherit it. */
            if (!cases[at].wants_huge)
                check(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
            cases[at].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: micro CASE [FILE | BYTES]\n");
    return 2;
}
