"""Samples are made, or taken from any folder, and judged beside real pictures; what a person may do wrong is a sentence."""

import io
import json
import os
import shutil
import signal

import pytest
import torch
from PIL import Image

from ldmctl.cli.app import run as run_cli
from ldmctl.config.compared import data_of, pictures_for
from ldmctl.diffusion.network import fingerprint_of
from ldmctl.errors import ConfigError, DataError, MismatchError, Stopped
from ldmctl.pictures.images import to_tensor
from ldmctl.pictures.png_text import made_by
from ldmctl.stages.eval_samples import eval_samples, plan_eval_samples
from ldmctl.stages.sample import sample as make
from ldmctl.storage import weights

CPU = ["machine.device=cpu", "machine.precision=fp32", "steps=2", "batch=16", "workers=0"]


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run of fit-diffusion on tiny shapes. Read only, its cache may get features."""
    cache = tmp_path_factory.mktemp("judged") / "cache"
    shutil.copytree(vae_cache, cache)
    return fit_diffusion(cache.parent / "ldm", cache)


@pytest.fixture(scope="module")
def real(tiny, ldm):
    """uint8 [40,3,16,16]: the training pictures."""
    from ldmctl.pictures.loading import open_pictures

    pictures = open_pictures(tiny("eval-samples", f"run={ldm}", below=pictures_for(run=str(ldm))), "train")
    return pictures.batch([(row, None) for row in range(len(pictures))]).image


@pytest.fixture
def judged(tiny, quiet, ldm, tmp_path):
    """judged("count=8") -> what the stage says; results lie in tmp_path/out."""

    def go(*overrides, run=ldm, against=None, out="out", console=quiet):
        below = pictures_for(run=str(run), against=against)
        words = [
            f"run={run}",
            *CPU,
            *([f"against={against}"] if against else []),
            *(f"data={each}" for each in data_of(against).values()),
            *overrides,
        ]
        return eval_samples(tiny("eval-samples", *words, below=below), tmp_path / out, console=console)

    return go


def folder_of(images, folder, *, suffix="png", **options):
    """The pictures as files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:03d}.{suffix}", **options)
    return folder


LATENT = "extractor=latent"


def test_every_number_has_its_interval_its_extractor_and_real_pictures_beside_it(judged, tmp_path):
    found = judged("count=16", LATENT)
    assert found["count"] == found["made"] == 16 and found["references"] == 32, (
        "eight of the 40 training pictures stand beside the eight held-out ones"
    )
    names = ("frechet_distance", "kernel_distance", "gaussian_kernel_distance", "precision", "recall", "density", "coverage")
    assert tuple(found["measures"]) == names
    assert found["extractor"]["resize"].endswith(", as they are")
    for each in found["measures"].values():
        assert each["title"].endswith("(latent)") and "FID" not in each["title"]
        assert each["low"] <= each["value"] <= each["high"] and each["real"]["count"] == 16
    assert json.loads((tmp_path / "out" / "judgement.json").read_text())["measures"] == found["measures"]
    assert {"closest.png", "alike.png"} <= {file.name for file in (tmp_path / "out").iterdir()}
    assert len(found["verdict"]) >= 10 and found["memorisation"]["passes"] == pytest.approx(4 * 8 / 40)


def test_fewer_samples_than_features_are_said(judged):
    said = judged("count=16", LATENT)["verdict"]
    assert said[0].startswith("16 samples are not more than the 192 features of latent") and "-n 384" in said[0]


def test_fewer_real_pictures_than_samples_are_said(judged):
    found = judged("count=32", LATENT)
    said = found["verdict"]
    assert said[0].startswith("Only 24 real pictures could be set aside") and "take -n 24" in said[0]
    for each in found["measures"].values():
        assert each["same"]["count"] == each["real"]["count"] == 24
    own = found["measures"]["frechet_distance"]
    assert own["same"]["value"] > own["value"], "of fewer pictures it is larger, as that of the real ones is"
    assert any("of 24 samples, evenly, is" in each for each in said)


def test_samples_among_each_other_are_no_more_than_the_references(judged):
    found = judged("count=16", LATENT, "references=8")
    assert found["references"] == found["duplicates"]["count"] == 8 and found["duplicates"]["of"] == 16
    assert any("of 8 of the 16 samples, evenly," in each for each in found["verdict"])


def test_the_training_pictures_as_samples_are_good_and_copies(judged, real, tmp_path):
    found = judged(f"samples={folder_of(real, tmp_path / 'samples')}", LATENT)
    assert found["memorisation"]["share"] == 1 and found["memorisation"]["features"]["median"] == 0
    said = " ".join(found["verdict"])
    assert "they repeat these pictures. Nothing says whether what made them learned from these pictures" in said and "the run" not in said
    assert found["measures"]["precision"]["value"] > 0.9
    assert not any("no difference" in each and "needed" not in each for each in found["verdict"]), "40 are too few to be called good"


def test_a_folder_that_the_run_made_is_judged_as_what_the_run_does(judged, ldm, tmp_path, quiet, tiny):
    samples = tmp_path / "samples"
    make(tiny("sample", f"run={ldm}", "count=12", "steps=2", "machine.device=cpu", "machine.precision=fp32"), samples, console=quiet)
    found = judged(f"samples={samples}", LATENT)
    assert (
        found["count"] == 12 and found["memorisation"]["learned"] is True and found["memorisation"]["passes"] == pytest.approx(4 * 8 / 40)
    )
    another = samples / "000003.png"
    pixels = Image.open(another).copy()
    pixels.info.clear()
    pixels.save(another)  # whoever made this one
    assert judged(f"samples={samples}", LATENT)["memorisation"]["learned"] is None


def test_samples_that_cannot_be_read_are_named_and_counted(judged, real, tmp_path, capsys):
    from ldmctl.cli.eval_samples import show
    from ldmctl.console import Console

    samples = folder_of(torch.cat([real] * 3)[:110], tmp_path / "samples")
    (samples / "a.png").write_text("no picture")
    found = judged(f"samples={samples}", LATENT, console=Console())
    said = " ".join(capsys.readouterr().err.split())
    assert found["count"] == 110 and "1 sample cannot be read and is left out; the first: " in said and "a.png" in said
    assert len(found["unreadable"]) == 1 and "a.png" in found["unreadable"][0]
    show(found)
    title = " ".join(capsys.readouterr().out.split())
    assert (
        f"110 of 111 pictures of {samples}, without 1 that cannot be read, against" in title
        and "evenly" not in title.partition("against")[0]
    )


def test_copies_are_found_flipped_and_as_jpegs(judged, real, tmp_path):
    found = judged(f"samples={folder_of(real.flip(-1), tmp_path / 'samples', suffix='jpg', quality=95, subsampling=0)}", LATENT)
    assert found["memorisation"]["ordinary_count"] == 40 and found["memorisation"]["share"] > 0.5, "by chance it were one in 41"


def test_a_second_command_reads_what_the_first_one_saw(judged, ldm, monkeypatch):
    first = judged("count=12", LATENT)
    kept = sorted((ldm.parent / "cache" / "features").iterdir())
    assert len(kept) >= 2
    from ldmctl.evaluation import real

    monkeypatch.setattr(real, "look_at", lambda *_: pytest.fail("looked at real pictures again"))
    again = judged("count=12", LATENT)
    assert again["made"] == 0 and again["measures"] == first["measures"]


def test_fitted_is_the_judge_where_there_are_labels_and_sees_what_was_asked(judged):
    found = judged("count=16", "extractor.steps=40", "extractor.type=fitted", "extractor.batch=16")
    assert found["asked"]["judge"] == "fitted" and found["asked"]["count"] == 16 and 0 <= found["asked"]["value"] <= 1
    assert sum(each["count"] for each in found["classes"].values()) == 16


def test_file_order_batch_and_workers_change_nothing(judged, real, tmp_path):
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    real = (real.int() + torch.randint(-20, 20, real.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 255).to(torch.uint8)
    one = judged(f"samples={folder_of(real, tmp_path / 'a')}", LATENT, out="one")
    other = judged(f"samples={folder_of(real[order], tmp_path / 'b')}", LATENT, "batch=7", "workers=1", out="other")
    for name, each in one["measures"].items():
        assert other["measures"][name]["value"] == pytest.approx(each["value"], rel=1e-4, abs=1e-5), name


def test_interrupted_sampling_goes_on(judged, tmp_path, monkeypatch):
    from ldmctl.diffusion import making

    class Once(making.Signals):
        def __enter__(self):
            super().__enter__()
            os.kill(os.getpid(), signal.SIGTERM)
            return self

    with monkeypatch.context() as patch:
        patch.setattr(making, "Signals", Once)
        with pytest.raises(Stopped, match="Stopped after 16 of 24 samples"):
            judged("count=24", LATENT)
    found = judged("count=24", LATENT)
    assert found["made"] == 8 and found["count"] == 24
    assert judged("count=24", LATENT, "steps=3")["made"] == 24, "other settings are other samples"


def test_how_samples_are_looked_at_makes_no_other_samples(judged):
    assert judged("count=16", LATENT)["made"] == 16
    assert judged("count=16", "extractor={type: latent, grid: 4}", "references=20", "nearest=false", "workers=0")["made"] == 0
    assert judged("count=16", LATENT, "guidance=2")["made"] == 16


# -- any folder ----------------------------------------------------------------


def test_a_folder_with_other_files_is_judged_by_its_pictures(judged, real, tmp_path):
    folder = folder_of(real, tmp_path / "samples")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "broken.txt.png.part").write_bytes(b"\x89PNG")
    (folder / ".hidden.png").write_bytes(b"no")
    assert judged(f"samples={folder}", LATENT)["count"] == 40


def grey_16(image):
    return Image.fromarray((image.float().mean(0) * 257).to(torch.int32).numpy().astype("uint16"))


def with_alpha(image):
    """All opaque: the same picture."""
    found = Image.fromarray(image.permute(1, 2, 0).numpy()).convert("RGBA")
    file = io.BytesIO()
    found.save(file, "PNG")
    assert torch.equal(to_tensor(Image.open(file))[:3], image)
    return found


def grey(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")


def threefold(levels):
    """uint8 [3,H,W] of grey levels [H,W] from 0 to 255."""
    return torch.as_tensor(levels).round().to(torch.uint8).expand(3, -1, -1)


@pytest.mark.parametrize(
    ("convert", "plain"),
    [
        (grey_16, lambda image: threefold((image.float().mean(0) * 257).to(torch.int32) / 257)),
        (grey, lambda image: threefold(to_tensor(grey(image))[0])),
        (with_alpha, lambda image: image),
    ],
    ids=["16-bit grey", "grey", "RGBA"],
)
def test_other_modes_are_brought_to_that_of_the_real_pictures(judged, real, tmp_path, convert, plain):
    folder = tmp_path / "samples"
    folder.mkdir()
    for index, image in enumerate(real):
        convert(image).save(folder / f"{index:03d}.png")
    found = judged(f"samples={folder}", LATENT)
    by_hand = judged(f"samples={folder_of([plain(image) for image in real], tmp_path / 'plain')}", LATENT, out="plain")
    assert found["count"] == 40 and found["measures"] == by_hand["measures"] and found["memorisation"] == by_hand["memorisation"]


def test_samples_of_another_size_are_resized_with_a_warning(judged, real, tmp_path, capsys):
    from ldmctl.console import Console

    folder = folder_of(real.repeat_interleave(2, 2).repeat_interleave(2, 3), tmp_path / "samples")
    assert judged(f"samples={folder}", LATENT, console=Console(quiet=True))["count"] == 40
    assert "Samples of 32x32 pixels were brought to 16x16" in capsys.readouterr().err


def test_fewer_pictures_than_a_number_that_was_given_are_told_and_of_the_default_not(judged, real, tmp_path, capsys):
    from ldmctl.console import Console

    folder = folder_of(real[:12], tmp_path / "samples")
    for words, told in ((["count=20"], True), ([], False)):
        assert judged(f"samples={folder}", LATENT, *words, console=Console())["count"] == 12
        assert ("were asked for" in capsys.readouterr().err) is told


def test_a_folder_of_real_pictures_may_stand_for_the_cache(judged, real, tmp_path):
    against = folder_of(real.flip(-1), tmp_path / "others")
    found = judged(f"samples={folder_of(real, tmp_path / 'samples')}", LATENT, against=str(against))
    assert found["references"] <= 40 and (tmp_path / "out" / "features").is_dir()
    assert found["memorisation"]["passes"] is None and found["memorisation"]["learned"] is None
    said = " ".join(found["verdict"])
    assert (
        "Nothing says whether what made them learned from these pictures" in said and "passes" not in said and "the run repeats" not in said
    )


def test_of_more_pictures_than_asked_for_those_are_taken_that_lie_evenly_over_the_folder(judged, real, tmp_path, capsys):
    from ldmctl.console import Console
    from ldmctl.pictures.sampled import Sampled

    for name, part in (("a", real[:20]), ("b", real[20:])):
        folder_of(part, tmp_path / "samples" / name)
    found = judged(f"samples={tmp_path / 'samples'}", LATENT, "count=12", console=Console())
    assert (found["count"], found["there"]) == (12, 40)
    assert "12 of 40 are judged, evenly" in " ".join(capsys.readouterr().err.split())
    chosen = Sampled(tmp_path / "samples", ["a", "b"], count=12, evenly=True)
    labels = [chosen[index].label for index in range(12)]
    assert labels == [0] * 6 + [1] * 6 and len(set(chosen.files)) == 12
    first = Sampled(tmp_path / "samples", ["a", "b"], count=12)
    assert [file.name for file in first.files] == [f"{index:03d}.png" for index in range(12)], "a run's are the first seeds"


def test_labels_that_change_are_looked_at_again(tiny, real, tmp_path):
    from ldmctl.evaluation.extraction import identity
    from ldmctl.pictures.loading import open_pictures

    folder = folder_of(real[:8], tmp_path / "pictures")

    def key(first):
        rows = [{"file_name": f"{index:03d}.png", "label": first if index == 0 else "ab"[index % 2]} for index in range(8)]
        (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        pictures = open_pictures(tiny("eval-samples", f"data={folder}", "dataset.val_share=0"), "train")
        return identity(pictures, range(len(pictures)), {})

    assert key("a") == key("a") and len({key("a"), key("b"), key("c")}) == 3


def test_samples_of_a_run_that_hears_words_are_said_to_be_made_without_any(tiny):
    from types import SimpleNamespace

    from ldmctl.evaluation.judging import unspoken

    hears, deaf = (SimpleNamespace(header={"conditions": each}) for each in ({"text": {"type": "words"}}, {}))
    assert unspoken(tiny("eval-samples"), hears) and not unspoken(tiny("eval-samples"), deaf)
    assert not unspoken(tiny("eval-samples", "prompt=[a dog]"), hears)


def test_names_in_brackets_are_printed_as_they_are(capsys):
    from ldmctl.cli.eval_samples import show

    measure = {"title": "distance (mine[/b])", "value": 1.0, "low": 0.9, "high": 1.1, "real": {"value": 1.0}}
    asked = {"judge": "mine[v3]", "value": 1.0, "low": 0.9, "high": 1.0, "real": {"value": 1.0}}
    found = {
        "count": 5000,
        "there": 10_000,
        "unreadable": [],
        "of": "made[v2]",
        "references": 9,
        "measures": {"a": measure},
        "asked": asked,
        "classes": {},
    }
    show({**found, "verdict": ["all[/b]"]})
    said = capsys.readouterr().out
    assert (
        "5,000 of 10,000 pictures of made[v2], evenly, against" in said
        and "(mine[/b])" in said
        and "(mine[v3])" in said
        and "all[/b]" in said
    )
    row = {"run": "a[/b]", "step": 1, **dict.fromkeys(("frechet_distance", "precision", "recall"), measure)}
    show({"curve": [row], "verdict": ["well"]})
    assert "a[/b]" in capsys.readouterr().out


def test_snapshots_and_a_folder_of_samples_together_are_refused_before_anything_is_looked_at(tiny, quiet, tmp_path):
    config = tiny("eval-samples", "run=nowhere", f"samples={tmp_path}", "curve=true")
    for act in (lambda: eval_samples(config, tmp_path / "out", console=quiet), lambda: plan_eval_samples(config, tmp_path / "out")):
        with pytest.raises(ConfigError, match="leave samples out"):
            act()
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_and_a_missing_one_are_sentences(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        judged(f"samples={tmp_path / 'empty'}", LATENT)
    with pytest.raises(DataError, match="There is no folder"):
        judged(f"samples={tmp_path / 'nowhere'}", LATENT)


def test_labels_are_read_from_folders_and_pngs(real, tmp_path):
    from ldmctl.pictures.png import write_png
    from ldmctl.pictures.sampled import Sampled

    folder_of(real[:2], tmp_path / "red circle")
    write_png(tmp_path / "a.png", real[0], {"label": "blue square"})
    write_png(tmp_path / "b.png", real[0], {"ldmctl": json.dumps({"label": "red circle", "seed": 3})})
    write_png(tmp_path / "grid.png", real[0], {"ldmctl": json.dumps({"grid": [1]})})
    dataset = Sampled(tmp_path, ["red circle", "blue square"])
    assert [file.name for file in dataset.files] == ["a.png", "b.png", "000.png", "001.png"]
    assert [dataset[index].label for index in range(4)] == [1, 0, 0, 0]


def test_samples_on_shelves_keep_their_labels_and_sheets_are_no_samples(real, tmp_path):
    from ldmctl.pictures.png import write_png
    from ldmctl.pictures.sampled import Sampled

    for seed, label in {7: "001000", 1000: None, 1001: "cat"}.items():
        text = {"ldmctl": json.dumps({"seed": seed, "label": label})}
        write_png(tmp_path / f"{seed // 1000 * 1000:06d}" / f"{seed:06d}.png", real[0], text)
    write_png(tmp_path / "trace.png", real[0], {"ldmctl": json.dumps({"trace": [7]})})
    Image.new("RGB", (8, 8)).save(tmp_path / "trace.webp")
    write_png(tmp_path / "closest.png", real[0], {"Description": "Rows: samples, below each its nearest, the closest pairs first."})
    dataset = Sampled(tmp_path, ["cat", "001000"])
    assert [file.name for file in dataset.files] == ["000007.png", "001000.png", "001001.png"]
    assert [dataset[index].label for index in range(3)] == [1, -1, 0], "a shelf is no class, even where one has its name"


def test_seeds_and_pictures_of_each_label_are_made_and_judged(ldm, tiny, tmp_path, quiet):
    keys = (f"run={ldm}", *CPU, LATENT, "steps=2", "batch=8")
    chosen = tiny("eval-samples", *keys, "seeds=3-8,20", below=pictures_for(run=str(ldm)))
    found = eval_samples(chosen, tmp_path / "chosen", console=quiet)
    assert (found["count"], found["made"]) == (7, 7)
    assert sorted(int(file.stem) for file in tmp_path.glob("chosen/samples-*/*.png")) == [3, 4, 5, 6, 7, 8, 20]
    every = tiny("eval-samples", *keys, "label=all", "each=2", below=pictures_for(run=str(ldm)))
    found = eval_samples(every, tmp_path / "every", console=quiet)
    labels = [json.loads(made_by(file))["label"] for file in tmp_path.glob("every/samples-*/*.png")]
    assert found["count"] == len(labels) and set(map(labels.count, labels)) == {2}


def test_without_labels_and_without_a_run_the_extractors_are_named(judged, real, tmp_path, quiet, tiny):
    config = tiny("eval-samples", f"samples={folder_of(real, tmp_path / 'a')}", f"run={tmp_path / 'none'}", f"data={tmp_path / 'a'}", *CPU)
    with pytest.raises(ConfigError, match="Name one with --extractor: torchvision"):
        eval_samples(config, tmp_path / "out", console=quiet)


def test_a_run_whose_cache_was_moved_asks_for_it_by_against(ldm, tiny, tmp_path, quiet):
    run = tmp_path / "ldm"
    shutil.copytree(ldm, run)
    lines = (run / "config.yaml").read_text().splitlines()
    (run / "config.yaml").write_text("\n".join("latents: gone" if line.startswith("latents:") else line for line in lines))
    config = tiny("eval-samples", f"run={run}", *CPU, LATENT, below=pictures_for(run=str(run)))
    with pytest.raises(MismatchError, match=r"The cache gone that .* was made from is not here.* by --against"):
        eval_samples(config, tmp_path / "out", console=quiet)


def test_the_plan_says_what_would_be_compared(tiny, ldm, tmp_path):
    config = tiny("eval-samples", f"run={ldm}", *CPU, LATENT, below=pictures_for(run=str(ldm)))
    plan = plan_eval_samples(config, tmp_path / "out")
    assert plan["samples"].startswith("5,000 of") and plan["extractor"] == "latent" and not (tmp_path / "out").exists()


def test_the_command_line_prints_a_table_and_one_json_object(ldm, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["eval-samples", "--run", str(ldm), "-n", "12", "--extractor", "latent", "--steps", "2", "--device", "cpu"]
    assert run_cli([*words, "-q"]) == 0
    said = capsys.readouterr().out
    assert "Frechet distance (latent)" in said and "real against real" in said and "training picture" in said
    assert run_cli([*words, "-q", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 12


def test_missing_weights_end_with_exit_code_4_and_the_ways_out(ldm, tmp_path, capsys, monkeypatch):
    pytest.importorskip("torchvision", exc_type=ImportError)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    words = ["eval-samples", "--run", str(ldm), "--extractor", "torchvision", "--offline", "--out", str(tmp_path / "out"), "-q"]
    assert run_cli(words) == 4
    assert "take --extractor fitted" in capsys.readouterr().err


@pytest.mark.slow
def test_the_curve_judges_every_snapshot_and_lengths_of_the_average_and_names_the_best(judged, fit_diffusion, ldm, tmp_path):
    words = ["loop.keep.every=2", "loop.keep.averages=2", "loop.preview=2", "loop.save=2"]
    run = fit_diffusion(tmp_path / "ldm", ldm.parent / "cache", *words)
    found = judged("count=8", LATENT, "curve=true", run=run)
    steps = {row["run"].rpartition("@")[2]: row["step"] for row in found["curve"]}
    assert {"000000002", "ema-0.050", "ema-0.200"} <= set(steps) and steps["000000002"] == 2
    files = [run / "model.safetensors", *(run / "snapshots").iterdir()]
    models = {fingerprint_of(*weights.load(file)) for file in files}
    assert len(found["curve"]) == len(models) < len(files), "each model once, whatever its names"
    assert found["best"] == min(found["curve"], key=lambda row: row["frechet_distance"]["value"])["run"]
    assert found["verdict"][0].startswith(f"{found['best']} (step ")
    assert json.loads((tmp_path / "out" / "curve.json").read_text())["best"] == found["best"]
    with pytest.raises(ConfigError, match="leave samples out"):
        judged(f"samples={tmp_path}", LATENT, "curve=true", run=run)


def test_python_has_the_verb_too_and_no_sample_folder_is_written_into(ldm, real, tmp_path):
    from ldmctl import api

    found = api.eval_samples(CPU, run=ldm, count=8, extractor="latent", out=tmp_path / "out")
    assert found["count"] == 8 and {each["level"] for each in found["judgements"]} <= {"good", "doubtful", "poor", "unknown"}
    folder = folder_of(real, tmp_path / "samples")
    for out in (folder, folder / "below"):
        with pytest.raises(ConfigError, match=r"[Nn]ame an(other)? --out"):
            api.eval_samples(CPU, run=ldm, samples=folder, extractor="latent", out=out)
