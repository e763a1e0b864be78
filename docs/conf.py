"""Sphinx: Markdown pages, the command line from its own help, Python from its docstrings."""

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

project = "rela"
release = version = metadata.version("rela")
extensions = [
    "mathml",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"rela {release}"
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # would turn the hyphens of --option into a dash
python_maximum_signature_line_length = 80
exclude_patterns = ["_build"]


def setup(app: Any) -> None:
    """Make signatures and lists of options, written for `help()`, look like those of a page."""
    app.connect("autodoc-process-signature", _with_plain_defaults)
    app.connect("autodoc-process-docstring", _with_marked_options)


def _with_plain_defaults(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str | None, Any]:
    """Sphinx shortens the types of a signature only if all of it is Python."""
    return signature and re.sub(r"<function log at 0x\w+>", "logger.info", signature), returns


def _with_marked_options(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    lines[:] = [
        re.sub(r"^- (\w+):", r"- ``\1``:", line).replace("file:PATH", "``file:PATH``")
        for line in lines
    ]
