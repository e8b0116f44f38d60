"""Bad arguments: each is a Python exception whose message begins with the argument's name, and nothing is written."""

import numpy
import pytest
import strobe

QUERY, KEY, VALUE = numpy.ones((2, 5, 4, 8), "float32"), numpy.ones((2, 7, 2, 8), "float32"), numpy.ones((2, 7, 2, 8), "float32")


def refused(exception, name, *arrays, **options):
    query, key, value = [*arrays, *(QUERY, KEY, VALUE)[len(arrays):]]
    out = numpy.full((2, 5, 4, 8), 9, "float32")
    options.setdefault("out", out)
    with pytest.raises(exception, match=f"^{name}( is |$)") as raised:
        strobe.attention(query, key, value, **options)
    assert "must be" in str(raised.value)
    assert (out == 9).all()


def test_no_array():
    refused(TypeError, "query", [[1.0]])
    refused(TypeError, "key", QUERY, None)
    refused(TypeError, "key_lengths", key_lengths=[7, 7])
    refused(TypeError, "out", out="here")


def test_types_of_elements():
    refused(ValueError, "query", QUERY.astype("float64"))
    refused(ValueError, "key", QUERY, KEY.astype("float16"))
    refused(ValueError, "key_lengths", key_lengths=numpy.array([7, 7]))  # int64
    refused(ValueError, "mask", mask=numpy.ones((1, 1, 5, 7), "float32"))
    refused(ValueError, "query", QUERY.astype("complex64"))


def test_shapes():
    refused(ValueError, "query", QUERY[0])
    refused(ValueError, "query", numpy.ones((), "float32"))
    refused(ValueError, "query", QUERY[:, :, :3])
    refused(ValueError, "value", QUERY, KEY, VALUE[:, :6])
    refused(ValueError, "bias", bias=numpy.ones((1, 1, 5, 6), "float32"))
    refused(ValueError, "sink", sink=numpy.ones(3, "float32"))
    refused(ValueError, "out", out=numpy.empty((2, 5, 4, 7), "float32"))
    with pytest.raises(ValueError, match="^query is"):
        strobe.attention(QUERY[0, 0], KEY, VALUE, return_lse=True)


def test_layout():
    refused(ValueError, "query", QUERY.swapaxes(2, 3).copy().swapaxes(2, 3))


def test_numbers():
    refused(ValueError, "dropout", dropout=1.0)
    refused(ValueError, "softcap", softcap=-1.0)
    refused(ValueError, "window_left", window=(-1, None))
    refused(ValueError, "splits", splits=-1)
    refused(TypeError, "splits", splits=2 ** 40)
    refused(TypeError, "dropout_seed", dropout_seed=-1)


def test_kinds_of_options():
    refused(TypeError, "causal", causal="yes")
    refused(TypeError, "scale", scale="0.5")
    refused(TypeError, "window", window=5)
    refused(TypeError, "window", window=(5, "all"))
    refused(TypeError, "alignment", alignment=1)
    refused(ValueError, "alignment", alignment="left")
    refused(TypeError, "stream", stream="fast")


@pytest.mark.parametrize("name", strobe.Options.__annotations__)
def test_every_option_is_looked_at(name):
    refused(TypeError, name, **{name: object()})


def test_unknown_option():
    with pytest.raises(TypeError, match='"casual"'):
        strobe.attention(QUERY, KEY, VALUE, casual=True)


def test_output_that_cannot_be_written():
    read_only = numpy.empty((2, 5, 4, 8), "float32")
    read_only.flags.writeable = False
    refused(ValueError, "out", out=read_only)
    refused(ValueError, "out", out=QUERY)
    cache = KEY.copy()
    cache.flags.writeable = False
    refused(ValueError, "key", QUERY[:, :1], cache, VALUE.copy(), out=numpy.empty((2, 1, 4, 8), "float32"),
            key_lengths=numpy.zeros(2, "int32"), new_key=KEY[:, :1], new_value=VALUE[:, :1])


def test_unsupported():
    wide = numpy.ones((1, 2, 1, 300), "float32")
    with pytest.raises(NotImplementedError, match="^query is .*head_dim 300"):
        strobe.attention(wide, wide, wide)
