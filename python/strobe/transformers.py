"""Strobe as an attention of Hugging Face's transformers (5 and late 4), for those who ask for it:

>>> import strobe.transformers
>>> model = AutoModel.from_pretrained(..., attn_implementation=strobe.transformers.register())

Nothing happens on import. Masks are transformers' boolean ones; where there is only padding to hide, its one row serves all
queries, and where there is nothing to hide but what comes later, there is no mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strobe.torch import attention


def register(name: str = "strobe") -> str:
    """Makes `name` an attn_implementation of transformers, and returns it. Idempotent."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, attention_mask)
    return name


def attention_mask(*arguments: Any, **options: Any) -> Tensor | None:
    """transformers' sdpa_mask, [batch, 1, query_length, key_length] bool or None; a view of one row if that serves all
    queries."""
    from transformers import masking_utils

    queries, every_key = options.get("q_length"), getattr(masking_utils, "bidirectional_mask_function", None)
    if queries is None or every_key is None or options.get("mask_function") is not every_key:
        return masking_utils.sdpa_mask(*arguments, **options)
    row = masking_utils.sdpa_mask(*arguments, **{**options, "q_length": 1})
    return None if row is None else row.expand(-1, -1, queries, -1)


def attention_forward(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                      dropout: float = 0.0, scaling: float | None = None, is_causal: bool | None = None,
                      softcap: float | None = None, s_aux: Tensor | None = None, position_bias: Tensor | None = None,
                      output_attentions: bool = False, **unused: Any) -> tuple[Tensor, None]:
    """What a model of transformers calls between its projections.

    Args:
        module: The layer, whose is_causal holds unless the argument is given.
        query: [batch, query_heads, query_length, head_dim].
        key, value: [batch, kv_heads, key_length, head_dim], not repeated.
        attention_mask: [batch, 1, query_length, key_length], bool (true is visible) or added to the scores.
        dropout, scaling, softcap: Of the weights; of the scores.
        s_aux: [query_heads], attention sinks.
        position_bias: [batch|1, query_heads, query_length, key_length], added to the scores.
        output_attentions: Refused: the weights are never stored.

    Returns:
        (out [batch, query_length, query_heads, head_dim], None).
    """
    if output_attentions:
        raise NotImplementedError("output_attentions is True, must be False: Strobe never stores the weights; "
                                  'attn_implementation="eager" does')
    options: dict[str, Any] = {"scale": scaling, "dropout": dropout, "softcap": softcap or 0.0, "sink": s_aux}
    if attention_mask is not None:
        attention_mask = attention_mask[..., :key.shape[2]]
        if attention_mask.stride(2) == 0:  # expanded: the same keys for every query
            attention_mask = attention_mask[:, :, :1]
        options["mask" if attention_mask.dtype == torch.bool else "bias"] = attention_mask
    elif query.shape[2] > 1:
        # Without a mask, query 0 stands at key 0, also in a static cache with room after the prompt.
        options["causal"] = getattr(module, "is_causal", True) if is_causal is None else bool(is_causal)
        options["alignment"] = "top_left"
    if position_bias is not None:
        position_bias = position_bias[..., :key.shape[2]]
        options["bias"] = position_bias + options["bias"] if "bias" in options else position_bias
    bias = options.get("bias")
    if bias is not None and bias.dtype not in (query.dtype, torch.float32):
        options["bias"] = bias.float()
    out = attention(*(tensor.transpose(1, 2) for tensor in (query, key, value)), **options)
    return out, None
