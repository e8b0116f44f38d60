"""Strobe as a contender of cpu.py, through the C interface of libstrobe.so (include/strobe/strobe.h) by ctypes. Every call is a
complete one-shot call, checks and planning included."""

import ctypes
import pathlib

import torch

from cases import Case, Prepared

MAX_RANK = 5
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("rank", ctypes.c_int32),
                ("shape", ctypes.c_int64 * MAX_RANK), ("strides", ctypes.c_int64 * MAX_RANK)]


class Sized(ctypes.Structure):
    """The structs of strobe.h begin with their size, so that a caller may know fewer fields than the library does."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(self), **fields)


class Attention(Sized):
    """strobe_attention up to `causal`; the rest keeps its defaults."""

    _fields_ = [("struct_size", ctypes.c_size_t), ("query", Tensor), ("key", Tensor), ("value", Tensor),
                ("query_offsets", Tensor), ("key_offsets", Tensor), ("query_lengths", Tensor), ("key_lengths", Tensor),
                ("has_scale", ctypes.c_int32), ("scale", ctypes.c_float), ("softcap", ctypes.c_float), ("bias", Tensor),
                ("alibi_slopes", Tensor), ("sink", Tensor), ("causal", ctypes.c_int32)]


class ForwardOutputs(Sized):
    _fields_ = [("struct_size", ctypes.c_size_t), ("output", Tensor), ("lse", Tensor)]


class BackwardInputs(Sized):
    _fields_ = [("struct_size", ctypes.c_size_t), ("output", Tensor), ("lse", Tensor), ("grad_output", Tensor), ("grad_lse", Tensor)]


class Gradients(Sized):
    _fields_ = [("struct_size", ctypes.c_size_t), ("query", Tensor), ("key", Tensor), ("value", Tensor), ("bias", Tensor), ("sink", Tensor)]


def view(tensor: torch.Tensor) -> Tensor:
    result = Tensor(data=tensor.data_ptr(), dtype=DTYPES[tensor.dtype], rank=tensor.dim())
    result.shape[: tensor.dim()] = tensor.shape
    result.strides[: tensor.dim()] = tensor.stride()
    return result


def rows_view(tensor: torch.Tensor) -> Tensor:
    """[batch, heads, length, dim] in storage as the [batch, length, heads, dim] that Strobe's arguments are."""
    return view(tensor.transpose(1, 2))


class Strobe:
    name = "strobe"

    def __init__(self, library: pathlib.Path):
        self.library = ctypes.CDLL(str(library.resolve()))
        for function in ("strobe_last_error", "strobe_plan_kernel"):
            getattr(self.library, function).restype = ctypes.c_char_p

    def check(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(self.library.strobe_last_error().decode())

    def kernel(self, plan_function: str, *structs: Sized) -> str:
        plan = ctypes.c_void_p()
        self.check(getattr(self.library, plan_function)(*map(ctypes.byref, structs), None, ctypes.byref(plan)))
        name = self.library.strobe_plan_kernel(plan).decode()
        self.library.strobe_plan_destroy(plan)
        return name

    # The structs hold addresses, not tensors: `keep` keeps those alive that nothing else does.
    def prepare(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared | str:
        query, key, value = (tensors[name] for name in ("query", "key", "value"))
        output = torch.empty_like(query)
        lse = torch.empty(case.batch, case.query_heads, case.queries)
        attention = Attention(query=rows_view(query), key=rows_view(key), value=rows_view(value), causal=case.causal)
        outputs = ForwardOutputs(output=rows_view(output), lse=view(lse))
        forward_arguments = [ctypes.byref(attention), ctypes.byref(outputs), None]
        if case.kind != "backward":
            run = lambda keep=lse: self.check(self.library.strobe_forward(*forward_arguments))
            return Prepared(run, lambda: [output], self.kernel("strobe_plan_forward", attention, outputs))

        self.check(self.library.strobe_forward(*forward_arguments))
        gradients = [torch.empty_like(tensor) for tensor in (query, key, value)]
        inputs = BackwardInputs(output=outputs.output, lse=outputs.lse, grad_output=rows_view(tensors["grad_output"]))
        wanted = Gradients(**dict(zip(("query", "key", "value"), map(rows_view, gradients))))
        backward_arguments = [ctypes.byref(attention), ctypes.byref(inputs), ctypes.byref(wanted), None]
        run = lambda keep=(output, lse): self.check(self.library.strobe_backward(*backward_arguments))
        return Prepared(run, lambda: gradients, self.kernel("strobe_plan_backward", attention, inputs, wanted))
