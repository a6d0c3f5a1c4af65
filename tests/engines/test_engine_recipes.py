# SPDX-License-Identifier: BSD-2-Clause
"""The parts of docs/recipes that need an engine in its default place, run as they are written."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.product import JAILDAEMON
from tests.engines.makers import DockerMaker, Host, LxcMaker, Maker, removed
from tests.engines.ruled import Ruled, new_name
from tests.kernel.jails.base import must
from tests.kernel.jails.linux import INIT, rootfs
from tests.kernel.recipes import RECIPES, blocks, by_us, caller


def named(text: str, name: str) -> str:
    """Call the page's container as ours is called."""
    return re.sub(r"\bweb\b", name, text)


of_docker, of_lxc = (
    pytest.mark.parametrize("maker", [kind], indirect=True, ids=[kind.engine])
    for kind in (DockerMaker, LxcMaker)
)


def compose(maker: Maker) -> str:
    """Return how compose is called here."""
    plugin = [*maker.prefix, "docker", "compose", "version"]
    if subprocess.run(plugin, capture_output=True, check=False).returncode == 0:
        return "docker compose"
    if shutil.which("docker-compose"):
        return "docker-compose"
    pytest.skip("docker compose is not installed: install the package docker-compose")


@of_docker
def test_compose_makes_the_container_anew_when_it_rings(ruled: Ruled, maker: Maker) -> None:
    page, name, program = RECIPES / "docker.md", new_name(maker.host), compose(maker)
    (yaml,) = blocks(page, "yaml")
    # The one image there is has no command, and the engine here no network.
    more = f"    network_mode: none\n    command: {INIT}\n    stop_grace_period: 1s\n"
    file = ruled.directory / "compose.yaml"
    file.write_text(named(yaml, name).replace("example/" + name, "jail") + more, encoding="ascii")
    (rules,) = blocks(page, "toml")
    rules = named(rules, name).replace(f"/srv/{name}/compose.yaml", str(file))
    ruled.take(rules.replace("docker compose", program))
    rule = f"docker:{name}/RECREATE"
    with removed(maker, name):
        maker.host.must(*program.split(), "-f", str(file), "up", "-d")
        first = ruled.armed(rule)
        ruled.ring(rule)
        assert ruled.armed(rule) == maker.pid(name) != first
        assert ruled.rules()[f"docker:{name}/REBOOT"]["policy"]["signal"] == "USR1"


@of_lxc
def test_the_hook_of_lxc_asks_for_the_rule_at_every_start(ruled: Ruled, maker: Maker) -> None:
    assert isinstance(maker, LxcMaker)
    page, name = RECIPES / "lxc.md", new_name(maker.host)
    (script,) = blocks(page, "sh hook")
    (config,) = blocks(page, "ini")
    hook = ruled.directory / "hook"
    hook.write_text(
        by_us(script, caller(ruled.directory, JAILDAEMON, ruled.daemon.socket)), encoding="ascii"
    )
    hook.chmod(0o755)
    with removed(maker, name):
        maker.run(name, re.sub(r"/usr/local/libexec/\S+", str(hook), config))
        rules = ruled.rules().values()
        assert [(rule["title"], rule["state"]) for rule in rules] == [("REBOOT", "armed")]
        first = maker.pid(name)
        (identity,) = ruled.rules()
        ruled.ring(identity)
        ruled.daemon.lines.wait_for(" ended: exit 0 ")
        (rule,) = ruled.rules().values()
        assert (rule["state"], rule["jid"]) == ("armed", maker.pid(name))
        assert maker.pid(name) != first


@of_lxc
def test_the_file_of_lxc_restarts_its_container(ruled: Ruled, maker: Maker) -> None:
    name = new_name(maker.host)
    (rules,) = blocks(RECIPES / "lxc.md", "toml")
    ruled.take(named(rules, name))
    rule = f"lxc:{name}/REBOOT"
    with removed(maker, name):
        maker.run(name)
        first = ruled.armed(rule)
        ruled.ring(rule)
        assert ruled.armed(rule) == maker.pid(name) != first


# --- of systemd's own units -----------------------------------------------------------


@pytest.fixture
def beside_systemd(directory: Path) -> Iterator[Ruled]:
    """Give a daemon beside systemd: elsewhere.py runs who asks for it."""
    made = Ruled((), directory)
    yield made
    made.stop()


class Units:
    """Units of systemd, for as long as the machine runs at most."""

    def __init__(self, host: Host) -> None:
        self._place = host.place
        self._made: list[tuple[Path, str]] = []

    def start(self, path: Path, text: str, service: str) -> None:
        """Write a file, and start the service that it is of."""
        self._place.note("file", str(path))
        self._made.append((path, service))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
        must(["systemctl", "daemon-reload"])
        must(["systemctl", "start", service])

    def close(self) -> None:
        """Stop the services, and remove what was written."""
        for path, service in self._made:
            must(["systemctl", "stop", service])
            path.unlink()
            if path.parent.suffix == ".d":
                path.parent.rmdir()
        must(["systemctl", "daemon-reload"])


@pytest.fixture
def units(host: Host, beside_systemd: Ruled) -> Iterator[Units]:
    """Give them."""
    assert beside_systemd.daemon.pid
    made = Units(host)
    yield made
    made.close()


def restarts_itself(beside_systemd: Ruled) -> None:
    """Ring the one rule; there must be one again, in the next container."""
    (rule,) = beside_systemd.rules().values()
    assert (rule["title"], rule["state"]) == ("REBOOT", "armed")
    beside_systemd.ring(rule["id"])
    beside_systemd.daemon.lines.wait_for(" ended: exit 0 ")
    (again,) = beside_systemd.rules().values()
    assert (again["title"], again["state"]) == ("REBOOT", "armed")
    assert again["jid"] != rule["jid"]


def ours(beside_systemd: Ruled, text: str) -> str:
    """Return a unit that calls the daemon under test."""
    text = by_us(text, caller(beside_systemd.directory, JAILDAEMON, beside_systemd.daemon.socket))
    return text.replace("After=jaildaemon.service\nWants=jaildaemon.service\n", "")


def without_limits() -> None:
    """Have podman set no limits, which wants a controller and a capability that may not be here."""
    file = Path("/etc/containers/containers.conf")
    file.parent.mkdir(exist_ok=True)
    text = '[containers]\npids_limit = 0\n[engine]\nruntime = "runc"\n'
    file.write_text(text, encoding="ascii")


def test_a_quadlet_asks_for_its_rule_at_every_start(
    beside_systemd: Ruled, units: Units, host: Host
) -> None:
    if not Path("/usr/libexec/podman/quadlet").exists():
        pytest.skip("cannot: this podman has no quadlets")
    name = new_name(host)
    without_limits()
    (text,) = blocks(RECIPES / "podman.md", "ini")
    # No registry can be asked for an image here.
    tree = f"Rootfs={rootfs(host.place)}\nExec={' '.join(INIT)}\nNetwork=none"
    tree += "\nPodmanArgs=--stop-signal=KILL"
    text = named(text, name).replace(f"Image=example/{name}", tree)
    path = Path(f"/run/containers/systemd/{name}.container")
    units.start(path, ours(beside_systemd, text), f"{name}.service")
    restarts_itself(beside_systemd)


def test_the_file_of_podman_restarts_the_unit(
    beside_systemd: Ruled, units: Units, host: Host
) -> None:
    name = new_name(host)
    without_limits()
    words = [f"--name={name}", "--network=none", "--stop-signal=KILL"]
    must(["podman", "create", *words, "--rootfs", str(rootfs(host.place)), *INIT])
    # As podman itself writes one, also a podman without quadlets.
    text = must(["podman", "generate", "systemd", "--new", "--name", name]).stdout
    must(["podman", "rm", name])
    (rules,) = blocks(RECIPES / "podman.md", "toml")
    beside_systemd.take(named(rules, name))
    units.start(Path(f"/run/systemd/system/{name}.service"), text, f"{name}.service")
    rule = f"podman:{name}/REBOOT"
    first = beside_systemd.armed(rule)
    beside_systemd.ring(rule)
    shown = ["podman", "inspect", "--format={{.State.Pid}}", name]
    assert beside_systemd.armed(rule) == int(must(shown).stdout) != first


def image_of_nspawn(host: Host, name: str) -> None:
    """Make what the unit of nspawn boots, in its default place."""
    image = Path("/var/lib/machines") / name
    host.place.note("run", "rm", "-rf", str(image))
    shutil.copytree(rootfs(host.place), image, symlinks=True)
    # What nspawn wants to see before it boots something.
    for directory in ("sbin", "usr/lib", "var"):
        (image / directory).mkdir(parents=True, exist_ok=True)
    (image / "usr/lib/os-release").write_text("ID=busybox\n", encoding="ascii")
    script = (image / "init").read_text(encoding="ascii")
    (image / "sbin/init").write_text(f"#!/bin/sh\n{script}", encoding="ascii")
    (image / "sbin/init").chmod(0o755)
    # A gentler signal is lost where the script has not come to its trap yet.
    settings = Path("/run/systemd/nspawn") / f"{name}.nspawn"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text("[Exec]\nKillSignal=SIGKILL\n", encoding="ascii")


def test_the_unit_of_nspawn_asks_for_its_rule_at_every_start(
    beside_systemd: Ruled, units: Units, host: Host
) -> None:
    name = new_name(host)
    (text,) = blocks(RECIPES / "nspawn.md", "ini")
    image_of_nspawn(host, name)
    service = f"systemd-nspawn@{name}.service"
    path = Path(f"/run/systemd/system/{service}.d/jaildaemon.conf")
    units.start(path, ours(beside_systemd, named(text, name)), service)
    restarts_itself(beside_systemd)


def test_the_file_of_nspawn_restarts_the_unit(
    beside_systemd: Ruled, units: Units, host: Host
) -> None:
    name = new_name(host)
    (rules,) = blocks(RECIPES / "nspawn.md", "toml")
    beside_systemd.take(named(rules, name))
    rule = f"nspawn:{name}/REBOOT"
    assert beside_systemd.rules()[rule]["policy"]["settle"] == "20s"
    # What must settle for 20 s can be waited for, but not in every run of the tests.
    beside_systemd.take(named(rules, name).replace("20s", "0s"))
    image_of_nspawn(host, name)
    service = f"systemd-nspawn@{name}.service"
    path = Path(f"/run/systemd/system/{service}.d/empty.conf")
    units.start(path, "", service)
    first = beside_systemd.armed(rule)
    beside_systemd.ring(rule)
    shown = ["machinectl", "show", name, "--property=Leader", "--value"]
    assert beside_systemd.armed(rule) == int(must(shown).stdout) != first
