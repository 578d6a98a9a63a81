"""A campaign of faults: what becomes of run, tune, serve and clean when they are killed, have no room, or lose their disk.

Each command must end in the bytes of one that nothing disturbed, or in a message without a traceback; it leaves nothing
half-written under its name and no process, and the same command ends in the right bytes afterwards. The recipes are of
the tiny plugins of the tests: seconds for a run. Disks are small ones in memory, which takes root.

    python benchmarks/faults.py [--kills 200] [--only NAME …] [--seed N] [--stop-seconds 60] [--write docs/reliability.md]
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fault_disks
import fault_processes
import fault_store
from bars import Bar, finish
from fault_bench import Bench, Ending, Fault, How
from rich.console import Console
from rich.table import Table

FAULTS = (*fault_processes.FAULTS, *fault_disks.FAULTS, *fault_store.FAULTS)
BEGIN, END = "<!-- written by benchmarks/faults.py -->\n", "<!-- end -->"
HEADINGS = ("fault", "what is done", "times", "ended in", "went on", "failed")


@dataclass(frozen=True)
class Met:
    """A fault, and how each of the commands ended that met it; none where it could not be brought about."""

    fault: Fault
    endings: tuple[Ending, ...]

    @property
    def failures(self) -> int:
        return sum(bool(each.wrong) for each in self.endings)

    @property
    def row(self) -> tuple[str, ...]:
        if not self.endings:
            return self.fault.name, self.fault.told, "0", "skipped, needs root", "", ""
        hows = Counter(each.how for each in self.endings)
        ended = ", ".join(f"{how} {hows[how]}" for how in How if hows[how])
        went_on = sum(each.went_on for each in self.endings)
        return self.fault.name, self.fault.told, str(len(self.endings)), ended, str(went_on), str(self.failures)


def meet(fault: Fault, bench: Bench) -> Met:
    """Brings a fault about and says on the error output how it goes."""
    if fault.needs_root and os.geteuid() != 0:
        return Met(fault, ())
    endings, start = [], time.perf_counter()
    for ending in fault.endings(bench):
        endings.append(ending)
        for wrong in ending.wrong:
            print(f"{fault.name}, {len(endings)}: {wrong}", file=sys.stderr, flush=True)
    said = Counter(each.said for each in endings if each.said)
    print(f"{fault.name}: {len(endings)} times, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    for message, count in said.most_common():
        print(f"  {count} × {message}", file=sys.stderr, flush=True)
    return Met(fault, tuple(endings))


def bars(met: Sequence[Met]) -> list[Bar]:
    """What is judged: failures of all kinds."""
    endings = [ending for each in met for ending in each.endings]
    return [
        Bar("faults, failures", sum(each.failures for each in met), 0),
        Bar("faults, other bytes", _count(endings, "other bytes", "another answer"), 0),
        Bar("faults, processes left", _count(endings, "processes are left"), 0),
        Bar("faults, half-written", _count(endings, "half a "), 0),
    ]


def _count(endings: Sequence[Ending], *words: str) -> int:
    return sum(any(word in wrong for wrong in each.wrong for word in words) for each in endings)


def write(page: Path, met: Sequence[Met]) -> None:
    """Puts rows into the table between its marks in a page; those of other faults stay."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    known = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    known |= {each.fault.name: _line(each.row) for each in met}
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [known[each.name] for each in FAULTS if each.name in known]
    page.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Brings faults about, and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of run, tune and serve together")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in FAULTS], metavar="NAME", help="faults")
    parser.add_argument("--seed", type=int, default=17, help="of instants, places and processes")
    parser.add_argument("--stop-seconds", type=float, default=60.0, help="how long processes are stopped")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the page whose table gets the rows")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="edgeopt-faults-") as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        bench = Bench(Path(folder), random.Random(given.seed), given.kills, given.stop_seconds)
        named = {each.name: each for each in FAULTS}
        met = []
        for name in given.only or named:
            met.append(meet(named[name], bench))
            if given.write:  # after each, because all of them take an hour
                write(given.write, met)
    table = Table(*HEADINGS)
    for each in met:
        table.add_row(*each.row)
    Console(width=160).print(table)
    finish(*bars(met))


if __name__ == "__main__":
    main()
