"""What a denoiser starts from: the averaged weights of an earlier run, whose network must be the one that is asked for."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldmctl.config.differences import flatten
from ldmctl.config.network_origins import find
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.errors import MismatchError
from ldmctl.latents.manifest import DRIFT, Manifest, Statistics, drift
from ldmctl.storage import weights


def load_initial_network(config: FitDiffusion, network: nn.Module, manifest: Manifest) -> list[str]:
    """Put the weights that `init` names into a network, denoiser and conditioner -> sentences on what was taken and what was not.

    Rows of a table of classes go by the names of the classes; those of new ones stay as they were drawn. All else must be there
    and fit, or it is a MismatchError that names the keys in which the two differ.
    """
    assert config.init is not None
    origin = find(config.init)
    tensors, header = weights.load(origin.file)
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    before, now = header["classes"], manifest.classes
    for name, table in tensors.items():
        if name.startswith("conditioner.") and name in state and before != now and (rows := extra_rows(table, before, state[name], now)):
            tensors[name] = by_class(table, before, state[name], now, spare=rows - 1)
    wrong = sorted(name for name in {*state, *tensors} if _shape(state, name) != _shape(tensors, name))
    asked = dict(flatten(config.model_dump(mode="json")))
    changed = [f"{key}: {value} there, {asked.get(key)} asked for" for key, value in flatten(origin.layer) if asked.get(key) != value]
    if tuple(header["latent"]) != tuple(manifest.latent):
        changed.append(f"latents: {_sides(header['latent'])} there, {_sides(manifest.latent)} in {config.latents}")
    if wrong:
        reason = changed or [f"{name}: {_said(_shape(tensors, name))} there, {_said(_shape(state, name))} here" for name in wrong[:6]]
        raise MismatchError(
            "\n  ".join([f"{origin.file} does not fit the network that is asked for:", *reason])
            + f"\nLeave such keys as {config.init} has them, or start without --init."
        )
    network.load_state_dict(tensors)
    return [
        f"Training starts from the weights of {config.init}, at step 0 and with a new optimizer."
        + (f" Keys that differ from it: {'; '.join(changed)}." if changed else ""),
        *_of_classes(before, now, listens=config.conditions.label is not None),
        *_of_latents(header, manifest, config.latents),
    ]


def extra_rows(table: Tensor, before: Sequence[str], here: Tensor, now: Sequence[str]) -> int:
    """1 for a table with a row for each class, 2 for one with one more at its end, 0 for what is no such table."""
    for spare in (1, 0):
        if (
            table.ndim
            and here.ndim
            and (len(table), len(here)) == (len(before) + spare, len(now) + spare)
            and table.shape[1:] == here.shape[1:]
        ):
            return spare + 1
    return 0


def by_class(table: Tensor, before: Sequence[str], here: Tensor, now: Sequence[str], *, spare: int) -> Tensor:
    """`here` with the rows of the classes that both have, and the `spare` ones at the end, as the table has them."""
    out = here.clone()
    for row, name in enumerate(now):
        if name in before:
            out[row] = table[before.index(name)]
    if spare:
        out[len(now) :] = table[len(before) :]
    return out


def _of_classes(before: Sequence[str], now: Sequence[str], *, listens: bool) -> list[str]:
    fresh = [name for name in now if name not in before]
    if not listens or list(before) == list(now):
        return []
    some = ", ".join(fresh[:5]) + (", ..." if len(fresh) > 5 else "")
    return [
        f"Classes go by their names: {len(now) - len(fresh)} of {len(now)} are taken from it"
        + (f", {len(fresh)} begin anew ({some})." if fresh else ".")
    ]


def _of_latents(header: dict[str, Any], manifest: Manifest, cache: str) -> list[str]:
    if header["autoencoder"]["fingerprint"] != manifest.autoencoder["fingerprint"]:
        return [f"The latents in {cache} are of another autoencoder than those it was trained on, so it has to get used to them first."]
    moved = drift(Statistics(**header["statistics"]), manifest.statistics)
    return (
        [f"Latents are whitened by the statistics of {cache}, which are {moved:.1%} of a deviation from its own."] if moved > DRIFT else []
    )


def _shape(tensors: dict[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _said(shape: torch.Size | None) -> str:
    return "none" if shape is None else str(list(shape))


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
