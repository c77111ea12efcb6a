"""How files of tensors and pictures are spoilt, and which mutator a file's name asks for."""

import json
import struct
import zlib
from random import Random
from typing import Any

from faults_mutators import Mutator, dump_json, spoil_bytes, spoil_json, spoil_lines, spoil_table, spoil_tree, spoil_yaml

DTYPES = {"F32": ["I32", "F32", "U32"], "I32": ["I32", "F32", "U32"], "I64": ["I64", "F64"], "F64": ["I64", "F64"]}

# -- tensors -----------------------------------------------------------------------


def spoil_safetensors(random: Random, data: bytes) -> tuple[bytes, str]:
    """A change to the header of ldmctl, to the header of the format, to a tensor, or to the bytes."""
    chance = random.random()
    if chance < 0.15:
        return spoil_bytes(random, data)
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if chance < 0.3:
        header, said = spoil_tree(random, header)
        return _pack(dump_json(header), body), f"format: {said}"
    if chance < 0.35:
        lie = random.choice([0, 1, size - 1, size + 1, size * 2, 2**31, 2**63, 2**64 - 1])
        return lie.to_bytes(8, "little") + data[8:], f"header of {lie} bytes, where {size} stood"
    if chance < 0.7 and "ldmctl" in header.get("__metadata__", {}):
        own, said = spoil_tree(random, json.loads(header["__metadata__"]["ldmctl"]))
        header["__metadata__"]["ldmctl"] = dump_json(own).decode("utf-8", "replace")
        return _pack(dump_json(header), body), f"header: {said}"
    return _spoil_tensor(random, header, body)


def _spoil_tensor(random: Random, header: dict[str, Any], body: bytes) -> tuple[bytes, str]:
    names = [name for name in header if name != "__metadata__"]
    tensors = {name: (dict(header[name]), body[slice(*header[name]["data_offsets"])]) for name in names}
    name = random.choice(names)
    kind, values = tensors.pop(name)
    act = random.choice(["left out", "renamed", "added", "not finite", "zeros", "ones", "other shape", "other dtype", "random", "doubled"])
    if act == "renamed":
        name += random.choice(["x", ".weight", "", "../x"])
    if act == "not finite" and kind["dtype"] in ("F32", "F16", "F64", "BF16"):
        single = struct.pack("<f", random.choice([float("nan"), float("inf")]))
        one = {"F32": single, "F16": b"\x00\x7e", "BF16": b"\xc0\x7f", "F64": struct.pack("<d", float("nan"))}[kind["dtype"]]
        values = one * (len(values) // len(one))
    other = {"zeros": bytes(len(values)), "ones": b"\xff" * len(values), "random": random.randbytes(len(values)), "doubled": values * 2}
    values = other.get(act, values)
    if act == "doubled":
        kind["shape"] = [2 * kind["shape"][0], *kind["shape"][1:]] if kind["shape"] else [2]
    if act == "other shape":
        kind["shape"] = random.choice([[*kind["shape"], 1], kind["shape"][::-1], [1, *kind["shape"]], [len(values)]])
        kind["dtype"] = "U8" if kind["shape"] == [len(values)] else kind["dtype"]
    if act == "other dtype":
        kind["dtype"] = random.choice(DTYPES.get(kind["dtype"], ["F16", "BF16", "I16", "U16"]))
    if act != "left out":
        tensors[name] = (kind, values)
    if act == "added":
        tensors[f"{name}.more"] = (kind, values)
    out, offset = {"__metadata__": header.get("__metadata__", {})}, 0
    for each, (described, part) in tensors.items():
        out[each] = {**described, "data_offsets": [offset, offset + len(part)]}
        offset += len(part)
    return _pack(
        json.dumps(out).encode(), b"".join(part for _, part in tensors.values())
    ), f"tensor {name} {act} {kind['dtype']} {kind['shape']}"


def _pack(header: bytes, body: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + body


# -- pictures ----------------------------------------------------------------------


def spoil_picture(random: Random, data: bytes) -> tuple[bytes, str]:
    """A change to a picture: some of its bytes, a number in its head, or a chunk of a PNG with a right checksum."""
    if data[:4] == b"\x89PNG" and random.random() < 0.5:
        return spoil_png(random, data)
    if random.random() < 0.5:
        out = bytearray(data)
        spots = sorted({random.randrange(min(len(out), random.choice([40, 200, 1 << 20]))) for _ in range(random.choice([1, 2, 5, 20]))})
        for at in spots:
            out[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
        return bytes(out), f"bytes at {spots[:6]} changed"
    return spoil_bytes(random, data)


def spoil_png(random: Random, data: bytes) -> tuple[bytes, str]:
    """A change to one chunk of a PNG, its checksum made right again."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    row = random.randrange(len(chunks))
    kind, inner = chunks[row]
    act = random.choice(["inner", "head", "text", "drop", "twice", "big", "profile", "value"])
    if act == "inner":
        inner, _ = spoil_bytes(random, inner)
    if act == "head":
        row, kind, inner = 0, b"IHDR", bytearray(chunks[0][1])
        inner[random.randrange(len(inner))] = random.choice([0, 1, 2, 16, 255])
        inner = bytes(inner)
    chunks[row] = (kind, inner)
    own = next((text for name, text in chunks if name in (b"tEXt", b"iTXt") and text.startswith(b"ldmctl\0")), b"ldmctl\0{}")
    extra = {
        "text": (
            b"tEXt",
            random.choice([b"ldmctl\0{}", own[: 7 + random.randrange(len(own))], b"x\0" + b"y" * 2_000_000, b"\0", b"no zero"]),
        ),
        "big": (random.choice([b"zTXt", b"iTXt"]), b"x\0\0" + zlib.compress(bytes(random.choice([1_000, 80_000_000])))),
        "profile": (b"iCCP", b"x\0\0" + zlib.compress(random.randbytes(3000))),
        "value": (b"tEXt", b"ldmctl\0" + spoil_json(random, own.rpartition(b"\0")[2] or b"{}")[0]),
    }.get(act)
    if extra is not None:
        chunks = [each for each in chunks if not (act == "value" and each[1] == own)]
        chunks.insert(1, extra)
    if act in ("drop", "twice"):
        chunks[row : row + 1] = [] if act == "drop" else [chunks[row]] * 2
    packed = b"".join(len(inner).to_bytes(4, "big") + kind + inner + zlib.crc32(kind + inner).to_bytes(4, "big") for kind, inner in chunks)
    return data[:8] + packed, f"PNG chunk {row} ({kind.decode('latin-1')}) {act}"


PICTURES = ("png", "jpg", "gif", "webp", "tif", "bmp", "ppm", "jp2", "avif")
BY_ENDING: dict[str, Mutator] = {
    "yaml": spoil_yaml,
    "json": spoil_json,
    "jsonl": spoil_lines,
    "csv": spoil_table,
    "safetensors": spoil_safetensors,
}


def mutator_of(name: str) -> Mutator:
    """How a file of this name is spoilt."""
    ending = name.rpartition(".")[2]
    return BY_ENDING.get(ending, spoil_picture if ending in PICTURES else spoil_bytes)
