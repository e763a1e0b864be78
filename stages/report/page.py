"""The content of a report → one HTML file that needs no network."""

import base64
import hashlib
import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import UnavailableError, require
from rela.evaluation.protocols import title_of
from rela.stages.display import human_bytes
from rela.stages.priors.rank import Ranking
from rela.stages.report.accuracy import Accuracies
from rela.stages.report.feature_map import Neighbours
from rela.stages.report.figures import Figure
from rela.stages.report.lines import Line
from rela.stages.workspace.run import UnfinishedRun

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Chapter:
    """The page's part about one data set, in its order. Figures and sentences leave out `unfinished` runs.

    `measures`: protocols by which any run was evaluated, the most informative first. `contact_sheet`: some
    images of each class as PNG in base64, empty if there is none.
    """

    dataset: str
    headline: str
    sentences: list[str]
    lines: list[Line]
    measures: list[str]
    accuracies: Accuracies
    unfinished: list[UnfinishedRun]
    costs: list[Figure]
    courses: list[Figure]
    maps: list[Figure]
    neighbours: dict[str, list[Neighbours]]
    ranking: Ranking | None
    commands: dict[str, list[str]]
    contact_sheet: str = ""

    @property
    def figures(self) -> list[Figure]:
        """All figures."""
        return [*self.costs, *self.courses, *self.maps]


@dataclass(frozen=True)
class Page:
    """Chapters, the number of each run in the page, package versions, the date, and what it is about."""

    chapters: list[Chapter]
    numbers: dict[str, int]
    versions: dict[str, str]
    written: str
    about: str


def render(page: Page) -> str:
    """The page as HTML, with style, script, figures and thumbnails inline."""
    environment = template_environment()
    template = environment.get_template("report.html")
    style, script = (
        (_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    text: str = template.render(page=page, style=style, script=script, script_digest=digest)
    return text


def template_environment() -> Any:
    """Jinja2 with autoescaping; raises UnavailableError if it is not installed."""
    jinja2 = require("jinja2", "report", "rela report", UnavailableError)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = human_bytes
    environment.filters["code"] = lambda text: re.sub(
        "`(.+?)`", r"<code>\1</code>", html.escape(text)
    )
    environment.filters["title_of"] = title_of
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    return environment
