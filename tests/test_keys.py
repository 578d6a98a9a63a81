"""What the keys of results hold: all that makes a result, and nothing that does not."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_RECIPE

import edgeopt
from edgeopt import fingerprint
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.plan import Plan, make_plan
from edgeopt.recipe.read import read_recipe

PLUGINS = Path(__file__).parent.parent / "plugins"

QAT = """\
schema = 1
name = "keys"

[dataset]
use = "shapes"
image_size = 32

[model]
use = "torchvision"
arch = "mobilenet_v3_small"

[[passes]]
use = "train"

[[passes]]
use = "qat"

[[exports]]
use = "executorch"
"""

Planner = Callable[..., Plan]


@pytest.fixture
def planned(registry: Registry, write_recipe: Callable[[str], Path]) -> Planner:
    def plan(*overrides: str, text: str = TINY_RECIPE) -> Plan:
        made = make_plan(read_recipe(write_recipe(text), overrides), registry)
        assert made.stages  # keyed now, not when a test has changed something
        return made

    return plan


def changed(before: Plan, after: Plan) -> set[str]:
    return {name for name, stage in before.stages.items() if after.stages[name].key != stage.key}


@pytest.mark.parametrize(
    ("distribution", "kept"), [("torch", {"data"}), ("numpy", set()), ("pillow", set()), ("scipy", {"*"})]
)
def test_a_new_version_of_what_works_in_every_run_makes_again(
    distribution: str, kept: set[str], planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned()
    all_stages = set(before.stages)
    real = fingerprint.installed_version
    monkeypatch.setattr(fingerprint, "installed_version", lambda name: "99.0" if name == distribution else real(name))
    same = set(before.stages) - changed(before, planned())
    assert same == (all_stages if kept == {"*"} else kept)


def test_a_change_in_a_package_that_a_pass_uses_trains_again(
    planned: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(text=QAT)
    changed_folder = tmp_path / "edgeopt_distillation"
    changed_folder.mkdir()
    (changed_folder / "__init__.py").write_text("changed = True\n")
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> object:
        spec = real(name, package)
        if name == "edgeopt_distillation":  # a spec of its own: the module's would stay changed after this test
            return importlib.util.spec_from_file_location(name, changed_folder / "__init__.py")
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", find)
    after = planned(text=QAT)
    assert "pass-1-qat" in changed(before, after)
    assert not {"data", "model", "pass-0-train"} & changed(before, after)


def test_plugins_declare_every_package_that_they_use(registry: Registry) -> None:
    uses = {folder.name: imported(folder) for folder in PLUGINS.glob("edgeopt_*")}
    missing = []
    for entry in registry:
        package = entry.origin.module.partition(".")[0]
        needed, waiting = set(), [package]
        while waiting:
            for other in uses.get(waiting.pop(), set()) - needed - {package}:
                needed.add(other)
                waiting.append(other)
        if needed - set(entry.plugin.libraries):
            missing.append(f"{entry.plugin.name}: {', '.join(sorted(needed - set(entry.plugin.libraries)))}")
    assert not missing


def imported(folder: Path) -> set[str]:
    """The other first-party packages that a package imports anywhere."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.partition(".")[0] for name in names if name.startswith("edgeopt_")}
    return found - {folder.name}


def test_augmentation_decodes_nothing_again_and_trains_again(planned: Planner) -> None:
    again = changed(planned(), planned("dataset.augmentation.horizontal_flip=true"))
    assert not {"data", "model"} & again
    assert {"pass-0-fit-stripes", "export-npz-optimized"} <= again


def test_a_new_name_makes_the_report_alone(planned: Planner) -> None:
    assert changed(planned(), planned("name=other", "description=other")) == {"report"}


def test_threads_do_not_redo_what_does_not_train(planned: Planner) -> None:
    text = TINY_RECIPE.replace('use = "fit-stripes"', 'use = "halve-weights"')
    changes = ("trainer.threads=2", "trainer.loader_workers=1", "dataset.augmentation.contrast=0.2")
    assert changed(planned(text=text), planned(*changes, text=text)) == {"report"}
    assert "pass-0-halve-weights" in changed(planned(text=text), planned("trainer.accelerator=cpu", text=text))


def test_a_pass_after_the_float_model_leaves_the_float_file_alone(planned: Planner) -> None:
    again = changed(planned(), planned("passes.1.steps=32"))
    assert "export-npz-baseline" not in again
    assert "export-npz-optimized" in again


def test_what_does_not_train_sees_neither_augmentation_nor_the_trainer(planned: Planner) -> None:
    text = TINY_RECIPE.replace('use = "fit-stripes"', 'use = "halve-weights"')
    plan = planned("trainer.threads=2", "trainer.precision=bf16-mixed", text=text)
    given = plan.trainer_of(0)
    assert (given.threads, given.precision) == (2, "32")
    assert planned("trainer.precision=bf16-mixed").trainer_of(0).precision == "bf16-mixed"


def test_one_list_of_versions(planned: Planner) -> None:
    from edgeopt.pipeline.lock import make

    plan = planned(text=QAT)
    versions = make(plan, "", {}, {}).versions
    assert {"torch", "torchao", "numpy", "pillow", "lightning", "executorch", "python", "edgeopt"} <= set(versions)
    assert edgeopt.__version__ == versions["edgeopt"]


def test_another_batch_answers_and_is_timed_again_and_exports_nothing(planned: Planner) -> None:
    again = changed(planned(), planned("measure.batch_size=2"))
    assert again == {"verify-npz-baseline", "verify-npz-optimized", "measure", "report"}
