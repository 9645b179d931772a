//! From the pipeline file, the sources and the catalog to a plan, with every problem at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::Builder;
use super::{Check, CheckKind, CheckOrigin, Key, Plan, Table, checks, inferred_catalog, order, rows_of, select};
use crate::diagnostic::{Path, Problems, Redactor};
use crate::engine::{Engine, Space, list};
use crate::error::Kind;
use crate::path;
use crate::source::Source;
use crate::spec::{Document, PipelineSpec, TableSpec, Threshold};
use crate::target::Catalog;

/// What compiling gives: a plan, and the sources it reads.
#[derive(Debug)]
pub struct Compiled {
    /// What a run does.
    pub plan: Plan,
    /// The delta's files, one source a table of the plan, in its order.
    pub sources: Vec<Source>,
    /// What must not be printed or written.
    pub secrets: Redactor,
}

/// Compiles a pipeline.
///
/// # Errors
/// All problems of the pipeline file, those of its structure included; an input error where the only problems are missing or
/// unreadable files.
pub async fn compile(document: &Document, catalog: &Catalog, engine: &Engine) -> Result<Compiled, Problems> {
    let mut problems = document.problems.clone();
    let Some(spec) = &document.spec else { return Err(problems) };
    let mut tables: Vec<(Table, Source)> = Vec::new();
    for (name, table) in spec.tables.iter() {
        if let Some(found) = compile_table(document, spec, name, table, catalog, engine, &mut problems) {
            tables.push(found);
        }
    }
    let names: Vec<_> = tables.iter().map(|(table, _)| table.name.clone()).collect();
    let needs = |at: usize| -> Vec<usize> {
        let foreign = tables[at].0.checks.iter().filter_map(|check| match &check.kind {
            CheckKind::ForeignKey { to, .. } => Some(to),
            _ => None,
        });
        let to = tables[at].0.references.iter().map(|reference| &reference.to).chain(foreign);
        to.filter_map(|name| names.iter().position(|other| other == name)).collect()
    };
    let order = order::order(tables.len(), needs);
    let mut slots: Vec<_> = tables.into_iter().map(Some).collect();
    let (tables, sources): (Vec<_>, Vec<_>) = order.into_iter().filter_map(|at| slots[at].take()).unzip();
    let mut plan = Plan { name: document.secrets.mask(&spec.name).into_owned(), tables };
    link(&mut plan, spec, catalog, &mut problems);
    if catalog.guessed {
        plan.tables.iter_mut().for_each(inferred_catalog::keep_to_the_delta);
    }
    queries(&plan, catalog, engine, &mut problems).await;
    problems.mask(&document.secrets);
    if problems.is_empty() { Ok(Compiled { plan, sources, secrets: document.secrets.clone() }) } else { Err(problems) }
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
    let inside = |more: Path| at.iter().cloned().chain(more).collect::<Path>();
    let found = catalog.table(name);
    if found.is_none() {
        no_table(problems, at.clone(), name, catalog);
    }
    let mut source = Source::try_new(&table.source, &document.folder)
        .map_err(|error| {
            let hint = error.next_step().map(ToOwned::to_owned);
            problems.add_input(inside(path!["source", "path"]), error.to_string(), hint, error.kind() == Kind::Input);
        })
        .ok();
    if let Some(source) = &mut source {
        source.mask_names(&document.secrets);
    }
    for (index, relationship) in table.relationships.iter().enumerate().filter(|_| source.is_none()) {
        if catalog.table(&relationship.to).is_none() {
            no_table(problems, inside(path!["relationships", index, "to"]), &relationship.to, catalog);
        }
    }
    let (found, source) = (found?, source?);
    for key in &found.foreign_keys {
        let what = match catalog.table(&key.to) {
            None => "which is not there",
            Some(to)
                if !same(&to.primary_key, &key.to_columns)
                    && !to.uniques.iter().any(|unique| same(&unique.columns, &key.to_columns)) =>
            {
                "where these columns are neither the primary key nor unique"
            }
            Some(_) => continue,
        };
        let message = format!(
            "production's `{name}` refers to `{}` ({}), {what}: nothing can be inserted",
            key.to,
            key.to_columns.join(", ")
        );
        problems.add_with_hint(at.clone(), message, "mend production's schema first");
    }
    let schema = source.schema().clone();
    let mut builder = Builder {
        engine,
        catalog,
        spec: table,
        table: found,
        source: &schema,
        at: at.clone(),
        used: BTreeSet::new(),
        guessing: false,
        unfilled: Vec::new(),
    };

    let mut filter = None;
    let mut written: Vec<(String, String, Path)> =
        table.columns.iter().map(|(name, sql)| (name.clone(), sql.clone(), inside(path!["columns", name]))).collect();
    if let Some(sql) = &table.select {
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
        match select::parts(sql, &columns) {
            Ok(parts) => {
                filter = parts.filter;
                written.extend(parts.columns.into_iter().map(|(name, sql)| (name, sql, inside(path!["select"]))));
            }
            Err(problem) => {
                builder.guessing = true;
                problems.add_with_hint(inside(path!["select"]), problem, select::SHAPE);
            }
        }
    }
    if let Some(sql) = &filter {
        match engine.expression(sql, &schema) {
            Ok(expression) if *expression.data_type() == DataType::Boolean => {
                builder.used.extend(expression.columns().iter().cloned());
            }
            Ok(_) => problems.add_with_hint(
                inside(path!["select"]),
                "the WHERE is neither true nor false",
                "compare it with something",
            ),
            Err(mistake) => {
                problems.add_with_hint(inside(path!["select"]), format!("the WHERE: {mistake}"), mistake.hint);
            }
        }
    }
    let legacy_key = builder.one_text(problems, &inside(path!["legacy_key"]), &table.legacy_key);
    let references = builder.references(problems);
    let key = builder.key(problems);
    let columns = builder.columns(problems, &written, &key);
    builder.unused(problems);
    let max_rejects = table.max_rejects.or(spec.safeguards.max_rejects).unwrap_or(Threshold::Rows(0));
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
        left_to_production: Vec::new(),
        unasked: Vec::new(),
        unfilled: std::mem::take(&mut builder.unfilled),
        duplicates: table.duplicates,
        existing: table.existing,
        max_rejects,
    };
    let checked = compiled.checked_schema();
    let known = checks::CatalogFacts {
        table: &compiled.catalog,
        columns: &compiled.columns,
        references: &compiled.references,
        key: &compiled.key,
        schema: &checked,
    };
    let (derived, left) = checks::derived(&builder, &known);
    let always = checks::always(&known, &table.legacy_key, compiled.filter.as_ref());
    let references = checks::references(&known);
    let declared = checks::declared(&builder, &known, problems);
    compiled.checks = checks::merge(always.into_iter().chain(derived).chain(references).collect(), &declared);
    compiled.left_to_production = left;
    // Names and reasons are printed and written; what the file took from the environment is not.
    for check in &mut compiled.checks {
        check.name = document.secrets.mask(&check.name).into_owned();
        check.reason = document.secrets.mask(&check.reason).into_owned();
    }
    Some((compiled, source))
}

/// Whether two lists have the same names, in any order.
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

/// Connects references with the tables that are loaded in the same run.
fn link(plan: &mut Plan, spec: &PipelineSpec, catalog: &Catalog, problems: &mut Problems) {
    let positions: BTreeMap<String, usize> =
        plan.tables.iter().enumerate().map(|(at, table)| (table.name.clone(), at)).collect();
    let parents: Vec<(String, Key, Vec<String>, usize)> = plan
        .tables
        .iter()
        .map(|table| {
            let computed = table.computed().map(|(column, _)| column.name.clone()).collect();
            let parts = spec.tables.get(&table.name).map_or(0, |table| table.legacy_key.len());
            (table.name.clone(), table.key.clone(), computed, parts)
        })
        .collect();
    for table in &mut plan.tables {
        let mut linked = Vec::new();
        for (index, reference) in table.references.iter_mut().enumerate() {
            if reference.by.is_some() {
                continue;
            }
            let Some(parent) = positions.get(&reference.to) else { continue };
            let (name, key, computed, parts) = &parents[*parent];
            let at = path!["tables", table.name, "relationships", index];
            let from = spec
                .tables
                .get(&table.name)
                .and_then(|table| table.relationships.get(index))
                .map_or(1, |spec| spec.from.len().max(1));
            if from != *parts {
                problems.add_with_hint(
                    at.iter().cloned().chain(["from".to_owned()]).collect(),
                    format!(
                        "{from} column{} here, but the legacy key of `{name}` has {parts}",
                        if from == 1 { "" } else { "s" }
                    ),
                    "name the source columns that hold the referenced row's legacy key, in its order",
                );
            }
            let has_it = matches!(key, Key::Assigned { column, .. } if *column == reference.give)
                || computed.contains(&reference.give);
            if !has_it && !catalog.guessed {
                problems.add_with_hint(
                    at,
                    format!(
                        "`{}.{}` is neither the assigned key nor a computed column, so `{}` cannot get it",
                        name, reference.give, reference.column
                    ),
                    format!("give `{name}` a `key` with `column: {}`", reference.give),
                );
            }
            reference.parent = Some(*parent);
            linked.push((index, reference.column.clone(), reference.to.clone()));
        }
        // A row goes with its parent: where the parent may be rejected in this run, there is a check for it.
        for (index, column, to) in linked {
            let after =
                table.checks.iter().position(|check| check.kind == CheckKind::Relationship { reference: index });
            let Some(after) = after else { continue };
            let check = Check {
                name: format!("parent_rejected({column})"),
                kind: CheckKind::ParentRejected { reference: index },
                reason: format!("the row of `{to}` that it refers to is rejected"),
                ..table.checks[after].clone()
            };
            table.checks.insert(after + 1, check);
        }
    }
}

/// Plans the queries of `sql` checks over empty tables of the delta and production's own.
async fn queries(plan: &Plan, catalog: &Catalog, engine: &Engine, problems: &mut Problems) {
    let register =
        |space: Space, name: &str, schema: SchemaRef| engine.register_batches(space, name, schema, Vec::new());
    for table in &plan.tables {
        let mut fields = vec![
            Arc::new(Field::new("_row", DataType::UInt32, false)),
            Arc::new(Field::new("_key", DataType::Utf8, true)),
        ];
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
                    // What runs is the query inside another one.
                    if let Err(mistake) = engine.plan(&rows_of(sql)).await {
                        problems.add_with_hint(at, mistake.message, mistake.hint);
                    }
                }
                Ok(_) => problems.add_with_hint(
                    at,
                    "the query has no column `_row`, so nobody knows which rows fail",
                    format!("select `_row` of `{}`: `SELECT _row FROM {} WHERE …`", table.name, table.name),
                ),
                Err(mistake) => problems.add_with_hint(at, mistake.message, mistake.hint),
            }
        }
    }
}
