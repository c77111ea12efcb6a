"""A look into a folder finds what a person would want to know before a week of training."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from ldmctl import registry
from ldmctl.cli.app import run as run_cli
from ldmctl.config.presets import compose, expand_data
from ldmctl.config.resolve import resolve
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.console import Console
from ldmctl.errors import ConfigError, DataError
from ldmctl.pictures import alike
from ldmctl.pictures.alike import glance, groups, pairs
from ldmctl.pictures.check_maps import look_at_map
from ldmctl.pictures.check_sentences import of_captions, of_classes
from ldmctl.pictures.checking import check_data, told
from ldmctl.pictures.stored_maps import Frame
from ldmctl.storage.lines import write_line


def blobs(seed, size=(64, 64)):
    """A picture like no other: soft forms in colours."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def as_jpeg(image, quality=70):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.fixture
def folder(tmp_path):
    """40 + 10 pictures of two classes, split by folders."""
    for index in range(50):
        place = tmp_path / "pictures" / ("train" if index < 40 else "val") / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        blobs(index).save(place / f"{index:02d}.png")
    return tmp_path / "pictures"


def look(folder, *, size=32, channels=3, **options):
    given = {"out": None, "split": False, "metadata": False, "console": Console(quiet=True), **options}
    return check_data(str(folder), {"size": size, "channels": channels}, **given)


def said(found):
    return " ".join(found["sentences"])


def test_the_planned_size_is_that_of_fit_ae(folder):
    found = check_data(str(folder), {}, out=None, split=False, metadata=False, console=Console(quiet=True))
    assert found["sizes"]["asked"] == compose(FitAE, flags={"data": str(folder)})[0].image.size == 64
    assert found["sizes"]["small"]["count"] == 0


# -- near-duplicates -----------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        as_jpeg,
        lambda image: as_jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        lambda image: image.resize((48, 48), Image.Resampling.BICUBIC),
    ],
    ids=["copy", "flipped", "jpeg", "flipped jpeg", "resized"],
)
def test_a_copy_is_found_however_it_was_saved(change):
    pictures = [blobs(seed) for seed in range(30)]
    found = list(pairs([glance(each) for each in [*pictures, change(pictures[7])]]))
    assert found == [(7, 30)]


def test_different_pictures_are_no_duplicates():
    assert not list(pairs([glance(blobs(seed)) for seed in range(600)]))  # more than one block of rows


def test_different_flat_pictures_are_no_duplicates_though_their_gradients_are_equal():
    flat = [Image.new("RGB", (32, 32), (level, 0, 0)) for level in (0, 60, 120)]
    assert not list(pairs([glance(each) for each in flat]))


def test_copies_of_one_picture_are_compared_once_and_not_each_with_each(monkeypatch):
    same, calls = alike.same, []
    monkeypatch.setattr(alike, "same", lambda *given: calls.append(len(given[1])) or same(*given))
    first, other = glance(blobs(0)), glance(blobs(1))
    found = groups(3001, pairs([first] * 1500 + [other] + [first] * 1500))
    assert found == [[index for index in range(3001) if index != 1500]]
    assert len(calls) <= 3000 and sum(calls) <= 6000, "each with each would be 4.5 million"


def test_near_copies_among_pictures_that_look_alike_are_found_as_by_looking_at_every_two():
    random = np.random.default_rng(0)
    shades = [Image.fromarray(np.clip(np.asarray(blobs(seed)) // 4 + 90, 0, 255).astype(np.uint8)) for seed in range(150)]
    noisy = [Image.fromarray((np.asarray(each) + random.integers(0, 5, np.asarray(each).shape)).astype(np.uint8)) for each in shades[:40]]
    glances = [glance(each) for each in [*shades, *noisy]]
    near = lambda a, b: min((a.hash ^ b.hash).bit_count(), (a.mirrored ^ b.hash).bit_count()) <= alike.BITS
    every = [
        (i, j) for j, b in enumerate(glances) for i, a in enumerate(glances[:j]) if near(a, b) and alike.same(a.small, b.small[None])[0]
    ]
    told = []
    assert groups(len(glances), pairs(glances, told.append)) == groups(len(glances), iter(every)) and len(every) >= 40
    assert told == [0, 64, 128]


def test_sets_are_joined_through_their_members():
    assert groups(6, iter([(0, 3), (3, 5), (1, 2)])) == [[0, 3, 5], [1, 2]]


def test_duplicates_across_the_splits_are_leaks(folder):
    as_jpeg(Image.open(folder / "train" / "cat" / "00.png")).save(folder / "val" / "cat" / "again.png")
    blobs(1).save(folder / "train" / "dog" / "same.png")
    found = look(folder)
    assert found["duplicates"]["sets"] == 2 and found["duplicates"]["leaks"] == 1
    assert found["duplicates"]["leaked"] == [["train: train/cat/00.png", "val: val/cat/again.png"]]
    assert "1 set of near-duplicates in train and val at once" in said(found)


# -- everything else -------------------------------------------------------------


def test_a_picture_that_nothing_can_be_trained_on_is_not_on_the_contact_sheet(folder, tmp_path):
    blobs(100, (2, 64)).save(folder / "train" / "cat" / "narrow.png")
    found = look(folder, out=tmp_path / "out")
    assert found["splits"]["train"] == 41 and Image.open(tmp_path / "out" / "contact.png").size == (7 * 34 - 2, 6 * 34 - 2)
    for file in (folder / "train").rglob("*.png"):
        blobs(100, (2, 64)).save(file)
    with pytest.raises(DataError, match=r"No training picture can be used.*too narrow"):
        look(folder, out=tmp_path / "out")


def test_a_sound_folder_has_nothing_to_change(folder):
    found = look(folder)
    assert found["splits"] == {"train": 40, "val": 10} and found["sentences"] == []
    assert found["classes"]["counts"] == {"cat": 20, "dog": 20} and found["modes"] == {"RGB": 50}
    assert found["sizes"]["shorter_side"] == {"least": 64, "median": 64, "most": 64} and found["captions"] is None


def test_broken_small_narrow_and_grey_pictures_are_named(folder):
    (folder / "train" / "cat" / "torn.png").write_bytes((folder / "train" / "cat" / "00.png").read_bytes()[:300])
    blobs(100, (20, 64)).save(folder / "train" / "cat" / "narrow.png")
    blobs(101).convert("L").save(folder / "train" / "dog" / "grey.png")
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(folder / "train" / "dog" / "deep.png")
    found = look(folder)
    assert found["broken"]["count"] == 1 and found["broken"]["first"][0]["name"] == "train/cat/torn.png"
    assert found["sizes"]["small"]["first"] == ["train/cat/narrow.png"] and found["sizes"]["cropped_away"]["most"] == pytest.approx(44 / 64)
    assert found["colour"]["grey"] == 2 and {"L", "I;16"} <= set(found["modes"])
    assert "1 of 54 pictures cannot be read" in said(found) and "image.smallest=32 leaves them out" in said(found)


def test_colours_are_those_of_the_pictures(tmp_path):
    for index, level in enumerate((0, 255)):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        for number in range(4):
            Image.new("RGB", (16 + number, 16 + number), (level, 51, 51)).save(tmp_path / "pictures" / f"{index}{number}.png")
    found = look(tmp_path / "pictures", size=16)["colour"]
    assert found["mean"] == pytest.approx([0.5, 0.2, 0.2], abs=1e-3) and found["deviation"] == pytest.approx([0.5, 0, 0], abs=1e-3)


def test_all_grey_pictures_suggest_one_channel_and_uneven_classes_are_named(tmp_path):
    for index in range(36):
        place = tmp_path / "pictures" / "train" / ("rare" if index < 2 else "common")
        place.mkdir(parents=True, exist_ok=True)
        blobs(index).convert("L").save(place / f"{index}.png")
    found = said(look(tmp_path / "pictures"))
    assert "image.channels=1 makes everything faster" in found and "32 of 'common', 2 of 'rare'" in found


def test_repeated_and_missing_captions_are_counted(folder):
    rows = [{"file_name": f"{index:02d}.png", "text": "a dog" if index < 38 else ""} for index in range(1, 40, 2)]
    (folder / "train" / "dog" / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = look(folder)
    assert found["captions"]["count"] == 19 and found["captions"]["commonest"] == {"text": "a dog", "count": 19}
    assert "31 pictures have no caption" in said(found)


def test_missing_captions_hide_no_repeats_and_uneven_classes_no_missing_labels():
    counts = {"spam": 100, "eggs": 2, "ham": 0}
    few, uneven, without = filter(None, of_classes({"counts": counts, "without": 7}))
    assert (
        "'ham' has no training picture" in few and "100 of 'spam', 2 of 'eggs'" in uneven and "7 training pictures have no label" in without
    )
    found = {"count": 19, "empty": 1, "different": 1, "commonest": {"text": "a dog", "count": 19}}
    missing, repeated = filter(None, of_captions(found))
    assert missing == "1 picture has no caption, and 19 have one." and "'a dog' 19 times" in repeated
    assert not any(of_classes({"counts": {}, "without": 0})) and of_captions(None) == []


def test_a_folder_of_broken_pictures_is_a_sentence(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the 1 pictures can be read"):
        look(tmp_path)


# -- made to stick ---------------------------------------------------------------


def test_the_split_that_is_written_is_the_one_that_is_used_and_leaks_are_gone(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(60):
        blobs(index).save(folder / f"{index:02d}.png")
    for index in range(20):
        as_jpeg(Image.open(folder / f"{index:02d}.png")).save(folder / f"copy-{index}.png")
    before = look(folder)
    assert before["duplicates"]["sets"] == 20 and before["duplicates"]["leaks"] > 0
    found = look(folder, split=True)
    assert found["written"] == [str(folder / "metadata.jsonl")]
    after = look(folder)
    assert after["duplicates"]["sets"] == 20 and after["duplicates"]["leaks"] == 0
    assert after["splits"]["val"] == before["splits"]["val"] - before["duplicates"]["leaks"] and sum(after["splits"].values()) == 80
    with pytest.raises(ConfigError, match=r"metadata.jsonl already, which is not replaced"):
        look(folder, split=True)


def test_folders_that_decide_the_split_are_not_overruled(folder):
    as_jpeg(Image.open(folder / "train" / "cat" / "00.png")).save(folder / "val" / "cat" / "again.png")
    with pytest.raises(ConfigError, match=r"Move these to the training folder: val/cat/again.png"):
        look(folder, split=True)
    assert not (folder / "metadata.jsonl").exists()


def test_a_split_that_would_hold_out_nothing_is_refused_with_its_own_reason(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(40):
        blobs(0).save(folder / f"{index:02d}.png", compress_level=index % 9)
    assert look(folder)["splits"]["val"] > 0
    with pytest.raises(ConfigError, match="Each picture that would be held out is a near-duplicate of a training picture"):
        look(folder, split=True)
    assert not (folder / "metadata.jsonl").exists()


def test_what_the_data_set_says_of_what_it_leaves_out_is_kept(folder, tmp_path):
    (folder / "train" / "cat" / "empty.jpg").touch()
    copied = folder / "val" / "cat" / "copy.png"
    copied.write_bytes((folder / "train" / "cat" / "00.png").read_bytes())
    found = look(folder, out=tmp_path / "out")
    said = " ".join(found["warnings"])
    assert "empty.jpg" in said and "train/cat/00.png is val/cat/copy.png" in said and any("train/" in each for each in found["remarks"])
    assert json.loads((tmp_path / "out" / "check.json").read_text())["warnings"] == found["warnings"]


def test_that_nothing_is_held_out_is_said(tmp_path, folder):
    (alone := tmp_path / "alone").mkdir()
    blobs(0).save(alone / "one.png")
    assert "No picture is held out" in said(look(alone))
    assert "No picture is held out" not in said(look(folder))


def test_near_duplicates_are_looked_for_once(folder, monkeypatch):
    calls, searched = [], alike.pairs
    monkeypatch.setattr(alike, "pairs", lambda *given: calls.append(len(given[0])) or searched(*given))
    look(folder, metadata=True)
    assert calls == [50]


def test_labels_that_are_written_are_read_again(folder):
    look(folder, metadata=True)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 50 and rows[0] == {"file_name": "train/cat/00.png", "label": "cat"}
    assert look(folder)["classes"]["counts"] == {"cat": 20, "dog": 20}


def noted(folder):
    """(label, captions) of each picture, by name."""
    config = resolve(EncodeDataset, [expand_data(str(folder))], source="test").dataset
    return told({split: registry.build("dataset", config, split=split) for split in ("train", "val")})


@pytest.mark.parametrize("split", [False, True])
def test_what_is_written_is_read_back_the_same_whatever_its_names_and_texts(tmp_path, split):
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = ["plain.png", "\u00e9 \u2028.png", os.fsdecode(b"\xe9.png"), "~home.png", "c:drive.png", " space.png"]
    for index, name in enumerate(names):
        with (folder / name).open("wb") as file:
            blobs(index).save(file, "PNG")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "plain.txt").write_text("beside", encoding="utf-8")
    rows = [{"file_name": f"./{name}", "label": "a", "text": ["one \ud83d", "two", f"of {index}"]} for index, name in enumerate(names)]
    (folder / "captions.jsonl").write_text("".join(map(write_line, [*rows, {"file_name": "broken.png", "label": "b", "text": "none"}])))
    before = noted(folder)
    look(folder, split=split, metadata=True)
    written = {row["file_name"]: row for row in map(json.loads, (folder / "metadata.jsonl").read_text(encoding="utf-8").split("\n")[:-1])}
    assert written["plain.png"]["text"] == ["one \ud83d", "two", "of 0", "beside"] and written["broken.png"]["text"] == "none"
    (folder / "captions.jsonl").unlink()
    assert len(before) == 7 and noted(folder) == before


@pytest.mark.parametrize("kind", ["nan", "null", "N-A", "1.0", "true"])
@pytest.mark.parametrize("split", [False, True])
def test_classes_that_a_table_cannot_hold_stay_those_of_their_folders(tmp_path, kind, split, capfd):
    folder = tmp_path / "pictures"
    for index in range(24):
        place = folder / (kind, "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        blobs(index).save(place / f"{index}.png")
    before = noted(folder)
    look(folder, split=split, metadata=True)
    assert noted(folder) == before and {label for label, _ in before.values()} == {kind, "dog"}
    sentence = f"has no column `label`: the class {kind!r} would be read from it as something else, and is taken from where it is now."
    err = capfd.readouterr().err
    assert (sentence in err) == (kind != "N-A")
    look(folder)
    assert "is not used" not in capfd.readouterr().err, "a table that says nothing is none"


def test_pictures_of_several_frames_are_counted(folder):
    assert "frames" not in said(look(folder))
    more = {"save_all": True, "append_images": [blobs(91)]}
    blobs(90).save(folder / "train" / "cat" / "a.gif", **more)
    words = "of several frames or pages, of which only the first is read, such as train/cat/a.gif."
    assert f"1 picture is {words}" in said(look(folder))
    blobs(92).save(folder / "train" / "cat" / "b.tiff", **more)
    blobs(93).save(folder / "train" / "cat" / "c.png", **more)
    blobs(94).save(folder / "train" / "cat" / "d.tiff")
    assert f"3 pictures are {words}" in said(look(folder))


def test_the_command_line_says_it_and_writes_a_contact_sheet(folder, tmp_path, capsys):
    assert run_cli(["data", "check", str(folder), "--size", "32", "-o", str(tmp_path / "look"), "-q"]) == 0
    text = capsys.readouterr().out
    assert "train 40, val 10" in text and "2: cat 20, dog 20" in text
    assert (tmp_path / "look" / "contact.png").exists() and json.loads((tmp_path / "look" / "check.json").read_text())["modes"] == {
        "RGB": 50
    }
    assert run_cli(["data", "check", str(folder), "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == {"train": 40, "val": 10}


# -- maps ----------------------------------------------------------------------


def draw_maps(folder, count=50):
    """A label map for each of the first pictures: a quarter of it is 1, of one it is 7, the rest 0."""
    for index in range(count):
        split, kind = "train" if index < 40 else "val", ("cat", "dog")[index % 2]
        drawn = np.zeros((64, 64), np.uint8)
        drawn[:32, :32] = 7 if index == 3 else 1
        place = folder / split / "masks" / kind
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn).save(place / f"{index:02d}.png")


def test_classes_of_maps_are_counted_by_their_pixels(folder):
    draw_maps(folder)
    found = look(folder)["maps"]
    assert (found["count"], found["missing"], found["kind"], found["resized"]) == (50, 0, "labels", 0)
    assert [(each["number"], each["share"], each["maps"]) for each in found["classes"]] == [(0, 0.75, 50), (1, 0.245, 49), (7, 0.005, 1)]


def test_maps_of_large_photographs_have_their_size_though_these_are_decoded_smaller(folder):
    for index in range(40):
        place = folder / "train" / ("cat", "dog")[index % 2] / f"{index:02d}.png"
        place.unlink()
        blobs(index, (603, 401)).save(place.with_suffix(".jpg"))
    draw_maps(folder)
    for file in (folder / "train" / "masks").rglob("*.png"):
        Image.fromarray(np.ones((401, 603), np.uint8)).save(file)
    found = look(folder)["maps"]
    assert (found["resized"], found["broken"]["count"]) == (0, 0)


def test_missing_broken_resized_and_unknown_maps_are_said(folder):
    draw_maps(folder, 48)
    masks = folder / "train" / "masks"
    (masks / "classes.txt").write_text("ground\nthing\nsky\n")
    Image.new("L", (32, 32)).save(masks / "cat" / "00.png")
    Image.new("L", (64, 32)).save(masks / "dog" / "01.png")
    found = look(folder)
    assert found["maps"]["resized"] == 1 and found["maps"]["unknown"] == [7] and found["maps"]["missing"] == 2
    assert "1 of 48 maps cannot be used, the first of train/dog/01.png: The map" in said(found)
    assert "64x32 pixels and its picture train/dog/01.png 64x64: another shape" in said(found)
    assert "2 pictures have no map, and 48 have one." in said(found)
    assert "Maps hold the numbers 7, and 3 classes are named, from 0 to 2" in said(found)
    assert "1 class is in no map, the first 'sky'." in said(found)


def test_maps_in_memory_may_have_several_channels():
    drawn = np.arange(3 * 64 * 64, dtype=np.uint32).astype(np.uint8).reshape(3, 64, 64)
    assert look_at_map(drawn, Frame((64, 64)), None, (), "0").channels == 3
    assert look_at_map(drawn[0] % 4, Frame((64, 64)), None, (), "0").numbers == dict.fromkeys(range(4), 1024)
    assert "has 3 channels, and a label map one" in look_at_map(drawn, Frame((64, 64)), None, ("ground",), "0").why


def test_grey_maps_are_continuous_and_without_maps_nothing_is_said(folder, capfd):
    assert look(folder)["maps"] is None
    draw_maps(folder)
    for file in (folder / "train" / "masks").rglob("*.png"):
        Image.fromarray(np.arange(4096, dtype=np.uint16).astype(np.uint8).reshape(64, 64)).save(file)
    assert look(folder)["maps"]["kind"] == "continuous"
    run_cli(["data", "check", str(folder), "--size", "32"])
    assert "maps        50, continuous" in capfd.readouterr().out
