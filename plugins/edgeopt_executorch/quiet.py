"""Keep the libraries' own log lines and warnings off the terminal while they work."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet_python() -> Iterator[None]:
    """Within, Python warnings and log records up to WARNING are dropped; errors still show."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def native_messages() -> Iterator[Callable[[], str]]:
    """Within, what C++ code writes to the standard error is kept; yields a function that returns it so far.

    The ExecuTorch runtime says why a call failed only there: partly through Python's `sys.stderr`, partly past it. The
    redirection is the whole process's: keep the block short.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as messages:

        def read() -> str:
            messages.flush()
            messages.seek(0)
            return messages.read().strip()

        os.dup2(messages.fileno(), 2)
        try:
            with redirect_stderr(messages):
                yield read
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
