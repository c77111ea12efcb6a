"""A dry run says what one device needs, and refuses what the command itself would refuse."""

import re

import pytest
import torch
from torch import nn

from ldmctl.config.schemas.shared import Loop
from ldmctl.errors import ConfigError, DataError
from ldmctl.plan import plan_fit_ae, plan_fit_diffusion, timed_count
from ldmctl.training.costs import held_bytes
from ldmctl.training.engine import Engine
from ldmctl.training.flops import parameter_count
from ldmctl.training.learner import Learner

UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
SHARED = "machine.parallel=fsdp"


@pytest.fixture
def planned(tiny, vae_cache):
    """planned("loop.micro=2") -> the plan of a fit-diffusion."""
    return lambda *words: plan_fit_diffusion(tiny("fit-diffusion", f"latents={vae_cache}", *words))


def memory(plan):
    """(bytes, pictures per forward) that a plan names."""
    number, unit = plan["memory"].split()[1:3]
    return float(number) * UNITS[unit], int(re.search(r"with (\d+) pictures per forward", plan["memory"])[1])


def test_memory_is_that_of_a_device_with_its_share_of_the_batch(planned):
    whole, share, small = (
        memory(planned(*words)) for words in (["loop.batch=64"], ["loop.batch=64", "machine.devices=8"], ["loop.batch=8"])
    )
    assert (whole[1], share[1]) == (64, 8) and share == small and share[0] < whole[0]
    assert memory(planned("loop.batch=64", "machine.devices=8", SHARED))[1] == 8
    assert memory(planned("loop.batch=64", "machine.devices=8", SHARED))[0] < share[0]


@pytest.mark.parametrize(("micro", "pictures"), [("null", 8), ("2", 2), ("16", 8), ("auto", 8)])
def test_a_forward_takes_no_more_pictures_than_a_device_has(planned, micro, pictures):
    plan = planned("loop.batch=64", "machine.devices=8", f"loop.micro={micro}")
    assert memory(plan)[1] == pictures and ("fewer where they have no room" in plan["memory"]) == (micro == "auto")


def test_an_autoencoder_has_the_memory_of_one_device_too(tiny):
    whole, share = (memory(plan_fit_ae(tiny("fit-ae", "loop.batch=64", *words))) for words in ([], ["machine.devices=8"]))
    assert (whole[1], share[1]) == (64, 8) and share[0] < whole[0]


BUSY = r"(\. Other processes used \d+% of the processors while this was measured: on a quiet machine it is less)?"


def test_the_time_of_a_fit_ae_is_said_with_and_without_its_discriminator(tiny):
    alone, both = (plan_fit_ae(tiny("fit-ae", *words))["time"] for words in ([], ["discriminator={type: patchgan, widths: [8]}"]))
    assert re.fullmatch(rf"about .+ in all: [\d.,e+]+ pictures/s, by a step of [1-8]{BUSY}", alone)
    assert re.fullmatch(rf"about .+ in all: [\d.,e+]+ pictures/s, [\d.,e+]+ with the discriminator, by a step of [1-8]{BUSY}", both)


def test_the_memory_of_a_perceptual_loss_is_counted(tiny, towers):
    slot = f"perceptual={{type: features, network: squeezenet1_1, weights: {towers['features']}}}"
    alone, with_it = (plan_fit_ae(tiny("fit-ae", "image.size=32", *words)) for words in ([], [slot]))
    assert memory(with_it)[0] > 1.05 * memory(alone)[0] and "time" in with_it


def test_previews_that_cannot_be_made_are_refused(planned):
    with pytest.raises(ConfigError, match=r"preview\.guidance=3 needs a network that also learns without labels"):
        planned("drop=0", "preview.guidance=3")


@pytest.mark.parametrize("every", [0, 1])
def test_what_is_held_is_what_a_learner_holds_with_the_averages_that_are_kept(every):
    network, loop = nn.Linear(100, 100), Loop(keep={"averages": every})
    model = Learner(network, loop, Engine(torch.device("cpu"), torch.float32))
    network(torch.ones(1, 100)).sum().backward()
    gradients = sum(parameter.grad.nbytes for parameter in network.parameters())
    model.update(0)
    count = parameter_count(network)
    held = gradients + sum(value.nbytes for value in model.state("network").values())
    assert held_bytes(loop, count, averaged=count) == pytest.approx(held, abs=64), "scalars are not counted"


def test_averages_that_are_kept_are_in_the_plan(planned):
    plain, kept = (planned("loop.batch=1", f"loop.keep.averages={every}") for every in (0, 2))
    assert memory(plain)[0] < memory(kept)[0]
    assert "for each pair of averages" in kept["disk"] and "averages" not in plain["disk"]


def test_what_the_command_would_refuse_is_refused(planned, tiny):
    with pytest.raises(ConfigError, match=r"flip=true, but .* holds no mirrored variants"):
        planned("flip=true")
    for plan in (planned, lambda *words: plan_fit_ae(tiny("fit-ae", *words))):
        with pytest.raises(ConfigError, match=r"loop\.batch=10 cannot be shared by 3 devices; take a multiple of 3\."):
            plan("loop.batch=10", "machine.devices=3")


@pytest.mark.parametrize(
    ("affordable", "left", "count"),
    [(1e9, 1e9, 64), (10.7, 1e9, 10), (0.2, 1e9, 1), (1e9, 7 * 200.0, 7), (1e9, 199.0, 0), (0.2, 199.0, 0), (1e9, -1.0, 0)],
)
def test_a_timed_step_takes_what_time_and_room_allow(affordable, left, count):
    assert timed_count(64, affordable, left, 100) == count


def test_where_a_step_has_no_room_the_time_is_left_out(planned):
    assert planned("loop.micro=auto", "machine.memory=0.001")["time"].startswith("not measured: there seems to be no room")
    assert "latents/s" in planned("loop.micro=8", "machine.memory=0.001")["time"], "machine.memory is for loop.micro=auto"
    assert "by one step of 4 " in planned("machine.devices=2")["time"]


def test_pictures_too_small_for_the_perceptual_loss_are_refused(tiny, towers):
    words = ["image.size=12", f"perceptual={{type: lpips, weights: {towers['lpips']}}}"]
    with pytest.raises(DataError, match="lpips needs pictures of at least 16 x 16 pixels, these have 12 x 12"):
        plan_fit_ae(tiny("fit-ae", *words))
    assert "its weights are there" in plan_fit_ae(tiny("fit-ae", *words, "image.size=16"))["perceptual"]
    assert "its weights are there" in plan_fit_ae(tiny("fit-ae", *words, "autoencoder=identity"))["perceptual"], "it learns nothing by it"
