"""What the campaign breaks since seed 8: pictures with captions and maps, runs that hear them, learned words, and what was said of samples."""

import json
from pathlib import Path

import faults_child
import numpy as np
from PIL import Image

SINCE = 8  # the first seed whose trials are of these, too
SAID = ("a red cat", "a blue cat", "two dogs on grass", "a dog", "a small cat on a red chair")
TOKENS = sorted({word for caption in SAID for word in caption.split()})
TINY = """\
denoiser: {type: unet, widths: [8, 8], layers: 1, attention: [false, true], norm_groups: 4, head_dim: 4}
preview: {count: 2, steps: 2}
loop: {steps: 6, batch: 4, lr: 1e-3, warmup: 2, report: 1, save: 2, preview: 3}
machine: {device: cpu, precision: fp32}
conditions: {label: null, text: TEXT, map: MAP, picture: PICTURE}
"""
CONFIGS = {
    "words": ("{type: words, width: 8, depth: 1, heads: 2, dim: 8, vocabulary: 300}", "null", "null"),
    "text": ("{type: text, encoder: ./encoder, width: 8, dim: 8}", "null", "null"),
    "map": ("null", "{type: map}", "null"),
    "large": ("null", "null", "{type: lowres, factor: 4}"),
}
FEW = ["--steps", "2", "batch=4"]
JUDGE = ["eval-samples", "--run", "words", "-n", "6", *FEW, "--extractor", "latent"]
LEARN = ["fit-token", "--run", "words", "--data", "./mine", "--word", "<mine>", "--steps", "6", "batch=4", "report=2", "workers=0"]
CHAIN = (
    ["encode-dataset", "--run", "ae", "--data", "./scenes", "--out", "heard", "shard=8"],
    *(["fit-diffusion", "--config", f"{name}.yaml", "--latents", "heard", "--out", name] for name in CONFIGS),
    [*LEARN, "--out", "tokens/mine.safetensors"],
    [*JUDGE, "--out", "judged"],
    ["data", "check", "./scenes", "--out", "checked"],
)
LAST = "checked/check.json"


def make(folder: Path) -> None:
    """All of it in a folder that has runs/ae already, by the commands of the chain."""
    if (folder / LAST).exists():
        return
    random = np.random.default_rng(1)
    scenes(folder / "scenes", random)
    (folder / "mine").mkdir()
    for number in range(3):
        picture(random).save(folder / "mine" / f"{number}.png")
    (folder / "small").mkdir()
    for number in range(3):
        picture(random).resize((4, 4)).save(folder / "small" / f"{number}.png")
    (folder / "prompts.txt").write_text("a red cat\na dog :0.6 | a blue cat :0.4\ntwo dogs on grass\n")
    for name, (text, map_, small) in CONFIGS.items():
        (folder / f"{name}.yaml").write_text(TINY.replace("TEXT", text).replace("MAP", map_).replace("PICTURE", small))
    done = faults_child.run([], folder, patience=None, work=lambda: encoder(Path("encoder")))
    for words in CHAIN if not done.code else ():
        done = faults_child.run(words, folder, patience=None)
        if done.code:
            break
    if done.code:
        raise SystemExit(f"ended with {done.code}:\n{done.said}")


def picture(random: np.random.Generator) -> Image.Image:
    """16 x 16 pixels of noise."""
    return Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))


def scenes(folder: Path, random: np.random.Generator) -> None:
    """Pictures of two splits with captions in a table, some with several, and label maps of three classes beside most of them."""
    rows = []
    for split, count in {"train": 14, "val": 4}.items():
        for place in (folder / split, folder / "masks" / split):
            place.mkdir(parents=True)
        for number in range(count):
            path = f"{split}/{number}.png"
            picture(random).save(folder / path)
            if number % 7 != 3:
                Image.fromarray(random.integers(0, 3, (16, 16), dtype=np.uint8)).save(folder / "masks" / path)
            said = SAID[number % len(SAID)]
            rows.append({"file_name": path, "text": [said, f"{said} here"] if number % 4 == 0 else said})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def encoder(folder: Path) -> int:
    """A text encoder of random weights that knows the words of the captions, as transformers saves one."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 24}
    transformers.BertModel(transformers.BertConfig(vocab_size=32, **sizes)).save_pretrained(folder)
    table = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<pad>", "<unk>", *TOKENS])}, "<unk>"))
    table.pre_tokenizer = pre_tokenizers.Whitespace()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=table, pad_token="<pad>", unk_token="<unk>", model_max_length=24)
    made.save_pretrained(folder)
    return 0
