"""strobe.jax: jit and gradients against JAX's own arithmetic."""

import numpy
import pytest
import reference

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import strobe.jax as strobe_jax  # noqa: E402

LENGTH, KEYS, HEADS, KV_HEADS, DIM = 17, 23, 4, 2, 16


def normal(number, *shape):
    return jax.random.normal(jax.random.key(number), shape)


def problem():
    return normal(0, 2, LENGTH, HEADS, DIM), normal(1, 2, KEYS, KV_HEADS, DIM), normal(2, 2, KEYS, KV_HEADS, DIM)


def definition(query, key, value, bias, sink):
    """(out, lse), causal."""
    key, value = (jnp.repeat(array, HEADS // KV_HEADS, axis=2) for array in (key, value))
    scores = jnp.einsum("bihd,bjhd->bhij", query, key) / DIM**0.5 + bias
    scores = jnp.where(jnp.tril(jnp.ones((LENGTH, KEYS), bool), KEYS - LENGTH), scores, -jnp.inf)
    lse = jnp.logaddexp(jax.nn.logsumexp(scores, axis=-1), sink[:, None])
    return jnp.einsum("bhij,bjhd->bihd", jnp.exp(scores - lse[..., None]), value), lse


@pytest.mark.parametrize("jit", [False, True])
def test_gradients(jit):
    inputs = (*problem(), normal(3, 1, HEADS, 1, KEYS), normal(4, HEADS))
    toward = normal(5, 2, LENGTH, HEADS, DIM), normal(6, 2, HEADS, LENGTH)

    def ours(query, key, value, bias, sink):
        return strobe_jax.attention(query, key, value, bias=bias, sink=sink, causal=True, return_lse=True)

    def gradients(function):
        loss = lambda *arrays: sum((result * weight).sum() for result, weight in zip(function(*arrays), toward))
        return (jax.jit if jit else lambda function: function)(jax.grad(loss, argnums=range(5)))(*inputs)

    for actual, expected in zip((*ours(*inputs), *gradients(ours)), (*definition(*inputs), *gradients(definition))):
        assert isinstance(actual, jax.Array)
        numpy.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5)


def test_types_and_arrays_among_the_options():
    query, key, value = (array.astype("bfloat16") for array in problem())
    lengths = jnp.array([5, 23], "int32")
    out = jax.jit(lambda lengths: strobe_jax.attention(query, key, value, key_lengths=lengths))(lengths)
    assert out.dtype == jnp.bfloat16
    for row, length in enumerate([5, 23]):
        expected, _ = reference.attention(query[row:row + 1], key[row:row + 1, :length], value[row:row + 1, :length])
        numpy.testing.assert_allclose(out[row:row + 1].astype("float64"), expected, rtol=3e-2, atol=3e-2)
    loss = lambda query: strobe_jax.attention(query, key, value, key_lengths=lengths).astype("float32").sum()
    assert jax.grad(loss)(query).dtype == jnp.bfloat16


def test_vmap():
    query, key, value = problem()
    mapped = jax.vmap(lambda *arrays: strobe_jax.attention(*(array[None] for array in arrays), causal=True)[0])
    numpy.testing.assert_allclose(mapped(query, key, value), strobe_jax.attention(query, key, value, causal=True), rtol=1e-6)


def test_errors():
    query, key, value = problem()
    with pytest.raises(Exception, match="key is float32"):
        strobe_jax.attention(query, key[..., :8], value).block_until_ready()
    with pytest.raises(ValueError, match="^query is of shape"):
        strobe_jax.attention(query[0, 0], key, value)
    with pytest.raises(NotImplementedError, match="^new_key is given"):
        strobe_jax.attention(query, key, value, new_key=key, new_value=value)


@pytest.mark.parametrize("jit", [False, True])
def test_a_gradient_that_does_not_exist_is_refused(jit):
    query, key, value = problem()
    loss = lambda query, slopes: strobe_jax.attention(query, key, value, alibi_slopes=slopes).sum()
    gradient = lambda argument: (jax.jit if jit else lambda function: function)(jax.grad(loss, argument))
    slopes = jnp.full(HEADS, 0.1)
    assert numpy.any(gradient(0)(query, slopes))
    with pytest.raises(NotImplementedError, match="^alibi_slopes is differentiated, must not be"):
        gradient(1)(query, slopes)
