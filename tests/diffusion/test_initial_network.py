"""fit-diffusion --init: a denoiser starts from an earlier one's weights, whose network must fit, and classes go by their names."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl.cli.app import run as command
from ldmctl.config.documents import read_config
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.storage import weights

STILL = ["loop.steps=1", "loop.lr=1e-12", "loop.warmup=0"]  # a step that moves nothing


def model(run, name="model.safetensors"):
    return weights.load(run / name)[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, fit_diffusion, vae_cache):
    """A run whose network is not that of its seed alone. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("trained") / "ldm", vae_cache, "loop.steps=6", "loop.lr=1e-2", "loop.keep.every=3")


@pytest.fixture
def go(tmp_path, trained, vae_cache, capfd):
    """go("--init", ...) runs the command into tmp_path/new -> (exit code, what it said)."""
    config = tmp_path / "small.yaml"
    config.write_text("preview: {count: 2, steps: 2}\nloop: {steps: 2, batch: 8}\nmachine: {device: cpu, precision: fp32}\n")

    def run(*words, latents=vae_cache, out="new"):
        code = command(["fit-diffusion", "--config", str(config), "--latents", str(latents), "--out", str(tmp_path / out), *words])
        return code, capfd.readouterr().err

    return run


@pytest.fixture(scope="module")
def renamed(tmp_path_factory, encode, vae_run):
    """renamed(names) -> a cache of pictures in folders of these names."""

    def make(*names):
        folder, random = tmp_path_factory.mktemp("named"), np.random.default_rng(0)
        for name in names:
            for index in range(4):
                file = folder / "pictures" / name / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
        return encode(folder / "cache", vae_run, f"data={folder / 'pictures'}")

    return make


@pytest.mark.parametrize("which", ["", "@3", "@best", "/model.safetensors"])
def test_training_starts_at_step_0_from_the_averaged_weights_of_a_run(go, trained, tmp_path, which):
    if which == "@best" and not (trained / "snapshots" / "best.safetensors").exists():
        pytest.skip("no validation was made")
    source = {"": "model.safetensors", "/model.safetensors": "model.safetensors", "@3": "snapshots/000000003.safetensors"}.get(
        which, "snapshots/best.safetensors"
    )
    code, said = go("--init", f"{trained}{which}", *STILL)
    assert code == 0 and "Training starts from the weights of" in said and "at step 0 and with a new optimizer" in said
    new, old = model(tmp_path / "new"), model(trained, source)
    assert new.keys() == old.keys() and all(torch.allclose(new[name], old[name], atol=1e-6) for name in old)
    _, header = weights.load(tmp_path / "new" / "state.safetensors")
    assert header["scalars"]["step"] == 1 == json.loads((tmp_path / "new" / "run.json").read_text())["step"]


def test_the_architecture_and_what_it_predicts_are_taken_from_it(go, trained, tmp_path):
    assert go("--init", str(trained), *STILL)[0] == 0
    old, new = read_config(trained), read_config(tmp_path / "new")
    assert [new[key] for key in ("denoiser", "schedule", "prediction")] == [old[key] for key in ("denoiser", "schedule", "prediction")]
    assert all(new["conditions"][slot] == old["conditions"][slot] for slot in ("label", "text", "map", "picture"))


def test_another_prediction_may_be_learned_from_it_and_that_is_said(go, trained):
    code, said = go("--init", str(trained), "prediction=v", *STILL)
    assert code == 0 and "Keys that differ from it: prediction: x0 there, v asked for." in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["denoiser.widths=[8,16]"], "denoiser.widths: [8, 8] there, [8, 16] asked for"),
        (["denoiser={type: dit, width: 16, depth: 1, head_dim: 8}"], "denoiser.type: unet there, dit asked for"),
        (["conditioner=null"], "conditions.label.type: label there, None asked for"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_by_the_keys_that_differ(go, trained, tmp_path, words, said):
    for more in ([], ["--dry-run"]):
        code, told = go("--init", str(trained), *words, *more)
        assert code == 6 and "does not fit the network that is asked for" in told and said in told
    assert not (tmp_path / "new" / "state.safetensors").exists()


def test_classes_go_by_their_names_whatever_their_order_and_number(go, fit_diffusion, renamed, tmp_path):
    before = fit_diffusion(tmp_path / "before", renamed("ant", "bee", "cow"), "loop.steps=4", "loop.lr=1e-2")
    code, said = go("--init", str(before), *STILL, latents=renamed("aardvark", "bee", "cow", "dog"))
    assert code == 0 and "Classes go by their names: 2 of 4 are taken from it, 2 begin anew (aardvark, dog)." in said
    old, new = (model(run)["conditioner.embedding.weight"] for run in (before, tmp_path / "new"))
    assert torch.allclose(new[[1, 2, 4]], old[[1, 2, 3]], atol=1e-6), "bee, cow, and no class"
    assert not torch.allclose(new[0], old[0], atol=1e-3)


def test_another_autoencoder_is_said(go, trained, encode, fit_ae, tmp_path):
    other = encode(tmp_path / "cache", fit_ae(tmp_path / "ae", "loop.seed=7"))
    code, said = go("--init", str(trained), *STILL, latents=other)
    assert code == 0 and "of another autoencoder than those it was trained on" in said


@pytest.mark.parametrize(
    ("init", "said"), [("nowhere", "There is no nowhere to start from"), ("AE", "not a denoiser"), ("RUN@77", "has no snapshots/000000077")]
)
def test_what_holds_no_denoiser_is_named(go, trained, vae_run, init, said):
    code, told = go("--init", {"AE": str(vae_run), "RUN@77": f"{trained}@77"}.get(init, init))
    assert code == 6 and said in told


def test_a_run_does_not_start_from_itself(go, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "new")
    assert go("--init", str(tmp_path / "new"), "--overwrite")[0] == ConfigError.exit_code
    assert (tmp_path / "new" / "model.safetensors").exists()


def test_it_goes_on_by_the_same_command_also_when_what_it_began_with_was_renamed_or_is_gone(go, trained, tmp_path):
    origin = Path(shutil.copytree(trained, tmp_path / "origin"))
    assert go("--init", str(origin), "loop.steps=1")[0] == 0
    origin.rename(tmp_path / "renamed")
    assert go("--init", str(tmp_path / "renamed"), "loop.steps=2")[0] == 0
    code, said = go("--init", str(tmp_path / "renamed" / "."), "loop.steps=3")
    assert code == 0 and "Resumed" in said and "Training starts from" not in said
    shutil.rmtree(tmp_path / "renamed")
    assert go("--init", str(tmp_path / "renamed"), "loop.steps=4")[0] == 0


def test_it_goes_on_when_init_was_left_away_once_and_is_named_again(go, trained, fit_diffusion, vae_cache, tmp_path):
    assert go("--init", str(trained), "loop.steps=1")[0] == 0
    same = [
        f"denoiser={json.dumps(read_config(trained)['denoiser'])}",
        f"conditioner={json.dumps(read_config(trained)['conditions']['label'])}",
    ]
    assert go(*same, "loop.steps=2")[0] == 0, "without --init"
    code, said = go("--init", str(trained), "loop.steps=3")
    assert code == 0 and "Resumed" in said, said
    other = fit_diffusion(tmp_path / "other", vae_cache, "loop.seed=5")
    code, said = go("--init", str(other), "loop.steps=4")
    assert code == 6 and "which a run that continues does not take" in said


def test_a_run_that_goes_on_does_not_take_other_weights_in_silence(go, trained, fit_diffusion, vae_cache, tmp_path):
    other = fit_diffusion(tmp_path / "other", vae_cache, "loop.seed=5")
    assert go("--init", str(trained), "loop.steps=1")[0] == 0
    code, said = go("--init", str(other), "loop.steps=2")
    assert code == 6 and "holds others, which a run that continues does not take" in said
    code, said = go("--init", str(trained), "loop.steps=9", out="other")
    assert code == 6 and "init: null there" in said
    assert json.loads((tmp_path / "new" / "run.json").read_text())["step"] == 1


def test_python_takes_it_too(trained, vae_cache, tmp_path):
    from ldmctl import api

    with pytest.raises(MismatchError, match=r"does not fit .*\n.*widths"):
        words = ["denoiser.widths=[16,16]", "machine.device=cpu", "loop.steps=1", "loop.batch=8"]
        api.fit_diffusion(words, latents=vae_cache, init=trained, out=tmp_path / "new")
