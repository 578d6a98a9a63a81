"""What a model is for. A task answers for its targets, its loss, its scores and its predictions; `TASKS` knows those of
edgeopt itself by name.
"""

from edgeopt.tasks.base import Targets, Task
from edgeopt.tasks.classification import Classification
from edgeopt.tasks.drawings import Drawing, DrawnBox, DrawnLabel
from edgeopt.tasks.guessing import Guess, GuessKind, guess_in, guess_of
from edgeopt.tasks.moves import Moves
from edgeopt.tasks.parts.classes import Prediction
from edgeopt.tasks.scores import ACCURACY, Score, ScoreKind, Scores
from edgeopt.tasks.sections import Outline, Section, SectionImage, SectionPlot, SectionTable
from edgeopt.tasks.statistics import (
    Paired,
    bootstrap_interval,
    holm,
    mcnemar,
    mean_interval,
    paired,
    resampled_interval,
    wilson_interval,
)
from edgeopt.tasks.stored import DEFAULT, TASKS, task_from_json, task_to_json
from edgeopt.tasks.tiles import Tiles

__all__ = [
    "ACCURACY",
    "DEFAULT",
    "TASKS",
    "Classification",
    "Drawing",
    "DrawnBox",
    "DrawnLabel",
    "Guess",
    "GuessKind",
    "Moves",
    "Outline",
    "Paired",
    "Prediction",
    "Score",
    "ScoreKind",
    "Scores",
    "Section",
    "SectionImage",
    "SectionPlot",
    "SectionTable",
    "Targets",
    "Task",
    "Tiles",
    "bootstrap_interval",
    "guess_in",
    "guess_of",
    "holm",
    "mcnemar",
    "mean_interval",
    "paired",
    "resampled_interval",
    "task_from_json",
    "task_to_json",
    "wilson_interval",
]
