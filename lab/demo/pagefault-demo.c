/*
 * pagefault-demo: when does a program really get its memory?
 *
 * Prints the page-fault counters of this process before and after malloc, after the first memset of
 * the buffer and after a second one. malloc only promises memory; the kernel hands out each page
 * when it is first written.
 *
 * usage: pagefault-demo [SIZE]      SIZE in bytes, 1 MiB when not given
 *
 * Exit status: 0, or 1 when the system refused something (memory, counters, output), or 2 for a bad
 * SIZE.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const size_t DEFAULT_SIZE = (size_t)1024 * 1024;

/*
 * memset through a pointer the compiler may not look behind, so that it is always libc's own
 * function that writes. A compiler that knows memset may expand it in place, and then the count is
 * the compiler's: on s390x the expansion copies overlapping blocks (mvc), reads each new page
 * before it writes there, and so faults twice on every page. Nor can a second memset of the same
 * bytes be dropped as having no effect.
 */
static void *(*volatile const fill)(void *, int, size_t) = memset;

/*
 * The counters are read first and printed afterwards. What the printing itself costs (stdio gets
 * its buffer, code and data are touched for the first time) is therefore seen in the *next* phase:
 * it is part of the rise after malloc.
 */
static void print_page_faults(const char *moment)
{
    struct rusage usage;

    if (getrusage(RUSAGE_SELF, &usage) != 0) {
        fprintf(stderr, "pagefault-demo: getrusage: %s\n", strerror(errno));
        exit(1);
    }
    printf("%s\n", moment);
    printf("Major page faults %ld\n", usage.ru_majflt);
    printf("Minor page faults %ld\n", usage.ru_minflt);
}

/* A positive decimal number of bytes that fits size_t; 0 stands for anything else. */
static size_t parse_size(const char *text)
{
    size_t size = 0;

    for (const char *digit = text; *digit != '\0'; digit++) {
        if (*digit < '0' || *digit > '9')
            return 0;
        size_t value = (size_t)(*digit - '0');
        if (size > (SIZE_MAX - value) / 10)
            return 0;
        size = size * 10 + value;
    }
    return size;
}

int main(int argc, char **argv)
{
    size_t size = DEFAULT_SIZE;

    if (argc == 2)
        size = parse_size(argv[1]);
    if (argc > 2 || size == 0) {
        fprintf(stderr, "usage: pagefault-demo [SIZE], SIZE a positive number of bytes\n");
        return 2;
    }

    print_page_faults("Initial state");

    unsigned char *buffer = malloc(size);
    if (buffer == NULL) {
        fprintf(stderr, "pagefault-demo: malloc of %zu bytes: %s\n", size, strerror(errno));
        return 1;
    }
    print_page_faults("After malloc");

    fill(buffer, 0, size);
    print_page_faults("After memset");

    fill(buffer, 0, size);
    print_page_faults("After second memset");

    /*
     * The buffer is not freed, on purpose. The process ends here anyway, and a musl program that
     * never names free is linked statically with musl's smallest allocator, which keeps no header
     * in front of the buffer.
     */
    if (fflush(stdout) != 0) {
        fprintf(stderr, "pagefault-demo: standard output: %s\n", strerror(errno));
        return 1;
    }
    return 0;
}
