# SPDX-License-Identifier: BSD-2-Clause
"""A FreeBSD jail for tests: on /, kept by no process, its name its jid."""

import subprocess


class PersistentJail:
    """One jail; `jid` is what tells it from others."""

    def __init__(self) -> None:
        made = subprocess.run(
            ["jail", "-i", "-c", "path=/", "persist"], capture_output=True, text=True, check=True
        )
        self.jid = int(made.stdout)

    def close(self) -> None:
        """Remove it, whoever is in it."""
        subprocess.run(["jail", "-q", "-r", str(self.jid)], check=True)
