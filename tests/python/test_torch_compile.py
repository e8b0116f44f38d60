"""strobe.torch under torch.compile, which must see one graph, and torch.library's own checks of the operators."""

import shutil

import pytest

torch = pytest.importorskip("torch")
if shutil.which("g++") is None and shutil.which("clang++") is None:
    pytest.skip("torch.compile needs a C++ compiler", allow_module_level=True)

import strobe.torch as strobe_torch  # noqa: E402
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

HEADS, KV_HEADS, DIM = 4, 2, 32


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(3)
    torch._dynamo.reset()


def problem(length=24, requires_grad=True):
    return [torch.randn(2, length, heads, DIM).requires_grad_(requires_grad) for heads in (HEADS, KV_HEADS, KV_HEADS)]


def compiled(function, backend="inductor", **options):
    counter = CompileCounterWithBackend(backend)
    return torch.compile(function, fullgraph=True, backend=counter, **options), counter


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_forward_and_backward():
    sink, bias = torch.randn(HEADS, requires_grad=True), torch.randn(1, HEADS, 1, 24, requires_grad=True)
    inputs = [*problem(), sink, bias]

    def loss(query, key, value, sink, bias):
        out, lse = strobe_torch.attention(2 * query, key, value, causal=True, window=(9, None), sink=sink, bias=bias,
                                          softcap=20.0, return_lse=True)
        return out.square().sum() + lse.sum()

    compiled_loss, counter = compiled(loss)
    assert_same(compiled_loss(*inputs), loss(*inputs))
    for actual, expected in zip(torch.autograd.grad(compiled_loss(*inputs), inputs), torch.autograd.grad(loss(*inputs), inputs)):
        assert_same(actual, expected)
    assert counter.frame_count == 1


@pytest.mark.parametrize("requires_grad", [False, True])
def test_lengths_do_not_compile_again(requires_grad):
    function = lambda *inputs: strobe_torch.attention(*inputs, causal=True).square()
    compiled_function, counter = compiled(function, "aot_eager")
    for length in (24, 31, 57, 64, 200):
        inputs = problem(length, requires_grad)
        out = compiled_function(*inputs)
        assert_same(out, function(*inputs))
        if requires_grad:
            out.sum().backward()
    assert counter.frame_count <= 2  # the first length, then any


def test_dynamic_lengths_compile_once():
    function = lambda *inputs: strobe_torch.attention(*inputs, causal=True, window=(40, None))
    compiled_function, counter = compiled(function, "aot_eager", dynamic=True)
    for length, keys in ((24, 31), (31, 70), (200, 200), (2, 5000)):
        (query, _, _), (_, key, value) = problem(length), problem(keys)
        results = [torch.autograd.grad(each(query, key, value).sum(), (query, key, value)) for each in (compiled_function, function)]
        for actual, expected in zip(*results):
            assert_same(actual, expected)
    assert counter.frame_count == 1


def test_varlen_of_any_lengths():
    function = lambda query, key, value, offsets: strobe_torch.attention_varlen(query, key, value, offsets, causal=True)
    compiled_function, counter = compiled(function, "aot_eager", dynamic=True)
    for lengths in ([3, 9], [12, 2, 7], [30, 1, 0, 5]):
        offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        inputs = [torch.randn(sum(lengths), heads, DIM, requires_grad=True) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        gradients = [torch.autograd.grad(variant(*inputs, offsets).square().sum(), inputs) for variant in (compiled_function, function)]
        for actual, expected in zip(*gradients):
            assert_same(actual, expected)
    assert counter.frame_count == 1


def test_cache_is_written_in_place():
    def step(query, key_cache, value_cache, lengths, new_key, new_value):
        out = strobe_torch.attention_with_cache(query, key_cache, value_cache, lengths, new_key=new_key,
                                                new_value=new_value, causal=True)
        return out + 1, lengths + 1

    compiled_step, counter = compiled(step)
    states = [[torch.zeros(2, 8, KV_HEADS, DIM), torch.zeros(2, 8, KV_HEADS, DIM), torch.tensor([0, 3], dtype=torch.int32)]
              for _ in range(2)]
    for _ in range(4):
        query, (new_key, new_value) = torch.randn(2, 1, HEADS, DIM), torch.randn(2, 2, 1, KV_HEADS, DIM)
        results = []
        for state, function in zip(states, (step, compiled_step)):
            out, state[2] = function(query, *state, new_key, new_value)
            results.append(out)
        assert_same(*results)
    assert torch.equal(states[0][0], states[1][0]) and torch.equal(states[0][1], states[1][1])
    assert counter.frame_count == 1


def test_cache_does_not_lose_gradients_silently():
    query, key_cache, value_cache = problem(requires_grad=False)
    lengths = torch.tensor([3, 24], dtype=torch.int32)
    function, _ = compiled(lambda query: strobe_torch.attention_with_cache(query, key_cache, value_cache, lengths), "aot_eager")
    with pytest.raises(Exception, match="query is a tensor that requires gradients"):
        function(query.clone().requires_grad_())
    assert_same(function(query), strobe_torch.attention_with_cache(query, key_cache, value_cache, lengths))


def test_dropout_draws_anew_in_every_call():
    inputs = problem()
    function, counter = compiled(lambda *tensors: strobe_torch.attention(*tensors, dropout=0.5))
    first, second = function(*inputs), function(*inputs)
    assert not torch.equal(first, second) and counter.frame_count == 1
    (gradient,) = torch.autograd.grad((first * first.detach()).sum(), inputs[2])  # the forward pass's mask: linear in value
    torch.testing.assert_close((gradient * inputs[2]).sum(), (first * first).sum(), rtol=1e-4, atol=1e-4)


def test_autocast_merge_softmax_and_module():
    module = strobe_torch.Attention(causal=True, sink=HEADS)

    def function(query, key, value):
        with torch.autocast("cpu", torch.bfloat16):
            out, lse = module(query, key, value, return_lse=True)
        both, _ = strobe_torch.merge(torch.stack([out, out]), torch.stack([lse, lse]))
        return strobe_torch.softmax(both)

    inputs = problem()
    compiled_function, _ = compiled(function, "aot_eager")
    out = compiled_function(*inputs)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, function(*inputs), rtol=2e-2, atol=2e-2)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), inputs))


def test_unknown_options_are_named():
    with pytest.raises(Exception, match='no option "casual"'):
        compiled(lambda *inputs: strobe_torch.attention(*inputs, casual=True))[0](*problem())


def test_one_tensor_in_every_place():
    (tensor, *_) = problem()
    function = lambda tensor: strobe_torch.attention(tensor, tensor, tensor, causal=True).square().sum()
    assert_same(*(torch.autograd.grad(variant(tensor), tensor)[0] for variant in (compiled(function)[0], function)))


def samples():
    query, key, value = problem()
    out, lse = (result.detach() for result in strobe_torch.attention(query, key, value, causal=True, return_lse=True))
    bias, sink = torch.randn(1, HEADS, 1, 24), torch.randn(HEADS)
    offsets = torch.tensor([0, 10, 48], dtype=torch.int32)
    packed = [tensor.detach().flatten(0, 1) for tensor in (query, key, value)]
    caches = [torch.randn(2, 30, KV_HEADS, DIM) for _ in range(2)]
    new = [torch.randn(2, 1, KV_HEADS, DIM) for _ in range(2)]
    plain = [tensor.detach() for tensor in (query, key, value)]
    yield "attention", (query, key, value), {"causal": True, "bias": bias, "sink": sink, "window_left": 7}
    yield "attention", packed, {"query_offsets": offsets, "key_offsets": offsets, "softcap": 20.0}
    yield "attention_append", (plain[0][:, :1].contiguous(), *caches, *new), {"key_lengths": torch.tensor([5, 9], dtype=torch.int32)}
    yield "attention_backward", (torch.randn_like(out), *plain, out, lse, None, ["query", "value"]), {"causal": True}
    yield "merge", (torch.stack([out, out]), torch.stack([lse, lse])), {}
    yield "softmax", (torch.randn(4, 9), 0), {}
    yield "softmax_backward", (torch.randn(4, 9), torch.randn(4, 9), -1), {}


@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
@pytest.mark.parametrize("operator, arguments, options", list(samples()), ids=lambda part: part if isinstance(part, str) else "")
def test_opcheck(operator, arguments, options):
    torch.library.opcheck(getattr(torch.ops.strobe, operator).default, tuple(arguments), options)
