"""Whether samples show the words that they were asked for: known answers, a judge that learns, and a run that hears words."""

import json

import pytest
import torch
from PIL import Image

from ldmctl.config.compared import pictures_for
from ldmctl.evaluation import hearing
from ldmctl.evaluation.sample_verdict import judge as sentences
from ldmctl.evaluation.word_judge import WordJudge
from ldmctl.evaluation.words import Heard, compared, prompt_of, told_by, vocabulary, which, words_in, words_of_prompt
from ldmctl.pictures.png import write_png
from ldmctl.pictures.png_text import made_by
from ldmctl.stages.eval_samples import eval_samples

WORDS = ["conditions.label=null", "conditions.text={type: words, width: 8, depth: 1, heads: 2, dim: 8, vocabulary: 300}"]
CPU = ["machine.device=cpu", "machine.precision=fp32", "steps=2", "batch=16", "workers=0", "extractor=latent", "nearest=false"]


def test_words_are_in_lower_case_and_a_mixed_prompt_has_those_of_its_parts():
    assert words_in("A Red circle, don't; a 2nd half-moon.") == {"a", "red", "circle", "don't", "2nd", "half-moon"}
    assert words_in("Ein Mädchen läuft") == {"ein", "mädchen", "läuft"} and words_in(" .. ") == set()
    assert words_of_prompt("a red circle :0.6 | a blue star :0.4") == {"a", "red", "circle", "blue", "star"}
    assert words_of_prompt("| a") == {"a"}, "no share, no part: read as it stands"


def test_words_that_all_captions_have_or_hardly_any_tell_nothing():
    captions = [{"a", "cat" if row % 2 else "dog", *(["rare"] if row == 0 else [])} for row in range(100)]
    assert vocabulary(captions) == ["cat", "dog"] and vocabulary([]) == []


def heard(asked, seen):
    return Heard(torch.tensor(asked).bool(), torch.tensor(seen).bool())


def test_the_share_of_the_words_asked_for_that_are_seen_is_over_those_that_the_judge_can_tell():
    real = heard([[1, 1], [0, 0]] * 20, [[1, 1], [0, 1]] * 20)  # it says the second word of every picture
    assert told_by(real).tolist() == [True, False]
    own = heard([[1, 1], [1, 0], [0, 1], [0, 0]] * 10, [[1, 1], [0, 1], [1, 1], [0, 1]] * 10)
    found = compared(own, real, ["cat", "dog"])
    assert found["value"] == 0.5 and found["unasked"]["value"] == 0.5 and (found["told"], found["of"], found["count"]) == (1, 2, 40)
    assert found["real"]["value"] == 1 and found["real"]["unasked"]["value"] == 0
    assert found["words"]["cat"]["count"] == 20 and found["words"]["cat"]["seen"] == 0.5 and not found["words"]["dog"]["told"]
    assert found["low"] < 0.5 < found["high"]
    nothing = compared(heard([[0, 0]], [[1, 1]]), real, ["cat", "dog"])
    assert nothing["value"] != nothing["value"] and nothing["words"] == {}


@pytest.mark.parametrize(
    ("own", "unasked", "level", "words"),
    [
        ((0.97, 0.95, 0.99), 0.01, "good", "good"),
        ((0.6, 0.55, 0.65), 0.01, "poor", "Least: star 40% (of real ones 95%)"),
        ((0.93, 0.85, 1.0), 0.01, "unknown", "more samples needed"),
        ((0.97, 0.95, 0.99), 0.3, "poor", "show what nobody asked for"),
        ((None, None, None), None, "unknown", "can tell 3 of 9 words"),
    ],
)
def test_a_sentence_says_how_well_words_are_shown(own, unasked, level, words):
    value, low, high = own
    row = {"count": 40, "seen": 0.4, "unasked": 0.0, "told": True, "real": {"count": 40, "seen": 0.95, "unasked": 0.0}}
    told = {"value": value, "low": low, "high": high, "unasked": {"value": unasked}, "told": 3, "of": 9, "words": {"star": row}}
    told["real"] = {"value": 0.96, "unasked": {"value": 0.02}}
    (said,) = sentences({"measures": {}, "words": told})
    assert said.level == level and words in said.sentence


def coloured(count, seed=0):
    """Pictures whose left half is red or blue, lighter or darker, with captions."""
    random = torch.Generator().manual_seed(seed)
    image, captions = torch.randint(0, 60, (count, 3, 16, 16), generator=random), []
    for row in range(count):
        red, light = row % 2, row // 2 % 2
        image[row, 0 if red else 2, :, :8] += 90 + 100 * light
        captions.append({"a", "red" if red else "blue", *(["light"] if light else [])})
    return image.to(torch.uint8), captions


def test_the_judge_learns_words_the_same_way_each_time():
    image, captions = coloured(200)
    words = vocabulary(captions)
    assert set(words) == {"red", "blue", "light"}
    one, other = (WordJudge(3, 16, 3).fit(image, which(captions, words), steps=80) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    unseen, truth = coloured(64, seed=1)
    assert ((one(unseen) > 0) == which(truth, words)).float().mean() > 0.95
    large = unseen.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert WordJudge(3, 128, 3)(large).shape == (64, 3) and not any(each.requires_grad for each in one.parameters())


def test_what_a_sample_was_asked_for_is_in_its_text_or_in_a_file_beside_it(tmp_path):
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    write_png(tmp_path / "a.png", image, {"ldmctl": json.dumps({"seed": 1, "prompt": "a red star"})})
    write_png(tmp_path / "b.png", image, {"ldmctl": json.dumps({"seed": 1, "label": "red star"})})
    Image.new("RGB", (8, 8)).save(tmp_path / "c.jpg")
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text("a blue star\n")
    assert [prompt_of(tmp_path / name) for name in ("a.png", "b.png", "c.jpg")] == ["a red star", "", "a blue star"]
    (tmp_path / "c.txt").unlink()
    assert prompt_of(tmp_path / "c.jpg") == ""


# -- a run -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, fit_diffusion, encode, vae_run):
    """A run of fit-diffusion that hears words alone. Its cache may get features."""
    folder = tmp_path_factory.mktemp("spoken")
    return fit_diffusion(folder / "ldm", encode(folder / "cache", vae_run), *WORDS)


@pytest.fixture
def quickly(monkeypatch):
    """The judge learns from the few captions of a tiny set, in a moment."""
    monkeypatch.setattr(hearing, "ENOUGH", 20)
    monkeypatch.setattr(hearing, "STEPS", 60)


def judged(tiny, quiet, run, out, *words):
    config = tiny("eval-samples", f"run={run}", *CPU, *words, below=pictures_for(run=str(run)))
    return eval_samples(config, out, console=quiet)


def test_a_run_that_hears_words_alone_is_asked_for_captions_and_each_word_has_a_row(tiny, quiet, spoken, tmp_path, quickly, monkeypatch):
    found = judged(tiny, quiet, spoken, tmp_path / "out", "count=12")
    prompts = [json.loads(made_by(file)).get("prompt") for file in sorted(tmp_path.glob("out/samples-*/*.png"))]
    assert len(prompts) == 12 and all(prompts) and len(set(prompts)) > 2
    told = found["words"]
    assert told["count"] == 12 and told["of"] >= 4 and set(told["words"]) >= {"red", "blue"}
    assert told["words"]["red"]["count"] == sum("red" in prompt for prompt in prompts)
    assert {each["about"] for each in found["judgements"]} >= {"words"}
    monkeypatch.setattr(hearing, "learned", lambda *_: pytest.fail("fitted again"))
    again = judged(tiny, quiet, spoken, tmp_path / "out", "count=12")
    assert again["made"] == 0 and again["words"] == told


def test_prompts_that_are_named_are_asked_for_and_an_empty_one_asks_for_none(tiny, quiet, spoken, tmp_path, quickly):
    named = judged(tiny, quiet, spoken, tmp_path / "named", "count=8", "prompt=[a red circle]")
    assert set(named["words"]["words"]) <= {"red", "circle", "a", "on"} and named["words"]["words"]["red"]["count"] == 8
    assert judged(tiny, quiet, spoken, tmp_path / "none", "count=8", "prompt=['']")["words"] is None


def test_samples_without_prompts_or_data_without_words_have_no_words(tiny, quiet, spoken, tmp_path, quickly, monkeypatch):
    for index in range(8):
        Image.new("RGB", (16, 16), (30 * index, 0, 0)).save(tmp_path / f"{index}.png")
    assert judged(tiny, quiet, spoken, tmp_path / "out", f"samples={tmp_path}")["words"] is None
    for index in range(8):
        (tmp_path / f"{index}.txt").write_text("a red circle")
    monkeypatch.setattr(hearing, "ENOUGH", 1000)
    monkeypatch.setattr(hearing, "STEPS", 61)  # what others have fitted is another judge
    assert judged(tiny, quiet, spoken, tmp_path / "few", f"samples={tmp_path}")["words"] is None


def test_samples_below_the_size_that_real_pictures_have_at_least_are_judged_too(tiny, quiet, spoken, tmp_path, quickly):
    for index in range(9):
        Image.new("RGB", (16 - 4 * (index % 2),) * 2, (25 * index, 0, 0)).save(tmp_path / f"{index}.png")
    found = judged(tiny, quiet, spoken, tmp_path / "out", f"samples={tmp_path}", "image.smallest=14")
    assert (found["count"], found["there"]) == (9, 9)


def test_the_report_has_a_row_for_each_word(tmp_path):
    from ldmctl.evaluation.report.pictures import Album
    from ldmctl.evaluation.report.scores import samples_judged

    row = {"count": 4, "seen": 0.5, "unasked": None, "told": True, "real": {"count": 9, "seen": 1.0, "unasked": 0.0}}
    told = {"value": 0.5, "low": 0.4, "high": 0.6, "real": {"value": 1.0}, "words": {"<b>": row, "x": {**row, "told": False}, "y": 3}}
    chapter = samples_judged(tmp_path / "judgement.json", {"words": told}, Album())
    (sheet,) = [each for each in chapter.sheets if each.caption == "By word of the prompts"]
    assert sheet.rows == [["<b>", "4", "50.0%", "100.0%", "", "0.0%"]]
    assert [each.title for each in chapter.scores[0].rows] == ["words seen as asked"]


def test_the_table_shows_the_words_that_are_furthest_behind_first(capsys):
    from ldmctl.cli.eval_samples import show

    row = lambda seen: {"count": 4, "seen": seen, "unasked": None, "told": True, "real": {"count": 9, "seen": 1.0, "unasked": 0.0}}
    words = {"good[/b]": row(1.0), "bad": row(0.2), **{f"w{index}": row(0.9) for index in range(30)}}
    told = {"value": 0.5, "low": 0.4, "high": 0.6, "real": {"value": 1.0}, "words": words}
    found = {
        "count": 4,
        "there": None,
        "unreadable": [],
        "of": "made",
        "references": 9,
        "measures": {},
        "asked": None,
        "classes": {},
        "verdict": [],
    }
    show({**found, "words": told})
    said = capsys.readouterr().out
    assert "words seen as asked" in said and "50.0%" in said and said.index("bad") < said.index("w1") and "12 more" in said
    show({**found, "words": {**told, "words": {"good[/b]": row(1.0)}}})
    assert "good[/b]" in capsys.readouterr().out
