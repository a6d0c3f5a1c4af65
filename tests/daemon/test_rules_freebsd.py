# SPDX-License-Identifier: BSD-2-Clause
"""A rule in a file follows a real jail of FreeBSD by its name."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import need_root
from tests.daemon.product import Daemon, run, wait_until

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("freebsd"), reason="cannot: only FreeBSD names its jails"
)


class Named:
    """Jails by name, which are removed at the end."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self.prefix = f"jd{os.getpid()}"

    def begin(self, name: str, *more: str) -> int:
        """Make one; return its jid."""
        self._names.append(name)
        made = subprocess.run(
            ["jail", "-i", "-c", f"name={name}", "path=/", "persist", *more],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(made.stdout)

    def end(self, name: str) -> None:
        """Remove one."""
        subprocess.run(["jail", "-q", "-r", name], check=True)

    def known(self, jid: int) -> bool:
        """Say whether a jail has this jid, which it keeps while it is dying."""
        shown = ["jls", "-d", "-j", str(jid)]
        return subprocess.run(shown, check=False, capture_output=True).returncode == 0

    def close(self) -> None:
        """Remove what is left."""
        for name in reversed(self._names):
            subprocess.run(["jail", "-q", "-r", name], check=False, capture_output=True)


@pytest.fixture
def named() -> Iterator[Named]:
    """Give jails."""
    need_root()
    made = Named()
    yield made
    made.close()


@pytest.fixture
def ruled(directory: Path, named: Named) -> Iterator[Daemon]:
    """Give a daemon with two rules: for a jail, and for a pattern."""
    file = directory / "rules.toml"
    file.write_text(
        f'[[rule]]\nname = "bell"\njail = "{named.prefix}"\ntitle = "BELL"\ncommand = "true"\n'
        f'[[rule]]\nname = "gong"\njail = "{named.prefix}-*"\ntitle = "GONG"\ncommand = "true"\n',
        encoding="ascii",
    )
    daemon = Daemon(directory, env={**os.environ, "JAILDAEMON_CONFIG": str(file)})
    yield daemon
    print(*daemon.stop(), sep="\n")


def rules(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """Return the rules by id."""
    return {rule["id"]: rule for rule in daemon.call("List")["parameters"]["rules"]}


def wait_shown(daemon: Daemon, rule: str, **values: str) -> dict[str, Any]:
    """Wait until a rule is shown with these values."""
    wait_until(lambda: values.items() <= rules(daemon).get(rule, {}).items(), f"{rule} {values}")
    return rules(daemon)[rule]


def test_a_rule_follows_its_jail(ruled: Daemon, named: Named) -> None:
    assert rules(ruled)["bell"]["state"] == "waiting"
    jids = set()
    for _ in range(2):
        jid = named.begin(named.prefix)
        began = time.monotonic()
        ruled.lines.wait_for("bell: armed in jail ")
        print(f"armed after {time.monotonic() - began:.3f} s")
        seen = rules(ruled)["bell"]
        assert (seen["state"], seen["jid"]) == ("armed", jid)
        jids.add(jid)
        named.end(named.prefix)
        # It is shown as waiting before, too: while its probe is on its way out.
        wait_shown(ruled, "bell", state="waiting", reason="no such jail runs")


def test_a_jail_that_is_made_again_with_the_same_jid_is_another(
    ruled: Daemon, named: Named
) -> None:
    jid = named.begin(named.prefix)
    ruled.lines.wait_for("bell: armed in jail ")
    first = rules(ruled)["bell"]["probe_pid"]
    named.end(named.prefix)
    wait_until(lambda: not named.known(jid), f"jid {jid} is free")
    assert named.begin(named.prefix, f"jid={jid}") == jid
    ruled.lines.wait_for("bell: armed in jail ")
    seen = wait_shown(ruled, "bell", state="armed")
    assert (seen["jid"], seen["probe_pid"] == first) == (jid, False)


def test_a_child_that_a_jails_root_names_fits_no_pattern(ruled: Daemon, named: Named) -> None:
    one = f"{named.prefix}-1"
    jid = named.begin(one, "children.max=5")
    ruled.lines.wait_for(f"gong@{one}: armed in jail ")
    child = ["jail", "-i", "-c", "name=evil", "path=/", "persist"]
    subprocess.run(["jexec", str(jid), *child], check=True, capture_output=True)
    named.begin(f"{named.prefix}-2")
    ruled.lines.wait_for(f"gong@{named.prefix}-2: armed in jail ")
    assert {name for name in rules(ruled) if name.startswith("gong")} == {
        f"gong@{one}",
        f"gong@{named.prefix}-2",
    }


def test_minus_c_is_as_it_was(ruled: Daemon, named: Named) -> None:
    named.begin(named.prefix)
    words = ("-c", "true", "-j", named.prefix, "-t", "ONCE", "-f", ruled.socket)
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
