"""The conditioner `text`: any text encoder of transformers, read once, with a projection trained along."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from encoders import KINDS, save, save_tokenizer
from test_words_conditioner import padded

from ldmctl import registry
from ldmctl.errors import ConfigError, MissingError, PluginError
from ldmctl.testing import check_conditioner

transformers = pytest.importorskip("transformers", reason="the extra `text` is not installed")
SHARED = Path(__file__).parents[2] / ".." / "shared" / "weights" / "all-MiniLM-L6-v2"
SAID = ["a red circle on white", "", "blue", "a large green star on black 🦊", "star " * 60]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return {kind: save(kind, root / kind) for kind in KINDS}


@pytest.fixture(autouse=True)
def nothing_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    monkeypatch.delenv("LDMCTL_WEIGHTS_DIR", raising=False)


def config(encoder, **keys):
    return registry.load("conditioner", "text").Config(type="text", encoder=str(encoder), **{"width": 24, "dim": 16, **keys})


def make(encoder, **keys):
    plugin = registry.load("conditioner", "text")
    chosen = config(encoder, **keys)
    fitted = json.loads(json.dumps(plugin.fit(chosen, [])))
    torch.manual_seed(0)
    return plugin(chosen, fitted=fitted)


@pytest.mark.parametrize("layer", [-1, -2, -4])
@pytest.mark.parametrize("kind", ["bert", "clip", "t5"])
def test_what_is_kept_is_what_transformers_gives_for_a_padded_batch(kind, layer, folders):
    cls = {"bert": transformers.BertModel, "clip": transformers.CLIPTextModel, "t5": transformers.T5EncoderModel}[kind]
    model = cls.from_pretrained(folders[kind]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    given = tokenizer(SAID, padding="max_length", truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        said = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"], output_hidden_states=True)
    whole = said.last_hidden_state if layer == -1 else said.hidden_states[layer]
    rows = make(folders[kind], layer=layer).prepare(SAID)
    for row, vectors, mask in zip(rows, whole, given["attention_mask"].bool(), strict=True):
        right = vectors[mask] / vectors[mask].square().mean(1, keepdim=True).sqrt()
        assert row["tokens"].dtype == torch.float16
        assert torch.allclose(row["tokens"].float(), right, atol=2e-3)


def test_siglip_reads_with_the_padding_that_it_was_trained_with(folders):
    model = transformers.SiglipTextModel.from_pretrained(folders["siglip"]).eval()
    given = torch.tensor([[1, 4, 5, 2] + [0] * 36])  # "a red"
    with torch.no_grad():
        right = F.rms_norm(model(input_ids=given).last_hidden_state[0, :4], (32,))
    (row,) = make(folders["siglip"]).prepare(["a red"])
    assert torch.allclose(row["tokens"].float(), right, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_says_the_same_among_others(kind, folders):
    text = make(folders[kind], length=20)
    together = text.prepare(SAID)
    assert [len(row["tokens"]) for row in together] == ([5, 1, 1, 7, 20] if kind == "gemma" else [7, 2, 3, 9, 20])
    for said, row in zip(SAID, together, strict=True):
        (alone,) = text.prepare([said])
        assert torch.allclose(alone["tokens"].float(), row["tokens"].float(), atol=2e-3)  # a step of float16 at most


@pytest.mark.parametrize("store", ["float16", "int8"])
def test_padding_changes_nothing_and_nothing_said_is_the_empty_text(store, folders):
    text = make(folders["t5"], store=store, length=32).eval()
    rows = text.prepare(SAID)
    short, long = text.encode(padded(rows, 32)), text.encode(padded(rows, 77))
    assert torch.allclose(short.vector, long.vector, atol=1e-6, rtol=0)
    assert torch.allclose(short.tokens, long.tokens[:, :32], atol=1e-6, rtol=0) and not long.tokens[~long.mask].any()
    null, empty = text.null(2), text.encode(padded(text.prepare([""]), 2))
    assert torch.equal(null.tokens, empty.tokens.expand(2, -1, -1)) and torch.equal(null.vector, empty.vector.expand(2, -1))
    assert null.mask.all() and null.tokens.shape == (2, 2, 24) and null.vector.shape == (2, 16)


def test_eight_bits_are_wrong_by_half_a_step_at_most(folders):
    rows, small = (make(folders["bert"], store=store).prepare(SAID) for store in ("float16", "int8"))
    for row, eight in zip(rows, small, strict=True):
        assert eight["tokens"].dtype == torch.int8 and eight["scale"].shape == (len(row["tokens"]), 1)
        wrong = (eight["tokens"].float() * eight["scale"] - row["tokens"].float()).abs()
        assert (wrong <= eight["scale"] / 2 + 2e-3).all()  # and a step of float16
        assert eight["tokens"].abs().amax(1).eq(127).all()


def test_a_caption_that_is_too_long_is_cut_and_the_end_is_told(folders):
    text = make(folders["bert"], length=6)
    assert len(text.prepare(["a red star on white"])[0]["tokens"]) == 6
    assert text.cut("a red Star on White, here") == "White, here" and text.cut("a red star on") == ""
    assert text.cut("star " * 10_000).split() == ["star"] * 9_996
    assert len(make(folders["bert"], length=1000).prepare(["star " * 99])[0]["tokens"]) == 40  # all that the encoder takes


@pytest.mark.parametrize("keys", [{}, {"store": "int8", "layer": -2, "length": 5}])
def test_it_keeps_the_promises_of_its_kind(keys, folders):
    check_conditioner(registry.load("conditioner", "text"), encoder=str(folders["t5"]), **keys)


def test_half_a_character_is_a_question_mark(folders):
    text = make(folders["bert"])
    half, mark = text.prepare(["star \ud83e", "star ?"])
    assert torch.equal(half["tokens"], mark["tokens"]) and text.cut("star \ud83e") == ""


def test_a_saved_model_opens_and_says_nothing_without_its_encoder(folders, tmp_path):
    folder = shutil.copytree(folders["clip-text"], tmp_path / "encoder")
    text = make(folder)
    assert not [name for name in text.state_dict() if name.split(".")[0] not in ("norm", "to_tokens", "to_vector", "empty")]
    rows = text.prepare(SAID)
    fitted = {"encoder": text.encoder_sha256, "width": 32, "empty": text.empty[0].tolist()}
    shutil.rmtree(folder)
    again = type(text)(text.config, fitted=fitted)
    again.load_state_dict(text.state_dict())
    assert torch.equal(again.null(1).tokens, text.null(1).tokens)
    assert torch.equal(again.encode(padded(rows, 40)).vector, text.encode(padded(rows, 40)).vector)
    with pytest.raises(MissingError) as missing:
        again.prepare(["a red circle"])
    for way in (str(folder), "LDMCTL_WEIGHTS_DIR", "conditions.text.encoder", "--embed-text", "sample without --prompt"):
        assert way in str(missing.value)


def test_a_copy_in_the_run_comes_first_where_it_is_the_same(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "encoder")
    text = make(folder)
    assert text.files == folder
    text.home = shutil.copytree(folder, tmp_path / "run" / "text")
    assert text.files == text.home
    text.home = save("bert", tmp_path / "other", seed=1)
    assert text.files == folder


def test_another_encoder_at_the_same_place_is_refused(folders, tmp_path, monkeypatch):
    text = make(shutil.copytree(folders["bert"], tmp_path / "encoder"))
    text.config = config(save("bert", tmp_path / "changed", seed=1))
    with pytest.raises(MissingError, match="is another one than the model was trained with"):
        text.prepare(["a"])
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(tmp_path))
    text.config = config("someone/encoder")
    assert text.files == tmp_path / "encoder"


def test_the_fingerprint_follows_all_that_rows_depend_on(folders, tmp_path):
    prints = [
        make(folders["bert"], **keys).fingerprint for keys in ({}, {"layer": -2}, {"length": 12}, {"store": "int8"}, {"width": 8, "dim": 4})
    ]
    assert len(set(prints[:4])) == 4 and prints[4] == prints[0] and all(len(each) == 64 for each in prints)
    changed = shutil.copytree(folders["bert"], tmp_path / "bert")
    save_tokenizer(changed, marks=False)
    assert make(changed).fingerprint != prints[0]
    assert make(shutil.copytree(folders["bert"], tmp_path / "moved")).fingerprint == prints[0]


@pytest.mark.parametrize(
    ("file", "lacks"), [("tokenizer.json", "a tokenizer"), ("model.safetensors", "weights"), ("config.json", "config.json")]
)
def test_a_folder_without_one_of_its_parts_is_a_sentence(file, lacks, folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "encoder")
    (folder / file).unlink()
    with pytest.raises(MissingError, match=rf"(?s)is no complete text encoder: it lacks {lacks}.*Ways out:.*conditions\.text=words"):
        make(folder)


def test_a_model_that_reads_no_texts_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"reads no texts \(vit\)\. CLIP, T5, BERT"):
        make(save("vit", tmp_path / "vit"))


def test_weights_of_another_model_are_not_filled_up_by_chance(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "encoder")
    shutil.copy(folders["t5"] / "model.safetensors", folder)
    with pytest.raises(MissingError, match="are not those of a BertModel"):
        make(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MissingError, match="cannot be opened as a text encoder"):
        make(shutil.copytree(folder, tmp_path / "broken"))


def test_the_tokenizer_of_another_encoder_is_a_sentence(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "encoder")
    text = json.loads((folder / "tokenizer.json").read_text())
    text["model"]["vocab"]["star"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(text))
    made = make(folder)
    assert len(made.prepare(["a red circle"])) == 1
    with pytest.raises(MissingError, match=r"(?s)is not that of its weights: it has a token 5000, and they know 20, .*Ways out:"):
        made.prepare(["a red circle", "a star"])


def test_a_name_that_nobody_has_is_a_sentence_with_every_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        MissingError, match=r"(?s)someone/encoder is missing.*downloads are switched off.*Looked for:.*unset LDMCTL_OFFLINE"
    ):
        make("someone/encoder")


def test_what_the_hub_has_stored_is_taken_without_asking_it(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    stored = tmp_path / "models--someone--encoder"
    revision = "0" * 40
    shutil.copytree(folders["bert"], stored / "snapshots" / revision)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(revision)
    assert make("someone/encoder").files == stored / "snapshots" / revision
    (stored / "snapshots" / revision / "model.safetensors").unlink()
    with pytest.raises(MissingError, match="downloads are switched off"):
        make("someone/encoder")


def test_a_layer_that_is_not_there_and_a_model_without_its_facts_are_refused(folders):
    with pytest.raises(ConfigError, match=r"layer=-5 is none of this encoder, which has 3: take -1 to -4\."):
        make(folders["bert"], layer=-5)
    with pytest.raises(PluginError, match="made of what its `fit` says"):
        registry.load("conditioner", "text")(config(folders["bert"]), fitted=None)


def test_only_the_projection_learns(folders):
    text = make(folders["bert"])
    said = text.encode(padded(text.prepare(SAID), 40))
    (said.vector.sin().sum() + said.tokens.sin().sum()).backward()
    names = [name for name, value in text.named_parameters() if value.grad is not None and value.grad.any()]
    assert names == ["norm.weight", "norm.bias", "to_tokens.weight", "to_tokens.bias", "to_vector.weight", "to_vector.bias"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_learned_word_that_has_the_vectors_of_another_says_the_same(kind, folders):
    text = make(folders[kind])
    right, other = text.prepare(["a red star on black", "a blue star"])
    state = {name: value.clone() for name, value in text.state_dict().items()}
    text.with_word("<mine>", text.word_vectors("red"))
    text.with_word("<two>", text.word_vectors("star on"))
    one, two, still = text.prepare(["a <mine> star on black", "a red <two> black", "a blue star"])
    assert torch.allclose(one["tokens"].float(), right["tokens"].float(), atol=2e-3)
    assert torch.allclose(two["tokens"].float(), right["tokens"].float(), atol=2e-3)
    assert torch.equal(still["tokens"], other["tokens"])
    assert all(torch.equal(value, state[name]) for name, value in text.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_go_through_the_encoder_to_a_learned_word(kind, folders):
    text = make(folders[kind], store="int8").requires_grad_(False)
    mine = text.word_vectors("red circle").requires_grad_()
    text.with_word("<mine>", mine)
    rows = text.prepare(["a <mine> on black", "a blue star"])
    assert [row["tokens"].dtype for row in rows] == [torch.float32, torch.float32]
    text.encode(padded(rows[:1], 9)).vector.sin().sum().backward()
    assert mine.grad.shape == (2, 32) and mine.grad.any(dim=1).all()
    text.with_word("<mine>", mine.detach())
    (kept,) = text.prepare(["a <mine> on black"])
    assert kept["tokens"].dtype == torch.int8 and not kept["tokens"].requires_grad
    assert text.cut("a " * 38 + "<mine>") == ("" if kind == "gemma" else "<mine>")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the weights of MiniLM are not on this machine")
def test_the_real_minilm_knows_what_words_mean():
    text = make(SHARED)
    rows = [row["tokens"].float().mean(0) for row in text.prepare(["a cat", "a kitten", "a train"])]
    assert text.empty.shape == (1, 2, 384)
    assert F.cosine_similarity(rows[0], rows[1], dim=0) > F.cosine_similarity(rows[0], rows[2], dim=0) + 0.3
