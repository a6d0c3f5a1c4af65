# SPDX-License-Identifier: BSD-2-Clause
"""Starting a rule's command on the host, and keeping the end of its output.

Nothing from the jail is in it: the command is the administrator's, the
environment is built here, and no value in it was chosen inside.
"""

import contextlib
import functools
import os
import pwd
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from jaildaemon.backends.base import Backend, Death
from jaildaemon.errors import Refused

PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
SHELL = "/bin/sh"
UMASK = 0o022
RING_BYTES = 65536
HEAD_BYTES = 8
RETRY_SECONDS = 1.0
OUTPUT_SECONDS = 1.0
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""By Python; a command has what is usual."""
OUTPUT_READER = Path(__file__).resolve().parent.parent / "libexec" / "jailoutput"


@functools.cache
def _account(name: str) -> pwd.struct_passwd:
    # Once for each name: it may ask a directory server, and the daemon waits for none.
    return pwd.getpwnam(name)


def check_user(name: str) -> None:
    """Refuse a run_as that the host does not know."""
    try:
        _account(name)
    except KeyError:
        raise Refused("attach", f"run_as {name}", "the host has no such user") from None


def environment(home: str, values: dict[str, str]) -> dict[str, str]:
    """Return the command's whole environment: three fixed values, and JAILDAEMON_*."""
    return {
        "PATH": PATH,
        "HOME": home,
        "LANG": "C.UTF-8",
        **{f"JAILDAEMON_{name}": value for name, value in values.items()},
    }


def take_ring(path: Path) -> bytes:
    """Return the output that helper/output.c kept in `path`, and remove the file."""
    try:
        data = path.read_bytes()
        path.unlink()
    except FileNotFoundError:
        return b""
    total = int.from_bytes(data[:HEAD_BYTES], "little")
    ring = data[HEAD_BYTES:]
    if total <= len(ring):
        return ring[:total]
    at = total % RING_BYTES
    return ring[at:] + ring[:at]


class Command:
    """One started command: its shell, and the reader of its output."""

    def __init__(self, backend: Backend, ring: Path, *, pid: int = 0) -> None:
        self._backend, self._ring, self.pid = backend, ring, pid
        self._pipe_fd = -1
        self._told = self._ended = False
        self._reader_done = False  # of an adopted command nobody ever tells us
        self._output_wanted: Callable[[Path], None] | None = None

    def start(
        self, command: str, run_as: str, values: dict[str, str], ended: Callable[[Death], None]
    ) -> None:
        """Start `command` by sh(1) in a session of its own; OSError where it cannot be.

        `ended` is called when the shell has ended, whoever still holds its output.
        """
        account = _account(run_as)
        variables = environment(account.pw_dir, values)
        read_fd, write_fd = os.pipe()
        try:
            if account.pw_uid == os.geteuid() and self._backend.spawns_sessions:
                self.pid = self._spawn(command, variables, write_fd)
            else:
                self.pid = self._fork(command, variables, write_fd, account)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self._pipe_fd = read_fd
        self._backend.watcher.watch_process(self.pid, ended)
        # After the command: what reads its output costs it no time.
        self._start_reader()

    def _spawn(self, command: str, variables: dict[str, str], output_fd: int) -> int:
        """Start it as ourselves, the fastest way; the daemon's directory is / already."""
        with self._backend.first_limits(room=True):
            before, low_fd = os.umask(UMASK), -1
            try:
                # glibc takes no descriptor above the limit for what it is to do.
                low_fd = os.dup(output_fd)
                return os.posix_spawn(
                    SHELL,
                    [SHELL, "-c", command],
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
        variables: dict[str, str],
        output_fd: int,
        account: pwd.struct_passwd,
    ) -> int:
        """Start it as another user, or where a spawn cannot begin a session."""
        user: dict[str, object] = {}
        if account.pw_uid != os.geteuid():
            groups = os.getgrouplist(account.pw_name, account.pw_gid)
            user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
        null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._backend.first_limits(room=True):
                process = subprocess.Popen(  # type: ignore[call-overload]
                    [SHELL, "-c", command],
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

    def _start_reader(self) -> None:
        # The command runs: whatever fails from here on must not look as if it did not.
        ring_fd = -1
        try:
            ring_fd = self._open_ring()
            reader = os.posix_spawn(
                OUTPUT_READER,
                ["jailoutput"],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self._pipe_fd, 0),
                    (os.POSIX_SPAWN_DUP2, ring_fd, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_RDWR, 0),
                ],
            )
        except OSError:
            # Until there is room for one more process, the pipe itself holds 64 KiB.
            self._backend.watcher.call_in(RETRY_SECONDS, self._start_reader)
            return
        finally:
            if ring_fd >= 0:
                os.close(ring_fd)
        os.close(self._pipe_fd)
        self._pipe_fd = -1
        self._backend.watcher.watch_process(reader, lambda _: self._reader_ended())

    def _open_ring(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._ring, flags, 0o600)
        except OSError:
            # No room for the output: it is read all the same, so that nobody blocks.
            return os.open(os.devnull, os.O_RDWR)

    def signal(self, number: signal.Signals) -> None:
        """Signal the command's process group."""
        self._told = True
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
        if not (self._told and self._ended):
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

    @property
    def has_reader(self) -> bool:
        """Whether nothing of the output depends on this process any more."""
        return self._pipe_fd < 0

    def when_read(self, take: Callable[[Path], None]) -> None:
        """Give the file of the output once, when all of it is read, for `take_ring`.

        The command has ended.  A jail it started may hold its output for months:
        what was written by OUTPUT_SECONDS after its end is what there is.
        """
        self._output_wanted = take
        seconds = 0.0 if self._reader_done else OUTPUT_SECONDS
        self._backend.watcher.call_in(seconds, self._give_output)

    def _reader_ended(self) -> None:
        self._reader_done = True
        self._give_output()

    def _give_output(self) -> None:
        take, self._output_wanted = self._output_wanted, None
        if take is not None:
            take(self._ring)
