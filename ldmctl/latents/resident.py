"""A split held on the accelerator."""

import numpy as np
import torch
from torch import Tensor

from ldmctl.latents.reader import Latents
from ldmctl.training.engine import Engine


class Resident:
    """One split held on the accelerator, so that a step copies nothing. Same answers as `Latents`."""

    def __init__(self, latents: Latents, engine: Engine):
        latents.check()
        self.engine = engine
        self.labels = latents.labels.to(engine.device)
        self.held = torch.empty((int(latents.starts[-1]), *latents.manifest.shape), dtype=latents.dtype, device=engine.device)
        for part, first in zip(latents.parts, latents.starts, strict=False):
            rows = torch.frombuffer(part.rows, dtype=latents.dtype).view(-1, *latents.manifest.shape)
            latents.refuse_beyond(rows)
            self.held[first : first + len(rows)].copy_(rows)

    @staticmethod
    def fits(latents: Latents, engine: Engine) -> bool:
        """Whether there is an accelerator and half of its free memory is enough."""
        if engine.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(engine.device)
        return int(latents.starts[-1]) * int(np.prod(latents.manifest.shape)) * latents.dtype.itemsize < free // 2

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, items: Tensor, flipped: Tensor | None = None) -> Tensor:
        """Moments [B,m,h,w] or codes [B,h,w] on the device, in the cache's own dtype."""
        places = items.to(self.engine.device, non_blocking=True)
        if flipped is not None:
            places = places + len(self) * flipped.to(self.engine.device, non_blocking=True)
        if self.held.dtype == torch.uint16:  # which not every accelerator can index
            return self.held.view(torch.int16)[places].view(torch.uint16)
        return self.held[places]
