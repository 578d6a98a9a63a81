"""Answers that are refused with what they were asked by, for tests of devices."""


def answers(outputs, decision):
    raise ValueError(f"asked for answers of {outputs[0].shape} by {decision}")
