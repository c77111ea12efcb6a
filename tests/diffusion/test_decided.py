"""Every denoiser learns through every conditioner: where the condition alone decides the answer, the answer is learned."""

import encoders
import pytest
import torch
import torch.nn.functional as F

from ldmctl import registry
from ldmctl.diffusion.network import build_network, describe_network
from ldmctl.diffusion.objective import Drawn, denoising_losses
from ldmctl.latents.conditions import Known
from ldmctl.latents.prepared import padded
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
DENOISERS = {
    "unet": "denoiser={type: unet, widths: [16, 16], layers: 1, attention: [false, true], norm_groups: 4, head_dim: 8}",
    "dit": "denoiser={type: dit, width: 32, depth: 2, head_dim: 16, patch: 1}",
}
ASKED = {
    "label": ["conditions.label={type: label, dim: 16}"],
    "words": ["conditions.text={type: words, width: 16, dim: 8, depth: 1}"],
    "text": ["conditions.text={type: text, encoder: ENCODER, width: 16, dim: 8}"],
    "map": ["conditions.map=map"],
    "inpaint": ["conditions.picture={type: inpaint, full: 0, grow: 0}"],
    "lowres": ["conditions.picture={type: lowres, factor: 2}"],
}
CAPTIONS = {
    "words": ["a dark square", "a bright square", "the brightest of all squares"],
    "text": ["a red circle", "a blue circle", "a large green star on white"],  # words that the encoder of the tests knows
}
LEVELS = torch.tensor([-1.0, 0.0, 1.0])
COUNT, SIDE = 24, 4  # latents 1 x 4 x 4 of pictures 8 x 8


def problem(kind, network, random):
    """(what is known of COUNT items, the answers [COUNT,1,4,4] that follow from it)."""
    which = torch.randint(0, 3, (COUNT,), generator=random)
    flat = LEVELS[which].view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE)
    if kind == "label":
        return {"label": which}, flat
    if kind in CAPTIONS:
        return {"text": Known(padded(network.text.prepare([CAPTIONS[kind][each] for each in which])))}, flat
    cells = torch.randint(0, 2, (COUNT, 1, SIDE, SIDE), generator=random)
    if kind == "map":
        return {"map": Known(cells.repeat_interleave(2, 2).repeat_interleave(2, 3).to(torch.uint8))}, cells * 2.0 - 1
    if kind == "lowres":
        return {"picture": Known((cells * 255).to(torch.uint8))}, cells * 2.0 - 1
    latent = cells * 2.0 - 1
    return {"picture": Known({"latent": latent, "mask": torch.zeros(COUNT, 1, SIDE, SIDE)})}, latent


def drawn(kind, network, step, *, drop=0.2):
    """A batch of noise alone, so that nothing but the condition tells the answer."""
    random = torch.Generator().manual_seed(step)
    known, answer = problem(kind, network, random)
    x, dropped = torch.randn(COUNT, 1, SIDE, SIDE, generator=random), torch.rand(COUNT, generator=random) < drop
    none = torch.zeros(COUNT)
    labels = known.pop("label", torch.full((COUNT,), -1))
    return Drawn(x, none + 999, answer.float(), labels, dropped, none + 1, none, known)


@torch.no_grad()
def loss(network, batch):
    """The mean loss of a batch, of a network that is not training meanwhile."""
    network.eval()
    found = denoising_losses(network, batch, CPU).mean()
    network.train()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("denoiser", DENOISERS)
def test_what_the_condition_decides_is_learned_and_the_null_knows_nothing(tiny, tmp_path, denoiser, kind):
    encoder = str(encoders.save("bert", tmp_path / "encoder")) if kind == "text" else ""
    asked = [words.replace("ENCODER", encoder) for words in ASKED[kind]]
    config = tiny("fit-diffusion", "conditioner=null", DENOISERS[denoiser], *asked)
    told = {"channels": 1, "size": [SIDE, SIDE], "image_channels": 1, "factor": 2, "side": 2 * SIDE}
    others = {}
    if config.conditions.text is not None:
        fitted = registry.load("conditioner", kind).fit(config.conditions.text, CAPTIONS[kind])
        others["text"] = (config.conditions.text, {"fitted": fitted})
    if config.conditions.map is not None:
        others["map"] = (config.conditions.map, {"maps": {"classes": ["ground", "thing"], "channels": 1}, "factor": 2, "size": [SIDE] * 2})
    if config.conditions.picture is not None:
        others["picture"] = (config.conditions.picture, told)
    torch.manual_seed(0)
    described = describe_network(config.denoiser, config.conditions.label, latent=(1, SIDE, SIDE), classes=["a", "b", "c"], others=others)
    network = build_network(described).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    for step in range(400):
        optimizer.zero_grad()
        denoising_losses(network, drawn(kind, network, step), CPU).mean().backward()
        optimizer.step()
        if step % 25 == 24 and loss(network, drawn(kind, network, 1000, drop=0)) < 0.05:
            break
    heard, batch = loss(network, drawn(kind, network, 1000, drop=0)), drawn(kind, network, 1000, drop=1.1)
    silent = loss(network, batch)
    assert heard < 0.1, "the answer is in the condition"
    assert silent > 0.5 * F.mse_loss(batch.target, torch.zeros_like(batch.target)), "and nowhere else"
