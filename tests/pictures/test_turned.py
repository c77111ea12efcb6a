"""Pictures, masks and maps that a camera or a program turned (EXIF orientation, of a TIFF its tag 274) lie as they are seen."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ldmctl.cli.app import run as command
from ldmctl.config.schemas.shared import Image as Settings
from ldmctl.diffusion.shown import map_of
from ldmctl.errors import DataError
from ldmctl.pictures.canvas import open_canvas, upright
from ldmctl.pictures.opening import opened

WIDE, HIGH = 48, 32
SAVED = {
    "jpg": {"quality": 100, "subsampling": 0},
    "png": {},
    "webp": {"lossless": True},
    "tif": {"compression": "tiff_lzw"},
}
BACK = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's numbers of the turns that each orientation undoes
ABOUT = {"size": 32, "channels": 3, "background": "white"}

pytestmark = pytest.mark.parametrize("ext", SAVED)
every_turn = pytest.mark.parametrize("turn", BACK)


def corners(mode="RGB"):
    """A picture of which no turn is the same: each quarter, and its own, has a colour."""
    image = Image.new("RGB", (WIDE, HIGH), (250, 250, 250))
    for box, colour in (
        ((0, 0, 24, 16), (200, 30, 30)),
        ((24, 0, 48, 16), (30, 200, 30)),
        ((0, 16, 24, 32), (30, 30, 200)),
    ):
        image.paste(colour, box)
    return image.convert(mode)


def corner_mask():
    """White in the upper left quarter."""
    mask = Image.new("L", (WIDE, HIGH))
    mask.paste(255, (0, 0, 24, 16))
    return mask


@pytest.fixture
def turned(tmp_path):
    """turned(image, ext, 6) -> a file that is stored turned and seen as the image."""

    def make(image, ext, turn):
        exif = Image.Exif()
        exif[0x0112] = turn
        stored = image if BACK[turn] is None else image.transpose(Image.Transpose(BACK[turn]))
        file = tmp_path / f"{image.mode}-{turn}.{ext}"
        stored.save(file, exif=exif, **SAVED[ext])
        return file

    return make


@every_turn
def test_the_sides_of_a_picture_are_those_that_are_seen(turned, ext, turn):
    file = turned(corners(), ext, turn)
    assert upright(file) == (WIDE, HIGH)
    with opened(file) as image:
        image.load()
        assert upright(image) == (WIDE, HIGH), "Pillow turns a TIFF as it decodes it"


@every_turn
@pytest.mark.parametrize("size", [None, (48, 24)], ids=["square", "wide"])
def test_what_samples_start_from_is_seen_upright(turned, ext, turn, size):
    straight = open_canvas(corners(), None, ABOUT, size=size).picture(0)
    found = open_canvas(turned(corners(), ext, turn), None, ABOUT, size=size).picture(0)
    assert (found.int() - straight.int()).abs().max() <= (4 if ext == "jpg" else 0)


@every_turn
def test_a_mask_of_the_size_that_is_seen_fits_a_turned_picture_and_one_of_the_stored_size_does_not(turned, ext, turn):
    file = turned(corners(), ext, turn)
    canvas = open_canvas(file, corner_mask(), ABOUT)
    assert torch.equal(canvas.free, open_canvas(corners(), corner_mask(), ABOUT).free) and canvas.free[:16, :16].all()
    with pytest.raises(DataError, match=r"The mask is 32x48 pixels, the picture 48x32"):
        open_canvas(file, corner_mask().transpose(Image.Transpose.ROTATE_90), ABOUT)


@every_turn
def test_a_mask_that_is_turned_itself_is_taken_as_it_is_seen(turned, ext, turn):
    found = open_canvas(corners(), turned(corner_mask(), ext, turn), ABOUT).free
    assert torch.equal(found, open_canvas(corners(), corner_mask(), ABOUT).free)


@every_turn
def test_a_map_that_is_turned_itself_is_painted_by_as_it_is_seen(turned, ext, turn):
    grey = corners("L")
    depth = SimpleNamespace(classes=[], map_channels=2)
    wanted = map_of(turned(grey, "png", 1), Settings(**ABOUT), (32, 32), depth)
    found = map_of(turned(grey, ext, turn), Settings(**ABOUT), (32, 32), depth)
    assert found.shape == (1, 32, 32) and (found.int() - wanted.int()).abs().max() <= (4 if ext == "jpg" else 0)


@every_turn
def test_a_map_of_classes_keeps_its_numbers_when_it_is_turned(turned, ext, turn):
    if ext in ("jpg", "webp"):
        pytest.skip(f"{ext} holds no numbers of classes")
    numbers = Image.new("L", (WIDE, HIGH), 3)
    for box, number in (((0, 0, 24, 16), 0), ((24, 0, 48, 16), 1), ((0, 16, 24, 32), 2)):
        numbers.paste(number, box)
    classes = SimpleNamespace(classes=["a", "b", "c", "d"], map_channels=5)
    found = map_of(turned(numbers, ext, turn), Settings(**ABOUT), (32, 48), classes)
    assert [found[0, y, x].item() for y, x in ((0, 0), (0, 47), (31, 0), (31, 47))] == [0, 1, 2, 3]


@pytest.mark.parametrize("turn", [1, 6])
def test_the_command_takes_a_turned_picture_with_the_mask_that_was_drawn_over_it(ext, turn, turned, ldm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corner_mask().save("mask.png")
    words = ["--from", str(turned(corners(), ext, turn)), "--mask", "mask.png", "--steps", "2", "-n", "1"]
    assert command(["sample", "--run", str(ldm), *words, "--device", "cpu", "--precision", "fp32", "-q"]) == 0


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("turned") / "ldm", vae_cache, "loop.steps=1")
