"""What a phone says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.plugins import DeviceFacts

_HOTTEST_C = 150.0  # sensors that are off tell absurd figures
#: How warm it is and how fast it is clocked: lines of NAME=VALUE, some of which come several times.
STATE = """
for z in /sys/class/thermal/thermal_zone*; do
  [ -r $z/temp ] && echo "zone=$(cat $z/type) $(cat $z/temp 2>/dev/null)"
done
dumpsys thermalservice 2>/dev/null | grep 'Temperature{' | sed 's/^ */thermal=/'
for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq; do
  [ -r $f ] && echo "clock=$(cat $f)"
done
true
"""
_NAMES = (
    *("ro.product.manufacturer", "ro.product.model", "ro.soc.manufacturer", "ro.soc.model", "ro.hardware"),
    *("ro.product.cpu.abi", "ro.product.cpu.abilist", "ro.build.version.release", "ro.build.version.sdk"),
)
#: What it is, and `STATE`. FOLDER is where edgeopt's own will be.
SCRIPT = f"""
for p in {" ".join(_NAMES)}; do echo "$p=$(getprop $p)"; done
echo "machine=$(uname -m)"
echo "cores=$(grep -c ^processor /proc/cpuinfo)"
echo "name=$(grep -m1 -E '^(Hardware|model name)' /proc/cpuinfo | cut -d: -f2)"
echo "memory=$(grep MemTotal /proc/meminfo)"
echo "free=$(df -k FOLDER | tail -n 1)"
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  f=$c/cpufreq
  most=$(cat $f/cpuinfo_max_freq 2>/dev/null)
  now=$(cat $f/scaling_cur_freq 2>/dev/null)
  echo "core=${{c##*cpu}} ${{most:-0}} ${{now:-0}} $(cat $f/scaling_governor 2>/dev/null)"
done
{STATE}
"""
_THERMAL = re.compile(r"mValue=(?P<value>[-\d.]+).*mType=0\b")  # type 0 is the processor


@dataclass(frozen=True)
class PhoneFacts:
    """What is known of a phone besides: the kinds of programs that it runs ("arm64-v8a"), and the highest clock of each
    core, kHz, by its number; 0 where nobody tells.
    """

    device: DeviceFacts
    abis: tuple[str, ...]
    most_khz: Mapping[int, int]

    def fastest(self, count: int) -> tuple[int, ...]:
        """The numbers of the fastest cores, the last of equals; none where nobody tells their clocks."""
        if not any(self.most_khz.values()):
            return ()
        return tuple(sorted(sorted(self.most_khz, key=lambda core: (self.most_khz[core], core))[-count:]))


def facts_in(text: str, versions: Mapping[str, str]) -> PhoneFacts:
    """The facts in what `SCRIPT` prints."""
    lines = [line.partition("=") for line in text.splitlines() if "=" in line]
    one = {name: value.strip() for name, _, value in lines}
    cores = [value.split() for name, _, value in lines if name == "core"]
    clocks = [int(core[2]) for core in cores if int(core[2])]
    maker, model = one.get("ro.product.manufacturer", ""), one.get("ro.product.model", "")
    chip = " ".join(filter(None, (one.get("ro.soc.manufacturer"), one.get("ro.soc.model"))))
    chip = chip or one.get("name", "") or one.get("ro.hardware", "")
    product = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    temperature, _ = state_in(text)
    sdk = one.get("ro.build.version.sdk")
    free = one.get("free", "").split()
    device = DeviceFacts(
        processor=f"{product.strip()} ({chip})" if chip else product.strip() or "a phone that does not tell its name",
        machine=one.get("machine") or one.get("ro.product.cpu.abi", ""),
        cores=int(one.get("cores") or 0) or len(cores) or 1,
        system=f"Android {one.get('ro.build.version.release', '')}{f' (API {sdk})' if sdk else ''}",
        python="",
        governor=", ".join(dict.fromkeys(" ".join(core[3:]) for core in cores if len(core) > 3)) or None,
        clock_mhz=sum(clocks) / len(clocks) / 1e3 if clocks else None,
        memory_bytes=_kilobytes(one.get("memory", "")),
        free_bytes=int(free[3]) * 1024 if len(free) > 3 and free[3].isdigit() else None,
        temperature_c=temperature,
        versions=versions,
    )
    abis = one.get("ro.product.cpu.abilist") or one.get("ro.product.cpu.abi", "")
    return PhoneFacts(device, tuple(filter(None, abis.split(","))), {int(core[0]): int(core[1]) for core in cores})


def state_in(text: str) -> tuple[float | None, float | None]:
    """The warmest sensor of the processor, °C, and the mean clock of the cores, MHz, in what `STATE` prints."""
    lines = [line.partition("=") for line in text.splitlines() if "=" in line]
    zones = [value.split() for name, _, value in lines if name == "zone"]
    read = [(zone[0], int(zone[-1]) / 1e3) for zone in zones if zone[-1].lstrip("-").isdigit()]
    own = [value for kind, value in read if "cpu" in kind.lower()] or [value for _, value in read]
    own += [float(told["value"]) for name, _, value in lines if name == "thermal" and (told := _THERMAL.search(value))]
    sound = [value for value in own if 0 < value < _HOTTEST_C]
    clocks = [int(value) for name, _, value in lines if name == "clock" and value.strip().isdigit()]
    return max(sound, default=None), sum(clocks) / len(clocks) / 1e3 if clocks else None


def _kilobytes(line: str) -> int | None:
    found = re.search(r"(\d+) kB", line)
    return int(found[1]) * 1024 if found else None
