"""The judge of words at work: it learns from training pictures and their captions, once, and looks at samples and at pictures held back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from ldmctl.errors import MismatchError
from ldmctl.evaluation.extraction import chosen, identity
from ldmctl.evaluation.judging import Parts, preparation
from ldmctl.evaluation.word_judge import SIDE, STEPS, WordJudge, shrunk
from ldmctl.evaluation.words import Heard, captions_of, compared, prompt_of, vocabulary, which, words_of_prompt
from ldmctl.pictures.batches import Batch, Pictures, evenly
from ldmctl.storage import weights

LEARNED = 20_000  # training pictures at most that it learns from, evenly
GLANCE = 64  # pictures that are asked whether there are captions at all
ENOUGH = 50  # captions with words to learn from
TRIED, HELD = 2000, 200  # held-out pictures that it is tried on at most; and fewer than which training pictures are held back too


def heard(parts: Parts, samples: Pictures) -> dict[str, Any] | None:
    """What `words.compared` says of the samples' prompts; None where they have none, or the training pictures no captions."""
    dataset: Any = samples.dataset
    prompts = [prompt_of(file) for file in dataset.files]
    rows = [row for row, prompt in enumerate(prompts) if prompt.strip()]
    if not rows or not captioned(parts.splits["train"]):
        return None
    if (found := judge_of(parts)) is None:
        parts.console.say(
            f"Too few captions, or no words that some of them have and others have not ({ENOUGH} captions, 10 of each word): "
            "nothing is said of how well samples show their words."
        )
        return None
    judge, words, real = found
    seen, used = look(parts, judge, samples, rows, "looking for words")
    asked = which([words_of_prompt(prompts[row]) for row in used], words)
    return compared(Heard(asked, seen), real, words) if len(used) else None


def captioned(pictures: Pictures) -> bool:
    """Whether some of a glance of pictures have captions."""
    return any(captions_of(pictures, row) for row in evenly(len(pictures), GLANCE).tolist())


def judge_of(parts: Parts) -> tuple[WordJudge, list[str], Heard] | None:
    """(the judge, its words, what it says of pictures that it has not learned from), as an earlier command left it, or fitted now; None without words."""
    train, tried = parts.splits["train"], tried_on(parts.splits)
    rows = sorted(set(range(len(train))) - set(tried["train"]))
    rows = [rows[place] for place in evenly(len(rows), LEARNED).tolist()]
    key = key_of(parts, rows, tried)
    file = parts.home / f"words-{key[:16]}.safetensors"
    try:
        tensors, header = weights.load(file)
    except MismatchError:
        header = {}
    if header.get("key") == key:
        judge = new(parts, header["words"])
        real = Heard(*(tensors.pop(name).bool() for name in ("real.asked", "real.seen")))
        weights.load_into(judge, tensors, file)
        return judge, header["words"], real
    if (found := learned(parts, rows)) is None:
        return None
    judge, words = found
    real = real_of(parts, judge, words, tried)
    kept = {**judge.state_dict(), "real.asked": real.asked.to(torch.uint8), "real.seen": real.seen.to(torch.uint8)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        weights.save(file, kept, {"kind": "words", "key": key, "words": words})
    except OSError as error:
        parts.console.warn(f"What the judge of words learned could not be kept in {file.parent} ({error.strerror}).")
    return judge, words, real


def tried_on(splits: dict[str, Pictures]) -> dict[str, list[int]]:
    """Rows of pictures by which it is seen how well the judge tells words, whatever the number of samples: held-out ones, and where these are few
    some training pictures, which it does not learn from."""
    val, train = len(splits["val"]), len(splits["train"])
    spare = min(HELD, train // 5) if val < HELD else 0
    return {"val": evenly(val, TRIED).tolist(), "train": evenly(train, spare).tolist()}


def new(parts: Parts, words: list[str]) -> WordJudge:
    """One that has learned nothing, on the engine's device."""
    return WordJudge(parts.config.image.channels, parts.config.image.size, len(words)).to(parts.engine.device)


def learned(parts: Parts, rows: list[int]) -> tuple[WordJudge, list[str]] | None:
    """(a judge fitted to these training pictures, its words); None where too few captions have any."""
    train, side = parts.splits["train"], min(parts.config.image.size, SIDE)
    images, captions = [], []
    for batch in chosen(train, rows, *parts.batches, parts.console, "reading captions"):
        said = [captions_of(train, row, text) for row, text in zip(batch.used, batch.text, strict=True)]
        good = [place for place in readable(batch) if said[place]]
        images.append(shrunk(batch.image[good], side))
        captions += [said[place] for place in good]
    if len(captions) < ENOUGH or not (words := vocabulary(captions)):
        return None
    parts.console.say(f"Fitting a judge of {len(words):,} words to {len(captions):,} captions, once.")
    judge = new(parts, words).cpu().fit(torch.cat(images), which(captions, words), steps=STEPS)
    return judge.to(parts.engine.device), words


def real_of(parts: Parts, judge: WordJudge, words: list[str], tried: dict[str, list[int]]) -> Heard:
    """What the judge says of the pictures that it is tried on, those that have captions."""
    found = []
    for split, rows in tried.items():
        pictures = parts.splits[split]
        seen, used = look(parts, judge, pictures, rows, "looking for words in real pictures")
        captions = [captions_of(pictures, row) for row in used]
        there = torch.tensor([bool(each) for each in captions], dtype=torch.bool)
        found.append(Heard(which(captions, words)[there], seen[there]))
    return Heard(torch.cat([each.asked for each in found]), torch.cat([each.seen for each in found]))


@torch.no_grad()
def look(parts: Parts, judge: WordJudge, pictures: Pictures, rows: list[int], what: str) -> tuple[Tensor, list[int]]:
    """(which words the judge sees, bool [n,K], of which pictures): those of these rows that can be read."""
    seen, used = [torch.zeros(0, judge.words, dtype=torch.bool)], []
    for batch in chosen(pictures, rows, *parts.batches, parts.console, what):
        good = readable(batch)
        seen.append((judge(batch.image[good].to(parts.engine.device)) > 0).cpu())
        used += [batch.used[place] for place in good]
    return torch.cat(seen), used


def readable(batch: Batch) -> list[int]:
    """The places of a batch whose picture is the one that was asked for."""
    return [place for place, (asked, used) in enumerate(zip(batch.index, batch.used, strict=True)) if asked == used]


def key_of(parts: Parts, rows: list[int], tried: dict[str, list[int]]) -> str:
    """A hash of which pictures the judge learns from and is tried on, and of their captions where they lie beside the pictures."""
    digest = hashlib.sha256(json.dumps([STEPS, tried]).encode())
    for split, some in (("train", rows), *tried.items()):
        pictures = parts.splits[split]
        digest.update(identity(pictures, some, preparation(parts.config)).encode())
        if hasattr(pictures.dataset, "note"):
            for row in some:
                digest.update(repr(sorted(captions_of(pictures, row))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
