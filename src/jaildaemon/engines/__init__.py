# SPDX-License-Identifier: BSD-2-Clause
"""The engines that name containers, asked through their own command lines."""

from jaildaemon.engines.base import Engine, Loop
from jaildaemon.engines.docker import Docker, Podman
from jaildaemon.engines.lxc import Lxc
from jaildaemon.engines.nspawn import Nspawn
from jaildaemon.engines.oci import Crun, Runc

ENGINES: dict[str, type[Engine]] = {
    kind.name: kind for kind in (Docker, Podman, Lxc, Nspawn, Runc, Crun)
}

__all__ = ["ENGINES", "Engine", "Loop"]
