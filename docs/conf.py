"""Sphinx: the Markdown pages, with their equations as MathML."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "rela"
release = version = metadata.version("rela")
extensions = ["mathml", "myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"rela {release}"
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # would turn the hyphens of --option into a dash
exclude_patterns = ["_build"]
