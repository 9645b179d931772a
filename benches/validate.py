#!/usr/bin/env python3
"""`pipeline validate` beside the same checks written by hand in DuckDB, over the same files, in one go, as ratios.

    cargo build --release && pip install duckdb
    python3 benches/validate.py [--rows 5000000] [--dirt 0.001] [--rounds 5] [--format csv parquet] [--only NAME]... [--memory-limit 1GiB]

Ten checks of columns, one relationship and two uniqueness checks, and the legacy keys of both tables, which are unique in every
pipeline. DuckDB counts the rows that fail each check; the pipeline also tells which rows those are and writes the reject files.
Both must count the same. DuckDB is asked in two ways, each query over the files or all over tables that are made of them first, and the
faster one is taken: the base, 1.00. Contenders take turns; peak memory is the kernel's.

About a quarter of a minute a round and format on two cores, and as long before the first; Parquet somewhat longer.
"""

import importlib.metadata, json, os, pathlib, shutil, sqlite3, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import draw, measure

PRODUCTION = """
CREATE TABLE customer (
    customer_id INTEGER PRIMARY KEY, customer_no TEXT, name TEXT, email TEXT, status TEXT, since DATE, credit DECIMAL(12,2));
CREATE TABLE sale (
    sale_id INTEGER PRIMARY KEY, receipt_no TEXT, customer_id INTEGER REFERENCES customer, product TEXT, quantity INTEGER,
    amount DECIMAL(12,2), sold_on DATE, note TEXT);
"""

PIPELINE = """version: 1
name: bench
target: {{ url: "sqlite:production.db" }}
safeguards: {{ conversion_mode: off, max_rejects: 100% }}
output: runs
tables:
  customer:
    source: {{ path: "customer*.{format}" }}
    legacy_key: [customer_ref]
    key: {{ column: customer_id }}
    checks:
      - not_null: [name]
      - expression: email LIKE '%@%'
        name: email_has_an_at
      - accepted_values: {{ column: status, values: [ACTIVE, CLOSED, PAUSED] }}
      - range: {{ column: credit, min: 0 }}
      - unique: [customer_no]
  sale:
    source: {{ path: "sale*.{format}" }}
    legacy_key: [sale_ref]
    key: {{ column: sale_id }}
    relationships:
      - {{ column: customer_id, from: [customer_ref], to: customer }}
    checks:
      - not_null: [product]
      - range: {{ column: quantity, min: 1, max: 1000 }}
      - range: {{ column: amount, min: 0 }}
      - expression: character_length(note) <= 80
        name: note_is_short
      - unique: [receipt_no]
"""

# Checks by table as the pipeline names them, and the rows that fail them in DuckDB's SQL; `since` and `sold_on` are the casts that can fail.
ROW_CHECKS = {
    "customer": {
        "not_null(name)": "name IS NULL", "email_has_an_at": "email NOT LIKE '%@%'",
        "accepted_values(status)": "status NOT IN ('ACTIVE', 'CLOSED', 'PAUSED')", "range(credit)": "TRY_CAST(credit AS DECIMAL(12,2)) < 0",
        "cast(since)": "since IS NOT NULL AND TRY_CAST(since AS DATE) IS NULL",
        "cast(credit)": "credit IS NOT NULL AND TRY_CAST(credit AS DECIMAL(12,2)) IS NULL"},
    "sale": {
        "not_null(product)": "product IS NULL", "range(quantity)": "TRY_CAST(quantity AS INTEGER) NOT BETWEEN 1 AND 1000",
        "range(amount)": "TRY_CAST(amount AS DECIMAL(12,2)) < 0", "note_is_short": "length(note) > 80",
        "cast(sold_on)": "sold_on IS NOT NULL AND TRY_CAST(sold_on AS DATE) IS NULL",
        "cast(quantity)": "quantity IS NOT NULL AND TRY_CAST(quantity AS INTEGER) IS NULL",
        "cast(amount)": "amount IS NOT NULL AND TRY_CAST(amount AS DECIMAL(12,2)) IS NULL"},
}
UNIQUE = {"customer": {"unique(customer_no)": "customer_no", "legacy_key": "customer_ref"}, "sale": {"unique(receipt_no)": "receipt_no", "legacy_key": "sale_ref"}}
ORPHANS = "SELECT count(*) FROM sale s WHERE customer_ref IS NOT NULL AND NOT EXISTS (SELECT 1 FROM customer c WHERE c.customer_ref = s.customer_ref)"


def by_hand(folder, form, threads, way):
    """What runs in a process of its own: DuckDB's counts and seconds, as JSON."""
    import duckdb
    begun = time.monotonic()
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    counts = {}
    for table in ("customer", "sale"):
        source = f"read_csv('{folder}/{table}*.csv', all_varchar = true, header = true)" if form == "csv" else f"read_parquet('{folder}/{table}*.parquet')"
        connection.execute(f"CREATE TEMP {way} {table} AS SELECT * FROM {source}")
    for table, checks in ROW_CHECKS.items():
        wanted = ", ".join(f"count(*) FILTER ({failed})" for failed in checks.values())
        for name, count in zip(checks, connection.execute(f"SELECT {wanted} FROM {table}").fetchone()):
            counts[f"{table}.{name}"] = count
        for name, column in UNIQUE[table].items():
            groups = f"SELECT count(*) AS n FROM {table} WHERE {column} IS NOT NULL GROUP BY {column} HAVING count(*) > 1"
            counts[f"{table}.{name}"] = int(connection.execute(f"SELECT coalesce(sum(n), 0) FROM ({groups})").fetchone()[0])
    counts["sale.relationship(customer_id)"] = connection.execute(ORPHANS).fetchone()[0]
    print(json.dumps({"counts": counts, "seconds": time.monotonic() - begun}))


def bench(options, folder, form):
    """One form of the files, and every contender's result."""
    if not (folder / "counts.json").exists():
        # In a process of its own, or its memory would be taken for that of what is measured.
        command = [sys.executable, measure.ROOT / "benches" / "generate.py", folder, "--rows", str(options.rows), "--dirt", str(options.dirt), "--format", form]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder / "production.db").unlink(missing_ok=True)
    with sqlite3.connect(folder / "production.db") as production:
        production.executescript(PRODUCTION)
    production.close()
    (folder / f"{form}.yaml").write_text(PIPELINE.format(format=form))
    hand = lambda way: lambda: measure.by_hand(__file__, "--by-hand", folder, form, options.threads, way)
    contenders = {"DuckDB, tables": hand("TABLE"), "DuckDB, files": hand("VIEW"),
                  "pipeline validate": lambda: measure.pipeline(options, "validate", folder / f"{form}.yaml", accept=(0, 1))}
    about = {"machine": measure.machine(), "versions": measure.versions(options, duckdb=importlib.metadata.version("duckdb"))}
    took = measure.turns(measure.chosen(contenders, options.only), options.rounds, lambda _: shutil.rmtree(folder / "runs", ignore_errors=True))
    ours = took.get("pipeline validate", [measure.Ran(0, counts={})])[-1].counts
    for name, runs in took.items():
        differ = {check: (count, ours.get(check)) for ran in runs for check, count in ran.counts.items() if ours and ours.get(check) != count}
        assert name == "pipeline validate" or not differ, (name, differ)
    seconds = {name: measure.middle(runs) for name, runs in took.items() if name.startswith("DuckDB")}
    base = min(seconds, key=seconds.get) if len(seconds) == 2 else None
    return measure.results(options, "validate", {"target": "validate", "format": form, "delta": options.rows, "production": None}, took, base, about)


def main():
    parser = measure.arguments(__doc__, rounds=5)
    parser.add_argument("--rows", type=measure.number, default=5_000_000)
    parser.add_argument("--dirt", type=float, default=0.001)
    parser.add_argument("--format", nargs="+", choices=["csv", "parquet"], default=["csv", "parquet"])
    parser.add_argument("--folder", help="where the delta is kept, to be used again; by default a folder that is removed")
    options = parser.parse_args()
    options.threads = options.threads or len(os.sched_getaffinity(0))
    try:
        importlib.metadata.version("duckdb")
    except importlib.metadata.PackageNotFoundError:
        sys.exit("SKIPPED: there is no DuckDB to compare with; `pip install duckdb` gets it")
    with measure.scratch(300 * options.rows) as scratch:
        place = pathlib.Path(options.folder or scratch)
        print(draw.tables([result for form in options.format for result in bench(options, place / f"{form}-{options.rows}", form)]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--by-hand"]:
        by_hand(*sys.argv[2:])
    else:
        main()
