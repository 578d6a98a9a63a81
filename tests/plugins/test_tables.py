"""Images that a file names: csv and jsonl as people write them, and what is wrong with them, line by line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgeopt.data.cache import load_data
from edgeopt.data.prepare import prepare
from edgeopt.errors import DataError, RecipeError
from edgeopt.plugins import DataSurvey
from edgeopt.plugins.registry import Registry
from edgeopt.progress import Silent
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import read_recipe
from edgeopt_images.options import CsvOptions, JsonlOptions
from edgeopt_images.plugin import edgeopt_datasets

CSV, JSONL = (next(each for each in edgeopt_datasets() if each.name == name) for name in ("csv", "jsonl"))


def images(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (9, 9), (index, 3 * index % 256, 7)).save(folder / f"{index}.png")
    return [f"{index}.png" for index in range(count)]


def csv_file(root: Path, *lines: str, header: str = "image,label") -> Path:
    (root / "labels.csv").write_text("\n".join((header, *lines)) + "\n")
    return root / "labels.csv"


def problems(path: Path, kind: type = CsvOptions, **given: object) -> str:
    plugin = CSV if kind is CsvOptions else JSONL
    with pytest.raises(DataError) as caught:
        plugin.find(kind(path=path, **given))
    return str(caught.value)


def test_a_csv_with_splits_groups_and_paths_of_its_own(tmp_path: Path) -> None:
    names = images(tmp_path / "data", 12)
    lines = []
    for index, name in enumerate(names):
        image = str(tmp_path / "data" / name) if index == 0 else f"data/{name}"
        split = "Training" if index < 8 else "val" if index < 10 else "test"
        label = '"é,t"' if index % 2 else "cat"
        lines.append(f'"{image}",{label}, {split},p{index // 2}')
    path = csv_file(tmp_path, *lines, "", header="﻿image,label,subset,patient")
    options = CsvOptions(path=path, split_column="subset", group_column="patient", image_size=8)
    found = CSV.find(options)
    cats = {"train": 4, "validation": 1, "test": 1}
    assert found.survey() == DataSurvey({split: {"cat": count, "é,t": count} for split, count in cats.items()})
    raw = found.load()
    assert raw.classes == ("cat", "é,t") and raw.groups["train"] == [f"p{index // 2}" for index in range(8)]
    assert raw.splits["train"][0].getpixel((0, 0)) == (0, 0, 7)
    values = prepare(raw, options, tmp_path, Silent())
    assert values.splits["test"].per_class == {"cat": 1, "é,t": 1}
    assert raw.splits["train"].name_of(1) == str(tmp_path / "data/1.png")


def test_jsonl_has_the_same_splits_and_fingerprint_as_the_csv(tmp_path: Path) -> None:
    names = images(tmp_path, 30)
    rows = [(name, index % 11) for index, name in enumerate(names)]
    written = csv_file(tmp_path, *(f"{name};{label}" for name, label in rows), header="file;class")
    told = tmp_path / "labels.jsonl"
    told.write_text("\n".join(json.dumps({"file": name, "class": label, "more": [1]}) for name, label in rows))
    columns = {"image_column": "file", "label_column": "class"}
    one = CSV.find(CsvOptions(path=written, delimiter=";", **columns))
    two = JSONL.find(JsonlOptions(path=told, **columns))
    assert one.survey() == two.survey() and one.fingerprint() == two.fingerprint()
    assert one.classes == tuple(str(number) for number in range(11)), "numbers in their own order"
    (tmp_path / "29.png").rename(tmp_path / "other.png")
    assert "29.png does not exist" in problems(written, delimiter=";", **columns)
    (tmp_path / "other.png").rename(tmp_path / "29.png")
    assert CSV.find(CsvOptions(path=written, delimiter=";", **columns)).fingerprint() == one.fingerprint()
    os.utime(tmp_path / "29.png", ns=(1, 1))
    assert CSV.find(CsvOptions(path=written, delimiter=";", **columns)).fingerprint() != one.fingerprint()


def test_every_bad_line_of_a_csv_is_named_at_once(tmp_path: Path) -> None:
    images(tmp_path, 3)
    (tmp_path / "folder").mkdir()
    path = csv_file(
        tmp_path,
        "0.png,cat",
        "gone.png,cat",
        "1.png",
        ",dog",
        "2.png,",
        "https://example.org/a.png,dog",
        "folder,dog",
        "0.png,dog",
        '"2.png"x,dog',
        "0.png,cat",
        "1.png,dog,more",
    )
    said = problems(path)
    for number, what in {
        3: "gone.png does not exist",
        4: "1 field, and the header has 2",
        5: "no path of an image",
        6: "no label",
        7: "is not the path of a file on this machine",
        8: "folder is a folder",
        9: "0.png is 'dog' here and 'cat' in line 2",
        10: "not CSV",
        12: "3 fields",
    }.items():
        assert any(line.startswith(f"{path}:{number}: ") and what in line for line in said.split("\n")), (number, said)
    assert said.count("labels.csv:") == 9


def test_bad_lines_are_skipped_and_counted_as_in_a_folder(tmp_path: Path) -> None:
    names = images(tmp_path, 24)
    (tmp_path / "3.png").write_bytes(b"no image")
    lines = [f"{name},{'ab'[index % 2]}" for index, name in enumerate(names)]
    path = csv_file(tmp_path, *lines, "0.png,a", "http://a/b.png,a", ",b", "gone.png,b")
    options = CsvOptions(path=path, on_error="skip", image_size=8)
    found = CSV.find(options)
    assert found.survey().counts == {"train": {"a": 12, "b": 13}}
    said = " ".join(found.warnings)
    assert f"2 lines of {path} were left out; the first: {path}:27:" in said and "1 line repeats an earlier" in said
    values = prepare(found.load(), options, tmp_path, Silent())
    assert len(values.skipped) == 2 and any("gone.png" in each for each in values.skipped)
    assert sum(each.count for each in values.splits.values()) == 23


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{image: 1}", "not JSON"),
        ("[1, 2]", "[1, 2] is no object"),
        ('{"image": "0.png", "label": ["cat", "dog"]}', "'label' is a list, and an image has one label"),
        ('{"image": "0.png", "label": 0.5}', "'label' is 0.5"),
        ('{"image": "0.png", "label": null}', "no label"),
        ('{"label": "cat"}', "no path of an image"),
        ('{"image": {"bytes": 1}, "label": 1}', "'image' is an object"),
    ],
)
def test_a_bad_line_of_a_jsonl_is_named(line: str, what: str, tmp_path: Path) -> None:
    images(tmp_path, 1)
    path = tmp_path / "labels.jsonl"
    path.write_text('{"image": "0.png", "label": "cat"}\n\n' + line + "\n")
    assert f"{path}:3: " in problems(path, JsonlOptions) and what in problems(path, JsonlOptions)


def test_a_file_that_is_none_and_columns_that_are_not_there(tmp_path: Path) -> None:
    images(tmp_path, 2)
    assert "does not exist" in problems(tmp_path / "gone.csv") and "is a folder" in problems(tmp_path)
    said = problems(csv_file(tmp_path, "0.png,cat", header="imagee,klass"))
    assert "no column 'image'" in said and "did you mean 'imagee'" in said and "no column 'label'" in said
    assert "Set label_column" in said
    assert 'set delimiter = ";"' in problems(csv_file(tmp_path, "0.png;cat", header="image;label"))
    assert "'purpose' is no split" in problems(
        csv_file(tmp_path, "0.png,cat,purpose", header="image,label,split"), split_column="split"
    )
    assert "two columns 'label'" in problems(csv_file(tmp_path, "0.png,cat,a", header="image,label,label"))
    assert "holds no lines" in problems(csv_file(tmp_path))
    assert "root takes the folder" in problems(csv_file(tmp_path, "0.png,cat"), root=tmp_path / "gone")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("image,label\n0.png,Käse\n".encode("latin-1"))
    assert f"{latin}:2: not UTF-8: byte 0xe4" in problems(latin)
    with pytest.raises(ValidationError, match="named for two things"):
        CsvOptions(path=latin, split_column="label")


def test_a_group_of_a_file_is_never_divided(tmp_path: Path) -> None:
    names = images(tmp_path, 60)
    path = csv_file(
        tmp_path,
        *(f"{name},{'ab'[index % 2]},p{index // 6}" for index, name in enumerate(names)),
        header="image,label,patient",
    )
    options = CsvOptions(path=path, group_column="patient", image_size=8)
    raw = CSV.find(options).load()
    (tmp_path / "out").mkdir()
    values = prepare(raw, options, tmp_path / "out", Silent())
    assert values.groups["train"] + values.groups["validation"] + values.groups["test"] == 10
    assert len(load_data(tmp_path / "out", options, lambda: raw).test) == values.groups["test"] * 6
    assert np.sum([each.count for each in values.splits.values()]) == 60


def test_a_gate_on_a_class_that_is_none_is_refused_by_check(registry: Registry, tmp_path: Path) -> None:
    lines = [f"{name},{'ab'[index % 2]}" for index, name in enumerate(images(tmp_path, 20))]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'schema = 1\nname = "r"\n[dataset]\nuse = "csv"\npath = "{csv_file(tmp_path, *lines)}"\nimage_size = 16\n[model]\n'
        'use = "linear"\n[[passes]]\nuse = "fit-stripes"\n[[exports]]\nuse = "npz"\n[gates.recall]\na = 0.5\nc = 0.9\n'
    )
    with pytest.raises(RecipeError) as caught:
        make_plan(read_recipe(recipe), registry)
    assert f"{recipe}:15: gates.recall names a class 'c', and the data set has none" in str(caught.value)
    recipe.write_text(recipe.read_text().replace("c = 0.9\n", ""))
    assert make_plan(read_recipe(recipe), registry).recipe.gates.recall == {"a": 0.5}


def test_several_labels_an_image_from_both_kinds_of_file(tmp_path: Path) -> None:
    names = images(tmp_path, 40)
    rows = [
        (name, [label for place, label in enumerate(("cat", "dog", "elk")) if index >> place & 1])
        for index, name in enumerate(names)
    ]
    written = csv_file(tmp_path, *(f"{name},{'; '.join(labels)}" for name, labels in rows))
    (tmp_path / "labels.jsonl").write_text(
        "\n".join(json.dumps({"image": name, "label": labels}) for name, labels in rows)
    )
    one = CSV.find(CsvOptions(path=written, several_labels=True, label_separator=";"))
    two = JSONL.find(JsonlOptions(path=tmp_path / "labels.jsonl", several_labels=True))
    assert one.fingerprint() == two.fingerprint()
    assert one.survey().counts == two.survey().counts == {"train": {"cat": 20, "dog": 20, "elk": 20}}
    assert "which are what is counted: 40 images in train" in one.survey().warnings[0]
    raw = two.load()
    assert raw.classes == ("cat", "dog", "elk")
    assert [raw.splits["train"].target(index) for index in (0, 5, 6)] == [(0, 0, 0), (1, 0, 1), (0, 1, 1)]
    assert raw.splits["train"][3].size == (9, 9)
    assert CSV.tasks_of(CsvOptions(path=written, several_labels=True)) == ("multi-label",)
    assert CSV.tasks_of(CsvOptions(path=written)) == ("classification",)
    with pytest.raises(ValidationError, match="is for several_labels"):
        CsvOptions(path=written, label_separator=";")
    path = csv_file(tmp_path, "0.png,cat|dog", "0.png,cat", "1.png,dog|dog|")
    said = problems(path, several_labels=True)
    assert f"{path}:3: 0.png is 'cat' here and 'cat' and 'dog' in line 2" in said and said.count("labels.csv:") == 1
    (tmp_path / "bad.jsonl").write_text('{"image": "0.png", "label": ["a", 0.5]}\n')
    assert "'label' is 0.5" in problems(tmp_path / "bad.jsonl", JsonlOptions, several_labels=True)
