"""Errors against float64 where some values are large: table 3 of the FlashAttention-3 paper (2407.08608).

Entries of query, key and value are drawn from N(0, 1) + N(0, 100) * Bernoulli(0.001). The error is the root of the mean
square of result - reference, the reference being attention of the same numbers in float64.
"""

from __future__ import annotations

import math
from typing import Callable

import strobe.torch
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

BATCH, HEADS, DIM = 1, 16, 64
LONGEST = 2048
OUTLIERS, OUTLIERS_DEVIATION = 0.001, 10.0
LARGEST_FLOAT8 = 448.0  # of e4m3

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def drawn(length: int, device: str) -> list[torch.Tensor]:
    """query, key and value, [batch, length, heads, dim] float64."""
    generator = torch.Generator().manual_seed(20)
    shape = (BATCH, length, HEADS, DIM)
    normal = lambda: torch.randn(shape, generator=generator, dtype=torch.float64)
    chosen = lambda: torch.rand(shape, generator=generator) < OUTLIERS
    return [(normal() + OUTLIERS_DEVIATION * normal() * chosen()).to(device) for _ in range(3)]


def standard(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention that stores scores and weights in the inputs' type."""
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    scores = query @ key.transpose(-1, -2) * DIM ** -0.5
    return (scores.softmax(-1) @ value).transpose(1, 2)


def sdpa(backend: SDPBackend) -> Attend:
    def attend(query, key, value):
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(*(tensor.transpose(1, 2) for tensor in (query, key, value))).transpose(1, 2)
    return attend


def in_float8(attend: Callable[..., torch.Tensor]) -> Attend:
    """Attention of inputs that are scaled to the range of e4m3, one factor a tensor, and rounded to it."""
    def rounded_attend(*inputs):
        factors = [tensor.abs().max().float() / LARGEST_FLOAT8 for tensor in inputs]
        rounded = [(tensor / factor).to(torch.float8_e4m3fn) for tensor, factor in zip(inputs, factors)]
        return attend(*rounded, *(factor.reshape(1) for factor in factors))
    return rounded_attend


@in_float8
def strobe_in_float8(query, key, value, query_factor, key_factor, value_factor):
    return strobe.torch.attention(query, key, value, query_descale=query_factor, key_descale=key_factor,
                                  value_descale=value_factor)


@in_float8
def exact_after_rounding(query, key, value, *factors):
    """What is left if nothing but the inputs is rounded."""
    return standard(*(tensor.double() * factor.double() for tensor, factor in zip((query, key, value), factors)))


def contenders() -> list[tuple[str, str, Attend]]:
    """(type, name, function)."""
    ours: Attend = strobe.torch.attention
    flash, cudnn = sdpa(SDPBackend.FLASH_ATTENTION), sdpa(SDPBackend.CUDNN_ATTENTION)
    named = [("strobe", ours), ("FlashAttention-2", flash), ("cuDNN", cudnn), ("standard attention", standard)]
    return [*(("float16", *each) for each in named), *(("bfloat16", *each) for each in named),
            ("float32", "strobe", ours), ("float32", "standard attention", standard),
            ("float8_e4m3", "strobe", strobe_in_float8), ("float8_e4m3", "inputs rounded, else exact", exact_after_rounding)]


def measure(length: int, device: str) -> list[dict]:
    """A row for every type and contender; `rmse` is None for one that did not run, and `why` tells."""
    inputs = drawn(length, device)
    reference, rows = standard(*inputs), []
    for dtype, name, attend in contenders():
        row = {"case": f"accuracy-{dtype}-d{DIM}-n{length}-h{HEADS}-full", "backend": device, "pass": "accuracy", "dtype": dtype,
               "head_dim": DIM,
               "batch": BATCH, "query_heads": HEADS, "query_length": length, "peer": None if name == "strobe" else name, "rmse": None,
               "why": None}
        narrow = inputs if dtype == "float8_e4m3" else [tensor.to(getattr(torch, dtype)) for tensor in inputs]
        try:
            with torch.no_grad():
                row["rmse"] = math.sqrt((attend(*narrow).double() - reference).square().mean().item())
        except RuntimeError as error:
            row["why"] = str(error).splitlines()[0][:200]
        rows.append(row)
    return rows

