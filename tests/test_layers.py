"""Imports only ever point down this list; plugins see the public parts alone, and nobody sees plugins."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"errors"},
    {"protocols"},
    {"registry"},
    {"assets"},
    {"documents"},
    {"config", "published"},
    {"schemas", "origins"},
    {"presets", "manifest"},
    {"images"},  # torch begins here
    {"pictures"},
    {"blocks"},
    {"diffusion", "augment", "regularizers", "balance", "plateau", "equivariance", "measures", "census", "sharding", "allocator"},
    {"adversarial", "weights", "emphasis"},
    {"averages"},
    {"engine", "tiling"},
    {"shards", "learner", "meter", "guard"},
    {"run", "latents", "feed", "codec", "network", "initial", "signals", "console"},
    {"sampling", "examination", "room", "arithmetic", "states", "store", "lineage"},
    {"loop", "verdict", "exhibits", "chain", "layout"},
    {"diagnosis", "encoding"},
    {"checkup"},
    {"stages", "testing", "template"},
    {"plan"},  # what a stage would refuse
    {"cli", "api"},
    {"__main__"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
PUBLIC = {"errors", "config", "protocols", "assets", "images", "blocks"}  # what a plugin may import
HEAVY = {"torch", "torchvision", "torchmetrics", "numpy", "safetensors", "PIL"}


def files(*patterns: str) -> list[Path]:
    return sorted(file for pattern in patterns for file in ROOT.glob(pattern))


HOST = files("ldmctl/**/*.py")
OUTSIDE = files("plugins/**/*.py", "tests/sample_plugin/**/*.py", "examples/**/*.py")


def imports(source: str, package: str) -> Iterator[str]:
    """Every module that a text imports, anywhere in it, spelled out: `from . import b` in package `a` is `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            # names of a package may be its modules
            yield from (
                (f"{module}.{alias.name}" for alias in node.names) if module in ("ldmctl", "ldmctl.cli", "ldmctl.stages") else [module]
            )


def package_of(file: Path) -> str:
    """The package that relative imports in this file start from."""
    return ".".join(file.relative_to(ROOT).parent.parts)


def imported(file: Path) -> list[str]:
    return list(imports(file.read_text(encoding="utf-8"), package_of(file)))


def rank(module: str) -> tuple[int, int]:
    """Where `ldmctl.x.y` stands: its layer; inside cli ranks, options, verbs, their chain, the whole; inside testing promises, kinds, the whole."""
    layer, *rest = module.split(".")[1:]
    inside = {"ranks": -1, "promises": -1, "options": 0, "quickstart": 2, "__init__": 3}
    return HEIGHT[layer], inside.get((rest or ["__init__"])[0], 1) if layer in ("cli", "testing") else 0


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import ldmctl.x", ["ldmctl.x"]),
        ("from ldmctl import x, y", ["ldmctl.x", "ldmctl.y"]),
        ("from ldmctl.x import y", ["ldmctl.x"]),
        ("def f():\n    from ldmctl.x.z import y", ["ldmctl.x.z"]),
        ("from .x import y", ["ldmctl.stages.x"]),
        ("from . import x", ["ldmctl.stages.x"]),
        ("from .. import x", ["ldmctl.x"]),
        ("from ..x import y", ["ldmctl.x"]),
    ],
)
def test_every_way_of_importing_is_seen(line, found):
    assert list(imports(line, "ldmctl.stages")) == found


def test_every_module_has_its_layer_and_every_layer_its_module():
    assert len(HOST) > 20
    on_disk = {file.relative_to(ROOT / "ldmctl").with_suffix("").parts[0] for file in HOST} - {"__init__"}
    assert on_disk == set(HEIGHT), f"without a layer: {on_disk - set(HEIGHT)}; without a file: {set(HEIGHT) - on_disk}"


@pytest.mark.parametrize("file", HOST, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file):
    here = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    layer = here.split(".")[1]
    for module in imported(file):
        if module.split(".")[0] != "ldmctl":
            continue
        assert layer != "__init__", f"ldmctl/__init__.py imports {module}; it stays empty"
        assert module.count(".") and module.split(".")[1] in HEIGHT, f"{here} imports {module}, which is no module of a layer"
        same_blocks = layer == "blocks" and module.startswith("ldmctl.blocks")
        assert same_blocks or rank(module) < rank(here), f"{here} imports {module}, which does not stand below it"


def test_stages_never_import_stages():
    stages = [file for file in HOST if file.parent.name == "stages"]
    assert stages
    for file in stages:
        assert not [module for module in imported(file) if module.startswith("ldmctl.stages")], file.name


def test_blocks_import_each_other_without_a_cycle():
    graph = {}
    for file in files("ldmctl/blocks/*.py"):
        if file.stem != "__init__":
            graph[f"ldmctl.blocks.{file.stem}"] = {module for module in imported(file) if module.startswith("ldmctl.blocks")}
    assert len(graph) > 3
    while graph:  # take away what imports nothing that is left
        free = {name for name, needed in graph.items() if not needed & set(graph)}
        assert free, f"these import each other in a circle: {sorted(graph)}"
        graph = {name: needed for name, needed in graph.items() if name not in free}


@pytest.mark.parametrize("file", OUTSIDE, ids=lambda file: str(file.relative_to(ROOT)))
def test_plugins_import_only_the_public_parts(file):
    for module in imported(file):
        if module.split(".")[0] == "ldmctl":
            assert module.count(".") and module.split(".")[1] in PUBLIC, f"{file.name} imports {module}"


def test_nobody_imports_plugins():
    assert len(OUTSIDE) > 20
    for file in [*HOST, *OUTSIDE]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        dynamic = [word for word in words if " " not in word]  # names for importlib, not sentences
        assert not {"ldmctl_plugins", "plugins"} & {module.split(".")[0] for module in imported(file)}, file
        assert not [word for word in dynamic if word.split(".")[0] == "ldmctl_plugins"], file


def test_torch_begins_with_images():
    light = {name for name, height in HEIGHT.items() if height < HEIGHT["images"]} | {"__init__"}
    for file in HOST:
        if file.parent.name != "ldmctl" or file.stem not in light:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        heavy = {module.split(".")[0] for module in imports(top, "ldmctl")} & HEAVY
        assert not heavy, f"{file.name} imports {heavy} at its top"


def test_only_the_registry_knows_the_entrypoints_package():
    assert [file.stem for file in HOST if "entrypoints" in {module.split(".")[0] for module in imported(file)}] == ["registry"]


def test_nothing_imports_click_which_typer_no_longer_brings():
    assert not [file for file in [*HOST, *OUTSIDE] if "click" in {module.split(".")[0] for module in imported(file)}]
