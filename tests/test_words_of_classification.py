"""Classification is one task of several: the core outside of `tasks/` speaks of outputs and targets, and where it speaks
of logits and labels there is a reason, told here.
"""

from __future__ import annotations

import re
from pathlib import Path

CORE = Path(__file__).parents[1] / "edgeopt"
WORDS = re.compile(r"(?<![a-z])(logits?|labels|labelled)(?![a-z])", re.IGNORECASE)

#: By reason, the modules that have these words.
EXCEPTIONS = {
    "A classifier's output is called so, in files and in cards, which apps read.": (
        "cards.card",
        "networks.saved",
        "types",
    ),
    "The names of these arrays, in signatures.": (
        "arrays",
        "plugins",
    ),
    "A converted file has no run, so labelled images are all that says whether it is right: classes are matched by name.": (
        "bench.converted",
        "bench.labelled",
        "bench.labelled_file",
        "bench.run",
        "cli.convert",
        "cli.file_commands",
        "conversion.labelled",
        "conversion.plan",
        "conversion.source_check",
        "conversion.worker",
        "options",
        "plugins.declarations",
    ),
    "A split has them by its protocol, and here they are none.": ("bench.sweep.file",),
    "`max_logit_difference` is a field of report.json, schema 1, and of bench's tables.": (
        "bench.table",
        "bench.terminal",
        "measure.answers",
        "measure.on_device",
        "pipeline.report",
        "report.devices",
        "report.schema",
    ),
    "Runs are compared by what their files took images for; of a task without classes by grades, beside these.": (
        "comparison.files",
        "comparison.same_data",
        "report.kept_answers",
    ),
    "Images of one class each have rules of their own: no class may be missing from a split.": (
        "data.cache",
        "data.groups",
        "data.images",
        "data.prepare",
        "data.splits",
    ),
    "A card's self-test of a classifier has logits.": ("export.self_test",),
    "What a classifier must return, and how a network that does not is told.": (
        "networks.capture",
        "networks.heads",
        "networks.logits",
        "networks.outputs",
        "plugins.predictor",
    ),
    "Which images of a classifier the page shows.": ("report.samples",),
    "Another meaning: names on plots, of metrics and of bars.": (
        "report.plots",
        "serving.metrics",
        "workers.display",
    ),
    "The measure `logits` of a scan is an option that recipes and commands name; it takes all outputs.": (
        "cli.recipe_commands",
        "sensitivity.page",
        "sensitivity.table",
        "sensitivity.tally",
    ),
    "The options of the tasks of classes say what is scored of their labels and logits.": ("plugins.own_tasks",),
    "Labels are one of the three kinds of things that pages draw and the API tells.": (
        "serving.api",
        "serving.findings",
        "serving.openapi",
        "serving.values",
        "testing.task",
    ),
    "Contracts that are run on tiny classifiers, and what is asked of images of one class each.": (
        "testing.dataset",
        "testing.device",
        "testing.exporter",
        "testing.linear_file",
        "testing.model",
        "testing.network",
        "testing.probe",
        "testing.quantizer",
        "testing.reader",
        "testing.states",
        "testing.values",
    ),
    "An example of an output's name.": ("why.sentences",),
}


def test_core_modules_speak_of_logits_and_labels_for_a_told_reason_only() -> None:
    found = set()
    for file in CORE.rglob("*.py"):
        name = ".".join(file.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith("tasks.") and WORDS.search(file.read_text(encoding="utf-8")):
            found.add(name)
    told = [name for names in EXCEPTIONS.values() for name in names]
    assert len(told) == len(set(told)), "one reason each"
    assert sorted(found - set(told)) == [], "say outputs and targets, and let the task answer; or give the reason here"
    assert sorted(set(told) - found) == [], "these no longer have the words: take them out of the list"
