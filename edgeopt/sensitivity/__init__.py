"""How much each layer of a network minds being compressed: `edgeopt sensitivity`, and the engine behind it as a
library.

```
program ─▶ Network ─▶ Probe ─┐
                             ├▶ scan ─▶ Scan ─▶ sensitivity.csv, allocation.toml, sensitivity.html
validation split ────────────┘
```

`calls`, `network` and `scan` import torch, `tally` numpy; `settings`, `table`, `allocation` and `bounds` are light.
"""
