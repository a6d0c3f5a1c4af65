# SPDX-License-Identifier: BSD-2-Clause
"""Telling systemd that the daemon serves (sd_notify(3))."""

import contextlib
import os
import socket

SECONDS = 5.0
"""How long systemd may take to read it.  Nothing is served as yet."""


def notify_ready() -> None:
    """Tell whoever started us by a unit of Type=notify; otherwise do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with (
        contextlib.suppress(OSError),  # it runs into the unit's own deadline
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(SECONDS)
        sock.connect(f"\0{address[1:]}" if address[0] == "@" else address)
        sock.send(b"READY=1")
