"""Both penalties of a discriminator at once, R1 and LeCam, teach two ranks what they teach one."""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from ldmctl import registry
from ldmctl.config.schemas.fit_ae import Adversarial
from ldmctl.config.schemas.shared import Loop
from ldmctl.losses.adversary import Adversary
from ldmctl.training.engine import Engine
from ldmctl.training.learner import Learner

STEPS, BATCH = 3, 4  # R1 in steps 0 and 2, LeCam from step 1 on: step 2 has both
MICRO = {"none": 1, "group": 2, "batch": 1, "spectral": 2}  # micro-batches by norm; statistics of a batch are those of a micro-batch
KEYS = {"start": 0, "warmup": 0, "loss": "vanilla", "r1": 1.0, "r1_every": 2, "lecam": 1.0}


def pictures(step):
    """(real, made) of the whole batch [4,3,16,16]; those of the second rank are stronger, so that a rank alone would learn something else."""
    generator = torch.Generator().manual_seed(step)
    loud = torch.tensor([0.3, 0.3, 1.0, 1.0], dtype=torch.float64).view(BATCH, 1, 1, 1)
    return [torch.randn(BATCH, 3, 16, 16, generator=generator, dtype=torch.float64) * loud for _ in range(2)]


def learned(norm, rank=0, world=1, micro=1, **keys):
    """Of each step the gradient that AdamW is given, the averages of LeCam after it, and the mean penalties, as plain numbers."""
    torch.manual_seed(0)
    plugin = registry.load("discriminator", "patchgan")
    discriminator = plugin(plugin.Config(type="patchgan", widths=[8, 8], norm=norm), image_channels=3).double().train()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter *= 5  # logits of about 1, whose penalties count
    engine = Engine(torch.device("cpu"), torch.float32, rank, world)
    learner = Learner(discriminator, Loop(lr=1e-2, warmup=0, clip=None), engine, averaged=False)
    adversary, each, found = Adversary(Adversarial(**{**KEYS, **keys}), 100), BATCH // world, []
    for step in range(STEPS):
        image, made = (rows[each * rank : each * (rank + 1)].chunk(micro) for rows in pictures(step))
        penalties = {"r1": 0.0, "lecam": 0.0}
        for part in range(micro):
            with learner.backward_context(last=part == micro - 1):
                loss, facts = adversary.discriminator_loss(learner.network, made[part], image[part], step=step, share=1 / micro)
                (loss / micro).backward()
            penalties = {name: value + float(facts.get(name, 0.0)) / micro for name, value in penalties.items()}
        gradient = torch.cat([parameter.grad.flatten() for parameter in learner.parameters])
        learner.update(step)
        learner.after_step()
        adversary.after_step(step)
        averages = [] if adversary.lecam is None else [float(adversary.lecam.real), float(adversary.lecam.fake)]
        found.append((gradient.tolist(), averages, penalties))
    return found


def _on_a_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    (Path(folder) / f"{rank}.json").write_text(json.dumps({norm: learned(norm, rank, 2, micro) for norm, micro in MICRO.items()}))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="starts processes with a file as their meeting place")
def test_r1_and_lecam_together_teach_two_ranks_what_they_teach_one(tmp_path):
    """Both are means over pictures, and LeCam's averages are of all ranks, so that nothing but rounding may differ. The networks compute in
    float64; logits, losses, the norms of R1 and batch statistics are float32 in any case, each of them good to 6e-8: what they add up to,
    and three steps of AdamW make of it, was found to be below 8e-7 of the largest gradient, and 3e-6 is left to it."""
    multiprocessing.spawn(_on_a_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for norm in MICRO:
        for step, (gradient, averages, penalties) in enumerate(learned(norm)):
            parts = [rank[norm][step] for rank in ranks]
            for part in parts:
                largest = max(map(abs, gradient))
                assert part[0] == pytest.approx(gradient, abs=3e-6 * largest, rel=0), (norm, step)
                assert part[1] == pytest.approx(averages, rel=1e-6), (norm, step)
            for name, value in penalties.items():
                assert (parts[0][2][name] + parts[1][2][name]) / 2 == pytest.approx(value, rel=1e-6), (norm, step, name)


@pytest.mark.parametrize("norm", list(MICRO))
@pytest.mark.parametrize("left_out", ["r1", "lecam"])
def test_each_of_them_is_more_than_a_thousandth_of_that_gradient(norm, left_out):
    """Else the two ranks above would prove nothing of it: a thousandth is 300 times what they may differ by."""
    (both, *_), (without, *_) = learned(norm)[STEPS - 1], learned(norm, **{left_out: 0.0})[STEPS - 1]
    gap = max(abs(one - other) for one, other in zip(both, without, strict=True))
    assert gap > 1e-3 * max(map(abs, both))
