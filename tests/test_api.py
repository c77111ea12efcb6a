"""The verbs from Python: one after the other on drawn shapes, each starting where the previous one ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ldmctl import api
from ldmctl.cli.app import run as command
from ldmctl.errors import ConfigError, LdmctlError, MismatchError, Stopped
from ldmctl.pictures.images import read
from ldmctl.signals import Signals, asking

TINY = ["loop.batch=8", "loop.report=2", "loop.save=2", "loop.preview=2", "loop.workers=0", "loop.warmup=0"]
PLAIN = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """(folder, what each verb gave)."""
    folder = tmp_path_factory.mktemp("chain")
    ae, cache, ldm = folder / "ae", folder / "cache", folder / "ldm"
    few = ["dataset.count=24", "dataset.val_count=8", "autoencoder.widths=[8,16]", "autoencoder.channels=2", "loop.steps=3", *TINY]
    small = ["denoiser.widths=[16]", "denoiser.attention=[false]", "denoiser.head_dim=16", "preview.count=4", "preview.steps=2"]
    gave = {
        "fit_ae": api.fit_ae(few, data="shapes", out=ae, **PLAIN),
        "encode_dataset": api.encode_dataset(["workers=0"], run=ae, out=cache, **PLAIN),
        "fit_diffusion": api.fit_diffusion([*small, "loop.steps=4", *TINY], latents=f"{cache}/", out=ldm, **PLAIN),
        "sample": api.sample(["batch=4"], run=ldm, count=5, steps=2, label="green circle", guidance=2, out=folder / "samples", **PLAIN),
        "eval_lpips": api.eval_lpips(["perceptual=null", "workers=0"], run=ae, out=folder / "verdict", **PLAIN),
    }
    return folder, gave


def test_each_verb_gives_what_it_made(chain):
    folder, gave = chain
    assert gave["fit_ae"]["run"] == str(folder / "ae") and gave["fit_ae"]["steps"] == 3
    assert {"val/loss", "val/psnr"} <= set(gave["fit_ae"]) and Path(gave["fit_ae"]["model"]).is_file()
    assert gave["encode_dataset"]["items"] == {"train": 24, "val": 8} and gave["encode_dataset"]["latent"] == [2, 16, 16]
    assert set(gave["encode_dataset"]["statistics"]) == {"mean", "deviation"}
    assert gave["fit_diffusion"]["steps"] == 4 and "val/loss" in gave["fit_diffusion"]
    assert gave["eval_lpips"]["count"] == 8 and set(gave["eval_lpips"]) >= {"of", "count", "psnr", "ssim", "latent", "verdict"}
    assert sorted(file.name for file in (folder / "verdict").iterdir()) == ["latents.png", "verdict.png"]
    assert gave["eval_lpips"]["psnr"]["low"] <= gave["eval_lpips"]["psnr"]["mean"] <= gave["eval_lpips"]["psnr"]["high"]


def test_sample_leaves_one_png_per_seed_and_makes_none_twice(chain):
    folder, gave = chain
    assert sorted(file.name for file in (folder / "samples").glob("*.png")) == [*(f"{seed:06d}.png" for seed in range(5)), "grid.png"]
    assert gave["sample"]["made"] == gave["sample"]["count"] == 5 and gave["sample"]["labels"] == ["green circle"] * 5
    options = {"run": folder / "ldm", "steps": 2, "label": ["green circle"], "guidance": 2.0, "out": folder / "samples", **PLAIN}
    assert api.sample(["batch=4"], count=6, **options)["made"] == 1


def test_the_same_call_goes_on_where_it_ended(chain):
    folder, _ = chain
    few = ["dataset.count=24", "dataset.val_count=8", "autoencoder.widths=[8,16]", "autoencoder.channels=2", *TINY]
    assert api.fit_ae([*few, "loop.steps=3"], data="shapes", out=folder / "ae", **PLAIN)["steps"] == 3
    with pytest.raises(MismatchError, match=r"loop\.seed: 0 there, 4 asked for"):
        api.fit_ae([*few, "loop.steps=3", "loop.seed=4"], data="shapes", out=folder / "ae", **PLAIN)


def test_a_loaded_autoencoder_encodes_and_decodes_tensors(chain):
    folder, _ = chain
    codec = api.load_autoencoder(folder / "ae", **PLAIN)
    image = torch.rand(2, 3, 33, 32) * 2 - 1  # no multiple of the factor: padded and cropped
    moments = codec.encode(image)
    latent = codec.draw(moments, torch.Generator().manual_seed(0))
    assert moments.shape == (2, 4, 17, 16) and latent.shape == (2, 2, 17, 16)
    made = codec.decode(latent, (33, 32))
    assert made.shape == codec.reconstruct(image).shape == image.shape and made.abs().max() <= 1 and made.dtype == torch.float32


@pytest.fixture(scope="module")
def loaded(chain):
    """A model that is loaded once. What it makes is not written."""
    return api.load(chain[0] / "ldm", **PLAIN)


def pngs(folder, count):
    return torch.stack([read(folder / f"{seed:06d}.png") for seed in range(count)])


def test_a_loaded_model_makes_the_pixels_that_sample_writes_as_often_as_wanted(chain, loaded, tmp_path, monkeypatch):
    folder, _ = chain
    monkeypatch.chdir(tmp_path)
    made = loaded.sample(5, steps=2, label="green circle", guidance=2, batch=4)
    assert made.images.dtype == torch.uint8 and made.images.shape == (5, 3, 32, 32) and made.images.device.type == "cpu"
    assert torch.equal(made.images, pngs(folder / "samples", 5))
    assert (made.labels, made.seeds) == (["green circle"] * 5, list(range(5)))
    again = loaded.sample(2, seed=3, steps=2, label=["green circle"], guidance=2, batch=4, sampler={"type": "ddim", "eta": 0})
    assert torch.equal(again.images, made.images[3:]) and again.seeds == [3, 4]
    assert len(loaded.sample(steps=1).images) == 16, "defaults are those of the command"
    assert not list(tmp_path.iterdir()), "nothing was written"
    assert "green circle" in loaded.classes and str(folder / "ldm") in repr(loaded)


def test_levels_of_ones_own_are_found_as_the_command_finds_them(chain, loaded, tmp_path, capsys):
    folder, _ = chain
    few = ["count=4", "grid=8", "batch=4"]
    found = api.spacing(few, run=folder / "ldm", steps=3, out=tmp_path / "new" / "levels.json", **PLAIN)
    assert capsys.readouterr() == ("", "")
    assert (
        found["spacing"] == str(tmp_path / "new" / "levels.json")
        and {"spacing": found["spacing"], **json.loads((tmp_path / "new" / "levels.json").read_text())} == found
    )
    assert len(found["levels"]) == 3 and found["levels"] == sorted(found["levels"], reverse=True)
    words = ["--run", str(folder / "ldm"), "--steps", "3", *few, "--device", "cpu", "--precision", "fp32", "-q", "--json"]
    assert command(["spacing", *words, "--out", str(tmp_path / "same.json")]) == 0
    assert json.loads(capsys.readouterr().out) == {**found, "spacing": str(tmp_path / "same.json")}
    one, other = (loaded.sample(1, steps=3, spacing=each).images for each in (found["spacing"], found["levels"]))
    assert torch.equal(one, other) and not torch.equal(one, loaded.sample(1, steps=3).images)


def test_levels_are_written_beside_the_model_and_over_nothing_else(chain, tmp_path):
    folder, _ = chain
    shutil.copytree(folder / "ldm", tmp_path / "ldm")
    few = ["count=2", "grid=5"]
    for out in (None, tmp_path / "ldm" / "spacing.json"):
        assert api.spacing(few, run=tmp_path / "ldm", steps=2, out=out, **PLAIN)["spacing"] == str(tmp_path / "ldm" / "spacing.json")
    with pytest.raises(ConfigError, match="No command writes where it reads"):
        api.spacing(few, run=tmp_path / "ldm", steps=2, out=tmp_path / "ldm" / "other.json", **PLAIN)
    with pytest.raises(ConfigError, match=r"grid=5 must be above steps=5"):
        api.spacing(few, run=tmp_path / "ldm", steps=5, **PLAIN)
    (tmp_path / "mine.json").write_text("mine")
    with pytest.raises(MismatchError, match="is no table of levels, so it is not replaced"):
        api.spacing(few, run=tmp_path / "ldm", steps=2, out=tmp_path / "mine.json", **PLAIN)
    assert (tmp_path / "mine.json").read_text() == "mine"


def test_pictures_in_memory_are_one_call(chain, tmp_path, monkeypatch, capfd):
    folder, _ = chain
    monkeypatch.chdir(tmp_path)
    words = {"run": folder / "ldm", "steps": 2, "label": "green circle", "guidance": 2}
    images, labels, seeds = api.sample_images(["batch=4"], count=3, **words, **PLAIN)
    assert torch.equal(images, pngs(folder / "samples", 3)) and labels == ["green circle"] * 3 and seeds == [0, 1, 2]
    assert not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


def test_a_loaded_model_refuses_what_the_command_refuses(chain, loaded):
    with pytest.raises(ConfigError, match=r"There is no label 'green circel'\. Did you mean 'green circle'"):
        loaded.sample(1, label="green circel")
    with pytest.raises(ConfigError, match="count"):
        loaded.sample(0)
    with pytest.raises(MismatchError, match="not a denoiser"):
        api.load(chain[0] / "ae", **PLAIN)


def test_a_single_value_stands_for_a_list_of_one(loaded):
    few = {"steps": 1, "batch": 2}
    assert loaded.sample(2, label=1, **few).labels == [loaded.classes[1]] * 2
    assert loaded.sample(seeds=5, **few).seeds == [5]
    assert loaded.sample(seeds=torch.tensor([5, 2]), label=np.array([1, 2]), **few).labels == loaded.classes[1:3]
    for one in ({"type": "colour", "colour": "red"}, lambda image: image.square().mean((1, 2, 3))):
        assert torch.equal(loaded.sample(1, guides=one, **few).images, loaded.sample(1, guides=[one], **few).images)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"size": 24}, "size: write WIDTHxHEIGHT"),
        ({"interpolate": 3}, "interpolate: "),
        ({"outpaint": 4, "start": torch.zeros(3, 16, 16, dtype=torch.uint8)}, "outpaint: write LEFT,TOP,RIGHT,BOTTOM"),
        ({"guiding": "apg", "guidance": 2}, "guiding: "),
        ({"start": []}, "The list of pictures to start from is empty"),
        ({"guides": "colour"}, r"guide\.0\.colour: is missing"),
        ({"guides": "color"}, "No guide is called 'color'"),
        ({"count": 3, "seeds": [1, 2, 3, 4]}, "count=3 pictures of 4 seeds"),
        ({"count": 2, "seeds": "1,nothing"}, "'nothing' in '1,nothing' is no seed"),
    ],
)
def test_what_no_key_can_be_is_a_sentence(loaded, keys, said):
    with pytest.raises(LdmctlError, match=said):
        loaded.sample(**{"steps": 1, "batch": 2, **keys})


def test_a_count_may_be_given_beside_as_many_seeds(loaded):
    assert loaded.sample(4, seeds=[4, 3, 2, 1], steps=1).seeds == [4, 3, 2, 1]
    assert loaded.sample(4, seeds="5-8", steps=1).seeds == [5, 6, 7, 8]


def test_samples_can_be_encoded_as_they_are(chain, loaded):
    codec = api.load_autoencoder(chain[0] / "ae", **PLAIN)
    images = loaded.sample(2, steps=1).images
    assert torch.equal(codec.encode(images), codec.encode(images / 127.5 - 1))
    assert codec.reconstruct(images).shape == images.shape
    assert torch.equal(codec.encode((images[:1] / 127.5 - 1).double()), codec.encode(images[:1] / 127.5 - 1))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3, 8, 8), r"\[3, 8, 8\] was given\. Of one picture make a batch: image\[None\]\."),
        (torch.zeros(8, 8), r"\[8, 8\] was given"),
        (torch.zeros(2, 8, 8, 3), r"\[2, 8, 8, 3\] was given, which has 8 channels\. Its channels come last: image\.permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 1, 8, 8), r"\[2, 1, 8, 8\] was given, which has 1 channels\."),
        (torch.zeros(0, 3, 8, 8), "which holds nothing"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), r"of int64 was given\. If its values go from 0 to 255: image\.to\(torch\.uint8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.bool), "of bool was given"),
        (torch.full((2, 3, 8, 8), 255.0), r"the values given go to 255\. If they go from 0 to 255: image / 127\.5 - 1\."),
        (torch.full((2, 3, 8, 8), float("nan")), "384 of the values given are not finite"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"numpy\.ndarray was given\. torch\.from_numpy makes a tensor of it\."),
        ([1, 2], "list was given"),
    ],
)
def test_what_is_no_batch_of_pictures_is_refused_with_what_is_expected(chain, given, said):
    codec = api.load_autoencoder(chain[0] / "ae", **PLAIN)
    for function in (codec.encode, codec.reconstruct):
        with pytest.raises(ConfigError, match=r"Pictures \[B,3,H,W\] are expected, floats in \[-1, 1\] or uint8 from 0 to 255") as caught:
            function(given)
        caught.match(said)


def test_what_is_no_latent_is_refused_with_what_is_expected(chain):
    folder, _ = chain
    codec = api.load_autoencoder(folder / "ae", **PLAIN)
    for given, said in {
        torch.zeros(2, 8, 8): r"Latents \[B,2,h,w\] are expected, floats; \[2, 8, 8\] was given\. Of one make a batch: latents\[None\]",
        torch.zeros(1, 4, 8, 8): r"\[1, 4, 8, 8\] was given",
        torch.zeros(1, 2, 8, 8, dtype=torch.uint8): "of uint8 was given",
    }.items():
        with pytest.raises(ConfigError, match=said):
            codec.decode(given, (16, 16))
    for size in ((16, 16, 3), (16.0, 16), 0, None):
        with pytest.raises(ConfigError, match=r"A size is \(height, width\)"):
            codec.decode(torch.zeros(1, 2, 8, 8), size)
    assert codec.decode(torch.zeros(1, 2, 8, 8), 16).shape == (1, 3, 16, 16)
    for given in (torch.zeros(4, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64)):
        with pytest.raises(ConfigError, match=r"Moments \[B,m,h,w\] are expected, floats; "):
            codec.draw(given)


def test_what_a_loaded_network_cannot_use_is_refused_with_what_is_expected(chain):
    network, _, header = api.load_network(chain[0] / "ldm", **PLAIN)
    x, t, classes = torch.zeros(2, 2, 16, 16), torch.zeros(2), torch.tensor([0, -1])
    for call, said in [
        ((x[0], t, classes), r"Latents \[B,2,h,w\] are expected, floats; \[2, 16, 16\] was given"),
        ((x.to(torch.uint8), t, classes), "of uint8 was given"),
        ((torch.zeros(2, 3, 16, 16), t, classes), r"\[2, 3, 16, 16\] was given"),
        ((x,), "A network is called with noised latents"),
        ((x, torch.zeros(3), classes), r"Timesteps \[2\] are expected, one for each latent, or one number for all; \[3\] of float32"),
        ((x, t), r"Class indices \[2\] are expected, from 0 to 15, or -1 for no class; none were given"),
        ((x, t, torch.tensor([0, 16])), "values from 0 to 16 were given"),
        ((x, t, torch.tensor([0.0, 1.0])), r"\[2\] of float32 was given"),
        ((x, t, "cat"), "str was given"),
    ]:
        with pytest.raises(ConfigError, match=said):
            network(*call)
    assert len(header["classes"]) == 16
    whole = network(x, t + 10, classes)
    assert torch.equal(network(x, 10, [0, -1]), whole) and torch.equal(network(x, timestep=torch.tensor(10), given=classes), whole)


# -- notebooks ---------------------------------------------------------------------


def handlers():
    return {each: signal.getsignal(each) for each in asking()}


def test_an_interrupted_call_leaves_signals_as_they_were_and_goes_on_next_time(chain, tmp_path):
    class Interrupting(api.Console):
        def bar(self, *given, **keys):
            os.kill(os.getpid(), signal.SIGINT)
            return super().bar(*given, **keys)

    folder, before, threads = chain[0], handlers(), torch.get_num_threads()
    words = {"run": folder / "ldm", "steps": 1, "count": 6, "out": tmp_path / "samples", **PLAIN}
    with pytest.raises(Stopped, match="Stopped after 2 of 6 pictures"):
        api.sample(["batch=2"], console=Interrupting(quiet=True), **words)
    assert handlers() == before and torch.get_num_threads() == threads
    assert api.sample(["batch=2"], **words)["made"] == 4


def test_a_second_interrupt_ends_a_call_at_once_and_leaves_signals_as_they_were():
    before = handlers()
    with pytest.raises(KeyboardInterrupt), Signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert handlers() == before


def test_an_interrupted_loaded_model_can_be_used_again(loaded, monkeypatch):
    from ldmctl.diffusion import model

    before, threads, whole = handlers(), torch.get_num_threads(), loaded.sample(2, steps=1)
    real = model.sample_latents
    monkeypatch.setattr(model, "sample_latents", lambda *given, **keys: os.kill(os.getpid(), signal.SIGINT) or real(*given, **keys))
    with pytest.raises(KeyboardInterrupt):
        loaded.sample(2, steps=1)
    monkeypatch.undo()
    assert handlers() == before and torch.get_num_threads() == threads and torch.is_grad_enabled()
    assert torch.equal(loaded.sample(2, steps=1).images, whole.images)


def test_outside_the_main_thread_no_signal_handler_is_installed(chain, tmp_path):
    seen, before = [], handlers()

    class Looking(api.Console):
        def bar(self, *given, **keys):
            seen.append(handlers())
            return super().bar(*given, **keys)

    def call():
        words = {"run": chain[0] / "ldm", "steps": 1, "count": 2, "out": tmp_path / "samples", **PLAIN}
        seen.append(api.sample(["batch=2"], console=Looking(quiet=True), **words)["made"])

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert seen == [before, 2] and handlers() == before


def test_handlers_of_other_software_are_left_alone(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # as for one that was not installed from Python
    with Signals() as signals:
        pass
    assert not signals.asked


def test_a_loaded_network_speaks_of_latents_that_its_codec_decodes(chain):
    folder, gave = chain
    network, codec, header = api.load_network(folder / "ldm", **PLAIN)
    latent = torch.randn(2, 2, 16, 16)
    said = network(latent, torch.tensor([10.0, 900.0]), torch.tensor([0, -1]))
    assert said.shape == latent.shape and header["prediction"] == "x0" and len(header["classes"]) == 16
    assert codec.mean.flatten().tolist() == pytest.approx(gave["encode_dataset"]["statistics"]["mean"])
    assert codec.decode(latent, (32, 32)).shape == (2, 3, 32, 32)
    with pytest.raises(MismatchError, match="not an autoencoder"):
        api.load_autoencoder(folder / "ldm", **PLAIN)


def test_it_is_quiet_unless_given_a_voice(chain, capfd):
    folder, _ = chain
    again = {"run": folder / "ae", "out": folder / "cache", **PLAIN}
    api.encode_dataset(["workers=0"], **again)
    assert capfd.readouterr() == ("", "")
    api.encode_dataset(["workers=0"], console=api.Console(), **again)
    captured = capfd.readouterr()
    assert captured.out == "" and "is complete already" in captured.err


def test_parents_may_be_named_as_keys(chain, tmp_path, monkeypatch):
    folder, _ = chain
    monkeypatch.chdir(folder.parent)
    assert api.encode_dataset([f"run={folder / 'ae'}", "workers=0"], out=tmp_path / "cache", **PLAIN)["items"] == {"train": 24, "val": 8}
    assert api.eval_lpips(["perceptual=null", "workers=0", "count=4", f"run={folder / 'ae'}"], **PLAIN)["count"] == 4
    with pytest.raises(ConfigError, match=r"unknown key\. Did you mean 'widths'"):
        api.fit_diffusion([f"latents={folder / 'cache'}", "denoiser.width=3"], out=tmp_path, **PLAIN)


def test_two_folders_are_compared_whatever_runs_lie_around(chain, monkeypatch):
    folder, _ = chain
    (folder / "runs").mkdir()
    (folder / "runs" / "ae").symlink_to(folder / "ae")
    monkeypatch.chdir(folder)
    pairs = (folder / "samples", "samples")
    for result in (
        api.eval_lpips(["perceptual=null"], pairs=pairs, **PLAIN),
        api.eval_lpips(["perceptual=null", "pairs=[samples, samples]"], **PLAIN),
    ):
        assert result["count"] == 7 and result["ssim"]["mean"] == pytest.approx(1)


def test_several_devices_in_one_process_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match="torchrun"):
        api.fit_ae(["machine.devices=2"], data="shapes", out=tmp_path / "ae")


def test_importing_it_is_torch_free():
    loaded = "import sys; from ldmctl import api; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "False\n"
