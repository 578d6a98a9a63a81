"""What one look at a folder of TensorFlow Datasets found. Light: `edgeopt check` asks it, and no record is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.data.walk import FoundFile, files_below, require_unchanged
from edgeopt.plugins import DataError, Problem, RawDataset, did_you_mean, digest
from edgeopt_images.options import TfdsOptions
from edgeopt_images.tfds.columns import Columns
from edgeopt_images.tfds.folder import Folder, kind_of, look


@dataclass(frozen=True)
class FoundTfds:
    """The files of one version of a data set, its splits by our names, and the features to read."""

    options: TfdsOptions
    files: tuple[FoundFile, ...]
    file_format: str
    splits: Mapping[str, str]
    columns: Columns

    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        return digest([[file.name, file.size, file.changed] for file in self.files])

    def survey(self) -> None:
        """Labels stand in records that are not read for it."""
        return

    def load(self) -> RawDataset:
        """The images, read and decoded when they are asked for.

        Raises `DataChangedError` for a file that is no longer as it was found, and `DataError` for records that cannot
        be used, unless such are to be skipped.
        """
        from edgeopt_images.tfds.reading import read_tfds  # numpy and tensorflow_datasets are heavy

        for file in self.files:
            require_unchanged(self.options.path / file.name, file.size, file.changed)
        return read_tfds(self.options, self.file_format, self.splits, self.columns, self.fingerprint())


def tasks_of_tfds(options: TfdsOptions) -> tuple[str, ...]:
    """What the labels are for."""
    return ("multi-label",) if options.several_labels else ("classification",)


def find_tfds(options: TfdsOptions) -> FoundTfds:
    """Looks at the folder and at what it says of itself; raises `DataError` with all that does not fit."""
    folder = look(options.path, options.split_names)
    columns, problems = _columns(options, folder)
    problems = [*folder.problems, *problems]
    if problems or columns is None:
        raise DataError(*problems)
    files = files_below(options.path, lambda _: True).taken
    return FoundTfds(options, files, folder.file_format, folder.splits, columns)


def _columns(options: TfdsOptions, folder: Folder) -> tuple[Columns | None, list[Problem]]:
    """The features that hold image and label: as asked for, as the data set says itself, or by what they are."""
    pair = folder.supervised or ("", "")
    kinds = {name: kind_of(each) for name, each in folder.features.items()}
    image = options.image_feature or pair[0] or _only(kinds, "Image") or "image"
    label = options.label_feature or pair[-1] or _only(kinds, "ClassLabel") or "label"
    wants = ("ClassLabel", "Sequence") if options.several_labels else ("ClassLabel", "Scalar", "Tensor", "Text")
    problems = []
    for name, option, taken in ((image, "image_feature", ("Image",)), (label, "label_feature", wants)):
        if name not in kinds:
            has = f"it has {', '.join(kinds)}" if kinds else "it names none"
            problems.append(
                Problem(f"{options.path} has no feature {name!r}: {has}", did_you_mean(name, kinds), option=option)
            )
        elif kinds[name] not in taken:
            message = f"feature {name!r} of {options.path} is {kinds[name]}, and not {' or '.join(taken)}"
            hint = f"name another feature by {option}"
            if kinds[name] == "Sequence" and option == "label_feature":
                hint = "set several_labels = true where an image has any number of labels"
            problems.append(Problem(message, hint, option=option))
    return (None if problems else Columns(image, label)), problems


def _only(kinds: Mapping[str, str], kind: str) -> str:
    """The only feature of a kind, "" where there are none or several."""
    found = [name for name, each in kinds.items() if each == kind]
    return found[0] if len(found) == 1 else ""
