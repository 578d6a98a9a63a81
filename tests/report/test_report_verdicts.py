"""The sentences of a report, and its gates."""

import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample import failed, four_rows, latency, make_report, make_row

from edgeopt.recipe.gates import Gates
from edgeopt.report import figures
from edgeopt.report.gates import judge
from edgeopt.report.schema import ProgramScore, Row, class_scores
from edgeopt.report.training import training_of
from edgeopt.report.verdicts import SMOKE, verdicts
from edgeopt.tasks import paired
from edgeopt.types import Curve, PassRecord, Role


def pair(**changes: object) -> tuple[Row, Row]:
    """A float file and an optimized one, with `changes` made to the latter."""
    baseline = make_row(Role.BASELINE, wrong=2, size_bytes=6_000_000, p50=4.0, delegated=1.0)
    return baseline, replace(make_row(wrong=3, size_bytes=2_000_000, p50=2.0, delegated=1.0), **changes)


def told(rows: tuple[Row, ...], passes: tuple[PassRecord, ...] = (), *, smoke: bool = False) -> str:
    return "\n".join(verdicts(rows, passes, smoke=smoke))


def test_smaller_and_faster() -> None:
    first, second = verdicts(pair())
    assert first == (
        "executorch int8 is 3.0 times smaller than float32 (6.00 MB to 2.00 MB) "
        "and 2.0 times faster (p50 4.00 ms to 2.00 ms)."
    )
    assert "from 99.3 % of the float file to 98.9 % (−0.4 points): 2 images lost, 1 gained, p = 1.00" in second
    assert "may be chance" in second


def test_slower_is_said_plainly() -> None:
    assert "but 1.5 times slower (p50 4.00 ms to 6.00 ms)" in told(pair(latency_ms=latency(6.0)))


def test_larger_is_said_plainly() -> None:
    assert "2.0 times larger than float32" in told(pair(size_bytes=12_000_000))


def test_latencies_whose_spreads_overlap_are_not_called_faster() -> None:
    text = told(pair(latency_ms=latency(3.9, spread=0.1)))
    assert "difference in latency is within the noise" in text
    assert "faster" not in text


def in_turns(before: tuple[float, ...], after: tuple[float, ...]) -> tuple[Row, Row]:
    """A float file and an optimized one whose turns took so long, ms."""
    baseline, optimized = pair()
    return (
        replace(baseline, latency_ms=replace(latency(statistics.median(before)), turns=before)),
        replace(optimized, latency_ms=replace(latency(statistics.median(after)), turns=after)),
    )


def test_a_file_that_was_slower_in_one_turn_is_not_called_faster() -> None:
    text = told(in_turns((4.0, 4.0, 1.99), (2.0, 2.0, 2.0)))
    assert "difference in latency is within the noise" in text and "turns from 1.99 ms to 4.00 ms" in text


def test_a_machine_that_halves_its_speed_between_turns_does_not_change_how_much_faster_a_file_is() -> None:
    # it slowed down between the third turns: the one file's was slow, the other's was not
    text = told(in_turns((2.0, 2.0, 4.0, 4.0, 4.0), (1.0, 1.0, 1.0, 2.0, 2.0)))
    assert "and 2.0 times faster (p50 4.00 ms to 1.00 ms)" in text


def test_two_turns_are_too_few_to_agree() -> None:
    rows = in_turns((2.0, 2.1), (1.9, 2.0))
    noisy = replace(rows[1], latency_ms=replace(rows[1].latency_ms, p90=2.2))
    assert "difference in latency is within the noise" in told((rows[0], noisy))
    assert "faster" in told(in_turns((2.0, 2.1, 2.2), (1.8, 1.9, 2.0)))


def test_a_few_per_cent_are_not_called_faster() -> None:
    text = told(in_turns((2.0, 2.0, 2.0), (1.92, 1.92, 1.92)))
    assert "difference in latency is within the noise" in text and "faster (" not in text


def test_latencies_measured_differently_are_not_compared() -> None:
    text = told(pair(latency_ms=replace(latency(1.0), threads=4)))
    assert "measured differently" in text
    assert "faster" not in text


def test_a_noisy_latency_is_doubted() -> None:
    text = told(pair(latency_ms=latency(2.0, spread=0.5)))
    assert (
        "Latency is noisy in 1 of 2 files: executorch int8 (optimized; p50 2.00 ms, p90 3.00 ms). How many times"
        in text
    )
    assert "noisy" not in told(pair())


def test_a_noisy_latency_of_several_threads_is_told_what_threads_do() -> None:
    noisy = latency(2.0, spread=0.5)
    assert "With measure.threads = 1" in told(pair(latency_ms=noisy))
    baseline, optimized = pair()
    alone = tuple(replace(row, latency_ms=replace(noisy, threads=1)) for row in (baseline, optimized))
    text = told((alone[0], alone[1]))
    assert "noisy in 2 of 2" in text and "measure.threads" not in text


def test_turns_far_apart_are_doubted() -> None:
    drifted = replace(latency(2.0), turns=(1.0, 2.0, 2.02))
    assert "(optimized; turns from 1.00 ms to 2.02 ms)" in told(pair(latency_ms=drifted))
    assert "noisy" not in told(pair(latency_ms=replace(drifted, turns=(1.9, 2.0, 2.02))))


def test_one_slow_call_of_a_hundred_is_no_doubt() -> None:
    assert "noisy" not in told(pair(latency_ms=latency(2.0, std=1.0)))


def test_a_real_loss_is_not_called_chance() -> None:
    """The intervals of 268 and 258 right ones of 270 overlap; ten lost and none gained is no chance all the same."""
    worse = replace(make_row(wrong=12, delegated=1.0), against_float_file=paired(270, lost=10, gained=0))
    text = told((pair()[0], worse))
    assert "10 images lost, 0 gained, p = 0.002; this is a loss, not chance" in text
    assert "may be chance" not in text


# ---- answers that are worth nothing --------------------------------------------------------------------------------


def majority(role: Role, right: int = 57, wrong: int = 3) -> Row:
    """A file that answers "ok" for every image, of which so many are ok and so many defect."""
    confusion = ((0, wrong), (0, right))
    return replace(
        make_row(role, count=1),
        test_accuracy=right / (right + wrong),
        confusion=confusion,
        per_class=class_scores(("defect", "ok"), confusion),
        agreement=1.0,
    )


def test_a_file_that_always_names_the_most_frequent_class_is_told_first_and_passes_no_gate() -> None:
    rows = (majority(Role.BASELINE), majority(Role.OPTIMIZED))
    sentences = verdicts(rows)
    assert "executorch float32 (baseline) answers 'ok' for all of 60 test images" in sentences[0]
    assert "executorch int8 (optimized) answers 'ok' for all of 60 test images" in sentences[1]
    results = judge(Gates(accuracy=0.9, agreement=0.5, size_ratio=0.1), rows, PROGRAMS)
    assert len(results) == 4 and not any(result.passed for result in results)
    assert results[0].figure == 0.95
    assert "was missed: 95.00 % (limit ≥ 90.00 %; it answers 'ok' for all of 60 test images)" in results[0].message


def test_a_class_of_which_nothing_is_recognized_is_named() -> None:
    confusion = ((0, 3, 1), (0, 20, 0), (0, 0, 20))
    row = replace(
        make_row(), test_accuracy=40 / 44, confusion=confusion, per_class=class_scores(("defect", "b", "c"), confusion)
    )
    assert "Never recognized by executorch int8 (optimized): defect (4 test images)." in told((row,))
    assert "Never recognized" not in told(pair())
    assert "Never recognized" not in told((row,), smoke=True)


def test_an_accuracy_that_the_most_frequent_class_reaches_is_told() -> None:
    confusion = ((1, 3), (3, 53))
    row = replace(
        make_row(), test_accuracy=54 / 60, confusion=confusion, per_class=class_scores(("defect", "ok"), confusion)
    )
    assert "is right for 54 of 60 test images, no better than naming 'ok', the most frequent class" in told((row,))
    assert "no better" not in told(pair())


def test_an_accuracy_that_chance_reaches_is_told() -> None:
    """22 of 60 are more than the most frequent class gives, and no more than may come of guessing."""
    confusion = ((8, 6, 6), (6, 7, 7), (6, 7, 7))
    row = replace(
        make_row(), test_accuracy=22 / 60, confusion=confusion, per_class=class_scores(("a", "b", "c"), confusion)
    )
    assert "(optimized) is right for 22 of 60 test images, no better than guessing among 3 classes." in told((row,))
    assert "guessing" not in told((row,), smoke=True)


# ---- training ------------------------------------------------------------------------------------------------------


def trained(scores: tuple[float, ...], best: int, name: str = "train") -> PassRecord:
    steps = tuple(float(epoch) for epoch in range(1, len(scores) + 1))
    curve = Curve("validation accuracy", steps, scores, y_label="accuracy")
    return PassRecord(name, {"epochs_run": len(scores), "best_epoch": best}, (curve,))


def test_a_float_model_that_was_still_learning_is_told() -> None:
    passes = (trained((0.10, 0.25, 0.76), 3), trained((0.79,), 1, "qat"))
    text = "\n".join(verdicts(pair(), passes, float_passes=1))
    assert "still learning: the best epoch of train is its last, the 3rd" in text
    assert "from 25.0 % to 76.0 %" in text
    for scores, best in (((0.10, 0.76, 0.75), 2), ((0.90, 0.90, 0.905), 3), ((0.5,), 1)):
        assert "still learning" not in "\n".join(verdicts(pair(), (trained(scores, best),), float_passes=1))


def test_a_gain_beside_more_training_says_so_and_so_does_the_gate() -> None:
    passes = (trained((0.10, 0.25, 0.76), 3), trained((0.79,), 1, "qat"))
    rows = pair(test_accuracy=1.0, against_float_file=paired(270, lost=0, gained=20))
    text = "\n".join(verdicts(rows, passes, float_passes=1))
    assert "a gain, not chance, and not at equal training: the float model had 1 epoch fewer" in text
    (result,) = judge(Gates(accuracy_drop=0.0), rows, PROGRAMS, training_of(passes, 1))
    assert result.note == "not at equal training: the float model had 1 epoch fewer"
    (equal,) = judge(Gates(accuracy_drop=0.0), rows, PROGRAMS, training_of(passes[:1], 1))
    assert equal.note is None


def test_equal_accuracy_is_said_so() -> None:
    assert "test accuracy stayed at 99.3 %, that of the float file (2 images lost" in told(
        (pair()[0], make_row(wrong=2))
    )


def test_the_same_bytes_mean_that_nothing_was_changed() -> None:
    baseline, optimized = pair()
    text = told((baseline, replace(optimized, sha256=baseline.sha256)))
    assert "byte for byte: the passes changed nothing" in text


def test_neither_bytes_nor_milliseconds_gained_is_said_so() -> None:
    assert "brought nothing that can be measured" in told(pair(size_bytes=5_990_000, latency_ms=latency(4.1)))
    assert "brought nothing" not in told(pair())


def test_operators_outside_the_delegate_are_named_and_counted() -> None:
    text = told(pair(outside=("a", "b", "b", "c", "d", "e"), delegated_share=0.9))
    assert "b (2 times), a, c, d and 1 more stayed outside the delegate; 90.0 % of the nodes are inside" in text


def test_a_file_that_departs_from_its_program_is_doubted() -> None:
    text = told(pair(agreement=0.95, differing=14, near_ties=2))
    assert "answers differently from its own program for 5.0 %" in text
    assert "the export changed the model; only 2 of these 14 test images were near ties" in text


def test_agreement_of_boxes_is_not_said_of_images() -> None:
    text = told(pair(agreement=0.8, differing=9, near_ties=0))
    assert "the file's answers agree with its own program's to 80.0 % (9 of 270 images differ) only" in text


def test_near_ties_do_not_alarm() -> None:
    text = told(pair(agreement=0.95, differing=14, near_ties=12))
    assert "12 of these 14 test images were near ties, which rounding alone decides" in text
    assert "changed the model" not in text


def test_a_pass_that_changed_nothing() -> None:
    nothing = PassRecord("prune", {"channels_removed": 0, "layers_pruned": 0, "epochs": 3})
    something = PassRecord("qat", {"layers_quantized": 12, "observers_frozen": 0})
    uncounted = PassRecord("train", {"epochs": 0, "was_frozen": False})
    text = told(pair(), (nothing, something, uncounted))
    assert "Pass prune changed nothing" in text
    assert "qat changed" not in text
    assert "train changed" not in text


def test_warnings_of_passes_and_exports_are_passed_on() -> None:
    text = told(pair(warnings=("opset 21 is new",)), (PassRecord("qat", warnings=("few epochs",)),))
    assert "executorch int8 (optimized): opset 21 is new" in text
    assert "Pass qat: few epochs" in text


def test_failed_files_come_with_the_first_line_of_their_reason() -> None:
    baseline, optimized = pair()
    assert "executorch int8 (optimized) failed: no kernel" in told((baseline, failed(optimized, "no kernel\ntrace")))
    assert "there is no float file" in told((failed(baseline), optimized))


def test_recipes_that_do_not_optimize_are_said_not_to() -> None:
    assert told(pair()[:1]) == "No pass of this recipe optimizes: all files hold the float model."
    assert told(()) == ""


def test_a_smoke_run_says_so_first() -> None:
    assert verdicts(pair(), smoke=True)[0] == SMOKE
    assert "figures mean nothing" in SMOKE


def test_a_smoke_run_raises_no_doubt_about_figures_that_mean_nothing() -> None:
    rows = pair(agreement=0.6, latency_ms=latency(2.0, spread=0.5), outside=("a",))
    text = told(rows, smoke=True)
    assert "answers differently" not in text and "noisy" not in text
    assert "a stayed outside the delegate" in text
    assert "answers differently" in told(rows) and "noisy" in told(rows)


# ---- gates ---------------------------------------------------------------------------------------------------------

PROGRAMS = (ProgramScore(Role.BASELINE, "float32", 0.98, (0.96, 0.99)),)


def outcomes(gates: Gates, rows: tuple[Row, ...], programs: tuple[ProgramScore, ...] = ()) -> list[tuple[str, bool]]:
    return [(result.name, result.passed) for result in judge(gates, rows, programs)]


def test_no_gates_no_results() -> None:
    assert judge(Gates(), four_rows()) == ()


def test_gates_are_about_the_files_that_ship_and_agreement_about_every_file() -> None:
    gates = Gates(accuracy=0.9, accuracy_drop=0.1, agreement=0.9, size_ratio=2.0, latency_ratio=3.0)
    names = [result.name for result in judge(gates, four_rows())]
    assert (
        names
        == ["accuracy"] * 2 + ["accuracy_drop"] * 2 + ["agreement"] * 4 + ["size_ratio"] * 2 + ["latency_ratio"] * 2
    )


@pytest.mark.parametrize(("accuracy", "passed"), [(0.96, True), (0.9599, False), (0.99, True)])
def test_a_drop_that_equals_its_limit_is_allowed(accuracy: float, passed: bool) -> None:
    rows = pair(test_accuracy=accuracy)
    assert outcomes(Gates(accuracy_drop=0.02), rows, PROGRAMS) == [("accuracy_drop", passed)]


def test_a_drop_is_counted_from_the_float_program_and_without_one_from_the_float_file() -> None:
    rows = pair(test_accuracy=0.97)
    result = judge(Gates(accuracy_drop=0.0), rows, PROGRAMS)[0]
    assert result.figure == pytest.approx(0.01)
    assert "against the float program, before any export; 2 images lost, 0 gained, p = 0.50" in result.message
    assert judge(Gates(accuracy_drop=0.0), rows)[0].against == "the float file of the same export"
    assert judge(Gates(accuracy_drop=0.0), rows)[0].figure == pytest.approx(268 / 270 - 0.97)


def test_a_class_has_a_gate_of_its_own() -> None:
    confusion = ((9, 1, 0), (2, 8, 0), (0, 0, 0))
    row = replace(
        make_row(), test_accuracy=17 / 20, confusion=confusion, per_class=class_scores(("cat", "dog", "eel"), confusion)
    )
    asked = judge(Gates(recall={"cat": 0.9, "dog": 0.9, "eel": 0.5, "elk": 0.5}), (row,))
    assert [(each.name, each.passed) for each in asked] == [
        ("recall.cat", True),
        ("recall.dog", False),
        ("recall.eel", False),
        ("recall.elk", False),
    ]
    assert "gate recall.dog" in asked[1].message and "80.00 % (limit ≥ 90.00 %)" in asked[1].message
    assert "the test split has no image of class 'eel'" in asked[2].message


def test_ratios() -> None:
    size, speed = judge(Gates(size_ratio=3.0, latency_ratio=0.5), pair())
    assert (size.figure, size.passed) == (3.0, True)
    assert (speed.figure, speed.passed) == (0.5, True)
    assert outcomes(Gates(size_ratio=3.1, latency_ratio=0.4), pair()) == [
        ("size_ratio", False),
        ("latency_ratio", False),
    ]


def test_a_failed_file_misses_its_gates() -> None:
    baseline, optimized = pair()
    results = judge(Gates(accuracy=0.0, size_ratio=0.1), (baseline, failed(optimized)))
    assert [(result.figure, result.passed, result.reason) for result in results] == [
        (None, False, "the file failed")
    ] * 2
    assert "could not be judged (limit ≥ 0.00 %): the file failed" in results[0].message


def test_a_ratio_without_a_float_file_is_missed_and_says_why() -> None:
    (result,) = judge(Gates(size_ratio=2.0), pair()[1:])
    assert (result.figure, result.passed) == (None, False)
    assert result.reason


def test_without_optimized_files_the_float_files_are_judged() -> None:
    rows = pair()[:1]
    assert outcomes(Gates(accuracy=0.999), rows) == [("accuracy", False)]
    assert outcomes(Gates(accuracy=0.99), rows) == [("accuracy", True)]


def test_a_gate_is_never_silently_skipped() -> None:
    (result,) = judge(Gates(agreement=0.5), ())
    assert (result.passed, result.file) == (False, None)


def test_a_figure_that_is_no_number_misses() -> None:
    rows = pair(test_accuracy=math.nan)
    assert outcomes(Gates(accuracy=0.0, accuracy_drop=1.0), rows) == [("accuracy", False), ("accuracy_drop", False)]


def test_smoke_runs_are_not_judged() -> None:
    assert make_report(smoke=True).gates == ()


def test_messages_say_figure_and_limit() -> None:
    (result,) = judge(Gates(latency_ratio=0.4), pair())
    assert result.message == "gate latency_ratio of executorch/optimized/model.pte was missed: 0.50× (limit ≤ 0.40×)"


# ---- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (figures.percent(0.98889), "98.9 %"),
        (figures.percent(1.0), "100.0 %"),
        (figures.percent(0.99999), ">99.9 %"),
        (figures.percent(None), "–"),
        (figures.whole_percent(0.996), "99 %"),
        (figures.whole_percent(0.29), "29 %"),
        (figures.interval((0.9681, 0.9962)), "96.8–99.6 %"),
        (figures.points(-0.0037), "−0.4 points"),
        (figures.points(0.0037), "+0.4 points"),
        (figures.points(-0.0001), "0.0 points"),
        (figures.size(1_790_000), "1.79 MB"),
        (figures.size(999_999), "1.00 MB"),
        (figures.size(812_300), "812 kB"),
        (figures.size(640), "640 B"),
        (figures.size(24e9), "24.0 GB"),
        (figures.size(None), "–"),
        (figures.milliseconds(0.4123), "0.412 ms"),
        (figures.milliseconds(9.999), "10.0 ms"),
        (figures.milliseconds(143.2), "143 ms"),
        (figures.factor(3.47), "3.5×"),
        (figures.factor(0.774), "0.77×"),
        (figures.factor(12.3), "12×"),
        (figures.seconds(0.42), "0.4 s"),
        (figures.seconds(59.7), "1 min 00 s"),
        (figures.seconds(125), "2 min 05 s"),
        (figures.seconds(7300), "2 h 01 min"),
    ],
)
def test_figures_read_like_this(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(0, 1))
def test_only_a_whole_share_reads_100(share: float) -> None:
    assert (figures.percent(share) == "100.0 %") == (share == 1)
