-- Values of many kinds, and conditions on them.
CREATE TYPE mood AS ENUM ('ok', 'sad');
CREATE TABLE sample (
    n int, s smallint, b bigint, price numeric(10, 2), num numeric, f float8, r real, t text, v varchar(8), c char(4),
    icu text COLLATE "de-x-icu", bl boolean, d date, ts timestamp, tz timestamptz, tm time, m mood
);
INSERT INTO sample (n) VALUES (NULL), (-10), (-5), (-1), (0), (1), (2), (3), (5), (7), (9), (10), (99999);
INSERT INTO sample (s) VALUES (-1), (0), (1), (2), (3);
INSERT INTO sample (b) VALUES (-5), (-2), (0), (1), (2), (6), (99999999999), (9223372036854775807), (-9223372036854775808);
INSERT INTO sample (price) VALUES (-1.5), (-1.51), (-1), (0), (0.01), (1), (2), (2.5), (99.49), (99.5), (100), (1000), (1000.01), (99999999.99);
INSERT INTO sample (num) VALUES (-1), (-0.99999999999999999999), (0), (0.00000000000000000001), (1.5), (1e30), (12345678901234567890.123456789);
INSERT INTO sample (f) VALUES ('-0'), (0), (0.5), (0.49999999999999994), (1), (2), (-1), ('NaN'), ('Infinity'), ('-Infinity'), (1e-300), (0.1);
INSERT INTO sample (r) VALUES ('-0'), (0), (0.5), (0.49999997), (0.1), (-1), ('NaN'), (1e-30);
INSERT INTO sample (t) VALUES (''), (' '), ('a'), ('A'), ('b''c'), ('x'), ('ab'), ('abc'), ('ABC12'), ('AB1'), ('AB12'), ('ä'), ('Ä'), ('ß'),
    ('STRAßE'), ('straße'), (' a '), ('a '), ('a\b'), (E'a\nb'), ('DE123'), ('AT1'), ('a%'), ('a.c'), (E'a\tb'), ('12345'), (E'12345\n'), ('١٢٣٤٥'),
    ('K'), ('k'), ('xay'), ('a&&b'), ('a-b'), ('a_b'), ('𝒳'), ('a@x.de'), ('ok'), (E'\u00a0'), ('éa'), ('ſ'), ('ı'), ('i'), ('I');
INSERT INTO sample (v) SELECT left(t, 8) FROM sample WHERE t IS NOT NULL;
INSERT INTO sample (icu) SELECT t FROM sample WHERE t IS NOT NULL;
INSERT INTO sample (c) SELECT left(t, 4) FROM sample WHERE t IS NOT NULL;
INSERT INTO sample (bl) VALUES (true), (false);
INSERT INTO sample (d) VALUES ('1899-12-31'), ('1900-01-01'), ('2000-01-01'), ('2000-01-02'), ('2100-12-31'), ('2101-01-01'), ('9999-12-31'), ('0001-01-01');
INSERT INTO sample (ts) VALUES ('2000-01-01'), ('1999-12-31 23:59:59.999999'), ('2000-01-01 00:00:00.000001'), ('9999-12-31 23:59:59'), ('0001-01-01');
INSERT INTO sample (tz) VALUES ('2000-01-01 00:00+00'), ('1999-12-31 23:59:59.999999+00'), ('2000-01-01 00:00+01'), ('9999-12-31 23:59:59+00');
INSERT INTO sample (tm) VALUES ('00:00'), ('12:29:59.999999'), ('12:30'), ('23:59:59.999999');
INSERT INTO sample (m) VALUES ('ok'), ('sad');
SET timezone = UTC;
DO $$
DECLARE condition text; number int := 100;
BEGIN
    FOREACH condition IN ARRAY ARRAY[
        'n > 0', 'n BETWEEN -5 AND 9', 'n IN (1, 2, 3)', 'n NOT IN (1, 2)', 's IN (1, 2)', 'b > 5', 'b IN (1, -2)', 'b <> 99999999999', 'b > 1.5',
        'price >= 0', 'price < 99.5', 'price BETWEEN -1.5 AND 100', 'price > n', 'price IN (1, 2.5)', 'price NOT IN (1, 2.5)', 'price > 1e3',
        'num <> -1', 'num > 0', 'num < 1.5', 'num > price', 'num < b',
        'f > 0', 'f >= 0', 'f = 0', 'f >= 0.5', 'f IN (1, 2)', 'f NOT IN (0, 2)', 'f < 1', 'f > n', 'f <> 1', 'f IS DISTINCT FROM 0', 'f < r', 'f = r', 'r > 0', 'r < 0.5', 'r = 0', 'r >= 0.1', 'r < n',
        't IN (''a'', ''b''''c'')', 'v IN (''a'', ''x'')', 'c IN (''a'', ''x'')', 'c = ''a''', 'c <> ''''', 'c::text = ''a ''', 'c::text = t', 'v = t', 'c::text = v', 't NOT IN (''a'', ''x'')',
        't LIKE ''a%''', 't LIKE ''_''', 'v NOT LIKE ''_b%''', 't LIKE ''%a%b''', 't LIKE ''a.c''', 'c::text LIKE ''a_''', 't ILIKE ''A%''', 't ILIKE ''%k''', 't NOT ILIKE ''_i%''', 't LIKE ''''', 't LIKE ''%b''',
        't ~ ''^[A-Z]{2}[0-9]+$''', 't ~ ''^(DE|AT)[0-9]{1,3}$''', 't ~ ''^.$''', 't ~ ''^a.b$''', 't !~ ''x''', 't ~ ''[^a-z]''', 't ~ ''^[a-z0-9._%+-]+@x\.de$''',
        't ~ ''^\d{5}$''', 't ~ ''\s''', 't ~ ''^\w+$''', 't ~ ''\W''', 't ~ ''^[[:alpha:]]+$''', 't ~* ''^k$''', 't ~* ''^[a-c]+$''', 't !~* ''i|b''', 't ~ ''a&&b''', 't ~ ''^[&-]''', 't ~ ''^a|b$''', 't ~ ''^[[:upper:]]''', 'icu ~ ''^[[:upper:]]''', 'icu ~ ''^\d+$''',
        'length(t) = 3', 'char_length(v) <= 2', 'length(c) > 1', 'length(trim(t)) > 0', 'trim(t) = t', 'ltrim(t) = t', 'trim(trailing from t) = t', 'btrim(v) <> ''a''',
        'upper(v) = v', 'lower(t) = ''k''', 'upper(icu) = icu', 'lower(icu) = icu', 'lower(t) = lower(v)', 'NOT (upper(icu) = icu)',
        'coalesce(t, '''') <> ''''', 'coalesce(n, 0) > 0', 'coalesce(v, ''x'') = ''x''', 'coalesce(price, 0) > 0.5', 'coalesce(d, ''2000-01-01'') > ''2000-01-01''', 'coalesce(c, ''a'') = ''a''',
        'bl', 'NOT bl', 'bl = true', 'bl IS TRUE', 'bl IS NOT FALSE', 'bl IS UNKNOWN', 'bl OR n > 5', 'bl AND n > 5', '(n IS NULL) = (t IS NULL)', '(n IS NULL) <> (b IS NULL)', 'num_nonnulls(n, b, bl) = 1', 'num_nulls(n, m) < 2',
        'n IS NOT NULL OR b IS NULL AND bl IS NULL', 'n IS DISTINCT FROM 5', 't IS NOT DISTINCT FROM v', 'v IS DISTINCT FROM ''x''', '(n = 5) IS TRUE', '(n = 5) IS NOT TRUE', '(n < 5) = (b < 5)', 'NOT (n = 1 OR n = 2)',
        'd > ''2000-01-01''', 'd BETWEEN ''1900-01-01'' AND ''2100-12-31''', 'd IN (''2000-01-01'', ''9999-12-31'')', 'ts > ''2000-01-01''', 'ts <= ''2000-01-01 00:00:00.000001''', 'tz > ''2000-01-01''', 'tz = ''2000-01-01 00:00+01''', 'tm < ''12:30''', 'tm <> ''00:00''',
        'm = ''ok''', 'm IN (''ok'', ''sad'')', 'm <> ''sad''', 'm::text = ''ok''', 'm::text LIKE ''s%''',
        'n::bigint + b / 1 > 5', 's + n > 5 OR n > 100', 'n - 1 < s * 2', 'price * 2 > 5', 'price * price > 1', 'price - 1 > 0.5', 'price + price * 2 <> 3', '-s < 2', 's * (s - 1) >= 0', 's - (s - 1) = 1', 'f > b'
    ] LOOP
        number := number + 1;
        EXECUTE format('ALTER TABLE sample ADD CONSTRAINT c%s CHECK (%s) NOT VALID', number, condition);
    END LOOP;
END $$;
