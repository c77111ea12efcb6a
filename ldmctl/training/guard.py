"""Steps that were not finite: skipped, counted, and given up after too many in a row."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ldmctl.errors import DivergedError


class Guard:
    """Counts steps that were not finite, and gives the run up after `patience` of them in a row.

    On an accelerator a step's flag is read one step later, so that nothing waits.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.in_a_row = 0
        self.pending: list[tuple[int, Tensor, Any, Tensor]] = []

    def add(self, step: int, bad: Tensor, items: Tensor) -> None:
        """The flag of one optimizer step and the items it was made of."""
        if self.pending and self.pending[-1][0] < step:
            self.check()
        if bad.device.type == "cuda":
            host = torch.empty((), pin_memory=True).copy_(bad, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self.pending.append((step, host, event, items))
        else:
            self.pending.append((step, bad, None, items))

    def check(self) -> None:
        """Read the flags that are there; DivergedError after too many in a row, with the items of the last."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        for _, _, event, _ in pending:
            if event is not None:
                event.synchronize()
        if not any(float(bad) for _, bad, _, _ in pending):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        if self.in_a_row >= self.patience:
            step, _, _, items = pending[-1]
            raise DivergedError(
                f"Loss or gradient was not finite for {self.in_a_row} steps in a row, up to step {step + 1:,}. The last good state is kept. "
                f"Items of the last such batch: {_some(items.tolist())}. Try a lower loop.lr, or machine.precision=fp32."
            )


def _some(items: Sequence[Any]) -> str:
    return ", ".join(str(item) for item in items[:8]) + (", ..." if len(items) > 8 else "")
