#!/usr/bin/env python3
"""A large delta of two related tables, the same for the same arguments, in the forms that the benches read.

    python3 benches/generate.py FOLDER [--rows 5000000] [--parents 0.2] [--dirt 0.001] [--format csv|parquet] [--seed 1] [--files 1]

Writes customer and sale files (`--parents` is the share of customers among all rows, the rest are their sales) and `counts.json`:
how often each kind of dirt was planted, and so how many violations each check must find. Needs nothing but Python; Parquet needs
DuckDB from PyPI.
"""

import argparse, json, pathlib, random

STATUS = ("ACTIVE", "CLOSED", "PAUSED")
CUSTOMER = "customer_ref,customer_no,name,email,status,since,credit"
SALE = "sale_ref,receipt_no,customer_ref,product,quantity,amount,sold_on,note"

# What can be wrong with a row, one thing a dirty row. Each second row is clean: a dirty one may be a copy of the row before it.
CUSTOMER_DIRT = ("name", "email", "status", "since", "credit", "customer_no", "customer_ref")
SALE_DIRT = ("product", "quantity", "amount", "sold_on", "note", "receipt_no", "sale_ref", "orphan")

# 12 months of 28 days from 2000 to 2023: every one is a date.
DAYS = [f"{year}-{month:02}-{day:02}" for year in range(2000, 2024) for month in range(1, 13) for day in range(1, 29)]


def customers(first, count, dirt, rng, planted):
    """Lines of customers number `first` to `first + count - 1`."""
    draw, bits, days = rng.random, rng.getrandbits, len(DAYS)
    for n in range(first, first + count):
        b = bits(60)
        ref, no, name, mail = f"C{n}", f"{(n * 7919) % 1000000007:010}", f"Customer number {n}", f"c{n}@example.org"
        status, since, credit = STATUS[b % 3], DAYS[(b >> 2) % days], f"{(b >> 20) % 1000000 / 100:.2f}"
        if n % 2 == 0 and draw() < 2 * dirt:
            what = CUSTOMER_DIRT[(b >> 44) % len(CUSTOMER_DIRT)]
            planted[what] = planted.get(what, 0) + 1
            if what == "name": name = ""
            elif what == "email": mail = f"c{n} at example.org"
            elif what == "status": status = "UNKNOWN"
            elif what == "since": since = since[:8] + "31" if since[5:7] == "02" else since[:5] + "13-01"
            elif what == "credit": credit = "-" + credit if credit != "0.00" else "-1.00"
            elif what == "customer_no": no = f"{((n - 1) * 7919) % 1000000007:010}"
            else: ref = f"C{n - 1}"
        yield f"{ref},{no},{name},{mail},{status},{since},{credit}\n"


def sales(first, count, parents, dirt, rng, planted):
    """Lines of sales number `first` to `first + count - 1` of customers 1 to `parents`."""
    draw, bits, days = rng.random, rng.getrandbits, len(DAYS)
    for n in range(first, first + count):
        b = bits(64)
        ref, no, parent, product = f"S{n}", f"R-{(n * 104729) % 10000000019:011}", f"C{(b >> 30) % parents + 1}", f"P{b % 20000:05}"
        quantity, amount, sold = str((b >> 16) % 90 + 1), f"{(b >> 24) % 1000000 / 100 + 1:.2f}", DAYS[(b >> 8) % days]
        note = f"note of sale {n}" if b % 3 == 0 else ""
        if n % 2 == 0 and draw() < 2 * dirt:
            what = SALE_DIRT[(b >> 48) % len(SALE_DIRT)]
            planted[what] = planted.get(what, 0) + 1
            if what == "product": product = ""
            elif what == "quantity": quantity = "1001"
            elif what == "amount": amount = "-" + amount
            elif what == "sold_on": sold = sold[:5] + "13-01"
            elif what == "note": note = f"note of sale {n} which is longer than the eighty characters that production keeps of one"
            elif what == "receipt_no": no = f"R-{((n - 1) * 104729) % 10000000019:011}"
            elif what == "sale_ref": ref = f"S{n - 1}"
            else: parent = f"X{n}"
        yield f"{ref},{no},{parent},{product},{quantity},{amount},{sold},{note}\n"


def write(folder, name, header, lines, count, files):
    for number in range(files):
        with open(folder / (f"{name}.csv" if files == 1 else f"{name}-{number + 1}.csv"), "w", buffering=1 << 20) as file:
            file.write(header + "\n")
            left = count * (number + 1) // files - count * number // files
            while left > 0:
                part = [next(lines) for _ in range(min(left, 10000))]
                file.writelines(part)
                left -= len(part)


def make(folder, rows, parents=0.2, dirt=0.001, format="csv", seed=1, files=1):
    """Writes the delta and gives what was planted. Rows of `customer` come first."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    of_customer = max(2, int(rows * parents))
    of_sale = rows - of_customer
    planted = {}
    write(folder, "customer", CUSTOMER, customers(1, of_customer, dirt, random.Random(seed), planted), of_customer, files)
    write(folder, "sale", SALE, sales(1, of_sale, of_customer, dirt, random.Random(seed + 1), planted), of_sale, files)
    told = {"rows": {"customer": of_customer, "sale": of_sale}, "planted": planted}
    if format == "parquet":
        import duckdb
        # Dates stay text, or there could be none among them that are no dates.
        types = {"customer": "CAST(credit AS DECIMAL(12,2)) AS credit",
                 "sale": "CAST(quantity AS INTEGER) AS quantity, CAST(amount AS DECIMAL(12,2)) AS amount"}
        for path in sorted(folder.glob("*.csv")):
            typed, to = types[path.stem.split("-")[0]], path.with_suffix(".parquet")
            with duckdb.connect() as connection:
                connection.execute("SET preserve_insertion_order = true")
                connection.execute(f"COPY (SELECT * REPLACE ({typed}) FROM read_csv('{path}', all_varchar = true, header = true)) TO '{to}' (FORMAT parquet)")
            path.unlink()
    (folder / "counts.json").write_text(json.dumps(told, indent=1) + "\n")
    return told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--parents", type=float, default=0.2)
    parser.add_argument("--dirt", type=float, default=0.001)
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(make(**vars(options)), indent=1))


if __name__ == "__main__":
    main()
