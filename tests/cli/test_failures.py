"""Each way to end has its exit code and its words, and none shows a traceback."""

import errno
from pathlib import Path

import pytest

from edgeopt.errors import GateError, Location, PluginBugError, Problem, SilenceError, UserError, WorkerError


@pytest.fixture
def failing(cli, monkeypatch):
    """`edgeopt run` where the run itself ends with the given error."""

    def run(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("edgeopt.pipeline.runner.run", fail)
        return cli("run", "recipe.toml")

    return run


def test_a_mistake_shows_every_problem_with_its_place_and_hint(failing):
    place = Location("recipe.toml", 12)
    result = failing(UserError(Problem("unknown key 'epoch'", "did you mean 'epochs'?", place), Problem("no data")))
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "recipe.toml:12: unknown key 'epoch'",
        "    did you mean 'epochs'?",
        "error: no data",
        "2 problems",
    ]
    assert result.stdout == ""


def test_long_messages_are_not_wrapped(failing):
    message = "word " * 100 + "end"
    result = failing(UserError(Problem(message, None, Location("recipe.toml", 3))))
    assert result.stderr == f"recipe.toml:3: {message}\n"


def test_brackets_of_toml_are_shown_as_they_are(failing):
    result = failing(UserError(Problem("'dataset' is missing", "add a [dataset] table, see [[passes]]")))
    assert "add a [dataset] table, see [[passes]]" in result.stderr


def test_a_missed_gate(failing):
    result = failing(GateError(["gate accuracy was missed: 97.00 %"]))
    assert (result.exit_code, result.stderr) == (3, "gate accuracy was missed: 97.00 %\n")


def test_an_interrupted_run_says_how_to_go_on(failing):
    result = failing(KeyboardInterrupt())
    assert result.exit_code == 130
    assert "the same command goes on from the last finished stage" in result.stderr


def test_a_bug_leaves_a_file_with_its_traceback(failing, tmp_path):
    result = failing(ZeroDivisionError("an [odd] thing"))
    assert result.exit_code == 1
    assert "this is a bug: ZeroDivisionError: an [odd] thing" in result.stderr
    assert "Traceback" not in result.output
    (log,) = tmp_path.glob("edgeopt-bug-*.log")
    assert str(log) in result.stderr
    assert "Traceback" in log.read_text()
    assert "ZeroDivisionError" in log.read_text()


def test_a_bug_in_a_worker_points_to_the_log_of_the_run(failing, tmp_path):
    result = failing(WorkerError("export: the process was ended by SIGSEGV", "runs/tiny/log.txt"))
    assert result.exit_code == 1
    assert "SIGSEGV" in result.stderr
    assert "runs/tiny/log.txt" in result.stderr
    assert not list(tmp_path.glob("edgeopt-bug-*.log"))


def test_a_worker_that_hung_is_no_bug_of_the_project(failing):
    result = failing(SilenceError("verify: no sign of life for 5 s, so it was ended", "runs/tiny/log.txt"))
    assert result.exit_code == 1
    assert "bug" not in result.stderr
    assert "runs/tiny/log.txt" in result.stderr and "measure.timeout_s" in result.stderr


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_what_the_machine_lacks_is_no_bug(failing, tmp_path, error):
    result = failing(error)
    assert result.exit_code == 2
    assert "bug" not in result.stderr
    assert result.stderr.startswith(("error: the disk is full", "error: the memory has run out"))
    assert not list(tmp_path.glob("edgeopt-bug-*.log"))


def test_a_bug_of_a_plugin_is_for_its_authors(failing):
    bug = "apply of pass 'mine': KeyError: 'nothing'"
    for error in (PluginBugError(bug), WorkerError(f"run: {bug}", "runs/tiny/log.txt", in_plugin=True)):
        result = failing(error)
        assert result.exit_code == 1
        assert "this is a bug of a plugin: " in result.stderr
        assert bug in result.stderr
        assert "to the plugin's authors" in result.stderr


def test_no_colours_where_nobody_looks(failing):
    assert "\x1b[" not in failing(UserError(Problem("wrong", "right", Location("recipe.toml", 1)))).output


def test_colours_in_a_terminal_unless_refused(monkeypatch):
    from edgeopt.cli.consoles import stderr

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert stderr().color_system is not None or stderr().is_terminal
    monkeypatch.setenv("NO_COLOR", "1")
    assert stderr().no_color


@pytest.mark.parametrize(
    "arguments",
    [("nosuch",), ("run",), ("run", "recipe.toml", "--nosuch"), ("plugins", "show"), ("new", "nosuch")],
)
def test_wrong_usage_is_a_mistake(cli, arguments):
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name = 'x'\nname = 'x'\n", 2),
        ("schema = 1\nname = 'x'\nnonsense = 3\n", 3),
        ("schema = 1\nname = 'x'\n[dataset]\nuse = 'digitz'\n[model]\nuse = 'linear'\n[[exports]]\nuse = 'npz'\n", 4),
    ],
)
def test_check_points_at_the_line(cli, write_recipe, tiny_plugin_file, text, line):
    recipe = write_recipe(text)
    result = cli("check", recipe, "--plugin", tiny_plugin_file)
    assert result.exit_code == 2
    assert f"{recipe}:{line}: " in result.stderr


def test_a_recipe_that_is_not_there(cli):
    result = cli("check", "nosuch.toml")
    assert result.exit_code == 2
    assert result.stderr.startswith("nosuch.toml: cannot be read")


def test_a_plugin_file_that_cannot_be_loaded(cli, tiny_recipe, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef (:\n")
    result = cli("check", tiny_recipe, "--plugin", broken)
    assert result.exit_code == 2
    assert f"{broken}:2: " in result.stderr


def test_every_command_has_a_help_page(cli):
    for command in ("run", "check", "plugins", "doctor", "report", "schema", "new"):
        result = cli(command, "--help")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"usage: edgeopt {command}")
        assert "--help" in result.stdout
        assert command in cli("--help").stdout
    assert Path.cwd().name  # the commands wrote nothing
    assert not list(Path.cwd().iterdir())


def test_an_interrupted_conversion_says_that_nothing_is_kept(cli, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeopt.cli.convert.convert", fail)
    result = cli("convert", "net.pt2", "--to", "onnx")
    assert result.exit_code == 130
    assert result.stderr == "interrupted; nothing was written, and nothing is kept\n"
