"""A vocabulary learned from captions: byte-level byte-pair encoding (Sennrich et al., arXiv:1508.07909; Radford et al. 2019, section 2.2).

Its first words are the 256 bytes, so there is no text that it cannot spell, in any script, and no unknown word. The rest are merges of
two earlier words. Ids: 0 begins, 1 ends, then the bytes, then the merges in their order; so the merges are all there is to save.
A caption that spells "<begin>" is spelled in bytes as any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ldmctl.errors import MissingError, one_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BEGIN, END = 0, 1
MARKS = ["<begin>", "<end>"]
SMALLEST = len(MARKS) + 256


def learn(captions: Iterable[str], *, vocabulary: int, lower: bool) -> list[list[str]]:
    """Merges of two words each that shorten the captions most, until there are so many words; the order of captions does not matter.

    Pairs seen once make no word. Ties go to the pair that is earlier in the vocabulary.
    """
    learner = tokenizer([], lower=lower)
    from tokenizers.trainers import BpeTrainer

    trainer = BpeTrainer(vocab_size=vocabulary, special_tokens=MARKS, initial_alphabet=_alphabet(), min_frequency=2, show_progress=False)
    learner.train_from_iterator(captions, trainer)
    return json.loads(learner.to_str())["model"]["merges"]


def tokenizer(merges: Sequence[Sequence[str]], *, lower: bool) -> Tokenizer:
    """From a text to the ids of its words, without marks. NFC, one blank between words, and one before the first, since it is the same
    word as elsewhere."""
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    except ImportError as error:
        raise MissingError(
            f"Captions are cut into words by the package tokenizers, which cannot be imported here: {one_line(error)}\n"
            "Ways out:\n  pip install tokenizers\n  or train without captions: conditions.text=null"
        ) from None
    made = Tokenizer(models.BPE(words(merges), [(first, second) for first, second in merges]))
    blanks = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    made.normalizer = normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lower else []), *blanks])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return made


def words(merges: Sequence[Sequence[str]]) -> dict[str, int]:
    """Every word and its id. Two merges may make the same word."""
    return {word: number for number, word in enumerate(dict.fromkeys([*MARKS, *_alphabet(), *map("".join, merges)]))}


def _alphabet() -> list[str]:
    """A printable character for each byte, in the order of characters: bytes that print well stand for themselves, the rest follow at 256."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(number) for number in [*printable, *range(256, 256 + 256 - len(printable))]]
