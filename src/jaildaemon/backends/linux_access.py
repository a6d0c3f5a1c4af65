# SPDX-License-Identifier: BSD-2-Clause
"""Who else can change a file on Linux: what its mode does not show."""

import errno
import os
import sys

assert sys.platform == "linux"

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""For a directory on the way, which need not be readable."""
NFS4_ACL = "system.nfs4_acl"
_NONE = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS)


def acl_problem(fd: int) -> tuple[str, str | None] | None:
    """Return why an ACL may let others write, and the command that removes it.

    A POSIX ACL has its mask in the mode's group bits (acl(5)); an NFSv4 one does not.
    """
    try:
        # By its path: a descriptor of O_PATH has no attributes.
        os.getxattr(f"/proc/self/fd/{fd}", NFS4_ACL)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    return "has an NFSv4 access control list, which can let others write", None


def mounted_by(fd: int) -> int | None:
    """Return which user has mounted the file system of `fd`; None where it is root's to say.

    Only FUSE lets a user mount, and has him in its options (fuse(4)).
    """
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        number = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if before.split()[0] != number:
                continue
            kind, *_, options = after.split()
            if kind.split(".")[0] in ("fuse", "fuseblk"):
                for option in options.split(","):
                    name, _, value = option.partition("=")
                    if name == "user_id":
                        return int(value)
    return None
