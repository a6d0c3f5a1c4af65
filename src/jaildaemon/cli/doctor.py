# SPDX-License-Identifier: BSD-2-Clause
"""`jaildaemon doctor`: whether this machine is as it must be; each line ok, or what to do."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaildaemon import __version__
from jaildaemon.backends import (
    HELPER,
    OUTPUT_READER,
    Program,
    checks,
    this_system,
    throwaway_jail,
    trust,
)
from jaildaemon.backends.base import Backend, Death, ProbeOwner
from jaildaemon.backends.finding import Finding
from jaildaemon.backends.probe import Probe
from jaildaemon.backends.trial import HINT, trial
from jaildaemon.cli import client, options
from jaildaemon.core.text import process_title
from jaildaemon.daemon.commands import PATH
from jaildaemon.daemon.engine_follower import CANNOT
from jaildaemon.daemon.files import state_directory
from jaildaemon.errors import FOUND_SOMETHING, JaildaemonError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINES = {"docker": "docker", "podman": "podman", "lxc-info": "LXC", "machinectl": "nspawn"}
ENGINES |= {"runc": "runc", "crun": "crun", "jail": "FreeBSD's jails"}
AS_ROOT = "run this as root"


def verdict(findings: list[Finding]) -> int:
    """Return the exit code."""
    return 0 if all(finding.ok for finding in findings) else FOUND_SOMETHING


def examine(socket: str) -> list[Finding]:
    """Examine everything.  What one needs another, which failed, is said only once."""
    findings = [_root(), *checks()]
    findings += [_program("helper", HELPER), _program("output reader", OUTPUT_READER)]
    backend: Backend | None = None
    try:
        backend = this_system()
    except JaildaemonError as error:
        findings.append(_failed("backend", error))
    except OSError as error:
        findings.append(Finding("backend", ok=False, found=error.strerror or str(error)))
    if backend is not None:
        findings.append(_arming(backend))
    status, answer = _answer(socket)
    if backend is not None:
        # That of the daemon that runs, else that of the one that would.
        default = state_directory(backend.state_directory, socket, options.SOCKET)
        findings.append(_state(Path(str(status.get("state") or default))))
    findings += [_place("socket", socket), _engines(), *answer]
    return findings


def _failed(name: str, error: JaildaemonError) -> Finding:
    return Finding(
        name, ok=False, found=": ".join(x for x in (error.on, error.why) if x), hint=error.hint
    )


def _root() -> Finding:
    uid = os.geteuid()
    return Finding("user", ok=uid == 0, found=f"uid {uid}", hint=None if uid == 0 else AS_ROOT)


def _program(name: str, path: Path) -> Finding:
    """Look whether only root can change a program of ours, and start it: it ends by itself."""
    try:
        program = Program(name, path)
    except Refused as error:
        return _failed(name, error)
    with contextlib.closing(program):
        why = trial(program)
    found = str(path) if why is None else f"{path} {why}"
    return Finding(name, ok=why is None, found=found, hint=HINT)


class _Patient(ProbeOwner):
    """Waits for one probe."""

    def __init__(self) -> None:
        self.over = self.stood = False
        self.error: JaildaemonError | None = None
        self.when_armed: Callable[[], None] = lambda: None

    def armed(self) -> None:
        """End it: it has shown that it can stand."""
        self.stood = True
        self.when_armed()

    def failed(self, error: JaildaemonError) -> None:
        """Keep the reason."""
        self.over, self.error = True, error

    def ended(self, death: Death) -> None:  # noqa: ARG002 - however it ended
        """Take note."""
        self.over = True


def _arming(backend: Backend) -> Finding:
    """Arm a probe in a jail that is made for it, and end both."""
    name = "arming"
    if os.geteuid() != 0:
        return Finding(name, ok=False, found="not tried: only root may enter a jail", hint=AS_ROOT)
    try:
        with (
            contextlib.closing(throwaway_jail()) as made,
            contextlib.closing(backend.resolve(made.jail)) as jail,
        ):
            patient = _Patient()
            probe = Probe(backend, jail, patient)
            patient.when_armed = probe.kill
            probe.arm(process_title("doctor"), 0, 0)
            while not patient.over:
                backend.watcher.wait()
    except JaildaemonError as error:
        return _failed(name, error)
    except OSError as error:
        return Finding(name, ok=False, found=f"no jail can be made to try it: {error}")
    if patient.error is not None and not patient.stood:
        return _failed(name, patient.error)
    return Finding(name, ok=True, found="a probe stood in a jail made for it")


def _state(path: Path) -> Finding:
    """Look whether the state directory is root's alone, and has room."""
    try:
        os.close(trust.open_directory(path))
        free = shutil.disk_usage(path).free
    except FileNotFoundError:
        return Finding("state", ok=True, found=f"{path} is not there; the daemon makes it")
    except trust.Untrusted as error:
        return _failed("state", error.refused("doctor"))
    except OSError as error:
        return Finding("state", ok=False, found=f"{path}: {error.strerror}", hint=AS_ROOT)
    found = f"{path}, {free // 2**20} MiB free"
    return Finding("state", ok=free > 0, found=found, hint="free some space")


def _place(name: str, path: str) -> Finding:
    """Look whether only root can put something in the place of a file of ours."""
    try:
        trust.check_place(path)
    except trust.Untrusted as error:
        return Finding(name, ok=False, found=error.why, hint=error.hint)
    except OSError as error:
        return Finding(name, ok=False, found=f"{path}: its directory: {error.strerror}")
    return Finding(name, ok=True, found=path)


def _answer(socket: str) -> tuple[dict[str, Any], list[Finding]]:
    """Return what the daemon says of itself, and what that means."""
    try:
        status = client.call(socket, "Status", {})
        rules: Any = client.call(socket, "List", {})["rules"]
    except JaildaemonError as error:
        return {}, [_failed("daemon", error)]
    version = status["version"]
    found = f"version {version}, pid {status['pid']}"
    if version != __version__:
        found = f"version {version} runs, and {__version__} is installed"
    daemon = Finding("daemon", ok=version == __version__, found=found, hint="jaildaemon restart")
    return status, [daemon, _rules(rules), *_asked(status)]


def _asked(status: dict[str, Any]) -> list[Finding]:
    """Say of each engine that a rule in a file names whether it answers."""
    hint = "start it, or say where it is: jaildaemon.toml(5), The place of an engine"
    return [
        Finding("engine", one["up"], one.get("reason", f"{one['name']} answers"), hint)
        for one in status.get("engines", [])
    ]


def _rules(rules: list[dict[str, Any]]) -> Finding:
    """Count the rules by where they come from; name one that cannot be armed."""
    sources: dict[str, int] = {}
    for rule in rules:
        source = "-c" if rule["source"] == "transient" else rule["source"]
        sources[source] = sources.get(source, 0) + 1
    found = ", ".join(f"{count} from {source}" for source, count in sources.items()) or "none"
    failing = [rule for rule in rules if rule["state"] == "failing" or _cannot(rule)]
    if failing:
        first = failing[0]
        found = f"{first['id']} from {first['source']} is not armed: {first['reason']}"
        found += f"; and {len(failing) - 1} more" if failing[1:] else ""
    hint = "jaildaemon log shows what was tried"
    return Finding("rules", ok=not failing, found=found, hint=hint)


def _cannot(rule: dict[str, Any]) -> bool:
    return str(rule.get("reason", "")).startswith(CANNOT)


def _engines() -> Finding:
    there = [name for tool, name in ENGINES.items() if shutil.which(tool, path=PATH)]
    return Finding("engines", ok=True, found=", ".join(there) or "none")
