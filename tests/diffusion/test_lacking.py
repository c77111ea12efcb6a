"""What a model never learned to do without has to be given: a null that was never trained makes no pictures silently."""

import numpy as np
import pytest
from PIL import Image

from ldmctl import api
from ldmctl.cli.app import run as ldmctl
from ldmctl.errors import ConfigError
from ldmctl.stages.sample import sample as stage
from ldmctl.storage import weights

WORDS = "conditions.text={type: words, width: 16, dim: 8}"
LISTENS = {"text": WORDS, "map": "conditions.map=map", "picture": "conditions.picture={type: lowres, factor: 2}"}
ALWAYS = "conditions.drop={label: 0, text: 0, map: 0, picture: 0}"
HOST = ["--steps", "1", "-n", "1", "batch=1", "--device", "cpu", "--precision", "fp32", "-q"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a map, a picture to follow, a photograph and a mask. Read only."""
    made = tmp_path_factory.mktemp("given")
    half = np.zeros((16, 16), np.uint8)
    half[:, 8:] = 1
    Image.fromarray(half).save(made / "map.png")
    Image.fromarray(half * 255).save(made / "mask.png")
    for name, side in (("small", 8), ("photo", 16)):
        Image.new("RGB", (side, side), "red").save(made / f"{name}.png")
    return made


@pytest.fixture(scope="module")
def cache(folder, encode, vae_run):
    """Shapes with labels, captions and maps. Read only."""
    return encode(folder / "cache", vae_run, "dataset.maps=true")


@pytest.fixture(scope="module")
def fitted(folder, fit_diffusion, cache):
    """fitted("drop=0", ...) -> a run of one step with these overrides, made once."""
    runs = {}

    def run(*words):
        if words not in runs:
            runs[words] = fit_diffusion(folder / f"ldm{len(runs)}", cache, "loop.steps=1", *words)
        return runs[words]

    return run


@pytest.fixture
def sample(tiny, quiet, tmp_path):
    """sample(run, "prompt=red") makes a picture, each call in a folder of its own."""
    calls = []

    def go(run, *words):
        calls.append(words)
        words = [f"run={run}", "steps=1", "batch=1", "count=1", "machine.device=cpu", "machine.precision=fp32", *words]
        return stage(tiny("sample", *words), tmp_path / str(len(calls)), console=quiet)

    return go


def given(folder):
    return {"text": "prompt=[red]", "map": f"map={folder / 'map.png'}", "picture": f"picture={folder / 'small.png'}"}


@pytest.mark.parametrize(
    ("slot", "said"), [("text", "a prompt: .* a --prompt,"), ("map", "a map: .* a --map,"), ("picture", "a picture: .* a --picture,")]
)
def test_the_only_thing_that_is_heard_must_be_given_where_it_was_never_left_out(fitted, sample, folder, slot, said):
    always, dropped = (fitted("conditioner=null", LISTENS[slot], drop) for drop in ("drop=0", "drop=0.1"))
    with pytest.raises(ConfigError, match=f"never learned to do without {said} or train with drop=0.1"):
        sample(always)
    sample(always, given(folder)[slot])
    sample(dropped)
    sample(dropped, "guidance=0")


@pytest.mark.parametrize("prompts", ['prompt=[""]', 'prompt=["  "]', 'prompt=[red, ""]'])
def test_an_empty_prompt_is_none(fitted, sample, prompts):
    with pytest.raises(ConfigError, match="never learned to do without a prompt"):
        sample(fitted("conditioner=null", WORDS, "drop=0"), prompts)


@pytest.mark.parametrize("slot", list(LISTENS))
def test_each_of_several_must_be_given_beside_the_others_where_it_was_never_left_out_alone(fitted, sample, folder, slot):
    run = fitted("conditioner=null", *LISTENS.values(), ALWAYS, "drop=0.1")
    others = [word for each, word in given(folder).items() if each != slot]
    with pytest.raises(ConfigError, match=rf"never learned .* and .* without a .*conditions\.drop\.{slot}=0\. Give a --.* as well"):
        sample(run, *others)
    sample(run, *others, given(folder)[slot])
    sample(run)  # of nothing, which drop=0.1 teaches
    sample(run, "guidance=0")
    learned = fitted("conditioner=null", *LISTENS.values(), "conditions.drop={text: 0.2, map: 0.2, picture: 0.2}", "drop=0")
    sample(learned, *others)


def test_all_of_several_must_be_given_where_nothing_was_ever_left_out(fitted, sample, folder):
    run = fitted(WORDS, LISTENS["map"], ALWAYS, "drop=0")
    with pytest.raises(ConfigError, match=r"without a label, a prompt and a map: .*drop=0\. Give a --label, a --prompt and a --map,"):
        sample(run)
    with pytest.raises(ConfigError, match=r"without a label: .*conditions\.drop\.label=0\. Give a --label as well"):
        sample(run, given(folder)["text"], given(folder)["map"])
    sample(run, "label=[red circle]", given(folder)["text"], given(folder)["map"])


def test_a_label_that_was_left_out_alone_may_be_left_out_though_all_together_never_were(fitted, sample):
    run = fitted(WORDS, "conditions.drop={label: 0.2, text: 0}", "drop=0")
    sample(run, "label=none", "prompt=[red]")
    with pytest.raises(ConfigError, match="never learned to do without a prompt"):
        sample(run, "label=none")


def test_guidance_goes_away_from_nothing_that_was_never_learned(fitted, sample):
    run = fitted(WORDS, "conditions.drop={label: 0, text: 0.2}", "drop=0.1")
    both = ["label=[red circle]", "prompt=[red]", "guidance=2"]
    with pytest.raises(ConfigError, match=r"negative=ugly goes away from pictures without a label, .*conditions\.drop\.label=0"):
        sample(run, *both, "negative=ugly")
    sample(run, *both, "negative=blue square")
    sample(run, *both)


def test_a_hole_is_given_too_where_the_model_hears_it(fitted, sample, folder):
    run = fitted("conditioner=null", WORDS, "conditions.picture=inpaint", "conditions.drop={text: 0, picture: 0.2}", "drop=0.1")
    painted = [f"start={folder / 'photo.png'}", f"mask={folder / 'mask.png'}"]
    with pytest.raises(ConfigError, match="never learned a picture without a prompt"):
        sample(run, *painted)
    sample(run, *painted, "prompt=[red]")
    sample(run, *painted, "painting.method=blend")
    sample(run)


@pytest.fixture(scope="module")
def lacking(folder, encode, vae_run):
    """A cache of pictures of which one has no caption, and another no map. Read only."""
    random = np.random.default_rng(0)
    for number in range(8):
        file = folder / "pictures" / ("train" if number < 4 else "val") / f"{number}.png"
        (file.parent / "masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
        if number != 1:
            file.with_suffix(".txt").write_text(f"picture number {number}")
        if number != 2:
            Image.open(folder / "map.png").save(file.parent / "masks" / file.name)
    return encode(folder / "lacking", vae_run, f"data={folder / 'pictures'}")


@pytest.mark.parametrize("listens", [["text"], ["map"], ["text", "map"]], ids="+".join)
def test_what_some_training_items_lack_was_learned_to_be_without_though_nothing_is_dropped(
    lacking, folder, fit_diffusion, sample, tmp_path, listens
):
    words = ["conditioner=null", *(LISTENS[slot] for slot in listens), "drop=0", ALWAYS, "loop.batch=4", "loop.steps=1"]
    run = fit_diffusion(tmp_path / "ldm", lacking, *words)
    header = weights.read_header(run / "model.safetensors")
    assert header["unconditional"] is True and set(header.get("left_alone", {"one": True}).values()) == {True}
    for some in ([], *([given(folder)[slot]] for slot in listens)):
        sample(run, *some)


def test_the_command_ends_with_the_sentence_before_it_writes_and_so_does_a_dry_run(fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = fitted("conditioner=null", WORDS, "drop=0")
    for more in ([], ["--dry-run"], ["--prompt", ""]):
        assert ldmctl(["sample", "--run", str(run), *HOST, *more]) == ConfigError.exit_code
        assert "This model never learned to do without a prompt" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "samples").exists()


def test_a_run_that_never_went_without_words_is_judged_by_the_captions_of_the_pictures(fitted, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    judged = ["eval-samples", "--against", str(cache), "-n", "64", "steps=1", "extractor=latent", "nearest=false", "--device", "cpu"]
    assert ldmctl([*judged, "--run", str(fitted("conditioner=null", WORDS, "drop=0"))]) == 0
    assert "asked for the captions" in " ".join(capsys.readouterr().err.split())
    assert ldmctl([*judged, "--run", str(fitted("conditioner=null", LISTENS["map"], "drop=0"))]) == ConfigError.exit_code
    assert "never learned to do without a map" in " ".join(capsys.readouterr().err.split())


def test_a_weaker_model_that_guides_is_asked_too(fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run, weaker = fitted("conditioner=null", WORDS), fitted("conditioner=null", WORDS, "drop=0")
    guided = ["sample", "--run", str(run), *HOST, "--guidance", "2", "--autoguide", str(weaker)]
    assert ldmctl(guided) == ConfigError.exit_code
    said = " ".join(capsys.readouterr().err.split())
    assert f"The model of autoguide={weaker} never learned to do without a prompt: it was trained with drop=0." in said
    with pytest.raises(ConfigError, match="never learned to do without a prompt"):
        api.load(run, device="cpu").sample(1, steps=1, guidance=2, autoguide=weaker)
    assert ldmctl([*guided, "--prompt", "a picture", "-n", "1"]) == 0
