# SPDX-License-Identifier: BSD-2-Clause
"""Builds the helper into the package: pip needs a C compiler and nothing else."""

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


# Generic over the configuration of a builder, of which nothing is used.
class HelperHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs helper/build.sh and marks the wheel as this platform's."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Build before the files are gathered."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        output = root / "src" / "jaildaemon" / "libexec"
        subprocess.run(["sh", root / "helper" / "build.sh", output], check=True)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
