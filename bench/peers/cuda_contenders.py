"""Who takes part in cuda.py: Strobe by its Python package, and PyTorch's attention by each of its backends, by FlexAttention
and by plain matrix products.

A contender offers prepare(case, tensors) -> Prepared, or a reason (str) why it cannot run the case. Setting up is done
there; what a user pays for at every call (outputs allocated, autograd) belongs to Prepared.run. Tensors are
[batch, length, heads, dim], and so are all results; PyTorch, which wants [batch, heads, length, dim], is given views.
"""

from __future__ import annotations

import contextlib

import strobe
import strobe.torch
import torch
from torch.nn.attention import SDPBackend, flex_attention, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from cases import ANY_ORDER, NOT_THIS_PASS, Case, Prepared

Tensors = dict[str, torch.Tensor]


class Contender:
    """Anything that computes attention as a function that autograd differentiates."""

    name = ""

    def attend(self, case: Case, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def ready(self, case: Case, tensors: Tensors) -> str:
        """What a case needs before attend may be called, or why it is not for this contender ("" if it is)."""
        return ""

    def setting(self) -> contextlib.AbstractContextManager:
        """Entered around attend."""
        return contextlib.nullcontext()

    def kernel(self, case: Case, tensors: Tensors) -> str:
        return self.name

    def prepare(self, case: Case, tensors: Tensors) -> Prepared | str:
        if why := self.ready(case, tensors):
            return why
        prepare = {"backward": self.prepare_backward, "training": self.prepare_training}.get(case.kind, self.prepare_forward)
        try:
            with self.setting():
                prepared = prepare(case, tensors)
                prepared.run()
            prepared.setting = self.setting
            return prepared
        except RuntimeError as error:  # "No available kernel", NotImplementedError, memory that does not suffice
            return str(error).splitlines()[0][:200]

    def prepare_forward(self, case: Case, tensors: Tensors) -> Prepared:
        query, key, value = (tensors[name] for name in ("query", "key", "value"))
        last: list[torch.Tensor] = []

        @torch.no_grad()
        def run() -> None:
            last[:] = [self.attend(case, query, key, value)]

        return Prepared(run, lambda: list(last), self.kernel(case, tensors))

    def prepare_backward(self, case: Case, tensors: Tensors) -> Prepared:
        inputs = [tensors[name].detach().requires_grad_() for name in ("query", "key", "value")]
        output = self.attend(case, *inputs)
        last: list[torch.Tensor] = []

        def run() -> None:
            last[:] = torch.autograd.grad(output, inputs, tensors["grad_out"], retain_graph=True)

        return Prepared(run, lambda: list(last), self.kernel(case, tensors))

    def prepare_training(self, case: Case, tensors: Tensors) -> Prepared:
        inputs = [tensors[name].detach().requires_grad_() for name in ("query", "key", "value")]
        last: list[torch.Tensor] = []

        def run() -> None:
            output = self.attend(case, *inputs)
            last[:] = [output.detach(), *torch.autograd.grad(output, inputs, tensors["grad_out"])]

        return Prepared(run, lambda: list(last), self.kernel(case, tensors))


class Strobe(Contender):
    """With `deterministic` false, backward passes whose bits may differ when run twice, as the peers' do."""

    def __init__(self, deterministic: bool = True):
        self.name = "strobe" if deterministic else ANY_ORDER
        self.deterministic = deterministic

    def attend(self, case, query, key, value):
        return strobe.torch.attention(query, key, value, causal=case.causal)

    def ready(self, case, tensors):
        return "" if self.deterministic or case.kind == "backward" else NOT_THIS_PASS

    def kernel(self, case, tensors):
        query, key, value = (tensors[name] for name in ("query", "key", "value"))
        return strobe.plan(query, key, value, causal=case.causal).kernel

    def prepare_backward(self, case, tensors):
        """attention_backward alone, without autograd around it."""
        query, key, value = (tensors[name] for name in ("query", "key", "value"))
        out, lse = strobe.attention(query, key, value, causal=case.causal, return_lse=True)
        last: list[torch.Tensor] = []

        def run() -> None:
            last[:] = strobe.attention_backward(tensors["grad_out"], query, key, value, out, lse, causal=case.causal,
                                                deterministic=self.deterministic)

        plan = strobe.plan(query, key, value, backward=True, causal=case.causal, deterministic=self.deterministic)
        return Prepared(run, lambda: list(last), plan.kernel)


class Sdpa(Contender):
    """scaled_dot_product_attention held to one backend.

    `groups_as_rows`: for one query and grouped heads, the query heads of a group are passed as rows of one head; the result
    is the same, and each key is read once instead of once per query head.
    """

    def __init__(self, name: str, backend: SDPBackend, groups_as_rows: bool = False):
        self.name = name + (", groups as rows" if groups_as_rows else "")
        self.backend = backend
        self.groups_as_rows = groups_as_rows

    def ready(self, case, tensors):
        return NOT_THIS_PASS if self.groups_as_rows and case.kind != "decode" else ""

    def setting(self):
        return sdpa_kernel(self.backend)

    def kernel(self, case, tensors):
        return self.backend.name

    def attend(self, case, query, key, value):
        by_head = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        if self.groups_as_rows:
            by_head[0] = query.view(case.batch, case.kv_heads, case.query_heads // case.kv_heads, case.dim)
            return scaled_dot_product_attention(*by_head).reshape(query.shape)
        grouped = case.query_heads != case.kv_heads
        return scaled_dot_product_attention(*by_head, is_causal=case.causal, enable_gqa=grouped).transpose(1, 2)


class Flex(Contender):
    """FlexAttention, compiled for each case; a causal mask is a block mask, made beforehand."""

    name = "FlexAttention"

    def ready(self, case, tensors):
        torch._dynamo.reset()  # kernels of earlier cases count towards a limit
        self.compiled = torch.compile(flex_attention.flex_attention, dynamic=False)
        self.block_mask = None
        if case.causal:
            causal = lambda batch, head, query, key: query >= key
            self.block_mask = flex_attention.create_block_mask(causal, None, None, case.queries, case.length,
                                                               device=tensors["query"].device)
        return ""

    def attend(self, case, query, key, value):
        by_head = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        grouped = case.query_heads != case.kv_heads
        return self.compiled(*by_head, block_mask=self.block_mask, enable_gqa=grouped).transpose(1, 2)


class Standard(Contender):
    """Attention by two matrix products and a softmax between them, which stores all scores."""

    name = "standard attention"

    def ready(self, case, tensors):
        if case.kind == "decode":
            return NOT_THIS_PASS
        device = tensors["query"].device
        most = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 1 << 30
        scores = case.batch * case.query_heads * case.queries * case.length
        return "" if 12 * scores < 0.8 * most else "the scores do not fit the memory"

    def attend(self, case, query, key, value):
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        scores = query @ key.transpose(-1, -2) * case.dim ** -0.5
        if case.causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        return (scores.float().softmax(-1).to(value.dtype) @ value).transpose(1, 2)


def all_contenders() -> list[Contender]:
    """Strobe first; the others' times are set against it."""
    flash, cudnn = ("FlashAttention-2", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)
    return [Strobe(), Strobe(deterministic=False), Sdpa(*flash), Sdpa(*cudnn), Sdpa(*flash, groups_as_rows=True),
            Sdpa(*cudnn, groups_as_rows=True), Flex(), Standard()]
