# SPDX-License-Identifier: BSD-2-Clause
"""atheris target: whatever comes in on the socket, the codec gives messages or ProtocolError."""

import sys

import atheris

with atheris.instrument_imports(include=["jaildaemon.core.wire"]):
    from jaildaemon.core import wire


def one(data: bytes) -> None:
    """Feed `data` in two pieces, the first byte saying where they part."""
    cut = data[0] if data else 0
    decoder = wire.Decoder()
    try:
        for piece in (data[1 : 1 + cut], data[1 + cut :]):
            decoder.feed(piece)
            while (message := decoder.next()) is not None:
                if wire.decode(wire.encode(message)[:-1]) != message:
                    raise AssertionError(message)
    except wire.ProtocolError:
        return


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
