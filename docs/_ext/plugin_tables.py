"""Directives for the interface of plugins: its hooks, its values, what is read of a command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from from_code import Cell, _Directive, literal, sentences
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from zope.interface.interface import Method

from imapgate.model.verdict import Event
from imapgate.plugins.api import IPlugin
from imapgate.plugins.checking import _ALLOWED, _UNREFUSABLE
from imapgate.plugins.table import _EVENTS

_INTERESTS = {
    "capabilities": "``capabilities``",
    "command": "``verbs``",
    "message_begins": "``message``",
    "message_chunk": "``message``",
    "message_ends": "``message``",
    "untagged": "``responses``",
    "fetch_item": "``fetch``",
    "completed": "``completions``",
    **{hook: f"``Event.{event.name}``" for event, hook in _EVENTS.items()},
    "session_closed": f"``Event.{Event.CLOSED.name}``",
}
"""What a plugin declares to be asked by each of its methods."""

_IVAR = re.compile(r"^:ivar (\w+): (.*(?:\n {2,}.*)*)", re.MULTILINE)
_SINGLE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_ROLE = re.compile(r":[a-z]+:`~?([^`]*)`")


def _plain(text: str) -> str:
    """A docstring as a sentence of a page: no cross-references, which it cannot have here."""
    text = re.sub(r"\(?THREATS ([AF]\d+)\)?", r"", " ".join(text.split()))
    text = _ROLE.sub(r"``\1``", text.replace("``* ``", "``*``"))
    text = re.sub(r"'(\w+)'", r"``\1``", text)
    return _SINGLE.sub(r"``\1``", text).replace(" ;", ";").replace(" .", ".").strip()


def _signature(name: str, method: Any) -> str:
    parameters = [each for each in inspect.signature(method).parameters.values() if each.name != "self"]
    words = []
    for each in parameters:
        required = each.default is each.empty or each.default.__class__ is object
        star = "*" if each.kind is each.VAR_POSITIONAL else ""
        words.append(star + each.name if required else f"{each.name}={each.default!r}")
    return f"{name}({', '.join(words)})"


class PluginHooks(_Directive):
    """Every method that a question comes by: when, for which interest, and what it may answer."""

    def run(self) -> list[nodes.Node]:
        rows: list[Sequence[Cell]] = []
        for name in IPlugin:
            method = IPlugin[name]
            if not isinstance(method, Method) or name in ("start", "stop"):
                continue
            if name not in _INTERESTS:
                raise ExtensionError(f"docs/_ext/plugin_tables.py: no interest for {name}")
            form = name + method.getSignatureString()
            rows.append(([literal(form)], _plain(method.getDoc()), _INTERESTS[name], _verdicts(name)))
        return [self.table(("method", "when", "interest", "besides Continue"), rows, (32, 34, 16, 18))]


def _verdicts(hook: str) -> str:
    if hook == "capabilities":
        return "returns the list"
    words = []
    for verdict in _ALLOWED[hook]:
        ends = verdict.__name__ == "Reject" and hook in _UNREFUSABLE
        words.append(verdict.__name__ + (" (as Disconnect)" if ends else ""))
    return ", ".join(words) or "nothing"


class PluginAttributes(_Directive):
    """What a plugin has beside the methods that are asked."""

    def run(self) -> list[nodes.Node]:
        rows: list[Sequence[Cell]] = []
        for name in IPlugin:
            attribute = IPlugin[name]
            if isinstance(attribute, Method) and name not in ("start", "stop"):
                continue
            form = name + attribute.getSignatureString() if isinstance(attribute, Method) else name
            rows.append(([literal(form)], _plain(attribute.getDoc())))
        return [self.table(("", "what it is"), rows, (25, 75))]


class Members(_Directive):
    """``.. members:: imapgate.model.verdict.Reject``: what a value holds; ``:methods:``: what it can be asked, too."""

    required_arguments = 1
    option_spec = {"methods": directives.flag}

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        owner = getattr(import_module(module), name)
        found = dict(self._values(module, name, owner))
        if "methods" in self.options:
            for method, function in vars(owner).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    found[_signature(method, function)] = inspect.getdoc(function) or ""
        silent = [member for member, text in found.items() if not text]
        if not found or silent:
            raise ExtensionError(f"{self.arguments[0]}: nothing is said of {', '.join(silent) or 'anything'}")
        rows = [([literal(member)], _plain(text.split("\n\n")[0])) for member, text in found.items()]
        return [self.table(("", "what it is"), rows, (30, 70))]

    def _values(self, module: str, name: str, owner: Any) -> Iterator[tuple[str, str]]:
        told = dict(_IVAR.findall(inspect.getdoc(owner) or ""))
        if hasattr(owner, "_fields"):
            below = sentences(module, name)
            defaults = owner._field_defaults
            for field in owner._fields:
                default = f" = {defaults[field]!r}" if field in defaults else ""
                default = default.replace("frozenset()", "∅")
                yield field + default, told.get(field) or below.get(field) or _SELF_EVIDENT.get((name, field), "")
            return
        yield from told.items()
        for member, value in vars(owner).items():
            if isinstance(value, property) and not member.startswith("_"):
                yield member, inspect.getdoc(value) or ""


_SELF_EVIDENT = {
    ("Reject", "code"): "the response code, an atom such as ``NOPERM``; none is allowed",
    ("Reject", "text"): "what the client is told",
    ("Replace", "rule"): "as above",
    ("Answer", "code"): "the response code, perhaps with arguments",
    ("Answer", "text"): "what the client is told at the end",
    ("Disconnect", "text"): "the client's last line",
    ("Disconnect", "rule"): "as above",
    ("Annotate", "fields"): "names (small letters, digits, ``_``, ``.``, ``-``) and texts, whole numbers or booleans",
    ("Mailbox", "read_only"): "opened by EXAMINE, or not to be changed",
    ("Message", "mailbox"): "where it is to be stored",
    ("Response", "keyword"): "its first word; of ``* 3 EXISTS`` it is ``EXISTS``",
    ("FetchItem", "number"): "its number in the mailbox",
    ("FetchItem", "octets"): "of the response, with its literals",
    ("Completion", "code"): "the response code with its arguments; empty: none",
    ("Completion", "text"): "what follows",
    ("Route", "upstream"): "the name of the upstream",
    ("Route", "pool_mode"): "``session``, ``mailbox`` or ``shared``",
}
"""What the docstrings of values leave to their names."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx."""
    app.add_directive("plugin-hooks", PluginHooks)
    app.add_directive("plugin-attributes", PluginAttributes)
    app.add_directive("members", Members)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
