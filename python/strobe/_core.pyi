"""The compiled extension (python/bindings/module.cpp). `strobe` has the functions to call."""

from collections.abc import Mapping
from typing import Any

class Plan:
    """What runs for a problem, and why. str() explains it in several lines."""

    @property
    def kernel(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def split_keys(self) -> int: ...
    @property
    def key_block(self) -> int: ...
    @property
    def query_tile(self) -> int: ...

def forward(
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    lse: Any | None,
    stream: int | None,
    options: Mapping[str, object],
) -> None: ...
def backward(
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    lse: Any,
    grad_lse: Any | None,
    gradients: Mapping[str, Any],
    stream: int | None,
    options: Mapping[str, object],
) -> None: ...
def plan(query: Any, key: Any, value: Any, backward: bool, options: Mapping[str, object]) -> Plan: ...
def cuda_device_count() -> int: ...
def version() -> str: ...
