"""`ldmctl fit-token` learns a class for a model of labels and touches nothing else, and `sample --token FILE --label` asks for it."""

import json
import os
import shutil
import signal

import pytest
import torch
from learning import FEW, HOST, answer, learn, sample
from PIL import Image

from ldmctl import api, registry
from ldmctl.cli.app import run
from ldmctl.diffusion.inversion import Inversion
from ldmctl.diffusion.learnable import listener
from ldmctl.diffusion.learned_words import read_word
from ldmctl.diffusion.lesson import lesson_of
from ldmctl.diffusion.model import open_model
from ldmctl.errors import ConfigError, PluginError
from ldmctl.storage import weights
from ldmctl.training import engine as engines

WORDS = "conditions.text={type: words, width: 8, depth: 1, heads: 2, dim: 8, vocabulary: 300}"
COLOURS = {"blue": (20, 20, 200), "dark red": (90, 0, 0), "green": (0, 160, 40), "red": (200, 20, 20)}
CLASSES = list(COLOURS)


def paint(folder, colour, count):
    """Pictures of one colour, each a little lighter than the one before."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (16, 16), tuple(min(each + 8 * index, 255) for each in colour)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, encode, fit_diffusion, vqvae_run):
    """A run folder of fit-diffusion that knows four classes, each a colour. Read only."""
    home = tmp_path_factory.mktemp("coloured")
    for name, colour in COLOURS.items():
        for split, count in {"train": 8, "val": 2}.items():
            paint(home / "pictures" / split / name, colour, count)
    cache = encode(home / "cache", vqvae_run, f"data={home / 'pictures'}")
    return fit_diffusion(home / "ldm", cache, "loop.steps=200", "loop.lr=1e-2", "loop.ema=0.9", "loop.report=100")


@pytest.fixture(scope="module")
def both(tmp_path_factory, fit_diffusion, vae_cache):
    """Another such run that also hears words. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("both") / "ldm", vae_cache, WORDS, "conditions.drop={label: 0.2, text: 0.2}")


@pytest.fixture(scope="module")
def worded(tmp_path_factory, fit_diffusion, vae_cache):
    """A run that hears words alone. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("worded") / "ldm", vae_cache, "conditions.label=null", WORDS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six pictures, as blue as one class."""
    return paint(tmp_path_factory.mktemp("mine") / "pictures", COLOURS["blue"], 6)


@pytest.fixture(scope="module")
def token(tmp_path_factory, ldm, pictures):
    """A learned class `<mine>`. Read only."""
    file = tmp_path_factory.mktemp("token") / "mine.safetensors"
    assert run(["fit-token", "--run", str(ldm), "--data", str(pictures), "--word", "<mine>", "--out", str(file), "-q", *FEW]) == 0
    return file


@pytest.fixture
def with_vectors(token, tmp_path):
    """with_vectors(vectors, word="<yours>") -> a file of a class like `token`, with these."""

    def write(vectors, **changed):
        tensors, header = weights.load(token)
        header = {key: value for key, value in header.items() if key != "format"} | changed
        file = tmp_path / f"class-{len(list(tmp_path.iterdir()))}.safetensors"
        weights.save(file, {**tensors, "vectors": vectors}, header)
        return file

    return write


def opened(ldm):
    return open_model(str(ldm), engines.Engine(torch.device("cpu"), torch.float32), tile=None)


def begun(tiny, ldm, pictures, *words):
    """(the model, what is to be learned: the class <mine>, unless `words` say otherwise)."""
    config = tiny("fit-token", f"run={ldm}", "word=<mine>", f"data={pictures}", "image.size=16", "batch=4", *HOST, *words)
    model = opened(ldm)
    return model, lesson_of(config, model)


def inverted(model, lesson):
    stored = model.codec.encode(torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    return Inversion(model, lesson, stored, [()] * 5)


# -- learning ------------------------------------------------------------------------


def test_the_loss_on_the_pictures_falls_with_the_learned_class(ldm, pictures, tmp_path, capsys):
    before = (ldm / "model.safetensors").read_bytes()
    code, said, err = learn(capsys, ldm, pictures, tmp_path / "mine.safetensors", "--steps", "60")
    assert code == 0 and said["kind"] == "class" and said["loss"] < 0.97 * said["loss_before"]
    assert "learned as a class, which begins as the mean of all 4 classes" in err and "6 pictures" in err and "--label '<mine>'" in err
    tensors, header = weights.load(tmp_path / "mine.safetensors")
    assert tensors["vectors"].shape == (1, 8) and header["listens"] == "label" and header["type"] == "label" and header["step"] == 60
    assert (ldm / "model.safetensors").read_bytes() == before


def test_every_other_weight_stays_bit_for_bit(tiny, ldm, pictures):
    model, lesson = begun(tiny, ldm, pictures, "lr=0.5")
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    inversion = inverted(model, lesson)
    for step in range(5):
        inversion.step(step)
    assert not torch.equal(inversion.vectors, inversion.first)
    now = model.network.state_dict()
    assert now.keys() == state.keys() and all(torch.equal(now[name], value) for name, value in state.items())
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_a_class_begins_with_another_or_with_the_mean_of_those_that_were_trained(tiny, sorted_run, pictures):
    model, lesson = begun(tiny, sorted_run, pictures)
    table = model.network.conditioner.embedding.weight.detach()
    trained = [model.classes.index(name) for name in ("cat", "dog", "wolf")]  # `rare` has held-out pictures alone
    assert torch.allclose(lesson.first, table[trained].mean(0, keepdim=True)) and "mean of all 3 classes" in lesson.beginning
    _, named = begun(tiny, sorted_run, pictures, "init_word=wolf")
    assert torch.equal(named.first, table[trained[2:]]) and named.beginning == "the class 'wolf'"
    _, numbered = begun(tiny, sorted_run, pictures, f"init_word=index:{trained[2]}")
    assert numbered.config.init_word == "wolf" and numbered.beginning == named.beginning


def test_the_first_step_is_a_share_of_the_size_of_classes_not_of_their_mean(tiny, ldm, pictures):
    model, lesson = begun(tiny, ldm, pictures, "lr=0.25")
    inversion = inverted(model, lesson)
    inversion.step(0)
    size = model.network.conditioner.embedding.weight[:4].detach().square().mean().sqrt()
    assert torch.allclose((inversion.vectors.detach() - inversion.first).abs(), 0.25 * size.expand(1, 8), atol=1e-3)


def test_the_same_command_gives_the_same_file_and_one_that_ctrl_c_stopped_ends_alike(ldm, pictures, token, tmp_path, capsys, monkeypatch):
    assert learn(capsys, ldm, pictures, tmp_path / "same.safetensors")[0] == 0
    assert (tmp_path / "same.safetensors").read_bytes() == token.read_bytes()
    file, step = tmp_path / "mine.safetensors", Inversion.step

    def stopping(self, number):
        if number == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, number)

    monkeypatch.setattr(Inversion, "step", stopping)
    assert learn(capsys, ldm, pictures, file)[0] == 75 and read_word(file).header["step"] == 7
    monkeypatch.undo()
    code, _, err = learn(capsys, ldm, pictures, file)
    assert code == 0 and "after 7 of 12 steps" in err and file.read_bytes() == token.read_bytes()
    assert learn(capsys, ldm, pictures, file, "--steps", "14")[1]["steps"] == 14


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["vectors=2"], 2, "A class is one vector"),
        (["--label", "red"], 2, "is the class: leave it away"),
        (["--init-word", "dark rd"], 2, "Did you mean 'dark red'?"),
        (["--init-word", "none"], 2, "no class to begin with"),
        (["--word", "0.5"], 2, "is a number"),
        (["--kind", "word"], 2, "trained without captions"),
        (["--kind", "vector"], 2, "'word' or 'class'"),
        (["image.size=32"], 2, "image.size=16"),
        (["--data", "nowhere/at/all"], 3, "no folder"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["", "dry"])
def test_what_cannot_be_learned_is_a_sentence(ldm, pictures, tmp_path, capsys, words, code, said, dry):
    found, told, _ = learn(capsys, ldm, pictures, tmp_path / "mine.safetensors", *words, *dry)
    assert found == code and said in told["error"] and not (tmp_path / "mine.safetensors").exists()


def test_a_model_that_listens_to_nothing_learns_neither(fit_diffusion, vae_cache, worded, pictures, tmp_path, capsys):
    deaf = fit_diffusion(tmp_path / "deaf", vae_cache, "conditions.label=null")
    code, said, _ = learn(capsys, deaf, pictures, tmp_path / "mine.safetensors")
    assert (
        code == 2
        and "hears no words" in said["error"]
        and "knows no classes" in said["error"]
        and "conditions.label=label" in said["error"]
    )
    code, said, _ = learn(capsys, worded, pictures, tmp_path / "mine.safetensors", "--kind", "class")
    assert code == 2 and "trained without labels" in said["error"] and "kind=word" in said["error"]


def test_a_model_that_never_heard_its_labels_learns_no_class(fit_diffusion, vae_cache, pictures, tmp_path, capsys):
    never = fit_diffusion(tmp_path / "never", vae_cache, "drop=1")
    code, said, _ = learn(capsys, never, pictures, tmp_path / "mine.safetensors")
    assert code == 2 and "never learned a label" in said["error"]


def test_a_class_of_the_model_is_not_learned_again(tmp_path, encode, vae_run, fit_diffusion, pictures, capsys):
    for name in ("<mine>", "other"):
        shutil.copytree(pictures, tmp_path / "pictures" / "train" / name)
    known = fit_diffusion(tmp_path / "known", encode(tmp_path / "cache", vae_run, f"data={tmp_path / 'pictures'}"))
    code, said, _ = learn(capsys, known, pictures, tmp_path / "mine.safetensors")
    assert code == 2 and "has a class '<mine>' of its own" in said["error"]


def test_a_dry_run_says_what_would_be_learned(ldm, pictures, tmp_path, capsys):
    code, said, _ = learn(capsys, ldm, pictures, tmp_path / "mine.safetensors", "--dry-run", "--init-word", "green")
    assert code == 0 and said["plan"]["class"] == "1 x 8 numbers, which begin as the class 'green'" and "captions" not in said["plan"]


def test_a_file_begun_with_another_class_is_continued_by_no_other_command(ldm, pictures, token, tmp_path, capsys):
    file = shutil.copy(token, tmp_path / "mine.safetensors")
    code, told, _ = learn(capsys, ldm, pictures, file, "--init-word", "green")
    assert code == 6 and "init_word was None and is 'green'" in told["error"] and file.read_bytes() == token.read_bytes()


def test_from_python_it_is_a_function(ldm, pictures, token, tmp_path):
    said = api.fit_token(FEW, run=ldm, data=pictures, word="<mine>", kind="class", steps=12, out=tmp_path / "mine.safetensors")
    assert said["kind"] == "class" and (tmp_path / "mine.safetensors").read_bytes() == token.read_bytes()


# -- sampling ------------------------------------------------------------------------


def test_the_learned_class_decides_what_is_drawn(ldm, pictures, tmp_path, capsys):
    file = tmp_path / "mine.safetensors"
    assert learn(capsys, ldm, pictures, file, "--steps", "150", "batch=8", "--init-word", "red")[0] == 0
    model = api.load(ldm, device="cpu", precision="fp32")
    asked = {"label": ["<mine>", *CLASSES], "each": 8, "token": file, "guidance": 2, "steps": 6, "output": "latents"}
    drawn, labels, _ = model.sample(**asked)
    mean = {name: drawn[[each == name for each in labels]].mean(0) for name in ["<mine>", *CLASSES]}
    apart = {name: float((mean["<mine>"] - mean[name]).square().mean()) for name in CLASSES}
    assert min(apart, key=apart.get) == "blue" and apart["blue"] < 0.2 * apart["red"], apart


def test_a_class_with_the_vector_of_another_makes_its_pictures(ldm, with_vectors, tmp_path, capsys):
    row = opened(ldm).network.conditioner.embedding.weight[2:3]
    guided = ["-n", "1", "--guidance", "2"]
    assert sample(capsys, ldm, tmp_path / "one", *guided, "--label", "<mine>", "--token", with_vectors(row))[0] == 0
    assert sample(capsys, ldm, tmp_path / "two", *guided, "--label", "green")[0] == 0
    one, two = (Image.open(tmp_path / folder / "000000.png").tobytes() for folder in ("one", "two"))
    assert one == two


def test_pictures_of_other_classes_are_the_same_bytes_as_without_the_file(ldm, token, tmp_path, capsys):
    assert sample(capsys, ldm, tmp_path / "with", "--label", "<mine>", "--label", "red", "-n", "2", "--token", token)[0] == 0
    assert sample(capsys, ldm, tmp_path / "without", "--label", "none", "--label", "red", "-n", "2")[0] == 0
    assert (tmp_path / "with" / "000001.png").read_bytes() == (tmp_path / "without" / "000001.png").read_bytes()
    text = json.loads(Image.open(tmp_path / "with" / "000000.png").text["ldmctl"])
    assert text["label"] == "<mine>" and text["token"] == [str(token)] and text["learned"] == [weights.file_sha256(token)]


def test_all_stands_for_the_learned_classes_too(ldm, token, with_vectors, tmp_path, capsys):
    yours = with_vectors(torch.ones(1, 8), word="<yours>")
    files = ["--token", token, "--token", yours]
    code, said, _ = sample(capsys, ldm, tmp_path / "all", "--label", "all", "--each", "1", *files)
    assert code == 0 and said["labels"] == [*CLASSES, "<mine>", "<yours>"]
    assert json.loads(Image.open(tmp_path / "all" / "grid.png").text["ldmctl"])["rows"] == said["labels"]
    alone = [
        "--label",
        "class:<yours>",
        "--token",
        yours,
        "--seed",
        "5",
        "-n",
        "1",
    ]  # the first behind the model's own, and no longer the second
    assert sample(capsys, ldm, tmp_path / "one", *alone)[1]["labels"] == ["<yours>"]
    assert (tmp_path / "one" / "000005.png").read_bytes() == (tmp_path / "all" / "000005.png").read_bytes()


def test_without_a_label_classes_are_drawn_as_the_data_has_them(ldm, token, tmp_path, capsys):
    code, said, err = sample(capsys, ldm, tmp_path / "samples", "-n", "6", "--token", token)
    assert code == 0 and "<mine>" not in said["labels"] and "No label asks for '<mine>'" in err and "--label '<mine>'" in err


def test_a_picture_of_a_learned_class_is_made_again(ldm, token, with_vectors, tmp_path, capsys):
    yours = with_vectors(torch.ones(1, 8), word="<yours>")
    words = ["--label", "<mine>", "--label", "red", "-n", "2", "--negative", "<yours>", "--guidance", "2"]
    assert sample(capsys, ldm, tmp_path / "samples", *words, "--token", token, "--token", yours)[0] == 0
    for name, count in {"000000.png": 2, "000001.png": 1}.items():
        assert len(json.loads(Image.open(tmp_path / "samples" / name).text["ldmctl"])["learned"]) == count
        code, said, _ = answer(capsys, "sample", "--again", tmp_path / "samples" / name, "--run", ldm, "--out", tmp_path / "again")
        assert code == 0 and said["same"] and (tmp_path / "again" / name).read_bytes() == (tmp_path / "samples" / name).read_bytes()
        shutil.rmtree(tmp_path / "again")
    again = ["sample", "--again", tmp_path / "samples" / "000001.png", "--run", ldm, "--out", tmp_path / "again"]
    code, said, _ = answer(capsys, *again, "--token", with_vectors(torch.zeros(1, 8), word="<yours>"))
    assert code == 6 and "learned otherwise" in said["error"]
    moved = shutil.move(yours, tmp_path / "moved.safetensors")
    code, said, _ = answer(capsys, *again)
    assert code == 6 and "--token PLACE" in said["error"]
    assert answer(capsys, *again, "--token", moved)[1]["same"]


def test_a_loaded_model_knows_a_class_only_where_it_is_given(ldm, token):
    model = api.load(ldm, device="cpu", precision="fp32")
    said = model.sample(2, label="<mine>", token=token, steps=2)
    assert said.labels == ["<mine>", "<mine>"] and model.classes == CLASSES
    with pytest.raises(ConfigError, match=r"There is no label '<mine>'.*--token FILE"):
        model.sample(2, label="<mine>", steps=2)
    assert torch.equal(model.sample(2, label="<mine>", token=token, steps=2).images, said.images)


def test_a_class_of_another_model_is_refused(ldm, sorted_run, worded, token, tmp_path, capsys):
    for dry in ([], ["--dry-run"]):
        words = ["--label", "<mine>", "--token", token, *dry]
        code, said, _ = sample(capsys, sorted_run, tmp_path / "samples", *words)
        assert code == 6 and "has the class '<mine>' as another model" in said["error"] and f"fit-token --run {sorted_run}" in said["error"]
        code, said, _ = sample(capsys, worded, tmp_path / "samples", "--prompt", "a <mine>", *words[2:])
        assert code == 2 and "trained without labels" in said["error"]
        code, said, _ = sample(capsys, ldm, tmp_path / "samples", "--label", "<mine>", *dry)
        assert code == 2 and "There is no label '<mine>'. A class of fit-token" in said["error"]
    assert not (tmp_path / "samples").exists()


def test_a_file_that_cannot_be_is_a_sentence(ldm, token, with_vectors, tmp_path, capsys):
    files = {
        with_vectors(torch.ones(2, 8)): (6, "a class is one vector"),
        with_vectors(torch.ones(1, 9)): (6, "have 9 numbers"),
        with_vectors(torch.ones(1, 8) * torch.nan): (6, "all of them finite"),
        with_vectors(torch.ones(1, 8), listens="map"): (6, "listens in its header"),
        with_vectors(torch.ones(1, 8), word="red"): (2, "has a class 'red' of its own"),
        tmp_path / "nothing": (6, "There is no file"),
    }
    for file, (code, said) in files.items():
        found, told, _ = sample(capsys, ldm, tmp_path / "samples", "--label", "<mine>", "--token", file)
        assert found == code and said in told["error"], told
    copied = shutil.copy(token, tmp_path / "copied.safetensors")
    code, told, _ = sample(capsys, ldm, tmp_path / "samples", "--label", "<mine>", "--token", token, "--token", copied)
    assert code == 2 and "both have the class '<mine>'" in told["error"] and not (tmp_path / "samples").exists()


def test_a_weaker_model_must_know_the_class_too(ldm, token, tmp_path, capsys):
    tensors, header = weights.load(ldm / "model.safetensors")
    header.pop("format")
    for name, part in {"early": "denoiser.", "apart": "conditioner."}.items():
        changed = {key: value * 0.9 if key.startswith(part) else value for key, value in tensors.items()}
        (tmp_path / name).mkdir()
        weights.save(tmp_path / name / "model.safetensors", changed, header)
    words = ["--label", "<mine>", "--token", token, "-n", "1", "--guidance", "2"]
    assert sample(capsys, ldm, tmp_path / "one", *words, "--autoguide", tmp_path / "early")[0] == 0
    code, said, _ = sample(capsys, ldm, tmp_path / "two", *words, "--autoguide", tmp_path / "apart")
    assert code == 6 and f"means nothing to {tmp_path / 'apart'}" in said["error"]


# -- with words ----------------------------------------------------------------------


def test_a_model_of_words_and_labels_learns_a_word_unless_a_class_is_asked_for(both, pictures, tmp_path, capsys):
    word, own = tmp_path / "word.safetensors", tmp_path / "class.safetensors"
    assert learn(capsys, both, pictures, word)[1]["kind"] == "word"
    assert learn(capsys, both, pictures, own, "--kind", "class", word="<yours>")[1]["kind"] == "class"
    files = ["--token", word, "--token", own]
    code, said, err = sample(capsys, both, tmp_path / "samples", "--label", "<yours>", "--prompt", "a <mine>", "-n", "1", *files)
    assert code == 0 and said["labels"] == ["<yours>"] and "changes nothing" not in err
    assert len(json.loads(Image.open(tmp_path / "samples" / "000000.png").text["ldmctl"])["learned"]) == 2
    assert learn(capsys, both, pictures, tmp_path / "same.safetensors", "--kind", "class")[0] == 0
    code, told, _ = sample(capsys, both, tmp_path / "twice", "--label", "<mine>", "--token", word, "--token", tmp_path / "same.safetensors")
    assert code == 2 and "both have the word or class '<mine>'" in told["error"]


def test_a_word_is_not_continued_as_a_class(both, pictures, tmp_path, capsys):
    assert learn(capsys, both, pictures, tmp_path / "mine.safetensors")[0] == 0
    code, told, _ = learn(capsys, both, pictures, tmp_path / "mine.safetensors", "--kind", "class")
    assert code == 6 and "kind was 'word' and is 'class'" in told["error"]


def test_no_class_is_learned_where_labels_alone_never_were(fit_diffusion, vae_cache, pictures, tmp_path, capsys):
    bound = fit_diffusion(tmp_path / "bound", vae_cache, WORDS, "conditions.drop={label: 0.2, text: 0}")
    code, said, _ = learn(capsys, bound, pictures, tmp_path / "mine.safetensors", "--kind", "class")
    assert code == 2 and "never trained on labels without a caption" in said["error"]


# -- the conditioner -----------------------------------------------------------------


def test_a_learned_class_has_the_next_index_and_moves_no_other():
    Label = registry.load("conditioner", "label")
    label = Label(Label.Config(type="label", dim=8), classes=["cat", "dog"])
    known = torch.tensor([-1, 0, 1])
    before, null = label.encode(known).vector, label.null(1).vector
    mine = label.word_vectors("dog").requires_grad_()
    label.with_word("<mine>", mine)
    label.with_word("<yours>", torch.ones(1, 8))
    said = label.encode([2, 3, -1, 0, 1]).vector
    assert torch.equal(said[0], before[2]) and torch.equal(said[1], torch.ones(8)) and torch.equal(said[2:], before)
    assert torch.equal(label.null(1).vector, null) and len(label.word_vectors("cow")) == 0
    said[0].sum().backward()
    assert torch.equal(mine.grad, torch.ones(1, 8)) and not label.embedding.weight.grad.any()
    assert [name for name, _ in label.named_parameters()] == list(label.state_dict()) == ["embedding.weight"]
    with pytest.raises(PluginError, match="Label 4 does not exist: there are 4 classes"):
        label.encode([4])


def test_a_conditioner_that_takes_no_new_classes_says_so(ldm):
    with pytest.raises(ConfigError, match="Linear, takes no new classes; label does"):
        listener({"label": torch.nn.Linear(1, 1)}, {}, str(ldm), "label")


def test_samples_of_a_learned_class_are_judged(ldm, token, tmp_path, capsys):
    words = ["count=6", "steps=2", "batch=4", "extractor=latent", "nearest=false", "workers=0", *HOST]
    asked = [f"token={token}", "label=<mine>"]
    code, found, err = answer(capsys, "eval-samples", "--run", ldm, *words, *asked, "--out", tmp_path / "out")
    assert code == 0 and found["count"] == found["made"] == 6, err
    made = sorted((tmp_path / "out").glob("samples-*/*.png"))
    assert [json.loads(Image.open(file).text["ldmctl"])["label"] for file in made] == ["<mine>"] * 6
    assert answer(capsys, "eval-samples", "--run", ldm, *words, "label=<mine>", "--out", tmp_path / "other")[0] == 2
