"""ICC profiles made from their published numbers (ICC.1:2001-04), so that tests need no file of anybody's."""

import struct

import numpy as np

# Red, green and blue primaries adapted to D50 (columns of the matrix to XYZ), and the exponent of the curve.
SRGB = ([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]], "srgb")
P3 = ([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]], "srgb")
ADOBE = ([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]], 563 / 256)
PROPHOTO = ([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0000, 0.0000, 0.8249]], 461 / 256)
D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(space, name="a test's profile") -> bytes:
    """A matrix profile."""
    matrix, curve = space
    columns = {f"{colour}XYZ": _xyz([row[i] for row in matrix]) for i, colour in enumerate("rgb")}
    return _profile("RGB ", "mntr", {**columns, **{f"{colour}TRC": _curve(curve) for colour in "rgb"}}, name)


def grey_profile(curve, name="a test's grey") -> bytes:
    """Grey with this exponent."""
    return _profile("GRAY", "mntr", {"kTRC": _curve(curve)}, name)


def ink_profile(name="a test's ink") -> bytes:
    """CMYK whose full cyan, magenta, yellow and black are the colours of `INKS`; between them it is linear in Lab."""
    grid = [_lab_of(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = b"".join(struct.pack(">3H", *(round(value) for value in lab)) for lab in grid)
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = struct.pack(">2H", 0, 65535)
    lut = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + struct.pack(">2H", 2, 2) + ramp * 4 + table + ramp * 3
    return _profile("CMYK", "prtr", {"A2B0": lut, "A2B1": lut, "A2B2": lut}, name, pcs="Lab ")


def expected(space, colour) -> list[int]:
    """The sRGB colour 0 to 255 of one in this space, by the formulas."""
    matrix, curve = space
    linear = _decoded(np.array(colour) / 255, curve)
    return [round(255 * float(value)) for value in _encoded(np.linalg.solve(np.array(SRGB[0]), np.array(matrix) @ linear))]


def expected_grey(curve, value) -> int:
    """The sRGB grey 0 to 255 of one with this exponent."""
    return round(255 * float(_encoded(_decoded(np.array([value / 255]), curve))[0]))


def _decoded(values, curve):
    if curve == "srgb":
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return values**curve


def _encoded(values):
    values = values.clip(0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def _lab_of(c, m, y, k):
    """The 16-bit Lab (ICC version 2: 100 is 65280, a and b from -128) of full inks over each other."""
    lightness = 100 * (1 - k) * (1 - 0.4 * c) * (1 - 0.5 * m) * (1 - 0.1 * y)
    a, b = (1 - k) * (-37 * c + 74 * m - 5 * y), (1 - k) * (-50 * c - 3 * m + 93 * y)
    return lightness * 652.8, (a + 128) * 256, (b + 128) * 256


def _profile(space, kind, tags, name, pcs="XYZ ") -> bytes:
    text = name.encode("ascii") + b"\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)
    parts = {"desc": described, "wtpt": _xyz(D50), "cprt": b"text\0\0\0\0none\0", **tags}
    place, index, body = 132 + 12 * len(parts), b"", b""
    for tag, content in parts.items():
        padded = content + bytes(-len(content) % 4)
        index += tag.encode("ascii") + struct.pack(">2I", place + len(body), len(content))
        body += padded
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x02400000, kind.encode(), space.encode(), pcs.encode())
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(value * 65536) for value in D50)) + bytes(48)
    return header + struct.pack(">I", len(parts)) + index + body


def _xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _curve(curve) -> bytes:
    if curve != "srgb":
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256))
    table = (65535 * _decoded(np.linspace(0, 1, 1024), curve)).round().astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(table)) + table.tobytes()
