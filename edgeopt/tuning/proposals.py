"""What to try next, by Optuna.

Each proposal has a sampler of its own, seeded by the study's seed and the trial's number, and knows the trials that it
was told of: so a study that was interrupted proposes what one that was not would have. Of trials that are on their way
it knows the values alone. Where several things are to be least, both samplers look for a Pareto front.

Of a long study samplers look at a part, except for NSGA-II, whose generations descend from all before them.
"""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgeopt.fingerprint import digest
from edgeopt.recipe.tune import Sampler
from edgeopt.tuning.memory import Memory
from edgeopt.tuning.space import Choices, Parameter, Space, Values
from edgeopt.tuning.trials import Ending, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial, TrialState
    from optuna.trial import Trial as OptunaTrial

_GOAL = "goal"  # the one constraint: by how much a trial misses the goal in all; samplers want as many of each trial
_POPULATION = 20  # trials of a generation of NSGA-II: a study has tens of trials
_UNKNOWN = 1e30  # an objective that only training would have told
_LOOKED_AT = 1000  # trials: TPE then proposes within hundredths of a second
_WEIGHED = 300  # trials by which parameters are weighed: what that takes grows with their square
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
        self._space, self._kind, self._seed, self._standing = space, sampler, seed, standing
        self._directions: list[Literal["minimize", "maximize"]] = ["minimize"] * objectives
        self._memory = Memory(None if sampler is Sampler.NSGA2 else _LOOKED_AT)
        self._study: OptunaStudy | None = None  # begun when it is asked, and anew with what the memory holds by then
        self._places: dict[int, int] = {}  # the trials on their way, and their numbers in that study
        self._to_begin_with: dict[int, FrozenTrial] = {}  # trials that are on their way when it begins
        self._of_study: dict[str, Any] = {}
        self._remembered: dict[int, dict[str, Any]] = {}

    def propose(self, number: int) -> Values:
        """The values of trial `number`, which is on its way from now on; those of the recipe as it stands come first,
        where they are in the space.
        """
        study = self._study = self._study or self._begun()
        study.sampler = self._sampler(number)
        if number == 0 and self._standing is not None:
            given = {each.name: _written(each, self._standing[each.name]) for each in self._space.parameters}
            study.enqueue_trial(given)
        before = self._written_down.keys()
        asked = study.ask()
        chosen: dict[str, Any] = {}
        for each in self._space.parameters:
            if each.needs is None or chosen.get(each.needs):
                chosen[each.name] = _read(each, self._suggested(asked, each))
        of_study = {name: value for name, value in self._written_down.items() if name not in before}
        of_trial = study.get_trials(deepcopy=False)[asked.number].system_attrs
        self._remembered[number] = {**of_trial, **({_OF_STUDY: of_study} if of_study else {})}
        self._places[number] = asked.number
        return chosen

    def expect(self, trial: Trial) -> None:
        """A trial of an earlier session of whose end nothing may be known yet; `tell` says it when it may. All of them
        come before the first proposal.
        """
        from optuna.trial import TrialState

        self._of_study.update(trial.proposer.get(_OF_STUDY, {}))
        self._to_begin_with[trial.number] = self._frozen(trial, TrialState.RUNNING)

    def tell(self, trial: Trial) -> None:
        """What came of a trial that is on its way, or of one of an earlier session; in their order."""
        from optuna.trial import Trial as OptunaTrial

        has_forgotten = self._memory.meet(trial)
        if self._study is None:
            self._to_begin_with.pop(trial.number, None)
            self._of_study.update(trial.proposer.get(_OF_STUDY, {}))
            return
        place = self._places.pop(trial.number, None)
        if has_forgotten:
            known = self._study.get_trials(deepcopy=False)
            self._to_begin_with = {number: known[there] for number, there in self._places.items()}
            self._study, self._places = None, {}
        if self._study is None or place is None:
            return
        asked = OptunaTrial(self._study, self._storage.get_trial_id_from_study_id_trial_number(self._whole, place))
        asked.set_constraint(_GOAL, trial.excess)
        self._study.tell(place, self._values(trial), state=self._state(trial))

    def remembered(self, number: int) -> dict[str, Any]:
        """What the sampler wants to know again of trial `number`, which was proposed in this session."""
        return self._remembered.pop(number)

    def importances(self) -> tuple[tuple[str, float], ...]:
        """How much each parameter decides of the first objective, the most important first, together 1; empty where too
        few trials tell, or the parameters differ from trial to trial.

        Source: F. Hutter, H. Hoos and K. Leyton-Brown, "An efficient approach for assessing hyperparameter importance",
        ICML 2014.
        """
        import optuna

        complete = [each for each in self._memory.trials if each.ending is not Ending.FAILED]
        done = [each for each in complete if each.objectives[0] is not None][-_WEIGHED:]
        if len(done) < _STARTUP or len(self._space.parameters) < 2:
            return ()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                known = optuna.create_study(directions=self._directions)
                known.add_trials([self._frozen(each, self._state(each)) for each in done])
                found = optuna.importance.get_param_importances(
                    known,
                    evaluator=optuna.importance.FanovaImportanceEvaluator(seed=self._seed),
                    target=lambda trial: trial.values[0],
                )
            except (ValueError, RuntimeError):  # every trial alike, or none that has every parameter
                return ()
        return tuple((name, float(share)) for name, share in found.items())

    def _begun(self) -> OptunaStudy:
        """A study of Optuna that knows what the memory holds, and what is on its way; in the order of their numbers."""
        import optuna

        self._storage = optuna.storages.InMemoryStorage()
        study = optuna.create_study(storage=self._storage, directions=self._directions)
        self._whole = self._storage.get_study_id_from_name(study.study_name)
        for name, value in self._of_study.items():
            self._storage.set_study_system_attr(self._whole, name, value)
        if self._kind is not Sampler.RANDOM:  # which looks at none
            told = self._memory.trials
            study.add_trials([self._frozen(each, self._state(each)) for each in told])
            study.add_trials([each for _, each in sorted(self._to_begin_with.items())])
            self._places = {number: len(told) + place for place, number in enumerate(sorted(self._to_begin_with))}
        self._to_begin_with = {}
        return study

    @property
    def _written_down(self) -> dict[str, Any]:
        """What samplers wrote down of the whole study."""
        return self._storage.get_study_system_attrs(self._whole)

    def _frozen(self, trial: Trial, state: TrialState) -> FrozenTrial:
        """A trial as Optuna has it."""
        import optuna

        is_running = state is optuna.trial.TrialState.RUNNING
        return optuna.trial.create_trial(
            values=None if is_running else self._values(trial),
            state=state,
            system_attrs={name: value for name, value in trial.proposer.items() if name != _OF_STUDY},
            constraints=None if is_running else {_GOAL: trial.excess},
            **vars(OptunaValues.of(self._space, trial)),
        )

    def _state(self, trial: Trial) -> TrialState:
        from optuna.trial import TrialState

        return TrialState.FAIL if trial.ending is Ending.FAILED else TrialState.COMPLETE

    def _values(self, trial: Trial) -> list[float] | None:
        return None if trial.ending is Ending.FAILED else [_finite(each) for each in trial.objectives]

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
