"""What a study costs, what it saves, and what it survives.

- `goal`: on handwritten digits, the time until a trial reaches the goal of `recipes/mobilenet_tune_digits.toml` in a
  space of more networks, sizes and bits, in which few recipes do; with shapes measured first and halving, against
  random proposals that are all trained whole. Both begin with the recipe as it stands, and share what trials have in
  common through a store of their own. Random search is given up as soon as it has taken three times as long.
- `overhead`: a study against a loop of plain runs of the same recipes; `again`: the study once more, unchanged.
- `fake`: a thousand trials that cost nothing.
- `kills`: a study that is killed at random instants, and started again.
- `side-by-side`: two workers of this machine against one, in trials that compute on one processor each.
- `ray`: the same on a cluster of Ray that is started here, and trials that are lost when one of its workers is killed.

    python benchmarks/tune.py [--only goal fake …]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

import edgeopt
from edgeopt.cores import own_cores, use_cores
from edgeopt.recipe.read import parse_recipe
from edgeopt.recipe.tune import Halving, Sampler
from edgeopt.tuning.attempt import Attempts
from edgeopt.tuning.goals import Figures, missed
from edgeopt.tuning.plan import Study, plan_study
from edgeopt.tuning.proposals import Proposer
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.space import changed
from edgeopt.tuning.study import tune
from edgeopt.tuning.trials import FILE, Ending, Trial
from edgeopt.tuning.winner import winner_recipe
from edgeopt.tuning.written import plain
from edgeopt.workers.spinning import busy_share

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "recipes" / "mobilenet_tune_digits.toml"
TINY_PLUGIN = ROOT / "tests" / "tiny_plugin.py"
HALVING = Halving(rungs=(0.25, 0.5), keep=0.5)
TIMES = 3  # as long as random search is to take
#: One recipe in ten or so reaches the goal. Of the recipe's own space it is one in three, and random search is there at
#: its first or second draw, which says nothing of a search.
SPACE = """\
[tune.space]
"model.arch" = ["mobilenet_v3_small", "mobilenet_v2", "efficientnet_b0"]
"dataset.image_size" = [32, 48, 64, 96, 128]
"passes.prune-structured" = { optional = true }
"passes.prune-structured.keep" = { low = 0.3, high = 0.9 }
"passes.ptq.weight_bits" = [8, 6, 4]
"""
FAKE_TRIALS, KILLS = 1000, 30
TINY = """\
schema = 1
name = "tuned"
dataset = { use = "stripes", image_size = 16 }
model = { use = "linear" }
measure = { threads = 1, warmup = 1, runs = 5, rounds = 1 }

[[passes]]
use = "fit-stripes"
epochs = 6
seconds = 0.3

[[passes]]
use = "round-weights"
steps = 64

[[exports]]
use = "npz"

[tune]
goal = { accuracy_drop = 0.5 }
minimize = "accuracy_drop"
trials = 6

[tune.space]
"passes.round-weights.steps" = SPACE
"""


# ---- until the goal is reached -------------------------------------------------------------------------------------


#: Trials that compute, on one processor each; the first pass is in the space, so that they have nothing in common.
TRAINED = """\
schema = 1
name = "tuned"
dataset = { use = "digits", image_size = 32 }
model = { use = "torchvision", arch = "mobilenet_v2", weights = "none" }
trainer = { threads = 1 }
measure = { threads = 1, warmup = 1, runs = 5, rounds = 1 }

[[passes]]
use = "train"
epochs = EPOCHS
learning_rate = 0.01

[[passes]]
use = "ptq"
quantizer = "xnnpack"

[[exports]]
use = "onnx"

[tune]
minimize = "accuracy_drop"
goal = { accuracy_drop = 0.5 }
trials = 4
at_once = 2

[tune.space]
"passes.0.learning_rate" = { low = 0.001, high = 0.02 }
"""


@dataclass(frozen=True)
class Search:
    """How long trials took until one reached the goal, or until no more were made, the recipe as it stands included."""

    seconds: float
    trials: tuple[Trial, ...]

    @property
    def found(self) -> Trial | None:
        """The trial that reached the goal."""
        return self.trials[-1] if self.trials[-1].reaches_goal else None

    @property
    def told(self) -> str:
        """The seconds in words."""
        return f"{self.seconds:.0f}" if self.found else f"more than {self.seconds:.0f}"


def search(
    study: Study, out: Path, sampler: Sampler, halving: Halving | None, most: int, most_s: float = math.inf
) -> Search:
    """Trials until one reaches the goal, or there were `most`, or they took `most_s`. Without `halving`, nothing is
    measured before it is trained whole.
    """
    settings = study.settings
    goal = settings.goal if halving else settings.goal.model_copy(update={"latency_ratio": None})
    attempts = Attempts(
        written=plain(study.recipe),
        space=study.space,
        goal=goal,
        minimize=settings.least,
        halving=halving,
        kinds=study.kinds,
        out=out,
        below=study.folder.name,
        plugin_files=(),
        standing=study.standing,
    )
    start = time.perf_counter()
    reference = attempts.reference()
    proposer = Proposer(study.space, len(settings.least), sampler, study.seed, study.standing)
    trials: list[Trial] = []
    while len(trials) < most and time.perf_counter() - start < most_s:
        values = proposer.propose(len(trials))
        if any(each.values == values for each in trials):
            trial = replace(next(each for each in trials if each.values == values), number=len(trials), seconds=0.0)
            trial = replace(trial, ending=Ending.REPEATED)
        else:
            trial = attempts.attempt(len(trials), values, reference, trials, lambda _: None)
        trial = replace(trial, proposer=proposer.remembered(trial.number))
        if trial.ending is Ending.DONE:
            trial = replace(trial, missed=missed(settings.goal, trial.figures, reference, study.kinds))
        proposer.tell(trial)
        trials.append(trial)
        print(f"  {sampler} {trial.number} {trial.ending} {trial.seconds:.0f} s", file=sys.stderr)
        if trial.reaches_goal:
            break
    return Search(time.perf_counter() - start, tuple(trials))


def goal(seeds: Sequence[int], most: int) -> Iterator[Bar]:
    """Ours against random search, for each seed."""
    table = Table("seed", "search", "s", "trials", "of them trained", "lost on test")
    shares, lost = [], []
    for seed in seeds:
        ours, drop = _searched(seed, Sampler.TPE, HALVING, most)
        theirs, _ = _searched(seed, Sampler.RANDOM, None, most, TIMES * ours.seconds)
        for sampler, made in ((Sampler.TPE, ours), (Sampler.RANDOM, theirs)):
            trained = sum(each.ending is Ending.DONE for each in made.trials)
            told = f"{100 * drop:.1f} points" if drop is not None and made is ours else ""
            table.add_row(str(seed), str(sampler), made.told, str(len(made.trials)), str(trained), told)
        shares.append(ours.seconds / theirs.seconds if ours.found else math.inf)
        lost.append(math.inf if drop is None else drop)
        print(f"  seed {seed}: {shares[-1]:.2f} of random search's time", file=sys.stderr)
    Console(width=120).print(table)
    yield Bar("share of random search's time until the goal is reached, median", median(shares), 1 / TIMES)
    yield Bar("accuracy that winners lose on test images, median", median(lost), 0.01)


def _searched(
    seed: int, sampler: Sampler, halving: Halving | None, most: int, most_s: float = math.inf
) -> tuple[Search, float | None]:
    """A search in a folder of its own, and what its winner's file loses on test images."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        recipe = out / "recipe.toml"
        recipe.write_text(DIGITS.read_text().partition("[tune.space]")[0] + SPACE)
        study = plan_study(TuneRequest(recipe, overrides=(f"seed={seed}",), out=out))
        made = search(study, out, sampler, halving, most, most_s)
        return made, _lost_on_test(study, made.found, out) if made.found and halving else None


def _lost_on_test(study: Study, trial: Trial, out: Path) -> float:
    """What the winner's file has less than the float file of the recipe as it stands, both on test images."""
    standing = edgeopt.run(parse_recipe({**plain(study.recipe), "name": "standing"}), out=out).report
    winner = edgeopt.run(parse_recipe(winner_recipe(study, trial)), out=out).report
    before = next(row for row in standing.rows if row.role == "baseline")
    return float(before.test_accuracy) - float(winner.rows[-1].test_accuracy)


# ---- what a study adds ---------------------------------------------------------------------------------------------


def overhead() -> Iterator[Bar]:
    """A study, and plain runs of the recipes that it tried; then the study again, in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = _tiny(folder, "[2, 4, 8, 16, 32, 64]")
        edgeopt.run(recipe, out=folder / "warm", plugin_files=[TINY_PLUGIN])
        request = TuneRequest(recipe, out=folder / "study", plugin_files=(TINY_PLUGIN,))
        start = time.perf_counter()
        result = tune(request)
        tuned = time.perf_counter() - start
        start = time.perf_counter()
        written = plain(result.study.recipe)
        tried = [{}, *(each.values for each in result.trials), result.best.values]
        for number, values in enumerate(tried):
            named = {**changed(written, result.study.space, values), "name": f"plain-{number}"}
            edgeopt.run(parse_recipe(named), out=folder / "loop", plugin_files=[TINY_PLUGIN])
        looped = time.perf_counter() - start
        print(f"study {tuned:.1f} s, loop of plain runs {looped:.1f} s")
        yield Bar("study against a loop of plain runs", tuned / looped, 1.05)
        start = time.perf_counter()
        subprocess.run(_command(recipe, folder / "study"), check=True, capture_output=True)
        yield Bar("the same study again, s", time.perf_counter() - start, 2.0)


def fake() -> Iterator[Bar]:
    """Trials whose work is made up, on one worker."""
    begun: list[float] = []

    def attempt(_: Attempts, number: int, values: dict[str, object], *_others: object) -> Trial:
        begun.append(time.perf_counter())
        steps = float(str(values["passes.round-weights.steps"]))
        figures = Figures(bytes=round(steps), scores={"accuracy": 0.9})
        return Trial(number=number, values=values, ending=Ending.DONE, figures=figures, objectives=(1 / steps,))

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = _tiny(folder, "{ low = 1, high = 4096 }")
        request = TuneRequest(recipe, out=folder / "study", plugin_files=(TINY_PLUGIN,), trials=FAKE_TRIALS)
        with patch.object(Attempts, "attempt", attempt):
            result = tune(request)
        each = 1000 * (begun[-1] - begun[0]) / (len(result.trials) - 1)  # from the first trial to the last
        print(f"{len(result.trials)} trials of no work, {each:.1f} ms each")
        yield Bar("a trial of no work, ms", each, 20.0)


def kills(count: int) -> Iterator[Bar]:
    """A study that is killed `count` times, with all that it started, against one that was not."""
    random.seed(17)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = _tiny(folder, "[2, 4, 8, 16, 32, 64]")
        start = time.perf_counter()
        subprocess.run(_command(recipe, folder / "whole"), check=True, capture_output=True)
        seconds, killed = time.perf_counter() - start, 0
        differing = twice = 0
        studies = 0
        while killed < count:
            out = folder / f"killed-{studies}"
            while not _ended(recipe, out, random.uniform(0.2, 0.6 * seconds)):
                killed += 1
            found, wanted = _trials(out), _trials(folder / "whole")
            numbers = [each["number"] for each in found]
            differing += [(each["values"], each["ending"]) for each in found] != [
                (each["values"], each["ending"]) for each in wanted
            ]
            twice += len(numbers) - len(set(numbers))
            studies += 1
        print(f"{killed} kills in {studies} studies")
        yield Bar("studies that were killed and tried something else", differing, 0)
        yield Bar("trials that count twice", twice, 0)


def _spread(options: Sequence[str], cores: int, epochs: int) -> tuple[float, list[dict[str, object]]]:
    """Seconds that the trials behind the first one took on so many processors, and all of them."""
    before = own_cores()
    use_cores(sorted(before)[:cores])  # for what is started here
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            recipe = folder / "recipe.toml"
            recipe.write_text(TRAINED.replace("EPOCHS", str(epochs)))
            changes = [part for option in options for part in ("--set", option)]
            command = [*_command(recipe, folder / "out"), *changes]
            # the recipe as it stands is the first trial, and the winner's run on test images is no trial
            subprocess.run([*command, "--trials", "1"], check=True, capture_output=True)
            start = time.perf_counter()
            process = subprocess.Popen(
                [*command, "--trials", "5"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while process.poll() is None and len(_trials(folder / "out")) < 5:
                time.sleep(0.1)
            seconds = time.perf_counter() - start
            process.wait()
            return seconds, _trials(folder / "out")
    finally:
        use_cores(before)


def spread(name: str, options: Sequence[str], epochs: int) -> Iterator[Bar]:
    """Two workers, of a processor each, against one."""
    others = busy_share(1.0)
    alone, wanted = _spread([*options, "tune.workers=1"] if name == "side-by-side" else options, 1, epochs)
    both, found = _spread(options, 2, epochs)
    print(f"{name}: one worker {alone:.0f} s, two {both:.0f} s; other work had {others:.0%} of the processors before")
    yield Bar(f"{name}: trials of two workers against those of one", alone / both, 1.7, at_least=True)
    differing = [each["values"] for each in found] != [each["values"] for each in wanted]
    yield Bar(f"{name}: studies that tried something else", differing, 0)


def side_by_side(epochs: int) -> Iterator[Bar]:
    """Two processes of this machine against one."""
    yield from spread("side-by-side", ["tune.workers=2"], epochs)


def ray(epochs: int) -> Iterator[Bar]:
    """Two workers of a cluster against one, and a kill of one of them."""
    local = ["tune.workers=ray", 'tune.ray.address="local"']
    yield from spread("ray", local, epochs)  # a node has as many workers as processors
    yield Bar("ray: trials that are lost when a worker is killed", _lost_by_a_kill(local), 0)


def _lost_by_a_kill(cluster: Sequence[str]) -> int:
    """Trials that failed, or are missing, in a study of which one process of Ray was killed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = _tiny(folder, "[2, 4, 8, 16, 32, 64]")
        changes = [part for change in (*cluster, "tune.at_once=2") for part in ("--set", change)]
        process = subprocess.Popen(
            [*_command(recipe, folder / "out"), *changes], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (worker := _worker_of_ray(str(folder))) is None:
            time.sleep(0.1)
        if process.poll() is None:
            os.kill(worker, signal.SIGKILL)
        process.wait()
        trials = _trials(folder / "out")
        return 6 - sum(each["ending"] in (Ending.DONE, Ending.REPEATED) for each in trials)


def _worker_of_ray(folder: str) -> int | None:
    """The process of Ray that follows a trial of a study below `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            does = (process / "cmdline").read_bytes().decode(errors="replace")
            if "edgeopt.tuning.worker" in does and folder in does:
                return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return None


def _ended(recipe: Path, out: Path, seconds: float) -> bool:
    """Whether the study came to its end before it was killed."""
    process = subprocess.Popen(
        _command(recipe, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(timeout=seconds) == 0
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


def _trials(out: Path) -> list[dict[str, object]]:
    lines = (out / "tuned-tune" / FILE).read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def _tiny(folder: Path, space: str) -> Path:
    recipe = folder / "recipe.toml"
    recipe.write_text(TINY.replace("SPACE", space))
    return recipe


def _command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "edgeopt", "tune", str(recipe), "--plugin", str(TINY_PLUGIN), "--out", str(out)]


def main(argv: Sequence[str] | None = None) -> None:
    """Does the parts that are asked for, and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=["overhead", "fake", "kills", "goal", "side-by-side"], help="parts"
    )
    parser.add_argument("--epochs", type=int, default=8, help="of each trial in `side-by-side` and `ray`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19], help="of the studies in `goal`")
    parser.add_argument("--most", type=int, default=30, help="trials of a search in `goal` before it gives up")
    given = parser.parse_args(argv)
    bars: list[Bar] = []
    for part in given.only:
        made = {
            "goal": lambda: goal(given.seeds, given.most),
            "kills": lambda: kills(KILLS),
            "side-by-side": lambda: side_by_side(given.epochs),
            "ray": lambda: ray(given.epochs),
        }
        bars += {"overhead": overhead, "fake": fake, **made}[part]()
    finish(*bars)


if __name__ == "__main__":
    main()
