"""What a PNG's text says of how pictures were made, beside seed and label: all that decides their pixels.

Keys that were added later are there only where they are not at their defaults, so that older pictures still say what they would today.
"""

from typing import Any

from ldmctl import registry
from ldmctl.attribution import foreign_plugins
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.travelling import travelling
from ldmctl.diffusion.beginning import painted_cells, refuse_size, sides_of
from ldmctl.diffusion.guidance import refuse_method, refuse_momentum
from ldmctl.diffusion.guides import try_guides
from ldmctl.diffusion.inpainting import refuse_churn, refuse_steps
from ldmctl.diffusion.shown import PURPOSE, paints_by_condition, refuse_unseen
from ldmctl.diffusion.trace import refuse_steps_beyond
from ldmctl.pictures.canvas import digest


def settings_of(model: Any, config: Sample) -> dict[str, Any]:
    """Of a `Model` and a config: weights, decoder, precision, keys, and hashes of what the keys name. What does not fit the model is a ConfigError or a DataError."""
    refuse_method(config.guiding.method, model.header["prediction"])
    sampler = registry.build("sampler", config.sampler)
    refuse_momentum(config.guiding.momentum, sampler)
    refuse_steps(config.painting.method, sampler)
    refuse_churn(sampler, painted=config.mask is not None or config.outpaint is not None)
    refuse_steps_beyond(config, sampler)
    refuse_size(config, model.header, model.codec, model.network)
    found = {
        "model": model.fingerprint,
        "autoencoder": model.decoder,
        "precision": str(model.engine.dtype).removeprefix("torch."),
        **travelling(config),
    }
    parts = (
        model.network.denoiser,
        model.network.conditioner,
        model.schedule,
        model.codec.autoencoder,
        sampler,
        *model.guides(config),
    )
    if third := foreign_plugins(parts):
        found["plugins"] = third  # another version of them makes other pictures
    refuse_unseen(config, model.network)
    for name, slot in {"mapped": "map", "shown": "picture"}.items():
        if (place := getattr(config, slot)) is not None:
            found[name] = digest(place, PURPOSE[slot])
    if (weaker := model.weaker(config)) is not None:
        found["weaker"] = weaker.fingerprint
    if (canvas := model.canvas(config)) is not None:
        if canvas.free is not None and config.level > 0:
            painted_cells(canvas.free, model.codec)  # refuses a mask of all of them
        found |= {"strength": config.level, "pictures": digest(config.start)}
    if (painted := {"mask": config.mask, "outpaint": config.outpaint and list(config.outpaint)}) != {"mask": None, "outpaint": None}:
        found |= {**painted, "painting": config.painting.model_dump(mode="json")}
        found["painting"] |= {"method": "condition"} if paints_by_condition(config, model.network) else {}
        found |= {"painted": digest(config.mask)} if config.mask else {}
    try_guides(guides := model.guides(config), model.header, sides_of(config, model.header), model.engine)
    if any(stamps := [getattr(guide, "stamp", None) for guide in guides]):
        found["guided_by"] = stamps
    if config.interpolate is not None:
        found |= {"interpolate": list(config.interpolate), "between": config.between or config.count}
    tiled = model.tile is not None and max(sides_of(config, model.header)) > model.tile
    return found | ({"tile": model.tile} if tiled else {})
