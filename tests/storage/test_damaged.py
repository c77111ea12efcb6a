"""A file that parses and does not say what ldmctl writes is named, with exit code 6: it is no bug of ours."""

import json
import shutil

import pytest
import torch

from ldmctl.cli.app import run
from ldmctl.errors import MismatchError
from ldmctl.latents import manifest as manifests
from ldmctl.latents.items import read_items
from ldmctl.storage import weights

GONE, INTEGERS = object(), "of the same shape"


def changed(values, path, value):
    """The nested dict with one value replaced, or left out."""
    *parents, last = path.split(".")
    place = values
    for key in parents:
        place = place[key]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return values


def rewrite(file, path=None, value=GONE, tensors=None):
    """The same safetensors file with one field of its header changed, or other tensors."""
    held, header = weights.load(file)
    weights.save(file, held if tensors is None else tensors(held), header if path is None else changed(header, path, value))


@pytest.fixture
def trained(vae_run, vae_cache, fit_diffusion, tmp_path):
    """A finished run of fit-diffusion that may be damaged, and its cache."""
    shutil.copytree(vae_cache, tmp_path / "cache")
    return fit_diffusion(tmp_path / "ldm", tmp_path / "cache")


def refused(words, capsys, *named):
    capsys.readouterr()
    assert run(words) == 6
    said = capsys.readouterr().err
    assert all(name in said for name in named), said
    return said


RESUME = ["fit-diffusion", "-q"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("scalars", 7), ("scalars", []), ("scalars", GONE), ("scalars.step", None), ("scalars.step", -1), ("scalars.step", GONE), ("scalars.steps", "x"),
        ("scalars.kept", []), ("scalars.kept.best", ""), ("scalars.bad_in_a_row", None), ("scalars.seen", "many"), ("scalars.seen", None),
    ],
)  # fmt: skip
def test_a_state_whose_header_says_something_else_is_named(trained, tmp_path, capsys, path, value):
    rewrite(trained / "state.safetensors", path, value)
    assert "Traceback" not in resume(trained, tmp_path, capsys)


def resume(folder, tmp_path, capsys):
    words = ["--config", str(folder / "config.yaml"), "--out", str(folder), "loop.steps=6"]
    return refused([*RESUME, *words], capsys, "damaged")


@pytest.mark.parametrize("name", ["diffusion.optimizer.0.exp_avg", "diffusion.scale", "diffusion.growth"])
def test_a_state_that_lacks_a_tensor_is_named(trained, tmp_path, capsys, name):
    rewrite(trained / "state.safetensors", tensors=lambda held: {key: value for key, value in held.items() if key != name})
    assert "Traceback" not in resume(trained, tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("diffusion.optimizer.0.step", torch.zeros(2)),
        ("diffusion.optimizer.0.exp_avg", torch.zeros(3, 1, 4)),
        ("diffusion.optimizer.0.exp_avg_sq", torch.zeros(3, 1, 4)),
        ("diffusion.optimizer.0.exp_avg", INTEGERS),
        ("diffusion.optimizer.0.step", torch.zeros((), dtype=torch.int32)),
        ("diffusion.average.other", torch.zeros(1)),
    ],
)
def test_a_state_with_a_tensor_of_another_shape_or_name_is_named(trained, tmp_path, capsys, name, value):
    rewrite(trained / "state.safetensors", tensors=lambda held: {**held, name: held[name].int() if value is INTEGERS else value})
    assert "Traceback" not in resume(trained, tmp_path, capsys)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("denoiser.context", []), ("denoiser.context", {"channels": 3, "nonsense": 1}), ("denoiser.context.map_channels", [0]),
        ("denoiser.context.channels", -3), ("denoiser.config", []), ("denoiser.type", 7), ("denoiser", GONE),
        ("denoiser.config.type", 7), ("schedule", None), ("prediction", "?"), ("latent", [3, 0, 8]), ("latent", 3), ("statistics.mean", [0.0]),
        ("statistics.deviation", [0.0, 1.0, 1.0]), ("statistics", GONE), ("classes", {}), ("label_counts", ["a"]), ("image.size", 0), ("image", GONE),
        ("autoencoder", {}),
    ],
)  # fmt: skip
def test_a_model_whose_header_says_something_else_is_named(trained, tmp_path, capsys, path, value):
    rewrite(trained / "model.safetensors", path, value)
    assert "Traceback" not in refused(
        ["sample", "--run", str(trained), "-n", "1", "--steps", "2", "--out", str(tmp_path / "s"), "--device", "cpu"],
        capsys,
        "model.safetensors",
    )


@pytest.mark.parametrize("value", [0.87, None, [], {"type": "vae"}])
@pytest.mark.parametrize("name", ["state", "model", "autoencoder"])
def test_a_file_of_a_kind_that_is_no_word_is_named(trained, tmp_path, capsys, name, value):
    rewrite(trained / f"{name}.safetensors", "kind", value)
    made = ["sample", "--run", str(trained), "-n", "1", "--steps", "2", "--out", str(tmp_path / "s"), "--device", "cpu"]
    continued = [*RESUME, "--config", str(trained / "config.yaml"), "--out", str(trained), "loop.steps=6"]
    assert "Traceback" not in refused(continued if name == "state" else made, capsys, f"{name}.safetensors")


@pytest.mark.parametrize(("path", "value"), [("context", {}), ("context.image_channels", 7), ("config", []), ("config", GONE), ("type", 7)])
def test_an_autoencoder_whose_header_says_something_else_is_named(trained, tmp_path, capsys, path, value):
    rewrite(trained / "autoencoder.safetensors", path, value)
    assert "Traceback" not in refused(
        ["sample", "--run", str(trained), "-n", "1", "--steps", "2", "--out", str(tmp_path / "s"), "--device", "cpu"],
        capsys,
        "autoencoder.safetensors",
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("autoencoder.fingerprint", GONE),
        ("autoencoder", {}),
        ("autoencoder.type", 3),
        ("statistics.mean", [1.0]),
        ("statistics.mean", []),
        ("splits", []),
        ("latent", [3, 0, 8]),
    ],
)
def test_a_manifest_that_says_something_else_is_named(trained, tmp_path, capsys, path, value):
    file = tmp_path / "cache" / "latents.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    words = ["--config", str(trained / "config.yaml"), "--latents", str(tmp_path / "cache"), "--out", str(tmp_path / "new")]
    assert "Traceback" not in refused([*RESUME, *words], capsys, "latents.json")


def test_what_is_nested_ten_thousand_deep_is_damaged_or_no_config(trained, tmp_path, capsys):
    deep = "[" * 10_000 + "]" * 10_000
    (tmp_path / "cache" / "latents.json").write_text(deep)
    words = ["--config", str(trained / "config.yaml"), "--latents", str(tmp_path / "cache"), "--out", str(tmp_path / "new")]
    assert "Traceback" not in refused([*RESUME, *words], capsys, "latents.json")
    (tmp_path / "deep.yaml").write_text(f"loop: {deep}")
    assert run(["fit-ae", "--config", str(tmp_path / "deep.yaml")]) == 2
    assert "nested too deeply" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "path"), [("model", "denoiser.config.widths"), ("autoencoder", "config.widths")])
def test_a_header_that_describes_a_network_too_large_for_its_file_is_named_before_memory_is_taken(trained, tmp_path, capsys, name, path):
    rewrite(trained / f"{name}.safetensors", path, [8000, 8000])
    words = ["sample", "--run", str(trained), "-n", "1", "--steps", "2", "--out", str(tmp_path / "s"), "--device", "cpu"]
    assert "numbers: it holds" in refused(words, capsys, f"{name}.safetensors")


NESTED = "[" * 3000 + "]" * 3000


def test_json_that_is_nested_without_end_is_damaged_or_passed_over(trained, tmp_path, capsys):
    """RecursionError is no ValueError."""
    (trained / "metrics.jsonl").write_text(f'{{"step": 1, "loss": {NESTED}}}\n')
    words = [*RESUME, "--config", str(trained / "config.yaml"), "--out", str(trained), "loop.steps=6"]
    assert run(words) == 0
    items = next((tmp_path / "cache").glob("train-*.items.jsonl"))
    items.write_text("".join(f'{{"stamp": {NESTED}, "text": ""}}\n' for _ in items.read_text().splitlines()))
    cache = manifests.read(tmp_path / "cache")
    with pytest.raises(MismatchError, match="is damaged"):
        read_items(tmp_path / "cache", cache.splits["train"][0])
    (trained / "run.json").write_text(f'{{"verb": {NESTED}}}')
    assert "Traceback" not in refused(words, capsys, "run.json is damaged")


def test_a_sample_of_another_size_than_its_text_says_is_made_again(trained, tmp_path, capsys):
    from PIL import Image, PngImagePlugin

    words = ["sample", "--run", str(trained), "-n", "2", "--steps", "2", "--out", str(tmp_path / "s"), "--device", "cpu", "--json"]
    assert run(words) == 0
    file = tmp_path / "s" / "000001.png"
    good, about = file.read_bytes(), PngImagePlugin.PngInfo()
    with Image.open(file) as image:
        about.add_text("ldmctl", image.text["ldmctl"])
        image.resize((16, 48)).save(file, pnginfo=about)
    capsys.readouterr()
    assert run(words) == 0 and json.loads(capsys.readouterr().out)["made"] == 1 and file.read_bytes() == good
