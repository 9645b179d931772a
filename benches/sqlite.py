#!/usr/bin/env python3
"""Whole runs into SQLite beside a hand-written script, and beside the insertion of ready rows into the same tables, as ratios.

    cargo build --release
    python3 benches/sqlite.py [--parents 150000] [--children 600000] [--factor 9] [--rounds 3] [--only NAME]... [--memory-limit 512MiB]

Makes a production file of --factor times the delta's size, and gives every contender a fresh copy of it, in turns; the copy is on disk
before the time begins. The base, 1.00, is `INSERT … SELECT` of ready, keyed rows, out of a file that is attached, whose tables have no
constraints, into the constrained tables with foreign keys on, in one transaction; the second does it with foreign keys off. The script is
what a careful person writes: it stages the CSV files in a file that is attached and not synced (by `.import` of the `sqlite3` shell where there is
one, else by Python), checks, assigns keys, keeps the mapping in production, inserts with foreign keys on, and reconciles before it commits.

All have what the program sets, `synchronous = FULL`; the journal (DELETE) and the cache are SQLite's defaults. The program has an SQLite of its own, the others have Python's and the shell's. Nothing but Python is needed.

Estimated for two cores: a minute a round with all contenders, and half a one before the first; `scaling.py` has other sizes.
"""

import csv, json, pathlib, shutil, sqlite3, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import draw, measure

BASE = "INSERT of ready rows"
PRAGMAS = "PRAGMA synchronous = FULL;"
SCRATCH = "PRAGMA {0}journal_mode = OFF; PRAGMA {0}synchronous = OFF;"

PRODUCTION = """
CREATE TABLE region (region_id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE product (product_id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE customer (
    customer_id INTEGER PRIMARY KEY, customer_no VARCHAR(20) NOT NULL UNIQUE,
    name VARCHAR(60) NOT NULL, region_id INTEGER NOT NULL REFERENCES region, since DATE NOT NULL);
CREATE TABLE sale (
    sale_id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer,
    product_id INTEGER NOT NULL REFERENCES product, region_id INTEGER NOT NULL REFERENCES region,
    quantity INTEGER NOT NULL CHECK (quantity > 0), amount DECIMAL(12,2) NOT NULL, sold_on DATE NOT NULL, note VARCHAR(80));
WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000) INSERT INTO region SELECT n, 'region ' || n FROM s;
WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000) INSERT INTO product SELECT n, 'product ' || n FROM s;
"""

SERIES = "WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}) "
ROWS = {
    "customer": """SELECT {key} AS {key_name}, printf('C%012d', n) AS customer_no, 'Customer number ' || n AS name,
        n % 1000 + 1 AS region_id, date('2000-01-01', (n % 9000) || ' days') AS since FROM s""",
    "sale": """SELECT {key} AS {key_name}, {parent} AS {parent_name}, {product} + 1 AS product_id, n % 1000 + 1 AS region_id,
        n % 90 + 1 AS quantity, n % 1000000 / 100.0 AS amount, date('2010-01-01', (n % 5000) || ' days') AS sold_on,
        CASE WHEN n % 3 = 0 THEN 'note of sale ' || n END AS note FROM s""",
}

PIPELINE = """version: 1
name: bench
target: {{ url: "sqlite:fresh.db" }}
safeguards: {{ conversion_mode: off }}
load: {{ foreign_keys: {foreign_keys} }}
output: runs
tables:
  customer:
    source: {{ path: customer.csv }}
    legacy_key: [customer_ref]
    key: {{ column: customer_id }}
  sale:
    source: {{ path: sale.csv }}
    legacy_key: [sale_ref]
    key: {{ column: sale_id }}
    relationships:
      - {{ column: customer_id, from: [customer_ref], to: customer }}
"""

READY = """
ATTACH '{folder}/ready.db' AS ready;
PRAGMA foreign_keys = {foreign_keys};
BEGIN IMMEDIATE;
INSERT INTO customer SELECT * FROM ready.customer;
INSERT INTO sale SELECT * FROM ready.sale;
COMMIT;
"""

STAGE = """
CREATE TABLE customer (customer_ref TEXT, customer_no TEXT, name TEXT, region_id INTEGER, since TEXT);
CREATE TABLE sale (sale_ref TEXT, customer_ref TEXT, product_id INTEGER, region_id INTEGER, quantity INTEGER, amount NUMERIC, sold_on TEXT, note TEXT);
"""

# What a careful person writes by hand. Staged rows are numbered as the files have them, by rowid; a CSV's empty field is no NULL to `.import`.
# SQLite casts nothing, so the script looks at types and dates itself; what fails is refused by the CHECK of `failed`.
SCRIPT = """
ATTACH '{folder}/stage.db' AS stage;
PRAGMA foreign_keys = ON;
CREATE INDEX stage.customer_by_ref ON customer (customer_ref);
CREATE TABLE IF NOT EXISTS map_customer (customer_id INTEGER PRIMARY KEY, legacy TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS map_sale (sale_id INTEGER PRIMARY KEY, legacy TEXT NOT NULL UNIQUE);
CREATE TEMP TABLE failed (what TEXT CHECK (what IS NULL));
BEGIN IMMEDIATE;
INSERT INTO failed SELECT 'customer_ref twice' WHERE EXISTS (SELECT 1 FROM stage.customer GROUP BY customer_ref HAVING count(*) > 1);
INSERT INTO failed SELECT 'customer_no twice' WHERE EXISTS (SELECT 1 FROM stage.customer GROUP BY customer_no HAVING count(*) > 1);
INSERT INTO failed SELECT 'sale_ref twice' WHERE EXISTS (SELECT 1 FROM stage.sale GROUP BY sale_ref HAVING count(*) > 1);
INSERT INTO failed SELECT 'customer_no there' WHERE EXISTS (SELECT 1 FROM stage.customer s JOIN main.customer p USING (customer_no));
INSERT INTO failed SELECT 'customer mapped' WHERE EXISTS (SELECT 1 FROM stage.customer s JOIN map_customer m ON m.legacy = s.customer_ref);
INSERT INTO failed SELECT 'sale mapped' WHERE EXISTS (SELECT 1 FROM stage.sale s JOIN map_sale m ON m.legacy = s.sale_ref);
INSERT INTO failed SELECT 'customer' WHERE EXISTS (SELECT 1 FROM stage.customer WHERE customer_ref = '' OR customer_no = '' OR name = ''
    OR length(customer_no) > 20 OR length(name) > 60 OR typeof(region_id) <> 'integer' OR since IS NOT date(since));
INSERT INTO failed SELECT 'sale' WHERE EXISTS (SELECT 1 FROM stage.sale WHERE sale_ref = '' OR typeof(quantity) <> 'integer' OR quantity <= 0
    OR typeof(amount) NOT IN ('integer', 'real') OR amount <> round(amount, 2) OR abs(amount) >= 1e10
    OR sold_on IS NOT date(sold_on) OR length(note) > 80);
INSERT INTO failed SELECT 'region' WHERE EXISTS (SELECT 1 FROM stage.customer s LEFT JOIN region r USING (region_id) WHERE r.region_id IS NULL);
INSERT INTO failed SELECT 'region' WHERE EXISTS (SELECT 1 FROM stage.sale s LEFT JOIN region r USING (region_id) WHERE r.region_id IS NULL);
INSERT INTO failed SELECT 'product' WHERE EXISTS (SELECT 1 FROM stage.sale s LEFT JOIN product r USING (product_id) WHERE r.product_id IS NULL);
INSERT INTO failed SELECT 'customer of sale' WHERE EXISTS (SELECT 1 FROM stage.sale s
    LEFT JOIN stage.customer c USING (customer_ref) WHERE c.rowid IS NULL);
CREATE TEMP TABLE first AS SELECT (SELECT coalesce(max(customer_id), 0) FROM main.customer) AS c, (SELECT coalesce(max(sale_id), 0) FROM main.sale) AS s;
INSERT INTO map_customer SELECT (SELECT c FROM first) + rowid, customer_ref FROM stage.customer ORDER BY rowid;
INSERT INTO main.customer SELECT (SELECT c FROM first) + rowid, customer_no, name, region_id, since FROM stage.customer ORDER BY rowid;
INSERT INTO map_sale SELECT (SELECT s FROM first) + rowid, sale_ref FROM stage.sale ORDER BY rowid;
INSERT INTO main.sale SELECT (SELECT s FROM first) + s.rowid, m.customer_id, s.product_id, s.region_id, s.quantity, s.amount, s.sold_on, nullif(s.note, '')
    FROM stage.sale s CROSS JOIN map_customer m ON m.legacy = s.customer_ref ORDER BY s.rowid;
INSERT INTO failed SELECT 'other customers in production' WHERE (SELECT count(*) FROM main.customer WHERE customer_id > (SELECT c FROM first))
    <> (SELECT count(*) FROM stage.customer);
INSERT INTO failed SELECT 'other sales in production' WHERE (SELECT count(*) || ' ' || total(amount) FROM main.sale WHERE sale_id > (SELECT s FROM first))
    <> (SELECT count(*) || ' ' || total(amount) FROM stage.sale);
COMMIT;
"""


def rows(options, table, first, last, keyed, parent):
    key, key_name = ("n", f"{table}_id") if keyed else (f"'{table[0].upper()}' || n", f"{table}_ref")
    parent_name = "customer_id" if keyed else "customer_ref"
    return SERIES.format(first=first, last=last) + ROWS[table].format(key=key, key_name=key_name, parent=parent, parent_name=parent_name,
        product=measure.referred(20000, options, "(n + 1)"))


def make(options, new, old, folder):
    """The production file, the ready rows and the delta's files; none of it is synced while it is made."""
    with sqlite3.connect(folder / "production.db", isolation_level=None) as production:
        production.executescript(SCRATCH.format("") + f"BEGIN; {PRODUCTION}")
        parent = f"{measure.referred(old['customer'], options)} + 1"
        for table, count in old.items():
            production.execute(f"INSERT INTO {table} {rows(options, table, 1, count, True, parent)}")
        production.execute("COMMIT")
    with sqlite3.connect(folder / "ready.db", isolation_level=None) as ready:
        ready.executescript(SCRATCH.format(""))
        for table, count in new.items():
            first, last = old[table] + 1, old[table] + count
            number = f"({measure.referred(new['customer'], options)} + {old['customer'] + 1})"
            ready.execute(f"CREATE TABLE {table} AS {rows(options, table, first, last, True, number)}")
            found = ready.execute(rows(options, table, first, last, False, f"'C' || {number}"))
            with open(folder / f"{table}.csv", "w", newline="", buffering=1 << 20) as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(column[0] for column in found.description)
                writer.writerows(found)
    production.close(), ready.close()
    for name in ["triggers", "set_based"]:
        (folder / f"{name}.yaml").write_text(PIPELINE.format(foreign_keys=name))


def stage(folder):
    """The CSV files as tables of a scratch file, by the shell where there is one."""
    if shutil.which("sqlite3"):
        imports = "".join(f".import --csv --skip 1 {folder}/{table}.csv {table}\n" for table in ROWS)
        subprocess.run(["sqlite3", "-bail", f"{folder}/stage.db"], input=SCRATCH.format("") + STAGE + imports, check=True, text=True, stdout=subprocess.DEVNULL)
        return
    with sqlite3.connect(f"{folder}/stage.db", isolation_level=None) as connection:
        connection.executescript(SCRATCH.format("") + STAGE + "BEGIN")
        for table in ROWS:
            with open(f"{folder}/{table}.csv", newline="") as file:
                lines = csv.reader(file)
                connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' for _ in next(lines))})", lines)
        connection.execute("COMMIT")
    connection.close()


def by_hand(folder, name):
    """What runs in a process of its own: seconds as JSON."""
    begun = time.monotonic()
    if name == "script":
        stage(folder)
    connection = sqlite3.connect(f"{folder}/fresh.db", isolation_level=None)
    text = SCRIPT if name == "script" else READY
    connection.executescript(PRAGMAS + text.format(folder=folder, foreign_keys=name))
    connection.close()
    print(json.dumps({"seconds": time.monotonic() - begun}))


def bench(options, new, old, name="sqlite"):
    """One cell: a delta of `new` rows of each table into a production of `old` rows, and every contender's result."""
    # Production and its copy; the delta in files, ready, in production, in staging and the key map, and what is sorted on disk.
    with measure.scratch(220 * sum(old.values()) + 1000 * sum(new.values())) as folder:
        hand = lambda what: lambda: measure.by_hand(__file__, "--by-hand", folder, what)
        run = lambda what, program=None: lambda: measure.pipeline(options, "run", folder / f"{what}.yaml", program=program)
        contenders = {BASE: hand("on"), f"{BASE}, foreign keys off": hand("off"), "SQL script": hand("script"),
                      "pipeline run, triggers": run("triggers"), "pipeline run, set_based": run("set_based")}
        if options.beside:
            contenders |= {f"pipeline run beside, {how}": run(how, options.beside) for how in ["triggers", "set_based"]}
        contenders = measure.chosen(contenders, options.only)
        shell = shutil.which("sqlite3") and subprocess.check_output(["sqlite3", "--version"], text=True).split()[0]
        about = {"machine": measure.machine(), "versions": measure.versions(options, sqlite=sqlite3.sqlite_version, shell=shell)}
        make(options, new, old, folder)
        made = {path.name for path in folder.iterdir()}

        def fresh(_):
            for path in folder.iterdir():
                if path.name not in made:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copyfile(folder / "production.db", folder / "fresh.db")
            measure.sync(folder / "fresh.db")

        def check(name):
            connection = sqlite3.connect(folder / "fresh.db")
            for table in new:
                count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                assert count == old[table] + new[table], (name, table, count)
            connection.close()
        took = measure.turns(contenders, options.rounds, fresh, check)
        cell = {"target": "SQLite", "delta": sum(new.values()), "production": sum(old.values())}
        return measure.results(options, name, cell, took, BASE, about)


def main():
    parser = measure.arguments(__doc__)
    parser.add_argument("--parents", type=measure.number, default=150_000)
    parser.add_argument("--children", type=measure.number, default=600_000)
    parser.add_argument("--factor", type=int, default=9)
    options = parser.parse_args()
    new = {"customer": options.parents, "sale": options.children}
    print(draw.tables(bench(options, new, {table: count * options.factor for table, count in new.items()})))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--by-hand"]:
        by_hand(*sys.argv[2:])
    else:
        main()
