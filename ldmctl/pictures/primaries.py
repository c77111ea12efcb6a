"""ICC profiles of colour spaces that are told in numbers: white, red, green and blue as chromaticities, and a curve.

A profile of version 4 (ICC.1:2022) with nothing in it but what a transform needs.
"""

import struct
from functools import lru_cache

import numpy as np

D65, D50 = (0.3127, 0.3290), (0.9642, 1.0, 0.8249)  # x and y; X, Y and Z of the profiles' white
BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # also of sRGB
P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
BT2020 = ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1: (a x + b)^g above d, c x below
VIDEO_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)  # the inverse of BT.709's and BT.2020's
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
Place = tuple[float, float]  # x and y


@lru_cache(maxsize=32)
def rgb_profile(white: Place, primaries: tuple[Place, Place, Place], curve: tuple[float, ...]) -> bytes:
    """A profile of colour; ValueError where these are no primaries. `curve` is one exponent, or the five numbers of a curve with a line."""
    columns = _to_d50(white) @ _to_xyz(white, primaries)
    tags = {f"{name}XYZ": _xyz(columns[:, place]) for place, name in enumerate("rgb")}
    return _profile(b"RGB ", tags | {f"{name}TRC": _curve(curve) for name in "rgb"})


@lru_cache(maxsize=32)
def grey_profile(curve: tuple[float, ...]) -> bytes:
    """A profile of grey."""
    return _profile(b"GRAY", {"kTRC": _curve(curve)})


def _to_xyz(white: Place, primaries: tuple[Place, Place, Place]) -> np.ndarray:
    """The matrix from linear red, green and blue to X, Y and Z, in which white is all ones."""
    colours = np.stack([_xyz_of(each) for each in primaries], axis=1)
    try:
        return colours * np.linalg.solve(colours, _xyz_of(white))  # type: ignore[no-any-return]
    except np.linalg.LinAlgError:
        raise ValueError("three primaries in one line") from None


def _xyz_of(place: Place) -> np.ndarray:
    x, y = place
    if not (0 <= x <= 1 and 0 < y <= 1):
        raise ValueError(f"a chromaticity of {x:g}, {y:g}")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _to_d50(white: Place) -> np.ndarray:
    """How X, Y and Z look under D50, after Bradford."""
    before, after = BRADFORD @ _xyz_of(white), BRADFORD @ np.array(D50)
    return np.linalg.inv(BRADFORD) @ np.diag(after / before) @ BRADFORD  # type: ignore[no-any-return]


def _profile(space: bytes, tags: dict[str, bytes]) -> bytes:
    tags = {"wtpt": _xyz(np.array(D50)), **tags}
    place, index, body = 132 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        index += tag.encode("ascii") + struct.pack(">2I", place + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x04200000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(D50) + bytes(48)
    return header + struct.pack(">I", len(tags)) + index + body


def _fixed(values: object) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)  # type: ignore[attr-defined]


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _curve(numbers: tuple[float, ...]) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", 0 if len(numbers) == 1 else 3, 0) + _fixed(numbers)
