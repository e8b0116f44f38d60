#!/usr/bin/env python3
"""What a call costs the caller before the kernel: Strobe's Python functions beside PyTorch's scaled_dot_product_attention.

One query and one key of one head, so that little but the call itself takes time; on a GPU the kernels run behind it, and
calls are made in bursts that their queue holds. The time of an empty Python function of the same arguments is taken off.
A figure is the fastest of many bursts, since whatever else runs can only add to it; the contenders take turns.

    python bench/peers/host_time.py [--device cuda] [--json FILE]    # needs strobe installed, and PyTorch
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable

import strobe
import strobe.torch
import torch
from torch.nn.functional import scaled_dot_product_attention

CALLS, BURSTS = 200, 60
TARGETS = {"strobe.attention(out=)": 4.0, "strobe.torch.attention, no_grad": 8.0}


def nothing(*arguments, **options):
    """The empty call."""


def contenders(device: str) -> dict[str, tuple[bool, Callable[[], object]]]:
    """Name -> (whether gradients are recorded, a call)."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    query, key, value, out = (torch.randn(1, 1, 1, 64, device=device, dtype=dtype) for _ in range(4))
    by_head = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    trained = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    trained_by_head = [tensor.transpose(1, 2).detach().requires_grad_() for tensor in trained]
    attend = strobe.torch.attention
    return {
        "empty call": (False, lambda: nothing(query, key, value, out=out, causal=True)),
        "strobe.attention(out=)": (False, lambda: strobe.attention(query, key, value, out=out, causal=True)),
        "strobe.attention": (False, lambda: strobe.attention(query, key, value, causal=True)),
        "strobe.torch.attention, no_grad": (False, lambda: attend(query, key, value, causal=True)),
        "PyTorch's SDPA, no_grad": (False, lambda: scaled_dot_product_attention(*by_head, is_causal=True)),
        "torch.ops.strobe.attention": (False, lambda: torch.ops.strobe.attention(query, key, value, causal=True)),
        "strobe.torch.attention, recorded": (True, lambda: attend(*trained, causal=True)),
        "PyTorch's SDPA, recorded": (True, lambda: scaled_dot_product_attention(*trained_by_head, is_causal=True)),
    }


def burst(call: Callable[[], object], device: str) -> float:
    """Microseconds a call."""
    if device != "cpu":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    taken = time.perf_counter() - begin
    return 1e6 * taken / CALLS


def measure(device: str) -> dict[str, float]:
    """Microseconds over an empty call, by contender."""
    calls, fastest = contenders(device), {}
    for turn in range(BURSTS + 1):  # the first warms up
        for name, (recorded, call) in calls.items():
            with torch.set_grad_enabled(recorded):
                taken = burst(call, device)
            if turn > 0:
                fastest[name] = min(taken, fastest.get(name, taken))
    empty = fastest.pop("empty call")
    return {name: taken - empty for name, taken in fastest.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(arguments.device)
    print(f"us over an empty call, {arguments.device}, PyTorch {torch.__version__}, Python {sys.version.split()[0]}")
    for name, taken in figures.items():
        print(f"{taken:8.2f}  {name}" + (f" (target {TARGETS[name]:.0f})" if name in TARGETS else ""))
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": arguments.device, "torch": torch.__version__,
                                              "microseconds": figures}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
