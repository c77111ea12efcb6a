"""`plugins new` writes a package that works: each kind's is found, loaded and keeps its promises as it is."""

import ast
import importlib
import math
import sys
import tomllib

import pytest
import torch

from ldmctl import registry
from ldmctl.config.resolve import plugin_config
from ldmctl.diffusion.denoise import Noise
from ldmctl.diffusion.spacing import levels, start
from ldmctl.errors import ConfigError
from ldmctl.registry import GROUPS
from ldmctl.template.package import write_package
from ldmctl.testing import check

SCHEDULES = [plugin.name for plugin in registry.plugins("schedule")]
PUBLIC = {"errors", "config", "protocols", "assets", "images", "blocks"}  # what a plugin may import


@pytest.fixture
def install(tmp_path, monkeypatch):
    """What `pip install` does to a written package, as far as the registry can see."""

    def installed(kind: str, name: str):
        files = write_package(tmp_path / f"ldmctl-{name}", kind, name)
        project = tomllib.loads(files[0].read_text(encoding="utf-8"))["project"]
        ((group, entries),) = project["entry-points"].items()
        metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        metadata.mkdir()
        (metadata / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items()))
        monkeypatch.setattr(sys, "path", [str(tmp_path), str(files[0].parent), *sys.path])
        for file in files[1:]:
            monkeypatch.delitem(sys.modules, file.stem, raising=False)
        registry._advertised.cache_clear()
        return files

    yield installed
    registry._advertised.cache_clear()


def test_there_is_a_template_for_every_kind():
    assert len(GROUPS) == 11
    for kind in GROUPS:
        assert importlib.import_module(f"ldmctl.template.{kind}").Template


@pytest.mark.parametrize("kind", GROUPS)
def test_a_new_plugin_keeps_its_promises_at_once(kind, install):
    files = install(kind, "my-own")
    plugin = registry.find(kind, "my-own")
    assert plugin.target == "ldmctl_my_own:MyOwn" and plugin.source == "ldmctl-my-own 0.1.0"
    loaded = plugin.load()
    assert loaded.__module__ == "ldmctl_my_own" and loaded.__doc__ and sys.modules["ldmctl_my_own"].__doc__
    check(kind, loaded)
    test = importlib.import_module(files[2].stem)
    getattr(test, f"test_it_is_a_good_{kind}")()


@pytest.mark.parametrize(("corrected", "order"), [(True, 2), (False, 1)])
def test_a_new_sampler_is_of_the_order_that_it_names(corrected, order, install):
    install("sampler", "my-own")
    plugin = registry.load("sampler", "my-own")
    sampler = plugin(plugin.Config(type="my-own", corrected=corrected))
    x = torch.tensor([12.0, -3.0, 5.0, 0.7], dtype=torch.float64).reshape(1, 1, 1, 4)
    errors = []
    for steps in (100, 400):
        sigmas = torch.logspace(1, -1, steps + 1, dtype=torch.float64)  # from 10 to 0.1
        errors.append((sampler(two_gaussians, x, sigmas, None) - by_fourth_order(x, 10.0, 0.1)).abs().max().item())
    assert math.log(errors[0] / errors[1]) / math.log(4) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_new_sampler_ends_among_the_data_on_every_schedule(name, steps, install):
    install("sampler", "my-own")
    plugin = registry.load("sampler", "my-own")
    sampler = plugin(plugin.Config(type="my-own"))
    _, sigmas = levels(registry.build("schedule", plugin_config("schedule", {"type": name})), steps)
    found = sampler(two_gaussians, start(Noise(range(4), (2, 8, 8)).first(), sigmas), sigmas, None)
    assert found.isfinite().all() and found.abs().max() < 3
    assert steps < 10 or 0.6 < found.double().std() < 1.5


def two_gaussians(x, sigma):
    """The mean of clean data given x, of two Gaussians at 1 and -1 of deviation 0.25."""
    variance = 0.25**2 + float(sigma) ** 2
    return (0.25**2 * x + float(sigma) ** 2 * torch.tanh(x / variance)) / variance


def by_fourth_order(x, high, low, count=3000):
    """x at `low`, by very many steps of fourth order in ln(sigma)."""
    slope = lambda x, u: x - two_gaussians(x, math.exp(u))
    h = math.log(low / high) / count
    for index in range(count):
        u = math.log(high) + index * h
        first = slope(x, u)
        second = slope(x + first * h / 2, u + h / 2)
        third = slope(x + second * h / 2, u + h / 2)
        x = x + (first + 2 * second + 2 * third + slope(x + third * h, u + h)) * (h / 6)
    return x


@pytest.mark.parametrize("kind", GROUPS)
def test_three_files_are_written_that_say_the_new_name_only(kind, tmp_path):
    files = write_package(tmp_path / "here", kind, "my-own")
    assert [file.name for file in files] == ["pyproject.toml", "ldmctl_my_own.py", "test_my_own.py"]
    assert sorted((tmp_path / "here").iterdir()) == sorted(files)
    assert not [file for file in files if "Template" in file.read_text(encoding="utf-8")]
    for file in files[1:]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("ldmctl."):
                assert node.module.split(".")[1] in (PUBLIC if file == files[1] else {"testing"})
            assert not isinstance(node, ast.ImportFrom) or node.module != "ldmctl"


@pytest.mark.parametrize(
    "name", ["", "3d", "-x", "x-", "a--b", "my_plugin", "my plugin", "a.b", "../x", "größe", "x\n", "plugins", "Configs"]
)
def test_a_bad_name_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(ConfigError, match="such as my-sampler"):
        write_package(tmp_path / "here", "sampler", name)
    assert not (tmp_path / "here").exists()


def test_a_name_that_is_taken_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"The sampler 'ddim' is there already, from ldmctl .*\bmy-ddim"):
        write_package(tmp_path / "here", "sampler", "ddim")
    assert write_package(tmp_path / "there", "schedule", "ddim")  # another kind may have it


@pytest.mark.parametrize("name", ["tensor", "none", "field", "flow2", "Heun", "config", "x"])
@pytest.mark.parametrize("kind", ["sampler", "conditioner"])
def test_a_class_never_hides_what_its_module_needs(kind, name, install):
    install(kind, name)
    check(kind, registry.load(kind, name))


def test_files_that_are_there_are_never_overwritten(tmp_path):
    (tmp_path / "pyproject.toml").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds pyproject\.toml already"):
        write_package(tmp_path, "sampler", "my-own")
    assert [file.name for file in tmp_path.iterdir()] == ["pyproject.toml"] and (tmp_path / "pyproject.toml").read_text() == "mine"
