"""Memory of processes, bytes on the loopback interface, and what machine this is. Only the standard library."""
import os
import platform
import subprocess
import threading
import time


def field_bytes(path, name):
    """A line `name:  N kB` of a file of /proc; 0 where the process is gone or says nothing."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0


def pss_of(pids):
    return sum(field_bytes(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids)


def high_water(pids):
    return [field_bytes(f"/proc/{pid}/status", "VmHWM") for pid in pids]


def children(pid):
    """All processes below this one."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in map(int, file.read().split()):
                    found += [child, *children(child)]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class PeakMemory:
    """Samples the proportional set size of some processes on a thread while the block runs: .summed, .each"""

    def __init__(self, pids, interval=0.05):
        self.pids, self.interval = pids, interval
        self.summed, self.each = 0, [0] * len(pids)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def sample(self):
        while True:
            sizes = [pss_of([pid]) for pid in self.pids]
            self.summed = max(self.summed, sum(sizes))
            self.each = [max(a, b) for a, b in zip(self.each, sizes)]
            if self.stop.wait(self.interval):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.stop.set()
        self.thread.join()


def loopback_bytes():
    """Sent over the loopback interface of this network namespace since it came up, headers included."""
    with open("/proc/self/net/dev") as file:
        for line in file:
            name, _, numbers = line.partition(":")
            if name.strip() == "lo":
                return int(numbers.split()[8])
    return 0


def machine():
    """What the figures depend on."""
    model, flags, count = "", set(), 0
    with open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model, count = value.strip(), count + 1
            elif key.strip() == "flags":
                flags = set(value.split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {"cpu": model, "cores": count, "usable_cores": len(os.sched_getaffinity(0)), "extensions": [w for w in wanted if w in flags],
            "memory_bytes": field_bytes("/proc/meminfo", "MemTotal"), "system": platform.platform(), "turbo": turbo()}


def ask_driver(*query):
    """Lines of nvidia-smi, each a list of fields; none where there is no such program."""
    try:
        found = subprocess.run(["nvidia-smi", *query, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (FileNotFoundError, subprocess.SubprocessError):
        return []
    return [[field.strip() for field in line.split(",")] for line in found.splitlines() if line.strip()]


def gpu():
    """Model and driver of the first GPU, as the driver calls them."""
    lines = ask_driver("--query-gpu=name,driver_version,memory.total")
    return dict(zip(("name", "driver", "memory_mib"), lines[0])) if lines else {}


def gpu_bytes(pids, lines=None):
    """What the driver counts for each of these processes, contexts and caches included; the same reading for every side. 0 where it knows none by that number, as
    in containers with process numbers of their own."""
    lines = ask_driver("--query-compute-apps=pid,used_memory") if lines is None else lines
    used = {}
    for line in lines:
        if len(line) == 2 and line[0].isdigit() and line[1].isdigit():
            used[int(line[0])] = used.get(int(line[0]), 0) + int(line[1]) * 2**20
    return [used.get(pid, 0) for pid in pids]


def turbo():
    path = "/sys/devices/system/cpu/intel_pstate/no_turbo"
    if not os.path.exists(path):
        return "not known (no control of it here)"
    with open(path) as file:
        return "off" if file.read().strip() == "1" else "on"
