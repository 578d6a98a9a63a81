"""The Python files with plugins that a recipe names itself."""

from __future__ import annotations

from pathlib import Path

from edgeopt.errors import Problem, RecipeError
from edgeopt.recipe.read import Recipe


def own_plugin_files(recipe: Recipe) -> tuple[Path, ...]:
    """The files of `plugins`, from the folder of the recipe; from the present one where it was built in Python.

    Raises `RecipeError` with every one that is not there.
    """
    folder = Path(recipe.source.file).parent if recipe.source.file else Path()
    files = tuple(folder / name for name in recipe.plugins)
    problems = [
        Problem(
            f"plugins: there is no file {file.resolve()}",
            "plugins are Python files, and their paths count from the folder of the recipe",
            recipe.locate("plugins", number),
        )
        for number, file in enumerate(files)
        if not file.is_file()
    ]
    if problems:
        raise RecipeError(*problems)
    return files
