"""An allocation comes back as it was written, and what is wrong in one is told with its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.errors import UserError
from edgeopt.sensitivity.allocation import Allocation, read_allocation


def share(level):
    return None if 0 <= level < 1 else f"{level:g} is no share of zeros"


def read(tmp_path, text, name="allocation.toml", of="sparsity"):
    path = tmp_path / name
    path.write_text(text)
    return read_allocation(path, of, share)


names = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=20)


@given(st.dictionaries(names, st.floats(0, 0.99), min_size=1, max_size=5))
def test_what_is_written_is_read(tmp_path_factory, levels):
    written = Allocation("sparsity", levels)
    found = read(tmp_path_factory.mktemp("allocation"), written.to_toml("two lines\nof comment"))
    assert found.levels == levels
    assert found.fingerprint == written.fingerprint
    assert set(found.lines) == set(levels)


def test_csv_of_a_person_and_of_a_scan(tmp_path):
    assert read(tmp_path, "layer,sparsity\nfeatures.0, 0.5\nhead,0.9\n", "a.csv").levels == {
        "features.0": 0.5,
        "head": 0.9,
    }
    scan = "layer,sparsity,score,recommended\na,0.5,0,\na,0.7,0,yes\nb,0.5,1,\n"
    assert read(tmp_path, scan, "b.csv").levels == {"a": 0.7}


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("a.toml", "of = 'sparsity'\n[layers]\n'a' = 0.5\n'b' = 1.5\n", 4, "'b': 1.5 is no share"),
        ("a.toml", "of = 'sparsity'\n[layers]\n'a' = 'much'\n", 3, "'much' is not a number"),
        ("a.toml", "of = 'sparsity'\n[layers]\na.b = 0.5\n", 3, "is not a number"),
        ("a.toml", "of = 'bits'\n[layers]\na = 0.5\n", 1, "holds levels of 'bits', not of 'sparsity'"),
        ("a.toml", "[layers]\na = 0.5\n", 1, "does not say what its levels are of"),
        ("a.toml", "of = 'sparsity'\nlayer = 3\n[layers]\na = 0.5\n", 2, "unknown key 'layer'"),
        ("a.toml", "of = 'sparsity'\n", 1, "no table"),
        ("a.toml", "of = 'sparsity'\n[layers]\n", 1, "no layer is named"),
        ("a.toml", "of = \n", None, "no TOML"),
        ("a.csv", "layer,bits\na,4\n", 1, "holds levels of 'bits'"),
        ("a.csv", "name,sparsity\na,4\n", 1, "the columns are name, sparsity"),
        ("a.csv", "layer,sparsity\na,0.5\na,0.6\n", 3, "named again"),
        ("a.csv", "layer,sparsity\na,half\n", 2, "'half' is not a number"),
    ],
)
def test_mistakes_have_a_line(tmp_path, name, text, line, message):
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path, text, name)
    assert [problem.location.line for problem in raised.value.problems] == [line]
    assert raised.value.problems[0].location.file.endswith(name)


def test_unknown_layers_are_told_with_their_lines(tmp_path):
    found = read(tmp_path, "of = 'sparsity'\n[layers]\n'features.0' = 0.5\n'heed' = 0.5\n")
    with pytest.raises(UserError, match="no layer 'heed'") as raised:
        found.require_layers(["features.0", "head"])
    (problem,) = raised.value.problems
    assert problem.location.line == 4
    assert "'head'" in problem.hint


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read") as raised:
        read_allocation(tmp_path / "none.toml", "bits", share)
    assert raised.value.problems[0].option == "allocation"
