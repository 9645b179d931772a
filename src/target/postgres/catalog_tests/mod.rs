//! The catalog of a real server, and conditions as the server and the engine evaluate them.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Schema};
use tokio_postgres::Client;

use super::catalog::{self, PgCatalog, PgTable};
use super::check::{Translation, translate};
use super::connect::{Connector, Session};
use super::copy::{CopyColumn, receive};
use super::names::Names;
use super::server::{Database, Server};
use super::types::PgType;
use crate::engine::{Engine, Limits, ident};
use crate::spec::LoadSpec;
use crate::target::logical_type::LogicalType;
use crate::target::{CatalogTable, Condition};

/// A dedicated database for a test, and a session with it.
struct Place {
    _database: Database,
    connector: Connector,
    session: Session,
}

impl std::ops::Deref for Place {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.session
    }
}

async fn database() -> Place {
    let database = Server::shared().database("");
    let connector = Connector::try_new(&database.url(), "test", Path::new(""), &LoadSpec::default()).unwrap();
    let session = connector.connect("cannot open").await.unwrap();
    session.batch_execute("RESET search_path").await.unwrap();
    Place { _database: database, connector, session }
}

async fn ugly() -> (Place, PgCatalog) {
    let client = database().await;
    client.batch_execute(include_str!("ugly.sql")).await.unwrap();
    client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY half ON app.broken (id)").await.unwrap_err();
    // The session's settings must not matter.
    client
        .batch_execute(
            "SET search_path = app, public; SET datestyle = 'German'; SET timezone = 'Asia/Tokyo';
             SET standard_conforming_strings = off; SET quote_all_identifiers = on",
        )
        .await
        .unwrap();
    let found = catalog::read(&client, &of("app"), false).await.unwrap();
    let path: String = client.query_one("SHOW search_path", &[]).await.unwrap().get(0);
    assert_eq!(path, "app, public");
    (client, found)
}

fn table<'a>(found: &'a PgCatalog, name: &str) -> (&'a CatalogTable, &'a PgTable) {
    (found.catalog.table(name).unwrap(), &found.tables[name])
}

fn uniques(table: &CatalogTable) -> Vec<(&str, String)> {
    table.uniques.iter().map(|unique| (unique.name.as_str(), unique.columns.join(","))).collect()
}

fn references(table: &CatalogTable) -> Vec<(String, &str, String)> {
    table.foreign_keys.iter().map(|key| (key.columns.join(","), key.to.as_str(), key.to_columns.join(","))).collect()
}

fn checks(table: &CatalogTable) -> BTreeMap<&str, &str> {
    table.checks.iter().map(|check| (check.name.as_str(), check.sql.as_str())).collect()
}

/// Returns the names of a target with this production schema.
fn of(schema: &str) -> Names {
    Names {
        shown: "test".into(),
        production: schema.into(),
        schemas: Vec::new(),
        staging: "staging".into(),
        namespace: String::new(),
    }
}

#[tokio::test]
async fn catalog_has_everything_that_a_schema_declares() {
    let (_client, found) = ugly().await;
    assert_eq!(
        found.catalog.names(),
        [
            r#"Other "one".country"#,
            r#"Other "one".world"#,
            "Person",
            "about_old",
            "app.event_old",
            "broken",
            "child",
            "empty",
            "event",
            "far",
            "hidden",
            "insensitive",
            "parent",
            "region",
            "sorted",
            "types"
        ]
    );
    assert!(found.catalog.names().iter().all(|name| found.tables.contains_key(*name)));

    let (person, pg) = table(&found, "Person");
    assert_eq!((pg.schema.as_str(), pg.name.as_str()), ("app", "Person"));
    assert_eq!(person.primary_key, ["Person Id"]);
    assert_eq!(
        uniques(person),
        [("email_of_region", "region,email".to_owned()), ("one_open", "boss,state".to_owned())]
    );
    let condition = Condition {
        sql: r#""closed" IS NULL AND "state" = 'A'"#.into(),
        own: "((closed IS NULL) AND (state = 'A'::text))".into(),
    };
    assert_eq!(person.uniques.iter().map(|unique| &unique.condition).collect::<Vec<_>>(), [&None, &Some(condition)]);
    assert_eq!(
        references(person),
        [
            ("boss".to_owned(), "Person", "Person Id".to_owned()),
            ("country".to_owned(), r#"Other "one".country"#, "code".to_owned()),
            ("region,district".to_owned(), "region", "id,district".to_owned()),
        ]
    );
    assert_eq!(
        checks(person),
        BTreeMap::from([
            ("known", r#""state" IN ('A', 'C')"#),
            ("loud", r#""code" = upper("code") OR octet_length("code") > character_length("code")"#),
        ])
    );
    assert_eq!(person.triggers, ["A statement", "B row"]);
    assert!(person.unsupported_constraints.is_empty());
    assert_eq!(
        judged(person),
        [
            "value(valid): valid",
            "exclude(apart): valid",
            "match_full(in_region): region, district",
            "check(loose): nick",
            "check(odd): email",
            "check(turkish): turkish",
            "unique(nick): nick",
            "unique(no_nulls): district",
            "unique(one_loud): code",
            "unique(one_lower): email",
            "unique(one_new): code",
        ]
    );
    assert!(person.column("Person Id").unwrap().has_default && person.column("state").unwrap().has_default);
    assert!(person.column("Person Id").unwrap().not_null && !person.column("state").unwrap().not_null);
    assert_eq!(pg.columns[0].sequence.as_ref().unwrap().name, "Person_Person Id_seq");
    assert!(pg.broken.is_empty() && pg.partitions.is_empty());

    assert_eq!(table(&found, "region").0.primary_key, ["district", "id"]);
    assert_eq!(
        table(&found, "region").0.unsupported_constraints,
        ["rule `copied` on INSERT: CREATE RULE copied AS ON INSERT TO app.region DO SELECT 1 AS \"?column?\";"]
    );
    let (country, pg) = table(&found, r#"Other "one".country"#);
    assert_eq!((pg.schema.as_str(), pg.name.as_str()), (r#"Other "one""#, "country"));
    assert_eq!(country.primary_key, ["code"]);
    assert_eq!(references(country), [("world".to_owned(), r#"Other "one".world"#, "id".to_owned())]);
    assert_eq!(
        table(&found, "parent").0.unsupported_constraints,
        ["table `child` inherits from it: checks exclude its rows, as constraints do"]
    );
    assert!(table(&found, "empty").0.columns.is_empty());

    let (insensitive, _) = table(&found, "insensitive");
    assert_eq!(insensitive.primary_key, ["name"]);
    assert!(insensitive.uniques.is_empty() && insensitive.checks.is_empty());
    assert_eq!(
        judged(insensitive),
        ["value(name): name", "check(insensitive_name_check): name", "unique(insensitive_pkey): name"]
    );
}

/// The constraints of a table that only the server can evaluate, with the columns that they read.
fn judged(table: &CatalogTable) -> Vec<String> {
    table.database_checks.iter().map(|check| format!("{}: {}", check.name, check.columns.join(", "))).collect()
}

#[tokio::test]
async fn a_column_has_its_type_below_its_domains_and_what_they_state() {
    let (_client, found) = ugly().await;
    let (types, pg) = table(&found, "types");
    let names: Vec<_> = types.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, pg.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>());
    assert!(!names.iter().any(|name| name.contains("dropped")));
    let known = |name: &str| {
        let at = names.iter().position(|known| *known == name).unwrap();
        (&types.columns[at], &pg.columns[at])
    };
    let numeric = |precision, scale| PgType::Numeric { precision, scale };
    let array = |of| PgType::Array(Box::new(of));
    for (name, pg_type, declared) in [
        ("id", PgType::Int8, "bigint"),
        ("a", PgType::Int2, "smallint"),
        ("b", PgType::Int4, "integer"),
        ("d", PgType::Float4, "real"),
        ("e", PgType::Float8, "double precision"),
        ("f", numeric(None, 0), "numeric"),
        ("g", numeric(Some(12), 3), "numeric(12,3)"),
        ("h", numeric(Some(3), -2), "numeric(3,-2)"),
        ("i", PgType::Bool, "boolean"),
        ("j", PgType::Text, "text"),
        ("k", PgType::Text, "character varying(7)"),
        ("m", PgType::Padded, "character(4)"),
        ("n", PgType::Padded, "bpchar"),
        ("o", PgType::Enum, "app.mood"),
        ("p", PgType::Enum, "app.\"Mixed\""),
        ("q", PgType::Json, "json"),
        ("r", PgType::Jsonb, "jsonb"),
        ("s", PgType::Uuid, "uuid"),
        ("t", PgType::Bytea, "bytea"),
        ("u", PgType::Date, "date"),
        ("v", PgType::Time, "time without time zone"),
        ("w", PgType::Timestamp, "timestamp(3) without time zone"),
        ("x", PgType::Timestamptz, "timestamp with time zone"),
        ("y", PgType::Interval, "interval"),
        ("aa", array(PgType::Int4), "integer[]"),
        ("ab", array(PgType::Text), "text[]"),
        ("ac", array(PgType::Enum), "app.mood[]"),
        ("ad", array(numeric(Some(5), 1)), "numeric(5,1)[]"),
        ("ba", PgType::Other, "inet"),
        ("bb", PgType::Other, "inet"),
        ("bd", PgType::Other, "time with time zone"),
        ("ca", PgType::Enum, "app.mood"),
        ("cb", PgType::Text, "character varying(40)"),
        ("cc", numeric(Some(10), 2), "numeric(10,2)"),
    ] {
        let (_, column) = known(name);
        assert_eq!((&column.pg_type, column.declared.as_str()), (&pg_type, declared), "{name}");
    }
    assert_eq!(known("cb").0.declared, "app.work_email");
    assert_eq!(
        ["k", "l", "m", "n", "cb", "j"].map(|name| known(name).0.max_length),
        [Some(7), None, Some(4), None, Some(40), None]
    );
    assert!(known("ca").0.not_null && known("cc").0.not_null && known("c").0.not_null && !known("cb").0.not_null);
    assert!(
        ["id", "b", "c", "cb", "cc", "db"].iter().all(|name| known(name).0.has_default) && !known("a").0.has_default
    );
    assert!(known("da").0.generated && !known("da").0.has_default && !known("c").0.generated);
    assert_eq!((&known("g").0.data_type, &known("m").0.form), (&DataType::Decimal128(12, 3), &LogicalType::Padded));
    let sequence =
        |name: &str| known(name).1.sequence.as_ref().map(|sequence| (sequence.name.as_str(), sequence.increment));
    assert_eq!(sequence("id"), Some(("types_id_seq", 1)));
    assert_eq!(sequence("a"), Some(("owned", 1)));
    assert_eq!(sequence("b"), Some(("shared", 5)));
    assert_eq!(sequence("c"), Some(("types_c_seq", 10)));
    assert_eq!(sequence("db"), None);
    let shared = known("b").1.sequence.as_ref().unwrap();
    assert_eq!(
        (shared.schema.as_str(), shared.min, shared.max, shared.cache, shared.cycle),
        ("app", 3, 30000, 7, true)
    );
    let feelings = "IN ('so so', 'it''s ok', 'bad')";
    let expected = [
        ("mood(o)", format!("\"o\" {feelings}")),
        ("Mixed(p)", "\"p\" IN ('a')".into()),
        ("mood(ca)", format!("\"ca\" {feelings}")),
        ("work_email_check(cb)", "\"cb\" LIKE '%work%'".into()),
        ("email_check(cb)", "regexp_like(\"cb\", '^[a-z]+@x\\.de$')".into()),
        ("latest(cb)", "\"cb\" <> ''".into()),
        ("long_enough(cb)", "character_length(\"cb\") > 3".into()),
        ("amount_check(cc)", "\"cc\" >= 0".into()),
        ("digits(w)", "CAST(\"w\" AS BIGINT) % 1000 = 0".into()),
    ];
    assert_eq!(checks(types), expected.iter().map(|(name, sql)| (*name, sql.as_str())).collect());
    assert_eq!(types.checks[0].reason.as_deref(), Some("it is not a value of the type `mood`: so so, it's ok, bad"));
    let values: Vec<_> = types.database_checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        values,
        [
            "value(ac)",
            "value(ad)",
            "value(ae)",
            "value(ba)",
            "value(bb)",
            "value(bc)",
            "value(bd)",
            "value(be)",
            "value(bf)",
            "value(cb)",
            "generated(da)",
        ]
    );
}

#[tokio::test]
async fn invalid_constraints_partitions_and_row_security_are_reported() {
    let (client, found) = ugly().await;
    let (broken, pg) = table(&found, "broken");
    assert_eq!(
        pg.broken,
        [
            "constraint `latest` of the domain `email` is not validated",
            "foreign key `late` is not validated",
            "CHECK constraint `later` is not validated",
            "index `half` is not valid"
        ]
    );
    assert_eq!(checks(broken)["later"], "\"code\" <> 'x'");

    let (event, pg) = table(&found, "event");
    assert_eq!(pg.partitions, ["Other \"one\".event_new", "event_new_1", "event_old"]);
    assert!(!pg.foreign && pg.broken.is_empty());
    assert_eq!(event.primary_key, ["id", "made"]);
    assert_eq!(event.triggers, ["noted", "noted_here"]);
    assert_eq!(references(event), [("person".to_owned(), "Person", "Person Id".to_owned())]);
    assert_eq!(checks(event), BTreeMap::from([("event_kind_check", "\"kind\" <> ''")]));
    assert!(event.unsupported_constraints.is_empty());
    assert_eq!(judged(event), ["check(only_here): made, kind", "unique(one_kind_here): made, kind", "partition: made"]);
    assert_eq!(
        references(table(&found, "about_old").0),
        [
            ("id,made".to_owned(), "app.event_old", "id,made".to_owned()),
            ("id,made".to_owned(), "event", "id,made".to_owned())
        ]
    );
    let (old, pg) = table(&found, "app.event_old");
    assert_eq!((old.primary_key.join(","), pg.name.as_str()), ("id,made".to_owned(), "event_old"));
    assert_eq!(references(old), [("person".to_owned(), "Person", "Person Id".to_owned())]);
    assert!(table(&found, "sorted").0.unsupported_constraints.is_empty());
    let (far, pg) = table(&found, "far");
    assert!(far.unsupported_constraints.is_empty() && pg.foreign && pg.partitions == ["far_away"]);

    // A superuser sees all rows; other users do not.
    assert!(!table(&found, "hidden").1.row_security);
    client
        .batch_execute(
            "RESET ALL; DROP ROLE IF EXISTS catalog_reader; CREATE ROLE catalog_reader; SET ROLE catalog_reader",
        )
        .await
        .unwrap();
    let theirs = catalog::read(&client, &of("app"), false).await.unwrap();
    assert!(table(&theirs, "hidden").1.row_security && !table(&theirs, "Person").1.row_security);
    assert_eq!(format!("{:?}", theirs.catalog), format!("{:?}", found.catalog));
    client
        .batch_execute("RESET ROLE; ALTER TABLE app.hidden OWNER TO catalog_reader; SET ROLE catalog_reader")
        .await
        .unwrap();
    assert!(!table(&catalog::read(&client, &of("app"), false).await.unwrap(), "hidden").1.row_security);
    client
        .batch_execute("RESET ROLE; ALTER TABLE app.hidden FORCE ROW LEVEL SECURITY; SET ROLE catalog_reader")
        .await
        .unwrap();
    assert!(table(&catalog::read(&client, &of("app"), false).await.unwrap(), "hidden").1.row_security);
    client.batch_execute("RESET ROLE; DROP OWNED BY catalog_reader; DROP ROLE catalog_reader").await.unwrap();
}

#[tokio::test]
async fn any_schema_name_is_read_as_it_is() {
    let client = database().await;
    client.batch_execute("SET standard_conforming_strings = off").await.unwrap();
    for name in ["it's", "back\\slash", "quote\"d", "ä ö", "$schema", "{wanted}", "new\n'line"] {
        let quoted = name.replace('"', "\"\"");
        client
            .batch_execute(&format!("CREATE SCHEMA \"{quoted}\"; CREATE TABLE \"{quoted}\".t (a int)"))
            .await
            .unwrap();
        assert_eq!(catalog::read(&client, &of(name), false).await.unwrap().catalog.names(), ["t"], "{name}");
    }
    // The catalog must come from one snapshot, so reading it in a started transaction fails.
    client.batch_execute("BEGIN; SELECT 1").await.unwrap();
    assert!(catalog::read(&client, &of("it's"), false).await.is_err());
    client.batch_execute("ROLLBACK").await.unwrap();
    assert!(catalog::read(&client, &of("gone"), false).await.unwrap().catalog.tables.is_empty());
}

/// Compares the engine's verdicts with the server's, for many values under each translated condition. The engine may pass more rows only if
/// a text is not ASCII, because production judges those.
#[tokio::test]
async fn the_engine_judges_as_the_server_does() {
    let client = database().await;
    client.batch_execute(include_str!("verdicts.sql")).await.unwrap();
    let found = catalog::read(&client, &of("public"), false).await.unwrap();
    let (table, own) = table(&found, "sample");
    client.batch_execute("SET search_path = pg_catalog").await.unwrap();
    let conditions = client
        .query(
            "SELECT pg_get_expr(conbin, conrelid), ARRAY(SELECT attname::text FROM pg_attribute
                 WHERE attrelid = conrelid AND attnum = ANY (conkey) ORDER BY attnum) FROM pg_constraint
             WHERE conrelid = 'public.sample'::regclass AND contype = 'c' ORDER BY conname",
            &[],
        )
        .await
        .unwrap();
    let engine = Engine::try_new(Limits::default()).unwrap();
    let (mut passed_on, mut verdicts, mut wrong) = (0, 0, Vec::new());
    for row in conditions {
        let (printed, columns): (String, Vec<String>) = (row.get(0), row.get(1));
        let Some(Translation { sql, of_ascii }) = translate(&printed, &table.columns, None) else { continue };
        passed_on += 1;
        let from: Vec<_> = columns
            .iter()
            .map(|name| format!("(SELECT DISTINCT {0} FROM public.sample) AS {name}_", ident(name)))
            .collect();
        let mut wires = vec![CopyColumn::new("verdict", DataType::Boolean, PgType::Bool)];
        for name in &columns {
            let pg = own.columns.iter().find(|column| column.name == *name).unwrap().pg_type.clone();
            wires.push(CopyColumn::new(name, pg.arrow(), pg));
        }
        let ascii: Vec<_> = columns
            .iter()
            .map(|name| format!("coalesce(octet_length({0}::text) = length({0}::text), true)", ident(name)))
            .collect();
        wires.push(CopyColumn::new("ascii", DataType::Boolean, PgType::Bool));
        let values: Vec<_> = columns.iter().map(|name| ident(name)).collect();
        let query =
            format!("SELECT ({printed}), {}, {} FROM {}", values.join(", "), ascii.join(" AND "), from.join(", "));
        let schema = Schema::new(table.columns.iter().map(crate::target::CatalogColumn::field).collect::<Vec<_>>());
        let expression = match engine.expression(&sql, &schema) {
            Ok(expression) => expression,
            Err(mistake) => {
                wrong.push(format!("{printed}: the engine does not take {sql}: {mistake:?}"));
                continue;
            }
        };
        for batch in receive(&client.connector, &client, &query, &wires).await.unwrap() {
            let whole: Vec<_> = schema
                .fields()
                .iter()
                .map(|field| {
                    let there = batch.column_by_name(field.name()).cloned();
                    there.unwrap_or_else(|| arrow::array::new_null_array(field.data_type(), batch.num_rows()))
                })
                .collect();
            let rows = arrow::array::RecordBatch::try_new(std::sync::Arc::new(schema.clone()), whole).unwrap();
            let judged = expression.evaluate(&rows).unwrap();
            let (judged, server) = (judged.as_boolean(), batch.column(0).as_boolean());
            let ascii = batch.column_by_name("ascii").unwrap().as_boolean();
            for row in 0..batch.num_rows() {
                verdicts += 1;
                let passes = |of: &arrow::array::BooleanArray| arrow::array::Array::is_null(of, row) || of.value(row);
                if passes(judged) != passes(server) && (!of_ascii || ascii.value(row) || !passes(judged)) {
                    let values: Vec<_> = (1..=columns.len())
                        .map(|column| crate::engine::display_value(batch.column(column).as_ref(), row))
                        .collect();
                    wrong.push(format!("{printed} of {values:?}: the server {}, {sql}", passes(server)));
                }
            }
        }
    }
    wrong.truncate(40);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed_on > 100 && verdicts > 10_000, "{passed_on} conditions, {verdicts} verdicts");
}
