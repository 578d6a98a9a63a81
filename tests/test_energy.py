"""Energy by the machine's own meter, on trees of files that look like Linux's and count like its."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN

from edgeopt.bench import run as bench_run
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.run import run_bench
from edgeopt.measure.energy import SYSTEM, Meter, MeterError, energy_of, find_meter, metered
from edgeopt.options import MeasureSettings

RANGE_UJ = 3_000_000


def write(root: Path, **files: object) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        aside = root / f"{name}.new"  # a file of the system is never seen half written
        aside.write_text(f"{text}\n")
        aside.replace(root / name)
    return root


def rapl(system: Path) -> Path:
    """A processor with a package, its cores, and memory."""
    zones = system / "class" / "powercap"
    write(zones / "intel-rapl:0", name="package-0", energy_uj=RANGE_UJ - 50_000, max_energy_range_uj=RANGE_UJ)
    write(zones / "intel-rapl:0:0", name="core", energy_uj=7, max_energy_range_uj=RANGE_UJ)
    write(zones / "intel-rapl:0:1", name="dram", energy_uj=1_000, max_energy_range_uj=RANGE_UJ)
    return zones


@contextmanager
def counting(file: Path, power_w: Callable[[], float]) -> Iterator[None]:
    """Lets a counter grow as it would at a power, and begin again at its end."""
    ended = threading.Event()

    def count() -> None:
        counted, last = float(file.read_text()), time.monotonic()
        while not ended.wait(0.005):
            now = time.monotonic()
            counted = (counted + 1e6 * power_w() * (now - last)) % RANGE_UJ
            pending = file.with_suffix(".new")
            pending.write_text(f"{int(counted)}\n")
            pending.replace(file)
            last = now

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def quick(meter: Meter) -> Meter:
    return replace(meter, least_s=0.4, every_s=0.05)


def test_a_counter_that_begins_again_is_added_up(tmp_path: Path) -> None:
    zones = rapl(tmp_path)
    meter = quick(find_meter(tmp_path))
    assert meter.method == "RAPL: package-0, dram"
    with counting(zones / "intel-rapl:0" / "energy_uj", lambda: 10.0), metered(meter) as energy:
        time.sleep(0.6)  # 6 J, twice the range
    assert energy.power_w == pytest.approx(10, rel=0.1)
    assert energy.joules > 2 * RANGE_UJ / 1e6 * 0.8


def test_idling_is_subtracted(tmp_path: Path) -> None:
    zones = rapl(tmp_path)
    busy = threading.Event()
    meter = quick(find_meter(tmp_path))

    def call(seconds: float) -> int:
        busy.set()
        time.sleep(seconds)
        busy.clear()
        return 100

    with counting(zones / "intel-rapl:0" / "energy_uj", lambda: 8.0 if busy.is_set() else 3.0):
        used = energy_of(meter, call)
    assert used.idle_w == pytest.approx(3, rel=0.2)
    assert used.busy_w == pytest.approx(8, rel=0.2)
    assert used.mj_per_image == pytest.approx(1e3 * 5 * 0.4 / 100, rel=0.25)
    assert used.method == "RAPL: package-0, dram, idle subtracted"
    with pytest.raises(MeterError, match="no more than idling"):
        energy_of(meter, lambda _seconds: 1)  # nothing counts any more


def test_a_meter_for_root_alone_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl(tmp_path)
    read = Path.read_text

    def refused(file: Path, *arguments: object, **options: object) -> str:
        if file.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(file))
        return read(file, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(MeterError, match=r"sudo chmod a\+r .*intel-rapl:\*/energy_uj"):
        find_meter(tmp_path)


def test_a_jetson_is_measured_where_all_of_it_is_fed(tmp_path: Path) -> None:
    monitor = tmp_path / "class" / "hwmon" / "hwmon3"
    rails = {"in1_label": "VDD_CPU_GPU_CV", "in1_input": 5000, "curr1_input": 600}
    write(monitor, name="ina3221", **rails, in2_label="VDD_SOC", in2_input=5000, curr2_input=200)
    assert find_meter(tmp_path).power_w() == pytest.approx(4.0)  # type: ignore[misc]
    write(monitor, in3_label="VDD_IN", in3_input=5000, curr3_input=1500, in7_label="sum of shunt voltages")
    meter = find_meter(tmp_path)
    assert meter.method == "INA3221: VDD_IN"
    assert meter.power_w() == pytest.approx(7.5)  # type: ignore[misc]


def test_a_battery_counts_only_while_it_is_discharged(tmp_path: Path) -> None:
    supplies = tmp_path / "class" / "power_supply"
    write(supplies / "AC", type="Mains", online=1)
    write(supplies / "hidpp_battery_0", type="Battery", scope="Device", status="Discharging", power_now=1)
    battery = write(supplies / "BAT0", type="Battery", status="Charging", current_now=1_500_000, voltage_now=12_000_000)
    with pytest.raises(MeterError, match=r"BAT0 is charging.* unplug"):
        find_meter(tmp_path)
    write(battery, status="Discharging")
    meter = quick(find_meter(tmp_path))
    assert meter.power_w() == pytest.approx(18.0)  # type: ignore[misc]
    with metered(meter) as energy:
        time.sleep(0.15)
        write(battery, status="Charging")
    with pytest.raises(MeterError, match="could no longer be read: battery BAT0 is charging"):
        assert energy.power_w


def test_bench_has_it_in_each_row(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zones = rapl(tmp_path / "sys")
    monkeypatch.setenv(SYSTEM, str(tmp_path / "sys"))
    monkeypatch.setattr(bench_run, "find_meter", lambda: quick(find_meter()))
    request = BenchRequest(
        (finished / "npz" / "optimized" / "model.npz",),
        energy=True,
        sustained_s=0.6,
        settings=MeasureSettings(warmup=1, runs=5, rounds=1),
        out=tmp_path / "out",
        plugin_files=(TINY_PLUGIN,),
    )
    start = time.monotonic()
    with counting(zones / "intel-rapl:0" / "energy_uj", lambda: time.monotonic() - start):  # ever more
        bench = run_bench(request).bench
    (row,) = bench.rows
    assert row.energy is not None
    assert row.energy.mj_per_image > 0
    assert row.energy.images > 10
    ((minute,),) = (each.minutes for each in bench.sustained)
    assert minute.mj_per_image is not None and minute.mj_per_image > 0
    assert "RAPL: package-0, dram, idle subtracted" in (tmp_path / "out" / "bench.csv").read_text()
    assert "Energy of an image by RAPL" in (tmp_path / "out" / "bench.html").read_text()


def test_a_machine_without_a_meter_says_so(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="this machine shows no meter"):
        find_meter(tmp_path)
