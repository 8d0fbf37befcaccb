"""Plugins that raise, hang and answer junk: their policy holds, the others go on, all is counted (F19, A24, A26)."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from tests.integration.audited import Caller, Record, audit, invalid, of, recorded, records, trail_of, whole
from tests.integration.badly import JUNK
from tests.integration.bed import Bed, bed_of
from tests.integration.ctl import ADMIN, Row, ctl
from tests.integration.servers import wait_until
from tests.integration.wire import Wire

HERE = "tests.integration.badly"
POLITE = {"use": f"{HERE}.Polite", "name": "polite"}
AT_ONCE = ["raises", "fails", "raises_later", "exits", "coroutine", *JUNK]
HANGING = ["hangs", "late", "blocks"]
KINDS = {
    **dict.fromkeys(JUNK, "junk"),
    **dict.fromkeys(("raises", "fails", "raises_later", "exits", "coroutine"), "error"),
    **dict.fromkeys(HANGING, "timeout"),
}
"""What each failure is called."""


def faulty(how: str, trouble: Path, **more: Any) -> dict[str, Any]:
    """Give the table of a plugin that fails in this way, as long as a file is there."""
    kind = "Blocking" if how in ("blocks", "coroutine") else "Faulty"
    return {"use": f"{HERE}.{kind}", "name": how, "how": how, "trouble": trouble, "timeout": "250ms", **more}


class Troubled(NamedTuple):
    """A gate with many plugins, each of which fails in its own way."""

    bed: Bed
    trouble: Path
    policy: str

    def row(self, plugin: str) -> Row:
        """What `ctl plugins` says of one."""
        (row,) = [row for row in ctl(self.bed.gate, "plugins") if row["plugin"] == plugin]
        return row


@contextmanager
def troubled(trouble: Path, *plugins: dict[str, Any], policy: str = "closed") -> Iterator[Troubled]:
    """A gate with these plugins, and a polite one behind them."""
    trouble.touch()
    with bed_of(plugin=[*plugins, POLITE], admin=ADMIN, **audit("buffered")) as bed:
        try:
            yield Troubled(bed, trouble, policy)
        finally:
            trouble.unlink(missing_ok=True)
        assert not invalid(records(trail_of(bed.gate)))
        assert bed.gate.stop() == 0
        log = bed.gate.log()
        assert not re.search(r"Traceback|Unhandled", log), log[-3000:]
        assert not re.search(r"(?m)^z9", log)
        assert not bed.recorder.violations
        whole(trail_of(bed.gate))


@pytest.fixture(scope="module", params=["closed", "open"])
def gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubled]:
    """A gate with a plugin for each failure; all fail closed, or all fail open."""
    policy = request.param
    trouble = tmp_path_factory.mktemp("trouble") / "there"
    plugins = [faulty(how, trouble, on_error=policy, on_timeout=policy) for how in (*AT_ONCE, *HANGING)]
    with troubled(trouble, *plugins, policy=policy) as found:
        yield found


def _errors(bed: Bed, user: bytes, count: int) -> list[Record]:
    """The plugins' failures in a user's sessions."""
    trail = trail_of(bed.gate)
    session = next(row["session"] for row in ctl(bed.gate, "sessions") if row["user"] == user.decode())
    found = recorded(trail, lambda trail: len(of(trail, "plugin.error", session_id=session)) >= count)
    return of(found, "plugin.error", session_id=session)


@pytest.mark.parametrize("how", [*AT_ONCE, *HANGING])
def test_f19_a_failure(gate: Troubled, how: str) -> None:
    """A24, too: its policy holds, no text of it is a line, its session goes on, and so does everybody else."""
    bed = gate.bed
    wire, user = bed.login()
    other, _ = bed.login()
    before = gate.row(how)
    name = how.encode()
    wire.send(b"x STATUS %b (MESSAGES)\r\n" % name)
    if how in HANGING:
        wait_until(lambda: gate.row(how)["asked"] > before["asked"], "the question")
        wire.send(b"y NOOP\r\n")  # which waits behind it
    answer = wire.until_tagged(b"x")
    seen = [command for command in bed.recorder.commands_of(user) if command.verb == b"STATUS"]
    if gate.policy == "closed":
        assert answer == [b"x NO Refused\r\n"]
        assert not seen
    else:
        assert answer == [b"* STATUS INBOX (MESSAGES 1)\r\n", b"x OK done\r\n"]
        assert len(seen) == 1
    if how in HANGING:
        assert wire.until_tagged(b"y")[-1] == b"y OK done\r\n"
    wire.ok(b"STATUS INBOX (MESSAGES)")
    assert wire.command(b"CREATE new")[-1].endswith(b" NO [NOPERM] No new mailboxes\r\n")
    other.ok(b"NOOP")

    after = gate.row(how)
    counted = "timeouts" if KINDS[how] == "timeout" else "errors"
    assert after[counted] == before[counted] + 1
    assert after["breaker"] == "closed"
    (error,) = _errors(bed, user, 1)
    assert (error["policy.plugin"], error["policy.hook"], error["error.kind"]) == (how, "command", KINDS[how])
    lines = re.findall(rf"plugin {how} failed: .*", bed.gate.log())
    assert len(lines) == 1
    assert KINDS[how] in lines[0]
    denied = of(records(trail_of(bed.gate)), "policy.deny", session_id=error["session.id"], policy_plugin=how)
    assert [each["policy.rule"] for each in denied] == [KINDS[how]] * (gate.policy == "closed")
    for each in (wire, other):
        assert b"z9" not in each.transcript
        each.close()


def test_f19_others_are_counted(gate: Troubled) -> None:
    """The polite plugin behind all of them was asked whatever they did, and never failed."""
    wire, _ = gate.bed.login()
    asked = gate.row("polite")["asked"]
    wire.ok(b"STATUS INBOX (MESSAGES)")
    row = gate.row("polite")
    assert (row["asked"], row["errors"], row["timeouts"]) == (asked + 1, 0, 0)
    trail = recorded(trail_of(gate.bed.gate), lambda trail: of(trail, "policy.deny", policy_plugin="polite") or True)
    assert all(each["policy.rule"] == "create" for each in of(trail, "policy.deny", policy_plugin="polite"))
    wire.close()


@pytest.mark.parametrize("how", ["hangs", "blocks"])
def test_f19_others_go_on(tmp_path: Path, how: str) -> None:
    """While a plugin does not answer one session, the same plugins answer all others."""
    table = faulty(how, tmp_path / "trouble", timeout="60s")
    with troubled(tmp_path / "trouble", table) as gate:
        wire, user = gate.bed.login()
        other, _ = gate.bed.login()
        wire.send(b"x STATUS %b (MESSAGES)\r\ny NOOP\r\n" % how.encode())
        wait_until(lambda: gate.row(how)["asked"], "the question")
        for _ in range(20):
            other.ok(b"STATUS INBOX (MESSAGES)")
        assert gate.row(how)["asked"] == 21
        assert not [each for each in gate.bed.recorder.commands_of(user) if each.verb in (b"STATUS", b"NOOP")]
        if how == "blocks":  # it answers at last
            gate.trouble.unlink()
            assert wire.until_tagged(b"y")[-2:] == [b"x OK done\r\n", b"y OK done\r\n"]
        wire.reset()  # a FIN alone would leave it 5 seconds for its answer
        other.ok(b"NOOP")
        other.close()


# -- the breaker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "policy"), [("raises", "closed"), ("hangs", "open")])
def test_f19_the_breaker(tmp_path: Path, how: str, policy: str) -> None:
    """After 3 failures in a row it is left alone, its policy holding; when it is well again, it is asked again."""
    table = faulty(how, tmp_path / "trouble", on_error=policy, on_timeout=policy, failures=3, pause="3s")
    with troubled(tmp_path / "trouble", table, policy=policy) as gate:
        wire, user = gate.bed.login()
        command = b"STATUS %b (MESSAGES)" % how.encode()

        def passes() -> bool:
            return wire.command(command)[-1].split(b" ")[1] == b"OK"

        for _ in range(3):
            assert passes() is (policy == "open")
        row = gate.row(how)
        assert (row["breaker"], row["asked"], row["skipped"]) == ("open", 3, 0)
        assert passes() is (policy == "open")
        row = gate.row(how)
        assert (row["asked"], row["skipped"]) == (3, 1)
        errors = _errors(gate.bed, user, 4)
        assert [each["error.kind"] for each in errors] == [KINDS[how]] * 3 + ["breaker"]
        gate.trouble.unlink()

        def closes() -> bool:
            passes()
            return bool(gate.row(how)["breaker"] == "closed")

        wait_until(closes, "the breaker to close")
        assert passes()
        row = gate.row(how)
        assert row["errors"] + row["timeouts"] == 3
        wire.close()


def test_f19_hanging_threads(tmp_path: Path) -> None:
    """A plugin that hangs in threads is given 8 of them and no more; the others still have theirs."""
    table = faulty("blocks", tmp_path / "trouble", failures=1000, timeout="2s")
    with troubled(tmp_path / "trouble", table) as gate:
        wires = [gate.bed.login()[0] for _ in range(10)]
        for wire in wires:
            wire.send(b"x STATUS blocks (MESSAGES)\r\n")
        for wire in wires:
            assert wire.until_tagged(b"x") == [b"x NO Refused\r\n"]
        assert gate.row("blocks")["skipped"] == 0
        assert wires[0].command(b"STATUS blocks (MESSAGES)")[-1].endswith(b" NO Refused\r\n")
        assert gate.row("blocks")["skipped"] == 1
        gate.trouble.unlink()
        wait_until(lambda: b" OK " in wires[0].command(b"STATUS blocks (MESSAGES)")[-1], "its threads to be done")
        for wire in wires:
            wire.close()


# -- every hook -------------------------------------------------------------------------------------------------------


def _stores(wire: Wire) -> bytes:
    return wire.command_with_literals(b"APPEND INBOX", b"Subject: x\r\n\r\nx")[-1]


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("policy", ["closed", "open"])
def test_f19_every_hook(policy: str, later: bool) -> None:
    """Wherever a plugin raises, what it was asked about is refused, or passes; never anything between the two."""
    table = {"use": f"{HERE}.Raiser", "name": "raiser", "on_error": policy, "later": later, "failures": 1000}
    with bed_of(plugin=[table], admin=ADMIN, **audit("durable")) as bed:
        closed = policy == "closed"
        for hook in ("credentials", "route_chosen", "authenticated"):
            with bed.connect() as wire:
                answer = wire.command(b"LOGIN %b-1 secret" % hook.encode())[-1]
                assert answer.startswith(b"w1 NO [NOPERM] Refused" if closed else b"w1 OK "), (hook, answer)
                if closed:
                    wire.login("well", "secret")
                wire.ok(b"NOOP")
        for hook in ("message_begins", "message_chunk", "message_ends"):
            wire, user = bed.login(hook.encode() + b"-1")
            assert (b" NO " if closed else b" OK ") in _stores(wire), hook
            if closed:
                assert not any(talk.stored for talk in bed.recorder.of(user))
            else:
                wire.ok(b"NOOP")
            wire.close()
        for hook in ("mailbox_selected", "fetch_item", "completed"):
            wire, _ = bed.login(hook.encode() + b"-1")
            wire.send(b"s SELECT INBOX\r\nf FETCH 1 BODY[]\r\nn NOOP\r\n")
            if closed:
                assert wire.eof().endswith(b"* BYE Refused\r\n"), hook
            else:
                assert wire.until_tagged(b"n")[-1] == b"n OK done\r\n"
            wire.close()
        wire, _ = bed.login(b"untagged-1")
        assert len(wire.ok(b"STATUS INBOX (MESSAGES)")) == (1 if closed else 2)
        wire.close()
        wire, _ = bed.login(b"command-1")
        assert wire.command(b"NOOP")[-1].split(b" ")[1] == (b"NO" if closed else b"OK")
        wire.close()
        wire, _ = bed.login(b"capabilities-1")
        assert (b"MOVE" in wire.capabilities()) is not closed
        wire.close()
        wire, _ = bed.login(b"session_closed-1")
        wire.logout()

        wanted = {"credentials", "route_chosen", "authenticated", "message_begins", "message_chunk", "message_ends",
                  "mailbox_selected", "fetch_item", "completed", "untagged", "command", "capabilities",
                  "session_closed"}  # fmt: skip

        def hooks(trail: list[Record]) -> set[str]:
            return {str(error["policy.hook"]) for error in of(trail, "plugin.error")}

        trail = recorded(trail_of(bed.gate), lambda trail: hooks(trail) >= wanted, f"errors, of {wanted}")
        assert hooks(trail) == wanted
        assert {error["error.kind"] for error in of(trail, "plugin.error")} == {"error"}
        assert not invalid(trail)
        well, _ = bed.login(b"well")
        well.ok(b"SELECT INBOX")
        well.close()
        assert bed.gate.stop() == 0
        assert not re.search(r"Traceback|Unhandled", bed.gate.log()), bed.gate.log()[-3000:]


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_f19_the_first_hook(policy: str) -> None:
    """A plugin that raises when a client comes: it is sent away, or stays."""
    table = {"use": f"{HERE}.Raiser", "on_error": policy, "hooks": ["session_opened"], "failures": 1000}
    with bed_of(plugin=[table]) as bed, bed.connect(greeting=False) as wire:
        if policy == "closed":
            assert wire.eof() == b"* BYE Refused\r\n"
        else:
            assert wire.response().startswith(b"* OK ")
            wire.login("well", "secret")


# -- order (A26) ------------------------------------------------------------------------------------------------------

SESSIONS, COMMANDS = 5, 120
TEMPLATES = [
    b"STATUS box-%d (MESSAGES)",
    b"NOOP",
    b"LIST %d *",
    b"STORE 1 +FLAGS (k%d)",
    b"FETCH 1 (FLAGS BODY[%d])",
    b"SELECT box-%d",
]


def _order(caller: Caller, random: Random) -> None:
    """Send many commands in writes of any size, some with a message, and wait for the last answer."""
    while len(caller.asked) < COMMANDS:
        if random.random() < 0.15:
            caller.append(b"box-%d" % len(caller.asked), b"x" * random.randrange(1, 3000), plus=random.random() < 0.5)
        else:
            count = random.randrange(1, 20)
            caller.give(
                *(
                    template % number if b"%d" in template else template
                    for number, template in enumerate(random.choices(TEMPLATES, k=count), len(caller.asked))
                )
            )


@pytest.mark.parametrize("recording", [False, True], ids=["plugins", "plugins and audit"])
def test_a26_a_thousand_random_delays(recording: bool) -> None:
    """Pipelined commands on 5 sessions, each question answered after 0 to 5 ms: order is kept, both ways."""
    tables = audit("durable") if recording else {}
    plugins = [{"use": f"{HERE}.Slow", "name": f"slow-{seed}", "seed": seed} for seed in range(2)]
    with bed_of(plugin=plugins, admin=ADMIN, **tables) as bed:
        callers, failures = [], []

        def work(caller: Caller, seed: int) -> None:
            try:
                _order(caller, Random(seed))
            except BaseException as failure:
                failures.append(failure)

        threads = []
        for number in range(SESSIONS):
            wire, user = bed.login(b"order-%d" % number)
            caller = Caller(wire, b"s%d" % number)
            callers.append((caller, user))
            threads.append(threading.Thread(target=work, args=(caller, number)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures, failures
        for caller, user in callers:
            asked = list(caller.asked)
            completed = re.findall(rb"(?m)^(s[0-9]n[0-9]+) (?:OK|NO|BAD) ", bytes(caller.wire.transcript))
            assert completed == asked
            sent = [caller.asked[tag] for tag in asked]
            passed = [command.raw.partition(b" ")[2] for command in bed.recorder.commands_of(user)]
            assert [_key(text) for text in passed if not _OWN.match(text)] == [_key(text) for text in sent]
        rows = ctl(bed.gate, "plugins")
        assert all(row["asked"] >= 1000 and row["errors"] == row["timeouts"] == 0 for row in rows), rows
        assert not bed.recorder.violations
        assert "Traceback" not in bed.gate.log()
        if recording:
            trail = records(trail_of(bed.gate))
            for caller, _ in callers:
                tags = [record["command.tag"] for record in trail if record.get("client.port") == caller.port
                        and "command.tag" in record]  # fmt: skip
                numbers = [int(tag.partition("n")[2]) for tag in tags]
                assert numbers == sorted(numbers)
        for caller, _ in callers:
            caller.wire.close()


_OWN = re.compile(rb"LOGIN |AUTHENTICATE |CAPABILITY|ID |FETCH 1 \(UID\)")
"""What the gate asks by itself."""


def _key(command: bytes) -> bytes:
    """What tells a command from all others: its verb, and the number in it."""
    verb = command.split(None, 1)[0].upper()
    found = re.search(rb"(?:box-|LIST |k|BODY\[)\"?([0-9]+)", command)
    return verb + (found[1] if found else b"")
