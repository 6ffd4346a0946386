"""The parent of an agent: waits, forwards signals, reaps, and takes over when the agent dies without a word.

The process that a person started forks before anything slow is imported: the parent stays small, the child goes on
as the agent. Standard library only; works as PID 1. What a takeover needs is imported when it comes to that (`heir`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket

from workers import link, signals

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
WAITED_FOR = (*FORWARDED, signal.SIGCHLD)


def guard() -> int | None:
    """Fork. Gives None in the agent, and in the guardian, when all is over, the exit code."""
    guardian_pid = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # a signal that comes while we fork waits until somebody can take it
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    pid = os.fork()
    if pid == 0:
        ours.close()
        link.guardian.end = theirs
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)
        os.setsid()  # the terminal's Ctrl-C comes to the guardian alone, and once
        from workers.prctl import end_with_parent

        end_with_parent(guardian_pid)
        return None
    theirs.close()
    return _Guardian(pid, ours).watch()


class _Guardian:
    """Owns the agent's handle and the link; polls both, and signals, in one loop without a timer."""

    def __init__(self, pid: int, ours: socket.socket) -> None:
        self._pid = pid
        self._handle = signals.hold(pid)
        self._link = ours
        self._told: dict[str, str] = {}  # the agent's last message of each kind
        self._wake_fd, wake_up_fd = os.pipe()
        for fd in (self._wake_fd, wake_up_fd):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_up_fd, warn_on_full_buffer=False)
        for each in WAITED_FOR:
            if signal.getsignal(each) is not signal.SIG_IGN:  # under nohup, a hang-up stays ignored
                signal.signal(each, _nothing)  # the number in the pipe is what counts
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR)

    def watch(self) -> int:
        """Wait for the agent's end, then see to what it left."""
        poll = select.poll()
        for fd in (self._wake_fd, self._link.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._link.fileno() in ready and not self._listen():
                poll.unregister(self._link.fileno())
            if self._wake_fd in ready:
                self._forward()
                status = self._reap()
                if status is not None:
                    return self._after(status)

    def _listen(self) -> bool:
        """Take the agent's messages; False once there can be no more."""
        data = self._link.recv(link.MESSAGE_MAX_BYTES)
        if not data:
            return False
        text = data.decode()
        kind = text.partition('"kind": "')[2].partition('"')[0]  # what the agent writes, always first
        self._told[kind] = text
        if kind == "watch":
            from workers.prctl import become_subreaper

            become_subreaper()
            self._link.send(b"ok")
        return True

    def _forward(self) -> None:
        numbers = os.read(self._wake_fd, 4096)
        for number in numbers:
            if number != signal.SIGCHLD and "over" not in self._told:  # its exit code is made
                # not waited for yet, so its pid is its own, where there is no pidfd
                with contextlib.suppress(ProcessLookupError):
                    signals.send(self._pid, self._handle, number)

    def _reap(self) -> os.waitid_result | None:
        """Reap whoever ended; gives the agent's end."""
        agent = None
        with contextlib.suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
                agent = found if found.si_pid == self._pid else agent
        return agent

    def _after(self, status: os.waitid_result) -> int:
        while self._link_has_more() and self._listen():
            pass
        crashed = status.si_code != os.CLD_EXITED
        if "over" in self._told or "watch" not in self._told:
            return 128 + status.si_status if crashed else status.si_status
        from workers.heir import inherit

        return inherit(self._told, status.si_status, crashed=crashed)

    def _link_has_more(self) -> bool:
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        return bool(poll.poll(0))


def _nothing(_number: int, _frame: object) -> None:
    pass
