"""Plots hold their numbers, follow the theme, and can stand several in one page."""

import re
from xml.etree import ElementTree

from unsee.evaluate.statistics import rate
from unsee.report.plots import INK, Mark, fits, mark, scales, trade_off

SVG = "{http://www.w3.org/2000/svg}"


def some(hits: int, kept: int, name: str = "uce") -> Mark:
    return mark(name, name, *(rate([True] * k + [False] * (10 - k)) for k in (hits, kept)))


def test_a_mark_has_both_shares_in_per_cent_with_their_intervals() -> None:
    one = some(2, 7)
    assert (one.x[0], one.y[0]) == (20, 70)
    assert one.x[1] < 20 < one.x[2]
    assert one.y[1] < 70 < one.y[2]


def test_a_plot_is_the_same_each_time_and_holds_its_numbers() -> None:
    marks = [some(2, 7), some(0, 10, "esd")]
    drawn = trade_off(marks, "church", "castle", alone=True)
    assert drawn == trade_off(marks, "church", "castle", alone=True)
    root = ElementTree.fromstring(drawn)
    assert "church, left is better, against castle" in (root.findtext(f"{SVG}title") or "")
    titles = [one.text for one in root.iter(f"{SVG}title")][1:]
    assert titles == ["uce: 20.0 %, 70.0 %", "esd: 0.0 %, 100.0 %"]
    assert "church, %: left is better" in [one.text for one in root.iter(f"{SVG}text")]


def test_a_plot_lies_where_its_numbers_are() -> None:
    """Twenty and seventy per cent, seen from the corners of the axes: those of the marks at 0 and 100."""
    marks = [some(0, 0, "low"), some(10, 10, "high"), some(2, 7, "between")]
    root = ElementTree.fromstring(trade_off(marks, "church", "castle"))
    places = {}
    for group in root.iter(f"{SVG}g"):
        title = group.findtext(f"{SVG}title")
        if title:
            use = next(group.iter(f"{SVG}use"))
            places[title.partition(":")[0]] = float(use.get("x", "")), float(use.get("y", ""))
    (left, bottom), (right, top), (x, y) = (places[name] for name in ("low", "high", "between"))
    assert abs((x - left) / (right - left) - 0.2) < 1e-3
    assert abs((y - bottom) / (top - bottom) - 0.7) < 1e-3


def test_plots_follow_the_theme_and_share_a_page() -> None:
    """No ink of its own, no style that reaches beyond it, no id that only one element of a page may have."""
    curve = [(0.0, 4.0, 0.0), (20.0, 1.0, 2.0)]
    for drawn in (trade_off([some(2, 7)], "a", "b"), scales([(1.0, 0.5, 0.5)], 1.0), fits({"edit": (curve, 20)})):
        assert INK not in drawn
        assert "currentColor" in drawn
        assert "<style" not in drawn
        assert not re.search(r'<g id="', drawn)
    assert "prefers-color-scheme: dark" in trade_off([some(2, 7)], "a", "b", alone=True)


def test_names_are_text_and_nothing_else() -> None:
    drawn = trade_off([some(2, 7, "<b>$x$</b>")], "<i>", "$y$")
    assert "<b>" not in drawn
    assert "<i>" not in drawn
    assert "&lt;b&gt;$x$&lt;/b&gt;" in drawn
    ElementTree.fromstring(drawn)
