#!/usr/bin/env python3
"""Trains GPT-2 and BERT-large, with random weights, with Strobe's attention and with others: losses, step time, memory.

The text is the documentation of Python's standard library (the docstrings of its modules), one byte a token. Weights, data and
optimiser are the same for every attention, so the losses lie on one another as far as rounding goes. bfloat16 autocast, AdamW
with a learning rate that rises at first and gradients of a bounded norm, no dropout. Step times are of whole steps (forward,
backward, optimiser), the median after a warm-up. Compiled (torch.compile with fullgraph), each block of the network is one graph,
which takes seconds, or the whole network is. plots.py draws the losses.

    python bench/peers/train.py --model gpt2 --steps 200 --json gpt2.json      # on a GPU, with strobe installed
    python bench/peers/train.py --model tiny --device cpu --steps 20           # to try the script
    python bench/peers/plots.py gpt2.json                                      # writes gpt2-losses.svg, with matplotlib
"""

import argparse
import ast
import dataclasses
import functools
import json
import pathlib
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable

BYTES = 256
LEARNING_RATE, RISING_STEPS, LARGEST_NORM = 6e-4, 50, 1.0
MASK = 256  # BERT's token in place of those to guess


@dataclasses.dataclass
class Model:
    layers: int
    heads: int
    width: int
    length: int
    batch: int
    causal: bool  # predicts the next byte; otherwise every seventh, which is hidden


MODELS = {
    "gpt2": Model(layers=12, heads=12, width=768, length=1024, batch=8, causal=True),
    "bert-large": Model(layers=24, heads=16, width=1024, length=512, batch=56, causal=False),
    "tiny": Model(layers=2, heads=4, width=64, length=128, batch=4, causal=True),
}


@functools.cache
def documentation() -> bytes:
    """The docstrings of the standard library's modules, in the order of their names."""
    folder, texts = pathlib.Path(sysconfig.get_path("stdlib")), []
    for path in sorted(folder.rglob("*.py")):
        if {"test", "tests", "site-packages", "idlelib", "lib2to3"} & set(path.relative_to(folder).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        texts += [ast.get_docstring(node) or "" for node in ast.walk(tree)
                  if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    return "\n".join(text for text in texts if text).encode()


def attentions(causal: bool) -> dict[str, Callable]:
    """Each takes and gives [batch, length, heads, head_dim]."""
    import strobe.torch
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def eager(query, key, value):
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        return (scores.float().softmax(-1).to(value.dtype) @ value).transpose(1, 2)

    def sdpa(backend):
        def attend(query, key, value):
            with sdpa_kernel(backend):
                out = torch.nn.functional.scaled_dot_product_attention(
                    *(tensor.transpose(1, 2) for tensor in (query, key, value)), is_causal=causal)
            return out.transpose(1, 2)
        return attend

    def ours(query, key, value):
        return strobe.torch.attention(query, key, value, causal=causal)

    return {"eager": eager, "Strobe": ours, "SDPA, FlashAttention-2": sdpa(SDPBackend.FLASH_ATTENTION),
            "SDPA, cuDNN": sdpa(SDPBackend.CUDNN_ATTENTION)}


def network(model: Model, attend: Callable, device: str):
    """A pre-norm transformer over bytes, of weights that depend on the model and the device alone."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.between = nn.LayerNorm(model.width), nn.LayerNorm(model.width)
            self.joint, self.out = nn.Linear(model.width, 3 * model.width), nn.Linear(model.width, model.width)
            self.up, self.down = nn.Linear(model.width, 4 * model.width), nn.Linear(4 * model.width, model.width)

        def forward(self, x):
            joint = self.joint(self.before(x)).unflatten(-1, (3, model.heads, -1))
            x = x + self.out(attend(*joint.unbind(2)).flatten(2))
            return x + self.down(nn.functional.gelu(self.up(self.between(x)), approximate="tanh"))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.bytes, self.places = nn.Embedding(BYTES + 1, model.width), nn.Embedding(model.length, model.width)
            self.blocks = nn.Sequential(*(Block() for _ in range(model.layers)))
            self.last, self.head = nn.LayerNorm(model.width), nn.Linear(model.width, BYTES, bias=False)

        def forward(self, tokens):
            return self.head(self.last(self.blocks(self.bytes(tokens) + self.places.weight)))

    torch.manual_seed(0)
    with torch.device(device):
        made = Network()
        for parameter in made.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
    return made


def batches(model: Model, steps: int, device: str):
    """(tokens, targets), targets -100 where nothing is to be guessed; the same for every attention."""
    import torch
    text = torch.frombuffer(bytearray(documentation()), dtype=torch.uint8)
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        starts = torch.randint(len(text) - model.length - 1, (model.batch,), generator=draw)
        rows = torch.stack([text[start:start + model.length + 1] for start in starts]).long().to(device)
        tokens, targets = rows[:, :-1].clone(), rows[:, 1:].clone()
        if not model.causal:
            hidden = torch.arange(model.length, device=device) % 7 == 3
            targets = torch.where(hidden, tokens, -100)
            tokens[:, hidden] = MASK
        yield tokens, targets


def train(model: Model, attend: Callable, steps: int, device: str, compiled: str | None = None) -> dict:
    """`compiled` is "blocks", "network" or None."""
    import torch
    made = network(model, attend, device)
    torch._dynamo.reset()
    for part in {None: (), "blocks": made.blocks, "network": (made,)}[compiled]:  # blocks are alike: one of them is compiled
        part.compile(fullgraph=True)
    optimiser = torch.optim.AdamW(made.parameters(), lr=LEARNING_RATE, weight_decay=0.1, fused=device == "cuda")
    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    losses, times = [], []
    for step, (tokens, targets) in enumerate(batches(model, steps, device), 1):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / RISING_STEPS)
        if cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            logits = made(tokens)
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), LARGEST_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if cuda:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begin))
    settled = times[min(5, len(times) // 2):]
    return {"step_ms": statistics.median(settled), "fastest_ms": min(settled), "slowest_ms": max(settled),
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
            "losses": [loss.item() for loss in losses]}


def chosen_model(arguments: argparse.Namespace) -> Model:
    model = MODELS[arguments.model]
    return dataclasses.replace(model, batch=arguments.batch or model.batch)


def measure(arguments: argparse.Namespace, save: Callable[[list[dict]], object]) -> None:
    """Saves after every attention, so that a run cut short leaves what it has."""
    model, rows = chosen_model(arguments), []
    import torch
    chosen = {name: attend for name, attend in attentions(model.causal).items()
              if not arguments.attention or name in arguments.attention}
    for compiled in (None, arguments.compile) if arguments.compile else (None,):
        for name, attend in chosen.items():
            steps = arguments.steps if name in ("eager", "Strobe") and not compiled else min(arguments.steps, arguments.peer_steps)
            row = {"attention": name, "compiled": compiled}
            try:
                row |= train(model, attend, steps, arguments.device, compiled)
                memory = f", {row['peak_gib']:.1f} GiB" if row["peak_gib"] else ""
                print(f"{name}{' (compiled)' if compiled else ''}: {row['step_ms']:.1f} ms a step "
                      f"({row['fastest_ms']:.1f} to {row['slowest_ms']:.1f}){memory}, loss {row['losses'][0]:.3f} -> "
                      f"{row['losses'][-1]:.3f} in {len(row['losses'])} steps", flush=True)
            except (RuntimeError, NotImplementedError) as error:  # a backend that this device lacks
                row["why"] = str(error).splitlines()[0][:200]
                print(f"{name}{' (compiled)' if compiled else ''}: {row['why']}", flush=True)
            rows.append(row)
            save(rows)
            if arguments.device == "cuda":
                torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="gpt2")
    parser.add_argument("--steps", type=int, default=200, help="with eager attention and with Strobe's")
    parser.add_argument("--peer-steps", type=int, default=25, help="with others, and compiled, whose time alone counts")
    parser.add_argument("--batch", type=int, help="sequences a step; 8 for GPT-2, 56 for BERT-large unless given")
    parser.add_argument("--attention", action="append", help="only this one; may be given several times")
    parser.add_argument("--compile", nargs="?", const="blocks", choices=("blocks", "network"), help="also under torch.compile")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    import torch
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "the CPU"
    about = {"model": arguments.model, "device": device, "torch": torch.__version__,
             "python": sys.version.split()[0], **dataclasses.asdict(chosen_model(arguments))}

    def save(rows: list[dict]) -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")

    measure(arguments, save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
