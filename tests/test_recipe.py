"""Recipes: every problem at once, each with its line, and never a traceback."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_RECIPE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeopt.errors import Location, LockError, RecipeError, UserError
from edgeopt.pipeline.lock import compare_plan, make
from edgeopt.pipeline.runner import check
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import Recipe, Source, key_lines, parse_recipe, read_recipe

RECIPES = sorted((Path(__file__).parent.parent / "recipes").rglob("*.toml"))


def test_lines_of_keys() -> None:
    text = 'a = 1\n[t]\nb = [\n 1,\n 2,\n]\nc.d = """\ne = 1\n"""\n[[p]]\n[[p]]\nuse = "x"\n[p.inner]\nz = { y = 1 }\n'
    lines = key_lines(text)
    assert lines["a",] == 1
    assert lines["t", "b"] == 3
    assert lines["t", "c", "d"] == 7
    assert ("t", "e") not in lines
    assert lines["p", 1] == 11
    assert lines["p", 1, "use"] == 12
    assert lines["p", 1, "inner", "z", "y"] == 14


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_key_of_the_shipped_recipes_has_its_line(file: Path) -> None:
    text = file.read_text()
    lines = key_lines(text)
    written = text.splitlines()
    for key, line in lines.items():
        if isinstance(key[-1], str):
            assert key[-1] in written[line - 1], key


def problems(path: Path, registry: Registry, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(UserError) as caught:
        make_plan(read_recipe(path, overrides), registry)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "hint"),
    [
        ('use = "stripes"', 'use = "stripe"', 5, "there is no dataset 'stripe'", "did you mean 'stripes'"),
        ('use = "linear"', 'use = "npz"', 9, "there is no model 'npz'", "is an exporter, not a model"),
        ("steps = 64", "step = 64", 16, "unknown key 'passes.1.step'", "did you mean 'steps'"),
        ("steps = 64", 'steps = "many"', 16, "passes.1.steps: input should be a valid integer", ""),
        ("steps = 64", "steps = 0", 16, "greater than or equal to 1, not 0", ""),
        ('name = "tiny"', 'name = "Tiny One"', 2, "name", ""),
        ("schema = 1", "schema = 2", 1, "schema", ""),
        ("[measure]", "[mesure]", 21, "unknown key 'mesure'", "did you mean 'measure'"),
        ("threads = 1", "thread = 1", 22, "unknown key 'measure.thread'", "did you mean 'threads'"),
        ("image_size = 16", "image_sise = 16", 6, "unknown key 'dataset.image_sise'", "did you mean 'image_size'"),
        ("image_size = 16", "image_size = 64\nresize = 32", 4, "resize (32 px) is smaller than image_size (64 px)", ""),
        ('use = "npz"', 'use = "npz"\n[[exports]]\nuse = "npz"', 20, "two exports would write to 'npz'", "name"),
        ("[[exports]]", "[[export]]", 18, "unknown key 'export'", "did you mean 'exports'"),
    ],
)
def test_a_mistake_is_told_with_its_line(
    old: str,
    new: str,
    line: int,
    message: str,
    hint: str,
    write_recipe: Callable[[str], Path],
    registry: Registry,
) -> None:
    path = write_recipe(TINY_RECIPE.replace(old, new, 1))
    found = [text for text in problems(path, registry) if message in text]
    assert found, problems(path, registry)
    assert f"{path}:{line}: " in found[0]
    assert hint in found[0]


def test_all_problems_at_once(write_recipe: Callable[[str], Path], registry: Registry) -> None:
    text = TINY_RECIPE.replace("steps = 64", "step = 1").replace('"stripes"', '"strpes"').replace('"npz"', '"npy"')
    found = problems(write_recipe(text), registry)
    assert len(found) == 3
    assert [text.split(":")[1] for text in found] == ["5", "16", "19"]


@pytest.mark.parametrize(
    ("text", "line"), [('name = "x', 1), ("a = 1\na = 2\n", 2), ("[dataset\n", 1), ("x = [1,\n2\n", 3), ("= 3", 1)]
)
def test_text_that_is_not_toml(text: str, line: int, write_recipe: Callable[[str], Path], registry: Registry) -> None:
    path = write_recipe(text)
    (found,) = problems(path, registry)
    assert found.startswith(f"{path}:{line}: this is not TOML")


def test_files_that_cannot_be_read(tmp_path: Path, registry: Registry) -> None:
    assert "cannot be read" in problems(tmp_path / "none.toml", registry)[0]
    assert "cannot be read" in problems(tmp_path, registry)[0]
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    assert "UTF-8" in problems(tmp_path / "latin.toml", registry)[0]


def test_overrides(tiny_recipe: Path) -> None:
    recipe = read_recipe(tiny_recipe, ["passes.1.steps=8", "seed=3", "dataset.classes=['left', 'top']", "name=other"])
    assert recipe.passes[1].options == {"steps": 8}
    assert (recipe.seed, recipe.name) == (3, "other")
    assert recipe.dataset.options["classes"] == ["left", "top"]


@pytest.mark.parametrize("override", ["seed", "=3", "passes.7.steps=1", "passes.x.steps=1", "name.a.b=1"])
def test_overrides_that_make_no_sense(override: str, tiny_recipe: Path) -> None:
    with pytest.raises(RecipeError, match="--set"):
        read_recipe(tiny_recipe, [override])


def test_a_recipe_built_in_python_equals_the_one_that_was_read(tiny_recipe: Path) -> None:
    read = read_recipe(tiny_recipe)
    built = Recipe(
        name="tiny",
        dataset={"use": "stripes", "image_size": 16},
        model={"use": "linear"},
        passes=[{"use": "fit-stripes"}, {"use": "round-weights", "steps": 64}],
        exports=[{"use": "npz"}],
        measure={"threads": 1, "warmup": 1, "runs": 5, "rounds": 1},
    )
    assert built.model_dump() == read.model_dump()
    assert parse_recipe(read.to_json()).model_dump() == read.model_dump()


def test_a_pass_that_needs_a_module_after_one_that_makes_a_program(
    write_recipe: Callable[[str], Path], registry: Registry
) -> None:
    text = TINY_RECIPE.replace('use = "fit-stripes"', 'use = "ptq"')
    found = problems(write_recipe(text), registry)
    assert any(
        "pass 'round-weights' needs a trainable module, and 'ptq' before it leaves a captured program" in each
        for each in found
    )
    assert any("put 'round-weights' before 'ptq'" in each for each in found)


def test_passes_that_take_away_what_one_before_them_made(write_recipe: Callable[[str], Path]) -> None:
    passes = [
        '"prune-unstructured"\nsparsity = 0.5',
        '"train"',
        '"distill"\nteacher = { use = "torchvision", arch = "resnet18" }',
        '"ptq"',
    ]
    text = "\n".join(
        [
            'schema = 1\nname = "order"\n[dataset]\nuse = "digits"\n[model]\nuse = "torchvision"\narch = "resnet18"',
            *(f"[[passes]]\nuse = {each}" for each in passes),
            '[[exports]]\nuse = "onnx"',
        ]
    )
    found = problems(write_recipe(text), load_registry())
    for name in ("train", "distill"):
        expected = f"pass {name!r} does not keep the zeros that 'prune-unstructured' before it makes"
        assert any(expected in each and f"put {name!r} before 'prune-unstructured'" in each for each in found)
    assert len(found) == 2


toml_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
places = st.sampled_from(
    [
        ("schema",), ("name",), ("seed",), ("dataset",), ("dataset", "use"), ("dataset", "image_size"),
        ("dataset", "classes"), ("dataset", "shares"), ("dataset", "augmentation"), ("model",), ("passes",), ("passes", 0),
        ("passes", 1, "steps"), ("exports",), ("exports", 0, "use"), ("exports", 0, "name"), ("measure",),
        ("measure", "runs"), ("gates",), ("trainer",), ("trainer", "devices"), ("unheard-of",),
    ]
)  # fmt: skip


@given(st.lists(st.tuples(places, toml_values), min_size=1, max_size=4))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mutated_recipe_gives_a_traceback(
    registry: Registry, changes: list[tuple[tuple[str | int, ...], object]]
) -> None:
    values = tomllib.loads(TINY_RECIPE)
    for place, value in changes:
        table: object = values
        for part in place[:-1]:
            try:
                table = table[part]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        else:
            if isinstance(table, dict) or (
                isinstance(table, list) and isinstance(place[-1], int) and place[-1] < len(table)
            ):
                table[place[-1]] = value  # type: ignore[index]
    try:
        plan = make_plan(parse_recipe(values), registry)
    except UserError as error:
        assert error.problems
        assert all(problem.message for problem in error.problems)
    else:
        assert plan.stages["report"].key


@given(st.integers(0, len(TINY_RECIPE)), st.text(max_size=4), st.integers(0, 12))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damaged_text_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, place: int, inserted: str, removed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    text = TINY_RECIPE[:place] + inserted + TINY_RECIPE[place + removed :]
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        make_plan(read_recipe(path), registry)
    except UserError as error:
        assert all(problem.location is None or problem.location.file == str(path) for problem in error.problems)


def test_source_without_a_file_has_no_lines() -> None:
    assert Source().locate(("a", 1)) is None


def test_a_mistake_in_an_override_names_the_override(tiny_recipe: Path, registry: Registry) -> None:
    (found,) = problems(tiny_recipe, registry, ("passes.1.steps=0",))
    assert found.startswith("--set passes.1.steps=0: passes.1.steps: ")


def test_an_option_that_changed_its_name_says_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(
        'schema = 1\nname = "old"\n[dataset]\nuse = "shapes"\npictures = 500\n'
        '[model]\nuse = "torchvision"\narch = "resnet18"\n[[exports]]\nuse = "onnx"\n'
    )
    with pytest.raises(RecipeError) as caught:
        check(path)
    (problem,) = caught.value.problems
    assert problem.location == Location(str(path), 5)
    assert problem.hint == "it is called 'images' now"


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    from conftest import TINY_RECIPE

    from edgeopt.recipe.read import read_recipe

    file = tmp_path / "bom.toml"
    file.write_text(TINY_RECIPE, encoding="utf-8-sig")
    assert read_recipe(file).name == "tiny"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('[[passes]]\nuse = "fit-stripes"', '[passes]\nuse = "ptq"', "write [[passes]]"),
        ("schema = 1", "schema = 2", "this edgeopt reads schema 1"),
        ('name = "tiny"', 'name = "my recipe"', "not made of a-z"),
    ],
)
def test_what_is_easily_written_wrong_is_told_in_plain_words(
    old: str, new: str, message: str, write_recipe: Callable[[str], Path]
) -> None:
    from conftest import TINY_RECIPE

    from edgeopt.recipe.read import read_recipe

    text = TINY_RECIPE.replace(old, new)
    if new.startswith("[passes]"):
        text = text.replace('[[passes]]\nuse = "round-weights"\nsteps = 64\n', "")
    with pytest.raises(RecipeError) as raised:
        read_recipe(write_recipe(text))
    assert message in str(raised.value)


def test_a_plugin_that_cannot_be_loaded_is_named_where_one_is_missing() -> None:
    from edgeopt.errors import PluginError, Problem
    from edgeopt.plugins import PassPlugin
    from edgeopt.plugins.registry import Registry

    registry = Registry([], [Problem("plugin 'zero' of edgeopt-zero 1.0 cannot be loaded: ImportError: no x")])
    with pytest.raises(PluginError, match=r"edgeopt-zero 1\.0 cannot be loaded"):
        registry.get(PassPlugin, "zero-small-weights")


# ---- plugins of the recipe's own -----------------------------------------------------------------------------------


def with_own_plugins(folder: Path, plugins: str = '["own.py"]') -> Path:
    """The tiny recipe, with its plugins in a file beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_bytes((Path(__file__).parent / "tiny_plugin.py").read_bytes())
    (folder / "recipe.toml").write_text(TINY_RECIPE.replace("[dataset]", f"plugins = {plugins}\n\n[dataset]", 1))
    return folder / "recipe.toml"


def test_a_recipe_names_the_file_of_its_plugins(tmp_path: Path) -> None:
    """From its own folder, wherever edgeopt is started; one that `--plugin` names too is loaded once."""
    recipe = with_own_plugins(tmp_path / "folder")
    plan = check(recipe, plugin_files=[recipe.with_name("own.py")])
    assert plan.registry.origin(plan.dataset.plugin).source == recipe.with_name("own.py").resolve()
    with pytest.raises(RecipeError, match="there is no file") as raised:
        check(with_own_plugins(tmp_path / "folder", '["own.py", "other.py", "third.py"]'))
    assert [str(each.location) for each in raised.value.problems] == [f"{recipe}:4"] * 2
    with pytest.raises(RecipeError, match="plugins are a list of files"):
        check(with_own_plugins(tmp_path / "folder", '"own.py"'))


def test_the_lock_and_the_keys_know_a_plugin_file_by_its_text(tmp_path: Path) -> None:
    recipe = with_own_plugins(tmp_path / "folder")
    before = check(recipe)
    kept = make(before, "", {}, {})
    name, said = "pass round-weights", kept.plugins["pass round-weights"]
    assert said.startswith("own.py sha256:") and len(said.partition(":")[2]) == 64
    compare_plan(kept, check(recipe))
    with recipe.with_name("own.py").open("a") as file:
        file.write("\n# changed\n")
    after = check(recipe)
    assert {stage.key for stage in before.stages.values()}.isdisjoint(stage.key for stage in after.stages.values())
    with pytest.raises(LockError, match=f"plugins.{name} is 'own.py sha256:"):
        compare_plan(kept, after)
