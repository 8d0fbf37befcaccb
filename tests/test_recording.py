"""The audit trail as it is configured: a file, a thread, a key and sinks, and what sessions are told of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from imapgate import recording as module
from imapgate.audit.sinks import DatagramSink, Journal, OctetCounted, StreamSink, Syslog, json_line
from imapgate.config.types import Audit, AuditSink, ClientEndpoint, Durability, SearchCriteria, SinkKind
from imapgate.errors import ConfigurationError
from imapgate.recording import Recording
from tests.config.configurations import make_signing_key

SOCKET = ClientEndpoint("unix", "unix:/run/collector", path="/run/collector")
HOST = ClientEndpoint("tcp", "tcp:log.example.org:514", "log.example.org", 514)
SECURE = ClientEndpoint("tls", "tls:log.example.org:6514", "log.example.org", 6514)


class Pool:
    """Threads that are none."""

    made: list[Pool] = []

    def __init__(self, least: int, most: int, name: str) -> None:
        self.size = least, most
        self.states: list[str] = []
        self.made.append(self)

    def start(self) -> None:
        """Note it."""
        self.states.append("started")

    def stop(self) -> None:
        """Note it."""
        self.states.append("stopped")


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """What belongs into a thread is done at once, and it is known in whose."""
    Pool.made.clear()

    def at_once(reactor: object, pool: Pool, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        assert pool.states == ["started"]
        return execute(function, *arguments)

    monkeypatch.setattr(module, "Threads", Pool)
    monkeypatch.setattr(module, "deferToThreadPool", at_once)
    return Pool.made


def recording(configured: Audit) -> tuple[Recording, MemoryReactorClock]:
    """A trail, and the time."""
    reactor = MemoryReactorClock()
    return Recording(reactor, configured), reactor


def ended(recorded: Recording, reactor: MemoryReactorClock) -> None:
    """Stop it, in the time that it takes."""
    done: list[object] = []
    recorded.stop().addCallback(done.append)
    for _ in range(100):
        reactor.advance(0.01)
    assert done == [None]


def records(file: Path) -> list[dict[str, Any]]:
    """What a file holds."""
    return [json.loads(line) for line in file.read_text().splitlines()]


# --- its life ---------------------------------------------------------------------------------------


def test_from_the_start_to_the_end(tmp_path: Path, no_threads: list[Pool]) -> None:
    """It writes in one thread of its own, which ends with it; nothing is done before it starts."""
    file = tmp_path / "audit.jsonl"
    recorded, reactor = recording(Audit(file))
    assert not file.exists()
    (pool,) = no_threads
    assert (pool.size, pool.states) == ((0, 1), [])
    recorded.start()
    recorded.trail.record("search", "ok", {"search.found": 3})
    reactor.advance(0.2)
    ended(recorded, reactor)
    assert pool.states == ["started", "stopped"]
    assert [each["event"] for each in records(file)] == ["audit.checkpoint", "search", "audit.checkpoint"]
    assert len({each["chain"] for each in records(file)}) == 1
    assert not [call for call in reactor.getDelayedCalls() if call.active()]


def test_the_time_is_the_clocks_of_the_wall(tmp_path: Path) -> None:
    """Records bear the time of day in UTC."""
    recorded, reactor = recording(Audit(tmp_path / "audit.jsonl"))
    recorded.start()
    ended(recorded, reactor)
    for each in records(tmp_path / "audit.jsonl"):
        assert each["time"].endswith("Z")
        assert each["time"] > "2026-01-01T00:00:00"


def test_each_process_has_a_chain_of_its_own(tmp_path: Path) -> None:
    """Two of them have different ids, and the second one of a file that is locked writes beside it."""
    first, reactor = recording(Audit(tmp_path / "audit.jsonl"))
    second, other = recording(Audit(tmp_path / "audit.jsonl"))
    first.start()
    second.start()
    ended(first, reactor)
    ended(second, other)
    (beside,) = [path for path in tmp_path.iterdir() if path.name != "audit.jsonl"]
    chains = [records(path)[0]["chain"] for path in (tmp_path / "audit.jsonl", beside)]
    assert chains[0] != chains[1]
    assert chains[1] in beside.name


@pytest.mark.parametrize(
    ("name", "why"),
    [("absent/audit.jsonl", "No such file or directory"), ("audit.log", "must end in .jsonl"), ("d.jsonl", "")],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, no_threads: list[Pool], name: str, why: str) -> None:
    """It is said which and why, and no thread is left."""
    (tmp_path / "d.jsonl").mkdir()
    recorded, reactor = recording(Audit(tmp_path / name))
    with pytest.raises(ConfigurationError, match=f"^audit file {tmp_path / name}: .*{why}"):
        recorded.start()
    assert no_threads[0].states == ["started", "stopped"]
    assert not reactor.getDelayedCalls()


def test_the_thread_ends_though_the_end_fails(
    tmp_path: Path, no_threads: list[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes of the end, the thread ends, and whoever waits hears it."""
    recorded, _ = recording(Audit(tmp_path / "audit.jsonl"))
    no_threads[0].start()
    said: list[Any] = []
    for outcome in (fail(RuntimeError("a bug")), succeed(None)):
        monkeypatch.setattr(recorded.trail, "stop", lambda outcome=outcome: outcome)
        recorded.stop().addBoth(said.append)
    assert no_threads[0].states == ["started", "stopped", "stopped"]
    assert said[0].getErrorMessage() == "a bug"
    assert said[1] is None


def test_checkpoints_are_signed(tmp_path: Path) -> None:
    """With a key each checkpoint has a signature; a key that cannot be read is said to be so."""
    key = tmp_path / "key"
    make_signing_key(key)
    recorded, reactor = recording(Audit(tmp_path / "audit.jsonl", checkpoint_key=key))
    recorded.start()
    ended(recorded, reactor)
    assert all("checkpoint.signature" in each for each in records(tmp_path / "audit.jsonl"))
    with pytest.raises(ConfigurationError, match="absent"):
        recording(Audit(tmp_path / "audit.jsonl", checkpoint_key=tmp_path / "absent"))


# --- what sessions are told ------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", list(Durability))
def test_what_is_promised(tmp_path: Path, durability: Durability) -> None:
    """Sessions wait for the disk only where that is configured."""
    recorded, reactor = recording(Audit(tmp_path / "audit.jsonl", durability))
    recorded.start()
    recorded.trail.record("search", "ok", {})
    durable = durability is Durability.DURABLE
    assert recorded.auditing.durable is durable
    assert (recorded.trail.committed() is not None) is durable
    reactor.advance(1.5)
    assert recorded.auditing.seconds() == reactor.seconds()
    ended(recorded, reactor)


def test_what_fails(tmp_path: Path) -> None:
    """Sessions hear at every command whether it can be recorded."""
    recorded, _ = recording(Audit(tmp_path / "audit.jsonl"))
    assert recorded.auditing.failing() == ""
    recorded.trail.failing = "the disk is full"
    assert recorded.auditing.failing() == "the disk is full"


def test_search_criteria(tmp_path: Path) -> None:
    """They are mail, in a way: they are hashed, unless the operator wants to read them."""
    criteria = b'TEXT "caf\xe9"'
    hashed, _ = recording(Audit(tmp_path / "audit.jsonl"))
    digest = hashlib.sha256(criteria).hexdigest()
    assert hashed.auditing.digest(criteria) == {"search.criteria_sha256": digest}
    plain, _ = recording(Audit(tmp_path / "audit.jsonl", search_criteria=SearchCriteria.TEXT))
    assert plain.auditing.digest(criteria) == {"search.criteria": 'TEXT "caf\\xe9"'}


@pytest.mark.parametrize("subjects", [False, True])
def test_subjects(tmp_path: Path, subjects: bool) -> None:
    """They are recorded where that is configured."""
    assert recording(Audit(tmp_path / "audit.jsonl", subjects=subjects))[0].auditing.subjects is subjects


# --- sinks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "kind", "shape", "name"),
    [
        (AuditSink(SinkKind.JOURNALD, SOCKET, facility=3), DatagramSink, Journal, "journald unix:/run/collector"),
        (AuditSink(SinkKind.SYSLOG, SOCKET, facility=3), DatagramSink, Syslog, "syslog unix:/run/collector"),
        (AuditSink(SinkKind.SYSLOG, HOST, facility=3), StreamSink, OctetCounted, "syslog tcp:log.example.org:514"),
        (AuditSink(SinkKind.UNIX, SOCKET), StreamSink, None, "unix unix:/run/collector"),
    ],
)
def test_sinks(tmp_path: Path, configured: AuditSink, kind: type, shape: type | None, name: str) -> None:
    """Each goes where it is configured to, in the form that is read there."""
    recorded, _ = recording(Audit(tmp_path / "audit.jsonl", sinks=(configured,)))
    (sink,) = recorded.trail._sinks
    assert type(sink) is kind
    assert sink.rows()[0]["name"] == name
    made: Any = sink._make  # type: ignore[attr-defined]
    if shape is None:
        assert made is json_line
    else:
        assert (type(made), made._facility) == (shape, 3)
    if kind is StreamSink:
        expected = UNIXClientEndpoint if configured.address is SOCKET else HostnameEndpoint
        assert type(sink._endpoint) is expected  # type: ignore[attr-defined]
    else:
        assert sink._path == Path("/run/collector")  # type: ignore[attr-defined]


@pytest.mark.parametrize(("wanted", "name"), [(None, "log.example.org"), ("collector.example.org",) * 2])
def test_a_sink_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str | None, name: str) -> None:
    """It is sent nothing before it has proved the name that is configured, or else its host's."""
    asked: list[tuple[object, ...]] = []
    wrapped: list[object] = []
    monkeypatch.setattr(module, "client_creator", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(module, "wrapClientTLS", lambda creator, endpoint: wrapped.append(endpoint) or "wrapped")
    configured = AuditSink(SinkKind.SYSLOG, SECURE, ca=Path("ca.pem"), server_name=wanted)
    recorded, _ = recording(Audit(tmp_path / "audit.jsonl", sinks=(configured,)))
    (sink,) = recorded.trail._sinks
    assert asked == [(name, Path("ca.pem"), False)]
    assert len(wrapped) == 1
    assert (sink._endpoint, sink._secure) == ("wrapped", True)  # type: ignore[attr-defined]


def test_a_sink_whose_roots_cannot_be_read(tmp_path: Path) -> None:
    """It is said so at once."""
    configured = AuditSink(SinkKind.SYSLOG, SECURE, ca=tmp_path / "absent.pem")
    with pytest.raises(ConfigurationError, match=r"absent\.pem"):
        recording(Audit(tmp_path / "audit.jsonl", sinks=(configured,)))
