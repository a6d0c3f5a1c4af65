# SPDX-License-Identifier: BSD-2-Clause
"""A jail whose first process is the attacker, in the variants that engines make.

Run as a program it becomes that jail: prints "init PID"; all else on its
standard output is the attacker's.  It ends with its standard input.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

assert sys.platform == "linux"

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from tests.contract import linux_jail

# linux/capability.h.  Docker's defaults: moby, oci/caps/defaults.go.
SYS_PTRACE, SYS_ADMIN = 19, 21
ALL_CAPS = (1 << 41) - 1
DOCKER_CAPS = sum(1 << cap for cap in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
PR_CAPBSET_DROP = 24
MS_BIND = 0x1000
SHIFTED = f"0 {linux_jail.FIRST_MAPPED} {linux_jail.MAPPED}"
OPEN_TREE, MOVE_MOUNT = 428, 429  # asm-generic/unistd.h; linux/mount.h, linux/fcntl.h
TREE_CLONE, EMPTY_PATH, AT_RECURSIVE, AT_FDCWD = 1, 4, 0x8000, -100


@dataclass(frozen=True)
class Plan:
    """What kind of jail."""

    caps: int = DOCKER_CAPS
    user: bool = False
    """A user namespace of its own."""
    maps: list[str] = field(default_factory=list)
    """Its ids; of more than one, each is inside the one before."""
    proc: str = "own"
    """"own", "none", "hidepid"."""
    same: list[str] = field(default_factory=list)
    """Namespaces it shares with the host."""
    binds: dict[str, str] = field(default_factory=dict)
    """Host paths that are mounted into it."""
    hostile: bool = False
    """Its tree is made of traps."""


PLANS = {
    "docker": Plan(),
    "all-but-ptrace": Plan(ALL_CAPS & ~(1 << SYS_PTRACE)),
    "user-namespace": Plan(ALL_CAPS, user=True),
    "no-proc": Plan(proc="none"),
    "hidepid": Plan(proc="hidepid"),
    "privileged": Plan(ALL_CAPS),
}
MAPS = {
    "none": [],
    "shifted": [SHIFTED],
    "root only": ["0 0 1"],
    "identity of 65536": ["0 0 65536"],
    "identity of all": [f"0 0 {2**32 - 1}"],
    "nested": [f"0 0 {2**32 - 1}", "0 0 65536"],
}
"""By which ids a user namespace knows the host's: with 0 mapped, its root is the host's uid."""
MAPPED_CAGES = {
    f"{name}{' and SYS_PTRACE' if traces else ''}": Plan(
        ALL_CAPS
        if maps and traces
        else ALL_CAPS & ~(1 << SYS_PTRACE)
        if maps
        else DOCKER_CAPS | traces << SYS_PTRACE,
        user=bool(maps),
        maps=maps,
    )
    for name, maps in MAPS.items()
    for traces in (False, True)
}
TRACES = "none and SYS_PTRACE"
"""The one of them that may trace by right of the first user namespace."""
UNPRIVILEGED = [name for name in PLANS if name != "privileged"]


class Cage:
    """One jail, from outside: `ask` the attacker, a command a line."""

    def __init__(self, attacker: Path, plan: Plan) -> None:
        self.plan = plan
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(attacker), json.dumps(asdict(plan))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        # In any order; each is one write.
        first = sorted(self._line() for _ in range(2))
        assert first[1] == "ready", first
        self.init = int(first[0].removeprefix("init "))
        self.pidfd = os.pidfd_open(self.init)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.endswith("\n"), "the jail has ended"
        return line.rstrip("\n")

    def answer(self) -> list[str]:
        """Read until the end of an answer."""
        lines = []
        while (line := self._line()) != ".":
            lines.append(line)
        return lines

    def tell(self, command: str) -> None:
        """Send a command without waiting for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def ask(self, command: str) -> list[str]:
        """Have a command carried out; return what it says."""
        self.tell(command)
        return self.answer()

    def counts(self, command: str = "counts") -> dict[str, str]:
        """Return the attacker's own counters; "stop" ends the attack."""
        (line,) = self.ask(command)
        return dict(word.split("=", 1) for word in line.split())

    def number(self, host_pid: int) -> int:
        """Return the number that a process has inside."""
        for line in Path(f"/proc/{host_pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
        raise AssertionError(host_pid)

    def close(self) -> None:
        """End it; an ended one is no error."""
        if self.pidfd < 0:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self._process.wait()
        os.close(self.pidfd)
        self.pidfd = -1


# --- inside ----------------------------------------------------------------------


def _traps() -> None:
    """Whatever a careless program opens in the jail is a trap: fifos, links, other data."""
    for name in ("etc", "lib", "lib64", "dev", "bin", "usr/lib", "proc/self", "proc/thread-self"):
        os.makedirs(f"/tmp/{name}", exist_ok=True)
    Path("/tmp/etc/passwd").write_text("bell:x:42:42::/:/bin/sh\n", encoding="ascii")
    Path("/tmp/etc/nsswitch.conf").write_text("passwd: files\n", encoding="ascii")
    for name in ("dev/null", "dev/console", "lib64/ld-linux-x86-64.so.2", "proc/self/attr"):
        os.mkfifo(f"/tmp/{name}")
    for name in ("libc.so.6", "libnss_files.so.2"):
        os.symlink("/dev/null", f"/tmp/lib/{name}")


def _own_root(libc: ctypes.CDLL, content: bytes, plan: Plan) -> None:
    def mount(
        source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None
    ) -> None:
        words = [None if word is None else word.encode() for word in (source, target, kind, data)]
        result = libc.mount(*words[:3], ctypes.c_ulong(flags), words[3])
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"mount {target}: {os.strerror(number)}")

    mount("none", "/", flags=linux_jail.MS_REC | linux_jail.MS_PRIVATE)
    binds = {}
    os.makedirs("/tmp", exist_ok=True)
    for source, target in plan.binds.items():
        # With all that is mounted below it now, as engines do: /tmp may be a file system apart.
        tree = libc.syscall(OPEN_TREE, AT_FDCWD, source.encode(), TREE_CLONE | AT_RECURSIVE)
        if tree < 0:
            raise OSError(ctypes.get_errno(), f"open_tree {source}")
        binds[target] = (tree, os.path.isdir(source))
    mount("jail", "/tmp", "tmpfs")
    for name in ("proc", "old"):
        os.mkdir(f"/tmp/{name}")
    program = Path("/tmp/attacker")
    program.write_bytes(content)
    program.chmod(0o755)
    for target, (tree, is_directory) in binds.items():
        place = Path(f"/tmp{target}")
        if is_directory:
            place.mkdir()
        else:
            place.touch()
        if libc.syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, str(place).encode(), EMPTY_PATH) != 0:
            raise OSError(ctypes.get_errno(), f"move_mount {target}")
        os.close(tree)
    if plan.hostile:
        mount("proc", "/tmp/proc", "tmpfs")
        _traps()
        mount("/tmp/etc", "/tmp/lib64", flags=MS_BIND)
    elif plan.proc != "none":
        mount("proc", "/tmp/proc", "proc", data="hidepid=2" if plan.proc == "hidepid" else None)
    pivot = linux_jail.PIVOT_ROOT[os.uname().machine]
    if libc.syscall(pivot, b"/tmp", b"/tmp/old") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    os.chdir("/")
    if libc.umount2(b"/old", linux_jail.MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), "umount2")
    os.rmdir("/old")


def _become(attacker: str, plan: Plan) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    content = Path(attacker).read_bytes()
    for ids in plan.maps or [SHIFTED] * plan.user:
        linux_jail._own_user_namespace(libc, ids)
    pid_flag = 0 if "pid" in plan.same else 0x20000000
    others = linux_jail.OTHERS & ~0x20000000 | pid_flag
    if libc.unshare(linux_jail.NEWNS | others) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    init = os.fork()
    if init:
        os.write(1, f"init {init}\n".encode())
        # Its answers are over when it is.
        status = os.waitpid(init, 0)[1]
        with contextlib.suppress(BrokenPipeError):
            os.write(1, f"ended {status}\n.\n".encode())
        return
    os.setsid()
    _own_root(libc, content, plan)
    for cap in range(64):
        if not plan.caps >> cap & 1:
            libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)
    os.closerange(3, 64)
    os.execve("/attacker", ["attacker"], {})


Maker = Callable[[Plan], Cage]

if __name__ == "__main__":
    _become(sys.argv[1], Plan(**json.loads(sys.argv[2])))
