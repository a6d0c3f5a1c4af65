# SPDX-License-Identifier: BSD-2-Clause
"""What is written is what is so: the manual, the protocol, the README."""

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import socket
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from jaildaemon import __version__, errors
from jaildaemon.backends import base, configuration, throwaway_jail
from jaildaemon.backends.throwaway import ThrowawayJail
from jaildaemon.cli import commands, options
from jaildaemon.core import rules, text, wire
from jaildaemon.daemon import commands as host_commands
from jaildaemon.daemon import config, control, inquiry, schema
from jaildaemon.engines import ENGINES
from tools import pictures

ROOT = Path(__file__).resolve().parent.parent
JAILDAEMON = str(Path(sys.executable).parent / "jaildaemon")
PATIENCE_SECONDS = 60.0


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def plain(mdoc: str) -> str:
    """Return mdoc source with its escapes taken out."""
    return mdoc.replace("\\e", "\\").replace("\\:", "").replace("\\&", "")


MANUAL = plain(page("man/jaildaemon.1"))
README = page("README.md")
PROTOCOL = page("docs/protocol.md")


def section(name: str) -> str:
    """Return one section of the manual."""
    found = re.search(rf"^\.Sh {name}\n(.*?)(?=^\.Sh |\Z)", MANUAL, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


# --- the manual ----------------------------------------------------------------


def test_the_manual_has_the_exit_codes_of_the_program() -> None:
    found = re.findall(r"^\.It (\d+)\n(.*)$", section("EXIT STATUS"), re.MULTILINE)
    assert {int(code): words for code, words in found} == errors.EXIT_CODES


def is_option(letter: str) -> bool:
    try:
        options.parse(["-c", "true", "-j", "1", f"-{letter}", "0"])
    except errors.UsageError as error:
        return "not recognized" not in str(error)
    return True


def test_the_manual_has_the_options_of_the_program() -> None:
    listed = "\n".join(re.findall(r"^\.It Fl .*$", section("DESCRIPTION"), re.MULTILINE))
    short = set(re.findall(r"Fl (\w)\b", listed))
    assert short == {letter for letter in string.ascii_letters if is_option(letter)}
    assert set(re.findall(r"(?:Fl|,) -([a-z-]+)", listed)) == {x.rstrip("=") for x in options._LONG}


def test_the_manual_has_the_subcommands_of_the_program() -> None:
    top = commands.parser()
    (subcommands,) = (a.choices for a in top._actions if isinstance(a.choices, dict))
    synopsis = set(re.findall(r"^\.Cm (\w+)$", section("SYNOPSIS"), re.MULTILINE))
    described = set(re.findall(r"^\.It Cm (\w+)", section("DESCRIPTION"), re.MULTILINE))
    assert synopsis == described == set(subcommands)


def test_the_manual_has_the_environment_of_a_command() -> None:
    values = dict.fromkeys(("JID", "JAIL", "TITLE", "RULE", "RUN"), "")
    environment = host_commands.environment("", values)
    listed = re.findall(r"^\.It Ev (\w+)$", section("DESCRIPTION"), re.MULTILINE)
    assert sorted(listed) == sorted(environment)
    assert f".Pa {environment['PATH']}\n" in section("DESCRIPTION")


def test_the_manual_has_the_files_and_limits_of_the_program() -> None:
    for path in (options.SOCKET, f"{options.SOCKET}.lock", options.PIDFILE):
        assert f".It Pa {path}\n" in section("FILES")
    assert f"at most {text.MAX_TITLE_BYTES} bytes" in MANUAL
    assert f"at most {text.MAX_COMMAND_BYTES} bytes" in MANUAL
    assert rules.CONCURRENCY_NOW == 8
    assert "At most eight runs of one rule" in " ".join(MANUAL.split())


@pytest.mark.parametrize("name", ["jaildaemon.1", "jaildaemon.toml.5"])
def test_the_manual_is_clean_to_the_last_remark(name: str) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    lint = ["mandoc", "-T", "lint", "-W", "all", str(ROOT / "man" / name)]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    # Whether other pages are installed is the machine's business.
    remarks = [x for x in done.stdout.splitlines() if "referenced manual not found" not in x]
    assert remarks == []


def test_the_readme_names_the_packages_that_a_fresh_debian_gets() -> None:
    listed = ["sh", str(ROOT / "tools" / "debian-install.sh"), "readme", "-n"]
    done = subprocess.run(listed, capture_output=True, text=True, check=True)
    assert f"Of Debian's packages: `{' '.join(done.stdout.split())}`;" in README


# --- rules in files --------------------------------------------------------------

FILE_MANUAL = plain(page("man/jaildaemon.toml.5"))


def file_examples() -> dict[str, str]:
    """Return the examples of rules in files: of the README, and of the manual."""
    (readme,) = re.findall(r"^    (\[\[rule\]\]\n(?:    .*\n)+)", README, re.MULTILINE)
    (manual,) = re.findall(r"\.Bd -literal.*?\n(.*?)\.Ed", FILE_MANUAL, re.DOTALL)
    return {"readme": readme, "manual": manual}


@pytest.mark.parametrize(("name", "text"), file_examples().items(), ids=file_examples())
def test_every_example_of_a_file_is_understood(name: str, text: str, tmp_path: Path) -> None:
    # Each names a jail as one of the two systems does, a user and a group of its host.
    system = 'jail = "web"' if sys.platform == "linux" else 'jail = "docker:'
    tables = [t for t in re.split(r"\n(?=\[)", text) if system not in t and "readers" not in t]
    assert tables, name
    file = tmp_path / "rules.toml"
    file.write_text("\n".join(tables).replace('"backup"', '"nobody"'), encoding="utf-8")
    done = subprocess.run([JAILDAEMON, "check", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rules = sum(table.startswith("[[rule]]") for table in tables)
    assert re.fullmatch(rf"ok: {rules} rules? in {re.escape(str(file))}\n", done.stdout)


def test_the_manual_of_the_files_has_the_fields_of_the_program() -> None:
    lists = FILE_MANUAL.split(".Bl -tag -width Ds")[1:4]
    rules, daemon, engines = (part.split(".El")[0] for part in lists)
    fields = re.findall(r"^\.It Cm (.*)$", rules, re.MULTILINE)
    named = [name for line in fields for name in line.split(" , ")]
    assert sorted(named) == sorted(attrs.fields_dict(schema.RuleWish))
    assert re.findall(r"^\.It Cm (.*)$", daemon, re.MULTILINE) == [
        *attrs.fields_dict(schema.DaemonWish)
    ]
    assert re.findall(r"^\.It Cm (.*)$", engines, re.MULTILINE) == [
        *attrs.fields_dict(schema.EngineWish)
    ]


def test_the_manual_of_the_files_has_the_engines_and_the_places_of_the_program() -> None:
    words = " ".join(FILE_MANUAL.split())
    assert ".Cm docker , podman , lxc , nspawn , runc or .Cm crun :" in words
    assert [*ENGINES] == ["docker", "podman", "lxc", "nspawn", "runc", "crun"]
    place, engines = configuration()
    assert engines in ((), (*ENGINES,))
    for path in (place, place.removesuffix("toml") + "d"):
        assert re.search(rf"^\.Pa {re.escape(path)}( |$)", FILE_MANUAL, re.MULTILINE)
    assert f".Ev {config.VARIABLE}\n" in FILE_MANUAL


# --- examples --------------------------------------------------------------------


def command_lines(document: str) -> list[str]:
    """Return the lines of a document that begin with our name, continued ones joined."""
    joined = re.sub(r"\\\n\s*", "", document)
    found = re.findall(r"^(?:\.Dl |    )?(jaildaemon -.*)$", joined, re.MULTILINE)
    # What a shell would put in; the manual's SYNOPSIS has no quotes to mislead it.
    return [re.sub(r'"\$J"|\$\(.*?\)', "23", line) for line in found]


@pytest.mark.parametrize(
    "line", [*command_lines(section("EXAMPLES")), *command_lines(README)], ids=str
)
def test_every_example_is_a_command_line_that_is_understood(line: str) -> None:
    wish = options.parse(shlex.split(line)[1:])
    assert wish.daemon or (wish.command and wish.jail)


def test_the_readme_has_the_three_examples_of_the_manual() -> None:
    def without_jail(document: str) -> set[str]:
        return {re.sub(r" -j \S+", "", line) for line in command_lines(document) if "-c" in line}

    assert len(without_jail(README)) == 3
    assert without_jail(README) < without_jail(section("EXAMPLES"))


def test_the_readme_names_targets_and_files_that_there_are() -> None:
    makefile = page("Makefile")
    for target in re.findall(
        r"(?:`|&& |^    )make ([a-z]+)", README + page("CONTRIBUTING.md"), re.MULTILINE
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    named = re.findall(r"\b(?:docs|man|packaging)/[\w./]*\w|\b[A-Z]{4,}\.md\b", README)
    assert "SECURITY.md" in named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", pictures.drawn())
def test_a_picture_is_what_the_program_shows_now(name: str) -> None:
    drawn = pictures.drawn()[name]
    assert (pictures.PLACE / name).read_text(encoding="utf-8") == drawn, "stale: make pictures"
    assert f"](docs/pictures/{name})" in README
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", drawn), "it loads something"


def test_the_newest_entry_of_the_changelog_is_this_version_and_begins_with_security() -> None:
    versions = re.split(r"^## ", page("CHANGELOG.md"), flags=re.MULTILINE)[1:]
    assert versions[0].startswith(f"{__version__} ")
    for version in versions:
        assert re.findall(r"^### (\w+)", version, re.MULTILINE)[0] == "Security"


# --- the protocol ------------------------------------------------------------------


def test_the_protocol_has_the_access_table_of_the_program() -> None:
    found = re.findall(r"^\| `(org(?:\.\w+)+)` \| (any|reader|root) \|$", PROTOCOL, re.MULTILINE)
    assert dict(found) == wire.ACCESS


def test_the_protocol_describes_every_method() -> None:
    assert set(re.findall(r"^### (\S+)$", PROTOCOL, re.MULTILINE)) == set(wire.ACCESS)


@pytest.mark.parametrize("method", wire.ACCESS)
def test_the_protocol_has_the_signature_of_each_method(method: str) -> None:
    interface, _, name = method.rpartition(".")
    description = page(f"src/jaildaemon/{interface}.varlink")
    found = re.search(rf"^method {name}\(([^)]*)\)\s*->\s*\(([^)]*)\)", description, re.MULTILINE)
    assert found
    promised = [" ".join(part.split()) for part in found.groups() if part.strip()]
    start = PROTOCOL.index(f"### {method}\n")
    paragraph = PROTOCOL[start:].split("\n\n")[1]
    assert [" ".join(part.split()) for part in re.findall(r"`([^`]+)`", paragraph)] == promised


def test_the_protocol_has_the_limits_of_the_program() -> None:
    figures = {
        "one message to the daemon, its NUL included": f"{wire.MAX_MESSAGE // 1024} KiB",
        "connections at a time": f"{control.MAX_CLIENTS}; the last {control.ROOT_PLACES} are for"
        " uid 0",
        "the rest of a message that has begun": f"{control.MESSAGE_SECONDS:.0f} s",
        "arming a probe": f"{base.ARMING_SECONDS:.0f} s",
        "clients that read the log": f"{inquiry.MAX_FOLLOWERS}",
        "`last` of Log and Entries": f"{inquiry.MAX_LAST}",
        "the warnings of Status": f"{inquiry.MAX_WARNINGS}",
    }
    for what, limit in figures.items():
        assert f"| {what} | {limit} |" in PROTOCOL


def test_the_protocol_has_the_errors_of_the_program() -> None:
    row = r"^\| `(org\.jaildaemon\.\w+)` \| .* \| (\d) \|$"
    found = {name: int(code) for name, code in re.findall(row, PROTOCOL, re.MULTILINE)}
    assert found == {name: kind.exit_code for name, kind in errors.BY_VARLINK.items()}


# --- what is written, done -----------------------------------------------------------


@contextlib.contextmanager
def running(directory: Path) -> Iterator[str]:
    """Run a daemon; gives its socket."""
    path = str(directory / "pipe")
    command = [JAILDAEMON, "-D", "-F", "-f", path, "-p", str(directory / "pid")]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert daemon.stderr is not None
    try:
        assert " serves " in daemon.stderr.readline()
        yield path
    finally:
        daemon.terminate()
        daemon.communicate(timeout=PATIENCE_SECONDS)


@pytest.fixture
def jail() -> Iterator[ThrowawayJail]:
    if os.geteuid() != 0:
        pytest.skip("only root makes jails; run the tests as root")
    made = throwaway_jail()
    try:
        yield made
    finally:
        made.close()


def shape(value: Any) -> Any:
    """Return what kind of value it is, the names and types in it, without the values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


def answer(path: str, message: str) -> dict[str, Any]:
    """Send one message as it is written; return what is answered."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(path)
        sock.sendall(message.encode() + b"\0")
        data = b""
        while not data.endswith(b"\0"):
            part = sock.recv(65536)
            assert part, f"hung up on {message}"
            data += part
    found: dict[str, Any] = json.loads(data[:-1])
    return found


def test_each_example_of_the_protocol_is_answered_so(jail: ThrowawayJail, tmp_path: Path) -> None:
    examples = re.findall(r"^> (.*)\n< (.*)$", PROTOCOL, re.MULTILINE)
    methods = {json.loads(call)["method"].rpartition(".")[2] for call, _ in examples}
    assert methods == {
        *("GetInfo", "Attach", "Detach", "List", "Status", "Fire", "Hold", "Release", "Reload"),
    }
    with running(tmp_path) as path:
        for call, written in examples:
            found = answer(path, call.replace('"4711"', json.dumps(jail.jail)))
            expected = json.loads(written)
            if "error" in expected or "GetInfo" in call:
                assert found == expected
            else:
                assert shape(found) == shape(expected), call


def test_what_json_prints_is_as_the_protocol_has_it(jail: ThrowawayJail, tmp_path: Path) -> None:
    with running(tmp_path) as path:

        def printed(*arguments: str) -> dict[str, Any]:
            command = [JAILDAEMON, *arguments, "--json", "-f", path]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        assert printed("list") == {"version": 1, "rules": []}
        assert printed("detach", "--all") == {"version": 1, "ids": []}
        status = answer(path, '{"method":"org.jaildaemon.Status"}')["parameters"]
        names = {"daemon_version" if name == "version" else name for name in status}
        found = printed("status")
        assert found.pop("version") == 1
        assert found.keys() == names


def ringing_scripts() -> dict[str, str]:
    """Return what the README and the manual say to run inside."""
    loop = r"^(?:    )?(for p in /proc.*?^(?:    )?done)$"
    (from_readme,) = re.findall(loop, README, re.MULTILINE | re.DOTALL)
    (from_manual,) = re.findall(loop, section("TRIGGERING FROM INSIDE"), re.MULTILINE | re.DOTALL)
    (pkill,) = re.findall(r"^    (pkill .*)$", README, re.MULTILINE)
    assert f".Dl {pkill}\n" in MANUAL
    return {
        "sh": from_readme,
        "sh-of-manual": from_manual,
        "sh-e": f"set -eu\n{from_readme}",
        "pkill": pkill,
    }


@pytest.mark.parametrize(("name", "script"), ringing_scripts().items(), ids=ringing_scripts())
def test_what_is_to_be_run_inside_rings_its_bell_alone(
    name: str, script: str, jail: ThrowawayJail, tmp_path: Path
) -> None:
    if name.startswith("sh") and sys.platform != "linux":
        pytest.skip("cannot: FreeBSD jails have no /proc by default, and always pkill(1)")
    if name == "pkill" and shutil.which("pkill") is None:
        pytest.skip("pkill is not installed (procps)")
    fifo = tmp_path / "rung"
    os.mkfifo(fifo, 0o600)
    fd = os.open(fifo, os.O_RDWR)
    with os.fdopen(fd), running(tmp_path) as path:
        for title in ("SNAPSHOT", "A SNAPSHOT"):
            command = f"echo '{title}' > {fifo}"
            arm = [JAILDAEMON, "-c", command, "-j", jail.jail, "-t", title, "-f", path]
            subprocess.run(arm, check=True)
        done = subprocess.run(jail.inside(script), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert select.select([fd], [], [], PATIENCE_SECONDS)[0]
        assert os.read(fd, 100) == b"SNAPSHOT\n"
        status = answer(path, '{"method":"org.jaildaemon.Status"}')["parameters"]
        assert (status["triggers"], status["probes"]) == (1, 1)
