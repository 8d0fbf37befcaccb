"""The gate is told to stop while clients are at work (THREATS F16), and tells systemd how it fares."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.bed import bed_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl
from tests.integration.gate import gate_for
from tests.integration.operated import HALF, SHUTTING_DOWN, Held, ends
from tests.integration.scripted import MESSAGE, Command, Conversation
from tests.integration.servers import Dovecot, Server, wait_until
from tests.integration.servers.base import accepts

NewUser = Callable[..., User]


@pytest.mark.parametrize("how", ["shutdown", "SIGTERM", "SIGINT"])
def test_f16_stop(how: str) -> None:
    """Nobody is let in; who rests or idles is told BYE at once, who waits for an answer when it is there (F16)."""
    with bed_of(admin=ADMIN) as bed:
        gate, held = bed.gate, Held()
        bed.answer(FETCH=held)
        fetching, resting, idling = (bed.login()[0] for _ in range(3))
        held.ask(fetching)
        idling.ok(b"SELECT INBOX")
        idling.send(b"i IDLE\r\n")
        idling.expect_continuation()
        fresh = bed.connect()
        if how == "shutdown":
            assert ctl(gate, "shutdown") == [{"sessions": 4}]
        else:
            gate.signal(signal.Signals[how])
        for wire in (resting, idling, fresh):
            assert wire.eof().endswith(SHUTTING_DOWN)
        assert not any(map(accepts, gate.ports))
        assert held.rest(fetching) == SHUTTING_DOWN
        assert ends(gate) == 0
        assert not Path(gate.directory, "control").exists()
        assert "Traceback" not in gate.log()
        assert not bed.recorder.violations


@pytest.mark.parametrize("mode", ["session", "mailbox"])
def test_f16_a_message_on_its_way_is_stored_and_acknowledged(server: Server, user: NewUser, mode: str) -> None:
    """SIGTERM in the middle of an APPEND: the client sends the rest, is told OK, and then BYE; one is stored (F16)."""
    someone = user(server)
    with gate_for(server, upstream={"pool_mode": mode}, admin=ADMIN) as gate:
        wire, resting = someone.wire(gate.port), someone.wire(gate.port)
        wire.send(b"a APPEND INBOX {%d}\r\n" % len(MESSAGE))
        wire.expect_continuation()
        wire.send(MESSAGE[:HALF])
        gate.signal(signal.SIGTERM)
        assert resting.eof() == SHUTTING_DOWN
        assert not accepts(gate.port)
        wire.send(MESSAGE[HALF:] + b"\r\nb CREATE late\r\n")
        rest = wire.eof()
        assert re.fullmatch(rb"a OK [^\r\n]*\r\n" + re.escape(SHUTTING_DOWN), rest), rest
        assert ends(gate) == 0
        assert "Traceback" not in gate.log()
    with someone.wire() as wire:
        assert b"* 1 EXISTS\r\n" in wire.ok(b"SELECT INBOX")
        assert MESSAGE in b"".join(wire.ok(b"FETCH 1 BODY.PEEK[]"))
        assert b"late" not in b"".join(wire.ok(b'LIST "" "*"'))


def test_f16_an_acknowledgement_that_is_awaited() -> None:
    """SIGTERM while upstream has a whole command and has not answered: its answer is passed on, once (F16)."""
    answered = threading.Event()

    def stores(talk: Conversation, command: Command) -> None:
        talk.until(answered.is_set, 30)
        talk.stored.append(command.literals[-1])
        talk.ok(command, b"[APPENDUID 7 2] stored")

    with bed_of(admin=ADMIN) as bed:
        bed.answer(APPEND=stores)
        wire, name = bed.login()
        resting, _ = bed.login()
        wire.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE))
        bed.recorder.wait(lambda: [each.verb for each in bed.recorder.commands_of(name)][-1] == b"APPEND")
        bed.gate.signal(signal.SIGTERM)
        assert resting.eof() == SHUTTING_DOWN
        answered.set()
        assert wire.eof() == b"a OK [APPENDUID 7 2] stored\r\n" + SHUTTING_DOWN
        assert ends(bed.gate) == 0
        assert [talk.stored for talk in bed.recorder.of(name)] == [[MESSAGE]]


@pytest.mark.parametrize("second", [True, False])
def test_f16_an_answer_that_never_comes(second: bool) -> None:
    """A second SIGTERM, or the time for draining, ends what would never end; no false completion is sent (F16)."""
    with bed_of(admin=ADMIN, limits={} if second else {"drain": "1s"}) as bed:
        held = Held()
        bed.answer(FETCH=held, STATUS=lambda talk, command: talk.until(lambda: talk.deaf, 60))
        fetching, (asking, name) = bed.login()[0], bed.login()
        held.ask(fetching)
        asking.send(b"s STATUS INBOX (MESSAGES)\r\n")
        bed.recorder.wait(lambda: [each.verb for each in bed.recorder.commands_of(name)][-1] == b"STATUS")
        resting = bed.login()[0]
        bed.gate.signal(signal.SIGTERM)
        assert resting.eof() == SHUTTING_DOWN
        if second:
            assert fetching.quiet()
            bed.gate.signal(signal.SIGTERM)
        assert asking.eof() == SHUTTING_DOWN
        assert fetching.eof() == b""  # inside the literal nothing can be said
        assert ends(bed.gate) == 0
        for talk in bed.recorder.conversations:
            talk.deaf = True
        held.release()


def test_shutdown_when_the_last_client_has_gone(dovecot: Dovecot, user: NewUser) -> None:
    """`shutdown --wait`: nobody new comes in, who is there works on for as long as it wants, then the gate ends."""
    someone = user(dovecot)
    with gate_for(dovecot, admin=ADMIN) as gate:
        first, second = someone.wire(gate.port), someone.wire(gate.port)
        assert ctl(gate, "shutdown", "--wait") == [{"sessions": 2}]
        wait_until(lambda: not accepts(gate.port), "the listeners to close")
        first.ok(b"SELECT INBOX")
        first.logout()
        second.ok(b"SELECT INBOX")
        assert [row["state"] for row in ctl(gate, "sessions")] == ["selected"]
        assert second.quiet()
        second.logout()
        assert ends(gate) == 0
        assert "Traceback" not in gate.log()


def test_f16_sigterm_while_it_waits_for_its_clients(dovecot: Dovecot, user: NewUser) -> None:
    """After `shutdown --wait` SIGTERM is the first signal: who is there is told BYE at a command's end (F16)."""
    someone = user(dovecot)
    with gate_for(dovecot, admin=ADMIN) as gate:
        wire = someone.wire(gate.port)
        ctl(gate, "shutdown", "--wait")
        wait_until(lambda: not accepts(gate.port), "the listeners to close")
        wire.send(b"a APPEND INBOX {%d}\r\n" % len(MESSAGE))
        wire.expect_continuation()
        gate.signal(signal.SIGTERM)
        assert wire.quiet()
        wire.send(MESSAGE + b"\r\n")
        assert wire.until_tagged(b"a")[-1].startswith(b"a OK")
        assert wire.eof() == SHUTTING_DOWN
        assert ends(gate) == 0


# -- what systemd is told ---------------------------------------------------------------------------------------------


def test_sd_notify(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """READY when it serves, RELOADING and READY around a reload, STOPPING before it drains, each in its place."""
    someone = user(dovecot)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)

        def told() -> list[str]:
            return systemd.recv(4096).decode().splitlines()

        with gate_for(dovecot, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}, admin=ADMIN) as gate:
            assert told()[0] == "READY=1"
            assert accepts(gate.port)
            with someone.wire(gate.port) as wire:
                gate.reload()
                reloading = told()
                assert reloading[0] == "RELOADING=1"
                assert re.fullmatch(r"MONOTONIC_USEC=\d+", reloading[1])
                assert told()[0] == "READY=1"
                wire.send(b"a APPEND INBOX {5}\r\n")
                wire.expect_continuation()
                gate.signal(signal.SIGTERM)
                assert told()[0] == "STOPPING=1"
                wire.send(b"a: b\n\r\n")
                assert b"a OK" in wire.eof()
            assert ends(gate) == 0
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                systemd.recv(4096)
