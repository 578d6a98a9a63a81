"""What the figures mean, in plain sentences. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeopt.report import energies, figures
from edgeopt.report.answers import guess_in_row, has_answers, never_recognized
from edgeopt.report.compare import Comparison, compare, title
from edgeopt.report.devices import device_verdicts
from edgeopt.report.latencies import noise
from edgeopt.report.schema import ClassScore, MeasuredDevice, Row
from edgeopt.report.training import Training, training_of
from edgeopt.tasks.guessing import GuessKind
from edgeopt.tasks.scores import ACCURACY
from edgeopt.types import Footprint, PassRecord, Role

SMOKE = (
    "This was a smoke run on a few batches and images: it shows that the recipe works, "
    "its figures mean nothing, and gates were not judged."
)

CHANGE_COUNTS = ("_quantized", "_frozen", "_removed", "_pruned", "_replaced", "_fused")
"""Facts of a pass whose names end like this count what it changed."""

_LOW_AGREEMENT = 0.98
_SAME_SIZE = 0.01
_LISTED = 4  # names in a sentence; more are counted


def verdicts(
    rows: Sequence[Row],
    passes: Sequence[PassRecord] = (),
    *,
    float_passes: int | None = None,
    smoke: bool = False,
    devices: Sequence[MeasuredDevice] = (),
) -> tuple[str, ...]:
    """What a reader should know first: devices that answer otherwise, answers that are worth nothing, the optimized
    files against the float ones, and every reason for doubt.

    The first `float_passes` of `passes` made the float model, all of them where that is left out.
    """
    training = training_of(passes, len(passes) if float_passes is None else float_passes)
    notice = (SMOKE,) if smoke else ()
    return (*notice, *device_verdicts(devices, rows), *_sentences(rows, passes, training, smoke))


def _sentences(rows: Sequence[Row], passes: Sequence[PassRecord], training: Training, smoke: bool) -> Iterator[str]:
    for row in rows:
        if row.error:
            yield f"{title(row)} ({row.role}) failed: {_first_line(row.error)}"
    if not smoke:
        yield from _worthless_answers(rows)
    if rows and all(row.role is Role.BASELINE for row in rows):
        yield "No pass of this recipe optimizes: all files hold the float model."
    for row in rows:
        if row.role is Role.OPTIMIZED and not row.error:
            yield from _against_baseline(row, rows, training)
    if not smoke:
        yield from _about_training(training)
    for row in rows:
        if row.footprint is not None and row.role is Role.OPTIMIZED:
            yield from _footprint(row, row.footprint)
        yield from _doubts(row)
        if not smoke:
            yield from _doubt_of_answers(row)
    if not smoke:
        yield from _doubt_of_latencies(rows)
        yield from energies.untold((f"{title(row)} ({row.role})", row.energy_problem) for row in rows)
    for record in passes:
        yield from _about_pass(record)


def _worthless_answers(rows: Sequence[Row]) -> Iterator[str]:
    """Files whose answers are no more than a guess, or that never recognize a class."""
    missed: dict[tuple[ClassScore, ...], list[str]] = {}
    for row in filter(has_answers, rows):
        name, guess = f"{title(row)} ({row.role})", guess_in_row(row)
        if guess is not None and guess.kind is GuessKind.ONE_CLASS:
            yield (
                f"{name} {guess.told('test images')}: it tells nothing apart, and no gate is passed by its "
                f"{_what_it_scores(row)}."
            )
            continue
        if guess is not None:
            yield f"{name} {guess.told('test images')}."
        if classes := never_recognized(row):
            missed.setdefault(classes, []).append(name)
    for classes, names in missed.items():
        shown = [f"{score.name} ({_test_images(score.support)})" for score in classes[:_LISTED]]
        more = f" and {len(classes) - _LISTED} more classes" if len(classes) > _LISTED else ""
        yield f"Never recognized by {_joined(names)}: {', '.join(shown)}{more}."


def _what_it_scores(row: Row) -> str:
    """A score in words: right answers in per cent where it is the accuracy, else with its name."""
    score = row.score
    if score is None or score.kind == ACCURACY:
        return f"{figures.score(score)} of right answers"
    return f"{score.kind.called} of {score.text}"


def _footprint(row: Row, found: Footprint) -> Iterator[str]:
    (ram_layer, ram), (flash_layer, flash) = found.most_ram, found.most_flash
    yield (
        f"{title(row)} takes {found.ram_bytes:,} bytes of RAM, of which {ram_layer} has the most ({ram:,}), and "
        f"{found.flash_bytes:,} bytes of flash, of which {flash_layer} has the most ({flash:,})."
    )
    if (told := found.estimate) is not None:
        left = f", without {told.on_cpu} operators that are left to the CPU" if told.on_cpu else ""
        yield (
            f"{title(row)}, estimated and not measured: {told.cycles:,} cycles an image on {told.processor}{left}, "
            f"{told.images_per_second:,.0f} images/s at {told.clock_mhz:g} MHz ({told.source})."
        )


def _about_training(training: Training) -> Iterator[str]:
    if training.still_learning:
        yield (
            f"The float model was still learning: {training.still_learning}. Train it for more epochs before you judge "
            f"what the other passes gain or lose."
        )


def _images(row: Row) -> int:
    return row.score.count if row.score else 0


def _test_images(count: int) -> str:
    return f"{count} test image{'' if count == 1 else 's'}"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _against_baseline(row: Row, rows: Sequence[Row], training: Training) -> Iterator[str]:
    pair = compare(row, rows)
    if pair is None:
        yield f"{title(row)}: there is no float file of this export, so nothing is compared."
    elif pair.same_bytes:
        yield f"{title(row)}: the file is the float file, byte for byte: the passes changed nothing."
    else:
        yield f"{title(row)} is {_size(pair)}{_latency(pair)}."
        if pair.score_change is not None:
            yield _score(pair, training)
        if _gains_nothing(pair):
            yield f"{title(row)}: optimizing brought nothing that can be measured, neither bytes nor milliseconds."


def _size(pair: Comparison) -> str:
    ratio = pair.size_factor
    if ratio is None:
        return "not compared in size"
    span = f"({figures.size(pair.baseline.size_bytes)} to {figures.size(pair.optimized.size_bytes)})"
    if abs(ratio - 1) < _SAME_SIZE:
        return f"no smaller than {pair.baseline.precision} {span}"
    if ratio < 1:
        return f"{figures.times(1 / ratio)} larger than {pair.baseline.precision} {span}"
    return f"{figures.times(ratio)} smaller than {pair.baseline.precision} {span}"


def _latency(pair: Comparison) -> str:
    if pair.latencies is None:
        measured = pair.baseline.latency_ms and pair.optimized.latency_ms
        reason = "was measured differently" if measured else "was not measured for both"
        return f"; latency {reason}, so it is not compared"
    before, after = pair.latencies.before, pair.latencies.after
    span = f"(p50 {figures.milliseconds(before.p50)} to {figures.milliseconds(after.p50)})"
    ratio = pair.latency_factor
    if ratio is None or pair.latency_within_noise:
        return f"; the difference in latency is within the noise {span}"
    if ratio < 1:
        return f" but {figures.times(1 / ratio)} slower {span}"
    return f" and {figures.times(ratio)} faster {span}"


def _score(pair: Comparison, training: Training) -> str:
    before, after = pair.baseline.score, pair.optimized.score
    assert before and after  # or they would not be compared
    start = f"{title(pair.optimized)}: test {after.kind.called}"
    images = pair.paired
    if before.value == after.value:
        swapped = f" ({figures.counted(images)})" if images and images.lost else ""
        return f"{start} stayed at {after.text}, that of the float file{swapped}."
    went = f"{start} went from {before.text} of the float file to {after.text} ({pair.score_change_text})"
    if images is None:
        return f"{went}."
    if images.may_be_chance:
        return f"{went}: {figures.counted(images)}; with so few images the difference may be chance."
    better = after.kind.rank(after.value) > after.kind.rank(before.value)
    told = f"{went}: {figures.counted(images)}; this is a {'gain' if better else 'loss'}, not chance"
    return f"{told}, and {training.note}." if training.note else f"{told}."


def _gains_nothing(pair: Comparison) -> bool:
    ratio, faster = pair.size_factor, pair.latency_factor
    no_smaller = ratio is not None and ratio < 1 + _SAME_SIZE
    no_faster = faster is not None and (faster <= 1 or pair.latency_within_noise)
    return no_smaller and no_faster


def _doubts(row: Row) -> Iterator[str]:
    name = f"{title(row)} ({row.role})"
    if row.not_run:
        yield f"{name}: the file was made and not opened: {row.not_run}."
    if row.stand_in:
        yield (
            f"{name}: this machine has no {row.runtime}; the file was verified in {row.stand_in} instead, "
            f"and its latency is not known."
        )
    if row.outside:
        share = (
            "" if row.delegated_share is None else f"; {figures.percent(row.delegated_share)} of the nodes are inside"
        )
        yield f"{name}: {_listed(row.outside)} stayed outside the delegate{share}."
    for warning in row.warnings:
        yield f"{name}: {warning}"


def _doubt_of_answers(row: Row) -> Iterator[str]:
    name = f"{title(row)} ({row.role})"
    if row.agreement is not None and row.agreement < _LOW_AGREEMENT:
        if row.differing is not None and abs((1 - row.agreement) * _images(row) - row.differing) > 1:
            # agreement of boxes or places, not of images
            yield f"{name}: the file's answers agree with its own program's to {_agreed(row)} only: {_cause(row)}."
            return
        yield (
            f"{name}: the file answers differently from its own program for {figures.percent(1 - row.agreement)} "
            f"of the test images: {_cause(row)}."
        )


def _agreed(row: Row) -> str:
    images = f"{row.differing} of {_images(row)} images differ"
    return f"{figures.percent(row.agreement)} ({images})"


def _cause(row: Row) -> str:
    """Why a file answers differently from its program."""
    if row.converted:
        return f"that is what {row.precision} costs"
    if row.differing is None or row.near_ties is None:
        return "the export changed the model"
    ties = f"{row.near_ties} of these {_test_images(row.differing)} were near ties, which rounding alone decides"
    changed = row.differing - row.near_ties
    if changed <= (1 - _LOW_AGREEMENT) * _images(row):
        return f"{ties}, so the runtime's arithmetic explains it"
    return f"the export changed the model; only {ties}"


def _doubt_of_latencies(rows: Sequence[Row]) -> Iterator[str]:
    noisy = [
        f"{title(row)} ({row.role}; {'; '.join(found)})"
        for row in rows
        if row.latency_ms and (found := noise(row.latency_ms))
    ]
    if noisy:
        latencies = [row.latency_ms for row in rows if row.latency_ms]
        apart = " With measure.threads = 1 they do not depend on how far apart the machine's cores are."
        yield (
            f"Latency is noisy in {len(noisy)} of {len(latencies)} files: {', '.join(noisy)}. "
            f"How many times faster is judged turn by turn, side by side; for milliseconds, measure again on a quiet "
            f"machine, "
            f"with --measure-again.{apart if any(latency.threads > 1 for latency in latencies) else ''}"
        )


def _about_pass(record: PassRecord) -> Iterator[str]:
    counts = [
        value
        for name, value in record.facts.items()
        if name.endswith(CHANGE_COUNTS) and isinstance(value, int) and not isinstance(value, bool)
    ]
    if counts and not any(counts):
        yield f"Pass {record.name} changed nothing: all that it counts is 0."
    for warning in record.warnings:
        yield f"Pass {record.name}: {warning}"


def _listed(operators: Sequence[str], limit: int = _LISTED) -> str:
    """Operators with their counts, the most frequent first."""
    counts = {name: operators.count(name) for name in dict.fromkeys(operators)}
    ordered = sorted(counts, key=lambda name: -counts[name])
    shown = [name if counts[name] == 1 else f"{name} ({counts[name]} times)" for name in ordered[:limit]]
    more = len(ordered) - limit
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "no reason was given")
