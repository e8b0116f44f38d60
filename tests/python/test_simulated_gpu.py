"""The way of a call to a GPU, on the GPU that the tests simulate: STROBE_CUDA_DRIVER and STROBE_NVRTC name its libraries
(tests/cuda/simulator), as scripts/test does. Its memory is the host's, so NumPy allocates it."""

import contextlib
import ctypes
import os
import sys
import types

import numpy
import pytest
import reference
import strobe

pytestmark = pytest.mark.skipif("STROBE_CUDA_DRIVER" not in os.environ, reason="no simulated GPU")

CUDA = 2  # DLPack's number
NUMBERS = numpy.random.default_rng(3)


class GpuArray:
    """An array that says it lies on GPU `index`."""

    def __init__(self, array, index=0):
        self.array, self.index = array, index
        self.shape, self.dtype = array.shape, array.dtype

    device = contextlib.nullcontext()  # as CuPy's, to allocate there

    def __dlpack_device__(self):
        return CUDA, self.index

    def __dlpack__(self, *, stream=None, max_version=None):
        assert stream == -1  # anything else would make a stream wait
        capsule = self.array.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        device = pointer(capsule, b"dltensor") + 8  # behind the data's address
        ctypes.c_int32.from_address(device).value = CUDA
        ctypes.c_int32.from_address(device + 4).value = self.index
        return capsule


def problem(query_length=20, dtype="float16"):
    normal = lambda length, heads: NUMBERS.standard_normal((1, length, heads, 64)).astype(dtype)
    return normal(query_length, 4), normal(40, 2), normal(40, 2)


def assert_close(actual, expected):
    numpy.testing.assert_allclose(actual, expected, rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("dtype, kernel", [("float16", "cuda.sm90.forward"), ("float32", "cuda.sm80.forward")])
def test_results_that_are_given(dtype, kernel):
    arrays = problem(dtype=dtype)
    query, key, value = map(GpuArray, arrays)
    assert strobe.plan(query, key, value, causal=True).kernel == kernel
    with pytest.raises(TypeError, match="^query is of type GpuArray on a GPU"):
        strobe.attention(query, key, value)
    out = GpuArray(numpy.empty_like(arrays[0]))
    assert strobe.attention(query, key, value, out=out, causal=True, stream=0) is out
    assert_close(out.array, reference.attention(*arrays, causal=True)[0])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_results_that_the_library_allocates(monkeypatch, dtype):
    streams = []

    def current_stream():
        streams.append(0)
        return types.SimpleNamespace(ptr=0)

    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(
        ndarray=GpuArray, empty=lambda shape, dtype: GpuArray(numpy.empty(shape, dtype)),
        cuda=types.SimpleNamespace(get_current_stream=current_stream)))
    arrays, grad_out = problem(dtype=dtype), problem(dtype=dtype)[0]
    query, key, value = map(GpuArray, arrays)
    out, lse = strobe.attention(query, key, value, causal=True, return_lse=True)
    expected_out, expected_lse = reference.attention(*arrays, causal=True)
    assert_close(out.array, expected_out)
    assert_close(lse.array, expected_lse)
    gradients = strobe.attention_backward(GpuArray(grad_out), query, key, value, out, lse, causal=True)
    assert len(streams) == 2
    on_cpu = strobe.attention_backward(grad_out, *arrays, out.array, lse.array, causal=True)
    for gradient, expected in zip(gradients, on_cpu):
        numpy.testing.assert_allclose(gradient.array, expected.astype("float64"), rtol=2e-2, atol=2e-2)


def test_one_device():
    query, key, value = problem()
    with pytest.raises(ValueError, match="^key is on the CPU, must be on CUDA device 0, as query is"):
        strobe.attention(GpuArray(query), key, value, out=GpuArray(query.copy()))
    with pytest.raises(ValueError, match="^out is on CUDA device 0, must be on the CPU"):
        strobe.attention(query, key, value, out=GpuArray(query.copy()))
    with pytest.raises(ValueError, match="^key is on CUDA device 0, must be on CUDA device 1"):
        strobe.attention(GpuArray(query, 1), GpuArray(key), GpuArray(value), out=GpuArray(query.copy()))


def test_calls_like_earlier_ones_take_their_own_arrays():
    """More kinds of calls than a thread keeps, in turn, each with other arrays every time."""
    kinds = [({}, 20), ({"causal": True}, 20), ({"window": (3, 1)}, 20), ({"softcap": 2.0}, 20), ({"causal": True}, 1),
             ({"scale": 0.5}, 1)]
    for _ in range(3):
        for options, query_length in kinds:
            arrays = problem(query_length)
            out = GpuArray(numpy.full_like(arrays[0], numpy.nan))
            strobe.attention(*map(GpuArray, arrays), out=out, stream=0, **options)
            assert_close(out.array, reference.attention(*arrays, **options)[0])


def test_calls_like_earlier_ones_append_to_their_own_cache():
    for _ in range(2):
        query, key, value = problem(1)
        new_key, new_value = (array[:, :1].copy() for array in problem(1)[1:])
        lengths, out = numpy.array([30], "int32"), numpy.full_like(query, numpy.nan)
        strobe.attention_with_cache(*map(GpuArray, (query, key, value, lengths)), new_key=GpuArray(new_key),
                                    new_value=GpuArray(new_value), out=GpuArray(out), stream=0)
        numpy.testing.assert_array_equal(key[:, 30], new_key[:, 0])
        assert_close(out, reference.attention(query, key[:, :31], value[:, :31])[0])


def test_a_call_like_an_earlier_one_is_refused_what_that_was_not():
    arrays = problem()
    query, key, value = map(GpuArray, arrays)
    out = GpuArray(arrays[0].copy())
    for _ in range(2):
        strobe.attention(query, key, value, out=out, stream=0)
        with pytest.raises(ValueError, match="^out is memory that query uses, too"):
            strobe.attention(query, key, value, out=query, stream=0)
        with pytest.raises(ValueError, match="^softcap is"):
            strobe.attention(query, key, value, out=out, stream=0, softcap=-1.0)
