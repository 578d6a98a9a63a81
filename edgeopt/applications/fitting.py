"""Whether the outputs of a file are what its task answers by, and how many numbers they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edgeopt.cards.card import Card
from edgeopt.errors import Problem, UserError
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.card_task import task_of_card


def problems_of_outputs(card: Card, name: str, registry: Registry) -> Iterator[Problem]:
    """What keeps the outputs of the file called `name` from becoming answers of its task."""
    if not card.outputs:
        yield Problem(f"the card of {name} does not say what the output of the file is", "export the file again")
        return
    shapes = [(1, *each.shape[1:]) for each in card.outputs]
    open_sides = [side for shape in shapes for side in shape if not isinstance(side, int)]
    if open_sides:
        yield Problem(f"{name}: the side {open_sides[0]} of an output is open", "export it for images of one size")
        return
    try:
        task = task_of_card(card, registry, name)
    except UserError as error:
        yield from error.problems
        return
    wrong = task.unfit([tuple(map(int, shape)) for shape in shapes], 1, len(card.classes))
    if wrong is not None:
        given = " and ".join(
            f"{each.name} ({', '.join(map(str, shape))})" for each, shape in zip(card.outputs, shapes, strict=True)
        )
        yield Problem(
            f"{name} is for the task {card.task}, and its outputs, {given}, do not fit that: it returns {wrong}",
            "feed it with edgeopt's own predictor, or write the app by its card.json",
        )


def problems_of_types(
    card: Card, name: str, taken: Sequence[str], returned: Sequence[str], who: str
) -> Iterator[Problem]:
    """What keeps an app from feeding the file called `name` and reading its outputs: `who` begins the end of a sentence
    that names the types it knows.
    """
    sides = [(card.input, "input", taken), *((each, "output", returned) for each in card.outputs)]
    for info, side, known in sides:
        if info is None:
            yield Problem(f"the card of {name} does not say what its {side} is", "export the file again")
        elif info.dtype not in known:
            yield Problem(
                f"the {side} of {name} is {info.dtype}, and {who} {', '.join(known)}",
                "export it with float32 going in and coming out, as files have where `quantized_io` is left out",
            )


def numbers_of(card: Card) -> int:
    """Numbers of all outputs for one image."""
    return sum(math.prod(int(side) for side in each.shape[1:]) for each in card.outputs)
