"""Charts along the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FuncFormatter

from edgeopt.report.drawing import FLOAT, FOURTH, OPTIMIZED, QUIET, THIRD, Plot, as_svg, empty_axes, styled
from edgeopt.why.sentences import told_outputs
from edgeopt.why.table import LayerNoise, Part, Why

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (9.6, 3.1)
_COLOURS = {Part.WEIGHTS: OPTIMIZED, Part.ACTIVATION: THIRD, Part.KERNEL: FOURTH}
_NAMED = 3  # of the worst layers


def plots(why: Why) -> tuple[Plot, ...]:
    """What each layer does to the outputs, and how signal to noise falls on the way."""
    return (_shares(why), _signal(why)) if why.layers else ()


def _shares(why: Why) -> Plot:
    places = range(1, len(why.layers) + 1)
    with styled("shares"):
        axes, figure = empty_axes(_SIZE, left=0.07)
        base = [0.0] * len(why.layers)
        for part, colour in _COLOURS.items():
            heights = [100 * why.share_at_output(layer) * layer.share(part) for layer in why.layers]
            axes.bar(places, heights, bottom=base, width=0.8, color=colour, label=part.value, linewidth=0)
            base = [below + height for below, height in zip(base, heights, strict=True)]
        top = max([*base, 1.0])
        named: list[int] = []
        for layer in why.worst_first[:_NAMED]:
            place = why.layers.index(layer)
            if base[place] > 0.05 * top and all(abs(place - other) > 0.2 * len(base) for other in named):
                named.append(place)
                axes.annotate(
                    layer.name,
                    (place + 1, base[place]),
                    xytext=(0, 3),
                    textcoords="offset points",
                    **_beside(place, why),
                )
        axes.set_ylim(0, 1.15 * top)
        axes.set_ylabel("share, %")
        _along(axes, why.layers)
        axes.legend(fontsize=8, loc="upper right")
        svg = as_svg(figure, "shares")
    told = "; ".join(
        f"{layer.name}: {100 * why.share_at_output(layer):.1f} %, mostly {layer.blame}"
        for layer in why.worst_first[:10]
    )
    return Plot(
        svg,
        f"What each layer's own error does to the {told_outputs(why)}",
        f"Share of all layers, the worst first: {told}",
    )


def _signal(why: Why) -> Plot:
    known = [(place, layer.total.db) for place, layer in enumerate(why.layers, 1) if layer.total and layer.total.db]
    own = [(place, layer.own.db) for place, layer in enumerate(why.layers, 1) if layer.own.db is not None]
    with styled("signal"):
        axes, figure = empty_axes(_SIZE, left=0.07)
        if own:
            axes.plot(*zip(*own, strict=True), "o", color=FLOAT, markersize=3.5, label="the layer's own error")
        if known:
            axes.plot(
                *zip(*known, strict=True),
                "-",
                color=OPTIMIZED,
                linewidth=1.6,
                marker="o",
                markersize=3.5,
                label="all up to here",
            )
        axes.set_ylabel("signal to noise, dB")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.axhline(0, color=QUIET, linewidth=0.6)
        _along(axes, why.layers)
        axes.legend(fontsize=8, loc="best")
        svg = as_svg(figure, "signal")
    told = "; ".join(f"{why.layers[place - 1].name}: {value:.1f} dB" for place, value in known)
    return Plot(svg, "Signal to noise along the network: the higher, the closer to the float program", told)


def _along(axes: Axes, layers: Sequence[LayerNoise]) -> None:
    axes.set_xlabel("place in the network")
    axes.set_xlim(0.2, len(layers) + 0.8)
    axes.grid(visible=False, axis="x")


def _beside(place: int, why: Why) -> dict[str, Any]:
    """Where a name stands so that it stays inside of the picture."""
    middle = place / max(1, len(why.layers) - 1)
    return {"ha": "left" if middle < 0.2 else "right" if middle > 0.6 else "center", "fontsize": 8}
