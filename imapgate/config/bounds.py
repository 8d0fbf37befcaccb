"""``[limits]``: the bounds, read and checked.

Knows what each bound may be; what it bounds is `imapgate.limits`' to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from imapgate.config.table import Table
from imapgate.config.values import MOST_COUNT, duration, size, whole
from imapgate.limits import DEFAULTS, KIB, MIB, Limits

SIZES = {  # the least that a session can work with
    "line_before_login": 512,
    "line_after_login": KIB,
    "sasl_line": 512,
    "argument_literal": 1,
    "command": KIB,
    "message_literal": 1,
    "upstream_line": KIB,
    "tag": 1,
    "user_name": 1,
    "share_spool_memory": KIB,
    "share_spool": KIB,
}
MOST_OCTETS = 1024 * MIB
MOST_LITERAL = 2**32 - 1
"""RFC 3501 §9, `number`."""
MOST_DELAYS = 32

NOT_ABOVE = [  # the first makes no sense above the second
    ("line_before_login", "line_after_login"),
    ("argument_literal", "command"),
    ("connect_try", "connect_total"),
    ("nesting_before_login", "nesting_after_login"),
    ("share_spool_memory", "share_spool"),
]


def read_limits(table: Table) -> Limits:
    """Read the bounds; what is not written has its default."""
    values: dict[str, Any] = {}
    for field in fields(Limits):
        default = getattr(DEFAULTS, field.name)
        if field.name == "failed_login_delays":
            if field.name in table:
                values[field.name] = tuple(table.values(field.name, partial(duration, zero=True)))
        else:
            values[field.name] = table.take(field.name, _limit(field.name, default), default)
    table.finish()
    limits = Limits(**values)
    if len(limits.failed_login_delays) > MOST_DELAYS:
        table.add("failed_login_delays", f"expected at most {MOST_DELAYS} durations")
    for low, high in NOT_ABOVE:
        if table.sound(low, high) and getattr(limits, low) > getattr(limits, high):
            key, other = (low, high) if low in table else (high, low)
            relation = "at most" if key == low else "at least"
            table.add(key, f"{_plain(limits, key)}; expected {relation} {other}, which is {_plain(limits, other)}")
    return limits


def _limit(name: str, default: float) -> Callable[[object], float]:
    """Return the reader of one limit, by what its default is; a number may be 0 where the default is."""
    if isinstance(default, float):
        return duration
    if name in SIZES:
        return partial(size, least=SIZES[name], most=MOST_LITERAL if name == "message_literal" else MOST_OCTETS)
    return partial(whole, least=1 if default else 0, most=MOST_COUNT)


def _plain(limits: Limits, name: str) -> str:
    value = getattr(limits, name)
    return f"{value:g}s" if isinstance(value, float) else str(value)
