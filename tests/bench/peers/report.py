"""From lines of results to figures: medians, quartiles and ratios, which are refused without an agreement on record."""
import statistics

LINES = ("b0", "b1-sharded", "b1-ignored", "b2", "b2-sharded", "b2-ignored", "b3")


class Refused(ValueError):
    """There is no agreement of losses for what is asked."""


def setting_of(line):
    """What two figures must have in common to be compared."""
    return tuple(line[k] for k in ("commit", "workload", "size", "tokens", "batch", "dtype", "device", "ranks", "threads"))


def settings(lines):
    found = []
    for line in lines:
        if setting_of(line) not in found:
            found.append(setting_of(line))
    return found


def quartiles(values):
    """(lower, median, upper)"""
    if len(values) < 2:
        return tuple(values) * 3
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


class Figures:
    """All that is known of one setting, by side. Lines of later runs replace those of earlier ones."""

    def __init__(self, lines):
        self.lines = lines
        self.sides = list(dict.fromkeys(line["side"] for line in lines))

    def of(self, kind, side):
        found = [line for line in self.lines if line["kind"] == kind and line["side"] == side]
        return [line for line in found if line["run"] == found[-1]["run"]]

    def agreed(self, side, other):
        """Whether the run in which both were timed last, in turns, found that their losses agree."""
        timed = {line["run"] for name in (side, other) for line in self.of("round", name)}
        found = [line for line in self.lines if line["kind"] == "agreement" and line["side"] in (side, other) and line["run"] in timed]
        return len(timed) == 1 and {line["side"] for line in found} == {side, other} and all(line["agrees"] for line in found)

    def together(self, side):
        """Sides that were timed in turns with this one."""
        runs = {line["run"] for line in self.of("round", side)}
        return [other for other in self.sides if {line["run"] for line in self.of("round", other)} == runs]

    def step_seconds(self, side):
        """Quartiles over all steps of all rounds; None where nothing was timed."""
        seconds = [s for line in self.of("round", side) for s in line["seconds"]]
        return quartiles(seconds) if seconds else None

    def round_medians(self, side):
        return [statistics.median(line["seconds"]) for line in self.of("round", side)]

    def ratio(self, side, other):
        """Times as many samples per second as the other. Of each round, which the sides ran one after the other, then the median over rounds."""
        if not self.agreed(side, other):
            raise Refused(f"{side} and {other}: expected an agreement of losses on record for this commit, workload and dtype; got none")
        pairs = list(zip(self.round_medians(side), self.round_medians(other)))
        return quartiles([theirs / ours for ours, theirs in pairs])

    def first_step(self, side):
        seconds = [line["seconds"] for line in self.of("first_step", side)]
        return statistics.median(seconds) if seconds else None

    def memory(self, side):
        found = self.of("memory", side)
        return found[-1] if found else None

    def checkpoint(self, side):
        found = self.of("checkpoint", side)
        return found[-1] if found else None

    def loopback(self, side):
        """Bytes on the wire per step, all ranks, headers included."""
        found = self.of("round", side)
        return statistics.median(line["loopback_bytes"] / len(line["seconds"]) for line in found) if found else None

    def competing(self, names, beside):
        """Those of these sides, variants included, that were timed in turns with `beside`."""
        return [s for s in self.together(beside) if s.partition(":")[0] in names and self.step_seconds(s)]

    def best(self, names, beside):
        """The fastest of them."""
        return min(self.competing(names, beside), key=lambda s: self.step_seconds(s)[1], default=None)

    def leanest(self, names):
        """The one with the least summed peak memory, timed or not."""
        known = [s for s in self.sides if s.partition(":")[0] in names and self.memory(s)]
        return min(known, key=lambda s: self.memory(s)["pss_peak_bytes"], default=None)

    def memory_ratio(self, side, other):
        mine, theirs = self.memory(side), self.memory(other) if other else None
        return mine["pss_peak_bytes"] / theirs["pss_peak_bytes"] if mine and theirs else None

    def first_step_ratio(self, side, other):
        mine, theirs = self.first_step(side), self.first_step(other) if other else None
        return mine / theirs if mine and theirs else None


def mebibytes(value):
    return "-" if value is None else f"{value / 2**20:.0f}"


def rows_of(figures):
    """Side, step in ms with quartiles, samples/s, summed peak memory, largest process, first step, checkpoint bytes and pause, bytes per step."""
    rows = []
    for side in figures.sides:
        step, memory, saved, first = figures.step_seconds(side), figures.memory(side), figures.checkpoint(side), figures.first_step(side)
        batch = figures.lines[0]["batch"]
        rows.append([
            side,
            "-" if step is None else f"{step[1] * 1e3:.0f} ({step[0] * 1e3:.0f} to {step[2] * 1e3:.0f})",
            "-" if step is None else f"{batch / step[1]:.1f}",
            mebibytes(memory and memory["pss_peak_bytes"]),
            mebibytes(memory and max(memory["high_water_bytes"])),
            "-" if first is None else f"{first:.1f}",
            "-" if saved is None else f"{saved['bytes'] / 1e6:.1f}",
            "-" if saved is None else f"{saved['seconds'] * 1e3:.0f}",
            "-" if step is None else f"{figures.loopback(side) / 1e6:.2f}",
        ])
    return rows


HEADER = ["side", "step, ms (quartiles)", "samples/s", "PSS, MiB", "largest VmHWM, MiB", "first step, s", "checkpoint, MB", "pause, ms", "loopback, MB/step"]


B0_TO_B2, B1 = LINES[:-1], ("b1-sharded", "b1-ignored")


def speed_ratio(figures, ours, other):
    """Quartiles, or None where there is nothing to compare with or it is refused."""
    try:
        return figures.ratio(ours, other) if other else None
    except Refused:
        return None


def ratio_words(figures, ours="ours"):
    """Sentences; refusals are sentences too."""
    words = []
    for names in (B0_TO_B2, B1, ("b3",)):
        other, competing = figures.best(names, ours), figures.competing(names, ours)
        if other is None:
            continue
        title = f"{other}, the fastest of {', '.join(competing)}" if len(competing) > 1 else other
        try:
            low, middle, high = figures.ratio(ours, other)
            words.append(f"ours: {middle:.2f} x ({low:.2f} to {high:.2f}) the samples/s of {title}")
        except Refused as refusal:
            words.append(f"ours: no ratio to {title}: {refusal}")
            continue
        if first := figures.first_step_ratio(ours, other):
            words.append(f"ours: {first:.2f} x the time to the first step of {other}")
    lean = figures.leanest(B1)
    if memory := figures.memory_ratio(ours, lean):
        words.append(f"ours: {memory:.2f} x the summed peak memory of {lean}, the B1 that needs least")
    return words + one_rank_words(figures)


def one_rank_words(figures):
    """How far FSDP2 on one rank is from plain PyTorch."""
    if figures.lines[0]["ranks"] != 1 or "b0" not in figures.sides:
        return []
    words = []
    for side in figures.competing(B1, "b0"):
        if speed := speed_ratio(figures, "b0", side):
            why = "" if speed[1] <= 1.1 else ": it copies the weights of every block into a buffer also on one rank, so that they cannot be packed" if side.startswith("b1-sharded") else \
                ": its hooks and casts around the trained modules come on top of the same work"
            words.append(f"{side} on one rank: {speed[1]:.2f} x the step time of b0{why}")
    return words


def table(header, rows):
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [header, ["---"] * len(header), *rows])


def text_of(lines):
    parts = []
    for setting in settings(lines):
        figures = Figures([line for line in lines if setting_of(line) == setting])
        commit, workload, size, tokens, batch, dtype, device, ranks, threads = setting
        parts.append(f"### {workload} {size}, {batch} x {tokens} tokens, {dtype}, {device}, {ranks} ranks x {threads} threads, commit {commit}\n")
        parts.append(table(HEADER, rows_of(figures)) + "\n")
        parts += [f"- {words}" for words in ratio_words(figures)] + [""]
    return "\n".join(parts)
