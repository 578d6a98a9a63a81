"""What a model is for. A task answers for its loss, its score and its predictions; `TASKS` knows
all of them by name.
"""

from edgeopt.tasks.base import Prediction, Score, Task
from edgeopt.tasks.classification import Classification
from edgeopt.tasks.statistics import Paired, mcnemar, paired, wilson_interval

TASKS: dict[str, Task] = {"classification": Classification()}

__all__ = [
    "TASKS",
    "Classification",
    "Paired",
    "Prediction",
    "Score",
    "Task",
    "mcnemar",
    "paired",
    "wilson_interval",
]
