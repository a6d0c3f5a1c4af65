# SPDX-License-Identifier: BSD-2-Clause
"""The parts of docs/recipes that need an engine in its default place, run as they are written."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.daemon.product import JAILDAEMON
from tests.engines.machined import NspawnMaker
from tests.engines.makers import DockerMaker, LxcMaker, Maker, removed
from tests.engines.ruled import Ruled, new_name
from tests.kernel.jails.linux import INIT
from tests.kernel.recipes import RECIPES, blocks, by_us, caller

QUADLET = Path("/usr/libexec/podman/quadlet")


def named(text: str, name: str) -> str:
    """Call the page's container as ours is called."""
    return re.sub(r"\bweb\b", name, text)


of_docker, of_lxc, of_nspawn = (
    pytest.mark.parametrize("maker", [kind], indirect=True, ids=[kind.engine])
    for kind in (DockerMaker, LxcMaker, NspawnMaker)
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
