"""Emoji by their names: the chain on a folder of captioned pictures, and the page of prompts in the docs.

LDMCTL_WEIGHTS_DIR=FOLDER python benchmarks/emoji.py HOME EMOJI     # 86 minutes on one busy core; FOLDER has all-MiniLM-L6-v2 and SqueezeNet's weights
python benchmarks/emoji.py HOME EMOJI --picture                     # only the page, of what is in HOME

EMOJI is a folder of pictures with metadata.jsonl, whose `text` is the name of each. At 32x32: an autoencoder of the default preset, then `text`
on the frozen MiniLM. docs/emoji.png has a row for each prompt, SHOWN samples of it, and the real picture where there is one: names that training
saw, then names of held-out pictures, drawn evenly from all whose name no training picture has, then names that no emoji has. Nothing but the
reconstructions is judged by numbers: the page is there to be looked at.
"""

import argparse
import json
from pathlib import Path

from machine import RESULTS, describe, keep, ldmctl
from PIL import Image, ImageDraw, ImageFont

AUTOENCODER = ["image.size=32", "loop.steps=4000"]
DENOISER = [
    "denoiser={type: unet, widths: [64, 128], layers: 1, attention: [false, true], head_dim: 32}",
    "conditions={label: null, text: {type: text, encoder: all-MiniLM-L6-v2}}",
    *["loop.steps=3000", "loop.batch=96", "loop.lr=1.5e-3", "loop.warmup=100", "loop.decay=cosine", "loop.ema=0.995"],
]
KNOWN = ["red heart", "pizza", "sun with face", "snowman", "cat face", "soccer ball", "green apple", "police car light"]
NEW = ["blue apple", "green heart with a face", "a cat with a hat", "two red circles"]
HELD_OUT, SHOWN, GUIDANCE = 12, 6, 3
CELL, GAP, TEXT = 48, 4, 350  # pixels


def main() -> None:
    """Train what is missing, sample, draw the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("emoji", type=Path)
    parser.add_argument("--picture", action="store_true", help="train nothing")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    if not given.picture:
        train(given.home, given.emoji.resolve())
    page(given.home, given.emoji).quantize(256, dither=Image.Dither.NONE).save(RESULTS.parent.parent / "docs" / "emoji.png", optimize=True)


def train(home: Path, emoji: Path) -> None:
    """The chain and what it took."""
    machine, minutes, said = describe(), {}, {}
    chain = {
        "fit-ae": ["--data", str(emoji), *AUTOENCODER],
        "eval-lpips": ["perceptual=features"],
        "encode-dataset": [],
        "fit-diffusion": DENOISER,
    }
    for verb, words in chain.items():
        said[verb], seconds = ldmctl(verb, *words, cwd=home)
        minutes[verb] = round(seconds / 60, 2)
    names = prompts(home)
    (home / "prompts.txt").write_text("\n".join(names) + "\n")
    many = ["--prompts", "prompts.txt", "-n", str(len(names) * SHOWN), "--guidance", str(GUIDANCE)]
    _, seconds = ldmctl("sample", *many, "--overwrite", cwd=home)
    minutes["sample"] = round(seconds / 60, 2)
    found = {"minutes": minutes, "reconstruction": {key: said["eval-lpips"].get(key) for key in ("psnr", "ssim", "count")}}
    keep(
        "emoji", {"autoencoder": AUTOENCODER, "denoiser": DENOISER, "guidance": GUIDANCE, "held_out": len(held_out(home)), **found}, machine
    )


def captions(home: Path, split: str) -> list[str]:
    """Of a split of the cache, in order."""
    return [json.loads(line)["text"] for file in sorted((home / "cache").glob(f"{split}-*.items.jsonl")) for line in file.open()]


def held_out(home: Path) -> list[str]:
    """Names of held-out pictures that no training picture has."""
    known = set(captions(home, "train"))
    return [name for name in dict.fromkeys(captions(home, "val")) if name not in known]


def prompts(home: Path) -> list[str]:
    """All rows of the page; of KNOWN those that training saw indeed."""
    known, unseen = set(captions(home, "train")), held_out(home)
    evenly = [unseen[round(place * (len(unseen) - 1) / (HELD_OUT - 1))] for place in range(HELD_OUT)]
    return [name for name in KNOWN if name in known] + evenly + NEW


def page(home: Path, emoji: Path) -> Image.Image:
    """A row for each prompt: the words, SHOWN samples, the real picture."""
    rows = (home / "prompts.txt").read_text().splitlines()
    files = {each["text"]: each["file_name"] for each in map(json.loads, next(emoji.rglob("metadata.jsonl")).open())}
    folder, unseen = next(emoji.rglob("metadata.jsonl")).parent, set(held_out(home))
    sheet = Image.new("RGB", (TEXT + (SHOWN + 1) * (CELL + GAP), len(rows) * (CELL + GAP) - GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, name in enumerate(rows):
        top = number * (CELL + GAP)
        kind = "held out" if name in unseen else "" if name in files else "no emoji"
        pen.text((0, top + CELL / 2), name + (f"  ({kind})" if kind else ""), "black", font, anchor="lm")
        for place in range(SHOWN):
            sample = Image.open(home / "samples" / f"{number + place * len(rows):06d}.png").convert("RGB")
            sheet.paste(sample.resize((CELL, CELL), Image.Resampling.NEAREST), (TEXT + place * (CELL + GAP), top))
        if name in files:
            real = Image.open(folder / files[name]).convert("RGBA").resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(
                Image.alpha_composite(Image.new("RGBA", real.size, "white"), real).convert("RGB"), (TEXT + SHOWN * (CELL + GAP), top)
            )
    return sheet


if __name__ == "__main__":
    main()
