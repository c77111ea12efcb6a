"""Parts of a diffusion transformer (Peebles and Xie, arXiv:2212.09748): tokens, their places, and the blocks that they go through.

Tokens are [B,N,D], the patches of a map row by row. A block is steered by one vector per picture, made of the time and
the condition. Norms, modulation and rotation are float32 under any autocast, and so is the sum that the blocks add to when it
comes in as float32; only matrix products round.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl.blocks.attention import attend
from ldmctl.blocks.embedding import sinusoids
from ldmctl.blocks.levels import run_block

EPS = 1e-6
MODULATED = 6  # shift, scale and gate of the attention, then of the MLP
WHOLE = 16  # hidden widths are multiples of it, as matrix units like them


def patchify(x: Tensor, side: int) -> Tensor:
    """[B,C,H,W] -> tokens [B,N,C*side*side]: squares of `side` pixels, row by row. H and W are multiples of `side`."""
    rows, columns = x.shape[2] // side, x.shape[3] // side
    squares = x.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """What `patchify` undoes: [B,rows*columns,C*side*side] -> [B,C,rows*side,columns*side]."""
    squares = tokens.unflatten(1, grid).unflatten(3, (-1, side, side))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def axial_sinusoids(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Where each place of a grid is, [rows*columns,width]: sinusoids of its row, then of its column. `width` is a multiple of 4."""
    return torch.cat([sinusoids(index, width // 2) for index in _places(rows, columns, device)], dim=1)


def axial_rotary(rows: int, columns: int, head_dim: int, device: torch.device | None = None) -> Tensor:
    """Cosines and sines [2,rows*columns,head_dim/2] of the angles of each place of a grid, for `rotate` (arXiv:2104.09864).

    The first half of the angles follows the row, the second the column, with frequencies from 1 down to nearly 1/100, since
    grids are short (Heo et al., arXiv:2403.13298, section 3.2). `head_dim` is a multiple of 4.
    """
    count = head_dim // 4
    frequencies = 100.0 ** (-torch.arange(count, dtype=torch.float32, device=device) / count)
    angles = torch.cat([index[:, None] * frequencies for index in _places(rows, columns, device)], dim=1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """x [B,N,heads,D] turned by its tokens' angles, rotary [2,N,D/2]: products of two such depend on the distance of their places alone."""
    cosine, sine = rotary[:, :, None].unbind(0)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def modulated_norm(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """tokens [B,N,D] of root mean square 1 (arXiv:1910.07467), then scaled by 1 + scale and shifted, both float32 [B,1,D]."""
    return (F.rms_norm(tokens.float(), tokens.shape[-1:], eps=EPS) * (1 + scale) + shift).to(tokens.dtype)


def gated_width(width: int, ratio: float) -> int:
    """The hidden width at which a SwiGLU has as many weights as an MLP `ratio` times as wide as its tokens, to a multiple of 16."""
    return max(WHOLE, WHOLE * round(2 * ratio * width / (3 * WHOLE)))


class RotaryAttention(nn.Module):
    """Self-attention of tokens that know their places by rotation, with queries and keys normalised in each head.

    So logits stay bounded however weights grow (Dehghani et al., arXiv:2302.05442, section 2): by the square root of a head's
    length while the norms' own weights are 1. There are no biases, which shifts of the modulation make up for.
    """

    def __init__(self, width: int, *, heads: int):
        super().__init__()
        if width % heads or (width // heads) % 4:
            raise ValueError(f"{heads} heads do not cut a width of {width} into multiples of 4.")
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q = nn.RMSNorm(width // heads, eps=EPS)
        self.norm_k = nn.RMSNorm(width // heads, eps=EPS)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, rotary: Tensor) -> Tensor:
        """tokens [B,N,width], rotary [2,N,width/heads/2] -> [B,N,width]."""
        query, key, value = self.to_qkv(tokens).unflatten(2, (3, self.heads, -1)).unbind(2)
        query, key = _placed(query, self.norm_q, rotary), _placed(key, self.norm_k, rotary)
        mixed = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention of a picture's tokens to others, such as words, with queries and keys normalised in each head.

    So it does not matter how long a token is. The output starts at 0, as a gate would; there are no biases, so tokens of zeros add nothing.
    """

    def __init__(self, width: int, *, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}.")
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.norm_q = nn.RMSNorm(width // heads, eps=EPS)
        self.norm_k = nn.RMSNorm(width // heads, eps=EPS)
        self.to_out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.to_out.weight)

    def forward(self, tokens: Tensor, heard: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens [B,L,width], heard [B,N,width], mask as in `attend` -> [B,L,width]."""
        query = self.to_q(tokens).unflatten(2, (self.heads, -1))
        key, value = self.to_kv(heard).unflatten(2, (2, self.heads, -1)).unbind(2)
        query, key = _normed(query, self.norm_q).to(query.dtype), _normed(key, self.norm_k).to(key.dtype)
        mixed = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), mask)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """An MLP whose hidden layer is a product of two, one of them through SiLU (Shazeer, arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj_in = nn.Linear(width, 2 * hidden, bias=False)
        self.proj_out = nn.Linear(hidden, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B,N,width] -> [B,N,width]."""
        gate, value = self.proj_in(tokens).chunk(2, dim=-1)
        return self.proj_out(F.silu(gate) * value)


class Offset(nn.Module):
    """Adds a learned constant, 0 at first: what a block keeps of its own when all blocks share one modulation (arXiv:2310.00426)."""

    def __init__(self, width: int):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, signal: Tensor) -> Tensor:
        """[B,width] -> [B,width]."""
        return signal + self.offset


class TransformerBlock(nn.Module):
    """Attention, then a SwiGLU, each shifted, scaled and gated by the picture's signal (adaLN-zero, arXiv:2212.09748, section 3.2).

    The signal is [B,width], or with `shared` the modulation [B,6*width] that the blocks have in common. A block's own modulation starts
    at 0 and its gates with it, so a new block changes nothing. One that `listens` attends to other tokens between the two (PixArt-alpha,
    arXiv:2310.00426, section 2.3), which the signal does not steer.
    """

    checkpointing = False

    def __init__(self, width: int, *, heads: int, hidden: int, shared: bool = False, dropout: float = 0.0, listens: bool = False):
        super().__init__()
        self.modulation = Offset(MODULATED * width) if shared else zeroed(nn.Linear(width, MODULATED * width))
        self.attention = RotaryAttention(width, heads=heads)
        self.cross_attention = CrossAttention(width, heads=heads) if listens else None
        self.mlp = SwiGLU(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, signal: Tensor, rotary: Tensor, heard: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """tokens [B,N,width] -> [B,N,width] of the same dtype; one that `listens` is given what is heard [B,M,width] and its mask."""
        return run_block(self, self._tokens, tokens, signal, rotary, heard, mask)

    def _tokens(self, tokens: Tensor, signal: Tensor, rotary: Tensor, heard: Tensor | None, mask: Tensor | None) -> Tensor:
        parts = self.modulation(signal).float()[:, None].chunk(MODULATED, dim=2)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        mixed = self.attention(modulated_norm(tokens, shift, scale), rotary)
        tokens = tokens + (gate * self.dropout(mixed)).to(tokens.dtype)
        if self.cross_attention is not None:
            assert heard is not None
            tokens = tokens + self.dropout(self.cross_attention(tokens, heard, mask)).to(tokens.dtype)
        made = self.mlp(modulated_norm(tokens, mlp_shift, mlp_scale))
        return tokens + (mlp_gate * self.dropout(made)).to(tokens.dtype)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with all its weights at 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _placed(x: Tensor, norm: nn.RMSNorm, rotary: Tensor) -> Tensor:
    """[B,N,heads,D] of one length in each head, then turned by place; in float32, out in the dtype of x."""
    return rotate(_normed(x, norm), rotary).to(x.dtype)


def _normed(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """[B,N,heads,D] of one length in each head, float32."""
    return F.rms_norm(x.float(), x.shape[-1:], norm.weight.float(), EPS)


def _places(rows: int, columns: int, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """The row and the column of each place of a grid, float32 [rows*columns], row by row."""
    row, column = (torch.arange(count, dtype=torch.float32, device=device) for count in (rows, columns))
    return row.repeat_interleave(columns), column.repeat(rows)
