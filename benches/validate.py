#!/usr/bin/env python3
"""`pipeline validate` beside the same checks written by hand in DuckDB, over the same files, in one go, as ratios.

    cargo build --release && pip install duckdb
    python3 benches/validate.py [--rows 5000000] [--dirt 0.001] [--rounds 5] [--format csv parquet] [--memory-limit 1G]

Ten checks of columns, one relationship and two uniqueness checks, and the legacy keys of both tables, which are unique in every
pipeline. DuckDB counts the rows that fail each check; the pipeline also tells which rows those are and writes the reject files.
Both must count the same. DuckDB is asked in two ways, each query over the files or all over tables that are made of them first, and the
faster one is taken. Contenders take turns; peak memory is the kernel's (VmHWM).
"""

import argparse, json, os, pathlib, shutil, sqlite3, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import generate

ROOT = pathlib.Path(__file__).resolve().parent.parent

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
    """What runs in a process of its own: DuckDB's counts, seconds and peak memory, as JSON."""
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
    seconds = time.monotonic() - begun
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps({"counts": counts, "seconds": seconds, "peak": peak / 1024}))


def duckdb_run(folder, form, options, way):
    command = [sys.executable, __file__, "--by-hand", str(folder), form, str(options.threads), way]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def watched(command):
    """Runs a command; gives its exit code, output, seconds and peak memory in MiB."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), output, time.monotonic() - begun, usage.ru_maxrss / 1024


def pipeline_run(folder, form, options):
    command = [options.pipeline, "validate", f"{folder}/{form}.yaml", "--output", "json", "-q", "--threads", str(options.threads)]
    command += ["--memory-limit", options.memory_limit] if options.memory_limit else []
    code, output, seconds, peak = watched(command)
    if code not in (0, 1):
        sys.exit(f"{' '.join(command)}: exit code {code}")
    report = json.loads(output)
    counts = {f"{table['name']}.{check['name']}": check["violations"] for table in report["tables"] for check in table["checks"]}
    shutil.rmtree(folder / "runs", ignore_errors=True)
    return {"counts": counts, "seconds": seconds, "peak": peak, "steps": report["steps"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dirt", type=float, default=0.001)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--format", nargs="+", choices=["csv", "parquet"], default=["csv", "parquet"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory-limit")
    parser.add_argument("--folder", help="where the delta is kept, to be used again; by default a folder that is removed")
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    parser.add_argument("--pipeline", default=str(pathlib.Path(target, "release", "pipeline")))
    options = parser.parse_args()
    try:
        import duckdb
    except ImportError:
        sys.exit("SKIPPED: there is no DuckDB to compare with; `pip install duckdb` gets it")
    place = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="bench-"))
    try:
        for form in options.format:
            folder = place / f"{form}-{options.rows}"
            if not (folder / "counts.json").exists():
                generate.make(folder, options.rows, dirt=options.dirt, format=form)
            (folder / "production.db").unlink(missing_ok=True)
            with sqlite3.connect(folder / "production.db") as production:
                production.executescript(PRODUCTION)
            (folder / f"{form}.yaml").write_text(PIPELINE.format(format=form))
            contenders = {"DuckDB, tables": lambda: duckdb_run(folder, form, options, "TABLE"),
                          "DuckDB, files": lambda: duckdb_run(folder, form, options, "VIEW"),
                          "pipeline validate": lambda: pipeline_run(folder, form, options)}
            runs = {name: [] for name in contenders}
            for _ in range(options.rounds):
                for name, contender in contenders.items():
                    runs[name].append(contender())
            ours = runs["pipeline validate"][-1]["counts"]
            for name, found in runs.items():
                for run in found:
                    differ = {check: (count, ours.get(check)) for check, count in run["counts"].items() if ours.get(check) != count}
                    assert name == "pipeline validate" or not differ, (name, differ)
            seconds = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
            floor = min(taken for name, taken in seconds.items() if name.startswith("DuckDB"))
            print(f"{options.rows} rows of {form}, {options.threads} threads, DuckDB {duckdb.__version__}, median of {options.rounds}; all counts are the same")
            for name, taken in seconds.items():
                print(f"  {name:18} {taken:7.2f} s  x {taken / floor:.2f}  peak {max(run['peak'] for run in runs[name]):.0f} MiB")
            print("      " + ", ".join(f"{step['step']} {step['seconds']:.2f}" for step in runs["pipeline validate"][-1]["steps"]))
    finally:
        if not options.folder:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--by-hand"]:
        by_hand(*sys.argv[2:])
    else:
        main()
