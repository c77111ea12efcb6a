"""KEY=VALUE words and options as nobody would write them, for every verb."""

import json
from functools import cache
from random import Random
from typing import Any

from faults_heard import JUDGE, LEARN
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
LATER = {  # those of seeds from faults_heard.SINCE on
    "eval-samples": ([*JUDGE, "--out", "out"], "out"),
    "fit-token": ([*LEARN, "--out", "out/mine.safetensors"], "out/mine.safetensors"),
    "fit-diffusion": (["fit-diffusion", "--config", "words.yaml", "--latents", "heard", "--out", "out", "loop.steps=2"], "out"),
    "sample": (["sample", "--run", "words", "--out", "out", "-n", "2", "--steps", "2", "--prompt", "a red cat"], "out"),
    "report": (["report", "words", "judged", "checked", "--out", "out/report.html"], "out"),
    "runs": (["runs", "show", "words"], ""),
    "data": (["data", "check", "./scenes", "--out", "out"], "out"),
}
BESIDE = {"fit-token": " out", "eval-samples": " heard/features", "fit-diffusion": " heard/conditions"}  # that they may write besides
KEYLESS = ("cache", "ema", "report", "runs", "data")
OPTIONS = {
    "fit-ae": ("--data", "--init", "--ae", "--precision", "--device", "--config", "--devices", "--out"),
    "encode-dataset": ("--data", "--run", "--precision", "--device", "--out"),
    "fit-diffusion": ("--latents", "--precision", "--device", "--config", "--out"),
    "sample": ("--run", "--ae", "--label", "--guidance", "--steps", "-n", "--seed", "--sampler", "--precision", "--out"),
    "eval-lpips": ("--run", "--data", "--pairs", "--device"),
    "ema": ("--run", "--length", "--step", "--out"),
    "cache": ("--json",),
}
OPTIONS_LATER = {
    "eval-samples": ("--run", "--samples", "--against", "-n", "--extractor", "--steps", "--guidance", "--device", "--out"),
    "fit-token": ("--run", "--data", "--word", "--init-word", "--steps", "--device", "--out"),
    "fit-diffusion": ("--latents", "--config", "--out"),
    "sample": (
        "--prompts",
        "--prompt",
        "--map",
        "--picture",
        "--token",
        "--negative",
        "--each",
        "--from",
        "--mask",
        "--again",
        "--seeds",
        "--size",
        "--autoguide",
    ),
    "report": ("--out", "--json", "--alone"),
    "runs": ("--json",),
    "data": ("--size", "--channels", "--out"),
}
FLAGS = ("--json", "--alone")  # that take no value
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
OUTS_LATER = ("words", "heard", "scenes", "judged", "checked", "tokens/mine.safetensors", "prompts.txt", "words.yaml", "out/x", "out/y/")
ENTRIES_LATER = (
    *ENTRIES,
    *("words", "text", "map", "large", "heard", "scenes", "scenes/masks", "small", "mine", "encoder", "prompts.txt", "tokens", "judged"),
    *("tokens/mine.safetensors", "checked/check.json", "a :0.5 | b :x", "<mine>", "a <mine>", "|", "2x2", "16x16", "0-3,9", "999999x1"),
)


@cache
def keys(verb: str) -> list[tuple[str, Any]]:
    """(path, default) of every key of a verb and of the plugins that its slots name by default."""
    from ldmctl.config.differences import flatten
    from ldmctl.config.presets import compose
    from ldmctl.config.schemas.verbs import VERBS

    settings, _ = compose(VERBS[verb], overrides=["dataset={type: shapes}"] if verb in ("fit-ae",) else [], below=None)
    return list(flatten(settings.model_dump(mode="json")))


def words(random: Random, commands: dict[str, tuple[list[str], str]] = COMMANDS) -> tuple[list[str], str]:
    """(a command with one to three strange words, the folders that it writes)."""
    verb = random.choice(list(commands))
    base, out = commands[verb]
    options, outs, entries = (OPTIONS, OUTS, ENTRIES) if commands is COMMANDS else (OPTIONS_LATER, OUTS_LATER, ENTRIES_LATER)
    added: list[str] = []
    for _ in range(random.choice([1, 1, 2, 3])):
        if verb in KEYLESS or random.random() < 0.2:
            option = random.choice(options[verb])
            value = random.choice(outs if option == "--out" else entries)
            added += [option, *([value] if option not in FLAGS or commands is COMMANDS else [])]
            out = value if option == "--out" else out
        else:
            added.append(word(random, verb))
    if random.random() < 0.5 and verb not in KEYLESS:
        added.append("--dry-run")
    more = BESIDE.get(verb, "") if commands is LATER else ""
    return [*base, *[part.replace("\x00", "") for part in added]], out + more


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
