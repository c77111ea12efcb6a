"""What a file system or a JSON file can hold ends no run: names that are no UTF-8, half characters, line breaks, several captions."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from two_ranks import TINY

from ldmctl.cli.app import run
from ldmctl.latents import manifest as manifests
from ldmctl.latents.items import Item, read_items
from ldmctl.latents.reader import Latents
from ldmctl.storage import weights
from ldmctl.storage.lines import write_line
from ldmctl.storage.run import Run

NAMES = [
    os.fsdecode(b"caf\xe9.png"),
    os.fsdecode(b"\xff\xfe.png"),
    "new\nline.png",
    "separated\u2028.png",
    "emoji\U0001f600.png",
    "plain.png",
]
HALF = "half a smile \ud83d"


@pytest.fixture
def pictures(tmp_path):
    """Pictures of all these names in a class of such a name, one of them broken, with captions that hold half a character."""
    folder = tmp_path / "pictures"
    for split, seed in (("train", 0), ("val", 1)):
        for kind in (os.fsdecode(b"stra\xdfe"), "cat"):
            (folder / split / kind).mkdir(parents=True)
            for number, name in enumerate(NAMES):
                noise = np.random.default_rng([seed, number, len(kind)]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
                with (folder / split / kind / name).open("wb") as file:
                    Image.fromarray(noise).save(file, "PNG")
    (folder / "train" / "cat" / os.fsdecode(b"broken\xe9.png")).write_bytes(b"no picture")
    rows = [{"file_name": f"{split}/cat/{name}", "text": [HALF, f"another of {name}"]} for split in ("train", "val") for name in NAMES]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_names_and_captions_of_any_kind_are_encoded_read_back_equal_and_trained_on(tmp_path, encode, fit_diffusion, vae_run, pictures):
    words = [f"data={pictures}", "batch=4", "shard=5", "workers=0"]
    cache = encode(tmp_path / "cache", vae_run, *words)
    manifest = manifests.read(cache)
    assert manifest.classes == ["cat", "straße"] and manifest.count("train") == 12
    items = [item for shard in manifest.splits["train"] for item in read_items(cache, shard)]
    assert sorted(item.stamp.rsplit(":", 2)[0].rpartition("/")[2] for item in items) == sorted(NAMES * 2)
    assert {item.text for item in items} == {"", HALF} and sum(len(item.texts) == 2 for item in items) == len(NAMES)
    assert [each["text"] for each in Latents(cache, manifest, "train").items()] == [item.text for item in items]
    assert os.fsdecode(b"train/cat/broken\xe9.png") in manifest.skipped["train"][0]
    (bad,) = [json.loads(line) for line in (cache / "bad_images.jsonl").read_text(encoding="utf-8").splitlines()]
    assert bad["file_name"] == os.fsdecode(b"train/cat/broken\xe9.png")
    before = {path.name: path.read_bytes() for path in cache.iterdir() if path.suffix in (".jsonl", ".safetensors")}
    encode(cache, vae_run, *words)  # nothing is to be done: what was written reads back equal
    assert before == {path.name: path.read_bytes() for path in cache.iterdir() if path.suffix in (".jsonl", ".safetensors")}
    assert (fit_diffusion(tmp_path / "run", cache, "loop.steps=1") / "model.safetensors").exists()


@pytest.mark.parametrize("text", ["plain", "é\u2028\n\r\x85", HALF, "\udce9", "\ud83d end", "\U0001f600", "\x00"])
def test_a_line_holds_any_text_and_is_one_line(tmp_path, text):
    line = write_line({"text": text})
    assert json.loads(line.encode("utf-8").decode("utf-8"))["text"] == text
    assert line.count("\n") == 1 and line.endswith("\n")


def test_lines_of_sound_text_are_as_they_always_were():
    assert write_line({"stamp": "é:1:2", "text": "“ja” \U0001f600"}) == '{"stamp": "é:1:2", "text": "“ja” \U0001f600"}\n'
    one = Item("a:1:2", "text", 3)
    assert one.line == '{"stamp": "a:1:2", "text": "text"}\n' and json.dumps(one.plain) == json.dumps(["a:1:2", "text", 3])


def test_unreadable_pictures_of_any_name_are_noted_once(tmp_path):
    run = Run(tmp_path, {}, resumed=False, writes=True, hold=None)
    rows = [{"file_name": name, "reason": f"{name} cannot be read"} for name in NAMES]
    for _ in range(2):
        run.note_bad(rows)
    assert [json.loads(line) for line in run.bad()] == rows


def test_a_manifest_may_name_classes_and_files_of_any_kind(tmp_path, encode, vae_run):
    cache = encode(tmp_path / "cache", vae_run)
    raw = json.loads((cache / "latents.json").read_text())
    raw["classes"][0], raw["skipped"], raw["data"] = "\udce9", {"train": ["\ud83d:1:2"]}, "\udcff"
    (cache / "latents.json").write_text(json.dumps(raw))
    manifest = manifests.read(cache)
    assert manifest.classes[0] == "\udce9" and manifest.skipped == {"train": ["\ud83d:1:2"]} and manifest.data == "\udcff"


@pytest.mark.slow
def test_runs_and_caches_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = [["--config", str(TINY / f"{verb}.yaml")] for verb in ("fit-ae", "fit-diffusion")]
    for name in (os.fsdecode(b"\xe9"), str(tmp_path / os.fsdecode(b"\xfe"))):
        ae, cache, ldm, second, samples = (f"{name}-{each}" for each in ("ae", "cache", "ldm", "second", "samples"))
        for words in (
            ["fit-ae", *tiny[0], "--out", ae, "loop.steps=1"],
            ["fit-ae", *tiny[0], "--out", ae, "loop.steps=2"],
            ["encode-dataset", "--run", ae, "--out", cache],
            ["encode-dataset", "--run", ae, "--out", cache],
            ["fit-diffusion", *tiny[1], "--latents", cache, "--out", ldm, "loop.steps=1"],
            ["fit-diffusion", *tiny[1], "--latents", cache, "--out", ldm, "loop.steps=2"],
            ["sample", "--run", ldm, "--out", samples, "-n", "2", "--steps", "1"],
            ["fit-ae", *tiny[0], "--init", ae, "--out", second, "loop.steps=1"],
        ):
            assert run([*words, "-q"]) == 0, words
        assert (
            weights.read_header(Path(ae) / "model.safetensors")["step"] == weights.read_header(Path(ldm) / "model.safetensors")["step"] == 2
        )
        assert len(list(Path(samples).glob("0*.png"))) == 2
