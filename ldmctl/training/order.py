"""Seeds, and which items each step learns from: pure functions of (seed, step), the same on every rank."""

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on all parts, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def generator(device: torch.device | str, *parts: object) -> torch.Generator:
    """A generator on a device, seeded by all parts."""
    return torch.Generator(device).manual_seed(seed_of(*parts))


def reseed(*parts: object) -> None:
    """Seed the global generators, so that what follows is the same after a resume.

    Without an accelerator that of the CPU alone: torch.manual_seed would note the whole stack for a CUDA that never comes, in 0.8 ms.
    """
    if _has_accelerator():
        torch.manual_seed(seed_of(*parts))
    else:
        torch.default_generator.manual_seed(seed_of(*parts))


@lru_cache(1)
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


BLOCK = 256  # neighbours that `blocks` keeps near each other
WINDOW = 128 * BLOCK  # items that it mixes


@lru_cache(maxsize=2)  # the epoch that is learned from and the one that is read ahead
def epoch_order(seed: int, epoch: int, count: int, shuffle: str = "full") -> Tensor:
    """A permutation of range(count), a pure function of its arguments.

    `full`: any of them. `blocks`: blocks of BLOCK neighbours in any order, and items
    mixed within each WINDOW of them, so that at any time only a window is read from.
    """
    random = generator("cpu", "order", seed, epoch, count)
    if shuffle == "full":
        return torch.randperm(count, generator=random)
    blocks = torch.randperm(-(-count // BLOCK), generator=random)
    return torch.cat([_mixed(window, count, random) for window in blocks.split(WINDOW // BLOCK)])


def _mixed(blocks: Tensor, count: int, random: torch.Generator) -> Tensor:
    """The items of these blocks, in any order."""
    items = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
    items = items[items < count]
    return items[torch.randperm(len(items), generator=random)]


def batch_items(seed: int, count: int, batch: int, step: int, shuffle: str = "full", *, shift: int = 0) -> Tensor:
    """The items [batch] of one step: the epochs' permutations, one after the other, cut into batches.

    A run whose batch was changed has taken `shift` more items than so many steps of this batch take, or fewer.
    """
    position = step * batch + shift
    rows, end = [], position + batch
    while position < end:
        epoch, first = divmod(position, count)
        rows.append(epoch_order(seed, epoch, count, shuffle)[first : first + end - position])
        position += len(rows[-1])
    return torch.cat(rows)


def micro_batches(count: int, micro: int | None) -> list[slice]:
    """Consecutive slices of at most `micro` rows, as few and as even as can be."""
    parts = -(-count // (micro or count))
    size = -(-count // parts)  # as even as can be: each size is compiled again
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]
