"""The passes `ptq` and `qat`: prepare a captured program, calibrate or train it, convert it."""
