"""What is installed is what is in the repository, and it starts fast from anywhere."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"ldmctl": "ldmctl", "plugins": "ldmctl_plugins", "configs": "ldmctl_configs"}
HEAVY = {"torch", "torchvision", "torchmetrics", "numpy", "safetensors", "PIL", "ldmctl_plugins"}


def tracked() -> list[str]:
    """Paths of the repository's files that exist, or skip where there is no repository."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def python(*words: str, cwd: Path) -> str:
    """stdout of a Python in another folder, with nothing of this one on its path."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run([sys.executable, *words], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the tracked files."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "copy" / name)
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), cwd=folder / "copy")
    (file,) = (folder / "dist").glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_holds_exactly_the_tracked_files(wheel):
    """A package or a kind of file that pyproject.toml forgets works editable and is absent here."""
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {f"{FOLDERS[folder]}/{rest}" for folder, _, rest in (name.partition("/") for name in tracked()) if folder in FOLDERS}
    assert len(wanted) > 60
    assert packed == wanted, f"only in the wheel: {sorted(packed - wanted)}; only in the repository: {sorted(wanted - packed)}"


@pytest.mark.slow
def test_wheel_and_editable_list_the_same_plugins(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = "import sys; sys.path[:0] = sys.argv[1:]; import ldmctl.cli.app; print(ldmctl.__file__); ldmctl.cli.app.run(['plugins', 'list', '--json'])"
    where, packed = python("-c", program, str(tmp_path / "site"), cwd=tmp_path).splitlines()
    _, editable = python("-c", program, cwd=tmp_path).splitlines()
    assert where == str(tmp_path / "site" / "ldmctl" / "__init__.py")
    assert len(json.loads(packed)["plugins"]) >= 17
    assert json.loads(packed) == json.loads(editable)


def test_the_extra_formats_names_what_opens_heic_and_jpeg_xl():
    wanted = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("formats = "))
    assert '"pillow-heif>=' in wanted and '"pillow-jxl-plugin>=' in wanted


def test_it_runs_from_an_empty_folder(tmp_path):
    assert python("-m", "ldmctl", "--version", cwd=tmp_path) == f"ldmctl {version('ldmctl')}\n"


def test_it_runs_beside_a_clone_named_ldmctl(tmp_path):
    """There the clone's folder is a namespace package, in front of the installed one."""
    (tmp_path / "ldmctl").mkdir()
    (tmp_path / "ldmctl" / "README.md").write_text("a clone")
    assert python("-m", "ldmctl", "--version", cwd=tmp_path) == f"ldmctl {version('ldmctl')}\n"
    assert python("-c", "from ldmctl import api; print(api.fit_ae.__name__)", cwd=tmp_path) == "fit_ae\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["fit-ae", "--help"], ["plugins", "list"], ["configs", "list"]])
def test_what_only_looks_imports_no_torch(words, tmp_path):
    program = f"""
import sys
from ldmctl.cli.app import run
assert run({words!r}) == 0
print("imported:", *sorted({HEAVY!r} & set(sys.modules)))
"""
    assert python("-c", program, cwd=tmp_path).endswith("\nimported:\n")
