"""Tasks by their hook: which one a recipe has, what is refused where, and gates by the names of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from task_parts import Level

from edgeopt.errors import RecipeError
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.recipe.plan import Plan, make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt.sensitivity.tally import tally
from edgeopt.tasks import TASKS, task_from_json, task_to_json
from edgeopt_torchao.quantize.agreement import compare

PARTS = Path(__file__).parent / "task_parts.py"
RECIPE = f"""schema = 1
name = "tasks"
plugins = [{str(PARTS)!r}]

[dataset]
use = "DATA"

[model]
use = "MODEL"

[[passes]]
use = "PASS"

[[exports]]
use = "onnx"
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry([PARTS])


@pytest.fixture
def planned(tmp_path: Path, registry: Registry):
    def plan(data: str, model: str, passed: str = "ptq", more: str = "") -> Plan:
        file = tmp_path / "recipe.toml"
        text = RECIPE.replace("DATA", data).replace("MODEL", model).replace("PASS", passed)
        file.write_text(text + more)
        return make_plan(read_recipe(file), registry)

    return plan


def refusals(plan) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        plan()
    return [f"{problem.location}: {problem.message} / {problem.hint}" for problem in caught.value.problems]


def test_a_recipe_without_a_task_is_for_what_its_data_and_its_model_know(planned) -> None:
    assert planned("digits", "classifier").task == TASKS["classification"]
    assert planned("levels", "any-net").task.name == "level"
    assert planned("both", "any-net").task.name == "level"
    assert planned("both", "classifier").task.name == "classification"


def test_the_task_is_recorded_where_it_is_not_the_one_that_recipes_always_had(planned) -> None:
    assert "task" not in planned("digits", "classifier").resolved()
    plan = planned("levels", "any-net", more="[task]\nuse = 'level'\nclose = 0.2\n")
    assert plan.resolved()["task"] == {"use": "level", "close": 0.2}
    assert plan.task.close == 0.2
    assert "level" in [use.plugin.name for use in plan.uses]
    other = planned("levels", "any-net", more="[task]\nuse = 'level'\nclose = 0.3\n")
    assert other.stages["data"].key != plan.stages["data"].key


def test_a_classifier_on_other_targets_is_refused_at_its_line(planned) -> None:
    (said,) = refusals(lambda: planned("levels", "classifier"))
    assert "recipe.toml:9: data set 'levels' is for level, and model 'classifier' is for classification" in said
    assert said.endswith("for level there is 'any-net'")


def test_a_pass_that_knows_answers_of_one_task_alone_is_refused(planned) -> None:
    (said,) = refusals(lambda: planned("levels", "any-net", "labels-alone"))
    assert "recipe.toml:12: the task is level, and pass 'labels-alone' is for classification" in said


def test_a_named_task_is_held_against_data_and_model(planned) -> None:
    first, second = refusals(lambda: planned("digits", "classifier", more="[task]\nuse = 'level'\n"))
    assert "recipe.toml:6: the task is level, and data set 'digits' is for classification" in first
    assert "for level there is 'both', 'levels'" in first
    assert "recipe.toml:9: the task is level, and model 'classifier' is for classification" in second
    (said,) = refusals(lambda: planned("levels", "any-net", more="[task]\nuse = 'levle'\n"))
    assert "recipe.toml:17: there is no task 'levle' / did you mean 'level'?" in said


def test_options_decide_where_a_data_set_says_so(planned) -> None:
    more = "[dataset]\nlevels = false\n"
    assert planned('both"\nlevels = false #', "any-net").task.name == "classification", more


def test_gates_name_scores_of_the_task(planned) -> None:
    plan = planned("levels", "any-net", more="[gates]\nerror = 0.2\nerror_drop = 0.1\nagreement = 0.9\n")
    assert plan.recipe.gates.scores == {"error": 0.2, "error_drop": 0.1}
    assert plan.resolved()["gates"]["error"] == 0.2
    unknown, foreign = refusals(lambda: planned("levels", "any-net", more="[gates]\naccuracy = 0.2\neror = 0.1\n"))[
        ::-1
    ]
    assert "recipe.toml:17: gates.accuracy: the task level has no such score / it has error, error_drop" in foreign
    assert "recipe.toml:18: unknown key 'gates.eror' / did you mean 'error'?" in unknown
    (said,) = refusals(lambda: planned("levels", "any-net", more="[gates]\nerror = 'small'\n"))
    assert "recipe.toml:17: gates.error" in said
    (said,) = refusals(lambda: planned("digits", "classifier", more="[gates]\nacuracy = 0.2\n"))
    assert "did you mean 'accuracy'" in said


def test_a_task_goes_into_files_by_its_class_and_its_fields(planned) -> None:
    assert task_to_json(TASKS["classification"]) == "classification"
    task = planned("levels", "any-net", more="[task]\nuse = 'level'\nclose = 0.2\n").task
    values = task_to_json(task)
    assert values["values"]["close"] == 0.2
    assert task_from_json(values) == task


def test_scans_and_quantized_programs_are_judged_by_the_task() -> None:
    targets = np.array([0.1, 0.5, 0.9], np.float32)
    before = (np.array([[0.12], [0.9], [0.88]], np.float32),)
    after = (np.array([[0.4], [0.5], [0.9]], np.float32),)
    seen = tally(after, before, targets, Level(0.05))
    assert (seen.right, seen.wrong, seen.lost, seen.gained) == (2, 1, 1, 1)
    programs = [torch.from_numpy(each[0]) for each in (before, after)]
    found = compare(lambda _: programs[0], lambda _: programs[1], [torch.zeros(3)], Level(0.05))
    assert found.top1 == pytest.approx(1 / 3)
