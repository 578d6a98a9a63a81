"""The house: no import circles, few rooms at the top, small modules, and plugins that come in by the front door."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FACE = "edgeopt.plugins"
#: What plugins, examples and the scaffold may import of the core; `docs/plugins.md` lists the same.
PUBLIC = (
    "edgeopt.data",
    "edgeopt.devices",
    "edgeopt.export",
    "edgeopt.files",
    "edgeopt.measure",
    "edgeopt.networks",
    "edgeopt.pipeline.earlier",
    "edgeopt.sensitivity",
    "edgeopt.testing",
)


def modules() -> dict[str, Path]:
    found = {}
    for base in (ROOT / "edgeopt", *sorted((ROOT / "plugins").glob("edgeopt_*"))):
        for file in base.rglob("*.py"):
            parts = file.relative_to(base.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(file: Path) -> Iterator[str]:
    """Every name that a file imports, at the top, late or for types only, as a dotted path."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports. A package's face may be imported from inside it."""
    edges: dict[str, set[str]] = {name: set() for name in known}
    for name, file in known.items():
        for path in imports_of(file):
            target = path
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target and target != name and not name.startswith(f"{target}."):
                edges[name].add(target)
    return edges


def test_no_module_imports_itself_by_a_detour() -> None:
    try:
        tuple(TopologicalSorter(graph(modules())).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    from b import g\n")
    (tmp_path / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import f\n")
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(graph({"a": tmp_path / "a.py", "b": tmp_path / "b.py"})).static_order())


def test_few_modules_stand_at_the_top() -> None:
    assert len(list((ROOT / "edgeopt").glob("*.py"))) <= 14


def test_modules_are_small() -> None:
    long = {name: lines for name, file in modules().items() if (lines := len(file.read_text().splitlines())) > 400}
    assert not long


#: Plugins of one runtime each; a folder or module called `rewrites` changes graphs, and is no part of the adapter.
RUNTIMES = ("edgeopt_coreml", "edgeopt_ncnn", "edgeopt_openvino", "edgeopt_tflm")


def lines_of_code(text: str) -> int:
    """Lines with a token of Python in them: no blank ones, comments or docstrings."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [each for each in tokenize.generate_tokens(io.StringIO(text).readline) if each.type not in silent]
    lines = {line for each in tokens for line in range(each.start[0], each.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_lines_of_code_are_those_that_do_something() -> None:
    assert (
        lines_of_code('"""Doc.\n\nMore."""\n\nx = (\n    1,  # why\n    # why not\n)\n\n\ndef f():\n    """Doc."""\n')
        == 4
    )
    assert lines_of_code('x = """a\n\nb"""\n') == 3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_is_a_small_plugin(runtime: str) -> None:
    folder = ROOT / "plugins" / runtime
    files = [
        file for file in folder.rglob("*.py") if file.relative_to(folder).parts[0] not in ("rewrites", "rewrites.py")
    ]
    assert len(files) > 3
    assert sum(lines_of_code(file.read_text()) for file in files) <= 400


def _outside() -> list[Path]:
    examples = [file for file in (ROOT / "examples").rglob("*.py") if ".venv" not in file.parts]
    return [*(ROOT / "plugins").rglob("*.py"), *examples, *(ROOT / "edgeopt" / "scaffold").glob("*.py.j2")]


@pytest.mark.parametrize("file", _outside(), ids=lambda file: str(file.relative_to(ROOT)))
def test_plugins_and_examples_import_public_names_alone(file: Path) -> None:
    text = file.read_text()
    if file.suffix == ".j2":
        text = re.sub(r"{{ *(\w+) *}}", r"\1", text)
    hidden = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "edgeopt":
            public = node.module == FACE or node.module.startswith(tuple(f"{room}" for room in PUBLIC))
            hidden += [] if public or node.module == "edgeopt" else [f"{file.name}:{node.lineno}: {node.module}"]
        elif isinstance(node, ast.Import):
            hidden += [alias.name for alias in node.names if alias.name.startswith("edgeopt.") and alias.name != FACE]
    assert not hidden, "import it from edgeopt.plugins, or from a room that docs/plugins.md lists"


def test_the_rooms_that_are_public_are_listed_for_authors() -> None:
    listed = (ROOT / "docs" / "plugins.md").read_text()
    assert [room for room in (FACE, *PUBLIC) if f"`{room}`" not in listed] == []
