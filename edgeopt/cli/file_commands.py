"""Commands that take model files, or what runs left; what they do is in the module of each."""

from pathlib import Path
from typing import Annotated

import typer

from edgeopt.cli import complete
from edgeopt.cli.application import (
    DeviceOption,
    DevicesOption,
    OutOption,
    PluginOption,
    app,
)
from edgeopt.cli.failures import NOTHING_KEPT, failures_shown
from edgeopt.cli.help import Command
from edgeopt.errors import UserError

RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="Folders of finished runs, files in them, or files that convert made.",
        autocompletion=complete.runs,
    ),
]


@app.command(cls=Command)
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A model file, or a SavedModel folder.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="What to make of it, such as onnx or tflite.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of source, export, dataset or a pass: export.precision=float16.",
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The new file; named after the source when left out.", show_default=False
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", metavar="NAME", help="Images to calibrate with and to compare on.", show_default=False
        ),
    ] = None,
    pass_: Annotated[
        list[str] | None,
        typer.Option("--pass", metavar="NAME", help="A pass on the way, such as ptq; may be given again."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="Size of images, px, where the source leaves it open: 224, or 96x160, height first.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Convert one model file to another format, and show how far the two are apart on the same images."""
    with failures_shown(NOTHING_KEPT):
        from edgeopt.cli.convert import convert_file, size_overrides
        from edgeopt.conversion.plan import ConversionRequest

        request = ConversionRequest(
            source=str(source),
            format=to,
            passes=tuple(pass_ or ()),
            dataset=dataset,
            overrides=(*(set_ or ()), *size_overrides(size)),
            plugin_files=tuple(str(file) for file in plugin or ()),
        )
        convert_file(request, out, force=force)


@app.command(cls=Command)
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", autocompletion=complete.runs)],
    *,
    open_: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
) -> None:
    """Show the report of a finished run."""
    with failures_shown():
        from edgeopt.cli.report import show_report

        show_report(run, in_browser=open_)


@app.command(cls=Command)
def serve(
    runs: RunsArgument,
    *,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="The port; 0 takes any that is free.")] = 8000,
    threads: Annotated[int, typer.Option("--threads", metavar="N", help="Threads of each file's runtime.")] = 1,
    max_megabytes: Annotated[
        float, typer.Option("--max-megabytes", metavar="MB", help="The largest image that is read.")
    ] = 20,
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", metavar="MP", help="The most pixels that are decoded.")
    ] = 50,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="How long a request waits for its turn at a file.")
    ] = 10,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    static: Annotated[
        bool, typer.Option("--static", help="Write a folder instead, whose files run in the browser itself.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The folder that --static writes; site/ by default.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Serve the files of finished runs: a page on which all of them answer for an image, and a JSON API.

    Only this machine is let in unless --host says otherwise. No image is kept. Ctrl-C ends it.
    """
    with failures_shown():
        from edgeopt.cli.serve import serve_runs, write_static

        if out is not None and not static:
            raise UserError("--out is the folder that --static writes", hint="add --static, or leave --out out")
        if static:
            write_static(
                runs,
                out or Path("site"),
                megabytes=max_megabytes,
                megapixels=max_megapixels,
                plugin_files=plugin or (),
            )
            return
        serve_runs(
            runs,
            host=host,
            port=port,
            threads=threads,
            megabytes=max_megabytes,
            megapixels=max_megapixels,
            wait_s=wait,
            in_browser=open_,
            plugin_files=plugin or (),
        )


@app.command(cls=Command)
def bench(
    runs: RunsArgument,
    *,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="N,N", help="Images in a call, as in 1,2,4,8; 1 when left out."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="PX,PX", help="Sizes of images, as in 96,160,224: makes the files anew for each."
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option("--threads", metavar="N,N", help="Threads of the runtime, as in 1,2; 1 when left out."),
    ] = None,
    sustained: Annotated[
        str | None,
        typer.Option("--sustained", metavar="TIME", help="Also call each file for so long without a pause, as in 10m."),
    ] = None,
    operators: Annotated[
        bool, typer.Option("--operators", help="Also what each layer and operator takes, where the runtime tells.")
    ] = False,
    energy: Annotated[
        bool, typer.Option("--energy", help="Also the energy of an image, where the machine has a meter.")
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help="calls, or single-stream: at least 1,024 calls and 60 s a file, as MLPerf has it.",
        ),
    ] = None,
    calls: Annotated[
        int | None, typer.Option("--runs", metavar="N", help="Calls that count, for each row; 100 when left out.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="The image that all are given; one is made when left out."),
    ] = None,
    device: DeviceOption = None,
    recipe: DevicesOption = None,
    images: Annotated[
        int,
        typer.Option("--images", metavar="N", help="Test images for which files answer on a device.", min=1),
    ] = 500,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="Labelled images for files that convert made: how often they are right.",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the data set, as in dataset.path=photos."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the tables and the page; RUN/bench when left out."),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Time finished files by image size, images in a call, threads and minutes, and the whole way of an image.

    Without options it measures what [measure.sweep] in the run's recipe says. Writes bench.html, bench.json and
    bench.csv. Times of this machine say nothing about another: --device takes the files there, where they also answer
    for test images.
    """
    with failures_shown(NOTHING_KEPT):
        from edgeopt.cli.bench import Flags, bench_files

        bench_files(
            runs,
            Flags(batch, size, threads, sustained, protocol, calls, operators=operators, energy=energy),
            image=image,
            devices=device or (),
            recipe=recipe,
            images=images,
            dataset=dataset,
            overrides=set_ or (),
            out=out,
            plugin_files=plugin or (),
        )


@app.command(cls=Command)
def why(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A quantized file of a finished run, such as RUN/onnx/optimized/model.onnx."
        ),
    ],
    *,
    images: Annotated[
        int, typer.Option("--images", metavar="N", min=1, help="Images of the validation split to look at.")
    ] = 32,
    threads: Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Threads of the work.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of page and figures; `why` beside the file when left out."),
    ] = None,
    try_: Annotated[
        bool, typer.Option("--try", help="Run the recipe with the lines that may mend it, beside the run, and compare.")
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Show where a quantized file errs, layer by layer in its own runtime, by what, and which line would mend it.

    Each layer's error is split into that of its weights, its activation range and the runtime's kernel. Writes why.html
    and why.json.
    """
    with failures_shown(NOTHING_KEPT):
        from edgeopt.cli.why import show_why
        from edgeopt.why.request import WhyRequest

        request = WhyRequest(given=file, images=images, threads=threads, out=out, plugin_files=tuple(plugin or ()))
        show_why(request, try_it=try_)


@app.command(cls=Command)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Folders of finished runs; the others are held against the first.",
            autocompletion=complete.runs,
        ),
    ],
    *,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page, too.", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON, too.", show_default=False)
    ] = None,
    measure_together: Annotated[
        bool,
        typer.Option("--measure-together", help="Time the files of all runs here, turn by turn."),
    ] = False,
    gate: Annotated[bool, typer.Option("--gate", help="End with exit code 3 when a figure has become worse.")] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="NAME=LIMIT,...",
            help="What --gate allows: accuracy=0.005 (a drop), bytes=1.05, latency=1.10 (ratios).",
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Compare runs: accuracy image by image, size, latency, and in what their recipes differ.

    There is no verdict on the accuracy of different test images, nor on latencies of different machines.
    """
    with failures_shown(NOTHING_KEPT):
        from edgeopt.cli.compare import show_comparison

        show_comparison(
            runs,
            html=html,
            json=json,
            gate=gate,
            allow=allow or (),
            measure_together=measure_together,
            plugin_files=plugin or (),
        )


@app.command(cls=Command)
def clean(
    *,
    out: OutOption = Path("runs"),
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="AGE", help="Only what was made longer ago: 30d, 12h.", show_default=False
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Also what folders of runs refer to; their own files stay.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Show what takes space among the cached stages, and remove what no run refers to.

    What a run at work holds is never taken. A run whose stages were removed makes them again.
    """
    with failures_shown():
        from edgeopt.cli.clean import clean_store

        clean_store(out, older_than=older_than, everything=all_, dry_run=dry_run, yes=yes)
