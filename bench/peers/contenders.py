"""The peers that cpu.py compares Strobe with: PyTorch's scaled_dot_product_attention and ONNX Runtime's attention operators.

A contender offers prepare(case, tensors) -> Prepared, or a reason (str) why it cannot run the case. Setting up is done
there; Prepared.run is what is timed. All tensors are PyTorch tensors in storage order [batch, heads, length, dim].
"""

import math

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper

from cases import NOT_THIS_PASS, Case, Prepared


class Torch:
    """PyTorch. Forward: scaled_dot_product_attention without gradient. Backward: autograd through it, timed alone."""

    name = "pytorch"

    def prepare(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared | str:
        attention = torch.nn.functional.scaled_dot_product_attention
        query, key, value = tensors["query"], tensors["key"], tensors["value"]
        last: list[torch.Tensor] = []
        if case.kind == "backward":
            inputs = [tensor.detach().clone().requires_grad_() for tensor in (query, key, value)]
            output = attention(*inputs, is_causal=case.causal)

            def run() -> None:
                last[:] = torch.autograd.grad(output, inputs, tensors["grad_output"], retain_graph=True)

            return Prepared(run, lambda: list(last), "autograd of scaled_dot_product_attention")

        grouped = case.query_heads != case.kv_heads

        @torch.inference_mode()
        def run_forward() -> None:
            last[:] = [attention(query, key, value, is_causal=case.causal, enable_gqa=grouped)]

        return Prepared(run_forward, lambda: list(last), "scaled_dot_product_attention")


class TorchGroupsAsRows:
    """PyTorch for one query and grouped heads: the query heads of a group are passed as rows of one head. The result is the
    same and PyTorch reads each key once instead of once per query head."""

    name = "pytorch, groups as rows"

    def prepare(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared | str:
        if case.kind != "decode" or case.queries != 1:
            return NOT_THIS_PASS
        query = tensors["query"].view(case.batch, case.kv_heads, case.query_heads // case.kv_heads, case.dim)
        last: list[torch.Tensor] = []

        @torch.inference_mode()
        def run() -> None:
            last[:] = [torch.nn.functional.scaled_dot_product_attention(query, tensors["key"], tensors["value"])]

        shape = (case.batch, case.query_heads, 1, case.dim)
        return Prepared(run, lambda: [last[0].reshape(shape)], "scaled_dot_product_attention")


class OnnxRuntime:
    """ONNX Runtime's own attention operators (domain com.microsoft): MultiHeadAttention, and GroupQueryAttention with a key and
    value cache for decoding. Its threads do not spin between calls, since they would disturb the others."""

    name = "onnxruntime"
    types = {"float32": (TensorProto.FLOAT, np.float32)}

    def __init__(self, threads: int):
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        self.options.add_session_config_entry("session.force_spinning_stop", "1")
        self.options.log_severity_level = 3

    def prepare(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared | str:
        if case.kind == "backward":
            return "no gradient"
        if case.dtype not in self.types:
            return f"no {case.dtype} on the CPU"
        return self.cached(case, tensors) if case.kind == "decode" else self.whole(case, tensors)

    def session(self, node, inputs: dict, outputs: dict, element: int):
        value = lambda name, shape, kind=element: helper.make_tensor_value_info(name, kind, shape)
        graph = helper.make_graph([node], "attention", [value(name, *spec) for name, spec in inputs.items()],
                                  [value(name, *spec) for name, spec in outputs.items()])
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        return onnxruntime.InferenceSession(model.SerializeToString(), self.options, providers=["CPUExecutionProvider"])

    def whole(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared:
        element, number = self.types[case.dtype]
        hidden = case.query_heads * case.dim
        node = helper.make_node("MultiHeadAttention", ["query", "key", "value"], ["output"], domain="com.microsoft",
                                num_heads=case.query_heads, scale=1 / math.sqrt(case.dim), unidirectional=int(case.causal))
        shape = [case.batch, case.length, hidden]
        session = self.session(node, {name: (shape,) for name in ("query", "key", "value")}, {"output": (shape,)}, element)
        binding = session.io_binding()
        arrays = {name: np.ascontiguousarray(tensors[name].transpose(1, 2).reshape(shape).numpy()) for name in ("query", "key", "value")}
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        output = np.empty(shape, number)
        bind_output(binding, "output", output)
        by_head = lambda: torch.from_numpy(output).view(case.batch, case.length, case.query_heads, case.dim).transpose(1, 2)
        return Prepared(lambda: session.run_with_iobinding(binding), lambda: [by_head()], "MultiHeadAttention")

    def cached(self, case: Case, tensors: dict[str, torch.Tensor]) -> Prepared:
        """All keys but the last lie in the cache; the operator appends the last one."""
        element, number = self.types[case.dtype]
        node = helper.make_node(
            "GroupQueryAttention", ["query", "key", "value", "past_key", "past_value", "seqlens_k", "total_sequence_length"],
            ["output", "present_key", "present_value"], domain="com.microsoft", num_heads=case.query_heads,
            kv_num_heads=case.kv_heads, scale=1 / math.sqrt(case.dim))
        hidden, kv_hidden = case.query_heads * case.dim, case.kv_heads * case.dim
        cache = [case.batch, case.kv_heads, case.length, case.dim]
        inputs = {"query": ([case.batch, 1, hidden],), "key": ([case.batch, 1, kv_hidden],), "value": ([case.batch, 1, kv_hidden],),
                  "past_key": (cache,), "past_value": (cache,), "seqlens_k": ([case.batch], TensorProto.INT32),
                  "total_sequence_length": ([1], TensorProto.INT32)}
        outputs = {"output": ([case.batch, 1, hidden],), "present_key": (cache,), "present_value": (cache,)}
        session = self.session(node, inputs, outputs, element)
        key, value = (tensors[name].numpy().astype(number) for name in ("key", "value"))
        arrays = {"query": tensors["query"].numpy().astype(number).reshape(case.batch, 1, hidden),
                  "key": np.ascontiguousarray(key[:, :, -1]).reshape(case.batch, 1, kv_hidden),
                  "value": np.ascontiguousarray(value[:, :, -1]).reshape(case.batch, 1, kv_hidden),
                  "past_key": key, "past_value": value, "seqlens_k": np.full(case.batch, case.length - 1, np.int32),
                  "total_sequence_length": np.array([case.length], np.int32)}
        binding = session.io_binding()
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        output = np.empty([case.batch, 1, hidden], number)
        for name, array in (("output", output), ("present_key", key), ("present_value", value)):
            bind_output(binding, name, array)
        by_head = lambda: torch.from_numpy(output.astype(np.float32)).view(case.batch, case.query_heads, 1, case.dim)
        keep = (key, value, arrays)
        return Prepared(lambda keep=keep: session.run_with_iobinding(binding), lambda: [by_head()], "GroupQueryAttention")


def bind_output(binding, name: str, array: np.ndarray) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
