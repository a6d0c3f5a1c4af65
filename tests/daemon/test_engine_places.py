# SPDX-License-Identifier: BSD-2-Clause
"""[engines.NAME] of a file: another place of an engine on this host, and nothing of another's."""

from pathlib import Path

import pytest

from jaildaemon.core.config import EnginePlace
from jaildaemon.daemon import config
from jaildaemon.daemon.config import Files

ENGINES = ("docker", "podman", "lxc", "nspawn", "runc", "crun")


def examined(path: Path, text: str, engines: tuple[str, ...] = ENGINES) -> list[str]:
    """Return what is wrong with a file."""
    path.write_text(text, encoding="utf-8")
    _, problems = config.examine(Files(str(path), named=True, engines=engines, trusted=False))
    return [str(problem).removeprefix(f"{path}: ") for problem in problems]


def test_a_client_and_a_socket_may_be_elsewhere_on_this_host(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    text = '[engines.docker]\nclient = "/snap/bin/docker"\nsocket = "/run/snap.docker.sock"\n'
    assert examined(path, text + '[engines.runc]\nclient = "/opt/runc"\n') == []
    made, _ = config.examine(Files(str(path), named=True, engines=ENGINES, trusted=False))
    assert made.engines == {
        "docker": EnginePlace("/snap/bin/docker", "/run/snap.docker.sock"),
        "runc": EnginePlace("/opt/runc"),
    }


REMOTE = "only an engine of this host is asked, such as at"
WRONG = [
    ("engines = 1", ["engines: is written [engines.NAME]"]),
    ("engines.docker = 1", ["engines.docker: is written [engines.docker]"]),
    ("[engines.doker]", [f"engines.doker: is no engine; there are {', '.join(ENGINES)}"]),
    (
        "[engines.docker]\nhost = '/x'",
        ["engines.docker: host: is unknown; there are client, socket"],
    ),
    ("[engines.docker]\nsocket = 1", ["engines.docker: socket: must be a string"]),
    (
        "[engines.podman]\nsocket = '/run/x'",
        ["engines.podman: socket: is not said of podman: it has client"],
    ),
    (
        "[engines.lxc]\nclient = '/opt/lxc'",
        ["engines.lxc: client: is not said of lxc: it has no settings"],
    ),
    *(
        (
            f"[engines.docker]\nsocket = '{remote}'",
            [f"engines.docker: socket: {remote!r} is no path: {REMOTE} /run/docker.sock"],
        )
        for remote in (
            "tcp://10.0.0.1:2375",
            "ssh://root@prod",
            "unix:///run/docker.sock",
            "npipe:////./pipe/docker",
            "fd://3",
            "10.0.0.1:2375",
            "run/docker.sock",
            "~/docker.sock",
            "/run/ssh://x",
            "",
        )
    ),
    (
        "[engines.docker]\nclient = 'docker'",
        [f"engines.docker: client: 'docker' is no path: {REMOTE} /snap/bin/docker"],
    ),
    (
        f"[engines.docker]\nsocket = '/{'x' * 107}'",
        ["engines.docker: socket: is longer than 107 bytes, or has an unprintable character"],
    ),
    (
        '[engines.docker]\nsocket = "/run/x\\n"',
        ["engines.docker: socket: is longer than 107 bytes, or has an unprintable character"],
    ),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text[-30:] for text, _ in WRONG])
def test_what_is_no_place_on_this_host_is_refused_in_one_line(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    assert examined(tmp_path / "a.toml", text) == said


def test_without_engines_there_is_none_to_place(tmp_path: Path) -> None:
    said = ["engines.docker: is no engine; there are none on this system"]
    assert examined(tmp_path / "a.toml", "[engines.docker]", engines=()) == said


def test_one_file_says_where_an_engine_is(tmp_path: Path) -> None:
    directory = tmp_path / "a.d"
    directory.mkdir()
    text = "[engines.docker]\nclient = '/opt/docker'\n"
    for name in ("a.toml", "a.d/b.toml"):
        (tmp_path / name).write_text(text, encoding="ascii")
    files = Files(f"{tmp_path}/a.toml", named=False, engines=ENGINES, trusted=False)
    _, problems = config.examine(files)
    said = f"{directory}/b.toml: engines.docker: is said in {tmp_path}/a.toml already"
    assert [str(problem) for problem in problems] == [said]
