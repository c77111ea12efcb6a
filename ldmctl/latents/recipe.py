"""The network that suits a cache: keys of fit-diffusion that follow from its latents. Readable without torch."""

from pathlib import Path

from ldmctl.config.documents import Raw, read_config
from ldmctl.errors import MismatchError
from ldmctl.latents.manifest import Manifest, _record


def _first_latents(folder: Path) -> int | None:
    """How many latents the run in a folder began with; None where there is no run to resume."""
    return _record(folder).get("first_latents") if (folder / "state.safetensors").exists() else None


def _conditions(folder: Path) -> Raw | None:
    """What the run that is resumed in a folder listens to; None where there is none."""
    if not (folder / "state.safetensors").exists() or not (folder / "config.yaml").exists():
        return None
    try:
        said = read_config(folder)
    except MismatchError:  # said when the run is opened
        return None
    heard = said.get("conditions", {"label": said.get("conditioner")})
    return heard if isinstance(heard, dict) else None


def recipe(manifest: Manifest, out: str | Path | None = None, *, overwrite: bool = False) -> Raw:
    """Keys of fit-diffusion that follow from the latents: a network for their shape and number, and what it listens to: labels, and captions
    where at least half of the items have one.

    A resumed run in `out` keeps the network for as many latents as it began with, and what it listens to.
    """
    side = max(manifest.latent[1:])
    levels = 1 + sum(side >= least for least in (7, 14, 28))
    begun = None if out is None or overwrite else _first_latents(Path(out).expanduser())
    count = manifest.count("train") if begun is None else begun
    base = 64 if count < 20_000 else 96 if count < 200_000 else 128
    widths = [base * factor for factor in (1, 2, 3, 4)[:levels]]
    attention = [side / 2**level <= 16 and level > 0 for level in range(levels)]
    usual = attention == [level > 0 for level in range(levels)]  # then nothing is said, so that other widths can be asked for alone
    labelled = sum(manifest.label_counts) > 0 and len(manifest.classes) > 1
    captioned = 2 * manifest.captions.get("train", 0) >= manifest.count("train") > 0
    kept = None if out is None or overwrite else _conditions(Path(out).expanduser())
    return {
        "data": manifest.data,
        "autoencoder": {"type": manifest.autoencoder["type"]},
        "denoiser": {"type": "unet", "widths": widths, "head_dim": 32, "norm_groups": 16} | ({} if usual else {"attention": attention}),
        "conditions": kept or {"label": {"type": "label"} if labelled else None, "text": {"type": "words"} if captioned else None},
    }
