"""A run's own folder: what the run made is put there, and what an earlier run put there and this one did not make is
taken out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeopt.cards.card import Card
from edgeopt.cards.reading import card_from_text
from edgeopt.files import place, write_aside
from edgeopt.pipeline import lock
from edgeopt.pipeline.record import RunRecord, Written, read_record, take_out
from edgeopt.pipeline.results import Results
from edgeopt.recipe.stage import PlannedExport
from edgeopt.report import samples


@dataclass(frozen=True)
class Leftovers:
    """What an earlier run left in a run's folder, by the paths below it: `removed` is gone, `changed` was changed by
    somebody since, and stays.
    """

    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def said(self, folder: Path) -> tuple[str, ...]:
        """In words, a sentence each."""
        sentences = []
        if self.removed:
            sentences.append(f"taken out of {folder}, as an earlier run had made it: {', '.join(self.removed)}")
        if self.changed:
            sentences.append(f"left in {folder}, made by an earlier run and changed since: {', '.join(self.changed)}")
        return tuple(sentences)


@dataclass
class RunFolder:
    """The folder of one run, being filled. `earlier` is the record of the run before it."""

    folder: Path
    earlier: RunRecord | None
    written: dict[str, Written] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path, stages: Mapping[str, str]) -> RunFolder:
        """Says in the folder which results the run refers to, before it works; what lies there is left as it is."""
        earlier = read_record(folder)
        keys = {*earlier.stages.values(), *earlier.earlier} - {*stages.values()} if earlier else set()
        RunRecord(stages, earlier.files if earlier else {}, tuple(sorted(keys))).write(folder)
        return cls(folder, earlier)

    def place(self, source: Path, name: str) -> None:
        """Puts a file of the store at `name`, a path below the folder."""
        place(source, self.folder / name)
        self._note(name)

    def write(self, name: str, text: str) -> None:
        """Writes a file at `name`, a path below the folder."""
        write_aside(self.folder / name, text)
        self._note(name)

    def keep(self, name: str) -> None:
        """Leaves what an earlier run wrote at `name` where it is, as its own."""
        if self.earlier and name in self.earlier.files:
            self.written[name] = self.earlier.files[name]

    def end(self, stages: Mapping[str, str]) -> Leftovers:
        """Takes out what an earlier run wrote and this one did not, and writes the record."""
        removed, changed = take_out(self.folder, self.earlier, self.written)
        RunRecord(stages, self.written).write(self.folder)
        return Leftovers(tuple(removed), tuple(changed))

    def _note(self, name: str) -> None:
        self.written[name] = Written.of(self.folder / name)


def fill(folder: RunFolder, results: Results, failures: Collection[str], held_to: lock.Lock | None) -> None:
    """Puts files, cards, report and lock of a run into its folder.

    Raises `LockError`, before anything is put there, when files differ from those of the lock that the run is
    `held_to`; without one, a new lock is written.
    """
    made = [planned for planned in results.plan.exports if planned.name not in failures]
    hashes = {planned.file: results.export(planned).sha256 for planned in made}
    parts = {
        f"{Path(planned.file).parent.as_posix()}/{name}": digest
        for planned in made
        for name, digest in results.export(planned).parts.items()
    }
    if held_to:
        lock.compare_artifacts(held_to, hashes, parts)
    for planned in made:
        stored, beside = results.folder(planned.export_stage), Path(planned.file).parent.as_posix()
        exported = results.export(planned).exported
        for name in (Path(planned.file).name, *exported.companions, *exported.beside):
            folder.place(stored / name, f"{beside}/{name}")
        card = card_from_text((stored / "card.json").read_text(encoding="utf-8"))
        folder.write(f"{beside}/card.json", _completed(card, results, planned).to_json())
    report = results.folder("report")
    for name in ("report.json", "report.html", "answers.npz"):
        if (report / name).exists():  # a trial has no page
            folder.place(report / name, name)
    for image in sorted((report / samples.FOLDER).glob("*.png")):
        folder.place(image, f"{samples.FOLDER}/{image.name}")
    if held_to:
        folder.keep(lock.FILE)
    else:
        written = lock.make(results.plan, results.data().fingerprint, hashes, parts)
        folder.write(lock.FILE, written.to_toml())


def _completed(card: Card, results: Results, planned: PlannedExport) -> Card:
    """A card with what is known when the run is done: the recipe's name, which the store leaves out so that a renamed
    recipe does not export again, and the file's own answers.
    """
    named = replace(card, recipe={**card.recipe, "name": results.plan.recipe.name})
    return named.with_file_answers(results.self_test(planned))
