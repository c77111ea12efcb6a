"""No command writes where it reads, by whatever name; --overwrite deletes a run of its own verb alone."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ldmctl.cli.app import run as command
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.storage import apart
from ldmctl.storage.run import open_run


@pytest.fixture(scope="module")
def project(tmp_path_factory, fit_ae, encode, fit_diffusion):
    """A folder with pictures, and the chain of a run, a cache and a run made of them. Read only."""
    home = tmp_path_factory.mktemp("project")
    for index in range(40):
        (home / "pictures" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (index * 6, 99, 30)).save(home / "pictures" / "ab"[index % 2] / f"{index}.png")
    fit_ae(home / "ae", f"data={home / 'pictures'}")
    encode(home / "cache", home / "ae")
    fit_diffusion(home / "ldm", home / "cache")
    (home / "models").mkdir()
    return home


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*") if path.name != ".lock"
    }


WORDS = {  # a command that reads, without its --out
    "fit-ae on pictures": ["fit-ae", "--data", "pictures"],
    "fit-ae from a run": ["fit-ae", "--init", "ae", "--data", "shapes"],
    "fit-ae from a snapshot": ["fit-ae", "--init", "ae@best", "--data", "shapes"],
    "fit-ae from a file": ["fit-ae", "--init", "ae/model.safetensors", "--data", "shapes"],
    "encode-dataset": ["encode-dataset", "--run", "ae"],
    "encode-dataset of a snapshot": ["encode-dataset", "--run", "ae@best"],
    "fit-diffusion": ["fit-diffusion", "--latents", "cache"],
    "sample": ["sample", "--run", "ldm", "-n", "1", "--steps", "1"],
    "sample with a decoder": ["sample", "--run", "ldm", "--ae", "ae", "-n", "1", "--steps", "1"],
    "eval-lpips": ["eval-lpips", "--run", "ae", "perceptual=null"],
    "doctor": ["doctor", "--run", "ldm"],
    "eval-samples": ["eval-samples", "--run", "ldm", "--extractor", "latent", "-n", "4"],
    "eval-samples of a folder": ["eval-samples", "--samples", "pictures", "--against", "cache", "--extractor", "latent"],
    "fit-token": ["fit-token", "--run", "ldm", "--data", "pictures", "--word", "<mine>"],
}
READ = {  # what each of them reads
    "fit-ae on pictures": ["pictures"],
    "fit-ae from a run": ["ae", "pictures"],
    "fit-ae from a snapshot": ["ae"],
    "fit-ae from a file": ["ae"],
    "encode-dataset": ["ae", "pictures"],
    "encode-dataset of a snapshot": ["ae"],
    "fit-diffusion": ["cache", "pictures"],
    "sample": ["ldm", "pictures", "cache", "ae"],
    "sample with a decoder": ["ae"],
    "eval-lpips": ["ae", "pictures"],
    "doctor": ["ldm", "pictures", "cache"],
    "eval-samples": ["ldm", "pictures", "cache", "ae"],
    "eval-samples of a folder": ["pictures", "cache"],
    "fit-token": ["ldm", "pictures"],
}
CASES = [(name, place) for name, places in READ.items() for place in places]


@pytest.mark.parametrize("overwrite", [False, True], ids=["", "overwrite"])
@pytest.mark.parametrize(("name", "place"), CASES, ids=lambda value: value)
def test_no_command_writes_into_a_folder_that_it_reads(project, monkeypatch, capsys, name, place, overwrite):
    monkeypatch.chdir(project)
    before = contents(project)
    flag = ["--overwrite"] if overwrite and name.split()[0] not in ("eval-lpips", "doctor", "eval-samples") else []
    assert command([*WORDS[name], "--out", place, *flag]) == 2
    said = capsys.readouterr().err
    assert place in said and "name another --out" in said.lower() and "Traceback" not in said
    assert contents(project) == before


@pytest.mark.parametrize("spelling", ["./cache", "cache/", "cache/../cache", "ldm/../cache", "absolute", "link", "link/", "link in link"])
def test_another_name_of_a_folder_hides_nothing(project, tmp_path, monkeypatch, capsys, spelling):
    monkeypatch.chdir(project)
    (tmp_path / "link").symlink_to(project / "cache")
    (tmp_path / "again").symlink_to(tmp_path / "link")
    (tmp_path / "home").symlink_to(project)
    named = {
        "absolute": project / "cache",
        "link": tmp_path / "link",
        "link/": f"{tmp_path / 'link'}/",
        "link in link": tmp_path / "home" / "ldm" / ".." / "cache",
    }.get(spelling, spelling)
    before = contents(project)
    assert command(["fit-diffusion", "--latents", "cache", "--out", str(named), "--overwrite"]) == 2
    assert command(["fit-diffusion", "--latents", str(named), "--out", "cache", "--overwrite"]) == 2
    assert contents(project) == before


def test_capitals_hide_nothing_where_the_file_system_passes_them_over(project, monkeypatch):
    """Such a file system says that both names are one place, which is all that is asked."""
    same = os.path.samefile

    def careless(one, other):
        return same(str(one).lower() if not os.path.exists(one) else one, str(other).lower() if not os.path.exists(other) else other)

    monkeypatch.chdir(project)
    monkeypatch.setattr(os.path, "samefile", careless)
    reads = [apart.Read("the cache", Path("cache"))]
    with pytest.raises(ConfigError, match="--out CACHE is the cache"):
        apart.refuse("CACHE", reads, verb="fit-diffusion", owns=True)


@pytest.mark.parametrize(
    ("name", "out", "said"),
    [
        ("fit-ae on pictures", "pictures/run", "would be among the pictures the next time"),
        ("fit-ae on pictures", "pictures/a/deep/run", "would be among the pictures the next time"),
        ("encode-dataset", "pictures/cache", "would be among the pictures the next time"),
        ("fit-diffusion", "pictures/ldm", "would be among the pictures the next time"),
        ("sample", "pictures/a", "would be among the pictures the next time"),
        ("eval-lpips", "pictures/verdict", "would be among the pictures the next time"),
        ("doctor", "pictures/checkup", "would be among the pictures the next time"),
        ("fit-ae from a run", "ae/again", "name an --out beside it"),
        ("encode-dataset", "ae/cache", "name an --out beside it"),
        ("fit-diffusion", "cache/ldm", "name an --out beside it"),
        ("sample", "ldm/samples", "name an --out beside it"),
        ("eval-lpips", "ae/samples", "name an --out beside it"),
        ("fit-ae on pictures", ".", "wants a folder of its own"),
        ("fit-ae from a run", ".", "cannot start from its own weights"),
        ("encode-dataset", ".", "wants a folder of its own"),
        ("fit-diffusion", ".", "wants a folder of its own"),
    ],
)
def test_nor_below_it_nor_around_it(project, monkeypatch, capsys, name, out, said):
    monkeypatch.chdir(project)
    before = contents(project)
    assert command([*WORDS[name], "--out", out]) == 2
    assert said in capsys.readouterr().err.replace("Name an --out beside", "name an --out beside")
    assert contents(project) == before


@pytest.mark.parametrize("depth", ["", "train"])
@pytest.mark.parametrize("out", ["pictures/a/run", "pictures/a"])
def test_a_folder_that_links_make_part_of_the_pictures_is_one_of_them(project, tmp_path, monkeypatch, capsys, depth, out):
    (tmp_path / "set" / depth).mkdir(parents=True)
    for name in "ab":
        (tmp_path / "set" / depth / name).symlink_to(project / "pictures" / name)
    monkeypatch.chdir(project)
    before = contents(project)
    assert command(["fit-ae", "--data", str(tmp_path / "set"), "--out", out]) == 2
    assert "would be among the pictures the next time" in capsys.readouterr().err and contents(project) == before


@pytest.mark.parametrize(
    ("name", "out"),
    [("fit-diffusion", "ae/ldm"), ("sample", "cache/samples"), ("sample", "ae/samples"), ("eval-samples", "cache/verdict")],
)
def test_nor_below_the_runs_that_it_was_made_from(project, monkeypatch, capsys, name, out):
    monkeypatch.chdir(project)
    before = contents(project)
    assert command([*WORDS[name], "--out", out]) == 2
    assert "was made: name an --out beside it" in capsys.readouterr().err and contents(project) == before


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["sample", "--run", "ldm", "--autoguide", "weak", "--guidance", "2"], "weak"),
        (["sample", "--run", "ldm", "--autoguide", "weak", "--guidance", "2"], "weak/samples"),
        (["sample", "--run", "ldm", "--from", "shown"], "shown/below"),
        (["sample", "--run", "ldm", "--map", "shown"], "shown/below"),
        (["sample", "--run", "ldm", "--picture", "shown"], "shown/below"),
        (["fit-diffusion", "--latents", "cache", "conditions.text={type: text, encoder: encoder}"], "encoder"),
        (["fit-diffusion", "--latents", "cache", "conditions.text={type: text, encoder: encoder}"], "encoder/run"),
        (["fit-diffusion", "--latents", "cache", "conditions.text={type: text, encoder: here/encoder}"], "here"),
        (["fit-ae", "--data", "pictures", "dataset.maps=drawn"], "drawn"),
        (["fit-ae", "--data", "pictures", "dataset.maps=drawn"], "drawn/run"),
        (["encode-dataset", "--run", "ae", "--data", "pictures", "dataset.maps=./drawn"], "drawn/cache"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
@pytest.mark.parametrize("overwrite", [False, True], ids=["", "overwrite"])
def test_nor_where_weaker_runs_encoders_maps_and_pictures_to_begin_with_lie(project, monkeypatch, capsys, tmp_path, words, out, overwrite):
    monkeypatch.chdir(tmp_path)
    for name in ("ae", "cache", "ldm", "pictures"):
        (tmp_path / name).symlink_to(project / name)
    shutil.copytree(project / "ldm", tmp_path / "weak")
    for name in ("shown/0.png", "drawn/0.png", "encoder/config.json", "here/encoder/config.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("kept")
    before = contents(tmp_path), contents(project)
    assert command([*words, "--out", out, *["--overwrite"][: int(overwrite)]]) == 2
    said = capsys.readouterr().err
    assert "another --out" in said or "an --out" in said.lower(), said
    assert (contents(tmp_path), contents(project)) == before


def test_a_run_goes_on_with_its_own_copy_of_an_encoder(tmp_path, tiny):
    """Named by hand where the first one is gone."""
    open_run(tmp_path / "ldm", tiny("fit-diffusion")).close("finished")
    own = tmp_path / "ldm" / "text-encoder"
    own.mkdir()
    reads = apart.reads_of({"conditions": {"text": {"type": "text", "encoder": str(own)}, "drop": {"text": None}}})
    assert [each.path for each in reads] == [own]
    apart.refuse(tmp_path / "ldm", reads, verb="fit-diffusion", owns=True)
    with pytest.raises(ConfigError, match="lies in the folder"):
        apart.refuse(own / "run", reads, verb="fit-diffusion", owns=True)


def test_it_is_refused_by_a_dry_run_and_before_processes_are_started_too(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert command(["fit-diffusion", "--latents", "cache", "--out", "cache", "--dry-run"]) == 2
    assert command(["fit-diffusion", "--latents", "cache", "--out", "cache", "--devices", "2"]) == 2
    assert capsys.readouterr().err.count("No command writes where it reads") == 2


def test_it_is_refused_from_python_too(project, monkeypatch):
    from ldmctl import api

    monkeypatch.chdir(project)
    before = contents(project)
    for call in (
        lambda: api.fit_diffusion(latents="cache", out="cache", overwrite=True, device="cpu"),
        lambda: api.encode_dataset(run="ae", out="ae", overwrite=True, device="cpu"),
        lambda: api.fit_ae(init="ae", out="ae", overwrite=True, device="cpu"),
        lambda: api.sample(run="ldm", out="pictures", device="cpu"),
        lambda: api.eval_lpips(["perceptual=null"], run="ae", out="pictures", device="cpu"),
    ):
        with pytest.raises(ConfigError):
            call()
    assert contents(project) == before


def test_a_linked_folder_of_pictures_in_a_run_folder_is_refused(project, tmp_path, tiny):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").symlink_to(project / "pictures")
    before = contents(project)
    with pytest.raises(ConfigError, match="a link in --out"):
        open_run(tmp_path / "run", tiny("fit-ae", f"data={project / 'pictures'}"), overwrite=True)
    assert contents(project) == before


def test_a_cache_that_lies_in_its_run_folder_from_before_is_still_brought_up_to_date(tmp_path, fit_ae, encode):
    run = fit_ae(tmp_path / "ae")
    encode(tmp_path / "cache", run)
    before = (tmp_path / "cache" / "latents.json").read_bytes()
    (tmp_path / "cache").rename(run / "cache")
    encode(run / "cache", run)
    assert (run / "cache" / "latents.json").read_bytes() == before


def test_folders_beside_each_other_are_no_matter(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    assert command(["sample", "--run", "ldm", "-n", "1", "--steps", "1", "--out", str(tmp_path / "samples"), "--quiet"]) == 0
    assert command(["eval-lpips", "--run", "ae", "perceptual=null", "--out", str(tmp_path / "verdict"), "--quiet"]) == 0
    assert command(["doctor", "--run", "ldm", "--out", str(tmp_path / "checkup")]) == 0


# -- --overwrite -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "folder"), [("fit-ae", "cache"), ("fit-ae", "ldm"), ("fit-diffusion", "other-cache"), ("fit-diffusion", "ae2")]
)
def test_overwrite_deletes_no_run_of_another_verb(tmp_path, tiny, vae_cache, verb, folder):
    there = {"cache": "encode-dataset", "ldm": "fit-diffusion", "other-cache": "encode-dataset", "ae2": "fit-ae"}[folder]
    words = {"fit-diffusion": [f"latents={vae_cache}"], "encode-dataset": [], "fit-ae": []}

    def config(verb):
        from ldmctl.latents import manifest, recipe

        below = recipe.recipe(manifest.read(vae_cache)) if verb == "fit-diffusion" else None
        return tiny(verb, *words[verb], *(["data=shapes"] if verb == "encode-dataset" else []), below=below)

    open_run(tmp_path / folder, config(there)).close("finished")
    (tmp_path / folder / "state.safetensors").write_text("days of work")
    before = contents(tmp_path / folder)
    for damage in (False, True):
        if damage:  # config.yaml still tells the verb
            (tmp_path / folder / "run.json").write_text("{")
            before = contents(tmp_path / folder)
        with pytest.raises(MismatchError, match=f"holds a run of {there}, and --overwrite deletes only one of {verb}"):
            open_run(tmp_path / folder, config(verb), overwrite=True)
        assert contents(tmp_path / folder) == before


def test_the_refusal_of_another_verbs_folder_does_not_advise_overwrite(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    with pytest.raises(MismatchError) as caught:
        open_run(tmp_path, tiny("fit-diffusion"))
    assert "--overwrite" not in str(caught.value) and "Name another --out" in str(caught.value)


def test_a_run_whose_record_is_damaged_can_be_started_over_by_its_verb(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(MismatchError, match="damaged"):
        open_run(tmp_path, tiny("fit-ae"))
    open_run(tmp_path, tiny("fit-ae"), overwrite=True).close("finished")
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(MismatchError, match="delete the folder yourself"):
        open_run(tmp_path, tiny("fit-ae"), overwrite=True)


def test_overwrite_says_what_it_deletes(tmp_path, tiny):
    said = []
    open_run(tmp_path, tiny("fit-ae"), overwrite=True, say=said.append).close("finished")
    assert said == []
    with open_run(tmp_path, tiny("fit-ae")) as run:
        run.update(step=12_000)
        (tmp_path / "model.safetensors").write_bytes(bytes(2**20))
    open_run(tmp_path, tiny("fit-ae"), overwrite=True, say=said.append).close("finished")
    assert said == [f"--overwrite deletes the fit-ae run in {tmp_path}, 12,000 steps: 3 files, 1.0 MiB."]


def test_overwrite_deletes_nothing_behind_a_link(tmp_path, tiny):
    open_run(tmp_path / "run", tiny("fit-ae")).close("finished")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000000001.png").write_text("mine")
    (tmp_path / "run" / "samples").symlink_to(tmp_path / "mine")
    (tmp_path / "run" / "model.safetensors").symlink_to(tmp_path / "mine" / "000000001.png")
    open_run(tmp_path / "run", tiny("fit-ae"), overwrite=True).close("finished")
    assert (tmp_path / "mine" / "000000001.png").read_text() == "mine"
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_overwrite_deletes_no_file_that_only_resembles_ours(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    mine = ["samples/favourite.png", "snapshots/paper.safetensors", "averages/mine.safetensors", "lora-1.safetensors", ".notes.tmp"]
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    ours = ["samples/000000010.png", "samples/verdict.png", "snapshots/best.safetensors", "snapshots/000000010.safetensors"]
    ours += ["averages/000000010-0.050.safetensors", ".state.safetensors.123.tmp", ".tmpAb3xYz", "metrics.csv", "wandb.json"]
    for name in ours:
        (tmp_path / name).write_text("ours")
    open_run(tmp_path, tiny("fit-ae"), overwrite=True).close("finished")
    assert [name for name in mine if not (tmp_path / name).exists()] == []
    assert [name for name in ours if (tmp_path / name).exists()] == []


@pytest.mark.parametrize("folder", ["tensorboard", "logs/tb", "."])
def test_overwrite_deletes_the_curves_of_the_deleted_run(tmp_path, tiny, folder):
    config = tiny("fit-ae", "tracker.type=tensorboard", f"tracker.folder={folder}")
    open_run(tmp_path / "run", config).close("finished")
    place = tmp_path / "run" / folder
    place.mkdir(parents=True, exist_ok=True)
    events, mine = place / "events.out.tfevents.1700000000.host.77.0", place / "notes.txt"
    outside = tmp_path / "events.out.tfevents.1700000000.host.78.0"
    for file in (events, mine, outside):
        file.write_text("points")
    open_run(tmp_path / "run", tiny("fit-ae"), overwrite=True).close("finished")
    assert (events.exists(), mine.exists(), outside.exists()) == (False, True, True)


def test_curves_outside_of_the_run_folder_are_not_deleted(tmp_path, tiny):
    (tmp_path / "shared").mkdir()
    events = tmp_path / "shared" / "events.out.tfevents.1700000000.host.77.0"
    events.write_text("points of other runs too")
    open_run(tmp_path / "run", tiny("fit-ae", "tracker.type=tensorboard", "tracker.folder=../shared")).close("finished")
    open_run(tmp_path / "run", tiny("fit-ae"), overwrite=True).close("finished")
    assert events.exists()


def test_what_a_killed_command_left_half_written_is_deleted_by_the_next_one(tmp_path, tiny):
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    (tmp_path / "snapshots").mkdir()
    for name in (".state.safetensors.4242.tmp", ".tmpXyZ123", "snapshots/.best.safetensors.4242.tmp"):
        (tmp_path / name).write_bytes(b"half")
    open_run(tmp_path, tiny("fit-ae")).close("finished")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".lock", "config.yaml", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "finished"
