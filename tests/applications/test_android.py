"""`edgeopt app android`: the plain Kotlin module is run against edgeopt's own preprocessing, the rest is compiled against signatures."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from kotlin import HARNESS, Harness, called, compiled, kotlin_home, kotlin_of_tasks, libraries, odd_images
from made_files import PREPROCESSING, made_files
from patch_files import KINDS, asked
from random_heads import expected_boxes, write_heads
from task_cards import SIZES, TASK_CARDS, Expected, expected, inside, registry, returned
from test_card import CARDS, INT8, NAMES, expected_input, kotlin_sources, require_kotlin_lines_feed
from typer.testing import CliRunner

from edgeopt.applications.android import default_id, find_file, write_app
from edgeopt.cards.card import Card, TensorInfo
from edgeopt.cards.reading import card_of
from edgeopt.cli import app
from edgeopt.preprocessing import Preprocessing
from edgeopt.report.schema import DatasetSummary, Environment, RecipeSummary, Report, Row
from edgeopt.tasks.parts.classes import softmax
from edgeopt.types import Role

ANGLE = Path(__file__).parents[2] / "examples/edgeopt-angle-plugin/src/edgeopt_angle/AngleAnswering.kt"
STUBS = Path(__file__).with_name("stubs")
ANDROID = "{http://schemas.android.com/apk/res/android}"
needs_kotlin = pytest.mark.skipif(kotlin_home() is None, reason="no Kotlin compiler here: `make kotlin` brings one")
TAKEN = [name for name in CARDS if name != "int16"]  # which no app knows, and the printed lines do
LITERT = replace(INT8, recipe={"name": "käse & co"}, versions={"ai-edge-litert": "2.3.0", "pillow": "13.0.0"})


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made_files(tmp_path_factory.getbasetemp().parent / "applications")


def litert_file(folder: Path, card: Card = LITERT) -> Path:
    """A file whose bytes nobody looks at, with a card beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(b"some bytes")
    (folder / "card.json").write_text(card.to_json())
    return folder / "model.tflite"


@pytest.fixture(scope="session")
def projects(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An app around a file of each runtime."""
    folder = tmp_path_factory.mktemp("apps")
    files = {"litert": litert_file(folder / "litert-run"), "executorch": made["executorch"]}
    return {name: write_app(find_file(file, registry()), folder / name) for name, file in files.items()}


@pytest.fixture(scope="session")
def classes(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain module with its test, compiled together with both apps and the signatures of what they call."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "Main.kt").write_text("package main\nfun main() = edgeopt.core.CardTest().pixelsAreThoseOfTheCard()\n")
    (folder / "R.java").write_text(resources(projects["litert"]))
    for file in (*kotlin_of_tasks(), ANGLE):
        shutil.copy(file, folder)
    other = projects["executorch"] / "app/src/main/kotlin/edgeopt/app/OpenedFile.kt"
    (folder / "Other.kt").write_text(other.read_text().replace("package edgeopt.app", "package edgeopt.other"))
    list(kotlin_sources(folder))
    sources = [*folder.iterdir(), *projects["litert"].rglob("*.kt"), *STUBS.rglob("*.java"), HARNESS]
    on_path = libraries("kotlin-test", "kotlin-test-junit5", "annotations-13.0")
    return compiled(sources, tmp_path_factory.getbasetemp().parent / "kotlin", classpath=on_path)


@pytest.fixture(scope="session")
def harness(classes: Path) -> Iterator[Harness]:
    running = Harness.start(classes)
    yield running
    running.close()


def resources(project: Path) -> str:
    """The class R, as the Android tools would make it of the XML files."""
    folder = project / "app/src/main/res"
    layouts = [ET.parse(file) for file in (folder / "layout").iterdir()]
    ids = [name.removeprefix("@+id/") for each in layouts for tag in each.iter() if (name := tag.get(f"{ANDROID}id"))]
    strings = [tag.get("name") for tag in ET.parse(folder / "values/strings.xml").iter("string")]
    kinds = {"id": ids, "string": strings, "layout": [file.stem for file in (folder / "layout").iterdir()]}
    classes = "".join(
        f"public static final class {kind} {{ {' '.join(f'public static final int {name} = 0;' for name in names)} }}\n"
        for kind, names in kinds.items()
    )
    return f"package edgeopt.app;\npublic final class R {{\n{classes}}}\n"


# ---- the plain module, run -----------------------------------------------------------------------------------------


@needs_kotlin
@pytest.mark.parametrize("name", TAKEN)
def test_kotlin_feeds_odd_images_as_edgeopt_does(name: str, harness: Harness, tmp_path: Path) -> None:
    card = replace(CARDS[name], versions=LITERT.versions)
    (tmp_path / "card.json").write_text(card.to_json())
    preprocessing = Preprocessing.from_json(card.preprocessing)
    for description, image in odd_images(16, largest=120, seed=len(name)):
        pixels, tensor = harness.fed(tmp_path / "card.json", image, tmp_path)
        assert pixels == preprocessing.pixels(image).tobytes(), description
        assert tensor == expected_input(card, image), description


@needs_kotlin
@pytest.mark.parametrize("name", TAKEN)
def test_kotlin_answers_as_edgeopt_does(name: str, harness: Harness, tmp_path: Path) -> None:
    """Equal logits too: the first of them counts as likelier."""
    card = CARDS[name]
    (tmp_path / "card.json").write_text(card.to_json())
    (info,) = card.outputs
    assert info
    for values in ([3, 100, 101, 7], [5, 9, 9, 5], [0, 0, 0, 0], [127, 1, 2, 127]):
        given = np.array(values, dtype=info.dtype)
        (tmp_path / "output").write_bytes(given.tobytes())
        said = json.loads(harness.ask("answer", tmp_path / "card.json", tmp_path / "output", 30, 20))
        logits = given.astype(np.float32)
        if info.scale is not None:
            logits = (logits - info.zero_point) * np.float32(info.scale)
        shares = softmax(logits[None])[0]
        order = np.argsort(-shares, kind="stable")
        assert [label for label, _ in said["guesses"]] == [NAMES[place] for place in order]
        assert [share for _, share in said["guesses"]] == pytest.approx(shares[order], abs=1e-9)


@needs_kotlin
@pytest.mark.parametrize("name", TASK_CARDS)
def test_the_app_answers_as_the_task_does(name: str, harness: Harness, tmp_path: Path) -> None:
    """Boxes to the last bit, in px of the image; masks in px of the file's input, without the ground around the image."""
    card = TASK_CARDS[name]
    for seed, size in enumerate(SIZES):
        arrays = returned(card, seed)
        require_said(harness, card, arrays, expected(card, arrays, *size), size, tmp_path)


@needs_kotlin
@pytest.mark.parametrize("kind", KINDS)
def test_the_app_answers_what_a_file_returns(kind: str, harness: Harness, tmp_path: Path) -> None:
    """Files that were run: patches of colours, of which there are no two alike."""
    one = asked(kind, tmp_path / "run")
    require_said(harness, one.card, one.arrays, one.wanted, one.image.size, tmp_path)


def require_said(
    harness: Harness,
    card: Card,
    arrays: tuple[np.ndarray, ...],
    wanted: Expected,
    size: tuple[int, int],
    folder: Path,
) -> None:
    """What the app's Kotlin makes of outputs is what the card's task makes of them."""
    (folder / "card.json").write_text(card.to_json())
    (folder / "outputs").write_bytes(b"".join(array.tobytes() for array in arrays))
    said = json.loads(harness.ask("answer", folder / "card.json", folder / "outputs", *size))
    if wanted.network_mask is not None:
        mask = np.array(said["mask"]).reshape(wanted.network_mask.shape)
        assert np.array_equal(mask, np.where(inside(card, *size), wanted.network_mask.astype(np.int64), -1))
        assert {label for label, _ in said["legend"]} == set(np.unique(wanted.network_mask)) - {0}
        assert said["lines"] == [wanted.told]
    elif card.task == "detection":
        boxes = [(card.classes[label], tuple(sides)) for *sides, label, _text in said["boxes"]]
        assert boxes == [(label, sides) for label, _score, sides in wanted.objects]
        texts = [f"{label} {round(100 * score)} %" for label, score, _ in wanted.objects]
        assert ([text for *_, text in said["boxes"]], said["lines"]) == (texts, [wanted.told])
    else:
        assert [label for label, _ in said["guesses"]] == [label for label, _ in wanted.guesses]
        shares = [share for _, share in wanted.guesses]
        assert [share for _, share in said["guesses"]] == pytest.approx(shares, abs=1e-9)
        assert len(said["lines"]) == max(1, len(shares))


@needs_kotlin
def test_an_app_takes_no_card_of_another_task(harness: Harness, tmp_path: Path) -> None:
    for name, message in (
        ("calm", "ClassAnswering"),
        ("ssd", "CardException: the card is for the task detection, and this app was written for classification"),
    ):
        (tmp_path / "card.json").write_text(TASK_CARDS[name].to_json())
        assert harness.ask("task", tmp_path / "card.json") == message
    (tmp_path / "card.json").write_text(replace(TASK_CARDS["ssd"], decision={}).to_json())
    (tmp_path / "outputs").write_bytes(b"".join(array.tobytes() for array in returned(TASK_CARDS["ssd"], 0)))
    said = harness.ask("answer", tmp_path / "card.json", tmp_path / "outputs", 9, 9)
    assert said == "CardException: the card: decision has no decoding"


@needs_kotlin
def test_what_is_drawn_lies_over_the_picture(harness: Harness) -> None:
    """A frame fills the view from its middle, as the preview does, also where the screen does not turn with the phone."""

    def drawn(turn: int, view: tuple[int, int]) -> tuple[list[float], np.ndarray]:
        box, matrix = json.loads(harness.ask("overlay", 640, 480, turn, *view, 8, 0, 64, 240, 640))
        return box, np.array(matrix).reshape(3, 3)

    box, matrix = drawn(0, (1280, 960))  # twice as large
    assert box == [0, 128, 480, 1280]
    assert (matrix @ (8, 8, 1)).tolist() == [960, 1280, 1]
    box, matrix = drawn(0, (1280, 720))  # so high that 120 px are cut off left and right
    assert (box, (matrix @ (0, 8, 1)).tolist()) == ([-120, 128, 360, 1280], [-120, 1280, 1])
    box, matrix = drawn(1, (960, 1280))  # a quarter clockwise: what was below is left
    assert box == [0, 0, 1152, 480]
    assert (matrix @ (0, 0, 1)).tolist() == [1280, 0, 1]
    assert drawn(2, (1280, 960))[0] == [480, 0, 960, 1152]
    assert drawn(3, (960, 1280))[0] == [128, 480, 1280, 960]


@needs_kotlin
def test_the_app_checks_itself(made: dict[str, Path], harness: Harness, tmp_path: Path) -> None:
    """Pixels of the card's images to the last bit; answers that are right pass, and those that lie too far do not."""
    for path in made.values():
        card = card_of(path)
        assert card.self_test
        beside = path.with_name("card.json")
        assert harness.ask("self-test", beside, 0).split("\t")[:2] == ["true", "0"]
        assert harness.ask("self-test", beside, card.self_test.tolerance * 0.9).startswith("true")
        assert harness.ask("self-test", beside, card.self_test.tolerance * 1.1).startswith("false")
        assert harness.ask("self-test", beside, "NaN").startswith("false")
        other = replace(card, preprocessing={**card.preprocessing, "interpolation": "bilinear"})
        (tmp_path / "card.json").write_text(other.to_json())
        passed, pixels, _ = harness.ask("self-test", tmp_path / "card.json", 0).split("\t")
        assert (passed, int(pixels) > 0) == ("false", True)


@needs_kotlin
def test_kotlin_finds_the_boxes_of_a_thousand_raw_heads(harness: Harness, tmp_path: Path) -> None:
    cases = write_heads(tmp_path)
    said = harness.ask("decode", tmp_path / "decodings.json", tmp_path / "heads", tmp_path / "boxes")
    assert said == "decoded"
    assert (tmp_path / "boxes").read_bytes() == expected_boxes(cases)


@needs_kotlin
def test_the_kotlin_lines_of_a_card_feed_as_it_says(classes: Path, tmp_path: Path) -> None:
    require_kotlin_lines_feed(classes, tmp_path)


@needs_kotlin
def test_what_android_7_does_not_know_is_not_called(classes: Path) -> None:
    """Java 9 gave buffers methods of other return types, with which a class compiled today would call them."""
    files = [file for file in classes.rglob("*.class") if "edgeopt" in file.parts]
    assert len(files) > 20
    calls = {call for file in files for call in called(file)}
    assert ("java/nio/ByteBuffer", "putFloat", "(F)Ljava/nio/ByteBuffer;") in calls
    moved = {"rewind", "clear", "flip", "position", "limit", "mark", "reset"}
    assert not [
        call for call in calls if call[0] == "java/nio/ByteBuffer" and call[1] in moved and "Buffer;" in call[2]
    ]


@needs_kotlin
def test_the_test_of_the_app_runs_without_a_phone(projects: dict[str, Path], classes: Path) -> None:
    assert Harness.run(classes, "main.MainKt", folder=projects["executorch"] / "core") == ""


@needs_kotlin
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "the card has schema 2, and this app knows 1"),
        (
            {"preprocessing": PREPROCESSING.to_json() | {"tint": "blue"}},
            "asks for tint, which this app does not know",
        ),
        ({"preprocessing": PREPROCESSING.to_json() | {"fit": "tile"}}, "fit is tile"),
        ({"preprocessing": PREPROCESSING.to_json() | {"interpolation": "lanczos"}}, "interpolation is lanczos"),
        ({"preprocessing": PREPROCESSING.to_json() | {"channel_order": "BGR"}}, "channel_order is BGR"),
        ({"input": {"dtype": "float16"}}, "dtype is float16"),
        ({"input": {"dtype": "int16"}}, "dtype is int16"),
        ({"classes": None}, "classes is not a list"),
    ],
)
def test_a_card_that_the_app_does_not_know_is_refused(
    change: dict[str, object], message: str, harness: Harness, tmp_path: Path
) -> None:
    (tmp_path / "card.json").write_text(json.dumps(json.loads(LITERT.to_json()) | change))
    assert message in harness.ask("answer", tmp_path / "card.json", "")


@needs_kotlin
def test_json_is_read_and_written(harness: Harness, tmp_path: Path) -> None:
    values = {"a": [1.5, -2e-3, True, None, [], {}], "käse": 'q" \\ / \n\t \u0001 € 😀', "": {"x": "y"}}
    for text in (json.dumps(values), json.dumps(values, ensure_ascii=False, indent=1)):
        (tmp_path / "some.json").write_text(text, encoding="utf-8")
        assert json.loads(harness.ask("json", tmp_path / "some.json")) == values
    for torn in ('{"a": ', "[1,", '"x', '{"a" 1}', "nul", "1 2", '"\\u12"'):
        (tmp_path / "card.json").write_text(torn)
        assert harness.ask("answer", tmp_path / "card.json", "").startswith("CardException: the card is no JSON")


# ---- what cannot be built here, looked at --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["litert", "executorch"])
def test_the_project_is_whole(name: str, projects: dict[str, Path], made: dict[str, Path]) -> None:
    """Every XML file is well-formed, and whatever one file names is in another."""
    project = projects[name]
    manifests = {file: ET.parse(file).getroot() for file in project.rglob("AndroidManifest.xml")}
    assert len(manifests) == 2
    for file, manifest in manifests.items():
        for activity in manifest.iter("activity"):
            source = file.parent / "kotlin" / (activity.attrib[f"{ANDROID}name"].replace(".", "/") + ".kt")
            assert f"class {source.stem} : ComponentActivity()" in source.read_text()
            assert activity.get(f"{ANDROID}exported") == "true"
    strings = ET.parse(project / "app/src/main/res/values/strings.xml").getroot()
    names = {each.get("name"): each.text for each in strings}
    assert names["app_name"] == ("käse & co" if name == "litert" else "tiny")
    for file in project.rglob("*.xml"):
        text = file.read_text(encoding="utf-8")
        assert {f"@string/{each}" for each in names} >= set(re.findall(r"@string/\w+", text))
    catalogue = tomllib.loads((project / "gradle/libs.versions.toml").read_text())
    used = {alias for file in project.rglob("*.kts") for alias in re.findall(r"\blibs\.([\w.]+)", file.read_text())}
    known = {key.replace("-", ".") for key in catalogue["libraries"]}
    known |= {f"plugins.{key.replace('-', '.')}" for key in catalogue["plugins"]}
    assert used == known
    for entry in (*catalogue["libraries"].values(), *catalogue["plugins"].values()):
        assert entry["version"]["ref"] in catalogue["versions"]
    assert (
        catalogue["versions"]["runtime"]
        == card_of(made["executorch"] if name == "executorch" else projects[name].parent / "litert-run/model.tflite")
        .versions["executorch" if name == "executorch" else "ai-edge-litert"]
        .partition("+")[0]
    )
    build = (project / "app/build.gradle.kts").read_text()
    assert "minSdk = 24" in build
    for file in project.rglob("*.kt*"):
        text = file.read_text(encoding="utf-8")
        assert all(text.count(opening) == text.count(closing) for opening, closing in ("()", "{}", "[]"))
        assert "{{" not in text


def test_the_card_and_the_file_are_in_the_app_and_nothing_of_them_elsewhere(
    projects: dict[str, Path], made: dict[str, Path]
) -> None:
    assets = projects["executorch"] / "app/src/main/assets"
    assert (assets / "model.pte").read_bytes() == made["executorch"].read_bytes()
    assert (assets / "card.json").read_text() == made["executorch"].with_name("card.json").read_text()
    for file in projects["executorch"].rglob("*.kt"):
        text = file.read_text()
        assert "0.485" not in text and "class-0" not in text


def test_the_camera_gives_the_newest_upright_frame_and_the_file_is_loaded_once(projects: dict[str, Path]) -> None:
    activity = (projects["litert"] / "app/src/main/kotlin/edgeopt/app/MainActivity.kt").read_text()
    for call in ("STRATEGY_KEEP_ONLY_LATEST", "OUTPUT_IMAGE_FORMAT_RGBA_8888", "setOutputImageRotationEnabled(true)"):
        assert call in activity
    assert activity.count("Model.ofApp(") == 1
    assert "ofApp" not in activity.partition("private fun look")[2]


def test_templates_come_with_the_package() -> None:
    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    files = [
        file
        for room in ("edgeopt", "plugins")
        for ending in ("j2", "kt")
        for file in (root / room).rglob(f"*.{ending}")
    ]
    assert {"Answer.kt.j2", "ClassAnswering.kt", "boxes.cpp.j2"} <= {file.name for file in files}
    for file in files:
        package = next(folder for folder in file.parents if (folder / "__init__.py").is_file())
        assert any(file in package.glob(pattern) for pattern in patterns), file


# ---- the command ---------------------------------------------------------------------------------------------------


def make_run(folder: Path, *rows: tuple[str, str, str, str], facts: dict[str, object] | None = None) -> Path:
    """A finished run with files (export, role, runtime, name)."""
    made_rows = []
    for export, role, runtime, name in rows:
        path = folder / export / role / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"some bytes")
        versions = {"ai-edge-litert": "2.3.0", "executorch": "1.5.1+cpu"}
        card = replace(LITERT, runtime=runtime, versions=versions, recipe={"name": "flowers"})
        path.with_name("card.json").write_text(card.to_json())
        file = f"{export}/{role}/{name}"
        made_rows.append(
            Row(runtime=runtime, export=export, file=file, precision="int8", role=Role(role), facts=facts or {})
        )
    report = Report(
        edgeopt="0",
        recipe=RecipeSummary(name=folder.name, seed=0, resolved={}),
        dataset=DatasetSummary(name="x", classes=NAMES, splits={}, fingerprint="", preprocessing={}),
        environment=Environment(python="", platform="", machine="", processor="", cores=1),
        rows=tuple(made_rows),
    )
    (folder / "report.json").write_text(report.to_json())
    return folder


TFLITE = ("tflite", "optimized", "litert", "model.tflite")
PTE = ("executorch", "optimized", "executorch", "model.pte")


def test_the_optimized_file_of_a_run_is_taken(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        ("onnx", "optimized", "onnxruntime", "model.onnx"),
        ("tflite", "baseline", *TFLITE[2:]),
        TFLITE,
    )
    done = CliRunner().invoke(app, ["app", "android", str(run), "--out", str(tmp_path / "app")])
    assert done.exit_code == 0, done.output
    assert f"around {run / 'tflite/optimized/model.tflite'} (LiteRT 2.3.0)" in " ".join(done.output.split())
    assert "the card has no self-test" in " ".join(done.output.split())
    assert 'applicationId = "com.example.flowers"' in (tmp_path / "app/app/build.gradle.kts").read_text()
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_what_no_app_can_be_made_of_is_said(tmp_path: Path) -> None:
    onnx = make_run(tmp_path / "onnx", ("onnx", "optimized", "onnxruntime", "model.onnx"))
    both = make_run(tmp_path / "both", TFLITE, PTE)
    qnn = make_run(tmp_path / "qnn", PTE, facts={"backend": "qnn"})
    gone = make_run(tmp_path / "gone", TFLITE)
    (gone / "tflite/optimized/model.tflite").unlink()
    four = litert_file(tmp_path / "four", replace(LITERT, input=replace(LITERT.input, shape=(4, 24, 24, 3))))  # type: ignore[type-var]
    half = litert_file(tmp_path / "half", replace(LITERT, input=replace(LITERT.input, dtype="float16"), versions={}))  # type: ignore[type-var]
    masks = litert_file(tmp_path / "masks", replace(LITERT, task="segmentation"))
    strange = litert_file(tmp_path / "strange", replace(LITERT, task="hearing"))
    plain = tmp_path / "plain.tflite"
    plain.write_bytes(b"no card")
    good = litert_file(tmp_path / "good")
    (tmp_path / "taken").mkdir()
    for given, more, message in (
        (onnx, [], "has no file for Android: its files are for onnxruntime"),
        (onnx / "onnx/optimized/model.onnx", [], "model.onnx is for onnxruntime"),
        (both, [], f"several files for Android name one of them: {both / TFLITE[0]}"),
        (qnn, [], "for the backend qnn alone"),
        (gone, [], "model.tflite is gone"),
        (tmp_path / "nothing", [], "nothing is not there"),
        (tmp_path, [], "there is no report.json"),
        (plain, [], "has no card, neither within nor beside it"),
        (good.with_name("card.json"), [], "is a card alone name the model file beside it"),
        (four, [], "takes 4 images in a call"),
        (half, [], "does not say for which LiteRT it was made"),
        (masks, [], "is for the task segmentation, and its outputs, logits (1, 4), do not fit that"),
        (strange, [], "there is no task 'hearing'"),
        (half, [], "the input of"),
        (good, ["--out", str(tmp_path / "taken")], "taken exists already"),
        (good, ["--id", "flowers"], "--id flowers: this cannot be the id of an app"),
    ):
        done = CliRunner().invoke(app, ["app", "android", str(given), "--out", str(tmp_path / "out"), *more])
        assert done.exit_code == 2, (given, done.output)
        assert message in " ".join(done.output.split()), done.output
        assert not (tmp_path / "out").exists()
    assert find_file(both / "executorch/optimized/model.pte", registry()).version == "1.5.1"


def test_a_task_that_brings_nothing_is_refused_with_what_to_write(tmp_path: Path) -> None:
    """Apps and lines alike, by the plugin of somebody else in a file of its own."""
    card = replace(LITERT, task="level", outputs=(TensorInfo("level", "float32", (1, 1), "NC"),))
    file = litert_file(tmp_path / "level", card)
    known = ["--plugin", str(Path(__file__).parents[1] / "task_parts.py")]
    make_app = ["app", "android", str(file), "--out", str(tmp_path / "out")]
    for arguments, *messages in (
        (make_app, "there is no task 'level'"),
        ([*make_app, *known], "the task level brings no Kotlin", "TaskPlugin(kotlin_files="),
        (["card", str(file), "--lang", "cpp", *known], "the task level brings no lines in cpp", "bring NAME.cpp.j2"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2, done.output
        assert all(message in " ".join(done.output.split()) for message in messages), done.output


@pytest.mark.parametrize("name", ["labels", "masks", "ssd"])
def test_an_app_holds_what_its_task_needs(name: str, tmp_path: Path) -> None:
    file = find_file(litert_file(tmp_path / "file", TASK_CARDS[name]), registry())
    core = write_app(file, tmp_path / "app") / "core/src/main/kotlin/edgeopt/core"
    held = {path.name for path in core.iterdir() if path.name.endswith(("Answering.kt", "Decoder.kt"))}
    wanted = {"labels": {"LabelAnswering.kt"}, "masks": {"MaskAnswering.kt"}}
    assert held == wanted.get(name, {"BoxAnswering.kt", "BoxDecoder.kt"})
    text = (core / "AppTask.kt").read_text()
    assert f'NAME = "{TASK_CARDS[name].task}"' in text and f"return {file.part.answering}(card)" in text


def test_ids_are_made_of_names() -> None:
    assert default_id("My flowers (2)") == "com.example.my_flowers_2"
    assert default_id("3 käse") == "com.example.app_3_k_se"
