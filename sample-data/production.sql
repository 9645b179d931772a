-- The production database of Stadtwerke Lindtal, a small electricity and water company (all names are invented).
--
-- Runs on SQLite 3.38 or newer in one go; every row follows from its number, so the database is the same each time.
-- Dates are text as 2024-11-30, timestamps as 2024-11-30 06:15:00.

-- Customers, private (P) and business (B). Keys from 100001.
CREATE TABLE person (
    person_id    INTEGER PRIMARY KEY,
    person_type  CHAR(1) NOT NULL,
    last_name    VARCHAR(40) NOT NULL,           -- the company's name for business customers
    first_name   VARCHAR(40),
    birth_date   DATE,
    email        VARCHAR(80) UNIQUE,
    phone        VARCHAR(24),
    language     CHAR(2) NOT NULL DEFAULT 'de',
    note         VARCHAR(200),
    CONSTRAINT person_type_known CHECK (person_type IN ('P', 'B')),
    CONSTRAINT person_private_has_first_name CHECK (person_type = 'B' OR first_name IS NOT NULL)
);

-- What is billed. A collective account has sub-accounts that point to it. Keys from 200001.
CREATE TABLE account (
    account_id         INTEGER PRIMARY KEY,
    account_no         VARCHAR(12) NOT NULL UNIQUE,
    person_id          INTEGER NOT NULL REFERENCES person (person_id),
    parent_account_id  INTEGER REFERENCES account (account_id),
    mail_name          VARCHAR(60),              -- the name on the bill
    status             VARCHAR(8) NOT NULL,
    bill_cycle         CHAR(3) NOT NULL,         -- M01 to M12: the month of the yearly bill
    opened_on          DATE NOT NULL,
    closed_on          DATE,
    credit_limit       DECIMAL(10,2),
    CONSTRAINT account_status_known CHECK (status IN ('ACTIVE', 'CLOSED', 'BLOCKED')),
    CONSTRAINT account_closed_after_opened CHECK (closed_on IS NULL OR closed_on >= opened_on)
);

-- Where electricity or water is delivered. Keys from 300001.
CREATE TABLE service_point (
    service_point_id  INTEGER PRIMARY KEY,
    point_no          CHAR(33) NOT NULL UNIQUE,  -- DE, network operator (6), postal code (5), number (20)
    division          VARCHAR(12) NOT NULL,
    street            VARCHAR(40) NOT NULL,
    house_no          VARCHAR(8) NOT NULL,
    postal_code       CHAR(5) NOT NULL,
    town              VARCHAR(30) NOT NULL,
    meter_location    VARCHAR(20),
    latitude          DECIMAL(9,6),
    longitude         DECIMAL(9,6),
    connected_on      DATE,
    CONSTRAINT service_point_division_known CHECK (division IN ('ELECTRICITY', 'WATER'))
);

-- The price list. Its codes are natural keys.
CREATE TABLE rate (
    rate_code      VARCHAR(8) PRIMARY KEY NOT NULL,
    description    VARCHAR(40) NOT NULL,
    division       VARCHAR(12) NOT NULL,
    unit           VARCHAR(4) NOT NULL,
    offered_from   DATE NOT NULL,
    offered_until  DATE,
    CONSTRAINT rate_unit_known CHECK (unit IN ('kWh', 'm3'))
);

-- What an account gets at a service point, and from when to when. Keys from 400001.
CREATE TABLE service_agreement (
    agreement_id      INTEGER PRIMARY KEY,
    account_id        INTEGER NOT NULL REFERENCES account (account_id),
    service_point_id  INTEGER NOT NULL REFERENCES service_point (service_point_id),
    start_date        DATE NOT NULL,
    end_date          DATE,
    status            VARCHAR(8) NOT NULL,
    deposit           DECIMAL(8,2),
    annual_usage      INTEGER,                   -- expected, in the unit of the rate
    CONSTRAINT agreement_status_known CHECK (status IN ('PENDING', 'ACTIVE', 'ENDED')),
    CONSTRAINT agreement_ends_after_start CHECK (end_date IS NULL OR end_date >= start_date),
    CONSTRAINT agreement_usage_not_negative CHECK (annual_usage >= 0)
);

-- The rates of an agreement, one after the other. The key is the agreement's key and a number.
CREATE TABLE agreement_rate (
    agreement_id  INTEGER NOT NULL REFERENCES service_agreement (agreement_id),
    seq_no        INTEGER NOT NULL,
    rate_code     VARCHAR(8) NOT NULL REFERENCES rate (rate_code),
    valid_from    DATE NOT NULL,
    price         DECIMAL(10,5) NOT NULL,        -- per unit
    base_price    DECIMAL(8,2),                  -- per month
    PRIMARY KEY (agreement_id, seq_no),
    CONSTRAINT agreement_rate_price_not_negative CHECK (price >= 0)
);

-- The devices, in the field or in stock (no service point). Keys from M000010001.
CREATE TABLE meter (
    meter_id          CHAR(10) PRIMARY KEY NOT NULL,
    badge_no          VARCHAR(14) NOT NULL UNIQUE,  -- medium (1), maker (3), block (2), number (8)
    service_point_id  INTEGER REFERENCES service_point (service_point_id),
    manufacturer      VARCHAR(20) NOT NULL,
    serial_no         VARCHAR(12) NOT NULL,
    digits            INTEGER NOT NULL,
    installed_on      DATE,
    calibrated_until  DATE,
    CONSTRAINT meter_digits_plausible CHECK (digits BETWEEN 4 AND 9)
);

-- The readings. Keys from 5000001, handed out by AUTOINCREMENT.
CREATE TABLE meter_read (
    read_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    meter_id     CHAR(10) NOT NULL REFERENCES meter (meter_id),
    read_at      TIMESTAMP NOT NULL,
    reading      DECIMAL(12,3) NOT NULL,
    quality      VARCHAR(9) NOT NULL,
    read_source  VARCHAR(8),
    UNIQUE (meter_id, read_at),
    CONSTRAINT meter_read_reading_not_negative CHECK (reading >= 0),
    CONSTRAINT meter_read_quality_known CHECK (quality IN ('MEASURED', 'ESTIMATED', 'CUSTOMER'))
);

CREATE INDEX account_person ON account (person_id);
CREATE INDEX account_parent ON account (parent_account_id);
CREATE INDEX service_agreement_account ON service_agreement (account_id);
CREATE INDEX service_agreement_point ON service_agreement (service_point_id);
CREATE INDEX agreement_rate_rate ON agreement_rate (rate_code);
CREATE INDEX meter_point ON meter (service_point_id);

-- 2,400 persons; every eighth is a business.
INSERT INTO person
WITH RECURSIVE
    number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 2400),
    last(i, last_name) AS (SELECT key, value FROM json_each('["Albrecht","Arndt","Bachmann","Behrens","Böhm","Brandt",
        "Busch","Dietrich","Ebert","Engel","Fiedler","Förster","Franke","Friedrich","Geißler","Göbel","Graf","Günther",
        "Haase","Hartmann","Heinrich","Herrmann","Horn","Jäger","Jahn","Kaiser","Keller","Köhler","Kraft","Krämer",
        "Kuhn","Lange","Lehmann","Lorenz","Ludwig","Möller","Nagel","Nowak","Öhme","Pfeiffer","Pohl","Richter","Sauer",
        "Schäfer","Schreiber","Schröder","Seidel","Sommer","Thiele","Ullrich","Vogt","Wagner","Weiß"]')),
    first(i, first_name) AS (SELECT key, value FROM json_each('["Anna","Bernd","Birgit","Christian","Claudia","Daniel",
        "Dieter","Elke","Emma","Fatma","Felix","Frank","Gabriele","Günter","Hannah","Heike","Ines","Jan","Jörg","Jürgen",
        "Karin","Katrin","Lena","Lukas","Marek","Martina","Monika","Nico","Olga","Paul","Petra","Renate","Rolf","Sabine",
        "Stefan","Susanne","Thomas","Ursula","Uwe","Yvonne","Zoë"]')),
    named(n, business, last_name, first_name) AS (
        SELECT n, n % 8 = 0, last_name, first_name
        FROM number
        JOIN last ON last.i = n % 53
        JOIN first ON first.i = (n * 17 + n / 53) % 41)
SELECT
    100000 + n,
    iif(business, 'B', 'P'),
    CASE WHEN NOT business THEN last_name
         WHEN n % 5 = 0 THEN 'Bäckerei ' || last_name
         WHEN n % 5 = 1 THEN 'Autohaus ' || last_name || ' GmbH'
         WHEN n % 5 = 2 THEN last_name || ' Hausverwaltung GmbH'
         WHEN n % 5 = 3 THEN 'Gasthof ' || last_name
         ELSE 'Tischlerei ' || last_name END,
    iif(business, NULL, first_name),
    iif(business, NULL, date('1938-03-02', '+' || (n * 7919 % 22500) || ' days')),
    iif(n % 3 = 0, NULL,
        lower(replace(replace(replace(replace(replace(replace(iif(business, 'info', first_name) || '.' || last_name,
            'ä', 'ae'), 'ö', 'oe'), 'Ö', 'Oe'), 'ü', 'ue'), 'ß', 'ss'), 'ë', 'e')) || n || '@post.example'),
    iif(n % 4 = 1, NULL, printf('+49 30 23125 %03d', n * 37 % 1000)),
    CASE n % 40 WHEN 7 THEN 'en' WHEN 19 THEN 'pl' WHEN 33 THEN 'cs' ELSE 'de' END,
    CASE n % 90 WHEN 11 THEN 'Wants bills by post' WHEN 47 THEN 'Dog in the yard, ring twice' END
FROM named;

-- 2,640 accounts: one a person, and 240 sub-accounts of business customers under their collective account.
INSERT INTO account
WITH RECURSIVE
    number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 2640),
    owned(n, owner, parent) AS (
        SELECT n, iif(n <= 2400, n, 8 * (n - 2400)), iif(n <= 2400, NULL, 8 * (n - 2400)) FROM number),
    dated(n, parent, person_id, opened_on, closed) AS (
        SELECT n, parent, person_id,
            max(date('1998-01-01', '+' || (n * 3571 % 8400) || ' days'), coalesce(date(birth_date, '+19 years'), '')),
            parent IS NULL AND n % 10 = 3
        FROM owned
        JOIN person ON person_id = 100000 + owner)
SELECT
    200000 + n,
    printf('70-%07d', n * 3 + 1200),
    person_id,
    200000 + parent,
    CASE WHEN parent IS NOT NULL THEN last_name || ', Objekt ' || (n - 2400)
         WHEN person_type = 'B' THEN last_name
         ELSE first_name || ' ' || last_name END,
    CASE WHEN closed THEN 'CLOSED' WHEN n % 130 = 5 THEN 'BLOCKED' ELSE 'ACTIVE' END,
    printf('M%02d', n % 12 + 1),
    opened_on,
    iif(closed, date('2022-01-10', '+' || (n * 41 % 900) || ' days'), NULL),
    CASE WHEN person_type = 'B' THEN 2500.00 + n % 6 * 500 WHEN n % 4 = 2 THEN 250.50 END
FROM dated
JOIN person USING (person_id);

-- 2,640 addresses: all have electricity (300001 to 302640), three of five have our water as well (from 302641).
INSERT INTO service_point
WITH RECURSIVE
    number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 2640),
    town(i, town) AS (SELECT key, value FROM json_each('["Lindtal","Lindtal-Süd","Altenbrück","Mühlenau","Weißbach",
        "Hohenlind"]')),
    street(i, street) AS (SELECT key, value FROM json_each('["Am Anger","Am Mühlgraben","An der Linde","Bahnhofstraße",
        "Bergstraße","Birkenweg","Brückenstraße","Dorfstraße","Feldweg","Gartenstraße","Goethestraße","Hauptstraße",
        "Kastanienallee","Kirchplatz","Lindenstraße","Marktplatz","Mühlweg","Neue Straße","Poststraße","Ringstraße",
        "Schillerstraße","Schulstraße","Talstraße","Wiesengrund"]')),
    address(n, street, house_no, postal_code, town) AS (
        SELECT n, street,
            (1 + n / 144) || CASE n % 11 WHEN 4 THEN 'a' WHEN 9 THEN 'b' ELSE '' END,
            printf('0510%d', n % 6 + 1), town
        FROM number
        JOIN town ON town.i = n % 6
        JOIN street ON street.i = n / 6 % 24),
    point(id, n, division) AS (
        SELECT n, n, 'ELECTRICITY' FROM number
        UNION ALL
        SELECT 2640 + row_number() OVER (ORDER BY n), n, 'WATER' FROM number WHERE n % 5 < 3)
SELECT
    300000 + id,
    printf('DE000731%s%s%019d', postal_code, iif(division = 'WATER', 'W', 'E'), 4000000 + id * 7),
    division, street, house_no, postal_code, town,
    CASE (n + id) % 4 WHEN 0 THEN 'Keller' WHEN 1 THEN 'Hausanschlussraum' WHEN 2 THEN 'Treppenhaus' END,
    (51180000 + n * 6151 % 60000) / 1000000.0,
    (13420000 + n * 9311 % 90000) / 1000000.0,
    date('1979-05-01', '+' || (n * 2131 % 6800) || ' days')
FROM point
JOIN address USING (n);

INSERT INTO rate VALUES
    ('E-HOME',   'Household electricity',       'ELECTRICITY', 'kWh', '1998-01-01', NULL),
    ('E-GREEN',  'Household, wind and water',   'ELECTRICITY', 'kWh', '2015-01-01', NULL),
    ('E-HEAT',   'Heat pumps',                  'ELECTRICITY', 'kWh', '2012-07-01', NULL),
    ('E-BIZ',    'Business electricity',        'ELECTRICITY', 'kWh', '1998-01-01', NULL),
    ('E-NIGHT',  'Night storage heating',       'ELECTRICITY', 'kWh', '1998-01-01', '2019-12-31'),
    ('W-STD',    'Drinking water',              'WATER',       'm3',  '1998-01-01', NULL),
    ('W-BIZ',    'Drinking water, business',    'WATER',       'm3',  '2004-01-01', NULL),
    ('W-GARDEN', 'Garden water, no sewage fee', 'WATER',       'm3',  '2009-04-01', NULL);

-- An agreement a service point: the n-th address is the n-th account's.
INSERT INTO service_agreement
WITH
    point AS (
        SELECT service_point_id, division,
            iif(division = 'WATER',
                (service_point_id - 302641) / 3 * 5
                    + CASE (service_point_id - 302641) % 3 WHEN 0 THEN 1 WHEN 1 THEN 2 ELSE 5 END,
                service_point_id - 300000) AS n
        FROM service_point)
SELECT
    service_point_id + 100000,
    account_id,
    service_point_id,
    opened_on,
    closed_on,
    iif(closed_on IS NULL, 'ACTIVE', 'ENDED'),
    iif(n % 6 = 1, 50.00 + n % 5 * 25, NULL),
    CASE WHEN division = 'WATER' THEN 45 + n * 13 % 140
         WHEN credit_limit >= 2500 THEN 9000 + n * 29 % 41000
         ELSE 1400 + n * 37 % 3600 END
FROM point
JOIN account ON account_id = 200000 + n;

-- One rate an agreement, and a new price since 2024 for those that run.
INSERT INTO agreement_rate
WITH
    priced AS (
        SELECT agreement_id, start_date, end_date,
            CASE WHEN service_point_id > 302640 THEN iif(annual_usage > 170 AND start_date >= '2004-04-01', 'W-BIZ', 'W-STD')
                 WHEN annual_usage >= 9000 THEN 'E-BIZ'
                 WHEN start_date < '2015-01-01' THEN 'E-HOME'
                 WHEN agreement_id % 9 = 0 THEN 'E-HEAT'
                 ELSE 'E-GREEN' END AS rate_code
        FROM service_agreement),
    step(seq_no) AS (VALUES (1), (2))
SELECT
    agreement_id, seq_no, rate_code,
    iif(seq_no = 1, start_date, '2024-01-01'),
    (CASE rate_code WHEN 'W-STD' THEN 198000 WHEN 'W-BIZ' THEN 179000 WHEN 'E-BIZ' THEN 26315 WHEN 'E-HEAT' THEN 22475
                    WHEN 'E-HOME' THEN 30125 ELSE 29890 END + iif(seq_no = 1, 0, 2500)) / 100000.0,
    iif(rate_code LIKE 'W-%', 6.50, 11.90)
FROM priced
JOIN step ON seq_no = 1 OR end_date IS NULL;

-- A meter a service point, and 60 in stock.
INSERT INTO meter
WITH RECURSIVE
    number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 4284),
    device(n, point, water) AS (
        SELECT n, iif(n <= 4224, 300000 + n, NULL), n > 2640 FROM number)
SELECT
    printf('M%09d', 10000 + n),
    printf(CASE WHEN water THEN '8AQR%02d%08d' WHEN n % 3 = 0 THEN '1WTC%02d%08d' ELSE '1ELM%02d%08d' END,
        n % 7, 21000000 + n * 11),
    point,
    CASE WHEN water THEN 'Aquareg' WHEN n % 3 = 0 THEN 'Wattec' ELSE 'Elmeta' END,
    printf('%d-%06d', 2012 + n % 9, 310000 + n),
    iif(water, 5, 6),
    iif(point IS NULL, NULL, date('2013-02-01', '+' || (n * 1117 % 3100) || ' days')),
    iif(water, '2027-12-31', '2029-12-31')
FROM device;

-- Three years of readings for every meter in the field; they grow with the expected usage.
INSERT INTO meter_read
WITH
    year(y) AS (VALUES (2022), (2023), (2024)),
    used AS (
        SELECT meter_id, iif(end_date IS NULL, annual_usage, 0) AS usage,
            cast(substr(meter_id, 2) AS INTEGER) - 10000 AS n
        FROM meter
        JOIN service_agreement USING (service_point_id))
SELECT
    5000000 + row_number() OVER (ORDER BY y, n),
    meter_id,
    datetime(y || '-11-03 06:00:00', '+' || (n * 7 % 26) || ' days', '+' || (n * 53 % 720) || ' minutes'),
    (usage * (y - 2021 + n % 4) * 1000 + n * 7481 % 40000 + (y - 2021) * (n * 331 % 9000)) / 1000.0,
    CASE (n + y) % 25 WHEN 3 THEN 'ESTIMATED' WHEN 4 THEN 'CUSTOMER' WHEN 5 THEN 'CUSTOMER' ELSE 'MEASURED' END,
    CASE (n + y) % 25 WHEN 3 THEN NULL WHEN 4 THEN 'CARD' WHEN 5 THEN 'PORTAL' ELSE 'WALK' END
FROM used
JOIN year;

-- The first meters with radio were read in November 2025 already.
INSERT INTO meter_read (meter_id, read_at, reading, quality, read_source)
SELECT meter_id, printf('2025-11-%02d 06:15:00', n % 7 + 1), reading + 20 + n % 900 / 8.0, 'MEASURED', 'RADIO'
FROM (SELECT row_number() OVER (ORDER BY read_id) AS n, meter_id, reading
      FROM meter_read
      WHERE read_at >= '2024-01-01' AND read_id % 100 = 7);
