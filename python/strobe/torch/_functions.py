"""attention and its kin as PyTorch's users call them: autocast, dropout from PyTorch's generator, gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from strobe import _core
from strobe.torch import _autograd
from strobe.torch._operators import traced

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from strobe._options import Options, VarlenOptions

_Arguments = ParamSpec("_Arguments")


def _quick(general: Callable[_Arguments, Any]) -> Callable[_Arguments, Any]:
    """`general`, attention, but past it where it has nothing to do that the extension does not do sooner."""

    @functools.wraps(general)
    def attention(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> Any:
        if not is_dynamo_compiling():
            out = _core.quick_torch_attention(arguments, options)
            if out is not None:
                return out
        return general(*arguments, **options)

    return attention


@_quick
def attention(query: Tensor, key: Tensor, value: Tensor, *, return_lse: bool = False, deterministic: bool = True,
              **given: Unpack[Options]) -> Any:
    """softmax(scale * query key^T + bias, masked) value, with gradients for query, key, value, bias and sink.

    Args:
        query: [batch, query_length, query_heads, head_dim] float32, float16, bfloat16 or (without gradients) float8; with
            query_offsets packed, [total_queries, query_heads, head_dim]. Under autocast it is cast, as key and value.
        key: [batch, key_length, kv_heads, head_dim], or packed with key_offsets. Query head h reads head
            h / (query_heads / kv_heads): no repeat_interleave.
        value: As key, with value_dim for head_dim.
        return_lse: Whether to return the log-sum-exp of each row of scores too. Gradients flow through it.
        deterministic: False lets gradients have other bits when computed twice, where that is faster; of no effect under
            torch.use_deterministic_algorithms(True).
        **given: causal=True, window=(left, right), softcap=30.0, bias=..., and all others of `strobe.Options`. With
            dropout=p and no dropout_seed, PyTorch's generator of the CPU draws one (torch.manual_seed).

    Storage in the order [batch, heads, length, dim] is passed as a view, x.transpose(1, 2). A tensor whose innermost
    stride is not 1 is copied.

    Returns:
        out [batch, query_length, query_heads, value_dim] in query's type, or (out, lse) with lse
        [batch, query_heads, query_length] float32.

    Raises:
        ValueError, TypeError, NotImplementedError: As strobe.attention; and where derivatives are asked for that there are
            not: second ones, in forward mode, of other options than bias and sink.
    """
    options: Any = given
    if not (isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)):
        _require_tensors(query=query, key=key, value=value)
    watched = traced(query)
    if watched or torch._C._is_any_autocast_enabled():
        query, key, value = _autocast(query, key, value)
    if "dropout" in options or "bias" in options or "sink" in options:
        options = _readied(options, watched)
    if forward_ad._current_level >= 0:
        _refuse_tangents(query=query, key=key, value=value, **options)
    if not torch.is_grad_enabled() or not _any_requires_grad(query, key, value, options):
        out, lse = _autograd.forward(query, key, value, options, return_lse, watched)
        return (out, lse) if return_lse else out
    bias, sink = options.get("bias"), options.get("sink")
    arrays = {name: given for name, given in options.items() if isinstance(given, Tensor) and name not in ("bias", "sink")}
    numbers = {name: given for name, given in options.items() if not isinstance(given, Tensor)}
    tensors = [query, key, value, bias, sink, *arrays.values()]
    if not watched:
        apply = _autograd.apply_directly
    elif torch.compiler.is_compiling():
        tensors, apply = _distinct(tensors), _autograd.Attention.apply
    elif torch._C._are_functorch_transforms_active():
        apply = _autograd.TransformedAttention.apply
    else:
        apply = _autograd.Attention.apply
    out, lse = apply(*tensors[:5], tuple(arrays), deterministic, watched, numbers, *tensors[5:])
    return (out, lse) if return_lse else out


def attention_varlen(query: Tensor, key: Tensor, value: Tensor, query_offsets: Tensor,
                     key_offsets: Tensor | None = None, *, return_lse: bool = False, deterministic: bool = True,
                     **options: Unpack[VarlenOptions]) -> Any:
    """attention of sequences of different lengths, laid end to end without padding. Gradients as in attention.

    Args:
        query: [total_queries, query_heads, head_dim].
        key: [total_keys, kv_heads, head_dim].
        value: [total_keys, kv_heads, value_dim].
        query_offsets: [batch + 1] int32, where each sequence begins, and total_queries at the end (cu_seqlens).
        key_offsets: The same of keys; query_offsets unless given.
        return_lse, deterministic, **options: As in attention.

    Returns:
        out [total_queries, query_heads, value_dim], or (out, lse) with lse [query_heads, total_queries] float32.
    """
    key_offsets = query_offsets if key_offsets is None else key_offsets
    return attention(query, key, value, return_lse=return_lse, deterministic=deterministic, query_offsets=query_offsets,
                     key_offsets=key_offsets, **options)


def merge(outputs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """The result over all keys from the results over disjoint parts of them, with gradients.

    Args:
        outputs: [parts, batch, query_length, query_heads, value_dim], the results of attention over each part;
            packed, [parts, total_queries, query_heads, value_dim].
        lses: [parts, batch, query_heads, query_length] float32, their lse; packed, [parts, query_heads, total_queries].

    Returns:
        (out, lse), as from one call over all keys.
    """
    return _autograd.Merge.apply(outputs, lses)


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    """softmax along one axis of [...], in one pass over it, with its gradient. A row of only -inf gives zeros."""
    return _autograd.Softmax.apply(input, dim)


def _readied(options: dict[str, Any], watched: bool) -> dict[str, Any]:
    """The options with a seed for dropout that lacks one, and with a sink in float32."""
    _require_tensors(**{name: options[name] for name in ("bias", "sink") if options.get(name) is not None})
    readied = dict(options)
    if options.get("dropout") and options.get("dropout_seed") is None:
        seed = torch.randint(0, 2**63 - 1, (1,), device="cpu")
        readied.pop("dropout_seed", None)
        if watched:
            readied["drawn_seed"] = seed
        else:
            readied["dropout_seed"] = int(seed)
    sink = options.get("sink")
    if sink is not None and sink.dtype != torch.float32:
        readied["sink"] = sink.float()
    return readied


def _require_tensors(**arguments: Any) -> None:
    for name, given in arguments.items():
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} is of type {type(given).__name__}, must be a torch.Tensor (strobe.attention takes "
                            "the arrays of any library)")


def _refuse_tangents(**arguments: Any) -> None:
    """Refuses forward mode, which would lose derivatives silently."""
    for name, given in arguments.items():
        if isinstance(given, Tensor) and forward_ad.unpack_dual(given).tangent is not None:
            raise NotImplementedError(f"{name} has a tangent, must have none: strobe.torch.attention has derivatives in "
                                      "reverse mode only (backward, torch.func.grad, vjp; not jvp, jacfwd)")


def _any_requires_grad(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Refuses options that require gradients and have none."""
    required = query.requires_grad or key.requires_grad or value.requires_grad
    for name, given in options.items():
        if isinstance(given, Tensor) and given.requires_grad:
            if name not in ("bias", "sink"):
                raise ValueError(f"{name} is a tensor that requires gradients, must be detached, since it has none")
            required = True
    return required


def _distinct(tensors: list[Any]) -> list[Any]:
    """Views in place of tensors that come again: Dynamo (PyTorch 2.13) traces no autograd function that is given one twice."""
    distinct: list[Any] = []
    for tensor in tensors:
        again = tensor is not None and any(tensor is other for other in distinct)
        distinct.append(tensor.view_as(tensor) if again else tensor)
    return distinct


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under torch.autocast, the tensors in its type, as scaled_dot_product_attention has them."""
    device = "cuda" if tensors[0].is_cuda else "cpu"
    if not torch.is_autocast_enabled(device):
        return tensors
    narrow = torch.get_autocast_dtype(device)
    return tuple(tensor.to(narrow) if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16) else tensor
                 for tensor in tensors)
