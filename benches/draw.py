"""Tables (Markdown) and a plot (SVG) of the results that the benches keep: `python3 benches/all.py --draw`.

Of each contender in each cell the latest result counts. The plot has the cells of `scaling.py`, seconds over rows, both logarithmic.
"""

import html, json, math, pathlib, statistics

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS, PLOT = ROOT / "docs" / "performance.jsonl", ROOT / "docs" / "performance.svg"


def read(path):
    path = pathlib.Path(path)
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path.exists() else []


def middle(result):
    return statistics.median(result["seconds"])


def grouped(found, *fields):
    """Results by the values of these fields, in the order in which the values were first met; of one contender in one cell the last."""
    latest = {}
    for result in found:
        latest[tuple(result.get(name) for name in ("bench", "target", "format", "delta", "production", "memory_limit", "threads", "contender"))] = result
    groups = {}
    for result in latest.values():
        groups.setdefault(tuple(result.get(name) for name in fields), []).append(result)
    return groups


def table(header, lines):
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]) + "\n"


def order(result):
    return ", sales in the order of their customers" if result["bench"].endswith(", in order") else ""


def limits(result):
    limit, threads = result["memory_limit"], result["threads"]
    return (f", memory limit {limit}" if limit else "") + (f", {threads} threads" if threads else "")


def tables(found):
    """Every table there is."""
    told = []
    cells = [result for result in found if not result["bench"].startswith("scaling")]
    for _, of_cell in grouped(cells, "bench", "target", "format", "delta", "production", "memory_limit", "threads").items():
        told.append(cell(of_cell))
    for _, of_target in grouped([result for result in found if result["bench"].startswith("scaling")], "bench", "target", "memory_limit", "threads").items():
        told.append(scaling(of_target))
    return "\n".join(told)


def rounds(of_cell):
    least, most = min(len(result["seconds"]) for result in of_cell), max(len(result["seconds"]) for result in of_cell)
    return f"medians of {most} rounds" if least == most > 1 else f"medians of {least} to {most} rounds" if most > 1 else "one run each"


def cell(of_cell):
    first = of_cell[0]
    where = f", {first['format']}" if first.get("format") else ""
    what = f"{first['target']}{where}: {first['delta']:,} rows" + (f" into {first['production']:,}" if first["production"] is not None else "")
    what += order(first)
    lines = [[result["contender"], f"{middle(result):.2f}", f"{result['ratio']:.2f}" if result["ratio"] is not None else "",
              f"{result['peak_mib']} MiB" if result["peak_mib"] else ""] for result in of_cell]
    more = "".join(f"\n{result['contender']}: " + ", ".join(f"{step} {seconds:.2f}" for step, seconds in result["steps"].items()) + "\n"
                   for result in of_cell if result["steps"])
    return f"**{what}**; {rounds(of_cell)}{limits(first)}\n\n" + table(["contender", "seconds", "×", "peak"], lines) + more


def scaling(of_target):
    """Contenders over cells, and what a tenth of the delta or ten times the production makes of each."""
    first = of_target[0]
    cells = sorted({(result["production"] != min(other["production"] for other in of_target if other["delta"] == result["delta"]),
                     result["delta"], result["production"]) for result in of_target})
    cells = [(delta, production) for _, delta, production in cells]
    names = list(dict.fromkeys(result["contender"] for result in of_target))
    by = {(result["contender"], result["delta"], result["production"]): result for result in of_target}

    def entry(result):
        if not result:
            return ""
        parts = [f"{middle(result):.2f} s", f"× {result['ratio']:.2f}" if result["ratio"] is not None else "",
                 f"{result['peak_mib']} MiB" if result["peak_mib"] else ""]
        return " · ".join(part for part in parts if part)
    lines = [[name, *(entry(by.get((name, *place))) for place in cells)] for name in names]
    text = f"**{first['target']}: rows of the delta into rows of production{order(first)}**; {rounds(of_target)}{limits(first)}\n\n"
    text += table(["contender", *(f"{delta:,} into {production:,}" for delta, production in cells)], lines)
    pairs = [(f"{few[0]:,} instead of {many[0]:,} rows into {few[1]:,}", few, many)
             for few in cells for many in cells if few[1] == many[1] and few[0] < many[0]]
    pairs += [(f"{few[0]:,} rows into {many[1]:,} instead of {few[1]:,}", many, few)
              for few in cells for many in cells if few[0] == many[0] and few[1] < many[1]]

    def growth(name, this, that):
        this, that = by.get((name, *this)), by.get((name, *that))
        return f"× {middle(this) / middle(that):.2f}" if this and that else ""
    lines = [[name, *(growth(name, this, that) for _, this, that in pairs)] for name in names]
    return text + ("\n" + table(["seconds of", *(title for title, _, _ in pairs)], lines) if pairs else "")


# What the plot calls a contender, its colour, and whether it is dashed: references are looked at as a set, or not at all.
LINES = {
    "INSERT of ready rows": ("INSERT, ready rows", "base", False), "INSERT of ready rows, foreign keys off": ("INSERT, keys off", "base", True),
    "COPY of ready rows": ("COPY, ready rows", "base", False), "COPY of ready rows, triggers off": ("COPY, triggers off", "base", True),
    "SQL script": ("SQL script", "script", False), "SQL script, set-wise": ("SQL script, set-wise", "script", True),
    "DuckDB": ("DuckDB", "duck", False), "DuckDB, triggers off": ("DuckDB, triggers off", "duck", True),
    "pipeline run, triggers": ("pipeline, triggers", "ours", False), "pipeline run, set_based": ("pipeline, set_based", "ours", True),
}

STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #57606a }
  .card { fill: #ffffff } .grid { stroke: #eaeef2 } .lead { stroke: #afb8c1 }
  .title { font-weight: 600; font-size: 14px; fill: #1f2328 } .end { text-anchor: end } .middle { text-anchor: middle }
  path { fill: none; stroke-width: 1.75; stroke-linejoin: round; stroke-linecap: round } .dashed { stroke-dasharray: 5 4 } path.ours { stroke-width: 2.75 }
  path.base { stroke: #6e7781 } path.script { stroke: #bc4c00 } path.duck { stroke: #9a6700 } path.ours { stroke: #0969da }
  .dot.base, text.base { fill: #6e7781 } .dot.script, text.script { fill: #bc4c00 } .dot.duck, text.duck { fill: #9a6700 } .dot.ours, text.ours { fill: #0969da }
  text.ours { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .card { fill: #0d1117 } .grid { stroke: #21262d } .lead { stroke: #484f58 } .title { fill: #f0f6fc }
    path.base { stroke: #9198a1 } path.script { stroke: #f0883e } path.duck { stroke: #e3b341 } path.ours { stroke: #58a6ff }
    .dot.base, text.base { fill: #9198a1 } .dot.script, text.script { fill: #f0883e } .dot.duck, text.duck { fill: #e3b341 } .dot.ours, text.ours { fill: #58a6ff }
  }
"""

WIDTH, HEIGHT, TOP, BOTTOM, PANEL, LEFT, LABELS = 1000, 430, 66, 70, 500, 58, 162


def plain(found):
    """What is drawn: of the loads in order and in none those that were measured in more cells."""
    drawn = [result for result in found if result["bench"].startswith("scaling") and not result["memory_limit"] and result["contender"] in LINES]
    cells = lambda bench: len({(result["target"], result["delta"], result["production"]) for result in drawn if result["bench"] == bench})
    most = max(sorted({result["bench"] for result in drawn}), key=cells, default=None)
    return [result for result in drawn if result["bench"] == most]


def series(found):
    """Points of each target and contender: (rows of the delta, seconds); of several productions the smallest. And production by delta."""
    production = {}
    for result in plain(found):
        production[result["delta"]] = min(result["production"], production.get(result["delta"], result["production"]))
    lines = {}
    for (target, contender), results in grouped(plain(found), "target", "contender").items():
        points = sorted((result["delta"], middle(result)) for result in results if result["production"] == production[result["delta"]])
        if points:
            lines.setdefault(target, {})[contender] = points
    return lines, production


def spread(wanted, least, low, high):
    """Heights as near to the wanted ones as they can be with `least` between them."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    placed = [max(low, min(high, wanted[at])) for at in order]
    for _ in range(200):
        for at in range(1, len(placed)):
            gap = least - (placed[at] - placed[at - 1])
            if gap > 0.01:
                placed[at - 1], placed[at] = placed[at - 1] - gap / 2, placed[at] + gap / 2
        shift = max(0, low - placed[0]) if placed else 0
        placed = [min(height + shift, high - least * (len(placed) - 1 - at)) for at, height in enumerate(placed)]
    return {at: height for at, height in zip(order, placed)}


def plot(found):
    """The SVG; legible on light and dark pages, since it brings its own ground."""
    lines, production = series(found)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
           "<title>Seconds that a load takes, by rows of the delta</title>", f"<style>{STYLE}</style>",
           f'<rect class="card" width="{WIDTH}" height="{HEIGHT}" rx="8"/>']

    def text(x, y, words, kind=""):
        out.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(words)}</text>')
    if not lines:
        text(WIDTH / 2, HEIGHT / 2, "nothing is measured yet: python3 benches/all.py", "middle")
        return "\n".join([*out, "</svg>", ""])
    all_seconds = [seconds for of_target in lines.values() for points in of_target.values() for _, seconds in points]
    low, high = math.log10(min(all_seconds)) - 0.08, math.log10(max(all_seconds)) + 0.08
    first, last = math.log10(min(production)), math.log10(max(production))
    floor, ceiling = HEIGHT - BOTTOM, TOP
    height = lambda seconds: floor - (math.log10(seconds) - low) / (high - low) * (floor - ceiling)
    steps = [(digit, power) for power in range(math.floor(low), math.ceil(high) + 1) for digit in (1, 2, 5)]
    ticks = [digit * 10.0**power for digit, power in steps if low <= math.log10(digit) + power <= high]
    for number, (target, of_target) in enumerate(sorted(lines.items(), key=lambda item: item[0] != "SQLite")):
        left, right = number * PANEL + LEFT, (number + 1) * PANEL - LABELS
        across = lambda rows: left + 8 + (right - left - 16) * ((math.log10(rows) - first) / (last - first) if last > first else 0.5)
        text(left, 28, target, "title")
        text(left, 47, "seconds, over rows of the delta")
        for seconds in ticks:
            out.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{height(seconds):.1f}" y2="{height(seconds):.1f}"/>')
            text(left - 8, height(seconds) + 4, f"{seconds:,g}", "end")
        for rows in sorted({rows for points in of_target.values() for rows, _ in points}):
            out.append(f'<line class="grid" x1="{across(rows):.1f}" x2="{across(rows):.1f}" y1="{ceiling}" y2="{floor}"/>')
            text(across(rows), floor + 20, f"{rows:,}", "middle")
            text(across(rows), floor + 35, f"into {production[rows]:,}" if production[rows] < 1e6 else f"into {production[rows] / 1e6:g} million", "middle")
        names = sorted(of_target, key=lambda name: LINES[name][1] == "ours")
        heights = spread([height(of_target[name][-1][1]) for name in names], 15, ceiling, floor)
        for at, name in enumerate(names):
            label, colour, dashed = LINES[name]
            points = [(across(rows), height(seconds)) for rows, seconds in of_target[name]]
            out.append(f'<path class="{colour}{" dashed" if dashed else ""}" d="M' + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + '"/>')
            out.extend(f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="{3.5 if colour == "ours" else 2.5}"/>' for x, y in points)
            out.append(f'<line class="lead" x1="{points[-1][0] + 5:.1f}" y1="{points[-1][1]:.1f}" x2="{right + 12}" y2="{heights[at]:.1f}"/>')
            text(right + 16, heights[at] + 4, label, colour)
    drawn = [result for of_target in grouped(plain(found), "target").values() for result in of_target]
    newest = max(reversed(drawn), key=lambda result: result["date"])
    machine = newest["machine"]
    text(LEFT, HEIGHT - 12, f"{rounds(drawn).capitalize()}, {machine['cores']} cores of {machine['cpu']}, {newest['date']}. "
         "Dashed: references are looked at as a set, or not at all.")
    return "\n".join([*out, "</svg>", ""])
