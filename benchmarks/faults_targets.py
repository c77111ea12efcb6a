"""Which files are spoilt, what must lie beside them, and the commands that read them; the order of it all belongs to a seed."""

from dataclasses import dataclass

import faults_heard
import faults_listening

COMMANDS = {  # name: (its words, the folder that it may change)
    "plan ae": ("fit-ae --config {file} --out out --dry-run", "out"),
    "fit ae": ("fit-ae --config {file} --out out", "out"),
    "plan ldm": ("fit-diffusion --config {file} --latents cache --out out --dry-run", "out"),
    "fit ldm": ("fit-diffusion --config {file} --latents cache --out out", "out"),
    "train": ("fit-diffusion --config ldm.yaml --latents cache --out out loop.steps=2", "out"),
    "train on it": ("fit-diffusion --config ldm.yaml --latents {folder} --out out loop.steps=2", "out"),
    "continue": ("fit-diffusion --config ldm.yaml --latents cache --out ldm loop.steps=7", "ldm"),
    "start over": ("fit-diffusion --config ldm.yaml --latents cache --out ldm loop.steps=7 --overwrite", "ldm"),
    "continue ae": ("fit-ae --config ae.yaml --out ae loop.steps=7", "ae"),
    "begin with it": ("fit-ae --init {folder} --data ./pictures --out out loop.steps=2 loop.batch=4", "out"),
    "info": ("cache info {folder}", ""),
    "encode": ("encode-dataset --run ae --out out", "out"),
    "encode with it": ("encode-dataset --run {folder} --out out", "out"),
    "update": ("encode-dataset --run ae --out cache shard=8", "cache"),
    "update codes": ("encode-dataset --run vq --out codes store=codes shard=8", "codes"),
    "measure": ("eval-lpips --run ae perceptual=null", "ae"),
    "measure it": ("eval-lpips --run {folder} perceptual=null", "{folder}"),
    "sample": ("sample --run ldm -n 3 --steps 2 --out samples", "samples"),
    "sample anew": ("sample --run ldm -n 3 --steps 2 --out out", "out"),
    "doctor": ("doctor --run ldm", "ldm"),
    "ema": ("ema --run ldm --length 0.1", "ldm"),
    "ema at 4": ("ema --run ldm --length 0.1 --step 4", "ldm"),
}
WORDS = {  # words that hold spaces
    "digits": (["fit-ae", "--config", "ae.yaml", "--out", "out", "dataset={type: idx, path: ./idx}", "loop.steps=1"], "out"),
    "lpips": (["eval-lpips", "--run", "ae", "perceptual={type: lpips, weights: ./vgg16.pth}"], "ae"),
}


@dataclass(frozen=True)
class Target:
    """Files of which one is spoilt, what must lie beside it, the commands of which one reads it, by name, and the first seed that draws it."""

    name: str
    files: tuple[str, ...]
    beside: str
    commands: tuple[str, ...]
    since: int = 1


SHARDS = ("cache/train-00000", "cache/val-00000", "cache/autoencoder", "codes/train-00000")
TARGETS = (
    Target("config of fit-ae", ("ae.yaml", "vq.yaml", "gan.yaml"), "pictures", ("plan ae", "fit ae")),
    Target("config of fit-diffusion", ("ldm.yaml",), "cache", ("plan ldm", "fit ldm")),
    Target("words", (), "pictures ae cache ldm samples ae.yaml ldm.yaml", ()),
    Target(
        "latents.json",
        ("cache/latents.json", "codes/latents.json"),
        "cache codes ae vq pictures ldm ldm.yaml",
        ("train on it", "info", "update", "update codes", "continue"),
    ),
    Target(
        "shards",
        tuple(f"{name}.safetensors" for name in SHARDS),
        "cache codes ae vq pictures ldm ldm.yaml",
        ("train on it", "info", "update", "continue"),
    ),
    Target("items", ("cache/train-00000.items.jsonl", "cache/val-00000.items.jsonl"), "cache ae pictures ldm.yaml", ("train", "update")),
    Target(
        "model of an autoencoder",
        ("ae/model.safetensors", "vq/model.safetensors"),
        "ae vq pictures ae.yaml vq.yaml",
        ("encode with it", "measure it", "begin with it", "continue ae"),
    ),
    Target("state of an autoencoder", ("ae/state.safetensors",), "ae pictures ae.yaml", ("continue ae",)),
    Target(
        "model of a denoiser",
        ("ldm/model.safetensors", "ldm/autoencoder.safetensors"),
        "ldm samples cache ldm.yaml",
        ("sample", "sample anew", "doctor", "continue"),
    ),
    Target("state of a denoiser", ("ldm/state.safetensors",), "ldm cache ldm.yaml", ("continue",)),
    Target("averages", ("ldm/averages/{first}", "ldm/averages/{last}"), "ldm", ("ema", "ema at 4")),
    Target(
        "run.json",
        ("ldm/run.json", "ae/run.json", "cache/run.json"),
        "ldm cache ae pictures ldm.yaml ae.yaml",
        ("continue", "continue ae", "update", "sample anew", "train", "doctor", "start over"),
    ),
    Target(
        "config.yaml",
        ("ldm/config.yaml", "ae/config.yaml", "cache/config.yaml"),
        "ldm cache ae pictures ldm.yaml ae.yaml",
        ("continue", "continue ae", "update", "encode", "measure", "sample anew", "doctor"),
    ),
    Target(
        "metrics",
        ("ldm/metrics.jsonl", "ldm/metrics.csv", "ae/metrics.jsonl"),
        "ldm cache ae pictures ldm.yaml ae.yaml",
        ("continue", "continue ae", "doctor"),
    ),
    Target("samples", ("samples/000001.png", "samples/grid.png"), "samples ldm", ("sample",)),
    Target("metadata", ("pictures/metadata.jsonl", "pictures/metadata.csv", "pictures/train/cat/0.txt"), "pictures ae", ("encode",)),
    Target(
        "idx",
        tuple(f"idx/{name}-ubyte" for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3")),
        "idx ae.yaml",
        ("digits",),
    ),
    Target("a picture among sound ones", ("pictures/train/cat/0.png", "pictures/val/dog/1.png"), "pictures ae", ("encode",)),
    Target("weights of another", ("vgg16.pth",), "pictures ae", ("lpips",)),
    *(Target(name, files, faults_listening.ALL, commands, faults_heard.SINCE) for name, files, commands in faults_listening.TARGETS),
)


def target_of(seed: int, number: int) -> Target:
    """The target of a case, among those that its seed draws from: numbers of older seeds stay what they were."""
    there = [each for each in TARGETS if each.since <= seed]
    return there[number % len(there)]


def command(name: str) -> tuple[list[str], str]:
    """The words of a command, and the folders that it may change."""
    if name in WORDS:
        return WORDS[name]
    text, out = {**COMMANDS, **faults_listening.COMMANDS}[name]
    return text.split(" "), out
