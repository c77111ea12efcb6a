"""Damaged, tagged, small and huge pictures at once: the command trains, and says of each kind how many there were."""

import json
import re

import numpy as np
import profiles
from PIL import Image

from ldmctl.cli.app import run

AE = ["autoencoder=vae", "autoencoder.widths=[8,8]", "autoencoder.layers=1", "autoencoder.norm_groups=4", "autoencoder.attention=false"]
LOOP = [
    "image.size=16",
    "loop.steps=40",
    "loop.batch=4",
    "loop.workers=0",
    "perceptual=null",
    "discriminator=null",
    "image.max_pixels=100000",
]
FIT_AE = ["fit-ae", *AE, *LOOP, "--device", "cpu", "--precision", "fp32", "--out", "run", "--data", "set"]


def fill(root, train):
    """So many sound pictures to train on, of which 6 are tagged, 2 of them with rubbish, and 3 are small; one damaged and one huge beside them."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", train), ("val", 10)):
        (root / split).mkdir(parents=True)
        for i in range(count):
            options = {}
            if split == "train" and i < 6:
                options = {"icc_profile": profiles.rgb_profile(profiles.P3) if i < 4 else b"rubbish"}
            side = 8 if split == "train" and 6 <= i < 9 else 16
            Image.fromarray(numbers.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(root / split / f"{i:03}.png", **options)
    whole = (root / "train" / "009.png").read_bytes()
    (root / "train" / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (400, 400)).save(root / "train" / "huge.png")


def test_damaged_tagged_small_and_huge_pictures_are_each_counted(tmp_path, monkeypatch, capfd):
    fill(tmp_path / "set", 198)
    monkeypatch.chdir(tmp_path)
    assert run([*FIT_AE, "loop.steps=100"]) == 0
    said = capfd.readouterr().err
    assert "train: 200 pictures, 0 classes, 0 labels, 0 captions; val: 10 pictures" in said
    assert re.search(r"3 of \d+ pictures seen are smaller than 16 pixels and were enlarged; the smallest is 8x8\.", said)
    assert re.search(
        r"2 of \d+ pictures seen have colour profiles that could not be applied \(it is damaged\): the colours were taken as sRGB\.", said
    )
    assert "warning: 2 unreadable pictures, others took their place: run/bad_images.jsonl names them." in said
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_images.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["file_name"] for each in listed] == ["train/cut.png", "train/huge.png"]
    assert "truncated" in listed[0]["reason"] and "more than the 100,000 that image.max_pixels allows" in listed[1]["reason"]
    assert len(said.splitlines()) <= 24


def test_more_than_one_unusable_picture_in_a_hundred_is_named_with_the_reason_of_each(tmp_path, monkeypatch, capfd):
    fill(tmp_path / "set", 100)
    monkeypatch.chdir(tmp_path)
    assert run(FIT_AE) == 3
    said = capfd.readouterr().err
    assert "error: 2 of 102 pictures cannot be used, and at most 1 may be (one in a hundred):" in said
    assert "huge.png is 400x400 pixels, more than the 100,000 that image.max_pixels allows." in said
    assert "cut.png cannot be decoded: image file is truncated" in said and len(said.splitlines()) <= 24
