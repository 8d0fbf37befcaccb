"""Directives for the audit trail: its fields and words, from the schema that is shipped, and what is not recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from docutils import nodes
from from_code import Cell, _Directive, literal
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from imapgate.audit.schema import schema
from imapgate.model.commands import COMMANDS, When
from imapgate.session.deeds import recorded


class AuditFields(_Directive):
    """Every field that a record may have."""

    def run(self) -> list[nodes.Node]:
        told = schema()
        fields = {**told["properties"], "note.…": next(iter(told["patternProperties"].values()))}
        rows: list[Sequence[Cell]] = []
        for name, field in fields.items():
            rows.append(([literal(name)], [nodes.Text(_kind(field))], [nodes.Text(field["description"])]))
        return [self.table(("field", "JSON", "what it is"), rows, (27, 16, 57))]


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return "string, as above"
    if "const" in field:
        return str(field["const"])
    kinds = field["type"]
    if kinds == "array":
        return "array of strings"
    return kinds if isinstance(kinds, str) else ", ".join(kinds)


class EveryWord(_Directive):
    """``.. every-word:: event``: its content, once it is seen that it has each word that this field can be."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        missing = [word for word in schema()["properties"][self.arguments[0]]["enum"] if f"``{word}``" not in text]
        if missing:
            raise ExtensionError(f"{self.env.docname}: nothing is said of the {self.arguments[0]} {', '.join(missing)}")
        return self.parse_content_to_nodes()


class NotRecorded(_Directive):
    """The commands after a login that leave no record."""

    def run(self) -> list[nodes.Node]:
        names = [rule.verb.decode() for rule in COMMANDS.values() if rule.when is not When.NOT_AUTHENTICATED]
        paragraph = nodes.paragraph()
        for name in (name for name in names if not recorded(name.removeprefix("UID "))):
            paragraph += ([nodes.Text(", ")] if paragraph.children else []) + [literal(name)]
        paragraph += nodes.Text(".")
        return [paragraph]


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx."""
    app.add_directive("audit-fields", AuditFields)
    app.add_directive("every-word", EveryWord)
    app.add_directive("not-recorded", NotRecorded)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
