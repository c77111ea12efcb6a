"""A copied training picture is found, flipped or re-encoded too; what only resembles is not."""

import io

import pytest
import torch
from PIL import Image

from ldmctl.evaluation.extraction import Seen, shrunk
from ldmctl.evaluation.memorisation import _quantile, copies, duplicates, nearest
from ldmctl.pictures.images import to_tensor


def pictures(count, *, seed=0, side=24):
    """uint8 [N,3,side,side]: a few soft blobs each, all different."""
    random = torch.Generator().manual_seed(seed)
    place = torch.rand(count, 4, 2, generator=random) * side
    colour = torch.rand(count, 4, 3, generator=random)
    axis = torch.arange(side).float()
    down = (axis[None, None, :, None] - place[..., 0, None, None]) ** 2
    across = (axis[None, None, None, :] - place[..., 1, None, None]) ** 2
    blobs = torch.exp(-(down + across) / 30)
    return ((blobs[:, :, None] * colour[..., None, None]).sum(1).clamp(0, 1) * 255).to(torch.uint8)


def features(image):
    """A few random projections."""
    return image.flatten(1).float() @ torch.randn(image[0].numel(), 12, generator=torch.Generator().manual_seed(3)) / 255


def seen(image):
    return Seen(features(image), features(image.flip(-1)), shrunk(image), torch.full((len(image),), -1), torch.arange(len(image)))


def jpeg(image, quality=80):
    def one(each):
        file = io.BytesIO()
        Image.fromarray(each.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        return to_tensor(Image.open(file).convert("RGB"))

    return torch.stack([one(each) for each in image])


TRAIN, HELD = pictures(300), pictures(200, seed=1)


@pytest.mark.parametrize("change", [lambda image: image, lambda image: image.flip(-1), jpeg, lambda image: jpeg(image.flip(-1))])
@pytest.mark.parametrize("with_held", [True, False], ids=["held out", "none held out"])
def test_a_copy_flipped_or_as_a_jpeg_is_found_with_its_picture(change, with_held):
    found = copies(seen(change(TRAIN[40:60])), seen(TRAIN), seen(HELD) if with_held else None)
    assert found.share > 0.9 and found.pixels.index.tolist() == list(range(40, 60))
    assert found.order[0] in range(20)


def test_other_draws_of_the_same_are_no_copies():
    found = copies(seen(pictures(200, seed=2)), seen(TRAIN), seen(HELD))
    assert found.share <= 0.02


def test_copies_among_samples_are_found_as_duplicates():
    fresh = pictures(100, seed=5)
    assert duplicates(seen(fresh), seen(HELD)).share <= 0.05
    twice = torch.cat([fresh[:50], jpeg(fresh[:25].flip(-1)), fresh[25:50]])
    found = duplicates(seen(twice), seen(HELD))
    assert found.share > 0.9 and found.pixels.index[0] == 50 and bool(found.pixels.mirrored[0])


def test_the_nearest_is_exact_and_a_copy_has_no_distance_at_all():
    references = torch.tensor([[0.0, 0], [3, 4], [6, 8]]) + 1000
    queries = torch.tensor([[3.0, 4], [1, 0]]) + 1000
    found = nearest(queries, queries, references)
    assert found.index.tolist() == [1, 0] and found.distance.tolist() == [0, 1]
    among = nearest(references, references, references, own=torch.arange(3))
    assert among.distance.tolist() == [5, 5, 5] and among.index[0] == 1


def test_few_held_out_pictures_are_no_bound_and_training_pictures_stand_for_them():
    found = copies(seen(pictures(300, seed=2)), seen(TRAIN), seen(HELD[:20]))
    assert (found.kind, found.count) == ("training pictures to each other", 300)
    assert found.bounds == copies(seen(TRAIN[:5]), seen(TRAIN), None).bounds and found.share <= 0.02
    assert copies(seen(TRAIN[:5]), seen(TRAIN), seen(HELD[:100])).kind == "held-out pictures"


@pytest.mark.parametrize(("count", "value"), [(20, 1), (100, 1), (198, 1), (199, 2), (1000, 10)])
def test_one_in_a_hundred_of_other_draws_lies_at_the_bound_or_below(count, value):
    assert _quantile(torch.arange(1, count + 1), 0.01) == value
