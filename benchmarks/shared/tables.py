"""Figures shown: as text for people, as reStructuredText for docs/."""

import json
from typing import NamedTuple


class Bound(NamedTuple):
    """One target: what was measured, and the most it may be."""

    what: str
    measured: float | None  # None: not measured
    most: float
    unit: str = ""

    @property
    def met(self):
        return self.measured is not None and self.measured <= self.most


class Shown(NamedTuple):
    """One part's figures; the first column names the row."""

    title: str
    columns: list
    rows: list
    bounds: list


def save(part, path):
    with open(path, "w") as f:
        json.dump(part._asdict(), f)


def load(path):
    with open(path) as f:
        title, columns, rows, bounds = json.load(f).values()
    return Shown(title, columns, rows, [Bound(*b) for b in bounds])


def number(value):
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cells(columns, rows):
    return [list(columns), *([number(v) for v in row] for row in rows)]


def verdicts(bounds):
    """The bounds as a table."""
    words = {True: "yes", False: "no"}
    return cells(
        ("Figure", "Measured", "At most", "Met"),
        [
            (b.what, f"{number(b.measured)} {b.unit}".strip(), f"{number(b.most)} {b.unit}".strip(), words[b.met])
            for b in bounds
        ],
    )


def text(table):
    """Columns side by side, all but the first to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) for row in table
    )


def rst(table):
    out = [".. list-table::", "   :header-rows: 1", ""]
    for row in table:
        out += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
    return "\n".join(out)


def show(parts):
    """Print all parts; whether every bound is met."""
    bounds = [b for part in parts for b in part.bounds]
    for part in parts:
        print(f"\n{part.title}\n\n{text(cells(part.columns, part.rows))}")
    if bounds:
        print(f"\nbounds\n\n{text(verdicts(bounds))}")
    for part in parts:
        print(f"\n{part.title}:\n\n{rst(cells(part.columns, part.rows))}")
    if bounds:
        print(f"\n{rst(verdicts(bounds))}")
    return all(b.met for b in bounds)
