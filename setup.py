"""What `pyproject.toml` has no word for: the examples travel inside the package, from the one place where they lie."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
copy_example = runpy.run_path(str(ROOT / "edgeopt" / "scaffold" / "copying.py"))["copy_example"]


class BuildWithExamples(build_py):
    """Also copies `examples/` into `edgeopt/scaffold/` of what is built; an editable install reads it where it lies."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for example in (ROOT / "examples").glob("*/README.md"):
                target = Path(self.build_lib, "edgeopt", "scaffold", "examples", example.parent.name)
                if not target.exists():
                    copy_example(example.parent, target)


setup(cmdclass={"build_py": BuildWithExamples})
