"""What to try next, by Optuna.

Each proposal has a sampler of its own, seeded by the study's seed and the trial's number, and knows the trials that
have ended: so a study that was interrupted proposes what one that was not would have. Where several things are to be
least, both samplers look for a Pareto front.
"""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.fingerprint import digest
from edgeopt.recipe.tune import Sampler
from edgeopt.tuning.space import Choices, Parameter, Space, Values
from edgeopt.tuning.trials import Ending, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as OptunaTrial

_GOAL = "goal"  # the one constraint: by how much a trial misses the goal in all; samplers want as many of each trial
_POPULATION = 20  # trials of a generation of NSGA-II: a study has tens of trials
_UNKNOWN = 1e30  # an objective that only training would have told
_STARTUP = 10  # trials that TPE draws at random before it learns


@dataclass(frozen=True)
class OptunaValues:
    """What a trial gave the parameters, as Optuna has it; choices of any kind are texts there."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]

    @classmethod
    def of(cls, space: Space, trial: Trial) -> OptunaValues:
        """Those of a trial; a parameter that changed nothing there is left out."""
        known = [each for each in space.parameters if each.name in trial.values]
        return cls(
            {each.name: _written(each, trial.values[each.name]) for each in known},
            {each.name: _distribution(each) for each in known},
        )


class Proposer:
    """Proposes trials of a space, and is told what came of them."""

    def __init__(self, space: Space, objectives: int, sampler: Sampler, seed: int, standing: Values | None) -> None:
        import optuna  # heavy: only for whoever tunes

        optuna.logging.set_verbosity(logging.WARNING)
        self._space, self._kind, self._seed = space, sampler, seed
        self._study = optuna.create_study(directions=["minimize"] * objectives)
        self._standing = standing
        self._asked: OptunaTrial | None = None

    def propose(self, number: int) -> Values:
        """The values of trial `number`; those of the recipe as it stands come first, where they are in the space."""
        self._study.sampler = self._sampler(number)
        if number == 0 and self._standing is not None:
            given = {each.name: _written(each, self._standing[each.name]) for each in self._space.parameters}
            self._study.enqueue_trial(given)
        asked = self._study.ask()
        chosen: dict[str, Any] = {}
        for each in self._space.parameters:
            if each.needs is None or chosen.get(each.needs):
                chosen[each.name] = _read(each, self._suggested(asked, each))
        self._asked = asked
        return chosen

    def tell(self, trial: Trial) -> None:
        """What came of the trial that was proposed last; or of an earlier session's, in their order."""
        import optuna

        state = optuna.trial.TrialState.FAIL if trial.ending is Ending.FAILED else optuna.trial.TrialState.COMPLETE
        values = [_finite(each) for each in trial.objectives]
        if self._asked is not None and self._asked.number == trial.number:
            self._asked.set_constraint(_GOAL, trial.excess)
            self._study.tell(self._asked, None if state is optuna.trial.TrialState.FAIL else values, state=state)
            self._asked = None
            return
        self._study.add_trial(
            optuna.trial.create_trial(
                values=None if state is optuna.trial.TrialState.FAIL else values,
                state=state,
                system_attrs=dict(trial.proposer),
                constraints={_GOAL: trial.excess},
                **vars(OptunaValues.of(self._space, trial)),
            )
        )

    def remembered(self) -> dict[str, Any]:
        """What the sampler wants to know again of the trial that was proposed last."""
        if self._asked is None:
            return {}
        return dict(self._study.get_trials(deepcopy=False)[self._asked.number].system_attrs)

    def importances(self) -> tuple[tuple[str, float], ...]:
        """How much each parameter decides of the first objective, the most important first, together 1; empty where too
        few trials tell, or the parameters differ from trial to trial.

        Source: F. Hutter, H. Hoos and K. Leyton-Brown, "An efficient approach for assessing hyperparameter importance",
        ICML 2014.
        """
        import optuna

        complete = (each for each in self._study.get_trials() if each.state is optuna.trial.TrialState.COMPLETE)
        done = [each for each in complete if each.values[0] < _UNKNOWN]
        if len(done) < _STARTUP or len(self._space.parameters) < 2:
            return ()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                known = optuna.create_study(directions=self._study.directions)
                known.add_trials(done)
                found = optuna.importance.get_param_importances(
                    known,
                    evaluator=optuna.importance.FanovaImportanceEvaluator(seed=self._seed),
                    target=lambda trial: trial.values[0],
                )
            except (ValueError, RuntimeError):  # every trial alike, or none that has every parameter
                return ()
        return tuple((name, float(share)) for name, share in found.items())

    def _sampler(self, number: int) -> BaseSampler:
        import optuna

        seed = int(digest([self._seed, number])[:8], 16)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            match self._kind:
                case Sampler.TPE:
                    return optuna.samplers.TPESampler(
                        seed=seed, multivariate=True, group=True, n_startup_trials=_STARTUP
                    )
                case Sampler.NSGA2:
                    return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)
                case Sampler.RANDOM:
                    return optuna.samplers.RandomSampler(seed=seed)

    def _suggested(self, asked: OptunaTrial, parameter: Parameter) -> Any:
        scale = parameter.scale
        if isinstance(scale, Choices):
            return asked.suggest_categorical(parameter.name, [json.dumps(each) for each in scale.values])
        if scale.is_whole:
            step = int(scale.step or 1)
            return asked.suggest_int(parameter.name, int(scale.low), int(scale.high), step=step, log=scale.is_log)
        return asked.suggest_float(parameter.name, scale.low, scale.high, step=scale.step, log=scale.is_log)


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    scale = parameter.scale
    if isinstance(scale, Choices):
        return CategoricalDistribution([json.dumps(each) for each in scale.values])
    if scale.is_whole:
        return IntDistribution(int(scale.low), int(scale.high), log=scale.is_log, step=int(scale.step or 1))
    return FloatDistribution(scale.low, scale.high, log=scale.is_log, step=scale.step)


def _written(parameter: Parameter, value: Any) -> Any:
    return json.dumps(value) if isinstance(parameter.scale, Choices) else value


def _read(parameter: Parameter, value: Any) -> Any:
    return json.loads(value) if isinstance(parameter.scale, Choices) else parameter.scale.value(value)


def _finite(value: float | None) -> float:
    """Figures of a refused trial that only training would tell are the worst that there are."""
    return _UNKNOWN if value is None else float(value)
