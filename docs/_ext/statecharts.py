"""State diagrams as SVG, drawn from transition tables in pure Python.

Knows boxes, arrows and labels.  Where a state stands on the page is told by a :class:`Layout`; which arrows
there are, and what is written on them, comes from the table alone.  A state without a place is an error, so
that a diagram can be out of step with its table only by not being drawn at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from html import escape
from itertools import count
from math import hypot

Point = tuple[float, float]
Transitions = Mapping[tuple[Enum, Enum], Enum]

CELL_X, CELL_Y = 215.0, 125.0
HEIGHT, LINE, MARGIN = 38.0, 15.0, 14.0
BEND = 34.0
"""How far, in pixels, the two arrows between the same boxes are bent apart."""

_numbers = count(1)


@dataclass(frozen=True)
class Layout:
    """Where the states of one machine stand, in cells.

    ``bends`` and ``shifts`` are for single arrows: how far one is bent to its left, and where along its way
    (0 to 1) its label stands.  ``below``: states whose loops hang below the box.  ``everywhere``: where the
    box stands that means "any state".
    """

    places: Mapping[Enum, Point]
    bends: Mapping[tuple[Enum, Enum], float] = field(default_factory=dict)
    shifts: Mapping[tuple[Enum, Enum], float] = field(default_factory=dict)
    below: frozenset[Enum] = frozenset()
    everywhere: Point | None = None
    initial: Enum | None = None


@dataclass(frozen=True)
class _Box:
    label: str
    x: float
    y: float
    kind: str = "state"

    @property
    def width(self) -> float:
        return max(92.0, 8.6 * len(self.label) + 28.0)

    def holds(self, point: Point, gap: float = 0.0) -> bool:
        return abs(point[0] - self.x) <= self.width / 2 + gap and abs(point[1] - self.y) <= HEIGHT / 2 + gap


def collapsed(table: Transitions) -> dict[Enum, Enum]:
    """The events that lead from every state there is to one and the same, each with where it leads."""
    states = {state for state, _ in table} | set(table.values())
    found = {}
    for event in {event for _, event in table}:
        ends = {state: target for (state, event_), target in table.items() if event_ is event}
        if len(set(ends.values())) == 1 and set(ends) >= states - set(ends.values()) and len(ends) > 3:
            found[event] = next(iter(ends.values()))
    return found


def _curve(a: Point, c: Point, b: Point, t: float) -> Point:
    u = 1 - t
    return (u * u * a[0] + 2 * u * t * c[0] + t * t * b[0], u * u * a[1] + 2 * u * t * c[1] + t * t * b[1])


def _text(x: float, y: float, lines: list[str], kind: str) -> str:
    top = y - LINE * (len(lines) - 1) / 2
    return "".join(
        f'<text class="{kind}" x="{x:.1f}" y="{top + LINE * number:.1f}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )


class _Drawing:
    """The pieces of one diagram, and how much room they take."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.arrows: list[str] = []
        self.labels: list[str] = []
        self.boxes: list[str] = []
        self._low, self._high = [1e9, 1e9], [-1e9, -1e9]

    def cover(self, x: float, y: float, width: float, height: float) -> None:
        self._low = [min(self._low[0], x - width / 2), min(self._low[1], y - height / 2)]
        self._high = [max(self._high[0], x + width / 2), max(self._high[1], y + height / 2)]

    def label(self, at: Point, lines: list[str]) -> None:
        self.labels.append(_text(at[0], at[1], lines, "event"))
        self.cover(at[0], at[1], 6.6 * max(map(len, lines)), LINE * len(lines) + 6)

    def arrow(self, path: str, kind: str) -> None:
        self.arrows.append(f'<path class="arrow {kind}" d="{path}" marker-end="url(#tip-{self.number})"/>')

    def box(self, box: _Box) -> None:
        x, y, width = box.x - box.width / 2, box.y - HEIGHT / 2, box.width
        self.boxes.append(
            f'<rect class="{box.kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{HEIGHT:.0f}" rx="9"/>'
            + _text(box.x, box.y, [box.label], "name")
        )
        self.cover(box.x, box.y, width, HEIGHT)

    def edge(self, start: _Box, end: _Box, lines: list[str], bend: float, shift: float) -> None:
        a, b = (start.x, start.y), (end.x, end.y)
        length = hypot(b[0] - a[0], b[1] - a[1])
        normal = ((b[1] - a[1]) / length, (a[0] - b[0]) / length)
        c = ((a[0] + b[0]) / 2 + 2 * bend * normal[0], (a[1] + b[1]) / 2 + 2 * bend * normal[1])
        steps = [number / 400 for number in range(401)]
        t0 = next(t for t in steps if not start.holds(_curve(a, c, b, t)))
        t1 = next(t for t in reversed(steps) if not end.holds(_curve(a, c, b, t), 3.0))
        p, q = _curve(a, c, b, t0), _curve(a, c, b, t1)
        middle = [(1 - t0) * (1 - t1) * a[i] + ((1 - t0) * t1 + (1 - t1) * t0) * c[i] + t0 * t1 * b[i] for i in (0, 1)]
        kind = "any" if start.kind == "any" else "one"
        self.arrow(f"M{p[0]:.1f} {p[1]:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {q[0]:.1f} {q[1]:.1f}", kind)
        self.label(_curve(p, (middle[0], middle[1]), q, shift), lines)

    def loop(self, box: _Box, lines: list[str], below: bool) -> None:
        sign = 1 if below else -1
        y = box.y + sign * HEIGHT / 2
        high = y + sign * 44
        self.arrow(f"M{box.x - 15:.1f} {y:.1f}C{box.x - 34:.1f} {high:.1f} {box.x + 34:.1f} {high:.1f} "
                   f"{box.x + 15:.1f} {y + sign * 3:.1f}", "one")  # fmt: skip
        self.label((box.x, y + sign * (38 + LINE * len(lines) / 2)), lines)

    def start(self, box: _Box) -> None:
        x, y = box.x - box.width / 2 - 34, box.y
        self.boxes.append(f'<circle class="start" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        self.arrow(f"M{x + 5:.1f} {y:.1f}L{x + 30:.1f} {y:.1f}", "one")
        self.cover(x, y, 12, 12)

    def svg(self, title: str) -> str:
        x, y = self._low[0] - MARGIN, self._low[1] - MARGIN
        width, height = self._high[0] - x + MARGIN, self._high[1] - y + MARGIN
        tip = (
            f'<defs><marker id="tip-{self.number}" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse"><path class="tip" d="M0 1L9 5L0 9z"/></marker></defs>'
        )
        return (
            f'<svg class="state-chart" role="img" aria-label="{escape(title)}" '
            f'viewBox="{x:.0f} {y:.0f} {width:.0f} {height:.0f}" style="max-width:{width:.0f}px">'
            f"<title>{escape(title)}</title>{tip}{''.join(self.arrows + self.boxes + self.labels)}</svg>"
        )


def draw(table: Transitions, layout: Layout, title: str) -> str:
    """Return one machine as an SVG element.

    :raise ValueError: the layout and the table do not have the same states.
    """
    states = {state for state, _ in table} | set(table.values())
    if states != set(layout.places):
        odd = ", ".join(sorted(state.name for state in states ^ set(layout.places)))
        raise ValueError(f"{title}: the layout and the table differ in {odd}")
    boxes = {state: _Box(state.value, x * CELL_X, y * CELL_Y) for state, (x, y) in layout.places.items()}
    drawing = _Drawing()
    anywhere = collapsed(table) if layout.everywhere else {}
    edges: dict[tuple[Enum, Enum], list[str]] = {}
    for (state, event), target in table.items():
        if event not in anywhere:
            edges.setdefault((state, target), []).append(event.value)
    for (state, target), lines in edges.items():
        if state is target:
            drawing.loop(boxes[state], lines, state in layout.below)
            continue
        bend = layout.bends.get((state, target), BEND if (target, state) in edges else 0.0)
        drawing.edge(boxes[state], boxes[target], lines, bend, layout.shifts.get((state, target), 0.5))
    if anywhere and layout.everywhere:
        any_state = _Box("any state", layout.everywhere[0] * CELL_X, layout.everywhere[1] * CELL_Y, "any")
        drawing.box(any_state)
        for event, target in anywhere.items():
            drawing.edge(any_state, boxes[target], [event.value], 0.0, 0.5)
    for box in boxes.values():
        drawing.box(box)
    if layout.initial is not None:
        drawing.start(boxes[layout.initial])
    return drawing.svg(title)
