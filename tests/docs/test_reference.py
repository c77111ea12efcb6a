"""docs/reference/ is what docs/reference.py makes of the code."""

import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from pages import ROOT
from pydantic import BaseModel, Field, PositiveInt

from ldmctl import registry
from ldmctl.config.schemas.verbs import VERBS


@pytest.fixture(scope="module")
def reference():
    """The script as a module."""
    spec = spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = sys.modules["reference"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reference"]


def test_the_reference_is_fresh(reference):
    assert len(reference.pages()) >= len(VERBS) + len(registry.GROUPS)
    assert reference.stale() == [], "run python docs/reference.py"


def test_a_stale_a_missing_and_a_needless_page_are_named_and_mended(reference, tmp_path):
    reference.write(tmp_path)
    assert reference.stale(tmp_path) == []
    (tmp_path / "sample.md").write_text("old")
    (tmp_path / "cli.md").unlink()
    (tmp_path / "plugins" / "guide.md").write_text("gone")
    (tmp_path / "index.md").write_text("by hand")
    assert reference.stale(tmp_path) == ["cli.md", "plugins/guide.md", "sample.md"]
    assert reference.write(tmp_path) == ["cli.md", "plugins/guide.md", "sample.md"]
    assert reference.stale(tmp_path) == [] and (tmp_path / "index.md").read_text() == "by hand"


def test_no_plugin_shows_what_it_inherits(reference):
    """torch's Module has a long docstring, which is that of a class without its own."""
    docs = {plugin.name: reference.doc_of(plugin.load()) for kind in registry.GROUPS for plugin in reference.built_in(kind)}
    assert len(docs) >= 17 and all(docs.values())
    assert [name for name, doc in docs.items() if "Base class for all neural network modules" in doc] == []


def test_values_are_said_in_words(reference):
    class Keys(BaseModel):
        steps: PositiveInt = 1
        share: float = Field(0.5, ge=0, le=1)
        decay: float = Field(0.9, ge=0, lt=1)
        start: int | float | None = None
        names: list[str] = []
        pair: tuple[float, float] = (0.9, 0.99)

    said = {name: reference.values_of(each) for name, each in Keys.model_json_schema()["properties"].items()}
    assert said == {
        "steps": "integer ≥ 1",
        "share": "number 0 to 1",
        "decay": "number ≥ 0, < 1",
        "start": "number or null",
        "names": "list of text",
        "pair": "[number; number]",
    }
    assert [reference.literal(value) for value in (1e-6, 1.0, None, True, [64, 128], "l1")] == [
        "1e-06",
        "1",
        "null",
        "true",
        "[64, 128]",
        "l1",
    ]


def test_text_is_escaped_in_tables(reference):
    assert reference.cell("a | b* [c] <d> `e|f`") == r"a \| b\* \[c\] \<d> `e\|f`"
