"""What a denoiser that is being fitted listens to beside labels: the conditioners of a config, and what a cache knows for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmctl import registry
from ldmctl.config.network_origins import find
from ldmctl.config.schemas.fit_diffusion import Conditions, FitDiffusion
from ldmctl.console import Console
from ldmctl.diffusion.carried import at_home, expect_same_encoder
from ldmctl.diffusion.conditions import LISTENS, refuse_other_slot
from ldmctl.diffusion.network import Network, describe_network
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.latents.conditions import Captions, Several, Source, captions_of, prepare_captions
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.pictured import prepare_pictures
from ldmctl.latents.reader import Latents
from ldmctl.storage import weights
from ldmctl.training.engine import Engine

OTHERS = ("text", "map", "picture")  # slots beside that of labels


def check_slots(config: FitDiffusion) -> None:
    """A ConfigError for a conditioner that listens to something else than its slot has."""
    for slot in config.conditions.slots:
        refuse_other_slot(slot, registry.load("conditioner", getattr(config.conditions, slot).type))


def begun_with(config: FitDiffusion, out: str | Path | None = None, *, overwrite: bool = False) -> Mapping[str, Any]:
    """What the file of a run in `out`, or of the one that `init` names, says of its conditioners, so that their words stay the same; {} for neither."""
    here = None if out is None or overwrite else Path(out).expanduser() / "model.safetensors"
    if here is not None and here.exists():
        return dict(weights.read_header(here).get("conditions", {}))
    return {} if config.init is None else dict(weights.read_header(find(config.init).file).get("conditions", {}))


def conditioners_of(
    config: FitDiffusion,
    manifest: Manifest,
    splits: Mapping[str, Latents],
    before: Mapping[str, Any],
    maps: Mapping[str, Any] | None = None,
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """(config, context) of each conditioner beside that of labels, by slot; `maps` says what is known of the maps there are.

    What the cache lacks for one is a ConfigError, and maps that a network from before does not know a MismatchError.
    """
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    if (text := config.conditions.text) is not None:
        found["text"] = text, {"fitted": fitted_to(text, splits["train"], config.latents, before.get("text"))}
    if (mapped := config.conditions.map) is not None:
        told = {
            "maps": maps or {"classes": [], "channels": 1},
            "size": list(manifest.latent[1:]),
            "factor": of_pictures(manifest)["factor"],
        }
        earlier = before.get("map", {})
        found["map"] = mapped, maps_of_then(earlier["context"], told, config.latents) if earlier.get("type") == mapped.type else told
    if (picture := config.conditions.picture) is not None:
        found["picture"] = picture, of_pictures(manifest)
    return found


def maps_of_then(before: Mapping[str, Any], now: Mapping[str, Any], cache: str) -> dict[str, Any]:
    """What a conditioner of maps is told when it goes on, its maps those of `before`; a MismatchError where those there are `now` mean other things."""
    known, found = before["maps"], now["maps"]
    both = bool(known["classes"]) == bool(found["classes"])
    if not both or known["channels"] != found["channels"] or known["classes"][: len(found["classes"])] != found["classes"]:
        raise MismatchError(
            f"The maps of {cache} have {kinds_of(found, spelled=True)}, and those that this network began with had {kinds_of(known, spelled=True)}: "
            "what was learned does not fit. Take the maps of then, or start over: another --out without init, or --overwrite."
        )
    return {**before, **now, "maps": known}


def kinds_of(maps: Mapping[str, Any], *, spelled: bool = False) -> str:
    """What the pixels of maps hold: `3 classes`, spelled out with their names; `shades`, of one channel; `colours`."""
    if not (classes := maps["classes"]):
        return "shades" if maps["channels"] == 1 else "colours"
    names = f" ({', '.join(classes[:20])}{', ...' * (len(classes) > 20)})" if spelled else ""
    return f"{len(classes):,} class{'es' * (len(classes) != 1)}{names}"


def fitted_to(text: Any, train: Latents, cache: str, before: Mapping[str, Any] | None) -> Any:
    """What a conditioner of captions takes from those that there are, or took when the run began; None where it takes nothing."""
    captions = captions_of(train)
    if not any(captions):
        raise ConfigError(
            f"conditions.text={text.type} has nothing to listen to: {cache} has no captions. Take conditions.text=null, or give the pictures "
            "captions (docs: Your pictures) and encode them again: latents that are there are kept."
        )
    if before is not None and before["type"] == text.type:
        return before["context"].get("fitted")
    kind: Any = registry.load("conditioner", text.type)
    return kind.fit(text, (each for several in captions for each in several)) if hasattr(kind, "fit") else None


def listens_to(conditions: Conditions, manifest: Manifest, shares: Mapping[str, float], maps: Mapping[str, Any] | None = None) -> str:
    """`labels (16 classes) and captions (words, 4,096 of 4,096 items)`, by the share of training items that have what each slot hears.

    Also what most items have and the network does not listen to, and what `maps` hold: classes drawn in colours are colours to it.
    """
    count = manifest.count("train")

    def heard(slot: str) -> str:
        kind, many = getattr(conditions, slot).type, f"{round(shares.get(slot, 1) * count):,} of {count:,} items"
        drawn = f"{kinds_of(maps)}, {many}" if maps else many
        said = {"label": f"{len(manifest.classes):,} classes", "text": many, "map": drawn, "picture": ""}[slot]
        return f"{LISTENS[slot]} ({', '.join(filter(None, [kind * (kind != slot or slot == 'text'), said]))})"

    said = " and ".join(filter(None, [", ".join(map(heard, conditions.slots[:-1])), *map(heard, conditions.slots[-1:])]))
    unheard = manifest.captions.get("train", 0) if conditions.text is None else 0
    more = f"; not to captions, which {unheard:,} of {count:,} items have" if unheard else ""
    drawn = "; not to the maps beside the pictures (conditions.map=map)" if manifest.maps and conditions.map is None else ""
    return (said or "nothing, so samples are of all the pictures there are") + more + drawn


def description_of(
    config: FitDiffusion, manifest: Manifest, others: Mapping[str, tuple[Any, Mapping[str, Any]]] | None = None
) -> dict[str, Any]:
    """What it takes to build the network that a config asks for; `others` are the conditioners of `conditioners_of`."""
    return describe_network(
        config.denoiser,
        config.conditions.label,
        latent=manifest.latent,
        classes=manifest.classes,
        others=others,
        self_conditioning=config.self_conditioning,
    )


def of_pictures(manifest: Manifest) -> dict[str, Any]:
    """What a conditioner of pictures is told of the latents and of the pictures behind them."""
    side = int(manifest.image["size"])
    return {
        "channels": manifest.latent[0],
        "size": list(manifest.latent[1:]),
        "image_channels": int(manifest.image["channels"]),
        "factor": -(-side // max(manifest.latent[1:])),
        "side": side,
    }


def known_for(
    network: Network,
    cache: Path,
    manifest: Manifest,
    splits: Mapping[str, Latents],
    engine: Engine,
    console: Console,
    maps: Mapping[str, Source] | None = None,
    *,
    out: str | Path,
) -> dict[str, Several]:
    """What a cache knows of each item for these conditioners, by split; what is not prepared yet is prepared and kept.

    The run in `out` may hold a copy of what captions are prepared by.
    """
    sources: dict[str, dict[str, Source]] = {split: {"map": maps[split]} if maps else {} for split in splits}
    if network.text is not None:
        at_home(network, out)
        expect_same_encoder(network)
        captions = {split: captions_of(latents) for split, latents in splits.items()}
        rows = prepare_captions(network.text, cache, (each for row in captions.values() for each in row), engine, console)
        if hasattr(network.text, "release"):
            network.text.release()  # of the memory that a frozen encoder takes
        heard = {split: Captions(rows, found) for split, found in captions.items()}
        for split, found in heard.items():
            sources[split]["text"] = found
        if engine.leads and (cut := heard["train"].cut())[0]:
            many = "are longer than the denoiser hears: their ends are" if cut[0] > 1 else "is longer than the denoiser hears: its end is"
            console.warn(f"{cut[0]:,} of {cut[1]:,} captions {many} left out.")
    if getattr(network.picture, "wants", None) == "image":
        for split, small in prepare_pictures(network.picture, cache, manifest, dict(splits), engine, console).items():
            sources[split]["picture"] = small
    return {split: Several(found) for split, found in sources.items()}
