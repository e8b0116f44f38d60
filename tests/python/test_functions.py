"""Packed sequences, caches, merge and softmax under their own names, on NumPy arrays. Options: test_attention.py."""

import numpy
import pytest
import reference
import strobe

NUMBERS = numpy.random.default_rng(11)
BATCH, HEADS, KV_HEADS, DIM, VALUE_DIM = 2, 4, 2, 16, 24


def normal(*shape):
    return NUMBERS.standard_normal(shape, "float32")


def assert_close(actual, expected):
    numpy.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


def rotate(array, positions, cos, sin, style):
    """[batch, length, heads, dim] with the first 2 * cos.shape[1] entries of each head rotated; positions [batch, length]."""
    half = cos.shape[1]
    pairs = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if style == "interleaved" else (slice(0, half), slice(half, 2 * half))
    first, second = array[..., pairs[0]], array[..., pairs[1]]
    c, s = cos[positions][:, :, None], sin[positions][:, :, None]
    rotated = array.copy()
    rotated[..., pairs[0]], rotated[..., pairs[1]] = first * c - second * s, first * s + second * c
    return rotated


def test_varlen():
    offsets = numpy.array([0, 7, 7, 20], "int32")
    key_offsets = numpy.array([0, 9, 14, 40], "int32")
    query, key, value = normal(20, HEADS, DIM), normal(40, KV_HEADS, DIM), normal(40, KV_HEADS, VALUE_DIM)
    out, lse = strobe.attention_varlen(query, key, value, offsets, key_offsets, causal=True, return_lse=True)
    for row in range(3):
        rows, keys = slice(*offsets[row:row + 2]), slice(*key_offsets[row:row + 2])
        expected, expected_lse = reference.attention(query[None, rows], key[None, keys], value[None, keys], causal=True)
        assert_close(out[None, rows], expected)
        assert_close(lse[None, :, rows], expected_lse)
    given = numpy.empty_like(out)
    assert strobe.attention_varlen(query, key, value, offsets, key_offsets, causal=True, out=given) is given
    assert numpy.array_equal(given, out)
    alone = strobe.attention_varlen(query, query, query, offsets)
    assert numpy.array_equal(alone, strobe.attention_varlen(query, query, query, offsets, offsets))
    with pytest.raises(ValueError, match="^query_offsets is "):
        strobe.attention_varlen(query, key, value, key_offsets, key_offsets)


@pytest.mark.parametrize("style", ["interleaved", "halves"])
@pytest.mark.parametrize("paged", [False, True])
def test_cache_with_append_and_rotary(paged, style):
    lengths, new, capacity, rotary = numpy.array([5, 11], "int32"), 3, 16, 8
    key, value = normal(BATCH, capacity, KV_HEADS, DIM), normal(BATCH, capacity, KV_HEADS, VALUE_DIM)
    query = normal(BATCH, new, HEADS, DIM)
    new_key, new_value = normal(BATCH, new, KV_HEADS, DIM), normal(BATCH, new, KV_HEADS, VALUE_DIM)
    angle = NUMBERS.uniform(0, 6, (capacity, rotary // 2))
    cos, sin = numpy.cos(angle).astype("float32"), numpy.sin(angle).astype("float32")
    options = {"rotary_cos": cos, "rotary_sin": sin, "rotary_style": style}
    positions = lengths[:, None] + numpy.arange(new)
    turned_query, turned_key = (rotate(array, positions, cos, sin, style) for array in (query, new_key))

    stored_key, stored_value = key.copy(), value.copy()
    if paged:  # four pages of four entries for each sequence, in an order of their own
        options["page_table"] = table = NUMBERS.permutation(8).astype("int32").reshape(BATCH, 4)
        for stored, plain in ((0, key), (1, value)):
            pages = numpy.empty((8, 4, *plain.shape[2:]), "float32")
            pages[table.ravel()] = plain.reshape(8, 4, *plain.shape[2:])
            stored_key, stored_value = (pages, stored_value) if stored == 0 else (stored_key, pages)
    appended = [stored_key.copy(), stored_value.copy()]
    out, lse = strobe.attention_with_cache(query, stored_key, stored_value, lengths, new_key=new_key, new_value=new_value,
                                           causal=True, return_lse=True, **options)
    for row, length in enumerate(lengths):
        keys = numpy.concatenate([key[row, :length], turned_key[row]])[None]
        values = numpy.concatenate([value[row, :length], new_value[row]])[None]
        expected, expected_lse = reference.attention(turned_query[row:row + 1], keys, values, causal=True)
        assert_close(out[row:row + 1], expected)
        assert_close(lse[row:row + 1], expected_lse)
    strobe.append(*appended, lengths, new_key, new_value, **options)
    assert numpy.array_equal(appended[0], stored_key) and numpy.array_equal(appended[1], stored_value)


def test_rows_of_a_cache():
    key, value = normal(3, 10, KV_HEADS, DIM), normal(3, 10, KV_HEADS, DIM)
    query, lengths, rows = normal(BATCH, 1, HEADS, DIM), numpy.array([4, 10], "int32"), numpy.array([2, 0], "int32")
    out = numpy.empty_like(query)
    assert strobe.attention_with_cache(query, key, value, lengths, cache_batch_index=rows, out=out) is out
    for b in range(BATCH):
        used = slice(rows[b], rows[b] + 1), slice(0, lengths[b])
        assert_close(out[b:b + 1], reference.attention(query[b:b + 1], key[used], value[used])[0])


def test_caches_that_cannot_be_written():
    key, value, lengths = normal(1, 8, 1, DIM), normal(1, 8, 1, DIM), numpy.zeros(1, "int32")
    key.flags.writeable = False
    with pytest.raises(ValueError, match="^key is read-only"):
        strobe.append(key, value, lengths, normal(1, 1, 1, DIM), normal(1, 1, 1, DIM))
    with pytest.raises(ValueError, match="^new_value is "):
        strobe.append(value.copy(), value, lengths, normal(1, 1, 1, DIM), normal(1, 1, 2, DIM))
    with pytest.raises(TypeError, match="^key_lengths is of type int"):
        strobe.attention_with_cache(normal(1, 1, 1, DIM), value, value, 3)


def test_merge_of_halves_is_the_whole():
    query, key, value = normal(BATCH, 9, HEADS, DIM), normal(BATCH, 30, KV_HEADS, DIM), normal(BATCH, 30, KV_HEADS, DIM)
    halves = [strobe.attention(query, key[:, part], value[:, part], return_lse=True) for part in (slice(0, 13), slice(13, 30))]
    outputs, lses = map(numpy.stack, zip(*halves))
    out, lse = strobe.merge(outputs, lses)
    expected, expected_lse = reference.attention(query, key, value)
    assert_close(out, expected)
    assert_close(lse, expected_lse)
    given = numpy.empty_like(out)
    assert strobe.merge(outputs, lses, out=given)[0] is given and numpy.array_equal(given, out)
    packed, packed_lse = strobe.merge(outputs[:, 0], lses[:, 0])
    assert numpy.array_equal(packed, out[0]) and numpy.array_equal(packed_lse, lse[0])
    with pytest.raises(ValueError, match="^lses is "):
        strobe.merge(outputs, lses[:, :1])


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax(axis):
    logits, upstream = 4 * normal(5, 7, 33), normal(5, 7, 33)
    exact = logits.astype("float64")
    weights = numpy.exp(exact - exact.max(axis=axis, keepdims=True))
    weights /= weights.sum(axis=axis, keepdims=True)
    out = strobe.softmax(logits, axis=axis)
    assert_close(out, weights)
    given = numpy.empty_like(out)
    assert strobe.softmax(logits, axis=axis, out=given) is given and numpy.array_equal(given, out)
    assert_close(strobe.softmax_backward(upstream, out, axis=axis),
                 weights * (upstream - (weights * upstream).sum(axis=axis, keepdims=True)))


def test_softmax_refuses():
    with pytest.raises(ValueError, match="^axis is "):
        strobe.softmax(normal(3, 4), axis=2)
    with pytest.raises(TypeError, match="^input is of type list"):
        strobe.softmax([1.0])
    with pytest.raises(ValueError, match="^out is "):
        strobe.softmax(normal(3, 4), out=normal(4, 3))
    with pytest.raises(ValueError, match="^grad_out is "):
        strobe.softmax_backward(normal(3, 4), normal(4, 3))
