"""The report's page: its elements, its charts, and that nothing in a record becomes markup."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from html.parser import HTMLParser

import pytest

from imapgate.audit.page.charts import Series, bar, columns, heat, strip, ticks
from imapgate.audit.page.markup import Markup, amount, element, table, together, worded
from imapgate.audit.page.time import buckets
from imapgate.audit.tallies import Hour


class Outline(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Remember."""
        self.text += data


def test_element() -> None:
    """Text and attributes are escaped, markup is not; what has no content has no end."""
    assert element("p", "a < b & c", element("b", 5), class_="x", title='"><script>', lang=None) == (
        '<p class="x" title="&quot;&gt;&lt;script&gt;">a &lt; b &amp; c<b>5</b></p>'
    )
    assert element("br") == "<br>"
    assert element("rect", fill_opacity=0.5, viewBox="0 0 1 1") == '<rect fill-opacity="0.5" viewBox="0 0 1 1"></rect>'
    assert together(("<", Markup("<"))) == "&lt;<"


def test_nothing_is_invisible() -> None:
    """What would turn text around, or not be seen, is written out."""
    assert element("p", "a\u202eb\u200bc\x00\ud800") == "<p>a\\u202eb\\u200bc\\x00\\ud800</p>"


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("alice@example.org", "<span>alice@<wbr>example.org</span>"),
        ("a <b>", "<span>a &lt;b&gt;</span>"),
        ("x" * 25, f'<span class="long">{"x" * 25}</span>'),
        ("192.0.2.7", "<span>192.0.2.7</span>"),
        ("", "<span></span>"),
    ],
)
def test_worded(text: str, markup: str) -> None:
    """Long text is broken behind a sign; a word that is too long anywhere."""
    assert worded(text) == markup


def test_table() -> None:
    """Numbers stand at the right, in the head, too; text in cells is escaped."""
    made = table(("a", "n"), [("<i>", amount(1234)), ("b", amount(0))], (1,))
    assert '<th class="number" scope="col">n</th>' in made
    assert '<tr><td><span>&lt;i&gt;</span></td><td class="number">1,234</td></tr>' in made
    assert '<span class="less">0</span>' in made


@pytest.mark.parametrize("most", [0, 0.3, 1, 2, 3, 7, 18, 99, 100, 101, 4321, 10**9])
def test_ticks(most: float) -> None:
    """A few round numbers that reach as far as the values."""
    found = ticks(most)
    assert found[0] == 0
    assert found[-1] >= most
    assert 2 <= len(found) <= 4
    step = found[1]
    assert found == [step * index for index in range(len(found))]
    assert step / 10 ** math.floor(math.log10(step)) in (1, 2, 5)


def test_columns() -> None:
    """A bar for each value that is not nothing, as high as it is, with its words; labels as there is room."""
    labels = [(f"{day} Nov", f"day {day}") for day in range(100)]
    series = (Series("one", "content", [10] * 100), Series("two", "bulk", [0] * 99 + [10]))
    made = Outline(columns(labels, series, what="what it is", height=200, written=lambda value: f"{value:g}"))
    rects = [attributes for tag, attributes in made.elements if tag == "rect"]
    assert len(rects) == 101
    heights = {float(str(rect["height"])) for rect in rects}
    assert heights == {(200 - 10 - 26) / 2}  # each is half of 20
    tops = [float(str(rect["y"])) for rect in rects[-2:]]
    assert tops[0] - tops[1] == heights.pop()
    assert "day 99, one: 10, two: 10" in made.text
    assert "day 98, one: 10day" in made.text
    assert 10 <= sum(f"{day} Nov" in made.text for day in range(10, 100)) <= 20
    assert made.elements[0][1]["aria-label"] == "what it is"


def test_columns_of_nothing() -> None:
    """A period without anything is an empty chart."""
    made = Outline(columns([], (Series("one", "content", []),), what="", height=110, written=str))
    assert "rect" not in [tag for tag, _ in made.elements]


def test_heat() -> None:
    """A cell for each hour, the stronger the more; the night is marked."""
    made = Outline(heat([("Mon", [0] * 23 + [4]), ("Tue", [1] + [0] * 23)], what="", marked=frozenset((0, 23))))
    classes = [attributes.get("class") for tag, attributes in made.elements if tag == "rect"]
    assert (classes.count("cell"), classes.count("cell none"), classes.count("night")) == (2, 46, 2)
    assert "Mon 23:00: 4" in made.text
    opacities = [attributes["fill-opacity"] for _, attributes in made.elements if "fill-opacity" in attributes]
    assert opacities == ["1.0", "0.56"]


def test_small_charts() -> None:
    """A person's hours and bars, for a cell; nothing is drawn of nothing."""
    hours = Outline(strip([1] + [0] * 11 + [4] + [0] * 11, what="hours"))
    assert [attributes.get("class") for tag, attributes in hours.elements if tag == "rect"] == ["axis", "late", "cell"]
    drawn = Outline(bar([(50, "content"), (0, "bulk"), (50, "headers")], 100, what="bar"))
    assert [(attributes["x"], attributes["width"]) for tag, attributes in drawn.elements if tag == "rect"] == [
        ("0", "60"),
        ("60", "60"),
    ]
    assert Outline(strip([0] * 24, what="")).elements[1][1]["class"] == "axis"


@pytest.mark.parametrize(
    ("hours", "unit", "columns"),
    [(0, "hour", 1), (24, "hour", 25), (24 * 20, "day", 21), (24 * 300, "week", 43), (24 * 2000, "month", 66)],
)
def test_buckets(hours: int, unit: str, columns: int) -> None:
    """The longer the period the longer the unit; nothing is lost, and what is empty has its place."""
    start = datetime(2026, 11, 2, 9)
    keys = [(start + timedelta(hours=at)).strftime("%Y-%m-%dT%H") for at in sorted({0, hours})]
    name, found = buckets({key: Hour(content=3, failed=1) for key in keys})
    assert (name, len(found)) == (unit, columns)
    assert sum(hour.content for _, hour in found) == 3 * len(keys)
    assert sum(hour.failed for _, hour in found) == len(keys)
    assert found[0][1].content == 3
    assert found[-1][1].content == 3


def test_buckets_of_nothing() -> None:
    """Nothing happened."""
    assert buckets({}) == ("day", [])


def test_bucket_labels() -> None:
    """Labels are short; what a column says of itself is whole."""
    _, found = buckets({"2026-11-02T09": Hour(), "2026-11-22T09": Hour()})
    assert found[0][0] == ("2 Nov", "Mon 2026-11-02")
