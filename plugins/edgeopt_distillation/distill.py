"""The pass `distill`: the student's training with a teacher, and the same training without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgeopt.networks.copies import copy_module
from edgeopt.plugins import ModelState, NothingChangedError, PassContext, PassRecord
from edgeopt_distillation.features import Matching
from edgeopt_distillation.fit_with_teacher import fit_taught, teacher_of
from edgeopt_distillation.options import DistillOptions
from edgeopt_distillation.teacher_loss import Teacher

_EXAMPLES = 2  # images from which the shapes inside of both models are read


def distill_model(state: ModelState, options: DistillOptions, context: PassContext) -> ModelState:
    """A state with a copy of the module that was trained with the labels and a teacher.

    With `control` the same student, from the same start and with the same options, is trained without the teacher as
    well. Both are in the record; the taught one goes on.

    Raises what `load_teacher`, `Matching` and `fit` raise, and `NothingChangedError` for a model without weights.
    """
    if not any(each.requires_grad for each in state.module.parameters()):
        raise NothingChangedError("the model has no weights to train", hint="leave out this pass")
    teacher = teacher_of(options, state.task, context)
    assert teacher is not None  # the options name one
    student, control = (copy_module(state.module).eval() for _ in range(2))
    with _matched(student, teacher, options, context) as (module, extra):
        result = fit_taught(
            module, teacher, state.task, options, context, label="distill", control=control, extra=extra
        )
    facts = {
        **result.facts,
        "teacher_parameters": sum(each.numel() for each in teacher.module.parameters()),
        "student_parameters": sum(each.numel() for each in student.parameters()),
    }
    return state.after(PassRecord("distill", facts, result.curves, result.warnings), student)


@contextmanager
def _matched(
    student: nn.Module, teacher: Teacher, options: DistillOptions, context: PassContext
) -> Iterator[tuple[nn.Module, Callable[[], Tensor] | None]]:
    """Within, what to fit in place of the student, and the loss of the layers that are compared.

    Where no layers are compared that is the student itself and None, else the student with its adapters.
    """
    if not options.features and not options.attention:
        yield student, None
        return
    data = context.data
    example = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(min(_EXAMPLES, len(data.train))))))
    matching = Matching(student, teacher.module, options, example, context.seed)
    try:
        yield matching.module, matching.loss
    finally:
        matching.remove()
