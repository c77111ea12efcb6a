"""The conditioner `map`: occupancy of latent cells, known by hand."""

import pytest
import torch

from ldmctl import registry
from ldmctl.errors import DataError


def make(classes=(), channels=1, factor=2, size=(2, 2)):
    plugin = registry.load("conditioner", "map")
    return plugin(plugin.Config(type="map"), maps={"classes": list(classes), "channels": channels}, factor=factor, size=size)


def test_a_cell_says_how_much_of_it_each_class_takes():
    drawn = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 2], [255, 255, 0, 255], [255, 255, 255, 0]], dtype=torch.uint8)
    maps = make(["sky", "sea", "sand"]).encode(drawn[None, None]).maps
    assert maps.shape == (1, 4, 2, 2)
    assert maps[0, 0].tolist() == [[0.75, 0], [0, 0.5]]
    assert maps[0, 1].tolist() == [[0.25, 0.25], [0, 0]]
    assert maps[0, 2].tolist() == [[0, 0.75], [0, 0]]
    assert not maps[0, 3].any()  # there is a map, though a cell of it is of no class at all


def test_a_cell_at_the_edge_is_the_mean_of_the_pixels_that_it_has():
    drawn = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 0, 255]], dtype=torch.uint8)
    maps = make(["sky", "sea"]).encode(drawn[None, None]).maps[0]
    assert maps[0].tolist() == [[1, 0], [0.5, 0]]
    assert maps[1].tolist() == [[0, 1], [0.5, 0]]


def test_a_continuous_map_is_averaged_from_minus_one_to_one():
    drawn = torch.tensor([[0, 255, 255], [255, 0, 0]], dtype=torch.uint8)
    maps = make(channels=2).encode(torch.stack([drawn, 255 - drawn])[None]).maps[0]
    assert maps.shape == (3, 1, 2)
    assert torch.allclose(maps[:2], torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]]]), atol=1e-6) and not maps[2].any()
    assert make(factor=1).encode(drawn[None, None]).maps[0, 0].tolist() == [[-1, 1, 1], [1, -1, -1]]


def test_no_map_is_a_channel_of_its_own():
    conditioner = make(["sky", "sea"])
    assert conditioner.map_channels == 3
    null = conditioner.null(2).maps
    assert null.shape == (2, 3, 2, 2) and null[:, 2].eq(1).all() and not null[:, :2].any()
    assert conditioner.null(1, size=(5, 3)).maps.shape == (1, 3, 5, 3)
    unlabelled = conditioner.encode(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)).maps
    assert not unlabelled.any()


def test_a_class_that_does_not_exist_is_refused_by_name():
    with pytest.raises(DataError, match=r"class 2, and there are 2 classes, counted from 0: sky, sea\. Pixels of no class have 255"):
        make(["sky", "sea"]).encode(torch.tensor([[[[0, 2], [255, 1]]]], dtype=torch.uint8))


def test_a_map_of_another_number_of_channels_is_refused():
    with pytest.raises(DataError, match=r"A map has 3 channels, and this model was made for maps of 1\."):
        make(["sky", "sea"]).encode(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(DataError, match="1 channels, and this model was made for maps of 2"):
        make(channels=2).encode(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))


def test_shares_add_up_to_one_where_every_pixel_has_a_class():
    drawn = torch.randint(0, 19, (3, 1, 33, 47), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    maps = make([str(number) for number in range(19)], factor=8).encode(drawn).maps
    assert maps.shape == (3, 20, 5, 6)
    assert torch.allclose(maps[:, :19].sum(1), torch.ones(3, 5, 6))
