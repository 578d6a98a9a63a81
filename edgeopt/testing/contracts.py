"""What every plugin must keep, whatever it is."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgeopt.arrays import Json
from edgeopt.describe.options import Option, options_of
from edgeopt.describe.toml import plugin_toml
from edgeopt.errors import RecipeError
from edgeopt.options import to_json
from edgeopt.plugins.declarations import Plugin, TaskPlugin
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import Task

#: Import packages that no declaration module may load: each takes from a tenth of a second to several.
HEAVY = (
    *("torch", "torchvision", "torchao", "lightning", "timm", "transformers", "tensorflow", "keras", "jax"),
    *("executorch", "onnx", "onnxruntime", "onnxscript", "openvino", "tensorrt", "coremltools"),
    *("numpy", "scipy", "sklearn", "pandas", "datasets", "matplotlib", "PIL", "cv2"),
)


def task_named(name: str, options: Mapping[str, Json], registry: Registry) -> Task:
    """A task as the plugin of that name makes it."""
    use = resolve(TaskPlugin, name, options, registry)
    return use.plugin.made(use.options)


class PluginContract:
    """The tests that all kinds share. A subclass of a kind's contract sets `name` and, where it likes, `options`.

    `plugin_files` are local plugin files, as `--plugin` takes them, for plugins that are not installed.
    """

    kind: ClassVar[type[Plugin]]
    name: ClassVar[str]
    options: ClassVar[Mapping[str, Json]] = {}
    plugin_files: ClassVar[Sequence[Path]] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def registry(cls) -> Registry:
        """The installed plugins and those of `plugin_files`."""
        return load_registry(cls.plugin_files)

    @pytest.fixture(scope="class")
    @classmethod
    def use(cls, registry: Registry) -> Use[Any]:
        """The plugin with its options, as a recipe that names `options` gives it."""
        return resolve(cls.kind, cls.name, cls.options, registry)

    def test_declaration_is_light(self, use: Use[Any], registry: Registry) -> None:
        """Every command reads every declaration module, so it must import nothing heavy."""
        origin = registry.origin(use.plugin)
        loading = (
            f"import runpy; runpy.run_path({origin.name!r})"
            if origin.is_file
            else f"import importlib; importlib.import_module({origin.module!r})"
        )
        loaded = modules_after(loading)
        assert not loaded, (
            f"{origin.module} imports {', '.join(loaded)}: import them inside the functions that need them"
        )

    def test_every_option_is_described(self, use: Use[Any]) -> None:
        """Options of nested tables as well: documentation is made of the descriptions."""
        missing = list(_undescribed(options_of(use.plugin.options)))
        assert not missing, f"these options have no description: {', '.join(missing)}"

    def test_unknown_option_is_an_error(self, registry: Registry) -> None:
        """A misspelt option must not be ignored."""
        with pytest.raises(RecipeError, match="unknown key"):
            resolve(self.kind, self.name, {**self.options, "no_such_option": 1}, registry)

    def test_options_survive_json(self, use: Use[Any], registry: Registry) -> None:
        """Options travel to worker processes and into the lock as JSON."""
        text = json.dumps(to_json(use.options))
        assert resolve(self.kind, self.name, json.loads(text), registry) == use
        assert json.dumps(to_json(use.options)) == text

    def test_options_are_frozen(self, use: Use[Any]) -> None:
        """Whoever changes an option on the way makes the cache lie."""
        for name in type(use.options).model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(use.options, name, getattr(use.options, name))

    def test_printed_toml_can_be_pasted(self, use: Use[Any], registry: Registry) -> None:
        """`edgeopt plugins show` prints all options; give a required one `Field(examples=[...])` that fits."""
        table = tomllib.loads(plugin_toml(use.plugin))
        while "use" not in table:
            (table,) = table.values()
            table = table[0] if isinstance(table, list) else table
        assert table.pop("use") == self.name
        resolve(self.kind, self.name, table, registry)


@cache  # plugins of one module, each with its contract, ask the same of it
def modules_after(program: str) -> tuple[str, ...]:
    """Which of the `HEAVY` packages a fresh process has loaded after running `program`."""
    code = f"{program}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(done.stdout.splitlines()[-1].split())


def imports_of(module: str) -> set[str]:
    """Every module that a module imports from, at the top, late or for types only."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    assert spec.origin is not None, f"{module} is no file"
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _undescribed(options: Sequence[Option], prefix: str = "") -> Any:
    for option in options:
        if not option.description:
            yield f"{prefix}{option.name}"
        yield from _undescribed(option.inner, f"{prefix}{option.name}.")
