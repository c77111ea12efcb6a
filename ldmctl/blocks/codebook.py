"""A codebook whose codes do not die.

Codes are learned by gradient (van den Oord et al. 2017, arXiv:1711.00937, eq. 3) or as moving averages of the features
that are nearest to them (there, appendix A.1). Either way a code that no feature is nearest to stays lost, so `after_step`
puts such codes on features of the last batch, at first after 1, 2, 4, 8, ... steps, later after every `revive` steps. A
fresh codebook is nearly all unused: its first revival is its initialisation from data, and k-means is a better one.

`forward` only takes notes for `after_step`, of all micro-batches of a step. What `after_step` makes of them depends on the
global batch alone, not on how it is shared by ranks and micro-batches, and all that it draws follows from `steps`.

This file is longer than a page because searching, averaging, k-means and revival work on the buffers of one module.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.blocks.kmeans import k_means, sums_of
from ldmctl.blocks.nearest import nearest_codes
from ldmctl.blocks.rounding import rotation, straight_through
from ldmctl.blocks.shares import global_deviation, global_rows, of_first, rank_and_world, total

GATHERED = 2**17  # features at most that k-means looks at
GATHERED_EACH = 128  # and at most so many per code


class Quantized(NamedTuple):
    """What a codebook says of features [B,c,h,w]."""

    latent: Tensor  # [B,c,h,w], exactly the nearest codes; its gradient goes to the features
    codes: Tensor  # [B,h,w]
    counts: Tensor  # int64 [K], how often each code occurs
    commitment: Tensor  # ||z - sg(e)||^2 per element, unweighted: moves the encoder
    codebook: Tensor  # ||sg(z) - e||^2 per element: moves the codes, where they learn by gradient


class Codebook(nn.Module):
    """`size` codes of `channels` numbers, as `embedding.weight`. All in float32, whatever the autocast.

    It learns in training mode only, and only where gradients are on. With `learning="ema"` the codes are no trained
    parameter, so an average of weights copies them: they are averages already. `decay` is theirs.
    """

    uses: Tensor
    steps: Tensor
    counts: Tensor
    sums: Tensor
    gathered: Tensor
    filled: Tensor

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        revive: int = 25,
        learning: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        kmeans: int = 0,
        unit_length: bool = False,
        gradient: Literal["straight-through", "rotation"] = "straight-through",
    ):
        super().__init__()
        self.revive, self.kmeans, self.decay, self.unit_length = revive, kmeans, decay, unit_length
        self.averages = learning == "ema"
        self.pass_gradient = rotation if gradient == "rotation" else straight_through
        self.embedding = nn.Embedding(size, channels)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)
        self.register_buffer("uses", torch.zeros(size, dtype=torch.int64))  # of each code since the last look for unused ones
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        if self.averages:
            self.embedding.requires_grad_(False)
            self.register_buffer("counts", torch.zeros(size))  # moving averages per step: features of each code,
            self.register_buffer("sums", torch.zeros(size, channels))  # and their sum
        if kmeans:
            self.register_buffer("gathered", torch.zeros(min(GATHERED, GATHERED_EACH * size), channels))
            self.register_buffer("filled", torch.zeros((), dtype=torch.int64))  # rows of them
        self.register_load_state_dict_pre_hook(_before_loading)
        self._forget()

    def forward(self, features: Tensor) -> Quantized:
        """features [B,c,h,w] -> their nearest codes."""
        z, e, codes = self._compared(features)
        counts = torch.zeros_like(self.uses).scatter_add_(0, codes.flatten(), torch.ones_like(codes.flatten()))
        if self.training and torch.is_grad_enabled():
            self._note(_rows(z.detach()), codes.flatten())
        latent = self.pass_gradient(z, e).to(features.dtype)
        return Quantized(latent, codes, counts, F.mse_loss(z, e.detach()), F.mse_loss(e, z.detach()))

    def quantize(self, features: Tensor) -> Tensor:
        """features [B,c,h,w] -> the latent that `forward` gives, and nothing is learned from it."""
        z, e, _ = self._compared(features)
        return self.pass_gradient(z, e).to(features.dtype)

    def nearest(self, features: Tensor) -> Tensor:
        """[B,c,h,w] -> indices [B,h,w] of the codes at the smallest distance."""
        return self._nearest(self.prepare(features))

    def lookup(self, codes: Tensor) -> Tensor:
        """[B,h,w] -> [B,c,h,w]."""
        rows = self.embedding(codes).movedim(-1, 1)
        return self.prepare(rows).contiguous()  # else all that follows runs in channels_last, slower on a CPU

    def prepare(self, features: Tensor) -> Tensor:
        """[B,c,h,w] -> the features that are compared with the codes, in float32: of norm 1 with `unit_length`."""
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(features.float(), dim=1) if self.unit_length else features.float()

    def _compared(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(features, their codes, indices of the codes)."""
        z = self.prepare(features)
        codes = self._nearest(z)
        return z, self.lookup(codes), codes

    def _nearest(self, z: Tensor) -> Tensor:
        weight = self.embedding.weight.detach().float()
        found = nearest_codes(_rows(z), F.normalize(weight, dim=1) if self.unit_length else weight)
        return found.view(z.shape[0], *z.shape[2:])

    # -- what a step leaves behind ---------------------------------------------------

    def _forget(self) -> None:
        """Drop the notes of a step that is not finished, and what is known of `steps`."""
        self._notes = _Notes()
        self._step: int | None = None  # `steps` without waiting for the device

    def _now(self) -> int:
        """The number of the step that is going on, from 1."""
        if self._step is None:
            self._step = int(self.steps)
        return self._step + 1

    @torch.no_grad()
    def _note(self, rows: Tensor, codes: Tensor) -> None:
        """rows [N,c] and their codes [N] of one micro-batch. Rows that are not finite count nothing."""
        notes = self._notes
        finite = rows.isfinite().all(1)
        uses = torch.zeros_like(self.uses).index_add_(0, codes, finite.long())
        notes.uses = uses if notes.uses is None else notes.uses + uses
        if self.averages:
            sums = sums_of(torch.where(finite[:, None], rows, 0), codes, len(uses))
            notes.sums = sums if notes.sums is None else notes.sums + sums
        if self._gathers(self._now()) or self._revives(self._now()):
            notes.rows.append(rows)

    @torch.no_grad()
    def after_step(self) -> dict[str, Tensor]:
        """Learns from the batch of all ranks what gradients do not teach, and moves unused codes when it is time; the codes that
        were moved, as rows of `embedding.weight`."""
        notes, now = self._notes, self._now()
        if notes.uses is None:
            return {}
        self._forget()
        uses = total(notes.uses)
        self.uses += uses
        self.steps += 1
        self._step = now
        if self.averages:
            assert notes.sums is not None
            self._average(uses, total(notes.sums))
        batch = torch.cat(notes.rows) if notes.rows else None
        if batch is not None and self._gathers(now):
            self._gather(batch, now)
        if now == self.kmeans and self._place(uses.sum(), now):
            return {"embedding.weight": torch.arange(len(self.embedding.weight), device=uses.device)}
        return self._bring_back(batch, now) if batch is not None and self._revives(now) else {}

    def _average(self, uses: Tensor, sums: Tensor) -> None:
        """Appendix A.1, eq. 6 to 8. A code without features stays where it is, to the last bit; so nothing need be smoothed."""
        self.counts.lerp_(uses.to(self.counts.dtype), 1 - self.decay)
        self.sums.lerp_(sums.to(self.sums.dtype), 1 - self.decay)
        weight = self.embedding.weight
        means = self.sums / self.counts.clamp(min=1e-30)[:, None]
        weight.copy_(torch.where((uses > 0)[:, None], means.to(weight.dtype), weight))

    # -- k-means ---------------------------------------------------------------------

    def _gathers(self, step: int) -> bool:
        return step <= self.kmeans

    def _gather(self, batch: Tensor, step: int) -> None:
        """Keep a part of this step's features, the same number from each step."""
        first, last = int(self.filled), step * len(self.gathered) // self.kmeans
        order = torch.randperm(len(batch) * rank_and_world()[1], generator=_generator(step))
        chosen = global_rows(batch, order[: last - first].to(batch.device))
        if chosen.isfinite().all():
            self.gathered[first : first + len(chosen)] = chosen.to(self.gathered.dtype)
            self.filled += len(chosen)

    def _place(self, batch: Tensor, step: int) -> bool:
        """Put all codes on clusters of what was gathered; False when nothing was. `batch` is how many features a step has."""
        points, weight = self.gathered[: int(self.filled)], self.embedding.weight
        if len(points):
            centres, sizes = k_means(points, len(weight), _generator(step), unit_length=self.unit_length)
            sizes = sizes * (batch / len(points))
            of_first(centres, sizes)
            weight.copy_(centres)
            self._begin(slice(None), centres, sizes)
            self.uses.zero_()
        self.gathered.zero_()
        self.filled.zero_()
        return len(points) > 0

    def _begin(self, which: Any, codes: Tensor, count: Tensor | float) -> None:
        """Let the moving averages of some codes start over, as those of so many features per step; the next update moves them from there."""
        if self.averages:
            self.counts[which] = count
            self.sums[which] = codes.to(self.sums.dtype) * self.counts[which][:, None]

    # -- revival ---------------------------------------------------------------------

    def _revives(self, step: int) -> bool:
        return self.revive > 0 and (step % self.revive == 0 or (step < self.revive and step & (step - 1) == 0))

    def _bring_back(self, batch: Tensor, step: int) -> dict[str, Tensor]:
        """Move codes that were not used since the last look to random features of the batch, none twice while they last, and a
        hundredth of the features' deviation beside them."""
        unused = (self.uses == 0).nonzero()[:, 0]
        self.uses.zero_()
        if len(unused) == 0:
            return {}
        generator, count = _generator(step), len(batch) * rank_and_world()[1]
        order = torch.randperm(count, generator=generator)[torch.arange(len(unused)) % count]
        chosen = global_rows(batch, order.to(batch.device))
        shift = torch.randn(chosen.shape, generator=generator).to(chosen.device)
        chosen = chosen + 0.01 * global_deviation(batch) * shift
        finite = chosen.isfinite().all(1)
        unused, chosen = unused[finite], chosen[finite]
        self.embedding.weight[unused] = chosen.to(self.embedding.weight.dtype)
        self._begin(unused, chosen, 1.0)
        return {"embedding.weight": unused} if len(unused) else {}


@dataclass
class _Notes:
    """What the micro-batches of one step have left, on this rank."""

    uses: Tensor | None = None  # int64 [K]
    sums: Tensor | None = None  # [K,c], of the features of each code
    rows: list[Tensor] = field(default_factory=list)  # [N,c] each, in the steps that need them


def _rows(features: Tensor) -> Tensor:
    """[B,c,h,w] -> [B*h*w,c]."""
    return features.movedim(1, -1).flatten(0, -2)


def _generator(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(step)


def _before_loading(codebook: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A codebook that comes without its counters, such as one of diffusers, is a trained one: it is neither young nor moved by one batch."""
    assert isinstance(codebook, Codebook)
    codebook._forget()
    weight = state.get(f"{prefix}embedding.weight")
    if weight is None:
        return
    missing = {name: buffer for name, buffer in codebook.named_buffers() if f"{prefix}{name}" not in state}
    for name, buffer in missing.items():
        state[f"{prefix}{name}"] = torch.zeros_like(buffer)
    if "steps" in missing:
        state[f"{prefix}steps"].fill_(max(codebook.revive, codebook.kmeans, 1))
    if "counts" in missing or "sums" in missing:
        state[f"{prefix}counts"] = torch.ones(len(weight))
        state[f"{prefix}sums"] = weight.detach().float().clone()
