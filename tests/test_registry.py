"""Plugins are found without being imported, and one that is broken, doubled or unreadable harms only itself."""

import sys
import textwrap
from pathlib import Path

import pytest

from ldmctl import registry
from ldmctl.errors import MissingError, PluginError


class Site:
    """A folder on sys.path into which distributions are installed."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, last: bool = False):
        self.root, self.monkeypatch = root, monkeypatch
        root.mkdir(exist_ok=True)
        monkeypatch.setattr(sys, "path", [*sys.path, str(root)] if last else [str(root), *sys.path])

    def install(self, name: str, entries: str | bytes, *, version: str = "1.0", folder: str = "dist-info", **modules: str) -> None:
        metadata = self.root / f"{name.replace('-', '_')}-{version}.{folder}"
        metadata.mkdir(parents=True)
        content = textwrap.dedent(entries) if isinstance(entries, str) else entries
        (metadata / "entry_points.txt").write_bytes(content.encode() if isinstance(content, str) else content)
        for module, source in modules.items():
            (self.root / f"{module}.py").write_text(textwrap.dedent(source))
            self.monkeypatch.delitem(sys.modules, module, raising=False)
        registry._advertised.cache_clear()


@pytest.fixture
def site(tmp_path, monkeypatch):
    registry._advertised.cache_clear()
    yield Site(tmp_path, monkeypatch)
    registry._advertised.cache_clear()


GOOD = """
from ldmctl.config import PluginConfig
class Still:
    class Config(PluginConfig):
        speed: int = 1
    def __init__(self, config, **context):
        self.config, self.context = config, context
"""


def names(kind: str) -> list[str]:
    return [plugin.name for plugin in registry.plugins(kind)]


def test_a_third_party_plugin_is_found_loaded_and_built(site):
    site.install("third-party", "[ldmctl.samplers]\nstill = still_sampler:Still\n", still_sampler=GOOD)
    assert registry.find("sampler", "still").source == "third-party 1.0"
    plugin = registry.load("sampler", "still")
    built = registry.build("sampler", plugin.Config(type="still", speed=3), size=(4, 4))
    assert built.config.speed == 3 and built.context == {"size": (4, 4)}


def test_built_in_plugins_come_in_by_the_same_door():
    assert all(plugin.source.startswith("ldmctl ") for plugin in registry.plugins("schedule") if plugin.name == "cosine")
    assert names("schedule") == sorted(names("schedule")) and "cosine" in names("schedule")


def test_listing_imports_no_plugin(site):
    site.install("third-party", "[ldmctl.samplers]\nstill = never_imported:Still\n", never_imported="raise SystemError('imported')")
    assert "still" in names("sampler") and "never_imported" not in sys.modules


@pytest.mark.parametrize(
    ("target", "source", "reason"),
    [
        ("broken_one:Still", "raise RuntimeError('no\\n driver')", "RuntimeError: no driver"),
        ("broken_one:Still", "import a_package_that_is_not_there", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("broken_one:Still", "x = ", "SyntaxError"),
        ("broken_one:Still", "class Other: pass", "Still"),
        ("broken_one:Still", "class Still: pass", "Config"),
        ("broken_one:Still", "class Still:\n    Config = dict", "Still.Config is not a pydantic model"),
        ("broken_one:Still", GOOD + "    api = 99", "plugin API 99, this ldmctl speaks 1"),
        ("not a target", "", "not a target"),
    ],
)
def test_a_broken_plugin_fails_only_when_used(site, target, source, reason):
    site.install("broken-plugins", f"[ldmctl.samplers]\nbroken = {target}\n", broken_one=source)
    assert {"broken", "ddim"} <= set(names("sampler"))
    assert registry.load("sampler", "ddim").__name__ == "DDIM"
    with pytest.raises(PluginError) as caught:
        registry.load("sampler", "broken")
    assert "sampler 'broken' from broken-plugins 1.0 is broken: " in str(caught.value) and reason in str(caught.value)
    assert caught.value.exit_code == 4 and isinstance(caught.value, MissingError) and "\n" not in str(caught.value)


def test_two_plugins_of_one_name_are_an_error_that_names_both(site):
    site.install("one", "[ldmctl.samplers]\nstill = still_one:Still\n", still_one=GOOD)
    site.install("two", "[ldmctl.samplers]\nstill = still_two:Still\n", version="2.1", still_two=GOOD)
    with pytest.raises(PluginError, match=r"sampler 'still' is offered by one 1\.0 and two 2\.1; say which: one:still or two:still"):
        registry.load("sampler", "still")
    assert registry.load("sampler", "ddim")


def test_one_name_may_serve_two_kinds(site):
    site.install("both", "[ldmctl.samplers]\nstill = still_both:Still\n[ldmctl.trackers]\nstill = still_both:Still\n", still_both=GOOD)
    assert registry.load("sampler", "still") is registry.load("tracker", "still")


@pytest.mark.parametrize(
    "entries",
    [
        "[ldmctl.samplers]\nstill = a:B\nstill = a:C\n",
        "[ldmctl.samplers]\nthis is no entry\n",
        "still = a:B  # ldmctl.samplers without a section\n",
        "[ldmctl.samplers]\nstill = \xe9:B\n".encode("latin-1"),
        b"[ldmctl.samplers]\n\x00\xff\xfe\n",
    ],
)
def test_unreadable_metadata_of_one_package_hides_nobody_else(site, entries):
    site.install("unreadable", entries)
    site.install("zz-readable", "[ldmctl.samplers]\nother = still_other:Still\n", still_other=GOOD)
    with pytest.warns(UserWarning, match="plugins of unreadable are hidden"):
        found = names("sampler")
    assert {"other", "ddim"} <= set(found) and "still" not in found


@pytest.mark.parametrize("entries", ["[console_scripts]\nx = %(no)s\nx = y\nnonsense\n", b"\xff\xfe[console_scripts]\n", ""])
def test_metadata_that_is_not_about_ldmctl_is_not_even_parsed(site, entries, recwarn):
    site.install("unrelated", entries)
    assert "ddim" in names("sampler") and not recwarn.list


def test_percent_signs_and_capitals_are_plain_letters(site):
    site.install("percent", "[ldmctl.samplers]\nStill%s = still_percent:Still\n", still_percent=GOOD)
    assert "Still%s" in names("sampler")


def test_a_distribution_seen_twice_counts_once_and_the_first_wins(site, tmp_path, monkeypatch):
    site.install("twice", "[ldmctl.samplers]\nstill = still_first:Still\n", version="2.0", still_first=GOOD)
    Site(tmp_path / "later", monkeypatch, last=True).install("twice", "[ldmctl.samplers]\nstill = still_second:Still\n", version="1.0")
    assert registry.find("sampler", "still").target == "still_first:Still"


def test_an_egg_info_in_the_current_folder_does_not_hide_what_is_installed(site, tmp_path, monkeypatch):
    site.install("own_plugin", "[ldmctl.samplers]\n", version="0.1", folder="egg-info")  # stale, of an older checkout
    Site(tmp_path / "later", monkeypatch, last=True).install("own_plugin", "[ldmctl.samplers]\nstill = still_own:Still\n")
    assert registry.find("sampler", "still").source == "own-plugin 1.0"


def test_folders_of_sys_path_that_are_gone_or_files_are_passed_over(site, tmp_path, monkeypatch):
    (tmp_path / "file.zip").write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "gone"), str(tmp_path / "file.zip"), "", *sys.path])
    registry._advertised.cache_clear()
    assert "ddim" in names("sampler")


def test_an_unknown_name_gives_the_nearest_and_the_list():
    with pytest.raises(PluginError) as caught:
        registry.load("sampler", "dimm")
    said = str(caught.value)
    assert (
        "No sampler is called 'dimm'. Did you mean 'ddim'?" in said
        and "Installed: adaptive, ddim, ddpm" in said
        and "ldmctl plugins list" in said
    )


def test_a_kind_is_known_in_singular_and_plural():
    assert registry.kind_of("sampler") == registry.kind_of("samplers") == "sampler"
    with pytest.raises(PluginError, match=r"No kind of plugin is called 'smapler'\. Did you mean 'sampler'\? Kinds: autoencoder, "):
        registry.kind_of("smapler")
