#!/usr/bin/env python3
"""Cost as work grows: curves of step time and memory beside the plan's model.

    tests/bench/scaling.py [--curve ranks --curve tokens ...] [--quick] [--program build/cpu/bin/permafrost] [--work FOLDER] [--report-only]

runs `permafrost bench step --profile` over ranks, text length, batch, model size and adaptor share, keeps one JSON object per point
in WORK/points.jsonl (a point that is there is not measured again), and writes the tables between the marks of
docs/benchmarks/scaling.md and the plots beside it. Needs no packages. The machine must do nothing else meanwhile."""
import argparse
import json
import pathlib
import re
import subprocess
import sys

import scaling_model
import svg_plot

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/benchmarks/scaling.md"
VOCAB, TEXTS = 50272, 128
OPT_125M = {"layers": 12, "hidden": 768, "heads": 12}
SMALL = {"layers": 4, "hidden": 128, "heads": 4}
# name: layers, hidden, heads; vocabulary of 50,272 throughout
SIZES = {"5M": (2, 96, 4), "20M": (8, 256, 8), "125M": (12, 768, 12), "350M": (24, 1024, 16), "1.3B": (24, 2048, 32), "2.7B": (32, 2560, 32)}


class Curve:
    """name, title of the axis, points [(x, settings, ranks, threads)], the x of the reference."""

    def __init__(self, name, axis, points, reference):
        self.name, self.axis, self.points, self.reference = name, axis, points, reference


class Family:
    """How a frozen decoder with bottlenecks is written."""

    def __init__(self, work):
        self.work = work

    def config(self):
        path = self.work / "adapted.textproto"
        path.write_text("model { language_model { } }\n")
        return path

    def settings(self, shape, tokens, batch, factor=4, rules=()):
        model = "model.language_model"
        layers, hidden = shape["layers"], shape["hidden"]
        text = {"vocab": VOCAB, "layers": layers, "hidden": hidden, "heads": shape["heads"], "ffn": 4 * hidden, "word_embed_proj_dim": hidden,
                "do_layer_norm_before": "true", "final_layer_norm": "true", "max_positions": 2048}
        out = [f"{model}.text.{k}={v}" for k, v in text.items()]
        out += [f"{model}.adapter.kind=NORMAL", f"{model}.adapter.factor={factor}"]
        out += [f"data.max_text_tokens={tokens}", f"data.length_buckets={tokens}", "data.long_text=TRUNCATE", "data.transform=EVAL",
                "data.tokenizer.root=tokenizer", f"train.global_batch={batch}", f"train.micro_batch={min(batch, 4)}", "train.max_steps=1000000",
                "loss.kind=TOKEN_MEAN", "loss.scale=1", "optimizer.lr=1e-4", "schedule.kind=CONSTANT", "schedule.warmup_steps=0",
                "schedule.warmup_lr=0", "schedule.min_lr=0"]
        return out + [f'freeze+={{pattern: "{pattern}" trainable: true}}' for pattern in rules]


def flags(settings):
    return [f"--set={s}" for s in settings]


def shape_of(size):
    return dict(zip(("layers", "hidden", "heads"), SIZES[size]))


def curves(family, quick):
    base = SMALL if quick else OPT_125M
    tokens, batch = 128, 8
    few = slice(None, None, 2) if quick else slice(None)

    def at(x, shape=base, text=tokens, samples=batch, ranks=1, threads=2, extra=(), **more):
        return x, family.settings(shape, text, samples, **more) + list(extra), ranks, threads

    layers, hidden = base["layers"], base["hidden"]
    shares = [at(f"1/{f}", factor=f) for f in (hidden, hidden // 4, hidden // 16, 16, 4, 1)]
    later = [f"text.*layers.{i}.*" for i in range(layers // 2, layers)]
    shares += [at("half", factor=1, rules=["*adapter*", *later]), at("all", factor=1, rules=["*"])]
    sizes = list(SIZES)[:2] if quick else list(SIZES)
    return [
        Curve("ranks", "ranks (of one thread)", [at(r, samples=16, ranks=r, threads=1, extra=["train.micro_batch=2"]) for r in (1, 2, 4, 8)], 1),
        Curve("tokens", "tokens of a text", [at(t, text=t, samples=4) for t in (16, 32, 64, 128, 256, 512, 1024, 2048)[few]], 256),
        Curve("batch", "samples of a step (micro-batches of all of them)",
              [at(b, samples=b, extra=[f"train.micro_batch={b}"]) for b in (1, 2, 4, 8, 16, 32, 64)[few]], 16),
        Curve("size", "parameters", [at(s, shape=shape_of(s), samples=4) for s in sizes], sizes[min(2, len(sizes) - 1)]),
        Curve("share", "share that trains (%)", shares, "1/4"),
    ]


def prepare(program, work):
    """Texts of 2,100 bytes over a byte tokenizer: every one fills its bucket. Images as small as they can be."""
    if (work / "captions.json").exists():
        return
    subprocess.run([program, "data", "sample-photos", "--count", str(TEXTS // 2), "--size", "16", "--out", str(work)], check=True)
    captions = json.loads((work / "captions.json").read_text())
    alphabet = "abcdefghijklmnopqrstuvwxyz "
    for i, annotation in enumerate(captions["annotations"]):
        annotation["caption"] = "".join(alphabet[(i * 7 + j * j * 11 + j) % len(alphabet)] for j in range(2100)).replace("  ", " a").strip()
    (work / "captions.json").write_text(json.dumps(captions))


def measure(program, family, work, curve, point, steps, warmup):
    x, settings, ranks, threads = point
    out = work / "point.json"
    out.unlink(missing_ok=True)
    command = [program, "bench", "step", str(family.config()), *flags([*settings, f"data.root={work}", f"parallel.threads={threads}"]),
               "--profile", "--warmup", str(warmup), "--steps", str(steps), "--json", str(out)]
    if ranks > 1:
        command = [str(ROOT / "launch/mpirun.sh"), "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {"curve": curve.name, "x": x, "failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"}
    result = json.loads(out.read_text())
    del result["profile"]["operations"]  # groups say enough, in a tenth of the bytes
    return {"curve": curve.name, "x": x, **result}


def horizontal(curve, point):
    if curve.name == "size":
        return point["parameters"]["total"]
    if curve.name == "share":
        return 100 * point["parameters"]["trainable"] / point["parameters"]["total"]
    return point["x"]


def mib(value):
    return value / 2**20


def table(curve, points, reference):
    """Rows, and what explains every point that is off by more than a tenth."""
    lines = [f"| {curve.axis} | step (ms) | quartiles | model (ms) | measured / model | waiting for data | GFLOP/s | PSS, all ranks (MiB) | forecast (MiB) | PSS / forecast |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    remarks = []
    for point in points:
        if "failed" in point:
            lines.append(f"| {point['x']} | {point['failed']} | | | | | | | | |")
            continue
        measured, model, rows = scaling_model.compare(point, reference)
        step, pss, forecast = point["step_seconds"], point["pss_sum_bytes"], point["forecast_bytes"]["node"]
        x = horizontal(curve, point)
        label = f"{x:.3g}" if curve.name == "share" else point["x"]
        lines.append(f"| {label} | {1e3 * measured:.1f} | {1e3 * step['q1']:.1f}, {1e3 * step['q3']:.1f} | {1e3 * model:.1f} | {measured / model:.2f} | "
                     f"{100 * point['data_wait_share']:.2f} % | {point['gflop_per_s']:.0f} | {mib(pss):.0f} | {mib(forecast):.0f} | {pss / forecast:.2f} |")
        if abs(measured / model - 1) > 0.1:
            causes = "; ".join(f"{name}: {1e3 * seconds:.1f} ms, model " + (f"{1e3 * expected:.1f} ms" if expected is not None else "has none") for name, seconds, expected in rows[:3])
            remarks.append(f"- {label}: {measured / model:.2f} of the model. {causes}.")
    if remarks:
        lines += ["", "Where a step is more than a tenth off, the terms that differ most:", "", *remarks]
    return "\n".join(lines)


def replace_block(text, name, block):
    marks = re.compile(rf"(<!-- {name} begins: written by tests/bench/scaling.py -->\n).*?(<!-- {name} ends -->)", re.S)
    if not marks.search(text):
        sys.exit(f"scaling: {PAGE} must have the marks of '{name}'")
    return marks.sub(lambda m: m[1] + block + "\n" + m[2], text)


def report(all_curves, points, page, folder):
    text = page.read_text()
    some = next(p for p in points if "failed" not in p)
    text = replace_block(text, "machine", f"{some['machine']}, {some['cores']} cores, {mib(some['memory_bytes']):.0f} MiB; permafrost {some['version']}, commit "
                         f"{some['commit']}, {some['compiler']}, {some['dtype']}; {len(some['timed']['seconds'])} timed steps a point.")
    for curve in all_curves:
        mine = [p for x, *_ in curve.points for p in points if p["curve"] == curve.name and p["x"] == x]
        done = sorted((p for p in mine if "failed" not in p), key=lambda p: horizontal(curve, p))
        reference = next((p for p in done if p["x"] == curve.reference), done[len(done) // 2] if done else None)
        if reference is None:
            continue
        block = f"Reference: {reference['x']}.\n\n![{curve.name}](scaling_{curve.name}.svg)\n\n" + table(curve, done + [p for p in mine if "failed" in p], reference)
        text = replace_block(text, curve.name, block)
        time = [(horizontal(curve, p), scaling_model.compare(p, reference)) for p in done]
        svg_plot.write(folder / f"scaling_{curve.name}.svg", [
            ([("measured", [(x, 1e3 * c[0]) for x, c in time], False), ("model", [(x, 1e3 * c[1]) for x, c in time], True)], "time of a step", curve.axis, "ms"),
            ([("PSS, all ranks", [(horizontal(curve, p), mib(p["pss_sum_bytes"])) for p in done], False),
              ("forecast", [(horizontal(curve, p), mib(p["forecast_bytes"]["node"])) for p in done], True)], "memory", curve.axis, "MiB")])
    page.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "build/cpu/bin/permafrost"))
    parser.add_argument("--work", default=str(ROOT / "runs/scaling"), help="folder for data and points.jsonl")
    parser.add_argument("--curve", action="append", choices=["ranks", "tokens", "batch", "size", "share"], help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a small model and few points: to see that it works")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--page", default=str(PAGE), help="Markdown file with the marks; plots go beside it")
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    work = pathlib.Path(arguments.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(arguments.program, work)
    family = Family(work)
    wanted = [c for c in curves(family, arguments.quick) if not arguments.curve or c.name in arguments.curve]
    file = work / ("quick.jsonl" if arguments.quick else "points.jsonl")
    points = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for curve in wanted:
        for point in curve.points:
            if arguments.report_only or any(p["curve"] == curve.name and p["x"] == point[0] for p in points):
                continue
            print(f"{curve.name} {point[0]} ...", end=" ", flush=True)
            points.append(measure(arguments.program, family, work, curve, point, arguments.steps, arguments.warmup))
            commits = {p["commit"] for p in points if "commit" in p}
            if len(commits) > 1:
                raise SystemExit(f"{file}: expected points of one commit; got {', '.join(sorted(commits))}: delete the file, or measure with the program it was begun with")
            print(points[-1].get("failed") or f"{1e3 * points[-1]['step_seconds']['median']:.1f} ms", flush=True)
            with file.open("a") as out:
                out.write(json.dumps(points[-1]) + "\n")
    if points:
        page = pathlib.Path(arguments.page)
        report(wanted, points, page, page.parent)


if __name__ == "__main__":
    main()
