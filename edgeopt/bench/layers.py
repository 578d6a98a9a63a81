"""What layers cost in two files of one export, float and optimized, side by side. Light."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeopt.bench.table import Bench, OperatorsRow


@dataclass(frozen=True)
class LayerCost:
    """A layer, or the other operators of one kind together: what it takes in the float file and in the optimized one,
    ms. None where a file has no such operator.
    """

    name: str
    float_ms: float | None
    optimized_ms: float | None

    @property
    def largest_ms(self) -> float:
        """The larger of both."""
        return max(self.float_ms or 0.0, self.optimized_ms or 0.0)

    @property
    def faster(self) -> float | None:
        """How many times faster it is in the optimized file."""
        return self.float_ms / self.optimized_ms if self.float_ms and self.optimized_ms else None


@dataclass(frozen=True)
class SideBySide:
    """A file with the float file of its export, where there is one, with the same threads; `title` names both."""

    title: str
    threads: int
    before: OperatorsRow | None
    after: OperatorsRow | None
    layers: tuple[LayerCost, ...]

    @property
    def worst_first(self) -> Sequence[LayerCost]:
        """The layers by what they cost."""
        return sorted(self.layers, key=lambda layer: -layer.largest_ms)


def side_by_side(bench: Bench) -> Iterator[SideBySide]:
    """Each optimized file of which operators are known beside its float file; then the float files that are left."""
    known = [row for row in bench.operators if row.operators]
    paired = set()
    for row in known:
        if row.float_file is None:
            continue
        before = next((each for each in known if (each.file, each.threads) == (row.float_file, row.threads)), None)
        paired.add((row.float_file, row.threads))
        yield _beside(bench, before, row)
    for row in known:
        if row.float_file is None and (row.file, row.threads) not in paired:
            yield _beside(bench, row, None)


def _beside(bench: Bench, before: OperatorsRow | None, after: OperatorsRow | None) -> SideBySide:
    rows = [row for row in (before, after) if row is not None]
    named = [next(each for each in bench.rows if each.file == row.file) for row in rows]
    title = f"{named[0].export}: {' and '.join(each.precision for each in named)}"
    if len(bench.runs) > 1:
        title = f"{rows[-1].file.partition('/')[0]}, {title}"
    both = [row.by_layer if row else {} for row in (before, after)]
    of_layers = {each.layer for row in rows for each in row.operators} - {""}
    names = sorted(dict.fromkeys([*both[0], *both[1]]), key=lambda name: name not in of_layers)  # layers first
    layers = tuple(LayerCost(name, both[0].get(name), both[1].get(name)) for name in names)
    return SideBySide(title, rows[0].threads, before, after, layers)
