"""Declarations in words, as TOML, as a JSON schema: each must say what the option model says."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import pytest
from pydantic import Field

from edgeopt.describe.json_schema import recipe_schema
from edgeopt.describe.options import CORE_TABLES, options_of
from edgeopt.describe.reference import reference_page
from edgeopt.describe.toml import plugin_toml, table_toml
from edgeopt.options import DatasetOptions, Options
from edgeopt.plugins import own_tasks
from edgeopt.plugins.declarations import (
    PLUGIN_TYPES,
    DatasetPlugin,
    ExporterPlugin,
    ModelPlugin,
    PassPlugin,
    QuantizerPlugin,
)
from edgeopt.plugins.registry import Origin, Registered, Registry, load_registry
from edgeopt.plugins.use import AsTable, Use
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import parse_recipe

RECIPES = sorted(Path(__file__).parents[1].glob("recipes/**/*.toml"))


class Decay(Options):
    share: float = Field(0.99, gt=0, lt=1, description="share that is kept")


class EveryKind(Options):
    """One option of every sort."""

    count: int = Field(3, ge=1, le=9, description="a bounded integer")
    even: int = Field(4, multiple_of=2, description="an even integer")
    rate: float = Field(0.5, gt=0, description="a number above 0")
    flag: bool = Field(False, description="a switch")
    text: str = Field('a "quoted" \\ text', description="a text")
    mode: Literal["a", "b"] = Field("b", description="a choice")
    devices: int | Literal["auto"] = Field("auto", description="a number or a word")
    sizes: tuple[int, ...] = Field((1, 2), description="a list")
    pair: tuple[float, float] = Field((0.0, 1.0), description="a pair")
    path: Path | None = Field(None, description="a path")
    limits: dict[str, float] = Field(default_factory=dict, description="a table of numbers")
    decay: Decay = Field(default_factory=Decay, description="a table")
    other_decay: Decay | None = Field(None, description="a table that may be absent")
    quantizer: Annotated[Use[QuantizerPlugin], AsTable] = Field("grid", description="a reference")
    teacher: Annotated[Use[ModelPlugin] | None, AsTable] = Field(None, description="a reference that may be absent")
    name_of_it: str = Field(description="a required text", examples=["resnet18"])
    needed: int = Field(description="a required integer", ge=7)


class GridOptions(Options):
    bits: int = Field(8, ge=2, le=8, description="bits of a weight")


class ImagesOptions(DatasetOptions):
    path: Path = Field(description="where they are")


PLUGINS = (
    DatasetPlugin("images", "Some images.", ImagesOptions, load=list, fingerprint=lambda options: "1"),
    ModelPlugin("net", "A network.", Options, build=list),
    QuantizerPlugin("grid", "A grid.", GridOptions, build=list),
    PassPlugin(
        "every-kind", "One option of every sort.", EveryKind, apply=list, requires=("torch",), install="edgeopt"
    ),
    ExporterPlugin("file", "A file.", Options, export=list, open=list, runtime="none", suffix=".bin"),
    *own_tasks.edgeopt_tasks(),
)


@pytest.fixture
def declared() -> Registry:
    return Registry(Registered(plugin, Origin("test", "1", "test", None)) for plugin in PLUGINS)


def recipe_of(**steps):
    """A whole recipe around some steps."""
    dataset = {"use": "images", "path": "p"}
    return {"name": "whole", "dataset": dataset, "model": {"use": "net"}, "exports": [{"use": "file"}], **steps}


PASS = {"use": "every-kind", "name_of_it": "x", "needed": 7}


@pytest.mark.parametrize(
    ("name", "type_and_bounds", "default"),
    [
        ("count", "integer, 1 to 9", "3"),
        ("even", "integer, a multiple of 2", "4"),
        ("rate", "number, above 0", "0.5"),
        ("flag", "true or false", "false"),
        ("mode", 'one of "a", "b"', '"b"'),
        ("devices", 'integer or "auto"', '"auto"'),
        ("sizes", "list of integers", "[1, 2]"),
        ("pair", "2 numbers", "[0.0, 1.0]"),
        ("path", "path", "none"),
        ("decay", "table", "as below"),
        ("other_decay", "table", "none"),
        ("quantizer", "name of a quantizer, or a table with `use`", '"grid"'),
        ("teacher", "name of a model, or a table with `use`", "none"),
        ("needed", "integer, at least 7", "required"),
    ],
)
def test_options_in_words(name, type_and_bounds, default):
    (option,) = [option for option in options_of(EveryKind) if option.name == name]
    assert (option.type_and_bounds, option.default_in_words) == (type_and_bounds, default)


def test_options_keep_their_order_and_come_before_the_shared_ones():
    assert [option.name for option in options_of(EveryKind)] == list(EveryKind.model_fields)
    names = [option.name for option in options_of(ImagesOptions)]
    assert names[0] == "path"
    assert set(names) == set(ImagesOptions.model_fields)


def test_printed_toml_gives_the_defaults(declared):
    one_task = [plugin for plugin in PLUGINS if plugin.kind != "task" or plugin.name == "classification"]
    pasted = "".join(plugin_toml(plugin) for plugin in one_task if plugin.kind != "quantizer")
    plan = make_plan(parse_recipe({"name": "pasted", **tomllib.loads(pasted)}), declared)
    options = plan.passes[0].options
    assert options.model_dump(exclude={"quantizer"}) == EveryKind(name_of_it="resnet18", needed=7).model_dump(
        exclude={"quantizer"}
    )
    assert options.quantizer.plugin.name == "grid"


def test_printed_toml_of_what_is_absent_can_be_uncommented(declared):
    lines = plugin_toml(PLUGINS[3]).splitlines()
    start = next(index for index, line in enumerate(lines) if line == "# [passes.other_decay]")
    lines[start:] = [line.removeprefix("#").removeprefix(" ") for line in lines[start:]]
    step = tomllib.loads("\n".join(lines))["passes"][0]
    plan = make_plan(parse_recipe(recipe_of(passes=[step])), declared)
    assert plan.passes[0].options.other_decay == Decay()


def test_printed_toml_of_a_quantizer_stands_in_a_pass(declared):
    step = 'passes = [{ use = "every-kind", name_of_it = "x", needed = 7 }]'
    pasted = tomllib.loads(plugin_toml(PLUGINS[2]).replace("[passes.quantizer]", ""))
    values = recipe_of(**tomllib.loads(step))
    values["passes"][0]["quantizer"] = {"use": "grid", **pasted}
    assert make_plan(parse_recipe(values), declared).passes[0].options.quantizer.options == GridOptions()


@pytest.mark.parametrize("name", CORE_TABLES)
def test_printed_toml_of_core_tables(name):
    table = tomllib.loads(table_toml(name, CORE_TABLES[name]))[name]
    assert CORE_TABLES[name].model_validate(table) == CORE_TABLES[name]()


# ---- the JSON schema -----------------------------------------------------------------------------------------------


def validator(registry):
    schema = recipe_schema(registry)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def errors(registry, recipe):
    return list(validator(registry).iter_errors(json.loads(json.dumps(recipe))))


@pytest.fixture(scope="module")
def shipped(registry):
    """What holds recipes to the schema of the plugins that are installed: making it takes half a second."""
    return validator(registry)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"passes": [PASS]},
        {"passes": [PASS | {"quantizer": "grid"}]},
        {"passes": [PASS | {"quantizer": {"use": "grid", "bits": 4}}]},
        {"passes": [PASS | {"teacher": "net", "decay": {"share": 0.5}}]},
        {"exports": [{"use": "file", "name": "other"}]},
        {"trainer": {"devices": "auto"}, "gates": {"accuracy": 0.9}, "seed": 3},
    ],
)
def test_the_schema_takes_what_a_plan_takes(declared, changes):
    recipe = recipe_of(**changes)
    make_plan(parse_recipe(recipe), declared)
    assert not errors(declared, recipe)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonsense": 1},
        {"name": "Not Kebab"},
        {"dataset": {"use": "nosuch"}},
        {"dataset": {"use": "images"}},
        {"dataset": {"use": "images", "path": "p", "nonsense": 1}},
        {"dataset": {"use": "images", "path": "p", "shares": {"nonsense": 1}}},
        {"model": {"use": "images", "path": "p"}},
        {"passes": [PASS | {"count": 10}]},
        {"passes": [PASS | {"quantizer": "net"}]},
        {"passes": [PASS | {"quantizer": {"use": "grid", "bits": 9}}]},
        {"exports": []},
        {"exports": [{"use": "file", "nonsense": 1}]},
        {"trainer": {"threads": 0}},
    ],
)
def test_the_schema_refuses_what_a_plan_refuses(declared, changes):
    recipe = recipe_of(**changes)
    with pytest.raises(Exception, match=r"."):
        make_plan(parse_recipe(recipe), declared)
    assert errors(declared, recipe)


def test_a_schema_without_plugins_is_a_schema():
    assert errors(Registry([]), recipe_of())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_fit_the_schema(shipped, recipe):
    values = tomllib.loads(recipe.read_text(encoding="utf-8"))
    own = [recipe.parent / name for name in values.get("plugins", ())]
    schema = validator(load_registry(own)) if own else shipped
    assert not list(schema.iter_errors(values))


# ---- the reference -------------------------------------------------------------------------------------------------


def test_the_reference_has_every_plugin_and_option(declared):
    page = reference_page(declared)
    for plugin in PLUGINS:
        assert f"### `{plugin.name}`" in page
        assert plugin.summary in page
        for option in plugin.options.model_fields:
            assert f"| `{option}` |" in page
    assert "| `decay.share` | number, above 0, below 1 | `0.99` | share that is kept |" in page
    assert "Needs torch: `pip install 'edgeopt'`." in page
    assert len(PLUGIN_TYPES) == page.count("\n### `edgeopt_")
