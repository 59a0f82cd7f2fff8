"""A published Riffusion checkpoint in miniature: diffusers' layout, random weights."""

import json
import shutil
from pathlib import Path

import diffusers
import torch
import transformers

ROWS, WINDOW = 64, 8


def write_tokenizer(folder: Path) -> None:
    """Word pieces in the published layout: letters, letters that end a word, and one merge."""
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.()[]:\\"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "az", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\na z\n")
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    told = {**marks, "unk_token": "<|endoftext|>", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def write(root: Path) -> Path:
    """A checkpoint with random weights, written by diffusers into a new folder of `root`."""
    write_tokenizer(root / "words")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8), layers_per_block=1, norm_num_groups=2, latent_channels=4, sample_size=ROWS,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=WINDOW, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    tokenizer = transformers.CLIPTokenizer.from_pretrained(root / "words")
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    with torch.no_grad():  # louder words, so that what they change is far above rounding
        for name, weight in unet.named_parameters():
            if "attn2" in name and name.endswith("weight"):
                weight.mul_(4)
    scheduler = diffusers.PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.save_pretrained(root / "model", safe_serialization=True)
    shutil.rmtree(root / "model" / "tokenizer")  # newer libraries write another layout than the published one
    (root / "words").rename(root / "model" / "tokenizer")
    return root / "model"
