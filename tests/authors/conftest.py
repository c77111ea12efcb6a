"""What the tests of plugin authors' troubles stand on: packages that are installed for one test, and a tiny model to use them with."""

import importlib
import sys
import textwrap

import pytest
import torch

from ldmctl import registry
from ldmctl.cli.app import run

HEAD = """
import torch
from torch import nn
from ldmctl.config import PluginConfig
from ldmctl.protocols import Condition, Example, Reconstruction


class Plain(PluginConfig):
    pass


"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install("ldmctl-ralston", "1.0", sampler={"ralston": "Ralston"}, source="class Ralston: ...") -> the folder of the package."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a module is written twice within a second
    known = dict(registry.loaded())

    def write(distribution, version="1.0", *, source, group=None, **kinds):
        module = distribution.replace("-", "_")
        remove(distribution)
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        groups = {group or registry.GROUPS[kind]: entries for kind, entries in kinds.items()}
        lines = [f"[{name}]\n" + "".join(f"{key} = {module}:{cls}\n" for key, cls in entries.items()) for name, entries in groups.items()]
        (metadata / "entry_points.txt").write_text("".join(lines))
        (site / f"{module}.py").write_text(HEAD + textwrap.dedent(source))
        forget(module)
        return site

    def forget(module=None):
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        registry._advertised.cache_clear()
        registry.loaded().clear()
        registry.loaded().update(known)

    def remove(distribution):
        module = distribution.replace("-", "_")
        for old in site.glob(f"{module}-*.dist-info"):
            (old / "entry_points.txt").unlink()
            old.rmdir()
        forget(module)

    write.remove = remove
    yield write
    forget()


@pytest.fixture
def said(capfd):
    """said("sample", "-n", "1") -> (exit code, stdout, stderr) of a command in this process."""

    def command(*words):
        capfd.readouterr()
        code = run([str(word) for word in words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture(scope="session")
def ldm_run(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("authors") / "ldm", vae_cache)


@pytest.fixture
def sample_words(ldm_run, tmp_path):
    """The words of a `sample` of two pictures in two steps."""
    return ["sample", "--run", ldm_run, "-n", "2", "--steps", "2", "--out", tmp_path / "samples", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Random numbers as they were before."""
    with torch.random.fork_rng(devices=[]):
        yield
