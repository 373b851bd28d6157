/*
 * System calls by name, as far as the headers know them: those that change an address space or
 * may ask for pages, and the common ones around them. Another call is told by its number.
 */
#ifndef FAULTPROBE_SYSCALL_NAMES_H
#define FAULTPROBE_SYSCALL_NAMES_H

#include <sys/syscall.h>

static const struct {
    long number;
    const char *name;
} system_call_names[] = {
#ifdef __NR_read
    {__NR_read, "read"},
#endif
#ifdef __NR_write
    {__NR_write, "write"},
#endif
#ifdef __NR_readv
    {__NR_readv, "readv"},
#endif
#ifdef __NR_writev
    {__NR_writev, "writev"},
#endif
#ifdef __NR_pread64
    {__NR_pread64, "pread64"},
#endif
#ifdef __NR_pwrite64
    {__NR_pwrite64, "pwrite64"},
#endif
#ifdef __NR_preadv
    {__NR_preadv, "preadv"},
#endif
#ifdef __NR_pwritev
    {__NR_pwritev, "pwritev"},
#endif
#ifdef __NR_preadv2
    {__NR_preadv2, "preadv2"},
#endif
#ifdef __NR_pwritev2
    {__NR_pwritev2, "pwritev2"},
#endif
#ifdef __NR_sendmsg
    {__NR_sendmsg, "sendmsg"},
#endif
#ifdef __NR_recvmsg
    {__NR_recvmsg, "recvmsg"},
#endif
#ifdef __NR_sendto
    {__NR_sendto, "sendto"},
#endif
#ifdef __NR_recvfrom
    {__NR_recvfrom, "recvfrom"},
#endif
#ifdef __NR_sendmmsg
    {__NR_sendmmsg, "sendmmsg"},
#endif
#ifdef __NR_recvmmsg
    {__NR_recvmmsg, "recvmmsg"},
#endif
#ifdef __NR_mmap
    {__NR_mmap, "mmap"},
#endif
#ifdef __NR_mmap2
    {__NR_mmap2, "mmap2"},
#endif
#ifdef __NR_munmap
    {__NR_munmap, "munmap"},
#endif
#ifdef __NR_mremap
    {__NR_mremap, "mremap"},
#endif
#ifdef __NR_mprotect
    {__NR_mprotect, "mprotect"},
#endif
#ifdef __NR_pkey_mprotect
    {__NR_pkey_mprotect, "pkey_mprotect"},
#endif
#ifdef __NR_brk
    {__NR_brk, "brk"},
#endif
#ifdef __NR_madvise
    {__NR_madvise, "madvise"},
#endif
#ifdef __NR_process_madvise
    {__NR_process_madvise, "process_madvise"},
#endif
#ifdef __NR_mlock
    {__NR_mlock, "mlock"},
#endif
#ifdef __NR_mlock2
    {__NR_mlock2, "mlock2"},
#endif
#ifdef __NR_mlockall
    {__NR_mlockall, "mlockall"},
#endif
#ifdef __NR_munlock
    {__NR_munlock, "munlock"},
#endif
#ifdef __NR_munlockall
    {__NR_munlockall, "munlockall"},
#endif
#ifdef __NR_msync
    {__NR_msync, "msync"},
#endif
#ifdef __NR_mincore
    {__NR_mincore, "mincore"},
#endif
#ifdef __NR_remap_file_pages
    {__NR_remap_file_pages, "remap_file_pages"},
#endif
#ifdef __NR_shmat
    {__NR_shmat, "shmat"},
#endif
#ifdef __NR_shmdt
    {__NR_shmdt, "shmdt"},
#endif
#ifdef __NR_shmget
    {__NR_shmget, "shmget"},
#endif
#ifdef __NR_shmctl
    {__NR_shmctl, "shmctl"},
#endif
#ifdef __NR_ipc
    {__NR_ipc, "ipc"},
#endif
#ifdef __NR_memfd_create
    {__NR_memfd_create, "memfd_create"},
#endif
#ifdef __NR_execve
    {__NR_execve, "execve"},
#endif
#ifdef __NR_execveat
    {__NR_execveat, "execveat"},
#endif
#ifdef __NR_fork
    {__NR_fork, "fork"},
#endif
#ifdef __NR_vfork
    {__NR_vfork, "vfork"},
#endif
#ifdef __NR_clone
    {__NR_clone, "clone"},
#endif
#ifdef __NR_clone3
    {__NR_clone3, "clone3"},
#endif
#ifdef __NR_exit
    {__NR_exit, "exit"},
#endif
#ifdef __NR_exit_group
    {__NR_exit_group, "exit_group"},
#endif
#ifdef __NR_open
    {__NR_open, "open"},
#endif
#ifdef __NR_openat
    {__NR_openat, "openat"},
#endif
#ifdef __NR_openat2
    {__NR_openat2, "openat2"},
#endif
#ifdef __NR_close
    {__NR_close, "close"},
#endif
#ifdef __NR_stat
    {__NR_stat, "stat"},
#endif
#ifdef __NR_fstat
    {__NR_fstat, "fstat"},
#endif
#ifdef __NR_newfstatat
    {__NR_newfstatat, "newfstatat"},
#endif
#ifdef __NR_statx
    {__NR_statx, "statx"},
#endif
#ifdef __NR_lstat
    {__NR_lstat, "lstat"},
#endif
#ifdef __NR_access
    {__NR_access, "access"},
#endif
#ifdef __NR_faccessat
    {__NR_faccessat, "faccessat"},
#endif
#ifdef __NR_faccessat2
    {__NR_faccessat2, "faccessat2"},
#endif
#ifdef __NR_readlink
    {__NR_readlink, "readlink"},
#endif
#ifdef __NR_readlinkat
    {__NR_readlinkat, "readlinkat"},
#endif
#ifdef __NR_getcwd
    {__NR_getcwd, "getcwd"},
#endif
#ifdef __NR_getdents64
    {__NR_getdents64, "getdents64"},
#endif
#ifdef __NR_ioctl
    {__NR_ioctl, "ioctl"},
#endif
#ifdef __NR_fcntl
    {__NR_fcntl, "fcntl"},
#endif
#ifdef __NR_poll
    {__NR_poll, "poll"},
#endif
#ifdef __NR_ppoll
    {__NR_ppoll, "ppoll"},
#endif
#ifdef __NR_select
    {__NR_select, "select"},
#endif
#ifdef __NR_pselect6
    {__NR_pselect6, "pselect6"},
#endif
#ifdef __NR_epoll_wait
    {__NR_epoll_wait, "epoll_wait"},
#endif
#ifdef __NR_epoll_pwait
    {__NR_epoll_pwait, "epoll_pwait"},
#endif
#ifdef __NR_futex
    {__NR_futex, "futex"},
#endif
#ifdef __NR_futex_waitv
    {__NR_futex_waitv, "futex_waitv"},
#endif
#ifdef __NR_set_robust_list
    {__NR_set_robust_list, "set_robust_list"},
#endif
#ifdef __NR_get_robust_list
    {__NR_get_robust_list, "get_robust_list"},
#endif
#ifdef __NR_rseq
    {__NR_rseq, "rseq"},
#endif
#ifdef __NR_set_tid_address
    {__NR_set_tid_address, "set_tid_address"},
#endif
#ifdef __NR_arch_prctl
    {__NR_arch_prctl, "arch_prctl"},
#endif
#ifdef __NR_prctl
    {__NR_prctl, "prctl"},
#endif
#ifdef __NR_prlimit64
    {__NR_prlimit64, "prlimit64"},
#endif
#ifdef __NR_getrlimit
    {__NR_getrlimit, "getrlimit"},
#endif
#ifdef __NR_ugetrlimit
    {__NR_ugetrlimit, "ugetrlimit"},
#endif
#ifdef __NR_setrlimit
    {__NR_setrlimit, "setrlimit"},
#endif
#ifdef __NR_getrusage
    {__NR_getrusage, "getrusage"},
#endif
#ifdef __NR_wait4
    {__NR_wait4, "wait4"},
#endif
#ifdef __NR_waitid
    {__NR_waitid, "waitid"},
#endif
#ifdef __NR_rt_sigaction
    {__NR_rt_sigaction, "rt_sigaction"},
#endif
#ifdef __NR_rt_sigprocmask
    {__NR_rt_sigprocmask, "rt_sigprocmask"},
#endif
#ifdef __NR_rt_sigreturn
    {__NR_rt_sigreturn, "rt_sigreturn"},
#endif
#ifdef __NR_sigreturn
    {__NR_sigreturn, "sigreturn"},
#endif
#ifdef __NR_rt_sigtimedwait
    {__NR_rt_sigtimedwait, "rt_sigtimedwait"},
#endif
#ifdef __NR_sigaltstack
    {__NR_sigaltstack, "sigaltstack"},
#endif
#ifdef __NR_clock_gettime
    {__NR_clock_gettime, "clock_gettime"},
#endif
#ifdef __NR_clock_nanosleep
    {__NR_clock_nanosleep, "clock_nanosleep"},
#endif
#ifdef __NR_nanosleep
    {__NR_nanosleep, "nanosleep"},
#endif
#ifdef __NR_gettimeofday
    {__NR_gettimeofday, "gettimeofday"},
#endif
#ifdef __NR_getrandom
    {__NR_getrandom, "getrandom"},
#endif
#ifdef __NR_uname
    {__NR_uname, "uname"},
#endif
#ifdef __NR_sysinfo
    {__NR_sysinfo, "sysinfo"},
#endif
#ifdef __NR_getpid
    {__NR_getpid, "getpid"},
#endif
#ifdef __NR_gettid
    {__NR_gettid, "gettid"},
#endif
#ifdef __NR_kill
    {__NR_kill, "kill"},
#endif
#ifdef __NR_tgkill
    {__NR_tgkill, "tgkill"},
#endif
#ifdef __NR_vmsplice
    {__NR_vmsplice, "vmsplice"},
#endif
#ifdef __NR_splice
    {__NR_splice, "splice"},
#endif
#ifdef __NR_tee
    {__NR_tee, "tee"},
#endif
#ifdef __NR_sendfile
    {__NR_sendfile, "sendfile"},
#endif
#ifdef __NR_copy_file_range
    {__NR_copy_file_range, "copy_file_range"},
#endif
#ifdef __NR_io_setup
    {__NR_io_setup, "io_setup"},
#endif
#ifdef __NR_io_submit
    {__NR_io_submit, "io_submit"},
#endif
#ifdef __NR_io_getevents
    {__NR_io_getevents, "io_getevents"},
#endif
#ifdef __NR_io_uring_setup
    {__NR_io_uring_setup, "io_uring_setup"},
#endif
#ifdef __NR_io_uring_enter
    {__NR_io_uring_enter, "io_uring_enter"},
#endif
#ifdef __NR_io_uring_register
    {__NR_io_uring_register, "io_uring_register"},
#endif
#ifdef __NR_process_vm_readv
    {__NR_process_vm_readv, "process_vm_readv"},
#endif
#ifdef __NR_process_vm_writev
    {__NR_process_vm_writev, "process_vm_writev"},
#endif
#ifdef __NR_ptrace
    {__NR_ptrace, "ptrace"},
#endif
#ifdef __NR_userfaultfd
    {__NR_userfaultfd, "userfaultfd"},
#endif
#ifdef __NR_move_pages
    {__NR_move_pages, "move_pages"},
#endif
#ifdef __NR_mbind
    {__NR_mbind, "mbind"},
#endif
#ifdef __NR_migrate_pages
    {__NR_migrate_pages, "migrate_pages"},
#endif
#ifdef __NR_get_mempolicy
    {__NR_get_mempolicy, "get_mempolicy"},
#endif
#ifdef __NR_set_mempolicy
    {__NR_set_mempolicy, "set_mempolicy"},
#endif
#ifdef __NR_perf_event_open
    {__NR_perf_event_open, "perf_event_open"},
#endif
#ifdef __NR_membarrier
    {__NR_membarrier, "membarrier"},
#endif
#ifdef __NR_process_mrelease
    {__NR_process_mrelease, "process_mrelease"},
#endif
#ifdef __NR_map_shadow_stack
    {__NR_map_shadow_stack, "map_shadow_stack"},
#endif
#ifdef __NR_mseal
    {__NR_mseal, "mseal"},
#endif
#ifdef __NR_pipe
    {__NR_pipe, "pipe"},
#endif
#ifdef __NR_pipe2
    {__NR_pipe2, "pipe2"},
#endif
#ifdef __NR_dup
    {__NR_dup, "dup"},
#endif
#ifdef __NR_dup2
    {__NR_dup2, "dup2"},
#endif
#ifdef __NR_dup3
    {__NR_dup3, "dup3"},
#endif
#ifdef __NR_socket
    {__NR_socket, "socket"},
#endif
#ifdef __NR_connect
    {__NR_connect, "connect"},
#endif
#ifdef __NR_bind
    {__NR_bind, "bind"},
#endif
#ifdef __NR_accept
    {__NR_accept, "accept"},
#endif
#ifdef __NR_accept4
    {__NR_accept4, "accept4"},
#endif
#ifdef __NR_lseek
    {__NR_lseek, "lseek"},
#endif
#ifdef __NR_statfs
    {__NR_statfs, "statfs"},
#endif
#ifdef __NR_sched_yield
    {__NR_sched_yield, "sched_yield"},
#endif
#ifdef __NR_sched_getaffinity
    {__NR_sched_getaffinity, "sched_getaffinity"},
#endif
#ifdef __NR_personality
    {__NR_personality, "personality"},
#endif
/* Of 32-bit machines: larger files, later years. */
#ifdef __NR_stat64
    {__NR_stat64, "stat64"},
#endif
#ifdef __NR_fstat64
    {__NR_fstat64, "fstat64"},
#endif
#ifdef __NR_lstat64
    {__NR_lstat64, "lstat64"},
#endif
#ifdef __NR_fstatat64
    {__NR_fstatat64, "fstatat64"},
#endif
#ifdef __NR_statfs64
    {__NR_statfs64, "statfs64"},
#endif
#ifdef __NR_fcntl64
    {__NR_fcntl64, "fcntl64"},
#endif
#ifdef __NR__llseek
    {__NR__llseek, "_llseek"},
#endif
#ifdef __NR__newselect
    {__NR__newselect, "_newselect"},
#endif
#ifdef __NR_getdents
    {__NR_getdents, "getdents"},
#endif
#ifdef __NR_sendfile64
    {__NR_sendfile64, "sendfile64"},
#endif
#ifdef __NR_socketcall
    {__NR_socketcall, "socketcall"},
#endif
#ifdef __NR_clock_gettime64
    {__NR_clock_gettime64, "clock_gettime64"},
#endif
#ifdef __NR_clock_nanosleep_time64
    {__NR_clock_nanosleep_time64, "clock_nanosleep_time64"},
#endif
#ifdef __NR_futex_time64
    {__NR_futex_time64, "futex_time64"},
#endif
#ifdef __NR_ppoll_time64
    {__NR_ppoll_time64, "ppoll_time64"},
#endif
#ifdef __NR_pselect6_time64
    {__NR_pselect6_time64, "pselect6_time64"},
#endif
#ifdef __NR_rt_sigtimedwait_time64
    {__NR_rt_sigtimedwait_time64, "rt_sigtimedwait_time64"},
#endif
#ifdef __NR_recvmmsg_time64
    {__NR_recvmmsg_time64, "recvmmsg_time64"},
#endif
};

#endif
