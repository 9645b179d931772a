//! The checks of a table: built-in ones, those derived from production's catalog, and those of the pipeline file.

use arrow::datatypes::{DataType, Schema};

use super::columns::Builder;
use super::{Check, CheckKind, CheckOrigin, Column, ColumnSource, Key, Reference, Unique};
use crate::diagnostic::{Path, Problems};
use crate::engine::{ident, list, literal};
use crate::path;
use crate::spec::{AcceptedValues, CheckSpec, Length, Matches, Scalar, Severity};
use crate::target::{
    CatalogColumn, CatalogTable, CheckConstraint, ComparedValue, Condition, DatabaseCheck, DatabaseCheckKind,
    ForeignKey, LogicalType,
};

/// The facts about a table that its checks are made from.
pub(super) struct CatalogFacts<'a> {
    pub(super) table: &'a CatalogTable,
    pub(super) columns: &'a [Column],
    pub(super) references: &'a [Reference],
    pub(super) key: &'a Key,
    /// The columns whose final value a trigger of production decides.
    pub(super) triggered: &'a [String],
    /// The columns that row checks may name.
    pub(super) schema: &'a Schema,
}

impl CatalogFacts<'_> {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Returns SQL that reads a column in a check. A reference is compared by the text that it is resolved from.
    fn sql(&self, name: &str) -> Option<String> {
        match &self.column(name)?.fill {
            ColumnSource::Computed(_) => Some(ident(name)),
            ColumnSource::Reference(reference) => Some(ident(&self.references.get(*reference)?.text_column())),
            ColumnSource::Key | ColumnSource::Default => None,
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

/// Returns the checks of every run: readable records, present and new legacy keys, and values that can be cast.
pub(super) fn always(known: &CatalogFacts<'_>, legacy_key: &[String], filter: Option<&String>) -> Vec<Check> {
    let mut checks = vec![
        check("parse".into(), CheckKind::Parse, &[], CheckOrigin::Builtin, "unreadable record"),
        check(
            "legacy_key".into(),
            CheckKind::LegacyKey,
            legacy_key,
            CheckOrigin::Builtin,
            "NULL or duplicate legacy key",
        ),
        check("key_map".into(), CheckKind::KeyMap, legacy_key, CheckOrigin::Builtin, "already converted"),
    ];
    if filter.is_some() {
        let reason = "cannot evaluate the WHERE of `select`";
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
            format!("expected {}", wanted(&column.data_type, form)),
        ));
        if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) = column.data_type {
            let kind = CheckKind::Precision { column: column.name.clone() };
            let reason = format!("too many digits: at most {precision} in total, {scale} after the decimal point");
            checks.push(check(format!("precision({})", column.name), kind, name, CheckOrigin::Builtin, reason));
        }
    }
    checks
}

fn wanted(data_type: &DataType, form: &LogicalType) -> String {
    match (form, data_type) {
        (LogicalType::Integer(bits), _) => format!("a {bits}-bit integer"),
        (LogicalType::Single, _) => "a single-precision number".into(),
        (LogicalType::Number { .. }, _) => "a decimal number that fits the column".into(),
        (LogicalType::Text | LogicalType::Padded | LogicalType::Opaque, _) => "text without NUL characters".into(),
        (LogicalType::Bytes, _) => "bytes (`\\x` and hexadecimal digits, or text)".into(),
        (LogicalType::Uuid, _) => "a UUID".into(),
        (LogicalType::Json | LogicalType::Jsonb, _) => "JSON".into(),
        (LogicalType::Interval, _) => "an interval (`1 year 2 days 03:00:00` or `P1Y2DT3H`)".into(),
        (LogicalType::ZonedTime, _) => "a time with an offset (hh:mm:ss+hh:mm)".into(),
        (LogicalType::Range(_), _) => "a range (`[a,b)`) whose bounds its type keeps".into(),
        (LogicalType::Multirange(_), _) => "a multirange (`{[a,b)}`) whose bounds its type keeps".into(),
        (LogicalType::Composite(_), _) => "a composite value (`(1,,\"a\")`) whose columns its type keeps".into(),
        (LogicalType::Unforeseen, _) => "no value: the type changes values silently".into(),
        (LogicalType::Array(_), _) => "an array (`{1,2,NULL}`) of its type".into(),
        (LogicalType::Plain, data_type) => match data_type {
            DataType::Date32 => "a date (YYYY-MM-DD)".into(),
            DataType::Int16 | DataType::Int32 | DataType::Int64 => "an integer".into(),
            DataType::Float32 | DataType::Float64 => "a number".into(),
            DataType::Decimal128(..) | DataType::Decimal256(..) => "a decimal number".into(),
            DataType::Boolean => "a boolean".into(),
            DataType::Timestamp(_, Some(_)) => "a timestamp with an offset (YYYY-MM-DD hh:mm:ss+hh:mm)".into(),
            DataType::Timestamp(..) => "a timestamp (YYYY-MM-DD hh:mm:ss)".into(),
            DataType::Time64(_) => "a time (hh:mm:ss)".into(),
            other => other.to_string().to_lowercase(),
        },
    }
}

/// Returns the checks that production's catalog declares, and its constraints that no check can express.
pub(super) fn derived(builder: &Builder<'_>, known: &CatalogFacts<'_>) -> (Vec<Check>, Vec<String>) {
    let mut derived =
        Derived { builder, known, checks: Vec::new(), unsupported: builder.table.unsupported_constraints.clone() };
    for column in &builder.table.columns {
        derived.column(column);
    }
    for constraint in &builder.table.checks {
        derived.constraint(constraint);
    }
    derived.uniques();
    for key in &builder.table.foreign_keys {
        derived.foreign_key(key);
    }
    for check in &builder.table.database_checks {
        derived.database(check);
    }
    (derived.checks, derived.unsupported)
}

struct Derived<'a> {
    builder: &'a Builder<'a>,
    known: &'a CatalogFacts<'a>,
    checks: Vec<Check>,
    /// Constraints that no check can express.
    unsupported: Vec<String>,
}

impl Derived<'_> {
    fn column(&mut self, column: &CatalogColumn) {
        let Some(sql) = self.known.sql(&column.name) else { return };
        let name = std::slice::from_ref(&column.name);
        let is_key = self.builder.table.primary_key.contains(&column.name);
        if (column.not_null || is_key) && !self.known.triggered.contains(&column.name) {
            let kind = CheckKind::Row { violated: format!("{sql} IS NULL") };
            let origin = CheckOrigin::Catalog(if is_key { "PRIMARY KEY" } else { "NOT NULL" }.to_owned());
            let reason = format!("NULL in a {} column", if is_key { "PRIMARY KEY" } else { "NOT NULL" });
            self.checks.push(check(format!("not_null({})", column.name), kind, name, origin, reason));
        }
        let computed =
            self.known.column(&column.name).is_some_and(|column| matches!(column.fill, ColumnSource::Computed(_)));
        if let Some(most) = column.max_length.filter(|_| computed) {
            let kind = CheckKind::Row { violated: format!("character_length({sql}) > {most}") };
            let origin = CheckOrigin::Catalog(column.declared.clone());
            let reason = format!("longer than {most} characters");
            self.checks.push(check(format!("length({})", column.name), kind, name, origin, reason));
        }
    }

    fn constraint(&mut self, constraint: &CheckConstraint) {
        let violated = format!("NOT ({})", constraint.sql);
        match self.builder.engine.expression(&violated, self.known.schema) {
            Ok(expression) if expression.columns().iter().any(|name| self.known.triggered.contains(name)) => {
                self.unsupported.push(format!(
                    "CHECK ({}), because a trigger decides {}",
                    constraint.sql,
                    list(self.known.triggered)
                ));
            }
            Ok(expression) if *expression.data_type() == DataType::Boolean => {
                let declared = format!("CHECK ({})", constraint.sql);
                let reason = constraint.reason.clone().unwrap_or_else(|| format!("violates {declared}"));
                let (name, origin) = (format!("check({})", constraint.name), CheckOrigin::Catalog(declared));
                self.checks.push(check(name, CheckKind::Row { violated }, expression.columns(), origin, reason));
                if let Some(own) = constraint.own.as_ref().filter(|own| own.beyond_ascii) {
                    self.database(&DatabaseCheck { name: format!("{} beyond ASCII", own.name), ..(**own).clone() });
                }
            }
            // A constraint that the target adds automatically concerns only values of the delta.
            _ if constraint.reason.is_some() => {}
            _ => match &constraint.own {
                Some(own) => self.database(&DatabaseCheck { beyond_ascii: false, ..(**own).clone() }),
                None => self.unsupported.push(format!("CHECK ({})", constraint.sql)),
            },
        }
    }

    /// Adds checks for unique constraints, for the primary key, and for the row's key.
    fn uniques(&mut self) {
        let (table, known) = (self.builder.table, self.known);
        let own_key = match known.key {
            Key::Assigned { .. } => &[],
            Key::Inherited(columns) | Key::Own(columns) => columns.as_slice(),
        };
        for unique in &table.uniques {
            let is_evaluated = self.unique(&unique.columns, &unique.ignore_case, unique.condition.as_ref(), "UNIQUE");
            if let (false, Some(own)) = (is_evaluated, &unique.own) {
                self.unsupported.pop();
                self.database(own);
            }
        }
        self.unique(&table.primary_key, &table.primary_key_ignore_case, None, "PRIMARY KEY");
        if own_key != table.primary_key {
            self.unique(own_key, &[], None, "the key");
        }
    }

    /// Adds the check of a unique constraint. Returns whether the engine can evaluate it.
    fn unique(
        &mut self,
        columns: &[String],
        ignore_case: &[String],
        condition: Option<&Condition>,
        declared: &str,
    ) -> bool {
        let known = self.known;
        // New numbers are free, and production keeps the values of its defaults unique.
        let is_new = |name: &String| {
            known.column(name).is_some_and(|column| matches!(column.fill, ColumnSource::Key | ColumnSource::Default))
        };
        if columns.is_empty() || columns.iter().any(is_new) {
            return true;
        }
        let computable = |condition: &Condition| self.builder.engine.expression(&condition.sql, known.schema).is_ok();
        let is_decided = columns.iter().any(|name| known.triggered.contains(name));
        if columns.iter().all(|name| known.sql(name).is_some()) && condition.is_none_or(computable) && !is_decided {
            let inferred = self.builder.catalog.guessed;
            let origin = if inferred { CheckOrigin::Builtin } else { CheckOrigin::Catalog(declared.to_owned()) };
            self.checks.push(unique(columns, ignore_case, condition, origin));
            true
        } else {
            let about = condition.map_or(String::new(), |condition| format!(" WHERE {}", condition.own));
            self.unsupported.push(format!("{declared} ({}){about}", columns.join(", ")));
            false
        }
    }

    /// Adds a constraint that production judges before the rows are inserted.
    fn database(&mut self, database: &DatabaseCheck) {
        let known = self.known;
        if self.is_checked_as_whole(&database.name) {
            return;
        }
        // Production assigns these values when it inserts the row.
        let is_decided = |name: &String| known.triggered.contains(name);
        let is_unknown = |name: &String| match known.column(name) {
            _ if is_decided(name) => true,
            Some(column) => column.fill == ColumnSource::Key,
            None => self.builder.table.numbered.contains(name),
        };
        let is_new =
            |value: &ComparedValue| value.column.as_ref().is_some_and(|name| is_unknown(name) && !is_decided(name));
        let name = match &database.kind {
            DatabaseCheckKind::Value { column, .. } if known.column(column).is_none() => return,
            // No other row has a new value.
            DatabaseCheckKind::Unique { values, .. } if values.iter().any(is_new) => return,
            _ => &database.name,
        };
        let is_value = matches!(database.kind, DatabaseCheckKind::Value { .. });
        if !is_value && database.columns.iter().any(is_unknown) {
            self.unsupported.push(format!("{name}: {}", database.declared));
            return;
        }
        let (origin, reason) = (CheckOrigin::Catalog(database.declared.clone()), reason(database));
        let filled = database.columns.iter().filter(|name| known.column(name).is_some()).cloned().collect::<Vec<_>>();
        self.checks.push(check(name.clone(), CheckKind::Database(database.clone()), &filled, origin, reason));
    }

    fn foreign_key(&mut self, key: &ForeignKey) {
        let known = self.known;
        let fills: Vec<_> =
            key.columns.iter().filter_map(|name| known.column(name)).map(|column| &column.fill).collect();
        if fills.len() < key.columns.len() {
            return;
        }
        self.half(key);
        if fills.iter().all(|fill| matches!(fill, ColumnSource::Computed(_))) {
            let kind = CheckKind::ForeignKey {
                columns: key.columns.clone(),
                to: key.to.clone(),
                to_columns: key.to_columns.clone(),
            };
            let name = format!("relationship({})", key.columns.join(", "));
            let origin = CheckOrigin::Catalog(format!("REFERENCES {} ({})", key.to, key.to_columns.join(", ")));
            let reason = format!("`{}` has no such row", key.to);
            self.checks.push(check(name, kind, &key.columns, origin, reason));
        } else if !self.is_one_reference(&fills) {
            self.database(&key.database_check());
        }
    }
}

/// Returns why a row that production judges is rejected, unless production gives a reason.
fn reason(check: &DatabaseCheck) -> String {
    let declared = &check.declared;
    match &check.kind {
        DatabaseCheckKind::Value { .. } => format!("the type {declared} does not keep this value"),
        DatabaseCheckKind::Condition(_) if check.name == "partition" => {
            format!("no partition accepts the row: {declared}")
        }
        DatabaseCheckKind::Condition(_) => format!("violates {declared}"),
        DatabaseCheckKind::Unique { .. } => "duplicate values".into(),
        DatabaseCheckKind::Exclusion { .. } => format!("conflicts with another row by {declared}"),
        DatabaseCheckKind::Reference { to, .. } => format!("`{to}` has no such row"),
    }
}

impl Derived<'_> {
    /// Returns whether columns are filled with the key of one referenced row.
    fn is_one_reference(&self, fills: &[&ColumnSource]) -> bool {
        let first = |fill: &&ColumnSource| match fill {
            ColumnSource::Reference(reference) => Some(self.known.references.get(*reference)?.first),
            _ => None,
        };
        let firsts: Option<Vec<_>> = fills.iter().map(first).collect();
        firsts.is_some_and(|firsts| firsts.iter().all(|one| Some(one) == firsts.first()))
    }

    /// Returns whether a check of production is one of a foreign key that [`Self::half`] has added.
    fn is_checked_as_whole(&self, name: &str) -> bool {
        let is_added = |key: &ForeignKey| {
            let whole = format!("whole({})", key.columns.join(", "));
            name == format!("match_full({})", key.name) && self.checks.iter().any(|check| check.name == whole)
        };
        self.builder.table.foreign_keys.iter().any(is_added)
    }

    /// Adds a check for rows in which only some columns of a foreign key are NULL. Production rejects them, or accepts them as rows that
    /// refer to nothing. If a column is NOT NULL, the others alone say whether a row refers to one.
    fn half(&mut self, key: &ForeignKey) {
        let known = self.known;
        let nulls: Option<Vec<_>> =
            key.columns.iter().map(|name| known.sql(name).map(|sql| format!("{sql} IS NULL"))).collect();
        let Some(nulls) = nulls.filter(|nulls| nulls.len() > 1) else { return };
        let not_null = |name: &String| known.table.column(name).is_some_and(|column| column.not_null);
        if !key.match_full && key.columns.iter().any(not_null) {
            return;
        }
        let kind = CheckKind::Row { violated: format!("({}) AND NOT ({})", nulls.join(" OR "), nulls.join(" AND ")) };
        let origin = CheckOrigin::Catalog(format!("REFERENCES {} ({})", key.to, key.to_columns.join(", ")));
        let (name, columns) = (format!("whole({})", key.columns.join(", ")), list(&key.columns));
        let reason = match key.match_full {
            true => format!("only some of {columns} are NULL (MATCH FULL)"),
            false => format!("only some of {columns} are NULL, so the row refers to no row of `{}`", key.to),
        };
        let severity = if key.match_full { Severity::Error } else { Severity::Warn };
        self.checks.push(Check { severity, ..check(name, kind, &key.columns, origin, reason) });
    }
}

fn unique(columns: &[String], ignore_case: &[String], condition: Option<&Condition>, origin: CheckOrigin) -> Check {
    let unique = Unique { columns: columns.to_vec(), ignore_case: ignore_case.to_vec(), condition: condition.cloned() };
    let about = condition.map_or(String::new(), |condition| format!(" where {}", condition.sql));
    check(
        format!("unique({}{about})", columns.join(", ")),
        CheckKind::Unique(unique),
        columns,
        origin,
        "duplicate values",
    )
}

/// Returns the checks of references: the referenced row exists.
pub(super) fn references(known: &CatalogFacts<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (index, reference) in known.references.iter().enumerate().filter(|(index, one)| one.first == *index) {
        let same = known.references.iter().filter(|other| other.first == index);
        let columns: Vec<_> = same.map(|reference| reference.column.clone()).collect();
        let only =
            reference.condition.as_ref().map_or(String::new(), |condition| format!(" for which {}", condition.sql));
        let reason = match reference.by.as_slice() {
            [] => format!("`{}` has no row with this legacy key in the delta or the key map", reference.to),
            [by] => format!("`{}` has no row with this `{by}`{only}", reference.to),
            by => format!("`{}` has no row with these values of {}{only}", reference.to, list(by)),
        };
        let (name, kind) =
            (format!("relationship({})", columns.join(", ")), CheckKind::Relationship { reference: index });
        checks.push(check(name, kind, &columns, CheckOrigin::Builtin, reason));
    }
    checks
}

/// Returns the checks that the pipeline file declares.
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
        let mut checks = Vec::new();
        for name in self.spec.not_null.iter().flatten() {
            let violated = self.column(problems, "not_null", name).map(|column| format!("{column} IS NULL"));
            checks.extend(self.row(problems, "not_null", format!("not_null({name})"), name, violated, "NULL"));
        }
        checks.extend(self.unique(problems));
        checks.extend(self.accepted_values(problems));
        checks.extend(self.range(problems));
        checks.extend(self.matches(problems));
        checks.extend(self.length(problems));
        checks.extend(self.expression(problems));
        checks.extend(self.query(problems));
        checks
    }

    fn unique(&self, problems: &mut Problems) -> Option<Check> {
        let columns = self.spec.unique.as_ref()?;
        if self.spec.r#where.is_some() {
            problems.add_with_hint(self.inside("where"), "`where` cannot be used with `unique`", "use a `sql` check");
        }
        let all = columns.iter().filter_map(|name| self.column(problems, "unique", name)).count() == columns.len();
        all.then(|| unique(columns, &[], None, CheckOrigin::File(self.at.clone())))
    }

    fn accepted_values(&self, problems: &mut Problems) -> Option<Check> {
        let AcceptedValues { column: name, values } = self.spec.accepted_values.as_ref()?;
        let literals: Vec<_> = values.iter().map(|value| self.literal(name, value)).collect();
        let violated = self
            .column(problems, "accepted_values", name)
            .map(|column| format!("{column} NOT IN ({})", literals.join(", ")));
        let accepted: Vec<_> = values.iter().map(|value| value.0.as_str()).collect();
        let reason = format!("expected one of {}", accepted.join(", "));
        self.row(problems, "accepted_values", format!("accepted_values({name})"), name, violated, &reason)
    }

    fn range(&self, problems: &mut Problems) -> Option<Check> {
        let range = self.spec.range.as_ref()?;
        let name = &range.column;
        let column = self.column(problems, "range", name);
        let bound = |operator: &str, bound: &Option<Scalar>| {
            let bound = bound.as_ref()?;
            Some(format!("{} {operator} {}", column.as_ref()?, self.literal(name, bound)))
        };
        let bounds: Vec<_> = [bound("<", &range.min), bound(">", &range.max)].into_iter().flatten().collect();
        let reason = match (&range.min, &range.max) {
            (Some(min), Some(max)) => format!("not between {} and {}", min.0, max.0),
            (Some(min), None) => format!("less than {}", min.0),
            (_, max) => format!("greater than {}", max.as_ref().map_or("", |max| &max.0)),
        };
        let violated = (!bounds.is_empty()).then(|| bounds.join(" OR "));
        self.row(problems, "range", format!("range({name})"), name, violated, &reason)
    }

    fn matches(&self, problems: &mut Problems) -> Option<Check> {
        let Matches { column: name, pattern } = self.spec.matches.as_ref()?;
        let literal = literal(pattern);
        let trial = self.builder.engine.expression(&format!("regexp_like('x', {literal})"), &Schema::empty());
        if let Err(mistake) = trial {
            let cause = mistake.hint.lines().last().unwrap_or_default().trim_start_matches("error: ");
            return problem(problems, self.inside("matches"), "invalid regular expression", cause);
        }
        let violated = self
            .column(problems, "matches", name)
            .map(|column| format!("NOT regexp_like(CAST({column} AS VARCHAR), {literal})"));
        let reason = format!("does not match {pattern}");
        self.row(problems, "matches", format!("matches({name})"), name, violated, &reason)
    }

    fn length(&self, problems: &mut Problems) -> Option<Check> {
        let Length { column: name, min, max } = self.spec.length.as_ref()?;
        let column = self.column(problems, "length", name);
        let bound = |operator: &str, bound: Option<u64>| {
            Some(format!("character_length(CAST({} AS VARCHAR)) {operator} {}", column.as_ref()?, bound?))
        };
        let bounds: Vec<_> = [bound("<", *min), bound(">", *max)].into_iter().flatten().collect();
        let reason = match (min, max) {
            (Some(min), Some(max)) => format!("length is not between {min} and {max} characters"),
            (Some(min), None) => format!("shorter than {min} characters"),
            (_, max) => format!("longer than {} characters", max.unwrap_or_default()),
        };
        let violated = (!bounds.is_empty()).then(|| bounds.join(" OR "));
        self.row(problems, "length", format!("length({name})"), name, violated, &reason)
    }

    fn expression(&self, problems: &mut Problems) -> Option<Check> {
        let expression = self.spec.expression.as_deref()?.trim();
        match self.builder.engine.expression(expression, self.known.schema) {
            Ok(found) if *found.data_type() != DataType::Boolean => {
                let message = format!("expected a boolean expression, found {}", found.data_type());
                problem(problems, self.inside("expression"), &message, NOT_BOOLEAN)
            }
            Err(mistake) => problem(problems, self.inside("expression"), &mistake.message, &mistake.hint),
            Ok(_) => {
                // A line break ends a comment at the expression's end.
                let end = if expression.contains("--") { "\n" } else { "" };
                let violated = Some(format!("NOT ({expression}{end})"));
                let reason = format!("not true: {expression}");
                self.row(problems, "expression", format!("expression({expression})"), "", violated, &reason)
            }
        }
    }

    fn query(&self, problems: &mut Problems) -> Option<Check> {
        let sql = self.spec.sql.as_ref()?;
        if self.spec.r#where.is_some() {
            let hint = "move the condition into the query";
            problems.add_with_hint(self.inside("where"), "`where` cannot be used with `sql`", hint);
        }
        let number = self.at.last().and_then(|index| index.parse::<usize>().ok()).unwrap_or_default() + 1;
        let kind = CheckKind::Query { sql: sql.trim().trim_end_matches(';').to_owned() };
        let origin = CheckOrigin::File(self.at.clone());
        Some(check(format!("sql({number})"), kind, &[], origin, "returned by the query"))
    }

    /// Returns SQL that reads a column; adds a problem if checks cannot read it.
    fn column(&self, problems: &mut Problems, field: &str, name: &str) -> Option<String> {
        let sql = self.known.sql(name);
        if sql.is_none() {
            let valid: Vec<_> = self
                .known
                .columns
                .iter()
                .filter(|column| !matches!(column.fill, ColumnSource::Key | ColumnSource::Default))
                .map(|column| &column.name)
                .collect();
            problems.add_with_hint(
                self.inside(field),
                format!("no column `{name}` to check"),
                format!("the columns are {}", list(&valid)),
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
                    return problem(problems, self.inside("where"), "`where` is not a boolean expression", NOT_BOOLEAN);
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
            Ok(_) => problem(problems, self.inside(field), "the check is not a boolean expression", NOT_BOOLEAN),
            Err(mistake) => problem(problems, self.inside(field), &mistake.message, &mistake.hint),
        }
    }

    /// Returns a value of the pipeline file as an SQL literal of a column's type.
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

const NOT_BOOLEAN: &str = "write a comparison, for example `n > 0`";

fn problem(problems: &mut Problems, at: Path, message: &str, hint: &str) -> Option<Check> {
    problems.add_with_hint(at, message, hint);
    None
}

/// Merges derived and declared checks, and numbers duplicate names. A declared check replaces an equal derived one
/// unless its severity is lower.
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
