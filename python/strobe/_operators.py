"""What belongs to attention without being attention: merge of parts, and softmax with its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strobe import _core
from strobe._arrays import empty, handed, refuse_recorded_gradients, require_arrays, require_writable

if TYPE_CHECKING:
    from strobe._options import Array


def merge(outputs: Array, lses: Array, *, out: Array | None = None, stream: int | None = None) -> tuple[Any, Any]:
    """The result over all keys from the results over disjoint parts of them: exact, by their log-sum-exps.

    Args:
        outputs: [parts, batch, query_length, query_heads, value_dim], the results of attention over each part;
            packed, [parts, total_queries, query_heads, value_dim].
        lses: [parts, batch, query_heads, query_length] float32, their lse; packed, [parts, query_heads, total_queries].
        out: Where to write, as outputs without its first axis, in its type or float32. A new array unless given.
        stream: As in attention.

    Returns:
        (out, lse). A row that saw no key in any part has zero and -inf.

    Raises: As attention does.
    """
    require_arrays(outputs=outputs, lses=lses)
    refuse_recorded_gradients(outputs=outputs, lses=lses)
    merged = empty(tuple(outputs.shape[1:]), outputs) if out is None else out
    require_writable(out=merged)
    lse = empty(tuple(lses.shape[1:]), lses)
    _core.merge(outputs, lses, merged, lse, stream)
    return handed(merged, outputs) if out is None else out, handed(lse, lses)


def softmax(input: Array, *, axis: int = -1, out: Array | None = None, stream: int | None = None) -> Any:
    """softmax along one axis, in one pass over it (arXiv 1805.02867).

    Args:
        input: [...] of 1 to 5 axes, any strides; float32, float16 or bfloat16.
        axis: Which axis sums to one; negative counts from the end. Of any length.
        out: Where to write, of input's shape. A new array of input's type unless given.
        stream: As in attention.

    Returns:
        out. A row of only -inf gives zeros.

    Raises: As attention does.
    """
    require_arrays(input=input)
    refuse_recorded_gradients(input=input)
    result = empty(tuple(input.shape), input) if out is None else out
    require_writable(out=result)
    _core.softmax(input, result, axis, stream)
    return handed(result, input) if out is None else out


def softmax_backward(grad_out: Array, out: Array, *, axis: int = -1, stream: int | None = None) -> Any:
    """The gradient of softmax's input: out * (grad_out - sum(out * grad_out)) along the axis.

    Args:
        grad_out: [...], the gradient of softmax's result.
        out: [...], softmax's result.
        axis, stream: As in softmax.

    Returns:
        An array of out's shape and type.

    Raises: As attention does.
    """
    require_arrays(grad_out=grad_out, out=out)
    refuse_recorded_gradients(grad_out=grad_out, out=out)
    grad_input = empty(tuple(out.shape), out)
    _core.softmax_backward(grad_out, out, grad_input, axis, stream)
    return handed(grad_input, out)
