"""How well models do what they are told: captions never seen together in training, and maps, on shapes, judged by a fixed rule.

python benchmarks/conditions.py FOLDER [words] [text] [map] [--steps 1600] [--guidance 2]
LDMCTL_WEIGHTS_DIR=FOLDER_WITH_all-MiniLM-L6-v2 for `text`

One autoencoder and one cache of shapes with two sizes, four captions each, and a fifth of all combinations of form, colour, size and
background held out. `words` learns its words from the captions, `text` hears the frozen MiniLM, `map` a map of the form; none hears
labels. Then 320 captions of held-out combinations, or 320 maps of held-out pictures, are sampled and judged by benchmarks/shapes_rule.py.
For `text`, also captions in words that no caption of training has. FOLDER keeps what is trained; the same command continues.
"""

import argparse
from pathlib import Path

import torch
from machine import describe, keep, ldmctl
from PIL import Image
from shapes_rule import map_iou, says, see

from ldmctl.config.resolve import plugin_config
from ldmctl.pictures.images import read
from ldmctl.registry import build

DATA = {"type": "shapes", "sizes": "two", "held_out": 0.2, "captions": 4, "maps": True}
WORDS = [f"dataset.{key}={value if not isinstance(value, bool) else str(value).lower()}" for key, value in DATA.items() if key != "type"]
COUNT = 320
LISTENS = {
    "words": ["conditions.text=words"],
    "text": ["conditions={text: {type: text, encoder: all-MiniLM-L6-v2}}"],
    "map": ["conditions={text: null, map: map}"],
}
SYNONYMS = {
    "crimson": "red", "scarlet": "red", "emerald": "green", "azure": "blue", "navy": "blue", "golden": "yellow", "lemon": "yellow",
    "disc": "circle", "ball": "circle", "box": "square", "tiny": "small", "little": "small", "big": "large", "huge": "large",
    "black": "dark", "white": "light", "bright": "light",
}  # fmt: skip


def main() -> None:
    """Train what FOLDER lacks, sample, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("which", nargs="*", choices=[*LISTENS, []], default=list(LISTENS))
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--guidance", type=float, default=2.0)
    given = parser.parse_args()
    folder, machine = given.folder.absolute(), describe()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "cache" / "latents.json").exists():
        ldmctl("fit-ae", "--data", "shapes", "-q", cwd=folder)
        ldmctl("encode-dataset", *WORDS, "-q", cwd=folder)
    for name in given.which:
        out = f"runs/{name}-{given.steps}"
        _, seconds = ldmctl(
            "fit-diffusion", *LISTENS[name], "conditions.label=null", f"loop.steps={given.steps}", "--out", out, "-q", cwd=folder
        )
        minutes = round(seconds / 60, 2)
        found = (
            map_scores(folder, out, given.guidance)
            if name == "map"
            else caption_scores(folder, out, given.guidance, synonyms=name == "text")
        )
        keep(f"conditions_{name}", {"steps": given.steps, "minutes_of_this_call": minutes, "guidance": given.guidance, **found}, machine)


def held_out() -> list:
    """Distinct combinations that only held-out pictures show, and the pictures of `val`."""
    val = build("dataset", plugin_config("dataset", DATA), split="val")
    return sorted({val.combination(index) for index in range(len(val))})


def sampled(folder: Path, run: str, out: str, guidance: float, *words: str) -> list[torch.Tensor]:
    """The pictures of one command, in the order of their seeds."""
    answer, _ = ldmctl("sample", "--run", run, "--guidance", f"{guidance:g}", *words, "--out", out, "--overwrite", "-q", cwd=folder)
    return [read(folder / out / f"{seed:06d}.png") for seed in answer["seeds"]]


def caption_scores(folder: Path, run: str, guidance: float, *, synonyms: bool) -> dict:
    """Shares of samples that show what their captions ask for."""
    combinations = held_out()
    every = [text for each in combinations for text in each.captions(4)]
    prompts = [every[index % len(every)] for index in range(COUNT)]
    found = {"held_out_combinations": len(combinations), "captions": COUNT, "share_right": {}}
    for scale in dict.fromkeys([1.0, guidance]):
        pictures = sampled(
            folder, run, f"judged/{Path(run).name}-{scale:g}", scale, "--prompts", written(folder, prompts), "-n", str(COUNT)
        )
        found["share_right"][f"guidance {scale:g}"] = rate(prompts, pictures)
    if synonyms:
        found["synonyms"] = {}
        for word, meant in SYNONYMS.items():
            asked = [text for text in every if f" {meant} " in f" {text} ".replace(",", " ,")][:16]
            heard = [text.replace(meant, word) for text in asked]
            if asked:
                pictures = sampled(
                    folder, run, f"judged/{Path(run).name}-{word}", guidance, "--prompts", written(folder, heard), "-n", str(len(heard))
                )
                found["synonyms"][f"{word} for {meant}"] = share([means(meant, picture) for picture in pictures])
    return found


def rate(prompts: list[str], pictures: list[torch.Tensor]) -> dict[str, float]:
    """The share that is right in all four words, and in each."""
    kinds = {"size": {"small", "large"}, "colour": {"red", "green", "blue", "yellow"}, "shape": {"circle", "square", "triangle", "star"}}
    kinds["background"] = {"dark", "light"}
    pairs = [(prompt, see(picture)) for prompt, picture in zip(prompts, pictures, strict=True)]
    rates = {"all": share([says(prompt, seen) for prompt, seen in pairs])}
    for kind, words in kinds.items():
        rates[kind] = share(
            [says(" ".join(word for word in prompt.replace(",", " ").split() if word in words), seen) for prompt, seen in pairs]
        )
    return rates


def means(word: str, picture: torch.Tensor) -> bool:
    """Whether a picture shows what one word says."""
    return says(word, see(picture))


def map_scores(folder: Path, run: str, guidance: float) -> dict:
    """Mean intersection over union of maps asked for and seen."""
    val = build("dataset", plugin_config("dataset", {**DATA, "val_count": COUNT}), split="val")
    maps = [torch.as_tensor(val[index].map) for index in range(COUNT)]
    place = folder / "maps"
    place.mkdir(exist_ok=True)
    for index, each in enumerate(maps):
        Image.fromarray(each.numpy()).save(place / f"{index:06d}.png")
    found = {}
    for scale in dict.fromkeys([1.0, guidance]):
        pictures = sampled(folder, run, f"judged/{Path(run).name}-{scale:g}", scale, "--map", "maps", "-n", str(COUNT))
        ious = [map_iou(asked, picture, val.map_classes) for asked, picture in zip(maps, pictures, strict=True)]
        found[f"guidance {scale:g}"] = round(sum(ious) / len(ious), 4)
    return {"maps": COUNT, "mean_iou": found}


def written(folder: Path, prompts: list[str]) -> str:
    """A file with these prompts."""
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    return "prompts.txt"


def share(rows: list[bool]) -> float:
    """Of the rows, how many are true."""
    return round(sum(rows) / len(rows), 4)


if __name__ == "__main__":
    main()
