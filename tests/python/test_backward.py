"""strobe.attention_backward on NumPy arrays, against central differences of the float64 definition."""

import numpy
import pytest
import reference
import strobe

NUMBERS = numpy.random.default_rng(11)


def normal(*shape):
    return NUMBERS.standard_normal(shape, "float32")


QUERY, KEY, VALUE, GRAD_OUT = normal(2, 5, 4, 6), normal(2, 7, 2, 6), normal(2, 7, 2, 3), normal(2, 5, 4, 3)


def differences(wrt, grad_lse=0.0, **options):
    """d sum(out * GRAD_OUT + lse * grad_lse) / d `wrt`, by the definition."""
    arguments = {"query": QUERY, "key": KEY, "value": VALUE, **options}

    def loss(array):
        out, lse = reference.attention(**{**arguments, wrt: array})
        return (out * GRAD_OUT).sum() + (lse * grad_lse).sum()

    return reference.gradient(loss, arguments[wrt])


def assert_right(wrt=("query", "key", "value"), grad_lse=None, **options):
    out, lse = strobe.attention(QUERY, KEY, VALUE, return_lse=True, **options)
    gradients = strobe.attention_backward(GRAD_OUT, QUERY, KEY, VALUE, out, lse, wrt=wrt, grad_lse=grad_lse, **options)
    assert len(gradients) == len(wrt)
    for name, gradient in zip(wrt, gradients):
        expected = differences(name, 0.0 if grad_lse is None else grad_lse, **options)
        numpy.testing.assert_allclose(gradient, expected, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("options", [
    {},
    {"causal": True},
    {"window": (2, 1)},
    {"scale": 0.7},
    {"softcap": 1.5},
    {"alibi_slopes": numpy.array([0.5, 0.25, 0.125, 0.0625], "float32")},
    {"mask": NUMBERS.random((2, 4, 5, 7)) < 0.6},
], ids=lambda options: "-".join(options) or "none")
def test_option(options):
    assert_right(**options)


@pytest.mark.parametrize("shape", [(2, 4, 5, 7), (1, 4, 1, 7)])
def test_bias(shape):
    assert_right(("query", "bias"), bias=normal(*shape))


def test_sink():
    assert_right(("sink", "key"), sink=normal(4))


def test_gradient_of_lse():
    assert_right(grad_lse=normal(2, 4, 5))


def test_dropout_repeats_the_mask():
    """The result is linear in value, so its gradient follows from two results."""
    options = {"dropout": 0.4, "dropout_seed": 3}
    out, lse = strobe.attention(QUERY, KEY, VALUE, return_lse=True, **options)
    (gradient,) = strobe.attention_backward(GRAD_OUT, QUERY, KEY, VALUE, out, lse, wrt=["value"], **options)
    other = normal(*VALUE.shape)
    change = strobe.attention(QUERY, KEY, VALUE + other, **options) - out
    numpy.testing.assert_allclose((gradient * other).sum(), (change * GRAD_OUT).sum(), rtol=1e-4)


@pytest.mark.parametrize("deterministic", [True, False])
def test_same_bits_twice(deterministic):
    out, lse = strobe.attention(QUERY, KEY, VALUE, return_lse=True)
    once, twice = (strobe.attention_backward(GRAD_OUT, QUERY, KEY, VALUE, out, lse, deterministic=deterministic)
                   for _ in range(2))
    assert all(numpy.array_equal(a, b) for a, b in zip(once, twice)) or not deterministic


def test_what_has_no_gradient_is_refused():
    out, lse = strobe.attention(QUERY, KEY, VALUE, return_lse=True)
    with pytest.raises(ValueError, match="wrt"):
        strobe.attention_backward(GRAD_OUT, QUERY, KEY, VALUE, out, lse, wrt=["bias"])
    with pytest.raises((ValueError, NotImplementedError), match="page_table|cache"):
        strobe.attention_backward(GRAD_OUT, QUERY, KEY, VALUE, out, lse, page_table=numpy.zeros((2, 1), "int32"))
    with pytest.raises(ValueError, match="^grad_out is"):
        strobe.attention_backward(GRAD_OUT[:, :4], QUERY, KEY, VALUE, out, lse)
    with pytest.raises(ValueError, match="^lse is"):
        strobe.attention_backward(GRAD_OUT, QUERY, KEY, VALUE, out, lse[:, :1])
