"""The data sets `wav-folder` and `spoken-digits`."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.io import wavfile

from edgeopt.data.prepare import prepare
from edgeopt.data.splits import SPLITS, draw
from edgeopt.errors import DataError
from edgeopt.fingerprint import installed_version
from edgeopt.progress import Silent
from edgeopt_audio.layout import Layout
from edgeopt_audio.options import SoundCopies, SoundOptions, SpokenDigitsOptions, WavFolderOptions
from edgeopt_audio.plugin import edgeopt_datasets, fingerprint_digits, load_digits
from edgeopt_audio.recordings import changed, middle
from edgeopt_audio.spectrogram import image, mel_filters
from edgeopt_audio.wav import read_wav

FOLDER = next(each for each in edgeopt_datasets() if each.name == "wav-folder")
fingerprint_folder, load_folder, survey_folder = FOLDER.fingerprint, FOLDER.load, FOLDER.survey
RATE = 8000
SMALL = {"image_size": 16, "sample_rate": RATE, "n_fft": 256, "hop_length": 128, "mel_bands": 16, "seconds": 0.25}


def tone(hertz: float, seconds: float = 0.25, rate: int = RATE, loudness: float = 0.5) -> np.ndarray:
    return (loudness * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(file: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(file, rate, samples)
    return file


def folder(root: Path, layout: str = "{class}/{speaker}_{any}.wav", speakers: int = 6) -> Path:
    """Two words, a low and a high tone, from each speaker, twice."""
    for number, word in enumerate(("low", "high")):
        for speaker in range(speakers):
            for take in range(2):
                name = layout.replace("{class}", word).replace("{speaker}", f"s{speaker}").replace("{any}", str(take))
                write(root / name, tone(500 + 2000 * number + 40 * speaker + 10 * take))
    return root


def error(action, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        action(*arguments)
    return str(caught.value)


# ---- wav files -----------------------------------------------------------------------------------------------------


def write_24_bit(file: Path, samples: np.ndarray) -> Path:
    """scipy reads this format and does not write it."""
    data = b"".join(struct.pack("<i", value)[:3] for value in np.rint(samples * (2**23 - 1)).astype(int).tolist())
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, RATE * 3, 3, 24)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    file.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    return file


def test_all_formats_give_the_same_sound(tmp_path: Path) -> None:
    sound = tone(440)
    files = {
        "8": write(tmp_path / "8.wav", np.rint(sound * 127 + 128).astype(np.uint8)),
        "16": write(tmp_path / "16.wav", np.rint(sound * 32767).astype(np.int16)),
        "24": write_24_bit(tmp_path / "24.wav", sound),
        "32": write(tmp_path / "32.wav", np.rint(sound.astype(float) * (2**31 - 1)).astype(np.int32)),
        "float": write(tmp_path / "float.wav", sound),
        "double": write(tmp_path / "double.wav", sound.astype(np.float64)),
        "stereo": write(tmp_path / "stereo.wav", np.stack([2 * sound, 0 * sound], axis=1)),
    }
    for name, file in files.items():
        read = read_wav(file, RATE)
        assert read.dtype == np.float32 and read.shape == sound.shape
        np.testing.assert_allclose(read, sound, atol=2 / 127 if name == "8" else 1e-4, err_msg=name)


def test_any_rate_becomes_the_one_asked_for(tmp_path: Path) -> None:
    for rate in (11_025, 16_000, 44_100):
        read = read_wav(write(tmp_path / f"{rate}.wav", tone(440, 0.5, rate), rate), RATE)
        assert abs(len(read) - RATE // 2) <= 1
        spectrum = np.abs(np.fft.rfft(read))
        assert np.fft.rfftfreq(len(read), 1 / RATE)[spectrum.argmax()] == pytest.approx(440, abs=3)
    above = read_wav(write(tmp_path / "above.wav", tone(9000, 0.5, 44_100), 44_100), RATE)
    assert np.abs(above[200:-200]).max() < 0.01  # filtered out, not folded down to 1000 Hz


def test_files_that_are_no_whole_recording_are_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.wav", tone(440)).read_bytes()
    broken = {
        "text.wav": (b"not a recording at all, but long enough to have a header", "format"),
        "short.wav": (whole[:-500], "500 bytes of its sound are missing"),
        "empty.wav": (b"", ""),
        "header.wav": (whole[:20], ""),
    }
    for name, (data, reason) in broken.items():
        (tmp_path / name).write_bytes(data)
        said = error(read_wav, tmp_path / name, RATE)
        assert str(tmp_path / name) in said and reason in said
    assert "holds no samples" in error(read_wav, write(tmp_path / "none.wav", np.zeros(0, np.int16)), RATE)
    assert "not numbers" in error(read_wav, write(tmp_path / "nan.wav", np.full(99, np.nan, np.float32)), RATE)
    assert "missing.wav cannot be read: No such file" in error(read_wav, tmp_path / "missing.wav", RATE)


# ---- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["log-mel", "decibel"])
def test_frequency_goes_upwards_and_time_to_the_right(kind: str) -> None:
    options = SoundOptions(**{**SMALL, "image_size": 32}, kind=kind)
    low, high = (image(tone(hertz), options).astype(int) for hertz in (300, 3000))
    assert low.shape == (32, 32)
    assert low.sum(axis=1).argmax() > 20 and high.sum(axis=1).argmax() < 12
    late = image(np.concatenate([np.zeros(1000, np.float32), tone(300, 0.125)]), options).astype(int)
    assert late[:, :12].sum() < 0.1 * late[:, 20:].sum()
    assert late.max() > 200 and late.min() == 0


def test_a_spectrogram_is_as_wide_as_it_is_asked_for() -> None:
    options = SoundOptions(**{**SMALL, "image_size": [40, 96]}, channels=1)
    assert image(tone(300), options).shape == (40, 96)


def test_loudness_does_not_matter_and_the_floor_does() -> None:
    options = SoundOptions(**SMALL)
    loud, quiet = (image(tone(500, loudness=each), options).astype(int) for each in (0.5, 0.05))
    assert np.abs(loud - quiet).max() <= 1
    noise = np.random.default_rng(0).normal(0, 1e-3, 2000).astype(np.float32)
    deep = options.model_copy(update={"floor_db": -20.0})
    assert image(tone(500) + noise, deep).mean() < 0.7 * image(tone(500) + noise, options).mean()


def test_mel_bands_cover_all_frequencies_and_too_many_are_refused() -> None:
    filters = mel_filters(16, 256, RATE)
    np.testing.assert_allclose(filters.sum(axis=0)[8:-20], 1, atol=1e-6)
    peaks = filters.argmax(axis=1)
    assert (np.diff(peaks) >= 1).all() and np.diff(peaks)[-1] > np.diff(peaks)[0]  # wider upwards
    assert "64 mel bands are too many for n_fft = 64" in error(mel_filters, 64, 64, RATE)


def test_length_is_made_the_same_around_the_middle() -> None:
    ramp = np.arange(1, 8, dtype=np.float32)
    assert middle(ramp, 3).tolist() == [3, 4, 5]
    assert middle(ramp, 10).tolist() == [0, *ramp.tolist(), 0, 0]
    assert middle(ramp, 7).tolist() == ramp.tolist()


# ---- layouts -------------------------------------------------------------------------------------------------------


def test_layouts_read_the_usual_data_sets() -> None:
    def read(layout: str, path: str) -> dict[str, str] | None:
        return Layout(layout).read(path)

    assert read("{class}_{speaker}_{any}.wav", "7_jackson_32.wav") == {"class": "7", "speaker": "jackson"}
    commands = "{class}/{speaker}_{any}.wav"
    assert read(commands, "yes/0a7c2a8d_nohash_0.WAV") == {"class": "yes", "speaker": "0a7c2a8d"}
    assert read(commands, "yes/deeper/0a7c2a8d_nohash_0.wav") is None
    twice = "{speaker}/{class}_{speaker}_{any}.wav"
    assert read(twice, "03/5_03_12.wav") == {"speaker": "03", "class": "5"}
    assert read(twice, "03/5_04_12.wav") is None
    assert read("{split}/{class}/{any}.wav", "test/cat/1.wav") == {"split": "test", "class": "cat"}


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ("{speaker}_{any}.wav", "where a file names its class"),
        ("{class}_{word}.wav", "{word}, and there are {class}"),
        ("{class}_{speaker}.flac", "does not end in .wav"),
        ("{class}_{speaker.wav", "brace"),
        ("{class}/{any}.wav", 'set split_by = "file"'),
    ],
)
def test_a_layout_that_cannot_work_is_explained(layout: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        WavFolderOptions(path=Path(), layout=layout)


# ---- wav-folder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["{class}/{speaker}_{any}.wav", "{class}_{speaker}_{any}.wav"])
def test_no_speaker_is_in_two_splits(layout: str, tmp_path: Path) -> None:
    options = WavFolderOptions(path=folder(tmp_path / "words", layout), layout=layout, **SMALL)
    raw = load_folder(options)
    assert raw.classes == ("high", "low")
    drawn = draw(raw, options)
    sides = [{raw.groups["train"][index] for index in drawn.splits[name].indices} for name in SPLITS]
    train, calibration, validation, test = sides
    assert len(test) == len(validation) == 1
    assert not (train | calibration) & (validation | test) and not validation & test
    facts = prepare(raw, options, tmp_path, Silent())
    assert facts.groups["test"] == 1 and facts.splits["test"].count == 4
    by_file = options.model_copy(update={"split_by": "file"})
    assert load_folder(by_file).groups == {}


def test_two_speakers_are_too_few(tmp_path: Path) -> None:
    options = WavFolderOptions(path=folder(tmp_path / "words", speakers=2), **SMALL)
    assert "each class needs 3" in error(draw, load_folder(options), options)


def test_split_folders_are_kept(tmp_path: Path) -> None:
    for split in ("training", "test"):
        folder(tmp_path / "words" / split, speakers=3 if split == "training" else 1)
    options = WavFolderOptions(
        path=tmp_path / "words", layout="{split}/{class}/{speaker}_{any}.wav", shares={"validation": 0.3}, **SMALL
    )
    raw = load_folder(options)
    assert {name: len(split) for name, split in raw.splits.items()} == {"train": 12, "test": 4}
    write(tmp_path / "words" / "held" / "low" / "s9_0.wav", tone(500))
    assert "held/low/s9_0.wav is of a split 'held'" in error(load_folder, options)


def test_links_other_files_and_odd_names(tmp_path: Path) -> None:
    root = folder(tmp_path / "words")
    (root / "low" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    count = len(load_folder(WavFolderOptions(path=root)).splits["train"])
    write(tmp_path / "elsewhere" / "s1_9.wav", tone(500))
    text = error(fingerprint_folder, WavFolderOptions(path=root))
    assert "low/more/s1_9.wav" in text  # followed, and not as the layout says
    (root / "low" / "more").unlink()
    (root / "low" / "s1_8.wav").symlink_to(tmp_path / "elsewhere" / "s1_9.wav")
    for name in ("s2_1.mp3", "notes.txt"):
        (root / "low" / name).write_bytes(b"")
    raw = load_folder(WavFolderOptions(path=root))
    assert len(raw.splits["train"]) == count + 1
    assert raw.warnings == ("1 files of sound are no wav files and were left out: 1 .mp3",)
    survey = survey_folder(WavFolderOptions(path=root))
    assert sum(survey.counts["train"].values()) == count + 1 and survey.warnings == raw.warnings
    (root / "low" / "s1_7.wav").symlink_to("/nowhere/x.wav")
    assert "low/s1_7.wav is a link to /nowhere/x.wav" in error(fingerprint_folder, WavFolderOptions(path=root))
    skipping = WavFolderOptions(path=root, image_size=16, on_error="skip")
    (tmp_path / "out").mkdir()
    values = prepare(load_folder(skipping), skipping, tmp_path / "out", Silent())
    assert len(values.skipped) == 1 and "s1_7.wav" in values.skipped[0]
    strange = Path(os.fsdecode(os.fsencode(root / "low") + b"/\xe9_1.wav"))
    write(strange, tone(300))
    copied = skipping.model_copy(update={"copies": SoundCopies(count=1)})
    assert "\\udce9" in set(load_folder(copied).groups["train"])
    assert prepare(load_folder(copied), copied, tmp_path / "out", Silent()).groups


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "words")
    write(root / "_background_noise_" / "rain.wav", tone(50))  # as Speech Commands has it
    options = WavFolderOptions(path=root, **SMALL)
    before = fingerprint_folder(options)
    assert len(load_folder(options).splits["train"]) == 24
    write(root / "low" / "nobody.wav", tone(500))
    for action in (load_folder, fingerprint_folder):
        said = error(action, options)
        assert "1 of 25 wav files do not fit layout '{class}/{speaker}_{any}.wav'" in said
        assert str(root / "low" / "nobody.wav") in said
    (root / "low" / "nobody.wav").rename(root / "low" / "some_body.wav")
    assert fingerprint_folder(options) != before
    (tmp_path / "empty").mkdir()
    for name, reason in (("empty", "holds no wav files"), ("gone", "gone does not exist")):
        assert reason in error(load_folder, options.model_copy(update={"path": tmp_path / name}))


def test_an_unreadable_recording_stops_or_is_skipped(tmp_path: Path) -> None:
    root = folder(tmp_path / "words")
    (root / "low" / "s0_0.wav").write_bytes(b"RIFF")
    options = WavFolderOptions(path=root, **SMALL)
    assert "low/s0_0.wav cannot be read" in error(prepare, load_folder(options), options, tmp_path, Silent())
    skipping = options.model_copy(update={"on_error": "skip"})
    facts = prepare(load_folder(skipping), skipping, tmp_path, Silent())
    assert len(facts.skipped) == 1 and "low/s0_0.wav" in facts.skipped[0]


# ---- changed copies ------------------------------------------------------------------------------------------------


def test_copies_are_trained_on_with_their_original_only(tmp_path: Path) -> None:
    plain = WavFolderOptions(path=folder(tmp_path / "words"), **SMALL)
    options = plain.model_copy(update={"copies": plain.copies.model_copy(update={"count": 2})})
    raw = load_folder(options)
    before, after = draw(load_folder(plain), plain), draw(raw, options)
    for name in SPLITS[1:]:
        assert after.splits[name].indices.tolist() == before.splits[name].indices.tolist()
    assert len(after.splits["train"]) == 3 * len(before.splits["train"])
    first = [raw.splits["train"][index] for index in (0, 24, 48)]
    assert not any(np.array_equal(first[left], first[right]) for left, right in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_array_equal(first[1], load_folder(options).splits["train"][24])


def test_copies_are_noisy_and_stretched_as_asked() -> None:
    random = np.random.default_rng(0)
    copies = SoundOptions(copies={"count": 1, "noise_db": 10.0, "stretch": 0.0}).copies
    sound = tone(500, 1.0)
    noise = changed(sound, RATE, copies, random) - sound
    ratio_db = 10 * np.log10(np.mean(sound**2) / np.mean(noise**2))
    assert 10 <= ratio_db <= 30.5
    copies = SoundOptions(copies={"count": 1, "noise_db": None, "stretch": 0.2}).copies
    peaks = {int(np.abs(np.fft.rfft(changed(sound, RATE, copies, random))).argmax()) for _ in range(5)}
    assert len(peaks) > 1 and all(400 <= peak <= 600 for peak in peaks)


def test_copies_that_would_change_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="the same as the recordings"):
        SoundOptions(copies={"count": 1, "noise_db": None, "stretch": 0.0})
    with pytest.raises(ValidationError, match="count = 0 makes none"):
        SoundOptions(copies={"stretch": 0.3})


# ---- spoken digits -------------------------------------------------------------------------------------------------

needs_synthesizer = pytest.mark.skipif(
    installed_version("espeakng-loader") is None, reason="the synthesizer of edgeopt[audio] is not installed"
)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> SpokenDigitsOptions:
    """Six voices that say each digit once."""
    options = SpokenDigitsOptions(image_size=32, speakers=6, takes=1, folder=tmp_path_factory.mktemp("spoken"))
    load_digits(options)
    return options


@needs_synthesizer
def test_every_voice_says_every_digit(spoken: SpokenDigitsOptions) -> None:
    raw = load_digits(spoken)
    assert raw.classes == tuple("0123456789")
    assert len(set(raw.groups["train"])) == 6
    pixels = np.stack([raw.splits["train"][index].astype(float) for index in range(len(raw.splits["train"]))])
    assert len({image.tobytes() for image in pixels}) == 60
    assert pixels.std(axis=(1, 2)).min() > 10  # none is silent


@needs_synthesizer
def test_digits_are_spoken_once_and_always_the_same(
    spoken: SpokenDigitsOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept,) = spoken.folder.iterdir()  # nothing is left of what was written aside
    files = sorted(kept.iterdir())
    made = files[0].stat().st_mtime_ns
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_digits(spoken.model_copy(update={"folder": None}))
    (again,) = (tmp_path / "cache" / "edgeopt").iterdir()
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in sorted(again.iterdir())]
    sorted(again.iterdir())[5].unlink()  # an incomplete folder is made anew
    load_digits(spoken.model_copy(update={"folder": None}))
    assert len(list(again.iterdir())) == 60
    load_digits(spoken)
    assert files[0].stat().st_mtime_ns == made
    assert fingerprint_digits(spoken) == fingerprint_digits(SpokenDigitsOptions())


@needs_synthesizer
def test_a_synthesizer_that_fails_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "espeakng_loader.py").write_text("def get_library_path():\n    raise OSError('no library here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    options = SpokenDigitsOptions(speakers=6, takes=1, folder=tmp_path / "kept")
    assert "could not speak the digits" in (said := error(load_digits, options)) and "no library here" in said
    assert not list((tmp_path / "kept").iterdir())
    (tmp_path / "file").write_text("")
    assert "choose another place" in error(
        load_digits, options.model_copy(update={"folder": tmp_path / "file" / "below"})
    )
