"""What the campaign breaks: pictures, runs of both stages, caches and samples, made once in a folder and copied for each trial.

All paths in them are relative to that folder, so a copy of it is whole.
"""

import json
import shutil
from pathlib import Path

import faults_child
import faults_heard
import numpy as np
from PIL import Image

AE = """\
dataset: {type: folder, path: ./pictures}
image: {size: 16}
autoencoder: {type: vae, channels: 3, widths: [8, 8], layers: 1, norm_groups: 4, attention: false}
loop: {steps: 6, batch: 4, lr: 1e-3, warmup: 2, report: 1, save: 2, preview: 3, keep: {every: 2}}
machine: {device: cpu, precision: fp32}
"""
VQ = AE.replace("type: vae", "type: vqvae, codebook_size: 16")
ADVERSARIAL = AE + "discriminator: {type: patchgan, widths: [8]}\nadversarial: {start: 2}\n"
LDM = """\
denoiser: {type: unet, widths: [8, 8], layers: 1, attention: [false, true], norm_groups: 4, head_dim: 4}
conditioner: {type: label, dim: 8}
preview: {count: 2, steps: 2}
loop: {steps: 6, batch: 4, lr: 1e-3, warmup: 2, report: 1, save: 2, preview: 3, keep: {every: 2, averages: 2}}
machine: {device: cpu, precision: fp32}
tracker: csv
"""
CHAIN = (
    ["fit-ae", "--config", "ae.yaml", "--out", "ae"],
    ["fit-ae", "--config", "vq.yaml", "--out", "vq"],
    ["encode-dataset", "--run", "ae", "--out", "cache", "shard=8"],
    ["encode-dataset", "--run", "vq", "--out", "codes", "store=codes", "shard=8"],
    ["fit-diffusion", "--config", "ldm.yaml", "--latents", "cache", "--out", "ldm"],
    ["sample", "--run", "ldm", "-n", "3", "--steps", "2", "--out", "samples"],
)
FORMATS = ("png", "jpg", "gif", "webp", "tif", "bmp", "ppm", "jp2", "avif")


def make(folder: Path) -> Path:
    """The folder with all of it, made when it is not there yet."""
    if not (folder / "samples" / "grid.png").exists():
        begin(folder)
    faults_heard.make(folder)
    (folder / faults_child.SAID).unlink(missing_ok=True)
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    return folder


def begin(folder: Path) -> None:
    """What seeds below faults_heard.SINCE break."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    pictures(folder / "pictures", random)
    formats(folder / "formats", random)
    idx(folder / "idx", random)
    for name, text in {"ae": AE, "vq": VQ, "gan": ADVERSARIAL, "ldm": LDM}.items():
        (folder / f"{name}.yaml").write_text(text)
    for words in CHAIN:
        ended = faults_child.run(words, folder, patience=None)
        if ended.code:
            raise SystemExit(f"{' '.join(words)} ended with {ended.code}:\n{ended.said}")


def pictures(folder: Path, random: np.random.Generator) -> None:
    """Two classes, both splits, captions in a table."""
    rows = []
    for split, count in {"train": 9, "val": 3}.items():
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                path = f"{split}/{name}/{number}.png"
                Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / path)
                rows.append({"file_name": path, "label": name, "text": f"a {name}, number {number}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def formats(folder: Path, random: np.random.Generator) -> None:
    """A picture of each format and of several modes."""
    folder.mkdir()
    smooth = np.clip(np.add.outer(np.arange(24), np.arange(20))[..., None] * [2, 3, 5] + random.integers(0, 9, (24, 20, 3)), 0, 255)
    image = Image.fromarray(smooth.astype(np.uint8))
    for ending in FORMATS:
        image.save(folder / f"rgb.{ending}")
    for ending in ("png", "tif"):
        image.convert("RGBA").save(folder / f"rgba.{ending}")
        image.convert("L").save(folder / f"grey.{ending}")
        Image.fromarray(random.integers(0, 65536, (20, 20), dtype=np.uint16)).save(folder / f"deep.{ending}")
        image.convert("P").save(folder / f"palette.{ending}")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("1").save(folder / "bits.tif", compression="group4")
    image.save(folder / "lzw.tif", compression="tiff_lzw")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif, progressive=True)
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90), image.rotate(45)])
    image.save(folder / "moving.webp", save_all=True, append_images=[image.rotate(45)], lossless=True)


def idx(folder: Path, random: np.random.Generator) -> None:
    """The four files of a small MNIST."""
    folder.mkdir()
    for prefix, count in {"train": 10, "t10k": 4}.items():
        images = random.integers(0, 256, (count, 16, 16), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in {"images-idx3": images, "labels-idx1": labels}.items():
            header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
            (folder / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())


def copy(made: Path, folder: Path, names: list[str]) -> None:
    """Put these files and folders into a trial's folder, their times with them."""
    for name in names:
        if (made / name).is_dir():
            shutil.copytree(made / name, folder / name, dirs_exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(made / name, folder / name)
