"""Small SVG pictures, written by hand so that they stay small and need no library."""

WIDTH, BAR, GAP, LEFT, RIGHT = 640, 16, 10, 170, 90


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def steps(figures, path):
    """Medians of the step time as bars, quartiles as lines over them. Returns the path, or None where nothing was timed."""
    rows = [(side, figures.step_seconds(side)) for side in figures.sides if figures.step_seconds(side)]
    if not rows:
        return None
    longest = max(upper for _, (_, _, upper) in rows)
    height = len(rows) * (BAR + GAP) + GAP + 18

    def x(seconds):
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / longest

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
             f'<rect width="{WIDTH}" height="{height}" fill="white"/>']
    for index, (side, (lower, median, upper)) in enumerate(rows):
        top = GAP + index * (BAR + GAP)
        middle = top + BAR / 2
        colour = "#1f6f8b" if side.startswith("ours") else "#b0b0b0"
        parts += [f'<text x="{LEFT - 6}" y="{middle + 4:.0f}" text-anchor="end">{escape(side[:28])}</text>',
                  f'<rect x="{LEFT}" y="{top}" width="{x(median) - LEFT:.1f}" height="{BAR}" fill="{colour}"/>',
                  f'<path d="M{x(lower):.1f} {middle}H{x(upper):.1f}M{x(lower):.1f} {top + 3}v{BAR - 6}M{x(upper):.1f} {top + 3}v{BAR - 6}" stroke="black" fill="none"/>',
                  f'<text x="{x(upper) + 5:.1f}" y="{middle + 4:.0f}">{median * 1e3:.0f} ms</text>']
    parts += [f'<text x="{LEFT}" y="{height - 6}" fill="#555">step time: median, quartiles</text>', "</svg>"]
    path.write_text("\n".join(parts) + "\n")
    return path
