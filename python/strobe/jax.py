"""Strobe in JAX on the CPU: under jit, with gradients (grad, vjp), by a callback into the same functions.

>>> from strobe.jax import attention
>>> loss = jax.jit(lambda q, k, v: attention(q, k, v, causal=True).sum())
>>> jax.grad(loss, argnums=(0, 1, 2))(query, key, value)

Options are those of `strobe.Options`; numbers among them are fixed when traced, arrays may be traced. No forward mode.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy
from jax.custom_derivatives import SymbolicZero

import strobe

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from strobe._options import Options

_DIFFERENTIABLE = ("query", "key", "value", "bias", "sink")


def attention(query: Any, key: Any, value: Any, *, return_lse: bool = False, **options: Unpack[Options]) -> Any:
    """softmax(scale * query key^T + bias, masked) value, with gradients for query, key, value, bias and sink.

    Args:
        query: [batch, query_length, query_heads, head_dim] float32, float16 or bfloat16; packed with query_offsets.
        key: [batch, key_length, kv_heads, head_dim].
        value: [batch, key_length, kv_heads, value_dim].
        return_lse: Whether to return (out, lse), lse [batch, query_heads, query_length] float32. It has a gradient too.
        **options: As in strobe.attention. A cache is read, never written: new_key is refused.

    Returns:
        out [batch, query_length, query_heads, value_dim], a JAX array of query's type, or (out, lse).

    Raises:
        NotImplementedError: JAX computes on another device than the CPU, or a gradient is asked for of another option.
        As strobe.attention does, but what is found while running comes as JAX's error that quotes it.
    """
    if jax.default_backend() != "cpu":
        raise NotImplementedError(f"JAX computes on {jax.default_backend()}, must on the CPU for strobe.jax "
                                  '(jax.config.update("jax_platforms", "cpu"))')
    if options.get("new_key") is not None:
        raise NotImplementedError("new_key is given, must not be: nobody writes to a JAX array. Append by "
                                  "jax.lax.dynamic_update_slice and give key_lengths")
    given: dict[str, Any] = {name: option for name, option in options.items() if option is not None}
    arrays = {name: option for name, option in given.items() if hasattr(option, "shape")}
    numbers = tuple((name, option) for name, option in given.items() if name not in arrays)
    differentiable = {"query": query, "key": key, "value": value}
    differentiable.update((name, arrays.pop(name)) for name in ("bias", "sink") if name in arrays)
    out, lse = _attention(numbers, differentiable, arrays)
    return (out, lse) if return_lse else out


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(numbers: tuple[tuple[str, Any], ...], differentiable: dict[str, Any], arrays: dict[str, Any]) -> Any:
    query, value = differentiable["query"], differentiable["value"]
    if query.ndim < 3:
        raise ValueError(f"query is of shape {list(query.shape)}, must be [batch, query_length, query_heads, head_dim]")
    *batch, length, heads, _ = query.shape
    results = (jax.ShapeDtypeStruct((*batch, length, heads, value.shape[-1]), query.dtype),
               jax.ShapeDtypeStruct((*batch, heads, length), numpy.float32))

    def compute(differentiable: dict[str, Any], arrays: dict[str, Any]) -> Any:
        return strobe.attention(**_as_numpy(differentiable), **_as_numpy(arrays), **dict(numbers), return_lse=True)

    return jax.pure_callback(compute, results, differentiable, arrays, vmap_method="sequential")


def _forward(numbers: Any, differentiable: Any, arrays: Any) -> Any:
    for name, array in arrays.items():
        if array.perturbed and numpy.issubdtype(array.value.dtype, numpy.floating):
            raise NotImplementedError(f"{name} is differentiated, must not be: there are gradients for "
                                      f"{', '.join(_DIFFERENTIABLE)}")
    differentiable, arrays = ({name: array.value for name, array in given.items()} for given in (differentiable, arrays))
    out, lse = _attention(numbers, differentiable, arrays)
    return (out, lse), (differentiable, arrays, out, lse)


def _backward(numbers: Any, saved: Any, upstream: Any) -> Any:
    differentiable, arrays, out, lse = saved
    upstream = [jax.numpy.zeros(grad.shape, grad.dtype) if isinstance(grad, SymbolicZero) else grad for grad in upstream]
    results = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in differentiable.items()}

    def compute(differentiable: Any, arrays: Any, out: Any, lse: Any, grad_out: Any, grad_lse: Any) -> Any:
        given = [_as_numpy(array) for array in (grad_out, out, lse, grad_lse)]
        inputs, wrt = _as_numpy(differentiable), [name for name in _DIFFERENTIABLE if name in differentiable]
        query, key, value = (inputs.pop(name) for name in ("query", "key", "value"))
        found = strobe.attention_backward(given[0], query, key, value, given[1], given[2], grad_lse=given[3], wrt=wrt,
                                          **inputs, **_as_numpy(arrays), **dict(numbers))
        return dict(zip(wrt, found))

    return jax.pure_callback(compute, results, differentiable, arrays, out, lse, *upstream,
                             vmap_method="sequential"), None


_attention.defvjp(_forward, _backward, symbolic_zeros=True)


def _as_numpy(arrays: Any) -> Any:
    """NumPy's views of what the callback is given: JAX's arrays must not be asked to compute within it."""
    return jax.tree.map(numpy.asarray, arrays)
