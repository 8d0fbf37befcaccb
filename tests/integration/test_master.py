"""Mode `master`: the gate itself finds out who a client is, and goes upstream as that user by a right of its own."""

from __future__ import annotations

import base64
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.bed import Bed, bed_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, pool
from tests.integration.gate import Gate, gate_for
from tests.integration.sasl import FAILED, authenticate, encoded
from tests.integration.scripted import Command, Conversation, Script
from tests.integration.servers import Courier, Dovecot, Server, free_port, wait_until
from tests.integration.servers.cyrus import ADMINISTRATOR, PROXY
from tests.integration.test_login_failures import CANARY, _login, _traces_of_the_canary
from tests.integration.test_login_identity import BAD_NAMES, from_address, proxied
from tests.integration.verifying import MASTER, MASTER_PASSWORD, as_master, htpasswd, mastering, private
from tests.integration.web import Question, Reply, Web
from tests.integration.wire import Wire, connect

NewUser = Callable[..., User]
GATE_PASSWORD = "known at the gate alone"
UNAVAILABLE = b"NO [UNAVAILABLE] "


def connected(gate: Gate) -> Wire:
    """A client of the gate's plain listener."""
    return connect(gate.host, gate.port)


def _kept(gate: Gate, user: str) -> None:
    """Wait until the user's one connection upstream is nobody's."""

    def alone() -> bool:
        row = pool(gate, user)
        return bool(row["idle"] == row["total"] == 1)

    wait_until(alone, "the connection to be kept")


def _logged_in(server: Server, user: str, times: int) -> None:
    """Wait until the user was logged in at the server so many times."""
    wait_until(lambda: server.login_count(user) >= times, f"{times} logins of {user}")
    assert server.login_count(user) == times


# -- as whom upstream -------------------------------------------------------------------------------------------------


def _by_authorisation(master: str, folder: Path, server: Server, users: list[User]) -> dict[str, Any]:
    password = server.masters[master] if isinstance(server, Dovecot) else server.users[master]
    return as_master(folder, "authorisation", master, password)


def _as_star_master(folder: Path, server: Server, users: list[User]) -> dict[str, Any]:
    return as_master(folder)


def _by_map(folder: Path, server: Server, users: list[User]) -> dict[str, Any]:
    lines = [f"{user.name}:{user.password}\n" for user in users]
    return {"method": "map", "map": private(folder / "passwords", "".join(lines))}


WAYS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "Dovecot, authorisation": ("other_dovecot", partial(_by_authorisation, MASTER)),
    "Dovecot, user*master": ("other_dovecot", _as_star_master),
    "Cyrus, administrator": ("cyrus", partial(_by_authorisation, ADMINISTRATOR)),
    "Cyrus, proxy server": ("cyrus", partial(_by_authorisation, PROXY)),
    "Courier, a password for each user": ("courier", _by_map),
}


@pytest.mark.parametrize("way", WAYS)
def test_as_whom_upstream(way: str, user: NewUser, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Two users with passwords that only the gate knows have each their own mail, and connections that are kept."""
    fixture, master = WAYS[way]
    server: Server = request.getfixturevalue(fixture)
    users = [user(server), user(server)]
    for someone in users:
        with someone.wire() as wire:
            wire.command_with_literals(b"APPEND INBOX", b"Subject: of %b\r\n\r\n." % someone.name.encode())
            wire.logout()
    verifier = htpasswd(tmp_path / "users", {someone.name: GATE_PASSWORD + someone.name for someone in users})
    upstream = {"master": master(tmp_path, server, users)}
    with gate_for(server, upstream=upstream, auth=mastering(verifier), admin=ADMIN) as gate:
        for _ in range(2):
            for someone in users:
                with connected(gate) as wire:
                    assert _login(wire, someone.name, someone.password) == FAILED  # the upstream's own
                    wire.login(someone.name, GATE_PASSWORD + someone.name)
                    wire.ok(b"SELECT INBOX")
                    assert b"of " + someone.name.encode() in b"".join(wire.ok(b"FETCH 1:* BODY.PEEK[HEADER]"))
                    wire.logout()
                _kept(gate, someone.name)
        for someone in users:  # the one without a gate, and one for two at the gate
            _logged_in(server, someone.name, 2)
        assert "circle" not in gate.log()


@pytest.mark.parametrize("told_by", ["id_originating", "proxy_protocol"])
def test_a45_the_clients_address(other_dovecot: Dovecot, user: NewUser, tmp_path: Path, told_by: str) -> None:
    """The master user may come from the gate alone, though upstream is told where the client is (A45)."""
    someone = user(other_dovecot)
    auth = mastering(htpasswd(tmp_path / "users", {someone.name: "secret"}))
    port = other_dovecot.haproxy_port if told_by == "proxy_protocol" else other_dovecot.port
    upstream = {"master": as_master(tmp_path), told_by: True, "endpoints": [f"tcp:127.0.0.1:{port}"]}
    with (
        gate_for(other_dovecot, upstream=upstream, auth=auth, **proxied()) as gate,
        from_address(gate, "192.0.2.80") as wire,
    ):
        wire.login(someone.name, "secret")
        wire.logout()
    _logged_in(other_dovecot, someone.name, 1)
    (line,) = [line for line in other_dovecot.log().splitlines() if f"Login: user=<{someone.name}>" in line]
    assert "rip=192.0.2.80," in line


# -- upstream's own view ----------------------------------------------------------------------------------------------


@contextmanager
def master_bed(folder: Path, passwords: dict[str, str], **more: Any) -> Iterator[Bed]:
    """A gate that knows these passwords, before a recorder, where it is "gate"."""
    verifier = htpasswd(folder / "users", passwords)
    upstream = {"master": as_master(folder, "authorisation")} | more.pop("upstream", {})
    with bed_of(upstream=upstream, auth=mastering(verifier), admin=ADMIN, **more) as bed:
        yield bed


def logins(bed: Bed) -> list[tuple[bytes, ...]]:
    """What was shown upstream by each login, in order: authorisation identity, user and password."""
    shown = []
    for talk in bed.recorder.conversations:
        for command in talk.commands:
            if command.verb == b"AUTHENTICATE":
                shown.append(_plain(command))
    return shown


def _plain(command: Command) -> tuple[bytes, ...]:
    return tuple(base64.b64decode(command.words()[1]).split(b"\0"))


def shown_for(user: str) -> tuple[bytes, ...]:
    """What a login as this user shows upstream."""
    return user.encode(), MASTER.encode(), MASTER_PASSWORD.encode()


def test_a31_a_connection_goes_to_its_user_only(tmp_path: Path) -> None:
    """Logins of three users in turn, many times: one login upstream for each user, no foreign command in any (A31)."""
    users = ["alice", "bob", "alice@example.org"]
    with master_bed(tmp_path, dict.fromkeys(users, "secret")) as bed:
        for turn in range(5):
            for name in users:
                with bed.connect() as wire:
                    wire.login(name, "secret")
                    wire.ok(b"STATUS %b.%d (MESSAGES)" % (name.encode(), turn))
                    wire.logout()
                _kept(bed.gate, name)
        assert logins(bed) == [shown_for(name) for name in users]
        talks = [talk for talk in bed.recorder.conversations if talk.user]
        for name, talk in zip(users, talks, strict=True):
            asked = [command.words()[0] for command in talk.commands if command.verb == b"STATUS"]
            assert asked == [b"%b.%d" % (name.encode(), turn) for turn in range(5)]
        assert not bed.recorder.violations


def test_a31_two_sessions_at_once_have_two_connections(tmp_path: Path) -> None:
    """While a user's connection is in use, a second login of the same user gets another one."""
    with master_bed(tmp_path, {"alice": "secret"}) as bed, bed.connect() as first, bed.connect() as second:
        first.login("alice", "secret")
        second.login("alice", "secret")
        assert logins(bed) == [shown_for("alice")] * 2


def test_foreign_authorisation_identity(tmp_path: Path) -> None:
    """Who wants to act as another is refused before anybody is asked, though the gate could log in as that one."""
    with master_bed(tmp_path, {"alice": "secret", "mallory": "secret"}) as bed, bed.connect() as wire:
        for victim in ("alice", "root", "MALLORY", "mallory ", "mallory*gate", MASTER):
            assert authenticate(wire, "PLAIN", initial=encoded(victim, "mallory", "secret")) == FAILED, victim
        assert logins(bed) == []
        assert authenticate(wire, "PLAIN", initial=encoded("mallory", "mallory", "secret")).startswith(b"OK ")
        assert logins(bed) == [shown_for("mallory")]


def test_a33_master_forms_are_names_like_others(tmp_path: Path) -> None:
    """A client that says user*master is nobody's master, even with the master's own password (A33)."""
    passwords = {"alice": "secret", "al*ice": "secret"}
    with (
        master_bed(tmp_path, passwords, upstream={"master": as_master(tmp_path)}) as bed,
        bed.connect() as wire,
    ):
        for name, password in (
            (f"alice*{MASTER}", MASTER_PASSWORD),
            (f"alice*{MASTER}", "secret"),
            ("alice*alice", "secret"),
            (MASTER, MASTER_PASSWORD),
        ):
            assert _login(wire, name, password) == FAILED, name
        assert _login(wire, "al*ice", "secret").startswith(UNAVAILABLE)  # Dovecot would cut it elsewhere
        assert logins(bed) == []
        wire.login("alice", "secret")
        assert logins(bed) == [(b"", f"alice*{MASTER}".encode(), MASTER_PASSWORD.encode())]


def test_a38_names_that_are_none(tmp_path: Path) -> None:
    """What is no user name is refused in the words of every failure, and upstream hears nothing of it (A36, A38)."""
    with master_bed(tmp_path, {"alice": "secret"}) as bed:
        for name in BAD_NAMES:
            with bed.connect() as wire:
                assert authenticate(wire, "PLAIN", initial=encoded("", name, "secret")) == FAILED, name
        assert logins(bed) == []
        assert "nobody is identified" not in bed.gate.log()  # that is for level debug


def test_upstream_refuses_the_gate(tmp_path: Path) -> None:
    """When the gate's own right is gone, a verified user is told to come again, not that the password is wrong."""
    with master_bed(tmp_path, {"alice": "secret"}, script=Script(password=b"another")) as bed, bed.connect() as wire:
        assert _login(wire, "alice", "wrong") == FAILED
        assert _login(wire, "alice", "secret").startswith(UNAVAILABLE)
        assert bed.gate.wait_log("upstream main refuses the gate's own login for a user that it has verified")


def test_a_user_without_a_password_upstream(courier: Courier, user: NewUser, tmp_path: Path) -> None:
    """Whom the map does not have cannot log in; once it has, it is read again, without a reload."""
    someone = user(courier)
    table = private(tmp_path / "map", "someone-else:x\n")
    auth = mastering(htpasswd(tmp_path / "users", {someone.name: "secret"}))
    master = {"method": "map", "map": table}
    with gate_for(courier, upstream={"master": master}, auth=auth) as gate, connected(gate) as wire:
        assert _login(wire, someone.name, "secret").startswith(UNAVAILABLE)
        private(tmp_path / "new", f"{someone.name}:{someone.password}\n").rename(table)
        wire.login(someone.name, "secret")
        wire.logout()
    _logged_in(courier, someone.name, 1)


# -- who it is --------------------------------------------------------------------------------------------------------


def test_password_file_is_read_again(tmp_path: Path) -> None:
    """A changed password holds from the next login on, also where a connection of the user is kept (A34)."""
    with master_bed(tmp_path, {"alice": "old"}) as bed, bed.connect() as wire:
        wire.login("alice", "old")
        wire.logout()
        htpasswd(tmp_path / "new", {"alice": "new", "bob": "new"})
        (tmp_path / "new").rename(tmp_path / "users")
        with bed.connect() as again:
            assert _login(again, "alice", "old") == FAILED
            again.login("alice", "new")
        with bed.connect() as other:
            other.login("bob", "new")
        assert len(logins(bed)) == 2
        (tmp_path / "users").write_text("alice:{SHA}AAAA\n")
        with bed.connect() as again:
            again.login("alice", "new")  # a file that cannot be used changes nothing
        bed.gate.wait_log("a changed file is not used, what it held stays: .*line 1: the hash is not bcrypt")


def test_a50_slow_hashes_hold_nobody_up(tmp_path: Path) -> None:
    """Passwords with hashes of 2^12 rounds, six at once: a session that works meanwhile does not wait (A50)."""
    verifier = htpasswd(tmp_path / "users", {"alice": "secret"})
    slow = htpasswd(tmp_path / "slow", {"bob": "secret"}, rounds=12)
    auth = mastering(verifier, slow)
    upstream = {"master": as_master(tmp_path)}
    with bed_of(upstream=upstream, auth=auth) as bed, ExitStack() as stack, bed.connect() as wire:
        wire.login("alice", "secret")
        waiting = [stack.enter_context(bed.connect()) for _ in range(6)]
        sockets = [one.sock for one in waiting]
        began, longest = time.monotonic(), 0.0
        for one in waiting:
            one.send(b"lo LOGIN bob secret\r\n")
        while len(select.select(sockets, [], [], 0)[0]) < len(waiting):
            asked = time.monotonic()
            wire.ok(b"NOOP")
            longest = max(longest, time.monotonic() - asked)
        assert longest < (time.monotonic() - began) / 3
        for one in waiting:
            assert one.until_tagged(b"lo")[-1].startswith(b"lo OK ")


def test_cred_checker(tmp_path: Path) -> None:
    """`file:` is a checker of Twisted's: passwords in clear, read when they are asked for."""
    private(tmp_path / "passwd", "alice:secret:with a colon\nbob:other\n")
    auth = mastering({"use": "cred", "checker": f"file:{tmp_path}/passwd"})
    with bed_of(upstream={"master": as_master(tmp_path)}, auth=auth) as bed, bed.connect() as wire:
        assert _login(wire, "alice", "other") == FAILED
        assert _login(wire, "carol", "other") == FAILED
        wire.login("bob", "other")
        assert logins(bed) == [(b"", f"bob*{MASTER}".encode(), MASTER_PASSWORD.encode())]


def test_verifiers_in_order(tmp_path: Path) -> None:
    """The first yes decides, a no asks the next one, and an outage ends the search."""

    def script(question: Question) -> Reply:
        said = {"both": "OK", "script": "OK", "down": None}.get(question.headers["Auth-User"], "no")
        return Reply(500) if said is None else Reply(headers=[f"Auth-Status: {said}", "Auth-Pass: by-script"])

    file = htpasswd(tmp_path / "users", {"both": "secret", "file": "secret", "down": "secret"})
    private(tmp_path / "passwd", "cred:secret\nfile:other\n")
    with Web(script) as web:
        auth = mastering({"use": "http", "url": web.url()}, file, {"use": "cred", "checker": f"file:{tmp_path}/passwd"})
        upstream = {"master": as_master(tmp_path), "pool_keep": 0}
        with bed_of(upstream=upstream, auth=auth) as bed, bed.connect() as wire:
            assert _login(wire, "nobody", "secret") == FAILED
            assert _login(wire, "down", "secret").startswith(UNAVAILABLE)
            assert logins(bed) == []
            for name, password in (("both", "secret"), ("script", "x"), ("file", "secret"), ("file", "other")):
                with bed.connect() as one:
                    one.login(name, password)
            with bed.connect() as one:
                one.login("cred", "secret")
            assert [(user, password) for _, user, password in logins(bed)] == [
                (b"both", b"by-script"),
                (b"script", b"by-script"),
                *[(f"{name}*{MASTER}".encode(), MASTER_PASSWORD.encode()) for name in ("file", "file", "cred")],
            ]
            bed.gate.wait_log("verifier http cannot tell: its HTTP status is 500")
    asked = [question.headers["Auth-User"] for question in web.questions]
    assert asked == ["nobody", "down", "both", "script", "file", "file", "cred"]


def test_a_script_that_is_down(tmp_path: Path) -> None:
    """Nobody gets in by the second verifier because the first is down; once it is back everybody does."""
    port = free_port()
    auth = mastering(
        {"use": "http", "url": f"http://127.0.0.1:{port}/"}, htpasswd(tmp_path / "users", {"alice": "secret"})
    )
    with bed_of(upstream={"master": as_master(tmp_path)}, auth=auth) as bed, bed.connect() as wire:
        assert _login(wire, "alice", "secret").startswith(UNAVAILABLE)
        assert _login(wire, "alice", "wrong").startswith(UNAVAILABLE)
        assert logins(bed) == []
        with Web(lambda question: Reply(headers=["Auth-Status: no"]), port=port):
            assert _login(wire, "alice", "wrong") == FAILED
            wire.login("alice", "secret")


# -- secrets ----------------------------------------------------------------------------------------------------------


def _broken(talk: Conversation, command: Command) -> None:
    talk.send(b"%b NO wrong password %b\r\n" % (command.tag, CANARY.encode()))


@pytest.mark.parametrize("method", ["authorisation", "dovecot", "map"])
def test_a40_no_secret_in_the_log(tmp_path: Path, method: str) -> None:
    """The master's password, a map's, a header, an answer's, a client's: none is ever in the log (A40)."""
    replies: dict[str, Reply | bytes] = {
        "replaced": Reply(headers=["Auth-Status: OK", f"Auth-Pass: {CANARY}"]),
        "told": Reply(headers=[f"Auth-Status: {CANARY} is wrong"]),
        "senseless": Reply(headers=["Auth-Status: OK", f"Auth-Port: {CANARY}"]),
        "garbage": f"{CANARY}\r\n\r\n".encode(),
        "cut": f"HTTP/1.1 200 OK\r\nAuth-Status: {CANARY}".encode(),
    }
    header = private(tmp_path / "header", CANARY)
    master = as_master(tmp_path, method, MASTER, CANARY)
    if method == "map":
        master = {"method": "map", "map": private(tmp_path / "map", f"alice:{CANARY}\nnobody {CANARY}:{CANARY}\n")}
    file = htpasswd(tmp_path / "users", {"alice": CANARY, "bob": CANARY, "al*ice": CANARY})
    with Web(lambda question: replies.get(question.headers["Auth-User"], Reply(headers=["Auth-Status: no"]))) as web:
        http = {"use": "http", "url": web.url(), "headers": {"X-Key": {"file": header}}}
        with bed_of(
            upstream={"master": master}, auth=mastering(http, file), environment={"IMAPGATE_LOG_LEVEL": "debug"}
        ) as bed:
            for broken in (False, True):
                bed.recorder.script = Script(answers={b"AUTHENTICATE": _broken} if broken else {})
                for name in ("alice", "bob", "al*ice", "nobody", *replies):
                    with bed.connect() as wire:
                        _login(wire, name, CANARY)
                        assert CANARY.encode() not in wire.transcript
            (tmp_path / "users").write_text(f"alice:{CANARY}\n")
            with bed.connect() as wire:
                assert _login(wire, "alice", CANARY + "x") == FAILED
            bed.gate.wait_log("the hash is not bcrypt")
            log = bed.gate.log()
        assert all(question.headers["X-Key"] == CANARY for question in web.questions)
    assert "Traceback" not in log
    assert _traces_of_the_canary(log) == []
