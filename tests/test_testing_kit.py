"""The contracts find each way in which a plugin can break them, and find nothing in good ones."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from edgeopt.testing import pass_context, tiny_data, tiny_model, tiny_program
from edgeopt.testing.states import logits_of, state_digest
from edgeopt.types import Form

BROKEN = Path(__file__).parent / "broken_plugins.py"

CONTRACTS = {
    "dataset": "DatasetContract",
    "model": "ModelContract",
    "pass": "PassContract",
    "exporter": "ExporterContract",
    "device": "DeviceContract",
}

TWO = "test_takes_a_program_of_two_outputs"
OTHER_PROGRAMS = ("test_takes_an_int8_program", "test_takes_a_program_of_one_image", TWO)

# Each plugin of broken_plugins.py, its kind, and all tests of the contract that must fail for it. All of them live in
# one module that imports numpy; the two tests that find that start a process each, and are run for the first plugin
# only.
EXPECTED = {
    ("dataset", "good-data"): {"test_declaration_is_light", "test_fingerprint_is_light"},
    ("dataset", "wrong-labels"): {
        "test_targets_are_such_as_the_task_takes",
        "test_every_class_has_training_images",
        "test_a_run_can_use_it",
    },
    ("dataset", "wrong-type"): {"test_targets_are_such_as_the_task_takes", "test_a_run_can_use_it"},
    ("dataset", "float-images"): {
        "test_images_can_be_read",
        "test_images_differ",
        "test_loading_twice_gives_the_same",
        "test_a_run_can_use_it",
    },
    ("dataset", "restless"): {"test_loading_twice_gives_the_same"},
    ("dataset", "same-images"): {"test_images_differ"},
    ("dataset", "twice-a-name"): {"test_classes_have_names_of_their_own", "test_a_run_can_use_it"},
    ("dataset", "restless-print"): {"test_fingerprint_stays_the_same"},
    ("dataset", "good-found"): set(),
    ("dataset", "miscounted"): {"test_survey_counts_what_is_loaded"},
    ("dataset", "held"): {"test_what_was_found_can_be_handed_on"},
    ("dataset", "forgetful-found"): {"test_what_was_found_can_be_handed_on"},
    ("model", "good-model"): set(),
    ("model", "fixed-head"): {"test_head_follows_the_number_of_classes"},
    ("model", "unpicklable"): {"test_survives_the_store"},
    ("model", "unseeded"): {"test_weights_follow_the_seed"},
    ("model", "bad-options"): {
        "test_every_option_is_described",
        "test_unknown_option_is_an_error",
        "test_options_are_frozen",
        "test_printed_toml_can_be_pasted",
    },
    ("pass", "good-pass"): set(),
    ("pass", "in-place"): {"test_gives_a_new_state_and_leaves_its_input_alone"},
    ("pass", "forgetful"): {"test_records_what_it_did"},
    ("pass", "random-pass"): {"test_same_seed_gives_the_same"},
    ("pass", "idle"): {"test_changes_something"},
    ("pass", "wrong-form"): {"test_gives_the_form_that_it_declares"},
    ("exporter", "good-export"): set(),
    ("exporter", "salted"): {"test_same_program_gives_the_same_bytes"},
    ("exporter", "litter"): {  # nothing is made of it: a run refuses it as the contract does
        "test_writes_one_file_where_it_is_told",
        "test_describes_input_and_output",
        "test_file_agrees_with_program",
        "test_file_agrees_in_calls_of_its_fixed_batch",
        "test_prediction_leaves_the_batch_alone_and_repeats",
        "test_it_answers_on_a_device_as_here",
        "test_answer_does_not_depend_on_neighbours",
        "test_same_program_gives_the_same_bytes",
        "test_leaves_the_program_alone",
        "test_footprint_is_as_declared",
        "test_each_accelerator_gives_a_verdict_on_each_operator",
        *OTHER_PROGRAMS,
    },
    ("exporter", "off"): {"test_file_agrees_with_program", *OTHER_PROGRAMS},
    ("exporter", "one-image"): {"test_file_agrees_with_program", "test_takes_an_int8_program", TWO},
    ("exporter", "in-tens"): set(),
    ("exporter", "tens-unsaid"): {
        "test_file_agrees_in_calls_of_its_fixed_batch",
        "test_takes_a_program_of_one_image",
    },
    ("exporter", "tens-of-nine"): {"test_file_agrees_in_calls_of_its_fixed_batch", "test_takes_an_int8_program", TWO},
    ("exporter", "other-there"): {"test_it_answers_on_a_device_as_here"},
    ("exporter", "heavy-there"): {"test_it_answers_on_a_device_as_here"},
    ("exporter", "one-scale"): {"test_answer_does_not_depend_on_neighbours"},
    ("exporter", "trusting"): {
        "test_answer_does_not_depend_on_neighbours",
        "test_file_agrees_with_program",
        *OTHER_PROGRAMS,
        "test_prediction_leaves_the_batch_alone_and_repeats",
        "test_half_a_file_is_refused",
    },
    ("device", "good-device"): set(),
    ("device", "by-size"): {"test_files_answer_there_as_here"},
    ("device", "trusting-device"): {"test_a_file_of_other_bytes_is_refused"},
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """The contract's tests that failed for each plugin, by a class named after it."""
    folder = tmp_path_factory.mktemp("contracts")
    lines = ["from pathlib import Path", "import edgeopt.testing as kit", f"FILES = (Path({str(BROKEN)!r}),)"]
    for kind, name in EXPECTED:
        options = "{'arch': 'xx'}" if name == "bad-options" else "{'image_size': 12}" if kind == "dataset" else "{}"
        lines += [
            f"class Test_{name.replace('-', '_')}(kit.{CONTRACTS[kind]}):",
            f"    name, options, plugin_files = {name!r}, {options}, FILES",
            f"    fixed_batch = {10 if 'tens' in name else None}" if kind == "exporter" else "",
        ]
    (folder / "test_contracts.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", "--junitxml=out.xml", "."]
    command += [
        "-k",
        "(not is_light and not half_a_file and not (two_outputs and float)) or good_data or (half_a_file and (good_export or trusting))",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    failed: dict[str, set[str]] = {}
    for case in ET.parse(folder / "out.xml").iter("testcase"):
        tests = failed.setdefault(case.get("classname", "").rpartition("Test_")[2].replace("_", "-"), set())
        if case.find("failure") is not None or case.find("error") is not None:
            tests.add(case.get("name", "").partition("[")[0])
    return failed


@pytest.mark.parametrize(("kind", "name"), EXPECTED, ids=lambda value: value)
def test_contract_finds_what_is_broken_and_nothing_else(failed, kind, name):
    assert failed[name] == EXPECTED[kind, name]


def test_tiny_data_is_the_same_each_time_and_has_no_test_split():
    first, second = tiny_data(classes=5, image_size=24, per_class=4), tiny_data(classes=5, image_size=24, per_class=4)
    assert np.array_equal(first.train.pixels(slice(None)), second.train.pixels(slice(None)))
    assert len(first.train) == len(first.validation) == 20
    assert not np.array_equal(first.train.pixels([0]), first.validation.pixels([0]))
    assert not hasattr(first, "test")


def test_tiny_model_and_program_compute_the_same():
    data = tiny_data()
    model, program = tiny_model(data), tiny_program(data)
    assert (model.form, program.form) == (Form.MODULE, Form.PROGRAM)
    assert state_digest(model) == state_digest(tiny_model(data))
    np.testing.assert_allclose(logits_of(model, data.validation), logits_of(program, data.validation), atol=1e-5)


def test_tiny_data_can_be_learned(tmp_path):
    """A pass that trains can show that it does: a few steps are enough."""
    import torch

    data, state = tiny_data(per_class=16), tiny_model()
    context = pass_context(tmp_path, data)
    assert context.work_dir.is_dir()
    model = state.model.train()
    batch = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(slice(None))))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        state.task.loss((model(batch),), torch.from_numpy(data.train.labels)).backward()
        optimizer.step()
    score = state.task.score((logits_of(state, data.validation, 48),), data.validation.labels)
    assert score.value > 0.9
