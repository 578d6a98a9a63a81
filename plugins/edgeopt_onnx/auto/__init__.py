"""Precision "auto": which operators of an int8 graph are cheaper in float, by measured costs."""
