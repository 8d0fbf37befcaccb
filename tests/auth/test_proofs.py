"""What was proved of each user's credential: which one, when, and its generation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.auth.proofs import Place, Proofs

ALICE: Place = ("mail", b"alice")
BOB: Place = ("mail", b"bob")
KEY = b"k" * 32

PARTS = st.lists(
    st.one_of(st.binary(max_size=6), st.sampled_from([b"", b"1:", b"0:", b"1:a", b":", b"12:"])), max_size=4
)


def proofs(seconds: float = 60.0, most: int = 100) -> Proofs:
    """A table."""
    return Proofs(KEY, seconds, most)


# --- digests ----------------------------------------------------------------------------------------


@given(PARTS, PARTS)
def test_a33_no_two_credentials_have_one_digest(one: list[bytes], other: list[bytes]) -> None:
    """Parts that differ have digests that differ, wherever one ends and the next begins."""
    assert (proofs().digest(one) == proofs().digest(other)) is (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((b"mail", b"a\0b", b"c"), (b"mail", b"a", b"b\0c")),
        ((b"mail", b"alice", b"pw"), (b"mail", b"Alice", b"pw")),
        ((b"mail", b"u@d", b"pw"), (b"mail", b"u%d", b"pw")),
        ((b"mail", b"alice*gate", b"pw"), (b"mail", b"alice", b"*gatepw")),
        ((b"mail", b"alic", b"epw"), (b"mail", b"alice", b"pw")),
        ((b"mailalice", b"", b"pw"), (b"mail", b"alice", b"pw")),
        ((b"mail", b"1:a", b"b"), (b"mail", b"", b"1:a1:b")),
        ((b"mail", b"alice", b"pw"), (b"mail", b"alice", b"pw", b"")),
    ],
)
def test_a33_names_that_look_alike(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> None:
    """Separators, case and master forms of a name make other credentials of it."""
    assert proofs().digest(one) != proofs().digest(other)


def test_a34_a_digest_is_this_processs_own() -> None:
    """Another key, another digest: what is in memory says nothing to whoever does not have the key."""
    assert Proofs(b"a" * 32, 60).digest([b"x"]) != Proofs(b"b" * 32, 60).digest([b"x"])
    assert len(proofs().digest([b"x" * 10_000])) == len(proofs().digest([]))


# --- proofs -----------------------------------------------------------------------------------------


def test_recent() -> None:
    """What was proved is good for its user, its upstream and this very credential, and for its time."""
    table = proofs(60)
    assert table.recent(ALICE, b"d", 0.0) is None
    generation = table.proved(ALICE, b"d", 0.0)
    assert table.recent(ALICE, b"d", 60.0) == generation
    assert table.recent(ALICE, b"d", 60.1) is None
    assert table.recent(ALICE, b"e", 1.0) is None
    assert table.recent(ALICE, b"", 1.0) is None
    assert table.recent(BOB, b"d", 1.0) is None
    assert table.recent(("other", b"alice"), b"d", 1.0) is None


def test_looking_proves_nothing() -> None:
    """Only an upstream's yes begins the time again, not a login that was let in for the last one's sake."""
    table = proofs(60)
    table.proved(ALICE, b"d", 0.0)
    for now in range(0, 61, 10):
        assert table.recent(ALICE, b"d", now) is not None
    assert table.recent(ALICE, b"d", 61.0) is None
    table.proved(ALICE, b"d", 61.0)
    assert table.recent(ALICE, b"d", 121.0) is not None


@pytest.mark.parametrize("now", [0.0, -0.0, 1e-9, 100.0])
def test_a34_without_a_cache_nothing_is_recent(now: float) -> None:
    """With the default every login is verified upstream, even at the very moment of a proof."""
    table = proofs(0)
    table.proved(ALICE, b"d", 0.0)
    assert table.recent(ALICE, b"d", now) is None


def test_a34_purged_by_a_failure() -> None:
    """A failed login ends what was proved before, at once, for its user and for nobody else."""
    table = proofs()
    before = table.proved(ALICE, b"d", 0.0)
    table.proved(BOB, b"d", 0.0)
    assert table.failed(ALICE) > before
    assert table.recent(ALICE, b"d", 0.0) is None
    assert table.recent(ALICE, b"", 0.0) is None
    assert table.recent(BOB, b"d", 0.0) is not None
    again = table.proved(ALICE, b"d", 1.0)
    assert table.recent(ALICE, b"d", 1.0) == again


def test_another_time() -> None:
    """A reload can give what was proved a shorter time."""
    table = proofs(60)
    table.proved(ALICE, b"d", 0.0)
    table.seconds = 10
    assert table.recent(ALICE, b"d", 11.0) is None
    table.seconds = 0
    assert table.recent(ALICE, b"d", 0.0) is None


# --- generations ------------------------------------------------------------------------------------


def test_generation() -> None:
    """It stays while the same credential is proved, and is another one with another credential or after a failure."""
    table = proofs()
    first = table.generation(ALICE)
    assert table.generation(ALICE) == first
    proved = table.proved(ALICE, b"d", 0.0)
    assert table.proved(ALICE, b"d", 1000.0) == proved
    other = table.proved(ALICE, b"e", 1001.0)
    back = table.proved(ALICE, b"d", 1002.0)
    failed = table.failed(ALICE)
    assert len({proved, other, back, failed}) == 4
    assert table.generation(ALICE) == failed


def test_the_first_proof_keeps_a_generation_that_nobody_proved() -> None:
    """What the gate verified by itself, and what was looked at only, has the generation that stands."""
    table = proofs()
    stands = table.generation(ALICE)
    assert table.proved(ALICE, b"", 0.0) == stands
    assert table.proved(ALICE, b"", 1.0) == stands
    assert table.generation(ALICE) == stands


def test_lru() -> None:
    """The table has a bound: who was proved longest ago makes room, and is only verified once more."""
    table = proofs(most=2)
    table.proved(ALICE, b"d", 0.0)
    table.proved(BOB, b"d", 0.0)
    table.proved(ALICE, b"d", 1.0)
    table.proved(("mail", b"carol"), b"d", 1.0)
    assert len(table) == 2
    assert table.recent(ALICE, b"d", 1.0) is not None
    assert table.recent(BOB, b"d", 1.0) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["generation", "proved", "failed"]),
            st.sampled_from([ALICE, BOB, ("other", b"alice"), ("mail", b"carol")]),
            st.sampled_from([b"d", b"e"]),
        ),
        max_size=40,
    )
)
def test_a31_never_the_same_generation_twice(steps: list[tuple[str, Place, bytes]]) -> None:
    """A generation stands for one credential of one user for ever, though its entry may have been pushed out."""
    table = proofs(most=2)
    meant: dict[int, tuple[Place, bytes]] = {}
    left: set[int] = set()
    standing: dict[Place, int] = {}
    for what, place, digest in steps:
        if what == "proved":
            generation = table.proved(place, digest, 0.0)
            assert meant.setdefault(generation, (place, digest)) == (place, digest)
        else:
            generation = table.generation(place) if what == "generation" else table.failed(place)
        before = standing.get(place)
        if before is not None and before != generation:
            left.add(before)
        assert generation not in left
        standing[place] = generation
        assert len(table) <= 2
