#!/usr/bin/env python3
"""Makes the delta files of the samples, byte for byte the same each time.

    pip install pyarrow==26.0.1     # another version writes the same rows, but its own name into the Parquet file
    python3 make.py

Needs nothing else than production.sql next to it. Writes customer/, meter-reads/, account-key-map.csv, dirt.csv and the
tables between the markers of README.md. The files are shipped: this needs to run only after a change of the samples.

Every row is made good first, from its number alone. Then the faults are planted: a row gets at most one, and each is noted
together with the check that finds it, so that dirt.csv is the complete list of what must not go through.
"""

import csv
import gzip
import io
import json
import sqlite3
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
DIRT = []   # one entry a planted fault, in the order of the files
COUNTS = []  # (pipeline, table, file, rows)


class Row(dict):
    """A source row: its fields, and the fault planted in it, if any."""

    fault = None   # (check, column, value, outcome, remark)
    broken = None  # text → text: breaks the row's text after it has been written


def plant(row, check, column, value=None, outcome="rejected", remark="", broken=None, **fields):
    """Changes `fields` of a good row and notes which check must find it."""
    assert row.fault is None, row
    row.update(fields)
    if value is None and fields:
        value = fields[column] if column in fields else next(iter(fields.values()))
    row.fault = (check, column, "NULL" if value is None else str(value), outcome, remark)
    row.broken = broken
    return row


def note(pipeline, table, file, line, row):
    """Lists the fault of a row that has just been written at `line` of `file`."""
    if row.fault:
        check, column, value, outcome, remark = row.fault
        DIRT.append(dict(pipeline=pipeline, table=table, file=file, line=line, check=check, column=column,
                         outcome=outcome, value=value, remark=remark))


def pick(number, salt, size):
    """A number from 0 to size - 1 that looks random and is not."""
    mixed = (number * 2654435761 + salt * 2246822519) & 0xFFFFFFFF
    mixed ^= mixed >> 15
    mixed = (mixed * 2246822519) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 13)) * size) >> 32


def day(start, number):
    return date.fromisoformat(start) + timedelta(days=number)


def german(value):
    return value.strftime("%d.%m.%Y") if value else None


# ---------------------------------------------------------------------------------------------------- writers


def as_csv(pipeline, table, file, columns, rows, delimiter=",", newline="\n", encoding="utf-8", bom=False):
    """The bytes of a CSV file; notes the line on which each faulty row begins."""
    def quoted(value):
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if any(c in text for c in (delimiter, '"', "\n")) else text

    data = bytearray(b"\xef\xbb\xbf" if bom else b"")
    data += (delimiter.join(columns) + newline).encode(encoding)
    line = 2
    for row in rows:
        record = delimiter.join(quoted(row.get(column)) for column in columns) + newline
        if isinstance(row.broken, bytes):
            record = record.encode(encoding).replace(b"\x01", row.broken)
        else:
            record = (row.broken(record) if row.broken else record).encode(encoding)
        note(pipeline, table, file, line, row)
        data += record
        line += record.count(b"\n")
    COUNTS.append((pipeline, table, file, len(rows)))
    return bytes(data)


def write(file, data):
    path = HERE / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


# ---------------------------------------------------------------------------------------------------- customers

LAST = """Adler Bartsch Bäumler Conrad Döring Eckert Fröhlich Gärtner Grünwald Hübner Irmscher Jänicke Kühn Lindner Mählmann
Neubert Oßwald Petzold Quandt Rößler Schütze Straßburger Tänzer Uhlig Voigtländer Wünsche Yildiz Zöllner Burkhardt Dörfler
Hänsel Kretzschmar Löffler Mühlbach Preuß Süß Trübner Wießner""".split()
FIRST = """Achim Antje Björn Carola Detlef Doreen Enrico Frieda Gerd Grit Hartmut Ingrid Jörn Kerstin Käthe Lothar Maik Mandy
Norbert Odette Philipp Ramona René Sören Silke Tilo Ulrike Volker Wiebke Xenia""".split()
TRADES = ["Fleischerei {}", "{} Elektro GmbH", "Landhandel {}", "{} & Söhne KG", "Friseursalon {}"]
ASCII = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "é": "e"})


def make_persons():
    rows = []
    for i in range(500):
        business = i % 12 == 5
        last, first = LAST[pick(i, 1, len(LAST))], FIRST[(i * 7 + i // 30) % len(FIRST)]
        address = f"{'kontakt' if business else first}.{last}{i}@mail.example".translate(ASCII)
        rows.append(Row(
            person_ref=f"P-{4600 + i * 3:06d}",
            title="Firma" if business else ["Frau", "Herr", None][pick(i, 2, 5) % 3],
            name=TRADES[i % len(TRADES)].format(last) if business else last + ("  " if i % 61 == 7 else ""),
            first_name=None if business else first,
            birth_date=None if business or i % 19 == 4 else german(day("1936-01-15", pick(i, 3, 25000))),
            email=None if i % 4 == 1 else address if i % 7 else address.capitalize(),
            phone=None if i % 3 == 2 else f"+49 30 23125 {pick(i, 4, 1000):03d}",
            language="EN" if i % 70 == 9 else "PL" if i % 90 == 31 else "CS" if i % 90 == 62 else "DE",
            note=None,
        ))
    # Good data that has to come through as it is: line breaks, delimiters and quotes in a field, characters of Windows-1252.
    rows[12]["note"] = "Wohnt im Hinterhaus.\nSchlüssel beim Hausmeister."
    rows[40]["note"] = "Zahlt bar; Quittung nötig"
    rows[77]["note"] = 'Nennt sich "Kalle"'
    rows[118]["note"] = "Guthaben 12,50 € – ausgezahlt"
    rows[301]["note"] = "1. Etage links\n\nKlingel defekt\nbitte anrufen"
    return rows


def billed(person):
    """The name on a person's bill."""
    return " ".join(filter(None, [person["first_name"], person["name"].strip()]))


def make_accounts(persons, free):
    """One account each for the persons that `free` numbers, and sub-accounts of some businesses."""
    rows = []
    for j, i in enumerate(free):
        person = persons[i]
        opened = day("1999-02-01", pick(i, 10, 9500))
        closed = opened + timedelta(days=150 + pick(i, 11, 4000)) if j % 11 == 6 else None
        if closed and closed > date(2025, 6, 30):
            closed = date(2025, 6, 30)
        rows.append(Row(
            account_ref=f"A-{88001 + j}", account_no=f"71-{3000 + j * 4:07d}", person_ref=person["person_ref"],
            parent_ref=None, mail_name=billed(person),
            status="closed" if closed else "Active" if j % 9 == 0 else "active", bill_month=pick(i, 12, 12) + 1,
            opened_on=german(opened), closed_on=german(closed),
            credit_limit=None if j % 3 else f"{200 + pick(i, 13, 40) * 50}.{['00', '50', '5'][j % 3]}",
        ))
    businesses = [j for j, i in enumerate(free) if i % 12 == 5 and rows[j]["closed_on"] is None]
    for k in range(37):
        parent = rows[businesses[k % len(businesses)]]
        rows.append(Row(
            account_ref=f"A-{88801 + k}", account_no=f"71-{9000 + k * 2:07d}", person_ref=parent["person_ref"],
            parent_ref=parent["account_ref"], mail_name=f"{parent['mail_name']}, Haus {k % 5 + 1}", status="active",
            bill_month=parent["bill_month"], opened_on=parent["opened_on"], closed_on=None, credit_limit=None,
        ))
    rows[30]["mail_name"] = "Eigentümergemeinschaft\nLindenhof 3"
    rows[95]["mail_name"] = 'Jänicke, Kerstin "Blumenstübchen"'
    return rows


def make_points():
    towns = [("05121", "Oberlind"), ("05122", "Unterlind"), ("05123", "Krähenbach")]
    streets = ["Am Wehr", "Dorfstraße", "Eichenweg", "Gänsemarkt", "Hofstraße", "Lindaer Straße", "Mühlenweg", "Zur Höhe"]
    rows = []
    for k in range(560):
        address, water = (k, False) if k < 400 else ((k - 400) * 2, True)
        code, town = towns[address % 3]
        rows.append(Row(
            point_ref=f"SP-{30001 + k}", point_no=f"DE000845{code}{'W' if water else 'E'}{7000000 + k * 13:019d}",
            division="Water" if water else "Electricity", street=streets[address // 3 % len(streets)],
            house_no=f"{address // 24 + 1}{'a' if address % 13 == 6 else ''}", postal_code=code, town=town,
            meter_location=["Keller", "Treppenhaus", "Scheune", None][pick(k, 20, 4)],
            latitude=Decimal(51260000 + pick(address, 21, 20000)).scaleb(-6),
            longitude=Decimal(13530000 + pick(address, 22, 30000)).scaleb(-6),
            connected_on=day("1985-03-01", pick(address, 23, 12000)) if k % 17 else None,
            surveyed_at=datetime(2025, 9, 1 + address % 28, 8 + address % 9, address % 60),
        ))
    return rows


def make_agreements(accounts, points, live, ended):
    """An agreement that runs for each pair of `live`, and one that is over for each of `ended` (with its dates)."""
    rows = []
    for number, (a, p, start, end) in enumerate(live + ended):
        account, point = accounts[a], points[p]
        deposit = None if number % 4 else [75, 50.5, "100.00", 120.25][number // 4 % 4]
        rows.append(Row(
            agreement_ref=f"SA-{51001 + number}", account_ref=account["account_ref"], point_ref=point["point_ref"],
            start_date=start.isoformat(), end_date=end.isoformat() if end else None,
            status="ended" if end else "active", deposit=deposit,
            annual_usage=40 + pick(p, 31, 110) if point["division"] == "Water" else 1300 + pick(p, 31, 3900),
            scan_id=f"{pick(number, 32, 1 << 30):08x}",
        ))
    return rows


def opened_on(account):
    return datetime.strptime(account["opened_on"], "%d.%m.%Y").date()


def tenancies(accounts, points, open_accounts, good_accounts, good_points):
    """Who is at which point: today's account (one an address), and a former one at every ninth point."""
    sub_first = sorted(open_accounts, key=lambda j: accounts[j]["parent_ref"] is None)
    at, live, ended = {}, [], []
    for n, p in enumerate(good_points):
        address = (points[p]["town"], points[p]["street"], points[p]["house_no"])
        a = at.setdefault(address, sub_first[len(at) % len(sub_first)])
        live.append((a, p, opened_on(accounts[a]), None))
        if n % 9 == 0:
            until = live[-1][2] - timedelta(days=1 + pick(p, 70, 20))
            for step in range(len(good_accounts)):
                former = good_accounts[(n * 3 + step) % len(good_accounts)]
                closed = accounts[former]["closed_on"]
                if closed:
                    closed = datetime.strptime(closed, "%d.%m.%Y").date()
                since = max(opened_on(accounts[former]), until - timedelta(days=200 + pick(p, 71, 700)))
                if former != a and until - since > timedelta(days=90) and (closed is None or closed >= until):
                    ended.append((former, p, since, until))
                    break
    return live, ended


def make_rates(agreements, points, chosen):
    """Two rates for every fourth of the agreements that `chosen` numbers, one for the others."""
    water = {point["point_ref"]: point["division"] == "Water" for point in points}
    rows = []
    for number in chosen:
        agreement = agreements[number]
        is_water = water.get(agreement["point_ref"], False)
        since = agreement["start_date"]
        code = ("W-STD" if is_water else ["E-HOME", "E-GREEN", "E-HEAT"][pick(number, 40, 3)] if since >= "2015"
                else "E-NIGHT" if number % 9 == 0 else "E-HOME")
        prices = {"W-STD": 198000, "E-HOME": 31250, "E-GREEN": 30990, "E-HEAT": 23475, "E-NIGHT": 19900}
        starts = [since]
        if number % 4 == 0 and agreement["end_date"] is None:
            starts.append("2025-01-01" if since < "2024-06-01" else "2025-09-01")
        for seq_no, start in enumerate(starts, 1):
            if seq_no == 2 and code == "E-NIGHT":
                code = "E-HEAT"
            rows.append(Row(
                agreement_ref=agreement["agreement_ref"], seq_no=seq_no, rate_code=code, valid_from=start,
                price=f"{Decimal(prices[code] + (seq_no - 1) * 1250).scaleb(-5)}".replace(".", ","),
                base_price="6,50" if is_water else "11,90",
            ))
    return rows


def make_meters(points, fitted):
    rows = []
    for k in range(300):
        point = points[fitted[k]] if k < 275 else None
        water = point is not None and point["division"] == "Water"
        medium, code, maker = (8, "AQR", "Aquareg") if water else [(1, "ELM", "Elmeta"), (1, "WTC", "Wattec")][k % 2]
        rows.append(Row(
            device_ref=f"D-{7001 + k}", badge_no=f"{medium}{code}{k % 5 + 10:02d}{46000000 + k * 17:08d}",
            manufacturer=maker, serial_no=f"{2014 + k % 8}-{72000 + k:06d}", digits=5 if water else 6,
            installed_on=day("2014-04-01", pick(k, 50, 3800)).isoformat() if point else None,
            calibrated_until="2028-12-31" if k % 2 else "2030-12-31",
            point_ref=point["point_ref"] if point else "-", shelf=None if point else f"R{k % 4 + 1}",
        ))
    return rows


def customer(production):
    persons = make_persons()
    points = make_points()

    # persons ------------------------------------------------------------------------------------
    plant(persons[23], "cast(birth_date)", "birth_date", birth_date="31.02.1968", remark="no such day")
    plant(persons[58], "not_null(last_name)", "last_name", name=None, title="Frau", first_name="Grit")
    plant(persons[91], "length(last_name)", "last_name", name="Freifrau von Hohenlind und zu Krähenbach-Unterlind",
          title="Frau", first_name="Antje", remark="50 characters, 40 fit")
    plant(persons[140], "accepted_values(language)", "language", language="XX")
    plant(persons[168], "unique(email)", "email", email="Familie.Wuensche@mail.example",
          remark="once in lower case, person-2 has it as well")
    plant(persons[199], "parse", "", value="6 of 9 fields", remark="a row that was cut off",
          broken=lambda text: ";".join(text.rstrip("\n").split(";")[:6]) + "\n")
    plant(persons[222], "legacy_key", "person_ref", value=persons[222]["person_ref"], remark="in both files")
    plant(persons[305], "unique(email)", "email", email="familie.wuensche@mail.example", remark="person-1 has it as well")
    plant(persons[330], "unique(email)", "email", email="stefan.bachmann2@post.example", remark="in production already")
    plant(persons[352], "check(person_private_has_first_name)", "first_name", first_name=None, title="Herr",
          remark="a private person")
    plant(persons[388], "parse", "", value="11 of 9 fields", remark="semicolons in a field without quotes",
          note="Zahler; Mieter; Nachbar", broken=lambda text: text.replace('"', ""))
    plant(persons[401], "parse", "", value="NUL in note", remark="text with a NUL character", note="Altsystem\0gesperrt")
    known = production.execute("SELECT last_name, first_name, birth_date FROM person WHERE person_id = 100017").fetchone()
    plant(persons[430], "person_not_known_yet", "", value=" ".join(known), outcome="warned", title="Herr",
          name=known[0], first_name=known[1], birth_date=german(date.fromisoformat(known[2])),
          remark="name and birth date of a customer in production")
    plant(persons[461], "legacy_key", "person_ref", person_ref=persons[222]["person_ref"], remark="in both files")

    # accounts: the persons above have none, except where the fault is meant to travel down
    free = [i for i, row in enumerate(persons) if row.fault is None or row.fault[3] == "warned"][:483]
    accounts = make_accounts(persons, free)
    subs = len(free)  # the sub-accounts begin here
    # a sub-account that comes before its collective account
    accounts[subs], accounts[2] = accounts[2], accounts[subs]

    plant(accounts[44], "parent_rejected(person_id)", "person_id", person_ref=persons[58]["person_ref"], mail_name="Grit N.",
          remark="the person has no name")
    plant(accounts[51], "cast(opened_on)", "opened_on", opened_on="31.11.2023", closed_on=None, status="active",
          remark="no such day")
    plant(accounts[66], "parent_rejected(person_id)", "person_id", person_ref=persons[23]["person_ref"],
          mail_name=billed(persons[23]), remark="the person's birth date is none")
    plant(accounts[83], "cast(credit_limit)", "credit_limit", credit_limit="unlimited")
    plant(accounts[107], "not_null(account_no)", "account_no", account_no=None)
    plant(accounts[131], "length(account_no)", "account_no", account_no="71-0003524-99-1", remark="15 characters, 12 fit")
    plant(accounts[152], "check(account_status_known)", "status", status="paused", closed_on=None)
    plant(accounts[175], "check(account_closed_after_opened)", "closed_on", value="closed 03.05.2019, opened 14.08.2021",
          opened_on="14.08.2021", closed_on="03.05.2019", status="closed")
    plant(accounts[198], "unique(account_no)", "account_no", account_no="71-0008888", remark="twice in this file")
    plant(accounts[220], "unique(account_no)", "account_no", account_no="70-0001209", remark="in production already")
    plant(accounts[241], "relationship(person_id)", "person_id", person_ref="P-999999", remark="nobody's reference")
    plant(accounts[263], "relationship(parent_account_id)", "parent_account_id", parent_ref="A-10042",
          remark="an account of the initial conversion: found once account-key-map.csv is imported")
    plant(accounts[284], "parent_rejected(person_id)", "person_id", person_ref=persons[222]["person_ref"],
          mail_name=billed(persons[222]), remark="the person is there twice")
    plant(accounts[302], "precision(credit_limit)", "credit_limit", credit_limit="12345678901.00",
          remark="11 digits before the point, 8 fit")
    plant(accounts[325], "precision(credit_limit)", "credit_limit", credit_limit="250.005", remark="3 decimals, 2 fit")
    plant(accounts[347], "parse", "", value="0xFC in mail_name", mail_name="J\x01rgen M\x01hlbach", broken=b"\xfc",
          remark="a Latin-1 ü: no valid UTF-8")
    plant(accounts[369], "opened_not_in_future", "opened_on", opened_on="01.03.2052", closed_on=None, status="active",
          outcome="warned", remark="2025, most likely")
    plant(accounts[390], "unique(account_no)", "account_no", account_no="71-0008888", remark="twice in this file")
    plant(accounts[412], "closed_account_has_date", "closed_on", status="CLOSED", closed_on=None)
    plant(accounts[subs + 5], "parent_rejected(parent_account_id)", "parent_account_id",
          parent_ref=accounts[175]["account_ref"], person_ref=accounts[175]["person_ref"],
          mail_name=f"{accounts[175]['mail_name']}, Haus 3",
          remark="the collective account was closed before it was opened")

    # service points
    plant(points[37], "not_null(street)", "street", street=None)
    plant(points[74], "length(town)", "town", town="Oberlind, Ortsteil Krähenbach-Siedlung", remark="38 characters, 30 fit")
    plant(points[111], "check(service_point_division_known)", "division", division="Gas")
    plant(points[149], "legacy_key", "point_ref", value=points[149]["point_ref"], remark="twice in this file")
    plant(points[186], "unique(point_no)", "point_no", remark="in production already",
          point_no=production.execute("SELECT point_no FROM service_point WHERE service_point_id = 300144").fetchone()[0])
    plant(points[223], "matches(point_no)", "point_no", point_no="DE-000845-05122-E-7002899")
    plant(points[260], "range(latitude)", "latitude", latitude=Decimal("15.267114"), remark="two digits swapped")
    plant(points[298], "postal_code_complete", "postal_code", postal_code="5122", remark="the leading zero is lost")
    plant(points[344], "legacy_key", "point_ref", point_ref=points[149]["point_ref"], remark="twice in this file")

    # agreements: only between good accounts and good points, except where a fault travels down
    good_accounts = [j for j, row in enumerate(accounts) if row.fault is None or row.fault[3] == "warned"]
    open_accounts = [j for j in good_accounts if accounts[j]["status"].lower() == "active"]
    good_points = [k for k, row in enumerate(points) if row.fault is None]
    live, ended = tenancies(accounts, points, open_accounts, good_accounts, good_points)
    agreements = make_agreements(accounts, points, live, ended)
    ref = lambda rows, number, column: rows[number][column]
    rejected = lambda number, **fields: plant(agreements[number], **fields)

    rejected(46, check="cast(start_date)", column="start_date", start_date="2023-00-17", remark="no such month")
    rejected(75, check="parent_rejected(account_id)", column="account_id", account_ref=ref(accounts, 44, "account_ref"),
             remark="the account's person has no name: second level")
    rejected(103, check="cast(annual_usage)", column="annual_usage", annual_usage="3500 kWh")
    rejected(137, check="not_null(start_date)", column="start_date", start_date=None, remark="the field is missing")
    rejected(171, check="not_null(account_id)", column="account_id", account_ref=None, remark="a reference that is required")
    rejected(208, check="check(agreement_ends_after_start)", column="end_date", value="ends 2019-04-30, starts 2019-05-01",
             start_date="2019-05-01", end_date="2019-04-30", status="ended")
    rejected(233, check="parse", column="", value="half a line", remark="malformed JSON",
             broken=lambda text: text[:len(text) // 2] + "\n")
    rejected(270, check="ended_with_end_date", column="", value="ENDED, NULL", status="ended", end_date=None)
    rejected(311, check="relationship(account_id)", column="account_id", account_ref="A-99999", remark="nobody's reference")
    rejected(338, check="parent_rejected(service_point_id)", column="service_point_id",
             point_ref=ref(points, 37, "point_ref"), remark="the service point has no street")
    rejected(366, check="relationship(service_point_id)", column="service_point_id", point_ref="SP-99999",
             remark="nobody's reference")
    rejected(402, check="parent_rejected(account_id)", column="account_id",
             account_ref=ref(accounts, subs + 5, "account_ref"),
             remark="the collective account of its account was rejected: second level")
    rejected(455, check="precision(deposit)", column="deposit", deposit=150.005, remark="3 decimals, 2 fit")
    rejected(512, check="check(agreement_usage_not_negative)", column="annual_usage", annual_usage=-120)

    # rates: for good agreements, and for those of which the fault travels down
    travelling = {75: "no name: third level", 338: "no street: second level", 402: "closed too early: third level"}
    chosen = [n for n, row in enumerate(agreements) if row.fault is None or n in travelling]
    rates = make_rates(agreements, points, chosen)
    where = {(row["agreement_ref"], row["seq_no"]): n for n, row in enumerate(rates)}
    for number, remark in reversed(travelling.items()):  # from the end: a row is added on the way
        first = where[agreements[number]["agreement_ref"], 1]
        reason = {75: "the person", 338: "the service point", 402: "the collective account"}[number]
        remark = f"{reason} {'has' if number != 402 else 'was'} {remark}"
        plant(rates[first], "parent_rejected(agreement_id)", "agreement_id", value=rates[first]["agreement_ref"],
              remark=remark)
        if number == 75:  # and one more
            row = Row(rates[first], seq_no=2, valid_from="2025-01-01")
            plant(row, "parent_rejected(agreement_id)", "agreement_id", value=row["agreement_ref"], remark=remark)
            rates.insert(first + 1, row)

    singles = [n for n, row in enumerate(rates) if row.fault is None and row["seq_no"] == 1
               and (row["agreement_ref"], 2) not in where]
    single = lambda n: rates[singles[n]]
    key = "{agreement_ref} {seq_no}".format_map
    plant(single(40), "cast(price)", "price", price="n/a")
    plant(single(85), "precision(price)", "price", price="0,3124567", remark="7 decimals, 5 fit")
    plant(single(120), "relationship(rate_code)", "rate_code", rate_code="E-SOLAR", remark="not in production's price list")
    plant(single(155), "check(agreement_rate_price_not_negative)", "price", price="-0,31250")
    plant(single(190), "parse", "", value="7 of 6 fields", remark="one field too many",
          broken=lambda text: text.rstrip("\n") + ";EUR\n")
    plant(single(225), "rate_still_offered", "", value="E-NIGHT, 2022-07-01", rate_code="E-NIGHT",
          valid_from="2022-07-01", remark="offered until 2019-12-31")
    plant(single(260), "relationship(agreement_id)", "agreement_id", agreement_ref="SA-99999", remark="nobody's reference")
    plant(single(295), "not_null(valid_from)", "valid_from", valid_from=None)
    twice = single(330)
    again = Row(twice, valid_from="2025-04-01", price="0,32500")
    plant(twice, "legacy_key", "agreement_ref, seq_no", value=key(twice), remark="two rows with the agreement's number 1")
    plant(again, "legacy_key", "agreement_ref, seq_no", value=key(again), remark="two rows with the agreement's number 1")
    rates.insert(singles[330] + 1, again)

    # meters
    meters = make_meters(points, good_points[::2])
    by_key = lambda column, key: production.execute(f"SELECT {column} FROM meter WHERE meter_id = ?", (key,)).fetchone()[0]
    plant(meters[33], "not_null(badge_no)", "badge_no", badge_no=None)
    plant(meters[62], "cast(digits)", "digits", digits="99999999999999999999", remark="beyond 64 bits")
    plant(meters[90], "check(meter_digits_plausible)", "digits", digits=12)
    plant(meters[121], "legacy_key", "device_ref", device_ref=meters[120]["device_ref"],
          remark="the row before has it too: the first stays")
    plant(meters[154], "unique(badge_no)", "badge_no", badge_no=meters[150]["badge_no"],
          remark="four rows above as well: the first stays")
    plant(meters[180], "unique(badge_no)", "badge_no", badge_no=by_key("badge_no", "M000010100"),
          remark="in production already")
    plant(meters[209], "parent_rejected(service_point_id)", "service_point_id", point_ref=points[37]["point_ref"],
          remark="the service point has no street")
    plant(meters[238], "relationship(service_point_id)", "service_point_id", point_ref="SP-88888",
          remark="nobody's reference")
    plant(meters[266], "unique(manufacturer, serial_no)", "manufacturer, serial_no",
          value=f"Elmeta, {by_key('serial_no', 'M000010400')}", manufacturer=by_key("manufacturer", "M000010400"),
          serial_no=by_key("serial_no", "M000010400"), remark="in production under another badge")

    # files --------------------------------------------------------------------------------------
    name, table = "customer-delta", "person"
    one = ["person_ref", "title", "name", "first_name", "birth_date", "email", "phone", "language", "note"]
    two = ["name", "first_name", "title", "language", "birth_date", "person_ref", "phone", "note", "email"]
    for file, columns, rows in [("person-1", one, persons[:260]), ("person-2", two, persons[260:])]:
        file = f"customer/{file}.csv"
        write(file, as_csv(name, table, file, columns, rows, delimiter=";", encoding="cp1252"))

    file = "customer/account.csv"
    write(file, as_csv(name, "account", file, list(accounts[0]), accounts, newline="\r\n", bom=True))

    file = "customer/service_point.parquet"
    schema = pa.schema([pa.field(column, pa.string()) for column in list(points[0])[:8]] + [
        ("latitude", pa.decimal128(9, 6)), ("longitude", pa.decimal128(9, 6)), ("connected_on", pa.date32()),
        ("surveyed_at", pa.timestamp("us"))])
    for number, row in enumerate(points, 1):
        note(name, "service_point", file, number, row)
    COUNTS.append((name, "service_point", file, len(points)))
    table = pa.Table.from_pylist([dict(row) for row in points], schema)
    pq.write_table(table, HERE / file, compression="zstd", row_group_size=150)

    file = "customer/service_agreement.ndjson.gz"
    text = []
    for line, row in enumerate(agreements, 1):
        # a field that is missing and one that is null are the same
        fields = {k: v for k, v in row.items() if v is not None or (k == "end_date" and line % 2)}
        record = json.dumps(fields, ensure_ascii=False) + "\n"
        text.append(row.broken(record) if row.broken else record)
        note(name, "service_agreement", file, line, row)
    COUNTS.append((name, "service_agreement", file, len(agreements)))
    write(file, gzip.compress("".join(text).encode(), mtime=0))

    file = "customer/agreement_rate.csv"
    write(file, as_csv(name, "agreement_rate", file, list(rates[0]), rates, delimiter=";"))
    file = "customer/meter.csv"
    write(file, as_csv(name, "meter", file, list(meters[0]), meters))


# ---------------------------------------------------------------------------------------------------- meter reads


def meter_reads(production):
    last = production.execute("""
        SELECT badge_no, reading, annual_usage, meter_id
        FROM meter
        JOIN service_agreement USING (service_point_id)
        JOIN meter_read USING (meter_id)
        WHERE end_date IS NULL AND read_at LIKE '2024-%'
          AND meter_id NOT IN (SELECT meter_id FROM meter_read WHERE read_at LIKE '2025-%')
        ORDER BY meter_id""").fetchall()
    rows = []
    for i in range(1000):
        badge_no, reading, usage, _ = last[i * 3 + pick(i, 60, 3)]
        at = datetime(2025, 11, 3, 7) + timedelta(days=i * 45 // 1000, minutes=pick(i, 61, 600))
        used = usage * (900 + pick(i, 62, 201))  # thousandths: the expected usage, ten percent more or less
        quality = "C" if i % 9 == 4 else "M"
        rows.append(Row(
            read_ref=f"R25-{i + 1:06d}", badge_no=badge_no, read_at=at.strftime("%Y-%m-%dT%H:%M:%S"),
            reading=f"{Decimal(round(reading * 1000) + used).scaleb(-3)}", quality=quality,
            read_source="portal" if quality == "C" else "walk", route=f"T{i * 8 // 1000 + 1}",
        ))
    split = next(i for i, row in enumerate(rows) if row["read_at"] >= "2025-12")

    plant(rows[57], "cast(reading)", "reading", reading="12?45.000", remark="a digit could not be read")
    plant(rows[110], "check(meter_read_reading_not_negative)", "reading", reading="-18.250")
    plant(rows[163], "relationship(meter_id)", "meter_id", badge_no="1ELM0099999999", remark="not in production")
    plant(rows[216], "precision(reading)", "reading", reading="4711.12345", remark="5 decimals, 3 fit")
    plant(rows[269], "read_in_this_period", "read_at", read_at="2015-11-15T09:12:00", remark="2025, most likely")
    plant(rows[305], "unique(meter_id, read_at)", "meter_id, read_at", remark="twice in this file",
          value="{badge_no}, {read_at}".format_map(rows[305]))
    plant(rows[312], "unique(meter_id, read_at)", "meter_id, read_at", remark="twice in this file",
          value="{badge_no}, {read_at}".format_map(rows[305]), badge_no=rows[305]["badge_no"], read_at=rows[305]["read_at"])
    early = production.execute("""
        SELECT badge_no, replace(read_at, ' ', 'T'), reading
        FROM meter
        JOIN meter_read USING (meter_id)
        WHERE read_at LIKE '2025-%' ORDER BY read_id LIMIT 3""").fetchall()
    for number, (badge_no, read_at, reading) in zip((352, 353, 354), early):
        plant(rows[number], "unique(meter_id, read_at)", "meter_id, read_at", value=f"{badge_no}, {read_at}",
              outcome="skipped", badge_no=badge_no, read_at=read_at, reading=f"{reading:.3f}", quality="M",
              read_source="radio", remark="in production already")
    plant(rows[420], "check(meter_read_quality_known)", "quality", quality="X")
    plant(rows[477], "legacy_key", "read_ref", value=rows[477]["read_ref"], remark="in both files")
    plant(rows[split + 60], "parse", "", value="4 of 7 fields", remark="a row that was cut off",
          broken=lambda text: ",".join(text.split(",")[:4]) + "\n")
    plant(rows[split + 133], "legacy_key", "read_ref", read_ref=rows[477]["read_ref"], remark="in both files")
    plant(rows[split + 170], "cast(read_at)", "read_at", read_at="2025-12-32T08:00:00", remark="no such day")
    for i in range(12):
        plant(rows[40 + i * 75], "read_is_not_estimated", "quality", quality="E", read_source=None, outcome="warned",
              remark="12 in all: more than 1%, so the report warns")

    columns = list(rows[0])
    for file, part in [("reads-2025-11.csv", rows[:split]), ("reads-2025-12.csv.zst", rows[split:])]:
        file = f"meter-reads/{file}"
        data = as_csv("meter-reads", "meter_read", file, columns, part)
        if file.endswith(".zst"):
            data = pa.compress(data, codec="zstd", asbytes=True)
        write(file, data)


# ---------------------------------------------------------------------------------------------------- lists


def key_map(production):
    text = "legacy_key,account_id\n"
    for (account_id,) in production.execute("SELECT account_id FROM account ORDER BY account_id"):
        text += f"A-{account_id - 190000},{account_id}\n"
    write("account-key-map.csv", text.encode())


def lists():
    out = io.StringIO()
    columns = ["pipeline", "table", "file", "line", "check", "column", "outcome"]
    rows = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    rows.writerows(DIRT)
    write("dirt.csv", out.getvalue().encode())

    readme = (HERE / "README.md").read_text()
    for pipeline in ("customer-delta", "meter-reads"):
        tables = list(dict.fromkeys(table for p, table, _, _ in COUNTS if p == pipeline))
        text = "| table | rows read | rejected | skipped | warned | inserted |\n|---|---:|---:|---:|---:|---:|\n"
        for table in tables:
            read = sum(n for p, t, _, n in COUNTS if (p, t) == (pipeline, table))
            outcomes = [d["outcome"] for d in DIRT if (d["pipeline"], d["table"]) == (pipeline, table)]
            rejected, skipped, warned = (outcomes.count(o) for o in ("rejected", "skipped", "warned"))
            text += f"| {table} | {read} | {rejected} | {skipped} | {warned} | {read - rejected - skipped} |\n"
        readme = between(readme, f"{pipeline} counts", text)
        text = "| file | line | column | value | check | what happens |\n|---|---:|---|---|---|---|\n"
        for d in (d for d in DIRT if d["pipeline"] == pipeline):
            happens = d["outcome"] + (f": {d['remark']}" if d["remark"] else "")
            file = d["file"].split("/")[1]
            text += f"| {file} | {d['line']} | {d['column']} | `{d['value']}` | `{d['check']}` | {happens} |\n"
        readme = between(readme, f"{pipeline} dirt", text)
    write("README.md", readme.encode())


def between(text, marker, inner):
    begin, end = f"<!-- {marker} -->\n", f"<!-- end of {marker} -->"
    head, rest = text.split(begin)
    return head + begin + "\n" + inner + "\n" + end + rest.split(end)[1]


def main():
    production = sqlite3.connect(":memory:")
    production.executescript((HERE / "production.sql").read_text())
    customer(production)
    meter_reads(production)
    key_map(production)
    lists()


if __name__ == "__main__":
    main()
