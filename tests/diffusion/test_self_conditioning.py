"""Self-conditioning: a network hears what it last said is clean, in training, in sampling, and nowhere where it is off."""

import json
import shutil
from functools import partial

import pytest
import torch
from PIL import Image
from two_ranks import together

from ldmctl import api, registry
from ldmctl.cli.app import run as command
from ldmctl.config.documents import read_config
from ldmctl.config.editing import Guiding
from ldmctl.config.resolve import plugin_config
from ldmctl.diffusion import objective
from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.denoise import Denoise, Noise, clean_from
from ldmctl.diffusion.editing import Corrected, Edit, Look
from ldmctl.diffusion.guidance import Guidance
from ldmctl.diffusion.inpainting import Cells, Repaint
from ldmctl.diffusion.network import Network, build_network, describe_network
from ldmctl.diffusion.sampling import sample_latents
from ldmctl.diffusion.self_conditioning import LIMIT, Recalled, as_heard, with_estimate
from ldmctl.diffusion.spacing import levels
from ldmctl.errors import ConfigError
from ldmctl.latents.codec import Codec
from ldmctl.protocols import Condition
from ldmctl.storage import weights
from ldmctl.template.denoiser import Template
from ldmctl.training.engine import Engine

HOST = Engine(torch.device("cpu"), torch.float32)
ON = "self_conditioning=true"
SHAPE, COUNT = (3, 4, 4), 8
SAMPLERS = [plugin.name for plugin in registry.plugins("sampler")]
DENOISERS = {
    "unet": {"type": "unet", "widths": [8, 8], "layers": 1, "attention": [False, True], "norm_groups": 4, "head_dim": 4},
    "dit": {"type": "dit", "width": 16, "depth": 1, "head_dim": 8},
}
DIT = "denoiser={type: dit, width: 16, depth: 1, head_dim: 8}"


def plugin(kind, name, **keys):
    return registry.build(kind, plugin_config(kind, {"type": name, **keys}))


def built(name="unet", *, on=True, conditioner=None, seed=0):
    """A small network with weights that all matter."""
    torch.manual_seed(seed)
    about = describe_network(
        plugin_config("denoiser", DENOISERS[name]), conditioner, latent=SHAPE, classes=["a", "b"], self_conditioning=on
    )
    network = build_network(about)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def drawn(tiny):
    """drawn("prediction=eps", key=(...)) -> what a step learns from."""
    codec = Codec(plugin_with_channels(), HOST)

    def go(*words, key=("noise", 0, 0), rows=slice(0, COUNT), recalled=0.5):
        config = tiny("fit-diffusion", *words, below={"latents": "nowhere"})
        stored = torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(1))
        labels = torch.zeros(COUNT, dtype=torch.long)
        return objective.draw(
            config, COUNT, rows, stored, labels, codec, plugin("schedule", "cosine"), HOST, key, times=TIMES, recalled=recalled
        )

    return go


TIMES = torch.linspace(0.1, 0.9, COUNT, dtype=torch.float64)


def plugin_with_channels():
    return registry.build("autoencoder", plugin_config("autoencoder", {"type": "identity"}), image_channels=3)


class Spoken:
    """A network that keeps what it was given: of each call the estimate, None for none."""

    def __init__(self, inner):
        self.inner, self.heard = inner, []

    def __call__(self, *given, estimate=None):
        self.heard.append(estimate)
        return self.inner(*given, estimate=estimate)


# -- training --------------------------------------------------------------------


def test_off_nothing_is_said_of_it_and_the_network_is_what_it_was(drawn):
    assert all(drawn(key=("noise", 0, step)).marginal is None for step in range(8))
    off, on = (
        describe_network(plugin_config("denoiser", DENOISERS["unet"]), None, latent=SHAPE, classes=[], self_conditioning=each)
        for each in (False, True)
    )
    assert "self_conditioning" not in off and off["denoiser"]["context"]["map_channels"] == 0
    assert on["self_conditioning"] is True and on["denoiser"]["context"]["map_channels"] == SHAPE[0]
    assert isinstance(build_network(off).voice(), type(build_network(off).denoiser))


def test_half_of_the_steps_hear_the_estimate_and_what_they_learn_from_stays(drawn):
    steps = [drawn(ON, key=("noise", 0, step)) for step in range(100)]
    heard = [each.marginal is not None for each in steps]
    assert 35 < sum(heard) < 65
    plain = drawn(key=("noise", 0, 3))
    assert torch.equal(steps[3].x, plain.x) and torch.equal(steps[3].target, plain.target)
    for step in range(4):  # a rank knows as well as one process that has the whole batch, and so does a micro-batch
        part = drawn(ON, key=("noise", 0, step), rows=slice(2, 5))
        assert (part.marginal is not None) == heard[step]
        if heard[step]:
            assert torch.equal(part.marginal.sigma, steps[step].part(slice(2, 5)).marginal.sigma)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "flow"])
def test_the_estimate_is_the_clean_latent_that_the_network_finds_in_the_same_x(drawn, prediction):
    network = Spoken(built())
    step = drawn(ON, f"prediction={prediction}", recalled=1.0)
    objective.denoising_losses(network, step, HOST)
    first, second = network.heard
    assert first is None and not second.requires_grad
    alpha, sigma = plugin("schedule", "cosine").marginal(TIMES)
    said = network.inner(step.x, step.timesteps)
    torch.testing.assert_close(second, clean_from(prediction, step.x, said, alpha, sigma).clamp(-LIMIT, LIMIT).detach())


def test_without_the_estimate_the_network_is_asked_once_and_hears_zeros(drawn):
    network = built()
    spoken, step = Spoken(network), drawn(ON, recalled=0.0)
    objective.denoising_losses(spoken, step, HOST)
    assert spoken.heard == [None]
    zeros = network(step.x, step.timesteps, estimate=torch.zeros_like(step.x))
    assert torch.equal(network(step.x, step.timesteps), zeros)
    assert not torch.equal(network(step.x, step.timesteps, estimate=torch.ones_like(step.x)), zeros)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_that_of_the_second_look_and_reaches_every_weight(drawn, dtype):
    network, step = built(), drawn(ON, recalled=1.0)
    engine = Engine(torch.device("cpu"), dtype)
    objective.denoising_losses(network, step, engine).mean().backward()
    found = [parameter.grad.clone() for parameter in network.parameters()]
    assert all(bool(each.abs().sum() > 0) for each in found)
    network.zero_grad()
    with engine.autocast():
        estimate = objective.estimate_of(network, step, step.marginal, engine)
    with engine.autocast():
        said = network(step.x, step.timesteps, step.given, step.without, estimate=estimate)
    (said.float() - step.target).square().flatten(1).mean(1).mean().backward()
    for one, other in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_near_pure_noise_an_estimate_stays_within_a_limit():
    wild = torch.tensor([3.0, -float("inf"), 1e30, -4e5]).view(1, 4, 1, 1)
    assert as_heard(wild).flatten().tolist() == [3.0, -LIMIT, LIMIT, -LIMIT]


def test_it_stands_behind_the_maps():
    maps, estimate = torch.ones(2, 1, 3, 3), torch.full((2, 4, 3, 3), 2.0)
    both = with_estimate(Condition(vector=torch.zeros(2, 5), maps=maps), estimate)
    assert both.maps[0, :, 0, 0].tolist() == [1, 2, 2, 2, 2] and both.vector is not None
    assert with_estimate(None, estimate).maps is estimate


# -- sampling --------------------------------------------------------------------


class Heard:
    """A denoiser that keeps the estimate that it hears at each call, and what it says; by its condition's vector the better or the weaker."""

    def __init__(self):
        self.heard, self.said = [], []

    def __call__(self, x_t, timestep, condition):
        estimate = condition.maps
        vector = 0 if condition.vector is None else condition.vector.view(-1, 1, 1, 1)
        self.heard.append(estimate.clone())
        said = 0.6 * x_t + 0.2 * torch.sin(x_t.roll(1, -1) + timestep.view(-1, 1, 1, 1) / 500) + 0.1 * estimate + 0.3 * vector
        self.said.append(said.detach().clone())
        return said


def walk(sampler, denoise, steps=5, seeds=(1, 2)):
    schedule, noise = plugin("schedule", "cosine"), Noise(seeds, SHAPE)
    _, sigmas = levels(schedule, steps)
    return sampler(denoise, noise.first() * (1 + sigmas[0].item() ** 2) ** 0.5, sigmas, noise)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "adaptive"])
def test_with_every_sampler_an_evaluation_hears_the_one_before(name):
    heard = Heard()
    walk(plugin("sampler", name), Denoise(Recalled(heard), plugin("schedule", "cosine"), "x0"))
    assert len(heard.heard) >= 5 and not heard.heard[0].any()
    for before, now in zip(heard.said, heard.heard[1:], strict=False):
        assert torch.equal(now, as_heard(before))


def test_a_sampler_that_tries_its_steps_hears_a_first_look_at_the_same_x():
    heard = Heard()
    walk(plugin("sampler", "adaptive"), Denoise(Recalled(heard, twice=True), plugin("schedule", "cosine"), "x0"))
    assert len(heard.heard) % 2 == 0 and not any(each.any() for each in heard.heard[::2])
    assert all(torch.equal(now, as_heard(before)) for before, now in zip(heard.said[::2], heard.heard[1::2], strict=True))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_depends_on_its_seed_and_not_on_its_neighbours_nor_on_what_was_made_before(name):
    network, sampler = built(on=True), plugin("sampler", name, **({"halvings": 2} if name == "adaptive" else {}))

    def make(*seeds):
        asks = [Ask() for _ in seeds]
        more = {"prediction": "v", "shape": SHAPE, "guidance": 1.0, "steps": 4, "batch": 4}
        return sample_latents(network, plugin("schedule", "cosine"), sampler, HOST, seeds=seeds, asks=asks, **more)

    whole = make(0, 1, 2, 3)
    assert torch.equal(make(2), whole[2:3]) and torch.equal(make(3, 1), whole[[3, 1]]) and torch.equal(make(0, 1, 2, 3), whole)


def conditions(value):
    return Condition(vector=torch.full((2, 1), value))


def test_in_a_batch_of_both_halves_each_hears_what_it_said_itself():
    heard = Heard()
    denoise = Denoise(
        Recalled(heard), plugin("schedule", "cosine"), "x0", condition=conditions(1.0), null=conditions(0.0), guidance=Guidance(4.0)
    )
    walk(plugin("sampler", "heun"), denoise)
    assert all(len(each) == 4 for each in heard.heard) and not heard.heard[0].any()
    assert all(torch.equal(now, as_heard(before)) for before, now in zip(heard.said, heard.heard[1:], strict=False))


def test_within_an_interval_of_guidance_the_second_half_begins_with_what_the_first_said():
    heard = Heard()
    denoise = Denoise(
        Recalled(heard),
        plugin("schedule", "cosine"),
        "x0",
        condition=conditions(1.0),
        null=conditions(0.0),
        guidance=Guidance(3.0, Guiding(interval=(0.3, 3.0))),
    )
    walk(plugin("sampler", "ddim"), denoise, steps=8)
    rows = [len(each) for each in heard.heard]
    assert rows[0] == 2 and 4 in rows and rows[-1] == 2
    begins, ends = rows.index(4), len(rows) - rows[::-1].index(4)
    assert torch.equal(heard.heard[begins], as_heard(torch.cat([heard.said[begins - 1]] * 2)))
    assert torch.equal(heard.heard[ends], as_heard(heard.said[ends - 1][:2]))


def test_with_autoguidance_each_network_hears_itself():
    better, weaker = Heard(), Heard()
    denoise = Denoise(Recalled(better), plugin("schedule", "cosine"), "x0", guidance=2.0, weaker=Recalled(weaker), null=conditions(0.5))
    walk(plugin("sampler", "ddim"), denoise)
    for each in (better, weaker):
        assert len(each.heard) == 5
        assert all(torch.equal(now, as_heard(before)) for before, now in zip(each.said, each.heard[1:], strict=False))
    assert not torch.equal(better.heard[-1], weaker.heard[-1])


def test_corrections_change_the_sample_and_not_what_the_network_hears_of_itself():
    heard, looks = Heard(), list[Look]()
    denoise = Corrected(Denoise(Recalled(heard), plugin("schedule", "cosine"), "x0"), [lambda x, clean, sigma: torch.ones_like(x)])
    for _ in range(2):
        looks.append(denoise(torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)), 1.0))
    assert torch.equal(heard.heard[1], as_heard(heard.said[0])) and not heard.heard[1].requires_grad
    assert torch.allclose(looks[1], heard.said[1] + 1)


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_network_that_does_not_listen_to_itself_makes_what_one_without_makes(name, guidance):
    listens = plugin_config("conditioner", {"type": "label", "dim": 8})
    plain, own = (built(name, on=on, conditioner=listens) for on in (False, True))
    state = plain.state_dict()
    first = {"unet": "denoiser.conv_in.weight", "dit": "denoiser.patch_embedding.weight"}[name]
    wide = torch.zeros_like(own.state_dict()[first])
    wide[:, : state[first].shape[1]] = state[first]  # of dit: the channels of a patch come before its places
    if name == "dit":
        assert own.denoiser.patch == 1
    own.load_state_dict({**state, first: wide})
    more = {"prediction": "v", "shape": SHAPE, "guidance": guidance, "steps": 4, "batch": 2, "seeds": (3, 4), "asks": [Ask(0), Ask(1)]}
    one, other = (sample_latents(each, plugin("schedule", "cosine"), plugin("sampler", "dpmpp-2m"), HOST, **more) for each in (plain, own))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_way_of_repaint_hears_it_too(monkeypatch):
    network, heard = built(), []
    original = Recalled._heard
    monkeypatch.setattr(Recalled, "_heard", lambda self, x: (heard.append(bool(self.before is not None)), original(self, x))[1])

    known, cells = torch.zeros(1, *SHAPE), Cells(*[(torch.arange(4).view(1, 1, 1, 4) < 2).float()] * 2)
    more = {"prediction": "v", "shape": SHAPE, "guidance": 1.0, "steps": 3, "batch": 1, "seeds": [0], "asks": [Ask()]}
    edit = Edit(repaint=partial(Repaint, known, cells, 2))
    sample_latents(network, plugin("schedule", "cosine"), plugin("sampler", "ddpm"), HOST, edit=edit, **more)
    assert heard == [False, True, True, True, True], "twice down each step but the last"


# -- runs ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_run(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder whose network hears itself. Read only."""
    words = [ON, "loop.steps=6", "loop.lr=1e-2", "loop.ema=0", "loop.keep.every=3"]
    return fit_diffusion(tmp_path_factory.mktemp("own") / "ldm", vae_cache, *words)


@pytest.fixture
def home(own_run, tmp_path, monkeypatch):
    """The current folder, with a run in runs/ldm."""
    shutil.copytree(own_run, tmp_path / "runs" / "ldm")
    monkeypatch.chdir(tmp_path)
    return tmp_path


HERE = ["--device", "cpu", "--precision", "fp32", "-q"]


@pytest.mark.parametrize("words", [[], [DIT], ["conditions.picture=inpaint"], ["conditioner=null", "prediction=eps", "schedule=linear"]])
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path, fit_diffusion, vae_cache, words):
    words = [ON, "loop.decay=constant", *words]
    whole = fit_diffusion(tmp_path / "whole", vae_cache, *words, "loop.steps=5")
    fit_diffusion(tmp_path / "parts", vae_cache, *words, "loop.steps=2")
    parts = fit_diffusion(tmp_path / "parts", vae_cache, *words, "loop.steps=5")
    one, other = (weights.load(run / "model.safetensors") for run in (whole, parts))
    assert one[1] == other[1] and one[1]["self_conditioning"] is True
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert read_config(whole)["self_conditioning"] is True


def test_micro_batches_leave_the_losses_as_they_are(tmp_path, fit_diffusion, vae_cache):
    runs = [fit_diffusion(tmp_path / name, vae_cache, ON, f"loop.micro={name}") for name in ("8", "3")]
    losses = [[row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_train_what_one_trains(tmp_path, fit_diffusion, vae_cache, parallel):
    words = [ON, "loop.steps=5", "preview.count=1"]
    one = fit_diffusion(tmp_path / "one", vae_cache, *words)
    codes, said = together("fit-diffusion", tmp_path / "two", f"latents={vae_cache}", f"machine.parallel={parallel}", *words)
    assert codes == [0, 0], said
    alone, both = (weights.load(run / "model.safetensors")[0] for run in (one, tmp_path / "two"))
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ["--guidance", "2.5"],
        ["--sampler", "adaptive"],
        ["--sampler", "heun", "guiding.interval=[0.2,5]", "--guidance", "2"],
        ["--from", "b.png", "--strength", "0.6"],
        ["--from", "b.png", "--mask", "m.png"],
        ["--from", "b.png", "--mask", "m.png", "painting.method=repaint", "--sampler", "ddpm"],
        ["--guide", "colour", "guide.colour=red"],
        ["--autoguide", "runs/ldm@3", "--guidance", "2"],
    ],
)
def test_pictures_are_made_every_way_and_again_from_their_files(home, words):
    Image.effect_noise((16, 16), 50).convert("RGB").save("b.png")
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, 8, 8))
    mask.save("m.png")
    assert command(["sample", "-n", "3", "--steps", "3", "batch=4", *HERE, *words]) == 0
    assert command(["sample", "--device", "cpu", "-q", "--again", "samples/000001.png"]) == 0
    assert (home / "samples" / "000001.png").read_bytes() == (home / "again" / "000001.png").read_bytes()


def test_a_run_with_it_and_one_without_can_guide_each_other(home, fit_diffusion, vae_cache):
    fit_diffusion(home / "runs" / "plain", vae_cache, "loop.steps=2")
    for run, weaker in (("runs/ldm", "runs/plain"), ("runs/plain", "runs/ldm")):
        asked = [
            "sample",
            "--run",
            run,
            "--autoguide",
            weaker,
            "--guidance",
            "2",
            "-n",
            "1",
            "--steps",
            "2",
            "--out",
            f"by-{weaker[5:]}",
            *HERE,
        ]
        assert command(asked) == 0


def test_a_network_that_hears_itself_does_not_begin_with_one_that_does_not_nor_the_other_way_round(home, fit_diffusion, vae_cache, capsys):
    fit_diffusion(home / "runs" / "plain", vae_cache, "loop.steps=1")
    for init, asked, said in (("plain", "true", "False there, True"), ("ldm", "false", "True there, False")):
        words = ["--latents", str(vae_cache), "--init", f"runs/{init}", "--out", "runs/new", f"self_conditioning={asked}"]
        assert command(["fit-diffusion", *words, "--device", "cpu"]) == 6
        assert f"self_conditioning: {said} asked for" in capsys.readouterr().err
    assert not (home / "runs" / "new").exists()


def test_a_denoiser_that_takes_no_maps_says_so(home, vae_cache, capsys):
    registry.register("denoiser", "vectors-only", Template)
    words = ["--latents", str(vae_cache), "--out", "runs/new", "denoiser=vectors-only", "conditions.text=null", "--device", "cpu"]
    assert command(["fit-diffusion", "--dry-run", *words, ON]) == 4
    assert "choose another conditioner and no self_conditioning, or another denoiser" in capsys.readouterr().err


def test_what_it_begins_with_decides_it_and_a_run_that_goes_on_keeps_it(home, vae_cache, capsys):
    small = ["preview.count=1", "preview.steps=1", "loop.batch=8", "--latents", str(vae_cache), *HERE]
    assert command(["fit-diffusion", "--init", "runs/ldm", "--out", "runs/new", "loop.steps=1", *small]) == 0
    assert read_config(home / "runs" / "new")["self_conditioning"] is True
    assert command(["fit-diffusion", "--init", "runs/ldm", "--out", "runs/new", "loop.steps=2", "self_conditioning=false", *small]) == 6
    assert "self_conditioning: true there, false asked for" in capsys.readouterr().err


def test_levels_of_its_own_and_its_checkup_are_made(home, own_run, capsys):
    assert command(["spacing", "--run", str(own_run), "--steps", "3", "count=4", "grid=6", "--out", "s.json", *HERE]) == 0
    assert len(json.loads((home / "s.json").read_text())["levels"]) == 3
    assert command(["doctor", "--run", "runs/ldm", "--device", "cpu"]) in (0, 5)
    assert "Traceback" not in capsys.readouterr().err


def test_a_dry_run_counts_the_second_look(home, vae_cache, capsys):
    assert (
        command(["fit-diffusion", "--dry-run", "--latents", str(vae_cache), "--out", "runs/new", ON, "--device", "cpu", "loop.batch=2"])
        == 0
    )
    assert "network" in capsys.readouterr().out
    from ldmctl.training.flops import training_flops

    assert training_flops(100, self_conditioning=True) == 350 and training_flops(100, checkpointing=True, self_conditioning=True) == 450


def test_a_header_that_says_something_else_is_damaged(home):
    file = home / "runs" / "ldm" / "model.safetensors"
    tensors, header = weights.load(file)
    weights.save(file, tensors, {**header, "self_conditioning": "maybe"})
    assert command(["sample", "-n", "1", "--steps", "1", *HERE]) == 6


def test_from_python_the_network_takes_an_estimate_and_one_without_refuses_it(home, fit_diffusion, vae_cache):
    network, _, header = api.load_network("runs/ldm", device="cpu", precision="fp32")
    assert isinstance(network, Network) and network.self_conditioning
    x = torch.zeros(2, *header["latent"])
    assert not torch.equal(network(x, 500, [0, 1], estimate=x + 1), network(x, 500, [0, 1]))
    with pytest.raises(ConfigError, match=r"An estimate is as large as the latents, \[2, \d, \d, \d\]; \[1, \d, \d, \d\] was given"):
        network(x, 500, [0, 1], estimate=x[:1])
    fit_diffusion(home / "runs" / "plain", vae_cache, "loop.steps=1")
    plain, _, _ = api.load_network("runs/plain", device="cpu", precision="fp32")
    with pytest.raises(ConfigError, match="trained without self_conditioning, so it hears no estimate: leave it away"):
        plain(x, 500, [0, 1], estimate=x)
