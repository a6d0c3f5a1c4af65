# SPDX-License-Identifier: BSD-2-Clause
"""`jaildaemon demo`: the whole thing at work, in a throwaway jail, in seconds."""

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jaildaemon.backends import HELPER, throwaway_jail, trust
from jaildaemon.backends.throwaway import ThrowawayJail, be_root
from jaildaemon.cli import client
from jaildaemon.cli.interrupt import interruptible
from jaildaemon.errors import Refused

TITLE = "DEMO_BELL"
LONGEST_SECONDS = 8.0
"""For the one wait of the demo.  A working machine needs milliseconds."""

SELF = [sys.executable, "-I", "-m", "jaildaemon"]

# By plain sh(1), as in an image without procps.  The shell finds the probe
# first and rings when told to, so that what is timed is the signal alone.
FIND_AND_RING = rf"""
if command -v pgrep >/dev/null; then pid=$(pgrep -f '^jaildaemon: {TITLE}')
else for p in /proc/[0-9]*; do
    case $(cat "$p/cmdline" 2>/dev/null) in 'jaildaemon: {TITLE}'*) pid=${{p#/proc/}};; esac
done; fi
echo "$pid"; read -r go; kill -HUP "$pid"
"""
PS = f"ps -ax -o pid,args | grep -v -e 'ps -ax' -e grep || echo '(no ps here)' # {TITLE}"


def _say(number: int, text: str) -> None:
    sys.stdout.write(f"{number}. {text}\n")
    sys.stdout.flush()


def _show(*lines: str) -> None:
    sys.stdout.write("".join(f"     {line}\n" for line in lines))


@contextlib.contextmanager
def _jail() -> Iterator[ThrowawayJail]:
    jail = throwaway_jail()
    try:
        yield jail
    finally:
        jail.close()


@contextlib.contextmanager
def _daemon(directory: Path) -> Iterator[str]:
    """Run a private daemon; gives its socket."""
    socket = str(directory / "pipe")
    arguments = ["-D", "-F", "-f", socket, "-p", str(directory / "pid")]
    arguments += ["--state-dir", str(directory / "state")]
    env = {name: value for name, value in os.environ.items() if name != "JAILDAEMON_CONFIG"}
    daemon = subprocess.Popen([*SELF, *arguments], stderr=subprocess.PIPE, text=True, env=env)
    assert daemon.stderr is not None
    try:
        first = daemon.stderr.readline().strip()
        if " serves " not in first:
            raise Refused("demo", "the daemon", first or "did not start")
        yield socket
    finally:
        daemon.terminate()
        daemon.stderr.close()
        daemon.wait()


def _ring(jail: ThrowawayJail, ran_fd: int) -> tuple[float, str]:
    """Send the signal from inside; return the seconds until the command ran, and its words."""
    inside = subprocess.Popen(
        jail.inside(FIND_AND_RING), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert inside.stdin is not None
    assert inside.stdout is not None
    with inside:
        pid = inside.stdout.readline().strip()
        _show(f"pgrep -f '^jaildaemon: {TITLE}'  ->  {pid or 'nothing'}", f"kill -HUP {pid}")
        began = time.monotonic()
        inside.stdin.write("go\n")
        inside.stdin.flush()
        ready, _, _ = select.select([ran_fd], [], [], LONGEST_SECONDS)
        seconds = time.monotonic() - began
    if not ready:
        raise Refused("demo", "the command", f"did not run within {LONGEST_SECONDS:.0f} s")
    return seconds, os.read(ran_fd, 4096).decode().strip()


def _show_it(directory: Path) -> float:
    fifo = directory / "ran"
    os.mkfifo(fifo, 0o600)
    ran_fd = os.open(fifo, os.O_RDWR)
    with contextlib.closing(os.fdopen(ran_fd, "rb")), _jail() as jail, _daemon(directory) as socket:
        _say(1, "a throwaway jail:")
        _show(f"{jail.what}  ->  -j {jail.jail}")
        _say(2, "a private daemon on the host:")
        _show(f"jaildaemon -D -f {socket}")
        command = f"{jail.space_command} > {shlex.quote(str(fifo))}"
        _say(3, "a rule: when its probe is signalled, run this on the host:")
        _show(f"jaildaemon -c '{command}' -j {jail.jail} -t {TITLE}")
        attach = {"command": command, "jail": jail.jail, "title": TITLE}
        probe_pid = client.call(socket, "Attach", dict(attach))["probe_pid"]
        assert isinstance(probe_pid, int)
        _say(4, "what ps shows inside the jail:")
        seen = subprocess.run(jail.inside(PS), capture_output=True, text=True, check=True).stdout
        _show(*seen.splitlines())
        _say(5, "the signal, sent from inside the jail:")
        probe_space = jail.space_of(probe_pid)
        seconds, command_space = _ring(jail, ran_fd)
        _say(6, f"the two sides ({jail.space_words}):")
        _show(f"probe    {probe_space}  (the jail)", f"command  {command_space}  (the host)")
        if probe_space == command_space or command_space != jail.space_of(os.getpid()):
            raise Refused("demo", "the command", "did not run on the host")
        return seconds


def _check_tree() -> None:
    """Refuse what the daemon would refuse; its remedy, chown, is not for a user's home."""
    try:
        trust.check_program(HELPER)
    except trust.Untrusted as error:
        hint = "run it as that user, or from a clone that root made"
        raise Refused("demo", error.path, error.why, hint) from error


def run() -> int:
    """Run the demo; return the exit code."""
    be_root([*SELF, "demo"])
    _check_tree()
    with (
        interruptible(signal.SIGTERM),
        tempfile.TemporaryDirectory(prefix="jaildaemon-demo.") as directory,
    ):
        seconds = _show_it(Path(directory))
    ms = seconds * 1000
    sys.stdout.write(f"ok: a signal inside the jail ran the command on the host in {ms:.1f} ms\n")
    return 0
