# SPDX-License-Identifier: BSD-2-Clause
"""What must hold of the codec for any bytes, and the kept corpus fed to it."""

import sys
from pathlib import Path
from types import ModuleType


def once(wire: ModuleType, data: bytes) -> None:
    """Feed `data` in two pieces, the first byte saying where they part.

    AssertionError, or whatever else comes but ProtocolError, is a bug found.
    """
    cut = data[0] if data else 0
    pieces = (data[1 : 1 + cut], data[1 + cut :])
    whole, parts = wire.Decoder(), wire.Decoder()
    whole.feed(data[1:])
    told = []
    for decoder, feeds in ((whole, [b""]), (parts, pieces)):
        found: list[object] = []
        try:
            for piece in feeds:
                decoder.feed(piece)
                held = decoder.size
                while (message := decoder.next()) is not None:
                    assert held - decoder.size <= wire.MAX_MESSAGE
                    held = decoder.size
                    assert isinstance(message, dict)
                    assert wire.decode(wire.encode(message)[:-1]) == message
                    found.append(message)
                # What an unfinished message may make us keep is bounded.
                assert decoder.size < wire.MAX_MESSAGE
                assert decoder.pending == (decoder.size > 0)
        except wire.ProtocolError:
            found.append("error")
        told.append(found)
    # However it is cut up, it says the same.
    assert told[0] == told[1], told


if __name__ == "__main__":
    from jaildaemon.core import wire as ours

    for path in sorted(Path(sys.argv[1]).iterdir()):
        once(ours, path.read_bytes())
    ours.call("m", {})
    ours.reply({})
    ours.error("e", {})
