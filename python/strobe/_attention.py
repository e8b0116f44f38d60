"""attention, dense and packed, its gradient and its plan: outputs are allocated here, the extension computes into them.

_caches.py has attention over a cache, _operators.py what is not attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from strobe import _core
from strobe._arrays import empty, handed, refuse_recorded_gradients, require_arrays

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from strobe._options import Array, Options, VarlenOptions


def attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    out: Array | None = None,
    return_lse: bool = False,
    stream: int | None = None,
    **options: Unpack[Options],
) -> Any:
    """softmax(scale * query key^T + bias, masked) value, by tiles: the score matrix is never stored.

    Args:
        query: [batch, query_length, query_heads, head_dim] float32, float16, bfloat16 or float8; with query_offsets
            packed, [total_queries, query_heads, head_dim].
        key: [batch, key_length, kv_heads, head_dim], packed with key_offsets, or a cache. Query head h reads head
            h / (query_heads / kv_heads).
        value: As key, with value_dim for head_dim.
        out: Where to write, [batch, query_length, query_heads, value_dim] in query's type or float32. A new array of
            query's library unless given, in query's type, float32 for float8.
        return_lse: Whether to return the log-sum-exp of each row of scores too, which attention_backward needs.
        stream: On a GPU, the address of the CUDA stream to run on. The stream on which query's library works at present
            (torch.cuda.current_stream()) unless given; the default stream if that library does not tell. What other
            streams compute must be there already. The call returns at once.
        **options: causal=True, window=(left, right), softcap=30.0, bias=..., and all others of `strobe.Options`.

    Strides are free but for the innermost, which is 1: transposed storage and slices of a joint array are passed as
    they lie.

    Returns:
        out, or (out, lse) with lse [batch, query_heads, query_length] float32; packed, [query_heads, total_queries].

    Raises:
        ValueError: An argument breaks a rule; the message names it. Nothing was written.
        TypeError: An argument is of a wrong type, or no option has this name.
        NotImplementedError: Nothing on this device computes what is asked for.

    The method is FlashAttention's (arXiv 2205.14135, 2307.08691).
    """
    given: Any = options
    allocates = out is None
    if allocates:
        require_arrays(query=query, key=key, value=value)
        float8 = query.dtype.itemsize == 1
        out = empty((*query.shape[:-1], *value.shape[-1:]), query, "float32" if float8 else None)
    lse = empty(_lse_shape(query), query, "float32") if return_lse else None
    _core.attention(query, key, value, out, lse, stream, given)
    if allocates:
        out = handed(out, query)
    return (out, handed(lse, query)) if return_lse else out


if not TYPE_CHECKING:
    attention = _core.quick_attention(attention)  # the same, sooner; what is unusual comes to the function above


def attention_varlen(
    query: Array,
    key: Array,
    value: Array,
    query_offsets: Array,
    key_offsets: Array | None = None,
    *,
    out: Array | None = None,
    return_lse: bool = False,
    stream: int | None = None,
    **options: Unpack[VarlenOptions],
) -> Any:
    """attention of sequences of different lengths, which are laid end to end without padding ("packed").

    Args:
        query: [total_queries, query_heads, head_dim].
        key: [total_keys, kv_heads, head_dim].
        value: [total_keys, kv_heads, value_dim].
        query_offsets: [batch + 1] int32, where each sequence begins, and total_queries at the end (cu_seqlens).
        key_offsets: The same of keys; query_offsets unless given.
        out: [total_queries, query_heads, value_dim], as in attention.
        return_lse, stream, **options: As in attention.

    Returns:
        out, or (out, lse) with lse [query_heads, total_queries] float32.

    Raises: As attention does. Its gradient: attention_backward with both offsets as options.
    """
    key_offsets = query_offsets if key_offsets is None else key_offsets
    return attention(query, key, value, out=out, return_lse=return_lse, stream=stream, query_offsets=query_offsets,
                     key_offsets=key_offsets, **options)


def attention_backward(
    grad_out: Array,
    query: Array,
    key: Array,
    value: Array,
    out: Array,
    lse: Array,
    *,
    grad_lse: Array | None = None,
    wrt: Sequence[str] = ("query", "key", "value"),
    deterministic: bool = True,
    stream: int | None = None,
    **options: Unpack[Options],
) -> tuple[Any, ...]:
    """The gradients of attention with respect to its inputs.

    Args:
        grad_out: The gradient of the result, [batch, query_length, query_heads, value_dim] or packed, as out.
        query, key, value: The inputs of attention.
        out, lse: The results of attention(query, key, value, return_lse=True, **options).
        grad_lse: The gradient of lse, [batch, query_heads, query_length] float32 or packed, if there is one.
        wrt: The inputs whose gradients are wanted, of "query", "key", "value", "bias" and "sink".
        deterministic: False lets the result have other bits when computed twice, where that is faster.
        stream: As for attention.
        **options: Those that attention was called with. Caches, rotary and float8 have no gradient.

    Returns:
        A gradient for each name in `wrt`, in its order, of that input's shape and type: (dq, dk, dv) by default.

    Raises: As attention does.
    """
    require_arrays(grad_out=grad_out, query=query, key=key, value=value, out=out, lse=lse)
    refuse_recorded_gradients(grad_out=grad_out, query=query, key=key, value=value, out=out, lse=lse, **options)
    inputs = {"query": query, "key": key, "value": value, "bias": options.get("bias"), "sink": options.get("sink")}
    for name in wrt:
        if inputs.get(name) is None:
            raise ValueError(f'wrt names "{name}", must name inputs that are given, of: {", ".join(inputs)}')
    gradients = {name: empty(tuple(inputs[name].shape), inputs[name]) for name in wrt}
    _core.backward(grad_out, query, key, value, out, lse, grad_lse, gradients, stream,
                   {**options, "deterministic": deterministic})
    return tuple(handed(gradients[name], inputs[name]) for name in wrt)


def plan(query: Array, key: Array, value: Array, *, backward: bool = False, **options: Unpack[Options]) -> _core.Plan:
    """What attention(query, key, value, **options), or its gradient, runs: the kernel, its tiles, its memory, and why.

    Computes nothing. On a GPU the kernels are loaded, and compiled if need be, so that the call itself does neither.

    >>> print(strobe.plan(query, key, value, causal=True))
    """
    return _core.plan(query, key, value, backward, {**options})


def _lse_shape(query: Array) -> tuple[int, ...]:
    """[batch, heads, length], or packed [heads, length], of query's [batch, length, heads, dim]."""
    require_arrays(query=query)
    if len(query.shape) < 3:
        raise ValueError(f"query is of shape {list(query.shape)}, must be [batch, query_length, query_heads, head_dim]")
    *batch, length, heads, _ = query.shape
    return (*batch, heads, length)
