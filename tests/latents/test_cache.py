"""A cache holds every picture once, says what it is of, and is refused when it is not what it says."""

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ldmctl.errors import ConfigError, DataError, MismatchError
from ldmctl.latents import manifest as manifests
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.items import Item
from ldmctl.latents.reader import open_latents
from ldmctl.latents.statistics import RunningStatistics
from ldmctl.latents.writer import checked_rows
from ldmctl.stages.fit_diffusion import check_cache
from ldmctl.stages.verify_cache import verify_cache
from ldmctl.storage import weights
from ldmctl.training.engine import Engine
from ldmctl.training.order import generator

CPU = Engine(torch.device("cpu"), torch.float32)


def opened(folder, split="train"):
    return open_latents(folder, manifests.read(folder), split)


def stored(folder, split="train"):
    """Tensors of all shards of a split, read by safetensors itself."""
    files = sorted(folder.glob(f"{split}-*.safetensors"))
    assert files
    parts = [load_file(file) for file in files]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def codec_of(folder):
    autoencoder, _ = load_autoencoder(folder / "autoencoder.safetensors", CPU)
    return Codec(autoencoder, CPU, manifests.read(folder).statistics)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two classes with 12 pictures, no two alike and none symmetric."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for index in range(count):
            file = folder / split / ("cats", "dogs")[index % 2] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(file)
    return folder


@pytest.fixture
def of_folder(encode, vqvae_run, pictures, tmp_path):
    """of_folder("shard=3") encodes a copy of the pictures, which may then change, into tmp_path/cache."""

    def run(*overrides, source=vqvae_run, **options):
        copy = tmp_path / "pictures"
        if not copy.exists():
            shutil.copytree(pictures, copy)
        return encode(tmp_path / "cache", source, f"data={copy}", *overrides, **options)

    return run


# -- what is in it ---------------------------------------------------------------------


def test_every_picture_is_there_once_with_its_label_and_name(of_folder):
    cache = of_folder()
    manifest = manifests.read(cache)
    assert (manifest.classes, manifest.label_counts, manifest.latent) == (["cats", "dogs"], [4, 4], (3, 8, 8))
    for split, count in (("train", 8), ("val", 4)):
        latents = opened(cache, split)
        items = list(latents.items())
        assert len(latents) == len(items) == manifest.count(split) == count
        assert len({item["stamp"] for item in items}) == count
        named = [manifest.classes.index(Path(item["stamp"].split(":")[0]).parent.name) for item in items]
        assert latents.labels.tolist() == named


def test_what_is_known_of_some_rows_is_what_is_known_of_them_among_all(of_folder):
    latents = opened(of_folder("shard=3"))
    every = list(latents.items())
    assert len(latents.shards) == 3 and list(latents.items({7, 0, 3})) == [every[0], every[3], every[7]]


def test_a_set_that_draws_itself_is_encoded_too(vae_cache):
    manifest = manifests.read(vae_cache)
    assert (manifest.count("train"), manifest.count("val"), manifest.moments, manifest.latent) == (40, 8, (6, 8, 8), (3, 8, 8))
    assert sum(manifest.label_counts) == 40 and manifest.classes[0] == "red circle"
    assert all("on a" in item["text"] for item in opened(vae_cache).items())
    assert (vae_cache / "autoencoder.safetensors").exists() and (vae_cache / "config.yaml").exists()


def test_moments_are_those_of_the_pictures(of_folder, pictures):
    from ldmctl.pictures.images import prepare, to_float

    cache = of_folder("dtype=float32")
    config = type("Settings", (), {"size": 16, "channels": 3, "crop": "center", "flip": False, "background": "white"})
    codec = codec_of(cache)
    latents = opened(cache)
    for index, item in enumerate(latents.items()):
        path = pictures / "train" / item["stamp"].split(":")[0].split("train/")[-1]
        image = to_float(prepare(Image.open(path), config)[None])
        torch.testing.assert_close(latents.stored(torch.tensor([index])), codec.encode(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["vqvae", "identity"])
def test_statistics_are_numpys_over_what_is_stored(kind, request, encode, fit_ae, tmp_path):
    name = "vqvae_run" if kind == "vqvae" else None
    source = request.getfixturevalue(name) if name else fit_ae(tmp_path / "ae", "autoencoder={type: identity}")
    cache = encode(tmp_path / "cache", source)
    moments = stored(cache)["moments"].double().numpy()
    statistics = manifests.read(cache).statistics
    assert statistics.mean == pytest.approx(moments.mean((0, 2, 3)), rel=1e-10)
    deviation = moments.std((0, 2, 3))
    if kind == "vqvae":
        deviation = np.full(3, np.sqrt((deviation**2).mean()))
    assert statistics.deviation == pytest.approx(deviation, rel=1e-10)


def test_whitened_latents_of_a_vae_have_mean_0_and_deviation_1_in_each_channel(vae_cache):
    codec, latents = codec_of(vae_cache), opened(vae_cache)
    moments = latents.stored(torch.arange(len(latents)).repeat(50))
    white = codec.whiten(codec.draw(moments, generator("cpu", "test")))
    drawn_once = len(latents) * white[0, 0].numel()  # values of a channel that the statistics saw, posterior noise included
    torch.testing.assert_close(white.mean((0, 2, 3)), torch.zeros(3), atol=4 / drawn_once**0.5, rtol=0)
    torch.testing.assert_close(white.std((0, 2, 3)), torch.ones(3), atol=4 / (2 * drawn_once) ** 0.5, rtol=0)


def test_whitened_latents_of_a_vqvae_have_mean_0_and_one_deviation_for_all(vqvae_cache):
    codec, latents = codec_of(vqvae_cache), opened(vqvae_cache)
    white = codec.whiten(latents.stored(torch.arange(len(latents))).float())
    torch.testing.assert_close(white.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert float(white.square().mean()) == pytest.approx(1, abs=1e-5)
    assert len(set(manifests.read(vqvae_cache).statistics.deviation)) == 1
    assert white.std((0, 2, 3)).max() - white.std((0, 2, 3)).min() > 1e-3, "channels keep their proportions"
    torch.testing.assert_close(codec.unwhiten(white), latents.stored(torch.arange(len(latents))).float())


@pytest.mark.parametrize("split", [1, 7, 100])
def test_statistics_do_not_depend_on_how_latents_arrive(split):
    latent = torch.randn(100, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e-3, 50.0])[:, None, None] + 300
    running = RunningStatistics()
    for part in latent.split(split):
        running.add(part)
    values = latent.double()
    assert running.statistics("channel").mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert running.statistics("channel").deviation == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), rel=1e-9)


def test_a_dead_channel_is_named():
    running = RunningStatistics()
    running.add(torch.randn(4, 3, 2, 2) * torch.tensor([1.0, 0.0, 1.0])[:, None, None])
    with pytest.raises(DataError, match=r"Latent channels \[1\] are the same for every picture"):
        running.statistics("channel")
    assert running.statistics("common")


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_shards_of_any_size_read_back_the_same(of_folder, size):
    cache = of_folder(f"shard={size}")
    latents, whole = opened(cache), stored(cache)
    assert len(latents.shards) == -(-8 // size)
    asked = torch.tensor([7, 0, 3, 3, 5])
    assert torch.equal(latents.stored(asked), whole["moments"][asked])
    assert torch.equal(latents.labels, whole["labels"])
    for shard in latents.shards:
        assert shard.crc32 == [zlib.crc32(load_file(cache / shard.file)["moments"].numpy().tobytes())]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_size_of_shards_and_batches_changes_no_latent(of_folder, encode, vqvae_run, tmp_path, size):
    base = of_folder("dtype=float32")
    other = encode(tmp_path / "other", vqvae_run, f"data={tmp_path / 'pictures'}", f"shard={size}", f"batch={size}", "dtype=float32")
    one, two = stored(base), stored(other)
    torch.testing.assert_close(one["moments"], two["moments"], rtol=1e-4, atol=1e-6)
    assert [*opened(base).items()] == [*opened(other).items()]


def test_a_mirrored_variant_is_the_encoding_of_the_mirrored_picture(of_folder, encode, vqvae_run, tmp_path, pictures):
    cache = of_folder("flip=true", "dtype=float32", "shard=3")
    mirrored = tmp_path / "mirrored"
    for file in pictures.rglob("*.png"):
        target = mirrored / file.relative_to(pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target)
    other = encode(tmp_path / "other", vqvae_run, f"data={mirrored}", "dtype=float32")
    items, which = torch.arange(8), torch.tensor([True, False] * 4)
    plain, flipped, expected = (
        opened(cache).stored(items),
        opened(cache).stored(items, torch.ones(8, dtype=torch.bool)),
        opened(other).stored(items),
    )
    torch.testing.assert_close(flipped, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(flipped, plain, atol=1e-2)
    assert torch.equal(opened(cache).stored(items, which), torch.where(which[:, None, None, None], flipped, plain))
    assert manifests.read(cache).flipped


def test_moments_that_half_precision_cannot_hold_are_refused_by_name():
    moments = torch.ones(2, 1, 1, 1)
    moments[1] = 1e6
    with pytest.raises(DataError, match=r"Moments are not finite in torch.float16 for \['b.png'\]. Try dtype=float32"):
        checked_rows({"moments": moments.half()}, [Item("a.png", "", 0), Item("b.png", "", 0)])


# -- keeping and refusing ----------------------------------------------------------------


def contents(cache):
    return {path.name: path.read_bytes() for path in cache.iterdir() if path.name not in (".lock", "run.json")}


def test_a_finished_cache_is_kept(of_folder):
    cache = of_folder()
    times = {path: path.stat().st_mtime_ns for path in cache.glob("*.safetensors")}
    before = contents(cache)
    of_folder("batch=2")
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.safetensors")} == times
    assert {name: value for name, value in contents(cache).items() if name != "config.yaml"} == {
        name: value for name, value in before.items() if name != "config.yaml"
    }


def test_another_autoencoder_is_refused(of_folder, fit_ae, vqvae_words, tmp_path):
    source = fit_ae(tmp_path / "ae", *vqvae_words)
    cache = of_folder(source=source)
    before = contents(cache)
    fit_ae(tmp_path / "ae", *vqvae_words, "loop.steps=5")
    with pytest.raises(
        MismatchError, match=r"of another autoencoder \(or another state of it\):\n  autoencoder\.fingerprint: .*\n.*--overwrite"
    ) as caught:
        of_folder(source=source)
    assert caught.value.exit_code == 6 and contents(cache) == before
    of_folder(source=source, overwrite=True)
    assert contents(cache)["train-00000.safetensors"] != before["train-00000.safetensors"]
    of_folder(source=source)


def test_an_unreadable_picture_is_left_out_and_listed(of_folder, tmp_path):
    cache = of_folder()
    whole = opened(cache).stored(torch.arange(8))
    names = [item["stamp"].split(":")[0] for item in opened(cache).items()]
    (tmp_path / "pictures" / "train" / "dogs" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    of_folder(overwrite=True)
    lost = next(index for index, name in enumerate(names) if name.endswith("dogs/3.png"))
    rest = torch.tensor([index for index in range(8) if index != lost])
    assert [item["stamp"].split(":")[0] for item in opened(cache).items()] == [names[index] for index in rest]
    torch.testing.assert_close(opened(cache).stored(torch.arange(7)), whole[rest], rtol=1e-3, atol=1e-4)
    assert manifests.read(cache).label_counts == [4, 3]
    (row,) = [json.loads(line) for line in (cache / "bad_images.jsonl").read_text().splitlines()]
    assert row["file_name"].endswith("dogs/3.png") and row["reason"]


def test_pictures_of_other_channels_are_refused(encode, vqvae_run, tmp_path):
    with pytest.raises(MismatchError, match=r"encodes pictures of 3 channels, image\.channels=1 was asked for"):
        encode(tmp_path / "cache", vqvae_run, "image.channels=1")


# -- features of a frozen encoder ----------------------------------------------------------------


def with_features(cache):
    """The cache with `features` [n, tokens, width] in every shard, row i of which says i throughout."""
    manifest = json.loads((cache / "latents.json").read_text())
    for shard in (shard for row in manifest["splits"].values() for shard in row):
        tensors, header = weights.load(cache / shard["file"])
        features = torch.arange(shard["count"]).view(-1, 1, 1).expand(-1, 4, 6).to(torch.bfloat16)
        weights.save(cache / shard["file"], {**tensors, "features": features.contiguous()}, header)
        shard["sha256"] = weights.file_sha256(cache / shard["file"])
    (cache / "latents.json").write_text(json.dumps(manifest))
    return cache


def test_a_shard_that_also_has_features_is_opened_verified_and_trained_on_as_without(vae_cache, fit_diffusion, quiet, tmp_path):
    cache = with_features(Path(shutil.copytree(vae_cache, tmp_path / "cache")))
    for split in ("train", "val"):
        rows = torch.arange(len(opened(vae_cache, split)))
        assert torch.equal(opened(cache, split).stored(rows), opened(vae_cache, split).stored(rows))
    assert verify_cache(cache, console=quiet)["whole"]
    runs = [fit_diffusion(tmp_path / name, each) for name, each in (("with", cache), ("without", vae_cache))]
    models = [load_file(run / "model.safetensors") for run in runs]
    assert models[0].keys() == models[1].keys() and all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_features_are_verified_by_the_hash_of_their_shard(vae_cache, quiet, tmp_path):
    cache = with_features(Path(shutil.copytree(vae_cache, tmp_path / "cache")))
    file = cache / "train-00000.safetensors"
    whole = bytearray(file.read_bytes())
    header = json.loads(whole[8 : (start := 8 + int.from_bytes(whole[:8], "little"))])
    whole[start + header["features"]["data_offsets"][0] + 3] ^= 1
    file.write_bytes(whole)
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors has changed since it was written"):
        verify_cache(cache, console=quiet)
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors has changed since it was written"):
        opened(cache)


def test_rows_that_are_copied_keep_their_features_unless_new_ones_beside_them_have_none(of_folder, tmp_path):
    cache = with_features(of_folder())
    gone = next(row for row, item in enumerate(opened(cache).items()) if "2.png" in item["stamp"])
    (tmp_path / "pictures" / "train" / "cats" / "2.png").unlink()
    of_folder()
    assert stored(cache)["features"][:, 0, 0].tolist() == [row for row in range(8) if row != gone]
    Image.fromarray(np.full((20, 20, 3), 99, dtype=np.uint8)).save(tmp_path / "pictures" / "train" / "cats" / "new.png")
    of_folder()
    assert len(opened(cache)) == 8 and "features" not in stored(cache) and "features" in stored(cache, "val")


# -- damage ------------------------------------------------------------------------------------


@pytest.fixture
def broken(vqvae_cache, tmp_path):
    """A copy of a cache, to be damaged."""
    return Path(shutil.copytree(vqvae_cache, tmp_path / "cache"))


def test_any_flipped_bit_in_a_shard_is_noticed(broken):
    manifest = manifests.read(broken)
    file = broken / "train-00000.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(8), *range(8, header, 7), header, (header + len(whole)) // 2, len(whole) - 1]
    for place in places:
        for bit in (0, 6, 7):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(MismatchError, match=r"train-00000\.safetensors .*Encode again"):
                open_latents(broken, manifest, "train")
    file.write_bytes(whole)
    assert len(open_latents(broken, manifest, "train")) == 40


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_a_shard_that_was_cut_off_is_noticed(broken, left):
    file = broken / "train-00000.safetensors"
    whole = file.read_bytes()
    os.truncate(file, left % len(whole))
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors .*the same ldmctl encode-dataset") as caught:
        opened(broken)
    assert caught.value.exit_code == 6


def test_a_missing_shard_is_noticed(broken):
    (broken / "train-00000.safetensors").unlink()
    with pytest.raises(MismatchError, match=r"train-00000\.safetensors is missing"):
        opened(broken)


def test_shards_that_changed_places_are_noticed(of_folder):
    cache = of_folder("shard=4")
    one, two = cache / "train-00000.safetensors", cache / "train-00001.safetensors"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(MismatchError, match="has changed since it was written"):
        opened(cache)


def test_a_cache_without_its_manifest_is_said_to_be_unfinished(broken, tmp_path):
    (broken / "latents.json").unlink()
    with pytest.raises(MismatchError, match="was started and not finished; run the same `ldmctl encode-dataset` again"):
        manifests.read(broken)
    with pytest.raises(MismatchError, match=r"There is no cache of latents in .*nowhere: it has no latents\.json"):
        manifests.read(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ['{"format": 1}', '{"format": 2}', "[1, 2]", '{"for', ""])
def test_a_damaged_manifest_is_a_mismatch(broken, damage):
    (broken / "latents.json").write_text(damage)
    with pytest.raises(MismatchError, match="Encode again"):
        manifests.read(broken)


def test_a_manifest_of_a_later_version_may_say_more(broken):
    file = broken / "latents.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"store": "moments", "conditions": {"tokens": 3}}))
    assert manifests.read(broken).count("train") == 40


def test_a_cache_with_a_foreign_autoencoder_is_refused(broken, vae_run, tiny):
    config = tiny("fit-diffusion", f"latents={broken}")
    check_cache(config, broken)
    shutil.copyfile(vae_run / "model.safetensors", broken / "autoencoder.safetensors")
    with pytest.raises(MismatchError, match="is not the autoencoder that made the latents beside it"):
        check_cache(config, broken)


def test_what_a_cache_does_not_hold_cannot_be_learned_from(vae_cache, tiny, encode, fit_ae, tmp_path):
    with pytest.raises(ConfigError, match=r"flip=true, but .* holds no mirrored variants"):
        check_cache(tiny("fit-diffusion", f"latents={vae_cache}", "flip=true"), vae_cache)
    flat = tmp_path / "flat"
    flat.mkdir()
    for index in range(6):
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(flat / f"{index}.png")
    ae = fit_ae(tmp_path / "ae", "autoencoder={type: identity}")
    cache = encode(tmp_path / "cache", ae, f"data={flat}")
    with pytest.raises(
        ConfigError, match=r"conditions\.label=label has nothing to listen to: .* has no labels\. Take conditions\.label=null"
    ):
        check_cache(tiny("fit-diffusion", f"latents={cache}"), cache)


# -- folding -------------------------------------------------------------------------------------


def spread(codec, mean, deviation):
    """The codec with statistics that matter."""
    shape = (1, -1, 1, 1)
    codec.mean, codec.deviation = torch.tensor(mean).view(shape), torch.tensor(deviation).view(shape)
    return codec


def test_statistics_fold_into_the_weights_of_a_vae(vae_cache):
    codec = spread(codec_of(vae_cache), [0.5, -2.0, 1.0], [0.3, 1.7, 4.0])
    z = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = codec.decode(z, (16, 16))
    folded = codec_of(vae_cache).autoencoder
    first = folded.post_quant_conv
    weight = first.weight.clone()
    first.bias.add_((weight[:, :, 0, 0] * codec.mean.view(1, -1)).sum(1))
    first.weight.mul_(codec.deviation)
    torch.testing.assert_close(folded.decode(z).clamp(-1, 1), expected, atol=1e-4, rtol=0)
    assert not torch.allclose(codec.autoencoder.decode(z).clamp(-1, 1), expected, atol=1e-2)


def test_statistics_fold_into_the_codebook_of_a_vqvae(vqvae_cache):
    codec = spread(codec_of(vqvae_cache), [0.5, -2.0, 1.0], [1.7, 1.7, 1.7])
    z = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(16, 3, generator=torch.Generator().manual_seed(1)) * 2 + codec.mean.view(1, -1)
    folded = codec_of(vqvae_cache).autoencoder
    for autoencoder in (codec.autoencoder, folded):
        autoencoder.quantize.embedding.weight.copy_(rows)
    expected, codes = codec.decode(z, (16, 16)), codec.autoencoder.codes(codec.unwhiten(z))
    # Nearest codes are the same ones when rows and features are moved and scaled alike ...
    folded.quantize.embedding.weight.copy_((rows - codec.mean.view(1, -1)) / codec.deviation.view(1, -1))
    assert torch.equal(folded.codes(z), codes) and codes.unique().numel() > 4
    # ... and the layer behind them takes it back.
    behind = folded.post_quant_conv
    weight = behind.weight.clone()
    behind.bias.add_((weight[:, :, 0, 0] * codec.mean.view(1, -1)).sum(1))
    behind.weight.mul_(codec.deviation)
    torch.testing.assert_close(folded.decode(z).clamp(-1, 1), expected, atol=1e-4, rtol=0)


def test_the_header_of_a_cache_names_no_place_and_no_time(vqvae_cache):
    header = weights.read_header(vqvae_cache / "train-00000.safetensors")
    assert header.keys() == {"format", "kind", "split", "plan"} and len(header["plan"]) == 64
    assert str(vqvae_cache.parent) not in (vqvae_cache / "latents.json").read_text()
