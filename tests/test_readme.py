"""The README is held to the code: its plugin is the tested one, its commands parse, its lists are the registry's."""

import re
import shlex
from pathlib import Path

import pytest

from ldmctl import registry
from ldmctl.config.presets import compose, names
from ldmctl.config.schemas.verbs import VERBS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["pyproject.toml", "ldmctl_lfq.py"])
def test_the_plugin_in_the_readme_is_the_tested_one(file):
    assert (ROOT / "tests" / "sample_plugin" / file).read_text(encoding="utf-8").strip() in README


def test_every_built_in_plugin_is_named_in_the_readme():
    table = README[README.index("| kind | built in |") : README.index("## Write a plugin")]
    known = [plugin.name for kind in registry.GROUPS for plugin in registry.plugins(kind) if plugin.target.startswith("ldmctl_plugins.")]
    assert len(known) >= 17
    assert [name for name in known if f"`{name}`" not in table] == []


def test_keys_and_names_in_the_commands_of_the_readme_exist():
    lines = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("ldmctl ")]
    verbs = [shlex.split(line)[1:] for line in lines]
    checked = 0
    for verb, *words in verbs:
        if verb not in VERBS:
            continue
        overrides = [word for word in words if "=" in word and not word.startswith("-")]
        if "--init" in words:
            overrides.remove("train=decoder")  # refused without a run to begin with
        compose(VERBS[verb], overrides=overrides, flags={"dataset": {"type": "shapes"}} if "dataset" in VERBS[verb].model_fields else None)
        if "--data" in words and words[words.index("--data") + 1].islower() and words[words.index("--data") + 1] != "photos":
            assert words[words.index("--data") + 1] in names("data")
        checked += 1
    assert checked >= 10


def test_pictures_that_the_readme_shows_are_there():
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert shown and all((ROOT / path).is_file() for path in shown)
