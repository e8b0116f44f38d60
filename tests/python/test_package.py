"""The package itself: its version, its types, and that the stub describes the extension that was compiled."""

import ast
import pathlib

import strobe
from strobe import _core

FOLDER = pathlib.Path(strobe.__file__).parent


def test_version_and_devices():
    assert strobe.__version__.count(".") == 2
    assert strobe.cuda_device_count() >= 0


def test_stub_names_what_the_extension_has():
    stub = [node for node in ast.parse((FOLDER / "_core.pyi").read_text()).body if hasattr(node, "name")]
    assert {node.name for node in stub} == {name for name in dir(_core) if not name.startswith("_")}
    (plan,) = (node for node in stub if isinstance(node, ast.ClassDef))
    assert {node.name for node in plan.body if hasattr(node, "name")} == {name for name in dir(_core.Plan) if not name.startswith("_")}
    for function in (node for node in stub if isinstance(node, ast.FunctionDef)):
        described = [argument.arg for argument in function.args.args]
        signature = getattr(_core, function.name).__doc__.splitlines()[0]
        assert [part.split(":")[0].strip(" )") for part in split_arguments(signature)] == described


def split_arguments(signature):
    """The arguments of "f(a: x, b: dict[y, z]) -> w"."""
    inside, depth, parts = signature[signature.index("(") + 1:signature.rindex(") ->")], 0, [""]
    for letter in inside:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]


def test_types_are_shipped():
    assert (FOLDER / "py.typed").exists()
