"""The same verbs from Python: `from ldmctl import api; api.fit_ae(data="shapes", overrides=["loop.steps=100"])`.

Each takes what the command takes, under the same names and with the same
defaults, and gives what the command prints with --json. They say nothing but
warnings unless they are given a `Console()`. `LDMCTL_OFFLINE=1` in the
environment is `--offline`. Overrides may also be one string, as the shell has
them: "loop.steps=100 loop.batch=8". Ctrl-C stops a function after its step, with all
saved (`errors.Stopped`), and at once the second time; signals are then as before.

`load` gives a model that makes pictures in memory, as often as wanted:
`api.load("runs/ldm").sample(16, label="cat").images`. What `load_autoencoder`
and `load_network` give works on tensors: pictures [B,C,H,W], floats in [-1, 1]
or uint8. What they cannot use is an `errors.ConfigError` that says what is expected.

This file is longer than a page because each function spells out its keywords, as notebooks complete them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldmctl.attribution import blaming
from ldmctl.config.base import Config
from ldmctl.config.compared import compose_judgement
from ldmctl.config.levels import table_of
from ldmctl.config.network_origins import image_of
from ldmctl.config.presets import compose, pictures_of, wished
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.config.schemas.eval_lpips import EvalLpips
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.config.schemas.fit_token import FitToken
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.schemas.shared import Coding, Compute
from ldmctl.config.schemas.spacing import FindSpacing
from ldmctl.console import Console
from ldmctl.errors import ConfigError
from ldmctl.latents import manifest
from ldmctl.latents.recipe import recipe
from ldmctl.storage.apart import elsewhere, refuse_inputs

if TYPE_CHECKING:
    from ldmctl.diffusion.model import Model
    from ldmctl.diffusion.network import Network
    from ldmctl.diffusion.samples import Samples
    from ldmctl.latents.codec import Codec

__all__ = [
    "Console",
    "encode_dataset",
    "eval_lpips",
    "eval_samples",
    "fit_ae",
    "fit_diffusion",
    "fit_token",
    "load",
    "load_autoencoder",
    "load_network",
    "report",
    "sample",
    "sample_images",
    "spacing",
]


@blaming
def fit_ae(
    overrides: list[str] | str | None = None,
    *,
    config: str | Path | None = None,
    ae: str | None = None,
    init: str | Path | None = None,
    data: str | Path | None = None,
    out: str | Path = "runs/ae",
    overwrite: bool = False,
    accept_data: bool = False,
    device: str | None = None,
    precision: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Fit an autoencoder to pictures, or continue -> {"run", "model", "steps", "val/...": ...}."""
    from ldmctl.stages.fit_ae import fit_ae as stage

    flags = {"autoencoder": ae, "init": text(init), "data": text(data), "machine": {"device": device, "precision": precision}}
    settings, _ = compose(FitAE, config=text(config), overrides=overrides or [], flags=flags, out=out, overwrite=overwrite)
    refuse_several_devices(settings)
    return stage(settings, out, console=console or Console(quiet=True), overwrite=overwrite, accept_data=accept_data)


@blaming
def encode_dataset(
    overrides: list[str] | str | None = None,
    *,
    run: str | Path | None = None,
    data: str | Path | None = None,
    out: str | Path = "cache",
    overwrite: bool = False,
    device: str | None = None,
    precision: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Encode every picture once into a cache of latents -> {"cache", "latent", "items", "statistics"}."""
    from ldmctl.stages.encode_dataset import encode_dataset as stage

    flags = {"run": text(run), "data": text(data), "machine": {"device": device, "precision": precision}}
    parent = text(run) or wished(EncodeDataset, overrides, "run") or "runs/ae"
    settings, _ = compose(EncodeDataset, overrides=overrides or [], flags=flags, below=pictures_of(parent), out=out, overwrite=overwrite)
    refuse_several_devices(settings)
    return stage(settings, out, console=console or Console(quiet=True), overwrite=overwrite)


@blaming
def fit_diffusion(
    overrides: list[str] | str | None = None,
    *,
    config: str | Path | None = None,
    latents: str | Path | None = None,
    init: str | Path | None = None,
    out: str | Path = "runs/ldm",
    overwrite: bool = False,
    accept_data: bool = False,
    device: str | None = None,
    precision: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Fit a denoiser to a cache, or continue -> {"run", "model", "steps", "val/...": ...}."""
    from ldmctl.stages.fit_diffusion import fit_diffusion as stage

    flags = {"latents": text(latents), "init": text(init), "machine": {"device": device, "precision": precision}}
    cache = text(latents) or wished(FitDiffusion, overrides, "latents", config=text(config)) or "cache"
    below = recipe(manifest.read(str(cache)), out, overwrite=overwrite)
    settings, _ = compose(
        FitDiffusion, config=text(config), overrides=overrides or [], flags=flags, below=below, out=out, overwrite=overwrite
    )
    refuse_several_devices(settings)
    return stage(settings, out, console=console or Console(quiet=True), overwrite=overwrite, accept_data=accept_data)


@blaming
def fit_token(
    overrides: list[str] | str | None = None,
    *,
    run: str | Path | None = None,
    data: str | Path | None = None,
    word: str | None = None,
    kind: str | None = None,
    init_word: str | None = None,
    label: str | None = None,
    steps: int | None = None,
    out: str | Path = "token.safetensors",
    overwrite: bool = False,
    device: str | None = None,
    precision: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Learn a word, or a class, from a few pictures, or continue -> {"token", "kind", "word", "steps", "loss", "loss_before"}."""
    from ldmctl.stages.fit_token import fit_token as stage

    keys = {"run": text(run), "data": text(data), "word": word, "kind": kind, "init_word": init_word, "label": label, "steps": steps}
    below = image_of(text(run) or wished(FitToken, overrides, "run") or "runs/ldm")
    settings, _ = compose(
        FitToken, overrides=overrides or [], flags={**keys, "machine": {"device": device, "precision": precision}}, below=below
    )
    refuse_inputs(settings, out)
    return stage(settings, out, console=console or Console(quiet=True), overwrite=overwrite)


@blaming
def sample(
    overrides: list[str] | str | None = None,
    *,
    run: str | Path | None = None,
    ae: str | Path | None = None,
    count: int | None = None,
    seed: int | None = None,
    seeds: str | list[int] | None = None,
    each: int | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    label: str | list[str] | None = None,
    guidance: float | None = None,
    npz: bool | None = None,
    again: str | Path | None = None,
    out: str | Path = "samples",
    overwrite: bool = False,
    device: str | None = None,
    precision: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Make pictures, one PNG per seed and a grid -> {"samples", "grid", "count", "made", "seeds", "labels"}.

    `again` is the PNG of one that is made again by what its file says; the answer's "same" is whether that file came out.
    """
    from ldmctl.diffusion.again import repeat
    from ldmctl.stages.sample import sample as stage

    keys: dict[str, Any] = {"count": count, "seed": seed, "seeds": seeds, "each": each, "steps": steps, "sampler": sampler, "label": label}
    keys |= {"guidance": guidance, "npz": npz}
    if again is None:
        settings, picture = settings_of_sample(overrides, run, ae, device, precision, keys), None
    else:
        flags = {"run": text(run), "ae": text(ae), **keys, "machine": {"device": device, "precision": precision}}
        settings, picture = repeat(again, out, [overrides] if isinstance(overrides, str) else overrides or [], flags)
    refuse_inputs(settings, out)
    refuse_several_devices(settings)
    return stage(settings, out, console=console or Console(quiet=True), overwrite=overwrite, again=picture)


@blaming
def sample_images(
    overrides: list[str] | str | None = None,
    *,
    run: str | Path | None = None,
    ae: str | Path | None = None,
    count: int | None = None,
    seed: int | None = None,
    seeds: str | list[int] | None = None,
    each: int | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    label: str | list[str] | None = None,
    guidance: float | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Samples:
    """Make pictures in memory and write nothing -> (images uint8 [N,C,H,W] from 0 to 255, labels, seeds), the pixels that `sample` writes.

    It loads the model each time; `load` keeps it.
    """
    from ldmctl.diffusion.model import open_model
    from ldmctl.training import engine

    keys: dict[str, Any] = {"count": count, "seed": seed, "seeds": seeds, "each": each, "steps": steps, "sampler": sampler, "label": label}
    keys |= {"guidance": guidance}
    settings = settings_of_sample(overrides, run, ae, device, precision, keys)
    model = open_model(settings.run, engine.start(settings.machine), tile=settings.machine.tile, ae=settings.ae)
    return model.samples(settings)


def settings_of_sample(
    overrides: list[str] | str | None,
    run: str | Path | None,
    ae: str | Path | None,
    device: str | None,
    precision: str | None,
    keys: dict[str, Any],
) -> Sample:
    """The validated config of a call of `sample` or `sample_images`."""
    flags = {"run": text(run), "ae": text(ae), **keys, "machine": {"device": device, "precision": precision}}
    return compose(Sample, overrides=overrides or [], flags=flags)[0]


@blaming
def load(run: str | Path = "runs/ldm", *, ae: str | Path | None = None, device: str = "auto", precision: str = "auto") -> Model:
    """The model of a run of fit-diffusion, or of a snapshot in it, ready to make pictures: `load("runs/ldm").sample(16, label="cat", seed=0)`."""
    from ldmctl.diffusion.model import open_model
    from ldmctl.training import engine

    started = engine.start(Compute(device=device, precision=precision))  # type: ignore[arg-type]
    return open_model(str(run), started, tile=Coding().tile, ae=text(ae))


@blaming
def spacing(
    overrides: list[str] | str | None = None,
    *,
    run: str | Path | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Find the noise levels at which a sampler of a trained denoiser errs least -> {"spacing", "levels", "lowest", "cost", "cost_of", "by", ...}.

    `levels` are sigma / alpha, falling; "spacing" is the file that holds them, by default RUN/spacing.json, which `sample` takes: as an
    override `spacing=FILE`, or `model.sample(spacing=FILE)`. The run's cache must be there (`MismatchError`). After arXiv:2404.14507.
    """
    from ldmctl.stages.spacing import spacing as stage

    flags = {"run": text(run), "steps": steps, "machine": {"device": device, "precision": precision}}
    settings, _ = compose(FindSpacing, overrides=overrides or [], flags=flags)
    refuse_inputs(settings, elsewhere(out, table_of(settings.run)))
    return stage(settings, console=console or Console(quiet=True), out=out)


@blaming
def eval_lpips(
    overrides: list[str] | str | None = None,
    *,
    run: str | Path | None = None,
    data: str | Path | None = None,
    pairs: tuple[str | Path, str | Path] | None = None,
    out: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure reconstructions, or two folders -> {"of", "count", "psnr": {"mean", "low", "high"}, "ssim": ..., "lpips": ...}.

    Of reconstructions also "bits_per_pixel", "latent", "baseline" and the "verdict", a list of sentences; `out` is a folder for its pictures.
    """
    from ldmctl.stages.eval_lpips import eval_lpips as stage

    if isinstance(pairs, str | Path):
        raise ConfigError(f"pairs={str(pairs)!r} is one folder; two are compared: pairs=(FOLDER, FOLDER).")
    folders = [str(folder) for folder in pairs] if pairs else None
    flags = {"run": text(run), "data": text(data), "pairs": folders, "machine": {"device": device, "precision": precision}}
    parent = text(run) or wished(EvalLpips, overrides, "run") or "runs/ae"
    below = {} if pairs or wished(EvalLpips, overrides, "pairs") else pictures_of(parent)
    settings, _ = compose(EvalLpips, overrides=overrides or [], flags=flags, below=below)
    refuse_inputs(settings, out)
    return stage(settings, console=console or Console(quiet=True), out=out)


@blaming
def eval_samples(
    overrides: list[str] | str | None = None,
    *,
    run: str | Path | None = None,
    samples: str | Path | None = None,
    against: str | Path | None = None,
    count: int | None = None,
    extractor: str | None = None,
    curve: bool = False,
    out: str | Path = "judgement",
    device: str | None = None,
    precision: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Judge samples -> {"count", "extractor", "measures": {"frechet_distance": {"value", "low", "high", "real"}, ...}, "asked", "classes",
    "memorisation", "duplicates", "sheets", "verdict"}; with `curve` {"curve", "best", "verdict"}."""
    from ldmctl.stages.eval_samples import eval_samples as stage

    keys = {"run": text(run), "samples": text(samples), "against": text(against), "count": count, "extractor": extractor}
    flags = {**keys, "curve": curve or None, "machine": {"device": device, "precision": precision}}
    settings, _ = compose_judgement(overrides, {name: value for name, value in flags.items() if value is not None})
    refuse_inputs(settings, out)
    return stage(settings, out, console=console or Console(quiet=True))


@blaming
def report(
    *runs: str | Path, out: str | Path = "report.html", alone: bool = False, watch: bool = False, console: Console | None = None
) -> dict[str, Any]:
    """Tell of runs, caches, samples and scores on one HTML page -> {"report", "bytes", "chapters": [{"title", "path"}], "troubles"}."""
    from ldmctl.stages.report import report as stage

    return stage(list(map(str, runs or ["runs/ldm"])), out, console=console or Console(quiet=True), alone=alone, watch=watch)


@blaming
def load_autoencoder(run: str | Path = "runs/ae", *, device: str = "auto", precision: str = "auto") -> Codec:
    """The frozen autoencoder of a run of fit-ae: `encode` to moments, `draw` a latent, `decode` it, or `reconstruct` at once.

    Its tensors are on `codec.engine.device`.
    """
    from ldmctl.latents import codec
    from ldmctl.storage.record import model_file
    from ldmctl.training import engine

    started = engine.start(Compute(device=device, precision=precision))  # type: ignore[arg-type]
    autoencoder, header = codec.load_autoencoder(model_file(str(run), verb="fit-ae"), started)
    return codec.Codec(autoencoder, started, image_channels=int(header["context"]["image_channels"]))


@blaming
def load_network(run: str | Path = "runs/ldm", *, device: str = "auto", precision: str = "auto") -> tuple[Network, Codec, dict[str, Any]]:
    """(frozen denoiser with its conditioner, codec to and from its whitened latents, header of its file) of a run of fit-diffusion."""
    from ldmctl.diffusion import careful, network
    from ldmctl.latents.codec import load_codec
    from ldmctl.storage.record import model_file
    from ldmctl.training import engine

    started = engine.start(Compute(device=device, precision=precision))  # type: ignore[arg-type]
    source = model_file(str(run), verb="fit-diffusion")
    denoiser, header, _ = network.load_network(source, started)
    careful.guard(denoiser, channels=int(header["latent"][0]), classes=header["classes"], device=started.device)
    return denoiser, load_codec(source, header, started, tile=Coding().tile, is_careful=True)[0], header


def text(path: str | Path | None) -> str | None:
    """A path as configs hold it, without the slash at its end."""
    return None if path is None else str(path).rstrip("/") or str(path)


def refuse_several_devices(settings: Config) -> None:
    """A ConfigError where more processes are asked for than this one can be."""
    count = settings.machine.devices  # type: ignore[attr-defined]
    if count > 1 and "WORLD_SIZE" not in os.environ:
        raise ConfigError(f"machine.devices={count} needs {count} processes: start this script with torchrun, or take the command line.")
