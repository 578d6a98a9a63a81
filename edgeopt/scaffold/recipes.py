"""What `edgeopt new recipe` writes: a commented recipe that `edgeopt check` accepts."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from edgeopt.errors import Problem, RecipeError, StorageError, UserError, did_you_mean
from edgeopt.files import storage_errors, write_aside
from edgeopt.plugins.declarations import ExporterPlugin, ModelPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import parse_recipe
from edgeopt.types import TORCH

MODEL = "mobilenet_v3_small"
RUNTIMES = ("onnx",)
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ZOO = "torchvision"  # whose architectures need no plugin's name before them
_QUANTIZERS = ("xnnpack", "xnnpack-symmetric", "tensorrt")  # the most exact first
_PRETRAINED = {"torchvision": "DEFAULT"}


def write_recipe(
    name: str,
    folder: Path,
    registry: Registry,
    *,
    model: str = MODEL,
    data: Path | None = None,
    runtimes: Sequence[str] = RUNTIMES,
) -> Path:
    """Writes `name`.toml into `folder`; returns its path.

    `model` is an architecture of torchvision, or PLUGIN:ARCH; `data` a folder of images, without which handwritten
    digits are used; `runtimes` are exporters, and the quantizer is one that all of them take.

    Raises `UserError` for what there is not, `RecipeError` with everything that `edgeopt check` would say, and
    `StorageError` when the file exists. Nothing is written then.
    """
    target = folder / f"{name}.toml"
    _require_names(name, runtimes, registry)
    if target.exists():
        raise StorageError(f"{target} exists already", hint="choose another name, or another folder with --out")
    plugin, arch = _model(model, registry)
    values = {
        "file": target.name,
        "name": name,
        "data": json.dumps(data.as_posix(), ensure_ascii=False) if data else "",
        "model_plugin": plugin,
        "arch": json.dumps(arch, ensure_ascii=False),
        "pretrained": _PRETRAINED.get(plugin, "pretrained"),
        "exports": [registry.get(ExporterPlugin, each) for each in dict.fromkeys(runtimes)],
    }
    text = _accepted([_rendered({**values, "quantizer": each}) for each in _QUANTIZERS], registry)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(target, text.encode())
    return target


def _require_names(name: str, runtimes: Sequence[str], registry: Registry) -> None:
    known = registry.names(ExporterPlugin)
    problems = [
        Problem(
            f"--runtime {each}: there is no such exporter", did_you_mean(each, known) or f"there are {', '.join(known)}"
        )
        for each in runtimes
        if each not in known
    ]
    if not _NAME.fullmatch(name):
        problems.append(
            Problem(
                f"{name!r} cannot be the name of a recipe", "small letters, digits and single '-', as in my-flowers"
            )
        )
    if problems:
        raise UserError(*problems)


def _model(model: str, registry: Registry) -> tuple[str, str]:
    """The plugin and the architecture that `model` spells."""
    plugin, separator, arch = model.rpartition(":")
    known = [
        each
        for each in registry.names(ModelPlugin)
        if (found := registry.get(ModelPlugin, each)).framework == TORCH and "arch" in found.options.model_fields
    ]
    if separator and plugin not in known:
        hint = did_you_mean(plugin, known) or f"those with architectures are {', '.join(known)}"
        raise UserError(Problem(f"--model {model}: there is no model plugin {plugin!r} with architectures", hint))
    return plugin or _ZOO, arch


def _accepted(texts: Sequence[str], registry: Registry) -> str:
    """The first text that makes a plan; raises what is wrong with the first where none does."""
    first: RecipeError | None = None
    for text in texts:
        try:
            make_plan(parse_recipe(tomllib.loads(text)), registry)
        except RecipeError as error:
            first = first or error
        else:
            return text
    assert first is not None  # there is a text, and it was refused
    raise first


def _rendered(values: dict[str, object]) -> str:
    from jinja2 import Environment, StrictUndefined  # only whoever writes a recipe needs it

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)  # noqa: S701 — not HTML
    text = (Path(__file__).parent / "recipe.toml.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(values)
