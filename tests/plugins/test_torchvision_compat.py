"""The torchvision import beside a torch build its wheel does not match: each test in a fresh process, as an import
happens once.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"


def run_python(code: str) -> str:
    prelude = f"import sys; sys.path.insert(0, {str(PLUGINS)!r})\n"
    finished = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_models_and_transforms_work_and_nothing_stays_patched() -> None:
    run_python("""
        import sys, warnings
        import torch
        original = torch.library.register_fake
        from edgeopt_torchvision.compat import import_torchvision
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torchvision = import_torchvision()
            assert import_torchvision() is torchvision is sys.modules["torchvision"]
        assert torch.library.register_fake is original
        ours = [one for one in caught if "built for another torch" in str(one.message)]
        assert len(ours) == (0 if hasattr(torch.ops.torchvision, "nms") else 1), caught

        names = torchvision.models.list_models(module=torchvision.models)
        assert len(names) >= 80 and "mobilenet_v3_small" in names
        model = torchvision.models.get_model("mobilenet_v3_small", weights=None).eval()
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
        from torchvision.transforms import v2
        pipeline = v2.Compose([v2.Resize(32), v2.CenterCrop(24), v2.ToDtype(torch.float32, scale=True)])
        assert pipeline(torch.zeros(3, 40, 48, dtype=torch.uint8)).shape == (3, 24, 24)
        assert len(torchvision.datasets.FakeData(size=3, image_size=(3, 8, 8))) == 3
    """)


def test_import_after_a_plain_import_that_failed() -> None:
    run_python("""
        try:
            import torchvision
        except RuntimeError:
            pass
        from edgeopt_torchvision.compat import import_torchvision
        assert import_torchvision().models.list_models()
    """)


def test_restored_when_the_import_fails() -> None:
    run_python("""
        import sys
        import torch
        original = torch.library.register_fake
        from edgeopt_torchvision.compat import import_torchvision
        sys.modules["torchvision"] = None
        try:
            import_torchvision()
        except ImportError:
            pass
        else:
            raise AssertionError("the import should have failed")
        assert torch.library.register_fake is original
    """)


def test_only_missing_torchvision_operators_are_skipped() -> None:
    run_python("""
        import torch
        from edgeopt_torchvision.compat import _missing_operators_skipped
        torch.library.define("torchvision::edgeopt_present", "(Tensor x) -> Tensor")
        with _missing_operators_skipped() as skipped:
            @torch.library.register_fake("torchvision::edgeopt_absent")
            def absent(x):
                return x
            @torch.library.register_fake("torchvision::edgeopt_present")
            def present(x):
                return x.new_empty(7)
            try:
                torch.library.register_fake("aten::edgeopt_absent", lambda x: x)
            except RuntimeError:
                pass
            else:
                raise AssertionError("an absent operator of another namespace must still be refused")
        assert skipped == ["torchvision::edgeopt_absent"]
        assert callable(absent)
        assert torch.ops.torchvision.edgeopt_present(torch.empty(1, device="meta")).shape == (7,)
    """)


def test_threads_import_side_by_side() -> None:
    run_python("""
        from concurrent.futures import ThreadPoolExecutor
        import torch
        original = torch.library.register_fake
        from edgeopt_torchvision.compat import import_torchvision
        with ThreadPoolExecutor(4) as pool:
            modules = list(pool.map(lambda _: import_torchvision(), range(4)))
        assert len(set(map(id, modules))) == 1
        assert torch.library.register_fake is original
    """)


@pytest.mark.parametrize("iou_threshold", [0.3, 0.5, 0.9])
def test_nms_keeps_what_greedy_suppression_keeps(iou_threshold: float) -> None:
    torch = pytest.importorskip("torch")
    sys.path.insert(0, str(PLUGINS))
    from edgeopt_torchvision.compat import nms

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(60, 2, generator=generator)
    boxes = torch.cat([corner, corner + 0.05 + 0.4 * torch.rand(60, 2, generator=generator)], dim=1)
    scores = torch.rand(60, generator=generator)

    def overlap(a: list[float], b: list[float]) -> float:
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    expected: list[int] = []
    for index in sorted(range(60), key=lambda i: -float(scores[i])):
        if all(overlap(boxes[index].tolist(), boxes[kept].tolist()) <= iou_threshold for kept in expected):
            expected.append(index)
    assert nms(boxes, scores, iou_threshold).tolist() == expected
    assert nms(boxes[:0], scores[:0], iou_threshold).tolist() == []
