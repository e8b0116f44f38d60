"""Computes on real tensors: allocates results and calls the extension. No gradient is recorded here.

The operators (_operators.py) call this when they run, and _autograd.py directly where nobody traces. Written for short
calls: what the extension refuses is looked at only after it has refused it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from strobe import _core


def output_shapes(query: Any, value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Of out and lse: [batch, length, heads, value_dim] and [batch, heads, length], or packed without batch."""
    *batch, length, heads, _ = query.shape
    return (*batch, length, heads, value.shape[-1]), (*batch, heads, length)


def output_type(query: Tensor) -> torch.dtype:
    return torch.float32 if query.dtype.itemsize == 1 else query.dtype  # float8 has float32 results


def forward(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any], want_lse: bool) -> tuple[Tensor, Any]:
    """(out, lse), lse None unless wanted. Options are those of strobe.Options."""
    if query.dim() < 3 or value.dim() < 3:
        raise ValueError(f"query is of shape {list(query.shape)} and value of {list(value.shape)}, must be [batch, length, "
                         "heads, dim], or packed without batch")
    lse = None
    if want_lse:
        *batch, length, heads, _ = query.shape
        lse = query.new_empty((*batch, heads, length), dtype=torch.float32)
    try:
        out: Any = _core.forward_like(query, key, value, torch.empty_like, lse, None, options)
        if out is not None:
            return out, lse
    except (ValueError, BufferError):  # strides that are refused are copied below; the rest is refused there again
        pass
    out = query.new_empty(output_shapes(query, value)[0], dtype=output_type(query))
    _call(_core.forward, [query, key, value], out, lse, None, options)
    return out, lse


def backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
             grad_lse: Tensor | None, wrt: Sequence[str], options: dict[str, Any]) -> list[Tensor]:
    """The gradients that `wrt` names, of "query", "key", "value", "bias" and "sink", in its order."""
    inputs: dict[str, Any] = {"query": query, "key": key, "value": value, "bias": options.get("bias"), "sink": options.get("sink")}
    gradients = {name: torch.empty_like(inputs[name], memory_format=torch.contiguous_format) for name in wrt}
    _call(_core.backward, [grad_out, query, key, value, out, lse, grad_lse], gradients, None, options)
    return [gradients[name] for name in wrt]


def merge(outputs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = outputs.new_empty(outputs.shape[1:]), lses.new_empty(lses.shape[1:])
    _call(_core.merge, [outputs, lses], out, lse, None)
    return out, lse


def softmax(input: Tensor, axis: int) -> Tensor:
    out = torch.empty_like(input)
    _call(_core.softmax, [input], out, axis, None)
    return out


def softmax_backward(grad_out: Tensor, out: Tensor, axis: int) -> Tensor:
    grad_input = torch.empty_like(out)
    _call(_core.softmax_backward, [grad_out, out], grad_input, axis, None)
    return grad_input


def _call(function: Callable[..., None], inputs: list[Any], *others: Any) -> None:
    """Calls a function of the extension; again, with copies, if it was strides of the inputs that were refused."""
    try:
        function(*inputs, *others)
    except (ValueError, BufferError):
        readied = [_readable(tensor) for tensor in inputs]
        *results, options = others
        if isinstance(options, dict):
            options = {name: _readable(given) for name, given in options.items()}
            changed = any(options[name] is not given for name, given in others[-1].items())
        else:
            changed = False
        if not changed and all(new is given for new, given in zip(readied, inputs)):
            raise
        function(*readied, *results, options)


def _readable(tensor: Any) -> Any:
    """With an innermost stride of 1, and without the mark of autograd, at which PyTorch before 2.10 lends no memory."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        return tensor
    if tensor.dim() > 0 and tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    return tensor.detach() if tensor.requires_grad else tensor
