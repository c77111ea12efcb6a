"""Promises of every conditioner, and of the label conditioner in particular."""

import pytest
import torch

from ldmctl import registry
from ldmctl.errors import PluginError

GIVEN = {"label": [2, 0, -1]}
NAMES = [plugin.name for plugin in registry.plugins("conditioner") if plugin.name in GIVEN]


def make(name: str = "label", classes: tuple[str, ...] = ("cat", "dog", "emu"), **keys: object):
    torch.manual_seed(0)
    plugin = registry.load("conditioner", name)
    return plugin(plugin.Config(type=name, **keys), classes=list(classes))


def test_the_built_in_conditioners_are_registered():
    listens = {plugin.name: plugin.load().listens for plugin in registry.plugins("conditioner") if plugin.built_in}
    assert listens == {"inpaint": "picture", "label": "label", "lowres": "picture", "map": "map", "text": "text", "words": "text"}


@pytest.mark.parametrize("name", NAMES)
def test_conditions_have_the_announced_sizes(name):
    conditioner = make(name)
    for condition in (conditioner.encode(GIVEN[name]), conditioner.null(3)):
        assert (condition.vector is not None) == (conditioner.vector_dim > 0)
        assert (condition.tokens is not None) == (conditioner.token_dim > 0)
        assert (condition.maps is not None) == (conditioner.map_channels > 0)
        assert condition.vector is None or condition.vector.shape == (3, conditioner.vector_dim)


def test_an_unknown_label_is_the_empty_condition():
    label = make(dim=6)
    vectors = label.encode(torch.tensor([-1, 2])).vector
    assert torch.equal(vectors[:1], label.null(1).vector)
    assert torch.equal(vectors[1], label.embedding.weight[2])


def test_every_class_and_none_has_its_own_vector():
    label = make()
    assert len(label.encode([0, 1, 2, -1]).vector.unique(dim=0)) == 4


def test_vectors_are_learned():
    label = make(dim=6)
    label.encode([0, 1, 2, -1]).vector.square().sum().backward()
    assert label.embedding.weight.grad.any(dim=1).all()


def test_labels_that_do_not_exist_are_refused():
    with pytest.raises(PluginError, match="Label 3 does not exist"):
        make().encode([0, 3])
    with pytest.raises(PluginError, match="classes"):
        make(classes=())
