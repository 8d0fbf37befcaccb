"""No user is ever sent what belongs to another, whatever clients and servers do to their connections (THREATS A31)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from tests.integration.canary import pools
from tests.integration.canary.accounts import Account
from tests.integration.canary.conftest import CONTROL, MODES, MakeGate
from tests.integration.canary.load import Load, sweep
from tests.integration.canary.mutated import MUTATIONS
from tests.integration.canary.session import ENDINGS, Ledger
from tests.integration.canary.trouble import Trouble
from tests.integration.canary.witness import Violation
from tests.integration.faults import FaultProxy
from tests.integration.gate import Gate
from tests.integration.servers import Dovecot, wait_until

SAMPLE, SOAK = 3_000, 100_000
MUTANT_SECONDS = 60.0


@pytest.fixture
def proxy(dovecot: Dovecot) -> Iterator[FaultProxy]:
    """A fault proxy before the run's Dovecot."""
    with FaultProxy((dovecot.host, dovecot.port)) as proxy:
        yield proxy


def _run(
    dovecot: Dovecot, canaries: list[Account], gate: Gate, commands: int, seed: int, trouble: Trouble | None = None
) -> float:
    """Run the load, the pools looked at again and again; then look at them at rest, at the log, and at the mail.

    Returns how often the gate logged in upstream for each session.
    """
    read = pools.by_control(gate.directory / CONTROL)
    load = Load(gate.port, canaries, seed=seed, commands=commands, trouble=trouble, sample=lambda: pools.add_up(read()))
    before = dovecot.login_count()
    ledger = load.run()
    logins = dovecot.login_count() - before
    assert ledger.commands >= commands
    assert {ending.__name__ for ending in ENDINGS} <= set(ledger.endings)
    wait_until(lambda: pools.at_rest(read()), "the pools to be at rest")
    assert "Traceback" not in gate.log()
    assert "[imapgate#error]" not in gate.log()
    sweep(dovecot, canaries, ledger)
    return logins / ledger.sessions


def _calm(dovecot: Dovecot, canaries: list[Account], canary_gate: MakeGate, mode: str, commands: int) -> None:
    with canary_gate(mode) as gate:
        logins = _run(dovecot, canaries, gate, commands, seed=1)
    assert mode == "plain" or logins < 0.8, "the pools lend too little for this to mean anything"


def _troubled(
    dovecot: Dovecot, canaries: list[Account], canary_gate: MakeGate, proxy: FaultProxy, mode: str, commands: int
) -> None:
    trouble = Trouble(proxy, dovecot, Random(2))
    with canary_gate(mode, through=proxy.port) as gate:
        _run(dovecot, canaries, gate, commands, 2, trouble)
        assert trouble.strikes > commands / 100


@pytest.mark.parametrize("mode", MODES)
def test_a31_canaries(dovecot: Dovecot, canaries: list[Account], canary_gate: MakeGate, mode: str) -> None:
    """Clients that come, go, stall and vanish at any point: each hears its own, and none is cut off (A31)."""
    _calm(dovecot, canaries, canary_gate, mode, SAMPLE)


@pytest.mark.parametrize("mode", MODES)
def test_a31_canaries_in_trouble(
    dovecot: Dovecot, canaries: list[Account], canary_gate: MakeGate, proxy: FaultProxy, mode: str
) -> None:
    """The same while upstream connections are cut, held up and ended: nobody hears another's (A31)."""
    _troubled(dovecot, canaries, canary_gate, proxy, mode, SAMPLE)


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
def test_a31_canaries_long(dovecot: Dovecot, canaries: list[Account], canary_gate: MakeGate, mode: str) -> None:
    """A hundred thousand commands of clients that misbehave (A31)."""
    _calm(dovecot, canaries, canary_gate, mode, SOAK)


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
def test_a31_canaries_in_trouble_long(
    dovecot: Dovecot, canaries: list[Account], canary_gate: MakeGate, proxy: FaultProxy, mode: str
) -> None:
    """A hundred thousand commands with upstream connections that die (A31)."""
    _troubled(dovecot, canaries, canary_gate, proxy, mode, SOAK)


@pytest.mark.parametrize("mode", ["session", "mailbox"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a31_a_broken_gate_is_noticed(canaries: list[Account], canary_gate: MakeGate, mode: str, mutation: str) -> None:
    """A gate that mixes up users, or sessions of one user, or pools what is not clean, is red within a minute (A31)."""
    with canary_gate(mode, mutation=mutation) as gate:
        load = Load(gate.port, canaries, seed=3, commands=SOAK, seconds=MUTANT_SECONDS)
        with pytest.raises(Violation):
            load.run()


def test_mail_in_a_strangers_mailbox_is_noticed(dovecot: Dovecot, canaries: list[Account]) -> None:
    """The look at the mailboxes afterwards finds a message that was stored for somebody else, or nowhere at all."""
    one, other = canaries[0], canaries[1]
    ledger = Ledger()
    ledger.acknowledged[one.mark].add(b"nothing")
    with pytest.raises(AssertionError, match="acknowledged and not stored"):
        sweep(dovecot, [one], ledger)
    stranger = Account(one.name, one.password, other.mark)
    with pytest.raises(Violation, match=r"a foreign mark|cannot have been answered so"):
        sweep(dovecot, [stranger], Ledger())
