"""The options of attention, as keyword arguments. docs/options.md in the source defines each of them."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Array = Any
"""An array of any library that speaks DLPack."""


class CommonOptions(TypedDict, total=False):
    """The options that every function of attention takes as such.

    Below, b counts sequences, h query heads, i queries and j keys; p_i is where query i stands among the keys.
    `[a|1]` is an axis of `a` entries, or of one entry that serves all.
    """

    # The score of a query and a key: s = scale * (q_i . k_j), then softcap, bias and ALiBi in this order.
    scale: float | None
    """1 / sqrt(head_dim) unless given."""
    softcap: float | None
    """c > 0: s = c * tanh(s / c)."""
    bias: Array | None
    """[batch|1, query_heads|1, query_length|1, key_length|1], float32 or query's type: s += bias[b, h, i, j]."""
    alibi_slopes: Array | None
    """[query_heads] or [batch, query_heads] float32: s -= slope * |p_i - j|."""
    sink: Array | None
    """[query_heads] float32: one more logit in every row's softmax, which has no value."""

    # Which keys a query sees: those that everything given allows.
    causal: bool | None
    """j <= p_i."""
    window: tuple[int | None, int | None] | None
    """(left, right): p_i - left <= j <= p_i + right. None: no bound on that side."""
    alignment: Literal["bottom_right", "top_left"] | None
    """"bottom_right" (default): the last query stands at the last key; "top_left": the first at the first."""
    prefix_length: int | None
    """Keys j < prefix_length are exempt from causal and window."""
    prefix_lengths: Array | None
    """[batch] int32, instead of prefix_length."""
    query_documents: Array | None
    """[batch, query_length] or packed [total_queries] int32: only keys of the same document are seen."""
    key_documents: Array | None
    """[batch, key_length] or packed [total_keys] int32. Not given: query_documents serves both."""
    mask: Array | None
    """[batch|1, query_heads|1, query_length|1, key_length|1] bool, true is visible."""
    block_mask: Array | None
    """[batch|1, query_heads|1, query tiles, key tiles] bool, of tiles of block_rows x block_columns. Empty tiles cost
    nothing."""
    block_rows: int | None
    block_columns: int | None

    query_lengths: Array | None
    """[batch] int32: the queries in use. Rows beyond come out as zero."""

    # Dropout of probabilities, a pure function of (seed, offset, b, h, i, j).
    dropout: float | None
    """In [0, 1)."""
    dropout_seed: int | None
    dropout_offset: int | None

    # float8 inputs: the stored value times its factor is the value meant.
    query_descale: Array | None
    """[1] or [batch, kv_heads] float32."""
    key_descale: Array | None
    value_descale: Array | None

    # These change speed, never meaning.
    splits: int | None
    """Workers that share the keys of one query; 0 chooses."""
    batch_invariant: bool | None
    """The same bits for a sequence whatever else is in the batch."""


class Options(CommonOptions, total=False):
    """Everything beyond query, key and value. An option that is left out or None does nothing.

    Below, b counts sequences, h query heads, i queries and j keys; p_i is where query i stands among the keys.
    `[a|1]` is an axis of `a` entries, or of one entry that serves all.
    """

    # Lengths.
    query_offsets: Array | None
    """[batch + 1] int32 prefix sums: query is packed, [total_queries, query_heads, head_dim]. (cu_seqlens)"""
    key_offsets: Array | None
    """[batch + 1] int32 prefix sums: key and value are packed."""
    key_lengths: Array | None
    """[batch] int32: the keys in use. Memory beyond is never used."""

    # Caches: key and value are [cache_batch, capacity, kv_heads, dim], of which key_lengths are in use.
    cache_batch_index: Array | None
    """[batch] int32: the cache row that serves sequence b."""
    page_table: Array | None
    """[batch, pages_per_sequence] int32: key and value are [pages, page_size, kv_heads, dim]."""
    new_key: Array | None
    """[batch, new_length, kv_heads, head_dim]: written into `key` at key_lengths[b], ... before attention, which then
    sees them."""
    new_value: Array | None
    """[batch, new_length, kv_heads, value_dim]."""
    rotary_cos: Array | None
    """[positions, rotary_dim / 2] float32 or query's type: rotates queries and new keys by their positions."""
    rotary_sin: Array | None
    rotary_style: Literal["interleaved", "halves"] | None


class VarlenOptions(CommonOptions, total=False):
    """Of attention_varlen, which has the offsets as arguments."""

    key_lengths: Array | None
    """[batch] int32: the keys in use. Memory beyond is never used."""


class CacheOptions(CommonOptions, total=False):
    """Of attention_with_cache, which has the cache as arguments."""

    query_offsets: Array | None
    """[batch + 1] int32 prefix sums: query is packed, [total_queries, query_heads, head_dim]. (cu_seqlens)"""
