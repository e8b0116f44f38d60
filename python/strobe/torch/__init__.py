"""Strobe in PyTorch: attention with gradients, under torch.compile and autocast, and as a module.

>>> from strobe.torch import attention
>>> out = attention(query, key, value, causal=True)     # [batch, length, heads, dim], as its inputs
>>> out.sum().backward()

Options are those of `strobe.Options`. `strobe.attention` takes tensors too and is quicker to call, but records no gradient.
"""

from strobe.torch._caches import attention_with_cache
from strobe.torch._functions import attention, attention_varlen, merge, softmax
from strobe.torch._module import Attention

__all__ = ["Attention", "attention", "attention_varlen", "attention_with_cache", "merge", "softmax"]
