"""What strobe needs of array libraries beside DLPack: fresh memory, and the stream that they work on.

No library but NumPy is imported; PyTorch and CuPy are recognised where the caller has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy

_CPU_DEVICES = (1, 3)  # DLPack's numbers for the CPU, and for the CPU's memory that a GPU can reach


def _belongs_to(array: Any, library: str, type_name: str) -> bool:
    module = sys.modules.get(library)
    return module is not None and isinstance(array, getattr(module, type_name))


def empty(shape: tuple[int, ...], like: Any, dtype: str | None = None) -> Any:
    """An uninitialised array of `like`'s library, on its device, in its type unless `dtype` names another.

    On the CPU, libraries that let nobody write into their arrays get NumPy's; `handed` then makes JAX's of those.
    """
    if _belongs_to(like, "torch", "Tensor"):
        return like.new_empty(shape, dtype=getattr(sys.modules["torch"], dtype) if dtype else None)
    if _belongs_to(like, "cupy", "ndarray"):
        with like.device:
            return sys.modules["cupy"].empty(shape, dtype or like.dtype)
    if like.__dlpack_device__()[0] not in _CPU_DEVICES:
        raise TypeError(f"query is of type {type(like).__name__} on a GPU, must be PyTorch's or CuPy's, which allocate the "
                        "results, or out= be given")
    return numpy.empty(shape, dtype or like.dtype)


def maker_of(array: Any) -> Callable[[Any], Any] | None:
    """The function of `array`'s library that makes an uninitialised array like a given one, if that is all there is to it."""
    if type(array) is numpy.ndarray:
        return numpy.empty_like
    for library, type_name in (("torch", "Tensor"), ("cupy", "ndarray")):
        if _belongs_to(array, library, type_name):
            return sys.modules[library].empty_like
    return None


def handed(array: Any, like: Any) -> Any:
    """What a caller gets of an array from `empty`, after it was written: for JAX's arrays JAX's own."""
    return sys.modules["jax"].numpy.asarray(array) if _belongs_to(like, "jax", "Array") else array


def current_stream(array: Any) -> int:
    """The address of the CUDA stream on which `array`'s library works at present; 0, the default stream, if unknown.

    The extension asks where the type offers no table of C functions that tells it, as that of PyTorch does since 2.10.
    """
    if _belongs_to(array, "torch", "Tensor"):
        return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream)
    if _belongs_to(array, "cupy", "ndarray"):
        return int(sys.modules["cupy"].cuda.get_current_stream().ptr)
    return 0


def require_arrays(**arrays: Any) -> None:
    """Refuses what is no array."""
    for name, array in arrays.items():
        if not hasattr(array, "__dlpack__"):
            raise TypeError(f"{name} is of type {type(array).__name__}, must be an array (of NumPy, PyTorch, CuPy or "
                            "another library that speaks DLPack)")


def refuse_recorded_gradients(**arguments: Any) -> None:
    """Refuses tensors whose gradients PyTorch records: these calls would lose them silently."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.is_grad_enabled():
        return
    for name, argument in arguments.items():
        if getattr(argument, "requires_grad", False):
            raise ValueError(f"{name} is a tensor that requires gradients, must be detached, or the call be made under "
                             "torch.no_grad(): this call records none (strobe.torch does, and attention_backward "
                             "computes them)")


def require_writable(**arrays: Any) -> None:
    """Refuses JAX's arrays as outputs: they lend their memory, but their library counts on nobody writing to it."""
    for name, array in arrays.items():
        if _belongs_to(array, "jax", "Array"):
            raise ValueError(f"{name} is a JAX array, must be an array that can be written to")
