"""Attention's definition (docs/options.md) in float64, for the tests of the Python package. One array a step, short and slow."""

import numpy


def visible_keys(query_length, key_length, *, causal=False, window=(None, None), alignment="bottom_right",
                 prefix_length=0):
    """[query_length, key_length] bool: what causal, window and prefix let each query see."""
    left, right = window
    position = numpy.arange(query_length)[:, None] + (key_length - query_length if alignment == "bottom_right" else 0)
    key = numpy.arange(key_length)[None, :]
    visible = numpy.ones((query_length, key_length), bool)
    if causal:
        visible &= key <= position
    if left is not None:
        visible &= position - left <= key
    if right is not None:
        visible &= key <= position + right
    return visible | (key < prefix_length)


def attention(query, key, value, *, scale=None, softcap=0.0, bias=0.0, alibi_slopes=None, sink=None, mask=True,
              **visibility):
    """(out, lse) of [batch, length, heads, dim] arrays."""
    query, key, value = (numpy.asarray(array, numpy.float64) for array in (query, key, value))
    group = query.shape[2] // key.shape[2]
    key, value = (array.repeat(group, axis=2) for array in (key, value))
    query_length, key_length = query.shape[1], key.shape[1]
    scale = query.shape[3] ** -0.5 if scale is None else scale
    scores = scale * numpy.einsum("bihd,bjhd->bhij", query, key)
    if softcap:
        scores = softcap * numpy.tanh(scores / softcap)
    scores = scores + bias
    if alibi_slopes is not None:
        distance = numpy.arange(query_length)[:, None] + key_length - query_length - numpy.arange(key_length)[None, :]
        scores -= numpy.asarray(alibi_slopes)[..., :, None, None] * abs(distance)
    scores = numpy.where(visible_keys(query_length, key_length, **visibility) & mask, scores, -numpy.inf)
    if sink is not None:  # one more column, with a value of zeros
        column = numpy.broadcast_to(numpy.asarray(sink)[:, None, None], (*scores.shape[:-1], 1))
        scores = numpy.concatenate([scores, column], axis=-1)
        value = numpy.concatenate([value, numpy.zeros_like(value[:, :1])], axis=1)
    largest = numpy.maximum(scores.max(axis=-1, keepdims=True, initial=-numpy.inf), -1e300)
    weights = numpy.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    out = numpy.einsum("bhij,bjhd->bihd", weights / numpy.maximum(total, 1e-300), value)
    with numpy.errstate(divide="ignore"):
        lse = (largest + numpy.log(total))[..., 0]
    return out, lse


def gradient(function, array, step=1e-5):
    """The derivative of a function that gives a number, by central differences, entry by entry."""
    array = numpy.array(array, numpy.float64)
    slopes = numpy.empty_like(array)
    for index in numpy.ndindex(array.shape):
        there = array[index]
        array[index] = there + step
        above = function(array)
        array[index] = there - step
        below = function(array)
        array[index] = there
        slopes[index] = (above - below) / (2 * step)
    return slopes
