"""A package with one working plugin, to start a new one from: `ldmctl plugins new KIND NAME`.

Each file beside this one is such a plugin, whole and checked like all others,
whose class is called `Template`. What is written is its source under another name.
"""

import keyword
import re
from pathlib import Path

from ldmctl import registry
from ldmctl.errors import ConfigError, with_article

TAKEN = ("ldmctl-plugins", "ldmctl-configs")  # ldmctl's own packages
PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{project}"
version = "0.1.0"
description = "The {kind} {name} for ldmctl."
requires-python = ">=3.11"
dependencies = ["ldmctl"]

[project.entry-points."{group}"]
{name} = "{module}:{plugin}"

[tool.setuptools]
py-modules = ["{module}"]
"""
TEST = '''\
"""The promises of every {kind}. `ldmctl plugins check {kind} {name}` looks at the same."""

from ldmctl.testing import check_{kind}

from {module} import {plugin}


def test_it_is_a_good_{kind}():
    check_{kind}({plugin})
'''


def write_package(folder: Path, kind: str, name: str) -> list[Path]:
    """The files of a new package in `folder`: pyproject.toml, a module with one plugin, its test. A bad name is a ConfigError."""
    refuse_bad_name(kind, name)
    source = (Path(__file__).parent / f"{kind}.py").read_text(encoding="utf-8")
    project = f"ldmctl-{name}"
    module, plugin = project.replace("-", "_"), class_name(kind, name, source)
    facts = {"kind": kind, "group": registry.GROUPS[kind], "name": name, "project": project, "module": module, "plugin": plugin}
    contents = {
        "pyproject.toml": PROJECT.format(**facts),
        f"{module}.py": re.sub(r"\bTemplate\b", plugin, source),
        f"test_{module.removeprefix('ldmctl_')}.py": TEST.format(**facts),
    }
    folder.mkdir(parents=True, exist_ok=True)
    if there := [file for file in contents if (folder / file).exists()]:
        raise ConfigError(f"{folder} holds {', '.join(there)} already; name another folder.")
    for file, content in contents.items():
        (folder / file).write_text(content, encoding="utf-8")
    return [folder / file for file in contents]


def refuse_bad_name(kind: str, name: str) -> None:
    """A ConfigError for a name that cannot be a package's, or is another plugin's."""
    if not registry.NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a plugin's name. Take letters, digits and single hyphens, a letter first, such as my-{kind}."
        )
    if f"ldmctl-{name.lower()}" in TAKEN:
        raise ConfigError(f"The package ldmctl-{name} would hide a part of ldmctl itself. Take another name, such as my-{kind}.")
    if theirs := [
        plugin
        for each in registry.GROUPS
        for plugin in registry.plugins(each)
        if registry.normal(plugin.distribution) == f"ldmctl-{name.lower()}"
    ]:
        has = f"{with_article(theirs[0].kind)} {theirs[0].name!r}"
        raise ConfigError(
            f"A package ldmctl-{name.lower()} is installed already, with {has}, and this one would replace it. Take another name, such as {name}-{kind}."
        )
    if others := [plugin.source for plugin in registry.plugins(kind) if plugin.name == name]:
        raise ConfigError(
            f"The {kind} {name!r} is there already, from {others[0]}, and a name serves once. Take another, such as my-{name}."
        )


def class_name(kind: str, name: str, source: str) -> str:
    """`MyThing` for `my-thing`; with the kind behind it where the source or Python has that word already."""
    words = "".join(word[0].upper() + word[1:] for word in name.split("-"))
    return words + kind.title() if keyword.iskeyword(words) or re.search(rf"\b{words}\b", source.replace("Template", "")) else words
