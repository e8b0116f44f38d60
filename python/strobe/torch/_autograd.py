"""The gradients of attention, merge and softmax, for PyTorch's autograd. _functions.py calls them where gradients are
recorded; the sums themselves are in _compute.py, or in the operators where somebody traces.

There are no second derivatives: what the backward pass computes is a function of its own here, whose backward says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from strobe.torch import _compute
from strobe.torch._operators import arguments_of, traced

_DIFFERENTIABLE = ("query", "key", "value", "bias", "sink")


def forward(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any], want_lse: bool,
            watched: bool) -> tuple[Tensor, Any]:
    """(out, lse) without a gradient; by the operator where somebody watches (_operators.traced)."""
    if watched:
        return torch.ops.strobe.attention(query, key, value, **arguments_of(options))
    return _compute.forward(query, key, value, options, want_lse)


def _recorded(query, key, value, bias, sink, names, deterministic, watched, numbers, *arrays):
    """Attention's forward pass."""
    return forward(query, key, value, _options(bias, sink, names, numbers, arrays), True, watched)


def _keep(ctx, inputs, output):
    """Keeps for backward what it needs."""
    query, key, value, bias, sink, names, deterministic, _, numbers, *arrays = inputs
    ctx.save_for_backward(query, key, value, bias, sink, *output, *arrays)
    ctx.given = names, deterministic, numbers
    ctx.set_materialize_grads(False)


def _options(bias: Any, sink: Any, names: tuple[str, ...], numbers: dict[str, Any], arrays: Any) -> dict[str, Any]:
    if bias is None and sink is None and not names:
        return numbers
    return {"bias": bias, "sink": sink, **numbers, **dict(zip(names, arrays))}


class Attention(Function):
    """apply(query, key, value, bias, sink, names, deterministic, watched, numbers, *arrays) gives (out, lse).

    names are those of the arrays among the options other than bias and sink, numbers the other options; watched is
    _operators.traced(query).
    """

    @staticmethod
    def forward(ctx, *inputs):
        output = _recorded(*inputs)
        _keep(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx, grad_out, grad_lse):
        query, key, value, bias, sink, out, lse, *arrays = ctx.saved_tensors
        if grad_out is None:
            if grad_lse is None:
                return (None,) * (9 + len(arrays))
            grad_out = torch.zeros_like(out)
        wrt = [name for name, needed in zip(_DIFFERENTIABLE, ctx.needs_input_grad) if needed]
        names, deterministic, numbers = ctx.given
        options = {**_options(bias, sink, names, numbers, arrays),
                   "deterministic": deterministic or torch.are_deterministic_algorithms_enabled()}
        gradients_of = AttentionBackward.apply if torch.is_grad_enabled() else AttentionBackward.forward
        found = gradients_of(grad_out, query, key, value, out, lse, grad_lse, wrt, options)
        gradients = dict(zip(wrt, found))
        return (*map(gradients.get, _DIFFERENTIABLE), *(None,) * (4 + len(arrays)))


# Attention.apply without what Function.apply does in Python first, for transforms and setup_context: 2 us (PyTorch 2.13).
apply_directly = super(Function, Attention).apply


class TransformedAttention(Attention):
    """The same in the form that torch.func asks for, in which a call takes 60 us longer (PyTorch 2.13)."""

    @staticmethod
    def forward(*inputs):
        return _recorded(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _keep(ctx, inputs, output)


class AttentionBackward(Function):
    """The gradients, as something that autograd may record, but not differentiate."""

    @staticmethod
    def forward(grad_out, query, key, value, out, lse, grad_lse, wrt, options):
        if traced(query):
            given = arguments_of(options)
            return tuple(torch.ops.strobe.attention_backward(grad_out, query, key, value, out, lse, grad_lse, wrt, **given))
        return tuple(_compute.backward(grad_out, query, key, value, out, lse, grad_lse, wrt, options))

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *gradients):
        raise NotImplementedError(
            "strobe.torch.attention has no second derivative: its gradient must not be differentiated again. For that "
            "(gradient penalties, Hessians) use torch.nn.functional.scaled_dot_product_attention with "
            "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)")


class Merge(Function):
    """apply(outputs, lses) gives (out, lse)."""

    @staticmethod
    def forward(outputs, lses):
        return torch.ops.strobe.merge(outputs, lses) if traced(outputs) else _compute.merge(outputs, lses)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx, grad_out, grad_lse):
        # out = sum of w_s out_s and lse = log of the sum of exp(lse_s), with w_s = exp(lse_s - lse).
        outputs, lses, out, lse = ctx.saved_tensors
        weights = torch.where(lses == -torch.inf, 0, (lses - lse).exp())
        by_row = weights.transpose(-1, -2).unsqueeze(-1)  # [parts, batch, length, heads, 1]
        change = (grad_out * (outputs - out)).float().sum(-1).transpose(-1, -2)
        return (by_row * grad_out).to(outputs.dtype), weights * (change + grad_lse)


class Softmax(Function):
    """apply(input, axis)."""

    @staticmethod
    def forward(input, axis):
        return torch.ops.strobe.softmax(input, axis) if traced(input) else _compute.softmax(input, axis)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.axis = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad_out):
        (out,) = ctx.saved_tensors
        compute = torch.ops.strobe.softmax_backward if traced(out) else _compute.softmax_backward
        return compute(grad_out, out, ctx.axis), None
