"""`plugins show` says what a plugin is and what each key may be; nothing is cut off, on a terminal or in a pipe."""

import json
import sys
import textwrap

import pytest

from ldmctl import registry
from ldmctl.cli.app import run
from ldmctl.cli.plugins import words

PLUGINS = [
    (plugin.kind, plugin.name) for kind in registry.GROUPS for plugin in registry.plugins(kind) if plugin.source.startswith("ldmctl ")
]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install("source of a module with a class Still") makes it the sampler `still` of another package."""

    def write(source, name="still_shown"):
        metadata = tmp_path / "a-package-with-a-long-name-1.0.dist-info"
        metadata.mkdir()
        (metadata / "entry_points.txt").write_text(f"[ldmctl.samplers]\nstill = {name}:Still\n")
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        monkeypatch.delitem(sys.modules, name, raising=False)
        registry._advertised.cache_clear()

    yield write
    registry._advertised.cache_clear()


@pytest.fixture
def said(capsys):
    """said("plugins", "list") -> stdout of a command that succeeds."""

    def output(*given):
        assert run(list(given)) == 0
        return capsys.readouterr().out

    return output


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_built_in_plugin_says_what_it_is_in_its_own_words(kind, name, said):
    assert len(PLUGINS) >= 20
    shown = said("plugins", "show", kind, name)
    assert shown.startswith(f"{kind} {name}, from ldmctl ") and "Base class for all neural network modules" not in shown
    assert len(shown.splitlines()[1]) > 20


def test_a_class_without_a_docstring_speaks_by_its_module_and_only_by_the_first_paragraph(install, said):
    install('''
        """A sampler that
        stands still.

        More of it.
        """
        from torch import nn
        from ldmctl.config import PluginConfig
        class Still(nn.Module):
            class Config(PluginConfig):
                pass
    ''')
    first, *rest = said("plugins", "show", "sampler", "still").splitlines()
    assert "still_shown.py" in first and rest == ["A sampler that stands still.", "It has no keys."]


def test_each_key_has_its_type_choices_range_default_and_meaning(said):
    shown = said("plugins", "show", "autoencoder", "vqvae")
    assert "\n  channels\n      integer above 0; default 4\n      latent channels" in shown
    assert "\n  learning\n      one of gradient, ema; default gradient\n      how codes learn" in shown
    assert "\n  decay\n      number at least 0 and below 1; default 0.99\n" in shown
    assert "\n  widths\n      list of integers above 0, at least 1 and at most 8 of them; default [64, 128, 256]\n" in shown
    assert "\n  path\n      text or list of texts; required\n" in said("plugins", "show", "dataset", "folder")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1e-4}, "number above 0 and at most 0.0001"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]}, "integer or number or null"),
        ({"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 2}, "list of any of red, blue, at most 2 of them"),
        ({"type": "array", "items": {"type": "boolean"}}, "list of values true or false"),
        ({"const": "auto"}, "auto"),
        ({"enum": [1, 3, ""]}, 'one of 1, 3, ""'),
        ({"$ref": "#/$defs/x-Colour"}, "one of red, blue"),
        ({}, "anything"),
    ],
)
def test_a_schema_is_said_in_words(key, expected):
    assert words(key, {"x-Colour": {"enum": ["red", "blue"]}}) == expected


def test_lines_fit_a_terminal_and_a_pipe_has_whole_paragraphs(said, monkeypatch):
    piped = said("plugins", "show", "discriminator", "patchgan")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = said("plugins", "show", "discriminator", "patchgan")
    assert max(map(len, shown.splitlines()[1:])) <= 60 < max(map(len, piped.splitlines()[1:]))  # the first line is a path, to be copied
    assert shown.split() == piped.split() and "…" not in shown + piped


def test_the_keys_as_json_have_their_schema(said):
    shown = json.loads(said("plugins", "show", "dataset", "folder", "--json"))
    assert shown["kind"] == "dataset" and shown["required"] == ["path"] and shown["file"].endswith("folder.py") and shown["description"]
    share = {"type": "number", "default": 0.05, "minimum": 0, "exclusiveMaximum": 1}
    assert "type" not in shown["keys"] and shown["keys"]["val_share"].items() >= share.items()


def test_the_list_is_never_cut_off(install, said, monkeypatch):
    install("raise SystemError('imported')", name="a_module_with_a_name_that_is_far_too_long_for_a_column_of_a_narrow_terminal")
    monkeypatch.setenv("COLUMNS", "40")
    rows = [line.split(maxsplit=3) for line in said("plugins", "list").splitlines()]
    assert rows[0] == ["kind", "name", "class", "from"]
    advertised = [[p.kind, p.name, p.target, p.source] for kind in registry.GROUPS for p in registry.plugins(kind)]
    assert rows[1:] == advertised and any("far_too_long" in row[2] for row in rows)


@pytest.mark.parametrize("name", ["patchgan", "multiscale"])
def test_every_norm_of_a_discriminator_is_explained(name, said):
    norm = json.loads(said("plugins", "show", "discriminator", name, "--json"))["keys"]["norm"]
    assert [f"{choice}: " in norm["description"] for choice in norm["enum"]] == [True] * 4
