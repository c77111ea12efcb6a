"""The conditioner `words`: a vocabulary learned from captions, and what is heard of a caption."""

import random
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from ldmctl import registry

CAPTIONS = [
    f"A {size} {colour} {shape} on {ground}"
    for size in ("small", "large")
    for colour in ("red", "blue", "green")
    for shape in ("circle", "star")
    for ground in ("black", "white")
]
SAID = ["A red circle", "", "a large green star on white", "🦊 مرحبا", "<begin> <end>"]


def make(captions=CAPTIONS, seed=0, **keys):
    plugin = registry.load("conditioner", "words")
    config = plugin.Config(type="words", width=32, dim=16, **keys)
    fitted = plugin.fit(config, captions)
    torch.manual_seed(seed)
    return plugin(config, fitted=fitted)


def padded(rows, length):
    """As the host gives rows of several lengths: zeros after them, and a mask."""
    given = {name: torch.zeros(len(rows), length, *rows[0][name].shape[1:], dtype=rows[0][name].dtype) for name in rows[0]}
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        for name, value in row.items():
            given[name][number, : len(value)] = value
            mask[number, : len(value)] = True
    return given | {"mask": mask}


def alive(words):
    """With blocks that add something, as after training."""
    torch.manual_seed(1)
    for value in words.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return words


def test_frequent_words_are_one_word_wherever_they_stand():
    words = make()
    ids = [row["ids"].tolist() for row in words.prepare(["red", "A RED star", " red\n\tstar "])]
    assert [len(row) for row in ids] == [3, 5, 4]
    assert ids[0][1] == ids[1][2] == ids[2][1] and ids[1][3] == ids[2][2]
    assert all(row[0] == 0 and row[-1] == 1 for row in ids)


def test_upper_case_is_another_word_where_it_is_asked_for():
    words = make(lower=False)
    lower, upper = (row["ids"].tolist() for row in words.prepare(["red", "RED"]))
    assert lower != upper


def test_the_order_of_captions_does_not_matter_nor_does_the_process():
    shuffled = CAPTIONS * 3
    random.Random(0).shuffle(shuffled)
    merges = make(CAPTIONS * 3).merges
    assert make(shuffled).merges == merges
    program = (
        "import sys; from ldmctl_plugins.conditioners._bytes import learn;"
        "print(learn(sys.stdin.read().split('\\n'), vocabulary=2048, lower=True) == eval(sys.argv[1]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, repr(merges)], input="\n".join(shuffled), capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "True"


def test_no_text_is_unknown():
    """Every byte is a word; what is spelled like a mark is none."""
    words = make()
    for text, row in zip(SAID, words.prepare(SAID), strict=True):
        spelled = words.tokenizer.decode(row["ids"].tolist()[1:-1], skip_special_tokens=False)
        assert spelled.replace("Ġ", " ").split() or not text
        assert not set(row["ids"].tolist()[1:-1]) & {0, 1}
    half, mark = words.prepare(["half \ud83e", "half ?"])  # of a pair of surrogates
    assert torch.equal(half["ids"], mark["ids"]) and make(captions=["half \ud83e"] * 2).merges == make(captions=["half ?"] * 2).merges
    fox = words.prepare(["🦊"])[0]["ids"]
    assert len(fox) == 2 + 1 + 4  # a blank and four bytes


def test_the_vocabulary_is_no_larger_than_asked_and_no_larger_than_it_needs():
    assert make(vocabulary=300).words.num_embeddings == 258 + len(make().merges) == 298
    assert make(vocabulary=270).words.num_embeddings == 270
    assert make(captions=[]).words.num_embeddings == 258


def test_a_caption_that_is_too_long_is_cut_and_the_end_is_told():
    words = make(length=6)
    text = "A red Circle on White, here"
    (row,) = words.prepare([text])
    assert len(row["ids"]) == 6 and row["ids"][-1] == 1
    assert words.cut(text) == "White, here" and words.cut("A red circle on") == "" and words.cut("") == ""
    endless = "red star " * 10_000
    assert len(words.prepare([endless])[0]["ids"]) == 6 and len(words.cut(endless)) == len(endless.strip()) - len("red star red star ")


def test_padding_changes_nothing():
    words = alive(make()).eval()
    rows = words.prepare(SAID)
    short, long = words.encode(padded(rows, 32)), words.encode(padded(rows, 77))
    assert torch.allclose(short.vector, long.vector, atol=1e-6, rtol=0)
    assert torch.allclose(short.tokens, long.tokens[:, :32], atol=1e-6, rtol=0)
    assert not long.tokens[~long.mask].any() and torch.equal(long.mask.sum(1), torch.tensor([len(row["ids"]) for row in rows]))
    for number, row in enumerate(rows):
        alone = words.encode(padded([row], len(row["ids"])))
        assert torch.allclose(alone.vector[0], long.vector[number], atol=1e-6, rtol=0)


def test_nothing_said_is_the_empty_caption():
    words = alive(make()).eval()
    null, empty = words.null(2), words.encode(padded(words.prepare([""]), 2))
    assert null.tokens.shape == (2, 2, 32) and torch.equal(null.mask, torch.ones(2, 2, dtype=torch.bool))
    assert torch.equal(null.tokens, empty.tokens.expand(2, -1, -1)) and torch.equal(null.vector, empty.vector.expand(2, -1))


def test_a_new_encoder_says_its_words_with_numbers_of_size_one():
    words = make()
    said = words.encode(padded(words.prepare(CAPTIONS), 12))
    assert torch.allclose(said.tokens[said.mask].square().mean(1), torch.ones(()), atol=1e-4)
    assert 0.1 < said.vector.std() < 1


def test_the_order_of_words_is_heard():
    words = make()
    one, other = words.encode(padded(words.prepare(["red star on blue", "blue star on red"]), 6)).tokens
    assert not torch.allclose(one, other)


def test_every_part_learns():
    words = alive(make())
    said = words.encode(padded(words.prepare(SAID), 40))
    (said.vector.sin().sum() + said.tokens.sin().sum() + words.null(1).vector.sum()).backward()
    assert not [name for name, value in words.named_parameters() if value.grad is None or not value.grad.any()]


def test_the_fitted_words_and_the_state_are_all_there_is():
    words = alive(make())
    again = type(words)(words.config, fitted={"merges": words.merges})
    again.load_state_dict(words.state_dict())
    given = padded(words.prepare(SAID), 40)
    assert torch.equal(words.eval().encode(given).vector, again.eval().encode(given).vector)
    assert words.fingerprint == again.fingerprint and len(words.fingerprint) == 64
    assert words.fingerprint != make(length=12).fingerprint != make(lower=False).fingerprint


def test_sampling_without_a_caption_needs_no_tokenizer():
    program = (
        "import sys; sys.modules['tokenizers'] = None; from ldmctl_plugins.conditioners.words import Words;"
        "print(Words(Words.Config(), fitted={'merges': [['a', 'b']]}).null(2).vector.shape)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[2, 128]" in said.stdout


def test_heads_must_divide_the_width():
    with pytest.raises(ValidationError, match="heads=5 does not divide width=32"):
        make(heads=5)


def test_a_learned_word_that_has_the_vectors_of_another_says_the_same():
    words = alive(make()).eval()
    before = {name: value.clone() for name, value in words.state_dict().items()}
    right = words.encode(padded(words.prepare(["a red star on black"]), 8))
    plain = words.fingerprint
    words.with_word("<mine>", words.word_vectors("red"))
    words.with_word("<mine>2", words.word_vectors("star on"))
    for text in ("a <mine> star on black", "a<mine>star on black", "A red <mine>2 black"):
        said = words.encode(padded(words.prepare([text]), 8))
        assert torch.equal(said.tokens, right.tokens) and torch.equal(said.vector, right.vector)
    assert torch.equal(words.encode(padded(words.prepare(["a red star on black"]), 8)).tokens, right.tokens)
    assert words.fingerprint != plain
    assert all(torch.equal(value, before[name]) for name, value in words.state_dict().items())


def test_gradients_reach_a_learned_word_and_only_where_it_is_said():
    words = alive(make()).requires_grad_(False)
    mine = words.word_vectors("small circle").requires_grad_()
    assert mine.shape == (2, 32)
    words.with_word("<mine>", mine)
    said = words.encode(padded(words.prepare(["a <mine> on black", "a red star"]), 8))
    assert not torch.autograd.grad(said.vector[1].sum(), mine, retain_graph=True, materialize_grads=True)[0].any()
    said.vector[0].sin().sum().backward()
    assert mine.grad.any(dim=1).all() and not any(value.grad is not None for value in words.parameters())


def test_a_learned_word_that_is_cut_is_told():
    words = make(length=6)
    words.with_word("<mine>", words.word_vectors("small circle"))
    assert words.cut("a red star <mine> on") == "<mine> on" and words.cut("a red <mine>") == ""
