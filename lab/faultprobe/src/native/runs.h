/*
 * Runs of pages as text: a count (left out when it is 1) and a mark, "253a3." for 253 anonymous
 * pages and 3 absent ones. Never more than a byte for each page, most often a few for thousands;
 * what is kept in memory is what is written to JSON.
 */
#ifndef FAULTPROBE_RUNS_H
#define FAULTPROBE_RUNS_H

#include <stddef.h>
#include <stdint.h>

/* A growing text; `failed` says that memory ran out. */
struct runs {
    char *text;
    size_t length;
    size_t capacity;
    uint64_t count; /* of the run that is still open */
    char mark;
    int failed;
};

/* runs.c */
void runs_add(struct runs *runs, uint64_t count, char mark);
int runs_finish(struct runs *runs);
void runs_free(struct runs *runs);

#endif
