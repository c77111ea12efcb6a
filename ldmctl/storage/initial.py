"""What the first stage starts from: weights of a run or of diffusers, and which part of them is trained on."""

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ldmctl.config.differences import flatten
from ldmctl.config.diffusers_format import SCALES
from ldmctl.config.mapped import opened
from ldmctl.config.origins import Origin, find
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.endings import why_not_read
from ldmctl.errors import MismatchError, PluginError
from ldmctl.storage import weights

OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of attention, in diffusers before 0.15


def load_initial(init: str, autoencoder: nn.Module, config: FitAE) -> list[str]:
    """Put the weights that `init` names into an autoencoder -> sentences on what was taken and what was not.

    Every parameter must be there and fit, or it is a MismatchError that names the keys in which the two differ. Buffers
    are taken as far as both have them: they count what training did, and the autoencoder's own load hooks mind their absence.
    """
    origin = find(init)
    tensors, header = _from_diffusers(origin) if origin.published else weights.load(origin.file)
    state, buffers = autoencoder.state_dict(), {name for name, _ in autoencoder.named_buffers()}
    if header and set(tensors) - set(state):
        spare = {name for name, _ in weights.rebuild(header).named_buffers()} - set(state)
        tensors = {name: value for name, value in tensors.items() if name not in spare}
    wrong = sorted(name for name in {*state, *tensors} if _shape(state, name) != _shape(tensors, name))
    wrong = [name for name in wrong if name in tensors or name not in buffers]
    changed = _changed(origin, config)
    if wrong:
        reason = "\n".join(f"  {line}" for line in changed) or f"  its tensors are others than those of this plugin: {', '.join(wrong[:4])}"
        raise MismatchError(f"{origin.file} does not fit the autoencoder that is asked for:\n{reason}\nLeave such keys as {init} has them.")
    autoencoder.load_state_dict(tensors, strict=False)
    scales = [f"{key}={origin.published[key]}" for key in SCALES if origin.published.get(key) is not None]
    return [
        f"Training starts from the weights of {init}." + (f" Keys that differ from it: {'; '.join(changed)}." if changed else ""),
        *([f"Its {' and '.join(scales)} are left out: latents are scaled by statistics that encode-dataset measures."] if scales else []),
    ]


def decoder_only(autoencoder: nn.Module) -> None:
    """Freeze all parameters but those of the submodules in `autoencoder.decoding`, so that latents stay what they are.

    Call it after `train()`: the frozen modules are put into eval mode, in which dropout and codebooks rest.
    """
    kind, decoding = type(autoencoder).__name__, tuple(getattr(autoencoder, "decoding", ()))
    modules = dict(autoencoder.named_modules())
    if not decoding:
        raise PluginError(f"train=decoder needs an autoencoder that says which submodules only decode; {kind} has no `decoding`.")
    if unknown := [name for name in decoding if name not in modules]:
        raise PluginError(f"{kind}.decoding names {', '.join(unknown)}, and {kind} has no such submodule.")
    for name, parameter in autoencoder.named_parameters():
        parameter.requires_grad_(_below(name, decoding))
    for name, module in modules.items():
        if not _below(name, decoding) and not any(_below(each, (name,)) for each in decoding):
            module.eval()


def same_encoder(one: Any, other: Any, *, image_channels: int) -> bool:
    """Whether two autoencoders make the same latents: of one kind, with equal parameters in all but the submodules that only decode,
    and the same moments of a picture of noise."""
    if type(one) is not type(other) or one.factor != other.factor:
        return False
    decoding = tuple(getattr(one, "decoding", ()))
    first, second = ({name: value for name, value in each.named_parameters() if not _below(name, decoding)} for each in (one, other))
    if first.keys() != second.keys() or not all(torch.equal(value, second[name]) for name, value in first.items()):
        return False
    noise = torch.rand(1, image_channels, 8 * one.factor, 8 * one.factor, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = noise.to(next(one.parameters(), noise).device)
    with torch.no_grad():
        return torch.equal(one.encode(noise), other.encode(noise))


def _below(name: str, roots: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the roots or lies in one; everything lies in ""."""
    return any(not root or f"{name}.".startswith(f"{root}.") for root in roots)


def _shape(tensors: dict[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _changed(origin: Origin, config: FitAE) -> list[str]:
    """`autoencoder.kl_weight: 1 there, 2 asked for` for each key of the architecture that the config has otherwise."""
    there = {"autoencoder": origin.layer["autoencoder"], "image": {"channels": origin.layer["image"]["channels"]}}
    asked = dict(flatten(config.model_dump(mode="json")))
    return [f"{key}: {value} there, {asked.get(key)} asked for" for key, value in flatten(there) if asked.get(key) != value]


def _from_diffusers(origin: Origin) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights by our names, no header) of a model that diffusers saved."""
    tensors = {_renamed(name): value for name, value in _read(origin.file).items()}
    for name, count in (("quant_conv", 2), ("post_quant_conv", 1)):
        if origin.published.get(f"use_{name}") is False:  # ours always has both; this one passes everything on
            size = count * origin.published["latent_channels"]
            tensors |= {f"{name}.weight": torch.eye(size).view(size, size, 1, 1), f"{name}.bias": torch.zeros(size)}
    return tensors, {}


def _read(file: Path) -> dict[str, Tensor]:
    try:
        with opened(file) as mapped:
            return {name: mapped.get_tensor(name) for name in mapped.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise MismatchError(why_not_read(file, error)) from None


def _renamed(name: str) -> str:
    """The name of a weight in today's diffusers."""
    path, _, leaf = name.rpartition(".")
    module, _, last = path.rpartition(".")
    return f"{module}.{OLD_NAMES[last]}.{leaf}" if ".attentions." in name and last in OLD_NAMES else name
