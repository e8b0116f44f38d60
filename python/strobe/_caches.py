"""attention_with_cache and append: keys and values that a generation has seen, dense or in pages. attention computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from strobe import _core
from strobe._arrays import refuse_recorded_gradients, require_writable
from strobe._attention import attention

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from strobe._options import Array, CacheOptions


def attention_with_cache(
    query: Array,
    key_cache: Array,
    value_cache: Array,
    key_lengths: Array,
    *,
    new_key: Array | None = None,
    new_value: Array | None = None,
    rotary_cos: Array | None = None,
    rotary_sin: Array | None = None,
    rotary_style: Literal["interleaved", "halves"] | None = None,
    page_table: Array | None = None,
    cache_batch_index: Array | None = None,
    out: Array | None = None,
    return_lse: bool = False,
    stream: int | None = None,
    **options: Unpack[CacheOptions],
) -> Any:
    """attention of a step's queries over a cache, to which the step's own keys and values are appended first.

    Args:
        query: [batch, query_length, query_heads, head_dim]: one query for a step of generation, or a whole prompt.
        key_cache: [cache_batch, capacity, kv_heads, head_dim]; with page_table [pages, page_size, kv_heads, head_dim].
        value_cache: As key_cache, with value_dim.
        key_lengths: [batch] int32, the entries in use before this call. Memory beyond is never used. The call does not
            change it: add new_length afterwards.
        new_key: [batch, new_length, kv_heads, head_dim], written into the cache at key_lengths[b], ... before
            attention, which then sees them.
        new_value: [batch, new_length, kv_heads, value_dim].
        rotary_cos, rotary_sin: [positions, rotary_dim / 2] float32 or query's type: new keys and queries are rotated by
            their positions. What lies in the cache is taken as rotated.
        rotary_style: Which entries of a head are a pair: "interleaved" (0, 1), (2, 3), ... (default), or "halves".
        page_table: [batch, pages_per_sequence] int32: the pages of sequence b, in order.
        cache_batch_index: [batch] int32: the row of a dense cache that serves sequence b; b unless given.
        out, return_lse, stream, **options: As in attention. Several queries of a step want causal=True.

    Returns:
        out [batch, query_length, query_heads, value_dim], or (out, lse [batch, query_heads, query_length] float32).

    Raises: As attention does. Caches have no gradient.
    """
    given: Any = {"key_lengths": key_lengths, "new_key": new_key, "new_value": new_value, "rotary_cos": rotary_cos,
             "rotary_sin": rotary_sin, "rotary_style": rotary_style, "page_table": page_table,
             "cache_batch_index": cache_batch_index}
    given = {name: value for name, value in given.items() if value is not None}
    return attention(query, key_cache, value_cache, out=out, return_lse=return_lse, stream=stream, **given, **options)


def append(
    key_cache: Array,
    value_cache: Array,
    key_lengths: Array,
    new_key: Array,
    new_value: Array,
    *,
    rotary_cos: Array | None = None,
    rotary_sin: Array | None = None,
    rotary_style: Literal["interleaved", "halves"] | None = None,
    page_table: Array | None = None,
    cache_batch_index: Array | None = None,
    stream: int | None = None,
) -> None:
    """Writes new keys and values into a cache, rotated if that is asked for, and attends to nothing.

    The arguments are those of attention_with_cache. Raises: As attention does.
    """
    options = {"key_lengths": key_lengths, "new_key": new_key, "new_value": new_value, "rotary_cos": rotary_cos,
               "rotary_sin": rotary_sin, "rotary_style": rotary_style, "page_table": page_table,
               "cache_batch_index": cache_batch_index}
    refuse_recorded_gradients(key=key_cache, value=value_cache, **options)
    require_writable(key=key_cache, value=value_cache)
    _core.append(key_cache, value_cache, stream, options)
