"""Small log-log line plots as SVG, without any library: a file of a few kilobytes that a browser and a code host show."""
import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 62, 12, 30, 46
COLOURS = ["#1b6ca8", "#c0392b", "#27864a", "#7d5ba6"]


def decades(low, high):
    """Round numbers (1, 2, 5 times powers of ten) from below `low` to above `high`."""
    ticks = [m * 10.0**e for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    begin = max(i for i, t in enumerate(ticks) if t <= low * 1.0001)
    end = min(i for i, t in enumerate(ticks) if t >= high * 0.9999)
    return ticks[begin:end + 1] if end > begin else ticks[begin:begin + 2]


def number(value):
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def panel(series, title, x_label, y_label, offset=0):
    """series: [(name, [(x, y), ...], dashed)]. Returns the elements of one plot, moved right by `offset`."""
    points = [p for _, line, _ in series for p in line if p[0] > 0 and p[1] > 0]
    if not points:
        return ""
    xs, ys = decades(min(p[0] for p in points), max(p[0] for p in points)), decades(min(p[1] for p in points), max(p[1] for p in points))

    def at(value, ticks, begin, length):
        return begin + length * math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])

    def x_at(x):
        return offset + at(x, xs, LEFT, WIDTH - LEFT - RIGHT)

    def y_at(y):
        return at(y, ys, HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM))

    out = [f'<text x="{offset + WIDTH / 2:.0f}" y="16" text-anchor="middle" font-weight="bold">{title}</text>']
    for x in xs:
        out.append(f'<path d="M{x_at(x):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>'
                   f'<text x="{x_at(x):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{number(x)}</text>')
    for y in ys:
        out.append(f'<path d="M{offset + LEFT} {y_at(y):.1f}H{offset + WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{offset + LEFT - 5}" y="{y_at(y) + 4:.1f}" text-anchor="end">{number(y)}</text>')
    out.append(f'<text x="{offset + WIDTH / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{x_label}</text>'
               f'<text transform="translate({offset + 14} {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{y_label}</text>')
    for i, (name, line, dashed) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        path = "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in line if y > 0)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if not dashed:
            out += [f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{colour}"/>' for x, y in line if y > 0]
        out.append(f'<path d="M{offset + LEFT + 8} {TOP + 12 + 15 * i}h22" stroke="{colour}" stroke-width="2"{dash}/>'
                   f'<text x="{offset + LEFT + 35}" y="{TOP + 16 + 15 * i}">{name}</text>')
    return "\n".join(out)


def write(path, panels):
    """panels: arguments of `panel` but the offset, side by side."""
    body = "\n".join(panel(*p, offset=i * WIDTH) for i, p in enumerate(panels))
    width = WIDTH * len(panels)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
                   f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n')
