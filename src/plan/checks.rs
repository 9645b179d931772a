//! Every check of a table: what always holds, what production's catalog states, and what the pipeline file declares.

use arrow::datatypes::{DataType, Schema};

use super::columns::Builder;
use super::{Check, CheckKind, CheckOrigin, Column, ColumnSource, Key, Reference, Unique};
use crate::diagnostic::{Path, Problems};
use crate::engine::{ident, list, literal};
use crate::path;
use crate::spec::{CheckSpec, Scalar, Severity};
use crate::target::{CatalogTable, Condition, LogicalType};

/// What is known of a table when its checks are made.
pub(super) struct CatalogFacts<'a> {
    pub(super) table: &'a CatalogTable,
    pub(super) columns: &'a [Column],
    pub(super) references: &'a [Reference],
    pub(super) key: &'a Key,
    /// The columns that row checks may name.
    pub(super) schema: &'a Schema,
}

impl CatalogFacts<'_> {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// SQL that reads a column in a check: a reference is looked at as what it is made from.
    fn sql(&self, name: &str) -> Option<String> {
        match &self.column(name)?.fill {
            ColumnSource::Computed(_) => Some(ident(name)),
            ColumnSource::Reference(reference) => Some(ident(&self.references.get(*reference)?.text_column())),
            ColumnSource::Key => None,
        }
    }
}

fn check(name: String, kind: CheckKind, columns: &[String], origin: CheckOrigin, reason: impl Into<String>) -> Check {
    Check {
        name,
        kind,
        columns: columns.to_vec(),
        severity: Severity::Error,
        warn_if: None,
        error_if: None,
        origin,
        reason: reason.into(),
    }
}

/// The checks of every run: the record can be read, its legacy key is there, once, and new; values can be cast.
pub(super) fn always(known: &CatalogFacts<'_>, legacy_key: &[String], filter: Option<&String>) -> Vec<Check> {
    let mut checks = vec![
        check("parse".into(), CheckKind::Parse, &[], CheckOrigin::Builtin, "the record cannot be read"),
        check(
            "legacy_key".into(),
            CheckKind::LegacyKey,
            legacy_key,
            CheckOrigin::Builtin,
            "the legacy key is NULL, or more than one row has it",
        ),
        check("key_map".into(), CheckKind::KeyMap, legacy_key, CheckOrigin::Builtin, "the record was converted before"),
    ];
    if filter.is_some() {
        let reason = "the WHERE of `select` cannot be computed";
        checks.push(check("select(where)".into(), CheckKind::Filter, &[], CheckOrigin::Builtin, reason));
    }
    for column in known.columns {
        if !matches!(column.fill, ColumnSource::Computed(_)) {
            continue;
        }
        let name = std::slice::from_ref(&column.name);
        let form = known.table.column(&column.name).map_or(&LogicalType::Plain, |column| &column.form);
        let kind = CheckKind::Cast { column: column.name.clone() };
        checks.push(check(
            format!("cast({})", column.name),
            kind,
            name,
            CheckOrigin::Builtin,
            format!("it is not {}", wanted(&column.data_type, form)),
        ));
        if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) = column.data_type {
            let kind = CheckKind::Precision { column: column.name.clone() };
            let reason =
                format!("it has more digits than production keeps: {precision} in all, {scale} after the point");
            checks.push(check(format!("precision({})", column.name), kind, name, CheckOrigin::Builtin, reason));
        }
    }
    checks
}

fn wanted(data_type: &DataType, form: &LogicalType) -> String {
    match (form, data_type) {
        (LogicalType::Integer(bits), _) => format!("an integer of {bits} bits"),
        (LogicalType::Single, _) => "a number of single precision".into(),
        (LogicalType::Number { .. }, _) => "a decimal number with as many digits".into(),
        (LogicalType::Text | LogicalType::Padded | LogicalType::Opaque, _) => "a text without NUL characters".into(),
        (LogicalType::Bytes, _) => "bytes (`\\x` and hexadecimal digits, or a text)".into(),
        (LogicalType::Uuid, _) => "a UUID".into(),
        (LogicalType::Json | LogicalType::Jsonb, _) => "JSON".into(),
        (LogicalType::Interval, _) => "an interval (`1 year 2 days 03:00:00` or `P1Y2DT3H`)".into(),
        (LogicalType::Array(_), _) => "an array (`{1,2,NULL}`) of its type".into(),
        (LogicalType::Plain, data_type) => match data_type {
            DataType::Date32 => "a date (YYYY-MM-DD)".into(),
            DataType::Int16 | DataType::Int32 | DataType::Int64 => "an integer".into(),
            DataType::Float32 | DataType::Float64 => "a number".into(),
            DataType::Decimal128(..) | DataType::Decimal256(..) => "a decimal number".into(),
            DataType::Boolean => "a boolean".into(),
            DataType::Timestamp(_, Some(_)) => "a timestamp with its offset (YYYY-MM-DD hh:mm:ss+hh:mm)".into(),
            DataType::Timestamp(..) => "a timestamp (YYYY-MM-DD hh:mm:ss)".into(),
            DataType::Time64(_) => "a time (hh:mm:ss)".into(),
            other => other.to_string().to_lowercase(),
        },
    }
}

/// The checks that production's catalog states, and what it states that no check can express.
pub(super) fn derived(builder: &Builder<'_>, known: &CatalogFacts<'_>) -> (Vec<Check>, Vec<String>) {
    let (mut checks, mut left) = (Vec::new(), builder.table.unread.clone());
    let from = |what: &str| CheckOrigin::Catalog(what.to_owned());
    for column in &builder.table.columns {
        let (Some(sql), name) = (known.sql(&column.name), std::slice::from_ref(&column.name)) else { continue };
        let is_key = builder.table.primary_key.contains(&column.name);
        if column.not_null || is_key {
            let kind = CheckKind::Row { violated: format!("{sql} IS NULL") };
            let origin = from(if is_key { "PRIMARY KEY" } else { "NOT NULL" });
            checks.push(check(
                format!("not_null({})", column.name),
                kind,
                name,
                origin,
                "it is NULL, and production wants a value",
            ));
        }
        if let (Some(most), Some(ColumnSource::Computed(_))) =
            (column.max_length, known.column(&column.name).map(|column| &column.fill))
        {
            let kind = CheckKind::Row { violated: format!("character_length({sql}) > {most}") };
            let reason = format!("it is longer than {most} characters");
            checks.push(check(format!("length({})", column.name), kind, name, from(&column.declared), reason));
        }
    }
    for constraint in &builder.table.checks {
        let kind = CheckKind::Row { violated: format!("NOT ({})", constraint.sql) };
        match builder.engine.expression(&format!("NOT ({})", constraint.sql), known.schema) {
            Ok(expression) if *expression.data_type() == DataType::Boolean => {
                let reason =
                    constraint.reason.clone().unwrap_or_else(|| format!("production wants {}", constraint.sql));
                let origin = from(&format!("CHECK ({})", constraint.sql));
                checks.push(check(format!("check({})", constraint.name), kind, expression.columns(), origin, reason));
            }
            // What the target adds of its own accord is about values that the delta brings.
            _ if constraint.reason.is_some() => {}
            _ => left.push(format!("CHECK ({})", constraint.sql)),
        }
    }
    let own_key = match known.key {
        Key::Assigned { .. } => Vec::new(),
        Key::Inherited(columns) | Key::Own(columns) => columns.clone(),
    };
    let none = Vec::new();
    let uniques = builder
        .table
        .uniques
        .iter()
        .map(|unique| (&unique.columns, &unique.ignore_case, unique.condition.as_ref(), "UNIQUE"));
    let primary = Some((&builder.table.primary_key, &builder.table.primary_key_ignore_case, None, "PRIMARY KEY"))
        .filter(|(columns, ..)| !columns.is_empty());
    let own = Some((&own_key, &none, None, "the key"))
        .filter(|(columns, ..)| !columns.is_empty() && **columns != builder.table.primary_key);
    for (columns, ignore_case, condition, what) in uniques.chain(primary).chain(own) {
        if columns.iter().any(|name| matches!(known.column(name), Some(Column { fill: ColumnSource::Key, .. }))) {
            continue;
        }
        let computable = |condition: &Condition| builder.engine.expression(&condition.sql, known.schema).is_ok();
        if columns.iter().all(|name| known.sql(name).is_some()) && condition.is_none_or(computable) {
            let origin = if builder.catalog.guessed { CheckOrigin::Builtin } else { from(what) };
            checks.push(unique(columns, ignore_case, condition, origin));
        } else {
            let about = condition.map_or(String::new(), |condition| format!(" WHERE {}", condition.own));
            left.push(format!("{what} ({}){about}", columns.join(", ")));
        }
    }
    for key in &builder.table.foreign_keys {
        let filled: Vec<_> =
            key.columns.iter().filter_map(|name| known.column(name)).map(|column| &column.fill).collect();
        let resolved = |fill: &&ColumnSource| matches!(fill, ColumnSource::Reference(_));
        match (filled.len() == key.columns.len(), filled.iter().all(|fill| matches!(fill, ColumnSource::Computed(_)))) {
            (true, true) => {
                let kind = CheckKind::ForeignKey {
                    columns: key.columns.clone(),
                    to: key.to.clone(),
                    to_columns: key.to_columns.clone(),
                };
                let reason = format!("`{}` has no such row", key.to);
                let origin = from(&format!("REFERENCES {} ({})", key.to, key.to_columns.join(", ")));
                checks.push(check(
                    format!("relationship({})", key.columns.join(", ")),
                    kind,
                    &key.columns,
                    origin,
                    reason,
                ));
            }
            (true, false) if key.columns.len() == 1 && filled.iter().all(resolved) => {}
            (true, false) => left.push(format!("FOREIGN KEY ({}) REFERENCES {}", key.columns.join(", "), key.to)),
            (false, _) => {}
        }
    }
    (checks, left)
}

fn unique(columns: &[String], ignore_case: &[String], condition: Option<&Condition>, origin: CheckOrigin) -> Check {
    let unique = Unique { columns: columns.to_vec(), ignore_case: ignore_case.to_vec(), condition: condition.cloned() };
    let about = condition.map_or(String::new(), |condition| format!(" where {}", condition.sql));
    check(
        format!("unique({}{about})", columns.join(", ")),
        CheckKind::Unique(unique),
        columns,
        origin,
        "more than one row has these values",
    )
}

/// The checks of references: the row is there, and it is not rejected itself.
pub(super) fn references(known: &CatalogFacts<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (at, reference) in known.references.iter().enumerate() {
        let column = std::slice::from_ref(&reference.column);
        let reason = match &reference.by {
            Some(by) => format!("`{}` has no row with this `{by}`", reference.to),
            None => {
                format!("`{}` has no row with this legacy key, neither in the delta nor in the key map", reference.to)
            }
        };
        let kind = CheckKind::Relationship { reference: at };
        checks.push(check(format!("relationship({})", reference.column), kind, column, CheckOrigin::Builtin, reason));
    }
    checks
}

/// The checks that the pipeline file declares.
pub(super) fn declared(builder: &Builder<'_>, known: &CatalogFacts<'_>, problems: &mut Problems) -> Vec<Check> {
    let mut checks = Vec::new();
    for (index, spec) in builder.spec.checks.iter().enumerate() {
        let at = builder.at(path!["checks", index]);
        let declared = Declared { builder, known, spec, at };
        for mut check in declared.checks(problems) {
            if let Some(name) = &spec.name {
                check.name.clone_from(name);
            }
            check.severity = spec.severity;
            (check.warn_if, check.error_if) = (spec.warn_if, spec.error_if);
            checks.push(check);
        }
    }
    checks
}

struct Declared<'a> {
    builder: &'a Builder<'a>,
    known: &'a CatalogFacts<'a>,
    spec: &'a CheckSpec,
    at: Path,
}

impl Declared<'_> {
    fn inside(&self, field: &str) -> Path {
        self.at.iter().cloned().chain([field.to_owned()]).collect()
    }

    fn checks(&self, problems: &mut Problems) -> Vec<Check> {
        let spec = self.spec;
        let mut checks = Vec::new();
        if let Some(columns) = &spec.not_null {
            for name in columns {
                let violated = self.column(problems, "not_null", name).map(|column| format!("{column} IS NULL"));
                checks.extend(self.row(
                    problems,
                    "not_null",
                    format!("not_null({name})"),
                    name,
                    violated,
                    "it is NULL",
                ));
            }
        }
        if let Some(columns) = &spec.unique {
            if spec.r#where.is_some() {
                problems.add_with_hint(self.inside("where"), "`where` does not go with `unique`", "use a `sql` check");
            }
            if columns.iter().filter_map(|name| self.column(problems, "unique", name)).count() == columns.len() {
                checks.push(unique(columns, &[], None, CheckOrigin::File(self.at.clone())));
            }
        }
        if let Some(accepted) = &spec.accepted_values {
            let name = &accepted.column;
            let values: Vec<_> = accepted.values.iter().map(|value| self.literal(name, value)).collect();
            let violated = self
                .column(problems, "accepted_values", name)
                .map(|column| format!("{column} NOT IN ({})", values.join(", ")));
            let known: Vec<_> = accepted.values.iter().map(|value| value.0.as_str()).collect();
            let reason = format!("it is none of {}", known.join(", "));
            checks.extend(self.row(
                problems,
                "accepted_values",
                format!("accepted_values({name})"),
                name,
                violated,
                &reason,
            ));
        }
        if let Some(range) = &spec.range {
            let column = self.column(problems, "range", &range.column);
            let bound = |operator: &str, bound: &Option<Scalar>| {
                bound.as_ref().and_then(|bound| {
                    Some(format!("{} {operator} {}", column.as_ref()?, self.literal(&range.column, bound)))
                })
            };
            let bounds: Vec<_> = [bound("<", &range.min), bound(">", &range.max)].into_iter().flatten().collect();
            let reason = match (&range.min, &range.max) {
                (Some(min), Some(max)) => format!("it is not between {} and {}", min.0, max.0),
                (Some(min), None) => format!("it is less than {}", min.0),
                (_, max) => format!("it is more than {}", max.as_ref().map_or("", |max| &max.0)),
            };
            let violated = (!bounds.is_empty()).then(|| bounds.join(" OR "));
            checks.extend(self.row(
                problems,
                "range",
                format!("range({})", range.column),
                &range.column,
                violated,
                &reason,
            ));
        }
        if let Some(matches) = &spec.matches {
            let name = &matches.column;
            let pattern = literal(&matches.pattern);
            if let Err(problem) =
                self.builder.engine.expression(&format!("regexp_like('x', {pattern})"), &Schema::empty())
            {
                let what = problem.hint.lines().last().unwrap_or_default().trim_start_matches("error: ");
                problems.add_with_hint(self.inside("matches"), "the pattern is no regular expression", what);
            } else {
                let violated = self
                    .column(problems, "matches", name)
                    .map(|column| format!("NOT regexp_like(CAST({column} AS VARCHAR), {pattern})"));
                let reason = format!("it does not match {}", matches.pattern);
                checks.extend(self.row(problems, "matches", format!("matches({name})"), name, violated, &reason));
            }
        }
        if let Some(length) = &spec.length {
            let name = &length.column;
            let column = self.column(problems, "length", name);
            let bound = |operator: &str, bound: Option<u64>| {
                bound.and_then(|bound| {
                    Some(format!("character_length(CAST({} AS VARCHAR)) {operator} {bound}", column.as_ref()?))
                })
            };
            let bounds: Vec<_> = [bound("<", length.min), bound(">", length.max)].into_iter().flatten().collect();
            let reason = match (length.min, length.max) {
                (Some(min), Some(max)) => format!("it is not {min} to {max} characters long"),
                (Some(min), None) => format!("it is shorter than {min} characters"),
                (_, max) => format!("it is longer than {} characters", max.unwrap_or_default()),
            };
            let violated = (!bounds.is_empty()).then(|| bounds.join(" OR "));
            checks.extend(self.row(problems, "length", format!("length({name})"), name, violated, &reason));
        }
        if let Some(expression) = spec.expression.as_deref().map(str::trim) {
            match self.builder.engine.expression(expression, self.known.schema) {
                Ok(found) if *found.data_type() != DataType::Boolean => {
                    let message = format!("this is {}, neither true nor false", found.data_type());
                    problems.add_with_hint(self.inside("expression"), message, NOT_BOOLEAN);
                }
                Err(mistake) => problems.add_with_hint(self.inside("expression"), mistake.message, mistake.hint),
                Ok(_) => {
                    // A line break ends a comment at the expression's end.
                    let end = if expression.contains("--") { "\n" } else { "" };
                    let violated = Some(format!("NOT ({expression}{end})"));
                    let reason = format!("this is not true: {expression}");
                    checks.extend(self.row(
                        problems,
                        "expression",
                        format!("expression({expression})"),
                        "",
                        violated,
                        &reason,
                    ));
                }
            }
        }
        if let Some(sql) = &spec.sql {
            if spec.r#where.is_some() {
                problems.add_with_hint(
                    self.inside("where"),
                    "`where` does not go with `sql`",
                    "put the condition into the query",
                );
            }
            let number = self.at.last().and_then(|index| index.parse::<usize>().ok()).unwrap_or_default() + 1;
            let kind = CheckKind::Query { sql: sql.trim().trim_end_matches(';').to_owned() };
            checks.push(check(
                format!("sql({number})"),
                kind,
                &[],
                CheckOrigin::File(self.at.clone()),
                "the query returns this row",
            ));
        }
        checks
    }

    /// SQL that reads a column; a problem where checks cannot see it.
    fn column(&self, problems: &mut Problems, field: &str, name: &str) -> Option<String> {
        let sql = self.known.sql(name);
        if sql.is_none() {
            let valid: Vec<_> = self
                .known
                .columns
                .iter()
                .filter(|column| column.fill != ColumnSource::Key)
                .map(|column| &column.name)
                .collect();
            problems.add_with_hint(
                self.inside(field),
                format!("there is no column `{name}` to check"),
                format!("there are {}", list(&valid)),
            );
        }
        sql
    }

    fn row(
        &self,
        problems: &mut Problems,
        field: &str,
        name: String,
        column: &str,
        violated: Option<String>,
        reason: &str,
    ) -> Option<Check> {
        let violated = violated?;
        let engine = self.builder.engine;
        let violated = match &self.spec.r#where {
            Some(condition) => match engine.expression(condition, self.known.schema) {
                Ok(found) if *found.data_type() == DataType::Boolean => format!("({condition}) AND ({violated})"),
                Ok(_) => {
                    return problem(problems, self.inside("where"), "`where` is neither true nor false", NOT_BOOLEAN);
                }
                Err(mistake) => return problem(problems, self.inside("where"), &mistake.message, &mistake.hint),
            },
            None => violated,
        };
        match engine.expression(&violated, self.known.schema) {
            Ok(expression) if *expression.data_type() == DataType::Boolean => {
                let columns = if column.is_empty() { expression.columns().to_vec() } else { vec![column.to_owned()] };
                let kind = CheckKind::Row { violated };
                Some(check(name, kind, &columns, CheckOrigin::File(self.at.clone()), reason))
            }
            Ok(_) => problem(problems, self.inside(field), "the check is neither true nor false", NOT_BOOLEAN),
            Err(mistake) => problem(problems, self.inside(field), &mistake.message, &mistake.hint),
        }
    }

    /// A value of the pipeline file as an SQL literal of a column's type.
    fn literal(&self, column: &str, value: &Scalar) -> String {
        let text = literal(&value.0);
        match self.known.column(column).map(|column| &column.data_type) {
            Some(DataType::Date32) => format!("CAST({text} AS DATE)"),
            Some(DataType::Timestamp(..)) => format!("CAST({text} AS TIMESTAMP)"),
            Some(data_type) if data_type.is_numeric() && value.0.parse::<f64>().is_ok() => value.0.clone(),
            Some(DataType::Boolean) if matches!(value.0.as_str(), "true" | "false") => value.0.clone(),
            _ => text,
        }
    }
}

const NOT_BOOLEAN: &str = "compare it with something, for example `n > 0`";

fn problem(problems: &mut Problems, at: Path, message: &str, hint: &str) -> Option<Check> {
    problems.add_with_hint(at, message, hint);
    None
}

/// Puts derived and declared checks together: a declared one takes the place of a derived one of its name, unless it is
/// milder; every name is one of a kind.
pub(super) fn merge(derived: Vec<Check>, declared: &[Check]) -> Vec<Check> {
    let replaced = |check: &Check| {
        declared
            .iter()
            .any(|other| other.name == check.name && other.severity == Severity::Error && other.kind == check.kind)
    };
    let mut checks: Vec<Check> = Vec::with_capacity(derived.len() + declared.len());
    let kept: Vec<_> = derived.into_iter().filter(|check| !replaced(check)).collect();
    for mut check in kept.into_iter().chain(declared.iter().cloned()) {
        let name = check.name.clone();
        let mut number = 2;
        while checks.iter().any(|other| other.name == check.name) {
            check.name = format!("{name}#{number}");
            number += 1;
        }
        checks.push(check);
    }
    checks
}
