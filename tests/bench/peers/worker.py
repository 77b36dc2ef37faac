"""One rank of one side. Reads commands from standard input, answers each with one line of JSON:

    run N       N steps: {"seconds": [...], "losses": [...]}, this rank's mean losses
    memory      what the device has in use
    checkpoint  {"bytes", "seconds"}
    quit
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path

import measure

def answer(**what):
    print(json.dumps(what), flush=True)


def device_of(kind, rank):
    import torch

    if kind == "cpu":
        return torch.device("cpu")
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


class Clock:
    """Seconds of each step: the host's clock, or on a GPU events of its stream, so that the host may run ahead."""

    def __init__(self, device):
        import torch

        self.torch, self.on_gpu, self.marks = torch, device.type == "cuda", []

    def mark(self):
        if self.on_gpu:
            event = self.torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def between(self):
        """Pairs of marks: begin and end of each step."""
        if self.on_gpu:
            self.torch.cuda.synchronize()
            return [a.elapsed_time(b) / 1e3 for a, b in zip(self.marks[::2], self.marks[1::2])]
        return [b - a for a, b in zip(self.marks[::2], self.marks[1::2])]


class Worker:
    def __init__(self, arguments):
        import torch
        import torch.distributed as dist

        self.torch, self.dist = torch, dist
        torch.set_num_threads(arguments.threads)
        torch.set_float32_matmul_precision("highest")
        self.rank, self.ranks = arguments.rank, arguments.ranks
        self.device = device_of(arguments.device, arguments.rank)
        if self.ranks > 1 or arguments.side.startswith(("b1", "b2-")):
            dist.init_process_group("nccl" if arguments.device == "cuda" else "gloo", init_method=f"file://{arguments.meet}", rank=self.rank, world_size=self.ranks)
        self.libraries = measure.pss_of([os.getpid()])
        self.prepare(arguments)
        self.done = 0

    def prepare(self, arguments):
        import baselines
        import inputs
        import workloads
        from batches import Batches

        workload = workloads.find(arguments.workload, arguments.size, arguments.tokens, arguments.batch)
        dtype = {"fp32": self.torch.float32, "bf16": self.torch.bfloat16}[arguments.dtype]
        self.options = baselines.parse_options(arguments.option)
        self.batches = Batches(Path(arguments.folder) / "data", workload, inputs.Texts(inputs.tokenizer_folder()), self.rank, self.ranks, dtype, self.device)
        self.side = baselines.make_side(arguments.side, workload, arguments.folder, dtype, self.device, self.ranks, self.options)

    def ready(self):
        trained, total = self.side.parameters_count()
        packages = {name: sys.modules[name].__version__ for name in ("torch", "timm", "transformers") if name in sys.modules}
        answer(ready=True, versions=packages | {"python": sys.version.split()[0]}, options=str(self.options), trained=trained, parameters=total,
               libraries_bytes=self.libraries, threads=self.torch.get_num_threads())

    def run(self, count):
        clock, losses = Clock(self.device), []
        for _ in range(count):
            batch = self.batches.at(self.done)
            clock.mark()
            losses.append(self.side.step(batch))
            clock.mark()
            self.done += 1
        seconds = clock.between()
        answer(seconds=seconds, losses=[float(x) for x in losses])

    def memory(self):
        on_gpu = self.device.type == "cuda"
        answer(device_peak_bytes=self.torch.cuda.max_memory_allocated() if on_gpu else 0, device_reserved_bytes=self.torch.cuda.max_memory_reserved() if on_gpu else 0)

    def checkpoint(self):
        folder = os.environ["PEERS_CHECKPOINTS"]
        size, seconds = self.side.checkpoint(folder, self.rank)
        answer(bytes=size, seconds=seconds)

    def serve(self):
        for line in sys.stdin:
            words = line.split()
            if words[0] == "run":
                self.run(int(words[1]))
            elif words[0] in ("memory", "checkpoint"):
                getattr(self, words[0])()
            elif words[0] == "quit":
                break
        if self.dist.is_initialized():
            self.dist.destroy_process_group()


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("side", "workload", "size", "dtype", "device", "folder", "meet"):
        parser.add_argument(f"--{name}")
    for name in ("rank", "ranks", "threads"):
        parser.add_argument(f"--{name}", type=int, default=1)
    for name in ("tokens", "batch"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--option", action="append", default=[])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    worker = Worker(parse(sys.argv[1:]))
    worker.ready()
    worker.serve()
