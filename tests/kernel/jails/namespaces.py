# SPDX-License-Identifier: BSD-2-Clause
"""Jails of bare namespaces, made by unshare(1) on the host's own tree."""

import subprocess
from pathlib import Path
from typing import IO, ClassVar

from tests.kernel.events import wait_gone
from tests.kernel.jails.base import NoSuchKind, must, parse_ps
from tests.kernel.jails.linux import FIRST_ID, IDS, LinuxJail
from tests.kernel.processes import children

UNSHARE = [
    "unshare",
    "--fork",
    "--pid",
    "--mount",
    "--mount-proc",
    "--ipc",
    "--uts",
    "--net",
    "cat",
]
PROCPS = {"unshare": "util-linux", "nsenter": "util-linux", "ps": "procps", "pkill": "procps"}


def _answer(process: subprocess.Popen[bytes]) -> None:
    """Wait until cat gives back what it gets: then it stands where it was put."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # the answer is empty then
    if process.stdout.read(1) != b"\n":
        assert process.stderr is not None
        raise NoSuchKind(process.stderr.read().decode().strip() or "unshare failed")


class Namespaces(LinuxJail):
    """Namespaces whose init is cat on a pipe from us: they end with us, whatever happens."""

    kind = "namespaces"
    programs: ClassVar[dict[str, str]] = PROCPS
    full = True
    _unshare: subprocess.Popen[bytes]

    def _popen(self, *argv: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        self.place.note_process(process.pid)
        return process

    @staticmethod
    def _hang_up(process: subprocess.Popen[bytes]) -> None:
        pipes: tuple[IO[bytes] | None, ...] = (process.stdin, process.stdout, process.stderr)
        for pipe in pipes:
            if pipe is not None:
                pipe.close()
        process.wait()

    def _enter(self, *argv: str) -> None:
        self._unshare = self._popen(*argv)
        try:
            _answer(self._unshare)
        except NoSuchKind:
            self._hang_up(self._unshare)
            raise
        (self.init,) = children(self._unshare.pid)

    def start(self) -> None:
        """Make it."""
        self._enter(*UNSHARE)

    def argv(self, *inside: str, uid: int = 0) -> list[str]:
        """Return the command that runs `inside` in the jail."""
        ids = ["--setuid", str(uid), "--setgid", str(uid)]
        return ["nsenter", "--target", self.name, "--all", *ids, "--", *inside]

    def ps(self) -> dict[int, str]:
        """Return what ps shows inside."""
        done = self.inside("ps", "-axww", "-o", "pid=", "-o", "args=")
        assert done.returncode == 0, done.stderr
        return parse_ps(done.stdout)

    def _stop(self) -> None:
        """End its init."""
        self._hang_up(self._unshare)
        wait_gone(self.init)


class UserNamespaces(Namespaces):
    """The same in a user namespace with mapped ids: root inside is FIRST_ID on the host."""

    kind = "user namespaces"
    userns = True

    def start(self) -> None:
        """Make it: first the user namespace, then as its root all the others."""
        holder = self._popen("unshare", "--user", "cat")
        try:
            _answer(holder)
            for name in ("uid_map", "gid_map"):
                path = Path(f"/proc/{holder.pid}/{name}")
                path.write_text(f"0 {FIRST_ID} {IDS}\n", encoding="ascii")
            self._enter(
                "nsenter", "--target", str(holder.pid), "--user", "--setuid", "0", "--setgid", "0",
                *UNSHARE,
            )  # fmt: skip
        except OSError as error:
            raise NoSuchKind(str(error)) from error
        finally:
            self._hang_up(holder)
        # unshare(1) forks too, after nsenter(1) has become it.
        must(self.argv("true"))
