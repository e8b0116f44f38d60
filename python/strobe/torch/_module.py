"""Attention as a module, between the projections of a layer: holds options, and those that are tensors move with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strobe.torch._functions import attention


class Attention(torch.nn.Module):
    """The attention of a transformer layer, without its projections.

    >>> attend = strobe.torch.Attention(causal=True, window=(1023, None), dropout=0.1)
    >>> out = attend(query, key, value)     # [batch, length, heads, dim] each

    Args:
        dropout: The probability with which weights are dropped while training; none are in evaluation.
        sink: An attention sink per query head, trained with the module: a Parameter, or the number of query heads for
            one of zeros.
        deterministic: As in strobe.torch.attention.
        **options: Options of every call. Tensors (alibi_slopes, ...) become buffers that are not saved.
    """

    def __init__(self, *, dropout: float = 0.0, sink: torch.nn.Parameter | int | None = None, deterministic: bool = True,
                 **options: Any) -> None:
        super().__init__()
        self.dropout, self.deterministic = dropout, deterministic
        self.sink = torch.nn.Parameter(torch.zeros(sink)) if isinstance(sink, int) else sink
        self.options = {name: given for name, given in options.items() if not isinstance(given, Tensor)}
        self._tensors = [name for name in options if name not in self.options]
        for name in self._tensors:
            self.register_buffer(name, options[name], persistent=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, return_lse: bool = False, **options: Any) -> Any:
        """out, or (out, lse). Options given here go before the module's own. Shapes: strobe.torch.attention."""
        own = {**self.options, **{name: getattr(self, name) for name in self._tensors}}
        if self.dropout and self.training:
            own["dropout"] = self.dropout
        if self.sink is not None:
            own["sink"] = self.sink
        return attention(query, key, value, return_lse=return_lse, deterministic=self.deterministic, **{**own, **options})

    def extra_repr(self) -> str:
        given = {**self.options, "dropout": self.dropout} if self.dropout else self.options
        return ", ".join(f"{name}={value!r}" for name, value in given.items())
