"""Many pictures: shelves, going on, ranks, one file of all, and a table of labels."""

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl.diffusion.model import Model
from ldmctl.errors import ConfigError, MismatchError, Stopped
from ldmctl.pictures import album
from ldmctl.pictures.png_text import said_by
from ldmctl.stages.sample import sample as stage

HOST = ["steps=2", "batch=4", "machine.device=cpu", "machine.precision=fp32"]


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion that knows four classes. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("many") / "ldm", vae_cache, "loop.steps=1")


@pytest.fixture
def sample(ldm, tiny, quiet, tmp_path):
    """sample("count=4", out="a") -> the stage's answer."""

    def go(*words, out="samples", **options):
        return stage(tiny("sample", f"run={ldm}", *HOST, *words), tmp_path / out, console=quiet, **options)

    return go


@pytest.fixture
def shelves_of_5(monkeypatch):
    monkeypatch.setattr(album, "SHELF", 5)


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def pixels(file):
    return np.asarray(Image.open(file))


# -- shelves ------------------------------------------------------------------------------


def test_shelves_hold_a_thousand_and_begin_above_a_thousand(tmp_path):
    assert (album.SHELF, album.is_shelved(1000), album.is_shelved(1001)) == (1000, False, True)
    places = {seed: str(album.file_of(tmp_path, seed, shelved=True).relative_to(tmp_path)) for seed in (0, 999, 1000, 49_999, 1_234_567)}
    assert list(places.values()) == [
        "000000/000000.png",
        "000000/000999.png",
        "001000/001000.png",
        "049000/049999.png",
        "1234000/1234567.png",
    ]
    assert album.file_of(tmp_path, 7, shelved=False) == tmp_path / "000007.png"


def test_more_pictures_than_a_shelf_holds_go_onto_shelves_and_are_the_same_pictures(sample, tmp_path, monkeypatch):
    sample("count=7", out="flat")
    monkeypatch.setattr(album, "SHELF", 5)
    assert sample("count=7")["made"] == 7
    flat, shelved = files(tmp_path / "flat"), files(tmp_path / "samples")
    assert sorted(shelved) == [
        *(f"000000/00000{seed}.png" for seed in range(5)),
        *(f"000005/00000{seed}.png" for seed in (5, 6)),
        "grid.png",
    ]
    assert {name.split("/")[-1]: data for name, data in shelved.items()} == flat


def test_a_folder_that_was_flat_grows_onto_shelves_and_keeps_what_it_has(sample, tmp_path, shelves_of_5):
    sample("count=3")
    assert sample("count=8")["made"] == 5
    assert sorted(files(tmp_path / "samples")) == [
        "000000.png",
        *(f"000000/00000{seed}.png" for seed in (3, 4)),
        "000001.png",
        "000002.png",
        *(f"000005/00000{seed}.png" for seed in (5, 6, 7)),
        "grid.png",
    ]
    assert [sample(words)["made"] for words in ("count=8", "count=3", "seeds=2,6")] == [0, 0, 0], "whichever command asks"
    whole = sample("count=8", out="whole")
    assert whole["made"] == 8
    named = lambda folder: {name.split("/")[-1]: data for name, data in files(folder).items() if name != "grid.png"}
    assert named(tmp_path / "samples") == named(tmp_path / "whole")


def test_pictures_of_other_settings_are_found_on_shelves_too(sample, tmp_path, shelves_of_5):
    sample("count=6")
    with pytest.raises(MismatchError, match=r"holds 6 pictures that do not belong to these: 6 with steps=2 instead of 3"):
        sample("steps=3", "count=2", "seed=20")
    assert sample("steps=3", "count=2", "seed=20", overwrite=True)["made"] == 2
    assert sorted(files(tmp_path / "samples")) == ["000020.png", "000021.png", "grid.png"]


def test_a_picture_on_a_shelf_that_ldmctl_did_not_make_is_not_replaced(sample, tmp_path, shelves_of_5):
    mine = tmp_path / "samples" / "000000" / "000003.png"
    mine.parent.mkdir(parents=True)
    Image.effect_noise((16, 16), 50).save(mine)
    before = mine.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(MismatchError, match=r"000003\.png is there already and is none of ldmctl's samples"):
            sample("count=6", overwrite=overwrite)
    assert mine.read_bytes() == before


def test_a_file_where_a_shelf_should_be_is_not_replaced(sample, tmp_path, shelves_of_5):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "000005").write_text("mine")
    with pytest.raises(MismatchError, match=r"samples/000005 is there already and is none of ldmctl's samples, so it is not replaced"):
        sample("count=7")
    assert [file.name for file in (tmp_path / "samples").iterdir()] == ["000005"]


def test_progress_says_how_fast_how_often_the_network_is_asked_and_how_long_it_takes(monkeypatch, capsys):
    from ldmctl import console

    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.Console().bar("sampling", 100, done=20) as bar:
        clock[0] = 20.0
        bar.advance(60, amount=40, facts={"evaluations/image": 50})
    assert capsys.readouterr().err == "sampling 60/100  evaluations/image 50  2 images/s  ETA 0:20\n"


@pytest.mark.parametrize("damage", ["cut", "hole", "zeros", "nothing"])
def test_a_damaged_picture_is_made_anew_wherever_it_lies(sample, tmp_path, shelves_of_5, damage):
    sample("count=6")
    whole, file = files(tmp_path / "samples"), tmp_path / "samples" / "000000" / "000002.png"
    data = file.read_bytes()
    place = data.index(b"IDAT") + 20
    file.write_bytes(
        {"cut": data[:-30], "hole": data[:place] + bytes(8) + data[place + 8 :], "zeros": bytes(len(data)), "nothing": b""}[damage]
    )
    assert not said_by(file).whole
    assert sample("count=6")["made"] == 1 and files(tmp_path / "samples") == whole


def test_an_interrupted_command_goes_on_to_what_an_uninterrupted_one_makes(sample, tmp_path, shelves_of_5, monkeypatch):
    words = ["count=14", "guidance=2", "npz=true"]
    sample(*words, out="whole")
    make, calls = Model.make, []

    def interrupting(model, *given, **keys):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return make(model, *given, **keys)

    monkeypatch.setattr(Model, "make", interrupting)
    with pytest.raises(Stopped, match=r"Stopped after 8 of 14 pictures, .*Run the same command to continue") as caught:
        sample(*words)
    assert caught.value.exit_code == 75 and len(list((tmp_path / "samples").rglob("*.png"))) == 8
    assert sample(*words)["made"] == 6
    assert files(tmp_path / "samples") == files(tmp_path / "whole") and len(files(tmp_path / "whole")) == 16


@pytest.mark.slow
def test_a_killed_command_goes_on_at_picture_500_of_1000(ldm, sample, tmp_path):
    """The thousand of the promise, by a process that is killed while it writes."""
    words = ["count=1000", "steps=1", "batch=50", "machine.device=cpu", "machine.precision=fp32"]
    command = [sys.executable, "-m", "ldmctl", "sample", "--run", str(ldm), *words, "--out", str(tmp_path / "killed")]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while running.poll() is None and len(list((tmp_path / "killed").glob("0*.png"))) < 500:
        pass
    running.kill()
    running.wait()
    there = len(list((tmp_path / "killed").glob("0*.png")))
    assert 500 <= there < 1000
    assert sample(*words, out="killed")["made"] == 1000 - there and sample(*words, out="whole")["made"] == 1000
    whole = files(tmp_path / "whole")
    assert len(whole) == 1001 and {name: data for name, data in files(tmp_path / "killed").items() if not name.startswith(".")} == whole


@pytest.mark.slow
def test_two_ranks_leave_the_bytes_of_one_on_shelves_in_the_table_and_in_the_npz(ldm, tmp_path):
    small = "import sys; from ldmctl.pictures import album; album.SHELF = 5; from ldmctl.cli.app import run; sys.exit(run(sys.argv[1:]))"
    words = ["--label", "all", "--each", "5", "--npz", "steps=2", "batch=4", "--device", "cpu", "--precision", "fp32", "-q"]
    command = [sys.executable, "-c", small, "sample", "--run", str(ldm), *words]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [
        subprocess.Popen(
            [*command, "--out", str(tmp_path / "both")], env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    assert subprocess.run([*command, "--out", str(tmp_path / "one")], check=False).returncode == 0
    both, one = files(tmp_path / "both"), files(tmp_path / "one")
    assert len(one) == 22 and both == one and "000015/000019.png" in one


# -- one file of all ------------------------------------------------------------------------


def test_the_npz_holds_the_pixels_of_the_pngs_in_the_order_of_the_seeds(sample, tmp_path, shelves_of_5):
    answer = sample("seeds=9,0-5", "npz=true")
    with np.load(answer["npz"]) as found:
        assert found.files == ["arr_0"]
        array = found["arr_0"]
    assert array.dtype == np.uint8 and array.shape == (7, 16, 16, 3)
    for row, seed in enumerate([9, 0, 1, 2, 3, 4, 5]):
        assert np.array_equal(array[row], pixels(album.file_of(tmp_path / "samples", seed, shelved=True)))
    before = (tmp_path / "samples" / "samples.npz").read_bytes()
    assert sample("seeds=9,0-5", "npz=true")["made"] == 0 and (tmp_path / "samples" / "samples.npz").read_bytes() == before


def test_an_npz_of_somebody_else_is_not_replaced(sample, tmp_path):
    mine = tmp_path / "samples" / "samples.npz"
    mine.parent.mkdir()
    np.savez(mine, arr_0=np.zeros(3))
    before = mine.read_bytes()
    with pytest.raises(MismatchError, match=r"samples\.npz is there already and is none of ldmctl's"):
        sample("npz=true")
    assert [file.name for file in mine.parent.iterdir()] == ["samples.npz"] and mine.read_bytes() == before
    assert zipfile.is_zipfile(mine)


# -- seeds and labels -------------------------------------------------------------------------


def test_seeds_by_name_are_the_pictures_of_their_seeds(sample, tmp_path):
    sample("count=6", "label=1", out="row")
    answer = sample("seeds=4,1-2", "label=1")
    assert (answer["seeds"], answer["count"], answer["made"]) == ([4, 1, 2], 3, 3)
    row, some = files(tmp_path / "row"), files(tmp_path / "samples")
    assert sorted(some) == ["000001.png", "000002.png", "000004.png", "grid.png"] and all(
        some[name] == row[name] for name in list(some)[:3]
    )


def test_all_labels_make_a_table_with_a_row_for_each(sample, tmp_path):
    answer = sample("label=all", "each=3")
    assert answer["count"] == 12 and answer["labels"] == ["red circle", "blue circle", "red square", "blue square"] * 3
    table = pixels(tmp_path / "samples" / "grid.png")
    assert table.shape == (4 * 18 - 2, 3 * 18 - 2, 3)
    for row in range(4):
        for column in range(3):
            cell = table[row * 18 :][:16, column * 18 :][:, :16]
            assert np.array_equal(cell, pixels(tmp_path / "samples" / f"{row + 4 * column:06d}.png"))
    said = json.loads(said_by(tmp_path / "samples" / "grid.png").text)
    assert said["rows"] == answer["labels"][:4] and said["grid"][:3] == [0, 4, 8]


def test_a_row_that_is_shorter_ends_in_white_and_the_console_says_how_many_each_has(ldm, tiny, tmp_path, capsys):
    from ldmctl.console import Console

    config = tiny("sample", f"run={ldm}", *HOST, "label=all", "count=6")
    stage(config, tmp_path / "samples", console=Console())
    told = capsys.readouterr().err
    assert "1 to 2 pictures of each of 4 labels, a row of the grid for each: red circle, " in told and "evaluations for each" in told
    table = pixels(tmp_path / "samples" / "grid.png")
    assert table.shape == (4 * 18 - 2, 2 * 18 - 2, 3) and (table[2 * 18 :, 18:] == 255).all() and not (table[18:34, 18:] == 255).all()


def test_a_grid_shows_256_pictures_at_most_and_a_table_whole_rows_of_them():
    from ldmctl.pictures.sheet import places

    assert places(50_000, 0) == list(range(256)) and places(5, 1) == [0, 1, 2, 3, 4]
    table = places(50_000, 10)
    assert len(table) == 250 and table[:3] == [0, 10, 20] and table[25:27] == [1, 11]
    assert len(places(50_000, 1000)) == 256, "of more classes than that, the first of them"


def test_label_all_leaves_out_what_was_never_learned_and_says_where_there_is_nothing(sorted_run, tiny, quiet, tmp_path):
    from ldmctl.diffusion.labels import class_indices

    config = tiny("sample", f"run={sorted_run}", *HOST, "label=[all,none]", "each=1")
    assert stage(config, tmp_path / "samples", console=quiet)["labels"] == ["cat", "dog", "wolf", None]
    with pytest.raises(ConfigError, match="label=all could mean the class of that name or all of them"):
        class_indices("all", {"classes": ["all", "cat"], "label_counts": [1, 1]})
    assert class_indices("index:all", {"classes": ["all", "cat"], "label_counts": [1, 1]}) == [0, 1]
    with pytest.raises(ConfigError, match="no picture that this model learned from has one"):
        class_indices("all", {"classes": [], "label_counts": []})


# -- in memory ----------------------------------------------------------------------------------


def test_a_loaded_model_takes_seeds_and_gives_latents(ldm):
    from ldmctl import api

    model = api.load(ldm, device="cpu", precision="fp32")
    keys = {"steps": 2, "batch": 4, "label": "all"}
    images, _, seeds = model.sample(seeds=[7, 3], **keys)
    assert seeds == [7, 3] and torch.equal(images, model.sample(seeds="7,3", **keys).images)
    latents, labels, _ = model.sample(each=2, output="latents", **keys)
    assert latents.dtype == torch.float32 and latents.shape == (8, *model.header["latent"]) and len(set(labels)) == 4
    made = model.codec.decode(latents[:4], (16, 16))
    assert torch.equal(((made + 1) * 127.5).round().clamp(0, 255).byte(), model.sample(each=2, **keys).images[:4])
    with pytest.raises(ConfigError, match="output='latent' is neither images nor latents"):
        model.sample(1, output="latent")
