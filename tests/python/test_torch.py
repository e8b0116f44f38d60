"""PyTorch's tensors, on the CPU and, where there is a GPU, on that. PyTorch's own attention is the judge."""

import numpy
import pytest
import strobe

torch = pytest.importorskip("torch")

import strobe.torch as strobe_torch  # noqa: E402

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


def problem(dtype, device, query_length=70, key_length=70, heads=4, kv_heads=2, dim=64):
    torch.manual_seed(5)
    normal = lambda length, heads: torch.randn(2, length, heads, dim).to(device, dtype)
    return normal(query_length, heads), normal(key_length, kv_heads), normal(key_length, kv_heads)


def expected(query, key, value, **options):
    """[batch, length, heads, dim] in and out, float32."""
    by_head = [tensor.float().transpose(1, 2) for tensor in (query, key, value)]
    return torch.nn.functional.scaled_dot_product_attention(*by_head, enable_gqa=True, **options).transpose(1, 2)


TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def assert_close(actual, right, dtype):
    torch.testing.assert_close(actual.float(), right, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_forward(dtype, device):
    if device == "cuda" and dtype == torch.float32:
        pytest.skip("float32 is tested on the CPU")
    query, key, value = problem(dtype, device)
    out = strobe.attention(query, key, value, causal=True)
    assert isinstance(out, torch.Tensor) and out.dtype == dtype and out.device == query.device
    assert_close(out, expected(query, key, value, is_causal=True), dtype)
    mask = torch.rand(2, 1, 70, 70, device=device) < 0.5
    assert_close(strobe.attention(query, key, value, mask=mask), expected(query, key, value, attn_mask=mask), dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_decode(device):
    query, key, value = problem(torch.bfloat16, device, query_length=1, key_length=3000)
    out = torch.empty_like(query)
    assert strobe.attention(query, key, value, out=out) is out
    assert_close(out, expected(query, key, value), torch.bfloat16)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("causal", [False, True])
def test_backward(causal, device):
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    inputs = [tensor.requires_grad_() for tensor in problem(dtype, device)]
    grad_out = torch.randn_like(inputs[0])
    right = torch.autograd.grad(expected(*inputs, is_causal=causal), inputs, grad_out.float())
    with torch.no_grad():
        out, lse = strobe.attention(*inputs, causal=causal, return_lse=True)
        gradients = strobe.attention_backward(grad_out, *inputs, out, lse, causal=causal)
    for gradient, tensor, other in zip(gradients, inputs, right):
        assert gradient.dtype == tensor.dtype and gradient.device == tensor.device
        bound = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype] * other.abs().max().item()
        torch.testing.assert_close(gradient.float(), other.float(), rtol=0, atol=bound)


def test_by_head_storage_is_viewed():
    query, key, value = (tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in problem(torch.float32, "cpu"))
    assert_close(strobe.attention(query, key, value), expected(query, key, value), torch.float32)


@pytest.mark.parametrize("attend", [strobe.attention, lambda *inputs: strobe_torch.attention(*inputs)])
def test_results_are_row_major_however_query_lies(attend):
    plain = problem(torch.float32, "cpu")
    by_head = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in plain]
    joint = torch.stack([plain[0]] * 3, 3).unbind(3)[0], *plain[1:]
    other_dim = plain[0], plain[1], plain[2][..., :40]
    for query, key, value in (plain, by_head, joint, other_dim):
        out = attend(query, key, value)
        assert out.is_contiguous() and out.shape == (*query.shape[:-1], value.shape[-1])
        assert_close(out, expected(query, key, value), torch.float32)


def test_a_given_result_is_not_recorded_either():
    query, key, value = problem(torch.float32, "cpu")
    out = torch.empty_like(query, requires_grad=True)
    with pytest.raises(ValueError, match="^out is a tensor that requires gradients"):
        strobe.attention(query, key, value, out=out)
    with torch.no_grad():
        assert strobe.attention(query, key, value, out=out) is out


def test_float8():
    narrow = [tensor.to(torch.float8_e4m3fn) for tensor in problem(torch.float32, "cpu")]
    out = strobe.attention(*narrow)
    assert out.dtype == torch.float32
    assert_close(out, expected(*narrow), torch.float32)


def test_gradients_are_not_lost_silently():
    query, key, value = problem(torch.float32, "cpu")
    bias = torch.zeros(1, 1, 1, 70, requires_grad=True)
    with pytest.raises(ValueError, match="^bias is a tensor that requires gradients"):
        strobe.attention(query, key, value, bias=bias)
    query.requires_grad_()
    with pytest.raises(ValueError, match="^query is a tensor that requires gradients"):
        strobe.attention(query, key, value)
    with torch.no_grad():
        assert not strobe.attention(query, key, value, bias=bias).requires_grad


def test_no_function_loses_gradients_silently():
    query, key, value = problem(torch.float32, "cpu")
    packed, offsets, lengths = query[0].requires_grad_(), torch.tensor([0, 70], dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    for name, call in {
        "query": lambda: strobe.attention_varlen(packed, packed, packed, offsets),
        "new_key": lambda: strobe.attention_with_cache(query, key, value, lengths, new_key=key.clone().requires_grad_(),
                                                      new_value=value.clone()),
        "new_value": lambda: strobe.append(key, value, lengths, key.clone(), value.clone().requires_grad_()),
        "outputs": lambda: strobe.merge(packed[None], torch.zeros(1, 4, 70)),
        "input": lambda: strobe.softmax(packed),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} is a tensor that requires gradients"):
            call()
        with torch.no_grad():
            call()


def test_numpy_and_torch_together():
    query, key, value = problem(torch.float32, "cpu")
    out = numpy.empty(query.shape, "float32")
    assert strobe.attention(query, key.numpy(), value, out=out) is out
    assert_close(torch.from_numpy(out), expected(query, key, value), torch.float32)


def test_memory_that_is_not_lent():
    query, key, value = problem(torch.float32, "cpu")
    out = torch.full_like(query, 9)
    for name, arrays in {"query": (query.to("meta"), key, value), "key": (query, key.to("meta"), value),
                         "value": (query, key, value.to_sparse())}.items():
        with pytest.raises(ValueError, match=f"^{name} is of memory that its library does not lend .*must be a strided array"):
            strobe.attention(*arrays, out=out)
    with pytest.raises(ValueError, match="^out is of memory"):
        strobe.attention(query, key, value, out=query.to("meta"))
    assert (out == 9).all()


@needs_gpu
def test_device_mix():
    query, key, value = problem(torch.bfloat16, "cuda")
    with pytest.raises(ValueError, match="^key is on the CPU, must be on CUDA device 0, as query is"):
        strobe.attention(query, key.cpu(), value)


@needs_gpu
def test_current_stream():
    """A long product is queued before the inputs are written; only a call on the same stream sees them."""
    query, key, value = problem(torch.bfloat16, "cuda")
    right = strobe.attention(query, key, value)
    strobe.plan(query, key, value)
    torch.cuda.synchronize()
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    stream = torch.cuda.Stream()
    late = [torch.zeros_like(tensor) for tensor in (query, key, value)]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(10):
            matrix @ matrix
        for tensor, given in zip(late, (query, key, value)):
            tensor.copy_(given)
        out = strobe.attention(*late)
    stream.synchronize()
    assert torch.equal(out, right)
    given = torch.empty_like(out)
    strobe.attention(*late, out=given, stream=stream.cuda_stream)
    stream.synchronize()
    assert torch.equal(given, right)


@needs_gpu
def test_graph():
    query, key, value = problem(torch.bfloat16, "cuda")
    out = torch.empty_like(query)
    strobe.attention(query, key, value, out=out, causal=True)  # loads the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        strobe.attention(query, key, value, out=out, causal=True)
    query.neg_()
    graph.replay()
    torch.cuda.synchronize()
    assert_close(out, expected(query, key, value, is_causal=True), torch.bfloat16)
