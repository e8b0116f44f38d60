"""The package itself: its version, its types, and that the stub is the one that the extension would be given today."""

import ast
import inspect
import pathlib

import pytest
import strobe
from strobe import _core

FOLDER = pathlib.Path(strobe.__file__).parent


def test_version_and_devices():
    assert strobe.__version__.count(".") == 2
    assert strobe.cuda_device_count() >= 0


def without_docstrings(stub):
    """The declarations of a stub, as text that depends on neither layout nor documentation."""
    tree = ast.parse(stub)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            documented = ast.get_docstring(node) is not None
            node.body = (node.body[1:] if documented else node.body) or [ast.Expr(ast.Constant(...))]
    return ast.unparse(tree)


def test_stub_is_what_nanobind_writes_now():
    stubgen = pytest.importorskip("nanobind.stubgen")
    generator = stubgen.StubGen(_core)
    generator.put(_core)
    assert without_docstrings((FOLDER / "_core.pyi").read_text()) == without_docstrings(generator.get())


@pytest.mark.parametrize("function", [value for value in vars(strobe).values() if inspect.isroutine(value)])
def test_docstrings_tell_of_every_argument(function):
    documented = inspect.getdoc(function)
    if "Args:" in documented:
        assert "Raises:" in documented and "[" in documented
        assert [name for name in inspect.signature(function).parameters if name not in documented] == []
    else:  # one that takes another function's arguments says so
        assert "(query, key, value, **options)" in documented or "those of attention_with_cache" in documented


def test_types_are_shipped():
    assert (FOLDER / "py.typed").exists()
