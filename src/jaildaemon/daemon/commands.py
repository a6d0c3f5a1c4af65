# SPDX-License-Identifier: BSD-2-Clause
"""Starting a rule's command on the host, and keeping the end of its output.

Nothing from the jail is in it: the command is the administrator's, the
environment is built here, and no value in it was chosen inside.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable

from jaildaemon.backends.base import Backend, Death
from jaildaemon.core.text import utf8
from jaildaemon.daemon.accounts import Account
from jaildaemon.daemon.output import Output

PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
SHELL = "/bin/sh"
UMASK = 0o022
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""By Python; a command has what is usual."""


def environment(home: str, values: dict[str, str]) -> dict[str, str]:
    """Return the command's whole environment: JAILDAEMON_*, and three fixed values.

    Ours come first: of some processes FreeBSD 15 shows no more than the beginning.
    """
    return {
        **{f"JAILDAEMON_{name}": value for name, value in values.items()},
        "PATH": PATH,
        "HOME": home,
        "LANG": "C.UTF-8",
    }


class Command:
    """One started command: its shell, and its output."""

    def __init__(self, backend: Backend, ring: str, *, pid: int = 0) -> None:
        self._backend, self.pid = backend, pid
        self.output = Output(backend, ring)
        self.told = False
        """Whether it was told to end."""
        self._ended = False

    def start(
        self, command: str, account: Account, values: dict[str, str], ended: Callable[[Death], None]
    ) -> None:
        """Start `command` by sh(1) in a session of its own; OSError where it cannot be.

        Its output is then to be read: after the start, so that this costs it no time.
        `ended` is called when the shell has ended, whoever still holds its output.
        """
        found = environment(account.home, values)
        variables = {utf8(name): utf8(value) for name, value in found.items()}
        read_fd, write_fd = os.pipe()
        # Who holds the other end may open it here, and read what we were told is there.
        os.set_blocking(read_fd, False)
        try:
            if account.uid == os.geteuid() and self._backend.spawns_sessions:
                self.pid = self._spawn(command, variables, write_fd)
            else:
                self.pid = self._fork(command, variables, write_fd, account)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self.output.pipe_fd = read_fd
        self._backend.watcher.watch_process(self.pid, ended)

    def _spawn(self, command: str, variables: dict[bytes, bytes], output_fd: int) -> int:
        """Start it as ourselves, the fastest way; the daemon's directory is / already."""
        with self._backend.first_limits(room=True):
            before, low_fd = os.umask(UMASK), -1
            try:
                # glibc takes no descriptor above the limit for what it is to do.
                low_fd = os.dup(output_fd)
                return os.posix_spawn(
                    SHELL,
                    [b"/bin/sh", b"-c", utf8(command)],
                    variables,
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, low_fd, 1),
                        (os.POSIX_SPAWN_DUP2, low_fd, 2),
                    ],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=_IGNORED,
                )
            finally:
                os.umask(before)
                if low_fd >= 0:
                    os.close(low_fd)

    def _fork(
        self,
        command: str,
        variables: dict[bytes, bytes],
        output_fd: int,
        account: Account,
    ) -> int:
        """Start it as another user, or where a spawn cannot begin a session."""
        user: dict[str, object] = {}
        if account.uid != os.geteuid():
            groups = list(account.groups)
            user = {"user": account.uid, "group": account.gid, "extra_groups": groups}
        null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._backend.first_limits(room=True):
                # mypy cannot see which arguments **user has.
                process = subprocess.Popen(  # type: ignore[call-overload]
                    [SHELL, "-c", utf8(command)],
                    stdin=null_fd,
                    stdout=output_fd,
                    stderr=output_fd,
                    cwd="/",
                    env=variables,
                    start_new_session=True,
                    umask=UMASK,
                    **user,
                )
        finally:
            os.close(null_fd)
        process.returncode = 0  # the watcher reaps it: subprocess must not try to
        return int(process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Signal the command's process group."""
        self.told = True
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # its last member is a zombie, or (FreeBSD) all are

    def ended(self) -> None:
        """Take note that its shell is reaped."""
        self._ended = True

    @property
    def outlived(self) -> bool:
        """Whether it was told to end, its shell has, and some of its group have not."""
        if not (self.told and self._ended):
            return False
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def kill(self) -> None:
        """Kill what is left of its process group."""
        if self._ended:
            # While a group has members no process is given its number.  One that
            # has it is a stranger, and the group is gone.
            with contextlib.suppress(ProcessLookupError):
                os.getsid(self.pid)
                return
        self.signal(signal.SIGKILL)
