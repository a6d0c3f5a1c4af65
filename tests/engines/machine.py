# SPDX-License-Identifier: BSD-2-Clause
"""systemd as a first process, whatever the first process of the machine under the tests is."""

import os
import signal
import subprocess
from pathlib import Path

from tests.kernel.events import PATIENCE_SECONDS, Fifo, TooLate, wait_gone
from tests.kernel.jails.base import NoSuchKind
from tests.kernel.place import CGROUPS, Place

SCRIPT = Path(__file__).with_name("machine.sh")
SYSTEMD = Path("/usr/lib/systemd/systemd")
UNSHARE = ["unshare", "--fork", "--kill-child", "--mount", "--pid", "--uts", "--ipc", "--net"]


class Machine:
    """Namespaces whose first process is a systemd, with dbus and machined."""

    def __init__(self, place: Place) -> None:
        for path in (SYSTEMD, SYSTEMD.with_name("systemd-machined"), Path("/usr/bin/dbus-daemon")):
            if not path.exists():
                raise NoSuchKind(f"no {path}: install systemd, systemd-container and dbus")
        tops = [top for top in (CGROUPS, CGROUPS / "unified") if (top / "cgroup.procs").exists()]
        if not tops:
            raise NoSuchKind(f"no cgroup2 is mounted at {CGROUPS} or {CGROUPS}/unified")
        name = f"{place.cgroup}-systemd"
        place.note("cgroup", name)
        cgroup = tops[0] / name
        ready = Fifo(place.new_directory("m") / "ready")
        # It ends with us, whatever ends us; by SIGTERM neither unshare nor systemd would.
        argv = ["setpriv", "--pdeathsig=KILL", *UNSHARE, "sh", str(SCRIPT)]
        with ready.path.with_name("log").open("wb") as log:
            try:
                cgroup.mkdir()
                self._outer = subprocess.Popen(
                    [*argv, cgroup, ready.path], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            except OSError as error:
                raise NoSuchKind(f"no machine: {error}") from error
        place.note_process(self._outer.pid)
        try:
            ready.wait()
        except TooLate as error:
            said = self._said(Path(log.name))
            self.close()
            raise NoSuchKind(f"no machine: {error}: {said}") from error
        finally:
            ready.close()

    def _said(self, log: Path) -> str:
        """Return the last words of what should have made it, or of its journal."""
        words, first = log.read_text(encoding="utf-8", errors="replace"), self._first()
        if first is not None:
            inside = ["nsenter", f"--target={first}", "--mount", "--pid", "--"]
            journal = [*inside, "journalctl", "--no-pager", "--output=cat", "--lines=5"]
            words += subprocess.run(journal, capture_output=True, text=True, check=False).stdout
        return "; ".join(words.splitlines())

    def _first(self) -> int | None:
        outer = self._outer.pid
        path = Path(f"/proc/{outer}/task/{outer}/children")
        try:
            children = path.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return None
        return int(children[0]) if children else None

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command in it, in a scope of its own."""
        spaces = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup")
        scope = ("systemd-run", "--quiet", "--scope", "--collect", "--property=Delegate=yes")
        return ("nsenter", f"--target={self._first()}", *spaces, "--", *scope, "--")

    def close(self) -> None:
        """End it; nothing outlives the first process of its namespace."""
        first = self._first()
        if first is not None:
            os.kill(first, signal.SIGKILL)
            wait_gone(first)
        self._outer.wait(timeout=PATIENCE_SECONDS)
