"""Declares the data sets `wav-folder` and `spoken-digits`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.plugins import DatasetPlugin, DataSurvey, RawDataset, digest, hookimpl, versions_of
from edgeopt_audio.layout import Layout, Recordings, find_recordings
from edgeopt_audio.options import SpokenDigitsOptions, WavFolderOptions
from edgeopt_audio.spoken_digits import LAYOUT, SYNTHESIZER, VERSION, recordings_folder

_INSTALL = "edgeopt[audio]"


def load_folder(options: WavFolderOptions) -> RawDataset:
    """The recordings below a folder, read when they are asked for."""
    from edgeopt_audio.recordings import read_recordings  # numpy and scipy are heavy

    return read_recordings(_recordings(options), options, by_speaker=options.split_by == "speaker")


def fingerprint_folder(options: WavFolderOptions) -> str:
    """Names, sizes and times of the files; raises `DataError` when the folder does not hold what it must."""
    return _recordings(options).fingerprint()


def survey_folder(options: WavFolderOptions) -> DataSurvey:
    """The classes and counts of a folder, by the names of its files."""
    return _recordings(options).survey()


def _recordings(options: WavFolderOptions) -> Recordings:
    return find_recordings(options.path, Layout(options.layout), skip_broken=options.on_error == "skip")


def load_digits(options: SpokenDigitsOptions) -> RawDataset:
    """Digits spoken by a synthesizer, which speaks once and is kept."""
    from edgeopt_audio.recordings import read_recordings  # numpy and scipy are heavy

    folder = recordings_folder(options.folder, options.speakers, options.takes)
    return read_recordings(find_recordings(folder, Layout(LAYOUT)), options, by_speaker=True)


def fingerprint_digits(options: SpokenDigitsOptions) -> str:  # noqa: ARG001 - the options are part of every key
    """The recordings follow from the options and the synthesizer."""
    return digest(["spoken-digits", VERSION, versions_of([SYNTHESIZER])])


@hookimpl
def edgeopt_datasets() -> Iterator[DatasetPlugin]:
    """The data sets of this package."""
    yield DatasetPlugin(
        "wav-folder",
        "Spoken words in wav files, as images of their spectrum; no speaker is in two splits.",
        WavFolderOptions,
        load=load_folder,
        fingerprint=fingerprint_folder,
        survey=survey_folder,
        requires=("scipy",),
        install=_INSTALL,
    )
    yield DatasetPlugin(
        "spoken-digits",
        "Ten digits in up to 70 synthetic voices, as images of their spectrum; needs no network.",
        SpokenDigitsOptions,
        load=load_digits,
        fingerprint=fingerprint_digits,
        requires=("scipy", SYNTHESIZER),
        install=_INSTALL,
    )
