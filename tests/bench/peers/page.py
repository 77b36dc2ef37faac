"""docs/benchmarks/peers.md from lines of results: `run.sh report FILE.jsonl ... [--tuning FILE.jsonl] [--page FILE]`."""
import argparse
import json
from pathlib import Path

import plots
import report

ROOT = Path(__file__).resolve().parents[3]
HEAD = """# Side by side with PyTorch

The same training steps by Permafrost and by PyTorch on one machine, in turns, from the same files to the same losses. This page is made by
`tests/bench/peers/run.sh report`; what the sides are and how they were tuned is in [tests/bench/peers](../../tests/bench/peers/README.md).
A ratio is printed only where the losses of both sides agreed, on record for the same commit, workload and dtype.

"""


def read(paths):
    """Raises SystemExit, which says what to do, where a file is not there or holds nothing."""
    lines = []
    for path in paths:
        found = [json.loads(line) for line in Path(path).read_text().splitlines() if line.strip()] if Path(path).is_file() else []
        if not found:
            raise SystemExit(f"report: expected lines of results, which run.sh writes; got none [file={path}]")
        lines += found
    return lines


def title(line):
    return (f"{line['workload'].upper()}, OPT-{line['size']}, {line['batch']} x {line['tokens']} tokens, {line['dtype']}, {line['device']}, "
            f"{line['ranks']} {'rank' if line['ranks'] == 1 else 'ranks'} x {line['threads']} {'thread' if line['threads'] == 1 else 'threads'}")


def machine_words(lines):
    machine = lines[-1]["machine"]
    versions = next((line["about"]["versions"] for line in lines if "versions" in line.get("about", {})), {})
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (f"Machine: {machine['cpu']}, {machine['usable_cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {' '.join(machine['extensions'])}; "
            f"turbo {machine['turbo']}. {named}. {lines[-1]['date'][:10]}.\n")


def protocol_words(figures):
    agreed = [line for side in figures.sides for line in figures.of("agreement", side)]
    rounds = [line for side in figures.sides[:1] for line in figures.of("round", side)]
    if not agreed:
        return "No agreement of losses on record.\n"
    counts = list(dict.fromkeys((line["steps"], line["agree_batch"]) for line in agreed))
    worst = max((line["largest"] for line in agreed if line["largest"] is not None), default=None)
    bad = [line["side"] for line in agreed if not line["agrees"]]
    words = "Losses of " + " and of ".join(f"{steps} steps of {batch} samples" for steps, batch in counts)
    words += f", from one start: largest relative difference {worst:.1e}, bound {agreed[0]['bound']:.1e}"
    words += f"; NOT within it: {', '.join(bad)}." if bad else "."
    if rounds:
        words += f" Timed: {len(rounds)} rounds of {len(rounds[0]['seconds'])} steps each, in turns."
    return words + f" Commit {agreed[0]['commit']}.\n"


def traffic_words(figures):
    """Bytes moved against the closed forms: our counters against the plan, all-reduces of gloo against 2 (N - 1) 4 P."""
    words = []
    for side in figures.sides:
        rounds = figures.of("round", side)
        if not rounds or rounds[0]["ranks"] == 1:
            continue
        about, ranks = rounds[0]["about"], rounds[0]["ranks"]
        if rounds[0]["counted_bytes"]:
            counted = sorted(b for line in rounds for b in line["counted_bytes"])
            words.append(f"- {side}: {counted[len(counted) // 2]:,} bytes a step counted, {about['plan_bytes_per_step']['moved']:,} by the closed form")
        elif side.startswith(("b0", "b3")):
            words.append(f"- {side}: {figures.loopback(side):,.0f} bytes a step on the loopback interface, {2 * (ranks - 1) * 4 * about['trained']:,} by the closed form of an "
                         "all-reduce of the gradients, headers not included")
        else:
            words.append(f"- {side}: {figures.loopback(side):,.0f} bytes a step on the loopback interface")
    return "\n".join(words) + "\n" if words else ""


def options_words(figures):
    words = []
    for side in figures.sides:
        rounds = figures.of("round", side)
        if rounds and "options" in rounds[0]["about"]:
            words.append(f"- {side}: {rounds[0]['about']['options']}")
    return "Options:\n\n" + "\n".join(words) + "\n" if words else ""


def section(figures, name, folder):
    parts = [f"## {title(figures.lines[0])}\n", protocol_words(figures), report.table(report.HEADER, report.rows_of(figures)) + "\n"]
    parts += [f"- {words}" for words in report.ratio_words(figures)] + [""]
    parts += [words for words in (traffic_words(figures), options_words(figures)) if words]
    if picture := plots.steps(figures, folder / f"{name}.svg"):
        parts.append(f"![step times](peers/{picture.name})\n")
    return "\n".join(parts)


SUMMARY = ["workload", "samples/s, ours : fastest of B0 to B2", "samples/s, ours : faster B1", "peak memory, ours : leanest B1", "first step, ours : fastest of B0 to B2"]


def summary(lines):
    """A row of ratios for each setting."""
    rows = []
    for setting in report.settings(lines):
        figures = report.Figures([line for line in lines if report.setting_of(line) == setting])
        best, sharded = figures.best(report.B0_TO_B2, "ours"), figures.best(report.B1, "ours")
        lean, tag = figures.leanest(report.B1), lambda x, side: "-" if x is None else f"{x:.2f} ({side})"
        middle = lambda other: (report.speed_ratio(figures, "ours", other) or (None, None, None))[1]
        rows.append([title(figures.lines[0]), tag(middle(best), best), tag(middle(sharded), sharded), tag(figures.memory_ratio("ours", lean), lean),
                     tag(figures.first_step_ratio("ours", best), best)])
    return "## Summary\n\nSamples per second: more than 1 is faster. Memory and time to the first step: less than 1 is less.\n\n" + report.table(SUMMARY, rows) + "\n"


def tuning(lines):
    """What was tried: a table for each run, fastest first, by the lower quartile, which neighbours of a shared machine disturb least."""
    parts = ["## What was tried\n", "Variants of the sides in turns within one run each. ms per step: lower quartile, median.\n"]
    for setting in report.settings(lines):
        of_setting = [line for line in lines if report.setting_of(line) == setting and line["kind"] == "round"]
        for run in dict.fromkeys(line["run"] for line in of_setting):
            figures = report.Figures([line for line in of_setting if line["run"] == run])
            rows = sorted((figures.step_seconds(side)[:2], side) for side in figures.sides)
            parts += [f"{title(figures.lines[0])}, commit {figures.lines[0]['commit']}\n", report.table(["variant", "lower quartile", "median"], [[s, f"{low * 1e3:.0f}", f"{mid * 1e3:.0f}"] for (low, mid), s in rows]) + "\n"]
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="*", default=[str(ROOT / "build/peers/results.jsonl")])
    parser.add_argument("--tuning", action="append", default=[])
    parser.add_argument("--page", default=str(ROOT / "docs/benchmarks/peers.md"))
    options = parser.parse_args()
    lines, page = read(options.results), Path(options.page)
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    parts = [HEAD, machine_words(lines), summary(lines)]
    for index, setting in enumerate(report.settings(lines)):
        figures = report.Figures([line for line in lines if report.setting_of(line) == setting])
        name = f"{index:02d}-" + "-".join(map(str, setting[1:8]))
        parts.append(section(figures, name, folder))
    if options.tuning:
        parts.append(tuning(read(options.tuning)))
    page.write_text("\n".join(parts).rstrip() + "\n")
    print(page)


if __name__ == "__main__":
    main()
