"""`imapgate ctl reload`: what new sessions have of the new file, what others keep, what is said of a bad one (F15)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.bed import HOST
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, CtlRefused, ctl, pool, stats
from tests.integration.gate import Gate, toml
from tests.integration.operated import login
from tests.integration.scripted import Recorder
from tests.integration.servers import free_port, wait_until
from tests.integration.servers.base import accepts
from tests.integration.wire import connect

NewUser = Callable[..., User]


class Document:
    """The configuration of a gate before two scripted upstreams, to be changed and read again."""

    def __init__(self, gate: Gate, old: Recorder, new: Recorder) -> None:
        self.gate = gate
        self.recorders = {"old": old, "new": new}

    def write(self, name: str, *, port: int | None = None, limits: dict[str, Any] | None = None, **keys: Any) -> None:
        """Write it: one upstream, `main`, which is `old` or `new`; perhaps a second listener."""
        endpoint = f"tcp:{HOST}:{self.recorders[name].port}"
        ports = [self.gate.port] + ([port] if port else [])
        document = {
            "listener": [{"endpoint": f"tcp:{each}:interface={HOST}", "tls": "none"} for each in ports],
            "admin": ADMIN,
            "upstream": {"main": {"endpoints": [endpoint], "tls": "none", **keys}},
            "limits": {"failed_login_delays": [], **(limits or {})},
        }
        self.gate.configure(toml(document))


@contextmanager
def reloadable() -> Iterator[Document]:
    """A gate whose configuration a test writes anew; it begins with `old`."""
    with Recorder() as old, Recorder() as new:
        gate = Gate({}, admin=ADMIN, listeners=[])
        gate.ports = [gate.port]
        document = Document(gate, old, new)
        document.write("old")
        with gate:
            yield document


def test_f15_reload() -> None:
    """Another endpoint, pool mode, limit, listener: new sessions have it all, those there keep theirs (F15)."""
    with reloadable() as document:
        gate, old, new = document.gate, document.recorders["old"], document.recorders["new"]
        before, port = login(gate, "alice"), free_port()
        document.write("new", pool_mode="mailbox", port=port, limits={"bad_commands_after_login": 3})
        assert ctl(gate, "reload") == [{"reloaded": str(gate.configuration_file)}]
        configured = {row["key"]: row["value"] for row in ctl(gate, "config")}
        assert configured["upstream.main.pool_mode"] == "mailbox"
        assert configured["limits.bad_commands_after_login"] == "3"
        after = login(gate, "alice")
        by_new_port = connect(HOST, port)
        by_new_port.login("bob", "secret")
        assert [row["pool_mode"] for row in ctl(gate, "sessions")] == ["session", "mailbox", "mailbox"]
        assert (len(old.of(b"alice")), len(new.of(b"alice")), len(new.of(b"bob"))) == (1, 1, 1)
        for _ in range(3):
            assert before.command(b"NOSUCH")[-1].split()[1] == b"BAD"
        before.ok(b"SELECT INBOX")
        assert [command.verb for command in old.commands_of(b"alice")][-1] == b"SELECT"
        for _ in range(2):
            assert after.command(b"NOSUCH")[-1].split()[1] == b"BAD"
        after.send(b"n NOSUCH\r\n")
        assert b"* BYE " in after.eof()
        # And back, without the second listener: who came by it stays.
        document.write("old")
        ctl(gate, "reload")
        wait_until(lambda: not accepts(port), "the second listener to go")
        by_new_port.ok(b"SELECT INBOX")
        login(gate, "carol").logout()
        assert len(old.of(b"carol")) == 1
        for wire in (before, by_new_port):
            wire.logout()


def test_f15_reload_between_two_mailboxes() -> None:
    """In mode `mailbox` a session goes on where it is at home, and a later one of its user is given none of that."""
    with reloadable() as document:
        gate, old, new = document.gate, document.recorders["old"], document.recorders["new"]
        document.write("old", pool_mode="mailbox")
        ctl(gate, "reload")
        before = login(gate, "alice")
        before.ok(b'LIST "" INBOX')
        wait_until(lambda: pool(gate, "alice")["idle"] == 1, "an idle connection")
        document.write("new", pool_mode="mailbox")
        ctl(gate, "reload")
        wait_until(lambda: not pool(gate, "alice")["total"], "the idle one to go")
        before.ok(b"SELECT INBOX")
        before.ok(b"CLOSE")
        wait_until(lambda: pool(gate, "alice")["idle"] == 1, "an idle connection")
        after = login(gate, "alice")
        after.ok(b'LIST "" INBOX')
        after.ok(b"SELECT INBOX")
        before.ok(b'LIST "" INBOX')
        verbs = [[[each.verb for each in talk.commands[1:]] for talk in side.of(b"alice")] for side in (old, new)]
        assert [b"SELECT" in talk for talk in verbs[0]] == [False, True]
        assert any(b"SELECT" in talk for talk in verbs[1])
        for wire in (before, after):
            wire.logout()
        wait_until(lambda: not stats(gate)["upstream_connections"], "no connection")
        assert not old.violations + new.violations


@pytest.mark.parametrize("fault", ["no TOML", "an unknown key", "a port that is taken", "no file"])
def test_f15_a_bad_file_changes_nothing(fault: str) -> None:
    """What cannot be used is refused with its reasons, and everything stays as it was, also by SIGHUP (F15)."""
    with reloadable() as document:
        gate, old, new = document.gate, document.recorders["old"], document.recorders["new"]
        wire = login(gate, "alice")
        shown = ctl(gate, "config")
        if fault == "no TOML":
            gate.configure("[upstream\n")
            why = "not TOML|TOML"
        elif fault == "an unknown key":
            document.write("new", pool_sise=3)
            why = r"upstream\.main\.pool_sise"
        elif fault == "a port that is taken":
            document.write("new", port=new.port)
            why = "cannot listen on"
        else:
            gate.configuration_file.unlink()
            why = "imapgate.toml"
        with pytest.raises(CtlRefused, match="nothing is reloaded, all stays as it was:") as refused:
            ctl(gate, "reload")
        assert re.search(why, str(refused.value))
        gate.reload()
        gate.wait_log("nothing is reloaded, all stays as it was: ")
        assert ctl(gate, "config") == shown
        wire.ok(b"SELECT INBOX")
        login(gate, "bob").logout()
        assert (len(old.of(b"bob")), new.of(b"bob")) == (1, [])
        assert "Traceback" not in gate.log()
