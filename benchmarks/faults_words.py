"""KEY=VALUE words and options as nobody would write them, for every verb."""

import json
from functools import cache
from random import Random
from typing import Any

from faults_mutators import STRANGE, near

COMMANDS = {  # the words of a command that works, and the folder that it writes
    "fit-ae": (["fit-ae", "--config", "ae.yaml", "--out", "out", "loop.steps=2"], "out"),
    "encode-dataset": (["encode-dataset", "--run", "ae", "--out", "out"], "out"),
    "fit-diffusion": (["fit-diffusion", "--config", "ldm.yaml", "--latents", "cache", "--out", "out", "loop.steps=2"], "out"),
    "sample": (["sample", "--run", "ldm", "--out", "out", "-n", "2", "--steps", "2"], "out"),
    "eval-lpips": (["eval-lpips", "--run", "ae", "perceptual=null"], "ae"),
    "ema": (["ema", "--run", "ldm", "--length", "0.1"], "ldm"),
    "cache": (["cache", "info", "cache"], ""),
}
OPTIONS = {
    "fit-ae": ("--data", "--init", "--ae", "--precision", "--device", "--config", "--devices", "--out"),
    "encode-dataset": ("--data", "--run", "--precision", "--device", "--out"),
    "fit-diffusion": ("--latents", "--precision", "--device", "--config", "--out"),
    "sample": ("--run", "--ae", "--label", "--guidance", "--steps", "-n", "--seed", "--sampler", "--precision", "--out"),
    "eval-lpips": ("--run", "--data", "--pairs", "--device"),
    "ema": ("--run", "--length", "--step", "--out"),
    "cache": ("--json",),
}
LIKELY = (  # values that some key takes
    *(
        1,
        2,
        3,
        8,
        16,
        0.5,
        1.5,
        True,
        False,
        None,
        [8],
        [8, 8],
        [8, 16],
        [True, False],
        [0.5, 0.9],
        "auto",
        "random",
        "center",
        "codes",
        "float32",
    ),
    *(
        "none",
        "min-snr",
        "soft-min-snr",
        "learned",
        "stratified",
        "logit-normal",
        "fsdp",
        "constant",
        "cosine",
        "inverse-sqrt",
        "blocks",
        "decoder",
    ),
    *(
        "vae",
        "vqvae",
        "fsq",
        "identity",
        "unet",
        "dit",
        "flow",
        "linear",
        "eps",
        "x0",
        "v",
        "ddpm",
        "ddim",
        "patchgan",
        "multiscale",
        "csv",
        "label",
    ),
)
OUTS = ("ae", "cache", "ldm", "pictures", "ae.yaml", "samples", "out/x", "out/y/")  # most of them hold something else
ENTRIES = (
    *(
        "../../canary",
        "",
        " ",
        "-1",
        "0",
        "1e9",
        "nan",
        "inf",
        "9" * 30,
        "x",
        "none",
        "\ud83d\ude00",
        "a\nb",
        "[",
        "{}",
        "ae",
        "ldm",
        "cache",
    ),
    *(
        "ae@",
        "ae@best",
        "ae@99",
        "ldm@4",
        "ae/model.safetensors",
        "/dev/null",
        "/dev/zero",
        "canary.py",
        "out/x",
        "pictures",
        "ae.yaml",
        "samples",
    ),
    "~nobody/x",
)


@cache
def keys(verb: str) -> list[tuple[str, Any]]:
    """(path, default) of every key of a verb and of the plugins that its slots name by default."""
    from ldmctl.config.differences import flatten
    from ldmctl.config.presets import compose
    from ldmctl.config.schemas.verbs import VERBS

    settings, _ = compose(VERBS[verb], overrides=["dataset={type: shapes}"] if verb in ("fit-ae",) else [], below=None)
    return list(flatten(settings.model_dump(mode="json")))


def words(random: Random) -> tuple[list[str], str]:
    """(a command with one to three strange words, the folder that it writes)."""
    verb = random.choice(list(COMMANDS))
    base, out = COMMANDS[verb]
    added: list[str] = []
    for _ in range(random.choice([1, 1, 2, 3])):
        if verb in ("cache", "ema") or random.random() < 0.2:
            option = random.choice(OPTIONS[verb])
            added += [option, random.choice(OUTS if option == "--out" else ENTRIES)]
            out = added[-1] if option == "--out" else out
        else:
            added.append(word(random, verb))
    if random.random() < 0.5 and verb not in ("ema", "cache"):
        added.append("--dry-run")
    return [*base, *[part.replace("\x00", "") for part in added]], out


def word(random: Random, verb: str) -> str:
    """`path=value`, mostly of a key that is there."""
    path, default = random.choice(keys(verb))
    value = random.choice(
        [lambda: near(random, default), lambda: random.choice(STRANGE), lambda: random.choice(LIKELY), lambda: random.choice(LIKELY)]
    )()
    if isinstance(value, str) and len(value) > 5000:
        value = value[:5000]
    text = value if isinstance(value, str) and random.random() < 0.5 else json.dumps(value, ensure_ascii=False, default=str)
    path = random.choice([path] * 30 + [path + ".x", path.rpartition(".")[0] or path, path.upper(), "." + path])
    return f"{path}={text}".encode("utf-8", "replace").decode()
