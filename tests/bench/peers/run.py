"""Side by side: the same training steps by Permafrost and by PyTorch, taking turns on one machine. README.md says how and why."""
import argparse
import dataclasses
import datetime
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import agree
import inputs
import measure
import report
import workloads
from baselines import SIDES
from sides import ROOT, Ended, Layout, OurSide, PeerSide

MEMORY_STEPS = 4


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workload", default="e1", help="e1, e3 or e4 (default: %(default)s)")
    parser.add_argument("--size", default=None, help="of OPT: 125m, 1.3b, 2.7b, 6.7b or tiny (default: the workload's smallest)")
    parser.add_argument("--tokens", type=int, default=None, help="of each text (default: the workload's)")
    parser.add_argument("--batch", type=int, default=None, help="samples of a step, all ranks together (default: the workload's)")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--ranks", type=int, default=2, help="cores are divided among them (default: %(default)s)")
    parser.add_argument("--side", action="append", default=[], metavar="NAME[:key=value,...]", help=f"ours or one of {', '.join(SIDES)}; may be repeated (default: all)")
    parser.add_argument("--ours-set", action="append", default=[], metavar="PATH=VALUE", help="overrides a field on our side")
    parser.add_argument("--agree-steps", type=int, default=100, help="whose losses must agree before anything is timed (default: %(default)s)")
    parser.add_argument("--agree-batch", type=int, default=None, help="samples of such a step; losses of the warm-up must then agree too (default: as many as are timed)")
    parser.add_argument("--warmup", type=int, default=20, help="steps before the first round, those of the agreement included (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="of a round (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=1, help="measurements of the time to the first step; 0 skips them, memory and checkpoints (default: %(default)s)")
    parser.add_argument("--prepare", choices=("inputs", "code"), help="only fill the work folder; or also compile what the sides compile, into --compiled")
    parser.add_argument("--compiled", default=None, help="folder that keeps compiled code for later runs, whose times to the first step then mean nothing (default: one that is removed)")
    parser.add_argument("--at-once", action="store_true", help="start all sides together, where there are cores for that")
    parser.add_argument("--go-on", action="store_true", help="a side that ends, or whose losses do not agree, stops no other (it gets no ratio all the same)")
    parser.add_argument("--work", default=None, help="folder of weights and data (default: build/peers of the repository)")
    parser.add_argument("--results", default=None, help="file that gets a line of JSON per measurement (default: results.jsonl in --work)")
    parser.add_argument("--program", default=None, help="ours (default: bin/permafrost of build/cpu, or build/cuda for a GPU)")
    options = parser.parse_args(words)
    if options.compiled and options.starts:
        parser.error("--compiled: expected --starts 0: a first step without its compilation is none")
    if options.prepare == "code" and not options.compiled:
        parser.error("--prepare code: expected --compiled FOLDER; got none")
    options.program = options.program or str(ROOT / "build" / options.device / "bin/permafrost")
    return options


def git_commit():
    """Of this checkout; "unknown" in a copy of its files without git (our side's own heading has that of the program)."""

    def ask(*words):
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return ask("rev-parse", "--short=12", "HEAD") + ("+changes" if ask("status", "--porcelain", "--untracked-files=no") else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"


class Results:
    """Lines of JSON, each with all that the figure depends on."""

    def __init__(self, path, common):
        self.path, self.common, self.lines = Path(path), common, []

    def add(self, kind, side, **what):
        known = {"kind": kind, "side": side.label} | self.common | side.layout.words()
        if clash := known.keys() & what.keys():
            raise ValueError(f"results: expected other names than {', '.join(sorted(clash))}")
        line = known | what
        self.lines.append(line)
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")


class Comparison:
    def __init__(self, options):
        self.options = options
        self.workload = workloads.find(options.workload, options.size, options.tokens, options.batch)
        self.work = Path(options.work or ROOT / "build/peers").resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = inputs.tokenizer_folder()
        self.logs = self.work / "logs"
        self.logs.mkdir(exist_ok=True)
        self.layout = Layout(options.ranks, options.device)
        self.scratch = None if options.compiled else tempfile.TemporaryDirectory(prefix="peers-compiled-")
        self.compiled = options.compiled or self.scratch.name
        self.sides, self.failed = self.make_sides(self.workload), False
        common = {"run": uuid.uuid4().hex[:12], "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": git_commit(),
                  "workload": self.workload.name, "size": self.workload.size, "tokens": self.workload.tokens, "batch": self.workload.batch,
                  "dtype": options.dtype, "machine": measure.machine() | ({"gpu": measure.gpu()} if options.device == "cuda" else {})}
        self.results = Results(options.results or self.work / "results.jsonl", common)

    def make_sides(self, workload):
        options = self.options
        name = f"{workload.name}-{workload.size}-{workload.tokens}-{workload.batch}-{options.dtype}"
        folder = inputs.make(self.work / name, workload, options.dtype, options.program, ROOT / "configs" / workload.config, self.tokenizer)
        return [self.make_side(word, workload, folder) for word in options.side or ["ours", *SIDES]]

    def make_side(self, word, workload, folder):
        name, _, settings = word.partition(":")
        settings = settings.split(",") if settings else []
        shared = (workload, self.options.dtype, self.layout, folder, self.logs)
        if name == "ours":
            side = OurSide(*shared, self.options.program, self.tokenizer, [*self.options.ours_set, *settings])
        elif name in SIDES:
            cache = os.path.join(self.compiled, re.sub(r"[^\w.-]", "-", word))
            side = PeerSide(name, *shared, [*settings, f"inductor_cache={cache}"])
        else:
            raise KeyError(f"side: expected ours or one of {', '.join(SIDES)}; got {name}")
        side.label = word
        return side

    def say(self, text):
        print(text, flush=True)

    def alone(self):
        """Each side by itself: time to the first step, memory, checkpoint. Pages of libraries would otherwise be shared with the other sides."""
        for attempt in range(self.options.starts):
            for side in self.sides:
                try:
                    side.start()
                    side.run(1)
                    seconds = side.since_start()
                    self.results.add("first_step", side, seconds=seconds, attempt=attempt, about=side.describe())
                    if attempt == 0:
                        self.measure_memory(side)
                        self.results.add("checkpoint", side, **side.checkpoint())
                    self.say(f"{side.label}: first step after {seconds:.2f} s")
                finally:
                    side.close()

    def lose(self, side, problem):
        """A side that has ended: the others go on where that is wanted."""
        if not self.options.go_on:
            raise problem
        self.say(f"{side.label}: LOST: {problem}")
        self.failed = side.lost = True
        side.close()

    def each(self, sides, work):
        """{side: work(side)} of those that have not ended, and do not meanwhile."""
        done = {}
        for side in [side for side in sides if not side.lost]:
            try:
                done[side] = work(side)
            except Ended as problem:
                self.lose(side, problem)
        return done

    def measure_memory(self, side):
        pids = side.pids()
        with measure.PeakMemory(pids) as peak:
            side.run(MEMORY_STEPS)
        used = measure.gpu_bytes(pids) if self.options.device == "cuda" else []
        self.results.add("memory", side, pss_peak_bytes=peak.summed, pss_peak_each_bytes=peak.each, high_water_bytes=measure.high_water(pids),
                         device_peak_bytes=side.device_memory(), device_used_bytes=used, about=side.describe())
        self.say(f"{side.label}: {peak.summed / 2**20:.0f} MiB")

    def agreement(self):
        """All sides from the same start; those to be timed are left running. Returns whether all agree."""
        batch = self.options.agree_batch or self.workload.batch
        if batch == self.workload.batch:
            return self.agree(self.sides, self.options.agree_steps, batch, keep=True)
        fewer = dataclasses.replace(self.workload, batch=batch)
        return self.agree(self.make_sides(fewer), self.options.agree_steps, batch, keep=False) and self.agree(self.sides, self.options.warmup, self.workload.batch, keep=True)

    def agree(self, sides, steps, batch, keep):
        """Sets the losses of these sides beside those of the one that is ours (or the first)."""
        losses = self.first_losses(sides, steps, keep)
        reference = next((s for s in losses if s.name == "ours"), None) or next(iter(losses), None)
        agreed = True
        for side, found in losses.items():
            result = agree.compare(losses[reference], found, self.options.dtype, batch * (self.workload.tokens - 1), self.workload.layers)
            self.results.add("agreement", side, reference=reference.label, agree_batch=batch, losses=found, **result)
            self.say(agree.says(side.label, batch, result))
            agreed = agreed and result["agrees"]
        self.failed = self.failed or not agreed
        return agreed or self.options.go_on

    def first_losses(self, sides, steps, keep):
        """{side: losses}. With --at-once all sides start, and compile, together: nothing is timed yet."""
        if not self.options.at_once:
            return self.each(sides, lambda side: self.first_losses_of(side, steps, keep))
        self.each(sides, lambda side: side.launch())
        started = self.each(sides, lambda side: side.ready())
        self.each(started, lambda side: side.send_run(steps))
        losses = self.each(started, lambda side: side.finish_run()["losses"])
        self.say("started: " + ", ".join(f"{side.label} ready after {started[side]:.0f} s and behind its first {steps} steps after {side.since_start():.0f} s" for side in losses))
        for side in losses if not keep else ():
            side.close()
        return losses

    def first_losses_of(self, side, steps, keep):
        try:
            side.start()
            return side.run(steps)["losses"]
        finally:
            if not keep:
                side.close()

    def rounds(self):
        """Sides take turns, in an order drawn anew for each round. The first step of a turn finds cold caches and is not timed."""
        whole = self.options.agree_batch in (None, self.workload.batch)
        done = self.options.agree_steps if whole else self.options.warmup
        if self.options.warmup > done:
            self.each(self.sides, lambda side: side.run(self.options.warmup - done))
        order = random.Random(1)
        for index in range(self.options.rounds):
            self.each(order.sample(self.sides, len(self.sides)), lambda side: self.turn(side, index))
        if self.options.device == "cuda":
            self.each(self.sides, self.measure_device)

    def turn(self, side, index):
        side.run(1)
        before = measure.loopback_bytes()
        answer = side.run(self.options.steps)
        sent = measure.loopback_bytes() - before
        self.results.add("round", side, round=index, loopback_bytes=sent, about=side.describe(),
                         seconds=answer["seconds"], losses=answer["losses"], counted_bytes=answer.get("moved_bytes"))

    def measure_device(self, side):
        """Of the GPU's memory, while all sides hold theirs."""
        self.results.add("device", side, device_peak_bytes=side.device_memory(), device_used_bytes=measure.gpu_bytes(side.pids()))

    def compile(self):
        """Two steps of each side, so that all code is compiled for the runs to come."""
        self.each(self.sides, lambda side: side.launch())
        self.each(self.sides, lambda side: side.ready())
        self.each(self.sides, lambda side: side.send_run(2))
        self.each(self.sides, lambda side: side.finish_run())
        self.say("compiled: " + ", ".join(f"{side.label} after {side.since_start():.0f} s" for side in self.sides if not side.lost))

    def close(self, patience=60):
        for side in self.sides:
            side.ask_to_quit()
        for side in self.sides:
            side.close(patience)
        if self.scratch:
            self.scratch.cleanup()


def main(words):
    comparison, patience = Comparison(parse(words)), 60
    try:
        if comparison.options.prepare == "code":
            comparison.compile()
        if comparison.options.prepare:
            return 1 if comparison.failed else 0
        comparison.alone()
        if not comparison.agreement():
            print("The sides do not compute the same: nothing is timed, and no ratio is printed.", file=sys.stderr)
            return 1
        comparison.rounds()
    except KeyboardInterrupt:
        patience = 0
        raise
    finally:
        comparison.close(patience)
    print(report.text_of(comparison.results.lines))
    return 1 if comparison.failed else 0


def stop(number, frame):
    raise KeyboardInterrupt  # so that no side is left behind


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except (Ended, KeyError, ValueError, FileNotFoundError) as problem:
        print(f"peers: {problem.args[0] if problem.args else problem}", file=sys.stderr)
        sys.exit(2)
