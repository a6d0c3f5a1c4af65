# SPDX-License-Identifier: BSD-2-Clause
"""The daemon's counts for Prometheus, for the node exporter's textfile directory."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jaildaemon.cli import client
from jaildaemon.cli.interrupt import interruptible
from jaildaemon.core.fleet import Shown
from jaildaemon.errors import JaildaemonError, Refused

GAUGES = {
    # name, field of Status, help
    "uptime_seconds": ("uptime_seconds", "Since the daemon began."),
    "probes": ("probes", "Probes that stand in jails."),
    "runs": ("running", "Commands that run."),
    "queue": ("queued", "Runs that wait for a place."),
    "warnings": ("warnings", "What an administrator should look at."),
}
LABELS = ["rule", "jail", "title"]


class _Counts(Collector):
    """What one daemon says, asked once; None where there is no daemon."""

    def __init__(self, status: dict[str, Any] | None, rules: list[dict[str, Any]]) -> None:
        self._status, self._rules = status, rules

    def collect(self) -> Iterator[Metric]:
        """Give each metric."""
        status = self._status
        yield _gauge("up", "Whether the daemon answers.", 0 if status is None else 1)
        if status is None:
            return
        build = GaugeMetricFamily("jaildaemon_build_info", "Its version.", labels=["version"])
        build.add_metric([status["version"]], 1)
        yield build
        for name, (field, words) in GAUGES.items():
            value = status[field]
            yield _gauge(name, words, len(value) if isinstance(value, list) else value)
        for name in ("triggers", "refused"):
            words = f"{name.capitalize()} since the daemon began."
            yield CounterMetricFamily(f"jaildaemon_{name}", words, value=status[name])
        engines = GaugeMetricFamily(
            "jaildaemon_engine_up", "Whether an engine that rules name answers.", labels=["engine"]
        )
        for engine in status.get("engines", []):
            engines.add_metric([engine["name"]], engine["up"])
        yield engines
        states = GaugeMetricFamily("jaildaemon_rules", "Rules, by state.", labels=["state"])
        for state in Shown:
            states.add_metric([state.value], sum(r["state"] == state.value for r in self._rules))
        yield states
        yield from self._of_rules()

    def _of_rules(self) -> Iterator[Metric]:
        for name in ("triggers", "refused"):
            words = f"{name.capitalize()} of the rule."
            counter = CounterMetricFamily(f"jaildaemon_rule_{name}", words, labels=LABELS)
            for rule in self._rules:
                counter.add_metric(_labels(rule), rule[name])
            yield counter
        last = GaugeMetricFamily(
            "jaildaemon_rule_last_trigger_timestamp_seconds", "Its last trigger.", labels=LABELS
        )
        for rule in self._rules:
            if "last_trigger" in rule:
                when = datetime.fromisoformat(rule["last_trigger"]).timestamp()
                last.add_metric(_labels(rule), when)
        yield last


def _labels(rule: dict[str, Any]) -> list[str]:
    return [rule["id"], rule["jail"], rule.get("title", "")]


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"jaildaemon_{name}", words, value=value)


def _text(status: dict[str, Any] | None, rules: list[dict[str, Any]]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Counts(status, rules))
    return generate_latest(registry)


def _check(path: str) -> None:
    """Refuse what a regular file must not take the place of: a device, a fifo, a link."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        why = "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "is not a regular file"
        raise Refused("metrics", path, why, "-o - is standard output")


def _write(path: str, data: bytes) -> None:
    """Replace the file in one step: its reader sees the old one or the new one."""
    new = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"  # not *.prom: the exporter does not read it
    try:
        _check(path)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                # The exporter is not root, whatever our umask is.
                os.fchmod(file.fileno(), 0o644)
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            raise
    except OSError as error:
        raise Refused("metrics", path, error.strerror or str(error)) from error


def run(socket: str, output: str | None) -> int:
    """Write the metrics; return the exit code.

    Where the daemon does not answer a file says so, for who reads it sees no exit code.
    """
    missing: JaildaemonError | None = None
    status: dict[str, Any] | None = None
    rules: Any = []
    try:
        status = client.call(socket, "Status", {})
        rules = client.call(socket, "List", {})["rules"]
    except JaildaemonError as error:
        missing, status = error, None
    data = _text(status, rules)
    if output not in (None, "-"):
        with interruptible():
            _write(str(output), data)
    elif missing is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    if missing is not None:
        raise missing
    return 0
