"""Imports only ever point down the floors of the house; plugins see the public parts alone, and nobody sees plugins."""

import ast
import importlib

import house
import pytest
from house import FLOORS, LIMIT, LONG, ROOT, files, imported, imports, name_of, wing_of

from ldmctl.registry import GROUPS

FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
PUBLIC = {  # what plugin authors import, short and stable
    "ldmctl.protocols": ["Condition", "Example", "Reconstruction"],
    "ldmctl.config": ["PluginConfig"],
    "ldmctl.blocks": ["Attention", "Codebook", "Decoder", "Encoder", "ResnetBlock", "TimestepEmbedding"],
    "ldmctl.errors": ["ConfigError", "DataError", "MissingError", "PluginError"],
    "ldmctl.pictures.images": ["load", "prepare", "read", "to_float", "to_uint8"],
    "ldmctl.pictures.pillow": ["load", "opened"],
    "ldmctl.storage.assets": ["data_root", "find_data", "find_weights", "offline"],
}
HEAVY = {"torch", "torchvision", "torchmetrics", "numpy", "safetensors", "PIL"}
LIGHT = ("__init__", "__main__", *(name for name in FLOORS[0] if name != "blocks"), "config", "cli", "api")  # torch-free until a stage runs
ALSO_LIGHT = {
    "ldmctl.latents.manifest",
    "ldmctl.latents.recipe",
    "ldmctl.storage.apart",
    "ldmctl.storage.assets",
    "ldmctl.storage.atomic",
    "ldmctl.storage.below",
    "ldmctl.storage.folder",
    "ldmctl.storage.history",
    "ldmctl.storage.leftovers",
    "ldmctl.storage.measured",
    "ldmctl.storage.record",
    "ldmctl.storage.runs",
}

HOST = files("ldmctl/**/*.py")
TEMPLATES = [file for file in files("ldmctl/template/*.py") if file.stem in GROUPS]
OUTSIDE = [*files("plugins/**/*.py", "tests/sample_plugin/**/*.py"), *TEMPLATES]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import ldmctl.x", ["ldmctl.x"]),
        ("from ldmctl import errors, cli", ["ldmctl.errors", "ldmctl.cli"]),
        ("from ldmctl.latents import manifest", ["ldmctl.latents.manifest"]),
        ("from ldmctl.x import y", ["ldmctl.x"]),
        ("def f():\n    from ldmctl.x.z import y", ["ldmctl.x.z"]),
        ("from .x import y", ["ldmctl.stages.x"]),
        ("from . import sample", ["ldmctl.stages.sample"]),
        ("from .. import errors", ["ldmctl.errors"]),
        ("from ..x import y", ["ldmctl.x"]),
    ],
)
def test_every_way_of_importing_is_seen(line, found):
    assert list(imports(line, "ldmctl.stages")) == found


def test_every_wing_has_its_floor_and_every_floor_its_wing():
    assert len(HOST) > 100 and len(FLOORS) <= 15
    on_disk = {wing_of(name_of(file)) for file in HOST} - {"__init__"}
    assert on_disk == set(FLOOR), f"without a floor: {on_disk - set(FLOOR)}; without a file: {set(FLOOR) - on_disk}"


@pytest.mark.parametrize("file", HOST, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down(file):
    here = name_of(file)
    for module in imported(file):
        if module.split(".")[0] != "ldmctl":
            continue
        assert here != "ldmctl", f"ldmctl/__init__.py imports {module}; it stays empty"
        wing = wing_of(module)
        assert wing in FLOOR, f"{here} imports {module}, which is in no wing"
        assert FLOOR[wing] <= FLOOR[wing_of(here)], f"{here} imports {module}, which stands above it"


def test_no_files_import_each_other_in_a_circle():
    assert not house.circles({name_of(file): imported(file) for file in HOST})


def test_a_circle_is_found():
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}) == {"b", "c"}


@pytest.mark.parametrize("wing", ["stages", "api", "plan"])
def test_stages_never_import_stages(wing):
    """Nor does anyone below cli and api import the command line."""
    own = [file for file in HOST if wing_of(name_of(file)) == wing]
    assert own
    for file in own:
        assert not [module for module in imported(file) if wing_of(module) in ("cli", *(("stages",) if wing == "stages" else ()))], (
            file.name
        )


def test_the_path_is_the_address():
    """`ldmctl sample` is cli/sample.py, stages/sample.py and config/schemas/sample.py."""
    verbs = {file.stem for file in files("ldmctl/config/schemas/*.py")} - {"__init__", "shared", "verbs"}
    assert verbs == {"fit_ae", "encode_dataset", "fit_diffusion", "sample", "eval_lpips", "eval_samples", "spacing", "fit_token"}
    for verb in verbs:
        assert (ROOT / "ldmctl" / "cli" / f"{verb}.py").is_file()
        stage = ast.parse((ROOT / "ldmctl" / "stages" / f"{verb}.py").read_text(encoding="utf-8"))
        assert verb in [node.name for node in stage.body if isinstance(node, ast.FunctionDef)]


def test_files_are_a_page_and_longer_ones_say_why():
    everything = [*HOST, *files("plugins/**/*.py")]
    sizes = sorted(house.length(file) for file in everything)
    assert sizes[len(sizes) // 2] <= 120
    for file in everything:
        if house.length(file) > LIMIT:
            assert LONG in "\n".join(file.read_text(encoding="utf-8").splitlines()[:20]), (
                f"{file.relative_to(ROOT)} is long and does not say why"
            )


@pytest.mark.parametrize("file", [file for file in HOST if file.name == "__init__.py"], ids=lambda file: str(file.relative_to(ROOT)))
def test_packages_hold_a_docstring_and_what_they_hand_on(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{file} does not say what it is"
    others = [node for node in tree.body[1:] if not isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.Assign) and node.targets[0].id == "__all__" for node in others), file


@pytest.mark.parametrize("file", OUTSIDE, ids=lambda file: str(file.relative_to(ROOT)))
def test_plugins_import_only_the_public_parts(file):
    for module in imported(file):
        if module.split(".")[0] == "ldmctl":
            assert module in PUBLIC, f"{file.name} imports {module}"


@pytest.mark.parametrize("module", PUBLIC)
def test_what_plugin_authors_import_is_there(module):
    public = importlib.import_module(module)
    assert not [name for name in PUBLIC[module] if not hasattr(public, name)]


def test_nobody_imports_plugins():
    assert len(OUTSIDE) > 20
    for file in [*HOST, *OUTSIDE]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        dynamic = [word for word in words if " " not in word]  # names for importlib, not sentences
        package = ".".join(file.relative_to(ROOT).parent.parts)  # private files beside a plugin are parts of it
        others = {module for module in imported(file) if module != package and not module.startswith(f"{package}._")}
        assert not {"ldmctl_plugins", "plugins"} & {module.split(".")[0] for module in others}, file
        assert not [word for word in dynamic if word.split(".")[0] == "ldmctl_plugins"], file


def test_torch_begins_with_a_stage():
    light = [file for file in HOST if wing_of(name_of(file)) in LIGHT or name_of(file) in ALSO_LIGHT]
    assert len(light) > 40
    for file in light:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        needed = list(imports(top, ".".join(file.relative_to(ROOT).parent.parts)))
        assert not {module.split(".")[0] for module in needed} & HEAVY, f"{file.name} imports torch or the like at its top"
        for module in needed:
            if module.startswith("ldmctl."):
                assert wing_of(module) in LIGHT or module in ALSO_LIGHT or module == "ldmctl", f"{file.name} imports {module} at its top"


def test_only_the_registry_knows_the_entrypoints_package():
    assert [file.stem for file in HOST if "entrypoints" in {module.split(".")[0] for module in imported(file)}] == ["registry"]


def test_nothing_imports_click_which_typer_no_longer_brings():
    assert not [file for file in [*HOST, *OUTSIDE] if "click" in {module.split(".")[0] for module in imported(file)}]
