"""The compiled extension (python/bindings/module.cpp). `strobe` has the functions to call.

Written by `python -m nanobind.stubgen -m strobe._core`; a test compares it with the extension.
"""

def attention(query: object | None, key: object | None, value: object | None, out: object | None, lse: object | None, stream: object | None, options: dict) -> None: ...

def quick_attention(general: object) -> object: ...

def quick_torch_attention(arguments: tuple, options: dict) -> object: ...

def forward_like(query: object, key: object, value: object, empty_like: object, lse: object | None, stream: object | None, options: dict) -> object: ...

def forward(query: object, key: object, value: object, out: object, lse: object | None, stream: object | None, options: dict) -> None: ...

def backward(grad_out: object, query: object, key: object, value: object, out: object, lse: object, grad_lse: object | None, gradients: dict, stream: object | None, options: dict) -> None: ...

def append(key: object, value: object, stream: object | None, options: dict) -> None: ...

def merge(outputs: object, lses: object, out: object, lse: object | None, stream: object | None) -> None: ...

def softmax(input: object, out: object, axis: int, stream: object | None) -> None: ...

def softmax_backward(grad_out: object, out: object, grad_input: object, axis: int, stream: object | None) -> None: ...

def plan(query: object, key: object, value: object, backward: bool, options: dict) -> Plan: ...

def cuda_device_count() -> int: ...

def version() -> str: ...

class Plan:
    """What runs for a problem, and why. str() explains it in several lines."""

    @property
    def kernel(self) -> str:
        """The kernel's name: "cpu.forward.avx512", "cuda.sm80.forward"."""

    @property
    def why(self) -> str:
        """One sentence: why this kernel."""

    @property
    def workspace_bytes(self) -> int:
        """Memory that a call needs beyond its arrays."""

    @property
    def split_keys(self) -> int:
        """Keys per split; 0 when keys are not split."""

    @property
    def key_block(self) -> int:
        """Keys per block of the main loop."""

    @property
    def query_tile(self) -> int:
        """Query rows per tile."""

    def __str__(self) -> str: ...

    def __repr__(self) -> str: ...
