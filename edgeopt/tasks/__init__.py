"""What a model is for. A task answers for its loss, its score and its predictions; `TASKS` knows
all of them by name.
"""

from edgeopt.tasks.base import Prediction, Score, Task
from edgeopt.tasks.classification import Classification
from edgeopt.tasks.guessing import Guess, GuessKind, guess_in, guess_of
from edgeopt.tasks.statistics import Paired, bootstrap_interval, holm, mcnemar, paired, wilson_interval

TASKS: dict[str, Task] = {"classification": Classification()}

__all__ = [
    "TASKS",
    "Classification",
    "Guess",
    "GuessKind",
    "Paired",
    "Prediction",
    "Score",
    "Task",
    "bootstrap_interval",
    "guess_in",
    "guess_of",
    "holm",
    "mcnemar",
    "paired",
    "wilson_interval",
]
