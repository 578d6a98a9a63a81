"""How much each layer of a network minds being compressed: `edgeopt sensitivity`, and the engine behind it as a library.

```
program ─▶ Network ─▶ Probe ─┐
                             ├▶ scan ─▶ Scan ─▶ sensitivity.csv, allocation.toml, sensitivity.html
validation split ────────────┘
```

`network`, `watch` and `scan` import torch; `table`, `allocation` and `bounds` are light.
"""
