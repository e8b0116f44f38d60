"""strobe.sdpa: PyTorch's scaled_dot_product_attention with Strobe inside, against itself without."""

import pytest

torch = pytest.importorskip("torch")
import strobe.sdpa  # noqa: E402

try:
    strobe.sdpa.register()
except NotImplementedError as error:
    pytest.skip(str(error), allow_module_level=True)

from torch.nn.functional import scaled_dot_product_attention as sdpa  # noqa: E402

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture
def calls(monkeypatch):
    """How many calls reached Strobe's extension while it is active."""
    counted = []
    compute = strobe.sdpa._core.forward
    monkeypatch.setattr(strobe.sdpa._core, "forward", lambda *arguments: counted.append(1) or compute(*arguments))
    strobe.sdpa.activate()
    yield counted
    torch.nn.attention.restore_flash_attention_impl()


def problem(device="cpu", dtype=None, length=40, keys=40):
    torch.manual_seed(3)
    dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    return [torch.randn(2, 4, size, 64, device=device, dtype=dtype, requires_grad=True) for size in (length, keys, keys)]


def math(*inputs, **options):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return sdpa(*(tensor.float() for tensor in inputs), **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}], ids=str)
def test_forward_and_backward(calls, device, options):
    inputs = problem(device)
    bound = 1e-5 if device == "cpu" else 3e-2
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        out = sdpa(*inputs, **options)
    assert len(calls) == 1
    torch.testing.assert_close(out.float(), math(*inputs, **options), rtol=bound, atol=bound)
    toward = torch.randn_like(out)
    for actual, expected in zip(torch.autograd.grad(out, inputs, toward), torch.autograd.grad(math(*inputs, **options), inputs, toward.float())):
        torch.testing.assert_close(actual.float(), expected.float(), rtol=3 * bound, atol=3 * bound)


def test_masks(calls):
    inputs = problem(length=30)
    masks = torch.rand(2, 1, 30, 40) < 0.7, torch.randn(30, 40), torch.randn(2, 4, 1, 40), torch.zeros(30, 40).log()
    for mask in masks[:3]:
        out = sdpa(*inputs, attn_mask=mask)
        torch.testing.assert_close(out, math(*inputs, attn_mask=mask), rtol=1e-5, atol=1e-5)
        gradients = torch.autograd.grad(out.square().sum(), inputs)
        right = torch.autograd.grad(math(*inputs, attn_mask=mask).square().sum(), inputs)
        for actual, expected in zip(gradients, right):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == 3
    assert not sdpa(*inputs, attn_mask=masks[3]).isnan().any()  # rows that see nothing


def test_what_strobe_does_not_serve_falls_back(calls):
    inputs = problem(dtype=torch.float64)
    out = sdpa(*inputs, is_causal=True)
    assert out.dtype == torch.float64 and torch.autograd.grad(out.sum(), inputs)[0].dtype == torch.float64
    wide = torch.randn(1, 2, 10, 300)
    assert sdpa(wide, wide, wide).shape == wide.shape
    assert len(calls) == 0


def test_compile(calls):
    inputs = problem()
    function = torch.compile(lambda *tensors: sdpa(*tensors, is_causal=True), fullgraph=True, backend="aot_eager")
    out = function(*inputs)
    torch.testing.assert_close(out, math(*inputs, is_causal=True), rtol=1e-5, atol=1e-5)
    out.sum().backward()
    assert len(calls) == 1


def test_only_when_asked(calls):
    torch.nn.attention.restore_flash_attention_impl()
    sdpa(*problem())
    assert len(calls) == 0
    assert "strobe" in torch.nn.attention.list_flash_attention_impls()
    torch.nn.attention.activate_flash_attention_impl("strobe")
    sdpa(*problem())
    assert len(calls) == 1
