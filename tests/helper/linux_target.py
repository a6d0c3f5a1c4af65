# SPDX-License-Identifier: BSD-2-Clause
"""A Linux jail as the helper is told of it."""

import os
import sys
from collections.abc import Iterator

from jaildaemon.backends import HELPER
from jaildaemon.backends.base import reserve_helper_descriptors
from tests.contract.linux_jail import NamespaceJail
from tests.helper.faults import NAMESPACES
from tests.helper.parent import Target

assert sys.platform == "linux"


def linux_target(*, user_namespace: bool) -> Iterator[Target]:
    """Give a jail with every namespace of its own, or all but the user namespace."""
    from jaildaemon.backends.linux_image import sealed_image

    reserve_helper_descriptors()  # before any is opened that is to be moved there
    jail = NamespaceJail(user_namespace=user_namespace)
    pidfd, image = os.pidfd_open(jail.init), sealed_image(HELPER)
    join = sum(
        flag
        for kind, flag in NAMESPACES.items()
        if os.path.exists(f"/proc/self/ns/{kind}")
        and os.readlink(f"/proc/{jail.init}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    )
    user_fd = os.open(f"/proc/{jail.init}/ns/user", os.O_RDONLY) if user_namespace else None
    yield Target(join, pidfd, image, jail.init, user_fd)
    for fd in (pidfd, image, user_fd):
        if fd is not None:
            os.close(fd)
    jail.close()
