"""A cache of codes: a fraction of the size, and what is learned from it are exactly the quantized latents."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ldmctl.cli.app import run as command
from ldmctl.config.documents import read_config, write_yaml
from ldmctl.config.presets import pictures_of
from ldmctl.errors import ConfigError, DataError, MismatchError, PluginError
from ldmctl.evaluation.checkup import checkup
from ldmctl.latents import manifest as manifests
from ldmctl.latents import reader as reading
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.items import Item
from ldmctl.latents.reader import Latents, open_latents
from ldmctl.latents.resident import Resident
from ldmctl.latents.store import Store, smallest
from ldmctl.pictures.loading import on_device, open_pictures
from ldmctl.plan import plan_encode_dataset
from ldmctl.stages import fit_diffusion as stage
from ldmctl.stages.sample import sample
from ldmctl.stages.verify_cache import verify_cache
from ldmctl.storage import weights
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
ALL = torch.arange(40)
HOST = ["machine.device=cpu", "machine.precision=fp32"]
FSQ = ["autoencoder={type: fsq, levels: [8, 8, 8], widths: [8, 8], layers: 1, norm_groups: 4, attention: false}"]
COUNT = 6  # pictures of a folder
ITEMS = [Item("a.png", "", 0), Item("b.png", "", 0)]


@pytest.fixture(scope="module", params=["vqvae", "fsq"])
def source(request, tmp_path_factory, fit_ae, vqvae_run):
    """A run of each built-in autoencoder with codes: 16 of them, and 512."""
    return vqvae_run if request.param == "vqvae" else fit_ae(tmp_path_factory.mktemp("fsq") / "ae", *FSQ)


@pytest.fixture(scope="module")
def cache(source, encode, tmp_path_factory):
    """Its codes of 40 + 8 pictures, also mirrored. Read only."""
    return encode(tmp_path_factory.mktemp("codes") / "cache", source, "store=codes", "flip=true")


@pytest.fixture(scope="module")
def small(encode, vqvae_run, tmp_path_factory):
    """Codes of the tiny VQ-VAE alone. Read only."""
    return encode(tmp_path_factory.mktemp("small") / "cache", vqvae_run, "store=codes")


@pytest.fixture
def folder(tmp_path, encode, vqvae_run):
    """folder("store=codes") encodes the pictures of tmp_path/pictures, six at first, into tmp_path/cache."""
    for index in range(COUNT):
        draw(tmp_path, index)
    draw(tmp_path, 100, "val")
    words = [f"data={tmp_path / 'pictures'}", "shard=4", "batch=2", "workers=0"]
    return lambda *more, **options: encode(tmp_path / "cache", vqvae_run, *words, *more, **options)


def draw(place, index, split="train"):
    """A picture like no other."""
    file = place / "pictures" / split / f"{index:02d}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)


def codec_of(source):
    return Codec(load_autoencoder(source / "model.safetensors", CPU)[0], CPU)


def pictures_in(source, tiny, split="train"):
    """All pictures [B,C,H,W] of a split, as they are encoded: in one batch."""
    pictures = open_pictures(tiny("encode-dataset", f"run={source}", below=pictures_of(source)), split)
    return on_device(pictures.batch([(index, None) for index in range(len(pictures))]).image, CPU)


def direct(source, tiny, *, mirrored=False):
    """(features, codes) of all training pictures, without a cache."""
    codec, image = codec_of(source), pictures_in(source, tiny)
    features = codec.encode(image.flip(-1) if mirrored else image)
    return features, codec.autoencoder.codes(features)


def opened(cache, split="train"):
    return open_latents(cache, manifests.read(cache), split)


# -- what is in it -----------------------------------------------------------------------


def test_codes_look_up_to_the_quantized_latents_of_a_direct_encode(source, cache, tiny):
    codec, (features, codes) = codec_of(source), direct(source, tiny)
    stored = opened(cache).stored(ALL)
    assert torch.equal(stored.long(), codes) and len(codes.unique()) > 2
    quantize = getattr(codec.autoencoder, "quantize", None)
    quantized = codec.autoencoder.grid(features) if quantize is None else quantize.quantize(features)
    assert torch.equal(codec.draw(stored), quantized) and not torch.equal(quantized, features)
    assert torch.equal(codec.decode(codec.draw(stored), (16, 16)), codec.decode(features, (16, 16)))


def test_mirrored_variants_are_the_codes_of_the_mirrored_pictures(source, cache, tiny):
    plain, mirrored = (direct(source, tiny, mirrored=mirrored)[1] for mirrored in (False, True))
    which = torch.tensor([True, False] * 20)
    assert not torch.equal(mirrored, plain)
    assert torch.equal(opened(cache).stored(ALL, torch.ones(40, dtype=torch.bool)).long(), mirrored)
    assert torch.equal(opened(cache).stored(ALL, which).long(), torch.where(which[:, None, None], mirrored, plain))


def test_statistics_are_numpys_over_the_looked_up_latents(cache):
    manifest = manifests.read(cache)
    autoencoder, _ = load_autoencoder(cache / "autoencoder.safetensors", CPU)
    latent = autoencoder.lookup(load_file(cache / "train-00000.safetensors")["codes"].long()).double().numpy()
    deviation = latent.std((0, 2, 3))
    if autoencoder.rescale == "common":
        deviation = np.full(3, np.sqrt((deviation**2).mean()))
    assert manifest.statistics.mean == pytest.approx(latent.mean((0, 2, 3)), rel=1e-10, abs=1e-12)
    assert manifest.statistics.deviation == pytest.approx(deviation, rel=1e-10)


def test_the_manifest_says_what_is_stored_and_how_many_codes_are_in_use(cache):
    manifest, tensors = manifests.read(cache), load_file(cache / "train-00000.safetensors")
    assert tensors.keys() == {"codes", "flipped", "labels"} and tensors["codes"].dtype == tensors["flipped"].dtype
    size = 16 if manifest.autoencoder["type"] == "vqvae" else 512
    assert (manifest.store, manifest.shape, manifest.moments, manifest.codes.size) == ("codes", (8, 8), (3, 8, 8), size)
    assert tensors["codes"].dtype == getattr(torch, manifest.dtype) and manifest.dtype == ("uint8" if size == 16 else "uint16")
    _, counts = np.unique(tensors["codes"].numpy(), return_counts=True)
    shares = counts / counts.sum()
    assert manifest.codes.used == len(counts) and manifest.codes.perplexity == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
    assert json.loads((cache / "latents.json").read_text())["preparation"]["store"] == "codes"


@pytest.mark.parametrize(
    ("size", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65_536, "uint16"), (65_537, "int32"), (2**31, "int32")]
)
def test_codes_take_the_smallest_integers_that_hold_them(size, dtype):
    assert smallest(size) == dtype and size - 1 <= torch.iinfo(getattr(torch, dtype)).max


def test_codes_take_a_third_of_the_moments_of_as_many_channels_or_less(source, cache, encode, tmp_path):
    moments = encode(tmp_path / "cache", source, "flip=true")
    one, other = (manifests.read(each) for each in (cache, moments))
    assert other.item_bytes == 2 * 3 * 8 * 8 * 2 and one.item_bytes == 2 * 8 * 8 * (1 if one.dtype == "uint8" else 2)
    tensors = load_file(cache / "train-00000.safetensors")
    assert one.item_bytes * 40 == sum(tensors[name].nbytes for name in ("codes", "flipped"))
    assert other.codes is None and one.item_bytes * 3 <= other.item_bytes


@pytest.mark.parametrize("flip", [False, True])
def test_codes_on_the_device_are_the_mapped_ones(cache, flip):
    latents, items = opened(cache), torch.randperm(40, generator=torch.Generator().manual_seed(0))
    mirrored = items % 2 == 0 if flip else None
    resident = Resident(latents, CPU)
    assert resident.held.dtype == latents.dtype and resident.held.dtype.itemsize < 4
    assert torch.equal(resident.stored(items, mirrored), latents.stored(items, mirrored))


# -- what is learned from it -------------------------------------------------------------


def test_training_on_codes_is_training_that_encodes_and_quantizes_on_the_way(source, cache, tiny, fit_diffusion, tmp_path, monkeypatch):
    words = ["flip=true", "loop.steps=6", "loop.lr=1e-3", "loop.warmup=1"]
    cached = weights.load(fit_diffusion(tmp_path / "cached", cache, *words) / "model.safetensors")[0]
    codec, asked = codec_of(source), []

    def live(self, items, flipped=None, *, pinned=False):
        asked.append(len(items))
        codes = torch.stack([direct(source, tiny, mirrored=mirrored)[1][items] for mirrored in (False, True)])
        return codec.autoencoder.lookup(torch.where(flipped.view(-1, 1, 1), codes[1], codes[0]))

    monkeypatch.setattr(Latents, "stored", live)
    monkeypatch.setattr(stage, "validate", lambda *_: {})
    model = weights.load(fit_diffusion(tmp_path / "live", cache, *words) / "model.safetensors")[0]
    assert sum(asked) == 6 * 8
    assert model.keys() == cached.keys() and all(torch.equal(model[name], cached[name]) for name in cached)


def test_a_run_trained_on_codes_samples_and_its_chain_is_looked_at(cache, fit_diffusion, tiny, quiet, tmp_path):
    ldm = fit_diffusion(tmp_path / "ldm", cache)
    sample(tiny("sample", f"run={ldm}", "count=1", "steps=2", "machine.device=cpu"), tmp_path / "samples", console=quiet)
    assert Image.open(tmp_path / "samples" / "000000.png").size == (16, 16)
    links = {link["name"]: link for link in checkup(str(ldm), device="cpu")["links"]}
    assert links["whiten"]["verdict"] == "good" and "could not be tried" not in " ".join(link["sentence"] for link in links.values())


# -- kept up -----------------------------------------------------------------------------


def test_only_added_pictures_are_encoded_and_codes_in_use_are_counted_anew(folder, tmp_path, monkeypatch, quiet):
    cache = folder("store=codes")
    before, manifest = opened(cache).stored(torch.arange(COUNT)), manifests.read(cache)
    for index in range(3):
        draw(tmp_path, COUNT + index)
    seen, whole = [], Codec.encode
    monkeypatch.setattr(Codec, "encode", lambda self, image: (seen.append(len(image)), whole(self, image))[1])
    folder("store=codes")
    now = manifests.read(cache)
    stored = opened(cache).stored(torch.arange(COUNT + 3))
    assert sum(seen) == 3 and torch.equal(stored[:COUNT], before) and now.statistics == manifest.statistics != now.measured
    assert now.codes.used == len(stored.long().unique()) and now.codes.perplexity != manifest.codes.perplexity
    assert verify_cache(cache, console=quiet)["items"]["train"] == COUNT + 3


def test_what_is_stored_is_named_in_the_preparation_of_codes_alone(folder, tmp_path):
    cache = folder()
    assert "store" not in manifests.read(cache).preparation  # so that it is the one of caches from before there was a choice
    assert manifests.read(folder("store=codes", overwrite=True)).preparation["store"] == "codes"


def test_a_cache_of_moments_does_not_become_one_of_codes(folder):
    cache = folder()
    with pytest.raises(MismatchError, match='store: "moments" there, "codes" asked for'):
        folder("store=codes")
    assert manifests.read(cache).codes is None
    assert manifests.read(folder("store=codes", overwrite=True)).store == "codes"


def test_a_cache_older_than_codes_is_read_and_kept_up(folder, tmp_path):
    cache = folder()
    stored, raw, config = opened(cache).stored(torch.arange(COUNT)), json.loads((cache / "latents.json").read_text()), read_config(cache)
    del raw["codes"], config["store"]
    (cache / "latents.json").write_text(json.dumps(raw))
    (cache / "config.yaml").write_text(write_yaml(config))
    assert manifests.read(cache).store == "moments" and torch.equal(opened(cache).stored(torch.arange(COUNT)), stored)
    draw(tmp_path, COUNT)
    folder()
    assert torch.equal(opened(cache).stored(torch.arange(COUNT)), stored) and len(opened(cache)) == COUNT + 1


def test_a_flipped_bit_in_codes_is_found(cache, tmp_path, quiet, monkeypatch):
    copy = Path(shutil.copytree(cache, tmp_path / "copy"))
    part = Latents(copy, manifests.read(copy), "train").parts[0]
    data = bytearray((copy / part.shard.file).read_bytes())
    data[part.offset + 70] ^= 1
    (copy / part.shard.file).write_bytes(data)
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors has changed"):
        verify_cache(copy, console=quiet)
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors has changed"):
        opened(copy)
    monkeypatch.setattr(reading, "VERIFIED", -1)
    latents = opened(copy)
    with pytest.raises(MismatchError, match="in block 0 of its codes"):
        latents.stored(torch.tensor([3]))


# -- refused -----------------------------------------------------------------------------


def test_an_autoencoder_without_codes_is_refused_before_anything_is_read(vae_run, tiny, encode, tmp_path):
    with pytest.raises(
        ConfigError, match=r"store=codes needs an autoencoder with a codebook, .* a VAE, .* no codes, lookup, code_count.*store=moments"
    ):
        encode(tmp_path / "cache", vae_run, "store=codes")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ConfigError, match="store=codes needs an autoencoder with a codebook"):
        plan_encode_dataset(tiny("encode-dataset", f"run={vae_run}", "store=codes", below=pictures_of(vae_run)))


def test_a_dtype_for_moments_is_refused_with_codes(tiny, vqvae_run):
    with pytest.raises(ConfigError, match=r"dtype=float16 is for moments"):
        tiny("encode-dataset", f"run={vqvae_run}", "store=codes", "dtype=float16", below=pictures_of(vqvae_run))


def test_moments_that_are_not_finite_have_no_codes(source, tiny):
    codec, image = codec_of(source), pictures_in(source, tiny, "val")[:2]
    image[1] = math.nan
    store = Store("uint16", [3, 8, 8], [3, 8, 8], [8, 8], codec.autoencoder.code_count)
    with pytest.raises(DataError, match=r"no codes of \['b.png'\]: their moments are not finite"):
        store.checked({"codes": store.of(image, codec)}, ITEMS)


def test_codes_beyond_the_codebook_are_refused():
    store = Store("uint8", [3, 1, 1], [3, 1, 1], [1, 1], 16)
    codes = torch.tensor([3, 15], dtype=torch.int32).view(2, 1, 1)
    assert torch.equal(store.checked({"codes": codes}, ITEMS)["codes"], codes.to(torch.uint8))
    with pytest.raises(PluginError, match="gives code 16, and its code_count is 16"):
        store.checked({"codes": codes + 1}, ITEMS)


# -- said --------------------------------------------------------------------------------


def test_the_command_and_cache_info_say_bytes_per_item_and_codes_in_use(small, vqvae_run, tmp_path, capsys):
    codes = manifests.read(small).codes
    said = f"codes 8 x 8 in uint8, 64 bytes each; {codes.used} of 16 codes are in use ({codes.used / 16:.1%}), perplexity {codes.perplexity:.1f}"
    assert command(["cache", "info", str(small)]) == 0
    assert f"3 x 8 x 8, stored as {said}" in capsys.readouterr().out
    words = ["encode-dataset", "--run", str(vqvae_run), "--out", str(tmp_path / "cache"), "store=codes", *HOST]
    assert command([*words, "--json"]) == 0
    told = capsys.readouterr()
    assert told.err.strip().splitlines()[-1] == f"40 + 8 latents of 3 x 8 x 8 are in {tmp_path / 'cache'}, stored as {said}."
    found = json.loads(told.out)
    assert found["bytes_per_item"] == 64 and found["codes"] == codes.model_dump(mode="json")
    assert command([*words, "--dry-run"]) == 0
    assert "8 x 8" in capsys.readouterr().out
