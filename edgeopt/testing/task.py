"""What a task must keep."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from edgeopt.json_values import to_values
from edgeopt.plugins.declarations import Plugin, TaskPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.tasks import Moves, Task, Tiles, task_from_json, task_to_json
from edgeopt.testing.contracts import PluginContract, modules_after
from edgeopt.testing.there import answers_there

if TYPE_CHECKING:
    from torch import Tensor

    from edgeopt.arrays import Outputs

_SIZE = 32  # px
_ROUNDING = 1e-9


class TaskContract(PluginContract):
    """Subclass it, set `name` and `options`, and override `targets` and `outputs`: some targets as a data set gives
    them, not all the same, and what a network that knows them would answer. `classes` are the data set's.
    """

    kind: ClassVar[type[Plugin]] = TaskPlugin
    classes: ClassVar[Sequence[str]] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls) -> Sequence[Any]:
        """At least six targets."""
        pytest.fail("override the fixture `targets`: some targets as a data set gives them")

    @pytest.fixture(scope="class")
    @classmethod
    def outputs(cls) -> Outputs:
        """What answers them rightly: an array for each output, a row a target."""
        pytest.fail("override the fixture `outputs`: what answers these targets rightly")

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, use: Use[TaskPlugin]) -> Task:
        """The task as the plugin makes it."""
        return use.plugin.made(use.options)

    # ---- the task itself

    def test_is_made_without_anything_heavy(self, use: Use[TaskPlugin], registry: Registry) -> None:
        """`edgeopt check` asks a task for its scores."""
        origin = registry.origin(use.plugin)
        files = [str(origin.source)] if origin.is_file else []
        loaded = modules_after(
            "from pathlib import Path; from edgeopt.plugins.registry import load_registry; "
            "from edgeopt.recipe.lookup import resolve; from edgeopt.plugins.declarations import TaskPlugin; "
            f"use = resolve(TaskPlugin, {self.name!r}, {dict(self.options)!r}, "
            f"load_registry([Path(file) for file in {files!r}])); "
            "use.plugin.made(use.options).score_kinds"
        )
        assert not loaded, f"making the task imports {', '.join(loaded)}"

    def test_goes_to_other_processes(self, task: Task) -> None:
        """As a pickle, and as the values of its fields."""
        assert dataclasses.is_dataclass(task)
        with pytest.raises(dataclasses.FrozenInstanceError):
            task.name = "other"
        assert pickle.loads(pickle.dumps(task)) == task
        assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task

    def test_scores_have_names_of_their_own(self, task: Task) -> None:
        names = [kind.name for kind in task.score_kinds]
        assert names
        assert len(set(names)) == len(names)
        assert all(name.isidentifier() and name.islower() for name in names), "gates name scores, as in map50 = 0.4"
        assert task.metric == names[0]

    # ---- targets

    def test_targets_are_in_order(self, task: Task, targets: Sequence[Any]) -> None:
        assert not [what for target in targets if (what := task.wrong(target, len(self.classes)))]
        collected = task.collected(targets)
        assert len(collected) == len(targets)
        assert len(collected[:3]) == 3

    def test_classes_of_targets_follow_the_classes_that_are_kept(self, task: Task, targets: Sequence[Any]) -> None:
        count = len(self.classes)
        found = task.membership(task.collected(targets), count)
        if found is None:
            pytest.skip("targets of this task have no classes")
        assert found.shape == (len(targets), count)
        assert found.any()
        backwards = {place: count - 1 - place for place in range(count)}
        turned = task.collected([task.relabelled(target, backwards) for target in targets])
        found_then = task.membership(turned, count)
        assert found_then is not None
        assert np.array_equal(found_then, found[:, ::-1])

    def test_targets_survive_files(self, task: Task, targets: Sequence[Any]) -> None:
        """In pieces, as they are written: what is put together is the same."""
        whole = task.stored(task.collected(targets))
        pieces = [task.stored(task.collected(part)) for part in (targets[:2], targets[2:])]
        together = {name: np.concatenate([piece[name] for piece in pieces]) for name in whole}
        read = task.stored(task.restored(together))
        assert read.keys() == whole.keys()
        for name, array in whole.items():
            assert array.dtype == together[name].dtype, f"the type of {name} depends on how many images there are"
            assert np.array_equal(array, read[name]), name

    def test_targets_of_some_images_are_theirs(self, task: Task, targets: Sequence[Any]) -> None:
        chosen = np.array([4, 0, 2])
        expected = task.stored(task.collected([targets[index] for index in chosen]))
        for name, array in task.stored(task.collected(targets)[chosen]).items():
            assert np.array_equal(array, expected[name]), name

    # ---- training

    def test_right_answers_have_the_lower_loss(self, task: Task, targets: Sequence[Any], outputs: Outputs) -> None:
        batch = task.batch(task.collected(targets))
        right, wrong = task.loss(_tensors(outputs), batch), task.loss(_tensors(_others(outputs)), batch)
        assert right.shape == wrong.shape == ()
        assert float(right) < float(wrong)

    def test_the_loss_can_be_followed(self, task: Task, targets: Sequence[Any], outputs: Outputs) -> None:
        tensors = tuple(each.requires_grad_() for each in _tensors(_others(outputs)))
        task.loss(tensors, task.batch(task.collected(targets))).backward()  # type: ignore[no-untyped-call]
        gradients = [each.grad for each in tensors if each.grad is not None]
        assert any(float(gradient.abs().sum()) > 0 for gradient in gradients)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)

    def test_a_teacher_draws_to_its_answers(self, task: Task, outputs: Outputs) -> None:
        own, other = _tensors(outputs), _tensors(_others(outputs))
        assert float(task.soft_loss(own, own, 2.0)) < float(task.soft_loss(own, other, 2.0))

    def test_images_that_stay_leave_targets_alone(self, task: Task, targets: Sequence[Any]) -> None:
        import torch  # heavy, as a task's own modules must not be

        still = Moves(torch.eye(3).repeat(len(targets), 1, 1)[:, :2], _SIZE, _SIZE)
        batch = task.batch(task.collected(targets))
        before, after = _leaves(batch), _leaves(task.augmented(batch, still))
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert torch.allclose(one.double(), other.double(), atol=1e-4)

    def test_an_image_that_is_seen_whole_in_another_place_has_its_target_there(
        self, task: Task, targets: Sequence[Any]
    ) -> None:
        import torch  # as above

        if not task.can_be_tiled:
            pytest.skip(f"images of {task.name} are not put together of parts")
        count = len(targets)
        backwards, whole = torch.arange(count).flip(0), torch.tensor([0, 0, _SIZE, _SIZE]).repeat(count, 1, 1)
        tiles = Tiles(torch.arange(count), backwards[:, None], whole, whole)
        still = Moves(torch.eye(3).repeat(count, 1, 1)[:, :2], _SIZE, _SIZE)
        expected = _leaves(task.augmented(task.batch(task.collected(targets[::-1])), still))
        found = _leaves(task.augmented(task.tiled(task.batch(task.collected(targets)), tiles), still))
        assert len(expected) == len(found)
        for one, other in zip(expected, found, strict=True):
            assert torch.allclose(one.double(), other.double(), atol=1e-4)

    def test_crops_lie_within_their_images(self, task: Task, targets: Sequence[Any]) -> None:
        import torch  # as above

        if not task.chooses_crops:
            pytest.skip(f"targets of {task.name} choose no crops")
        batch = task.batch(task.collected(targets))
        first, again = (task.crops(batch, _SIZE, 2 * _SIZE, torch.Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(first, again) and first.shape == (len(targets), 4)
        assert (first[:, 2:] > first[:, :2]).all() and (first >= 0).all()
        assert (first[:, [1, 3]] <= _SIZE).all() and (first[:, [0, 2]] <= 2 * _SIZE).all()

    # ---- answers

    def test_a_network_that_answers_so_fits(self, task: Task, outputs: Outputs) -> None:
        shapes = [each.shape for each in outputs]
        count = len(outputs[0])
        assert task.unfit(shapes, count, len(self.classes) or None) is None
        assert task.unfit(shapes, count + 1, len(self.classes) or None)
        assert task.unfit([], count, len(self.classes) or None)

    def test_right_answers_score_best(self, task: Task, targets: Sequence[Any], outputs: Outputs) -> None:
        collected = task.collected(targets)
        right, wrong = task.scores(outputs, collected), task.scores(_others(outputs), collected)
        assert tuple(score.kind for score in right) == task.score_kinds
        for score in (*right, *wrong):
            low, high = score.interval
            assert low - _ROUNDING <= score.value <= high + _ROUNDING, f"{score.kind.name} lies outside its interval"
            assert score.count == len(targets)
        kind = task.score_kinds[0]
        assert kind.rank(right.primary.value) > kind.rank(wrong.primary.value)
        assert task.right(outputs, collected).all()
        assert not task.right(_others(outputs), collected).all()

    def test_answers_agree_with_themselves_alone(self, task: Task, outputs: Outputs) -> None:
        others = _others(outputs)
        assert task.alike(outputs, outputs).shape == (len(outputs[0]),)
        assert task.alike(outputs, outputs).all()
        assert not task.alike(outputs, others).all()
        assert task.agreement(outputs, outputs) == 1.0
        assert 0.0 <= task.agreement(outputs, others) < 1.0
        margins = [0.0] * len(outputs)
        assert task.near_ties(outputs, outputs, margins) == 0
        assert task.near_ties(outputs, others, margins) <= int((~task.alike(outputs, others)).sum())

    def test_what_one_side_loses_the_other_gains(self, task: Task, targets: Sequence[Any], outputs: Outputs) -> None:
        collected, others = task.collected(targets), _others(outputs)
        there, back = task.compare(outputs, others, collected), task.compare(others, outputs, collected)
        assert (there.lost, there.gained) == (back.gained, back.lost)
        assert there.lost > there.gained
        assert there.images == len(targets)
        same = task.compare(outputs, outputs, collected)
        assert (same.lost, same.gained, same.p_value) == (0, 0, 1.0)

    def test_an_image_is_judged_for_itself(self, task: Task, targets: Sequence[Any], outputs: Outputs) -> None:
        some = np.array([3, 1])
        collected = task.collected(targets)
        part = tuple(each[some] for each in _others(outputs))
        grades = task.grades(_others(outputs), collected)
        assert np.array_equal(task.grades(part, collected[some]), grades[some])

    def test_answers_can_be_told(self, task: Task, outputs: Outputs) -> None:
        answers = task.decode(outputs)
        assert len(answers) == len(outputs[0])
        for answer in answers:
            assert dataclasses.is_dataclass(answer)
            json.dumps(to_values(answer))
            told = task.told(answer, self.classes)
            assert told
            assert "\n" not in told

    def test_a_card_says_how_outputs_become_answers(
        self, task: Task, targets: Sequence[Any], outputs: Outputs, use: Use[TaskPlugin]
    ) -> None:
        """What the task chose and the plugin's options do not say survives the JSON of a card."""
        fitted = task.fitted(outputs, task.collected(targets))
        said = json.loads(json.dumps(fitted.decision()))
        again = use.plugin.made(use.options).decided(said)
        assert json.loads(json.dumps(again.decision())) == said
        assert again.decode(outputs) == fitted.decode(outputs)

    def test_files_for_other_languages_are_there(self, use: Use[TaskPlugin]) -> None:
        """The first Kotlin file is named after the class that answers; each template ends with its language."""
        for file in (*use.plugin.kotlin_files, *use.plugin.line_templates, *use.plugin.page_files):
            assert file.is_file(), file
        for file in use.plugin.kotlin_files[:1]:
            declared = rf"class {file.stem}\((private val )?\w+: Card\) : Answering\b"
            assert re.search(declared, file.read_text(encoding="utf-8")), f"{file.name} declares no class of its name"
        for file in use.plugin.line_templates:
            assert re.fullmatch(r"\w+\.(kotlin|swift|cpp|python)\.j2", file.name), file.name

    def test_it_answers_on_a_device_as_here(
        self, task: Task, targets: Sequence[Any], outputs: Outputs, use: Use[TaskPlugin]
    ) -> None:
        """By modules that go there without the rest of edgeopt and of the plugin, and by what a card says."""
        modules = use.plugin.device_modules
        if not modules:
            pytest.skip("its answers are made where edgeopt is alone")
        fitted = task.fitted(outputs, task.collected(targets))
        here = [to_values(answer) for answer in fitted.decode(outputs)]
        assert answers_there(modules, outputs, fitted.decision()) == here

    def test_files_can_end_where_it_says(self, task: Task) -> None:
        with pytest.raises(LookupError):
            task.ending("nowhere")
        for name in task.endings:
            ending, ended = task.ending(name), task.ended(name)
            assert ending.outputs and all(map(str.isidentifier, ending.outputs))
            assert any(ending.refused(form, len(self.classes)) is None for form in ("", "onnx", "tflite"))
            assert task.decided(json.loads(json.dumps(ended.decision()))) == ended, "a file's card says how it ends"

    def test_pages_can_draw_answers(self, task: Task, outputs: Outputs) -> None:
        drawings = task.drawings(outputs, self.classes)
        assert [each.words for each in drawings] == [task.told(each, self.classes) for each in task.decode(outputs)]
        for drawing in drawings:
            places = [each.label for each in drawing.labels or ()] + [each.label for each in drawing.boxes or ()]
            assert all(0 <= place < len(self.classes) for place in places)
            assert drawing.mask is None or (drawing.mask.ndim == 2 and drawing.mask.dtype.kind in "iu")

    def test_one_answer_for_all_is_a_guess_if_it_can_be_told(
        self, task: Task, targets: Sequence[Any], outputs: Outputs
    ) -> None:
        constant = tuple(np.repeat(each[:1], len(each), axis=0) for each in outputs)
        collected = task.collected(targets)
        assert task.guess(outputs, collected, self.classes) is None
        guess = task.guess(constant, collected, self.classes)
        assert guess is None or str(len(targets)) in guess.told()

    def test_the_report_can_show_its_sections(self, task: Task, targets: Sequence[Any], outputs: Outputs) -> None:
        for section in task.sections(outputs, task.collected(targets), self.classes):
            json.dumps(to_values(section))
            assert section.title
            assert all(0 <= image.index < len(targets) for image in section.images)
            for table in section.tables:
                assert all(len(row) == len(table.columns) for row in table.rows)


def _others(outputs: Outputs) -> Outputs:
    """The answers for other images."""
    return tuple(np.roll(each, 1, axis=0) for each in outputs)


def _tensors(outputs: Outputs) -> tuple[Tensor, ...]:
    import torch  # as above

    return tuple(torch.from_numpy(each.copy()) for each in outputs)


def _leaves(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in their order."""
    if isinstance(batch, dict):
        return [leaf for value in batch.values() for leaf in _leaves(value)]
    if isinstance(batch, (list, tuple)):
        return [leaf for value in batch for leaf in _leaves(value)]
    return [batch]
