"""What errors have in common."""

from __future__ import annotations

from edgeopt.plugins import first_line


def test_the_first_line_of_an_error_that_says_anything():
    assert first_line(ValueError("\n  \n  the shape is wrong  \nmore\n")) == "the shape is wrong"
    assert first_line(ValueError("")) == "ValueError"
    assert first_line(KeyError()) == "KeyError"
