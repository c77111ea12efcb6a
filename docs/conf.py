"""How Sphinx builds these pages: sphinx-build -W docs docs/_build."""

import inspect
import re
from importlib.metadata import version as installed

from ldmctl import protocols

project = "ldmctl"
author = "the authors of ldmctl"
copyright = "2026, the authors of ldmctl"
version = release = installed("ldmctl")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "ldmctl"
html_show_sourcelink = False
html_copy_source = False
smartquotes = False
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100


def trailing_comments(owner):
    """{"factor": "H / h"} of the fields of a class that a comment in their line explains."""
    fields = re.finditer(r"^    (\w+):[^#\n]*#[ ]*(.+)$", inspect.getsource(owner), re.M)
    return {found[1]: found[2] for found in fields}


def fields_of_protocols():
    """Names of the fields of all protocols, which are listed with their class."""
    owners = [each for each in vars(protocols).values() if getattr(each, "_is_protocol", False) and each.__module__ == protocols.__name__]
    return {name for owner in owners for name in trailing_comments(owner)}


def without_fields(app, what, name, obj, skip, options):
    """Fields of a protocol have no value to show."""
    return True if not callable(obj) and name in fields_of_protocols() else None


def without_call(app, what, name, obj, options, signature, returns):
    """A protocol is never called, so it has no signature."""
    return ("", None) if getattr(obj, "_is_protocol", False) else None


def as_rst(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code` marks: to reStructuredText, in which stars, bars and a trailing underscore mean something."""
    module, _, path = name.partition("ldmctl.protocols.")
    if not module and what in ("attribute", "property"):
        owner, _, field = path.partition(".")
        lines[:] = [trailing_comments(getattr(protocols, owner)).get(field, "")]
    if what == "class" and getattr(obj, "_is_protocol", False):
        lines += ["", *(f"- `{field}`: {said}" for field, said in trailing_comments(obj).items()), ""]
    for index, line in enumerate(lines):
        parts = re.split(r"(`[^`]+`)", line)
        lines[index] = "".join(f"`{part}`" if part.startswith("`") else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for part in parts)


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("autodoc-process-signature", without_call)
    app.connect("autodoc-skip-member", without_fields)
