"""Who takes part in cuda.py: Strobe by its Python package, and PyTorch's attention by each of its backends.

A contender offers prepare(case, tensors) -> Prepared, or a reason (str) why it cannot run the case. Setting up is done
there; what a user pays for at every call (outputs allocated, autograd) belongs to Prepared.run. Tensors are
[batch, length, heads, dim], and so are all results; PyTorch, which wants [batch, heads, length, dim], is given views.
"""

from __future__ import annotations

import strobe
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from cases import ANY_ORDER, NOT_THIS_PASS, Case, Prepared


class Strobe:
    """With `deterministic` false, backward passes whose bits may differ when run twice, as the peers' do."""

    def __init__(self, deterministic: bool = True):
        self.name = "strobe" if deterministic else ANY_ORDER
        self.deterministic = deterministic

    def prepare(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared | str:
        if not self.deterministic and case.kind != "backward":
            return NOT_THIS_PASS
        prepare = self.prepare_backward if case.kind == "backward" else self.prepare_forward
        try:
            prepared = prepare(case, tensors["query"], tensors["key"], tensors["value"], tensors["grad_out"])
            prepared.run()
            return prepared
        except RuntimeError as error:  # NotImplementedError is one
            return str(error).splitlines()[0]

    def prepare_forward(self, case: Case, query, key, value, _) -> Prepared:
        last: list[torch.Tensor] = []

        def run() -> None:
            last[:] = [strobe.attention(query, key, value, causal=case.causal)]

        return Prepared(run, lambda: list(last), strobe.plan(query, key, value, causal=case.causal).kernel)

    def prepare_backward(self, case: Case, query, key, value, grad_out) -> Prepared:
        out, lse = strobe.attention(query, key, value, causal=case.causal, return_lse=True)
        last: list[torch.Tensor] = []

        def run() -> None:
            last[:] = strobe.attention_backward(grad_out, query, key, value, out, lse, causal=case.causal,
                                                deterministic=self.deterministic)

        plan = strobe.plan(query, key, value, backward=True, causal=case.causal, deterministic=self.deterministic)
        return Prepared(run, lambda: list(last), plan.kernel)


class Sdpa:
    """scaled_dot_product_attention held to one backend. Backward: autograd through it, timed alone.

    `groups_as_rows`: for one query and grouped heads, the query heads of a group are passed as rows of one head; the result
    is the same, and each key is read once instead of once per query head.
    """

    def __init__(self, name: str, backend: SDPBackend, groups_as_rows: bool = False):
        self.name = name + (", groups as rows" if groups_as_rows else "")
        self.backend = backend
        self.groups_as_rows = groups_as_rows

    def prepare(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared | str:
        if self.groups_as_rows and case.kind != "decode":
            return NOT_THIS_PASS
        prepare = self.prepare_backward if case.kind == "backward" else self.prepare_forward
        try:
            with sdpa_kernel(self.backend):
                prepared = prepare(case, tensors)
                prepared.run()
            prepared.setting = lambda: sdpa_kernel(self.backend)
            return prepared
        except RuntimeError as error:  # "No available kernel", memory that does not suffice
            return str(error).splitlines()[0]

    def prepare_forward(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared:
        query, key, value = (tensors[name].transpose(1, 2) for name in ("query", "key", "value"))
        if self.groups_as_rows:
            query = tensors["query"].view(case.batch, case.kv_heads, case.query_heads // case.kv_heads, case.dim)
        grouped = query.shape[1] != key.shape[1]
        last: list[torch.Tensor] = []

        @torch.no_grad()
        def run() -> None:
            last[:] = [scaled_dot_product_attention(query, key, value, is_causal=case.causal, enable_gqa=grouped)]

        shape = tensors["query"].shape
        as_rows = lambda: last[0].reshape(shape) if self.groups_as_rows else last[0].transpose(1, 2)
        return Prepared(run, lambda: [as_rows()], self.backend.name)

    def prepare_backward(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared:
        inputs = [tensors[name].detach().requires_grad_() for name in ("query", "key", "value")]
        by_head = scaled_dot_product_attention(*(tensor.transpose(1, 2) for tensor in inputs), is_causal=case.causal)
        output = by_head.transpose(1, 2)
        last: list[torch.Tensor] = []

        def run() -> None:
            last[:] = torch.autograd.grad(output, inputs, tensors["grad_out"], retain_graph=True)

        return Prepared(run, lambda: list(last), self.backend.name)


def all_contenders() -> list:
    """Strobe first; the others' times are set against it."""
    flash, cudnn = ("FlashAttention-2", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)
    return [Strobe(), Strobe(deterministic=False), Sdpa(*flash), Sdpa(*cudnn), Sdpa(*flash, groups_as_rows=True),
            Sdpa(*cudnn, groups_as_rows=True)]
