"""FlashAttention's functions by their names, computed by Strobe: replace `from flash_attn import ...` by
`from strobe.flash_attn_interface import ...`. On the CPU too.

Signatures, defaults and results are those of FlashAttention-2 (github.com/Dao-AILab/flash-attention, flash_attn 2.8).
What FlashAttention-3 has beside them is taken by keyword; strobe.flash_attn_3 has its order of arguments. An argument
that Strobe does not support raises NotImplementedError, unless it has its default. Differences: rows that see no key
have lse -inf; max_seqlen_* are not needed; num_splits, pack_gqa and scheduler_metadata can only change the speed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strobe import torch as strobe_torch

_Window = tuple[int, int]


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
                    causal: bool = False, window_size: _Window = (-1, -1), softcap: float = 0.0,
                    alibi_slopes: Tensor | None = None, deterministic: bool = False, return_attn_probs: bool = False,
                    **of_3: Any) -> Any:
    """Attention of q [batch, seqlen_q, nheads, headdim] over k and v [batch, seqlen_k, nheads_k, headdim].

    Args:
        dropout_p: The probability with which weights are dropped; 0.0 in evaluation.
        softmax_scale: 1 / sqrt(headdim) unless given.
        causal: Whether query i sees keys up to i + seqlen_k - seqlen_q only.
        window_size: (left, right): only keys from i + seqlen_k - seqlen_q - left to ... + right; -1 is no bound.
        softcap: Above 0, scores are softcap * tanh(score / softcap).
        alibi_slopes: [nheads] or [batch, nheads] float32: score - slope * |i + seqlen_k - seqlen_q - j|.
        deterministic: Whether gradients have the same bits when computed twice.
        return_attn_probs: Whether to return (out, softmax_lse, S_dmask), the last of them empty, as there without dropout.
        **of_3: q_descale, k_descale, v_descale [batch, nheads_k] float32, num_splits, pack_gqa; and others, refused.

    Returns:
        out [batch, seqlen_q, nheads, headdim_v], or with softmax_lse [batch, nheads, seqlen_q] float32 and S_dmask.
    """
    options = _options(dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, of_3)
    return _attend(q, k, v, options, return_attn_probs)


def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
                             causal: bool = False, window_size: _Window = (-1, -1), softcap: float = 0.0,
                             alibi_slopes: Tensor | None = None, deterministic: bool = False,
                             return_attn_probs: bool = False) -> Any:
    """flash_attn_func with kv [batch, seqlen_k, 2, nheads_k, headdim]."""
    k, v = kv.unbind(2)
    return flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
                           deterministic, return_attn_probs)


def flash_attn_qkvpacked_func(qkv: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
                              causal: bool = False, window_size: _Window = (-1, -1), softcap: float = 0.0,
                              alibi_slopes: Tensor | None = None, deterministic: bool = False,
                              return_attn_probs: bool = False, *, num_heads_q: int | None = None, **of_3: Any) -> Any:
    """flash_attn_func with qkv [batch, seqlen, 3, nheads, headdim], or with num_heads_q given
    [batch, seqlen, nheads + 2 * nheads_k, headdim]."""
    q, k, v = _unpacked(qkv, num_heads_q)
    return flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap,
                           alibi_slopes, deterministic, return_attn_probs, **of_3)


def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                           max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0,
                           softmax_scale: float | None = None, causal: bool = False, window_size: _Window = (-1, -1),
                           softcap: float = 0.0, alibi_slopes: Tensor | None = None, deterministic: bool = False,
                           return_attn_probs: bool = False, block_table: Tensor | None = None, *,
                           seqused_q: Tensor | None = None, seqused_k: Tensor | None = None, **of_3: Any) -> Any:
    """flash_attn_func of sequences laid end to end, q [total_q, nheads, headdim], k and v [total_k, nheads_k, headdim].

    Args beside those of flash_attn_func:
        cu_seqlens_q, cu_seqlens_k: [batch + 1] int32, where each sequence begins, and the total.
        max_seqlen_q, max_seqlen_k: Not needed here.
        block_table: [batch, blocks] int32: k and v are pages, [num_blocks, page_size, nheads_k, headdim].
        seqused_q, seqused_k: [batch] int32, the rows in use of each sequence.

    Returns:
        out [total_q, nheads, headdim_v], or with softmax_lse [nheads, total_q] float32 and S_dmask.
    """
    options = _options(dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic, of_3)
    options.update(query_offsets=cu_seqlens_q, query_lengths=seqused_q)
    if block_table is None:
        options.update(key_offsets=cu_seqlens_k, key_lengths=seqused_k)
    else:
        options.update(page_table=block_table, key_lengths=cu_seqlens_k.diff() if seqused_k is None else seqused_k)
    return _attend(q, k, v, options, return_attn_probs)


def flash_attn_varlen_kvpacked_func(q: Tensor, kv: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                                    max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0,
                                    softmax_scale: float | None = None, causal: bool = False,
                                    window_size: _Window = (-1, -1), softcap: float = 0.0,
                                    alibi_slopes: Tensor | None = None, deterministic: bool = False,
                                    return_attn_probs: bool = False) -> Any:
    """flash_attn_varlen_func with kv [total_k, 2, nheads_k, headdim]."""
    k, v = kv.unbind(1)
    return flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
                                  softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                  return_attn_probs)


def flash_attn_varlen_qkvpacked_func(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float = 0.0,
                                     softmax_scale: float | None = None, causal: bool = False,
                                     window_size: _Window = (-1, -1), softcap: float = 0.0,
                                     alibi_slopes: Tensor | None = None, deterministic: bool = False,
                                     return_attn_probs: bool = False) -> Any:
    """flash_attn_varlen_func with qkv [total, 3, nheads, headdim]."""
    q, k, v = qkv.unbind(1)
    return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p,
                                  softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                  return_attn_probs)


def flash_attn_with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor, k: Tensor | None = None,
                            v: Tensor | None = None, rotary_cos: Tensor | None = None,
                            rotary_sin: Tensor | None = None, cache_seqlens: Tensor | int | None = None,
                            cache_batch_idx: Tensor | None = None, cache_leftpad: Tensor | None = None,
                            block_table: Tensor | None = None, softmax_scale: float | None = None,
                            causal: bool = False, window_size: _Window = (-1, -1), softcap: float = 0.0,
                            rotary_interleaved: bool = True, alibi_slopes: Tensor | None = None, num_splits: int = 0,
                            return_softmax_lse: bool = False, *, page_table: Tensor | None = None,
                            cu_seqlens_q: Tensor | None = None, max_seqlen_q: int | None = None,
                            scheduler_metadata: Tensor | None = None, **of_3: Any) -> Any:
    """Attention of q [batch, seqlen_q, nheads, headdim] over a cache, to which k and v are appended first, in place.

    Args beside those of flash_attn_func:
        k_cache, v_cache: [batch_cache, seqlen_cache, nheads_k, headdim]; with block_table [num_blocks, page_size, ...].
        k, v: [batch, seqlen_new, nheads_k, headdim], written at cache_seqlens[b], ...
        rotary_cos, rotary_sin: [seqlen_ro, rotary_dim / 2]: rotate q and k by their positions.
        cache_seqlens: The entries in use before the call, a number or [batch] int32; all unless given.
        cache_batch_idx: [batch] int32, the row of the cache that serves each sequence.
        block_table (in version 3: page_table): [batch, blocks] int32, the pages of each sequence.
        rotary_interleaved: Whether entries 0 and 1, 2 and 3, ... are pairs, or those of the two halves.
        return_softmax_lse: Whether to return (out, softmax_lse).

    Returns:
        out [batch, seqlen_q, nheads, headdim_v], or with softmax_lse [batch, nheads, seqlen_q] float32. No gradients.
    """
    _refuse(cache_leftpad=cache_leftpad)
    pages = page_table if block_table is None else block_table
    if cache_seqlens is None:
        if k is not None:
            raise ValueError("cache_seqlens is None, must be given with k and v: the entries in use before them")
        cache_seqlens = k_cache.shape[1] if pages is None else pages.shape[1] * k_cache.shape[1]
    if isinstance(cache_seqlens, int):
        batch = len(q) if cu_seqlens_q is None else len(cu_seqlens_q) - 1
        cache_seqlens = torch.full((batch,), cache_seqlens, dtype=torch.int32, device=k_cache.device)
    options = _options(0.0, softmax_scale, causal, window_size, softcap, alibi_slopes, False,
                       {**of_3, "num_splits": num_splits})
    del options["deterministic"], options["dropout"]
    options.update(new_key=k, new_value=v, rotary_cos=rotary_cos, rotary_sin=rotary_sin, page_table=pages,
                   cache_batch_index=cache_batch_idx, query_offsets=cu_seqlens_q,
                   rotary_style="interleaved" if rotary_interleaved else "halves")
    with torch.no_grad():
        result = strobe_torch.attention_with_cache(q, k_cache, v_cache, cache_seqlens, return_lse=return_softmax_lse,
                                                   **_given(options))
    return (_narrow(q, result[0]), result[1]) if return_softmax_lse else _narrow(q, result)


def flash_attn_combine(out_partial: Tensor, lse_partial: Tensor, out: Tensor | None = None,
                       out_dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """The result over all keys from those over parts of them (FlashAttention-3).

    Args:
        out_partial: [num_splits, batch, seqlen, nheads, headdim_v], or without batch, float32.
        lse_partial: [num_splits, batch, seqlen, nheads], or without batch, float32. Heads are last here.
        out: Where to write, of out_partial's shape without num_splits.
        out_dtype: The type of a new out; out_partial's unless given.

    Returns:
        (out, softmax_lse), the latter [batch, seqlen, nheads], or without batch.
    """
    merged, lse = strobe_torch.merge(out_partial, lse_partial.transpose(-1, -2).contiguous())
    if out is not None:
        merged = out.copy_(merged)
    elif out_dtype is not None:
        merged = merged.to(out_dtype)
    return merged, lse.transpose(-1, -2)


def get_scheduler_metadata(batch_size: int, max_seqlen_q: int, max_seqlen_k: int, num_heads_q: int, num_heads_kv: int,
                           headdim: int, cache_seqlens: Tensor, qkv_dtype: torch.dtype = torch.bfloat16,
                           headdim_v: int | None = None, cu_seqlens_q: Tensor | None = None,
                           cu_seqlens_k_new: Tensor | None = None, cache_leftpad: Tensor | None = None,
                           page_size: int | None = None, max_seqlen_k_new: int = 0, causal: bool = False,
                           window_size: _Window = (-1, -1), attention_chunk: int = 0, has_softcap: bool = False,
                           num_splits: int = 0, pack_gqa: bool | None = None, sm_margin: int = 0) -> Tensor:
    """An empty int32 tensor for flash_attn_with_kvcache(scheduler_metadata=...): Strobe plans within the call
    (FlashAttention-3)."""
    _refuse(cache_leftpad=cache_leftpad, cu_seqlens_k_new=cu_seqlens_k_new, attention_chunk=attention_chunk,
            sm_margin=sm_margin)
    return cache_seqlens.new_empty(0, dtype=torch.int32)


def _refuse(**arguments: Any) -> None:
    for name, given in arguments.items():
        if given is not None and (isinstance(given, Tensor) or given != 0):
            shown = f"of shape {list(given.shape)}" if isinstance(given, Tensor) else repr(given)
            raise NotImplementedError(f"{name} is {shown}, must be left at its default: Strobe does not support it")


def _options(dropout_p: float, softmax_scale: float | None, causal: bool, window_size: _Window, softcap: float,
             alibi_slopes: Tensor | None, deterministic: bool, of_3: dict[str, Any]) -> dict[str, Any]:
    """strobe.Options of FlashAttention's arguments; of_3 has those of version 3."""
    left, right = (None if side is None or side < 0 else side for side in window_size)
    options = {"dropout": dropout_p, "scale": softmax_scale, "causal": causal, "softcap": softcap,
               "alibi_slopes": alibi_slopes, "deterministic": deterministic,
               "query_descale": of_3.pop("q_descale", None), "key_descale": of_3.pop("k_descale", None),
               "value_descale": of_3.pop("v_descale", None), "splits": max(0, of_3.pop("num_splits", 0))}
    if left is not None or right is not None:
        options["window"] = (left, right)
    of_3.pop("pack_gqa", None)
    refused = ("qv", "attention_chunk", "sm_margin", "cu_seqlens_k_new", "rotary_seqlens")
    _refuse(**{name: of_3.pop(name, None) for name in refused})
    if of_3:
        raise TypeError(f"FlashAttention has no argument {next(iter(of_3))!r} here")
    return options


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: option for name, option in options.items() if option is not None}


def _attend(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any], return_attn_probs: bool) -> Any:
    if not return_attn_probs:
        return _narrow(q, strobe_torch.attention(q, k, v, **_given(options)))
    if options["dropout"] > 0:
        raise NotImplementedError("return_attn_probs is True, must be False with dropout_p above 0: Strobe does not store "
                                  "the probabilities, which S_dmask would have to hold then")
    out, lse = strobe_torch.attention(q, k, v, return_lse=True, **_given(options))
    return _narrow(q, out), lse, q.new_empty(0)


def _narrow(q: Tensor, out: Tensor) -> Tensor:
    return out.bfloat16() if q.dtype.itemsize == 1 else out  # what FlashAttention-3 gives for float8


def _unpacked(qkv: Tensor, num_heads_q: int | None) -> Any:
    if num_heads_q is None:
        return qkv.unbind(2)
    kv_heads = (qkv.shape[2] - num_heads_q) // 2
    return qkv.split([num_heads_q, kv_heads, kv_heads], 2)
