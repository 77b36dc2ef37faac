"""Two short tables of lines of results: `run.sh short FILE.jsonl ...`. Every side of every run, and, as docs/benchmarks/gpu.md has it, ours over each of the others."""
import sys

import page
import report


def runs(lines):
    """Figures of each run by itself: sides of different runs took no turns."""
    for run in dict.fromkeys(line["run"] for line in lines):
        yield report.Figures([line for line in lines if line["run"] == run])


def speed(figures, side):
    """ms, quartiles, samples/s, tokens/s, where it was timed."""
    line, step = figures.lines[0], figures.step_seconds(side)
    if step is None:
        return ["-"] * 4
    low, middle, high = step
    rate = line["batch"] / middle
    return [f"{middle * 1e3:.2f}", f"{low * 1e3:.2f} to {high * 1e3:.2f}", f"{rate:.1f}", f"{rate * line['tokens']:.0f}"]


def gibibytes(figures, side):
    """What the side's processes hold of the GPU, by the driver; where that knows no processes, what PyTorch has reserved at most."""
    found = figures.of("device", side)
    used = sum(found[-1]["device_used_bytes"]) or sum(found[-1]["device_peak_bytes"]) if found else 0
    return f"{used / 2**30:.1f}" if used else "-"


def ratio(figures, side):
    if side == "ours":
        return ""
    if figures.step_seconds(side) is None or figures.step_seconds("ours") is None:
        return "not timed"
    try:
        low, middle, high = figures.ratio("ours", side)
    except report.Refused:
        return "none: losses apart"
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def apart(figures, side):
    found = figures.of("agreement", side)
    return "-" if not found or found[-1]["largest"] is None else f"{found[-1]['largest']:.1e} of {found[-1]['bound']:.1e}"


HEADER = ["workload", "side", "ms", "quartiles", "samples/s", "tokens/s", "GiB of the GPU", "losses apart, of at most", "ours is faster by"]


OTHERS = {"b0": "B0", "b1-ignored": "B1", "b2": "B2", "b2:compile=reduce-overhead": "B2 with CUDA graphs", "b3": "B3"}


def ratios(lines):
    """A row for each setting, whose sides may have taken turns with ours in several runs; the last one counts."""
    rows = {}
    for figures in runs(lines):
        row = rows.setdefault(page.title(figures.lines[0]), {})
        row |= {side: ratio(figures, side) for side in figures.sides if side != "ours"}
    return report.table(["workload", *OTHERS.values()], [[name, *(row.get(side, "not measured") for side in OTHERS)] for name, row in rows.items()])


def text_of(lines):
    rows = []
    for figures in runs(lines):
        line = figures.lines[0]
        name = f"{line['workload']} {line['size']}, {line['batch']} x {line['tokens']}, {line['dtype']}"
        rows += [[name, side, *speed(figures, side), gibibytes(figures, side), apart(figures, side), ratio(figures, side)] for side in figures.sides]
    return page.machine_words(lines) + f"\nCommit {lines[-1]['commit']}; GPU: {lines[-1]['machine'].get('gpu', {}).get('name', 'none')}.\n\n" + report.table(HEADER, rows) + \
        "\n\nOur samples/s over theirs:\n\n" + ratios(lines)


if __name__ == "__main__":
    print(text_of(page.read(sys.argv[1:])))
