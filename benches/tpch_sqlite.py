#!/usr/bin/env python3
"""The slice of TPC-H of `tpch.py` into SQLite, beside a hand-written script and the insertion of ready rows.

    cargo build --release && pip install tpchgen-cli
    python3 benches/tpch_sqlite.py [--scale 1] [--orders N] [--rounds 3] [--only NAME]... [--memory-limit 512MiB]

Parts 1 to 9 of the data are production under system keys, with a mapping for each of their orders; part 10 is the delta, or its first
--orders orders. The base, 1.00, is `INSERT … SELECT` of ready, keyed rows with foreign keys on. What a contender has loaded is compared with
the ready rows.
"""

import csv, json, pathlib, shutil, sqlite3, subprocess, sys, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import draw, measure
from sqlite import BASE, PRAGMAS, SCRATCH
from tpch import COLUMNS, LINE, LISTS, NAMES, ORDER, generate

DECLARED = {table: columns.replace(" bigint", " INTEGER").replace(" integer", " INTEGER").replace(" numeric", " DECIMAL").replace(" date", " DATE")
            for table, columns in COLUMNS.items()}
KEYS = {"supplier": "s_suppkey INTEGER PRIMARY KEY", "part": "p_partkey INTEGER PRIMARY KEY", "customer": "c_custkey INTEGER PRIMARY KEY",
        "orders": "o_orderkey INTEGER PRIMARY KEY"}
REFERENCES = {"orders": ", FOREIGN KEY (o_custkey) REFERENCES customer (c_custkey)",
              "lineitem": ", PRIMARY KEY (l_orderkey, l_linenumber), FOREIGN KEY (l_orderkey) REFERENCES orders (o_orderkey), "
                          "FOREIGN KEY (l_partkey) REFERENCES part (p_partkey), FOREIGN KEY (l_suppkey) REFERENCES supplier (s_suppkey)"}


def constrained(table):
    columns = DECLARED[table]
    if table in ["orders", "lineitem"]:
        # A comma inside a type ends no column.
        columns = columns.replace(", ", " NOT NULL, ") + " NOT NULL"
    key = KEYS.get(table)
    columns = columns.replace(key.replace(" PRIMARY KEY", ""), key) if key else columns
    return f"CREATE TABLE {table} ({columns}{REFERENCES.get(table, '')});"


PIPELINE = """version: 1
name: tpch
target: {{ url: "sqlite:fresh.db" }}
safeguards: {{ conversion_mode: off }}
load: {{ foreign_keys: {foreign_keys} }}
output: runs
tables:
  orders:
    source: {{ path: orders.csv }}
    legacy_key: [o_orderkey]
    key: {{ column: o_orderkey }}
  lineitem:
    source: {{ path: lineitem.csv }}
    legacy_key: [l_orderkey, l_linenumber]
    relationships:
      - {{ column: l_orderkey, from: [l_orderkey], to: orders }}
"""

READY = """
ATTACH '{folder}/ready.db' AS ready;
PRAGMA foreign_keys = {foreign_keys};
BEGIN IMMEDIATE;
INSERT INTO orders SELECT * FROM ready.orders;
INSERT INTO lineitem SELECT * FROM ready.lineitem;
COMMIT;
"""

# What a careful person writes by hand; what fails is refused by the CHECK of `failed`.
SCRIPT = f"""
ATTACH '{{folder}}/stage.db' AS stage;
PRAGMA foreign_keys = ON;
CREATE UNIQUE INDEX stage.orders_by_key ON orders (o_orderkey);
CREATE TABLE map_lineitem (legacy TEXT PRIMARY KEY, l_orderkey INTEGER NOT NULL, l_linenumber INTEGER NOT NULL) WITHOUT ROWID;
CREATE TEMP TABLE failed (what TEXT CHECK (what IS NULL));
BEGIN IMMEDIATE;
INSERT INTO failed SELECT 'line twice' WHERE EXISTS (SELECT 1 FROM stage.lineitem GROUP BY l_orderkey, l_linenumber HAVING count(*) > 1);
INSERT INTO failed SELECT 'order mapped' WHERE EXISTS (SELECT 1 FROM stage.orders s JOIN map_orders m ON m.legacy = CAST(s.o_orderkey AS TEXT));
INSERT INTO failed SELECT 'order' WHERE EXISTS (SELECT 1 FROM stage.orders WHERE typeof(o_orderkey) <> 'integer' OR typeof(o_totalprice) NOT IN ('integer', 'real')
    OR o_orderdate IS NOT date(o_orderdate) OR length(o_comment) > 79);
INSERT INTO failed SELECT 'line' WHERE EXISTS (SELECT 1 FROM stage.lineitem WHERE typeof(l_quantity) NOT IN ('integer', 'real')
    OR typeof(l_extendedprice) NOT IN ('integer', 'real') OR l_shipdate IS NOT date(l_shipdate) OR l_commitdate IS NOT date(l_commitdate)
    OR l_receiptdate IS NOT date(l_receiptdate) OR length(l_comment) > 44);
INSERT INTO failed SELECT 'customer' WHERE EXISTS (SELECT 1 FROM stage.orders s LEFT JOIN customer c ON c.c_custkey = s.o_custkey WHERE c.c_custkey IS NULL);
INSERT INTO failed SELECT 'part' WHERE EXISTS (SELECT 1 FROM stage.lineitem s LEFT JOIN part p ON p.p_partkey = s.l_partkey WHERE p.p_partkey IS NULL);
INSERT INTO failed SELECT 'supplier' WHERE EXISTS (SELECT 1 FROM stage.lineitem s LEFT JOIN supplier p ON p.s_suppkey = s.l_suppkey WHERE p.s_suppkey IS NULL);
INSERT INTO failed SELECT 'order of a line' WHERE EXISTS (SELECT 1 FROM stage.lineitem s LEFT JOIN stage.orders o ON o.o_orderkey = s.l_orderkey WHERE o.rowid IS NULL);
CREATE TEMP TABLE first AS SELECT max(o_orderkey) AS o FROM main.orders;
INSERT INTO map_orders SELECT CAST(o_orderkey AS TEXT), (SELECT o FROM first) + rowid FROM stage.orders ORDER BY rowid;
INSERT INTO main.orders SELECT (SELECT o FROM first) + rowid, {ORDER} FROM stage.orders ORDER BY rowid;
INSERT INTO map_lineitem SELECT s.l_orderkey || '|' || s.l_linenumber, (SELECT o FROM first) + o.rowid, s.l_linenumber
    FROM stage.lineitem s CROSS JOIN stage.orders o ON o.o_orderkey = s.l_orderkey ORDER BY s.rowid;
INSERT INTO main.lineitem SELECT (SELECT o FROM first) + o.rowid, {LINE}
    FROM stage.lineitem s CROSS JOIN stage.orders o ON o.o_orderkey = s.l_orderkey ORDER BY s.rowid;
INSERT INTO failed SELECT 'other orders in production' WHERE (SELECT count(*) || ' ' || total(o_totalprice) FROM main.orders WHERE o_orderkey > (SELECT o FROM first))
    <> (SELECT count(*) || ' ' || total(o_totalprice) FROM stage.orders);
INSERT INTO failed SELECT 'other lines in production' WHERE (SELECT count(*) || ' ' || total(l_extendedprice) FROM main.lineitem WHERE l_orderkey > (SELECT o FROM first))
    <> (SELECT count(*) || ' ' || total(l_extendedprice) FROM stage.lineitem);
COMMIT;
"""


def imported(connection, table, file):
    """The rows of a CSV file as a table's rows."""
    with open(file, newline="") as opened:
        lines = csv.reader(opened)
        next(lines)
        connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' for _ in NAMES[table.split('_')[-1]])})", lines)


def make(options, folder):
    generate(options, folder)
    with sqlite3.connect(folder / "parts.db", isolation_level=None) as parts:
        tables = [f"CREATE TABLE {when}_{table} ({DECLARED[table]});" for when in ["old", "new"] for table in ["orders", "lineitem"]]
        parts.executescript(SCRATCH.format("") + "".join(tables))
        parts.execute("BEGIN")
        for when in ["old", "new"]:
            for table in ["orders", "lineitem"]:
                for file in sorted((folder / when / table).iterdir(), key=lambda file: int(file.name.split(".")[1])):
                    imported(parts, f"{when}_{table}", file)
        if options.orders:
            parts.execute("DELETE FROM new_orders WHERE rowid > ?", (options.orders,))
            parts.execute("DELETE FROM new_lineitem WHERE l_orderkey NOT IN (SELECT o_orderkey FROM new_orders)")
        parts.execute("COMMIT")
        parts.executescript("CREATE UNIQUE INDEX o ON old_orders (o_orderkey); CREATE UNIQUE INDEX n ON new_orders (o_orderkey)")
        for table in ["orders", "lineitem"]:
            with open(folder / f"{table}.csv", "w", newline="", buffering=1 << 20) as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(NAMES[table])
                writer.writerows(parts.execute(f"SELECT * FROM new_{table} ORDER BY rowid"))
        with open(folder / "mappings.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["legacy_key", "o_orderkey"])
            writer.writerows(parts.execute("SELECT o_orderkey, rowid FROM old_orders ORDER BY rowid"))
    with sqlite3.connect(folder / "production.db", isolation_level=None) as production:
        production.executescript(SCRATCH.format("") + "".join(constrained(table) for table in COLUMNS) + f"ATTACH '{folder}/parts.db' AS parts;")
        production.execute("BEGIN")
        for table in ["customer", "part", "supplier"]:
            imported(production, table, folder / "old" / f"{table}.csv")
        production.execute("COMMIT")
        production.executescript(f"""
            BEGIN;
            INSERT INTO main.orders SELECT rowid, {ORDER} FROM parts.old_orders ORDER BY rowid;
            INSERT INTO main.lineitem SELECT o.rowid, {LINE} FROM parts.old_lineitem s CROSS JOIN parts.old_orders o ON o.o_orderkey = s.l_orderkey ORDER BY s.rowid;
            CREATE TABLE map_orders (legacy TEXT PRIMARY KEY, o_orderkey INTEGER NOT NULL) WITHOUT ROWID;
            INSERT INTO map_orders SELECT CAST(o_orderkey AS TEXT), rowid FROM parts.old_orders ORDER BY 1;
            COMMIT""")
        old = production.execute("SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM lineitem)").fetchone()[0]
    with sqlite3.connect(folder / "ready.db", isolation_level=None) as ready:
        ready.executescript(SCRATCH.format("") + f"ATTACH '{folder}/parts.db' AS parts;" + "".join(f"CREATE TABLE {table} ({DECLARED[table]});" for table in ["orders", "lineitem"]))
        first = sqlite3.connect(folder / "production.db").execute("SELECT max(o_orderkey) FROM orders").fetchone()[0]
        ready.execute(f"INSERT INTO main.orders SELECT {first} + rowid, {ORDER} FROM parts.new_orders ORDER BY rowid")
        ready.execute(f"INSERT INTO main.lineitem SELECT {first} + o.rowid, {LINE} FROM parts.new_lineitem s CROSS JOIN parts.new_orders o ON o.o_orderkey = s.l_orderkey ORDER BY s.rowid")
        new = ready.execute("SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM lineitem)").fetchone()[0]
    parts.close(), production.close(), ready.close()
    (folder / "parts.db").unlink()
    for how in ["triggers", "set_based"]:
        (folder / f"{how}.yaml").write_text(PIPELINE.format(foreign_keys=how))
    # The key map becomes part of production.
    (folder / "production.db").rename(folder / "fresh.db")
    done = subprocess.run([options.pipeline, "keymap", "import", folder / "triggers.yaml", "--table", "orders", folder / "mappings.csv"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"keymap import: {done.stderr}")
    (folder / "fresh.db").rename(folder / "production.db")
    return old, new, first


def stage(folder):
    """The CSV files as tables of a scratch file."""
    tables = "".join(f"CREATE TABLE {table} ({DECLARED[table]});" for table in ["orders", "lineitem"])
    if shutil.which("sqlite3"):
        imports = "".join(f".import --csv --skip 1 {folder}/{table}.csv {table}\n" for table in ["orders", "lineitem"])
        subprocess.run(["sqlite3", "-bail", f"{folder}/stage.db"], input=SCRATCH.format("") + tables + "\n" + imports, check=True, text=True, stdout=subprocess.DEVNULL)
        return
    with sqlite3.connect(f"{folder}/stage.db", isolation_level=None) as connection:
        connection.executescript(SCRATCH.format("") + tables + "BEGIN")
        for table in ["orders", "lineitem"]:
            imported(connection, table, f"{folder}/{table}.csv")
        connection.execute("COMMIT")
    connection.close()


def by_hand(folder, name):
    """What runs in a process of its own: seconds as JSON."""
    begun = time.monotonic()
    if name == "script":
        stage(folder)
    connection = sqlite3.connect(f"{folder}/fresh.db", isolation_level=None)
    connection.executescript(PRAGMAS + (SCRIPT if name == "script" else READY).format(folder=folder, foreign_keys=name))
    connection.close()
    print(json.dumps({"seconds": time.monotonic() - begun}))


def bench(options):
    with measure.scratch(int(9e9 * options.scale)) as folder:
        folder = pathlib.Path(folder)
        hand = lambda what: lambda: measure.by_hand(__file__, "--by-hand", folder, what)
        run = lambda what, program=None: lambda: measure.pipeline(options, "run", folder / f"{what}.yaml", program=program)
        contenders = {BASE: hand("on"), f"{BASE}, foreign keys off": hand("off"), "SQL script": hand("script"),
                      "pipeline run, triggers": run("triggers"), "pipeline run, set_based": run("set_based")}
        if options.beside:
            contenders |= {f"pipeline run beside, {how}": run(how, options.beside) for how in ["triggers", "set_based"]}
        contenders = measure.chosen(contenders, options.only)
        shell = shutil.which("sqlite3") and subprocess.check_output(["sqlite3", "--version"], text=True).split()[0]
        about = {"machine": measure.machine(), "versions": measure.versions(options, sqlite=sqlite3.sqlite_version, shell=shell)}
        old, new, first = make(options, folder)
        made = {path.name for path in folder.iterdir()}

        def fresh(_):
            for path in folder.iterdir():
                if path.name not in made:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copyfile(folder / "production.db", folder / "fresh.db")
            measure.sync(folder / "fresh.db")

        def check(name):
            connection = sqlite3.connect(folder / "fresh.db")
            connection.execute(f"ATTACH '{folder}/ready.db' AS ready")
            for table, key in [("orders", "o_orderkey"), ("lineitem", "l_orderkey")]:
                loaded = f"SELECT * FROM main.{table} WHERE {key} > {first}"
                count = connection.execute(f"SELECT (SELECT count(*) FROM ({loaded})), (SELECT count(*) FROM ready.{table}), "
                                           f"(SELECT count(*) FROM ({loaded} EXCEPT SELECT * FROM ready.{table}))").fetchone()
                assert count[0] == count[1] and count[2] == 0, (name, table, count)
            connection.close()
        took = measure.turns(contenders, options.rounds, fresh, check)
        return measure.results(options, "tpch", {"target": "SQLite", "delta": new, "production": old}, took, BASE, about)


def main():
    parser = measure.arguments(__doc__)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--orders", type=measure.number)
    if not shutil.which("tpchgen-cli"):
        sys.exit("needs `pip install tpchgen-cli`")
    print(draw.tables(bench(parser.parse_args())))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--by-hand"]:
        by_hand(*sys.argv[2:])
    else:
        main()
