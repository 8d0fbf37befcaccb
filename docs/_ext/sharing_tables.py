"""Directives for shared mailboxes: what pins a session, and what is counted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from from_code import PACKAGE, _Directive
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from imapgate.model.commands import COMMANDS, When
from imapgate.net import shares
from imapgate.sharing import seat

_BEYOND_CODE = {"BAD to …"}
"""Reasons that the code puts together from more than one word."""
_BY_THE_GATE = {b"CAPABILITY", b"ID"}
"""Commands that no seat ever sees."""


def _constants(value: ast.expr | None) -> Iterator[str]:
    """The strings that an expression may be, as far as they stand in it."""
    if isinstance(value, ast.Constant) and value.value and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _constants(value.body)
        yield from _constants(value.orelse)
    elif isinstance(value, ast.BoolOp):
        for each in value.values:
            yield from _constants(each)


def _returned(module: str, function: str) -> Iterator[str]:
    """The strings that a function returns, or keeps under a name."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return | ast.Assign):
                    yield from _constants(inner.value)


def _named(module: str, keyword: str) -> Iterator[str]:
    """The strings that are given under this keyword."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.keyword) and node.arg == keyword:
            yield from _constants(node.value)


def pin_reasons() -> set[str]:
    """Every reason for which a connection is one session's alone, as ``ctl pins`` has it."""
    served = seat._SERVED | seat.ERRANDS | _BY_THE_GATE
    after_login = [rule for rule in COMMANDS.values() if rule.when is not When.NOT_AUTHENTICATED]
    return {
        *_returned("model/commands.py", "pins"),
        *_returned("sharing/seat.py", "_pins"),
        *_returned("sharing/seat.py", "_begin_message"),
        *_named("net/directory.py", "pinned"),
        *(rule.verb.decode() for rule in after_login if rule.verb not in served and rule.message_after is None),
        *_BEYOND_CODE,
    }


class EveryPin(_Directive):
    """Its content, once it is seen that the first column of its table has each reason, and no other."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        cells = [line for line in self.content if line.lstrip().startswith("* -")]
        told = {reason for cell in cells for reason in re.findall(r"``(.*?)``", cell)}
        reasons = pin_reasons()
        if told != reasons:
            wrong = ", ".join(sorted(told ^ reasons))
            raise ExtensionError(f"{self.env.docname}: the reasons for pins are not as the code has them: {wrong}")
        return self.parse_content_to_nodes()


class EveryShareCount(_Directive):
    """Its content, once it is seen that it has a word on all that is counted of shares."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        missing = [name for name in shares.COUNTED if f"``shared_{name}``" not in text]
        if missing:
            raise ExtensionError(f"{self.env.docname}: nothing is said of what is counted of {', '.join(missing)}")
        return self.parse_content_to_nodes()


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx."""
    app.add_directive("every-pin", EveryPin)
    app.add_directive("every-share-count", EveryShareCount)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
