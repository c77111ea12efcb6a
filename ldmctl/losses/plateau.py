"""When a loss has levelled off: what `adversarial.start: auto` waits for."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

WINDOWS = 50  # a run is cut into so many windows, each judged by its mean
LEAST = 20  # steps of a window, so that its mean says something
GAIN = 0.02  # of the best mean so far: what a window must better it by
PATIENCE = 2  # windows in a row without that
LATEST = 0.6  # of the run: then it is late enough for a second phase to be worth it


class Plateau(nn.Module):
    """The means of a loss over windows of steps. All of it is buffers, so that a run resumes in the middle of a window.

    Reached when two windows in a row were not 2 % better than the best before them, or at 60 % of the run.
    """

    state: Tensor  # float32 [5]: steps per window, latest window; sum of this window, best mean, windows without gain

    def __init__(self, steps: int):
        super().__init__()
        window = max(LEAST, round(steps / WINDOWS))
        self.register_buffer("state", torch.tensor([window, round(LATEST * steps / window), 0, float("inf"), 0], dtype=torch.float32))
        self._added: list[Tensor] = []

    def add(self, loss: Tensor, share: float = 1.0) -> None:
        """The loss of one micro-batch, a scalar, and its share of this rank's batch."""
        self._added.append(loss.detach().float() * share)

    @property
    def latest(self) -> int:
        """How many steps it takes at most."""
        return max(int(self.state[1]), 1) * self._window()

    @torch.no_grad()
    def after_step(self, step: int) -> bool:
        """Whether it is reached after this step, counted from 0; the same on all ranks. Waits for the device once a window."""
        if not self._added:
            return False
        loss, self._added = torch.stack(self._added).sum(), []
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()  # the mean of all ranks: a run may go on with another number of them
        self.state[2] += loss
        window = self._window()
        if (step + 1) % window:
            return False
        _, latest, total, best, idle = self.state.tolist()
        gained = not total >= (1 - GAIN) * best  # a loss that is not finite is no plateau
        idle = 0 if gained else idle + 1
        self.state[2:] = torch.tensor([0.0, min(best, total) if math.isfinite(total) else best, idle])
        return idle >= PATIENCE or (step + 1) // window >= latest

    def _window(self) -> int:
        if not hasattr(self, "_length"):
            self._length = int(self.state[0])  # once, not at every step: it would wait for the device
        return self._length

    def _load_from_state_dict(self, *given: object, **more: object) -> None:
        super()._load_from_state_dict(*given, **more)  # type: ignore[arg-type]
        self.__dict__.pop("_length", None)
