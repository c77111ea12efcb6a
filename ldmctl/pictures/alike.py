"""Pictures that are nearly the same, mirrored or saved again: by a hash of their gradients, and then by what they show at 16 x 16 pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 16  # pixels of what is compared
FEW = 4  # pixels of what is compared first
BITS = 6  # of 64 in which hashes of the same picture may differ
APART = 6.0  # of 255 levels, root mean square, that lossy files of one picture differ by at most
ROWS = 64  # of a matrix of hashes that is in memory
PART = 4096  # pictures that one is compared with together


class Glance(NamedTuple):
    """What is kept of one picture."""

    hash: int  # 64 bits
    mirrored: int  # of the mirrored picture
    small: np.ndarray  # uint8 [SIDE,SIDE,3]


def glance(image: Image.Image) -> Glance:
    """Of a decoded picture in mode RGB. The hash says of each of 8 x 8 places whether the next one is brighter (dHash)."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
    return Glance(_bits(grey), _bits(grey[:, ::-1]), small)


def pairs(glances: list[Glance], tell: Callable[[int], None] = lambda done: None) -> Iterator[tuple[int, int]]:
    """(i, j), i < j, of pictures that are nearly the same: not every two of a set, but as many as hold it together. `tell` hears how many were compared.

    What is in one set already is not compared again, so 10,000 copies of a picture take one look and not 50 million.
    """
    hashes = np.array([each.hash for each in glances], np.uint64)
    turned = np.array([each.mirrored for each in glances], np.uint64)
    small = np.array([each.small for each in glances])
    coarse = small.reshape(len(small), FEW, SIDE // FEW, FEW, SIDE // FEW, 3).mean((2, 4), dtype=np.float32) if len(glances) else small
    member = np.arange(len(glances))  # of which set each is, by its first picture
    for first in range(0, len(glances), ROWS):
        tell(first)
        near = close(hashes[first : first + ROWS], turned[first : first + ROWS], hashes[first:])
        for row in np.flatnonzero(near.any(1)).tolist():
            i = first + row
            others = i + 1 + np.flatnonzero(near[row, row + 1 :])
            if not len(others := others[member[others] != member[i]]):
                continue
            others = others[same(coarse[i], coarse[others], 1.01 * APART)]  # two pictures differ by no less than means of their parts do
            if not len(others):
                continue
            found = others[same(small[i], small[others])]
            yield from ((i, j) for j in found.tolist())
            sets = np.union1d(member[i], member[found])
            member[np.isin(member, sets)] = sets[0]


def close(some: np.ndarray, turned: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [R,N]: which hashes [N] differ from some [R], or from those mirrored, in few bits. A part at a time, which a cache holds."""
    found = np.empty((len(some), len(others)), bool)
    for start in range(0, len(others), PART):
        part = others[start : start + PART]
        here = np.bitwise_count(some[:, None] ^ part)
        found[:, start : start + PART] = np.minimum(here, np.bitwise_count(turned[:, None] ^ part), out=here) <= BITS
    return found


def same(one: np.ndarray, others: np.ndarray, most: float = APART) -> np.ndarray:
    """bool [N]: which of small pictures [N,S,S,3] differ from one by no more than lossy files do, mirrored or not."""
    a, found = one.astype(np.float32), [np.zeros(0, bool)]
    for start in range(0, len(others), PART):
        apart = [np.square(others[start : start + PART] - each).mean((1, 2, 3)) for each in (a, a[:, ::-1])]
        found.append(np.sqrt(np.minimum(*apart)) <= most)
    return np.concatenate(found)


def groups(count: int, found: Iterator[tuple[int, int]]) -> list[list[int]]:
    """Sets of two or more that are nearly the same, each in order."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for i, j in found:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    sets: dict[int, list[int]] = {}
    for index in range(count):
        sets.setdefault(root(index), []).append(index)
    return [each for each in sets.values() if len(each) > 1]


def _bits(grey: np.ndarray) -> int:
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
