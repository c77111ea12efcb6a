"""A small network that says which words of the data's own captions a picture shows: fitted in about a minute, offline.

It learns which pictures have a caption with the word, and that is not quite what
the word means: who writes `dog` under every dog can be judged by it, and who
leaves it out of half of them cannot. How well it tells words on pictures that it
has not learned from stands beside all that it says.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 64  # pixels of a side that it looks at, at most
WIDTHS = (32, 64, 64, 64, 64, 64)  # of convolutions, each of which halves the picture
LAST, HIDDEN = 4, 96
STEPS, BATCH, RATE, DECAY, SHIFT = 2000, 128, 2e-3, 1e-2, 2
RARE = 20.0  # times that a picture with a rare word counts, at most


class WordJudge(nn.Module):
    """Strided convolutions and two layers: uint8 [B,C,S,S] -> [B,K], above 0 where a picture is likelier with a word than without it."""

    def __init__(self, channels: int, size: int, words: int):
        super().__init__()
        self.side, self.words = min(size, SIDE), words
        layers: list[nn.Module] = []
        side = self.side
        for width in WIDTHS:
            if layers and side <= LAST:
                break
            layers += [nn.Conv2d(channels, width, 3 if layers else 5, stride=2, padding=1 if layers else 2), nn.SiLU()]
            channels, side = width, (side + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, words))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """[B,C,S,S] -> [B,K]."""
        return self.layers(shrunk(image, self.side).float() / 255)

    def fit(self, image: Tensor, shown: Tensor, *, steps: int) -> WordJudge:
        """Learns from pictures uint8 [N,C,s,s], shrunk, and which words their captions have, bool [N,K]; the same each time on one machine."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # how many there are decides how gradients are rounded
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.manual_seed(0)
                for module in self.layers:
                    if isinstance(module, nn.Conv2d | nn.Linear):
                        module.reset_parameters()
                self._train(image, shown.float(), steps)
        finally:
            torch.set_num_threads(threads)
        return self

    def _train(self, image: Tensor, shown: Tensor, steps: int) -> None:
        """AdamW, one cycle of the learning rate, each batch moved by up to `SHIFT` pixels. With and without a word weigh the same."""
        random = torch.Generator().manual_seed(0)
        optimizer = torch.optim.AdamW(self.requires_grad_(True).parameters(), lr=RATE, weight_decay=DECAY)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
        frequency = shown.mean(0).clamp(1e-6, 1 - 1e-6)
        weight = ((1 - frequency) / frequency).clamp(1 / RARE, RARE)
        padded = F.pad(image, (SHIFT, SHIFT, SHIFT, SHIFT))
        for _ in range(steps):
            rows = torch.randint(0, len(image), (BATCH,), generator=random)
            top, left = torch.randint(0, 2 * SHIFT + 1, (2,), generator=random).tolist()
            part = padded[rows, :, top : top + self.side, left : left + self.side].float() / 255
            F.binary_cross_entropy_with_logits(self.layers(part), shown[rows], pos_weight=weight).backward()
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
        self.requires_grad_(False).eval()


def shrunk(image: Tensor, side: int) -> Tensor:
    """uint8 [B,C,S,S] -> uint8 [B,C,side,side], by averaging."""
    if image.shape[-1] == side:
        return image
    return F.adaptive_avg_pool2d(image.float(), side).round().to(torch.uint8)
