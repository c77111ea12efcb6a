"""What a training takes: epochs, memory and disk, from the size of its network and what a forward keeps."""

from typing import Any

import torch
from torch import nn

from ldmctl.config.schemas.shared import Loop
from ldmctl.config.sharing import per_device


def costs(
    loop: Loop, devices: int, parameters: int, activations: int, train: int, val: int, *, averaged: int, share: int = 1
) -> dict[str, Any]:
    """Epochs, memory and disk of a training. Memory is that of one of the `devices`, of as many as `share` the network: what is held
    of it, and activations. `averaged` of the parameters are in the averages that loop.keep.averages asks for."""
    each, held = per_forward(loop, devices), held_bytes(loop, parameters, averaged=averaged)
    memory = held / share + each * activations
    if each < loop.batch // devices:
        memory += 4 * parameters * (1 - 1 / share)  # gradients are shared at the last micro-batch only
    fewer = ", fewer where they have no room" if loop.micro == "auto" else ""
    pairs = f", {human(8 * averaged)} for each pair of averages" if loop.keep.averages else ""
    return {
        "pictures": f"{train:,} + {val:,} held out",
        "steps": f"{loop.steps:,} of {loop.batch}, {loop.steps * loop.batch / max(train, 1):,.1f} epochs",
        "memory": f"about {human(memory)} in float32{' on each device' if devices > 1 else ''} with {each} pictures per forward{fewer}",
        "disk": f"about {human(held)}, and {human(4 * parameters)} for each snapshot{pairs}",
    }


def per_forward(loop: Loop, devices: int) -> int:
    """Pictures that a device takes at once; with loop.micro=auto at most."""
    own = per_device(loop.batch, devices)
    return min(loop.micro, own) if isinstance(loop.micro, int) else own


def held_bytes(loop: Loop, parameters: int, *, averaged: int) -> int:
    """Weights, gradients, two moments and the average, 4 bytes each; in a state the published weights take the gradients' place.
    With loop.keep.averages two more averages of the parameters that are `averaged`."""
    return 20 * parameters + (8 * averaged if loop.keep.averages else 0)


def saved_bytes(network: nn.Module, forward: Any) -> int:
    """Bytes that one forward keeps for its backward, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = forward()
    del kept
    return sum(seen.values())


def human(size: float) -> str:
    """`1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
