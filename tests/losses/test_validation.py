"""A validation looks at pictures from the whole held-out split: files lie sorted by path, so the first of them are of one class."""

import torch

from ldmctl import registry
from ldmctl.config.presets import compose
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.losses import objective
from ldmctl.pictures.batches import Batch
from ldmctl.pictures.loading import shown_items
from ldmctl.training import engine as engines


class Sorted:
    """Pictures of one colour each, dark ones first."""

    fits = True

    def __init__(self, count):
        self.count, self.asked = count, []

    def __len__(self):
        return self.count

    def batch(self, items):
        index = [index for _, index in items] if items[0][1] is not None else [position for position, _ in items]
        self.asked += index
        image = torch.stack([torch.full((3, 8, 8), 255 * row // self.count, dtype=torch.uint8) for row in index])
        return Batch(image, index, index, [-1] * len(index), [""] * len(index), [], [""] * len(index))


def test_a_validation_a_count_and_the_shown_pictures_reach_the_last_class(monkeypatch, tiny):
    monkeypatch.setattr(objective, "VALIDATED", 6)
    config = tiny("fit-ae")
    engine = engines.start(config.machine)
    identity = registry.build("autoencoder", plugin_config("autoencoder", {"type": "identity"}), image_channels=3)
    val = Sorted(26)
    values = objective.validate(identity, val, compose(FitAE, flags={"data": "shapes"})[0].losses, None, engine, at_once=4)
    assert val.asked == [0, 5, 10, 15, 20, 25] and values["val/psnr"] > 90
    assert objective.validate(identity, Sorted(0), compose(FitAE, flags={"data": "shapes"})[0].losses, None, engine, at_once=4) == {}
    assert shown_items(Sorted(26), 6).unique().numel() == 6


def test_whole_pictures_are_fewer_where_training_sees_parts_of_them(tiny):
    engine = engines.start(tiny("fit-ae").machine)
    identity = registry.build("autoencoder", plugin_config("autoencoder", {"type": "identity"}), image_channels=3)
    losses = compose(FitAE, flags={"data": "shapes"})[0].losses
    for patches, count in ((1, 128), (2.25, 57), (4, 32), (16, 32)):
        val = Sorted(200)
        values = objective.validate(identity, val, losses, None, engine, at_once=8, patches=patches)
        assert len(val.asked) == len(set(val.asked)) == count and (val.asked[0], val.asked[-1]) == (0, 199) and values["val/psnr"] > 90
