"""What is compared: problems, their counts of operations and bytes, and the grids of them. PyTorch is imported only where
a problem meets it, so that the lists can be looked at without it."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    import torch

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
NOT_THIS_PASS = "for another pass only"  # why a contender does not take part
ANY_ORDER = "strobe, any order"  # Strobe's backward with deterministic=False


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem. `kind` is forward, backward, training (forward and backward, through autograd) or decode."""

    kind: str
    dtype: str
    length: int
    dim: int
    causal: bool
    batch: int = 1
    query_heads: int = 16
    kv_heads: int = 16
    query_length: int = 0  # 0: as length

    @property
    def queries(self) -> int:
        return self.query_length or self.length

    @property
    def name(self) -> str:
        batch = f"-b{self.batch}" if self.batch != 1 else ""
        heads = f"h{self.query_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.query_heads else "")
        return f"{self.kind}-{self.dtype}-d{self.dim}-n{self.length}{batch}-{heads}-{'causal' if self.causal else 'full'}"

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return getattr(torch, self.dtype)

    @property
    def flops(self) -> float:
        """By the FlashAttention papers' count: half when causal, 2.5 times forward for backward."""
        forward = 4.0 * self.batch * self.query_heads * self.queries * self.length * self.dim
        return forward * (0.5 if self.causal else 1.0) * {"backward": 2.5, "training": 3.5}.get(self.kind, 1.0)

    @property
    def bytes_of_keys_and_values(self) -> float:
        return 2.0 * self.batch * self.kv_heads * self.length * self.dim * BYTES[self.dtype]

    @property
    def bytes_of_queries(self) -> float:
        return 1.0 * self.batch * self.query_heads * self.queries * self.dim * BYTES[self.dtype]

    @property
    def bytes_moved(self) -> float:
        """That no exact method can do without: each tensor of the pass read or written once."""
        forward = 2 * self.bytes_of_queries + self.bytes_of_keys_and_values  # query and out
        backward = 4 * self.bytes_of_queries + 2 * self.bytes_of_keys_and_values  # also grad_out and the gradients
        return {"backward": backward, "training": forward + backward}.get(self.kind, forward)


@dataclasses.dataclass
class Prepared:
    """A contender that is ready to run one case."""

    run: Callable[[], object]
    results: Callable[[], list[torch.Tensor]]  # of the last run: [output], or [dQ, dK, dV]
    kernel: str
    setting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext  # entered around runs, not timed


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Over the largest magnitude of each tensor."""
    pairs = ((a.double(), b.double()) for a, b in zip(ours, theirs, strict=True))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def papers_grid(tokens: int = 16384, hidden: int = 2048) -> list[Case]:
    """The grid of the FlashAttention papers (2307.08691, section 4.1): the same number of tokens and the same hidden size
    in every case, both passes."""
    lengths = [length for length in (512, 1024, 2048, 4096, 8192, 16384) if length <= tokens] or [tokens]
    return [Case(kind, "bfloat16", length, dim, causal, batch=tokens // length, query_heads=hidden // dim, kv_heads=hidden // dim)
            for kind in ("forward", "backward") for dim in (64, 128, 256) if dim <= hidden
            for causal in (False, True) for length in lengths]


def decode_cases(tokens: int = 1 << 20) -> list[Case]:
    """One query a sequence on a cache of keys; `tokens` bounds batch * keys."""
    sizes = ((1, 8192), (1, 131072), (16, 8192), (64, 4096), (128, 8192))
    return [Case("decode", "bfloat16", keys, 128, False, batch=batch, query_heads=32, kv_heads=8, query_length=1)
            for batch, keys in sizes if batch * keys <= tokens] or [
                Case("decode", "bfloat16", tokens, 128, False, query_heads=32, kv_heads=8, query_length=1)]


def gpt2_medium() -> list[Case]:
    """The layer of the FlashAttention paper's figure 2 (2205.14135)."""
    return [Case("training", "bfloat16", 1024, 64, False, batch=64)]


def memory_cases(longest: int = 65536) -> list[Case]:
    """Training steps whose memory is looked at, as the same paper's figure 3 and its tables do."""
    return [Case("training", "bfloat16", length, 64, True) for length in (512 << k for k in range(8)) if length <= longest]


def preset(name: str, tokens: int, hidden: int) -> list[Case]:
    """The cases of a preset on a GPU; `tokens` and `hidden` make them smaller where they are tried without one."""
    grid = papers_grid(tokens, hidden)
    return {
        "fa1-fig2": lambda: gpt2_medium() if tokens >= 16384 else [Case("training", "bfloat16", tokens, 64, False)],
        "fa1-memory": lambda: memory_cases(4 * tokens),
        "fa2-fig7": lambda: grid,
        "fa3-fig5": lambda: [case for case in grid if case.kind == "forward"],
        "decode": lambda: decode_cases() if tokens >= 16384 else decode_cases(tokens),
    }[name]()


PRESETS = ("fa1-fig2", "fa1-memory", "fa2-fig7", "fa3-fig5", "decode")


def quick(cases: list[Case]) -> list[Case]:
    """A third of them: the shortest, the longest and a length between, without head dimension 256."""
    lengths = sorted({case.length for case in cases if case.kind != "decode"})
    kept = {lengths[0], lengths[len(lengths) // 2], lengths[-1]} if lengths else set()
    return [case for case in cases if case.kind == "decode" or (case.length in kept and case.dim <= 128)]
