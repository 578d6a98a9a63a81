"""`fit`: one training, driven by Lightning's trainer; see the package for what happens in which order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from edgeopt.plugins import (
    DataError,
    PassContext,
    Problem,
    Silent,
    Split,
    Task,
    TrackedPart,
    TrainingData,
    TrainingError,
    digest,
    to_json,
)
from edgeopt_lightning._imports import LightningModule, Trainer
from edgeopt_lightning.fit import batch_norm
from edgeopt_lightning.fit.averaging import Averaging
from edgeopt_lightning.fit.balance import order_of, weighted_task
from edgeopt_lightning.fit.bar import TrainingBar
from edgeopt_lightning.fit.checkpoint import read_checkpoint, write_checkpoint
from edgeopt_lightning.fit.data import Mixing, Normalize, Shuffled, derived_seed, ordered_loader, training_loader
from edgeopt_lightning.fit.devices import largest_over_devices, mean_over_devices, share_buffers
from edgeopt_lightning.fit.history import History, Validation
from edgeopt_lightning.fit.hooks import FitHooks, FitResult
from edgeopt_lightning.fit.optimizers import LearningRate, make_optimizer, swa_start_epoch
from edgeopt_lightning.fit.trainer import make_trainer, quiet, run_trainer, torch_settings
from edgeopt_lightning.fit.validation import in_numpy, several_outputs, validation_images, validation_outputs
from edgeopt_lightning.fit.weights import in_layout, snapshot
from edgeopt_lightning.options import FitOptions

STATISTICS_IMAGES = 4096  # enough for BatchNorm's means and variances, and bounded for large data sets
_CHECK_STEPS = 16


def fit(
    module: nn.Module,
    data: TrainingData,
    task: Task,
    options: FitOptions,
    context: PassContext,
    hooks: FitHooks | None = None,
    label: str = "train",
) -> FitResult:
    """Trains `module` in place and leaves it with the weights of the epoch that `History` keeps, in evaluation mode.

    A training that was killed goes on at its last whole epoch, from `context.work_dir / "<label>.ckpt"`, and ends with
    the same weights; `label` also names the progress bar. With several devices, every process that Lightning starts
    runs the same program up to this call and all end with the same weights; only the first one writes and shows
    progress.

    With `context.pause_epochs`, it stops after as many epochs, and goes on from there when it is called again.

    Raises `PausedError` there, `TrainingError` when the loss is no longer finite or the devices asked for are not
    there, and `DataError` when there are too few images.
    """
    with (
        quiet(),
        torch_settings(context.trainer.threads),
        torch.random.fork_rng(devices=[]),
        batch_norm.momentum(module, options.batch_norm_momentum),
    ):
        trainer = make_trainer(options, context)
        training = _Training(module, data, task, options, context, hooks or FitHooks(), label, trainer)
        training.resume()
        if not (training.history.stopped or training.history.is_paused(context.pause_epochs)):
            with context.tracked_part(label) as training.tracked, batch_norm.over_devices(module, trainer.world_size):
                training.run(trainer)
        if training.history.is_paused(context.pause_epochs):
            raise training.history.paused(context.pause_epochs or 0, task.score_kinds[0])
        return training.finish(trainer)


# ---- the loop ------------------------------------------------------------------------------------------------------


class _Training(LightningModule):  # type: ignore[misc]
    """One training. Lightning calls the methods from `configure_optimizers` to `on_train_epoch_end`, in this order."""

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        task: Task,
        options: FitOptions,
        context: PassContext,
        hooks: FitHooks,
        label: str,
        trainer: Trainer,
    ) -> None:
        super().__init__()
        settings, budget = context.trainer, context.budget
        self.module = in_layout(module, torch.channels_last if settings.channels_last else torch.contiguous_format)
        self.history = History()
        self.tracked = TrackedPart(label)
        self._data = data
        self._task = task
        self._options = options
        self._pass_context = context
        self._settings = settings
        self._hooks = hooks
        self._label = label
        self._seed = context.seed
        self._epochs = budget.of(budget.epochs, options.epochs)
        self._first_epoch = min(hooks.first_epoch, self._epochs - 1)
        self._most_batches = budget.batches
        self._shuffled = Shuffled(
            len(data.train),
            options.batch_size,
            context.seed,
            trainer.global_rank,
            trainer.world_size,
            budget.batches,
            order_of(data.train, options, task),
        )
        self._require_batches()
        self._steps_per_epoch = math.ceil(len(self._shuffled) / options.accumulate)
        self._steps = 0
        self._file = context.work_dir / f"{label}.ckpt"
        shapes = [[name, list(each.shape)] for name, each in module.named_parameters()]
        self._fingerprint = digest(
            [to_json(options), data.fingerprint, context.seed, self._epochs, budget.batches, trainer.world_size, shapes]
        )
        self._normalize = Normalize(data.preprocessing, settings.channels_last)
        self._step = self._make_step()
        self._compiled_step = torch.compile(self._step) if settings.compile else self._step
        self._checkpoint: dict[str, Any] | None = None
        self._averaging: Averaging | None = None
        self._losses: list[Tensor] = []
        self._checked = 0
        shown = context.progress if trainer.is_global_zero else Silent()
        self._bar = TrainingBar(shown, label, task.score_kinds[0], self._epochs, len(self._shuffled))

    def resume(self) -> None:
        """Takes over what a killed training left: history and weights now, the rest once Lightning is ready for it."""
        self._checkpoint = read_checkpoint(self._file, self._fingerprint)
        if self._checkpoint is not None:
            self.history = History(**self._checkpoint["history"])
            self.module.load_state_dict(self._checkpoint["module"])

    def run(self, trainer: Trainer) -> None:
        """Lets Lightning train the epochs that are not done, shown as a bar."""
        with self._bar.shown(self.history.epochs):
            run_trainer(trainer, self, self.history.epochs)

    def configure_optimizers(self) -> Optimizer:
        """The optimizer; beside it the learning rate and the averaged weights."""
        fused = self.device.type in ("cpu", "cuda") and self.trainer.precision != "16-mixed"
        self._optimizer = make_optimizer(self.module, self._options, fused=fused)
        self._learning_rate = LearningRate(self._optimizer, self._options, self._steps_per_epoch, self._epochs)
        if self._options.averaging != "none":
            start = swa_start_epoch(self._options, self._epochs)
            self._averaging = Averaging(self._options.averaging, self.module, self._options.ema_decay, start)
        if self._checkpoint is not None:
            self._optimizer.load_state_dict(self._checkpoint["optimizer"])
            self._learning_rate.load_state_dict(self._checkpoint["learning_rate"])
            if self._averaging is not None:
                self._averaging.load_state_dict(self._checkpoint["averaging"])
            self.trainer.precision_plugin.load_state_dict(self._checkpoint["precision"])
            self._checkpoint = None
        return self._optimizer

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Any]]:
        """The training batches, from the first epoch that is to be done."""
        self._shuffled.set_epoch(self.history.epochs)  # Lightning draws the first order before it says which it is
        return training_loader(
            self._data.train,
            self._task,
            self._shuffled,
            self._data.augmentation,
            self._settings.loader_workers,
            mixing=Mixing(self._task, len(self._data.classes)),
            pin_memory=self.device.type == "cuda",
        )

    def on_train_epoch_start(self) -> None:
        """Training mode, and the pass's own schedule."""
        # every draw of an epoch (dropout, stochastic depth) follows from its number, as the order of its batches does
        torch.manual_seed(derived_seed(self._seed, self.history.epochs, self.global_rank))
        self._hooks.set_training(self.module, True)
        if self._hooks.before_epoch is not None:
            self._hooks.before_epoch(self.module, self.history.epochs)
        self._steps = self.history.epochs * self._steps_per_epoch
        self._constrain(self.module)
        self.history.collecting = batch_norm.collecting(self.module)
        self.history.learning_rate.append(self._learning_rate.value)
        self._losses, self._checked = [], 0

    def training_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's names
        """The loss of one batch."""
        pixels, targets = batch
        # a smaller last batch would be compiled once more
        step = self._compiled_step if len(pixels) == self._options.batch_size else self._step
        loss = step(pixels, targets)
        self._losses.append(loss.detach())
        # reading a loss waits for the device, so another than the CPU is asked now and then
        if self.device.type == "cpu" or len(self._losses) - self._checked >= _CHECK_STEPS:
            self._require_finite()
        self._bar.advance(self.history, self._losses[-1])
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step of the optimizer, and of all that follows it."""
        super().optimizer_step(*args, **kwargs)
        self._steps += 1
        self._constrain(self.module)
        self._learning_rate.after_step()
        if self._averaging is not None:
            self._averaging.after_step(self.module)

    def on_train_epoch_end(self) -> None:
        """Validates, keeps the best weights, and writes the checkpoint."""
        self._require_finite()
        history, epoch = self.history, self.history.epochs
        if self._averaging is not None:
            self._averaging.after_epoch(self.module, epoch)
        averaged = self._averaging.module if self._averaging is not None else None
        candidate = self.module if averaged is None else averaged
        share_buffers(candidate)
        self._hooks.set_training(candidate, False)
        if averaged is not None:
            self._constrain(candidate)
            self._reestimate(candidate)
        validation = self._validate(candidate)
        self._learning_rate.after_epoch(validation.loss)
        may_be_best = epoch >= self._first_epoch
        kind, settles = self._task.score_kinds[0], self._options.settles
        if may_be_best and history.prefers(validation, kind, settles=settles):
            history.best_epoch, history.best_weights = epoch, snapshot(candidate)
            history.best_is_average = averaged is not None
        history.training_loss.append(mean_over_devices(torch.stack(self._losses)))
        history.validation_loss.append(validation.loss)
        history.validation_score.append(validation.score)
        self.tracked.log(history.last(self._task.metric), history.epochs)
        if history.epochs == self._epochs:
            history.stopped = "all epochs done"
        elif (
            may_be_best and self._options.patience is not None and epoch - history.best_epoch >= self._options.patience
        ):
            history.stopped = f"no better epoch in {self._options.patience}"
        self.trainer.should_stop = bool(history.stopped) or history.is_paused(self._pass_context.pause_epochs)
        if self.trainer.is_global_zero:
            self._write_checkpoint()

    def finish(self, trainer: Trainer) -> FitResult:
        """Leaves the module with its best weights and contiguous, and says how the training went."""
        history = self.history
        final = history.best(self._task.score_kinds[0])
        self.to(trainer.strategy.root_device)
        self._hooks.set_training(self.module, False)
        self.module.load_state_dict(history.best_weights)
        reestimated = history.best_is_average and self._reestimates
        if self._reestimates and not reestimated:
            self._reestimate(self.module)
            validation = self._validate(self.module)
            reestimated = validation.rank >= final.rank
            if reestimated:
                final = validation
            else:
                self.module.load_state_dict(history.best_weights)
        # runtimes' layout passes want contiguous weights
        in_layout(self.module.to("cpu"), torch.contiguous_format)
        facts = {
            "best_epoch": history.best_epoch + 1,
            f"validation_{self._task.metric}": final.score,
            "validation_loss": final.loss,
            "epochs_run": history.epochs,
            "stopped": history.stopped,
            "optimizer": self._options.optimizer,
            "schedule": self._options.schedule,
            "averaged": history.best_is_average,
            "batch_size": self._options.batch_size * self._options.accumulate * trainer.world_size,
            "batch_norm_reestimated": len(history.collecting) if reestimated else 0,
            "device": trainer.strategy.root_device.type,
            "devices": trainer.world_size,
            "precision": trainer.precision,
        }
        wanted = self._settings.precision
        return FitResult(
            best_epoch=history.best_epoch + 1,
            best_score=final.score,
            best_loss=final.loss,
            images=validation_images(self._data, self._pass_context, self._options.batch_size),
            epochs_run=history.epochs,
            stopped=history.stopped,
            curves=history.curves(self._task.metric),
            facts=facts,
            warnings=()
            if trainer.precision.startswith(wanted) or wanted == "auto"
            else (f"precision {wanted} is not there on {facts['device']}: trained in {trainer.precision}",),
        )

    # -- helpers

    @property
    def _reestimates(self) -> bool:
        return self._hooks.reestimate_batch_norm and bool(self.history.collecting)

    def _make_step(self) -> Callable[[Tensor, Any], Tensor]:
        """Pixels, uint8 (n, channels, height, width), and the task's batch of targets to the loss, a scalar."""
        module, normalize, replaced = self.module, self._normalize, self._hooks.loss
        task, smoothing = weighted_task(self._task, self._options, self._data), self._options.label_smoothing

        def step(pixels: Tensor, targets: Any) -> Tensor:
            inputs = normalize(pixels)
            answer = module(inputs)
            outputs = (answer,) if isinstance(answer, Tensor) else several_outputs(module, task, answer, len(pixels))
            return task.loss(outputs, targets, smoothing) if replaced is None else replaced(inputs, outputs, targets)

        return step

    def _constrain(self, module: nn.Module) -> None:
        if self._hooks.constrain is not None:
            self._hooks.constrain(module, self._steps / self._steps_per_epoch)

    def _require_batches(self) -> None:
        if len(self._shuffled) == 0:
            devices = self._shuffled.devices
            raise DataError(
                Problem(
                    f"{len(self._data.train)} training images are too few for {devices} device{'s'[: devices > 1]}",
                    "give each device at least two images",
                )
            )

    def _require_finite(self) -> None:
        """Raises `TrainingError` for the first loss since the last call that is not finite, on all devices alike."""
        losses = torch.stack(self._losses[self._checked :]) if len(self._losses) > self._checked else None
        if losses is None:
            return
        broken = largest_over_devices((~torch.isfinite(losses)).int()).nonzero()
        if len(broken):
            step = self._checked + int(broken[0]) + 1
            rate = self._learning_rate.value
            raise TrainingError(
                f"the loss is not finite at epoch {self.history.epochs + 1}, batch {step} of {len(self._shuffled)}, "
                f"with learning rate {rate:.2g}",
                hint=f"lower learning_rate (now {self._options.learning_rate:g})"
                + (", or set gradient_clip = 1.0" if self._options.gradient_clip is None else "")
                + (', or [trainer] precision = "32"' if self.trainer.precision == "16-mixed" else ""),
            )
        self._checked = len(self._losses)

    def _reestimate(self, module: nn.Module) -> None:
        """Collects BatchNorm statistics anew, for the layers whose statistics moved in training.

        Training images are read without augmentation, because exported files will see images without it. Each
        device reads the same images and so comes to the same statistics.
        """
        if not self._reestimates:
            return
        size = self._options.batch_size * self._shuffled.devices  # as one device would
        most = STATISTICS_IMAGES if self._most_batches is None else self._most_batches * size
        order = np.random.default_rng(self._seed).permutation(len(self._data.train))[: max(most, size)]
        if len(order) > size:
            order = order[: len(order) // size * size]  # batches weigh the same, so they must be of one size
        batches = self._ordered(self._data.train, order, size)
        batch_norm.reestimate(module, self.history.collecting, batches)

    @torch.no_grad()
    def _validate(self, candidate: nn.Module) -> Validation:
        """Scores a module that is in evaluation mode; with several devices each takes a part and all get the whole."""
        function = candidate if self._hooks.scored is None else self._hooks.scored(candidate)
        task, size = self._task, self._options.batch_size
        outputs, targets = validation_outputs(function, task, self._pass_context, size, self.device)
        loss = task.loss(outputs, task.batch(targets))
        score = task.score(in_numpy(outputs), targets)
        return Validation(score.value, float(loss), score.kind.rank(score.value), score.standard_error)

    def _ordered(self, split: Split, indices: NDArray[np.int64], size: int) -> Iterator[Tensor]:
        """Inputs on the device of the images `indices` in their order, `size` in a batch."""
        for pixels, _ in ordered_loader(split, self._task, indices, size, self._settings.loader_workers):
            yield self._normalize(pixels.to(self.device))

    def _write_checkpoint(self) -> None:
        values = {
            "history": vars(self.history),
            "module": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "learning_rate": self._learning_rate.state_dict(),
            "averaging": self._averaging.state_dict() if self._averaging is not None else None,
            "precision": self.trainer.precision_plugin.state_dict(),
        }
        write_checkpoint(self._file, values, self._fingerprint)
