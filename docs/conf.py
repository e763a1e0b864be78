"""Sphinx: Markdown pages, the command line from its own help, Python from its docstrings."""

import sys
from importlib import metadata
from pathlib import Path

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
smartquotes = False  # a dash is no part of --option
python_maximum_signature_line_length = 80
exclude_patterns = ["_build"]
