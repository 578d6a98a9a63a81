"""What each kind of stage does. Runs in worker processes only: this is where the heavy work happens.

A stage reads the results it needs from the store, writes its files into the folder it is given, and returns the values
that the report is made of.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import OUTPUTS, load_outputs, save_outputs
from edgeopt.cards.reading import card_from_text
from edgeopt.data.cache import OpenRaw, load_split, load_training, opener
from edgeopt.data.prepare import prepare_found
from edgeopt.errors import DataChangedError, PluginError, StorageError
from edgeopt.export.make import make_artifact
from edgeopt.export.self_test import file_answers, images_of
from edgeopt.fingerprint import digest
from edgeopt.json_values import to_values
from edgeopt.measure.answers import feeder, file_outputs, verify
from edgeopt.networks.capture import program_outputs, to_program
from edgeopt.networks.cost import cost_of_program
from edgeopt.networks.saved import load_outline, load_state, save_state
from edgeopt.options import without_augmentation
from edgeopt.pipeline.machines import FirstMachine
from edgeopt.pipeline.on_device import measure_there
from edgeopt.pipeline.results import (
    AppliedPass,
    BuiltModel,
    CapturedProgram,
    ExportedFile,
    Results,
    StageResult,
    VerifiedFile,
    WrittenReport,
)
from edgeopt.pipeline.untrained import require_taken, require_trained
from edgeopt.plugins.blame import BlamedLoad, BlamedPredictor, blamed
from edgeopt.plugins.contexts import PassContext
from edgeopt.progress import Silent
from edgeopt.recipe.plan import Plan, card_recipe
from edgeopt.recipe.stage import JudgedOn, Stage, StageKind
from edgeopt.tracking.tracked import TrackedRun
from edgeopt.types import TORCH, Form, FoundData, ModelState, targets_of
from edgeopt.workers.store import Result, Store

if TYPE_CHECKING:
    from edgeopt.progress import Progress
    from edgeopt.types import Split, TrainingData

_WAIT_SECONDS = 0.5


@dataclass
class Workbench:
    """One worker's view of a run: the plan, the store, the states it has at hand already, and for the data stage what
    was found of the data set. `failures` and `away` say of files that could not be made, and of devices that could not
    be used, why.
    """

    plan: Plan
    store: Store
    progress: Progress
    is_main: bool = True
    failures: Mapping[str, str] = field(default_factory=dict)
    away: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    states: dict[str, ModelState] = field(default_factory=dict)
    first: FirstMachine | None = None
    found: FoundData | None = None
    tracked: TrackedRun | None = None
    pauses: Mapping[str, int] = field(default_factory=dict)

    def do(self, stage: Stage) -> Result | None:
        """The stage's result, found or made. Helpers of a distributed training work along with it, and keep nothing."""
        make = _MAKERS[stage.kind]
        if self.is_main:
            key = stage.key_without(self.failures, self.away)
            return self.store.compute(key, lambda folder: to_values(make(self, stage, folder)), stage.label)
        if stage.kind is StageKind.PASS and self.store.find(stage.key) is None:
            with tempfile.TemporaryDirectory() as folder:
                make(self, stage, Path(folder))
        return None

    def result(self, name: str) -> Result:
        """The finished result of another stage; another machine waits until the first one has it."""
        key = self.plan.stages[name].key_without(self.failures, self.away)
        while (found := self.store.find(key)) is None:
            if self.first is None:
                message = f"the result of stage {name!r} has gone from {self.store.root}"
                raise StorageError(message, hint="start the run again")
            self.first.require_work()
            time.sleep(_WAIT_SECONDS)
        return found

    def state(self, name: str) -> ModelState:
        """The model state that a stage ended with, kept from this process or read from the store."""
        if name not in self.states:
            self.states = {name: load_state(self.result(name).folder)}  # one at a time: models are large
        return self.states[name]

    def training(self, *, augmented: bool = False) -> TrainingData:
        """The splits that passes may see; only a pass that trains is told of the augmentation."""
        options = self.plan.dataset.options
        given = options if augmented else without_augmentation(options)
        return load_training(self.result("data").folder, given, self.raw)

    def judged(self) -> Split:
        """The images on which programs and files are judged: the test split, which no pass sees, but for trials."""
        return load_split(self.result("data").folder, self.plan.judged_on.value, self.raw)

    @property
    def raw(self) -> OpenRaw:
        """Opens the data set as the data stage read it; can be pickled, for loaders in processes of their own."""
        return opener(self.result("data").folder, self.load)

    @property
    def load(self) -> OpenRaw:
        """Opens the data set as its plugin finds it now."""
        plugin = self.plan.dataset.plugin
        return BlamedLoad(plugin.name, plugin.load, without_augmentation(self.plan.dataset.options))

    @property
    def results(self) -> Results:
        """What the finished stages left."""
        return Results(self.plan, self.result)

    def seed(self, stage: Stage) -> int:
        """Seeds everything random for one stage, whichever stages ran before it in this process; returns the seed."""
        import numpy as np

        seed = int(digest([self.plan.recipe.seed, stage.name])[:8], 16)
        random.seed(seed)
        np.random.seed(seed)
        if self.plan.framework != TORCH:
            return seed  # the plugin seeds its own framework; torch must not come into its process
        import torch

        torch.manual_seed(seed)
        return seed


def _make_data(bench: Workbench, _stage: Stage, folder: Path) -> StageResult:
    dataset, found = bench.plan.dataset, bench.found
    if found is None:
        with blamed(dataset.plugin, "fingerprint"):
            seen = dataset.plugin.fingerprint(without_augmentation(dataset.options))
        if seen != bench.plan.data_fingerprint:
            raise DataChangedError("the data changed while the run was working", hint="start the run again")
    return prepare_found(
        found,
        bench.load,
        dataset.options,
        folder,
        bench.progress,
        bench.plan.budget.images,
        task=bench.plan.task,
    )


def _make_model(bench: Workbench, stage: Stage, folder: Path) -> StageResult:
    bench.seed(stage)
    model = bench.plan.model
    with blamed(model.plugin, "build"):
        state = model.plugin.build(model.options, bench.training())
    if state.form is not Form.MODULE:
        raise PluginError(f"model {model.plugin.name!r} built a {state.form}, not a module")
    if state.framework != model.plugin.framework:
        raise PluginError(
            f"model {model.plugin.name!r} built a model of {state.framework}, not {model.plugin.framework}"
        )
    if state.framework == TORCH:
        _require_outputs(state, bench.training().validation)
    require_trained(bench.plan, state.untrained)
    require_taken(bench.plan, state, bench.training().validation)
    save_state(state, folder)
    bench.states = {stage.name: state}
    return BuiltModel(_parameter_count(state), state.untrained)


def _require_outputs(state: ModelState, split: Split) -> None:
    """Raises `RecipeError`, before any pass, when the network gives anything but its outputs for images of the data
    set, or outputs of an image that depend on the others.
    """
    import torch

    from edgeopt.networks.outputs import require_answers_alone, require_outputs

    images = torch.from_numpy(state.preprocessing.normalize(split.pixels(range(min(2, len(split))))))
    require_outputs(state, images)
    if state.batch_range[0] == 1:
        require_answers_alone(state.module, images, state.output_names)


def _parameter_count(state: ModelState) -> int:
    if state.framework != TORCH:
        return state.foreign.parameter_count
    return sum(parameter.numel() for parameter in state.module.parameters())


def _make_pass(bench: Workbench, stage: Stage, folder: Path) -> StageResult:
    use = bench.plan.passes[stage.index]
    _data, before_name = stage.needs
    before = bench.state(before_name)
    seed = bench.seed(stage)
    context = PassContext(
        data=bench.training(augmented=use.plugin.trains),
        trainer=bench.plan.trainer_of(stage.index),
        seed=seed,
        work_dir=bench.store.work_dir(stage.key),
        progress=bench.progress,
        budget=bench.plan.budget,
        baseline=partial(bench.state, bench.plan.float_stage.name)
        if stage.index >= bench.plan.baseline_passes
        else None,
        tracked=replace(bench.tracked, prefix=f"{stage.index}-") if bench.tracked and bench.is_main else None,
        pause_epochs=bench.pauses.get(stage.name),
    )
    with blamed(use.plugin, "apply"):
        after = use.plugin.apply(before, use.options, context)
    if after.form is not use.plugin.produces:
        raise PluginError(
            f"pass {use.plugin.name!r} declares that it produces a {use.plugin.produces} and gave a {after.form}"
        )
    if after.history[:-1] != before.history or not after.history:
        raise PluginError(
            f"pass {use.plugin.name!r} did not record what it did", hint="return state.after(PassRecord(...), model)"
        )
    save_state(after, folder)
    bench.states = {stage.name: after}
    return AppliedPass(after.history[-1])


def _make_program(bench: Workbench, stage: Stage, folder: Path) -> StageResult:
    _data, state_name = stage.needs
    bench.seed(stage)
    state = bench.state(state_name)
    captured = to_program(state, bench.training().validation)
    if captured.task.is_fitted:
        validation = bench.training().validation
        outputs = program_outputs(captured, validation, bench.progress, f"{stage.label}, on validation")
        captured = replace(captured, task=captured.task.fitted(outputs, targets_of(validation)))
    test = bench.judged()
    outputs = program_outputs(captured, test, bench.progress, f"{stage.label}, on {bench.plan.judged_on}")
    save_state(captured, folder)
    save_outputs(folder / OUTPUTS, outputs)
    scores = captured.task.scores(outputs, targets_of(test))
    cost = cost_of_program(captured) if captured.framework == TORCH else None
    accuracy = scores.accuracy
    return CapturedProgram(
        precision=captured.precision,
        test_accuracy=accuracy.value if accuracy else None,
        accuracy_interval=accuracy.interval if accuracy else None,
        images=len(test),
        cost=cost,
        scores=scores.all,
    )


def _make_export(bench: Workbench, stage: Stage, folder: Path) -> StageResult:
    planned = bench.plan.exports[stage.index]
    _data, program = stage.needs
    state = bench.state(program)
    made = make_artifact(
        planned.use,
        state,
        folder,
        role=planned.role,
        recipe=card_recipe(bench.plan, planned.program_role),
        calibration=bench.training().calibration,
        progress=bench.progress,
        seed=bench.seed(stage),
    )
    (folder / "card.json").write_text(made.card.to_json())
    return ExportedFile(
        sha256=made.sha256,
        size_bytes=made.size_bytes,
        compressed_bytes=sum(map(_compressed_bytes, made.files)),
        precision=made.precision,
        exported=made.exported,
        parts=made.parts if made.exported.companions else {},
    )


def _make_verify(bench: Workbench, stage: Stage, folder: Path) -> StageResult:
    planned = bench.plan.exports[stage.index]
    export, program = bench.results.export(planned), bench.results.folder(planned.program_stage)
    if export.exported.not_run:
        return VerifiedFile(None)
    outline = load_outline(program)
    test = bench.judged()
    feed = feeder(export.exported.input.holds, outline.preprocessing)
    settings = bench.plan.recipe.measure
    card = card_from_text((bench.results.folder(planned.export_stage) / "card.json").read_text())
    answers: tuple[tuple[float, ...], ...] = ()
    with planned.use.plugin.opened(bench.results.file(planned), settings.threads) as predictor:
        answering = BlamedPredictor(planned.use.plugin, predictor)
        outputs = file_outputs(answering, test, feed, bench.progress, stage.label, settings.batch_size)
        if drawn := images_of(card):
            answers = file_answers(card, file_outputs(answering, drawn, feed, Silent(), "", settings.batch_size))
    save_outputs(folder / OUTPUTS, outputs)
    reference = load_outputs(program / OUTPUTS)
    names = [each.name for each in export.exported.outputs]
    verified = verify(outline.task, outputs, reference, targets_of(test), names)
    return VerifiedFile(verified, answers)


def _make_device(bench: Workbench, stage: Stage, folder: Path) -> StageResult:
    return measure_there(bench.results, stage, bench.judged(), bench.failures, folder, bench.progress)


def _make_report(bench: Workbench, _stage: Stage, folder: Path) -> StageResult:
    from edgeopt.pipeline.report import build_report, kept_answers, shown_images
    from edgeopt.pipeline.tracked_files import track_files
    from edgeopt.report.html import render_html
    from edgeopt.report.samples import keep_samples

    test = bench.judged()
    targets = targets_of(test)
    report = build_report(bench.results, bench.failures, bench.away, targets, bench.log)
    if bench.tracked is not None:
        report = track_files(report, bench.tracked)
    kept_answers(bench.results, report, targets).write(folder / "answers.npz")
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    if bench.plan.judged_on is not JudgedOn.TEST:
        return WrittenReport()  # the page speaks of test images
    recipe_text = bench.plan.recipe.source.text or json.dumps(bench.plan.resolved(), indent=2)
    images = shown_images(report, test.pixels)
    html = render_html(report, images=images, recipe_text=recipe_text)
    (folder / "report.html").write_text(html, encoding="utf-8")
    keep_samples(images, folder)
    return WrittenReport()


_MAKERS: Mapping[StageKind, Callable[[Workbench, Stage, Path], StageResult]] = {
    StageKind.DATA: _make_data,
    StageKind.MODEL: _make_model,
    StageKind.PASS: _make_pass,
    StageKind.PROGRAM: _make_program,
    StageKind.EXPORT: _make_export,
    StageKind.VERIFY: _make_verify,
    StageKind.DEVICE: _make_device,
    StageKind.REPORT: _make_report,
}


def _compressed_bytes(path: Path) -> int:
    """Size of a file after DEFLATE, which app packages use; read in pieces, as files can be large."""
    compressor = zlib.compressobj(level=6)
    size = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            size += len(compressor.compress(piece))
    return size + len(compressor.flush())
