"""A Matplotlib drawing as PNG, and as SVG in which the page can switch colours and runs."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rela.errors import one_line
from rela.stages.report.lines import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

INK = "#010203"  # replaced by the page's text colour
_WIDTH_INCHES = 5.2
_PNG_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Figure:
    """A drawing with its file name and caption; `svg` is for the page, `png` for other documents."""

    name: str
    caption: str
    svg: str
    png: bytes


def begin_drawing(x_label: str, y_label: str, height_inches: float = 3.5) -> "tuple[Drawing, Axes]":
    """An empty drawing whose ink follows the page's text colour."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    axes = drawing.add_subplot()
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(colors=INK, labelsize=8)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    return drawing, axes


def draw_level(
    axes: "Axes", height: float, label: str, colour: str, on_left: bool, style: str = ":"
) -> None:
    """A horizontal line across the drawing, with its label at an end."""
    axes.axhline(height, color=colour, linewidth=0.9, linestyle=style)
    x, side = (0.005, "left") if on_left else (0.995, "right")
    axes.annotate(
        label, (x, height), xycoords=("axes fraction", "data"), xytext=(0, 1), fontsize=7,
        textcoords="offset points", color=colour, ha=side, va="bottom",
    )  # fmt: skip


def finish_drawing(
    drawing: "Drawing", axes: "Axes", name: str, caption: str, lines: Sequence[Line] = ()
) -> Figure | None:
    """The drawing as SVG and PNG; None if it is empty.

    `lines` get a legend in the PNG only; the page has its own.
    """
    if not (axes.lines or axes.patches or axes.collections):
        return None
    import matplotlib

    _take_literally(drawing)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    text, picture = io.StringIO(), io.BytesIO()
    if not lines and (legend := axes.get_legend()) is not None:
        for label in legend.get_texts():
            label.set_color(INK)
    # the same bytes for the same runs: no date, and shape names that depend only on the figure's name
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawing.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    if lines:
        for line in lines:
            axes.plot([], [], color=line.colour, label=line.label)
        axes.legend(fontsize=7)
        _take_literally(drawing)
    drawing.savefig(picture, format="png", dpi=_PNG_DOTS_PER_INCH, facecolor="white")
    colours = {line.colour: f"var(--{line.css_name})" for line in lines}
    return Figure(name, caption, _for_page(text.getvalue(), colours), picture.getvalue())


def _take_literally(drawing: "Drawing") -> None:
    """Names may hold dollar signs, which begin a formula, and bytes that are not UTF-8."""
    from matplotlib.text import Text

    for text in drawing.findobj(Text):
        text.set_parse_math(False)
        text.set_text("\n".join(map(one_line, text.get_text().split("\n"))))


def _for_page(svg: str, colours: dict[str, str]) -> str:
    """The svg element only, at full width, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in {**colours, INK: "currentColor"}.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    # one run has many shapes
    svg = re.sub(r'id="(run-\d+)-"', r'class="\1"', svg)
    # ids must be unique in the page; those that are used are hashes of the figure's name and the shape
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    opening, rest = svg.split(">", 1)
    return re.sub(r' (?:width|height)="[^"]*"', "", opening) + ">" + rest
