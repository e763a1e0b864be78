"""Results as people see them: one line each, and tables without anything that a browser would run."""

from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import pytest

from rela.result import Result, Table


@dataclass(frozen=True, repr=False)
class Toy(Result):
    figures: dict[str, Any]
    rows: tuple[tuple[Any, ...], ...] = ()

    def shown(self) -> dict[str, Any]:
        return self.figures

    def tables(self) -> dict[str, Table]:
        return {"the rows": (("name", "count"), self.rows)}


class Cells(HTMLParser):
    """The tags, and the text of each cell and caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("td", "th", "caption"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data.strip("\n")


def test_a_line_has_what_is_known_in_order():
    toy = Toy({"name": "a", "images": 12345, "seconds": 1.5, "crops": None, "cached": True})
    assert repr(toy) == f"{toy}" == "<Toy: name a, images 12,345, seconds 1.5, cached True>"


@pytest.mark.parametrize("hostile", ["a\nb\x1b[31m\udcff", "x" * 5000])
def test_whatever_a_name_holds_it_is_one_short_printable_line(hostile: str):
    line = repr(Toy({"name": hostile}))
    assert line.isprintable() and len(line) < 200
    assert Toy({"name": hostile}, ((hostile, 1),))._repr_html_().isascii() or len(hostile) > 100


def test_a_notebook_shows_figures_and_tables_as_text():
    hostile = "<script>alert('1')</script> & \"more\""
    page = Cells(Toy({"name": hostile, "gone": None}, ((hostile, 1234), (None, 2)))._repr_html_())
    assert page.tags == {"table", "caption", "tr", "td", "th"}
    assert page.texts == [
        *("Toy", "name", hostile),
        *("the rows", "name", "count", hostile, "1,234", "–", "2"),
    ]


def test_tables_without_rows_are_left_out_and_long_ones_cut():
    assert "the rows" not in Toy({"name": "a"})._repr_html_()
    page = Cells(Toy({}, tuple((f"row {i}", i) for i in range(250)))._repr_html_())
    assert "row 99" in page.texts and "row 100" not in page.texts
    assert page.texts[-1] == "and 150 more"
