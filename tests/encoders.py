"""Folders of tiny text encoders with random weights and a tokenizer of a few words, as transformers saves them."""

from pathlib import Path

import torch

WORDS = ["a", "red", "blue", "green", "circle", "star", "on", "white", "black", "large", "small"]
KINDS = ["bert", "clip", "clip-text", "t5", "siglip", "gemma", "bart"]
SIZES = {"vocab_size": 20, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


def save(kind: str, folder: Path, *, tokenizer: bool = True, seed: int = 0) -> Path:
    """An encoder of 3 layers, 32 wide, for 40 tokens at most."""
    import transformers as hf

    torch.manual_seed(seed)
    model = {
        "bert": lambda: hf.BertModel(hf.BertConfig(**SIZES, max_position_embeddings=40)),
        "clip": lambda: hf.CLIPModel(
            hf.CLIPConfig(
                text_config=hf.CLIPTextConfig(**SIZES, max_position_embeddings=40, bos_token_id=1, eos_token_id=2),
                vision_config=hf.CLIPVisionConfig(**SIZES | {"vocab_size": 1}, image_size=8, patch_size=4),
            )
        ),
        "clip-text": lambda: hf.CLIPTextModel(hf.CLIPTextConfig(**SIZES, max_position_embeddings=40, bos_token_id=1, eos_token_id=2)),
        "t5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(vocab_size=20, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4, decoder_start_token_id=0)
        ),
        "siglip": lambda: hf.SiglipModel(
            hf.SiglipConfig(
                text_config=hf.SiglipTextConfig(**SIZES, max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2),
                vision_config=hf.SiglipVisionConfig(**SIZES | {"vocab_size": 1}, image_size=8, patch_size=4),
            )
        ),
        "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**SIZES, num_key_value_heads=2, head_dim=8, max_position_embeddings=40)),
        "bart": lambda: hf.BartModel(
            hf.BartConfig(
                vocab_size=20,
                d_model=32,
                encoder_layers=3,
                decoder_layers=1,
                encoder_ffn_dim=48,
                decoder_ffn_dim=48,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                max_position_embeddings=40,
            )
        ),
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**{key: SIZES[key] for key in SIZES if key != "vocab_size"}, image_size=8, patch_size=4)),
    }[kind]()
    model.save_pretrained(folder)
    if tokenizer:
        save_tokenizer(folder, marks=kind != "gemma")
    return folder


def save_tokenizer(folder: Path, *, marks: bool = True) -> None:
    """Words of a list, with a mark at either end; without, an empty text has no token at all."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}, "<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    if marks:
        made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    saved = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=40
    )
    saved.save_pretrained(folder)
