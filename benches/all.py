#!/usr/bin/env python3
"""All benches, one behind the other: results into docs/performance.jsonl, tables to stdout, and the plot docs/performance.svg.

    cargo build --release && pip install duckdb duckdb-extension-postgres-scanner duckdb-extensions
    python3 benches/all.py [--parts sqlite postgres order validate scaling memory] [--rounds 3] [--rows 750k] [--cells 100k:900k 1m:9m 10m:10m 100k:9m]
    python3 benches/all.py --draw      # measures nothing: tables and plot out of the results that are there

Results are added, and of each contender in each cell the latest counts; so a part, a cell or a contender (--only; name the base as well, or it has no ratio)
can be measured again alone. A part that fails is told, and the others go on. `order` loads sales in the order of their customers, where all others come in no
order, `memory` loads and validates 10 million rows with a limit of 512 MiB.

Estimated for two cores: sqlite 5 minutes, postgres 10, order 5, validate 5, scaling an hour and a half (see `scaling.py`), memory 20 minutes. The machine
should do nothing else; its load at the beginning is in each result.
"""

import argparse, pathlib, signal, subprocess, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import draw, measure, postgres, sqlite

PARTS = ("sqlite", "postgres", "order", "validate", "scaling", "memory")


def commands(options):
    """The benches of each part, with their arguments."""
    sizes = measure.split(measure.number(options.rows))
    load = ["--parents", sizes["customer"], "--children", sizes["sale"], "--factor", 9, "--rounds", options.rounds]
    runs = [word for name in ("pipeline run, triggers", "pipeline run, set_based") for word in ("--only", name)]
    scaled = ["--target", *options.target]
    limit = ["--rounds", 1, "--memory-limit", "512MiB"]
    ordered = [*load, "--in-order", *runs, "--only"]
    return {
        "sqlite": [["sqlite.py", *load]], "postgres": [["postgres.py", *load]],
        "order": [["sqlite.py", *ordered, sqlite.BASE], ["postgres.py", *ordered, postgres.BASE]],
        "validate": [["validate.py", "--rows", options.validate_rows, "--rounds", options.rounds]],
        "scaling": [["scaling.py", "--cells", *options.cells, *scaled, "--rounds", options.rounds, "--large-rounds", options.large_rounds]],
        "memory": [["scaling.py", "--cells", options.memory_cell, *scaled, *runs, *limit],
                   ["validate.py", "--rows", options.memory_cell.split(":")[0], "--format", "csv", "--only", "pipeline validate", *limit]],
    }


def ended(command):
    """Runs a bench and gives its exit code; a signal that ends this program lets the bench stop its server and remove its files first."""
    # What it prints is printed for all of them at the end.
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    except SystemExit:
        process.terminate()
        process.wait()
        raise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--target", nargs="+", choices=["sqlite", "postgres"], default=["sqlite", "postgres"], help="of scaling and memory")
    parser.add_argument("--rows", default="750k", help="rows of the delta of sqlite and postgres, into a production nine times as large")
    parser.add_argument("--validate-rows", default="5m")
    parser.add_argument("--cells", nargs="+", default=["100k:900k", "1m:9m", "10m:10m", "100k:9m"], metavar="DELTA:PRODUCTION", help="of scaling")
    parser.add_argument("--memory-cell", default="10m:10m", metavar="DELTA:PRODUCTION")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large-rounds", type=int, default=1, help="of deltas of five million rows and more")
    parser.add_argument("--only", action="append", help="of the contenders this one; more than once for more")
    parser.add_argument("--results", default=str(draw.RESULTS))
    parser.add_argument("--plot", default=str(draw.PLOT))
    parser.add_argument("--pipeline")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    more = ["--results", options.results, *(["--pipeline", options.pipeline] if options.pipeline else [])]
    failed = []
    only = [word for name in options.only or [] for word in ("--only", name)]
    for part in [] if options.draw else options.parts:
        for bench, *arguments in commands(options)[part]:
            words = [sys.executable, measure.ROOT / "benches" / bench, *arguments, *(only if part not in ("order", "memory") else []), *more]
            print(f"{part}: {' '.join(str(word) for word in words[1:])}", file=sys.stderr)
            if ended(words) != 0:
                failed.append(part)
    found = draw.read(options.results)
    pathlib.Path(options.plot).write_text(draw.plot(found))
    print(draw.tables(found))
    if failed:
        sys.exit(f"failed or left out: {', '.join(failed)}")


if __name__ == "__main__":
    main()
