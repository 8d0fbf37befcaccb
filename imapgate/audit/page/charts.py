"""Charts as inline SVG, their colours by the page's classes.

Knows numbers and their names.  Knows nothing of mail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from imapgate.audit.page.markup import Markup, element

WIDTH = 1000
_LEFT, _TOP, _BOTTOM = 52, 10, 26
_LABEL = 56
"""The room that a label of the horizontal axis needs."""


class Series(NamedTuple):
    """What is drawn in one colour.

    :ivar class_: the colour's class
    :ivar values: one for each column
    """

    name: str
    class_: str
    values: Sequence[float]


def ticks(most: float, wanted: int = 3) -> list[float]:
    """Round numbers from 0 to at least ``most``."""
    if most <= 0:
        return [0, 1]
    step = 10.0 ** math.floor(math.log10(most / wanted))
    step = max(1.0, step * next(factor for factor in (1, 2, 5, 10) if step * factor * wanted >= most))
    return [step * index for index in range(math.ceil(most / step) + 1)]


def columns(
    labels: Sequence[tuple[str, str]],
    series: Sequence[Series],
    *,
    what: str,
    height: int,
    written: Callable[[float], str],
) -> Markup:
    """Stacked columns over time.

    :param labels: of the columns, short and whole; as many of the short ones are written as there is room for.
    :param what: what the chart shows, for who does not see it.
    :param written: how a value is written.
    """
    sums = [sum(values) for values in zip(*(each.values for each in series), strict=True)]
    scale = ticks(max(sums, default=0), 2 if height < 120 else 3)
    room, bottom = height - _TOP - _BOTTOM, height - _BOTTOM
    step = (WIDTH - _LEFT) / max(len(labels), 1)
    width = min(max(step * 0.72, 0.8), 48)
    parts = []
    for value in scale:
        y = bottom - room * value / scale[-1]
        parts.append(element("line", x1=_LEFT, x2=WIDTH, y1=_at(y), y2=_at(y), class_="base" if not value else "grid"))
        parts.append(element("text", written(value), x=_LEFT - 8, y=_at(y + 4), text_anchor="end"))
    every = max(1, math.ceil(_LABEL / step))
    for index, (label, whole) in enumerate(labels):
        x = _LEFT + step * index
        if index % every == 0 and x + (step + _LABEL) / 2 <= WIDTH:
            parts.append(element("text", label, x=_at(x + step / 2), y=height - 7, text_anchor="middle"))
        y, told = float(bottom), [whole]
        bars = []
        for each in series:
            value = each.values[index]
            if value:
                tall = max(room * value / scale[-1], 1.5)
                y -= tall
                bars.append(
                    element(
                        "rect",
                        x=_at(x + (step - width) / 2),
                        y=_at(y),
                        width=_at(width),
                        height=_at(tall),
                        class_=each.class_,
                    )
                )
                told.append(f"{each.name}: {written(value)}")
        if bars:
            parts.append(element("g", element("title", ", ".join(told)), *bars))
    return _svg(*parts, what=what, width=WIDTH, height=height)


def legend(series: Sequence[Series]) -> Markup:
    """Which colour is what."""
    keys = [element("span", element("i", class_=each.class_), each.name) for each in series]
    return element("p", *keys, class_="legend")


def heat(rows: Sequence[tuple[str, Sequence[int]]], *, what: str, marked: frozenset[int]) -> Markup:
    """A table of cells, the darker the more; one column for each hour, those in ``marked`` under a bar."""
    most = max((value for _, values in rows for value in values), default=0)
    step, tall, left, top = (WIDTH - _LEFT) / 24, 24, _LEFT, 22
    parts = []
    for hour in range(24):
        x = left + step * hour
        if hour % 2 == 0:
            parts.append(element("text", f"{hour:02}:00", x=_at(x), y=14, text_anchor="start"))
        if hour in marked:
            parts.append(
                element("rect", x=_at(x), y=top + len(rows) * tall + 3, width=_at(step), height=3, class_="night")
            )
    for index, (name, values) in enumerate(rows):
        y = top + index * tall
        parts.append(element("text", name, x=left - 8, y=y + 16, text_anchor="end"))
        for hour, value in enumerate(values):
            parts.append(
                element(
                    "rect",
                    element("title", f"{name} {hour:02}:00: {value:,}"),
                    x=_at(left + step * hour + 1),
                    y=y + 1,
                    width=_at(step - 2),
                    height=tall - 2,
                    rx=2,
                    class_="cell" if value else "cell none",
                    fill_opacity=round(0.12 + 0.88 * math.sqrt(value / most), 2) if value else None,
                )
            )
    return _svg(*parts, what=what, width=WIDTH, height=top + len(rows) * tall + 10)


def strip(values: Sequence[int], *, what: str) -> Markup:
    """The 24 hours of a day as small columns, for a table's cell."""
    most = max(values, default=0)
    parts = [element("rect", x=0, y=17, width=120, height=1, class_="axis")]
    for hour, value in enumerate(values):
        if value:
            tall = max(16 * math.sqrt(value / most), 2)
            night = hour < 6 or hour >= 22
            parts.append(
                element(
                    "rect", x=hour * 5, y=_at(17 - tall), width=4, height=_at(tall), class_="late" if night else "cell"
                )
            )
    return _svg(*parts, what=what, width=120, height=18, class_="strip")


def bar(parts: Sequence[tuple[float, str]], most: float, *, what: str) -> Markup:
    """A horizontal bar of values with their classes, for a table's cell."""
    x, drawn = 0.0, []
    for value, class_ in parts:
        if value:
            width = max(120 * value / most, 1.0)
            drawn.append(element("rect", x=_at(x), y=2, width=_at(width), height=10, class_=class_))
            x += width
    return _svg(*drawn, what=what, width=120, height=14, class_="strip")


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _svg(*parts: Markup, what: str, width: int, height: int, class_: str = "chart") -> Markup:
    return element("svg", *parts, role="img", aria_label=what, viewBox=f"0 0 {width} {height}", class_=class_)
