"""A sampler whose caller sees each estimate of the clean latent as it is made."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Watch = Callable[[int, float, Tensor, Tensor], Any]  # (evaluations before this one, level sigma / alpha, x, the clean latent found in it)


def watched(sampler: Any, watch: Watch, count: int) -> Callable[..., Tensor]:
    """The same sampler, which calls `watch` after each evaluation with the first `count` rows, [count,c,h,w] each; the rest only fill the batch."""

    def run(denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigmas: Tensor, noise: Any) -> Tensor:
        evaluations = 0

        def seen(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal evaluations
            clean = denoise(x, sigma)
            watch(evaluations, float(sigma), x[:count], clean[:count])
            evaluations += 1
            return clean

        return sampler(seen, x, sigmas, noise)  # type: ignore[no-any-return]

    return run
