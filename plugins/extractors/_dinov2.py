"""DINOv2's vision transformer (Oquab et al., arXiv:2304.07193), its tensors named as in Meta's files, so that a file is all it takes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, cat, nn

PATCH, HEAD = 14, 64  # pixels of a patch, numbers of a head
PUBLISHED = 37  # patches of a side that the published files were trained with last
SIZES = {"dinov2-vit-s-14": (384, 12), "dinov2-vit-b-14": (768, 12), "dinov2-vit-l-14": (1024, 24), "dinov2-vit-g-14": (1536, 40)}
GATED = "dinov2-vit-g-14"
KLUDGE = 0.1  # of a patch, by which Meta's code makes a grid larger before it is scaled: its numbers depend on it


class VisionTransformer(nn.Module):
    """float [B,3,14h,14w], normalised -> the class token [B,D] behind the last norm."""

    def __init__(self, width: int, depth: int, *, gated: bool = False, grid: int = PUBLISHED):
        super().__init__()
        self.grid = grid
        self.cls_token, self.pos_embed = (nn.Parameter(Tensor(1, count, width)) for count in (1, 1 + grid**2))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, stride=PATCH)})
        self.blocks = nn.ModuleList([Block(width, gated) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """[B,3,H,W] -> [B,D]."""
        patches = self.patch_embed["proj"](image)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = cat([self.cls_token.expand(len(image), -1, -1), tokens], 1) + self.places(patches.shape[-2], patches.shape[-1])
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def places(self, height: int, width: int) -> Tensor:
        """[1,1+hw,D]: what is added to tokens, of another grid than was trained by bicubic interpolation."""
        if (height, width) == (self.grid, self.grid):
            return self.pos_embed
        map_ = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        scale = ((height + KLUDGE) / self.grid, (width + KLUDGE) / self.grid)
        return cat([self.pos_embed[:, :1], F.interpolate(map_, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)], 1)


class Block(nn.Module):
    """Attention, then a layer for each token alone, both normalised before and scaled behind."""

    def __init__(self, width: int, gated: bool):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": nn.Parameter(Tensor(width))}) for _ in range(2))
        hidden = (4 * width * 2 // 3 + 7) // 8 * 8 if gated else 4 * width
        names = ("w12", "w3") if gated else ("fc1", "fc2")
        self.mlp = nn.ModuleDict({names[0]: nn.Linear(width, hidden * (1 + gated)), names[1]: nn.Linear(hidden, width)})
        self.gated = gated

    def forward(self, tokens: Tensor) -> Tensor:
        """[B,N,D] -> [B,N,D]."""
        tokens = tokens + self.ls1["gamma"] * self._attend(self.norm1(tokens))
        return tokens + self.ls2["gamma"] * self._each(self.norm2(tokens))

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](tokens).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        return self.attn["proj"](F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def _each(self, tokens: Tensor) -> Tensor:
        if not self.gated:
            return self.mlp["fc2"](F.gelu(self.mlp["fc1"](tokens)))
        gate, value = self.mlp["w12"](tokens).chunk(2, dim=-1)
        return self.mlp["w3"](F.silu(gate) * value)
