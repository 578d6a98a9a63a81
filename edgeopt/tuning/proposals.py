"""What to try next, by Optuna.

Each proposal has a sampler of its own, seeded by the study's seed and the trial's number, and knows the trials that it
was told of: so a study that was interrupted proposes what one that was not would have. Of trials that are on their way
it knows the values alone. Where several things are to be least, both samplers look for a Pareto front.
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
    from optuna.trial import FrozenTrial, TrialState
    from optuna.trial import Trial as OptunaTrial

_GOAL = "goal"  # the one constraint: by how much a trial misses the goal in all; samplers want as many of each trial
_POPULATION = 20  # trials of a generation of NSGA-II: a study has tens of trials
_UNKNOWN = 1e30  # an objective that only training would have told
_STARTUP = 10  # trials that TPE draws at random before it learns
_OF_STUDY = "study"  # what a sampler wrote down of the whole study, as a generation's parents, when it drew a trial


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
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, directions=["minimize"] * objectives)
        self._whole = self._storage.get_study_id_from_name(self._study.study_name)
        self._standing = standing
        self._on_the_way: dict[int, OptunaTrial | None] = {}
        self._written_down: dict[int, dict[str, Any]] = {}

    def propose(self, number: int) -> Values:
        """The values of trial `number`, which is on its way from now on; those of the recipe as it stands come first,
        where they are in the space.
        """
        self._study.sampler = self._sampler(number)
        if number == 0 and self._standing is not None:
            given = {each.name: _written(each, self._standing[each.name]) for each in self._space.parameters}
            self._study.enqueue_trial(given)
        before = self._storage.get_study_system_attrs(self._whole).keys()
        asked = self._study.ask()
        chosen: dict[str, Any] = {}
        for each in self._space.parameters:
            if each.needs is None or chosen.get(each.needs):
                chosen[each.name] = _read(each, self._suggested(asked, each))
        now = self._storage.get_study_system_attrs(self._whole)
        self._written_down[number] = {name: value for name, value in now.items() if name not in before}
        self._on_the_way[number] = asked
        return chosen

    def expect(self, trial: Trial) -> None:
        """A trial of an earlier session of whose end nothing may be known yet; `tell` says it when it may."""
        from optuna.trial import TrialState

        self._study.add_trial(self._frozen(trial, TrialState.RUNNING))
        self._on_the_way[trial.number] = None

    def tell(self, trial: Trial) -> None:
        """What came of a trial that is on its way, or of one of an earlier session; in their order."""
        from optuna.trial import TrialState

        state = TrialState.FAIL if trial.ending is Ending.FAILED else TrialState.COMPLETE
        if trial.number not in self._on_the_way:
            self._study.add_trial(self._frozen(trial, state))
            return
        if (asked := self._on_the_way.pop(trial.number)) is not None:
            asked.set_constraint(_GOAL, trial.excess)
        values = None if state is TrialState.FAIL else [_finite(each) for each in trial.objectives]
        self._study.tell(trial.number, values, state=state)

    def remembered(self, number: int) -> dict[str, Any]:
        """What the sampler wants to know again of trial `number`, which was proposed in this session."""
        attributes = dict(self._study.get_trials(deepcopy=False)[number].system_attrs)
        of_study = self._written_down.pop(number, {})
        return attributes | ({_OF_STUDY: of_study} if of_study else {})

    def _frozen(self, trial: Trial, state: TrialState) -> FrozenTrial:
        """A trial of an earlier session as Optuna has it, and what its sampler wrote down of the study."""
        import optuna

        attributes = dict(trial.proposer)
        for name, value in attributes.pop(_OF_STUDY, {}).items():
            self._storage.set_study_system_attr(self._whole, name, value)
        is_complete = state is optuna.trial.TrialState.COMPLETE
        return optuna.trial.create_trial(
            values=[_finite(each) for each in trial.objectives] if is_complete else None,
            state=state,
            system_attrs=attributes,
            constraints={_GOAL: trial.excess},  # of one that is on its way, no sampler looks at it
            **vars(OptunaValues.of(self._space, trial)),
        )

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
