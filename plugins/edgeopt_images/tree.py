"""A folder and what lies below it, made of the one walk over it; light."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edgeopt.data.walk import FoundFile, FoundFiles


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder: `place` is its path below the root, `files` are images directly in it, `others` files that are none."""

    name: str
    place: str
    folders: dict[str, Folder] = field(default_factory=dict)
    files: list[FoundFile] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def below(self) -> Iterator[Folder]:
        """This folder, and all folders in it at any depth."""
        yield self
        for each in self.folders.values():
            yield from each.below()

    def images(self) -> tuple[FoundFile, ...]:
        """All images at any depth, sorted by path."""
        files = [file for folder in self.below() for file in folder.files]
        return tuple(sorted(files, key=lambda file: file.name.split("/")))

    def others_below(self) -> tuple[str, ...]:
        """All other files at any depth."""
        return tuple(name for folder in self.below() for name in folder.others)

    def has_images(self) -> bool:
        """Whether there is an image at any depth."""
        return any(folder.files for folder in self.below())

    def full_folders(self) -> dict[str, Folder]:
        """The folders directly in it that hold images at any depth."""
        return {name: folder for name, folder in self.folders.items() if folder.has_images()}


def tree_of(found: FoundFiles) -> Folder:
    """The walk's files in their folders."""
    root = Folder("", "")
    places = {"": root}
    for name in found.folders:
        above, _, last = name.rpartition("/")
        places[name] = places[above].folders[last] = Folder(last, name)
    for file in found.taken:
        places[file.name.rpartition("/")[0]].files.append(file)
    for other in found.others:
        places[other.rpartition("/")[0]].others.append(other)
    return root
