"""Whether the nodes of a cluster can do the runs of a recipe as this machine does, and what they are handed for it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt.arrays import Json
from edgeopt.errors import Problem, UserError, WorkerError, in_a_line
from edgeopt.files import storage_errors, user_cache, write_aside
from edgeopt.fingerprint import file_digest
from edgeopt.pipeline import lock
from edgeopt.pipeline.runner import store_of
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.own_plugins import own_plugin_files
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import parse_recipe
from edgeopt.workers.bucket import Bucket
from edgeopt.workers.on_ray import OnRay
from edgeopt.workers.store import Store


@dataclass(frozen=True)
class Look:
    """What is looked at on each node: the recipe's values with its plugin files, a file of the store, and the folder
    from which paths count.
    """

    recipe: Mapping[str, Json]
    plugin_files: tuple[Path, ...]
    token: Path
    secret: str
    folder: str


@dataclass(frozen=True)
class Seen:
    """What a node says: its part of the lock, and the key of the last result; or why it can do nothing."""

    environment: Mapping[str, Json]
    key: str = ""
    wrong: str | None = None


@dataclass(frozen=True)
class Luggage:
    """What nodes are handed that share no disk with this machine: plugin files, by their paths, and the bucket through
    which all share results of stages.
    """

    bucket: Bucket
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, bucket: Bucket, recipe: Mapping[str, Json], plugin_files: Iterable[Path]) -> Luggage:
        """The files that a recipe names, by their whole paths, and some more."""
        paths = [*map(Path, recipe.get("plugins", ())), *plugin_files]
        return cls(Bucket(bucket.address), {str(path): path.read_bytes() for path in paths})

    def unpack(self) -> None:
        """Writes the files to this node, by the same paths, which are in keys and in names of modules."""
        for path, text in self.files.items():
            if not Path(path).exists():
                write_aside(Path(path), text)


def node_folder() -> Path:
    """Where a node that shares no disk has its results, with those of earlier studies."""
    return user_cache() / "node"


def shipped(store: Store, files: Iterable[Path]) -> tuple[Path, ...]:
    """Copies of plugin files, in the store, which all nodes see; a changed file is another copy."""
    copies = []
    for file in files:
        copy = store.plugins / file_digest(file)[:16] / file.name
        if not copy.exists():
            with storage_errors(copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        copies.append(copy.resolve())
    return tuple(copies)


def with_shipped_plugins(store: Store, recipe: Mapping[str, Json]) -> dict[str, Json]:
    """The values of a recipe, whose own plugin files stand in it by their whole paths, with copies in their place."""
    values = dict(recipe)
    if "plugins" in values:
        values["plugins"] = [str(copy) for copy in shipped(store, map(Path, values["plugins"]))]
    return values


def require_same(
    place: OnRay,
    store: Store,
    recipe: Mapping[str, Json],
    plugin_files: tuple[Path, ...],
    luggage: Luggage | None = None,
) -> None:
    """Raises `UserError` naming each node that does not see the store, or on which the recipe would not be the same:
    other versions, other plugins or other data. Nodes with `luggage` need not see the store, and can use the bucket.
    """
    token = store.root / "turns" / f"token-{uuid.uuid4().hex}"
    write_aside(token, secret := uuid.uuid4().hex)
    look = Look(recipe, plugin_files, token.resolve(), secret, os.getcwd())  # noqa: PTH109 - as `os.chdir` takes it
    try:
        here = seen(look)
        if here.wrong:
            raise UserError(here.wrong)
        asked = (seen, look) if luggage is None else (seen_apart, look, luggage)
        answers = list(place.on_every_node(*asked))
    finally:
        token.unlink(missing_ok=True)
    problems = [problem for node, there in answers for problem in _problems(node, here, there)]
    if problems:
        raise UserError(*problems)


def seen(look: Look) -> Seen:
    """What this machine says to a look."""
    try:
        is_store = look.token.read_text(encoding="utf-8") == look.secret
    except OSError:
        is_store = False
    if not is_store:
        return Seen({}, wrong=f"it does not see the store {look.token.parent.parent}")
    if not os.path.isdir(look.folder):  # noqa: PTH112 - a plain text
        return Seen({}, wrong=f"there is no folder {look.folder}, from which the recipe's paths count")
    before = Path.cwd()
    os.chdir(look.folder)
    try:
        recipe = parse_recipe(look.recipe)
        plan = make_plan(recipe, load_registry((*own_plugin_files(recipe), *look.plugin_files)))
    except UserError as error:
        return Seen({}, wrong=in_a_line(error))
    finally:
        os.chdir(before)
    return Seen({**lock.environment(plan), "data": plan.data_fingerprint}, plan.stages["report"].key)


def seen_apart(look: Look, luggage: Luggage) -> Seen:
    """What this node, which shares no disk with the machine that asks, says to a look."""
    token = store_of(node_folder()).turns / f"token-{uuid.uuid4().hex}"
    try:
        luggage.bucket.tried()
        luggage.unpack()
        write_aside(token, look.secret)
        return seen(replace(look, token=token))
    except UserError as error:
        return Seen({}, wrong=in_a_line(error))
    finally:
        token.unlink(missing_ok=True)


def _problems(node: str, here: Seen, there: Seen | WorkerError) -> Iterator[Problem]:
    if isinstance(there, WorkerError):
        yield Problem(f"node {node} cannot be asked: {there}", "install there the edgeopt that is here")
    elif there.wrong and "the store" in there.wrong:
        yield Problem(f"node {node}: {there.wrong}", "give --out a folder that is shared by all nodes")
    elif there.wrong:
        yield Problem(f"node {node}: {there.wrong}", "let it have what this machine has")
    elif differences := lock.differing(here.environment, there.environment):
        for each in differences:
            told = each.replace(" and was ", ", and here it is ")
            yield Problem(f"node {node}: {told}", "give all nodes the same versions, plugins and data")
    elif here.key != there.key:
        hint = "give all nodes the same edgeopt, on machines of one kind"
        yield Problem(f"node {node}: its results would be others: edgeopt's source or the processor differs", hint)
