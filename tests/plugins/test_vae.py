"""The VAE's divergence: how it is counted, and how its weight moves in the course of a training."""

import copy
import math
import socket

import pytest
import torch
import torch.multiprocessing as mp
from pydantic import ValidationError
from torch import nn

from ldmctl import registry
from ldmctl.testing import check_autoencoder

VAE = registry.load("autoencoder", "vae")
SMALL = {"widths": [4, 8], "layers": 1, "channels": 2, "norm_groups": 4, "attention": False}


def make(**keys: object) -> nn.Module:
    torch.manual_seed(0)
    return VAE(VAE.Config(type="vae", **{**SMALL, **keys}), image_channels=1).train()


def pictures(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def constant(vae: nn.Module, mean: float, logvar: float) -> nn.Module:
    """The VAE, but all of whose moments are these."""
    nn.init.zeros_(vae.quant_conv.weight)
    with torch.no_grad():
        vae.quant_conv.bias.copy_(torch.tensor([mean] * vae.channels + [logvar] * vae.channels))
    return vae


def divergence(mean: float, logvar: float) -> float:
    """Nats of one element."""
    return (mean**2 + math.exp(logvar) - 1 - logvar) / 2


def step(vae: nn.Module, image: torch.Tensor, micro: int = 1) -> float:
    """What a training step does to the VAE, its weights aside -> the divergence's weight in it."""
    for part in image.chunk(micro):
        weight = vae(part, torch.Generator().manual_seed(0)).facts["kl_weight"]
    vae.after_step()
    return weight.item()


# -- what is counted ---------------------------------------------------------------


def test_the_penalty_is_a_mean_over_latent_elements_and_facts_say_their_unit():
    vae, one = constant(make(kl_weight=0.5), 1.5, -0.7), divergence(1.5, -0.7)
    out = vae(pictures())
    assert out.penalties["kl"].item() == pytest.approx(0.5 * one)
    assert out.facts["kl_per_element"].item() == pytest.approx(one)
    assert out.facts["kl_per_pixel"].item() == pytest.approx(one * 2 * 4 * 4 / (8 * 8))
    assert set(out.facts) == {"kl_per_pixel", "kl_per_element", "latent_deviation", "latent_max"}


def test_bits_are_the_divergence_of_each_picture():
    moments = torch.zeros(3, 4, 5, 6)
    moments[1, :2] = 1.0  # mean
    moments[2, 2:] = 1.0  # log-variance
    expected = [0.0, 60 * 0.5 / math.log(2), 60 * (math.e - 2) / 2 / math.log(2)]
    assert make().bits(moments).tolist() == pytest.approx(expected)


def test_bits_near_the_standard_normal_are_never_negative():
    moments = 1e-4 * torch.randn(64, 4, 8, 8)
    bits = make().bits(moments)
    assert (bits > 0).all()
    mean, logvar = moments.double().chunk(2, dim=1)
    exact = (mean.square() + logvar.expm1() - logvar).sum((1, 2, 3)) / 2 / math.log(2)
    torch.testing.assert_close(bits.double(), exact, rtol=0.02, atol=0)


def test_a_log_variance_beyond_its_range_counts_as_its_end():
    vae = make()
    wild, ends = torch.tensor([0.0, 0.0, 1e4, -1e4]), torch.tensor([0.0, 0.0, 20.0, -30.0])
    assert torch.equal(vae.bits(wild.view(1, 4, 1, 1)), vae.bits(ends.view(1, 4, 1, 1)))
    assert vae.bits(wild.view(1, 4, 1, 1)).isfinite().all()


def test_a_plain_vae_has_the_state_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=4,
    )
    ours = make(attention=True)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    assert ours.after_step() == []


def test_what_decodes_is_named():
    vae = make()
    assert vae.decoding == ("post_quant_conv", "decoder")
    assert vae.last_layer is vae.decoder.conv_out.weight


@pytest.mark.parametrize("keys", [{"kl_warmup": 3}, {"kl_target": 0.5, "kl_weight": 0.1}])
def test_a_vae_whose_weight_moves_keeps_the_promises_of_all(keys):
    check_autoencoder(VAE, **SMALL, **keys)


# -- warm-up -----------------------------------------------------------------------


def test_the_weight_rises_linearly_from_0():
    vae = make(kl_weight=0.5, kl_warmup=4)
    assert [step(vae, pictures()) for _ in range(6)] == pytest.approx([0, 0.125, 0.25, 0.375, 0.5, 0.5])


def test_the_penalty_is_weighed_by_the_weight_that_is_reported():
    vae = make(kl_weight=0.5, kl_warmup=4)
    step(vae, pictures())
    out = vae(pictures())
    assert out.penalties["kl"].item() == pytest.approx(0.125 * out.facts["kl_per_element"].item())


def test_micro_batches_count_as_one_step():
    vae = make(kl_weight=0.5, kl_warmup=4)
    assert [step(vae, pictures(), micro=4) for _ in range(3)] == pytest.approx([0, 0.125, 0.25])


# -- target ------------------------------------------------------------------------


def test_too_much_divergence_raises_the_weight_and_too_little_lowers_it():
    many, few = constant(make(kl_target=0.5, kl_weight=0.1), 3, 0), constant(make(kl_target=0.5, kl_weight=0.1), 0.1, 0)
    assert [step(many, pictures()) for _ in range(3)] == pytest.approx([0.1 * math.exp(0.02 * i) for i in range(3)])
    assert [step(few, pictures()) for _ in range(3)] == pytest.approx([0.1 * math.exp(-0.02 * i) for i in range(3)])


def test_at_the_target_the_weight_stays():
    vae = constant(make(kl_target=divergence(1, 0) * 2 * 16 / 64, kl_weight=0.1), 1, 0)
    assert [step(vae, pictures()) for _ in range(3)] == pytest.approx([0.1] * 3)


def test_during_the_warm_up_the_factor_waits():
    vae = constant(make(kl_target=0.5, kl_weight=0.1, kl_warmup=2), 3, 0)
    assert [step(vae, pictures()) for _ in range(5)] == pytest.approx([0, 0.05, 0.1, 0.1 * math.exp(0.02), 0.1 * math.exp(0.04)])


def test_the_factor_keeps_its_bounds():
    for mean, factor, end in ((3, 0.999e6, 1e6), (0.01, 1.001e-4, 1e-4)):
        vae = constant(make(kl_target=0.5, kl_weight=0.1), mean, 0)
        vae.pressure.factor.fill_(factor)
        for _ in range(3):
            step(vae, pictures())
        assert vae.pressure.factor.item() == pytest.approx(end)


def test_micro_batches_steer_as_the_whole_batch_does():
    whole, parts = (make(kl_target=0.5, kl_weight=0.1) for _ in range(2))
    image = pictures() * torch.tensor([0.0, 1.0, 2.0, 3.0]).view(4, 1, 1, 1)  # pictures that diverge by different amounts
    for _ in range(3):
        step(whole, image)
        step(parts, image, micro=4)
    assert whole.pressure.factor != 1
    torch.testing.assert_close(parts.pressure.factor, whole.pressure.factor, rtol=1e-6, atol=0)


def test_a_divergence_that_is_not_finite_moves_nothing():
    vae = make(kl_target=0.5, kl_weight=0.1)
    vae(pictures() * torch.nan)
    vae.after_step()
    assert vae.pressure.factor == 1 and vae.pressure.steps == 1


def test_only_training_steers():
    vae = constant(make(kl_target=0.5, kl_weight=0.1), 3, 0)
    with torch.no_grad():
        vae(pictures())
    vae.eval()(pictures())
    vae.after_step()
    assert vae.pressure.factor == 1


def test_a_restart_goes_on_exactly_and_forgets_what_was_tried_before():
    def run(restart_at: int | None) -> list[float]:
        vae, weights = make(kl_target=0.5, kl_weight=0.1, kl_warmup=2), []
        for number in range(8):
            if number == restart_at:
                saved = copy.deepcopy(vae.state_dict())
                vae = make(kl_target=0.5, kl_weight=0.1, kl_warmup=2)
                vae(100 * pictures())  # a probe
                vae.load_state_dict(saved)
            weights.append(step(vae, (number + 1) * pictures()))
        return weights

    assert run(None) == run(restart_at=5)


def test_a_target_needs_a_weight_to_start_from():
    with pytest.raises(ValidationError, match="kl_target multiplies kl_weight"):
        VAE.Config(type="vae", kl_target=1.0, kl_weight=0)


def test_training_meets_the_target():
    vae, target = make(kl_target=0.25, kl_weight=0.05), 0.25
    optimizer = torch.optim.AdamW(vae.parameters(), lr=5e-3)
    image, found = pictures(8), []
    for number in range(260):
        torch.manual_seed(number)
        out = vae(image)
        ((out.image - image).abs().mean() + out.penalties["kl"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        vae.after_step()
        found.append(out.facts["kl_per_pixel"])
    late = torch.stack(found[-60:])
    assert late.mean().item() == pytest.approx(target, rel=0.15)
    assert late.std() < 0.2 * target


# -- ranks -------------------------------------------------------------------------


def _one_rank(rank: int, port: int, queue: object) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    vae = make(kl_target=0.5, kl_weight=0.1)
    image = pictures() * torch.tensor([0.0, 1.0, 2.0, 3.0]).view(4, 1, 1, 1)
    for _ in range(3):
        step(vae, image[2 * rank : 2 * rank + 2])
    queue.put((rank, vae.pressure.factor.item()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_steer_together_as_one_process_does():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    ranks = mp.spawn(_one_rank, args=(port, queue), nprocs=2, join=False)
    while not ranks.join(timeout=60):
        pass
    factors = dict(queue.get() for _ in range(2))
    alone = make(kl_target=0.5, kl_weight=0.1)
    image = pictures() * torch.tensor([0.0, 1.0, 2.0, 3.0]).view(4, 1, 1, 1)
    for _ in range(3):
        step(alone, image)
    assert factors[0] == factors[1] != 1
    assert factors[0] == pytest.approx(alone.pressure.factor.item(), rel=1e-6)
