"""Commands that take a recipe; what they do is in the module of each."""

from pathlib import Path
from typing import Annotated

import typer

from edgeopt.cli import complete
from edgeopt.cli.application import (
    BucketOption,
    OutOption,
    PluginOption,
    RecipeArgument,
    RecipesArgument,
    SetOption,
    SmokeOption,
    app,
)
from edgeopt.cli.failures import GOES_ON, failures_shown
from edgeopt.cli.help import Command


@app.command(cls=Command)
def run(
    recipe: RecipesArgument,
    set_: SetOption = None,
    *,
    smoke: SmokeOption = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute every stage again, cached or not.")] = False,
    measure_again: Annotated[
        bool, typer.Option("--measure-again", help="Measure latency and memory again; all else is kept.")
    ] = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Refuse to run when anything differs from the lock of the last run.")
    ] = False,
    no_devices: Annotated[
        bool, typer.Option("--no-devices", help="Take the files to none of the recipe's devices.")
    ] = False,
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            metavar="N|ray",
            help="How many recipes to run at once, each in a process with its share of the processors; or ray, all of "
            "them as a cluster has room.",
            show_default=False,
        ),
    ] = None,
    ray_address: Annotated[
        str,
        typer.Option("--ray-address", metavar="ADDRESS", help='The cluster: auto, local or "ray://HOST:PORT".'),
    ] = "auto",
    ray_cpus: Annotated[float, typer.Option("--ray-cpus", metavar="N", help="Processors of each recipe there.")] = 1.0,
    ray_gpus: Annotated[float, typer.Option("--ray-gpus", metavar="N", help="GPUs of each recipe there.")] = 0.0,
    bucket: BucketOption = None,
    out: OutOption = Path("runs"),
    plugin: PluginOption = None,
) -> None:
    """Run a recipe, or several: train, optimize, export, open every file and measure it.

    Of several recipes, each fails alone, and a table says at the end what became of them. A run that was interrupted
    goes on where it stopped when the same command is given again.
    """
    with failures_shown(GOES_ON):
        from edgeopt.pipeline.request import RunRequest
        from edgeopt.workers.bucket import Bucket

        request = RunRequest(
            recipe[0],
            tuple(set_ or ()),
            smoke=smoke,
            fresh=fresh,
            measure_again=measure_again,
            locked=locked,
            devices=not no_devices,
            out=out,
            plugin_files=tuple(plugin or ()),
            bucket=Bucket(bucket) if bucket else None,
        )
        if len(recipe) == 1 and workers is None:
            from edgeopt.cli.run import run_recipe

            run_recipe(request)
        else:
            from edgeopt.cli.several import Cluster, run_recipes

            run_recipes(recipe, request, workers, Cluster(ray_address, ray_cpus, ray_gpus))


@app.command(cls=Command)
def check(
    recipe: RecipeArgument,
    set_: SetOption = None,
    *,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="NAME",
            autocompletion=complete.targets,
            help="Instead, ask what an accelerator takes of the recipe's files, before anything is trained: coreml, "
            "edgetpu, ethos-u, qnn, vulkan or a plugin's.",
            show_default=False,
        ),
    ] = None,
    smoke: SmokeOption = False,
    out: OutOption = Path("runs"),
    plugin: PluginOption = None,
) -> None:
    """Find everything that is wrong with a recipe, or show what a run of it would do; no image is read.

    With a target, the model is made of a few images and each operator gets a verdict: runs there, falls back to CPU, or
    refused.
    """
    with failures_shown(GOES_ON if target else ""):
        if target:
            from edgeopt.cli.targets import show_target

            show_target(recipe, target, overrides=set_ or (), out=out, plugin_files=plugin or ())
        else:
            from edgeopt.cli.check import check_recipe

            check_recipe(recipe, overrides=set_ or (), smoke=smoke, out=out, plugin_files=plugin or ())


@app.command(cls=Command)
def sensitivity(
    recipe: RecipeArgument,
    of: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="PROBE",
            autocompletion=complete.probes,
            help="What to try on each layer: sparsity, bits, quantization or a plugin's.",
        ),
    ],
    levels: Annotated[
        str | None,
        typer.Option(
            "--levels",
            metavar="LEVELS",
            help='Levels to try, as in "8 6 4"; the probe\'s own when left out.',
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", metavar="SHARE", help="Largest drop of accuracy, or error of the logits, that passes."
        ),
    ] = 0.01,
    measure: Annotated[
        str, typer.Option("--measure", metavar="MEASURE", help="accuracy, or logits: how far they move.")
    ] = "accuracy",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the recipe, or an option of the probe: probe.inputs=8.",
        ),
    ] = None,
    *,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Run every layer and level on all images, also where the verdict is certain."),
    ] = False,
    certainty: Annotated[
        float,
        typer.Option(
            "--certainty",
            metavar="SHARE",
            help="Probability that all verdicts are those on all images; 1 guesses nothing.",
        ),
    ] = 0.99,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Layers to run side by side; the machine's cores when left out.",
            show_default=False,
        ),
    ] = None,
    smoke: SmokeOption = False,
    out: OutOption = Path("runs"),
    plugin: PluginOption = None,
) -> None:
    """Measure how much each layer of a recipe's float model minds being pruned or rounded, and recommend a level for
    each.

    Writes sensitivity.csv, sensitivity.html and allocation.toml, which passes read as allocation = "FILE".
    """
    with failures_shown(GOES_ON):
        from edgeopt.cli.sensitivity import show_sensitivity

        show_sensitivity(
            recipe,
            of=of,
            levels=levels,
            threshold=threshold,
            measure=measure,
            complete=complete,
            certainty=certainty,
            workers=workers,
            overrides=set_ or (),
            smoke=smoke,
            out=out,
            plugin_files=plugin or (),
        )


@app.command(cls=Command)
def tune(
    recipe: RecipeArgument,
    set_: SetOption = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Show what the study would try, and everything that is wrong with it.")
    ] = False,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", min=1, help="Most trials.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="M", help="Longest time for all trials.", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the trials of an earlier study.")] = False,
    bucket: BucketOption = None,
    out: OutOption = Path("runs"),
    plugin: PluginOption = None,
) -> None:
    """Find the recipe that reaches the goal of [tune]: sizes and latencies are measured first, and only what can win is
    trained.

    Trials are chosen by validation images; the winner alone sees the test images, once. A study that was interrupted
    goes on where it stopped when the same command is given again.
    """
    with failures_shown(GOES_ON):
        from edgeopt.cli.tune import check_study, tune_recipe
        from edgeopt.tuning.request import TuneRequest
        from edgeopt.workers.bucket import Bucket

        shared = Bucket(bucket) if bucket else None
        request = TuneRequest(recipe, tuple(set_ or ()), trials, minutes, fresh, out, tuple(plugin or ()), shared)
        (check_study if check else tune_recipe)(request)
