"""Captions, maps and small pictures are prepared once each and kept beside the latents, which do not change."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl import registry
from ldmctl.config.schemas.shared import Loop
from ldmctl.errors import ConfigError, DataError, MismatchError, Stopped
from ldmctl.latents import conditions, pictured, prepared
from ldmctl.latents.conditions import Captions, Several, captions_of, chosen_in, prepare_captions
from ldmctl.latents.manifest import read
from ldmctl.latents.reader import open_latents
from ldmctl.latents.stream import training_latents
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)


class Letters:
    """A frozen half that gives a number for each letter, and remembers what it was asked for."""

    listens = "text"
    fingerprint = "ab" * 32

    def __init__(self, length=40):
        self.asked, self.length = [], length

    def prepare(self, texts, device=None):
        self.asked += texts
        letters = ([ord(letter) for letter in text[: self.length]] or [0] for text in texts)
        return [{"tokens": torch.tensor(row).half()[:, None]} for row in letters]

    def cut(self, text):
        return text[self.length :]


def splits_of(cache):
    manifest = read(cache)
    return manifest, {split: open_latents(cache, manifest, split) for split in ("train", "val")}


def shards(cache, slot):
    return sorted((cache / "conditions").glob(f"{slot}-*/*.safetensors"))


def heard(known, row):
    """What a row of `Letters` says."""
    return "".join(chr(int(letter)) for letter in known.value["tokens"][row][known.value["mask"][row]].flatten())


# -- captions ------------------------------------------------------------------


def test_an_edited_caption_costs_one_row_and_nothing_else_is_made_again(tmp_path, quiet):
    first, second = Letters(), Letters()
    captions = [["a cat", "the same cat"], ["a dog"], [], ["a cat"]]
    assert len(prepare_captions(first, tmp_path, captions, CPU, quiet)) == 3
    assert sorted(first.asked) == ["a cat", "a dog", "the same cat"], "each distinct caption once"
    (file,) = shards(tmp_path, "text")
    before = file.read_bytes()
    captions[1] = ["a small dog"]
    rows = prepare_captions(second, tmp_path, captions, CPU, quiet)
    assert second.asked == ["a small dog"] and len(shards(tmp_path, "text")) == 2 and file.read_bytes() == before
    said = Captions(rows, captions).known(torch.arange(4))
    assert [heard(said, row) for row in (0, 1, 3)] == ["a cat", "a small dog", "a cat"]
    assert said.there.tolist() == [True, True, False, True]
    assert prepare_captions(Letters(), tmp_path, captions, CPU, quiet).counts().tolist() == rows.counts().tolist()


def test_another_encoder_has_rows_of_its_own(tmp_path, quiet):
    other = Letters()
    other.fingerprint = "cd" * 32
    for letters in (Letters(), other):
        prepare_captions(letters, tmp_path, [["a cat"]], CPU, quiet)
    assert other.asked == ["a cat"] and len({file.parent for file in shards(tmp_path, "text")}) == 2


def test_what_was_cut_off_is_known_of_each_row(tmp_path, quiet):
    rows = prepare_captions(Letters(length=5), tmp_path, [["a cat", "a cat on a mat"]], CPU, quiet)
    assert not rows.is_cut(prepared.key_of("a cat")) and rows.is_cut(prepared.key_of("a cat on a mat"))
    assert rows.counts().tolist() == [5, 5]


def test_captions_in_any_script_come_back_as_they_were(tmp_path, quiet):
    captions = [["猫"], ["قطة"], ["\u00e9"], ["e\u0301"], ["\ud83d"]]
    rows = prepare_captions(Letters(), tmp_path, captions, CPU, quiet)
    said = Captions(rows, captions).known(torch.arange(5))
    assert len(rows) == 5, "composed and decomposed are two captions"
    assert said.value["mask"].sum(1).tolist() == [1, 3, 1, 2, 1]


def test_padding_is_zero_and_masked_and_reaches_a_multiple_of_eight(tmp_path, quiet):
    captions = [["abcdefghi"], ["a"], []]
    said = Captions(prepare_captions(Letters(), tmp_path, captions, CPU, quiet), captions).known(torch.tensor([1, 0, 2]))
    assert said.value["tokens"].shape == (3, 16, 1) and said.value["mask"].sum(1).tolist()[:2] == [1, 9]
    assert not said.value["tokens"][~said.value["mask"]].any() and said.there.tolist() == [True, True, False]


def test_of_several_captions_each_is_drawn_by_seed_step_and_place_in_the_batch(tmp_path, quiet):
    captions = [["one", "two", "three"]] * 8
    source = Captions(prepare_captions(Letters(), tmp_path, captions, CPU, quiet), captions)

    def said(step, seed=0):
        known = source.known(torch.arange(8), chosen=chosen_in(Loop(batch=8, seed=seed), step))
        return [heard(known, row) for row in range(8)]

    every = [said(step) for step in range(200)]
    assert every[7] == said(7) and every[7] != said(7, seed=1) and len({tuple(each) for each in every}) > 190
    counts = [sum(each.count(word) for each in every) for word in ("one", "two", "three")]
    assert sum(counts) == 1600 and all(abs(count - 1600 / 3) < 4 * np.sqrt(1600 * 2 / 9) for count in counts)
    assert [heard(source.known(torch.arange(8)), row) for row in range(8)] == ["one"] * 8, "held-out items keep to their first"


def test_a_damaged_shard_says_which_and_that_the_next_run_makes_it_again(tmp_path, quiet):
    prepare_captions(Letters(), tmp_path, [["a cat", "a dog"]], CPU, quiet)
    (file,) = shards(tmp_path, "text")
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:20], b"", whole[:-3] + b"\xff\xff\xff", b"\xff" * 8 + whole[8:]):
        file.write_bytes(broken)
        with pytest.raises(MismatchError, match=f"{file.name} is damaged .*Delete it: the next fit-diffusion makes its rows again"):
            prepare_captions(Letters(), tmp_path, [["a cat", "a dog"]], CPU, quiet)
    file.unlink()
    prepare_captions(Letters(), tmp_path, [["a cat", "a dog"]], CPU, quiet)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("count", [5, 2], ids=["between shards", "in the last one"])
def test_a_stop_while_captions_are_prepared_keeps_them_and_the_next_command_continues(tmp_path, quiet, monkeypatch, count):
    monkeypatch.setattr(conditions, "TOGETHER", 2)

    class Interrupted(Letters):
        def prepare(self, texts, device=None):
            os.kill(os.getpid(), signal.SIGINT)
            return super().prepare(texts, device)

    captions = [[f"picture {number}"] for number in range(count)]
    with pytest.raises(Stopped, match=rf"Stopped after 2 of {count} captions, which are kept\. The same command continues"):
        prepare_captions(Interrupted(), tmp_path, captions, CPU, quiet)
    later = Letters()
    assert len(prepare_captions(later, tmp_path, captions, CPU, quiet)) == count
    assert len(later.asked) == count - 2


def test_a_half_written_shard_of_a_killed_command_is_passed_over(tmp_path, quiet, monkeypatch):
    monkeypatch.setattr(conditions, "TOGETHER", 2)

    class Killed(Letters):
        def prepare(self, texts, device=None):
            if self.asked:
                raise KeyboardInterrupt
            return super().prepare(texts, device)

    captions = [[f"picture {number}"] for number in range(5)]
    with pytest.raises(KeyboardInterrupt):
        prepare_captions(Killed(), tmp_path, captions, CPU, quiet)
    later = Letters()
    assert len(prepare_captions(later, tmp_path, captions, CPU, quiet)) == 5 and len(later.asked) == 3


def test_ranks_share_captions_though_one_of_them_has_written_before_another_looks(tmp_path, quiet, monkeypatch):
    """Two ranks one after the other: what the first one says to all is kept for the second, and nobody waits."""
    said = []
    monkeypatch.setattr(Engine, "barrier", lambda self: None)
    monkeypatch.setattr(Engine, "any", lambda self, flag: flag)
    monkeypatch.setattr(conditions, "on_all", lambda engine, make: (said.append(make()) if engine.leads else None, said[0])[1])
    captions = [[letter] for letter in "abcdefg"]
    letters = [Letters(), Letters()]
    for rank, each in enumerate(letters):
        rows = prepare_captions(each, tmp_path, captions, dataclasses.replace(CPU, rank=rank, world=2), quiet)
    assert sorted(letters[0].asked + letters[1].asked) == list("abcdefg") and len(letters[1].asked) == 3
    assert len(rows) == 7


def test_a_rank_may_have_nothing_to_prepare(tmp_path, quiet, monkeypatch):
    monkeypatch.setattr(Engine, "barrier", lambda self: None)
    monkeypatch.setattr(Engine, "any", lambda self, flag: flag)
    monkeypatch.setattr(conditions, "on_all", lambda engine, make: [prepared.key_of("a")])
    idle = Letters()
    prepare_captions(idle, tmp_path, [["a"]], dataclasses.replace(CPU, rank=1, world=2), quiet)
    assert idle.asked == []


def test_a_cache_says_every_caption_of_its_items(tmp_path, encode, vae_run):
    cache = encode(tmp_path / "cache", vae_run, "dataset.captions=3")
    _, splits = splits_of(cache)
    found = captions_of(splits["train"])
    assert len(found) == 40 and all(len(set(each)) == 3 for each in found)
    lines = (cache / "train-00000.items.jsonl").read_text().splitlines()
    assert [list(each) for each in found] == [json.loads(line)["texts"] for line in lines]


# -- maps and small pictures ---------------------------------------------------


@pytest.fixture(scope="module")
def mapped(tmp_path_factory, encode, vae_run):
    """A folder of 8 pictures 16 x 16, 6 of them with a map of two classes, of which the right half is the second, and a mirrored cache of it."""
    home, random = tmp_path_factory.mktemp("mapped"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for number in range(count):
            for place in (home / "pictures" / split, home / "pictures" / split / "masks"):
                place.mkdir(parents=True, exist_ok=True)
            name = f"{split}{number}.png"
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(home / "pictures" / split / name)
            if number != 1:
                classes = np.zeros((16, 16), np.uint8)
                classes[:, 8:], classes[0, 0] = 1, number % 2
                Image.fromarray(classes).save(home / "pictures" / split / "masks" / name)
    return encode(home / "cache", vae_run, f"data={home / 'pictures'}", "flip=true")


@pytest.fixture
def own(mapped, tmp_path):
    """A copy of the cache; the pictures stay where they are."""
    return shutil.copytree(mapped, tmp_path / "cache")


def maps_of(cache, quiet):
    manifest, splits = splits_of(cache)
    return pictured.prepare_maps(cache, manifest, splits, CPU, quiet)


def names_of(cache, split="train"):
    return [item["stamp"].split("/")[-1].split(".")[0] for item in splits_of(cache)[1][split].items()]


def test_maps_of_several_kinds_are_a_sentence(mapped, own, quiet):
    place = next((mapped.parent / "pictures" / "train" / "masks").glob("*.png"))
    kept = place.read_bytes()
    try:
        Image.open(place).convert("RGB").save(place)
        with pytest.raises(
            DataError, match=r"The map of .* has [13] channels?, and the first one has [13]: a run listens to maps of one kind"
        ):
            maps_of(own, quiet)
    finally:
        place.write_bytes(kept)


def test_maps_are_those_of_their_items_mirrored_with_them_and_missing_for_some(own, quiet):
    maps, said = maps_of(own, quiet)
    assert said == {"classes": ["0", "1"], "channels": 1}
    items = torch.arange(6)
    known = maps["train"].known(items, torch.tensor([False, True] * 3))
    missing = [number for number, there in enumerate(known.there.tolist()) if not there]
    assert len(missing) == 1 and maps["train"].share == pytest.approx(5 / 6)
    for row in set(range(6)) - set(missing):
        half = known.value[row, 0, 1:]
        left, right = (half[:, 8:], half[:, :8]) if row % 2 else (half[:, :8], half[:, 8:])
        assert (left == 0).all() and (right == 1).all(), "the second class is right of the middle, in the mirrored picture left"
    plain = maps["train"].known(items)
    assert torch.equal(known.value[1::2], plain.value[1::2].flip(-1)) and torch.equal(known.value[::2], plain.value[::2])


def test_maps_are_made_once_and_an_edited_one_costs_one_row(own, quiet, mapped):
    maps_of(own, quiet)
    before = shards(own, "map")
    assert len(before) == 1
    maps_of(own, quiet)
    assert shards(own, "map") == before
    file = mapped.parent / "pictures" / "train" / "masks" / "train0.png"
    whole = file.read_bytes()
    try:
        Image.fromarray(np.full((16, 16), 1, np.uint8)).save(file)
        os.utime(file, (1, 1))
        maps, _ = maps_of(own, quiet)
        assert len(shards(own, "map")) == 2
        assert sum(bool((maps["train"].known(torch.tensor([item])).value == 1).all()) for item in range(6)) == 1
    finally:
        file.write_bytes(whole)


def test_maps_that_the_first_pictures_lack_are_found(own, quiet, monkeypatch):
    monkeypatch.setattr(pictured, "LOOKED_AT", 1)
    _, splits = splits_of(own)
    behind = pictured.behind(own, splits["train"])
    there = [bool(behind.pictures.dataset.map_stamp(row)) for row in behind.rows]
    first = there.index(False)
    behind.rows.insert(0, behind.rows.pop(first))
    assert len(pictured.first_maps(behind)) == 1


def test_classes_of_held_out_maps_count_too(own, quiet, mapped):
    file = mapped.parent / "pictures" / "val" / "masks" / "val0.png"
    whole = file.read_bytes()
    try:
        Image.fromarray(np.full((16, 16), 2, np.uint8)).save(file)
        assert maps_of(own, quiet)[1]["classes"] == ["0", "1", "2"]
    finally:
        file.write_bytes(whole)


def test_a_cache_of_pictures_without_maps_says_what_would_be_right(vae_cache, quiet):
    with pytest.raises(ConfigError, match=r"conditions\.map has nothing to listen to.*folder `masks`.*or take conditions\.map=null"):
        maps_of(vae_cache, quiet)


def test_pictures_that_were_moved_away_before_maps_are_made_are_a_sentence(tmp_path, encode, vae_run, quiet):
    for number in range(4):
        for split in ("train", "val"):
            (tmp_path / "pictures" / split / "masks").mkdir(parents=True, exist_ok=True)
            for place, mode in ((tmp_path / "pictures" / split, "RGB"), (tmp_path / "pictures" / split / "masks", "L")):
                Image.new(mode, (16, 16), number + 9 * (split == "val")).save(place / f"{number}.png")
    cache = encode(tmp_path / "cache", vae_run, f"data={tmp_path / 'pictures'}")
    (tmp_path / "pictures" / "train" / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 pictures of .* are not where they were, such as .*encode-dataset"):
        maps_of(cache, quiet)
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises((DataError, ConfigError), match="pictures"):
        maps_of(cache, quiet)


def test_what_was_mirrored_is_mirrored_with_its_map_in_every_step(own, quiet):
    """The latents of a step and their maps are turned by the same numbers."""
    _, splits = splits_of(own)
    maps, _ = maps_of(own, quiet)
    loop = Loop(steps=4, batch=6)
    stream = training_latents(splits["train"], loop, CPU, rows=slice(0, 6), flip=True, first=0, several=Several({"map": maps["train"]}))
    turned = 0
    for batch in stream:
        plain = splits["train"].stored(batch.items)
        for row, item in enumerate(batch.items.tolist()):
            mirrored = not torch.equal(batch.stored[row], plain[row])
            wish = maps["train"].known(torch.tensor([item]), torch.tensor([mirrored]))
            assert torch.equal(batch.known["map"].value[row], wish.value[0])
            turned += mirrored
    assert 0 < turned < 24


def test_small_pictures_are_those_of_their_items_and_mirrored_with_them(own, quiet):
    plugin = registry.load("conditioner", "lowres")
    small = plugin(plugin.Config(type="lowres", factor=4), image_channels=3, factor=4, size=(4, 4))
    manifest, splits = splits_of(own)
    found = pictured.prepare_pictures(small, own, manifest, splits, CPU, quiet)
    known = found["train"].known(torch.arange(6), torch.tensor([True] * 6))
    behind = pictured.behind(own, splits["train"])
    for item, row in enumerate(behind.rows):
        picture = behind.pictures.item(row)
        shrunk = small.shrink(picture[None])[0]
        assert torch.equal(known.value[item].flip(-1), shrunk) and shrunk.shape == (3, 4, 4)
        assert (shrunk.float().mean((1, 2)) - picture.float().mean((1, 2))).abs().max() < 4, "it is that picture"
    assert known.there.all()
