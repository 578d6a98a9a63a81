"""Runs beside each other: what `edgeopt compare` reads, judges, measures and shows."""
