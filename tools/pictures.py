# SPDX-License-Identifier: BSD-2-Clause
"""The README's pictures: what list, log and explain show, by the program's own views.

python tools/pictures.py --write draws them into docs/pictures.  The answers are
written down here, so that a picture changes only when a view does.
"""

import contextlib
import io
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from jaildaemon.cli import logview, output, views

PLACE = Path(__file__).resolve().parent.parent / "docs" / "pictures"
WIDTH = 80
NOW = datetime(2026, 11, 25, 21, 3, 40, tzinfo=UTC)


def rule(**fields: Any) -> dict[str, Any]:
    """Return a rule as the daemon describes it."""
    policy: dict[str, Any] = {
        "respawn": "after",
        "uid": 0,
        "gid": 0,
        "signal": "HUP",
        "limit": "30/1m",
        "cooldown": "0s",
        "timeout": "none",
        "settle": "0s",
        "concurrency": 1,
        "run_as": "root",
    }
    policy |= fields.pop("policy", {})
    return {"source": "transient", "triggers": 0, "refused": 0, "policy": policy, **fields}


RULES = [
    rule(
        id="t1",
        jail="web",
        title="REBOOT",
        command="jail -rc web >/var/log/jail-web.log 2>&1",
        state="armed",
        probe_pid=4720,
        policy={"respawn": "no"},
    ),
    rule(
        id="t2",
        jail="web",
        title="SNAPSHOT",
        command="zfs snapshot jails/web@`date +%s`",
        state="cooling",
        reason="the cooldown of 30s is not over",
        last_trigger="2026-11-25T21:03:19.067Z",
        next_arming="2026-11-25T21:03:49.067Z",
        policy={"cooldown": "30s"},
    ),
    rule(
        id="t3",
        jail="db",
        title="ROUTES",
        command="reload_routing_table.sh db",
        state="limited",
        reason="the limit of 6/1m is reached",
        last_trigger="2026-11-25T21:03:32.400Z",
        next_arming="2026-11-25T21:04:22.400Z",
        policy={"respawn": "now", "limit": "6/1m", "concurrency": 8},
    ),
    rule(
        id="t4",
        jail="db",
        title="RENEW",
        command="certbot renew --quiet",
        state="held",
        reason="held by uid 0 pid 815",
        last_trigger="2026-11-24T03:12:00.000Z",
        refused=2,
    ),
]


def entry(time: str, kind: str, run: int | None = None, **more: Any) -> dict[str, Any]:
    """Return an entry of the log, of rule t2."""
    made = {"time": f"2026-11-25T{time}Z", "kind": kind, "rule": "t2", "jail": "web"}
    named = {} if run is None else {"run": f"1a214851db7-4700.{run}"}
    return {**made, "title": "SNAPSHOT", **named, **more}


ENTRIES = [
    entry("21:02:18.120", "rule", reason="asked for by uid 0 pid 4711"),
    entry("21:02:18.122", "armed"),
    entry("21:02:40.003", "trigger", 1),
    entry("21:02:40.003", "start", 1),
    entry("21:02:40.410", "end", 1, exit_status=0, duration_seconds=0.407),
    entry("21:03:10.411", "armed"),
    entry("21:03:19.067", "trigger", 2, reason="fired by uid 0 pid 4790"),
    entry("21:03:19.067", "start", 2),
    entry("21:03:19.490", "end", 2, exit_status=1, duration_seconds=0.423),
    entry(
        "21:03:19.502",
        "output",
        2,
        output_tail="cannot create snapshot 'jails/web@1795640599': out of space\n",
    ),
    entry("21:03:21.800", "refused", 3, reason="did not settle: the jail has ended"),
]


def _terminal() -> Console:
    return Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=False,
        markup=False,
        highlight=False,
        emoji=False,
    )


def drawn() -> dict[str, str]:
    """Return each picture, by its file's name."""
    found = {}
    for command in ("list", "log", "explain"):
        terminal = _terminal()
        shown = io.StringIO()
        with (
            contextlib.redirect_stdout(shown),
            mock.patch.object(output, "width", return_value=WIDTH),
            mock.patch.object(output, "more", return_value="\u2026"),
        ):
            words = {"list": "list", "log": "log SNAPSHOT", "explain": "explain web SNAPSHOT"}
            output.say(f"# jaildaemon {words[command]}")
            if command == "list":
                views.rules({"rules": RULES}, NOW)
            elif command == "log":
                lines = logview.Lines()
                for one in ENTRIES:
                    for line in lines.of(one):
                        output.say(line)
            else:
                views.explain({"rules": [RULES[1]]}, by_proc=True)
        terminal.print(shown.getvalue(), end="")
        svg = terminal.export_svg(title=f"jaildaemon {command}", unique_id=f"jaildaemon-{command}")
        # A picture loads nothing from elsewhere.
        svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
        found[f"{command}.svg"] = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    return found


def main() -> int:
    """Draw the pictures, or say which are stale."""
    stale = 0
    PLACE.mkdir(exist_ok=True)
    for name, svg in drawn().items():
        path = PLACE / name
        if "--write" in sys.argv:
            path.write_text(svg, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != svg:
            sys.stderr.write(f"{path}: stale: run make pictures\n")
            stale = 1
    return stale


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
