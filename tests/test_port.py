# SPDX-License-Identifier: BSD-2-Clause
"""The skeleton of the FreeBSD port, its rc(8) script, and the completions say what we say."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from jaildaemon import __version__
from tools import completions

ROOT = Path(__file__).resolve().parent.parent
PORT = ROOT / "packaging" / "freebsd" / "port"
MADE = completions.made()


def variable(name: str) -> list[str]:
    """Return the words of a variable of the port's Makefile."""
    makefile = (PORT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (found,) = re.findall(rf"^{name}=[ \t]*(.*)$", makefile, re.MULTILINE)
    words: list[str] = found.split()
    return words


def requirements(name: str) -> set[str]:
    """Return the Python packages that a variable names, with their versions."""
    prefix = re.escape("${PYTHON_PKGNAMEPREFIX}")
    return {re.sub(rf"{prefix}|:.*", "", word) for word in variable(name)}


def test_the_port_depends_on_what_the_program_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert requirements("RUN_DEPENDS") == set(project["project"]["dependencies"])
    assert requirements("BUILD_DEPENDS") == set(project["build-system"]["requires"])


def test_the_port_is_of_this_version_and_not_beside_the_original() -> None:
    assert variable("DISTVERSION") == [__version__]
    assert variable("CONFLICTS_INSTALL") == ["jaildaemon"]
    # Else the package would be in conflict with itself.
    assert variable("PORTNAME") + variable("PKGNAMESUFFIX") == ["jaildaemon", "-py"]


def test_the_rc_script_of_the_port_is_the_one_there_is() -> None:
    assert variable("USE_RC_SUBR") == ["jaildaemon"]
    script = PORT / "files" / "jaildaemon.in"
    assert script.read_bytes() == (PORT.parent / "jaildaemon.in").read_bytes()
    named = set(re.findall(r"%%(\w+)%%", script.read_text(encoding="utf-8")))
    given = {word.partition("=")[0] for word in variable("SUB_LIST")}
    assert named - given == {"PREFIX"}  # which the ports' own Makefile gives


def test_the_daemon_starts_before_what_starts_jails() -> None:
    rcorder = shutil.which("rcorder")
    if rcorder is None:
        pytest.skip("cannot: this system has no rcorder(8)")
    script = str(PORT.parent / "jaildaemon.in")
    # bastille requires jail; ezjail, iocage and AppJail, as jail itself, require LOGIN.
    scripts = [rcorder, *map(str, Path("/etc/rc.d").iterdir()), script]
    # Its status is 1 where anything at all is required that is not installed.
    order = subprocess.run(scripts, capture_output=True, text=True, check=False).stdout.split()
    assert order.index("/etc/rc.d/syslogd") < order.index(script)
    assert order.index(script) < order.index("/etc/rc.d/LOGIN")


def test_the_plist_has_what_the_installation_has_beside_python() -> None:
    """Compare it with tools/install.sh, whose result tests/test_packaging.py has file by file."""
    listed = (PORT / "pkg-plist").read_text(encoding="utf-8").split()
    install = (ROOT / "tools" / "install.sh").read_text(encoding="utf-8")
    shells = re.findall(r"(\S+):(?:jaildaemon\.|_jaildaemon)\S*", install)
    pages = [f"man/man{page.suffix[1:]}/{page.name}.gz" for page in ROOT.glob("man/*.[1-9]")]
    assert listed == sorted(f"share/{name}" for name in [*shells, *pages])
    makefile = (PORT / "Makefile").read_text(encoding="utf-8")
    assert all(name.removesuffix(".gz").rpartition("/")[2] in makefile for name in listed)


def test_the_message_is_one_to_pkg() -> None:
    text = (PORT / "pkg-message").read_text(encoding="utf-8")
    assert re.findall(r"\{ type: (\w+)", text) == ["install", "remove"]
    assert text.count("<<EOM") == len(re.findall(r"^EOM$", text, re.MULTILINE)) == 2
    # A failing hook removes the jail: the example must not fail.
    assert "|| logger " in text


# --- completions -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_a_completion_is_what_the_parser_says_now(name: str) -> None:
    path = completions.PLACE / name
    assert path.read_text(encoding="utf-8") == MADE[name], "stale: run make completions"


SYNTAX = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


@pytest.mark.parametrize("shell", SYNTAX)
def test_a_completion_is_one_to_its_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"cannot: {shell} is not installed, and no user of another shell needs it")
    path = completions.PLACE / completions.NAMES[shell]
    done = subprocess.run([*SYNTAX[shell], path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("jaildaemon ho", {"hold"}),
        ("jaildaemon re", {"release", "restart"}),
        ("jaildaemon log --j", {"--json"}),
        ("jaildaemon --coold", {"--cooldown"}),
    ],
)
def test_bash_offers_subcommands_and_options(words: str, offered: set[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = f"""
        . {completions.PLACE / completions.NAMES["bash"]}
        COMP_WORDS=({words}) COMP_CWORD={len(words.split()) - 1}
        _shtab_jaildaemon; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert offered <= set(done.stdout.split())
    assert all(word.startswith(words.rsplit(maxsplit=1)[-1]) for word in done.stdout.split())


# --- rc(8) --------------------------------------------------------------------------------

SCRIPT = ROOT / "packaging/freebsd/jaildaemon.in"


def rc_script() -> str:
    return SCRIPT.read_text(encoding="utf-8")


def test_the_rc_script_is_one_to_sh() -> None:
    subprocess.run(["sh", "-n", SCRIPT], check=True)
    assert set(re.findall(r"%%(\w+)%%", rc_script())) == {"PREFIX", "PYTHON_CMD"}


def test_the_rc_script_stands_where_it_must_in_the_order() -> None:
    keywords = re.findall(r"^# ([A-Z]+): (.*)$", rc_script(), re.MULTILINE)
    assert dict(keywords) == {
        "PROVIDE": "jaildaemon",
        "REQUIRE": "FILESYSTEMS syslogd",
        "BEFORE": "LOGIN",
        "KEYWORD": "shutdown",
    }


def test_the_rc_script_has_its_variables() -> None:
    for name in ("enable", "flags", "pidfile"):
        assert f'# jaildaemon_{name}="' in rc_script()
    assert 'rcvar="jaildaemon_enable"' in rc_script()
