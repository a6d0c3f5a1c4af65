# SPDX-License-Identifier: BSD-2-Clause
"""Gives a user a place in an access control list, as setfacl(1) does: acl.py UID rwx PATH...

By hand on Linux, where setfacl may be missing; on FreeBSD it is in the base system.
"""

import errno
import os
import struct
import subprocess
import sys

NAME = "system.posix_acl_access"
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 1, 2, 4, 16, 32  # linux/posix_acl.h
NO_ID = 2**32 - 1
UNSUPPORTED = 75
"""The exit status where the file system has no such lists."""


def acl(mode: int, uid: int, bits: int) -> bytes:
    """Return the attribute for a file of `mode` with one user more (posix_acl_xattr.h)."""
    group = mode >> 3 & 7
    entries = [
        (USER_OBJ, mode >> 6 & 7, NO_ID),
        (USER, bits, uid),
        (GROUP_OBJ, group, NO_ID),
        (MASK, group | bits, NO_ID),
        (OTHER, mode & 7, NO_ID),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def main() -> int:
    """Do it."""
    uid, letters, *paths = sys.argv[1:]
    bits = sum({"r": 4, "w": 2, "x": 1}[letter] for letter in letters)
    for path in paths:
        if sys.platform != "linux":
            words = ["setfacl", "-m", f"u:{uid}:{letters}::allow", path]  # ZFS: NFSv4's
            if subprocess.run(words, check=False).returncode != 0:
                return UNSUPPORTED
            continue
        try:
            os.setxattr(path, NAME, acl(os.stat(path).st_mode, int(uid), bits))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return UNSUPPORTED
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
