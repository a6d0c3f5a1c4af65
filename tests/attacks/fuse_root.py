# SPDX-License-Identifier: BSD-2-Clause
"""A caller whose root directory is a file system of its own, which answers when it likes.

python fuse_root.py FUSE_FD MOUNT_POINT DIRECTORY: mounts it, makes it the root, gives up
what a container has not, and for each line of its input calls DIRECTORY/pipe.
"""

import contextlib
import ctypes
import os
import socket
import struct
import sys
import threading
from pathlib import Path

assert sys.platform == "linux"

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.attacks.cage import DOCKER_CAPS
from tests.attacks.naive import held_caps, keep

NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
# linux/fuse.h
LOOKUP, FORGET, GETATTR, INIT, ACCESS, INTERRUPT, BATCH_FORGET = 1, 2, 3, 26, 34, 36, 42
HEAD, ANSWER = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
ENOSYS, ENOENT = 38, 2
ROOT_ATTR = struct.pack("<QII6Q10I", 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, *[0] * 5)


class FuseServer:
    """Serves a file system that has an empty root, and between `stall` and `go_on` no answer."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/fuse", os.O_RDWR)
        self.asked = threading.Event()
        self._go_on = threading.Event()
        self._go_on.set()

    def stall(self) -> None:
        """Say nothing of the root any more."""
        self._go_on.clear()

    def go_on(self) -> None:
        """Answer all that was asked."""
        self._go_on.set()

    def start(self) -> None:
        """Serve, when it is mounted and until it no longer is."""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self.fd, 1 << 18)
            except OSError:  # ENODEV: it is no longer mounted
                os.close(self.fd)
                return
            _, call, unique, *_ = HEAD.unpack_from(request)
            if call in (FORGET, INTERRUPT, BATCH_FORGET):
                continue
            if call == GETATTR and not self._go_on.is_set():
                self.asked.set()
                self._go_on.wait()
            error, body = self._answer(call)
            head = ANSWER.pack(ANSWER.size + len(body), -error, unique)
            with contextlib.suppress(OSError):  # who asked has been killed
                os.write(self.fd, head + body)

    @staticmethod
    def _answer(call: int) -> tuple[int, bytes]:
        if call == INIT:
            return 0, struct.pack("<IIII", 7, 31, 0, 0).ljust(64, b"\0")
        if call == GETATTR:
            return 0, ROOT_ATTR
        if call == ACCESS:
            return 0, b""
        return (ENOENT if call == LOOKUP else ENOSYS), b""


def main() -> None:
    """Do as we are told."""
    fuse_fd, mount_point, directory = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    caps = DOCKER_CAPS & held_caps()
    assert libc.unshare(NEWNS) == 0
    assert libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None) == 0
    options = f"fd={fuse_fd},rootmode=40000,user_id=0,group_id=0".encode()
    zero = ctypes.c_ulong(0)
    assert libc.mount(b"fuse", mount_point.encode(), b"fuse", zero, options) == 0
    print("mounted", flush=True)
    os.chdir(directory)
    os.chroot(mount_point)
    keep(caps)
    print("ready", flush=True)
    for _ in sys.stdin:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect("pipe")
            print(sock.recv(4096).decode(), flush=True)


if __name__ == "__main__":
    main()
