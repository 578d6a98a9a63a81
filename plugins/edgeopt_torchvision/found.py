"""What one look at a data set of torchvision's found. Light: `edgeopt check` asks it, and nothing is read."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from edgeopt.data.walk import files_below
from edgeopt.files import where_looked
from edgeopt.plugins import DataError, Problem, RawDataset, digest
from edgeopt_torchvision.options import NamedDatasetOptions


@dataclass(frozen=True)
class FoundNamed:
    """The files of a data set: names, sizes and times; None where they are the published ones, or will be."""

    options: NamedDatasetOptions
    files: tuple[tuple[str, int, int], ...] | None

    def fingerprint(self) -> str:
        """Names, sizes and times of the files; with `download` those of torchvision's own archives count, which are
        always the same.
        """
        said = self.files if self.files is None else [list(each) for each in self.files]
        return digest([self.options.name, self.options.chosen_variant, said])

    def survey(self) -> None:
        """Labels stand in files that are not read for it."""
        return

    def load(self) -> RawDataset:
        """The images, downloaded first where that is asked for."""
        from edgeopt_torchvision.named import read_named  # torch and torchvision are heavy

        return read_named(self.options)


def find_named(options: NamedDatasetOptions) -> FoundNamed:
    """Looks at the files.

    Raises `DataError` that names what is missing and may not be downloaded, or the package that reads them.
    """
    needed = options.entry.requires
    if needed and importlib.util.find_spec(needed) is None:
        message = f"torchvision reads {options.name} with {needed}, which is not installed"
        raise DataError(Problem(message, "pip install 'edgeopt[vision]'", option="name"))
    if options.download:
        return FoundNamed(options, None)
    missing = [name for name in options.needs if not (options.root / name).exists()]
    if missing:
        raise DataError(_missing(options, missing))
    found: list[tuple[str, int, int]] = []
    for name in options.needs:
        place = options.root / name
        try:
            if place.is_dir():
                below = files_below(place, lambda _: True).taken
                found += ((f"{name}/{file.name}", file.size, file.changed) for file in below)
            else:
                status = place.stat()
                found.append((name, status.st_size, status.st_mtime_ns))
        except OSError as error:
            message = f"{error.filename or place} cannot be read: {error.strerror or error}"
            raise DataError(Problem(message, "check its permissions", option="root")) from error
    return FoundNamed(options, tuple(found))


def _missing(options: NamedDatasetOptions, missing: list[str]) -> Problem:
    lacks = ", ".join(missing)
    are = "is" if len(missing) == 1 else "are"
    hint = f"put the files that its authors publish there, unpacked: {', '.join(options.needs)} below {options.root}"
    if options.entry.downloads:
        hint += "; or set download = true, which also unpacks archives that lie there"
    message = f"{options.name} is not there: {lacks} {are} missing below {options.root}{where_looked(options.root)}"
    return Problem(message, hint, option="root")
