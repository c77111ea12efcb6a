"""What is installed is what is in the repository, and it starts fast from anywhere."""

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


@pytest.mark.slow
def test_the_wheel_holds_exactly_the_tracked_files(tmp_path):
    """A package or a kind of file that pyproject.toml forgets works editable and is absent here."""
    pytest.importorskip("build")
    for name in tracked():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / "copy" / name)
    (tmp_path / "copy" / "README.md").touch()
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), cwd=tmp_path / "copy")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {f"{FOLDERS[folder]}/{rest}" for folder, _, rest in (name.partition("/") for name in tracked()) if folder in FOLDERS}
    assert len(wanted) > 60
    assert packed == wanted, f"only in the wheel: {sorted(packed - wanted)}; only in the repository: {sorted(wanted - packed)}"


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
from ldmctl.cli import run
assert run({words!r}) == 0
print("imported:", *sorted({HEAVY!r} & set(sys.modules)))
"""
    assert python("-c", program, cwd=tmp_path).endswith("\nimported:\n")
