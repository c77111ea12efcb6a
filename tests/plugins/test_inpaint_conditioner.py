"""The conditioner `inpaint`: holes as they are drawn, and what is left around them."""

import pytest
import torch
from pydantic import ValidationError

from ldmctl import registry
from ldmctl_plugins.conditioners import _holes

KINDS = ["rectangles", "half_planes", "strokes", "free_shapes"]


def make(**keys):
    plugin = registry.load("conditioner", "inpaint")
    return plugin(plugin.Config(type="inpaint", **keys), channels=4, size=(8, 8), image_channels=3, factor=4, side=32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def latents(count=3, size=(8, 8)):
    return torch.randn(count, 4, *size, generator=seeded(1))


def test_the_hole_is_blank_and_grown_by_a_cell():
    latent, mask = latents(1), torch.zeros(1, 1, 8, 8)
    mask[..., 3, 4] = 1
    maps = make().encode({"latent": latent, "mask": mask}).maps
    grown = torch.zeros(8, 8)
    grown[2:5, 3:6] = 1
    assert maps.shape == (1, 5, 8, 8) and torch.equal(maps[0, 4], grown)
    assert torch.equal(maps[0, :4], torch.where(grown.bool(), 0.0, latent[0]))
    assert torch.equal(make(grow=0).encode({"latent": latent, "mask": mask}).maps[0, 4], mask[0, 0])


def test_nothing_given_is_the_null_itself():
    inpaint = make()
    full = inpaint.encode({"latent": latents(), "mask": torch.ones(3, 1, 8, 8)}).maps
    assert torch.equal(full.abs(), inpaint.null(3).maps)
    assert inpaint.null(2, size=(4, 6)).maps.shape == (2, 5, 4, 6)


def test_most_holes_are_the_whole_picture():
    masks = make().draw(latents(4000), seeded())["mask"]
    assert set(masks.unique().tolist()) == {0, 1}
    assert 0.73 < masks.flatten(1).all(1).float().mean() < 0.79  # 0.75, and few whole ones of the other kinds
    assert make(full=1).draw(latents(50), seeded())["mask"].all()


def test_the_same_generator_draws_the_same_holes_and_the_latent_stays():
    latent = latents()
    one, other = make(full=0).draw(latent, seeded(5)), make(full=0).draw(2 * latent, seeded(5))
    assert torch.equal(one["mask"], other["mask"]) and torch.equal(one["latent"], latent)
    assert not torch.equal(one["mask"], make(full=0).draw(latent, seeded(6))["mask"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(4, 4), (16, 16), (12, 20)])
def test_every_kind_leaves_something_and_hides_something(kind, size):
    masks = getattr(_holes, kind)(400, *size, seeded())
    share = masks.flatten(1).float().mean(1)
    assert masks.shape == (400, *size) and masks.dtype == torch.bool
    assert ((share > 0) & (share < 1)).float().mean() > 0.9
    assert masks.flatten(1).unique(dim=0).shape[0] > 20


def test_rectangles_are_rectangles():
    for mask in _holes.rectangles(100, 16, 16, seeded()):
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None])
        assert rows.int().diff().abs().sum() <= 2 and columns.int().diff().abs().sum() <= 2


def test_half_planes_are_cut_by_a_line():
    """Along any row they begin or end once."""
    for mask in _holes.half_planes(100, 16, 16, seeded()):
        assert (mask.int().diff(dim=0).abs().sum(0) <= 1).all() and (mask.int().diff(dim=1).abs().sum(1) <= 1).all()


def test_free_shapes_take_from_a_tenth_to_nine_tenths():
    share = _holes.free_shapes(400, 16, 16, seeded()).float().mean((1, 2))
    assert share.min() >= 0.09 and share.max() <= 0.9 and 0.4 < share.mean() < 0.6


def test_a_kind_can_be_chosen_alone_and_none_is_refused():
    keys = dict.fromkeys(KINDS, 0.0) | {"rectangles": 1.0, "full": 0.0, "inverted": 0.0}
    for mask in make(**keys).draw(latents(50), seeded())["mask"][:, 0].bool():
        assert torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None])
    with pytest.raises(ValidationError, match="no hole can be drawn"):
        make(**dict.fromkeys(KINDS, 0.0))
