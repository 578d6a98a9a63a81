"""How much accuracy it costs to compress each layer of a network: `edgeopt sensitivity`, and its engine as a library.

```
program ─▶ Network ─▶ Probe ─┐
                             ├▶ scan ─▶ Scan ─▶ sensitivity.csv, allocation.toml, sensitivity.html
validation split ────────────┘
```

`calls`, `network` and `scan` import torch, `tally` numpy; `settings`, `table`, `allocation` and `bounds` are light.
"""
