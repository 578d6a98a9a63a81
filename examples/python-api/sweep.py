"""A run, its report, and a sweep, from Python: how few bits do the weights need?

python sweep.py             # some minutes
python sweep.py --smoke     # the whole of it on a few images; the figures mean nothing
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import edgeopt

RECIPE = Path(__file__).with_name("digits.toml")
KEY = "passes.1.weight_bits"  # of the recipe, as `--set` takes it
VALUES = (8, 6, 4, 3)
ALLOWED_DROP = 0.01  # of accuracy, against the first value


def sweep(
    recipe: Path, key: str, values: Sequence[object], out: Path, *, smoke: bool = False
) -> Mapping[object, edgeopt.RunResult]:
    """A run for each value. They share `out`, and with it all stages before the one that the value changes: the network
    is trained once.
    """
    name = edgeopt.read_recipe(recipe).name
    results = {}
    for value in values:
        own = re.sub("[^a-z0-9]+", "-", f"{name}-{value}".lower()).strip("-")  # a folder of results for each
        results[value] = edgeopt.run(recipe, overrides=[f"{key}={value}", f"name={own}"], out=out, smoke=smoke)
    return results


def shipped(result: edgeopt.RunResult):
    """The row of the run's optimized file: what was measured of it."""
    if result.failures:
        raise result.failures[0]
    return next(row for row in result.report.rows if row.role == "optimized")


def table(results: Mapping[object, edgeopt.RunResult]) -> str:
    """Accuracy with its interval, agreement with the program, bytes and milliseconds of each file."""
    lines = ["value  accuracy (95 % interval)   agreement       size       p50"]
    for value, result in results.items():
        row = shipped(result)
        low, high = row.accuracy_interval
        accuracy = f"{row.test_accuracy:7.1%} ({low:.1%} to {high:.1%})"
        cost = f"{row.size_bytes / 1e6:7.2f} MB {row.latency_ms.p50:6.3f} ms"
        lines.append(f"{value!s:5}  {accuracy:<27} {row.agreement:9.1%} {cost}")
    return "\n".join(lines)


def smallest(results: Mapping[object, edgeopt.RunResult], allowed_drop: float = ALLOWED_DROP) -> object:
    """The value of the smallest file that loses no more than allowed against the first, image by image."""
    first, *others = results
    kept = [first]
    for value in others:
        comparison = edgeopt.compare(
            [results[first].folder, results[value].folder], limits=edgeopt.Limits(accuracy=allowed_drop)
        )
        if not any(figure.name == "accuracy" for _, figure in comparison.missed):
            kept.append(value)
    return min(kept, key=lambda value: shipped(results[value]).size_bytes)


def main() -> None:
    """Runs the sweep and says which value to take."""
    parser = argparse.ArgumentParser(description="How few bits do the weights need?")
    parser.add_argument("--smoke", action="store_true", help="the whole of it on a few images")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    given = parser.parse_args()

    edgeopt.check(RECIPE)  # every mistake of the recipe, before an image is read
    results = sweep(RECIPE, KEY, VALUES, given.out, smoke=given.smoke)
    print(table(results))
    for sentence in results[VALUES[0]].report.verdicts:
        print(f"- {sentence}")
    value = smallest(results)
    print(f"take {KEY} = {value}: {results[value].folder}")


if __name__ == "__main__":
    main()
