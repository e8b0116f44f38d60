"""Strobe inside torch.nn.functional.scaled_dot_product_attention, for those who ask for it:

>>> import strobe.sdpa
>>> strobe.sdpa.activate()       # torch.nn.attention.restore_flash_attention_impl() undoes it

It takes the place of PyTorch's flash attention, on the CPU and on CUDA devices, by PyTorch's registry of such (tested
with 2.13), where it is called "strobe". What Strobe does not compute (float64, dropout, head dimensions above 256) goes to
PyTorch's own as before. Nothing happens on import.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from strobe import _core


def register() -> None:
    """Enters "strobe" in the registry, from which torch.nn.attention.activate_flash_attention_impl("strobe") takes it."""
    if not (hasattr(torch.nn.attention, "register_flash_attention_impl") and hasattr(torch.library, "get_kernel")):
        raise NotImplementedError(f"PyTorch {torch.__version__} has no registry of flash attentions; 2.13 has. Call "
                                  "strobe.torch.attention instead of scaled_dot_product_attention")
    torch.nn.attention.register_flash_attention_impl("strobe", register_fn=_override)


def activate() -> None:
    """register(), and activates it."""
    register()
    torch.nn.attention.activate_flash_attention_impl("strobe")


class _Handle:
    """What the registry removes again."""

    def __init__(self, library: torch.library.Library) -> None:
        self.library: torch.library.Library | None = library

    def remove(self) -> None:
        if self.library is not None:
            self.library._destroy()
        self.library = None


def _override() -> _Handle:
    library = torch.library.Library("aten", "IMPL")
    warnings.filterwarnings("ignore", "Warning only once for all operators")  # that kernels are replaced: so they shall be
    for device, functions in {"CPU": _CPU, "CUDA": _CUDA if torch.cuda.is_available() else {}}.items():
        for name, make in functions.items():
            library.impl(name, make(torch.library.get_kernel(f"aten::{name}", device)), device, with_keyset=True,
                         allow_override=True)
    return _Handle(library)


def _served(query: Tensor, key: Tensor, value: Tensor, dropout_p: float) -> bool:
    return (dropout_p == 0 and query.dtype in (torch.float32, torch.float16, torch.bfloat16)
            and query.dtype == key.dtype == value.dtype and query.size(-1) <= 256
            and all(tensor.stride(-1) == 1 for tensor in (query, key, value)))


def _by_length(*tensors: Tensor) -> list[Tensor]:
    """[batch, length, heads, dim] of [batch, heads, length, dim], or the other way round."""
    return [tensor.transpose(1, 2) for tensor in tensors]


def _options(is_causal: bool, scale: float | None, mask: Tensor | None = None) -> dict[str, Any]:
    options: dict[str, Any] = {"causal": is_causal, "alignment": "top_left", "scale": scale}
    if mask is not None:
        mask = mask[(None,) * (4 - mask.dim())]
        options["mask" if mask.dtype == torch.bool else "bias"] = mask if mask.stride(-1) == 1 else mask.contiguous()
    return options


def _forward(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(out as query, lse [batch, heads, query_length])."""
    out = torch.empty_like(query)
    lse = query.new_empty(query.shape[:-1], dtype=torch.float32)
    by_length = _by_length(query, key, value, out)
    _core.forward(by_length[0], by_length[1], by_length[2], by_length[3], lse, None, options)
    return out, lse


def _backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
              options: dict[str, Any]) -> tuple[Tensor, ...]:
    if grad_out.stride(-1) != 1:
        grad_out = grad_out.contiguous()
    grad_out, query, key, value, out = _by_length(grad_out, query, key, value, out)
    gradients = {name: torch.empty_like(tensor, memory_format=torch.contiguous_format)
                 for name, tensor in (("query", query), ("key", key), ("value", value))}
    options["deterministic"] = torch.are_deterministic_algorithms_enabled()
    _core.backward(grad_out, query, key, value, out, lse.contiguous(), None, gradients, None, options)
    return tuple(_by_length(*gradients.values()))


def _cpu_forward(original: Any) -> Any:
    def forward(keys, query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
        if not _served(query, key, value, dropout_p):
            return original.call_boxed(keys, query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)
        out, lse = _forward(query, key, value, _options(is_causal, scale, attn_mask))
        return out, lse.transpose(1, 2).contiguous().transpose(1, 2)  # the strides that torch.compile counts on
    return forward


def _cpu_backward(original: Any) -> Any:
    def backward(keys, grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, *, attn_mask=None, scale=None):
        if not _served(query, key, value, dropout_p):
            return original.call_boxed(keys, grad_out, query, key, value, out, logsumexp, dropout_p, is_causal,
                                       attn_mask=attn_mask, scale=scale)
        return _backward(grad_out, query, key, value, out, logsumexp, _options(is_causal, scale, attn_mask))
    return backward


def _cuda_forward(original: Any) -> Any:
    def forward(keys, query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
        if return_debug_mask or not _served(query, key, value, dropout_p):
            return original.call_boxed(keys, query, key, value, dropout_p, is_causal, return_debug_mask, scale=scale)
        out, lse = _forward(query, key, value, _options(is_causal, scale))
        state = torch.zeros(2, dtype=torch.uint64, device=query.device)  # of dropout, which there is none
        return out, lse, None, None, query.size(2), key.size(2), state, state.new_zeros(()), query.new_empty(0)
    return forward


def _cuda_backward(original: Any) -> Any:
    def backward(keys, grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p,
                 is_causal, philox_seed, philox_offset, *, scale=None):
        if not _served(query, key, value, dropout_p):
            return original.call_boxed(keys, grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q,
                                       max_k, dropout_p, is_causal, philox_seed, philox_offset, scale=scale)
        return _backward(grad_out, query, key, value, out, logsumexp, _options(is_causal, scale))
    return backward


_CPU = {"_scaled_dot_product_flash_attention_for_cpu": _cpu_forward,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _cpu_backward}
_CUDA = {"_scaled_dot_product_flash_attention": _cuda_forward,
         "_scaled_dot_product_flash_attention_backward": _cuda_backward}
