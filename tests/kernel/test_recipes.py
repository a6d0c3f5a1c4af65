# SPDX-License-Identifier: BSD-2-Clause
"""The recipes of docs/recipes, run as they are written, in containers of their engines."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from jaildaemon.core.rules import Policy, make_policy
from tests.kernel.conftest import skip_or_fail
from tests.kernel.events import PATIENCE_SECONDS
from tests.kernel.jails import KINDS, Jails, cannot_have
from tests.kernel.jails.base import Jail, NoSuchKind
from tests.kernel.jails.namespaces import Namespaces
from tests.kernel.product import JAILDAEMON, Daemon
from tests.kernel.recipes import PAGES, RECIPES, blocks, by_us, caller

# --- what can be said of every page --------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_each_page_says_whether_it_was_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (tried,) = re.findall(r"^Tried: (.*)\.$", text, re.MULTILINE)
    # tests/engines/test_engine_recipes.py runs what is in a file of the engine's own.
    ran = blocks(page, "sh run") or blocks(page, "ini")
    honest = ("run",) if ran else ("run by hand", "read, not run")
    assert tried.startswith(honest)
    index = (RECIPES / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\|.*\({re.escape(page.name)}\) \| (.*) \|$", index, re.MULTILINE)
    assert row.startswith(tried.split(",")[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_no_hook_can_remove_a_jail(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        if re.search(r"(poststart|ExecStartPost|prestop).*jaildaemon ", line):
            assert "|| logger -t jaildaemon " in line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_what_restarts_a_jail_says_where_its_output_goes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if re.search(r"restart|jail -rc|lxc-start", text) and page.stem != "tasks":
        assert re.search(r"\bOutput:?|the output is sent", text)
    for line in text.splitlines():
        if re.search(r"(jail -rc|(ezjail-admin|bastille|iocage|appjail) restart) ?[\w$.{}]*", line):
            assert ">/var/log/jail-" in line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_each_rule_in_a_file_has_fields_that_there_are(page: Path) -> None:
    (text,) = blocks(page, "toml")
    known = {"jail", "title", "command", *(field.name for field in fields(Policy))}
    for rule in tomllib.loads(text)["rule"]:
        assert {"jail", "title", "command"} <= rule.keys() <= known
        make_policy(**{k: v for k, v in rule.items() if k not in ("jail", "title", "command")})


# --- run ------------------------------------------------------------------------------


@pytest.fixture
def run(directory: Path, daemon: Daemon) -> Callable[..., str]:
    """Give what runs a block of a page; `tools` takes the place of programs in it."""

    def tool(name: str, *argv: str) -> str:
        path = directory / "tools" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {" ".join(argv)} "$@"\n', encoding="ascii")
        path.chmod(0o755)
        return str(path)

    ours = caller(directory, JAILDAEMON, daemon.socket)

    def run_block(script: str, jail: str, **tools: list[str]) -> str:
        # By absolute path: a rule's command looks for programs on a path of its own.
        script = by_us(script, ours)
        for name, argv in tools.items():
            path = tool(name, *argv)
            script = re.sub(rf"(?<![\w/-]){name.replace('_', '-')}(?= )", path, script)
        done = subprocess.run(
            ["sh", "-eu", "-c", script],
            env={**os.environ, "J": jail},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run_block


ENGINES = [kind for kind in KINDS if kind.kind in ("docker", "podman", "lxc")]


@pytest.fixture(params=ENGINES, ids=lambda kind: str(kind.kind))
def container(jails: Jails, request: pytest.FixtureRequest) -> Iterator[Jail]:
    """Give a container of each engine that has a page."""
    try:
        made = jails.fresh(request.param)
    except NoSuchKind as error:
        skip_or_fail(f"{request.param.kind}: {error}", cannot_have(request.param))
        raise
    yield made
    made.stop()


def engine_of(container: Jail) -> tuple[str, dict[str, list[str]]]:
    """Return the container's name, and how its engine's programs are called here."""
    words = container.argv()
    if container.kind == "lxc":
        at = words.index("--lxcpath")
        tools = ("lxc_info", "lxc_start", "lxc_stop")
        place = words[at : at + 2]
        return words[words.index("--name") + 1], {
            name: [f"/usr/bin/{name.replace('_', '-')}", *place] for name in tools
        }
    before = words[: words.index("exec")]
    return words[-1], {container.kind: [f"/usr/bin/{before[0]}", *before[1:]]}


def test_a_container_restarts_itself_as_its_engines_page_says(
    container: Jail, daemon: Daemon, run: Callable[..., str]
) -> None:
    page = RECIPES / f"{container.kind}.md"
    name, tools = engine_of(container)
    pid = {
        "docker": "docker inspect -f '{{.State.Pid}}' web",
        "podman": "podman inspect -f '{{.State.Pid}}' web",
        "lxc": "lxc-info -n web -pH",
    }[container.kind]

    def here(script: str) -> str:
        return run(re.sub(r"\bweb\b", name, script), "", **tools)

    before = here(f"{pid} ")
    (arm,) = blocks(page, "sh run")
    here(arm)
    assert daemon.rule("REBOOT")["state"] == "armed"
    (ring,) = blocks(page, "sh inside")
    container.inside_sh(ring)  # how it ends is not to be known: its container does
    daemon.wait_rule_gone("REBOOT")
    after = here(f"{pid} ")
    assert after != before
    assert after.strip() not in ("", "0")


@pytest.fixture
def plain(jails: Jails) -> Jail:
    """Give a jail without an engine."""
    try:
        return jails.shared(Namespaces)
    except NoSuchKind as error:
        skip_or_fail(f"{Namespaces.kind}: {error}", cannot_have(Namespaces))
        raise


@pytest.mark.skipif(sys.platform != "linux", reason="cannot: the stand-in jail is Linux's")
def test_the_tasks_are_armed_and_run_as_their_page_says(
    plain: Jail, daemon: Daemon, directory: Path, run: Callable[..., str]
) -> None:
    page = RECIPES / "tasks.md"
    wrote = directory / "wrote"
    told = directory / "told"
    told.write_text(f'#!/bin/sh\necho "$@" >>{wrote}\n', encoding="ascii")
    told.chmod(0o755)
    stand_ins = {name: [str(told), name] for name in ("zfs", "certbot", "service")}
    said = [run(block, plain.name, **stand_ins) for block in blocks(page, "sh run")]
    titles = {"REBOOT", "ROUTES", "RENEW", "SNAPSHOT_now"}
    titles |= {f"SNAPSHOT_{name}" for name in ("before-upgrade", "before-migration")}
    assert daemon.titles() == titles
    assert {rule["state"] for rule in daemon.rules()} == {"armed"}
    assert "nothing is in its way" in said[-1]
    assert "30/1m" not in said[-1]  # RENEW's own limit, which is another
    (ring,) = blocks(page, "sh inside")
    done = plain.inside_sh(ring)
    assert done.returncode == 0, done.stderr
    daemon.wait_until(lambda: wrote.exists() and wrote.read_text().count("\n") == 2, "two lines")
    assert wrote.read_text(encoding="ascii").splitlines() == [
        "zfs destroy jails/web@before-upgrade",
        "zfs snapshot jails/web@before-upgrade",
    ]
