"""What a comparison means, in plain sentences. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeopt.comparison.schema import (
    AccuracyChange,
    BytesChange,
    Change,
    ComparedRun,
    FileChange,
    Judged,
    LatencyChange,
    RunChange,
)
from edgeopt.comparison.shown import SAME_SIZE
from edgeopt.report import figures
from edgeopt.tasks.scores import ACCURACY, three_digits
from edgeopt.tasks.statistics import CHANCE

_LISTED = 4
SMOKE = "smoke run on a few batches and images: its figures mean nothing."


def sentences(change: RunChange, first: ComparedRun, other: ComparedRun) -> tuple[str, ...]:
    """What a reader should know first: what could not be compared, then each file, then what has no partner."""
    return tuple(_sentences(change, first, other))


def _sentences(change: RunChange, first: ComparedRun, other: ComparedRun) -> Iterator[str]:
    for run in (first, other):
        if run.smoke:
            yield f"{run.title} is a {SMOKE}"
    yield from _without_verdict(change.files)
    for file in change.files:
        yield from _about(file)
        yield from _about_devices(file)
    for each in change.unpaired:
        yield f"{each.file} of {each.run} is not compared: {each.reason}."
    if not change.files:
        yield "No file of one run has a partner in the other: files are matched by the export's name and their role."


def _without_verdict(files: Sequence[FileChange]) -> Iterator[str]:
    """Each reason for which something is not compared, once, with the files that it is about."""
    accuracy: dict[str, list[str]] = {}
    latency: dict[str, list[str]] = {}
    devices: dict[str, list[str]] = {}
    for file in files:
        if file.accuracy is None and file.no_accuracy:
            accuracy.setdefault(file.no_accuracy, []).append(_name(file))
        reason = file.latency.why_not if file.latency else file.no_latency
        if reason:
            latency.setdefault(reason, []).append(_name(file))
        for there in file.devices:
            if reason := there.latency.why_not if there.latency else there.no_latency:
                devices.setdefault(f"{there.device}: {reason}", []).append(_name(file))
    score = files[0].kind.called if files else "accuracy"
    for reasons, what in ((accuracy, score), (latency, "latency"), (devices, "latency on a device")):
        for reason, names in reasons.items():
            about = "" if len(names) == len(files) else f" of {_joined(names)}"
            yield f"No verdict on the {what}{about}: {reason}."


def _about(file: FileChange) -> Iterator[str]:
    name = _name(file)
    if file.same_bytes:
        yield f"{name}: both runs have the same file, byte for byte."
        if file.accuracy is None or file.accuracy.verdict is Change.SAME:
            return
    if file.accuracy:
        yield f"{name}: {accuracy_text(file.accuracy)}."
        yield from _about_classes(name, file.accuracy)
    if file.size:
        yield f"{name}: the file is {size_text(file.size)}{_and_latency(file.latency)}."
    elif file.latency and file.latency.ratio:
        yield f"{name}: {latency_text(file.latency)}."


def _about_devices(file: FileChange) -> Iterator[str]:
    """Devices that answer otherwise than before, and on which the file is slower or faster beyond noise."""
    for there in file.devices:
        where = f"{_name(file)} on {there.device}"
        before, after = there.differing_before, there.differing_after
        if before is not None and after is not None and before != after:
            yield (
                f"{where}: {_images(after)} answered otherwise there than on the machine of the run, {before} before."
            )
        if there.latency and there.latency.verdict in (Change.BETTER, Change.WORSE):
            yield f"{where}: {latency_text(there.latency)}."


def accuracy_text(change: AccuracyChange) -> str:
    """What became of the accuracy, or of another primary score, and how sure that is."""
    if change.kind != ACCURACY:
        return _score_text(change)
    if change.verdict is Change.SAME:
        others = f", though {_images(change.other_answers)} got another wrong answer" if change.other_answers else ""
        return f"not one of {_images(change.paired.images)} is lost or gained{others}; {figures.percent(change.after)}"
    counted = figures.counted(change.paired)
    low_high = f", interval {figures.points_interval(change.interval)}" if change.interval else ""
    start = (
        f"test accuracy went from {figures.percent(change.before)} to {figures.percent(change.after)} "
        f"({figures.points(change.paired.change)}{low_high}): {counted}"
    )
    if change.before == change.after:
        start = f"test accuracy stayed at {figures.percent(change.after)}{low_high}: {counted}"
    return f"{start}; {_how_sure(change)}"


def _score_text(change: AccuracyChange) -> str:
    kind, after = change.kind, change.kind.text(change.after)
    if change.verdict is Change.SAME:
        others = f", though {_images(change.other_answers)} got another answer" if change.other_answers else ""
        return f"not one of {_images(change.paired.images)} is answered worse or better{others}; {kind.called} {after}"
    start = (
        f"test {kind.called} went from {kind.text(change.before)} to {after} "
        f"({kind.change_text(change.after - change.before)}): {figures.counted(change.paired)}"
    )
    if change.grades is not None:
        one, other = map(three_digits, change.grades)
        bounds = f", interval of the difference {grades_interval(change.interval)}" if change.interval else ""
        start += f", mean grade of an image {one} to {other}{bounds}"
    return f"{start}; {_how_sure(change)}"


def change_text(change: AccuracyChange) -> str:
    """The difference of the score, as in "−0.4 points"."""
    difference = change.paired.change if change.kind == ACCURACY else change.after - change.before
    return change.kind.change_text(difference)


def interval_text(change: AccuracyChange) -> str:
    """The interval of what was compared image by image, as in "−1.2 to +0.4"; empty where there is none."""
    if change.interval is None:
        return ""
    if change.grades is None:
        return figures.points_interval(change.interval)
    return f"grades {grades_interval(change.interval)}"


def grades_interval(bounds: tuple[float, float]) -> str:
    """Both bounds of a difference of grades, as in "−0.012 to +0.004"."""
    return " to ".join(f"{'−' if bound < 0 else '+'}{three_digits(abs(bound))}" for bound in bounds)


def _how_sure(change: AccuracyChange) -> str:
    if change.verdict is Change.UNCLEAR:
        return "this may be chance"
    return f"this is a {'loss' if change.verdict is Change.WORSE else 'gain'}, not chance"


def _about_classes(name: str, change: AccuracyChange) -> Iterator[str]:
    sure = [each for each in change.classes if each.p_value < CHANCE]
    for word, chosen in (
        ("worse", [each for each in sure if each.lost > each.gained]),
        ("better", [each for each in sure if each.gained > each.lost]),
    ):
        if not chosen:
            continue
        chosen.sort(key=lambda each: each.after - each.before)
        shown = [
            f"{each.name} ({class_figure(change)} "
            f"{' to '.join(class_text(change, value) for value in (each.before, each.after))})"
            for each in chosen[:_LISTED]
        ]
        more = f" and {len(chosen) - _LISTED} more classes" if len(chosen) > _LISTED else ""
        yield f"{name}: {word}, beyond chance, at {', '.join(shown)}{more}."


def class_figure(change: AccuracyChange) -> str:
    """What the figures of a class are."""
    return "recall" if change.kind == ACCURACY else "mean grade" if change.grades else "right"


def class_text(change: AccuracyChange, value: float) -> str:
    """A figure of a class as people read it."""
    return figures.percent(value) if change.grades is None else three_digits(value)


def size_text(change: BytesChange) -> str:
    """How much larger or smaller a file has become."""
    span = f"({figures.size(change.before)} to {figures.size(change.after)})"
    if abs(change.ratio - 1) < SAME_SIZE:
        return f"as large as before {span}"
    if change.ratio > 1:
        return f"{figures.times(change.ratio)} larger {span}"
    return f"{figures.times(1 / change.ratio)} smaller {span}"


def _and_latency(change: LatencyChange | None) -> str:
    return f"; {latency_text(change)}" if change and change.ratio else ""


def latency_text(change: LatencyChange) -> str:
    """How much slower or faster, and how that is known."""
    span = f"(p50 {figures.milliseconds(change.before.p50)} to {figures.milliseconds(change.after.p50)})"
    how = "timed together" if change.together else "each timed in its own run"
    if change.verdict in (Change.SAME, Change.UNCLEAR) or change.ratio is None:
        return f"the difference in latency is within the noise {span}, {how}"
    if change.ratio > 1:
        return f"it is {figures.times(change.ratio)} slower {span}, {how}"
    return f"it is {figures.times(1 / change.ratio)} faster {span}, {how}"


# ---- the gate ------------------------------------------------------------------------------------------------------


def figure_text(gate: Judged, figure: float | None) -> str:
    """A figure or limit of a gate as people read it."""
    if figure is None:
        return figures.MISSING
    if gate.kind is None:
        return f"{figure:.3f}×"
    return f"{100 * figure:.2f} points" if gate.kind.is_share else f"{three_digits(figure)}{gate.kind.unit}"


def outcome_text(gate: Judged) -> str:
    """What became of a gate, in a word or two."""
    if gate.passed is None:
        return "not judged"
    if gate.passed:
        return "passed"
    return "missing" if gate.name == "file" else "no verdict" if gate.figure is None else "regression"


def gate_message(run: str, gate: Judged) -> str:
    """A regression in a sentence."""
    start = f"regression in {run}: {gate.file}:"
    if gate.name == "file":
        return f"{start} the file is missing: {gate.reason}"
    limit = f"{figure_text(gate, gate.limit)} allowed"
    if gate.figure is None:
        return f"{start} {gate.name} could not be judged ({limit}): {gate.reason}"
    if gate.kind is not None:
        how = "lower" if gate.kind.larger_is_better else "higher"
        return f"{start} test {gate.kind.called} is {figure_text(gate, gate.figure)} {how}, beyond chance ({limit})"
    what = {"bytes": "the bytes", "latency": "the time of a call"}[gate.name]
    return f"{start} {figure_text(gate, gate.figure)} {what} of before ({limit})"


def _name(file: FileChange) -> str:
    return f"{file.title} ({file.role})"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
