"""A picture of words is what its seed, its words and the settings make, and of nothing beside it."""

import json
import warnings
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldmctl import api, registry
from ldmctl.cli.app import run as ldmctl
from ldmctl.cli.sample import lines_of
from ldmctl.diffusion.asking import Part, cut_off, heard_words, parts_of, words_known
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.pictures.png import read_png_text
from ldmctl.stages.sample import sample as stage
from ldmctl.storage import weights
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
CAPTIONS = ["a red circle on black", "a blue square on white", "a red square", "a blue circle"]
LIVELY = ["loop.lr=3e-2", "loop.ema=0", "loop.steps=12", "conditions.text.dim=16", "conditions.text.width=16"]
RED, BLUE = "prompt=[a red circle]", "prompt=[a blue square]"


def made(folder):
    return {int(file.stem): file.read_bytes() for file in folder.glob("0*.png")}


def text_of(folder, seed=0):
    return json.loads(read_png_text(folder / f"{seed:06d}.png")["ldmctl"])


def pixels(pictures):
    """Without their texts, which say what was asked for."""
    return {seed: Image.open(BytesIO(whole)).tobytes() for seed, whole in pictures.items()}


@pytest.fixture(scope="module")
def told(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion that listens to words alone. Read only."""
    words = ["conditioner=null", "conditions.text=words", *LIVELY]
    return fit_diffusion(tmp_path_factory.mktemp("told") / "ldm", vae_cache, *words)


@pytest.fixture(scope="module")
def both(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion that listens to labels and to words. Read only."""
    words = ["conditions.text=words", "conditions.drop={label: 0.2, text: 0.2}", *LIVELY]
    return fit_diffusion(tmp_path_factory.mktemp("both") / "ldm", vae_cache, *words)


@pytest.fixture(scope="module")
def deaf(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion that listens to labels alone. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("deaf") / "ldm", vae_cache)


@pytest.fixture
def sample(tiny, quiet, tmp_path):
    """sample(run, "count=4", out="a") -> {seed: bytes of the picture}."""

    def go(run, *overrides, out="samples", **options):
        words = [f"run={run}", "steps=3", "batch=4", "count=4", "machine.device=cpu", "machine.precision=fp32", *overrides]
        stage(tiny("sample", *words), tmp_path / out, console=quiet, **options)
        return made(tmp_path / out)

    return go


@pytest.fixture
def words():
    """A conditioner of words that says something of every caption."""
    plugin = registry.load("conditioner", "words")
    config = plugin.Config(type="words", width=16, dim=8, length=200)
    torch.manual_seed(0)
    made = plugin(config, fitted=plugin.fit(config, CAPTIONS)).eval()
    for value in made.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return made


# -- what a person writes ------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red circle", [Part("a red circle", 1.0)]),
        ("a red circle :0.6 | a blue star :0.4", [Part("a red circle", 0.6), Part("a blue star", 0.4)]),
        ("a:3|b:1", [Part("a", 0.75), Part("b", 0.25)]),
        ("a | b", [Part("a", 0.5), Part("b", 0.5)]),
        ("a :1 | b", [Part("a", 0.5), Part("b", 0.5)]),
        ("at 10:30 | b", [Part("at 10", 30 / 31), Part("b", 1 / 31)]),
        (r"at 10\:30 | b", [Part("at 10:30", 0.5), Part("b", 0.5)]),
        (r"either\|or", [Part("either|or", 1.0)]),
        (r"either\|or :3 | both :1", [Part("either|or", 0.75), Part("both", 0.25)]),
        ("a portrait: red", [Part("a portrait: red", 1.0)]),
        ("a portrait: red :1 | b :1", [Part("a portrait: red", 0.5), Part("b", 0.5)]),
        ("ratio 16:9", [Part("ratio 16:9", 1.0)]),
        ("a :3e2 | b :1E2", [Part("a", 0.75), Part("b", 0.25)]),
        ("a: banana | b", [Part("a: banana", 0.5), Part("b", 0.5)]),
    ],
)
def test_a_prompt_is_read_as_it_is_written(prompt, parts):
    found = parts_of(prompt)
    assert [part.words for part in found] == [part.words for part in parts]
    assert [part.share for part in found] == pytest.approx([part.share for part in parts])


@pytest.mark.parametrize(
    "prompt",
    [
        *["a | ", "| b", "a :0 | b :1", "a :-1 | b", "a :0,6 | b :0,4", "a :60% | b :40%", "a :1.2.3 | b", ":1 | b", "|", " | | "],
        *["a :nan | b", "a :0.6 | b :inf", "a :-Infinity | b", f"a :{'9' * 400} | b", "a :1e400 | b"],
    ],
)
def test_shares_that_are_none_are_a_sentence(prompt):
    with pytest.raises(ConfigError, match=r"wants words and a share above 0 in each part, such as 'a red circle :0\.6 \| a blue star"):
        parts_of(prompt)


def test_a_file_of_prompts_has_one_on_each_line(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa red circle\r\n\r\n  猫 🦊 \nدائرة حمراء".encode())
    assert lines_of(file) == ["a red circle", "猫 🦊", "دائرة حمراء"]
    file.write_text("a red\u2028circle\x0c\na blue\x85star", encoding="utf-8")
    assert lines_of(file) == ["a red\u2028circle", "a blue\x85star"], "a line ends where an editor ends it"


def test_a_file_without_prompts_or_that_is_not_utf_8_is_a_sentence(told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "latin.txt").write_bytes("ein grüner Kreis".encode("latin-1"))
    said = {
        "empty.txt": "has no prompts: write one on each line",
        "latin.txt": "are not UTF-8: save the file as UTF-8",
        "none.txt": "cannot be read",
        ".": "cannot be read",
    }
    for file, sentence in said.items():
        assert ldmctl(["sample", "--run", str(told), "--prompts", file, "--device", "cpu"]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


# -- what is heard -------------------------------------------------------------


def close(one, other):
    torch.testing.assert_close(one.vector, other.vector, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.tokens, other.tokens, rtol=1e-5, atol=1e-6)
    assert torch.equal(one.mask, other.mask)


def test_a_mix_goes_from_one_prompt_to_the_other(words):
    first, second = (heard_words(words, prompt, CPU) for prompt in ("a red circle", "a blue square"))
    close(heard_words(words, "a red circle :1 | a blue square :0.000000001", CPU), first)
    half = heard_words(words, "a red circle | a blue square", CPU)
    torch.testing.assert_close(half.vector, (first.vector + second.vector) / 2)
    torch.testing.assert_close(half.tokens, (first.tokens + second.tokens) / 2)
    close(half, heard_words(words, "a blue square | a red circle", CPU))
    close(half, heard_words(words, "a blue square :7 | a red circle :7", CPU))
    close(heard_words(words, "a red circle | a red circle", CPU), first)


def test_tokens_that_only_the_longer_part_of_a_mix_has_are_its_own(words):
    short, long = (heard_words(words, prompt, CPU) for prompt in ("a", "a blue square on white"))
    mixed = heard_words(words, "a :0.9 | a blue square on white :0.1", CPU)
    assert torch.equal(mixed.mask, long.mask)
    behind = long.mask & ~short.mask
    torch.testing.assert_close(mixed.tokens[behind], long.tokens[behind])


def test_a_prompt_is_heard_alike_beside_any_other(words):
    long = " ".join(CAPTIONS * 8)
    assert 64 < len(words.prepare([long])[0]["ids"]) < 200
    alone = words_known(words, ["a red circle"], CPU).value
    said = words_known(words, ["a blue square", "a red circle", long, ""], CPU)
    for one, other in zip(alone, said.value, strict=True):
        assert (one is None and other is None) or torch.equal(one[0], other[1])
    assert said.there.tolist() == [True, True, True, False]


def test_conditioners_that_do_not_say_how_much_they_hear_take_prompts_of_several_lengths(words):
    class Silent(torch.nn.Module):
        """Says nothing of its length."""

        prepare, encode = staticmethod(words.prepare), staticmethod(words.encode)

    long = " ".join(CAPTIONS * 8)
    said = words_known(Silent(), ["a red circle", long], CPU).value
    assert said.mask.sum(1).tolist() == [len(row["ids"]) for row in words.prepare(["a red circle", long])]


def test_what_is_cut_off_a_prompt_is_said_of_each_part(words):
    short = registry.load("conditioner", "words")
    config = short.Config(type="words", width=16, dim=8, length=5)
    few = short(config, fitted={"merges": words.merges})
    assert cut_off(few, "a red circle") == ""
    assert cut_off(few, "a red circle on black") == "on black"
    assert cut_off(few, "a red circle on black | a blue square on white") == "on black; on white"


# -- pictures ------------------------------------------------------------------


def test_the_same_words_and_seed_give_the_same_bytes_for_any_number_order_and_neighbours(told, sample):
    turns = "prompt=[a red circle, a blue square on white, a red square]"
    whole = sample(told, turns, "count=9", "guidance=2")
    assert sorted(whole) == list(range(9)) and len(set(whole.values())) == 9
    for seed, prompt in {0: "a red circle", 4: "a blue square on white", 8: "a red square"}.items():
        assert sample(told, f"prompt=[{prompt}]", "count=1", f"seed={seed}", "guidance=2", out=f"one-{seed}") == {seed: whole[seed]}
    assert sample(told, "prompt=[a red square]", "seed=6", "count=3", "guidance=2", out="three")[8] == whole[8]


def test_words_change_the_picture_and_guidance_changes_it_more(told, sample):
    plain, red, blue = (pixels(sample(told, *asked, out=str(number))) for number, asked in enumerate([[], [RED], [BLUE]]))
    assert len({plain[0], red[0], blue[0]}) == 3
    assert pixels(sample(told, RED, "guidance=2", out="more"))[0] != red[0]


def test_guidance_0_ignores_the_words(told, sample, tmp_path):
    nothing = sample(told, "guidance=0", out="nothing")
    assert sample(told, RED, "guidance=0", out="red") == nothing == sample(told, "prompt=['']", "guidance=0", out="empty")
    assert "prompt" not in text_of(tmp_path / "red")
    assert pixels(sample(told, out="free")) == pixels(nothing), "a model that is asked for nothing says what it says of nothing"


def test_what_guidance_0_leaves_unused_is_said(told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sample", "--run", str(told), "--guidance", "0", "-n", "1", "--steps", "1", "--device", "cpu"]
    assert ldmctl([*words, "--prompt", "a red circle"]) == 0
    assert "guidance=0 ignores what is given: --prompt is not used." in " ".join(capsys.readouterr().err.split())
    assert ldmctl([*words, "--out", "free"]) == 0
    assert "ignores" not in capsys.readouterr().err


def test_a_mixed_prompt_of_one_share_is_the_plain_prompt(told, sample):
    plain = sample(told, RED, out="plain")
    twice = sample(told, "prompt=['a red circle :0.3 | a red circle :0.7']", out="twice")
    between = pixels(sample(told, "prompt=['a red circle | a blue square']", out="between"))
    again = pixels(sample(told, "prompt=['a blue square | a red circle']", out="again"))
    one, other = (torch.frombuffer(bytearray(pixels(each)[0]), dtype=torch.uint8).int() for each in (plain, twice))
    assert (one - other).abs().max() <= 1
    assert between[0] not in (pixels(plain)[0], pixels(sample(told, BLUE, out="blue"))[0])
    one, other = (torch.frombuffer(bytearray(each[0]), dtype=torch.uint8).int() for each in (between, again))
    assert (one - other).abs().max() <= 1


def test_guidance_goes_away_from_negative_words(told, sample):
    away = sample(told, RED, "guidance=2", "negative=a blue square", out="away")
    assert pixels(away)[0] != pixels(sample(told, RED, "guidance=2", out="plain"))[0]
    with pytest.raises(ConfigError, match="negative=a red circle is what is asked for"):
        sample(told, RED, "guidance=3", "negative=a red circle", out="same")
    same = pixels(sample(told, RED, "guidance=3", "negative=a red circle | a red circle", out="same"))[0]
    one, other = (torch.frombuffer(bytearray(each), dtype=torch.uint8).int() for each in (same, pixels(sample(told, RED, out="one"))[0]))
    assert (one - other).abs().max() <= 1, "away from itself is nowhere"


def test_a_label_and_words_are_heard_together_and_each_alone(both, sample, tmp_path):
    asked = {"label": ["label=[red circle]"], "words": [RED], "both": [RED, "label=[red circle]"], "none": ["label=[none]"]}
    said = {name: pixels(sample(both, *words, out=name))[0] for name, words in asked.items()}
    assert len(set(said.values())) == 4
    text = text_of(tmp_path / "both")
    assert text["prompt"] == "a red circle" and text["label"] == "red circle"
    assert "prompt" not in text_of(tmp_path / "label") and text_of(tmp_path / "words")["label"] is None


def test_each_label_is_made_with_each_prompt_a_row_of_the_grid_for_each(both, tmp_path, quiet, tiny):
    words = [f"run={both}", "steps=2", "each=2", "batch=4", "machine.device=cpu", "machine.precision=fp32"]
    answer = stage(tiny("sample", *words, "prompt=[a, b]", "label=[red circle, blue square]"), tmp_path / "out", console=quiet)
    assert answer["prompts"] == ["a", "b"] * 4 and answer["labels"] == [*["red circle"] * 2, *["blue square"] * 2] * 2
    assert answer["count"] == 8


@pytest.mark.parametrize(
    "asked", [["--prompt", "a red circle"], ["--prompt", "a red circle | a blue square", "--negative", "a red square"]]
)
def test_again_makes_a_picture_of_words_from_its_own_file(told, tmp_path, monkeypatch, asked, capsys):
    monkeypatch.chdir(tmp_path)
    common = ["--device", "cpu", "--precision", "fp32", "-q"]
    guided = ["--guidance", "2", "-n", "3", "--steps", "3", "batch=4"]
    assert ldmctl(["sample", "--run", str(told), *asked, *guided, *common]) == 0
    assert text_of(tmp_path / "samples", 1)["prompt"] == asked[1]
    assert ldmctl(["sample", "--run", str(told), "--again", "samples/000001.png", "--device", "cpu", "-q"]) == 0
    assert (tmp_path / "samples" / "000001.png").read_bytes() == (tmp_path / "again" / "000001.png").read_bytes()
    assert ldmctl(["sample", "--run", str(told), "--again", "samples/000001.png", "--prompt", "b", "-o", "other"]) == 2
    assert "prompt cannot be given with it" in capsys.readouterr().err


def test_the_same_command_keeps_pictures_and_other_words_are_refused(told, sample):
    first = sample(told, RED)
    assert sample(told, RED) == first
    with pytest.raises(MismatchError):
        sample(told, BLUE)
    assert sample(told, BLUE, overwrite=True) != first


# -- what does not go ----------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--prompt", "a"], "trained without captions, so --prompt has nothing to say to it"),
        (["--map", "m.png"], "trained without maps, so --map has nothing to show to it"),
        (["--picture", "m.png"], "trained without pictures, so --picture has nothing to show to it"),
        (["--negative", "crimson"], "There is no label 'crimson'"),
    ],
)
def test_a_model_that_does_not_listen_says_so(deaf, tmp_path, monkeypatch, asked, said, capsys):
    monkeypatch.chdir(tmp_path)
    guided = ["--guidance", "2"] if asked[0] == "--negative" else []
    assert ldmctl(["sample", "--run", str(deaf), *asked, *guided, "--device", "cpu"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "samples").exists()


def test_words_that_were_never_left_out_must_be_given(fit_diffusion, vae_cache, tmp_path, sample):
    run = fit_diffusion(tmp_path / "ldm", vae_cache, "conditions.text=words", "conditions.drop={label: 0.5, text: 0}", "loop.steps=1")
    assert weights.read_header(run / "model.safetensors")["left_alone"] == {"label": True, "text": False}
    with pytest.raises(ConfigError, match=r"never learned a label without a prompt.*conditions\.drop\.text=0\. Give a --prompt as well"):
        sample(run, "label=[red circle]")
    sample(run, "label=[red circle]", RED)


def test_a_prompt_that_is_too_long_says_what_is_not_heard(told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    long = "a red circle on black " * 4000 + "and a hidden end"
    assert ldmctl(["sample", "--run", str(told), "--prompt", long, "-n", "1", "--steps", "1", "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "is too long" in said and "and a hidden end', its end, is not heard" in said and len(said) < 1500
    away = ["--negative", "a blue square " * 4000 + "and its end", "--guidance", "2"]
    words = ["--prompt", long, "--prompt", "a red circle", "-n", "2", "--steps", "1", "--device", "cpu", "--out", "away"]
    assert ldmctl(["sample", "--run", str(told), *words, *away]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "and its end', its end, is not heard" in said, "words to go away from are cut too"
    assert "1 picture of each of 2 prompts" in said and len(said) < 2000, "and no table says a prompt whole that fills the screen"


def test_in_python_what_a_command_would_say_is_a_warning(told):
    model = api.load(told, device="cpu")
    with pytest.warns(UserWarning, match="its end, is not heard") as seen:
        model.sample(1, prompt="a red circle on black " * 4000, steps=1)
    assert [Path(each.filename).name for each in seen] == [Path(__file__).name], "where it was called"
    with pytest.warns(UserWarning, match="--prompt is not used"):
        model.sample(1, prompt="a red circle", guidance=0, steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.sample(1, prompt="a red circle", steps=1)
