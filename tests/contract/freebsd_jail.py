# SPDX-License-Identifier: BSD-2-Clause
"""A FreeBSD jail for tests: on /, it persists, its name its jid."""

import subprocess

LIVES = "exec.start=/usr/sbin/daemon -f /bin/sleep 1000000"


class PersistentJail:
    """One jail; `jid` is what tells it from others.

    Where nobody lives in it a later daemon cannot know it again.
    """

    def __init__(self, *, lived_in: bool = False) -> None:
        words = ["jail", "-q", "-i", "-c", "path=/", "persist", *([LIVES] if lived_in else [])]
        made = subprocess.run(words, capture_output=True, text=True, check=True)
        self.jid = int(made.stdout)

    def close(self) -> None:
        """Remove it, whoever is in it."""
        subprocess.run(["jail", "-q", "-r", str(self.jid)], check=True)
