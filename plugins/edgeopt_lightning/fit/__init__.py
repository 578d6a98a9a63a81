"""The fit loop, on Lightning: every pass that trains uses it, those of other plugins too.

```
shuffled batches ─▶ normalize ─▶ loss ─▶ optimizer ─▶ … ─▶ score on validation ─▶ keep the best ─▶ checkpoint
```

Lightning brings the devices, the arithmetic (mixed precision, several devices and machines), accumulation and clipping.
The order of the batches, the choice of the epoch and the checkpoints are here: a resumed training must repeat an
uninterrupted one to the byte.

`fit.loop.fit` trains, `fit.hooks` says what a pass may do differently and what it gets back, `fit.validation` scores a
network as it is, `fit.batch_norm` collects statistics. Nothing is re-exported: `loop` and `trainer` import Lightning,
and whoever only validates needs no Lightning.
"""
