# SPDX-License-Identifier: BSD-2-Clause
"""The daemon as it would be without one or another care: each attack must win against that.

python naive_linux.py WAY[,WAY...] ARGUMENTS...

shared  all jails' probes run from one image, which the host's root owns
wait    ... and so does stage 1, for whose exec the daemon waits
once    the user namespace is joined before the exec
strays  a failed arming ends every child in its jail that nobody watches
leave   children that nobody watches are not looked for
"""

import os
import sys
from collections.abc import Callable

assert sys.platform == "linux"

from jaildaemon.backends import linux_image, linux_strays
from jaildaemon.backends.linux import LinuxBackend
from jaildaemon.backends.linux_image import JailImage
from jaildaemon.backends.linux_jail import Namespace, namespace
from jaildaemon.cli.main import main


def _replace(owner: type, name: str, function: Callable[..., object]) -> None:
    setattr(owner, name, function)


class SharedImage(JailImage):
    """One for all, for good."""

    def renew(self) -> None:
        """Know of no need."""


def share(*, wait: bool) -> None:
    """Give every jail the same image."""
    linux_image.NOBODYS = 0
    made: list[JailImage] = []

    def image_of(backend: LinuxBackend, _: Namespace) -> JailImage:
        if not made:
            made.append(SharedImage(backend._program))
        if wait:
            backend._image = made[0].fd()
        return made[0]

    _replace(LinuxBackend, "_image_of", image_of)


def join_at_once() -> None:
    """Join the user namespace before the exec."""
    before = JailImage.__init__

    def made(image: JailImage, content: bytes) -> None:
        before(image, content)
        image.at_once = True

    _replace(JailImage, "__init__", made)


def end_strangers() -> None:
    """Take whoever is unwatched in the jail for one's own."""

    def belongs(strays: linux_strays.Strays, pid: int, helper: int) -> bool:
        del helper
        return pid in strays.unwatched()

    def of(strays: linux_strays.Strays, helper: int) -> list[int]:
        del helper
        found = [
            pid
            for pid in strays.unwatched()
            if namespace(pid, "pid") not in (None, namespace("self", "pid"))
        ]
        for pid in found:
            os.kill(pid, 9)
        return found

    _replace(linux_strays.Strays, "belongs", belongs)
    _replace(linux_strays.Strays, "of", of)


def leave_strays() -> None:
    """Look for nobody."""

    def of(strays: linux_strays.Strays, helper: int) -> list[int]:
        del strays, helper
        return []

    _replace(linux_strays.Strays, "of", of)
    _replace(linux_strays.Strays, "over", lambda *_: None)


def naive_command(*ways: str) -> list[str]:
    """Return the command `jaildaemon`, without those cares."""
    return [sys.executable, "-m", "tests.attacks.naive_linux", ",".join(ways)]


if __name__ == "__main__":
    wanted = sys.argv.pop(1).split(",")
    if "shared" in wanted or "wait" in wanted:
        share(wait="wait" in wanted)
    if "once" in wanted:
        join_at_once()
    if "strays" in wanted:
        end_strangers()
    if "leave" in wanted:
        leave_strays()
    sys.exit(main())
