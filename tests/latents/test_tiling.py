"""A picture that is computed in tiles is the picture that would have been computed whole, in the memory of one tile."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from ldmctl.config.resolve import plugin_config
from ldmctl.errors import ConfigError
from ldmctl.latents.codec import Codec
from ldmctl.latents.tiling import HALO, Tile, Whole, spans, tiled
from ldmctl.registry import build
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
STEP = 1 / 127.5  # one of 255


def autoencoder(kind="vae", attention=False, norm="group"):
    """A small network of random weights. Harder for tiles than the trained ones of benchmarks/tiling.py."""
    words = {"type": kind, "widths": [8, 16], "layers": 1, "norm": norm, "norm_groups": 4, "attention": attention}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build("autoencoder", plugin_config("autoencoder", words), image_channels=3).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "norm" in name:  # as after training: no two channels are scaled or shifted alike
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def pictures(height, width, count=1):
    """[B,3,H,W] in [-1, 1] whose corners have nothing in common: dark or bright, flat or rough."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        coarse = F.interpolate(torch.randn(count, 3, 5, 5), (height, width), mode="bicubic")
        rough = (0.3 + torch.linspace(0, 1, width)) * torch.randn(count, 3, height, width)
    return (coarse * 0.5 + rough * 0.1 + torch.linspace(-0.5, 0.5, height)[:, None]).clamp(-1, 1)


def differences(made, whole):
    """(mean, largest) absolute difference, in 255ths."""
    steps = (made - whole).abs() / STEP
    return float(steps.mean()), float(steps.max())


class Plain(nn.Module):
    """Convolutions alone, 2 pixels to a cell, with a receptive field of 2 cells to each side."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 4, 2, stride=2), nn.Conv2d(4, 2, 3, padding=1))

    def forward(self, x):
        return self.layers(x)


class Calls(TorchFunctionMode):
    """How many pixels each convolution was given."""

    def __init__(self):
        super().__init__()
        self.areas = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.conv2d, F.conv2d):
            self.areas.append(args[0].shape[-2] * args[0].shape[-1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("length", [5, 8, 9, 16, 17, 31, 100])
@pytest.mark.parametrize(("side", "halo"), [(8, 2), (8, 3), (8, 0)])
def test_tiles_answer_for_every_cell_once_and_far_from_where_they_are_cut(length, side, halo):
    row = spans(length, side, halo)
    assert [cell for span in row for cell in range(span.first, span.last)] == list(range(length))
    for span in row:
        assert span.stop - span.start == min(side, length) and span.start >= 0 and span.stop <= length
        assert span.first - span.start >= halo or span.start == 0
        assert span.stop - span.last >= halo or span.stop == length


@pytest.mark.parametrize("kind", ["vae", "vqvae", "fsq"])
def test_a_picture_that_fits_into_a_tile_comes_out_bit_for_bit_as_without_tiles(kind):
    model, image = autoencoder(kind), pictures(61, 64, 2)
    whole, inside = Codec(model, CPU), Codec(model, CPU, tile=64)
    moments = whole.encode(image)
    assert torch.equal(inside.encode(image), moments)
    assert torch.equal(inside.reconstruct(image), whole.reconstruct(image))
    latent = whole.draw(moments, torch.Generator().manual_seed(0))
    assert torch.equal(inside.decode(latent, (61, 64)), whole.decode(latent, (61, 64)))


@torch.no_grad()
def test_convolutions_alone_come_out_the_same_when_the_halo_covers_what_they_see():
    torch.manual_seed(0)
    network, image = Plain(), pictures(70, 54)
    torch.testing.assert_close(tiled(network, image, cells=(35, 27), side=12, halo=2), network(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["vae", "vqvae", "fsq"])
def test_without_attention_tiles_are_within_a_255th_of_the_whole(kind):
    model, image = autoencoder(kind), pictures(160, 128)
    whole, cut = Codec(model, CPU), Codec(model, CPU, tile=96)
    moments = whole.encode(image)
    assert (cut.encode(image) - moments).square().mean().sqrt() < 0.01 * moments.std()
    latent = getattr(model, "mode", model.draw)(moments)
    made, expected = cut.decode(latent, (160, 128)), whole.decode(latent, (160, 128))
    assert differences(made, expected)[0] < 0.5
    away = far_from_seams(80, 64, side=48)
    assert away.float().mean() > 0.4
    assert differences(made[..., away], expected[..., away])[1] < 4


@torch.no_grad()
@pytest.mark.parametrize("kind", ["vae", "vqvae", "fsq"])
def test_with_layer_norm_tiles_are_the_whole_when_the_halo_covers_what_they_see(kind):
    model, image = autoencoder(kind, norm="layer"), pictures(160, 128)
    moments = model.encode(image)
    torch.testing.assert_close(tiled(model.encode, image, cells=(80, 64), side=48, halo=20), moments, rtol=0, atol=1e-5)
    latent = getattr(model, "mode", model.draw)(moments)
    torch.testing.assert_close(tiled(model.decode, latent, cells=(80, 64), side=48, halo=20), model.decode(latent), rtol=0, atol=1e-5)


def far_from_seams(height, width, side, distance=HALO):
    """Which pixels of a picture of this many cells are `distance` cells or more from where two tiles meet."""
    axes = []
    for length in (height, width):
        cuts = torch.tensor([span.first for span in spans(length, side, HALO)][1:])
        axes.append(((torch.arange(length)[:, None] + 0.5 - cuts).abs() > distance).all(1).repeat_interleave(2))
    return axes[0][:, None] & axes[1]


def test_attention_to_some_of_the_keys_is_within_two_255ths_of_attention_to_all():
    model, image = autoencoder(attention=True), pictures(160, 128)
    whole, cut = Codec(model, CPU), Codec(model, CPU, tile=96)
    moments = whole.encode(image)
    assert (cut.encode(image) - moments).square().mean().sqrt() < 0.05 * moments.std()
    latent = model.mode(moments)
    assert differences(cut.decode(latent, (160, 128)), whole.decode(latent, (160, 128)))[0] < 2


def test_attention_to_all_keys_is_as_near_to_the_whole_as_none():
    model, image = autoencoder(attention=True), pictures(48, 160)  # fewer pixels than a square tile of this height has
    whole, cut = Codec(model, CPU), Codec(model, CPU, tile=96)
    latent = model.mode(whole.encode(image))
    assert differences(cut.decode(latent, (48, 160)), whole.decode(latent, (48, 160)))[0] < 0.25


@torch.no_grad()
def test_passes_come_nearer_and_nearer_to_the_whole():
    model, image = autoencoder(), pictures(160, 128)
    whole = model.encode(image)
    errors = [float((tiled(model.encode, image, cells=(80, 64), side=48, passes=passes) - whole).abs().mean()) for passes in (0, 2, 4, 6)]
    assert errors[1] < errors[0] / 4 and errors[2] < errors[1] / 4 and errors[3] < errors[2]


def test_no_seam_stands_out():
    model, image = autoencoder(), pictures(160, 128)
    latent = model.mode(Codec(model, CPU).encode(image))
    made = Codec(model, CPU, tile=96).decode(latent, (160, 128))
    steps = made.diff(dim=-2).abs().mean((0, 1, 3))  # between one row and the next
    cuts = torch.tensor([2 * span.first - 1 for span in spans(80, 48, HALO)][1:])
    near = torch.stack([steps[cuts - 2], steps[cuts + 2]]).amax(0)  # of the same phase of the doubling
    assert len(cuts) and (steps[cuts] < 1.2 * near).all()


@pytest.mark.parametrize(("height", "width"), [(131, 77), (65, 203)])
def test_sizes_that_no_factor_or_tile_divides_keep_their_size(height, width):
    model, image = autoencoder(), pictures(height, width)
    whole, cut = Codec(model, CPU), Codec(model, CPU, tile=64)
    made = cut.reconstruct(image)
    assert made.shape == image.shape
    assert differences(made, whole.reconstruct(image))[0] < 0.5


def test_pictures_of_a_batch_do_not_see_each_other():
    model, image = autoencoder(attention=True), pictures(96, 112, 2)
    cut = Codec(model, CPU, tile=64)
    together, alone = cut.encode(image), torch.cat([cut.encode(each[None]) for each in image])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_no_convolution_is_given_more_than_a_tile():
    model, image = autoencoder(), pictures(160, 144)
    with Calls() as calls:
        Codec(model, CPU, tile=64).reconstruct(image)
    assert len(calls.areas) > 100
    assert max(calls.areas) <= 65 * 65  # the halving pads one row and one column


MEMORY = """
import sys
from pathlib import Path
import torch
from torch import nn
from ldmctl.latents.tiling import tiled

def mib(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)) / 1024

network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 1, 8, stride=8))
side = int(sys.argv[1])
image = torch.rand(1, 1, side, side)
with torch.no_grad():
    network(image[..., :64, :64])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = mib("VmRSS")
tiled(network, image, cells=(side // 8, side // 8), side=32, halo=4, passes=1)
print(mib("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process can be reset on Linux only")
def test_the_process_holds_no_more_for_sixteen_times_the_picture():
    def peak(side):
        return float(subprocess.run([sys.executable, "-c", MEMORY, str(side)], stdout=subprocess.PIPE, text=True, check=True).stdout)

    small, large = peak(512), peak(2048)
    assert small > 4  # one map of a tile: it is measured at all
    assert large < 1.5 * small + 1  # and the sixteenfold latent


def test_an_attention_keeps_about_as_many_keys_as_a_tile_has_pixels():
    whole = Whole(stride=3)
    keys = torch.arange(90 * 90.0).view(1, 1, -1, 1)
    with torch.no_grad():
        for down in spans(90, 30, 4):
            for right in spans(90, 30, 4):
                tile = Tile(down, right)
                rows = tile.seen(keys.view(1, 1, 90, 90), 1).reshape(1, 1, -1, 1)
                whole.run(lambda rows: F.scaled_dot_product_attention(rows, rows, rows), rows, tile)
    whole.freeze()
    kept = whole.frozen[0][0].flatten().sort().values
    assert torch.equal(kept, keys.view(90, 90)[1::3, 1::3].flatten())


@torch.no_grad()
def test_a_norm_of_flattened_pixels_is_the_norm_of_their_map():
    norm, image = nn.GroupNorm(2, 4), torch.randn(1, 4, 40, 40, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    made = tiled(lambda x: norm(x.flatten(2)).view_as(x), image, cells=(40, 40), side=16, halo=0, passes=1)
    torch.testing.assert_close(made, norm(image), rtol=1e-4, atol=1e-4)


def test_an_autoencoder_is_left_as_it_was_even_by_an_error():
    model = autoencoder()
    before = {name: set(vars(module)) for name, module in model.named_modules()}

    class Broken(Exception):
        pass

    def fails(x):
        model.encode(x)
        raise Broken

    image = pictures(96, 96)
    expected = model.encode(image)
    with pytest.raises(Broken):
        tiled(fails, image, cells=(48, 48), side=24)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert torch.equal(model.encode(image), expected)


def test_a_tile_too_small_for_the_autoencoder_is_refused_with_the_smallest_that_is_not():
    with pytest.raises(ConfigError, match=r"Set machine\.tile to 8 or more"):
        Codec(autoencoder(), CPU, tile=7)


def test_a_cpu_takes_no_more_pixels_together_than_its_caches_hold():
    seen = []

    class Halving(torch.nn.Module):
        factor = 2

        def encode(self, image):
            seen.append(len(image))
            return image[:, :, ::2, ::2]

        def decode(self, latent):
            seen.append(len(latent))
            return latent.repeat_interleave(2, -1).repeat_interleave(2, -2)

    codec, image = Codec(Halving(), Engine(torch.device("cpu"), torch.float32)), torch.rand(5, 1, 256, 256)
    latent = codec.encode(image)
    assert torch.equal(latent, image[:, :, ::2, ::2])
    assert codec.decode(latent, (256, 256)).shape == image.shape
    assert seen == [2, 2, 1, 2, 2, 1]
    codec.encode(torch.rand(64, 1, 32, 32))
    assert seen[6:] == [64]
