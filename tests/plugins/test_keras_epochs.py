"""Which epoch `keras-train` keeps; TensorFlow stays in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

WORK = """
import json, sys
from edgeopt.tasks import Score, wilson_interval
from edgeopt_tensorflow.train import History

found = []
for right, losses, settles in json.loads(sys.argv[1]):
    history = History()
    for epoch, (correct, loss) in enumerate(zip(right, losses)):
        history.training_loss.append(1.0)
        history.validation_loss.append(loss)
        history.validation_accuracy.append(correct / 45)
        error = Score(correct / 45, wilson_interval(correct, 45), 45).standard_error
        if history.is_kept(error, settles=settles):
            history.best_epoch = epoch
    found.append(history.best_epoch + 1)
print(json.dumps(found))
"""


def test_the_last_of_those_like_the_best_is_kept_where_the_learning_rate_comes_down() -> None:
    flat = [1.0] * 4
    scripts = [
        ([10, 40, 39, 38], flat, True),  # of 45: the standard error of 40 is two images
        ([10, 40, 39, 37], flat, True),
        ([45, 44, 45, 44], flat, True),  # the better the score, the smaller its error
        ([10, 40, 39, 38], flat, False),
        ([30, 30, 30, 30], [0.4, 0.2, 0.2, 0.3], False),  # of equal scores the lower loss, and then the earlier
    ]
    done = subprocess.run([sys.executable, "-c", WORK, json.dumps(scripts)], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [4, 3, 3, 2, 2]
