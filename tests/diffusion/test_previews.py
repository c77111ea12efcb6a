"""Previews of a run that listens to more than labels: held-out items, the same each time, beside what they are asked to be."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl.console import Console
from ldmctl.diffusion.model import open_model
from ldmctl.stages.fit_diffusion import fit_diffusion as stage
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
SIZE, HELD_OUT = 8, 5
LISTENS = ["conditioner=null", "conditions.text={type: words, width: 16, dim: 8}", "conditions.map=map"]
KEYS = [*LISTENS, "drop=0", "conditions.drop={text: 0, map: 0}", "loop.batch=4", "loop.preview=6", "preview.sampler=ddim"]


def shade(split, number):
    """The one colour of a picture; no two have the same."""
    return (40 * number + 20 * (split == "train"), 200 - 30 * number, 10 * number)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five to train on and five held out, of one colour each, with a caption of two lines and a map of one class each."""
    folder = tmp_path_factory.mktemp("shown") / "pictures"
    for split in ("train", "val"):
        for number in range(HELD_OUT):
            file = folder / split / f"{number}.png"
            (file.parent / "masks").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (SIZE, SIZE), shade(split, number)).save(file)
            Image.new("L", (SIZE, SIZE), number % 2).save(file.parent / "masks" / file.name)
            file.with_suffix(".txt").write_text(f"{split} picture\n number {number}\n")
    return folder


@pytest.fixture(scope="module")
def cache(pictures, encode, fit_ae):
    """The same, as the pixels that they are."""
    words = [f"image.size={SIZE}", "autoencoder={type: identity}", "loop.batch=4"]
    return encode(pictures.parent / "cache", fit_ae(pictures.parent / "ae", f"data={pictures}", *words))


def rows_of(file):
    """(samples, pictures beside them), each uint8 [N,SIZE,SIZE,3], of a preview of an even number of columns."""
    with Image.open(file) as opened:
        grid = np.asarray(opened.convert("RGB"))
    step = SIZE + 2
    across, down = (grid.shape[1] + 2) // step, (grid.shape[0] + 2) // step
    assert across % 2 == 0, "a picture stands to the right of its sample"
    cells = np.stack([grid[y * step : y * step + SIZE, x * step : x * step + SIZE] for y in range(down) for x in range(across)])
    return cells[::2], cells[1::2]


@pytest.mark.parametrize(
    ("count", "items"),
    [(1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (4, [0, 1, 3, 4]), (8, [0, 1, 2, 3, 4, 0, 1, 2]), (12, [*range(5), *range(5), 0, 1])],
)
def test_a_preview_says_the_captions_of_the_held_out_pictures_beside_it_in_their_order(fit_diffusion, cache, tmp_path, count, items):
    run = fit_diffusion(tmp_path / "ldm", cache, *KEYS, f"preview.count={count}")
    assert (run / "samples" / "captions.txt").read_text().splitlines() == [f"val picture number {item}" for item in items]
    beside = rows_of(run / "samples" / "000000004.png")[1][:count]
    assert [tuple(picture[0, 0]) for picture in beside] == [shade("val", item) for item in items]
    assert all((picture == picture[0, 0]).all() for picture in beside), "the whole picture"


def test_every_preview_shows_the_same_held_out_items_after_a_stop_too(fit_diffusion, cache, tmp_path):
    keys, said = [*KEYS, "preview.count=2", "loop.preview=2", "loop.lr=0.05", "loop.ema=0"], tmp_path / "ldm" / "samples" / "captions.txt"
    fit_diffusion(tmp_path / "ldm", cache, *keys)
    before = said.read_bytes()
    run = fit_diffusion(tmp_path / "ldm", cache, *keys, "loop.steps=6")
    assert said.read_bytes() == before
    previews = [rows_of(run / "samples" / f"{step:09d}.png") for step in (2, 4, 6)]
    assert all((beside == previews[0][1]).all() for _, beside in previews), "the same pictures"
    assert (previews[0][0] != previews[2][0]).any(), "and other samples, since the network learned meanwhile"


def test_samples_of_a_preview_are_made_by_the_caption_and_the_map_of_the_picture_beside_them(fit_diffusion, cache, pictures, tmp_path):
    run = fit_diffusion(tmp_path / "ldm", cache, *KEYS, "preview.count=2", "loop.steps=20", "loop.lr=0.01", "loop.publish=last")
    model, seen = open_model(str(run), CPU, tile=None), rows_of(run / "samples" / "000000020.png")[0]
    for seed, item in enumerate([0, 4]):
        asked = {
            other: model.sample(
                1,
                seed=seed,
                steps=2,
                sampler="ddim",
                prompt=f"val picture number {other}",
                map=str(pictures / "val" / "masks" / f"{other}.png"),
            ).images[0]
            for other in (item, 1)
        }
        far = {other: np.abs(image.numpy().transpose(1, 2, 0).astype(int) - seen[seed]).max() for other, image in asked.items()}
        assert far[item] <= 1, "those of the item"
        assert far[1] > 2, "and no others"


@pytest.mark.parametrize("lacking", ["pictures", "maps"])
def test_where_no_held_out_item_has_what_is_heard_previews_show_training_items_and_say_so(
    pictures, encode, fit_ae, tiny, tmp_path, lacking
):
    shutil.copytree(pictures, tmp_path / "pictures")
    shutil.rmtree(tmp_path / "pictures" / "val" / ("" if lacking == "pictures" else "masks"))
    words = [f"data={tmp_path / 'pictures'}", "dataset.val_share=0", f"image.size={SIZE}", "autoencoder={type: identity}", "loop.batch=4"]
    cache = encode(tmp_path / "cache", fit_ae(tmp_path / "ae", *words))
    said = []
    console = Console(quiet=True)
    console.say = said.append
    stage(tiny("fit-diffusion", f"latents={cache}", *KEYS, "preview.count=2"), tmp_path / "ldm", console=console)
    assert any("Previews show training items" in line for line in said)
    assert any(line.startswith("Nothing is held out") for line in said) == (lacking == "pictures")
    assert (tmp_path / "ldm" / "samples" / "captions.txt").read_text().splitlines() == ["train picture number 0", "train picture number 4"]
    _, beside = rows_of(tmp_path / "ldm" / "samples" / "000000004.png")
    assert [tuple(picture[0, 0]) for picture in beside] == [shade("train", item) for item in (0, 4)]
