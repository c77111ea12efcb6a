"""`ldmctl fit-token` learns a word and touches nothing else, and `sample --token` says it."""

import json
import os
import shutil
import signal

import pytest
import torch
from learning import FEW, HOST, answer, learn, sample
from PIL import Image

from ldmctl import api
from ldmctl.cli.app import run
from ldmctl.diffusion.inversion import Inversion
from ldmctl.diffusion.learnable import listener
from ldmctl.diffusion.learned_words import read_word
from ldmctl.diffusion.lesson import first_vectors, lesson_of
from ldmctl.diffusion.model import open_model
from ldmctl.errors import ConfigError, DivergedError
from ldmctl.storage import weights
from ldmctl.training import engine as engines

WORDS = ["conditions.label=null", "conditions.text={type: words, width: 8, depth: 1, heads: 2, dim: 8, vocabulary: 300}"]
LONGER = ["loop.steps=100", "loop.lr=1e-2", "loop.ema=0", "loop.warmup=2"]


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vqvae_cache):
    """A run folder of fit-diffusion that hears words. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("worded") / "ldm", vqvae_cache, *WORDS, *LONGER)


@pytest.fixture(scope="module")
def other(tmp_path_factory, fit_diffusion, vqvae_cache):
    """Another such run, whose words are others. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("other") / "ldm", vqvae_cache, *WORDS, "loop.seed=1")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five pictures of one kind, in colours that the model never saw."""
    folder = tmp_path_factory.mktemp("mine")
    for index in range(5):
        picture = Image.new("RGB", (20, 16), (120, 0, 120))
        picture.paste((240, 120 + 20 * index, 250), (4, 3 + index, 14, 12))
        picture.save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def token(tmp_path_factory, ldm, pictures):
    """A learned word `<mine>`. Read only."""
    file = tmp_path_factory.mktemp("token") / "mine.safetensors"
    assert run(["fit-token", "--run", str(ldm), "--data", str(pictures), "--word", "<mine>", "--out", str(file), "-q", *FEW]) == 0
    return file


def test_a_file_of_a_word_names_no_place_of_the_machine_that_made_it(token, ldm, pictures, tmp_path, capsys):
    said = token.read_bytes()
    assert str(pictures).encode() not in said and str(ldm).encode() not in said
    moved, file = shutil.copytree(pictures, tmp_path / "moved"), shutil.copy(token, tmp_path / "mine.safetensors")
    code, answered, _ = learn(capsys, ldm, moved, file, "--steps", "14")
    assert code == 0 and answered["steps"] == 14, "the same pictures at another place are the same"


def begun(tiny, ldm, pictures, *words):
    """(the model, an Inversion of the word <mine> on random latents)."""
    config = tiny("fit-token", f"run={ldm}", "word=<mine>", f"data={pictures}", "image.size=16", "batch=4", *HOST, *words)
    model = open_model(str(ldm), engines.start(config.machine), tile=None)
    stored = model.codec.encode(torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    lesson = lesson_of(config, model)
    return model, Inversion(model, lesson, stored, [lesson.captions] * 5)


# -- learning ------------------------------------------------------------------------


def test_the_loss_on_the_pictures_falls_with_the_learned_word(ldm, pictures, tmp_path, capsys):
    before = (ldm / "model.safetensors").read_bytes()
    code, said, err = learn(capsys, ldm, pictures, tmp_path / "new" / "mine.safetensors", "lr=0.3", "--steps", "40")
    assert code == 0 and said["loss"] < 0.985 * said["loss_before"] and said["steps"] == 40
    assert "5 pictures to learn from" in err and "--prompt 'a <mine>'" in err
    tensors, header = weights.load(tmp_path / "new" / "mine.safetensors")
    assert tensors["vectors"].shape == (1, 8) and header["kind"] == "token" and header["word"] == "<mine>" and header["step"] == 40
    assert header["type"] == "words" and (ldm / "model.safetensors").read_bytes() == before


def test_every_other_weight_stays_bit_for_bit(tiny, ldm, pictures):
    model, inversion = begun(tiny, ldm, pictures, "lr=0.5", "init_word=red")
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    first = inversion.vectors.detach().clone()
    for step in range(5):
        inversion.step(step)
    assert not torch.equal(inversion.vectors, first)
    now = model.network.state_dict()
    assert now.keys() == state.keys() and all(torch.equal(now[name], value) for name, value in state.items())
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_a_word_that_nothing_is_learned_of_does_not_decay(tiny, ldm, pictures):
    _, inversion = begun(tiny, ldm, pictures)
    first = inversion.vectors.detach().clone()
    inversion.vectors.grad = torch.zeros_like(inversion.vectors)
    inversion.optimizer.step()
    assert torch.equal(inversion.vectors, first)


def test_the_first_step_moves_each_number_by_the_share_that_lr_names(tiny, ldm, pictures):
    _, inversion = begun(tiny, ldm, pictures, "lr=0.25")
    first = inversion.vectors.detach().clone()
    inversion.step(0)
    moved = (inversion.vectors.detach() - first).abs() / first.square().mean().sqrt()
    assert torch.allclose(moved, torch.full_like(moved, 0.25), atol=1e-3)  # as Adam's first step does


def test_a_word_begins_with_the_vectors_of_another(tiny, ldm, pictures):
    model, inversion = begun(tiny, ldm, pictures, "init_word=red", "vectors=2")
    red = model.network.text.word_vectors("red")
    assert len(red) == 1 and torch.equal(inversion.vectors.detach(), red.expand(2, -1))
    pieces = model.network.text.word_vectors("qvxjz")
    assert len(pieces) == 6  # a blank, and a byte each
    assert torch.allclose(first_vectors(pieces, 2), torch.stack([pieces[:3].mean(0), pieces[3:].mean(0)]))


def test_the_same_command_gives_the_same_file_and_another_seed_another(ldm, pictures, token, tmp_path, capsys):
    for name, words in {"same": [], "other": ["seed=1"]}.items():
        assert learn(capsys, ldm, pictures, tmp_path / f"{name}.safetensors", *words)[0] == 0
    assert (tmp_path / "same.safetensors").read_bytes() == token.read_bytes()
    assert not torch.equal(read_word(tmp_path / "other.safetensors").vectors, read_word(token).vectors)


def test_what_ctrl_c_stopped_ends_as_if_it_had_not(ldm, pictures, token, tmp_path, capsys, monkeypatch):
    file, step = tmp_path / "mine.safetensors", Inversion.step

    def stopping(self, number):
        if number == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, number)

    monkeypatch.setattr(Inversion, "step", stopping)
    code, said, _ = learn(capsys, ldm, pictures, file)
    assert code == 75 and "after 7 of 12 steps" in said["error"] and read_word(file).header["step"] == 7
    monkeypatch.undo()
    code, _, err = learn(capsys, ldm, pictures, file)
    assert code == 0 and "after 7 of 12 steps" in err and file.read_bytes() == token.read_bytes()


def test_a_finished_word_is_measured_again_and_more_steps_learn_on(ldm, pictures, token, tmp_path, capsys):
    file = tmp_path / "mine.safetensors"
    shutil.copy(token, file)
    assert learn(capsys, ldm, pictures, file)[1]["steps"] == 12 and file.read_bytes() == token.read_bytes()
    code, said, _ = learn(capsys, ldm, pictures, file, "--steps", "14")
    assert code == 0 and said["steps"] == 14 and not torch.equal(read_word(file).vectors, read_word(token).vectors)


def test_a_word_from_before_there_were_classes_is_said_and_learned_on(ldm, pictures, token, tmp_path, capsys):
    tensors, header = weights.load(token)
    file = tmp_path / "mine.safetensors"
    older = {key: value for key, value in header["config"].items() if key != "kind"}
    weights.save(file, tensors, {**{key: value for key, value in header.items() if key not in ("format", "listens")}, "config": older})
    assert sample(capsys, ldm, tmp_path / "samples", "-n", "1", "--prompt", "a <mine>", "--token", file)[0] == 0
    assert learn(capsys, ldm, pictures, file, "--steps", "13")[1]["steps"] == 13


def test_a_word_of_several_vectors_learns_from_mirrored_pictures_too(ldm, pictures, tmp_path, capsys):
    code, said, err = learn(capsys, ldm, pictures, tmp_path / "mine.safetensors", "vectors=3", "flip=true", "templates=a {} on white")
    assert code == 0 and said["loss"] < said["loss_before"] and "10 pictures" in err
    assert read_word(tmp_path / "mine.safetensors").vectors.shape == (3, 8)


def test_captions_that_say_the_word_are_taken_for_their_pictures(ldm, pictures, tmp_path, capsys, monkeypatch):
    shutil.copytree(pictures, tmp_path / "captioned")
    for index, text in enumerate(["a <mine> on a dark background", "a red circle", "<mine>", "a " * 70 + "<mine>"]):
        (tmp_path / "captioned" / f"{index}.txt").write_text(text)
    found, make = [], Inversion.__init__
    monkeypatch.setattr(Inversion, "__init__", lambda self, *parts: [found.extend(parts[3]), make(self, *parts)][1])
    code, _, err = learn(capsys, ldm, tmp_path / "captioned", tmp_path / "mine.safetensors")
    assert code == 0 and "2 with captions of their own" in err
    assert sorted(found) == sorted([("a <mine> on a dark background",), ("<mine>",), *[("a <mine>", "<mine>")] * 3])


def test_a_gradient_that_is_not_finite_ends_it(tiny, ldm, pictures):
    _, inversion = begun(tiny, ldm, pictures)
    inversion.stored = inversion.stored * torch.inf
    with pytest.raises(DivergedError, match="step 1 is not finite"):
        inversion.step(0)


def test_a_dry_run_says_what_would_be_learned(ldm, pictures, tmp_path, capsys):
    code, said, _ = learn(capsys, ldm, pictures, tmp_path / "mine.safetensors", "--dry-run", "vectors=2")
    assert code == 0 and said["plan"]["word"] == "2 x 8 numbers, which begin as 'a'" and said["plan"]["pictures"] == "5"
    assert "none of which changes" in said["plan"]["network"] and not (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--word", "mine"], 2, "such as <mine>"),
        (["--word", "two words"], 2, "without blanks"),
        (["--word", "<a|b>"], 2, "without the signs"),
        (["templates=a picture"], 2, "no place for the word"),
        (["vectors=70"], 2, "longer than the model hears"),
        (["image.size=32"], 2, "image.size=16"),
        (["--label", "red circle"], 2, "trained without labels"),
        (["--data", "nowhere/at/all"], 3, "no folder"),
        (["--run", "nowhere"], 6, "no run folder"),
    ],
)
def test_what_cannot_be_learned_is_a_sentence(ldm, pictures, tmp_path, capsys, words, code, said):
    found, told, _ = learn(capsys, ldm, pictures, tmp_path / "mine.safetensors", *words)
    assert found == code and said in told["error"] and not (tmp_path / "mine.safetensors").exists()


def test_a_word_that_the_model_knows_is_not_learned_again(ldm, pictures, tmp_path, capsys, monkeypatch):
    words = type(open_model(str(ldm), engines.Engine(torch.device("cpu"), torch.float32), tile=None).network.text)
    monkeypatch.setattr(words, "word_vectors", lambda self, text: torch.ones(1, 8))
    code, said, _ = learn(capsys, ldm, pictures, tmp_path / "mine.safetensors")
    assert code == 2 and "has a word '<mine>' of its own" in said["error"]


def test_a_model_without_captions_learns_no_words(sorted_run, pictures, tmp_path, capsys):
    code, said, _ = learn(capsys, sorted_run, pictures, tmp_path / "mine.safetensors", "--kind", "word")
    assert code == 2 and "trained without captions" in said["error"] and "kind=class" in said["error"]


def test_pictures_of_a_class_are_learned_where_words_alone_never_were(fit_diffusion, vqvae_cache, pictures, tmp_path, capsys):
    both = fit_diffusion(tmp_path / "both", vqvae_cache, WORDS[1], "conditions.drop={label: 0, text: 0.2}")
    code, said, _ = learn(capsys, both, pictures, tmp_path / "mine.safetensors")
    assert code == 2 and "by --label" in said["error"]
    assert learn(capsys, both, pictures, tmp_path / "mine.safetensors", "--label", "red circle")[0] == 0


def test_a_file_begun_otherwise_is_continued_by_no_other_command(ldm, other, pictures, token, tmp_path, capsys):
    file = tmp_path / "mine.safetensors"
    shutil.copy(token, file)
    for words, said in (
        (["lr=0.2"], "lr was 0.1 and is 0.2"),
        (["flip=true"], "flip was False"),
        (["--run", str(other)], "weights of the model"),
    ):
        code, told, _ = learn(capsys, ldm, pictures, file, *words)
        assert code == 6 and said in told["error"] and "--overwrite" in told["error"] and file.read_bytes() == token.read_bytes()
    code, told, _ = learn(capsys, ldm, pictures, file, word="<yours>")
    assert code == 6 and "'<mine>' and is '<yours>'" in told["error"]
    assert learn(capsys, ldm, pictures, file, "lr=0.2", "--overwrite")[0] == 0 and file.read_bytes() != token.read_bytes()


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_file_of_something_else_is_never_replaced(ldm, pictures, tmp_path, capsys, overwrite):
    for name in ("notes.txt", "model.safetensors"):
        shutil.copy(ldm / "model.safetensors", tmp_path / name) if name.endswith("s") else (tmp_path / name).write_text("mine")
        before = (tmp_path / name).read_bytes()
        code, told, _ = learn(capsys, ldm, pictures, tmp_path / name, *overwrite)
        assert code == 6 and "not replaced" in told["error"] and (tmp_path / name).read_bytes() == before


def test_from_python_it_is_a_function(ldm, pictures, token, tmp_path):
    said = api.fit_token(FEW, run=ldm, data=pictures, word="<mine>", steps=12, out=tmp_path / "mine.safetensors")
    assert said["steps"] == 12 and (tmp_path / "mine.safetensors").read_bytes() == token.read_bytes()


# -- sampling ------------------------------------------------------------------------


def test_a_learned_word_changes_the_pictures_that_say_it_and_no_others(ldm, token, tmp_path, capsys):
    prompts = ["--prompt", "a <mine>", "--prompt", "a red circle", "-n", "2"]
    assert sample(capsys, ldm, tmp_path / "with", *prompts, "--token", token)[0] == 0
    assert sample(capsys, ldm, tmp_path / "without", *prompts)[0] == 0
    said, plain = [[Image.open(tmp_path / folder / f"{seed:06d}.png") for seed in range(2)] for folder in ("with", "without")]
    assert said[0].tobytes() != plain[0].tobytes()
    assert (tmp_path / "with" / "000001.png").read_bytes() == (tmp_path / "without" / "000001.png").read_bytes()
    text = json.loads(said[0].text["ldmctl"])
    assert text["token"] == [str(token)] and text["learned"] == [weights.file_sha256(token)]


def test_a_word_with_the_vectors_of_another_makes_its_pictures(ldm, token, tmp_path, capsys):
    red = open_model(str(ldm), engines.Engine(torch.device("cpu"), torch.float32), tile=None).network.text.word_vectors("red")
    tensors, header = weights.load(token)
    weights.save(
        tmp_path / "red.safetensors", {**tensors, "vectors": red}, {key: value for key, value in header.items() if key != "format"}
    )
    assert sample(capsys, ldm, tmp_path / "one", "-n", "1", "--prompt", "a <mine> circle", "--token", tmp_path / "red.safetensors")[0] == 0
    assert sample(capsys, ldm, tmp_path / "two", "-n", "1", "--prompt", "a red circle")[0] == 0
    one, two = (Image.open(tmp_path / folder / "000000.png").tobytes() for folder in ("one", "two"))
    assert one == two


def test_a_word_that_no_prompt_says_is_a_warning(ldm, token, tmp_path, capsys):
    code, _, err = sample(capsys, ldm, tmp_path / "samples", "-n", "1", "--prompt", "a red circle", "--token", token)
    assert code == 0 and "No prompt says '<mine>'" in err


def test_two_words_are_said_together_and_one_word_is_not_given_twice(ldm, pictures, token, tmp_path, capsys):
    assert learn(capsys, ldm, pictures, tmp_path / "yours.safetensors", "seed=3", word="<yours>")[0] == 0
    both = ["--token", token, "--token", tmp_path / "yours.safetensors", "-n", "1"]
    assert sample(capsys, ldm, tmp_path / "both", *both, "--prompt", "a <mine> on a <yours>")[0] == 0
    shutil.copy(token, tmp_path / "again.safetensors")
    code, said, _ = sample(
        capsys, ldm, tmp_path / "twice", "--token", token, "--token", tmp_path / "again.safetensors", "--prompt", "<mine>"
    )
    assert code == 2 and "both have the word '<mine>'" in said["error"]


def test_a_word_of_another_model_is_refused(ldm, other, sorted_run, token, tmp_path, capsys):
    for dry in ([], ["--dry-run"]):
        code, said, _ = sample(capsys, other, tmp_path / "samples", "--prompt", "a <mine>", "--token", token, *dry)
        assert code == 6 and "another model" in said["error"] and f"fit-token --run {other}" in said["error"]
        code, said, _ = sample(capsys, sorted_run, tmp_path / "samples", "--token", token, *dry)
        assert code == 2 and "trained without captions" in said["error"]


def test_a_damaged_file_is_a_sentence(ldm, token, tmp_path, capsys):
    tensors, header = weights.load(token)
    header.pop("format")
    (tmp_path / "cut").write_bytes(token.read_bytes()[:-20])
    weights.save(tmp_path / "none", {}, header)
    weights.save(tmp_path / "nan", {"vectors": tensors["vectors"] * torch.nan}, header)
    weights.save(tmp_path / "wide", {"vectors": torch.ones(1, 9)}, header)
    weights.save(tmp_path / "nameless", tensors, {key: value for key, value in header.items() if key != "word"})
    (tmp_path / "empty").touch()
    for name in ("cut", "none", "nan", "wide", "nameless", "empty", "nothing"):
        code, said, _ = sample(capsys, ldm, tmp_path / "samples", "--prompt", "a <mine>", "--token", tmp_path / name)
        assert code == 6 and name in said["error"], name
        assert not (tmp_path / "samples").exists()


def test_a_picture_with_a_learned_word_is_made_again(ldm, pictures, token, tmp_path, capsys):
    words = ["--prompt", "a <mine>", "--prompt", "a red circle", "--prompt", "<yours>", "-n", "3"]
    learn(capsys, ldm, pictures, tmp_path / "yours.safetensors", "seed=3", word="<yours>")
    files = ["--token", token, "--token", tmp_path / "yours.safetensors"]
    assert sample(capsys, ldm, tmp_path / "samples", *words, *files, "--negative", "<yours>", "--guidance", "2")[0] == 0
    for name in ("000000.png", "000001.png"):
        code, said, _ = answer(capsys, "sample", "--again", tmp_path / "samples" / name, "--run", ldm, "--out", tmp_path / "again")
        assert code == 0 and said["same"] and (tmp_path / "again" / name).read_bytes() == (tmp_path / "samples" / name).read_bytes()
        shutil.rmtree(tmp_path / "again")
    again = ["sample", "--again", tmp_path / "samples" / "000000.png", "--run", ldm, "--out", tmp_path / "again"]
    code, said, _ = answer(capsys, *again, "--token", token)
    assert code == 6 and "learned otherwise" in said["error"]
    (tmp_path / "moved").mkdir()
    moved = [shutil.copy(file, tmp_path / "moved") for file in (token, tmp_path / "yours.safetensors")]
    code, said, _ = answer(capsys, *again, "--token", moved[0], "--token", moved[1])
    assert code == 0 and said["same"]


def test_a_word_learned_anew_does_not_pass_for_the_one_before(ldm, pictures, token, tmp_path, capsys):
    file, words = tmp_path / "mine.safetensors", ["-n", "1", "--prompt", "a <mine>", "--token", tmp_path / "mine.safetensors"]
    shutil.copy(token, file)
    assert sample(capsys, ldm, tmp_path / "samples", *words)[1]["made"] == 1
    assert sample(capsys, ldm, tmp_path / "samples", *words)[1]["made"] == 0
    learn(capsys, ldm, pictures, file, "--overwrite", "seed=5")
    code, said, _ = sample(capsys, ldm, tmp_path / "samples", *words)
    assert code == 6 and "of a word or class that was learned otherwise" in said["error"]


def test_a_loaded_model_hears_a_word_only_where_it_is_given(ldm, token):
    model = api.load(ldm, device="cpu", precision="fp32")
    plain = model.sample(1, prompt="a <mine>", steps=2).images
    said = model.sample(1, prompt="a <mine>", token=token, steps=2).images
    assert not torch.equal(said, plain) and torch.equal(model.sample(1, prompt="a <mine>", steps=2).images, plain)


def test_a_weaker_model_must_hear_the_word_too(ldm, other, token, tmp_path, capsys):
    shutil.copytree(ldm, tmp_path / "ldm")
    tensors, header = weights.load(ldm / "model.safetensors")
    header.pop("format")
    early = {name: value * 0.9 if name.startswith("denoiser.") else value for name, value in tensors.items()}
    weights.save(tmp_path / "ldm" / "snapshots" / "best.safetensors", early, header)
    words = ["--prompt", "a <mine>", "--token", token, "-n", "1", "--guidance", "2"]
    assert sample(capsys, ldm, tmp_path / "one", *words, "--autoguide", f"{tmp_path / 'ldm'}@best")[0] == 0
    code, said, _ = sample(capsys, ldm, tmp_path / "two", *words, "--autoguide", other)
    assert code == 6 and f"means nothing to {other}" in said["error"]


# -- a published encoder -------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory, fit_diffusion, vqvae_cache):
    """Two run folders that hear words through one tiny published encoder, and one through another. Read only."""
    pytest.importorskip("transformers")
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
    from encoders import save

    home = tmp_path_factory.mktemp("published")
    folders = [save("bert", home / f"encoder-{seed}", seed=seed) for seed in range(2)]
    found = []
    for name, folder, seed in (("one", folders[0], 0), ("two", folders[0], 1), ("three", folders[1], 0)):
        text = f"conditions.text={{type: text, encoder: {folder}, width: 8, dim: 8}}"
        found.append(fit_diffusion(home / name, vqvae_cache, "conditions.label=null", text, *LONGER, "loop.steps=30", f"loop.seed={seed}"))
    return found


def test_a_word_is_learned_for_a_published_encoder_and_fits_all_models_that_hear_by_it(published, pictures, tmp_path, capsys):
    one, two, three = published
    file = tmp_path / "mine.safetensors"
    code, said, _ = learn(capsys, one, pictures, file, "--init-word", "star")
    assert code == 0 and said["loss"] < said["loss_before"] and read_word(file).vectors.shape == (1, 32)
    for ldm in (one, two):
        code, said, _ = sample(capsys, ldm, tmp_path / ldm.name, "-n", "2", "--prompt", "a <mine>", "--prompt", "a star", "--token", file)
        assert code == 0, said
    code, said, _ = sample(capsys, three, tmp_path / "three", "-n", "1", "--prompt", "a <mine>", "--token", file)
    assert code == 6 and "another text encoder" in said["error"]


def test_the_encoder_stays_bit_for_bit_while_a_word_is_learned_through_it(tiny, published, pictures):
    model, inversion = begun(tiny, published[0], pictures, "init_word=star")
    reader = model.network.text._reader("cpu")
    state = {name: value.clone() for name, value in [*reader.model.state_dict().items(), *model.network.state_dict().items()]}
    first = inversion.vectors.detach().clone()
    for step in range(3):
        inversion.step(step)
    assert not torch.equal(inversion.vectors, first) and len(state) > 40
    now = {**reader.model.state_dict(), **model.network.state_dict()}
    assert all(torch.equal(now[name], value) for name, value in state.items())


def test_a_conditioner_that_takes_no_new_words_says_so(ldm):
    with pytest.raises(ConfigError, match="Linear, takes no new words"):
        listener({"text": torch.nn.Linear(1, 1)}, {}, str(ldm), "text")
