"""How well models do what they are told: captions never seen together in training, maps, holes, small pictures, on shapes.

python benchmarks/conditions.py FOLDER [words] [text] [map] [inpaint] [lowres] [--steps 1600] [--guidance 2]
LDMCTL_WEIGHTS_DIR=FOLDER_WITH_all-MiniLM-L6-v2 for `text`

One autoencoder and one cache of shapes with two sizes, four captions each, and a fifth of all combinations of form, colour, size and
background held out. `words` learns its words from the captions, `text` hears the frozen MiniLM, `map` a map of the form; none hears
labels. Then 320 captions of held-out combinations, or 320 maps of held-out pictures, are sampled and judged by benchmarks/shapes_rule.py.
Beside it stands
what the rule says of the same pictures through the autoencoder alone. For `text`, also captions in words that no caption of training has.

`inpaint` paints the middle of held-out pictures anew, half as wide and high, and the same model paints it by the methods of the sampler, told
nothing. `lowres` makes held-out pictures of 8x8 pixels large again, beside bicubic interpolation. FOLDER keeps what is trained; the same command continues.
"""

import argparse
import json
from datetime import datetime
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import describe, keep, ldmctl
from PIL import Image
from shapes_rule import map_iou, says, see

from ldmctl.api import load_autoencoder
from ldmctl.config.resolve import plugin_config
from ldmctl.errors import MissingError
from ldmctl.pictures.images import read, to_tensor
from ldmctl.registry import build

DATA = {"type": "shapes", "sizes": "two", "held_out": 0.2, "captions": 4, "maps": True}
WORDS = [f"dataset.{key}={value if not isinstance(value, bool) else str(value).lower()}" for key, value in DATA.items() if key != "type"]
AUTOENCODER = ["loop.steps=3000"]  # that of quickstart, of 1,000 steps, loses small stars
COUNT = 320
LISTENS = {
    "words": ["conditions.text=words"],
    "text": ["conditions={text: {type: text, encoder: all-MiniLM-L6-v2}}"],
    "map": ["conditions={text: null, map: map}"],
    "inpaint": ["conditions={text: null, picture: inpaint}"],
    "lowres": ["conditions={text: null, picture: {type: lowres, factor: 4}}"],
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
        ldmctl("fit-ae", "--data", "shapes", "dataset.sizes=two", *AUTOENCODER, "-q", cwd=folder)
        ldmctl("encode-dataset", *WORDS, "-q", cwd=folder)
    for name in given.which:
        out = f"runs/{name}-{given.steps}"
        ldmctl("fit-diffusion", *LISTENS[name], "conditions.label=null", f"loop.steps={given.steps}", "--out", out, "-q", cwd=folder)
        found = JUDGES[name](folder, out, given.guidance)
        keep(
            f"conditions_{name}",
            {"steps": given.steps, "minutes_of_training": minutes(folder / out), "guidance": given.guidance, **found},
            machine,
        )


def minutes(run: Path) -> float | None:
    """From start to end of all commands that trained a run; None where one was killed, since nobody knows when."""
    history = json.loads((run / "run.json").read_text())["history"]
    if any(each["ended"] is None for each in history):
        return None
    spans = [datetime.fromisoformat(each["ended"]) - datetime.fromisoformat(each["started"]) for each in history]
    return round(sum(span.total_seconds() for span in spans) / 60, 2)


def held_out() -> list:
    """Distinct combinations that only held-out pictures show, and the pictures of `val`."""
    val = build("dataset", plugin_config("dataset", DATA), split="val")
    return sorted({val.combination(index) for index in range(len(val))})


def caption_prompts() -> list[str]:
    """Four captions of each of these combinations."""
    return [text for each in held_out() for text in each.captions(4)]


def sampled(folder: Path, run: str, out: str, guidance: float, *words: str) -> list[torch.Tensor]:
    """The pictures of one command, in the order of their seeds."""
    answer, _ = ldmctl("sample", "--run", run, "--guidance", f"{guidance:g}", *words, "--out", out, "--overwrite", "-q", cwd=folder)
    return [read(folder / out / f"{seed:06d}.png") for seed in answer["seeds"]]


def caption_scores(folder: Path, run: str, guidance: float, *, synonyms: bool = False) -> dict:
    """Shares of samples that show what their captions ask for."""
    combinations, every = held_out(), caption_prompts()
    prompts = [every[index % len(every)] for index in range(COUNT)]
    found = {
        "held_out_combinations": len(combinations),
        "captions": COUNT,
        "through_the_autoencoder": through_autoencoder(folder),
        "share_right": {},
    }
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


def through_autoencoder(folder: Path) -> dict[str, float]:
    """What the rule says of held-out pictures that went through the autoencoder: no sample can be right more often."""
    codec = load_autoencoder(str(folder / "runs" / "ae"))
    val = build("dataset", plugin_config("dataset", {**DATA, "val_count": COUNT}), split="val")
    made = torch.cat([codec.reconstruct(part) for part in held_out_pictures().split(32)])
    return rate([val[index].text for index in range(COUNT)], list(((made + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)))


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


def held_out_pictures() -> torch.Tensor:
    """uint8 [COUNT,3,32,32]."""
    val = build("dataset", plugin_config("dataset", {**DATA, "val_count": COUNT}), split="val")
    return torch.stack([to_tensor(val[index].picture) for index in range(COUNT)])


def saved(folder: Path, name: str, pictures: torch.Tensor) -> str:
    """A folder with these pictures, in order."""
    (folder / name).mkdir(exist_ok=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / name / f"{index:06d}.png")
    return name


def inpaint_scores(folder: Path, run: str, guidance: float) -> dict:
    """PSNR inside the hole, and the step at its seam beside that of the true pictures, for the condition and for the sampler's methods."""
    real = held_out_pictures()
    hole = torch.zeros(32, 32, dtype=torch.bool)
    hole[8:24, 8:24] = True
    Image.fromarray(hole.to(torch.uint8).mul(255).numpy()).save(folder / "hole.png")
    start = ["--from", saved(folder, "real", real), "--mask", "hole.png", "-n", str(COUNT), "painting.feather=0"]
    found = {"true pictures": {"seam": seam(real)}}
    for method in ("condition", "pigdm", "blend"):
        made = torch.stack(sampled(folder, run, f"judged/{Path(run).name}-{method}", 1.0, *start, f"painting.method={method}"))
        found[method] = {"psnr_in_hole": psnr(made[..., hole], real[..., hole]), "seam": seam(made)}
    found["share_of_shapes_right"] = {
        method: share(
            [same(see(read(folder / f"judged/{Path(run).name}-{method}/{index:06d}.png")), see(each)) for index, each in enumerate(real)]
        )
        for method in ("condition", "pigdm", "blend")
    }
    return {"pictures": COUNT, **found}


def same(one, other) -> bool:
    """Whether two pictures show the same form and colour."""
    return one is not None and other is not None and (one.shape, one.colour) == (other.shape, other.colour)


def seam(pictures: torch.Tensor) -> float:
    """The mean step between the pixels on both sides of the hole's edge, of 255."""
    x = pictures.float()
    steps = [
        x[..., 8:24, 7] - x[..., 8:24, 8],
        x[..., 8:24, 24] - x[..., 8:24, 23],
        x[..., 7, 8:24] - x[..., 8, 8:24],
        x[..., 24, 8:24] - x[..., 23, 8:24],
    ]
    return round(float(torch.cat(steps, dim=-1).abs().mean()), 2)


def lowres_scores(folder: Path, run: str, guidance: float) -> dict:
    """PSNR of pictures made large again, beside bicubic interpolation; and how many still show their form and colour."""
    real = held_out_pictures()
    small = F.interpolate(real.float(), (8, 8), mode="bicubic", antialias=True).round().clamp(0, 255)
    bicubic = F.interpolate(small, (32, 32), mode="bicubic").round().clamp(0, 255).to(torch.uint8)
    words = ["--picture", saved(folder, "small", small.to(torch.uint8)), "-n", str(COUNT)]
    made = torch.stack(sampled(folder, run, f"judged/{Path(run).name}", 1.0, *words))
    return {
        "pictures": COUNT,
        "psnr": {"lowres": psnr(made, real), "bicubic": psnr(bicubic, real)},
        "feature_distance": {"lowres": feature_distance(made, real), "bicubic": feature_distance(bicubic, real)},
        "share_of_shapes_right": {
            name: share([same(see(one), see(other)) for one, other in zip(pictures, real, strict=True)])
            for name, pictures in {"lowres": made, "bicubic": bicubic}.items()
        },
    }


def psnr(made: torch.Tensor, real: torch.Tensor) -> float:
    """The mean over pictures, dB."""
    error = (made.float() - real.float()).square().flatten(1).mean(1).clamp_min(1e-3)
    return round(float((20 * torch.log10(torch.tensor(255.0)) - 10 * torch.log10(error)).mean()), 2)


@torch.no_grad()
def feature_distance(made: torch.Tensor, real: torch.Tensor) -> float | None:
    """The mean over pictures, in features of SqueezeNet; None without its weights."""
    try:
        distance = build("perceptual", plugin_config("perceptual", {"type": "features"}), image_channels=3)
    except MissingError:
        return None
    return round(float(distance(made.float() / 127.5 - 1, real.float() / 127.5 - 1).mean()), 4)


def written(folder: Path, prompts: list[str]) -> str:
    """A file with these prompts."""
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    return "prompts.txt"


def share(rows: list[bool]) -> float:
    """Of the rows, how many are true."""
    return round(sum(rows) / len(rows), 4)


JUDGES = {
    "words": caption_scores,
    "text": partial(caption_scores, synonyms=True),
    "map": map_scores,
    "inpaint": inpaint_scores,
    "lowres": lowres_scores,
}

if __name__ == "__main__":
    main()
