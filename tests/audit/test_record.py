"""Records as lines."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.audit.chain import Chain
from imapgate.audit.record import canonical, read, seal


def test_canonical() -> None:
    """Keys are sorted, nothing is spaced, all is ASCII."""
    record = {"b": [1, "é"], "a": {"d": True, "c": None}, "č": 0.5}
    assert canonical(record) == b'{"a":{"c":null,"d":true},"b":[1,"\\u00e9"],"\\u010d":0.5}'


def test_what_json_does_not_know() -> None:
    """A value that JSON cannot carry is there as its text: a record is never lost by it."""
    assert canonical({"note.p": Path("x"), "seq": 1}) == b'{"note.p":"x","seq":1}'
    line = canonical({"note.n": float("nan"), "note.i": float("-inf"), "seq": 1, "note.b": True})
    assert line == b'{"note.b":true,"note.i":"-inf","note.n":"nan","seq":1}'


def test_the_chain() -> None:
    """Each hash can be computed by whoever has the line and the hash before, with nothing but SHA-256."""
    chain = Chain("c1")
    hash_ = sha256(b"c1").hexdigest()
    for seq in (1, 2, 3):
        line = chain.seal({"event": "search", "zebra": "Ω"})
        body, _, tail = line.partition(b',"hash":"')
        assert body == b'{"chain":"c1","event":"search","seq":%d,"zebra":"\\u03a9"' % seq
        hash_ = sha256(hash_.encode() + body + b"}").hexdigest()
        assert tail == hash_.encode() + b'"}\n'
        assert (chain.seq, chain.hash) == (seq, hash_)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda name: name not in ("chain", "seq", "hash")), JSON, max_size=6))
def test_read_back(fields: dict[str, object]) -> None:
    """Whatever is in a record, its line is one line, and reads back as what it was."""
    record = {**fields, "chain": "c1", "seq": 7}
    line, hash_ = seal(record, "0" * 64)
    assert line.count(b"\n") == 1
    assert line.isascii()
    found = read(line)
    assert found is not None
    assert (found.record, found.hash, found.chain, found.seq) == (record, hash_, "c1", 7)
    assert found.body == canonical(record)
    assert json.loads(line) == {**record, "hash": hash_}


HASH = b',"hash":"' + b"0" * 64 + b'"}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"{}\n", b"[1" + HASH, b'{"chain":"c","seq":1' + HASH[:-1], b'{"chain":"c","seq":1' + HASH + b"\n",
        b'{"chain":"c","seq":true' + HASH, b'{"chain":1,"seq":1' + HASH, b'{"chain":"c","seq":' + HASH,
        b'{"chain":"","seq":1' + HASH,
        b'{"chain":"\\u001b[31m","seq":1' + HASH, b'{"chain":"c","seq":1.0' + HASH, b'{"seq":1' + HASH,
        b'{"chain":"c","seq":1' + HASH.replace(b"0", b"A"), b'{"chain":"\xff","seq":1' + HASH,
        b'{"a":' * 100_000 + b"1" + b"}" * 99_999 + HASH, b'{"chain":"c","seq":' + b"1" * 5000 + HASH,
    ],
)  # fmt: skip
def test_no_record(line: bytes) -> None:
    """What is no record is none, however strange it is."""
    assert read(line) is None


def test_previous() -> None:
    """What a record says it follows is a hash, or nothing."""
    for given_, seen in (("a" * 64, "a" * 64), ("A" * 64, ""), (7, ""), ("\ud800", "")):
        found = read(seal({"chain": "c", "seq": 1, "previous": given_}, "0" * 64)[0])
        assert found is not None
        assert found.previous == seen
