"""What all declarations share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel

from edgeopt.errors import PluginError, Problem
from edgeopt.options import Options

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Plugin:
    """What all declarations share.

    Of each kind are known: its name and plural, the hook that gives plugins of it, and the `header` under which one
    stands in a recipe (for a kind that is not `in_recipes`, in the `--set` of the command that takes it).

    `name` is a kebab-case noun, `summary` one line, `options` a pydantic model whose fields all have a description.
    `requires` names the distributions that the callables import, and `install` the requirement that brings them, as pip
    takes it (`edgeopt[onnx]`). `optional` names those that change the result where they are installed. `libraries`
    names the import packages of other plugins that the callables use (`edgeopt_lightning`), and those that these use:
    their source is in the keys of results, so that a change of it is never answered from the store.
    """

    kind: ClassVar[str]
    plural: ClassVar[str]
    hook: ClassVar[str]
    header: ClassVar[str]
    in_recipes: ClassVar[bool] = True

    name: str
    summary: str
    options: type[Options]
    requires: tuple[str, ...] = field(default=(), kw_only=True)
    optional: tuple[str, ...] = field(default=(), kw_only=True)
    libraries: tuple[str, ...] = field(default=(), kw_only=True)
    install: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        problems = []
        if not _NAME.fullmatch(self.name):
            problems.append(Problem(f"{self.kind} {self.name!r}: the name is not kebab-case", "use a-z, 0-9 and '-'"))
        if not self.summary or "\n" in self.summary:
            problems.append(Problem(f"{self.kind} {self.name!r}: the summary is not one line"))
        if not (isinstance(self.options, type) and issubclass(self.options, BaseModel)):
            problems.append(Problem(f"{self.kind} {self.name!r}: options is not a pydantic model"))
        else:
            problems += [
                Problem(
                    f"{self.kind} {self.name!r}: option {name!r} has no description", "give its Field a description"
                )
                for name, option in self.options.model_fields.items()
                if not option.description
            ]
        if problems:
            raise PluginError(*problems)
