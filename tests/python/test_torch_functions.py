"""strobe.torch without torch.compile: gradients, autocast, dropout, the module. PyTorch's arithmetic in float64 is the judge."""

import math

import pytest
import strobe

torch = pytest.importorskip("torch")

import strobe.torch as strobe_torch  # noqa: E402

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
TYPE = {"cpu": torch.float32, "cuda": torch.bfloat16}
BATCH, QUERIES, KEYS, HEADS, KV_HEADS, DIM = 2, 21, 34, 4, 2, 32


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


def problem(device="cpu", dtype=None, queries=QUERIES, keys=KEYS):
    normal = lambda length, heads: torch.randn(BATCH, length, heads, DIM, device=device).to(dtype or TYPE[device])
    return [tensor.requires_grad_() for tensor in (normal(queries, HEADS), normal(keys, KV_HEADS), normal(keys, KV_HEADS))]


def definition(query, key, value, *, bias=None, sink=None, causal=False):
    """(out, lse) by the definition, in float64, of anything that autograd can follow."""
    query, key, value = query.double(), *(tensor.double().repeat_interleave(HEADS // KV_HEADS, 2) for tensor in (key, value))
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / math.sqrt(query.shape[-1])
    if bias is not None:
        scores = scores + bias.double()
    if causal:
        rows, columns = scores.shape[-2:]
        visible = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril(columns - rows)
        scores = scores.masked_fill(~visible, -math.inf)
    lse = scores.logsumexp(-1)
    if sink is not None:
        lse = torch.logaddexp(lse, sink.double()[:, None])
    return torch.einsum("bhij,bjhd->bihd", (scores - lse[..., None]).exp(), value), lse


def assert_same(actual, expected, dtype=torch.float32):
    bound = {torch.float32: 2e-5, torch.bfloat16: 2e-2}[dtype] * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=bound)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("through", ["out", "lse", "both"])
def test_gradients(device, through):
    inputs = problem(device)
    bias = torch.randn(1, HEADS, 1, KEYS, device=device, requires_grad=True)
    sink = torch.randn(HEADS, device=device, requires_grad=True)
    weight = {name: 0.0 if through == other else 1.0 for name, other in (("out", "lse"), ("lse", "out"))}
    upstream = torch.randn(BATCH, QUERIES, HEADS, DIM, device=device), torch.randn(BATCH, HEADS, QUERIES, device=device)

    def gradients(out, lse):
        parts = [(result.double() * toward).sum() for name, result, toward in zip(weight, (out, lse), upstream) if weight[name]]
        return torch.autograd.grad(sum(parts), [*inputs, bias, sink], allow_unused=True)

    results = strobe_torch.attention(*inputs, bias=bias, sink=sink, causal=True, return_lse=True)
    right = definition(*inputs, bias=bias, sink=sink, causal=True)
    for actual, expected in zip(results, right):
        assert_same(actual, expected, TYPE[device])
    for actual, expected, given in zip(gradients(*results), gradients(*right), [*inputs, bias, sink]):
        assert actual.shape == given.shape and actual.dtype == given.dtype
        assert_same(actual, torch.zeros_like(given) if expected is None else expected, TYPE[device])


@pytest.mark.filterwarnings("ignore:Input #")  # gradcheck's, of what is not float64
@pytest.mark.parametrize("options", [
    {}, {"causal": True}, {"window": (2, 1), "softcap": 2.0}, {"alibi_slopes": torch.tensor([0.5, 0.1])},
    {"prefix_length": 2, "causal": True}, {"key_lengths": torch.tensor([3], dtype=torch.int32)},
    {"dropout": 0.4, "dropout_seed": 3}, {"mask": torch.eye(4, 6, dtype=torch.bool)[None, None]},
], ids=str)
def test_gradients_by_finite_differences(options):
    inputs = [torch.randn(1, length, heads, 4, requires_grad=True) for length, heads in ((4, 2), (6, 1), (6, 1))]
    bias, sink = torch.randn(1, 2, 4, 1, requires_grad=True), torch.randn(2, requires_grad=True)

    def function(query, key, value, bias, sink):
        return strobe_torch.attention(query, key, value, bias=bias, sink=sink, return_lse=True, **options)

    # In float32 the differences are off by about 1e-4: by rounding, 1e-7 / eps, and by the third derivative, eps^2.
    assert torch.autograd.gradcheck(function, (*inputs, bias, sink), eps=1e-2, atol=1e-3, rtol=1e-3)


def test_only_what_is_asked_for():
    query, key, value = problem()
    query, value = query.detach(), value.detach()
    out = strobe_torch.attention(query, key, value)
    (gradient,) = torch.autograd.grad(out.sum(), key)
    (right,) = torch.autograd.grad(definition(query, key, value)[0].sum(), key)
    assert_same(gradient, right)
    with torch.no_grad():
        assert strobe_torch.attention(query, key, value).grad_fn is None
    assert strobe_torch.attention(query, key.detach(), value).grad_fn is None


def test_any_strides():
    query, key, value = problem(keys=QUERIES)
    joint = torch.randn(BATCH, 2, QUERIES, DIM).transpose(1, 2)
    transposed = query.transpose(2, 3).contiguous().transpose(2, 3)
    assert transposed.stride(-1) != 1
    assert torch.equal(strobe_torch.attention(transposed, joint, joint), strobe_torch.attention(query, joint, joint))
    out = strobe_torch.attention(query, key, value)
    expanded = torch.ones((), dtype=out.dtype).expand_as(out)
    out.backward(expanded)  # of strides 0
    assert_same(query.grad, torch.autograd.grad(definition(query, key, value)[0].sum(), query)[0])


def test_varlen():
    offsets = torch.tensor([0, 5, 5, 17], dtype=torch.int32)
    query, key, value = (torch.randn(17, heads, DIM, requires_grad=True) for heads in (HEADS, KV_HEADS, KV_HEADS))
    out, lse = strobe_torch.attention_varlen(query, key, value, offsets, causal=True, return_lse=True)
    rows = [slice(begin, end) for begin, end in zip(offsets, offsets[1:]) if end > begin]
    right = [definition(query[None, part], key[None, part], value[None, part], causal=True) for part in rows]
    assert_same(out, torch.cat([part[0][0] for part in right]))
    assert_same(lse, torch.cat([part[1][0] for part in right], -1))
    weights = torch.randn_like(out)
    actual = torch.autograd.grad((out * weights).sum(), (query, key, value))
    expected = torch.autograd.grad((torch.cat([part[0][0] for part in right]) * weights).sum(), (query, key, value))
    for gradient, other in zip(actual, expected):
        assert_same(gradient, other)


def test_dropout_is_drawn_from_the_generator():
    query, key, value = problem()
    draw = lambda: strobe_torch.attention(query, key, value, dropout=0.5)
    torch.manual_seed(1)
    first, second = draw(), draw()
    torch.manual_seed(1)
    assert torch.equal(draw(), first) and not torch.equal(first, second)
    fixed = [strobe_torch.attention(query, key, value, dropout=0.5, dropout_seed=7) for _ in range(2)]
    assert torch.equal(*fixed)
    # Backward drops the same weights: the function is linear in value.
    (gradient,) = torch.autograd.grad((first * first.detach()).sum(), value)
    torch.testing.assert_close((gradient * value).sum(), (first * first).sum(), rtol=1e-4, atol=1e-4)


def test_checkpointing_repeats_dropout():
    inputs = problem()
    compute = lambda *tensors: strobe_torch.attention(*tensors, dropout=0.5, causal=True)
    gradients = []
    for function in (compute, lambda *tensors: torch.utils.checkpoint.checkpoint(compute, *tensors, use_reentrant=False)):
        torch.manual_seed(9)
        gradients.append(torch.autograd.grad(function(*inputs).square().sum(), inputs))
    assert all(torch.equal(one, other) for one, other in zip(*gradients))


def test_autocast():
    inputs = problem()
    with torch.autocast("cpu", torch.bfloat16):
        out = strobe_torch.attention(*inputs, causal=True, sink=torch.zeros(HEADS, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    narrow = [tensor.bfloat16() for tensor in inputs]
    assert torch.equal(out, strobe_torch.attention(*narrow, causal=True, sink=torch.zeros(HEADS)))
    assert all(gradient.dtype == torch.float32 for gradient in torch.autograd.grad(out.sum(), inputs))
    float8 = [tensor.detach().to(torch.float8_e4m3fn) for tensor in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(strobe_torch.attention(*float8), strobe_torch.attention(*float8))


def test_deterministic(monkeypatch):
    asked = []
    compute = strobe.torch._compute.backward
    monkeypatch.setattr(strobe.torch._compute, "backward",
                        lambda *arguments: asked.append(arguments[-1]["deterministic"]) or compute(*arguments))
    query, key, value = problem()
    strobe_torch.attention(query, key, value).sum().backward()
    strobe_torch.attention(query, key, value, deterministic=False).sum().backward()
    torch.use_deterministic_algorithms(True)
    try:
        strobe_torch.attention(query, key, value, deterministic=False).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert asked == [True, False, True]


def test_second_derivatives_are_refused():
    inputs = problem()
    gradients = torch.autograd.grad(strobe_torch.attention(*inputs).sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative.*SDPBackend.MATH"):
        gradients[0].sum().backward()


def test_functional_transforms():
    inputs = [tensor.detach() for tensor in problem()]
    loss = lambda *tensors: strobe_torch.attention(*tensors, causal=True).square().sum()
    for actual, expected in zip(torch.func.grad(loss, argnums=(0, 1, 2))(*inputs), torch.func.grad(
            lambda *tensors: definition(*tensors, causal=True)[0].square().sum(), argnums=(0, 1, 2))(*inputs)):
        assert_same(actual, expected)


def test_modes_see_operators():
    shapes = [tensor.shape for tensor in problem()]
    with torch._subclasses.FakeTensorMode():  # tensors without memory, which the extension could not read
        fake = [torch.empty(shape) for shape in shapes]
        out, lse = strobe_torch.attention(*fake, return_lse=True)
    assert out.shape == (BATCH, QUERIES, HEADS, DIM) and lse.shape == (BATCH, HEADS, QUERIES)
    on_meta = strobe_torch.attention(*(torch.empty(shape, device="meta") for shape in shapes))
    assert on_meta.is_meta and on_meta.shape == out.shape


def test_cache():
    query, lengths = torch.randn(BATCH, 2, HEADS, DIM), torch.tensor([3, 8], dtype=torch.int32)
    caches = [torch.randn(BATCH, 12, KV_HEADS, DIM) for _ in range(2)]
    new = [torch.randn(BATCH, 2, KV_HEADS, DIM) for _ in range(2)]
    before = [cache.clone() for cache in caches]
    out = strobe_torch.attention_with_cache(query, *caches, lengths, new_key=new[0], new_value=new[1], causal=True)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(caches[0][row, length:length + 2], new[0][row])
        assert torch.equal(caches[0][row, :length], before[0][row, :length])
        right, _ = definition(query[row:row + 1], *(cache[row:row + 1, :length + 2] for cache in caches), causal=True)
        assert_same(out[row:row + 1], right)
    with pytest.raises(ValueError, match="^query is a tensor that requires gradients"):
        strobe_torch.attention_with_cache(query.requires_grad_(), *caches, lengths)


def test_merge():
    query, key, value = problem()
    parts = [strobe_torch.attention(query, key[:, part], value[:, part], return_lse=True) for part in (slice(0, 10), slice(10, KEYS))]
    merged, whole = strobe_torch.merge(*map(torch.stack, zip(*parts))), definition(query, key, value)
    upstream = [torch.randn_like(result) for result in merged]
    gradients = [torch.autograd.grad(sum((result * toward).sum() for result, toward in zip(results, upstream)), (query, key, value))
                 for results in (merged, whole)]
    for actual, expected in zip((*merged, *gradients[0]), (*whole, *gradients[1])):
        assert_same(actual, expected)


@pytest.mark.parametrize("dim", [-1, 1])
def test_softmax(dim):
    logits = torch.randn(3, 40, 5, requires_grad=True)
    toward = torch.randn(3, 40, 5)
    actual, expected = strobe_torch.softmax(logits, dim), torch.softmax(logits, dim)
    assert_same(actual, expected)
    assert_same(*(torch.autograd.grad((result * toward).sum(), logits)[0] for result in (actual, expected)))


def test_module():
    module = strobe_torch.Attention(causal=True, dropout=0.5, sink=HEADS, alibi_slopes=torch.tensor([.5, .25, .125, 0.]))
    assert list(module.state_dict()) == ["sink"] and [name for name, _ in module.named_buffers()] == ["alibi_slopes"]
    assert "causal=True" in repr(module) and "dropout=0.5" in repr(module)
    query, key, value = problem()
    options = {"causal": True, "sink": module.sink, "alibi_slopes": module.alibi_slopes}
    assert not torch.equal(module(query, key, value), module(query, key, value))
    module.eval()
    out, lse = module(query, key, value, return_lse=True)
    right = strobe_torch.attention(query, key, value, return_lse=True, **options)
    assert torch.equal(out, right[0]) and torch.equal(lse, right[1])
    assert torch.equal(module(query, key, value, causal=False), strobe_torch.attention(query, key, value, **{**options, "causal": False}))
    out.sum().backward()
    assert module.sink.grad is not None


def test_forward_mode_is_refused():
    query, key, value = (tensor.detach() for tensor in problem())
    bias = torch.randn(1, HEADS, 1, KEYS)
    with pytest.raises(NotImplementedError, match="^value has a tangent"):
        torch.func.jvp(lambda value: strobe_torch.attention(query, key, value), (value,), (value,))
    with pytest.raises(NotImplementedError, match="^bias has a tangent"):
        torch.func.jvp(lambda bias: strobe_torch.attention(query, key, value, bias=bias), (bias,), (bias,))
    with torch.autograd.forward_ad.dual_level():
        assert torch.equal(strobe_torch.attention(query, key, value), strobe_torch.attention(query, key, value))
        with pytest.raises(NotImplementedError, match="^query has a tangent"):
            strobe_torch.attention(torch.autograd.forward_ad.make_dual(query, query), key, value)


def test_gradients_that_do_not_exist_are_refused():
    query, key, value = problem()
    slopes = torch.zeros(HEADS, requires_grad=True)
    for inputs in ((query, key, value), (query.detach(), key.detach(), value.detach())):
        with pytest.raises(ValueError, match="^alibi_slopes is a tensor that requires gradients, must be detached"):
            strobe_torch.attention(*inputs, alibi_slopes=slopes)
        with torch.no_grad():
            strobe_torch.attention(*inputs, alibi_slopes=slopes)
    float8 = [tensor.detach().to(torch.float8_e4m3fn).requires_grad_() for tensor in (query, key, value)]
    with pytest.raises(NotImplementedError, match="^query is .*float8 has no gradient"):
        strobe_torch.attention(*float8).sum().backward()
    lengths, table = torch.tensor([3, 3], dtype=torch.int32), torch.zeros(BATCH, 1, dtype=torch.int32)
    with pytest.raises(NotImplementedError, match="^page_table is .*caches and rotary have no gradient"):
        strobe_torch.attention(query, key, value, page_table=table, key_lengths=lengths).sum().backward()


def test_other_things_than_tensors():
    query, key, value = problem()
    with pytest.raises(TypeError, match="^query is of type list, must be a torch.Tensor"):
        strobe_torch.attention([1.0], key, value)
    with pytest.raises(TypeError, match="^key is of type ndarray"):
        strobe_torch.attention(query, key.detach().numpy(), value)
    with pytest.raises(TypeError, match="^value is of type NoneType"):
        strobe_torch.attention(query, key, None)
    for name, shape in {"bias": (1, 1, 1, KEYS), "sink": (HEADS,)}.items():
        with pytest.raises(TypeError, match=f"^{name} is of type ndarray"):
            strobe_torch.attention(query, key, value, **{name: torch.zeros(shape).numpy()})


def test_errors():
    query, key, value = problem()
    with pytest.raises(TypeError, match='no option "casual"'):
        strobe_torch.attention(query, key, value, casual=True)
    with pytest.raises(ValueError, match=r"^key is float32 \[2, 34, 2, 8\]"):
        strobe_torch.attention(query, key[..., :8], value)
    with pytest.raises(ValueError, match="^query is float64"):
        strobe_torch.attention(query.double(), key, value)
    with pytest.raises(ValueError, match="^key is float16 .*must be float32, the type of query"):
        strobe_torch.attention(query, key.half(), value)
    with pytest.raises(ValueError, match="^value is of memory that its library does not lend"):
        strobe_torch.attention(query, key, value.detach().to("meta"))
    with pytest.raises(NotImplementedError, match="head_dim 300"):
        wide = torch.ones(1, 2, 1, 300)
        strobe_torch.attention(wide, wide, wide)
