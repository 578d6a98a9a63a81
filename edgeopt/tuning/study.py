"""`edgeopt tune`: proposes, tries, keeps, and names the winner.

```
study ─▶ reference ─▶ ( proposal ─▶ shapes measured ─▶ trained, judged on validation ─▶ kept ) … ─▶ winner, on test
```

Everything that a trial has in common with others comes from the store, so a study that was killed goes on in the trial
where it was.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.errors import Problem, StorageError, UserError
from edgeopt.files import storage_errors, write_aside
from edgeopt.pipeline import runner
from edgeopt.pipeline.cluster import Luggage, node_folder, require_same, shipped, with_shipped_plugins
from edgeopt.pipeline.request import RunRequest, RunResult
from edgeopt.pipeline.runner import store_of
from edgeopt.recipe.read import parse_recipe
from edgeopt.tuning.apart import Apart
from edgeopt.tuning.attempt import Attempts
from edgeopt.tuning.crew import Making, SideBySide
from edgeopt.tuning.goals import Reference
from edgeopt.tuning.halving import RungFiles
from edgeopt.tuning.journal import FILE as JOURNAL
from edgeopt.tuning.journal import Journal
from edgeopt.tuning.leading import LeaderFiles
from edgeopt.tuning.order import Course, Crew, OneByOne, Order, Proposal
from edgeopt.tuning.plan import Study, plan_study
from edgeopt.tuning.proposals import Proposer
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.result import TuneResult
from edgeopt.tuning.sharing import Sharing
from edgeopt.tuning.trials import FILE, Ending, Trial, Trials
from edgeopt.tuning.winner import winner_recipe
from edgeopt.tuning.written import plain
from edgeopt.workers.bucket import Bucket
from edgeopt.workers.on_ray import RayResources, on_ray
from edgeopt.workers.places import Places, Processes

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

    from edgeopt.tuning.display import StudyDisplay

_LOCK = ".lock"


def tune(request: TuneRequest, console: Console | None = None) -> TuneResult:
    """Makes a study, or goes on with one that was interrupted or is to have more trials.

    After each trial, `trials.jsonl`, `winner.toml` and `pareto.csv` in `out/NAME-tune` say how far it is. Raises
    `RecipeError` for everything that can be known to be wrong before, `BucketError` for a bucket that cannot be used,
    and whatever the run of the recipe as it stands raises; a trial that fails takes no other with it.
    """
    from rich.console import Console as Shown  # shown things are loaded only when there is something to show

    from edgeopt.tuning.display import StudyDisplay

    study = plan_study(request)
    if bucket := _bucket(study, request):
        request = replace(request, bucket=bucket.tried())
    with storage_errors(study.folder):
        study.folder.mkdir(parents=True, exist_ok=True)
    inside = storage_errors(study.folder, inside=request.out)
    with inside, _alone(study.folder), StudyDisplay(console or Shown(quiet=True), study, request) as display:
        if request.fresh:
            for name in (FILE, JOURNAL):
                (study.folder / name).unlink(missing_ok=True)
            RungFiles(study.folder).forget()
            Making(study.folder).forget()
        return _Tuning(study, request, display).run()


def _bucket(study: Study, request: TuneRequest) -> Bucket | None:
    """The bucket of a study, which is that of its cluster."""
    cluster = study.settings.cluster
    if cluster is None or cluster.bucket is None:
        return request.bucket
    if request.bucket and request.bucket.address != cluster.bucket:
        message = f"tune.ray.bucket is {Bucket(cluster.bucket)}, and the study is given {request.bucket}"
        where = study.recipe.locate("tune", "ray", "bucket")
        raise UserError(Problem(message, "leave out --bucket and EDGEOPT_BUCKET", where))
    return Bucket(cluster.bucket)


@dataclass(frozen=True)
class _Tuning:
    """One study on its way."""

    study: Study
    request: TuneRequest
    display: StudyDisplay

    def run(self) -> TuneResult:
        settings, study = self.study.settings, self.study
        trials = Trials(study.folder, study.key)
        self.display.begin(trials.all)
        proposer = Proposer(study.space, len(settings.least), settings.sampler, study.seed, study.standing)
        order = Order(proposer, settings.at_once, trials.all)
        with self._elsewhere(is_needed=self._end(trials.all)(order) is None) as places:
            attempts = self._attempts
            self.display.say("the recipe as it stands")
            reference = attempts.reference()
            self.display.say("")
            self._say_bucket()
            with self._crew(attempts, reference, places) as crew:
                ended, found = self._try(trials, order, crew)
        run = self._on_test(found) if found is not None else None
        result = TuneResult(study, tuple(trials.all), reference, found, run, ended, proposer.importances())
        from edgeopt.tuning.page import PAGE, render_page  # matplotlib and jinja2

        write_aside(study.folder / PAGE, render_page(result))
        return result

    def _try(self, trials: Trials, order: Order, crew: Crew) -> tuple[str, Trial | None]:
        """Trials until there are enough; returns why there are no more, and the best of them."""
        study = self.study
        journal = Journal(study.folder, study.recipe.name, study.space, study.settings.least)
        journal.add(trials.all)
        leaders = LeaderFiles(study, trials)

        def keep(trial: Trial) -> None:
            trials.add(trial)
            leaders.add(trial)
            journal.add(trials.all)
            self.display.ended(trial, leaders.best)
            self._tidy(trial)

        try:
            why = Course(order, crew, trials, keep, self._end(trials.all)).run()
        finally:
            leaders.write()
        for files in (RungFiles(study.folder), Making(study.folder)):
            files.forget()
        return why, leaders.best

    @contextmanager
    def _elsewhere(self, is_needed: bool) -> Iterator[Places | None]:
        """Where trials are made beside others; None where they are made one after the other, in this process, or no
        more are made: a study that is done is shown again without its cluster.

        Raises `UserError` where a node of the cluster is not as this machine is, before anything is run.
        """
        cluster = self.study.settings.cluster
        if not is_needed:
            yield None
            return
        if cluster is None:
            yield Processes() if Sharing.of(self.study.settings).workers > 1 else None
            return
        resources = RayResources(cluster.cpus, cluster.gpus, cluster.resources, cluster.retries)
        with on_ray(cluster.address, resources) as places:
            attempts = self._attempts
            written, files = {**attempts.written}, attempts.plugin_files
            luggage = Luggage.of(Bucket(cluster.bucket), written, files) if cluster.bucket else None
            require_same(places, store_of(attempts.out), written, files, luggage)
            yield Apart(places, luggage) if luggage else places

    @contextmanager
    def _crew(self, attempts: Attempts, reference: Reference, places: Places | None) -> Iterator[Crew]:
        """Whoever makes the trials."""
        if places is None:
            yield OneByOne(partial(self._make, attempts, reference))
            return
        sharing = Sharing.of(self.study.settings)
        with SideBySide(attempts, reference, sharing.workers, sharing.cores, places, self.display) as crew:
            yield crew

    def _make(self, attempts: Attempts, reference: Reference, proposal: Proposal) -> Trial:
        """One trial, in this process."""
        self.display.trial(proposal.number, proposal.values)
        say = partial(self.display.doing, proposal.number)
        return attempts.attempt(proposal.number, proposal.values, reference, proposal.earlier, say)

    def _end(self, before: Sequence[Trial]) -> Callable[[Order], str | None]:
        """Says why there are to be no more trials, behind those that were made `before`."""
        most = self.request.trials or self.study.settings.trials
        minutes = self.request.minutes or self.study.settings.minutes
        count = self.study.space.count
        start = time.perf_counter() - sum(each.seconds for each in before) / Sharing.of(self.study.settings).workers

        def why(order: Order) -> str | None:
            if order.next >= most:
                return f"{most} trials are done"
            if minutes is not None and time.perf_counter() - start > 60 * minutes:
                return f"{minutes:g} minutes are over"
            if count is not None and order.recipes >= count:
                return "every recipe of the space was tried"
            return None

        return why

    @property
    def _attempts(self) -> Attempts:
        """How trials are run; on a cluster by whole paths, and with plugins from where all nodes see or have them."""
        study, out, files = self.study, self.request.out, self.request.plugin_files
        written = plain(study.recipe)
        if (cluster := study.settings.cluster) is not None:
            out = out.resolve()
            store = store_of(node_folder() if cluster.bucket else out)
            files = shipped(store, files)
            written = with_shipped_plugins(store, written)
        return Attempts(
            written=written,
            space=study.space,
            goal=study.settings.goal,
            minimize=study.settings.least,
            halving=study.settings.halving,
            kinds=study.kinds,
            out=out,
            below=study.folder.name,
            plugin_files=files,
            bucket=self.request.bucket,
            standing=study.standing,
        )

    def _say_bucket(self) -> None:
        """Says that the runs of this process gave up the bucket, if they did."""
        if self.request.bucket:
            self.display.without(self.request.bucket.given_up)

    def _tidy(self, trial: Trial) -> None:
        """What led to a trial, such as files that were made for their shapes, is of no further use."""
        RungFiles(self.study.folder).forget(trial.number)
        Making(self.study.folder).forget(trial.number)
        if trial.folder is None:
            return
        shutil.rmtree(self.study.folder / f"{trial.folder}-smoke", ignore_errors=True)
        if trial.ending is Ending.REFUSED:
            shutil.rmtree(self.study.folder / trial.folder, ignore_errors=True)

    def _on_test(self, trial: Trial) -> RunResult:
        """The winner, run like any recipe: here its files see test images for the first time."""
        self.display.say(f"trial {trial.number}, on test images")
        recipe = parse_recipe(winner_recipe(self.study, trial))
        given = self.request
        run = runner.run(RunRequest(recipe, out=given.out, plugin_files=given.plugin_files, bucket=given.bucket))
        self._say_bucket()
        return run


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a study, so that two do not add to the same trials; the system lets go of it when the process dies."""
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait for it, or name another folder with --out"
            raise UserError(Problem(f"{folder}: another `edgeopt tune` works on this study", hint)) from error
        except OSError as error:
            raise StorageError(f"{folder}: it cannot be locked: {error.strerror}") from error
        yield
