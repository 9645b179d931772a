//! Reads production's catalog from PostgreSQL: all tables of a schema at once, and those that they refer to.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::check::{Translation, translate, translate_exactly};
use super::database_checks::{self, Evaluated, TypeName};
use super::domains::{Base, Types};
use super::names::{Names, qualified};
use super::types::PgType;
use crate::engine::{ident, literal};
use crate::target::{
    Catalog, CatalogColumn, CatalogTable, CheckConstraint, Condition, DatabaseCheck, ForeignKey, UniqueConstraint,
};

/// The tables of a schema: the target-neutral catalog, and PostgreSQL-specific facts.
#[derive(Debug, Default)]
pub(super) struct PgCatalog {
    /// The tables of the schema by name, and those of other schemas that they refer to as `schema.name`.
    pub(super) catalog: Catalog,
    /// The PostgreSQL-specific facts, under the same names.
    pub(super) tables: BTreeMap<String, PgTable>,
    /// All sequences of the database.
    pub(super) sequences: Vec<Sequence>,
}

/// The PostgreSQL-specific facts about a table, beyond [`CatalogTable`].
#[derive(Debug, Default)]
pub(super) struct PgTable {
    pub(super) schema: String,
    pub(super) name: String,
    /// Its columns, in the order of the catalog's.
    pub(super) columns: Vec<PgColumn>,
    /// Why rows cannot be loaded into it: invalid indexes, constraints that are not validated.
    pub(super) broken: Vec<String>,
    /// Whether row-level security hides or rejects rows for this user.
    pub(super) row_security: bool,
    /// Whether one of its partitions is on another server.
    pub(super) foreign: bool,
    /// Whether other tables inherit from it. Their rows are read with its own unless ONLY is given.
    pub(super) inherited: bool,
    /// The rules that add to an INSERT or replace it. A COPY bypasses them.
    pub(super) rules: Vec<String>,
    /// The schemas of its columns' types, without the system's.
    pub(super) type_schemas: Vec<String>,
    /// Its partitions at all levels; those of other schemas as `schema.name`.
    pub(super) partitions: Vec<String>,
}

/// The PostgreSQL-specific facts about a column, beyond [`CatalogColumn`].
#[derive(Debug)]
pub(super) struct PgColumn {
    pub(super) name: String,
    /// Its type, below domains.
    pub(super) pg_type: PgType,
    /// The declared type, for staging tables.
    pub(super) declared: String,
    /// Its explicit collation, as SQL that follows a type; empty for the database's.
    pub(super) collation: String,
    pub(super) sequence: Option<Sequence>,
    /// The default that calls the sequence.
    pub(super) numbered: Option<Numbered>,
    /// The operator by which its values are equal. Types of extensions, such as `citext`, have one that is found only by its schema.
    pub(super) equals: String,
    /// Its default, as SQL.
    pub(super) default: Option<String>,
    /// The expression that computes it, if it is generated.
    pub(super) generated: Option<String>,
}

/// A default that calls `nextval`.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    pub(super) sql: String,
    /// Whether it belongs to an identity column, which needs no right on its sequence.
    pub(super) is_identity: bool,
}

/// A sequence and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) increment: i64,
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) cycle: bool,
    /// How many values a session reserves at a time.
    pub(super) cache: i64,
}

impl Sequence {
    /// Returns its name in pipeline files.
    fn shown(&self, names: &Names) -> String {
        if self.schema == names.production { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }
}

/// `wanted` are the tables; `every` are the tables and their partitions.
const WANTED: &str = "wanted (oid) AS (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ({schemas}) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        UNION
        SELECT k.confrelid FROM wanted w JOIN pg_constraint k ON k.conrelid = w.oid AND k.contype = 'f' AND k.conparentid = 0
    ), every (root, oid, part) AS (
        SELECT oid, oid, NULL::name FROM wanted
        UNION ALL
        SELECT e.root, c.oid, c.relname
        FROM every e JOIN pg_inherits i ON i.inhparent = e.oid JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
    )";

/// `used` are the types of the columns and their component types.
const USED: &str = "used (oid) AS (
        SELECT a.atttypid FROM wanted w JOIN pg_attribute a ON a.attrelid = w.oid WHERE a.attnum > 0 AND NOT a.attisdropped
        UNION
        SELECT x.oid FROM used u JOIN pg_type t ON t.oid = u.oid
        CROSS JOIN LATERAL (
            VALUES (t.typbasetype), (CASE WHEN t.typcategory = 'A' THEN t.typelem END)
            UNION ALL
            SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
            UNION ALL
            SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        ) x (oid)
        WHERE x.oid <> 0
    )";

/// Reads the tables of a schema from one snapshot, or with `inside` from the session's own transaction.
///
/// # Errors
/// If the query fails.
pub(super) async fn read(client: &Client, names: &Names, inside: bool) -> Result<PgCatalog, tokio_postgres::Error> {
    // This literal has the same meaning with every setting of `standard_conforming_strings`.
    let text = |schema: &String| format!("E{}", literal(&schema.replace('\\', "\\\\")));
    let schema = text(&names.production);
    let schemas: Vec<_> = std::iter::once(&names.production).chain(&names.schemas).map(text).collect();
    let sql = include_str!("catalog.sql").replace("{wanted}", WANTED).replace("{used}", USED);
    let moment = if inside { "" } else { "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;" };
    let mut answers = Vec::new();
    for message in client
        .simple_query(
            &(moment.to_owned() + &sql.replace("{schemas}", &schemas.join(", ")).replace("{schema}", &schema)),
        )
        .await?
    {
        match message {
            SimpleQueryMessage::RowDescription(_) => answers.push(Vec::new()),
            SimpleQueryMessage::Row(row) => {
                if let Some(rows) = answers.last_mut() {
                    rows.push(Row(row));
                }
            }
            _ => {}
        }
    }
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let mut reader = Reader::new(&next(), names);
    reader.children(&next());
    let (columns, sequences) = (next(), next());
    let types = next();
    reader.type_schemas(&next());
    let types = Types::new(&types, &next(), &next());
    reader.columns(&columns, &sequences, &types);
    reader.constraints(&next());
    reader.indexes(&next());
    reader.triggers(&next());
    reader.rules(&next());
    let sequences = next().iter().map(sequence).collect();
    Ok(reader.finish(sequences, names))
}

/// A row of the server's answer, read by column names.
pub(super) struct Row(SimpleQueryRow);

impl Row {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.try_get(name).ok().flatten()
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.get(name) == Some("t")
    }

    pub(super) fn number<T: FromStr + Default>(&self, name: &str) -> T {
        self.get(name).and_then(|number| number.parse().ok()).unwrap_or_default()
    }

    fn numbers(&self, name: &str) -> impl Iterator<Item = i16> {
        self.text(name).split(' ').filter_map(|number| number.parse().ok())
    }
}

/// Returns whether the engine's equality for a type agrees with production's.
fn compares_plainly(pg_type: &PgType) -> bool {
    !matches!(pg_type, PgType::Json | PgType::Jsonb | PgType::Interval | PgType::Array(_) | PgType::Other)
}

/// A table under construction.
struct TableBuilder {
    table: CatalogTable,
    pg: PgTable,
    numbers: Vec<i16>,
    /// The columns usable in translated conditions: those that the engine compares as production does.
    plain: Vec<CatalogColumn>,
    /// The partition key, and the condition that a row fits one of the partitions; None if every row does.
    partitions: Option<(String, String)>,
}

impl TableBuilder {
    fn at(&self, number: i16) -> Option<usize> {
        self.numbers.iter().position(|known| *known == number)
    }

    fn name(&self, number: i16) -> Option<String> {
        self.at(number).map(|at| self.pg.columns[at].name.clone())
    }

    /// Records a reason against loading, once.
    fn broken(&mut self, text: String) {
        if !self.pg.broken.contains(&text) {
            self.pg.broken.push(text);
        }
    }

    /// Records a reference of a partition, once for all partitions.
    fn of_partition(&mut self, key: ForeignKey) {
        let known = &mut self.table.partition_references;
        if !known.iter().any(|other| other.columns == key.columns) {
            known.push(key);
        }
    }

    fn unread(&mut self, text: String) {
        self.table.unsupported_constraints.push(text);
    }

    /// Adds a constraint that production evaluates, before the insertion if possible.
    fn ask(&mut self, check: DatabaseCheck) {
        if database_checks::reads_its_table(&check) {
            return self.unread(format!("{}: {}", check.name, check.declared));
        }
        let check = self.completed(check);
        self.table.database_checks.push(check);
    }

    /// Completes a constraint by the columns that it reads.
    fn completed(&self, mut check: DatabaseCheck) -> DatabaseCheck {
        check.columns = database_checks::columns_of(&check, &self.pg.name, &self.pg.columns);
        for column in database_checks::compared(&mut check) {
            let name = column.column.take().and_then(|number| self.name(number.parse().ok()?));
            column.column = name;
        }
        check
    }
}

struct Reader {
    builder: Vec<TableBuilder>,
    by_oid: HashMap<u32, usize>,
}

impl Reader {
    fn new(tables: &[Row], names: &Names) -> Self {
        let mut reader = Self { builder: Vec::new(), by_oid: HashMap::new() };
        for row in tables {
            let (schema, real) = (row.text("schema").to_owned(), row.text("name").to_owned());
            let name = if row.is("own") { real.clone() } else { format!("{schema}.{real}") };
            let oid = row.number("oid");
            let pg = PgTable { schema, name: real, row_security: row.is("row_security"), ..PgTable::default() };
            let id = names.id(&pg.schema, &pg.name);
            let table = CatalogTable { name, id: id.relation(), key_map: id.key_map(), ..CatalogTable::default() };
            let partitioned = row.get("partitioned").filter(|_| !row.is("takes_all"));
            let partitions = partitioned.map(|key| (key.to_owned(), row.text("partitions").to_owned()));
            reader.by_oid.insert(oid, reader.builder.len());
            reader.builder.push(TableBuilder { table, pg, numbers: Vec::new(), plain: Vec::new(), partitions });
        }
        reader
    }

    fn builder(&mut self, row: &Row) -> Option<&mut TableBuilder> {
        let at = *self.by_oid.get(&row.number("table"))?;
        self.builder.get_mut(at)
    }

    fn children(&mut self, rows: &[Row]) {
        for row in rows {
            let Some(builder) = self.builder(row) else { continue };
            let (schema, name) = (row.text("schema"), row.text("name"));
            let name = if schema == builder.pg.schema { name.to_owned() } else { format!("{schema}.{name}") };
            if row.is("is_partition") {
                builder.pg.foreign |= row.is("is_foreign");
                builder.pg.partitions.push(name);
            } else {
                builder.pg.inherited = true;
                builder.unread(format!("table `{name}` inherits from it: checks exclude its rows, as constraints do"));
            }
        }
    }

    fn type_schemas(&mut self, rows: &[Row]) {
        for row in rows {
            if let Some(builder) = self.builder(row) {
                builder.pg.type_schemas.push(row.text("schema").to_owned());
            }
        }
    }

    fn columns(&mut self, columns: &[Row], sequences: &[Row], types: &Types) {
        let key = |row: &Row| (row.number::<u32>("table"), row.number::<i16>("number"));
        let mut sequences: HashMap<_, _> = sequences.iter().map(|row| (key(row), sequence(row))).collect();
        for row in columns {
            let sequence = sequences.remove(&key(row));
            let Some(builder) = self.builder(row) else { continue };
            let base = types.base(row.number("type"), row.number("modifier"));
            let (name, declared) = (row.text("name").to_owned(), row.text("declared").to_owned());
            let identity = !row.text("identity").is_empty();
            let generated = row.is("is_generated");
            let numbered = numbered(row, sequence.as_ref().filter(|_| identity));
            let has_default = row.is("has_default") || base.domains.iter().any(|domain| domain.has_default);
            let column = CatalogColumn {
                name: name.clone(),
                declared: declared.clone(),
                data_type: base.pg_type.arrow(),
                not_null: row.is("not_null") || base.domains.iter().any(|domain| domain.not_null),
                has_default: !generated && (has_default || identity),
                generated,
                max_length: base.max_length,
                significant_digits: None,
                form: types.form(&base),
            };
            if !generated && sequence.is_some() && (identity || is_next_number(row.text("default_expr"))) {
                builder.table.serials.push(name.clone());
            }
            let plain = row.is("plain") && base.pg_type != PgType::Other;
            builder.numbers.push(row.number("number"));
            if plain {
                builder.plain.push(column.clone());
            }
            builder.table.columns.push(column);
            let evaluated = checks_of_type(builder, &name, &base);
            let type_name = TypeName { declared: &declared, unlimited: row.text("unlimited") };
            let checks = &mut builder.table.database_checks;
            checks.extend(database_checks::of_value(&name, &type_name, &base, evaluated).filter(|_| !generated));
            if numbered.is_some() {
                builder.table.numbered.push(name.clone());
            }
            let equals = row.get("equals").unwrap_or("=").to_owned();
            let default = row.get("default_expr").map(str::to_owned);
            let generated = row.get("generated_expr").map(str::to_owned);
            let declared = base.declared.map_or(declared, str::to_owned);
            let collation = row.get("collation").map_or(String::new(), |collation| format!(" COLLATE {collation}"));
            builder.pg.columns.push(PgColumn {
                name,
                pg_type: base.pg_type,
                declared,
                collation,
                sequence,
                numbered,
                equals,
                default,
                generated,
            });
        }
    }

    fn constraints(&mut self, rows: &[Row]) {
        for row in rows {
            let to = self.by_oid.get(&row.number("to")).map(|to| &self.builder[*to]);
            let to_name = to.map(|to| to.table.name.clone());
            let to_columns: Vec<_> = row.numbers("to_columns").filter_map(|number| to?.name(number)).collect();
            let Some(builder) = self.builder(row) else { continue };
            let (name, definition, kind) = (row.text("name"), row.text("definition"), row.text("kind"));
            let of = row.get("part").map_or_else(String::new, |part| format!(" of the partition `{part}`"));
            let what = match kind {
                "f" => "foreign key",
                "c" => "CHECK constraint",
                _ => "exclusion constraint",
            };
            if !row.is("validated") {
                builder.broken(format!("{what} `{name}`{of} is not validated"));
            }
            if kind == "x" && row.get("compared").is_some() {
                builder.ask(database_checks::of_exclusion(row));
                continue;
            }
            if kind == "c" && row.is("ambiguous") {
                builder.unread(format!("{what} `{name}`{of}: {definition}"));
                continue;
            }
            if kind == "c" && !of.is_empty() {
                builder.ask(database_checks::of_check(row));
                continue;
            }
            let columns: Vec<_> = row.numbers("columns").filter_map(|number| builder.name(number)).collect();
            if !of.is_empty() {
                if let ("f", Some(to)) = (kind, to_name) {
                    builder.of_partition(ForeignKey { columns, to, to_columns, ..ForeignKey::default() });
                }
                builder.unread(format!("{what} `{name}`{of}: {definition}"));
                continue;
            }
            match (kind, to_name) {
                ("f", Some(to)) if columns.len() == to_columns.len() => {
                    if row.is("is_full") && columns.len() > 1 {
                        builder.ask(database_checks::of_full_match(name, &columns, definition));
                    }
                    builder.table.foreign_keys.push(ForeignKey {
                        name: name.to_owned(),
                        columns,
                        to,
                        to_columns,
                        operators: serde_json::from_str(row.text("operators")).unwrap_or_default(),
                        deferrable: row.is("deferrable"),
                        match_full: row.is("is_full"),
                    });
                }
                ("c", _) => match translate(row.text("expr"), &builder.plain, None) {
                    Some(Translation { sql, of_ascii }) => {
                        let own = builder.completed(database_checks::of_check(row));
                        let own = Some(Box::new(DatabaseCheck { beyond_ascii: of_ascii, ..own }));
                        builder.table.checks.push(CheckConstraint { name: name.to_owned(), sql, reason: None, own });
                    }
                    None => builder.ask(database_checks::of_check(row)),
                },
                _ => builder.unread(format!("{what} `{name}`: {definition}")),
            }
        }
    }

    fn indexes(&mut self, rows: &[Row]) {
        for row in rows {
            let Some(builder) = self.builder(row) else { continue };
            let name = row.text("name");
            let of = row.get("part").map_or_else(String::new, |part| format!(" of the partition `{part}`"));
            if !row.is("valid") {
                builder.broken(format!("index `{name}`{of} is not valid"));
            }
            if !row.is("is_unique") || (!of.is_empty() && row.is("attached")) {
                continue;
            }
            let numbers: Vec<_> = row.numbers("columns").take(row.number("keys")).collect();
            let at: Option<Vec<usize>> = numbers.iter().map(|number| builder.at(*number)).collect();
            let alike =
                row.is("plain") && at.iter().flatten().all(|at| compares_plainly(&builder.pg.columns[*at].pg_type));
            let columns: Vec<_> = numbers.iter().filter_map(|number| builder.name(*number)).collect();
            let is_plain = of.is_empty() && at.is_some() && alike && !row.is("nulls_not_distinct");
            if row.is("is_primary") && of.is_empty() {
                if !is_plain {
                    builder.ask(database_checks::of_index(row));
                }
                builder.table.primary_key = columns;
                continue;
            }
            if !is_plain {
                builder.ask(database_checks::of_index(row));
                continue;
            }
            let condition = match row.get("predicate") {
                None => None,
                Some(own) => match translate_exactly(own, &builder.plain) {
                    Some(sql) => Some(Condition { sql, own: own.to_owned() }),
                    None => {
                        builder.ask(database_checks::of_index(row));
                        continue;
                    }
                },
            };
            let (name, own) = (name.to_owned(), Some(Box::new(builder.completed(database_checks::of_index(row)))));
            builder.table.uniques.push(UniqueConstraint { name, columns, ignore_case: Vec::new(), condition, own });
        }
    }

    fn triggers(&mut self, rows: &[Row]) {
        for row in rows {
            if let Some(builder) = self.builder(row) {
                builder.table.triggers.push(row.text("name").to_owned());
                if row.is("decides") {
                    builder.table.deciding_triggers.push(row.text("name").to_owned());
                }
            }
        }
    }

    fn rules(&mut self, rows: &[Row]) {
        for row in rows {
            if let Some(builder) = self.builder(row) {
                builder.pg.rules.push(row.text("name").to_owned());
                let definition: Vec<_> = row.text("definition").split_whitespace().collect();
                builder.unread(format!("rule `{}` on INSERT: {}", row.text("name"), definition.join(" ")));
            }
        }
    }

    fn finish(self, sequences: Vec<Sequence>, names: &Names) -> PgCatalog {
        let mut found = PgCatalog::default();
        let mut known: Vec<_> = sequences.iter().map(|sequence| sequence.shown(names)).collect();
        known.sort();
        found.catalog.sequences = Some(known);
        found.catalog.schema = Some(names.production.clone());
        found.sequences = sequences;
        for mut builder in self.builder {
            if let Some((key, condition)) = builder.partitions.take() {
                builder.ask(database_checks::of_partitions(&key, condition));
            }
            database_checks::of_generated(&builder.pg.columns, &builder.table.columns)
                .for_each(|check| builder.ask(check));
            found.tables.insert(builder.table.name.clone(), builder.pg);
            found.catalog.tables.push(Arc::new(builder.table));
        }
        found.catalog.tables.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }
}

/// Adds the checks that a column's type implies. Returns the values for which only the server can evaluate a CHECK of one of its domains.
fn checks_of_type(builder: &mut TableBuilder, name: &str, base: &Base<'_>) -> Evaluated {
    let mut evaluated = Evaluated::None;
    if let (PgType::Enum, Some(of)) = (&base.pg_type, base.of) {
        let labels: Vec<_> = of.labels.iter().map(|label| literal(label)).collect();
        // An enum without labels accepts only NULL.
        let sql = match labels.as_slice() {
            [] => format!("{} IS NULL", ident(name)),
            labels => format!("{} IN ({})", ident(name), labels.join(", ")),
        };
        builder.table.checks.push(CheckConstraint {
            name: format!("{}({name})", of.name),
            sql,
            reason: Some(format!("it is not a value of the type `{}`: {}", of.name, of.labels.join(", "))),
            own: None,
        });
    }
    if let Some(digits) = base.digits {
        builder.table.checks.push(CheckConstraint {
            name: format!("digits({name})"),
            sql: format!("CAST({} AS BIGINT) % {} = 0", ident(name), 10_u32.pow(6 - digits)),
            reason: Some(format!("production keeps {digits} digits of a second")),
            own: None,
        });
    }
    for domain in &base.domains {
        for check in &domain.checks {
            if !check.validated {
                builder
                    .pg
                    .broken
                    .push(format!("constraint `{}` of the domain `{}` is not validated", check.name, domain.name));
            }
            match translate(&check.expr, &builder.plain, Some(name)) {
                Some(Translation { sql, of_ascii }) => {
                    let (name, domain) = (format!("{}({name})", check.name), &domain.name);
                    let reason = Some(format!("it violates the domain `{domain}`: {}", check.expr));
                    builder.table.checks.push(CheckConstraint { name, sql, reason, own: None });
                    evaluated = evaluated.max(if of_ascii { Evaluated::BeyondAscii } else { Evaluated::None });
                }
                // The cast to the domain finds it.
                None => evaluated = Evaluated::All,
            }
        }
    }
    evaluated
}

/// Returns whether a default is the next number of a sequence and nothing else.
fn is_next_number(default: &str) -> bool {
    default.strip_prefix("nextval('").and_then(|rest| rest.strip_suffix("'::regclass)")).is_some()
}

/// Returns the default by which a sequence fills a column.
fn numbered(row: &Row, identity: Option<&Sequence>) -> Option<Numbered> {
    if let Some(Sequence { schema, name, .. }) = identity {
        let sql = format!("nextval({}::regclass)", literal(&qualified(schema, name)));
        return Some(Numbered { sql, is_identity: true });
    }
    let sql = row.get("default_expr").filter(|default| default.contains("nextval("))?;
    Some(Numbered { sql: sql.to_owned(), is_identity: false })
}

fn sequence(row: &Row) -> Sequence {
    Sequence {
        schema: row.text("schema").to_owned(),
        name: row.text("name").to_owned(),
        increment: row.number("increment"),
        min: row.number("min"),
        max: row.number("max"),
        cycle: row.is("cycle"),
        cache: row.number("cache"),
    }
}
