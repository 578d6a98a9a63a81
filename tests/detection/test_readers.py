"""Boxes of other people's files: right ones in px and by class, wrong ones named where they stand, all at once."""

import json
import pickle
from collections.abc import Mapping
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image

from edgeopt.errors import DataChangedError
from edgeopt.plugins import DataError
from edgeopt_detection.boxes import overlaps
from edgeopt_detection.found import find_coco, find_hugging_face, find_voc, find_yolo
from edgeopt_detection.options import CocoOptions, HuggingFaceBoxesOptions, VocOptions, YoloOptions
from edgeopt_detection.readers import json_stream
from edgeopt_detection.readers.coco import CocoPart, read_coco
from edgeopt_detection.readers.columns import read_columns
from edgeopt_detection.readers.voc import read_voc
from edgeopt_detection.readers.yolo import read_yolo
from edgeopt_detection.shapes import SHAPES, make_shape_boxes

WIDTH, HEIGHT = 40, 30


def write_images(folder, *names, size=(WIDTH, HEIGHT)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size, (9, 9, 9)).save(folder / name)


def problems(error: pytest.ExceptionInfo) -> str:
    return "\n".join(map(str, error.value.problems))


# ---- COCO ----------------------------------------------------------------------------------------------------------


def coco(folder, annotations, *, images=3, categories=((3, "cat"), (17, "dog")), extra=None, name="train.json"):
    write_images(folder / "images", *(f"{number}.jpg" for number in range(images)))
    content: Mapping = {
        "info": {"year": 2026, "text": "brackets ] } in a text"},
        "annotations": annotations,
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT} for number in range(images)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories],
        **(extra or {}),
    }
    (folder / name).write_text(json.dumps(content, indent=1))
    return {"train": CocoPart(folder / name, folder / "images")}


def annotation(number, image, box, category=3, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, **more}


def test_coco_gives_boxes_in_px_with_classes_whose_ids_have_gaps(tmp_path):
    rows = [
        annotation(7, 2, [1, 2, 10, 5], 17),
        annotation(9, 0, [0, 0, 40, 30], iscrowd=1, segmentation={"counts": [1, 2], "size": [30, 40]}),
        annotation(8, 2, [35, 20, 5.6, 10], segmentation=[[1, 2, 3, 4]]),
    ]
    data = read_coco(coco(tmp_path, rows), skip=False)
    train = data.splits["train"]
    assert data.classes == ("cat", "dog")
    assert train.target(2).corners.tolist() == [[1, 2, 11, 7], [35, 20, 40, 30]]  # cut at the edge
    assert train.target(2).classes.tolist() == [1, 0]
    assert train.target(0).crowd.tolist() == [True]
    assert len(train) == 3
    assert len(train.target(1)) == 0
    assert train[1].size == (WIDTH, HEIGHT)
    assert data.warnings == ("train: 1 of 3 images have no boxes",)


def test_everything_wrong_with_coco_is_told_at_once_and_can_be_skipped(tmp_path):
    wrong = [
        annotation(1, 0, [1, 1, float("nan"), 4]),
        annotation(2, 0, [5, 5, 0, 4]),
        annotation(3, 1, [38, 5, 20, 4]),
        annotation(4, 1, [1, 1, 2]),
        annotation(5, 1, [1, 1, 2, 2], 99),
        annotation(6, 77, [1, 1, 2, 2]),
        annotation(7, 1, [3, 3, 5, 5]),
        annotation(8, 1, [3, 3, 5, 5]),
        annotation(8, 1, [4, 4, 5, 5]),
        *(annotation(number, 2, [number - 8, 1, 3, 4]) for number in range(10, 20)),
    ]
    parts = coco(tmp_path, wrong)
    (tmp_path / "images" / "2.jpg").unlink()
    write_images(tmp_path / "images", "stranger.png")
    with pytest.raises(DataError) as caught:
        read_coco(parts, skip=False)
    told = problems(caught)
    for words in (
        "annotation 1: 1, 1, nan, 4 are no four numbers",
        "annotation 2: 5, 5, 0, 4 has no area",
        "annotation 3: 38, 5, 20, 4 lies outside the image of 40 × 30 px",
        "annotation 4: bbox is [1, 1, 2]",
        "annotation 5 is of category 99",
        "annotation 6 is of image 77",
        "annotation 8: the same box and class as",
        "annotation 8: its id stands there twice",
        "image 2 (2.jpg) is not in",
        'on_error = "skip"',
    ):
        assert words in told
    data = read_coco(parts, skip=True)
    assert [len(data.splits["train"].target(image)) for image in range(2)] == [0, 1]
    said = "\n".join(data.warnings)
    assert "1 boxes without area were left out, such as" in said
    assert "1 images that are not there were left out" in said
    assert "1 images of" in said
    assert said.count("left out") == 10


def test_many_mistakes_of_a_kind_are_counted(tmp_path):
    rows = [annotation(number, 0, [1, 1, 0, 5]) for number in range(20)] + [
        annotation(99 + place, 1, [place, 0, 5, 5]) for place in range(30)
    ]
    with pytest.raises(DataError) as caught:
        read_coco(coco(tmp_path, rows), skip=False)
    assert len(caught.value.problems) == 6
    assert "and 15 more boxes without area" in problems(caught)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "right as corners x1, y1, x2, y2 in px"),
        (lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT], "no number of the 60 boxes"),
    ],
)
def test_boxes_in_another_form_are_told_as_such(tmp_path, box, words):
    random = np.random.default_rng(0)
    rows = [
        annotation(number, number % 3, box(*random.uniform((18, 14, 2, 2), (28, 20, 9, 9)).tolist()))
        for number in range(60)
    ]
    with pytest.raises(DataError) as caught:
        read_coco(coco(tmp_path, rows), skip=True)
    assert words in problems(caught)
    assert len(caught.value.problems) == 1


def test_coco_files_that_do_not_hold_together_are_refused(tmp_path):
    twice = {"images": [{"id": 0, "file_name": f"{each}.jpg", "width": 4, "height": 4} for each in range(2)]}
    with pytest.raises(DataError, match=r"image id 0 stands there twice, for 0\.jpg and 1\.jpg"):
        read_coco(coco(tmp_path, [], extra=twice), skip=True)
    with pytest.raises(DataError, match="two categories have the name 'cat'"):
        read_coco(coco(tmp_path, [], categories=((1, "cat"), (2, "cat"))), skip=True)
    with pytest.raises(DataError, match="has no images and categories"):
        read_coco(coco(tmp_path, [], images=0, categories=()), skip=True)
    parts = coco(tmp_path, [])
    other = coco(tmp_path, [], categories=((3, "cat"), (18, "dog")), name="val.json")
    with pytest.raises(DataError, match=r"has other categories than .*train.json: \(17, 'dog'\), \(18, 'dog'\)"):
        read_coco({**parts, "validation": other["train"]}, skip=False)


def test_json_of_any_size_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_PIECE", 37)
    rows = [annotation(number, number % 3, [1, 2, 3 + number % 7, 4], note="ä[{") for number in range(50)]
    path = coco(tmp_path, rows)["train"].annotations
    whole = json.loads(path.read_text())
    found: dict = {}
    for key, value in json_stream.list_elements(path):
        found.setdefault(key, []).append(value)
    assert found.pop("info") == [whole.pop("info")]
    assert found == whole
    path.write_text(path.read_text()[:800])
    cut = path.read_text().count("\n") + 1
    with pytest.raises(DataError, match=r"train.json:\d+: expected"):
        list(json_stream.list_elements(path))
    assert cut > 10
    for text in ("", "[1]", '{"images": [1 2]}', '{"images": [1], 3: 4}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"train\.json:1: expected"):
            list(json_stream.list_elements(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(json_stream.list_elements(tmp_path / "none.json"))


# ---- YOLO ----------------------------------------------------------------------------------------------------------


def yolo(folder, labels, *, settings="train: images/train\nnames: [cat, dog]\n"):
    (folder / "labels" / "train").mkdir(parents=True)
    write_images(folder / "images" / "train", *(f"{number}.jpg" for number in range(len(labels))))
    for number, text in enumerate(labels):
        if text is not None:
            (folder / "labels" / "train" / f"{number}.txt").write_text(text)
    if settings:
        (folder / "data.yaml").write_text(settings)
    return folder


def test_yolo_gives_boxes_of_shares_and_of_polygons_in_px(tmp_path):
    folder = yolo(tmp_path, ["1 0.5 0.5 0.5 0.2\n0 0.1 0.1 0.3 0.1 0.2 0.4\n", "", None])
    turned = Image.new("RGB", (HEIGHT, WIDTH))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "images" / "train" / "2.jpg", exif=exif)
    (folder / "labels" / "train" / "2.txt").write_text("0 0.5 0.5 1 1")
    data = read_yolo(folder, skip=False)
    train = data.splits["train"]
    assert data.classes == ("cat", "dog")
    np.testing.assert_allclose(train.target(0).corners, [[10, 12, 30, 18], [4, 3, 12, 12]], atol=1e-4)
    assert train.target(0).classes.tolist() == [1, 0]
    np.testing.assert_allclose(train.target(2).corners, [[0, 0, WIDTH, HEIGHT]])  # upright, it is 40 px wide
    assert data.warnings == ("train: 1 of 3 images have no boxes",)


def test_everything_wrong_with_yolo_is_told_with_file_and_line(tmp_path):
    folder = yolo(
        tmp_path,
        [
            "0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n0 0.5 0.5\nx 1 2 3 4\n1 1.4 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0 0.2\n"
        ],
    )
    (folder / "labels" / "train" / "lonely.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(DataError) as caught:
        read_yolo(folder, skip=False)
    told = problems(caught)
    for line, words in {
        2: "class 7, and data.yaml names 0 to 1",
        3: "3 numbers",
        4: "are no numbers",
        5: "lies outside",
        6: "same box",
        7: "has no area",
    }.items():
        assert any(f"0.txt:{line}: " in each and words in each for each in told.split("\n")), (line, told)
    data = read_yolo(folder, skip=True)
    assert len(data.splits["train"].target(0)) == 1
    assert any("1 files of boxes have no image, such as" in each for each in data.warnings)


def test_yolo_in_px_is_told_as_such(tmp_path):
    folder = yolo(tmp_path, ["0 20 15 10 10\n1 12 9 4 6\n0 22 14 9 8"])
    with pytest.raises(DataError, match="most have numbers far above 1: they are in px"):
        read_yolo(folder, skip=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "has no data.yaml: it holds images, labels"),
        ("train: images/train\n", "has no names"),
        ("names: [a]\n", "names no images to train on"),
        ("train: images/nowhere\nnames: [a]\n", "names images/nowhere, which is not there"),
        ("train: images/train\nnames: {0: a, 2: b}\n", "are numbered 0, 2"),
        ("train: images/train\nnames: [a, a]\n", "two classes called a"),
        ("train: images/train\nnames: [a]\nnc: 3\n", "says nc: 3 and names 1"),
        ("train: [\n", "data.yaml:2: this is no YAML"),
        ("- a\n", "no table of train"),
        ("train: labels\nnames: [a]\n", "holds no images"),
    ],
)
def test_yolo_folders_that_say_too_little_are_refused(tmp_path, settings, words):
    with pytest.raises(DataError) as caught:
        read_yolo(yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"], settings=settings), skip=True)
    assert words in problems(caught)


def test_yolo_takes_roboflows_paths_lists_and_names_by_number(tmp_path):
    for split in ("train", "valid"):
        write_images(tmp_path / split / "images", "a.jpg")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.5")
    (tmp_path / "test.txt").write_text("./valid/images/a.jpg\n\n./valid/images/gone.jpg\n")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: test.txt\nnames: {1: dog, 0: cat}\n"
    )
    data = read_yolo(tmp_path, skip=True)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1, "validation": 1, "test": 1}
    assert data.classes == ("cat", "dog")
    assert all(split.target(0).classes.tolist() == [1] for split in data.splits.values())


# ---- Pascal VOC ----------------------------------------------------------------------------------------------------


def voc_xml(image, *objects, size=(WIDTH, HEIGHT)):
    rows = "".join(
        f"<object><name>{escape(name)}</name><difficult>{int(hard)}</difficult><bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box, hard in objects
    )
    return f"<annotation><filename>{image}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>{rows}</annotation>"


def test_voc_gives_boxes_from_0_difficult_ones_as_crowds_and_its_own_splits(tmp_path):
    write_images(tmp_path / "JPEGImages", "a.jpg", "b.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(
        voc_xml("a.jpg", ("dog", (1, 1, 40, 30), False), ("cat", (5, 6, 10, 10), True))
    )
    (tmp_path / "Annotations" / "b.xml").write_text(voc_xml("b.jpg"))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    data = read_voc(tmp_path, skip=False)
    boxes = data.splits["train"].target(0)
    assert data.classes == ("cat", "dog")
    assert boxes.corners.tolist() == [[0, 0, 40, 30], [4, 5, 10, 10]]
    assert (boxes.classes.tolist(), boxes.crowd.tolist()) == ([1, 0], [False, True])
    assert data.warnings == ("validation: 1 of 1 images have no boxes",)


def test_voc_beside_its_images_may_count_from_0(tmp_path):
    write_images(tmp_path / "train", "a.jpg", "lonely.png")
    (tmp_path / "train" / "a.xml").write_text(voc_xml("other name.jpg", ("dog", (0, 3, 40, 30), False)))
    data = read_voc(tmp_path, skip=False)
    assert data.splits["train"].target(0).corners.tolist() == [[0, 3, 40, 30]]
    assert data.warnings == ("train: 1 images have no XML file, and were left out",)


def test_everything_wrong_with_voc_is_told_at_once(tmp_path):
    write_images(tmp_path / "train", "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "train" / "a.xml").write_text(
        voc_xml(
            "a.jpg",
            ("dog", (9, 1, 2, 5), False),
            ("dog", (1, 1, "x", 5), False),
            ("", (1, 1, 5, 5), False),
            ("cat", (1, 1, 9, 9), False),
        )
    )
    (tmp_path / "train" / "b.xml").write_text(voc_xml("b.jpg", size=(0, 0)))
    (tmp_path / "train" / "c.xml").write_text("<annotation>\n<size></annotation>")
    (tmp_path / "train" / "gone.xml").write_text(voc_xml("gone.jpg", ("cat", (1, 1, 9, 9), False)))
    with pytest.raises(DataError) as caught:
        read_voc(tmp_path, skip=False)
    told = problems(caught)
    for words in (
        "a.xml: object 1 (dog): 8, 0, 2, 5 has no area",
        "object 2 (dog): 0, 0, nan, 5",
        "object 3 has no name",
        "b.xml: its size is 0 × 0",
        "c.xml:2: this is no XML",
        "gone.jpg is not there",
    ):
        assert words in told
    with pytest.raises(DataError, match="has no XML files to train on: it holds nothing"):
        (tmp_path / "empty").mkdir()
        read_voc(tmp_path / "empty", skip=False)


# ---- Hugging Face --------------------------------------------------------------------------------------------------


def hub_folder(folder, objects):
    write_images(folder / "train", *(f"{number}.png" for number in range(len(objects))))
    rows = [json.dumps({"file_name": f"{number}.png", "objects": each}) for number, each in enumerate(objects)]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_columns_of_the_hub_are_boxes(tmp_path):
    folder = hub_folder(
        tmp_path, [{"bbox": [[1, 2, 10, 5], [0, 0, 40, 30]], "category": ["dog", "cat"]}, {"bbox": [], "category": []}]
    )
    data = read_columns(folder, skip=False)
    train = data.splits["train"]
    assert data.classes == ("cat", "dog")
    assert train.target(0).corners.tolist() == [[1, 2, 11, 7], [0, 0, 40, 30]]
    assert train.target(0).classes.tolist() == [1, 0]
    assert train[1].size == (WIDTH, HEIGHT)
    assert data.warnings == ("train: 1 of 2 images have no boxes",)


def test_columns_in_another_form_or_of_unequal_length_are_told(tmp_path):
    corners = [[10 + place, 10, 35, 25 + place % 3] for place in range(20)]
    folder = hub_folder(tmp_path / "corners", [{"bbox": corners, "category": [0] * 20}])
    with pytest.raises(DataError) as caught:
        read_columns(folder, skip=False)
    assert 'set box_form = "xyxy"' in problems(caught)
    assert len(read_columns(folder, form="xyxy", skip=False).splits["train"].target(0)) == 20
    folder = hub_folder(tmp_path / "uneven", [{"bbox": [[1, 2, 3, 4]], "category": [0, 1]}])
    with pytest.raises(DataError, match="image 0 has 1 boxes and 2 classes"):
        read_columns(folder, skip=False)
    with pytest.raises(DataError, match="no column 'boxes'"):
        read_columns(folder, objects="boxes", skip=False)


# ---- one look ------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_told_without_reading_an_annotation(tmp_path):
    options = CocoOptions(
        train={"annotations": tmp_path / "a.json", "images": tmp_path},
        test={"annotations": tmp_path / "b.json", "images": tmp_path / "c"},
    )
    with pytest.raises(DataError) as caught:
        find_coco(options)
    assert [each.option for each in caught.value.problems] == ["train.annotations", "test.annotations", "test.images"]
    with pytest.raises(DataError, match=r"has no data\.yaml"):
        find_yolo(YoloOptions(path=tmp_path))
    for find, wrong in (
        (find_voc, VocOptions(path=tmp_path / "no")),
        (find_hugging_face, HuggingFaceBoxesOptions(source=tmp_path / "no")),
    ):
        with pytest.raises(DataError, match="does not exist"):
            find(wrong)


def test_one_look_knows_when_files_change_and_reads_them(tmp_path):
    part = coco(tmp_path, [annotation(1, 0, [1, 1, 5, 5])])["train"]
    look = CocoOptions(train={"annotations": part.annotations, "images": part.images})
    found = find_coco(look)
    assert found.fingerprint() == find_coco(look).fingerprint()
    assert pickle.loads(pickle.dumps(found)).load().classes == ("cat", "dog")
    part.annotations.write_text(part.annotations.read_text() + " ")
    assert find_coco(look).fingerprint() != found.fingerprint()
    with pytest.raises(DataChangedError):
        found.load()
    yolo_folder = yolo(tmp_path / "yolo", ["0 0.5 0.5 0.2 0.2"])
    assert find_yolo(YoloOptions(path=yolo_folder)).load().classes == ("cat", "dog")
    write_images(tmp_path / "voc", "a.jpg")
    (tmp_path / "voc" / "a.xml").write_text(voc_xml("a.jpg", ("dog", (1, 1, 9, 9), False)))
    assert find_voc(VocOptions(path=tmp_path / "voc")).load().classes == ("dog",)
    hub = hub_folder(tmp_path / "hub", [{"bbox": [[1, 2, 10, 5]], "category": ["dog"]}])
    assert find_hugging_face(HuggingFaceBoxesOptions(source=hub)).load().classes == ("dog",)


# ---- generated -----------------------------------------------------------------------------------------------------


def test_generated_shapes_are_the_same_every_time_and_lie_in_their_boxes():
    data = make_shape_boxes(60, 96, seed=3)
    again = make_shape_boxes(30, 96, seed=3)
    train = data.splits["train"]
    assert all(np.array_equal(train[index], again.splits["train"][index]) for index in range(30))
    counts = [len(train.target(index)) for index in range(60)]
    assert min(counts) == 0
    assert max(counts) == 6
    assert {int(label) for index in range(60) for label in train.target(index).classes} == set(range(len(SHAPES)))
    for index in range(60):
        boxes = train.target(index)
        assert ((boxes.corners >= 0) & (boxes.corners <= 96)).all()
        shared = overlaps(boxes.corners, boxes.corners) - np.eye(len(boxes))
        assert (shared < 0.16).all()
