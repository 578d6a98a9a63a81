"""The trials of a study as Optuna keeps them, for `optuna-dashboard` and for whoever reads studies with Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.files import parsed_json, write_aside
from edgeopt.json_values import to_values
from edgeopt.tuning.proposals import OptunaValues
from edgeopt.tuning.space import Space
from edgeopt.tuning.trials import Ending, Trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FILE = "journal.log"
_LOCK = ".lock"  # behind the name of a journal, as Optuna calls its lock


class Journal:
    """A journal in the study's folder, which grows by each trial that has ended; what decides is `trials.jsonl`.

    Whoever has one holds the study, and is the only one who writes into it.
    """

    def __init__(self, folder: Path, name: str, space: Space, least: Sequence[str]) -> None:
        import optuna  # heavy: only for whoever tunes
        from optuna.storages.journal import JournalFileBackend

        _mend(folder / FILE)
        self._space = space
        self._study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / FILE))),
            study_name=name,
            directions=["minimize"] * len(least),
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(least))
        self._known = len(self._study.get_trials(deepcopy=False))

    def add(self, trials: Sequence[Trial]) -> None:
        """Adds those of a study's `trials` that it does not have yet."""
        self._study.add_trials([_as_optuna(self._space, each) for each in trials[self._known :]])
        self._known = max(self._known, len(trials))


def _mend(file: Path) -> None:
    """Takes out of a journal what a kill or a full disk left: half a line, with which Optuna reads none behind it, and
    the lock of a process that is dead.
    """
    file.with_name(f"{file.name}{_LOCK}").unlink(missing_ok=True)
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    whole = list(takewhile(_is_whole, lines))
    if len(whole) < len(lines):
        write_aside(file, b"".join(whole))


def _is_whole(line: bytes) -> bool:
    try:
        parsed_json(line)
    except ValueError:
        return False
    return line.endswith(b"\n")


def _as_optuna(space: Space, trial: Trial) -> FrozenTrial:
    """One whose objectives are not all known was given up; scores at rungs are values on its way."""
    import optuna

    known = [each for each in trial.objectives if each is not None]
    is_known = trial.ending is not Ending.FAILED and bool(known) and len(known) == len(trial.objectives)
    given_up = optuna.trial.TrialState.FAIL if trial.ending is Ending.FAILED else optuna.trial.TrialState.PRUNED
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if is_known else given_up,
        values=known if is_known else None,
        intermediate_values=dict(enumerate(trial.rungs)),
        user_attrs={
            "ending": str(trial.ending),
            "reaches the goal": trial.reaches_goal,
            "reason": trial.reason,
            "figures": to_values(trial.figures),
        },
        **vars(OptunaValues.of(space, trial)),
    )
