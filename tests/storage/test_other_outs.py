"""--out of the commands beside the verbs: what somebody else put there stays."""

import json
from pathlib import Path

import pytest

from ldmctl.cli.app import run as command
from ldmctl.storage import weights


@pytest.fixture(scope="module")
def averaged(tmp_path_factory, fit_ae):
    return fit_ae(tmp_path_factory.mktemp("averaged") / "ae", "loop.keep.averages=2")


@pytest.mark.parametrize(
    "out", ["model.safetensors", "state.safetensors", "snapshots/best.safetensors", "averages/mine.safetensors", "config.yaml"]
)
def test_an_average_replaces_nothing_of_the_run_that_it_is_built_from(averaged, capsys, out):
    before = {path: path.read_bytes() for path in averaged.rglob("*") if path.is_file()}
    assert command(["ema", "--run", str(averaged), "--length", "0.08", "--out", str(averaged / out)]) == 2
    assert "Name another --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in averaged.rglob("*") if path.is_file()} == before


def test_an_average_replaces_an_earlier_one_alone(averaged, tmp_path, capsys):
    words = ["ema", "--run", str(averaged), "--length", "0.08", "--quiet", "--out"]
    assert command([*words, str(tmp_path / "new" / "ema.safetensors")]) == 0
    assert command([*words, str(tmp_path / "new" / "ema.safetensors")]) == 0
    assert weights.read_header(tmp_path / "new" / "ema.safetensors")["length"] == 0.08
    (tmp_path / "thesis.tex").write_text("years of work")
    assert command([*words, str(tmp_path / "thesis.tex")]) == 2 and (tmp_path / "thesis.tex").read_text() == "years of work"
    assert command([*words, str(tmp_path / "new")]) == 2 and "is a folder" in capsys.readouterr().err


def test_quickstart_leaves_folders_of_others_alone(tmp_path, vae_run, capsys):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "pictures", vae_run, vae_run / "samples", vae_run / "new", tmp_path / "file"):
        assert command(["quickstart", "--out", str(out)]) == 2
        assert str(out) in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["1.png"]


def test_a_new_plugin_is_not_put_into_a_run_or_onto_anything(tmp_path, vae_run, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    for out in (vae_run / "plugin", vae_run, tmp_path / "link", tmp_path / "file", tmp_path / "file" / "below"):
        assert command(["plugins", "new", "sampler", "mine", "--out", str(out)]) == 2
        assert "name another --out" in capsys.readouterr().err.lower()


def test_a_schema_is_not_written_over_a_config(tmp_path, vae_run, capsys):
    before = (vae_run / "config.yaml").read_text()
    assert command(["configs", "schema", "fit-ae", "--out", str(vae_run / "config.yaml")]) == 2
    assert command(["configs", "schema", "fit-ae", "--out", str(vae_run / "run.json")]) == 2
    assert (vae_run / "config.yaml").read_text() == before
    for _ in range(2):
        assert command(["configs", "schema", "fit-ae", "--out", str(tmp_path / "fit-ae.json")]) == 0
    assert "properties" in json.loads(Path(tmp_path / "fit-ae.json").read_text())
