/*
 * A child that waits to execute a program (spawn.c): what it is told and what it tells.
 */
#ifndef FAULTPROBE_SPAWN_H
#define FAULTPROBE_SPAWN_H

#include "native.h"

#include <signal.h>
#include <sys/types.h>

struct plan {
    const char *path;
    char **argv;
    char **envp;
    int descriptors[3]; /* standard input, output and error of the program */
    long persona;       /* -1: as the parent */
    long long stack;    /* soft limit of the stack in bytes, -1: as the parent */
    int go;             /* what it waits for a byte on */
    int report;         /* where its report goes; -1: only into its memory */
    pid_t parent;
    int stop;      /* stop at the first instruction of the program, until detached */
    sigset_t mask; /* signals that the program is to find blocked: start_child sets the parent's */
};

/* What the child tells: first its counters, then, when exec failed, the reason. */
struct report {
    struct reading inherited;
    int failed_errno;
};

/* What the child works with, which its parent shares; below it is its stack. */
struct memory {
    size_t length;
    struct plan plan;
    struct report report;
    /* The pointers of argv and envp, then all the characters. */
};

/*
 * Starts such a child. Returns -1 with errno set, or with an exception when there is no memory;
 * that has to be kept until the child has executed the program or has ended.
 */
pid_t start_child(const struct plan *plan, PyObject *argv, PyObject *envp, struct memory **memory);
void free_memory(struct memory *memory);

/*
 * Waits until a child that was let go has executed the program and stands at its first instruction,
 * or until it has ended without: `status` is wait's. -1 with an exception. Only for a plan with
 * `stop`, and for the thread that started the child.
 */
int wait_for_exec(pid_t pid, int *status);

#endif
