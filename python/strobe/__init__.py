"""Strobe: exact attention, forward and backward, without the score matrix, on CPUs and NVIDIA GPUs.

>>> import numpy, strobe
>>> query, key, value = numpy.random.default_rng(0).standard_normal((3, 1, 1024, 16, 64), "float32")
>>> out = strobe.attention(query, key, value, causal=True)    # [batch, length, heads, dim], as its inputs

Arrays are of any library that speaks DLPack: NumPy, PyTorch, CuPy, JAX. Nothing is copied. Arrays on a GPU are computed
there. docs/options.md in the source says what every option means.

Beside these functions, imported only when asked for: strobe.torch (gradients, torch.compile, a module) and the adapters
strobe.flash_attn_interface, strobe.flash_attn_3, strobe.transformers, strobe.sdpa and strobe.jax.
"""

from strobe._attention import attention, attention_backward, attention_varlen, plan
from strobe._caches import append, attention_with_cache
from strobe._core import Plan, cuda_device_count, version
from strobe._operators import merge, softmax, softmax_backward
from strobe._options import Options

__version__: str = version()

__all__ = [
    "Options",
    "Plan",
    "append",
    "attention",
    "attention_backward",
    "attention_varlen",
    "attention_with_cache",
    "cuda_device_count",
    "merge",
    "plan",
    "softmax",
    "softmax_backward",
]
