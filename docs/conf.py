"""How Sphinx builds these pages: sphinx-build -W docs docs/_build."""

import re
from importlib.metadata import version as installed

project = "ldmctl"
author = "the authors of ldmctl"
copyright = "2026, the authors of ldmctl"
version = release = installed("ldmctl")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "ldmctl"
html_show_sourcelink = False
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100


def as_rst(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code` marks: to reStructuredText, in which stars, bars and a trailing underscore mean something."""
    for index, line in enumerate(lines):
        parts = re.split(r"(`[^`]+`)", line)
        lines[index] = "".join(f"`{part}`" if part.startswith("`") else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for part in parts)


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_rst)
