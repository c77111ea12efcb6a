"""Measures have known answers, and an interval holds what it says."""

import math

import pytest
import torch

from ldmctl.errors import DataError
from ldmctl.evaluation.metrics import Mean, mean_with_interval, psnr, ssim


def pictures(channels=3, size=32, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(count, channels, size, size, generator=generator) * 2 - 1
    return (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(-1, 1), target


@pytest.mark.parametrize(("levels", "decibels"), [(255, 0.0), (51, 20 * math.log10(5)), (1, 20 * math.log10(255))])
def test_psnr_of_a_known_error(levels, decibels):
    target = torch.full((2, 3, 8, 8), -1.0)
    assert psnr(target + levels / 127.5, target).tolist() == pytest.approx([decibels] * 2, abs=1e-4)


def test_psnr_is_per_picture_and_equal_pictures_count_100():
    target = torch.full((2, 3, 8, 8), -1.0)
    image = target.clone()
    image[1] += 2 / 255
    assert psnr(image, target).tolist() == pytest.approx([100, 20 * math.log10(255)], abs=1e-4)


def test_pictures_are_measured_as_they_would_be_saved():
    image, target = pictures()
    target = (target * 127.5 + 127.5).round() / 127.5 - 1
    assert psnr(target + 1e-3, target).tolist() == pytest.approx([100] * 3)  # less than half a level
    loud = torch.where(target == 1, 5.0, target)
    assert psnr(loud, target).tolist() == pytest.approx([100] * 3)  # beyond white is white
    assert torch.equal(psnr(image.bfloat16().float(), target), psnr(image.bfloat16(), target))


def test_psnr_equals_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.functional.image", exc_type=ImportError)
    image, target = ((x * 127.5 + 127.5).round() / 127.5 - 1 for x in pictures())
    expected = theirs.peak_signal_noise_ratio((image + 1) / 2, (target + 1) / 2, data_range=1.0, dim=(1, 2, 3), reduction="none")
    torch.testing.assert_close(psnr(image, target), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_ssim_equals_torchmetrics_and_is_one_for_equal_pictures(channels):
    theirs = pytest.importorskip("torchmetrics.functional.image", exc_type=ImportError)
    image, target = ((x * 127.5 + 127.5).round() / 127.5 - 1 for x in pictures(channels))
    expected = [
        theirs.structural_similarity_index_measure((a[None] + 1) / 2, (b[None] + 1) / 2, data_range=1.0).item()
        for a, b in zip(image, target, strict=True)
    ]
    assert ssim(image, target).tolist() == pytest.approx(expected, abs=1e-6)
    assert ssim(target, target).tolist() == pytest.approx([1] * 3)
    assert ssim(image[:1], target[:1]).shape == (1,)


def test_pictures_smaller_than_the_window_of_ssim_are_a_sentence():
    with pytest.raises(DataError, match="11 x 11 pixels, these pictures have 10 x 32"):
        ssim(*(x[..., :10] for x in pictures()))
    assert ssim(*pictures(size=11)).isfinite().all()


# -- means -------------------------------------------------------------------


def test_mean_and_interval_of_a_known_sample():
    mean, low, high = mean_with_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    reach = 2.7764 * math.sqrt(2.5 / 5)
    assert mean == 3 and (low, high) == pytest.approx((3 - reach, 3 + reach), abs=0.01)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (29, 2.045), (999, 1.9623)])
def test_the_interval_widens_for_few_pictures_as_students_t_says(freedom, quantile):
    values = torch.tensor([-1.0, 1.0] * ((freedom + 1) // 2) + [0.0] * ((freedom + 1) % 2), dtype=torch.float64)
    _, _, high = mean_with_interval(values)
    assert high / (values.std() / math.sqrt(freedom + 1)).item() == pytest.approx(quantile, rel=3e-3)


@pytest.mark.parametrize("count", [4, 10, 100])
def test_the_interval_covers_the_truth_95_times_in_100(count):
    draws = torch.randn(4000, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 7
    intervals = [mean_with_interval(draw) for draw in draws]
    assert sum(low <= 7 <= high for _, low, high in intervals) / 4000 == pytest.approx(0.95, abs=0.012)


def test_batches_change_nothing():
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e6
    whole, parts, ranks = Mean().add(values), Mean(), [Mean(), Mean()]
    for i, batch in enumerate(values.split(37)):
        parts.add(batch)
        ranks[i % 2].add(batch.tolist())
    merged = Mean().merge(ranks[0]).merge(Mean()).merge(ranks[1])
    expected = (values.mean().item(), whole.interval()[1], whole.interval()[2])
    for mean in (whole, parts, merged):
        assert mean.count == 1000 and mean.interval() == pytest.approx(expected, abs=1e-8)
    assert whole.scatter == pytest.approx((values.var() * 999).item(), rel=1e-6)


def test_few_pictures_are_said_honestly():
    mean, low, high = mean_with_interval([0.25])
    assert mean == 0.25 and math.isnan(low) and math.isnan(high)
    assert mean_with_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    with pytest.raises(DataError, match="no picture to measure"):
        mean_with_interval([])
    assert math.isnan(mean_with_interval([1.0, math.nan])[0])  # one broken picture is not averaged away
