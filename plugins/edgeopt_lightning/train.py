"""The pass `train`: the float model, fitted on the training split."""

from __future__ import annotations

from edgeopt.networks.copies import copy_module
from edgeopt.plugins import ModelState, NothingChangedError, PassContext, PassRecord
from edgeopt_lightning.fit.hooks import FitHooks
from edgeopt_lightning.fit.loop import fit
from edgeopt_lightning.freezing import Frozen, choose_frozen
from edgeopt_lightning.options import TrainOptions


def train_model(state: ModelState, options: TrainOptions, context: PassContext) -> ModelState:
    """A state with a trained copy of the module, which has the weights of the epoch that validated best.

    Raises what `fit` raises, and `NothingChangedError` when `freeze` names nothing or all of the model.
    """
    module = copy_module(state.module)
    frozen = Frozen()
    if options.freeze:
        frozen = choose_frozen(
            module, options.freeze, options.unfreeze_last, options.unfreeze_epoch, classes=len(state.classes)
        )
    trainable = [each for each in module.parameters() if each.requires_grad]
    if not trainable:
        raise NothingChangedError("the model has no weights to train", hint="leave out this pass")
    hooks = FitHooks(before_epoch=frozen.apply, reestimate_batch_norm=options.reestimate_batch_norm)
    result = fit(module, context.data, state.task, options, context, hooks)
    frozen.release(module)

    parameters = {name: each.numel() for name, each in module.named_parameters()}
    held = sum(parameters[name] for name in frozen.parameters if name in parameters)
    facts = {
        **result.facts,
        "trainable_parameters": sum(each.numel() for each in trainable) - held,
        "frozen_parameters": held,
        "frozen_layers": len(frozen.layers),
        "frozen_until_epoch": frozen.until_epoch,
    }
    return state.after(PassRecord("train", facts, result.curves, result.warnings), module)
