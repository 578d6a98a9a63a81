"""What libraries say while they are kept quiet reaches the run's log, and nothing else."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest

from edgeopt.export.predictor import LIBRARIES, quiet


def say_much() -> None:
    warnings.warn("this will go in version 3", DeprecationWarning, stacklevel=1)
    logging.getLogger("somelibrary").warning("took the slow path")
    own = logging.getLogger("somelibrary.own")
    own.propagate, own.handlers = False, [logging.StreamHandler()]
    own.warning("through a handler of its own")


def test_warnings_and_records_go_to_one_logger_as_information(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, LIBRARIES)
    with quiet(), quiet():
        say_much()
        logging.getLogger("somelibrary").error("this is wrong")
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert [each[:2] for each in told] == [(LIBRARIES, "INFO")] * 3 + [("somelibrary", "ERROR")]
    assert "DeprecationWarning: this will go in version 3" in told[0][2]
    assert told[1][2] == "somelibrary: took the slow path"
    assert "its own" in told[2][2]
    assert capsys.readouterr().err == ""
    with pytest.warns(DeprecationWarning):
        say_much()


@pytest.mark.parametrize("in_worker", [True, False])
def test_a_worker_writes_them_to_its_error_output_and_nobody_else_does(in_worker: bool) -> None:
    body = """
import logging, sys, warnings
from edgeopt.export.predictor import quiet
from edgeopt.workers.process import work

def main(events):
    with quiet():
        warnings.warn("this will go")
        logging.getLogger("somelibrary").warning("slow path")

sys.exit(work(main)) if sys.argv[1] == "True" else main(None)
"""
    done = subprocess.run([sys.executable, "-c", body, str(in_worker)], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert ("this will go" in done.stderr, "slow path" in done.stderr) == (in_worker, in_worker)
