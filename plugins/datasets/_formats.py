"""Which files of a folder are pictures by their endings, and the packages that read the rarer ones.

HEIC and JPEG XL are read where `pillow-heif` and `pillow-jxl-plugin` are installed (`pip install "ldmctl[formats]"`).
"""

import importlib
import os
from collections import Counter
from collections.abc import Iterable
from functools import cache

from ._names import counted

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".jp2")
PACKAGES = {  # module: (package, endings)
    "pillow_heif": ("pillow-heif", (".heic", ".heif", ".hif", ".heics", ".heifs")),
    "pillow_jxl": ("pillow-jxl-plugin", (".jxl",)),
}
KNOWN = frozenset([*SUFFIXES, *(suffix for _, endings in PACKAGES.values() for suffix in endings)])
BESIDE = (  # endings of what lies beside pictures and is none
    ".txt .caption .json .jsonl .ndjson .csv .tsv .parquet .md .rst .html .htm .xml .yaml .yml .toml .ini .cfg .log .db .sqlite .sqlite3 .py .ipynb .sh .js "
    ".css .lnk .url .zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .npy .npz .pt .pth .safetensors .ckpt .pkl .pickle .mat .h5 .hdf5 .bin .lock .part .tmp .bak "
    ".doc .docx .xls .xlsx .ods .odt .bib .tex .sha256 .md5 .aae .xmp .cls"
)
NO_PICTURES = frozenset(BESIDE.split())
UNFINISHED = (".part", ".tmp", ".bak", ".lock")  # behind the ending of a picture: it was not downloaded to its end
NAMES = "readme license licence copying makefile dockerfile changelog authors notice version todo sha256sums md5sums checksums"
PLAIN = frozenset(NAMES.split())


@cache
def register() -> frozenset[str]:
    """The endings that installed packages add to Pillow's; a package that cannot be imported adds none."""
    found: set[str] = set()
    for module, (_, endings) in PACKAGES.items():
        try:
            plugin = importlib.import_module(module)  # pillow_jxl registers itself
            if hasattr(plugin, "register_heif_opener"):
                plugin.register_heif_opener()
        except (ImportError, OSError):  # a package without its library raises the latter
            continue
        found |= set(endings)
    return frozenset(found)


def wanted(suffixes: list[str]) -> set[str]:
    """The endings to read, in lower case: those of the config, and what packages add where it names the usual ones."""
    asked = {suffix.lower() for suffix in suffixes}
    added = register()
    return asked | added if asked == set(SUFFIXES) else asked


def ending(path: str) -> str:
    """`.jpg` of `a/b.JPG`."""
    return os.path.splitext(path)[1].lower()


def unread(paths: Iterable[str], asked: set[str]) -> Counter[str]:
    """How many files with each ending may be pictures and are not read; '' is no ending."""
    found: Counter[str] = Counter()
    for path in paths:
        suffix, stem = ending(path), os.path.splitext(path)[0]
        if suffix in UNFINISHED and ending(stem) in asked:
            found[ending(stem) + suffix] += 1
        elif suffix not in asked and suffix not in NO_PICTURES and not (suffix == "" and path.rpartition("/")[2].lower() in PLAIN):
            found[suffix] += 1
    return found


def account(found: Counter[str]) -> str:
    """One sentence on the files that are not read because of their endings."""
    parts = ", ".join(f"{count:,} {suffix or 'without an ending'}" for suffix, count in found.most_common(8))
    rest = sum(count for _, count in found.most_common()[8:])
    others = counted(rest, "other")
    lacking = [package for package, endings in PACKAGES.values() if any(suffix in endings for suffix in found)]
    ways = f" Install {' and '.join(lacking)} to read {'some of ' if len(found) > 1 else ''}them." if lacking else ""
    files = sum(found.values())
    verb = "is" if files == 1 else "are"
    return (
        f"{files:,} {'file' if files == 1 else 'files'} {verb} not read because of {'its ending' if files == 1 else 'their endings'}: "
        f"{parts}{f', {others}' if rest else ''}.{ways} Other endings that Pillow knows are read if dataset.suffixes names them."
    )
