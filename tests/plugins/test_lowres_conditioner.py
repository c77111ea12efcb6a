"""The conditioner `lowres`: a small picture over the latent."""

import pytest
import torch

from ldmctl import registry


def make(factor=4, cell=4, size=(8, 8), **keys):
    plugin = registry.load("conditioner", "lowres")
    return plugin(
        plugin.Config(type="lowres", factor=factor, **keys), image_channels=3, channels=4, factor=cell, size=size, side=size[0] * cell
    )


def pictures(rows=32, columns=32):
    return torch.randint(0, 256, (2, 3, rows, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("factor", "cell", "channels"), [(4, 4, 4), (8, 4, 4), (2, 4, 13), (4, 8, 13), (2, 8, 49), (4, 1, 4)])
def test_the_small_picture_lies_over_the_latent_whole(factor, cell, channels):
    """As many numbers as it has pixels, at least: a cell of 8 pixels that are given as 4 x 4 has 16 channels of each colour."""
    lowres = make(factor, cell, size=(32 // cell, 32 // cell))
    small = lowres.shrink(pictures())
    assert small.shape == (2, 3, 32 // factor, 32 // factor) and small.dtype == torch.uint8
    maps = lowres.encode(small).maps
    assert maps.shape == (2, lowres.map_channels, 32 // cell, 32 // cell) and lowres.map_channels == channels
    assert not maps[:, -1].any()


def test_a_flat_picture_stays_flat_and_where_pixels_and_cells_agree_they_are_the_same():
    flat = torch.full((1, 3, 32, 32), 51, dtype=torch.uint8)
    lowres = make()
    assert lowres.shrink(flat).unique().tolist() == [51]
    assert torch.allclose(lowres.encode(lowres.shrink(flat)).maps[:, :3], torch.tensor(51 / 127.5 - 1), atol=1e-6)
    small = lowres.shrink(pictures())
    assert torch.allclose(lowres.encode(small).maps[:, :3], small / 127.5 - 1, atol=1e-6)


def test_making_small_does_not_alias():
    """Stripes of one pixel are grey when they are too thin to be told, and no stripes of other widths."""
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 255
    assert (make().shrink(stripes)[..., 1:-1].float() - 127.5).abs().max() < 4


def test_sizes_that_do_not_divide_follow_the_latent():
    lowres = make(factor=8, cell=4, size=(25, 25))  # pictures of 100 pixels: 13 small ones, 25 cells
    small = lowres.shrink(pictures(100, 100))
    assert small.shape[2:] == (13, 13) and lowres.encode(small).maps.shape[2:] == (25, 25)
    assert lowres.encode(lowres.shrink(pictures(64, 32))).maps.shape[2:] == (16, 8)  # another shape than usual


def test_no_picture_is_a_channel_of_its_own():
    null = make().null(2).maps
    assert null.shape == (2, 4, 8, 8) and null[:, 3].eq(1).all() and not null[:, :3].any()
    assert make().null(1, size=(3, 5)).maps.shape == (1, 4, 3, 5)


def test_noise_is_added_in_training_only_and_follows_the_seed():
    lowres = make(noise=0.5)
    small = lowres.shrink(pictures())
    lowres.eval()
    clean = lowres.encode(small).maps
    assert torch.equal(clean, lowres.encode(small).maps)
    lowres.train()
    torch.manual_seed(3)
    noisy = lowres.encode(small).maps
    torch.manual_seed(3)
    assert torch.equal(noisy, lowres.encode(small).maps) and not torch.equal(noisy, clean)
    assert 0 < (noisy - clean).std() < 0.5
