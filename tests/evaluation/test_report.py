"""`ldmctl report`: one HTML file that holds all that it shows, whatever lies in the folders that it tells of."""

import base64
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldmctl import api
from ldmctl.console import Console
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.stages import report as stage
from ldmctl.stages.report import report

QUIET = Console(quiet=True)
HOSTILE = "</script><script>window.hacked = 1</script>\"'><img src=x onerror=window.hacked=2>&amp;"
EMPTY = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta"}
MEASURE = {
    "title": "Frechet distance (latent)",
    "value": 2.5,
    "low": 2.0,
    "high": 3.0,
    "real": {"value": 1.25, "low": 1.0, "high": 1.5, "count": 9},
}


class Parsed(HTMLParser):
    """Tags with attributes, texts, and whether each that is opened is closed in its turn."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def run(folder, verb, *, status="finished", rows=(), config=None, **record):
    folder.mkdir(parents=True)
    (folder / "samples").mkdir()
    said = {"verb": verb, "status": status, "started": "2026-01-01T10:00:00+00:00", "ended": "2026-01-01T10:02:05+00:00", **record}
    (folder / "run.json").write_text(json.dumps(said))
    (folder / "config.yaml").write_text(json.dumps(config or {"loop": {"steps": 300}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def losses(*values):
    return [{"step": 100 * (index + 1), "loss": value, "val/loss": value} for index, value in enumerate(values)]


def picture(file, text=None, *, size=(24, 24), colour="red"):
    file.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    Image.new("RGB", size, colour).save(file, pnginfo=info)
    return file


def told(tmp_path, *paths, **more):
    """(result, the page taken apart, its text) of a report on these."""
    found = report([str(path) for path in paths], tmp_path / "report.html", console=QUIET, **more)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert found["bytes"] == len(text.encode())
    return found, whole(text), text


def whole(text):
    """A page taken apart; it is one, and loads nothing."""
    page = Parsed(text)
    assert not page.open and text.startswith("<!doctype html>")
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "action", "data", "srcset", "xlink:href"):
            assert attributes.get(name, "#").startswith(("data:image/", "#")), (tag, attributes)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert "@import" not in style and "http" not in style and not re.search(r"url\((?!#)", style)
    assert len(page.all("script")) == 1
    script = re.search(r"<script>(.*?)</script>", text, re.S)[1]
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "'unsafe-inline'" not in policy.partition("script-src")[2]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert all(each.get("alt") for each in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {each["href"][1:] for each in page.all("a")} <= set(ids)
    return page


@pytest.fixture
def chain(tmp_path):
    """A chain whose folders name each other as their commands did."""
    home = tmp_path / "work"
    run(
        home / "runs/ae",
        "fit-ae",
        rows=losses(0.5, 0.25),
        judged={
            "split": "val",
            "count": 9,
            "psnr": {"mean": 21.5, "low": 21.0, "high": 22.0},
            "verdict": ["PSNR is fine."],
            "baseline": {"psnr": {"mean": 18.25}},
        },
    )
    cache = run(home / "cache", "encode-dataset", config={"run": "runs/ae"}, parent="runs/ae")
    (cache / "latents.json").write_text(json.dumps(manifest()))
    run(
        home / "runs/ldm",
        "fit-diffusion",
        rows=losses(0.8, 0.2),
        config={"latents": "cache", "loop": {"steps": 300, "lr": 0.125, "batch": 10}},
        parent="cache",
        cache="f" * 64,
        step=300,
        cache_items={"train": 60, "val": 4},
    )
    picture(home / "runs/ldm/samples/000000100.png")
    picture(home / "runs/ldm/samples/000000200.png")
    picture(home / "samples/000000.png", {"ldmctl": json.dumps({"seed": 0, "label": "cat", "model": "abc", "sampler": {"type": "ddim"}})})
    picture(home / "samples/grid.png", {"ldmctl": "{}", "ldmctl-from": json.dumps({"run": "runs/ldm", "ae": None})})
    (home / "judgement").mkdir()
    (home / "judgement/judgement.json").write_text(json.dumps(judgement()))
    return home


def manifest(**more):
    statistics = {"mean": [0.5], "deviation": [2.0]}
    return {
        "format": 1, "moments": [2, 4, 4], "latent": [1, 4, 4], "dtype": "float16", "flipped": False, "statistics": statistics,
        "classes": ["cat", "dog"], "label_counts": [40, 20], "data": "photos", "image": {"size": 16},
        "autoencoder": {"type": "vae", "fingerprint": "e" * 64}, "fingerprint": "f" * 64,
        "splits": {"train": [{"file": "train-00000.safetensors", "count": 60, "sha256": "", "crc32": []}]}, **more,
    }  # fmt: skip


def judgement(**more):
    return {
        "of": "samples of runs/ldm/model.safetensors", "count": 100, "references": 60, "extractor": {"name": "latent", "features": 16},
        "measures": {"frechet_distance": MEASURE}, "asked": None, "classes": {}, "memorisation": None,
        "judgements": [{"about": "frechet_distance", "level": "poor", "sentence": "It is weak."}], "verdict": ["Few samples.", "It is weak."], **more,
    }  # fmt: skip


def test_a_chain_is_told_from_data_to_scores(tmp_path, chain, monkeypatch):
    monkeypatch.chdir(chain)
    found, page, _ = told(tmp_path, "runs/ldm")
    assert found["chapters"] == [
        {"title": "Autoencoder", "path": "runs/ae"},
        {"title": "Cache of latents", "path": "cache"},
        {"title": "Denoiser", "path": "runs/ldm"},
        {"title": "Samples", "path": "samples"},
        {"title": "Scores of samples", "path": "judgement/judgement.json"},
    ]
    assert found["troubles"] == []
    for words in (
        "PSNR is fine.",
        "PSNR 21.5 21 to 22 18.25",
        "Latents 1 x 4 x 4 of 60 train pictures of photos.",
        "passes over them 50.0",
        "best validation loss 0.2 at step 200",
        "loop.lr 0.125 0.0001",
        "cat (1)",
        "poor It is weak.",
        "Frechet distance (latent) 2.5 2 to 3 1.25",
        "ldmctl fit-diffusion --config runs/ldm/config.yaml --out runs/ldm-again",
    ):
        assert words in page.text, words
    assert len([each for each in page.all("img") if "at step" in each["alt"]]) == 2


def test_a_chain_that_was_moved_is_found_beside_its_run(tmp_path, chain, monkeypatch):
    chain.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    found, _, _ = told(tmp_path, "moved/runs/ldm")
    assert [each["path"] for each in found["chapters"]] == [
        f"moved/{name}" for name in ("runs/ae", "cache", "runs/ldm", "samples", "judgement/judgement.json")
    ]


def test_one_alone_is_told_without_its_chain(tmp_path, chain):
    assert [each["title"] for each in told(tmp_path, chain / "runs/ldm", alone=True)[0]["chapters"]] == ["Denoiser"]


def test_samples_stand_by_what_they_were_asked_to_be(tmp_path):
    for seed, said in enumerate(
        ({"label": "cat"}, {"label": "dog"}, {"label": "cat"}, {"label": None}, {"label": None, "prompt": "a red hat"})
    ):
        picture(tmp_path / f"made/{seed:06d}.png", {"ldmctl": json.dumps({"seed": seed, "model": "abc", "steps": 20, **said})})
    _, page, _ = told(tmp_path, tmp_path / "made")
    for words in ("5 pictures.", "cat (2)", "dog (1)", "without a label (1)", "a red hat (1)", "steps 20"):
        assert words in page.text, words
    assert [each["alt"] for each in page.all("img")] == [
        "cat, seed 0",
        "cat, seed 2",
        "dog, seed 1",
        "without a label, seed 3",
        "a red hat, seed 4",
    ]


def test_pictures_of_others_are_shown_by_name(tmp_path):
    picture(tmp_path / "made/000007.png")
    _, page, _ = told(tmp_path, tmp_path / "made")
    assert [each["alt"] for each in page.all("img")] == ["000007.png"]


def test_any_folder_of_pictures_is_shown_as_eval_samples_takes_it(tmp_path):
    (tmp_path / "photos/beach").mkdir(parents=True)
    for name in ("b.JPG", "beach/a.jpeg", ".hidden.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / "photos" / name, "JPEG")
    (tmp_path / "photos/notes.txt").write_text("none")
    found, page, _ = told(tmp_path, tmp_path / "photos")
    assert [each["title"] for each in found["chapters"]] == ["Samples"] and "2 pictures." in page.text
    assert len(page.all("img")) == 2 and "b.JPG" in page.text


def test_samples_and_scores_of_another_run_are_left_out(tmp_path, chain):
    (chain / "runs/ldm").rename(chain / "runs/other")
    assert [each["title"] for each in told(tmp_path, chain / "runs/other")[0]["chapters"]] == [
        "Autoencoder",
        "Cache of latents",
        "Denoiser",
    ]


def test_a_link_of_the_chain_that_is_gone_or_changed_is_said(tmp_path, chain):
    (chain / "cache/latents.json").write_text(json.dumps(manifest(fingerprint="a" * 64)))
    (chain / "runs/ae").rename(chain / "elsewhere")
    found, page, _ = told(tmp_path, chain / "runs/ldm")
    assert "was made from runs/ae, which is not here or is something else now." in page.text
    assert "has changed since" in page.text and "ffffffffffff" in page.text and len(found["troubles"]) == 2


def test_several_runs_stand_side_by_side(tmp_path):
    one = run(
        tmp_path / "one", "fit-diffusion", rows=losses(0.5, 0.25), config={"latents": "c", "loop": {"steps": 300, "lr": 0.5}}, cache="c"
    )
    other = run(tmp_path / "other", "fit-diffusion", rows=losses(0.5, 0.125), config={"latents": "c", "loop": {"steps": 300}}, cache="c")
    found, page, _ = told(tmp_path, one, other, alone=True)
    assert [each["title"] for each in found["chapters"]] == ["Side by side: fit-diffusion", "Denoiser", "Denoiser"]
    assert "loop.lr 0.5 0.0001" in page.text and "val/loss 0.25 0.125, better" in page.text


def test_of_many_runs_curves_are_of_the_first_and_previews_of_the_last_step(tmp_path):
    for name in "abcdefgh":
        folder = run(tmp_path / "runs" / name, "fit-ae", rows=losses(0.5, 0.25))
        for step in (100, 200):
            picture(folder / f"samples/{step:09d}.png")
    _, page, text = told(tmp_path, tmp_path / "runs")
    assert "Curves are of the first 6 runs: name fewer to see others." in page.text
    first = text[text.index('<section id="c1"') : text.index('<section id="c2"')]
    assert first.count("<polyline") == 2 * 6 and re.findall(r"/(\w), step (\d+)</dt>", first) == [(name, "200") for name in "abcdefgh"]


def test_a_long_way_is_shown_in_forty_pictures_with_the_last(tmp_path):
    folder = run(tmp_path / "run", "fit-ae", rows=losses(0.5))
    for step in range(1, 100):
        picture(folder / f"samples/{step:09d}.png")
    _, page, _ = told(tmp_path, folder)
    shown = [int(each["alt"].split()[-1]) for each in page.all("img")]
    assert len(shown) == 40 and shown[0] == 2 and shown[-1] == 99 and shown == sorted(set(shown))


def test_a_folder_of_runs_is_all_of_them_side_by_side(tmp_path):
    for name in ("one", "other"):
        run(tmp_path / "runs" / name, "fit-ae", rows=losses(0.5))
    found, _, _ = told(tmp_path, tmp_path / "runs")
    assert [each["title"] for each in found["chapters"]] == ["Side by side: fit-ae", "Autoencoder", "Autoencoder"]


def test_a_run_of_a_verb_that_is_not_known_is_refused_by_name(tmp_path):
    with pytest.raises(MismatchError, match="holds a run of fit-text, which a report does not tell of"):
        told(tmp_path, run(tmp_path / "run", "fit-text"))


def test_a_run_that_lost_its_run_json_is_refused_and_not_told_as_samples(tmp_path):
    folder = run(tmp_path / "run", "fit-ae", rows=losses(0.5))
    picture(folder / "samples/000000100.png")
    (folder / "run.json").unlink()
    with pytest.raises(MismatchError, match=r"run has no run\.json, so nothing says what its other files are of"):
        told(tmp_path, folder)


def test_runs_side_by_side_say_the_steps_of_their_last_numbers_and_that_nan_is_no_number(tmp_path):
    one, other = run(tmp_path / "one", "fit-ae", rows=losses(0.5)), run(tmp_path / "other", "fit-ae", rows=losses(0.5, 0.25))
    lost = run(tmp_path / "lost", "fit-ae", rows=losses(0.5, None))
    found, page, _ = told(tmp_path, one, other, lost, alone=True)
    assert "of different ages (val/loss: step 100" in page.text and "step 100 200" in page.text
    assert f"{lost}: val/loss and loss are not finite since step 200." in found["troubles"]


def test_scores_stand_side_by_side_and_only_intervals_that_are_apart_make_one_better(tmp_path):
    recall = lambda low, high: {"title": "recall (latent)", "value": (low + high) / 2, "low": low, "high": high}
    for name, distance, shares in (("a", (4.0, 5.0), (0.5, 0.75)), ("b", (2.0, 3.0), (0.625, 0.875))):
        low, high = distance
        measures = {"frechet_distance": {**MEASURE, "value": (low + high) / 2, "low": low, "high": high}, "recall": recall(*shares)}
        (tmp_path / f"{name}.json").write_text(json.dumps(judgement(measures=measures)))
    _, page, _ = told(tmp_path, tmp_path / "a.json", tmp_path / "b.json")
    assert "Frechet distance (latent) 4.5 (4 to 5) 2.5 (2 to 3), better" in page.text
    assert "recall (latent) 0.625 (0.5 to 0.75) 0.75 (0.625 to 0.875) " in page.text
    (tmp_path / "b.json").write_text(json.dumps(judgement(measures=measures, count=50)))
    _, page, _ = told(tmp_path, tmp_path / "a.json", tmp_path / "b.json")
    assert (
        "Their numbers of samples differ, so these numbers have nothing to do with each other." in page.text
        and "better Frechet" not in page.text
    )
    assert "(2 to 3), better" not in page.text


def test_what_data_check_found_is_a_chapter(tmp_path):
    check = {
        "splits": {"train": 30},
        "sizes": {
            "shorter_side": {"least": 8, "median": 9.5, "most": 64},
            "not_square": 3,
            "cropped_away": {"mean": 0.25, "most": 0.5},
            "common": [["64x48", 12], ["8x8", 3]],
            "asked": 32,
            "small": {"count": 2, "first": ["tiny.png", "less.png"]},
        },
        "duplicates": {"spare": 1, "leaks": 1, "leaked": [["a.png", "b.png"]]},
        "broken": {"count": 1, "first": [{"name": "c.png", "why": "cut off"}]},
        "classes": {"counts": {"cat": 20, "dog": 10}},
        "captions": {
            "count": 28,
            "empty": 2,
            "different": 20,
            "commonest": {"text": "a <b>cat</b>", "count": 7},
            "words": {"median": 4, "most": 9},
        },
        "maps": {
            "count": 25,
            "missing": 5,
            "broken": {"count": 1, "first": [{"name": "d.png", "why": "no map"}]},
            "resized": 3,
            "kind": "labels",
            "classes": [{"number": 0, "name": "ground", "share": 0.25, "maps": 9}, {"number": 1, "name": "sky", "share": 0.75, "maps": 20}],
            "unlabelled": 0.125,
        },
        "colour": {"mean": [0.5], "deviation": [0.25], "grey": 4, "of": 30},
        "sentences": ["Mind the leak."],
    }
    (tmp_path / "check").mkdir()
    (tmp_path / "check/check.json").write_text(json.dumps(check))
    picture(tmp_path / "check/contact.png", {"Description": "Rows: training pictures."})
    _, page, _ = told(tmp_path, tmp_path / "check")
    for words in (
        "30 train",
        "Mind the leak.",
        "8 to 64 pixels, 9.5 in the middle",
        "25.0% on average, 50% at most",
        "c.png cut off",
        "a.png b.png",
        "cat 20",
        "Rows: training pictures.",
        "64x48 (12), 8x8 (3)",
        "smaller than 32 pixels 2: tiny.png, less.png",
        "28, 20 different",
        "without a caption 2",
        "4 in the middle, 9 at most",
        "7 times: a <b>cat</b>",
        "maps 25, labels",
        "pictures without a map 5",
        "maps of another size than their picture 3",
        "12.5%",
        "d.png no map",
        "sky 1 75.00% 20",
        "standard deviation 0.25",
        "grey 4 of 30",
    ):
        assert words in page.text, words
    assert page.text.index("sky 1") < page.text.index("ground 0"), "the largest first"


@pytest.mark.parametrize("said", ["sizes", "captions", "maps", "colour", "classes", "duplicates", "broken", "splits", "modes", "sentences"])
@pytest.mark.parametrize("value", [None, 3, "x", [1], {"x": 1}, {"count": "y", "first": [1], "classes": [{}], "small": {"count": 1}}])
def test_a_check_of_another_shape_is_told_as_far_as_it_goes(tmp_path, said, value):
    check = {"splits": {"train": 3}, "sizes": {}, "duplicates": {}, "sentences": [], said: value}
    (tmp_path / "check.json").write_text(json.dumps(check))
    assert len(told(tmp_path, tmp_path / "check.json")[0]["chapters"]) <= 1


def test_a_check_of_the_pictures_that_a_run_learned_from_is_told_without_being_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    learned = {"loop": {"steps": 300}, "dataset": {"type": "folder", "path": str(tmp_path / "photos")}}
    run(tmp_path / "runs/ae", "fit-ae", config=learned)
    for name, pictures in {"look": "photos", "other": "elsewhere"}.items():
        (tmp_path / name).mkdir()
        check = {"splits": {"train": 3}, "sizes": {}, "duplicates": {}, "pictures": str(tmp_path / pictures), "sentences": [f"Of {name}."]}
        (tmp_path / name / "check.json").write_text(json.dumps(check))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/check.json").write_text("{")
    found, page, _ = told(tmp_path, "runs/ae")
    assert [each["path"] for each in found["chapters"]] == ["look/check.json", "runs/ae"]
    assert found["troubles"] == [
        "It has reported no numbers, so there are no curves."
    ]  # of the run; a check that cannot be read is passed over
    assert "Of look." in page.text and "Of other." not in page.text
    assert [each["path"] for each in told(tmp_path, "runs/ae", alone=True)[0]["chapters"]] == ["runs/ae"]


def test_the_curve_of_snapshots_is_a_chapter(tmp_path):
    rows = [
        {
            "run": f"ldm@{step}",
            "step": step,
            "frechet_distance": {"value": value, "low": value - 1, "high": value + 1},
            "precision": {"value": 0.5, "low": 0.4, "high": 0.6},
            "recall": {"value": 0.25, "low": None, "high": None},
        }
        for step, value in ((100, 9.0), (200, 4.0))
    ]
    (tmp_path / "curve.json").write_text(
        json.dumps({"of": "ldm", "extractor": {"name": "latent"}, "curve": rows, "best": "ldm@200", "verdict": ["200 is best."]})
    )
    _, page, _ = told(tmp_path, tmp_path / "curve.json")
    assert "200 is best." in page.text and "ldm@200 200 4 (3 to 5) 0.5 (0.4 to 0.6) 0.25" in page.text and len(page.all("polyline")) == 1


# -- what is damaged, missing or hostile ----------------------------------------------


def test_html_and_script_in_names_captions_and_sentences_is_shown_and_not_run(tmp_path, chain):
    (chain / "cache/latents.json").write_text(json.dumps(manifest(classes=[HOSTILE, "dog"], data=HOSTILE)))
    picture(chain / "samples/000001.png", {"ldmctl": json.dumps({"seed": 1, "label": HOSTILE, "model": HOSTILE, HOSTILE: HOSTILE})})
    (chain / "judgement/judgement.json").write_text(
        json.dumps(judgement(verdict=[HOSTILE], classes={HOSTILE: {"count": 3}}, measures={"x": {**MEASURE, "title": HOSTILE}}))
    )
    rows = [{"step": 1, "loss": 1.0, HOSTILE: 2.0}, {"step": 2, "loss": 0.5, HOSTILE: 1.0}]
    odd = run(
        chain / f"runs/{HOSTILE.replace('/', '|')}",
        "fit-diffusion",
        rows=rows,
        status=HOSTILE,
        command=HOSTILE,
        parent=HOSTILE,
        plugins=[HOSTILE],
        versions={HOSTILE: HOSTILE},
        config={"latents": HOSTILE, "denoiser": {"type": HOSTILE}},
        changes=[{"step": 1, "key": HOSTILE, "from": HOSTILE, "to": HOSTILE}],
    )
    picture(odd / "samples/verdict.png", {"Description": HOSTILE})
    found, page, text = told(tmp_path, chain / "runs/ldm", odd)
    assert len(found["chapters"]) == 7
    assert "window.hacked" not in re.search(r"<script>(.*?)</script>", text, re.S)[1]
    assert page.text.count("window.hacked = 1") > 10 and not [each for each in page.all("img") if each["src"] == "x"]


def test_numbers_that_are_not_finite_and_one_report_and_none_are_told(tmp_path):
    broken = run(tmp_path / "broken", "fit-diffusion", status="diverged", rows=losses(0.5, None, 0.25, None))
    single = run(tmp_path / "single", "fit-ae", rows=[{"step": 1, "loss": 0.5}])
    empty = run(tmp_path / "empty", "fit-ae", status="failed")
    never = run(tmp_path / "never", "fit-ae", rows=[{"step": 1, "loss": None}])
    _, page, _ = told(tmp_path, broken, single, empty, never, alone=True)
    assert "4 of 8 reported numbers are not finite; the lines are broken there." in page.text
    assert "1 of 1 reported numbers are not finite" in page.text
    assert "A lower loop.lr is the first thing to try." in page.text
    assert "Nothing was validated: there is no validation loss." in page.text
    assert "It has reported no numbers, so there are no curves." in page.text


@pytest.mark.parametrize("verb", ["fit-ae", "encode-dataset", "fit-diffusion"])
@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        "7",
        "",
        "\0\0",
        '{"verb": {}}',
        '{"history": 3, "pictures": 4, "judged": [], "published": "x", "changes": 5, "watch": 6, "versions": [], "plugins": 7}',
    ],
)
@pytest.mark.parametrize("file", ["run.json", "config.yaml", "metrics.jsonl", "latents.json"])
def test_a_damaged_file_is_a_sentence_in_the_report(tmp_path, verb, damage, file):
    folder = run(tmp_path / "run", verb, rows=losses(0.5, 0.25))
    if damage.startswith('{"history"'):
        damage = json.dumps({"verb": verb, "status": "finished", **json.loads(damage)})
    (folder / file).write_text(damage)
    found, page, _ = told(tmp_path, folder)
    assert len(found["chapters"]) == 1
    if file == "run.json" and damage in ("{", "[]", "7", "", "\0\0"):
        assert "run.json is damaged" in page.text


@pytest.mark.parametrize("said", ["measures", "classes", "extractor", "verdict", "judgements", "memorisation", "asked", "of", "count"])
@pytest.mark.parametrize("value", [None, 3, "x", [1], {"x": 1}, {"x": {"value": "y"}}])
def test_scores_of_another_shape_are_told_as_far_as_they_go(tmp_path, said, value):
    (tmp_path / "judgement.json").write_text(json.dumps(judgement(**{said: value})))
    assert len(told(tmp_path, tmp_path / "judgement.json")[0]["chapters"]) == 1


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    folder = run(tmp_path / "run", "fit-ae", rows=losses(0.5))
    (folder / "samples/000000100.png").write_bytes(picture(tmp_path / "x.png").read_bytes()[:60])
    (folder / "samples/verdict.png").write_text("no picture")
    found, page, _ = told(tmp_path, folder)
    assert (
        "000000100.png cannot be shown: it is damaged, or no picture." in page.text
        and "verdict.png cannot be shown" in page.text
        and len(found["troubles"]) == 2
    )


def test_large_pictures_are_made_smaller_and_the_page_stays_below_five_megabytes(tmp_path):
    folder = run(tmp_path / "run", "fit-ae", rows=losses(0.5))
    for step in range(1, 17):
        Image.frombytes("RGB", (700, 500), os.urandom(700 * 500 * 3)).save(folder / f"samples/{step:09d}.png", compress_level=0)
    found, page, _ = told(tmp_path, folder)
    assert found["bytes"] < 5e6
    assert "pictures are left out, so that this page stays below 5 MB." in page.text
    assert {each["src"][:16] for each in page.all("img")} == {"data:image/jpeg;"}


def test_very_long_values_and_tables_are_shown_by_their_beginning(tmp_path):
    folder = run(tmp_path / "cache", "encode-dataset", command="x" * 100_000)
    (folder / "latents.json").write_text(json.dumps(manifest(classes=[f"c{n}" for n in range(5000)], label_counts=[1] * 5000)))
    found, page, _ = told(tmp_path, folder)
    assert "(100,000 characters)" in page.text and "... and 4,000 more" in page.text and "c999" in page.text and "c1000" not in page.text
    assert found["bytes"] < 200_000


def test_a_name_that_is_no_utf8_is_shown_as_far_as_it_is(tmp_path):
    folder = run(Path(f"{tmp_path}/\udcff"), "fit-ae", rows=losses(0.5))
    assert len(told(tmp_path, folder)[0]["chapters"]) == 1


# -- where it is written --------------------------------------------------------------


def test_only_its_own_page_is_replaced(tmp_path):
    folder = run(tmp_path / "run", "fit-ae", rows=losses(0.5))
    for _ in range(2):
        told(tmp_path, folder)
    (tmp_path / "report.html").write_text("<html>mine</html>")
    with pytest.raises(MismatchError, match="was not made by ldmctl report, so it is not replaced"):
        told(tmp_path, folder)
    assert (tmp_path / "report.html").read_text() == "<html>mine</html>"
    with pytest.raises(MismatchError, match="is a folder"):
        report([str(folder)], tmp_path, console=QUIET)
    with pytest.raises(ConfigError, match="No command writes where it reads"):
        report([str(folder)], folder / "report.html", console=QUIET)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [("none", "There is no"), ("notes", "holds nothing that a report is made of"), ("notes/a.json", "is damaged, or is not what")],
)
def test_what_is_of_others_is_refused_by_name(tmp_path, path, said):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.json").write_text("{}")
    with pytest.raises(MismatchError, match=said):
        report([str(tmp_path / path)], tmp_path / "report.html", console=QUIET)
    assert not (tmp_path / "report.html").exists()


def test_a_watched_page_is_renewed_until_the_run_has_ended(tmp_path, monkeypatch):
    folder = run(tmp_path / "run", "fit-ae", status="running", rows=losses(0.5))
    seen = []

    def ends(seconds):
        seen.append((seconds, Parsed((tmp_path / "report.html").read_text()).all("meta")))
        (folder / "run.json").write_text((folder / "run.json").read_text().replace("running", "finished"))

    monkeypatch.setattr(time, "sleep", ends)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, page, _ = told(tmp_path, folder, watch=True)
    assert [seconds for seconds, _ in seen] == [stage.EVERY]
    assert {"http-equiv": "refresh", "content": str(stage.EVERY)} in seen[0][1]
    assert not [each for each in page.all("meta") if each.get("http-equiv") == "refresh"]


def test_ctrl_c_leaves_a_page_that_stays_as_it_is(tmp_path, monkeypatch):
    folder = run(tmp_path / "run", "fit-ae", status="running", rows=losses(0.5))

    def stops(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stops)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, page, _ = told(tmp_path, folder, watch=True)
    assert not [each for each in page.all("meta") if each.get("http-equiv") == "refresh"] and "It is still running." in page.text


def test_the_command_tells_of_the_default_run_and_says_where_the_page_is(tmp_path, chain, monkeypatch, capsys):
    from ldmctl.cli.app import run as command

    monkeypatch.chdir(chain)
    assert command(["report", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == "report.html" and len(said["chapters"]) == 5
    assert whole((chain / "report.html").read_text(encoding="utf-8"))
    assert api.report(out="again.html")["chapters"] == said["chapters"]
    assert len(api.report(Path("runs/ae"), out="again.html", alone=True)["chapters"]) == 1
    monkeypatch.chdir(tmp_path)
    assert command(["report"]) == 2
    assert "There is nothing to tell of here" in capsys.readouterr().err


@pytest.mark.slow
def test_twenty_thousand_reports_take_seconds_and_no_more_room_than_few(tmp_path):
    rows = [
        {"step": step, **{name: 1.0 + step % 7 for name in ("loss", "kl", "lr", "a/gradient", "images_per_second")}}
        for step in range(20_000)
    ]
    folder = run(tmp_path / "run", "fit-ae", rows=[*rows, *losses(0.5)])
    told(tmp_path, folder)  # whatever is imported
    began = time.process_time()
    found = report([str(folder)], tmp_path / "report.html", console=QUIET)
    assert time.process_time() - began < 3 and found["bytes"] < 300_000


# -- in a browser ---------------------------------------------------------------------


@pytest.mark.slow
def test_in_a_browser_nothing_hostile_runs_and_curves_and_slider_answer_to_the_keyboard(tmp_path, chain):
    browser = pytest.importorskip("playwright.sync_api", reason="needs ldmctl[browser]")
    if (chromium := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        pytest.skip("needs chromium")
    picture(chain / "samples/000001.png", {"ldmctl": json.dumps({"seed": 1, "label": HOSTILE, "model": "m"})})
    (chain / "judgement/judgement.json").write_text(json.dumps(judgement(verdict=[HOSTILE])))
    told(tmp_path, chain / "runs/ldm")
    with browser.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": 1000, "height": 800})
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("window.hacked") is None and said == []
        assert [url[:5] for url in asked if not url.startswith("data:")] == ["file:"]

        curve = page.locator("#c3 .curve").first
        curve.focus()
        page.keyboard.press("Home")
        assert page.locator("#c3 .readout").first.inner_text() == "step 100: training loss 0.8, validation loss 0.8"
        page.keyboard.press("ArrowRight")
        assert page.locator("#c3 .readout").first.inner_text() == "step 200: training loss 0.2, validation loss 0.2"
        curve.hover(position={"x": 70, "y": 50})
        assert page.locator("#c3 .readout").first.inner_text().startswith("step 100: ")

        slider = page.locator("#c3 .slides input")
        assert page.locator("#c3 .slides figcaption:visible").all_inner_texts() == ["step 200"]
        slider.focus()
        page.keyboard.press("ArrowLeft")
        assert page.locator("#c3 .slides figcaption:visible").all_inner_texts() == ["step 100"]
        assert slider.get_attribute("aria-valuetext") == "step 100"
        page.set_viewport_size({"width": 380, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        opened.close()


CONTRAST = """() => {
  const light = (name) => {
    const [r, g, b] = name.match(/[\\d.]+/g).map((each) => each / 255).map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(", 0)") && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim());
    const drawn = node.namespaceURI.endsWith("svg");
    if (!own || ["SCRIPT", "STYLE"].includes(node.tagName) || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(drawn ? style.fill : style.color), light(back(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.push([node.tagName, node.className, ratio, node.textContent.slice(0, 30)]);
  }
  return {back: light(back(document.body)), found};
}"""
UNNAMED = """() => [
  ...document.querySelectorAll("img:not([alt]), svg:not([aria-label]):not([aria-labelledby]):not([aria-hidden]), th:not([scope])"),
  ...[...document.querySelectorAll("input, button, select")].filter((each) => !each.labels?.length && !each.ariaLabel && !each.textContent.trim()),
].map((each) => each.outerHTML.slice(0, 120))"""


@pytest.mark.slow
def test_in_a_browser_it_can_be_read_in_the_light_in_the_dark_and_on_paper(tmp_path, chain):
    browser = pytest.importorskip("playwright.sync_api", reason="needs ldmctl[browser]")
    if (chromium := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        pytest.skip("needs chromium")
    told(tmp_path, chain / "runs/ldm")
    with browser.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": 1000, "height": 800})
        page.goto((tmp_path / "report.html").as_uri())
        for scheme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
            page.emulate_media(color_scheme=scheme, media=media)
            seen = page.evaluate(CONTRAST)
            assert seen["found"] == [], (scheme, media)
            assert (seen["back"] < 0.05) == ((scheme, media) == ("dark", "screen")), "dark where that is asked for, and paper is white"
        assert not page.locator("nav").is_visible() and not page.locator("#c3 .slides input").is_visible(), (
            "nothing on paper is to be clicked"
        )
        assert page.evaluate(UNNAMED) == []
        assert page.locator("h1").count() == 1 and page.locator("html").get_attribute("lang") == "en"
        levels = [int(name[1]) for name in page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((each) => each.tagName)")]
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
        assert len(page.pdf()) > 5000
        page.emulate_media(color_scheme="light", media="screen")
        page.add_style_tag(content="p, td, dd { color: #bbb !important }")
        assert page.evaluate(CONTRAST)["found"], "what cannot be read is seen"
        opened.close()
