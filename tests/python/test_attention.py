"""strobe.attention on NumPy arrays: each option alone against the float64 definition, and what becomes of the arrays."""

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy
import pytest
import reference
import strobe

NUMBERS = numpy.random.default_rng(7)
BATCH, QUERIES, KEYS, HEADS, KV_HEADS, DIM = 2, 37, 53, 4, 2, 24


def normal(*shape, dtype="float32"):
    return NUMBERS.standard_normal(shape, "float32").astype(dtype)


def problem(dtype="float32", value_dim=DIM):
    return (normal(BATCH, QUERIES, HEADS, DIM, dtype=dtype), normal(BATCH, KEYS, KV_HEADS, DIM, dtype=dtype),
            normal(BATCH, KEYS, KV_HEADS, value_dim, dtype=dtype))


def assert_close(actual, expected, tolerance=2e-5):
    numpy.testing.assert_allclose(numpy.asarray(actual, "float64"), expected, rtol=tolerance, atol=tolerance)


def assert_right(query, key, value, tolerance=2e-5, definition=None, **options):
    """`definition` has what the reference calls differently."""
    out, lse = strobe.attention(query, key, value, return_lse=True, **options)
    expected_out, expected_lse = reference.attention(query, key, value, **(options if definition is None else definition))
    assert_close(out, expected_out, tolerance)
    assert_close(lse, expected_lse, min(tolerance, 1e-3))


@pytest.mark.parametrize("options", [
    {},
    {"causal": True},
    {"causal": True, "alignment": "top_left"},
    {"window": (9, 4)},
    {"window": (5, None)},
    {"causal": True, "window": (16, 0), "prefix_length": 3},
    {"scale": 0.3},
    {"softcap": 2.5},
    {"alibi_slopes": numpy.array([0.5, 0.25, 0.125, 0.0625], "float32")},
    {"sink": numpy.array([0.5, -1.0, 2.0, 0.0], "float32")},
    {"bias": normal(BATCH, HEADS, QUERIES, KEYS)},
    {"bias": normal(1, HEADS, 1, KEYS)},
    {"mask": NUMBERS.random((BATCH, 1, QUERIES, KEYS)) < 0.5},
    {"mask": numpy.zeros((1, 1, 1, KEYS), bool)},
    {"splits": 3},
], ids=lambda options: "-".join(options) or "none")
def test_option(options):
    assert_right(*problem(), **options, definition={name: given for name, given in options.items() if name != "splits"})


def test_none_is_not_given():
    query, key, value = problem()
    plain = strobe.attention(query, key, value)
    nothing = dict.fromkeys(strobe.Options.__annotations__)
    assert numpy.array_equal(strobe.attention(query, key, value, **nothing), plain)


def test_block_mask():
    tiles = NUMBERS.random((1, HEADS, 4, 6)) < 0.6  # of 10 x 10, the last ones cut short
    mask = numpy.kron(tiles, numpy.ones((10, 10), bool))[:, :, :QUERIES, :KEYS]
    assert_right(*problem(), block_mask=tiles, block_rows=10, block_columns=10, definition={"mask": mask})


def test_documents():
    queries, keys = (numpy.sort(NUMBERS.integers(0, 3, (BATCH, length)), axis=1).astype("int32") for length in (QUERIES, KEYS))
    mask = (queries[:, :, None] == keys[:, None, :])[:, None]
    assert_right(*problem(), query_documents=queries, key_documents=keys, definition={"mask": mask})


def test_key_lengths_hide_the_rest():
    query, key, value = problem()
    lengths = numpy.array([11, 40], "int32")
    unused = numpy.arange(KEYS)[None, :, None, None] >= lengths[:, None, None, None]
    out = strobe.attention(query, numpy.where(unused, numpy.nan, key), numpy.where(unused, numpy.nan, value),
                           key_lengths=lengths)
    for row, length in enumerate(lengths):
        assert_close(out[row:row + 1], reference.attention(query[row:row + 1], key[row:row + 1, :length],
                                                           value[row:row + 1, :length])[0])


def test_packed_sequences():
    query_offsets, key_offsets = numpy.array([0, 5, 5, 30], "int32"), numpy.array([0, 9, 20, 52], "int32")
    query, key, value = normal(30, HEADS, DIM), normal(52, KV_HEADS, DIM), normal(52, KV_HEADS, DIM)
    out, lse = strobe.attention(query, key, value, causal=True, query_offsets=query_offsets, key_offsets=key_offsets,
                                return_lse=True)
    assert lse.shape == (HEADS, 30)
    for sequence in range(3):
        queries, keys = (slice(*offsets[sequence:sequence + 2]) for offsets in (query_offsets, key_offsets))
        expected_out, expected_lse = reference.attention(query[None, queries], key[None, keys], value[None, keys],
                                                         causal=True)
        assert_close(out[None, queries], expected_out)
        assert_close(lse[None, :, queries], expected_lse)


def test_paged_cache_with_append():
    page_size, pages, lengths, new = 8, 12, numpy.array([13, 30], "int32"), 3
    key, value = normal(pages, page_size, KV_HEADS, DIM), normal(pages, page_size, KV_HEADS, DIM)
    page_table = NUMBERS.permutation(pages).astype("int32").reshape(BATCH, -1)
    query = normal(BATCH, new, HEADS, DIM)
    new_key, new_value = normal(BATCH, new, KV_HEADS, DIM), normal(BATCH, new, KV_HEADS, DIM)
    out = strobe.attention(query, key, value, causal=True, key_lengths=lengths, page_table=page_table, new_key=new_key,
                           new_value=new_value)
    for row, length in enumerate(lengths):
        rows = [cache[page_table[row]].reshape(1, -1, KV_HEADS, DIM)[:, :length + new] for cache in (key, value)]
        assert numpy.array_equal(rows[0][0, length:], new_key[row])
        assert_close(out[row:row + 1], reference.attention(query[row:row + 1], *rows, causal=True)[0])


def test_dropout():
    query, key = problem()[:2]
    unit = numpy.broadcast_to(numpy.eye(KEYS, dtype="float32")[None, :, None], (BATCH, KEYS, KV_HEADS, KEYS))
    weights = strobe.attention(query, key, unit)
    draw = lambda **options: strobe.attention(query, key, unit, dropout=0.25, **options)
    dropped = draw(dropout_seed=1)
    kept = dropped != 0
    assert_close(dropped[kept], weights[kept] / 0.75)
    assert abs(kept.mean() - 0.75) < 0.02
    assert numpy.array_equal(dropped, draw(dropout_seed=1))
    assert not numpy.array_equal(dropped, draw(dropout_seed=2))
    assert not numpy.array_equal(dropped, draw(dropout_seed=1, dropout_offset=BATCH * HEADS))


@pytest.mark.parametrize("dtype, tolerance", [("float16", 4e-3), (ml_dtypes.bfloat16, 3e-2)])
def test_narrow_types(dtype, tolerance):
    query, key, value = problem(dtype, value_dim=16)
    assert strobe.attention(query, key, value).dtype == dtype
    assert_right(query, key, value, tolerance, causal=True)
    wide = numpy.empty((BATCH, QUERIES, HEADS, 16), "float32")
    assert strobe.attention(query, key, value, out=wide) is wide


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_float8(dtype):
    query, key, value = problem(dtype)
    assert strobe.attention(query, key, value).dtype == "float32"
    assert_right(query, key, value)
    double = numpy.array([2.0], "float32")
    out = strobe.attention(query, key, value, value_descale=double)
    assert_close(out, 2 * reference.attention(query, key, value)[0], 5e-5)


def test_views_are_not_copied():
    joint = normal(BATCH, QUERIES, HEADS + 2 * KV_HEADS, DIM)
    query, key, value = numpy.split(joint, [HEADS, HEADS + KV_HEADS], axis=2)
    assert_right(query, key, value, causal=True)
    by_head = [numpy.ascontiguousarray(array.swapaxes(1, 2)).swapaxes(1, 2) for array in (query, key, value)]
    assert_right(*by_head, causal=True)
    assert_right(query[:, ::-1], key[:, ::2], value[:, ::2])


def test_out_is_written_and_returned():
    query, key, value = problem()
    storage = numpy.full((BATCH, HEADS, QUERIES, DIM + 3), 9.0, "float32")
    out = storage[..., :DIM].swapaxes(1, 2)
    assert strobe.attention(query, key, value, out=out) is out
    assert_close(out, reference.attention(query, key, value)[0])
    assert (storage[..., DIM:] == 9).all()


def test_read_only_inputs():
    arrays = problem()
    expected = strobe.attention(*arrays)
    for array in arrays:
        array.flags.writeable = False
    assert numpy.array_equal(strobe.attention(*arrays), expected)


class Lender:
    """An array of a library that speaks DLPack as it was before versions."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_any_library_that_speaks_dlpack():
    query, key, value = problem()
    out = numpy.empty_like(query)
    strobe.attention(Lender(query), Lender(key), Lender(value), out=out)
    assert_close(out, reference.attention(query, key, value)[0])


def test_empty():
    query, key, value = problem()
    assert strobe.attention(query[:, :0], key, value).shape == (BATCH, 0, HEADS, DIM)
    out, lse = strobe.attention(query, key[:, :0], value[:, :0], return_lse=True)
    assert (out == 0).all() and (lse == -numpy.inf).all()


def test_several_threads():
    query, key, value = problem()
    expected = strobe.attention(query, key, value, causal=True)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: strobe.attention(query, key, value, causal=True), range(64)))
    assert all(numpy.array_equal(result, expected) for result in results)


def test_plan():
    query, key, value = problem()
    plan = strobe.plan(query, key, value, causal=True)
    assert plan.kernel.startswith("cpu.forward.") and plan.why in str(plan)
    assert plan.workspace_bytes > 0 and plan.query_tile > 0 and plan.key_block > 0
    assert strobe.plan(query[:, :1], key, value).kernel.startswith("cpu.decode.")
    assert strobe.plan(query, key, value, backward=True).kernel.startswith("cpu.backward.")
    assert plan.kernel in repr(plan)
