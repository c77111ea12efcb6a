"""`ldmctl spacing` finds a table with a run and its cache, and `sample` reads it."""

import json
import shutil

import pytest

from ldmctl.cli.app import run
from ldmctl.config.levels import Spacing

FEW = ["count=4", "grid=12", "batch=2", "machine.device=cpu", "machine.precision=fp32"]


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion whose cache is there. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("spaced") / "ldm", vae_cache)


def answer(capsys, *words):
    code = run([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("cost", ["path", "bound"])
def test_a_table_is_found_and_sampled_with(ldm, tmp_path, capsys, cost):
    file = tmp_path / "new" / "spacing.json"
    code, said = answer(capsys, "spacing", "--run", str(ldm), "--steps", "5", "--out", str(file), *FEW, f"cost={cost}")
    written = json.loads(file.read_text())
    assert code == 0 and said == {"spacing": str(file), **written}
    assert len(written["levels"]) == 5 and written["levels"] == sorted(written["levels"], reverse=True)
    assert written["levels"][0] == pytest.approx(80) and written["levels"][-1] > written["lowest"] == 0.02
    assert all(written["cost"] <= cost for cost in written["cost_of"].values())
    words = ["--run", str(ldm), "--out", str(tmp_path / "samples"), "-n", "1", "batch=1", "machine.device=cpu", "machine.precision=fp32"]
    code, made = answer(capsys, "sample", *words, "--steps", "7", f"spacing={file}")
    assert code == 0 and made["made"] == 1
    before = written["levels"]
    file.unlink()  # the picture says the levels themselves
    code, again = answer(capsys, "sample", *words, "--steps", "7", f"spacing={before}")
    assert code == 0 and again["made"] == 0


def test_the_same_command_gives_the_same_table(ldm, tmp_path, capsys):
    tables = []
    for _ in range(2):
        file = tmp_path / "spacing.json"
        answer(capsys, "spacing", "--run", str(ldm), "--out", str(file), *FEW)
        tables.append(file.read_bytes())
    assert tables[0] == tables[1]


def test_without_out_it_lies_in_the_run_folder(ldm, tmp_path, capsys):
    shutil.copytree(ldm, tmp_path / "ldm")
    code, said = answer(capsys, "spacing", "--run", str(tmp_path / "ldm"), *FEW)
    assert code == 0 and said["spacing"] == str(tmp_path / "ldm" / "spacing.json")
    assert Spacing.model_validate(said["spacing"]).table == tuple(said["levels"])


def test_its_place_by_default_may_be_named_and_a_snapshot_has_another(ldm, tmp_path, capsys):
    home = tmp_path / "ldm"
    shutil.copytree(ldm, home)
    (home / "snapshots").mkdir(exist_ok=True)
    for name in ("best", "000000007"):
        shutil.copy(home / "model.safetensors", home / "snapshots" / f"{name}.safetensors")
    code, said = answer(capsys, "spacing", "--run", str(home), "--out", str(home / "spacing.json"), *FEW)
    assert code == 0 and said["spacing"] == str(home / "spacing.json")
    before = (home / "spacing.json").read_bytes()
    for name in ("best", "7"):
        code, said = answer(capsys, "spacing", "--run", f"{home}@{name}", "--steps", "3", *FEW)
        assert code == 0 and said["spacing"] == str(home / f"spacing-{name}.json")
    assert (home / "spacing.json").read_bytes() == before
    assert answer(capsys, "spacing", "--run", str(home), "--out", str(home / "config.json"), *FEW)[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--steps", "12"], 2, "grid=12 must be above steps=12"),
        (["lowest=90"], 2, "not below the highest level"),
        (["lowest=0"], 2, "greater than 0"),
        (["steps=0"], 2, "greater than 0"),
        (["--run", "nowhere"], 6, "no run folder"),
    ],
)
def test_what_cannot_be_found_is_a_sentence(ldm, tmp_path, capsys, words, code, said):
    given = words if "--run" in words else ["--run", str(ldm), *words]
    found, told = answer(capsys, "spacing", "--out", str(tmp_path / "spacing.json"), *FEW, *given)
    assert found == code and said in told["error"]
    assert not (tmp_path / "spacing.json").exists()


def test_another_file_is_not_replaced(ldm, tmp_path, capsys):
    (tmp_path / "notes.json").write_text("{}")
    code, told = answer(capsys, "spacing", "--run", str(ldm), "--out", str(tmp_path / "notes.json"), *FEW)
    assert code == 6 and "not replaced" in told["error"] and (tmp_path / "notes.json").read_text() == "{}"


def test_without_its_cache_a_run_says_so(ldm, tmp_path, capsys, monkeypatch):
    shutil.copytree(ldm, tmp_path / "ldm")
    config = (tmp_path / "ldm" / "config.yaml").read_text().splitlines()
    (tmp_path / "ldm" / "config.yaml").write_text("\n".join("latents: gone" if line.startswith("latents:") else line for line in config))
    code, told = answer(capsys, "spacing", "--run", str(tmp_path / "ldm"), *FEW)
    assert code == 6 and "cached latents" in told["error"]


def test_a_dry_run_counts_forwards(ldm, tmp_path, capsys):
    code, told = answer(capsys, "spacing", "--run", str(ldm), "--dry-run", *FEW)
    assert code == 0 and told["plan"]["forwards"].startswith("48,")
