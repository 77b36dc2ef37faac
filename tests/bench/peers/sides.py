"""The processes of a side, ours and PyTorch's, driven by the same lines: run N, memory, checkpoint, quit."""
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
from baselines import parse_options
from workloads import ADAMW, LOSS_SCALE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# Large outputs would otherwise be mapped and given back by every operation, a page fault for each 4 KiB.
ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:glibc.malloc.trim_threshold=17179869184"


class Ended(RuntimeError):
    """A process of a side ended, or said that something is wrong."""


class Pipe:
    """A process with lines of JSON on its standard output."""

    def __init__(self, command, environment, log, cores=None):
        self.log = open(log, "a+")
        if cores is not None:
            command = ["taskset", "-c", ",".join(map(str, cores)), *command]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1, cwd=ROOT)

    def send(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.ended() from None

    def ended(self):
        code = self.process.wait()
        self.log.seek(0)
        killed = ": killed; all sides of a run hold their memory at once, so one with fewer may fit" if code == -9 else ""
        return Ended(f"{self.process.args}: ended with code {code}{killed}\n" + "".join(self.log.readlines()[-40:]))

    def read(self):
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise self.ended()
            if line.startswith("{"):
                found = json.loads(line)
                if "error" in found:
                    raise Ended(f"{self.process.args}: {found['error']}")
                return found

    def close(self, patience=60):
        """patience: seconds that the process may take to end by itself."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Layout:
    """Ranks and threads of each; a rank of several has a core of its own."""

    def __init__(self, ranks, device):
        cores = sorted(os.sched_getaffinity(0))
        self.ranks, self.device = ranks, device
        self.threads = max(1, len(cores) // ranks)
        self.cores = [cores[r * self.threads : (r + 1) * self.threads] for r in range(ranks)] if ranks * self.threads <= len(cores) else [None] * ranks

    def words(self):
        return {"ranks": self.ranks, "threads": self.threads, "device": self.device}


class Running:
    """What both kinds of side have: launch and ready, send_run and finish_run, whose first halves do not wait."""

    begin = 0.0  # when the processes were started
    label = ""  # how it is called in the results
    lost = False  # it has ended before its time

    def start(self):
        """Returns the seconds from the start of the processes until they are ready."""
        self.launch()
        return self.ready()

    def run(self, count):
        """{"seconds", "losses"}"""
        self.send_run(count)
        return self.finish_run()

    def send_run(self, count):
        self.send(f"run {count}")

    def file_name(self):
        return re.sub(r"[^\w.-]", "-", self.label or self.name)

    def since_start(self):
        return time.perf_counter() - self.begin


class PeerSide(Running):
    """One of baselines.SIDES, a process for each rank."""

    def __init__(self, name, workload, dtype, layout, folder, logs, options=()):
        self.name, self.layout, self.options = name, layout, list(options)
        self.folder, self.logs, self.workload, self.dtype = folder, Path(logs), workload, dtype
        self.pipes, self.scratch = [], None

    def launch(self):
        self.scratch = tempfile.TemporaryDirectory(prefix="peers-")
        environment = os.environ | {"OMP_NUM_THREADS": str(self.layout.threads), "GLOO_SOCKET_IFNAME": "lo", "TORCHINDUCTOR_COMPILE_THREADS": str(self.compilers()),
                                    "PEERS_CHECKPOINTS": self.scratch.name}
        parsed = parse_options(self.options)
        if parsed.allocator and self.layout.device == "cpu":
            environment["GLIBC_TUNABLES"] = ALLOCATOR
        if parsed.inductor_cache:
            environment["TORCHINDUCTOR_CACHE_DIR"] = parsed.inductor_cache
        self.begin = time.perf_counter()
        for rank in range(self.layout.ranks):
            self.pipes.append(Pipe(self.command(rank), environment, self.logs / f"{self.file_name()}-{rank}.log", self.layout.cores[rank]))

    def ready(self):
        self.heading = [pipe.read() for pipe in self.pipes][0]
        return self.since_start()

    def compilers(self):
        """One, which is the process itself, on CPUs: others would count as memory of the side."""
        return 1 if self.layout.device == "cpu" else max(1, self.layout.threads // 4)

    def command(self, rank):
        words = {"side": self.name, "workload": self.workload.name, "size": self.workload.size, "tokens": self.workload.tokens, "batch": self.workload.batch, "dtype": self.dtype,
                 "device": self.layout.device, "folder": self.folder, "meet": Path(self.scratch.name) / "meet", "rank": rank, "ranks": self.layout.ranks,
                 "threads": self.layout.threads}
        return [sys.executable, str(HERE / "worker.py"), *(f"--{k}={v}" for k, v in words.items()), *(f"--option={o}" for o in self.options)]

    def send(self, line):
        for pipe in self.pipes:
            pipe.send(line)

    def answers(self):
        return [pipe.read() for pipe in self.pipes]

    def ask(self, line):
        self.send(line)
        return self.answers()

    def finish_run(self):
        """{"seconds", "losses"}: each step's slowest rank and mean loss."""
        answers = self.answers()
        each = len(answers)
        return {"seconds": [max(s) for s in zip(*(a["seconds"] for a in answers))],
                "losses": [sum(losses) / each for losses in zip(*(a["losses"] for a in answers))]}

    def checkpoint(self):
        answers = self.ask("checkpoint")
        return {"bytes": sum(a["bytes"] for a in answers), "seconds": max(a["seconds"] for a in answers)}

    def device_memory(self):
        return [a["device_peak_bytes"] for a in self.ask("memory")]

    def pids(self):
        return [p for pipe in self.pipes for p in (pipe.process.pid, *measure.children(pipe.process.pid))]

    def ask_to_quit(self):
        for pipe in self.pipes:
            with contextlib.suppress(Ended):
                pipe.send("quit")

    def describe(self):
        return {"versions": self.heading["versions"], "options": self.heading["options"], "trained": self.heading["trained"],
                "parameters": self.heading["parameters"], "libraries_bytes": self.heading["libraries_bytes"]}

    def close(self, patience=60):
        self.ask_to_quit()
        pipes, self.pipes = self.pipes, []
        for pipe in pipes:
            pipe.close(patience)
        if self.scratch:
            self.scratch.cleanup()


class OurSide(Running):
    """`permafrost bench step --control`, under mpirun where there are several ranks."""

    name = "ours"

    def __init__(self, workload, dtype, layout, folder, logs, program, tokenizer, settings=()):
        self.workload, self.dtype, self.layout, self.folder, self.logs = workload, dtype, layout, Path(folder), Path(logs)
        self.program, self.tokenizer, self.settings = program, tokenizer, list(settings)
        self.pipe = None

    def command(self):
        folder, workload = self.folder, self.workload
        settings = [
            *workload.settings, f"data.root={folder / 'data'}", f"data.tokenizer.root={self.tokenizer}", "data.shuffle=false", "data.transform=EVAL",
            f"data.max_text_tokens={workload.tokens}", f"data.length_buckets={workload.tokens}", f"train.global_batch={workload.batch}",
            f"train.micro_batch={workload.batch // self.layout.ranks}", "train.max_steps=1000000", f"optimizer.lr={ADAMW['lr']}", "optimizer.clip_norm=0",
            f"optimizer.weight_decay={ADAMW['weight_decay']}", "schedule.kind=CONSTANT", "schedule.warmup_steps=0", "schedule.warmup_lr=0",
            "schedule.min_lr=0", "loss.kind=SAMPLE_SUM", f"loss.scale={LOSS_SCALE}", f"precision.compute={self.dtype.upper()}", f"parallel.threads={self.layout.threads}",
            f"weights.text={folder / 'weights/text'}", f"weights.adapter={folder / 'adapter.safetensors'}",
        ]
        if workload.vision:
            settings.append(f"weights.vision={folder / 'weights/vision'}")
        if self.layout.device == "cuda":
            settings += ["parallel.device=CUDA", f"data.decode_threads={min(8, self.layout.threads)}", "data.prefetch=4"]
        command = [self.program, "bench", "step", str(ROOT / "configs" / workload.config), *(f"--set={s}" for s in settings + self.settings), "--control"]
        if self.layout.ranks == 1:
            return command
        bound = [str(HERE / "bind_rank.sh"), ";".join(",".join(map(str, c or [])) for c in self.layout.cores)]
        return [str(ROOT / "launch/mpirun.sh"), "-n", str(self.layout.ranks), *bound, *command]

    def launch(self):
        self.begin = time.perf_counter()
        self.pipe = Pipe(self.command(), dict(os.environ), self.logs / f"{self.file_name()}.log", self.layout.cores[0] if self.layout.ranks == 1 else None)

    def ready(self):
        self.heading = self.pipe.read()
        return self.since_start()

    def send(self, line):
        self.pipe.send(line)

    def ask(self, line):
        self.send(line)
        return self.pipe.read()

    def finish_run(self):
        return self.pipe.read()

    def checkpoint(self):
        answer = self.ask("checkpoint")
        return {"bytes": answer["checkpoint_bytes"], "seconds": answer["checkpoint_seconds"]}

    def device_memory(self):
        """What is allocated: nothing behind the first step, so that the driver's reading (device_used_bytes) is all there is."""
        return []

    def pids(self):
        return [self.pipe.process.pid, *measure.children(self.pipe.process.pid)]

    def describe(self):
        wanted = ("version", "commit", "plan_hash", "config_sha256", "parameters", "micro_batch", "plan_bytes_per_step", "forecast_bytes", "flops_per_step", "onednn")
        return {k: self.heading[k] for k in wanted if k in self.heading}

    def ask_to_quit(self):
        if self.pipe:
            with contextlib.suppress(Ended):
                self.pipe.send("quit")

    def close(self, patience=60):
        self.ask_to_quit()
        if self.pipe:
            self.pipe.close(patience)
            self.pipe = None
