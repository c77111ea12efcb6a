"""Encoding continues where it stopped, takes up what changed and nothing else, and many processes write what one writes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ldmctl.errors import MismatchError
from ldmctl.latents import manifest as manifests
from ldmctl.latents import writer
from ldmctl.latents.codec import Codec
from ldmctl.latents.items import Item
from ldmctl.latents.manifest import Shard, Statistics, differences, drift
from ldmctl.latents.plan import Target, plan_split
from ldmctl.latents.reader import Latents
from ldmctl.stages.verify_cache import verify_cache

COUNT = 11  # training pictures
TINY = Path(__file__).parents[1] / "tiny"
HOST = ["machine.device=cpu", "machine.precision=fp32"]


class Killed(Exception):
    """Stands for the end of the process."""


def draw_picture(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)


@pytest.fixture
def pictures(tmp_path):
    """A folder of 11 + 3 pictures in two classes."""
    folder = tmp_path / "pictures"
    for index in range(COUNT):
        draw_picture(folder / "train" / ("cats", "dogs")[index % 2] / f"{index:02d}.png", index)
    for index in range(3):
        draw_picture(folder / "val" / "cats" / f"{index}.png", 100 + index)
    return folder


@pytest.fixture
def of(encode, vqvae_run, pictures, tmp_path):
    """of("cache", "shard=4") encodes the pictures into tmp_path/cache."""

    def run(name="cache", *words, source=vqvae_run, **options):
        return encode(tmp_path / name, source, f"data={pictures}", "shard=4", "batch=2", "workers=0", *words, **options)

    return run


@pytest.fixture
def encoded(monkeypatch):
    """How many pictures went through an encoder."""
    seen = []
    whole = Codec.encode
    monkeypatch.setattr(Codec, "encode", lambda self, image: (seen.append(len(image)), whole(self, image))[1])
    return lambda: sum(seen)


def files(cache):
    """The bytes of all that makes a cache, by name."""
    return {path.name: path.read_bytes() for path in cache.iterdir() if path.name not in (".lock", "run.json", "config.yaml")}


def rows(cache, split="train"):
    """{name of a picture: (moments, label, caption)}"""
    latents = Latents(cache, manifests.read(cache), split)
    moments = latents.stored(torch.arange(len(latents)))
    names = [(item["stamp"].rsplit(":", 2)[0], item["text"]) for item in latents.items()]
    return {name: (moments[row], int(latents.labels[row]), text) for row, (name, text) in enumerate(names)}


def die_after(monkeypatch, count):
    """Let the command end after so many shards, with the next one written half."""
    written = []
    whole = writer.write

    def write(folder, target, encoded, draw):
        if len(written) == count:
            (folder / target.file).with_suffix(".items.jsonl").write_text("half of it")
            (folder / f".{target.file}.1.tmp").write_bytes(b"half of it")
            raise Killed
        written.append(target.file)
        return whole(folder, target, encoded, draw)

    monkeypatch.setattr(writer, "write", write)


# -- interrupted ---------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_command_killed_at_any_shard_goes_on_to_the_same_bytes(of, monkeypatch, count):
    whole = files(of("whole", "flip=true"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_after(patch, count)
        of("parts", "flip=true")
    parts = of("parts", "flip=true")
    assert len(whole) > 8 and files(parts) == whole


def test_shards_that_are_finished_are_not_encoded_again(of, monkeypatch, encoded):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_after(patch, 2)
        of("parts", "dtype=float32")
    before = encoded()
    of("parts", "dtype=float32")
    probed = COUNT
    assert encoded() - before == COUNT + 3 - 8 + probed


def test_a_change_of_config_does_not_throw_away_finished_shards(of, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_after(patch, 2)
        of()
    with pytest.raises(MismatchError, match=r"flip: false there, true asked for"):
        of("cache", "flip=true")
    assert manifests.read(of("cache", "flip=true", overwrite=True)).flipped


@pytest.mark.slow
def test_kill_9_and_the_same_command_end_as_if_nothing_had_happened(vqvae_run, tmp_path):
    words = ["dataset.count=900", "shard=32", "batch=4", "workers=0", f"run={vqvae_run}", *HOST]
    command = [sys.executable, "-m", "ldmctl", "encode-dataset", *words, "--out"]
    with subprocess.Popen([*command, str(tmp_path / "parts")], stderr=subprocess.DEVNULL) as process:
        while len(list((tmp_path / "parts").glob("train-*.safetensors"))) < 3 and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "parts" / "latents.json").exists()
    for name in ("parts", "whole"):
        subprocess.run([*command, str(tmp_path / name)], check=True, stderr=subprocess.DEVNULL)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


# -- brought up to date ---------------------------------------------------------


def test_only_added_pictures_are_encoded(of, pictures, encoded):
    cache = of()
    before, manifest = rows(cache), manifests.read(cache)
    for index in range(10):
        draw_picture(pictures / "train" / "cats" / f"0a{index}.png", 200 + index)  # sorted among the others
    count = encoded()
    of()
    assert encoded() - count == 10
    after, now = rows(cache), manifests.read(cache)
    assert len(after) == COUNT + 10
    assert list(after)[:COUNT] == list(before), "what was there stays where it was"
    assert all(torch.equal(after[name][0], before[name][0]) for name in before)
    assert now.splits["train"][:2] == manifest.splits["train"][:2] and now.splits["val"] == manifest.splits["val"]
    assert [shard.count for shard in now.splits["train"]] == [4, 4, 4, 4, 4, 1]
    assert now.statistics == manifest.statistics and now.measured != manifest.measured
    assert now.fingerprint != manifest.fingerprint


def test_a_cache_that_grew_holds_what_a_fresh_one_holds(of, pictures):
    grown = of("grown", "dtype=float32")
    draw_picture(pictures / "train" / "birds" / "0.png", 300)  # a class before the others: every label moves
    (pictures / "train" / "dogs" / "01.png").unlink()
    of("grown", "dtype=float32")
    fresh = of("fresh", "dtype=float32")
    one, other = rows(grown), rows(fresh)
    assert one.keys() == other.keys() and len(one) == COUNT
    for name in one:
        torch.testing.assert_close(one[name][0], other[name][0], rtol=1e-4, atol=1e-6)
        assert one[name][1:] == other[name][1:]
    assert manifests.read(grown).classes == ["birds", "cats", "dogs"]
    assert manifests.read(grown).label_counts == manifests.read(fresh).label_counts == [1, 6, 4]
    measured, exact = manifests.read(grown).measured, manifests.read(fresh).statistics
    assert measured.mean == pytest.approx(exact.mean, rel=1e-5) and measured.deviation == pytest.approx(exact.deviation, rel=1e-5)


def test_removed_and_edited_pictures_touch_their_shards_alone(of, pictures, encoded):
    cache = of()
    before, manifest = rows(cache), manifests.read(cache)
    (pictures / "train" / "cats" / "00.png").unlink()
    draw_picture(pictures / "train" / "cats" / "02.png", 77)
    count = encoded()
    of()
    assert encoded() - count == 1
    after, now = rows(cache), manifests.read(cache)
    assert before.keys() - after.keys() == {"train/cats/00.png"} and len(after) == COUNT - 1
    assert not torch.equal(after["train/cats/02.png"][0], before["train/cats/02.png"][0])
    assert all(torch.equal(after[name][0], before[name][0]) for name in after if name != "train/cats/02.png")
    assert now.splits["train"][1] == manifest.splits["train"][1]
    assert {path.name for path in cache.glob("*.safetensors")} - {"autoencoder.safetensors"} == {
        shard.file for row in now.splits.values() for shard in row
    }


def test_labels_and_captions_that_changed_are_rewritten_without_encoding(of, pictures, encoded):
    notes = [{"file_name": f"train/{('cats', 'dogs')[i % 2]}/{i:02d}.png", "label": "x", "text": f"no. {i}"} for i in range(COUNT)]
    metadata = pictures / "train" / "metadata.jsonl"
    metadata.write_text("".join(json.dumps(note) + "\n" for note in notes))
    cache = of()
    before, fingerprint, count = rows(cache), manifests.read(cache).fingerprint, encoded()
    notes[3] |= {"label": "y", "text": "another\u2028line"}
    metadata.write_text("".join(json.dumps(note) + "\n" for note in notes))
    of()
    after = rows(cache)
    assert encoded() == count
    assert after["train/dogs/03.png"][1:] == (1, "another\u2028line") and before["train/dogs/03.png"][1:] == (0, "no. 3")
    assert list(after) == list(before) and all(torch.equal(after[name][0], before[name][0]) for name in before)
    assert manifests.read(cache).label_counts == [COUNT - 1, 1] and manifests.read(cache).fingerprint != fingerprint


def test_a_class_of_another_name_is_taken_up_without_encoding(of, pictures, encoded):
    notes = [{"file_name": f"train/{('cats', 'dogs')[i % 2]}/{i:02d}.png", "label": ("a", "b")[i % 2]} for i in range(COUNT)]
    metadata = pictures / "train" / "metadata.jsonl"
    metadata.write_text("".join(json.dumps(note) + "\n" for note in notes))
    cache, count = of(), encoded()
    metadata.write_text("".join(json.dumps(note | {"label": {"a": "a", "b": "c"}[note["label"]]}) + "\n" for note in notes))
    assert manifests.read(of()).classes == ["a", "c"] and manifests.read(cache).classes == ["a", "c"]
    assert encoded() == count


def test_a_re_run_opens_no_picture_that_has_not_changed(of, pictures, monkeypatch):
    for index in range(COUNT):  # a caption beside each
        (pictures / "train" / ("cats", "dogs")[index % 2] / f"{index:02d}.txt").write_text(f"no. {index}")
    cache = of()
    opened, whole = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, *more: (opened.append(Path(file).name), whole(file, *more))[1])
    of()
    assert opened == []
    (pictures / "train" / "dogs" / "03.txt").write_text("another")
    draw_picture(pictures / "train" / "cats" / "new.png", 50)
    of()
    assert set(opened) == {"new.png"}
    assert rows(cache)["train/dogs/03.png"][2] == "another" and rows(cache)["train/cats/00.png"][2] == "no. 0"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_update_that_is_killed_leaves_the_old_cache_whole_and_then_goes_on(of, pictures, monkeypatch, quiet, count):
    for name in ("whole", "parts"):
        of(name)
    (pictures / "train" / "cats" / "00.png").unlink()
    (pictures / "val" / "cats" / "1.png").unlink()
    draw_picture(pictures / "train" / "dogs" / "99.png", 99)
    of("whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_after(patch, count)
        of("parts")
    parts = Path(pictures.parent / "parts")
    assert verify_cache(parts, console=quiet)["items"] == {"train": COUNT, "val": 3}
    of("parts")
    assert files(parts) == files(pictures.parent / "whole")
    assert verify_cache(parts, console=quiet)["items"] == {"train": COUNT, "val": 2}


def test_rows_are_not_copied_from_a_damaged_shard(of, pictures, encoded):
    cache = of()
    before, count = rows(cache), encoded()
    flip_bit(cache / "train-00000.safetensors")
    (pictures / "train" / "cats" / "00.png").unlink()
    of()
    after = rows(cache)
    assert encoded() == count + 3 and before.keys() - after.keys() == {"train/cats/00.png"}
    assert all(torch.equal(after[name][0], before[name][0]) for name in after)


@pytest.mark.parametrize("lost", ["shard", "items", "both", "cut", "bit", "items cut"])
def test_one_shard_that_is_lost_or_damaged_is_encoded_again_in_its_place_and_the_others_stay(of, encoded, quiet, lost, capsys):
    cache = of("cache", "dtype=float32")
    fingerprint, before, count = manifests.read(cache).fingerprint, manifests.read(cache), encoded()
    order = list(rows(cache))
    shard, items = cache / "train-00001.safetensors", cache / "train-00001.items.jsonl"
    if lost in ("shard", "both"):
        shard.unlink()
    if lost in ("items", "both"):
        items.unlink()
    if lost == "cut":
        os.truncate(shard, 100)
    if lost == "bit":
        flip_bit(shard)
    if lost == "items cut":
        os.truncate(items, 50)
    of("cache", "dtype=float32")
    now = manifests.read(cache)
    assert encoded() == count + 4 and list(rows(cache)) == order, "the four pictures of this shard alone, in their place"
    assert (now.fingerprint, now.statistics) == (fingerprint, before.statistics), "runs that were fitted to it continue"
    assert drift(now.statistics, now.measured) < 1e-6
    assert [now.splits["train"][row] for row in (0, 2)] == [before.splits["train"][row] for row in (0, 2)]
    assert verify_cache(cache, console=quiet)["whole"]


def test_what_is_encoded_again_is_said(of, capsys, tiny, vqvae_run, pictures):
    from ldmctl.config.presets import pictures_of
    from ldmctl.console import Console
    from ldmctl.stages.encode_dataset import encode_dataset

    cache = of()
    (cache / "train-00001.safetensors").unlink()
    (cache / "autoencoder.safetensors").write_bytes(b"half")
    words = [f"run={vqvae_run}", f"data={pictures}", "shard=4", "batch=2", "workers=0", *HOST]
    encode_dataset(tiny("encode-dataset", *words, below=pictures_of(vqvae_run)), cache, console=Console())
    said = capsys.readouterr().err
    assert "1 shard is lost or damaged, and their 4 pictures are encoded again; the other 3 stay." in said
    assert ", 4 are encoded, 0 are gone." in said, "what is encoded again has not gone"
    assert "train-00001.safetensors is missing" in said and verify_cache(cache, console=Console(quiet=True))["whole"]


def test_a_folder_where_a_shard_was_is_a_sentence(of, vqvae_run, pictures, capsys):
    from ldmctl.cli.app import run

    cache = of()
    (cache / "train-00001.safetensors").unlink()
    (cache / "train-00001.safetensors").mkdir()
    words = ["encode-dataset", "--run", str(vqvae_run), "--data", str(pictures), "--out", str(cache), "shard=4", "batch=2", "workers=0"]
    for more in (["--verify"], HOST):
        assert run([*(["encode-dataset", "--out", str(cache)] if more == ["--verify"] else words), *more]) == 6
        said = capsys.readouterr().err
        assert (
            "train-00001.safetensors cannot be read or written, because there is a folder of that name" in said and "Traceback" not in said
        )


def test_a_shard_without_moments_is_encoded_again_though_its_hash_is_right(of, encoded, quiet):
    from ldmctl.storage import weights

    cache = of("cache", "dtype=float32")
    file, count = cache / "train-00001.safetensors", encoded()
    tensors, header = weights.load(file)
    weights.save(file, {"other": tensors.pop("moments"), **tensors}, header)
    manifest = json.loads((cache / "latents.json").read_text())
    manifest["splits"]["train"][1]["sha256"] = weights.file_sha256(file)
    (cache / "latents.json").write_text(json.dumps(manifest))
    of("cache", "dtype=float32")
    assert encoded() == count + 4 and verify_cache(cache, console=quiet)["whole"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"a": ' * 3000])
def test_a_damaged_manifest_is_written_again_from_the_shards_and_nothing_is_encoded(of, encoded, monkeypatch, damage):
    whole = files(of("cache", "flip=true"))
    (cache := of("cache", "flip=true")).joinpath("latents.json").write_text(damage)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "write", lambda *_: pytest.fail("a shard is written"))
        of("cache", "flip=true")
    assert files(cache) == whole


def test_a_damaged_manifest_of_shards_that_another_plan_made_is_refused_and_they_stay(of, pictures):
    cache = of()
    draw_picture(pictures / "train" / "cats" / "00a.png", 77)
    of()  # brought up to date, so its shards are in an order that a new plan would not make
    (cache / "latents.json").write_text("{")
    before = files(cache)
    with pytest.raises(
        MismatchError, match=r"latents\.json is damaged, and the shards beside it are not those.*--overwrite encodes all of them again"
    ):
        of()
    assert files(cache) == before


def test_the_autoencoder_of_a_finished_cache_is_put_back(of, encoded, quiet):
    cache, count = of(), encoded()
    for damage in (lambda file: file.unlink(), flip_bit):
        damage(cache / "autoencoder.safetensors")
        of()
        assert encoded() == count and verify_cache(cache, console=quiet)["whole"]


def test_a_parent_run_that_is_deleted_while_its_pictures_are_encoded_costs_nothing(of, monkeypatch, quiet, vqvae_run, tmp_path):
    whole, parent = files(of("whole")), shutil.copytree(vqvae_run, tmp_path / "parent")
    write = writer.write
    monkeypatch.setattr(writer, "write", lambda *given: (shutil.rmtree(parent, ignore_errors=True), write(*given))[1])
    cache = of("cache", source=parent)
    assert not parent.exists() and verify_cache(cache, console=quiet)["whole"] and files(cache) == whole


# -- the same pictures -----------------------------------------------------------


def copied(pictures, place):
    """A copy without its times, as git clone, unzip and cp leave it."""
    shutil.copytree(pictures, place, copy_function=shutil.copyfile)
    for file in place.rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    return place


def test_a_copy_of_the_pictures_without_their_times_is_not_encoded_again(of, pictures, encoded):
    cache = of()
    before, manifest, count = files(cache), manifests.read(cache), encoded()
    os.rename(copied(pictures, pictures.with_name("copy")), shutil.move(pictures, pictures.with_name("old")).parent / pictures.name)
    of()
    now = manifests.read(cache)
    assert encoded() == count and files(cache).keys() - before.keys() and now.fingerprint == manifest.fingerprint
    assert drift(now.statistics, now.measured) < 1e-6
    of()
    assert encoded() == count


def test_pictures_that_were_moved_within_their_folder_are_known_by_their_content(of, pictures, encoded):
    cache = of()
    count, before = encoded(), rows(cache)
    (pictures / "train" / "birds").mkdir()
    (pictures / "train" / "cats" / "00.png").rename(pictures / "train" / "birds" / "00.png")
    of()
    after = rows(cache)
    assert encoded() == count and torch.equal(after["train/birds/00.png"][0], before["train/cats/00.png"][0])
    assert after["train/birds/00.png"][1] == 0 and manifests.read(cache).classes == ["birds", "cats", "dogs"]


def test_an_edited_picture_of_the_same_name_and_size_is_encoded_again(of, pictures, encoded):
    picture = pictures / "train" / "cats" / "00.bmp"
    Image.new("RGB", (16, 16), (9, 9, 9)).save(picture)
    of()
    count = encoded()
    Image.new("RGB", (16, 16), (200, 9, 9)).save(picture)
    of()
    assert encoded() == count + 1


def test_only_pictures_that_would_be_encoded_are_hashed(of, pictures, monkeypatch):
    from ldmctl.pictures.batches import Pictures

    of()
    hashed, whole = [], Pictures.content
    monkeypatch.setattr(Pictures, "content", lambda self, index: hashed.append(index) or whole(self, index))
    of()
    draw_picture(pictures / "train" / "dogs" / "new.png", 5)
    of()
    assert len(hashed) == 1, "the one that was encoded"


def test_a_cache_is_not_emptied_by_another_data_set(of, pictures, encode, vqvae_run, tmp_path):
    cache = of()
    before = files(cache)
    for index in range(4):
        draw_picture(tmp_path / "others" / f"x{index}.png", 300 + index)
    with pytest.raises(MismatchError, match="holds latents of 14 other pictures: none of them is among the 4") as caught:
        encode(cache, vqvae_run, f"data={tmp_path / 'others'}", "shard=4", "batch=2", "workers=0")
    assert "--overwrite" in str(caught.value) and files(cache) == before


def test_a_cache_of_the_same_pictures_in_another_place_is_complete(encode, pictures, encoded, vqvae_run, tmp_path, monkeypatch):
    words = ["shard=4", "batch=2", "workers=0"]
    cache = encode(tmp_path / "cache", vqvae_run, f"data={pictures}", *words)
    count = encoded()
    monkeypatch.chdir(tmp_path)
    for data in ("pictures", "./pictures", "link"):
        if data == "link":
            os.symlink(pictures, tmp_path / "link")
        encode("./cache", os.path.relpath(vqvae_run, tmp_path), f"data={data}", *words)
    pictures.rename(tmp_path / "renamed")
    encode(cache, vqvae_run, f"data={tmp_path / 'renamed'}", *words)
    assert encoded() == count


def test_a_cache_is_complete_though_the_run_of_its_autoencoder_was_renamed(pictures, encoded, vqvae_run, tmp_path, monkeypatch, capsys):
    from ldmctl.cli.app import run

    shutil.copytree(vqvae_run, tmp_path / "ae")
    monkeypatch.chdir(tmp_path)
    words = ["--data", "pictures", "--out", "cache", "shard=4", "batch=2", "workers=0", *HOST]
    assert run(["encode-dataset", "--run", "ae", *words]) == 0
    before, count = files(tmp_path / "cache"), encoded()
    os.rename("ae", "renamed")
    for name in ("renamed", "./renamed", str(tmp_path / "renamed")):
        capsys.readouterr()
        assert run(["encode-dataset", "--run", name, *words]) == 0
        assert "cache is complete already" in capsys.readouterr().err
    assert encoded() == count and files(tmp_path / "cache") == before


def test_a_plan_puts_new_items_behind_those_that_were_there():
    def note(index):
        return Item("abcdefg"[index], "", index)

    plan = {"size": 3, "identity": ""}
    fresh = plan_split("train", "abcdefg", note, [], **plan)
    assert [(target.file, target.new) for target in fresh] == [
        ("train-00000.safetensors", [0, 1, 2]),
        ("train-00001.safetensors", [3, 4, 5]),
        ("train-00002.safetensors", [6]),
    ]
    one, two = (Shard(file=f"train-0000{i}.safetensors", count=2, sha256=str(i), crc32=[]) for i in range(2))
    stored = [(one, [note(1), note(3)]), (two, [note(5), Item("gone", "", 0)])]
    first, second, third = plan_split("train", "abcdefg", note, stored, **plan)
    assert first == one
    assert isinstance(second, Target) and (second.rows, second.new, second.file) == ([0], [0, 2], "train-00002.safetensors")
    assert isinstance(third, Target) and (third.source, third.new) == (None, [4, 6])
    assert plan_split("train", "bd", note, stored[:1], **plan) != [one], "labels moved"


def test_items_that_are_alike_are_each_kept_once():
    alike = [Item("a", "", 0)] * 2
    shard = Shard(file="train-00000.safetensors", count=2, sha256="", crc32=[])
    assert plan_split("train", "aa", lambda _: alike[0], [(shard, alike)], size=4, identity="") == [shard]
    (fewer,) = plan_split("train", "a", lambda _: alike[0], [(shard, alike)], size=4, identity="")
    assert fewer.rows == [0]


# -- statistics ------------------------------------------------------------------


def test_statistics_stay_and_a_drift_is_said(of, pictures, capsys, tiny, vqvae_run):
    from ldmctl.config.presets import pictures_of
    from ldmctl.console import Console
    from ldmctl.stages.encode_dataset import encode_dataset

    cache = of("cache", "dtype=float32")
    frozen = manifests.read(cache).statistics
    for index in range(12):
        Image.new("RGB", (16, 16), (255, 20 * index, 0)).save(pictures / "train" / "cats" / f"red{index}.png")
    words = [f"run={vqvae_run}", f"data={pictures}", "shard=4", "batch=2", "workers=0", "dtype=float32", *HOST]
    result = encode_dataset(tiny("encode-dataset", *words, below=pictures_of(vqvae_run)), cache, console=Console())
    manifest = manifests.read(cache)
    said = capsys.readouterr().err
    assert manifest.statistics == frozen
    moments = np.concatenate([load_file(cache / shard.file)["moments"].double().numpy() for shard in manifest.splits["train"]])
    assert len(moments) == COUNT + 12
    assert manifest.measured.mean == pytest.approx(moments.mean((0, 2, 3)), rel=1e-10)
    spread = np.sqrt((moments.std((0, 2, 3)) ** 2).mean())
    assert manifest.measured.deviation == pytest.approx([spread] * 3, rel=1e-10)
    assert result["drift"] == drift(frozen, manifest.measured) > 0.02
    assert "have drifted by" in said and "--overwrite" in said


def test_statistics_of_pictures_that_did_not_change_do_not_move_with_their_captions(encode, vae_run, pictures, tmp_path):
    words = [vae_run, f"data={pictures}", "shard=4", "batch=2", "workers=0", "dtype=float32"]
    cache = encode(tmp_path / "cache", *words)
    for index in range(COUNT):
        (pictures / "train" / ("cats", "dogs")[index % 2] / f"{index:02d}.txt").write_text("now with a caption")
    encode(cache, *words)
    updated, fresh = manifests.read(cache), manifests.read(encode(tmp_path / "fresh", *words))
    assert updated.measured == updated.statistics == fresh.statistics
    draw_picture(pictures / "train" / "cats" / "new.png", 5)
    now = manifests.read(encode(cache, *words))
    assert now.splits["train"][0].sums == updated.splits["train"][0].sums, "what did not change is not drawn again"
    again = manifests.read(encode(tmp_path / "again", *words))
    assert drift(again.statistics, now.measured) < 1e-6, "in whatever order and shards they lie"
    (pictures / "train" / "cats" / "new.png").unlink()
    assert drift(fresh.statistics, manifests.read(encode(tmp_path / "again", *words)).measured) < 1e-6


def test_drift_is_counted_in_deviations():
    frozen = Statistics(mean=[1.0, 0.0], deviation=[2.0, 0.5])
    assert drift(frozen, frozen) == 0
    assert drift(frozen, Statistics(mean=[1.0, 0.1], deviation=[2.0, 0.5])) == pytest.approx(0.2)
    assert drift(frozen, Statistics(mean=[1.0, 0.0], deviation=[1.8, 0.5])) == pytest.approx(0.1)


# -- refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("flip=true", "flip: false there, true asked for"),
        ("dtype=float32", 'dtype: "auto" there, "float32" asked for'),
        ("image.size=8", "image.size: 16 there, 8 asked for"),
        ("machine.tile=8", "machine.tile: null there, 8 asked for"),
    ],
)
def test_another_preparation_is_refused_by_name(of, word, said):
    cache = of()
    before = files(cache)
    with pytest.raises(MismatchError, match=said) as caught:
        of("cache", word)
    assert caught.value.exit_code == 6 and "--overwrite" in str(caught.value) and files(cache) == before


def test_differences_are_named_by_their_keys():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2, "d": None}) == ["a.b: 1 there, 3 asked for"]


# -- unreadable pictures -------------------------------------------------------------


def test_an_unreadable_picture_is_tried_again_only_when_something_changed(of, pictures, encoded):
    broken = pictures / "train" / "cats" / "04.png"
    picture = broken.read_bytes()
    broken.write_bytes(b"\x89PNG and no more")
    cache = of()
    assert manifests.read(cache).count("train") == COUNT - 1
    assert manifests.read(cache).skipped["train"][0].startswith("train/cats/04.png:")
    before, count = files(cache), encoded()
    of()
    assert encoded() == count and files(cache) == before and "bad_images.jsonl" in before
    broken.write_bytes(picture)
    of()
    assert encoded() == count + 1 and len(rows(cache)) == COUNT and not (cache / "bad_images.jsonl").exists()


# -- many processes ------------------------------------------------------------------


def start(out, *words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "ldmctl", "encode-dataset", *words, *HOST, "--out", str(out), "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("store", ["moments", "codes"])
def test_two_ranks_write_what_one_writes(pictures, vqvae_run, tmp_path, store):
    (pictures / "train" / "cats" / "04.png").write_bytes(b"\x89PNG and no more")
    words = [f"run={vqvae_run}", f"data={pictures}", "shard=4", "batch=2", "workers=0", "flip=true", f"store={store}"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    alone = start(tmp_path / "alone", *words)
    ranks = [start(tmp_path / "both", *words, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    told = [process.communicate(timeout=240) for process in (alone, *ranks)]
    assert [process.returncode for process in (alone, *ranks)] == [0, 0, 0], told
    one, other = files(tmp_path / "alone"), files(tmp_path / "both")
    assert one == other and len(one) == 2 * 4 + 3
    assert json.loads(told[1][0])["items"] == {"train": COUNT - 1, "val": 3} and told[2][0] == ""


# -- looked at -------------------------------------------------------------------------


def flip_bit(file):
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    file.write_bytes(damaged)


def test_verify_finds_one_flipped_bit_in_any_file(of, quiet, tmp_path):
    cache = of()
    found = verify_cache(cache, console=quiet)
    assert found == {"cache": str(cache), "items": {"train": COUNT, "val": 3}, "shards": 4, "conditions": 0, "whole": True}
    names = sorted(path.name for path in [*cache.glob("*.safetensors"), *cache.glob("*.jsonl")])
    assert len(names) == 9
    for name in names:
        copy = Path(shutil.copytree(cache, tmp_path / "copy"))
        flip_bit(copy / name)
        with pytest.raises(MismatchError, match=name.replace(".", r"\.")) as caught:
            verify_cache(copy, console=quiet)
        assert caught.value.exit_code == 6
        shutil.rmtree(copy)


def test_verify_says_everything_that_is_wrong(of, quiet):
    cache = of()
    (cache / "train-00001.safetensors").unlink()
    flip_bit(cache / "val-00000.safetensors")
    with pytest.raises(MismatchError, match=r"train-00001\.safetensors is missing\.\n.*val-00000\.safetensors has changed"):
        verify_cache(cache, console=quiet)


def test_verify_needs_no_pictures(of, pictures, capsys):
    from ldmctl.cli.app import run

    cache = of()
    shutil.rmtree(pictures)
    assert run(["encode-dataset", "--verify", "--out", str(cache)]) == 0
    assert f"{cache} is whole: {COUNT} train, 3 val in 4 shards." in capsys.readouterr().err
    flip_bit(cache / "train-00002.safetensors")
    assert run(["encode-dataset", "--verify", "--out", str(cache), "--json"]) == 6
    assert "train-00002.safetensors has changed" in json.loads(capsys.readouterr().out)["error"]


def test_cache_info_tells_all_without_torch(of):
    cache = of("cache", "flip=true")
    program = (
        "import sys; from ldmctl.cli.app import run; code = run(sys.argv[1:]); "
        "assert not {'torch', 'numpy', 'safetensors', 'PIL'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "cache", "info", str(cache), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, manifest = json.loads(done.stdout), manifests.read(cache)
    assert found["items"] == {"train": COUNT, "val": 3} and found["shards"] == {"train": 3, "val": 1}
    assert (found["latent"], found["moments"], found["dtype"], found["flipped"]) == ([3, 8, 8], [3, 8, 8], manifest.dtype, True)
    assert found["classes"] == {"cats": 6, "dogs": 5} and found["drift"] == 0
    assert found["statistics"] == found["measured"] == manifest.statistics.model_dump()
    assert found["autoencoder"]["type"] == "vqvae" and found["preparation"]["image"]["size"] == 16
    shown = [*cache.glob("train-*"), *cache.glob("val-*")]
    assert len(shown) == 8 and found["bytes"] == sum(path.stat().st_size for path in shown)


def test_cache_info_is_readable(of, capsys):
    from ldmctl.cli.app import run

    assert run(["cache", "info", str(of())]) == 0
    said = capsys.readouterr().out
    assert f"{COUNT} train, 3 val" in said and "cats 6, dogs 5" in said and "drift 0.00% of a standard deviation" in said


def test_on_a_cpu_shards_are_written_in_the_thread_that_encodes(tmp_path, encode, vae_run, monkeypatch):
    write, seen = writer.write, []
    monkeypatch.setattr(writer, "write", lambda *given: (seen.append(threading.get_ident()), write(*given))[1])
    encode(tmp_path / "cache", vae_run, "shard=8")
    assert len(seen) == 6 and set(seen) == {threading.get_ident()}  # a second thread of torch would slow all that the first one does
