"""The quick ways of strobe.attention and strobe.torch.attention: they give what the general functions give, look like them,
and leave to them whatever is unusual."""

import inspect
import pickle

import numpy
import pytest
import strobe
from strobe import _core

NUMBERS = numpy.random.default_rng(5)
QUERY, KEY, VALUE = (NUMBERS.standard_normal((2, 9, heads, 16), "float32") for heads in (4, 2, 2))
EXPECTED = strobe.attention(query=QUERY, key=KEY, value=VALUE, causal=True)  # by the general function


def test_it_is_documented_and_found_by_name():
    assert str(inspect.signature(strobe.attention)) == (
        "(query, key, value, *, out=None, return_lse=False, stream=None, **options)")
    assert inspect.getdoc(strobe.attention).startswith("softmax(scale * query key^T + bias, masked) value")
    assert strobe.attention.__name__ == "attention"
    assert pickle.loads(pickle.dumps(strobe.attention)) is strobe.attention


def test_arguments_in_every_way():
    causal = "".join(["cau", "sal"])  # a string that is not the interpreter's own
    out = numpy.empty_like(QUERY)
    for result in (strobe.attention(QUERY, KEY, VALUE, causal=True), strobe.attention(QUERY, KEY, value=VALUE, causal=True),
                   strobe.attention(query=QUERY, key=KEY, value=VALUE, causal=True),
                   strobe.attention(QUERY, KEY, VALUE, **{causal: True}),
                   strobe.attention(QUERY, KEY, VALUE, causal=True, out=None, stream=None, scale=None, return_lse=0),
                   strobe.attention(QUERY, KEY, VALUE, causal=True, window=(None, None)),
                   strobe.attention(QUERY, KEY, VALUE, causal=True, out=out),
                   strobe.attention(QUERY, KEY, VALUE, **{"".join(["o", "ut"]): out}, causal=True)):
        assert numpy.array_equal(result, EXPECTED)
    assert strobe.attention(QUERY, KEY, VALUE, out=out) is out
    general_out, general_lse = strobe.attention(query=QUERY, key=KEY, value=VALUE, return_lse=True, causal=True)
    for options in ({}, {"out": out}):
        result, lse = strobe.attention(QUERY, KEY, VALUE, return_lse=True, causal=True, **options)
        assert numpy.array_equal(result, general_out) and numpy.array_equal(lse, general_lse)
        assert lse.dtype == "float32" and (result is out) == bool(options)
    offsets = numpy.array([0, 9, 18], "int32")
    packed = [array.reshape(18, -1, 16) for array in (QUERY, KEY, VALUE)]
    result, lse = strobe.attention_varlen(*packed, offsets, return_lse=True, causal=True)
    assert numpy.array_equal(result.reshape(QUERY.shape), EXPECTED)
    assert numpy.array_equal(lse.reshape(4, 2, 9).swapaxes(0, 1), general_lse)


def test_wrong_calls_are_refused_as_a_python_function_does():
    for arguments, options, message in [
        ((QUERY, KEY), {}, r"attention\(\) missing 1 required positional argument: 'value'"),
        ((QUERY, KEY, VALUE, QUERY), {}, r"attention\(\) takes 3 positional arguments but 4"),
        ((QUERY, KEY, VALUE), {"query": QUERY}, r"attention\(\) got multiple values for argument 'query'"),
        ((QUERY, KEY, VALUE), {"casual": True}, '^there is no option "casual"'),
        ((QUERY, KEY, VALUE), {"causal": "yes"}, "^causal is 'yes', must be True or False"),
    ]:
        with pytest.raises(TypeError, match=message):
            strobe.attention(*arguments, **options)


def test_results_that_are_not_like_query():
    wide = NUMBERS.standard_normal((2, 9, 2, 24), "float32")
    assert strobe.attention(QUERY, KEY, wide).shape == (2, 9, 4, 24)
    by_head = numpy.ascontiguousarray(QUERY.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    result = strobe.attention(by_head, KEY, VALUE, causal=True)
    assert result.flags.c_contiguous and numpy.array_equal(result, EXPECTED)


def test_arrays_of_several_libraries_in_turn():
    torch = pytest.importorskip("torch")
    for _ in range(3):
        assert type(strobe.attention(QUERY, KEY, VALUE, causal=True)) is numpy.ndarray
        result = strobe.attention(torch.from_numpy(QUERY), KEY, VALUE, causal=True)
        assert type(result) is torch.Tensor and numpy.array_equal(result.numpy(), EXPECTED)


@pytest.fixture
def tensors():
    torch = pytest.importorskip("torch")
    import strobe.torch  # noqa: F401
    with torch.no_grad():
        yield [torch.from_numpy(array) for array in (QUERY, KEY, VALUE)]


def test_torch_without_gradients(tensors, monkeypatch):
    monkeypatch.setattr(strobe.torch._autograd, "forward", None)
    result = strobe.torch.attention(*tensors, causal=True)
    assert type(result) is type(tensors[0]) and numpy.array_equal(result.numpy(), EXPECTED)
    result, lse = strobe.torch.attention(*tensors, causal=True, return_lse=True)
    assert numpy.array_equal(result.numpy(), EXPECTED)
    assert numpy.array_equal(lse.numpy(), strobe.attention(QUERY, KEY, VALUE, causal=True, return_lse=True)[1])


def test_torch_leaves_the_rest_to_the_general_function(tensors):
    import torch
    from torch.autograd import forward_ad
    from torch.utils._python_dispatch import TorchDispatchMode

    def quick(query=None, **options):
        return _core.quick_torch_attention((tensors[0] if query is None else query, *tensors[1:]), options)

    assert quick() is not None
    with torch.enable_grad():
        assert quick() is None
    with torch.autocast("cpu", torch.bfloat16):
        assert quick() is None
    with TorchDispatchMode():
        assert quick() is None
    with forward_ad.dual_level():
        assert quick() is None
    seen = []
    torch.func.grad(lambda scale: seen.append(quick()) or scale)(torch.ones(()))
    assert seen == [None]
    assert quick(torch.nn.Parameter(tensors[0])) is None
    assert quick(tensors[0].to("meta")) is None
    assert quick(QUERY) is None
    assert quick(tensors[0].transpose(1, 2).contiguous().transpose(1, 2)) is None
    assert quick(deterministic=False, return_lse=False) is not None
    assert len(quick(return_lse=True)) == 2
    for options in ({"return_lse": 1}, {"dropout": 0.5}, {"sink": torch.zeros(4)}, {"bias": torch.zeros(1, 1, 1, 9)}, {"softcap": -1.0},
                    {"casual": True}):
        assert quick(**options) is None
    assert quick() is not None
