"""strobe.torch where there is a GPU: CUDA graphs, torch.compile's too, streams, and gradients on the device."""

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

import strobe.flash_attn_interface as flash_attn  # noqa: E402
import strobe.torch as strobe_torch  # noqa: E402


def problem(requires_grad=True, length=256):
    torch.manual_seed(3)
    return [torch.randn(2, length, heads, 64, device="cuda", dtype=torch.bfloat16, requires_grad=requires_grad)
            for heads in (4, 2, 2)]


def right(query, key, value):
    by_head = [tensor.float().transpose(1, 2) for tensor in (query, key, value)]
    return torch.nn.functional.scaled_dot_product_attention(*by_head, is_causal=True, enable_gqa=True).transpose(1, 2)


def assert_close(actual, expected):
    torch.testing.assert_close(actual.float(), expected.float(), rtol=0, atol=2e-2 * max(1, expected.abs().max().item()))


def test_graph_of_forward_and_backward():
    inputs = problem()
    toward = torch.randn_like(inputs[0])
    step = lambda: torch.autograd.grad(strobe_torch.attention(*inputs, causal=True), inputs, toward)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # loads the kernels
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradients = step()
    with torch.no_grad():
        inputs[0].neg_()
    graph.replay()
    torch.cuda.synchronize()
    for actual, expected in zip(gradients, torch.autograd.grad(right(*inputs), inputs, toward.float())):
        assert_close(actual, expected)


def test_compile_with_graphs():
    function = lambda *tensors: strobe_torch.attention(*tensors, causal=True) * 2
    compiled = torch.compile(function, fullgraph=True, mode="reduce-overhead")
    inputs = problem()
    for _ in range(3):  # the third call replays a graph
        out = compiled(*inputs)
        gradients = torch.autograd.grad(out.float().square().sum(), inputs)
    assert_close(out, 2 * right(*inputs))
    for actual, expected in zip(gradients, torch.autograd.grad((2 * right(*inputs)).square().sum(), inputs)):
        assert_close(actual, expected)


def test_backward_runs_on_forwards_stream():
    inputs = problem()
    expected = torch.autograd.grad(strobe_torch.attention(*inputs, causal=True).float().square().sum(), inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        actual = torch.autograd.grad(strobe_torch.attention(*inputs, causal=True).float().square().sum(), inputs)
    torch.cuda.synchronize()
    assert all(torch.equal(*pair) for pair in zip(actual, expected))


def test_autocast_and_dropout():
    inputs = [tensor.detach().float().requires_grad_() for tensor in problem()]
    with torch.autocast("cuda", torch.bfloat16):
        out = strobe_torch.attention(*inputs, causal=True)
        dropped = strobe_torch.attention(*inputs, dropout=0.5)
    assert out.dtype == torch.bfloat16
    assert_close(out, right(*inputs))
    assert torch.autograd.grad(dropped.float().sum(), inputs)[0].dtype == torch.float32


def test_decode_by_flash_attentions_name():
    query, key, value = problem(requires_grad=False)
    lengths = torch.tensor([100, 256], dtype=torch.int32, device="cuda")
    out = flash_attn.flash_attn_with_kvcache(query[:, :1], key, value, cache_seqlens=lengths)
    for row, length in enumerate([100, 256]):
        one = [tensor[row:row + 1].float().transpose(1, 2) for tensor in (query[:, :1], key[:, :length], value[:, :length])]
        expected = torch.nn.functional.scaled_dot_product_attention(*one, enable_gqa=True).transpose(1, 2)
        assert_close(out[row:row + 1], expected)
