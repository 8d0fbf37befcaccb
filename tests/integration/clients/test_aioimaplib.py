"""aioimaplib, IDLE included."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aioimaplib  # type: ignore[import-untyped]

from tests.integration.clients.account import AWKWARD, Account, message
from tests.integration.wire import tls_context


async def _open(account: Account) -> Any:
    """A client that has logged in; aioimaplib knows no STARTTLS."""
    if account.tls == "implicit":
        client = aioimaplib.IMAP4_SSL(account.host, account.port, timeout=20, ssl_context=tls_context(account.ca))
    else:
        client = aioimaplib.IMAP4(account.host, account.port, timeout=20)
    await client.wait_hello_from_server()
    assert (await client.login(account.user, account.password)).result == "OK"
    return client


def _run(session: Callable[[], Awaitable[None]]) -> None:
    """Run a session to its end, in bounded time."""

    async def bounded() -> None:
        await asyncio.wait_for(session(), 30)

    asyncio.run(bounded())


def test_aioimaplib_reads_and_changes(simple_account: Account) -> None:
    """Append, fetch, search, store, copy, expunge; and several commands under way at once."""
    account = simple_account
    box = account.prefix + "Box"

    async def session() -> None:
        client = await _open(account)
        assert (await client.create(box)).result == "OK"
        for octets in (message("one"), AWKWARD, message("three")):
            assert (await client.append(octets, "INBOX", "\\Seen")).result == "OK"
        assert (await client.select("INBOX")).result == "OK"
        result, lines = await client.fetch("2", "(UID BODY.PEEK[])")
        assert result == "OK"
        assert bytes(lines[1]) == AWKWARD
        assert (await client.search("SUBJECT three")).lines[0] == b"3"
        # Under way together; aioimaplib itself cannot have two of one kind.
        together = (
            client.uid("fetch", "1:*", "(FLAGS)"),
            client.noop(),
            client.search("ALL"),
            client.status(box, "(MESSAGES)"),
        )
        answers = await asyncio.gather(*together)
        assert [answer.result for answer in answers] == ["OK"] * 4
        assert (await client.store("1", "+FLAGS", "(\\Flagged)")).result == "OK"
        assert (await client.copy("1:2", box)).result == "OK"
        assert (await client.store("3", "+FLAGS", "(\\Deleted)")).result == "OK"
        assert (await client.expunge()).result == "OK"
        assert (await client.close()).result == "OK"
        assert (await client.logout()).result == "OK"

    _run(session)
    stored = account.stored()
    assert [one.subject for one in stored] == ["one", "awkward"]
    assert "\\Flagged" in stored[0].flags
    assert stored[1].octets == AWKWARD
    assert account.subjects(box) == ["one", "awkward"]
    account.seen()


def test_aioimaplib_idles(simple_account: Account) -> None:
    """What comes in while a client idles is told; DONE ends it."""
    account = simple_account

    async def session() -> None:
        client = await _open(account)
        assert (await client.select("INBOX")).result == "OK"
        idle = await client.idle_start(timeout=20)
        await asyncio.get_running_loop().run_in_executor(None, account.deliver, message("new"))
        told: list[bytes] = []
        while b"1 EXISTS" not in told:
            told += await client.wait_server_push(timeout=20)
        client.idle_done()
        await asyncio.wait_for(idle, 20)
        _, lines = await client.fetch("1", "(BODY[])")
        assert bytes(lines[1]) == message("new")
        await client.logout()

    _run(session)
    (stored,) = account.stored()
    assert stored.flags == {"\\Seen"}
    account.seen()
