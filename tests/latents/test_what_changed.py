"""A run that is continued on a cache that changed is told what changed: pictures, labels or captions."""

import json

import numpy as np
import pytest
from PIL import Image

from ldmctl.errors import MismatchError
from ldmctl.latents.fit import check_same_cache, of_cache
from ldmctl.latents.manifest import read


@pytest.fixture
def pictures(tmp_path):
    """Six pictures with a table of labels and captions, two of them held out."""
    folder = tmp_path / "pictures"
    for number in range(6):
        path = folder / ("train", "val")[number // 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    describe(folder)
    return folder


def describe(folder, label="cat", text="a picture"):
    """The table, with one row that differs."""
    names = ["train/0.png", "train/1.png", "train/2.png", "train/3.png", "val/4.png", "val/5.png"]
    rows = [{"file_name": name, "label": "dog" if name > "train/2" else "cat", "text": f"of {name}"} for name in names]
    rows[0] |= {"label": label, "text": text}
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": "another caption"}, "it has the same 4 training and 2 held-out latents, but some of their captions are others."),
        ({"label": "dog"}, "it has the same 4 training and 2 held-out latents, but some of their labels are others."),
        ({"label": "dog", "text": ["a", "b"]}, "but some of their labels and captions are others."),
        ({"text": ["a picture", "a second caption"]}, "but some of their captions are others."),
    ],
)
def test_edited_labels_and_captions_are_named(tmp_path, encode, vae_run, pictures, change, words):
    cache = encode(tmp_path / "cache", vae_run, f"data={pictures}")
    record = of_cache(read(cache))
    describe(pictures, **change)
    encode(cache, vae_run, f"data={pictures}")
    with pytest.raises(MismatchError) as caught:
        check_same_cache(record, read(cache), tmp_path / "run", accepted=False)
    assert words in str(caught.value) and "--accept-data" in str(caught.value)


def test_a_picture_in_place_of_another_is_named(tmp_path, encode, vae_run, pictures):
    cache = encode(tmp_path / "cache", vae_run, f"data={pictures}")
    record = json.loads(json.dumps(of_cache(read(cache))))
    Image.new("RGB", (16, 16), "red").save(pictures / "train" / "0.png")
    encode(cache, vae_run, f"data={pictures}")
    with pytest.raises(MismatchError, match=r"4 training and 2 held-out latents, as it had, but not of the same pictures"):
        check_same_cache({**record, "latent_statistics": of_cache(read(cache))["latent_statistics"]}, read(cache), tmp_path, accepted=False)


def test_a_run_that_did_not_record_the_parts_is_told_what_may_have_changed(tmp_path, encode, vae_run, pictures):
    cache = encode(tmp_path / "cache", vae_run, f"data={pictures}")
    record = {**of_cache(read(cache)), "cache": "another"}
    del record["cache_contents"]
    with pytest.raises(MismatchError, match="some of its pictures, labels or captions are others"):
        check_same_cache(record, read(cache), tmp_path, accepted=False)
