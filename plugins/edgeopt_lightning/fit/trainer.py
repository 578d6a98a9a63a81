"""Lightning's trainer: its devices, its errors, and what it would print."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from edgeopt.plugins import PassContext, TrainerSettings, TrainingError
from edgeopt_lightning._imports import LightningModule, MisconfigurationException, Trainer
from edgeopt_lightning.options import FitOptions

_TALKING = ("gloo", "Gloo", "NCCL")


def make_trainer(options: FitOptions, context: PassContext) -> Trainer:
    """Lightning's trainer for the devices that were asked for, silent.

    Raises `TrainingError` when they are not there.
    """
    settings = context.trainer
    alone = settings.strategy == "auto" and settings.devices == 1 and settings.num_nodes == 1
    try:
        return Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            # passes freeze and unfreeze, so that not every parameter has a gradient in every step
            strategy="auto" if alone else "ddp_find_unused_parameters_true",
            num_nodes=settings.num_nodes,
            precision=_precision(settings),
            max_epochs=context.budget.of(context.budget.epochs, options.epochs),
            accumulate_grad_batches=options.accumulate,
            gradient_clip_val=options.gradient_clip,
            # the same seed gives the same bytes, where the device has such kernels; a CPU has no others
            deterministic="warn" if torch.cuda.is_available() and settings.accelerator != "cpu" else None,
            limit_val_batches=0,  # validation is ours
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # `Shuffled` knows the devices
            default_root_dir=context.work_dir,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise TrainingError(
            f"the devices of [trainer] cannot be used: {error}",
            hint='accelerator = "auto" and devices = 1 run anywhere',
        ) from error


def run_trainer(trainer: Trainer, training: LightningModule, epoch: int) -> None:
    """Lets Lightning train from `epoch` on, counted from 0.

    Raises `TrainingError` when the device has too little memory, and when another device's process has ended.
    """
    progress = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(training)
    except SystemExit as error:  # Lightning's answer to Ctrl-C, which ignores the next one for good
        if main:
            signal.signal(signal.SIGINT, handler)
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the device has too little memory for this training",
            hint="halve batch_size and double accumulate, which trains alike",
        ) from error
    except RuntimeError as error:  # of either library that lets processes talk, which share no class of errors
        if trainer.world_size == 1 or not any(name in str(error) for name in _TALKING):
            raise
        raise TrainingError(
            f"another of the {trainer.world_size} processes of this training has ended, and the others with it",
            hint="its own words are in the run's log; the same command goes on at the last whole epoch",
        ) from error


def _precision(settings: TrainerSettings) -> str:
    if settings.precision != "auto":
        return settings.precision
    mixed = settings.accelerator in ("auto", "gpu") and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if mixed else "32"


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """Within, torch uses `threads` CPU threads (None: as many as before); what Lightning sets is undone at the end."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@contextmanager
def quiet() -> Iterator[None]:
    """Within, Lightning reports nothing: what it would say is in the progress, the record or an error."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(lightning|torch\.optim\.lr_scheduler)")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
