"""Computes on real tensors: allocates results and calls the extension. No gradient is recorded here.

The operators (_operators.py) call this when they run, and _dispatch.py directly where nobody traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from strobe import _core


def readable(tensor: Tensor) -> Tensor:
    """As the extension wants it: of innermost stride 1, which costs a copy otherwise, and without autograd's mark."""
    if tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    return tensor.detach() if tensor.requires_grad else tensor


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """The options as the extension takes them, of those that a function or an operator got."""
    readied = {}
    for name, given in options.items():
        if isinstance(given, Tensor):
            if name == "drawn_seed":
                name, given = "dropout_seed", int(given)
            elif given.requires_grad:
                given = given.detach()
        readied[name] = given
    if "window_left" in readied or "window_right" in readied:
        readied["window"] = (readied.pop("window_left", None), readied.pop("window_right", None))
    return readied


def output_shapes(query: Any, value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Of out and lse: [batch, length, heads, value_dim] and [batch, heads, length], or packed without batch."""
    *batch, length, heads, _ = query.shape
    return (*batch, length, heads, value.shape[-1]), (*batch, heads, length)


def output_type(query: Tensor) -> torch.dtype:
    return torch.float32 if query.dtype.itemsize == 1 else query.dtype  # float8 has float32 results


def forward(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any], want_lse: bool) -> tuple[Tensor, Any]:
    """(out, lse), lse None unless wanted."""
    query, key, value = readable(query), readable(key), readable(value)
    out_shape, lse_shape = output_shapes(query, value)
    out = query.new_empty(out_shape, dtype=output_type(query))
    lse = query.new_empty(lse_shape, dtype=torch.float32) if want_lse else None
    _core.forward(query, key, value, out, lse, None, plain(options))
    return out, lse


def backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
             grad_lse: Tensor | None, wrt: Sequence[str], options: dict[str, Any]) -> list[Tensor]:
    """The gradients that `wrt` names, of "query", "key", "value", "bias" and "sink", in its order."""
    options = plain(options)
    query, key, value, grad_out = readable(query), readable(key), readable(value), readable(grad_out)
    if grad_lse is not None:
        grad_lse = readable(grad_lse)
    inputs = {"query": query, "key": key, "value": value, "bias": options.get("bias"), "sink": options.get("sink")}
    gradients = {name: inputs[name].new_empty(inputs[name].shape) for name in wrt}
    _core.backward(grad_out, query, key, value, readable(out), readable(lse), grad_lse, gradients, None, options)
    return [gradients[name] for name in wrt]


def merge(outputs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = outputs.new_empty(outputs.shape[1:]), lses.new_empty(lses.shape[1:])
    _core.merge(readable(outputs), readable(lses), out, lse, None)
    return out, lse


def softmax(input: Tensor, axis: int) -> Tensor:
    out = input.new_empty(input.shape)
    _core.softmax(input.detach(), out, axis, None)
    return out


def softmax_backward(grad_out: Tensor, out: Tensor, axis: int) -> Tensor:
    grad_input = out.new_empty(out.shape)
    _core.softmax_backward(grad_out.detach(), out.detach(), grad_input, axis, None)
    return grad_input
