//! Compiles the pipeline file, the sources, and the catalog into a plan, and collects all problems.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Builder, text_of};
use super::{Check, CheckKind, CheckOrigin, Plan, Table, checks, inferred_catalog, order, rows_of, select};
use crate::diagnostic::{Path, Problems, Redactor};
use crate::engine::{Engine, Space, list, row_field};
use crate::error::Kind;
use crate::path;
use crate::source::Source;
use crate::spec::{Document, ForeignKeys, PipelineSpec, TableSpec, Threshold};
use crate::target::{Catalog, CatalogTable, DatabaseCheck, DatabaseCheckKind, TableIndex};

/// A plan with its sources.
#[derive(Debug)]
pub struct Compiled {
    /// The plan of a run.
    pub plan: Plan,
    /// The reasons for which production cannot accept the rows in any order. A target can be set up in spite of them.
    pub refused: Problems,
    /// The delta's files: one source per table, in the plan's order.
    pub sources: Vec<Source>,
    /// Values that must not be printed or written.
    pub secrets: Redactor,
}

/// Compiles a pipeline.
///
/// # Errors
/// Returns all problems of the pipeline file, including those of its structure. They are input errors if files are
/// missing or unreadable and nothing else is wrong.
pub async fn compile(document: &Document, catalog: &Catalog, engine: &Engine) -> Result<Compiled, Problems> {
    let mut problems = document.problems.clone();
    let Some(spec) = &document.spec else { return Err(problems) };
    let mut tables: Vec<(Table, Source)> = Vec::new();
    for (name, table) in spec.tables.iter() {
        if let Some(found) = compile_table(document, spec, name, table, catalog, engine, &mut problems) {
            tables.push(found);
        }
    }
    let mut refused = document.problems.clone();
    let order = load_order(&tables, spec.load.foreign_keys, &mut refused);
    let mut slots: Vec<_> = tables.into_iter().map(Some).collect();
    let (tables, sources): (Vec<_>, Vec<_>) = order.into_iter().filter_map(|at| slots[at].take()).unzip();
    let mut plan = Plan { name: document.secrets.mask(&spec.name).into_owned(), tables };
    link(&mut plan, spec, catalog, &mut problems);
    if catalog.guessed {
        plan.tables.iter_mut().for_each(inferred_catalog::skip_target_checks);
    }
    queries(&plan, catalog, engine, &mut problems).await;
    problems.mask(&document.secrets);
    refused.mask(&document.secrets);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Compiled { plan, refused, sources, secrets: document.secrets.clone() })
}

fn compile_table(
    document: &Document,
    spec: &PipelineSpec,
    name: &str,
    table: &TableSpec,
    catalog: &Catalog,
    engine: &Engine,
    problems: &mut Problems,
) -> Option<(Table, Source)> {
    let at = path!["tables", name];
    let found = catalog.table(name);
    if found.is_none() {
        no_table(problems, at.clone(), name, catalog);
    }
    let source = open_source(document, table, &at, catalog, problems);
    let (found, source) = (found?, source?);
    check_referenced_columns(found, catalog, &at, problems);
    let schema = source.schema().clone();
    let mut builder = Builder {
        engine,
        catalog,
        spec: table,
        table: found,
        source: &schema,
        at,
        used: BTreeSet::new(),
        uncertain: false,
        unfilled: Vec::new(),
    };
    let (expressions, filter) = expressions(&mut builder, problems);
    let legacy_key = builder.one_text(problems, &builder.at(path!["legacy_key"]), &table.legacy_key, text_of);
    let references = builder.references(problems, &expressions);
    let key = builder.key(problems, &expressions);
    let columns = builder.columns(problems, &expressions, &key);
    builder.unused(problems);
    let mut compiled = Table {
        name: name.to_owned(),
        catalog: found.clone(),
        source: schema.clone(),
        columns,
        filter,
        legacy_key,
        key,
        references,
        checks: Vec::new(),
        enforced_by_database: Vec::new(),
        skipped_checks: Vec::new(),
        unfilled: std::mem::take(&mut builder.unfilled),
        triggered: table.triggers.iter().map(|(name, _)| name.clone()).collect(),
        duplicates: table.duplicates,
        existing: table.existing,
        max_rejects: table.max_rejects.or(spec.safeguards.max_rejects).unwrap_or(Threshold::Rows(0)),
    };
    add_checks(&mut compiled, &builder, &document.secrets, problems);
    Some((compiled, source))
}

/// Opens a table's source. If that fails, also adds problems of referenced tables, which are not compiled then.
fn open_source(
    document: &Document,
    table: &TableSpec,
    at: &Path,
    catalog: &Catalog,
    problems: &mut Problems,
) -> Option<Source> {
    let inside = |more: Path| at.iter().cloned().chain(more).collect::<Path>();
    match Source::try_new(&table.source, &document.folder) {
        Ok(mut source) => {
            source.mask_names(&document.secrets);
            Some(source)
        }
        Err(error) => {
            let hint = error.next_step().map(ToOwned::to_owned);
            problems.add_input(inside(path!["source", "path"]), error.to_string(), hint, error.kind() == Kind::Input);
            for (index, relationship) in table.relationships.iter().enumerate() {
                if catalog.table(&relationship.to).is_none() {
                    no_table(problems, inside(path!["relationships", index, "to"]), &relationship.to, catalog);
                }
            }
            None
        }
    }
}

/// Adds a problem for each foreign key of production whose referenced columns do not exist or are not unique.
fn check_referenced_columns(table: &CatalogTable, catalog: &Catalog, at: &Path, problems: &mut Problems) {
    for key in &table.foreign_keys {
        let cause = match catalog.table(&key.to) {
            None => "which does not exist",
            Some(to)
                if !same(&to.primary_key, &key.to_columns)
                    && !to.uniques.iter().any(|unique| same(&unique.columns, &key.to_columns)) =>
            {
                "which are neither its primary key nor unique"
            }
            Some(_) => continue,
        };
        let columns = key.to_columns.join(", ");
        let message = format!("cannot insert into `{}`: it references `{}` ({columns}), {cause}", table.name, key.to);
        problems.add_with_hint(at.clone(), message, "fix production's schema first");
    }
}

/// Returns the expressions of `columns` and `select`, each with its target column and place, and the WHERE of `select`.
fn expressions(builder: &mut Builder<'_>, problems: &mut Problems) -> (Vec<(String, String, Path)>, Option<String>) {
    let columns = builder.spec.columns.iter();
    let mut expressions: Vec<_> =
        columns.map(|(name, sql)| (name.clone(), sql.clone(), builder.at(path!["columns", name]))).collect();
    let Some(sql) = &builder.spec.select else { return (expressions, None) };
    let at = builder.at(path!["select"]);
    let source_columns: Vec<_> = builder.source.fields().iter().map(|field| field.name().clone()).collect();
    let parts = match select::parts(sql, &source_columns) {
        Ok(parts) => parts,
        Err(problem) => {
            builder.uncertain = true;
            problems.add_with_hint(at, problem, select::SHAPE);
            return (expressions, None);
        }
    };
    expressions.extend(parts.columns.into_iter().map(|(name, sql)| (name, sql, at.clone())));
    if let Some(sql) = &parts.filter {
        match builder.engine.expression(sql, builder.source) {
            Ok(expression) if *expression.data_type() == DataType::Boolean => {
                builder.used.extend(expression.columns().iter().cloned());
            }
            Ok(_) => problems.add_with_hint(at, "the WHERE is not a boolean expression", "write a comparison"),
            Err(mistake) => problems.add_with_hint(at, format!("the WHERE: {mistake}"), mistake.hint),
        }
    }
    (expressions, parts.filter)
}

fn add_checks(compiled: &mut Table, builder: &Builder<'_>, secrets: &Redactor, problems: &mut Problems) {
    let checked = compiled.checked_schema();
    let known = checks::CatalogFacts {
        table: &compiled.catalog,
        columns: &compiled.columns,
        triggered: &compiled.triggered,
        references: &compiled.references,
        key: &compiled.key,
        schema: &checked,
    };
    let (derived, unsupported) = checks::derived(builder, &known);
    let always = checks::always(&known, &builder.spec.legacy_key, compiled.filter.as_ref());
    let references = checks::references(&known);
    let declared = checks::declared(builder, &known, problems);
    compiled.checks = checks::merge(always.into_iter().chain(derived).chain(references).collect(), &declared);
    compiled.enforced_by_database = unsupported;
    // Names and reasons are printed and written, so they must not contain values from the environment.
    for check in &mut compiled.checks {
        check.name = secrets.mask(&check.name).into_owned();
        check.reason = secrets.mask(&check.reason).into_owned();
    }
}

/// Returns whether two lists contain the same names, in any order.
fn same(some: &[String], others: &[String]) -> bool {
    some.len() == others.len() && some.iter().all(|name| others.contains(name))
}

fn no_table(problems: &mut Problems, at: Path, name: &str, catalog: &Catalog) {
    problems.add_with_hint(
        at,
        format!("production has no table `{name}`"),
        format!("its tables are {}", list(&catalog.names())),
    );
}

/// Returns the order in which tables are loaded: referenced tables first. Tables that refer to each other are ordered by the constraints
/// that production checks row by row.
fn load_order(tables: &[(Table, Source)], foreign_keys: ForeignKeys, problems: &mut Problems) -> Vec<usize> {
    let position = |name: &String| tables.iter().position(|(table, _)| table.name == *name);
    let needs = |at: usize| tables[at].0.refers_to().filter_map(position).collect::<Vec<_>>();
    let cannot_wait = |at: usize| {
        let table = &tables[at].0;
        let keys = table.catalog.foreign_keys.iter().filter(|key| !key.deferrable && table.fills(&key.columns));
        keys.filter_map(|key| position(&key.to)).collect::<Vec<_>>()
    };
    let mut order = Vec::with_capacity(tables.len());
    for cycle in order::components(tables.len(), needs) {
        let sorted = match foreign_keys {
            ForeignKeys::SetBased => Ok(cycle.clone()),
            ForeignKeys::Triggers => order::within(&cycle, cannot_wait),
        };
        let has_references = |at: &usize| {
            let inside = |to: &String| position(to).is_some_and(|to| to != *at && cycle.contains(&to));
            tables[*at].0.references.iter().any(|reference| reference.by.is_empty() && inside(&reference.to))
        };
        match sorted {
            Ok(sorted) => order.extend(sorted),
            Err(first) => {
                // Without a reference, the delta has the keys, and its rows may be in an order that production accepts.
                if cycle.iter().any(has_references) {
                    refuse_cycle(tables, &cycle, first, problems);
                }
                order.extend(cycle);
            }
        }
    }
    order
}

/// Adds a problem for tables that refer to each other by constraints that cannot be checked at the end.
fn refuse_cycle(tables: &[(Table, Source)], cycle: &[usize], first: usize, problems: &mut Problems) {
    let names: Vec<_> = cycle.iter().map(|at| &tables[*at].0.name).collect();
    let inside = |to: &String| names.contains(&to);
    let constraints = cycle.iter().flat_map(|at| {
        let table = &tables[*at].0;
        let keys = table.catalog.foreign_keys.iter();
        let stays = keys.filter(|key| !key.deferrable && inside(&key.to) && key.to != table.name);
        stays.map(|key| format!("`{}` of `{}`", key.name, table.name)).collect::<Vec<_>>()
    });
    let constraints: Vec<_> = constraints.collect();
    let has_triggers = cycle.iter().any(|at| !tables[*at].0.catalog.triggers.is_empty());
    let deferrable = "make one of these constraints deferrable (ALTER TABLE … ALTER CONSTRAINT … DEFERRABLE)";
    problems.add_with_hint(
        path!["tables", tables[first].0.name, "relationships"],
        format!(
            "{} refer to each other, and production checks each row at once: {}",
            list(&names),
            constraints.join(", ")
        ),
        if has_triggers {
            format!("{deferrable}; `foreign_keys: set_based` does not help, because the tables have triggers")
        } else {
            format!("{deferrable}, or set `load: {{ foreign_keys: set_based }}`")
        },
    );
}

/// Connects references to the tables that are loaded in the same run.
fn link(plan: &mut Plan, spec: &PipelineSpec, catalog: &Catalog, problems: &mut Problems) {
    let positions: BTreeMap<String, TableIndex> =
        TableIndex::enumerate(&plan.tables).map(|(at, table)| (table.name.clone(), at)).collect();
    let parents: Vec<(String, Vec<String>, usize)> = plan
        .tables
        .iter()
        .map(|table| {
            let filled = table.columns.iter().map(|column| column.name.clone()).collect();
            let parts = spec.tables.get(&table.name).map_or(0, |table| table.legacy_key.len());
            (table.name.clone(), filled, parts)
        })
        .collect();
    for table in &mut plan.tables {
        let mut linked = Vec::new();
        for (index, reference) in table.references.iter_mut().enumerate() {
            if !reference.by.is_empty() {
                continue;
            }
            let Some(parent) = positions.get(&reference.to) else { continue };
            let (name, filled, parts) = &parents[*parent];
            let relationships = spec.tables.get(&table.name).map(|table| table.relationships.as_slice());
            let place =
                relationships.and_then(|all| all.iter().position(|spec| spec.column.contains(&reference.column)));
            let at = path!["tables", table.name, "relationships", place.unwrap_or_default()];
            if reference.parts != *parts && reference.first == index {
                problems.add_with_hint(
                    at.iter().cloned().chain(["from".to_owned()]).collect(),
                    format!(
                        "{} column{} in `from`, but {parts} in the legacy key of `{name}`",
                        reference.parts,
                        if reference.parts == 1 { "" } else { "s" }
                    ),
                    "list the source columns with the referenced row's legacy key, in its order",
                );
            }
            if !filled.contains(&reference.give) && !catalog.guessed {
                problems.add_with_hint(
                    at,
                    format!("nothing fills `{}.{}`, so it cannot fill `{}`", name, reference.give, reference.column),
                    format!("add `key: {{ column: {} }}` to `{name}`", reference.give),
                );
            }
            reference.parent = Some(*parent);
            if reference.first == index {
                linked.push((index, reference.to.clone()));
            }
        }
        leave_new_references(table, &positions);
        // A row is rejected with its parent, so each reference to a table of this run gets a check for it.
        for (index, to) in linked {
            let columns = table.columns_of(index).join(", ");
            let after =
                table.checks.iter().position(|check| check.kind == CheckKind::Relationship { reference: index });
            let Some(after) = after else { continue };
            let check = Check {
                name: format!("parent_rejected({columns})"),
                kind: CheckKind::ParentRejected { reference: index },
                reason: format!("the referenced row of `{to}` is rejected"),
                ..table.checks[after].clone()
            };
            table.checks.insert(after + 1, check);
        }
    }
}

/// Leaves references to tables of the same run to the insertion: production cannot evaluate references to rows that do not exist yet.
fn leave_new_references(table: &mut Table, positions: &BTreeMap<String, TableIndex>) {
    let is_new = |check: &Check| match &check.kind {
        CheckKind::Database(DatabaseCheck { kind: DatabaseCheckKind::Reference { to, .. }, .. }) => {
            positions.contains_key(to)
        }
        _ => false,
    };
    let (left, checks): (Vec<_>, Vec<_>) = std::mem::take(&mut table.checks).into_iter().partition(is_new);
    table.checks = checks;
    table.enforced_by_database.extend(left.into_iter().map(|check| match check.origin {
        CheckOrigin::Catalog(declared) => declared,
        _ => check.name,
    }));
}

/// Plans the queries of `sql` checks over empty tables of the delta and of production.
async fn queries(plan: &Plan, catalog: &Catalog, engine: &Engine, problems: &mut Problems) {
    let register =
        |space: Space, name: &str, schema: SchemaRef| engine.register_batches(space, name, schema, Vec::new());
    for table in &plan.tables {
        let mut fields = vec![Arc::new(row_field("_row")), Arc::new(Field::new("_key", DataType::Utf8, true))];
        fields.extend(table.checked_schema().fields().iter().cloned());
        register(Space::Delta, &table.name, Arc::new(Schema::new(fields))).ok();
    }
    for table in &catalog.tables {
        register(Space::Production, &table.name, table.schema()).ok();
    }
    for table in &plan.tables {
        for check in &table.checks {
            let (CheckKind::Query { sql }, CheckOrigin::File(at)) = (&check.kind, &check.origin) else { continue };
            let at: Path = at.iter().cloned().chain(["sql".to_owned()]).collect();
            match engine.plan(sql).await {
                Ok(schema) if schema.field_with_name("_row").is_ok_and(|field| field.data_type().is_integer()) => {
                    // The run embeds the query in another one.
                    if let Err(mistake) = engine.plan(&rows_of(sql)).await {
                        problems.add_with_hint(at, mistake.message, mistake.hint);
                    }
                }
                Ok(_) => problems.add_with_hint(
                    at,
                    "the query must return the column `_row`",
                    format!("select `_row` of `{}`: `SELECT _row FROM {} WHERE …`", table.name, table.name),
                ),
                Err(mistake) => problems.add_with_hint(at, mistake.message, mistake.hint),
            }
        }
    }
}
