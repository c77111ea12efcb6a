"""A codebook learned by gradient, whose unused codes come back to life.

Van den Oord et al. 2017 (arXiv:1711.00937), eq. 3. A code that no feature is
nearest to gets no gradient and stays lost, so `after_step` puts such codes on
features of the last batch, at first after 1, 2, 4, 8, ... steps, later after
every `revive` steps. A fresh codebook is nearly all unused: its first revival
is its initialisation from data.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

DISTANCES = 2**23  # held at a time while the nearest codes are searched: 32 MiB


class Quantized(NamedTuple):
    """What a codebook says of features [B,c,h,w]."""

    latent: Tensor  # [B,c,h,w], exactly the nearest codes; its gradient goes to the features
    codes: Tensor  # [B,h,w]
    counts: Tensor  # [K], how often each code occurs
    commitment: Tensor  # ||z - sg(e)||^2 per element, unweighted: moves the encoder
    codebook: Tensor  # ||sg(z) - e||^2 per element: moves the codes


class Codebook(nn.Module):
    """`size` codes of `channels` numbers, as `embedding.weight`. All in float32, whatever the autocast."""

    uses: Tensor
    steps: Tensor

    def __init__(self, size: int, channels: int, *, revive: int = 25):
        super().__init__()
        self.revive = revive
        self.embedding = nn.Embedding(size, channels)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)
        self.register_buffer("uses", torch.zeros(size, dtype=torch.int64))  # of each code since the last look for unused ones
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_post_hook(_after_loading)
        self._step: int | None = None  # `steps` without waiting for the device
        self._seen: tuple[Tensor, Tensor] | None = None  # uses since the last step, features of the last forward

    def forward(self, features: Tensor) -> Quantized:
        """features [B,c,h,w] -> their nearest codes."""
        with torch.autocast(features.device.type, enabled=False):
            z = features.float()
            codes = self.nearest(z)
            e = self.lookup(codes)
            counts = torch.zeros_like(self.uses).scatter_add_(0, codes.flatten(), torch.ones_like(codes.flatten()))
            if self.training and torch.is_grad_enabled():
                self._seen = (counts if self._seen is None else counts + self._seen[0], z.detach())
            latent = (e.detach() + (z - z.detach())).to(features.dtype)  # straight-through
            return Quantized(latent, codes, counts, F.mse_loss(z, e.detach()), F.mse_loss(e, z.detach()))

    @torch.no_grad()
    def nearest(self, features: Tensor) -> Tensor:
        """[B,c,h,w] -> indices [B,h,w] of the codes at the smallest distance."""
        with torch.autocast(features.device.type, enabled=False):
            weight = self.embedding.weight.float()
            centre = weight.mean(0)  # taken off both, or digits cancel where codes are far from zero and near each other
            weight, rows = weight - centre, _rows(features.float()) - centre
            half_norms = weight.square().sum(1) / 2
            found = [(half_norms - part @ weight.T).argmin(1) for part in rows.split(max(1, DISTANCES // len(weight)))]
        return torch.cat(found).view(features.shape[0], *features.shape[2:])

    def lookup(self, codes: Tensor) -> Tensor:
        """[B,h,w] -> [B,c,h,w]."""
        return self.embedding(codes).movedim(-1, 1).contiguous()  # else all that follows runs in channels_last, slower on a CPU

    @torch.no_grad()
    def after_step(self) -> list[str]:
        """Counts the uses of all ranks and, when it is time, moves unused codes to features of the last forward; names what was moved."""
        if self._seen is None:
            return []
        (used, features), self._seen = self._seen, None
        together = dist.is_available() and dist.is_initialized()
        if together:
            used = used.clone()  # the forward's own counts are a fact that its rank reports
            dist.all_reduce(used)
        self.uses += used
        self.steps += 1
        self._step = int(self.steps) if self._step is None else self._step + 1
        if not self._is_time(self._step):
            return []
        unused = (self.uses == 0).nonzero()[:, 0]
        self.uses.zero_()
        if len(unused) == 0:
            return []
        chosen = _pick(_rows(features), len(unused))
        if together:
            dist.broadcast(chosen, src=0)
        weight = self.embedding.weight
        weight[unused] = torch.where(chosen.isfinite(), chosen.to(weight.dtype), weight[unused])
        return ["embedding.weight"]

    def _is_time(self, step: int) -> bool:
        return self.revive > 0 and (step % self.revive == 0 or (step < self.revive and step & (step - 1) == 0))


def _rows(features: Tensor) -> Tensor:
    """[B,c,h,w] -> [B*h*w,c]."""
    return features.movedim(1, -1).flatten(0, -2)


def _pick(rows: Tensor, count: int) -> Tensor:
    """`count` random rows, none twice while they last, moved apart by a hundredth of their deviation."""
    order = torch.randperm(len(rows), device=rows.device)
    chosen = rows[order[torch.arange(count, device=rows.device) % len(rows)]]
    return chosen + 0.01 * rows.std(0, correction=0) * torch.randn_like(chosen)


def _after_loading(codebook: nn.Module, result: Any) -> None:
    """A codebook that comes without its counters, such as one of diffusers, is a trained one: only its old age is left to it."""
    assert isinstance(codebook, Codebook)
    codebook._step = None
    if any(key.endswith("steps") for key in result.missing_keys):
        codebook.steps.fill_(max(codebook.revive, 1))
