"""Declares the data sets `wav-folder` and `spoken-digits`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.plugins import DatasetPlugin, RawDataset, digest, hookimpl, versions_of
from edgeopt_audio.found import find_folder
from edgeopt_audio.layout import Layout, find_recordings
from edgeopt_audio.options import SpokenDigitsOptions, WavFolderOptions
from edgeopt_audio.spoken_digits import LAYOUT, SYNTHESIZER, VERSION, recordings_folder

_INSTALL = "edgeopt[audio]"


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
        find=find_folder,
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
