"""Whether a recipe's model takes the images that its data set gives, as far as that can be told before one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeopt.errors import Location
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import DatasetPlugin, ModelPlugin
from edgeopt.plugins.use import Use

if TYPE_CHECKING:
    from edgeopt.recipe.lookup import Lookup


def check_images(lookup: Lookup, dataset: Use[DatasetPlugin] | None, model: Use[ModelPlugin] | None) -> None:
    """Notes what a model's plugin has against the size, shape and channels of the data set's images, at their lines."""
    if dataset is None or model is None or model.plugin.refuses is None:
        return

    def locate(*names: str) -> Location | None:
        return lookup.source.locate(("dataset", *names))

    with blamed(model.plugin, "refuses"):
        found = list(model.plugin.refuses(model.options, dataset.options))
    lookup.problems += [problem.at(locate) for problem in found]
