/* The least that stopping N children takes: SIGTERM through pidfds, epoll, waitid. No server, no shell, no report.
 *
 * Use: floor N. Starts N `sleep 1000`, writes "ready", reads a line from stdin (or its end), stops them, and writes the
 * microseconds from before the first signal until the last one is reaped and this process has no child any more.
 * Exit code 1, with a line on stderr, when anything fails or when a child ended by anything but SIGTERM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open /* headers older than the kernel: one number on every architecture */
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

#define EVENTS_MAX 256

extern char **environ;

static void must(int worked, const char *what)
{
    if (!worked) {
        perror(what);
        exit(1);
    }
}

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Start a sleep and watch it; gives its pidfd. The event carries the pid, which is ours until it is reaped. */
static int start_child(int epoll_fd)
{
    char *argv[] = {"sleep", "1000", NULL};
    pid_t pid;
    errno = posix_spawnp(&pid, "sleep", NULL, NULL, argv, environ);
    must(errno == 0, "posix_spawnp");
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    must(fd >= 0, "pidfd_open");
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = (unsigned)pid};
    must(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
    return fd;
}

static void reap(pid_t pid)
{
    siginfo_t info;
    must(waitid(P_PID, (id_t)pid, &info, WEXITED) == 0, "waitid");
    if (info.si_code != CLD_KILLED || info.si_status != SIGTERM) {
        fprintf(stderr, "a child ended with %d, not by SIGTERM\n", info.si_status);
        exit(1);
    }
}

static long long stop_ns(const int *fds, int count, int epoll_fd)
{
    struct epoll_event events[EVENTS_MAX];
    siginfo_t info;
    long long began_ns = now_ns();
    for (int each = 0; each < count; each++)
        must(syscall(SYS_pidfd_send_signal, fds[each], SIGTERM, NULL, 0) == 0, "pidfd_send_signal");
    for (int left = count; left > 0;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        must(ready > 0, "epoll_wait");
        for (int each = 0; each < ready; each++)
            reap((pid_t)events[each].data.u32);
        left -= ready;
    }
    must(waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0 && errno == ECHILD, "a child is left");
    return now_ns() - began_ns;
}

int main(int argc, char **argv)
{
    int count = argc == 2 ? atoi(argv[1]) : 0;
    int *fds = calloc((size_t)(count > 0 ? count : 1), sizeof *fds);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    must(count > 0 && fds != NULL && epoll_fd >= 0, "floor N");
    for (int each = 0; each < count; each++)
        fds[each] = start_child(epoll_fd);
    puts("ready");
    fflush(stdout);
    getchar();
    printf("%lld\n", stop_ns(fds, count, epoll_fd) / 1000);
    return 0;
}
