"""Text to shape: a TOML recipe, or one built in Python, as a frozen `Recipe` that still knows its lines."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from edgeopt.errors import Location, Problem, RecipeError, did_you_mean
from edgeopt.options import MeasureSettings, Options, TrainerSettings
from edgeopt.recipe.gates import Gates
from edgeopt.recipe.tune import TuneSettings
from edgeopt.toml_lines import Key, key_lines, toml_mistake

RecipeName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]


class Step(BaseModel):
    """One plugin in a recipe: its name in `use`, its options flat beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    use: str = Field(description="name of the plugin")

    @property
    def options(self) -> dict[str, Any]:
        """The options as they were written."""
        return dict(self.model_extra or {})


class ExportStep(Step):
    """One export; `name` tells two exports of one exporter apart and names their folder."""

    name: RecipeName | None = Field(None, description="folder of the file; the exporter's name when left out")

    @property
    def folder(self) -> str:
        """Folder of the file below the run's own."""
        return self.name or self.use


class DeviceStep(Step):
    """One device on which files answer and are timed; `name` is what `--device` and the report call it."""

    name: RecipeName | None = Field(None, description="what --device calls it; the kind's name when left out")

    @property
    def called(self) -> str:
        """What `--device` calls it."""
        return self.name or self.use


class Recipe(BaseModel):
    """A reproducible pipeline: a data set, a model, passes in order, exports side by side, gates."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: int = Field(1, alias="schema", ge=1, le=1, description="version of the recipe format, 1")
    name: RecipeName = Field(description="kebab-case name; names the folder of results")
    description: str = Field("", description="what the recipe is for, shown in the report")
    seed: int = Field(17, ge=0, lt=2**32, description="seed of everything random")
    baseline: bool = Field(True, description="also export and measure the float model, to compare with")
    plugins: tuple[str, ...] = Field(
        (), description="Python files with plugins of the recipe's own; their paths count from the recipe's folder"
    )
    task: Step | None = Field(
        None, description="what the model is for; the first task of the data set that the model knows when left out"
    )
    dataset: Step = Field(description="the images")
    model: Step = Field(description="the network")
    passes: tuple[Step, ...] = Field((), description="what is done to the model, in order")
    exports: tuple[ExportStep, ...] = Field(min_length=1, description="the files to make")
    devices: tuple[DeviceStep, ...] = Field((), description="where the files answer and are timed, too")
    trainer: TrainerSettings = Field(default_factory=TrainerSettings, description="where and how training runs")
    measure: MeasureSettings = Field(default_factory=MeasureSettings, description="how latency and energy are measured")
    gates: Gates = Field(default_factory=Gates, description="what the files must reach")
    tune: TuneSettings | None = Field(None, description="what `edgeopt tune` looks for; a run takes no notice of it")

    _source: Source = PrivateAttr(default_factory=lambda: Source())

    @property
    def source(self) -> Source:
        """Where the recipe was read from."""
        return self._source

    def locate(self, *key: str | int) -> Location | None:
        """The line of `key`, or of the closest table around it; None for a recipe built in Python."""
        return self.source.locate(key)

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values; `parse_recipe` of it gives an equal recipe."""
        return json.loads(self.model_dump_json(by_alias=True, exclude_unset=True))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Source:
    """A recipe's text: the file's name, the text, the line of each key, and what `--set` changed."""

    file: str | None = None
    text: str = ""
    lines: Mapping[Key, int] = field(default_factory=dict)
    overrides: Mapping[Key, str] = field(default_factory=dict)

    def locate(self, key: Iterable[str | int]) -> Location | None:
        """The location of `key` or of its closest written parent."""
        path = tuple(key)
        while path and path not in self.lines and path not in self.overrides:
            path = path[:-1]
        if path in self.overrides:
            return Location(f"--set {self.overrides[path]}")
        return Location(self.file, self.lines.get(path)) if self.file is not None else None


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a recipe file and applies `--set` overrides such as `passes.0.epochs=1`.

    Raises `RecipeError` with every problem of the text, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise RecipeError(Problem("is not UTF-8 text", "save it as UTF-8", Location(str(path)))) from error
    except OSError as error:
        hint = "see `edgeopt run --help`" if isinstance(error, FileNotFoundError) else None
        raise RecipeError(Problem(f"cannot be read: {error.strerror or error}", hint, Location(str(path)))) from error
    return recipe_of_text(text, str(path), overrides)


def recipe_of_text(text: str, file: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe that `text`, of a `file` which need not be here, holds; see `read_recipe`."""
    return parse_recipe(_parse_toml(text, file), Source(file, text, key_lines(text)), overrides)


def parse_recipe(values: Mapping[str, Any], source: Source | None = None, overrides: Iterable[str] = ()) -> Recipe:
    """Checks plain values against the recipe's shape.

    Raises `RecipeError` with every problem.
    """
    values, source = overridden(values, source or Source(), overrides)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(*problems_of(error, (), source, Recipe)) from error
    recipe._source = source  # noqa: SLF001 - a private attribute of this module's own class
    return recipe


def overridden(values: Mapping[str, Any], source: Source, overrides: Iterable[str]) -> tuple[dict[str, Any], Source]:
    """A copy of plain values with each `--set KEY=VALUE` applied, and the source that knows of them.

    Raises `RecipeError` with every override that does not fit.
    """
    overrides = tuple(overrides)
    copied: dict[str, Any] = json.loads(json.dumps(values, default=str))  # TOML dates become text
    problems = [problem for override in overrides if (problem := _override(copied, override))]
    if problems:
        raise RecipeError(*problems)
    return copied, replace(source, overrides=_overridden_keys(overrides))


def problems_of(
    error: ValidationError, prefix: Key, source: Source, model: type[BaseModel], known_broken: Container[str] = ()
) -> list[Problem]:
    """A pydantic error as problems with lines, in the words of a recipe.

    `prefix` is where `model` stands in the recipe; fields in `known_broken` have been reported already.
    """
    problems = []
    for detail in error.errors(include_url=False):
        if detail["loc"] and detail["loc"][0] in known_broken:
            continue
        inner = tuple(
            part for part in detail["loc"] if not (isinstance(part, str) and part.startswith(("function-", "literal[")))
        )
        key = (*prefix, *inner)
        name = ".".join(str(part) for part in key) or "the recipe"
        location = source.locate(key)
        hint = None
        match detail["type"]:
            case "extra_forbidden":
                message = f"unknown key {name!r}"
                hint = _known_as(str(inner[-1]), _model_at(model, inner[:-1]))
            case "missing":
                message = f"{name!r} is missing"
                hint = f"add a [{name}] table" if name in ("dataset", "model") else None
                hint = "add an [[exports]] table" if name == "exports" else hint
            case "tuple_type" if key in (("passes",), ("exports",), ("devices",)):
                message = f"[{name}] is one table, and {name} are a list"
                hint = f"write [[{name}]], with two brackets, once for each"
            case "tuple_type" if key == ("plugins",):
                message = f"plugins are a list of files, and not {_shown(detail['input'])}"
                hint = 'as in plugins = ["my_plugin.py"]'
            case "less_than_equal" if key == ("schema",):
                message = f"the recipe has schema {_shown(detail['input'])}, and this edgeopt reads schema 1"
                hint = "update edgeopt, or write the recipe in schema 1"
            case "string_pattern_mismatch":
                message = f"{name}: {detail['input']!r} is not made of a-z, 0-9 and single '-' between them"
                hint = 'as in "mobilenet-shapes-int8"'
            case "value_error":
                message = f"{name}: {detail['ctx']['error']}"
            case _:
                message = f"{name}: {detail['msg'][0].lower()}{detail['msg'][1:]}, not {_shown(detail['input'])}"
        problems.append(Problem(message, hint, location))
    return problems


def _known_as(name: str, model: type[BaseModel] | None) -> str | None:
    """What an unknown key of `model` may be: an option's former name, or a slip of the pen."""
    if model is None:
        return None
    if issubclass(model, Options) and model.renamed.get(name) in model.model_fields:
        return f"it is called {model.renamed[name]!r} now"
    return did_you_mean(name, [option.alias or each for each, option in model.model_fields.items()])


def _model_at(model: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that an unknown key stands in, found by walking nested models along `path`."""
    for part in path:
        if isinstance(part, int):
            continue
        option = model.model_fields.get(str(part))
        nested = list(_models_in(option.annotation)) if option else []
        if not nested:
            return None
        model = nested[0]
    return model


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _parse_toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        brief, line = toml_mistake(error, text)
        raise RecipeError(Problem(f"this is not TOML: {brief}", "see https://toml.io", Location(file, line))) from error
    except RecursionError as error:
        raise RecipeError(Problem("this is not TOML: nested too deeply", None, Location(file))) from error


def _overridden_keys(overrides: Iterable[str]) -> dict[Key, str]:
    """The key of each `--set`, as it stands in the recipe's values."""
    keys = {}
    for override in overrides:
        parts = (part.strip() for part in override.partition("=")[0].split("."))
        keys[tuple(int(part) if part.isdecimal() else part for part in parts)] = override
    return keys


def _override(values: Any, override: str) -> Problem | None:
    """Applies one `KEY=VALUE` in place; the value is TOML, or plain text where it is not."""
    name, separator, text = override.partition("=")
    example = "as in --set passes.0.epochs=1"
    if not separator:
        return Problem(f"--set {override}: there is no '='", example)
    if not name.strip():
        return Problem(f"--set {override}: there is no key before the '='", example)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text.strip()
    *parents, last = (part.strip() for part in name.split("."))
    for part in parents:
        if isinstance(values, list):
            if not part.isdecimal() or int(part) >= len(values):
                return Problem(
                    f"--set {override}: there is no entry {part!r}", f"entries count from 0 to {len(values) - 1}"
                )
            values = values[int(part)]
        elif isinstance(values, dict):
            values = values.setdefault(part, {})
        else:
            return Problem(f"--set {override}: {part!r} is inside a plain value", example)
    if isinstance(values, list):
        if not last.isdecimal() or int(last) >= len(values):
            return Problem(
                f"--set {override}: there is no entry {last!r}", f"entries count from 0 to {len(values) - 1}"
            )
        values[int(last)] = value
    elif isinstance(values, dict):
        values[last] = json.loads(json.dumps(value, default=str))
    else:
        return Problem(f"--set {override}: {last!r} is inside a plain value", example)
    return None
