# SPDX-License-Identifier: BSD-2-Clause
"""The codec: every message whole, byte by byte and with more behind it; and hostile bytes.

Whatever is fed, a message comes out, nothing yet, or ProtocolError: no other.
"""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaildaemon.core import wire
from jaildaemon.core.wire import Decoder, ProtocolError

MESSAGES: dict[str, tuple[bytes, dict[str, object]]] = {
    "a call": (
        b'{"method":"org.jaildaemon.List","parameters":{}}\0',
        {"method": "org.jaildaemon.List", "parameters": {}},
    ),
    "a call with parameters": (
        b'{"method":"a.B","parameters":{"command":"true","jail":"7","policy":{"uid":0}}}\0',
        {
            "method": "a.B",
            "parameters": {"command": "true", "jail": "7", "policy": {"uid": 0}},
        },
    ),
    "a call without parameters": (
        b'{"method":"org.varlink.service.GetInfo"}\0',
        {"method": "org.varlink.service.GetInfo"},
    ),
    "a oneway call": (b'{"method":"a.B","oneway":true}\0', {"method": "a.B", "oneway": True}),
    "a reply": (b'{"parameters":{"ids":["t1","t2"]}}\0', {"parameters": {"ids": ["t1", "t2"]}}),
    "one of several replies": (
        b'{"parameters":{},"continues":true}\0',
        {"parameters": {}, "continues": True},
    ),
    "an error": (
        b'{"error":"org.jaildaemon.Refused","parameters":{"why":"no"}}\0',
        {"error": "org.jaildaemon.Refused", "parameters": {"why": "no"}},
    ),
    "an empty object": (b"{}\0", {}),
    "blanks around": (b' \n{ "a" : 1 }\t\0', {"a": 1}),
    "UTF-8": ('{"title":"Glöckchen 🔔"}\0'.encode(), {"title": "Glöckchen 🔔"}),
    "escapes": (rb'{"title":"\ud83d\udd14 \n\""}' + b"\0", {"title": '🔔 \n"'}),
    "an escaped NUL": (rb'{"command":"a\u0000b"}' + b"\0", {"command": "a\0b"}),
    "a byte that is not UTF-8": (rb'{"command":"\udcff"}' + b"\0", {"command": "\udcff"}),
    "the same name in two objects": (
        b'{"a":{"a":1},"b":{"a":2}}\0',
        {"a": {"a": 1}, "b": {"a": 2}},
    ),
    "a large number": (b'{"a":1e308}\0', {"a": 1e308}),
    "an integer of 4300 digits": (b'{"a":' + b"9" * 4300 + b"}\0", {"a": int("9" * 4300)}),
}

every_message = pytest.mark.parametrize(("data", "message"), MESSAGES.values(), ids=MESSAGES)


@every_message
def test_a_whole_message_is_decoded(data: bytes, message: dict[str, object]) -> None:
    decoder = Decoder()
    decoder.feed(data)
    assert decoder.next() == message
    assert decoder.next() is None
    assert not decoder.pending


@every_message
def test_a_message_may_come_byte_by_byte(data: bytes, message: dict[str, object]) -> None:
    decoder = Decoder()
    for byte in data[:-1]:
        decoder.feed(bytes([byte]))
        assert decoder.next() is None
        assert decoder.pending
    decoder.feed(data[-1:])
    assert decoder.next() == message
    assert not decoder.pending


@every_message
def test_what_follows_a_message_is_kept(data: bytes, message: dict[str, object]) -> None:
    decoder = Decoder()
    decoder.feed(data + data + b'{"next":')
    assert decoder.next() == message
    assert decoder.size == len(data) + 8
    assert decoder.next() == message
    assert decoder.next() is None
    assert (decoder.pending, decoder.size) == (True, 8)
    decoder.feed(b"2}\0")
    assert decoder.next() == {"next": 2}


def test_an_empty_message_behind_a_good_one_is_found() -> None:
    decoder = Decoder()
    decoder.feed(b"{}\0\0")
    assert decoder.next() == {}
    with pytest.raises(ProtocolError):
        decoder.next()


def test_without_bytes_there_is_no_message() -> None:
    decoder = Decoder()
    decoder.feed(b"")
    assert (decoder.next(), decoder.pending, decoder.size) == (None, False, 0)


# --- what we send ------------------------------------------------------------------


def test_a_call_is_written_as_varlink_says() -> None:
    data = wire.call("org.jaildaemon.Detach", {"rule": "t1"})
    assert data == b'{"method":"org.jaildaemon.Detach","parameters":{"rule":"t1"}}\0'


def test_a_reply_is_written_as_varlink_says() -> None:
    assert wire.reply({"ids": []}) == b'{"parameters":{"ids":[]}}\0'


def test_an_error_is_written_as_varlink_says() -> None:
    data = wire.error("org.jaildaemon.Refused", {"why": "no"})
    assert data == b'{"error":"org.jaildaemon.Refused","parameters":{"why":"no"}}\0'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_json_is_not_sent(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        wire.encode({"seconds": number})


KEYS = st.text(max_size=20)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=4)


def joined(message: Any) -> Any:
    """Return `message` as any JSON writer and reader give it back.

    Two halves of a surrogate pair side by side become the character.
    """
    return json.loads(json.dumps(message))


@given(OBJECTS)
def test_what_is_sent_is_what_is_received(message: dict[str, object]) -> None:
    data = wire.encode(message)
    assert data.count(b"\0") == 1
    assert wire.decode(data[:-1]) == joined(message)


@given(st.lists(OBJECTS, max_size=3), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_messages_come_whole_however_the_bytes_are_cut(
    messages: list[dict[str, object]], lengths: list[int]
) -> None:
    data = b"".join(wire.encode(message) for message in messages)
    decoder = Decoder()
    received = []
    for length in itertools.cycle(lengths):
        if not data:
            break
        decoder.feed(data[:length])
        data = data[length:]
        while (message := decoder.next()) is not None:
            received.append(message)
    assert received == [joined(message) for message in messages]
    assert not decoder.pending


# --- the limit -----------------------------------------------------------------------


def message_of(size: int) -> bytes:
    """Return a message of exactly `size` bytes, its NUL included."""
    return b'{"a":"' + b"x" * (size - 9) + b'"}\0'


def test_a_message_of_exactly_the_limit_is_taken() -> None:
    data = message_of(wire.MAX_MESSAGE)
    assert len(data) == wire.MAX_MESSAGE == 65536
    decoder = Decoder()
    decoder.feed(data)
    assert decoder.next() is not None


def test_a_message_of_one_byte_more_is_refused() -> None:
    decoder = Decoder()
    decoder.feed(message_of(wire.MAX_MESSAGE + 1))
    with pytest.raises(ProtocolError, match="longer than 65536 bytes"):
        decoder.next()


def test_an_unfinished_message_is_refused_when_its_nul_can_no_longer_fit() -> None:
    decoder = Decoder(limit=100)
    decoder.feed(b"x" * 99)
    assert decoder.next() is None
    decoder.feed(b"x")
    with pytest.raises(ProtocolError, match="longer than 100 bytes"):
        decoder.next()


def test_a_message_that_is_too_long_stays_refused() -> None:
    decoder = Decoder(limit=10)
    decoder.feed(b"x" * 10)
    for _ in range(2):
        with pytest.raises(ProtocolError, match="longer than 10 bytes"):
            decoder.next()
        decoder.feed(b"\0{}\0")


def test_the_limit_is_each_messages_own() -> None:
    decoder = Decoder(limit=10)
    decoder.feed(b'{"a":111}\0' * 3)
    assert [decoder.next() for _ in range(4)] == [{"a": 111}] * 3 + [None]


def test_the_client_has_no_limit() -> None:
    decoder = Decoder(limit=None)
    decoder.feed(message_of(4 * wire.MAX_MESSAGE))
    assert decoder.next() is not None


# --- hostile bytes ---------------------------------------------------------------------

HOSTILE = {
    "nothing": b"",
    "a blank": b" ",
    "not JSON": b"hello",
    "unfinished": b'{"method":',
    "two objects": b"{}{}",
    "a comment": b"{} // yes",
    "single quotes": b"{'a':1}",
    "a comma too many": b'{"a":1,}',
    "a bare newline in a string": b'{"a":"\n"}',
    "an array": b"[]",
    "a string": b'"method"',
    "a number": b"1",
    "a huge number": b"9" * 60000,
    "null": b"null",
    "true": b"true",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "infinity by exponent": b'{"a":1e999}',
    "-infinity by exponent": b'{"a":[-1e999]}',
    "infinity by digits": b'{"a":' + b"9" * 400 + b".0}",
    "an integer of 4301 digits": b'{"a":' + b"9" * 4301 + b"}",
    "a negative integer of 60000 digits": b'{"a":-' + b"9" * 60000 + b"}",
    "deep arrays": b'{"a":' + b"[" * 30000 + b"]" * 30000 + b"}",
    "deep arrays without end": b"[" * 65000,
    "deep objects": b'{"a":' * 13000,
    "a name twice": b'{"method":"org.jaildaemon.List","method":"org.jaildaemon.Attach"}',
    "a name twice, further in": b'{"parameters":[{"uid":0,"gid":0,"uid":1}]}',
    "a name twice, once escaped": rb'{"uid":0,"u\u0069d":1}',
    "a Latin-1 byte": b'{"a":"\xe9"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "UTF-8 cut off": b'{"a":"\xf0\x9f"}',
    "UTF-16": '{"a":1}'.encode("utf-16-le").replace(b"\0", b"\x01"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a bad escape": rb'{"a":"\x41"}',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_a_protocol_error(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data + b"\0")
    with pytest.raises(ProtocolError) as caught:
        decoder.next()
    # It is logged: one line of a bearable length, whatever was sent.
    assert 0 < len(str(caught.value)) < 200


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_protocol_error_or_nothing(data: bytes) -> None:
    drain(data, 100)


BYTES = [bytes([byte]) for byte in b'{}[]":,\0 1-\\\xff']
WORDS = [b'"a":', b'{"a":1}\0', b"{}\0", b"null", b"1e999", b"NaN", rb"\ud800", rb"\u0000"]
FRAGMENTS = st.sampled_from([*BYTES, *WORDS])


@given(st.lists(FRAGMENTS, max_size=40).map(b"".join))
def test_almost_json_raises_protocol_error_or_nothing(data: bytes) -> None:
    drain(data, 60)


def drain(data: bytes, limit: int) -> None:
    """Take every message of `data`; what is accepted can be sent again, unchanged."""
    decoder = Decoder(limit)
    decoder.feed(data)
    for _ in range(data.count(b"\0") + 1):
        try:
            message = decoder.next()
        except ProtocolError:
            continue
        if message is not None:
            assert isinstance(message, dict)
            assert wire.decode(wire.encode(message)[:-1]) == joined(message)


# --- who may call what -------------------------------------------------------------------


def test_only_the_introspection_is_for_any_peer() -> None:
    for_any = {method for method, who in wire.ACCESS.items() if who == "any"}
    assert for_any == {
        "org.varlink.service.GetInfo",
        "org.varlink.service.GetInterfaceDescription",
    }
    readers = {method for method, who in wire.ACCESS.items() if who == "reader"}
    assert readers == {"org.jaildaemon.List", "org.jaildaemon.Status"}
    assert set(wire.ACCESS.values()) == {"any", "reader", "root"}
