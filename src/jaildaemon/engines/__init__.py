# SPDX-License-Identifier: BSD-2-Clause
"""The engines that name containers, asked through their own command lines."""

from jaildaemon.engines.base import HERE, Engine, Loop
from jaildaemon.engines.docker import Docker, Podman, PodmanAsDocker, is_podman
from jaildaemon.engines.endpoint import Endpoint
from jaildaemon.engines.lxc import Lxc
from jaildaemon.engines.nspawn import Nspawn
from jaildaemon.engines.oci import Crun, Runc

ENGINES: dict[str, type[Engine]] = {
    kind.name: kind for kind in (Docker, Podman, Lxc, Nspawn, Runc, Crun)
}


def made(name: str, loop: Loop, endpoint: Endpoint = HERE) -> Engine:
    """Return the engine of a name."""
    if name == Docker.name and is_podman(endpoint):
        return PodmanAsDocker(loop, endpoint)
    return ENGINES[name](loop, endpoint)


__all__ = ["ENGINES", "Endpoint", "Engine", "Loop", "made"]
