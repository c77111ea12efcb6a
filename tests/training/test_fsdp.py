"""Two ranks that share a network (FSDP2) learn what one process learns, hold half of it each, and save what any number of ranks reads.

What takes two ranks is done once, by this file as a script in two processes, and looked at by the tests.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.shared import Compute, Loop
from ldmctl.diffusion.network import build_network, describe_network
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.plan import plan_fit_diffusion
from ldmctl.storage import weights
from ldmctl.storage.run import open_run
from ldmctl.training import engine as engines
from ldmctl.training import state as states
from ldmctl.training.engine import Engine
from ldmctl.training.fsdp import Spread, gathered, local, shard, whole
from ldmctl.training.learner import Learner
from ldmctl.training.order import micro_batches

TINY = Path(__file__).parents[1] / "tiny"
ALONE = Engine(torch.device("cpu"), torch.float32)
SHAPE = (3, 4, 4)
NETWORKS = {
    "unet": {"type": "unet", "widths": [8, 12], "layers": 1, "norm_groups": 4, "head_dim": 4},
    "dit": {"type": "dit", "width": 32, "depth": 2, "head_dim": 16},
}
PLAIN = Loop(lr=1e-4, warmup=1, batch=16, clip=None)
CLIPPED = PLAIN.model_copy(update={"clip": 0.1})
TRACKED = Loop(lr=1e-3, warmup=1, batch=16, keep={"averages": 1})
HOWS = {  # (loop, micro-batch, sharded, blocks computed again)
    "ddp": (PLAIN, None, False, False),
    "fsdp": (PLAIN, None, True, False),
    "micro": (PLAIN, 2, True, False),
    "recomputed": (PLAIN, None, True, True),
    "clipped": (CLIPPED, None, True, False),
}


def learner(name, loop, engine, *, sharded, seed=0, again=False):
    """A small network with a label conditioner, whose weights are nowhere zero."""
    listens = plugin_config("conditioner", {"type": "label", "dim": 8})
    described = describe_network(plugin_config("denoiser", NETWORKS[name]), listens, latent=SHAPE, classes=["a", "b", "c"])
    network = build_network(described).train()
    engines.recompute(network, again)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    return Learner(network, loop, engine, sharded=sharded)


def learn(model, steps, micro=None):
    """Optimizer steps as the stage makes them -> the whole gradients of each, by name, as the optimizer saw them."""
    seen = []
    names = [name for name, _ in model.module.named_parameters()]

    def note(*_):
        gradients = {name: parameter.grad for name, parameter in zip(names, model.parameters, strict=True)}
        seen.append({name: value.clone() for name, value in gathered(gradients, keep=True).items()})

    hook = model.optimizer.register_step_pre_hook(note)
    for step in steps:
        random = torch.Generator().manual_seed(step)
        x, goal = torch.randn(2, model.loop.batch, *SHAPE, generator=random)
        t, label = torch.rand(len(x), generator=random) * 1000, torch.randint(3, (len(x),), generator=random)
        own = model.engine.share(len(x))
        slices = micro_batches(own.stop - own.start, micro)
        for number, rows in enumerate(slices):
            part = slice(own.start + rows.start, own.start + rows.stop)
            with model.backward_context(last=number == len(slices) - 1):
                with model.engine.autocast():
                    said = model.network(x[part], t[part], label[part], label[part] == 2)
                ((said.float() - goal[part]).square().mean() * (rows.stop - rows.start) / (own.stop - own.start)).backward()
        model.update(step)
        model.track(step)
    hook.remove()
    return seen


def found_of(model, gradients):
    """Gradients, weights and average of a learner, whole and flat."""
    out = {f"{step}.{name}": value for step, each in enumerate(gradients) for name, value in each.items()}
    out |= {f"weights.{name}": value for name, value in gathered(model.module.state_dict(), keep=True).items()}
    return out | {f"average.{name}": value for name, value in gathered(model.average, keep=True).items()}


def state_of(folder):
    """What one process reads of a state: whole tensors by name, and the scalars."""
    saved, scalars = states.load(folder, ALONE)
    return {name: whole(value) for name, value in saved.items()}, scalars


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- what the two ranks do ---------------------------------------------------------------


def as_rank(out):
    """One of two ranks; what it finds is left in the folder."""
    engine = engines.start(Compute(device="cpu", precision="fp32"))
    said = {}
    for name in NETWORKS:
        for how, (loop, micro, sharded, again) in HOWS.items():
            model = learner(name, loop, engine, sharded=sharded, again=again)
            found = found_of(model, learn(model, range(3), micro))
            if engine.leads:
                weights.save(out / f"{name}-{how}.safetensors", found, {})
    half = Engine(engine.device, torch.bfloat16, engine.rank, engine.world)
    for how, sharded in {"ddp-bf16": False, "fsdp-bf16": True}.items():
        model = learner("dit", CLIPPED, half, sharded=sharded, again=sharded)
        found = found_of(model, learn(model, range(3), 2))
        if engine.leads:
            weights.save(out / f"dit-{how}.safetensors", found, {})
    said["held"], said["all"] = held_by(engine)
    said["skipped"] = skipped_by(engine)
    said["narrow"] = narrow(engine, out)
    said["averaged"] = seen_averaged(engine)
    go_on(engine, out)
    said["damaged"] = refused(engine, out)
    (out / f"{engine.rank}.json").write_text(json.dumps(said))
    engine.barrier()
    engine.close()


def held_by(engine):
    """(numbers that this rank holds, numbers there are) by what they are."""
    model = learner("dit", TRACKED, engine, sharded=True)
    learn(model, range(1))
    kinds = {"weights": {}, "average": {}, "powers": {}, "optimizer": {}}
    for name, value in model.state("m").items():
        kind = name.split(".")[1]
        if kind in kinds and value.dim():
            kinds[kind][name] = value
    counted = lambda count: {kind: sum(count(value) for value in tensors.values()) for kind, tensors in kinds.items()}
    return counted(lambda value: local(value).numel()), counted(lambda value: value.numel())


def skipped_by(engine):
    """Whether a step that is not finite on the last rank alone is skipped, and the next one is not."""
    model = learner("dit", TRACKED, engine, sharded=True)
    learn(model, range(1))
    said = []
    for poison in (float("nan"), 1.0):
        before = {name: local(value).clone() for name, value in model.module.state_dict().items()}
        x = torch.ones(2, *SHAPE) * (poison if not engine.leads else 1.0)
        model.network(x, torch.tensor([3.0, 700.0]), torch.tensor([0, 2])).square().mean().backward()
        _, bad = model.update(1)
        said += [float(bad), all(torch.equal(local(value), before[name]) for name, value in model.module.state_dict().items())]
    return said


def narrow(engine, out):
    """Whether a layer of one row, of which the last rank holds nothing, is learned, saved and read."""

    def layers():
        return Learner(nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1)), TRACKED, engine, sharded=True)

    model = layers()
    model.network(torch.ones(2, 5)).square().mean().backward()
    model.update(0)
    model.track(0)
    (out / "narrow").mkdir(exist_ok=True)
    states.save(out / "narrow", model.state("m"), {"step": 1}, engine)
    engine.barrier()  # the first rank has written what the others read
    other = layers()
    other.restore("m", states.load(out / "narrow", engine)[0])
    last = local(other.module[1].weight)
    return [last.numel(), all(torch.equal(local(value), local(model.state("m")[name])) for name, value in other.state("m").items())]


def seen_averaged(engine):
    """Whether a look at the averages shows them, to the whole network and to its parts, and puts the weights back."""
    model = learner("dit", TRACKED, engine, sharded=True)
    learn(model, range(2))
    before, average = (gathered(tensors, keep=True) for tensors in (model.module.state_dict(), model.average))
    before = {name: value.clone() for name, value in before.items()}
    peer = learner("dit", TRACKED, ALONE, sharded=False)
    peer.module.load_state_dict(average)
    x, t, label = torch.ones(2, *SHAPE), torch.tensor([3.0, 700.0]), torch.tensor([0, 2])
    with model.averaged() as network, torch.no_grad():
        parts = network.denoiser(x, t, network.condition(label))
        shown = [torch.equal(network(x, t, label), peer.module(x, t, label)), torch.equal(parts, peer.module(x, t, label))]
    back = gathered(model.module.state_dict(), keep=True)
    return [*shown, same(before, back), not same(before, average), model.module.training]


def go_on(engine, out):
    """Runs of six steps: straight, interrupted, read by one rank and by DDP, and killed while it saved."""

    def save(model, folder, step, engine=engine):
        (out / folder).mkdir(exist_ok=True)
        states.save(out / folder, model.state("m"), {"step": step}, engine)

    def restored(folder, engine=engine, *, sharded=True):
        saved, scalars = states.load(out / folder, engine)
        model = learner("dit", TRACKED, engine, sharded=sharded, seed=9)
        model.restore("m", saved)
        return model, scalars["step"]

    model = learner("dit", TRACKED, engine, sharded=True)
    learn(model, range(3))
    save(model, "half", 3)
    learn(model, range(3, 6))
    save(model, "straight", 6)
    model, _ = restored("half")
    learn(model, range(3, 6))
    save(model, "resumed", 6)

    # two ranks -> one -> two with DDP -> two that share
    if engine.leads:
        save(restored("half", ALONE, sharded=False)[0], "one", 3, ALONE)
    engine.barrier()
    save(restored("one", sharded=False)[0], "ddp", 3)
    engine.barrier()
    save(restored("ddp")[0], "fsdp", 3)
    if engine.leads:
        model, _ = restored("half", ALONE, sharded=False)
        learn(model, range(3, 6))
        save(model, "alone", 6, ALONE)

    # a process that ends after the ranks' files and before the one that names them
    model, step = restored("half")
    save(model, "killed", step)
    learn(model, range(3, 6))
    write = weights.save

    def ends(path, *rest):
        if path.name == states.FILE:
            raise KeyboardInterrupt
        write(path, *rest)

    with mock.patch.object(weights, "save", ends):
        try:
            save(model, "killed", 6)
        except KeyboardInterrupt:
            assert engine.leads
    engine.barrier()
    if engine.leads:
        shutil.copytree(out / "killed", out / "mended")
    engine.barrier()
    model, step = restored("mended")
    learn(model, range(step, 6))
    save(model, "mended", 6)


def refused(engine, out):
    """What a rank says of a damaged file that another rank reads, of one that is gone, and of a folder that only one of them sees."""
    said = []
    for number, damage in [(0, lambda file: file.write_bytes(bytes(file.stat().st_size))), (1, Path.unlink)]:
        folder = out / f"damaged-{number}"
        if engine.leads:
            shutil.copytree(out / "half", folder)
            damage(folder / f"state-000000003-0000{number}-of-00002.safetensors")
        engine.barrier()
        try:
            states.load(folder, engine)
        except MismatchError as error:
            said.append(str(error))
    try:
        states.load(out / ("half" if engine.leads else "elsewhere"), engine)
    except MismatchError as error:
        said.append(str(error))
    return said


# -- what they found -----------------------------------------------------------------------


def on_two_ranks(*command, **environment):
    """A command in two processes, as torchrun starts them; -> their last words if both end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
    begun = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=600)[1] for process in begun]
    assert [process.returncode for process in begun] == [0, 0], "\n\n".join(said)
    return said


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The folder that two ranks filled, and what each of them said."""
    out = tmp_path_factory.mktemp("ranks")
    on_two_ranks(__file__, out)
    return out, [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("how", ["fsdp", "micro", "recomputed", "clipped"])
def test_gradients_weights_and_averages_are_those_of_one_rank_and_of_ddp(ranks, name, how):
    model = learner(name, HOWS[how][0], ALONE, sharded=False)
    alone = found_of(model, learn(model, range(3)))
    shared = weights.load(ranks[0] / f"{name}-{how}.safetensors")[0]
    peers = [alone] if how == "clipped" else [alone, weights.load(ranks[0] / f"{name}-ddp.safetensors")[0]]
    for peer in peers:
        assert shared.keys() == peer.keys()
        for key, value in peer.items():  # gradients reach 0.1 and more, a weight moves by 1e-4 in a step
            torch.testing.assert_close(shared[key], value, atol=1e-6, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    assert sum(bool(value.any()) for key, value in shared.items() if key.startswith("2.")) > 20, "nearly every weight had a gradient"


def test_under_autocast_gradients_and_weights_are_those_of_ddp(ranks):
    ddp, fsdp = (weights.load(ranks[0] / f"dit-{how}-bf16.safetensors")[0] for how in ("ddp", "fsdp"))
    plain = weights.load(ranks[0] / "dit-clipped.safetensors")[0]
    assert ddp.keys() == fsdp.keys() and not same(fsdp, plain)
    for key, value in ddp.items():
        torch.testing.assert_close(fsdp[key], value, atol=1e-6, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_by_all(ranks):
    assert [said["skipped"] for said in ranks[1]] == [[1.0, True, 0.0, False]] * 2


def test_each_rank_holds_half_of_weights_averages_and_optimizer(ranks):
    for said in ranks[1]:
        for kind, count in said["all"].items():
            assert count > 10_000 and said["held"][kind] == pytest.approx(count / 2, rel=0.02), kind
    assert all(sum(said["held"][kind] for said in ranks[1]) == count for kind, count in ranks[1][0]["all"].items())


def test_a_rank_that_holds_nothing_of_a_small_layer_takes_part(ranks):
    assert [said["narrow"] for said in ranks[1]] == [[3, True], [0, True]]


def test_a_look_at_the_averages_shows_them_and_puts_the_weights_back(ranks):
    assert [said["averaged"] for said in ranks[1]] == [[True] * 5] * 2


def test_a_run_that_was_interrupted_ends_the_same_bit_for_bit(ranks):
    (straight, scalars), (resumed, _) = (state_of(ranks[0] / folder) for folder in ("straight", "resumed"))
    assert same(straight, resumed) and scalars["step"] == 6
    assert not same(straight, state_of(ranks[0] / "half")[0])
    assert {name.split(".")[1] for name in straight} == {"weights", "average", "powers", "optimizer", "scale", "growth"}


def test_any_number_of_ranks_goes_on_with_the_same_weights(ranks):
    half = state_of(ranks[0] / "half")[0]
    for folder, files in {"one": 1, "ddp": 1, "fsdp": 3}.items():
        assert same(half, state_of(ranks[0] / folder)[0]), folder
        assert len(list((ranks[0] / folder).iterdir())) == files, folder
    straight, alone = (state_of(ranks[0] / folder)[0] for folder in ("straight", "alone"))
    for name in straight:
        torch.testing.assert_close(alone[name], straight[name], atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_a_process_killed_before_the_commit_leaves_the_older_state(ranks):
    names = lambda folder: sorted(path.name for path in (ranks[0] / folder).iterdir())
    shards = lambda step: [f"state-{step:09d}-{rank:05d}-of-00002.safetensors" for rank in range(2)]
    assert names("killed") == [*shards(3), *shards(6), "state.safetensors"]
    tensors, scalars = state_of(ranks[0] / "killed")
    assert scalars["step"] == 3 and same(tensors, state_of(ranks[0] / "half")[0])
    assert names("mended") == [*shards(6), "state.safetensors"], "the next state leaves nothing of the older ones"
    assert same(state_of(ranks[0] / "mended")[0], state_of(ranks[0] / "straight")[0])


def test_all_ranks_refuse_a_damaged_file_by_its_name(ranks):
    for said in ranks[1]:
        assert len(said["damaged"]) == 3
        assert "all machines must see the same run folder" in said["damaged"][2]
        assert "state-000000003-00000-of-00002.safetensors is damaged: its SHA-256 is another" in said["damaged"][0]
        assert "state-000000003-00001-of-00002.safetensors is missing" in said["damaged"][1]


def test_a_cut_file_is_refused_by_its_name_with_exit_code_6(ranks, tmp_path):
    shutil.copytree(ranks[0] / "half", tmp_path / "cut")
    file = tmp_path / "cut" / "state-000000003-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(MismatchError, match=r"state-000000003-00001-of-00002\.safetensors is damaged: it has [\d,]+ bytes of") as caught:
        states.load(tmp_path / "cut", ALONE)
    assert caught.value.exit_code == 6 and "--overwrite" in str(caught.value)


def test_a_state_of_another_network_is_refused(ranks):
    saved, _ = states.load(ranks[0] / "half", ALONE)
    with pytest.raises(MismatchError, match="The saved state is of another m"):
        learner("unet", TRACKED, ALONE, sharded=False).restore("m", saved)


def test_overwrite_deletes_the_ranks_files_and_no_others(ranks, tmp_path, tiny):
    open_run(tmp_path / "run", tiny("fit-ae")).close("finished")
    shutil.copytree(ranks[0] / "half", tmp_path / "run", dirs_exist_ok=True)
    (tmp_path / "run" / "state-of-mind.txt").write_text("mine")
    open_run(tmp_path / "run", tiny("fit-ae"), overwrite=True).close("finished")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "config.yaml", "run.json", "state-of-mind.txt"]


# -- what takes one process ---------------------------------------------------------------------


def test_rows_that_stand_in_several_files_are_one_tensor():
    tensor = torch.arange(14).view(7, 2)
    spread = Spread(7, [(3, tensor[3:6]), (0, tensor[:3]), (6, tensor[6:])])
    assert spread.shape == tensor.shape and torch.equal(whole(spread), tensor)
    for start, stop in [(0, 1), (2, 4), (2, 7), (6, 7), (4, 4)]:
        assert torch.equal(spread[start:stop], tensor[start:stop])


def test_a_number_without_rows_cannot_be_shared():
    network = nn.Linear(2, 2)
    network.temperature = nn.Parameter(torch.ones(()))
    with pytest.raises(ConfigError, match=r"machine\.parallel=fsdp cannot share temperature: .* Take machine\.parallel=ddp\."):
        shard(network, torch.device("cpu"))


def test_the_first_stage_and_a_compiled_network_refuse_it_with_a_sentence(tiny):
    with pytest.raises(ConfigError, match=r"machine\.parallel: fsdp shares large denoisers among devices \(fit-diffusion\); fit-ae trains"):
        tiny("fit-ae", "machine.parallel=fsdp")
    with pytest.raises(ConfigError, match="parallel=fsdp is not compiled: take compile=false, or auto"):
        tiny("fit-diffusion", "machine.parallel=fsdp", "machine.compile=true", below={"latents": "nowhere"})
    assert tiny("fit-diffusion", "machine.parallel=fsdp", below={"latents": "nowhere"}).machine.parallel == "fsdp"


def test_a_dry_run_says_the_memory_of_one_device(tiny, vae_cache):
    plans = [
        plan_fit_diffusion(tiny("fit-diffusion", f"latents={vae_cache}", f"machine.parallel={parallel}", "machine.devices=2"))
        for parallel in ("ddp", "fsdp")
    ]
    said = [plan["memory"].split()[1:3] for plan in plans]
    ddp, fsdp = (float(number) * {"kB": 1, "MB": 1000}[unit] for number, unit in said)
    assert 0.5 * ddp < fsdp < 0.95 * ddp
    assert "time" in plans[0] and "time" not in plans[1]


def test_on_one_device_it_changes_nothing_and_it_may_change_on_resume(tmp_path, fit_diffusion, vae_cache):
    plain = fit_diffusion(tmp_path / "plain", vae_cache)
    shared = fit_diffusion(tmp_path / "shared", vae_cache, "machine.parallel=fsdp")
    for name in ("state.safetensors", "model.safetensors"):
        assert (plain / name).read_bytes() == (shared / name).read_bytes()
    fit_diffusion(tmp_path / "shared", vae_cache, "machine.parallel=ddp", "loop.steps=5")
    assert state_of(shared)[1]["step"] == 5


@pytest.mark.slow
def test_a_stage_on_two_ranks_leaves_the_files_that_ddp_leaves(tmp_path, fit_diffusion, vqvae_cache):
    words = ["loop.lr=1e-4", "loop.warmup=1", "loop.clip=null", "preview.count=1", "loop.preview=2", "loop.keep.averages=2"]
    alone = fit_diffusion(tmp_path / "alone", vqvae_cache, *words)
    both = tmp_path / "both"
    command = ["-m", "ldmctl", "fit-diffusion", "--config", TINY / "fit-diffusion.yaml", "--out", both, f"latents={vqvae_cache}"]
    on_two_ranks(*command, *words, "machine.parallel=fsdp", "loop.micro=auto")
    files = sorted(str(path.relative_to(alone)) for path in alone.rglob("*") if path.suffix in (".safetensors", ".png"))
    assert len(files) == 10
    shards = [f"state-000000004-0000{rank}-of-00002.safetensors" for rank in range(2)]
    there = sorted(str(path.relative_to(both)) for path in both.rglob("*") if path.suffix in (".safetensors", ".png"))
    assert there == sorted([*files, *shards])
    for name in files:
        if name.endswith(".safetensors") and name != "state.safetensors":
            one, header = weights.load(alone / name)
            other, told = weights.load(both / name)
            assert header == told and list(one) == list(other), name
            for key, value in one.items():
                assert other[key].dtype == value.dtype
                torch.testing.assert_close(other[key], value, atol=1e-5, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    said = [
        [json.loads(line).get("val/loss") for line in (run / "metrics.jsonl").read_text().splitlines() if "val/loss" in line]
        for run in (alone, both)
    ]
    assert said[0] == pytest.approx(said[1], rel=1e-4) and len(said[0]) == 2
    assert state_of(both)[1]["kept"]["best"] == pytest.approx(state_of(alone)[1]["kept"]["best"], rel=1e-4)
    fit_diffusion(both, vqvae_cache, *words, "loop.steps=5")
    assert state_of(both)[1]["step"] == 5 and not [name for name in shards if (both / name).exists()]


@pytest.mark.slow
def test_a_stage_on_two_ranks_goes_on_where_it_was_bit_for_bit(tmp_path, vqvae_cache):
    command = ["-m", "ldmctl", "fit-diffusion", "--config", TINY / "fit-diffusion.yaml", f"latents={vqvae_cache}", "machine.parallel=fsdp"]
    words = ["preview.count=1", "loop.preview=2", "loop.keep.averages=2", "weighting.kind=learned", "loop.checkpointing=true"]
    for folder, steps in [("whole", 6), ("parts", 3), ("parts", 6)]:
        on_two_ranks(*command, *words, "--out", tmp_path / folder, f"loop.steps={steps}")
        if steps == 3:
            (tmp_path / "parts" / "model.safetensors").unlink()
            on_two_ranks(*command, *words, "--out", tmp_path / folder, f"loop.steps={steps}")
            assert weights.read_header(tmp_path / "parts" / "model.safetensors")["step"] == 3, "it is made again of the state"
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.suffix in (".safetensors", ".png")]
    assert len(files) == 2 + 3 + 3 + 6 + 1
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


if __name__ == "__main__":
    as_rank(Path(sys.argv[1]))
