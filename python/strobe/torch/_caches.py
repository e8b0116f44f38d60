"""attention_with_cache for PyTorch: over a cache that grows in place. Without gradients; _functions.py has those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from strobe import _caches
from strobe.torch._operators import arguments_of, traced

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from strobe._options import CacheOptions


def attention_with_cache(query: Tensor, key_cache: Tensor, value_cache: Tensor, key_lengths: Tensor, *,
                         new_key: Tensor | None = None, new_value: Tensor | None = None,
                         rotary_cos: Tensor | None = None, rotary_sin: Tensor | None = None,
                         rotary_style: Literal["interleaved", "halves"] | None = None,
                         page_table: Tensor | None = None, cache_batch_index: Tensor | None = None,
                         return_lse: bool = False, **options: Unpack[CacheOptions]) -> Any:
    """attention of a step's queries over a cache, to which the step's own keys and values are appended first.

    As strobe.attention_with_cache, whose arguments these are; torch.compile sees one operator that writes the cache.

    Args:
        query: [batch, query_length, query_heads, head_dim].
        key_cache: [cache_batch, capacity, kv_heads, head_dim]; with page_table [pages, page_size, kv_heads, head_dim].
        value_cache: As key_cache, with value_dim.
        key_lengths: [batch] int32, the entries in use before this call, which does not change it.
        new_key: [batch, new_length, kv_heads, head_dim], written into the cache first.
        new_value: [batch, new_length, kv_heads, value_dim].
        rotary_cos, rotary_sin: [positions, rotary_dim / 2], rotate queries and new keys; rotary_style says which pairs.
        page_table: [batch, pages_per_sequence] int32.
        cache_batch_index: [batch] int32.
        return_lse: Whether to return lse too, [batch, query_heads, query_length] float32.
        **options: causal=True and others of `strobe.Options`.

    Returns:
        out [batch, query_length, query_heads, value_dim], or (out, lse).
    """
    cache: Any = {"rotary_cos": rotary_cos, "rotary_sin": rotary_sin, "rotary_style": rotary_style, "page_table": page_table,
             "cache_batch_index": cache_batch_index}
    if not traced(query):
        return _caches.attention_with_cache(query, key_cache, value_cache, key_lengths, new_key=new_key,
                                            new_value=new_value, return_lse=return_lse, **cache, **options)
    if torch.is_grad_enabled():
        _refuse_gradients(query=query, key=key_cache, value=value_cache, new_key=new_key, new_value=new_value, **cache,
                          **options)
    arguments = arguments_of({**options, **cache, "key_lengths": key_lengths})
    if new_key is None:
        out, lse = torch.ops.strobe.attention(query, key_cache, value_cache, **arguments)
    else:
        out, lse = torch.ops.strobe.attention_append(query, key_cache, value_cache, new_key, new_value, **arguments)
    return (out, lse) if return_lse else out


def _refuse_gradients(**arguments: Any) -> None:
    """Refuses tensors that require gradients, which the operators would lose silently."""
    for name, given in arguments.items():
        if isinstance(given, Tensor) and given.requires_grad:
            raise ValueError(f"{name} is a tensor that requires gradients, must be detached, or the call be made under "
                             "torch.no_grad(): a cache has none")
