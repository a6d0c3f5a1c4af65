# SPDX-License-Identifier: BSD-2-Clause
"""A jail for `jaildaemon demo`: made of what every machine has, gone without a trace."""

import abc
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from jaildaemon.errors import NotPermitted, Refused

_DEMO = "demo"


class ThrowawayJail(abc.ABC):
    """One jail, which ends with `close`, and with us whatever happens."""

    what: str
    """The command that made it, for the reader."""
    jail: str
    """What -j takes."""
    space_words: str
    """What tells this jail from the host: "pid namespace" or "jid"."""
    space_command: str
    """Prints it, for the shell that runs it, on the host."""

    @abc.abstractmethod
    def inside(self, script: str) -> list[str]:
        """Return the command that runs `script` by sh(1) in the jail."""

    @abc.abstractmethod
    def space_of(self, pid: int) -> str:
        """Return the pid namespace or jid of a process, as the host sees it."""

    @abc.abstractmethod
    def close(self) -> None:
        """End it; an ended one is no error."""


class LinuxNamespaces(ThrowawayJail):
    """Namespaces made by unshare(1); their init reads a pipe whose end is its own end."""

    space_words = "pid namespace"
    space_command = "readlink /proc/$$/ns/pid"

    def __init__(self) -> None:
        arguments = ["unshare", "--fork", "--pid", "--mount-proc", "--ipc", "--uts", "cat"]
        self.what = " ".join(arguments)
        self._unshare = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        pipe = self._unshare.stdin
        assert pipe is not None
        # cat gives back what it gets: when it does, it stands in its namespaces.
        try:
            pipe.write(b"\n")
            pipe.flush()
        except BrokenPipeError:
            pass  # the answer below is empty then, and says why
        assert self._unshare.stdout is not None
        if self._unshare.stdout.read(1) != b"\n":
            raise Refused(_DEMO, self.what, self._last_words())
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        try:
            self.jail = children.read_text(encoding="ascii").split()[0]
        except (OSError, IndexError) as error:
            self.close()
            why = "its first process is not in /proc: is proc(5) mounted, and that of this host?"
            raise Refused(_DEMO, self.what, why) from error

    def _last_words(self) -> str:
        assert self._unshare.stderr is not None
        return self._unshare.stderr.read().decode(errors="replace").strip() or "it failed"

    def inside(self, script: str) -> list[str]:
        """Return the command that runs `script` by sh(1) in the jail."""
        return ["nsenter", "--target", self.jail, "--pid", "--mount", "sh", "-c", script]

    def space_of(self, pid: int) -> str:
        """Return the pid namespace of a process."""
        return os.readlink(f"/proc/{pid}/ns/pid")

    def close(self) -> None:
        """End the pipe, so cat, so the namespaces."""
        for pipe in (self._unshare.stdin, self._unshare.stdout, self._unshare.stderr):
            assert pipe is not None
            pipe.close()
        self._unshare.wait()


class FreeBSDJail(ThrowawayJail):
    """A jail on / made by jail(8); it ends with its one process, which reads a pipe of ours."""

    space_words = "jid"
    space_command = "ps -o jid= -p $$"

    def __init__(self) -> None:
        self.jail = f"jaildaemon_demo_{uuid.uuid4().hex[:8]}"
        arguments = ["jail", "-c", f"name={self.jail}", "path=/", "command=/bin/cat"]
        self.what = " ".join(arguments)
        self._made = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        pipe = self._made.stdin
        assert pipe is not None
        # cat gives back what it gets: when it does, it stands in its jail.
        try:
            pipe.write(b"\n")
            pipe.flush()
        except BrokenPipeError:
            pass  # the answer below is empty then, and says why
        assert self._made.stdout is not None
        assert self._made.stderr is not None
        if self._made.stdout.read(1) != b"\n":
            words = self._made.stderr.read().decode(errors="replace").strip()
            raise Refused(_DEMO, self.what, words or "it failed")

    def inside(self, script: str) -> list[str]:
        """Return the command that runs `script` by sh(1) in the jail."""
        return ["jexec", self.jail, "sh", "-c", script]

    def space_of(self, pid: int) -> str:
        """Return the jid of a process."""
        ps = ["ps", "-o", "jid=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, text=True, check=True).stdout.strip()

    def close(self) -> None:
        """End the pipe, so cat, so the jail."""
        for pipe in (self._made.stdin, self._made.stdout, self._made.stderr):
            assert pipe is not None
            pipe.close()
        self._made.wait()
        # Whoever came by jexec(8) would keep it.
        subprocess.run(["jail", "-r", self.jail], capture_output=True, check=False)


def be_root(arguments: list[str]) -> None:
    """Return if we are root; else run `arguments` in a user namespace where we are."""
    if os.geteuid() == 0:
        return
    unshare = shutil.which("unshare")
    try_it = [unshare or "unshare", "--user", "--map-root-user"]
    if (
        unshare
        and subprocess.run([*try_it, "true"], capture_output=True, check=False).returncode == 0
    ):
        os.execv(unshare, [*try_it, *arguments])
    why = "needs root, and this system gives no user namespace instead"
    raise NotPermitted(_DEMO, "", why, "sudo jaildaemon demo")
