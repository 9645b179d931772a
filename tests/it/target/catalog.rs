//! What a target says of production before anything is loaded.

use arrow::datatypes::DataType;
use delta_pipeline::internals::error::Kind;
use delta_pipeline::internals::spec::{ForeignKeys, LeastPrivilege};
use delta_pipeline::internals::target::Access;

use super::live::{Live, On};
use super::rows::{load, numbers, taken, texts};

each_target!(
    async
    catalog_has_everything_that_tables_declare,
    catalog_has_the_triggers,
    own_tables_are_none_of_production,
    a_database_that_is_set_up_is_ready,
    the_setup_may_be_made_again,
    set_based_refuses_tables_with_triggers,
);

const SQL: &str = "
    CREATE TABLE person (person_id INTEGER PRIMARY KEY, email VARCHAR(80) NOT NULL UNIQUE);
    CREATE TABLE place (country CHAR(2) NOT NULL, zip VARCHAR(10) NOT NULL, name TEXT, PRIMARY KEY (country, zip));
    CREATE TABLE account (
        account_id INTEGER PRIMARY KEY, account_no VARCHAR(12) NOT NULL, person_id INTEGER NOT NULL REFERENCES person,
        country CHAR(2), zip VARCHAR(10), parent INTEGER REFERENCES account (account_id),
        status VARCHAR(8) DEFAULT 'A', balance NUMERIC(12,2), opened DATE, closed DATE,
        next_id INTEGER GENERATED ALWAYS AS (account_id + 1) STORED,
        CONSTRAINT known CHECK (status IN ('A', 'C')), CONSTRAINT in_order CHECK (closed >= opened),
        CONSTRAINT numbered UNIQUE (account_no, person_id), FOREIGN KEY (country, zip) REFERENCES place (country, zip));
    CREATE UNIQUE INDEX by_zip ON account (zip);";

const ITEM: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(20))";

async fn catalog_has_everything_that_tables_declare(on: On) {
    let catalog = Live::new(on, SQL).catalog().await;
    assert_eq!(catalog.names(), ["account", "person", "place"]);
    assert_eq!(catalog.table("place").unwrap().primary_key, ["country", "zip"]);
    let account = catalog.table("account").unwrap();
    assert_eq!(account.primary_key, ["account_id"]);
    assert_eq!(account.unsupported_constraints, [""; 0]);

    let columns = account.columns.iter();
    let columns = columns.map(|column| (column.name.as_str(), column.data_type.clone(), column.max_length));
    let text = |name, length| (name, DataType::Utf8, Some(length));
    let plain = |name, data_type| (name, data_type, None);
    let expected = [
        plain("account_id", DataType::Int64),
        text("account_no", 12),
        plain("person_id", DataType::Int64),
        text("country", 2),
        text("zip", 10),
        plain("parent", DataType::Int64),
        text("status", 8),
        plain("balance", DataType::Decimal128(12, 2)),
        plain("opened", DataType::Date32),
        plain("closed", DataType::Date32),
        plain("next_id", DataType::Int64),
    ];
    assert_eq!(columns.collect::<Vec<_>>(), expected);
    let names = |wanted: &dyn Fn(&delta_pipeline::internals::target::CatalogColumn) -> bool| {
        let found = account.columns.iter().filter(|column| wanted(column)).map(|column| column.name.as_str());
        found.collect::<Vec<_>>()
    };
    assert_eq!(names(&|column| column.not_null), ["account_id", "account_no", "person_id"]);
    assert_eq!(names(&|column| column.generated), ["next_id"]);
    assert_eq!(names(&|column| column.has_default), ["status"]);

    let mut uniques: Vec<_> = account.uniques.iter().map(|unique| unique.columns.join(", ")).collect();
    uniques.sort();
    assert_eq!(uniques, ["account_no, person_id", "zip"]);
    assert!(account.uniques.iter().all(|unique| unique.condition.is_none() && unique.ignore_case.is_empty()));
    let references = account.foreign_keys.iter();
    let references =
        references.map(|key| format!("{} -> {} ({})", key.columns.join(", "), key.to, key.to_columns.join(", ")));
    let mut references: Vec<_> = references.collect();
    references.sort();
    assert_eq!(
        references,
        ["country, zip -> place (country, zip)", "parent -> account (account_id)", "person_id -> person (person_id)"]
    );
    let checks: Vec<_> = account.checks.iter().map(|check| check.name.as_str()).collect();
    assert!(checks.contains(&"known") && checks.contains(&"in_order"), "{checks:?}");
}

/// A trigger of that name on `item`.
fn trigger(live: &Live, name: &str) {
    live.execute(&live.on.choose(
        format!("CREATE TRIGGER {name} AFTER INSERT ON item BEGIN SELECT 1; END"),
        format!(
            "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER {name} BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION {name}()"
        ),
    ));
}

async fn catalog_has_the_triggers(on: On) {
    let live = Live::new(on, ITEM);
    assert_eq!(live.catalog().await.table("item").unwrap().triggers, [""; 0]);
    trigger(&live, "noted");
    trigger(&live, "counted");
    assert_eq!(live.catalog().await.table("item").unwrap().triggers, ["counted", "noted"]);
}

async fn own_tables_are_none_of_production(on: On) {
    let live = Live::new(on, ITEM);
    let item = live.ready("item").await;
    load(live.writer().await.as_ref(), "r1", &[(&item, vec![("id", numbers([1])), ("name", texts(["a"]))])])
        .await
        .unwrap();
    assert_eq!(live.catalog().await.names(), ["item"]);
}

async fn a_database_that_is_set_up_is_ready(on: On) {
    let mut live = Live::new(on, SQL);
    live.load.foreign_keys = ForeignKeys::SetBased;
    live.safeguards.least_privilege = LeastPrivilege::Require;
    let account = live.ready("account").await;
    for access in [Access::Read, Access::Write] {
        let target = live.open(access).await.unwrap();
        let preflight = target.preflight(std::slice::from_ref(&account), access).await.unwrap();
        assert_eq!(preflight.warnings, [""; 0], "{access:?}");
        assert!(preflight.notes.iter().any(|note| note.contains("as sets")), "{:?}", preflight.notes);
    }
}

async fn the_setup_may_be_made_again(on: On) {
    let live = Live::new(on, ITEM);
    let item = live.ready("item").await;
    let part = (&item, vec![("id", numbers([1])), ("name", texts(["a"]))]);
    load(live.writer().await.as_ref(), "r1", &[part]).await.unwrap();
    live.set_up(&[&item]).await;
    let target = live.writer().await;
    target.preflight(std::slice::from_ref(&item), Access::Write).await.unwrap();
    assert_eq!(target.runs().await.unwrap().len(), 1);
    assert_eq!(
        taken(target.key_map(&item).await).await.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(),
        1
    );
    let script = target.setup_script(std::slice::from_ref(&item), None).await.unwrap();
    assert_eq!(!script.is_empty(), on == On::Postgres);
}

async fn set_based_refuses_tables_with_triggers(on: On) {
    let mut live = Live::new(on, ITEM);
    trigger(&live, "noted");
    let item = live.ready("item").await;
    let item = std::slice::from_ref(&item);
    live.reader().await.preflight(item, Access::Read).await.unwrap();
    live.load.foreign_keys = ForeignKeys::SetBased;
    let error = live.reader().await.preflight(item, Access::Read).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Pipeline, "{error}");
    assert!(error.to_string().contains("item") && error.next_step().unwrap().contains("triggers"), "{error:?}");
}

#[tokio::test]
async fn a_database_that_is_not_set_up_says_what_is_missing() {
    let live = Live::new(On::Postgres, ITEM);
    let item = live.destination("item", &["id", "name"]).await;
    let item = std::slice::from_ref(&item);
    let error = live.writer().await.preflight(item, Access::Write).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Pipeline, "{error}");
    assert!(error.to_string().contains("the control schema `delta` is missing"), "{error}");
    assert!(error.next_step().unwrap().contains("pipeline setup"), "{error:?}");
    let preflight = live.reader().await.preflight(item, Access::Read).await.unwrap();
    assert!(preflight.warnings[0].contains("the control schema `delta` is missing"), "{:?}", preflight.warnings);
    assert!(live.reader().await.runs().await.unwrap().is_empty());
    assert!(taken(live.reader().await.key_map(&item[0]).await).await.is_empty());
}

#[tokio::test]
async fn missing_role_and_unregistered_table_are_reported() {
    let live = Live::new(On::Postgres, &format!("{ITEM}; CREATE TABLE other (id INTEGER PRIMARY KEY)"));
    let item = live.ready("item").await;
    let other = live.destination("other", &["id"]).await;
    let both = [item, other];
    let error = live.writer().await.preflight(&both, Access::Write).await.unwrap_err().to_string();
    assert!(error.contains("`other` was not set up") && !error.contains("`item`"), "{error}");
    assert!(error.contains("the role `delta_loader` lacks SELECT, INSERT on TABLE \"public\".\"other\""), "{error}");
    live.execute(&format!("REVOKE delta_loader FROM {}", live.login()));
    let error = live.writer().await.preflight(&both, Access::Write).await.unwrap_err().to_string();
    assert!(error.contains(&format!("GRANT delta_loader TO {}", live.login())), "{error}");
}

#[tokio::test]
async fn excess_rights_are_reported_or_refused_as_set() {
    let mut live = Live::new(On::Postgres, ITEM);
    let item = live.ready("item").await;
    let item = std::slice::from_ref(&item);
    let may = "SELECT has_table_privilege('delta_loader', 'item', 'UPDATE, DELETE, TRUNCATE')";
    assert_eq!(live.text(may), "f");
    live.execute(&format!("GRANT DELETE ON item TO {}", live.login()));
    let preflight = live.writer().await.preflight(item, Access::Write).await.unwrap();
    assert!(preflight.warnings.iter().any(|warning| warning.contains("delete") && warning.contains("item")));
    live.safeguards.least_privilege = LeastPrivilege::Require;
    for target in [live.writer().await, live.open_as_owner(Access::Write).await.unwrap()] {
        let error = target.preflight(item, Access::Write).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}

#[tokio::test]
async fn rules_and_unchecked_references_are_refused_set_based() {
    let parts = "CREATE TABLE item (id INTEGER NOT NULL, kind INTEGER NOT NULL, owner INTEGER, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
         CREATE TABLE item_1 PARTITION OF item FOR VALUES IN (1); CREATE TABLE owner (id INTEGER PRIMARY KEY);";
    let pair = "CREATE TABLE place (a INTEGER, b INTEGER, PRIMARY KEY (a, b));";
    for (sql, what) in [
        (
            format!("{parts} ALTER TABLE item_1 ADD CONSTRAINT own FOREIGN KEY (owner) REFERENCES owner"),
            "of a partition alone: `own`",
        ),
        (format!("{parts} ALTER TABLE item ADD CONSTRAINT own FOREIGN KEY (owner) REFERENCES owner"), ""),
        (
            format!(
                "{pair} CREATE TABLE item (id INTEGER PRIMARY KEY, a INTEGER NOT NULL, b INTEGER, CONSTRAINT full_match FOREIGN KEY (a, b) REFERENCES place MATCH FULL)"
            ),
            "with MATCH FULL: `full_match`",
        ),
        (
            format!(
                "{pair} CREATE TABLE item (id INTEGER PRIMARY KEY, a INTEGER NOT NULL, b INTEGER NOT NULL, FOREIGN KEY (a, b) REFERENCES place MATCH FULL)"
            ),
            "",
        ),
        (
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(20)); CREATE TABLE other (id INTEGER);
             CREATE RULE noted AS ON INSERT TO item DO ALSO INSERT INTO other VALUES (new.id)"
                .to_owned(),
            "rules on INSERT: `noted` of `item`",
        ),
        (
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(20), CONSTRAINT late UNIQUE (name) DEFERRABLE)"
                .to_owned(),
            "deferrable constraints: `late`",
        ),
    ] {
        let mut live = Live::new(On::Postgres, &sql);
        let item = live.ready("item").await;
        let item = std::slice::from_ref(&item);
        live.reader().await.preflight(item, Access::Read).await.unwrap();
        live.load.foreign_keys = ForeignKeys::SetBased;
        let found = live.reader().await.preflight(item, Access::Read).await;
        if what.is_empty() {
            found.unwrap();
            continue;
        }
        let error = found.unwrap_err();
        assert_eq!(error.kind(), Kind::Pipeline, "{error}");
        assert!(error.to_string().contains(what) && error.next_step().unwrap().contains("triggers"), "{error:?}");
    }
}
