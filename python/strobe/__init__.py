"""Strobe: exact attention, forward and backward, without the score matrix, on CPUs and NVIDIA GPUs.

>>> import numpy, strobe
>>> query, key, value = numpy.random.default_rng(0).standard_normal((3, 1, 1024, 16, 64), "float32")
>>> out = strobe.attention(query, key, value, causal=True)    # [batch, length, heads, dim], as its inputs

Arrays are of any library that speaks DLPack: NumPy, PyTorch, CuPy, JAX. Nothing is copied. Arrays on a GPU are computed
there. docs/options.md in the source says what every option means.
"""

from strobe._attention import attention, attention_backward, plan
from strobe._core import Plan, cuda_device_count, version
from strobe._options import Options

__version__: str = version()

__all__ = ["Options", "Plan", "attention", "attention_backward", "cuda_device_count", "plan"]
