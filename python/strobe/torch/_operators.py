"""The operators torch.ops.strobe.*: what torch.compile, torch.export and tensor subclasses see of Strobe.

Defined with torch.library, with fake kernels that tell shapes only. They record no gradient: the autograd functions
(_autograd.py) stand around them. Options have the names of strobe.Options, but for window, which is two numbers here,
and drawn_seed, a tensor that holds dropout's seed where PyTorch's generator drew it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strobe.torch import _compute

_ARRAYS = ("bias alibi_slopes sink prefix_lengths query_documents key_documents mask block_mask query_offsets key_offsets "
           "query_lengths key_lengths cache_batch_index page_table rotary_cos rotary_sin query_descale key_descale "
           "value_descale drawn_seed").split()
_NUMBERS = {
    "float": "scale softcap dropout".split(),
    "bool": "causal batch_invariant".split(),
    "SymInt": ("window_left window_right prefix_length block_rows block_columns dropout_seed dropout_offset "
               "splits").split(),
    "str": "alignment rotary_style".split(),
}
OPTIONS = frozenset(_ARRAYS).union(*_NUMBERS.values())
_SCHEMA = ", ".join([f"Tensor? {name}=None" for name in _ARRAYS] +
                    [f"{kind}? {name}=None" for kind, names in _NUMBERS.items() for name in names])

_library = torch.library.Library("strobe", "FRAGMENT")


def _define(name: str, arguments: str, results: str, compute: Any, fake: Any) -> None:
    _library.define(f"{name}({arguments}) -> {results}", tags=(torch.Tag.needs_fixed_stride_order,))
    for device in ("CPU", "CUDA"):
        _library.impl(name, compute, device)
    torch.library.register_fake(f"strobe::{name}", fake, lib=_library)


def _options_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """The options, as the extension takes them, of an operator's arguments."""
    options = dict(arguments)
    if "drawn_seed" in options:
        options["dropout_seed"] = int(options.pop("drawn_seed"))
    if "window_left" in options or "window_right" in options:
        options["window"] = (options.pop("window_left", None), options.pop("window_right", None))
    return options


def _attention(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    return _compute.forward(query, key, value, _options_of(arguments), want_lse=True)


def _attention_fake(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    out, lse = _compute.output_shapes(query, value)
    return query.new_empty(out, dtype=_compute.output_type(query)), query.new_empty(lse, dtype=torch.float32)


def _attention_append(query: Tensor, key: Tensor, value: Tensor, new_key: Tensor, new_value: Tensor,
                      **options: Any) -> tuple[Tensor, Tensor]:
    return _attention(query, key, value, new_key=new_key, new_value=new_value, **options)


def _attention_append_fake(query: Tensor, key: Tensor, value: Tensor, new_key: Tensor, new_value: Tensor,
                           **options: Any) -> tuple[Tensor, Tensor]:
    return _attention_fake(query, key, value)


def _attention_backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
                        grad_lse: Tensor | None, wrt: list[str], **arguments: Any) -> list[Tensor]:
    return _compute.backward(grad_out, query, key, value, out, lse, grad_lse, wrt, _options_of(arguments))


def _attention_backward_fake(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
                             grad_lse: Tensor | None, wrt: list[str], **options: Any) -> list[Tensor]:
    inputs = {"query": query, "key": key, "value": value, **options}
    return [inputs[name].new_empty(inputs[name].shape) for name in wrt]


def _merge_fake(outputs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    return outputs.new_empty(outputs.shape[1:]), lses.new_empty(lses.shape[1:])


def _softmax_fake(input: Tensor, axis: int) -> Tensor:
    return input.new_empty(input.shape)


def _softmax_backward_fake(grad_out: Tensor, out: Tensor, axis: int) -> Tensor:
    return out.new_empty(out.shape)


_define("attention", f"Tensor query, Tensor key, Tensor value, *, {_SCHEMA}", "(Tensor, Tensor)", _attention,
        _attention_fake)
_define("attention_append", "Tensor query, Tensor(a!) key, Tensor(b!) value, Tensor new_key, Tensor new_value, *, " +
        _SCHEMA, "(Tensor, Tensor)", _attention_append, _attention_append_fake)
_define("attention_backward", "Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor lse, "
        f"Tensor? grad_lse, str[] wrt, *, {_SCHEMA}, bool deterministic=True", "Tensor[]", _attention_backward,
        _attention_backward_fake)
_define("merge", "Tensor outputs, Tensor lses", "(Tensor, Tensor)", _compute.merge, _merge_fake)
_define("softmax", "Tensor input, int axis", "Tensor", _compute.softmax, _softmax_fake)
_define("softmax_backward", "Tensor grad_out, Tensor out, int axis", "Tensor", _compute.softmax_backward,
        _softmax_backward_fake)


def traced(tensor: Tensor) -> bool:
    """Whether somebody watches: torch.compile, a mode, a transform of torch.func, a subclass. They see operators only, and
    so does a tensor without memory."""
    return (torch.compiler.is_compiling() or type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.is_meta
            or torch._C._len_torch_dispatch_stack() > 0 or torch._C._are_functorch_transforms_active())


def arguments_of(options: dict[str, Any]) -> dict[str, Any]:
    """The options as an operator takes them."""
    arguments = {name: given for name, given in options.items() if given is not None}
    window = arguments.pop("window", None)
    if window is not None:
        arguments["window_left"], arguments["window_right"] = window
    for name in arguments:
        if name not in OPTIONS and name != "deterministic":
            raise TypeError(f'there is no option "{name}"')
    return arguments
