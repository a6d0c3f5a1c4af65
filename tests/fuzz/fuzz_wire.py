# SPDX-License-Identifier: BSD-2-Clause
"""atheris target: whatever comes in on the socket, the codec gives messages or ProtocolError."""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
with atheris.instrument_imports(include=["jaildaemon.core.wire"]):
    from jaildaemon.core import wire

from tests.fuzz.wire_once import once


def one(data: bytes) -> None:
    """Hold the codec to what must hold for any bytes."""
    once(wire, data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
