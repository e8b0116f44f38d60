"""JAX's arrays on the CPU: read in place, answered with JAX's, never written to. strobe.jax: test_jax_adapter.py."""

import numpy
import pytest
import reference
import strobe

jax = pytest.importorskip("jax")


def problem(dtype="float32"):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (2, 33, 4, 32)).astype(dtype) for key in keys]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("bfloat16", 3e-2)])
def test_forward(dtype, tolerance):
    arrays = problem(dtype)
    out = strobe.attention(*arrays, causal=True)
    assert isinstance(out, jax.Array) and out.dtype == arrays[0].dtype
    numpy.testing.assert_allclose(numpy.asarray(out, "float64"), reference.attention(*arrays, causal=True)[0], rtol=tolerance,
                                  atol=tolerance)


def test_every_function_answers_with_jax_arrays():
    query, key, value = problem()
    out, lse = strobe.attention(query, key, value, return_lse=True)
    results = [out, lse, *strobe.attention_backward(out, query, key, value, out, lse), strobe.softmax(lse),
               *strobe.merge(out[None], lse[None]), strobe.softmax_backward(lse, lse)]
    assert all(isinstance(result, jax.Array) for result in results)
    given = numpy.empty(out.shape, "float32")
    assert strobe.attention(query, key, value, out=given) is given


def test_no_array_of_jax_is_written_to():
    query, key, value = problem()
    with pytest.raises(ValueError, match="^out is a JAX array"):
        strobe.attention(query, key, value, out=query + 0)
    with pytest.raises(ValueError, match="^key is a JAX array"):
        strobe.attention(query[:, :1], key, value, key_lengths=numpy.zeros(2, "int32"), new_key=key[:, :1],
                         new_value=value[:, :1])
