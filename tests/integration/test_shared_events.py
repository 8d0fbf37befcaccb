"""Mode ``shared``: the audit trail and the plugins see what they would see of a session with its own connection."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.integration.audited import Record, audit, records, trail_of
from tests.integration.boxes import box_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl
from tests.integration.gate import gate_for
from tests.integration.servers import Server

NewUser = Callable[..., User]
PLUGINS = [
    {
        "use": "folder_acl",
        "default": "full",
        "rules": [
            {"access": "none", "folders": ["hidden"]},
            {"access": "read", "folders": ["readable"]},
        ],
    },
    {"use": "readonly", "level": "organise"},
]
DIALOGUE = [
    b'LIST "" "*"', b"STATUS INBOX (MESSAGES UNSEEN)", b"CREATE readable", b"CREATE there", b"SELECT hidden",
    b"SELECT INBOX", b"FETCH 1:* (FLAGS)", b"FETCH 2 BODY[]", b"FETCH 2:3 (ENVELOPE BODY.PEEK[HEADER])",
    b"UID FETCH 1:3 RFC822.SIZE", b"STORE 1 +FLAGS (\\Flagged)", b"STORE 1 -FLAGS.SILENT (\\Flagged)",
    b"STORE 2 +FLAGS (\\Deleted)", b"UID STORE 3 FLAGS (\\Answered)", b"SEARCH SUBJECT number", b"SEARCH 2:3 UNSEEN",
    b"COPY 1:2 there", b"COPY 1 hidden", b"MOVE 1 there", b"EXPUNGE", b"CHECK", b"NOOP",
    b"DELETE readable", b"RENAME there elsewhere", b"CLOSE", b"EXAMINE there", b"FETCH 1:* BODY[TEXT]",
    b"STORE 1 +FLAGS (\\Seen)", b"UNSELECT", b"SELECT readable", b"STORE 1 +FLAGS (\\Seen)", b"SELECT there",
    b"CLOSE", b"GETQUOTAROOT INBOX", b"NAMESPACE", b"SUBSCRIBE there", b"UNSUBSCRIBE there",
    b"FETCH 1 FLAGS", b"NOSUCH", b"STATUS nowhere (MESSAGES)",
]  # fmt: skip
_OWN = re.compile(
    r"(?:chain|time|seq|hash|prev|duration|client\.port|listener|session\.id|.*uid_validity|session\.octets_.*)\Z"
)
"""What is another one in each session."""


class Seen(NamedTuple):
    """What was seen of one dialogue."""

    records: list[Record]
    plugins: list[dict[str, Any]]
    told: list[bytes]


def seen(server: Server, someone: User, mode: str) -> Seen:
    """Hold the dialogue."""
    tables = {"admin": ADMIN, "plugin": PLUGINS, **audit("durable")}
    with gate_for(server, upstream={"pool_mode": mode}, **tables) as gate:
        with box_of(gate, someone) as box:
            told = []
            for command in DIALOGUE:
                told.append(_completion(box.caller.give(command)[-1]))
            told.append(_completion(box.caller.append(b"INBOX", b"Subject: mine\r\n\r\nx\r\n")[-1]))
            told.append(_completion(box.caller.append(b"INBOX", b"x", arguments=b"(\\Deleted) ")[-1]))
            told.append(_completion(box.caller.give(b"LOGOUT")[-1]))
            plugins = [{k: v for k, v in row.items() if "seconds" not in k} for row in ctl(gate, "plugins")]
        assert gate.stop() == 0
        assert "Traceback" not in gate.log()
        return Seen(of_session(records(trail_of(gate)), someone), plugins, told)


def of_session(trail: list[Record], someone: User) -> list[Record]:
    """The records of the session that is this user's, without what is another one in each session."""
    (session,) = {record["session.id"] for record in trail if record.get("user.name") == someone.name}
    return [plain(record, someone) for record in trail if record.get("session.id") == session]


def _completion(line: bytes) -> bytes:
    """OK, NO or BAD, and the code without numbers."""
    found = re.match(rb"\S+ (\S+)(?: \[([A-Z-]+))?", line)
    assert found is not None
    return b" ".join(filter(None, found.groups()))


def plain(record: Record, someone: User) -> Record:
    """A record without what is another one in each session, or each mailbox."""
    text = json.dumps({key: value for key, value in record.items() if not _OWN.match(key)})
    return json.loads(text.replace(someone.name, "USER"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("which", ["dovecot", "cyrus"])
def test_the_same_is_seen(which: str, start_server: Callable[[str], Server], user: NewUser) -> None:
    """Record for record and question for question, a shared session is seen as one with a connection of its own."""
    server = start_server(which)
    alone, shared = (seen(server, user(server), mode) for mode in ("session", "shared"))
    assert shared.told == alone.told
    assert shared.plugins == alone.plugins
    assert len(alone.records) > len(DIALOGUE) / 2
    assert [row["asked"] > 0 for row in alone.plugins] == [True] * len(PLUGINS)
    for one, other in zip(alone.records, shared.records, strict=True):
        assert other == one
