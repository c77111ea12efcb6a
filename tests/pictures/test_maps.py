"""Maps stay on their pictures: the same pixels, whatever is turned, cropped, resized or flipped."""

import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from ldmctl.errors import DataError
from ldmctl.pictures import images
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.maps import map_of, prepare_map
from ldmctl.pictures.stored_maps import Frame, doubt, frame_of, hold_labels, numbers
from ldmctl.protocols import Example


def settings(size=8, *, crop="center", flip=False):
    return SimpleNamespace(size=size, channels=1, crop=crop, flip=flip, background="white")


def stored(image: Image.Image, kind="PNG", **options) -> Image.Image:
    """The image as it comes back from a file, not yet decoded."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return Image.open(file)


def spotted(width: int, height: int) -> np.ndarray:
    """Grey [H,W], no two neighbours alike: 40 at least, 240 at most."""
    return np.random.default_rng(0).integers(0, 6, (height, width), dtype=np.uint8) * 40 + 40


def classes_of(grey: np.ndarray) -> np.ndarray:
    """The map painted as a function of the picture: 1 of 40, 2 of 80 and so on."""
    return (grey // 40).astype(np.uint8)


def oriented(image: Image.Image, turn: int, kind="PNG") -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = turn
    return stored(image, kind, exif=exif)


@pytest.mark.parametrize("crop", ["center", "random"])
@pytest.mark.parametrize(("width", "height"), [(8, 8), (13, 8), (8, 21)])
def test_a_map_painted_from_its_picture_follows_it_through_every_crop_and_flip(crop, width, height):
    grey = spotted(width, height)  # the shorter side is the size, so that nothing is resized
    how = settings(crop=crop, flip=True)
    picture = images.prepare(Image.fromarray(grey), how)
    labels = prepare_map(Image.fromarray(classes_of(grey)), (width, height), how, labels=True)
    moved = 0
    for seed in range(20):
        seen, mapped = (images.finish(each, how, Generator().manual_seed(seed)) for each in (picture, labels))
        assert torch.equal(mapped * 40, seen)
        moved += not torch.equal(seen, images.finish(picture, how, None))
    assert moved >= 5


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_map_of_the_stored_size_is_turned_with_its_picture(turn, kind):
    grey = spotted(13, 8)
    picture = oriented(Image.fromarray(grey), turn, kind)
    how = settings(crop="random")
    frame = frame_of(picture, how)
    assert frame.size == (13, 8)
    mapped = prepare_map(stored(Image.fromarray(classes_of(grey))), frame, how, labels=True)
    assert torch.equal(mapped * 40, images.prepare(picture, how))


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_map_that_is_upright_already_is_not_turned_again(turn):
    grey = spotted(13, 8)
    picture = oriented(Image.fromarray(grey), turn)
    upright = np.asarray(Image.fromarray(classes_of(grey)).transpose(images.TURNS[turn]))
    mapped = prepare_map(Image.fromarray(upright), frame_of(picture, settings(crop="random")), settings(crop="random"), labels=True)
    assert torch.equal(mapped * 40, images.prepare(picture, settings(crop="random")))


def test_a_map_with_an_orientation_of_its_own_is_turned_by_that():
    grey = spotted(13, 8)
    mapped = prepare_map(oriented(Image.fromarray(classes_of(grey)), 3), (13, 8), settings(crop="random"), labels=True)
    assert np.array_equal(mapped[0].numpy(), classes_of(grey)[::-1, ::-1])


@pytest.mark.parametrize("scale", [2, 4])
def test_a_larger_and_a_smaller_label_map_lie_where_their_picture_does(scale):
    blocks = np.random.default_rng(1).integers(0, 9, (8, 12), dtype=np.uint8)
    large = np.kron(blocks, np.ones((scale, scale), dtype=np.uint8))
    how = settings()
    want = torch.from_numpy(blocks[:, 2:10].copy())[None]
    assert torch.equal(prepare_map(large, (12, 8), how, labels=True), want)
    assert torch.equal(prepare_map(blocks, (12 * scale, 8 * scale), how, labels=True), want)


def test_labels_are_never_mixed_and_continuous_maps_are():
    halves = np.zeros((30, 30), dtype=np.uint8)
    halves[:, 13:] = 200
    assert set(prepare_map(halves, (30, 30), settings(), labels=True).unique().tolist()) == {0, 200}
    smooth = prepare_map(halves, (30, 30), settings(), labels=False)
    assert len(smooth.unique()) > 2
    assert smooth.float().mean() == pytest.approx(200 * 17 / 30, abs=2)  # antialiased: the share of the area stays
    assert (smooth.amin(), smooth.amax()) == (0, 200)  # and nothing rings


def test_a_jpeg_that_is_decoded_smaller_keeps_its_map_of_the_same_shape():
    for width, height in ((1001, 2003), (999, 1333)):
        picture = stored(Image.new("L", (width, height), 90), "JPEG")
        how = settings(32, crop="random")
        frame = frame_of(picture, how)
        assert frame.size == (width, height)
        assert frame.decoded != frame.size
        mapped = prepare_map(np.zeros((height, width), dtype=np.uint8), frame, how, labels=True)
        assert mapped.shape == images.prepare(picture, how).shape


def test_palettes_and_few_bits_are_read_as_their_numbers():
    want = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(want).convert("P")
    palette.putpalette([255 - i // 3 for i in range(768)])
    assert np.array_equal(numbers(stored(palette), labels=True)[0], want)
    assert np.array_equal(numbers(stored(palette, bits=4), labels=True)[0], want)
    assert np.array_equal(numbers(stored(Image.fromarray(want.astype(np.uint16))), labels=True)[0], want)
    two = stored(Image.fromarray(want > 5))
    assert np.array_equal(numbers(two, labels=True)[0], want > 5)
    assert set(np.unique(numbers(two, labels=False))) == {0, 255}


def test_grey_of_four_bits_is_not_spread_over_eight_where_it_counts_classes():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0\x01\x23\0\x45\xef")  # 4x2 pixels: 0 1 2 3, 4 5 14 15
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 4, 0, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert numbers(Image.open(io.BytesIO(png)), labels=True)[0].tolist() == [[0, 1, 2, 3], [4, 5, 14, 15]]
    assert numbers(Image.open(io.BytesIO(png)), labels=False)[0].tolist() == [[0, 17, 34, 51], [68, 85, 238, 255]]


@pytest.mark.parametrize(
    ("image", "kind", "labels", "words"),
    [
        (Image.fromarray(np.full((8, 8), 300, np.uint16)), "PNG", True, "has 16 bits and numbers from 300 to 300"),
        (Image.fromarray(np.full((8, 8), 300, np.uint16)), "PNG", False, "has 16 bits and numbers from 300 to 300"),
        (Image.new("RGB", (8, 8)), "PNG", True, "is in mode RGB, so its pixels are colours and no numbers of classes"),
        (Image.new("L", (8, 8)), "JPEG", True, "is a JPEG, which blurs numbers of classes at every edge"),
        (Image.new("F", (8, 8)), "TIFF", False, "holds fractions"),
        (Image.new("F", (8, 8)), "TIFF", True, "is in mode F, so its pixels are fractions and no numbers of classes"),
    ],
)
def test_what_is_no_map_is_refused_with_its_file(tmp_path, image, kind, labels, words):
    file = tmp_path / f"map.{kind.lower()}"
    image.save(file)
    with pytest.raises(DataError, match=words) as error:
        prepare_map(Image.open(file), (8, 8), settings(), labels=labels)
    assert f"The map {file}" in str(error.value)


def test_colours_are_a_continuous_map_of_three_channels():
    found = prepare_map(Image.new("RGBA", (8, 8), (10, 20, 30, 255)), (16, 16), settings(), labels=False)
    assert found.shape == (3, 8, 8)
    assert found[:, 3, 3].tolist() == [10, 20, 30]


def test_a_map_of_another_shape_names_both_files_and_sizes(tmp_path):
    file = tmp_path / "0.png"
    Image.new("L", (30, 20)).save(file)
    with pytest.raises(DataError, match=r"30x20 pixels and its picture pictures/0\.png 40x20: another shape") as error:
        prepare_map(Image.open(file), (40, 20), settings(), labels=True, name="pictures/0.png")
    assert str(file) in str(error.value)
    prepare_map(Image.new("L", (333, 250)), (4000, 3000), settings(), labels=True)  # rounded to a pixel is no other shape


class Two:
    """Three pictures: one with a map, one without, one whose map is broken."""

    classes: tuple[str, ...] = ()
    map_classes = ("ground", "thing")

    def __init__(self, broken):
        self.broken = broken

    def __len__(self):
        return 3

    def __getitem__(self, index):
        grey = spotted(13, 8)
        maps = [Image.fromarray((grey > 100).astype(np.uint8)), None, Image.open(self.broken)]
        return Example(Image.fromarray(grey), map=maps[index])

    def stamp(self, index):
        return f"{index}.png:1:1"


def test_the_map_of_an_item_is_the_center_without_a_flip_whatever_training_does(tmp_path):
    broken = tmp_path / "2.png"
    Image.new("L", (13, 8), 1).save(broken)
    broken.write_bytes(broken.read_bytes()[:50])
    pictures = Pictures(Two(broken), settings(crop="random", flip=True))
    assert torch.equal(map_of(pictures, 0), (pictures.item(0) > 100).to(torch.uint8))
    assert map_of(pictures, 1) is None
    with pytest.raises(DataError, match=f"The map {broken} cannot be decoded"):
        map_of(pictures, 2)


def test_a_number_of_no_class_is_refused_with_the_file_and_255_is_not(tmp_path):
    file = tmp_path / "2.png"
    drawn = np.zeros((8, 13), np.uint8)
    drawn[:, 5:7] = 255
    Image.fromarray(drawn).save(file)
    assert map_of(Pictures(Two(file), settings()), 2).unique().tolist() == [0, 255]
    Image.fromarray(drawn // 51).save(file)
    known = r"holds the number 5, and there are 2 classes, from 0 \(ground\) to 1 \(thing\); 255 is a pixel of none"
    with pytest.raises(DataError, match=known) as error:
        map_of(Pictures(Two(file), settings()), 2)
    assert str(file) in str(error.value)


def test_maps_are_those_of_their_pictures_where_small_pictures_are_left_out():
    class Sized(Two):
        map_classes = ()

        def __getitem__(self, index):
            return Example(Image.new("L", (8 + index, 8 + index)), map=np.full((8 + index, 8 + index), index, np.uint8))

    pictures = Pictures(Sized(None), SimpleNamespace(**vars(settings()), smallest=9))
    assert len(pictures) == 2 and [map_of(pictures, index).unique().tolist() for index in (0, 1)] == [[1], [2]]


def test_few_small_numbers_are_classes_and_black_and_white_or_grey_are_not():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert hold_labels([Image.fromarray(ramp % 5), Image.fromarray(np.where(ramp == 9, 255, ramp % 5).astype(np.uint8))])
    many = [Image.fromarray((ramp % 30 + 30 * part).astype(np.uint8)) for part in range(5)]
    assert hold_labels(many)  # 150 classes, 30 in each map
    assert not hold_labels([Image.fromarray(ramp)])
    assert not hold_labels([Image.fromarray((ramp % 3 * 127).astype(np.uint8))])
    assert not hold_labels([Image.fromarray((ramp > 9).astype(np.uint8) * 255)])
    assert not hold_labels([Image.new("RGB", (4, 4))])
    assert not hold_labels([])


def test_a_frame_knows_what_is_upright():
    assert Frame((40, 20)).upright == (40, 20)
    assert Frame((40, 20), 6).upright == (20, 40)
    assert Frame((40, 20), 6).resized(10) == (10, 20)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (np.full((8, 8), 77, np.uint8), "holds 77. So all are read as shades"),
        (np.arange(100, dtype=np.uint8).reshape(10, 10), "holds levels, or is a JPEG or in colour"),
        (np.zeros((8, 8, 3), np.uint8), "holds levels, or is a JPEG or in colour"),
    ],
)
def test_one_map_for_which_all_others_count_as_no_classes_is_named(tmp_path, odd, said):
    files = []
    for number in range(9):
        files.append(tmp_path / f"{number}.png")
        classes = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
        Image.fromarray(odd if number == 4 else classes).save(files[-1])
    maps = [Image.open(file) for file in files]
    assert not hold_labels(maps) and hold_labels([*maps[:4], *maps[5:]])
    sentence = doubt(maps)
    assert "but one does not" in sentence and "4.png" in sentence and said in sentence
    assert doubt([*maps[:4], *maps[5:]]) == ""


def test_shades_and_colours_are_not_doubted(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    black = (ramp % 2 * 255).astype(np.uint8)
    for given in ([ramp] * 8, [black] * 8, [np.stack([ramp] * 3, 2)] * 8, [black] * 4 + [ramp] * 4):
        assert doubt([Image.fromarray(each) for each in given]) == ""


def test_dark_jpegs_may_have_been_classes(tmp_path):
    for name, values, said in (
        ("dark", np.arange(64, dtype=np.uint8).reshape(8, 8) % 4, True),
        ("grey", np.full((8, 8), 128, np.uint8), False),
    ):
        Image.fromarray(values).save(tmp_path / f"{name}.jpg")
        assert ("save them as PNG" in doubt([Image.open(tmp_path / f"{name}.jpg")])) == said
