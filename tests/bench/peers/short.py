"""A short table of lines of results, as docs/benchmarks/gpu.md has it: `run.sh short FILE.jsonl ...`. Ours and the ratio to each other side that took turns with it."""
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


def text_of(lines):
    rows = []
    for figures in runs(lines):
        line = figures.lines[0]
        name = f"{line['workload']} {line['size']}, {line['batch']} x {line['tokens']}, {line['dtype']}"
        rows += [[name, side, *speed(figures, side), gibibytes(figures, side), apart(figures, side), ratio(figures, side)] for side in figures.sides]
    return page.machine_words(lines) + f"\nCommit {lines[-1]['commit']}; GPU: {lines[-1]['machine'].get('gpu', {}).get('name', 'none')}.\n\n" + report.table(HEADER, rows)


if __name__ == "__main__":
    print(text_of(page.read(sys.argv[1:])))
