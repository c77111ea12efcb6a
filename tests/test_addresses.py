"""The path is the address: kind and name in YAML, in pyproject.toml and on disk agree."""

import tomllib
from pathlib import Path

from ldmctl import registry
from ldmctl.registry import GROUPS

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADVERTISED = PYPROJECT["project"]["entry-points"]
FOLDERS = {"ldmctl": "ldmctl", "plugins": "ldmctl_plugins", "configs": "ldmctl_configs"}


def test_every_plugin_file_is_advertised_under_its_own_name():
    claimed = {
        (group.removeprefix("ldmctl."), name.replace("-", "_"), target.split(":")[0])
        for group, names in ADVERTISED.items()
        for name, target in names.items()
    }
    on_disk = {
        (file.parent.name, file.stem, f"ldmctl_plugins.{file.parent.name}.{file.stem}")
        for file in ROOT.glob("plugins/*/*.py")
        if not file.stem.startswith("_")
    }
    assert len(on_disk) >= 15
    assert claimed == on_disk, f"only in pyproject.toml: {claimed - on_disk}; only on disk: {on_disk - claimed}"


def test_every_kind_has_a_group_a_folder_and_a_plugin():
    kinds = {group.removeprefix("ldmctl.") for group in GROUPS.values()}
    folders = {folder.parent.name for folder in ROOT.glob("plugins/*/__init__.py")}
    assert len(kinds) == 11 and kinds == folders == {group.removeprefix("ldmctl.") for group in ADVERTISED}
    assert all(group == f"ldmctl.{kind}s" for kind, group in GROUPS.items())


def test_every_advertised_class_is_installed_and_loads():
    for group, names in ADVERTISED.items():
        kind = registry.kind_of(group.removeprefix("ldmctl."))
        for name, target in names.items():
            plugin = registry.find(kind, name)
            assert plugin.target == target, f"{name} is installed as {plugin.target}: install again (pip install -e .)"
            assert plugin.load().__name__ == target.split(":")[1]
            assert name == name.lower() and "_" not in name


def test_every_package_folder_is_packaged():
    """A folder that is missing in this list works in an editable install and is absent in the wheel."""
    settings = PYPROJECT["tool"]["setuptools"]
    assert settings["package-dir"] == {package: folder for folder, package in FOLDERS.items()}
    on_disk = set()
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("__init__.py"):
            on_disk.add(".".join([package, *file.parent.relative_to(ROOT / folder).parts]))
    assert len(on_disk) >= 14 and len(settings["packages"]) == len(set(settings["packages"]))
    assert set(settings["packages"]) == on_disk


def test_every_folder_with_code_is_a_package():
    missing = {file.parent for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") if not (file.parent / "__init__.py").is_file()}
    assert not missing


def test_every_preset_and_schema_lies_where_it_is_packaged():
    presets, schemas = list((ROOT / "configs").rglob("*.yaml")), list((ROOT / "configs").rglob("*.json"))
    assert presets and PYPROJECT["tool"]["setuptools"]["package-data"]["ldmctl_configs"] == ["*/*.yaml", "schema/*.json"]
    assert all(preset.parent.parent == ROOT / "configs" for preset in presets)
    assert schemas and all(schema.parent == ROOT / "configs" / "schema" for schema in schemas)


def test_whatever_is_no_python_beside_the_code_is_packaged():
    packed = {(package, name) for package, names in PYPROJECT["tool"]["setuptools"]["package-data"].items() for name in names}
    found = [file for file in (ROOT / "ldmctl").rglob("*") if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts]
    assert found and packed >= {(".".join(file.parent.relative_to(ROOT).parts), file.name) for file in found}
