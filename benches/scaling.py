#!/usr/bin/env python3
"""How the time of a load grows with the delta and with production, on SQLite and on PostgreSQL, and its peak memory.

    cargo build --release
    python3 benches/scaling.py [--cells 100k:900k 1m:9m 10m:10m 100k:9m] [--target sqlite postgres] [--only NAME]... [--rounds 3] [--large-rounds 1]

A cell is the rows of a delta (a fifth customers, the rest their sales) and the rows of the production that it goes into; contenders are those of
`sqlite.py` and `postgres.py`, which say what they do. The cells above tell, in this order: sizes, two decades of them (with a smaller production behind the
largest, to fit on a disk); and by the last one, held against the second, a tenth of the delta into the same production, and, held against the first,
the same delta into a production ten times larger. Deltas of five million rows and more get --large-rounds instead of --rounds.

    python3 benches/scaling.py --cells 10m:10m --only 'pipeline run, set_based' --memory-limit 512MiB    # peak memory beside a limit

Estimated for two cores and all contenders, SQLite and PostgreSQL: 100k:900k 1 and 2 minutes, 1m:9m 5 and 13, 100k:9m 2 and 5, 10m:10m 15 and 45. A cell of
10m:10m needs up to 13 and 29 GB of disk (TMPDIR says where), and is refused where they are not free.
"""

import pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import draw, measure, postgres, sqlite

LARGE = 5_000_000


def main():
    parser = measure.arguments(__doc__)
    parser.add_argument("--cells", nargs="+", default=["100k:900k", "1m:9m", "10m:10m", "100k:9m"], metavar="DELTA:PRODUCTION")
    parser.add_argument("--target", nargs="+", choices=["sqlite", "postgres"], default=["sqlite", "postgres"])
    parser.add_argument("--large-rounds", type=int, default=1)
    parser.add_argument("--connections", type=int, default=2)
    options = parser.parse_args()
    small, found = options.rounds, []
    for target in options.target:
        for cell in options.cells:
            new, old = (measure.number(rows) for rows in cell.split(":"))
            options.rounds = small if new < LARGE else options.large_rounds
            print(f"{target}: {new:,} rows into {old:,}", file=sys.stderr)
            bench = sqlite.bench if target == "sqlite" else postgres.bench
            found += bench(options, measure.split(new), measure.split(old), "scaling")
    print(draw.tables(found))


if __name__ == "__main__":
    main()
