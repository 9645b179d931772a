//! The questions by which production judges rows of the delta. Both dialects have the same shape; each target brings the relation of the
//! rows, whose columns have production's types, and its own SQL of the constraints.

use crate::engine::ident;
use crate::target::database_check::{ComparedValue, DatabaseCheck, DatabaseCheckKind, new_key_column};

/// The relation of the rows, and what is known of them.
pub(in crate::target) struct AskedRows<'a> {
    /// SQL of the relation: `_row`, and the columns of the table.
    pub(in crate::target) relation: &'a str,
    /// The columns that may refer to new rows.
    pub(in crate::target) references: &'a [String],
}

/// SQL that is true for a row `s` that violates a check by itself. None if the check compares rows.
pub(in crate::target) fn violated(check: &DatabaseCheck) -> Option<String> {
    let violated = match &check.kind {
        // Each value is cast, whether it was changed or not.
        DatabaseCheckKind::Value { column, cast, changed } => {
            let fails = format!("{} IS NOT NULL AND CAST({cast} AS text) IS NULL", ident(column));
            changed.as_ref().map_or_else(|| fails.clone(), |changed| format!("{fails} OR ({changed})"))
        }
        DatabaseCheckKind::Condition(sql) => format!("({sql}) IS FALSE"),
        _ => return None,
    };
    Some(match &check.part {
        Some(condition) => format!("({condition}) IS TRUE AND ({violated})"),
        None => violated,
    })
}

/// SQL that is never true, and computes everything that a check compares. It fails if a value cannot be computed.
pub(in crate::target) fn computed(check: &DatabaseCheck) -> Option<String> {
    let (values, condition) = compared(check)?;
    let all = values.iter().map(|value| value.sql.as_str()).chain(condition.into_iter().map(String::as_str));
    let all: Vec<_> = all.map(|sql| format!("CAST(({sql}) AS text) = CAST(({sql}) AS text)")).collect();
    Some(format!("({}) IS FALSE", all.join(" AND ")))
}

/// Returns the values that a check compares with other rows, and the condition of these rows.
fn compared(check: &DatabaseCheck) -> Option<(&[ComparedValue], Option<&String>)> {
    match &check.kind {
        DatabaseCheckKind::Unique { values, condition, .. }
        | DatabaseCheckKind::Exclusion { values, condition, .. } => Some((values, condition.as_ref())),
        DatabaseCheckKind::Reference { values, .. } => Some((values, None)),
        _ => None,
    }
}

/// SQL: the compared values of the rows that a check applies to, as `_v0`, `_v1` …; `_n0` … stand for keys of new rows.
pub(in crate::target) fn compared_rows(asked: &AskedRows<'_>, check: &DatabaseCheck) -> String {
    let Some((values, condition)) = compared(check) else { return asked.relation.to_owned() };
    let mut wanted = vec!["s._row AS _row".to_owned()];
    wanted.extend(values.iter().enumerate().map(|(at, value)| format!("{} AS _v{at}", value.sql)));
    wanted.extend(news(asked, values).map(|(at, column)| format!("s.{} AS _n{at}", ident(&new_key_column(column)))));
    format!("(SELECT {} FROM {} AS s{})", wanted.join(", "), asked.relation, only(check, condition))
}

/// SQL: a WHERE for the rows that a check applies to.
fn only(check: &DatabaseCheck, condition: Option<&String>) -> String {
    let conditions = condition.into_iter().chain(check.part.as_ref());
    let conditions: Vec<_> = conditions.map(|sql| format!("({sql})")).collect();
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// Returns the places of the values that may be keys of new rows, with their columns.
fn news<'a>(asked: &'a AskedRows<'_>, values: &'a [ComparedValue]) -> impl Iterator<Item = (usize, &'a String)> {
    let column = |(at, value): (usize, &'a ComparedValue)| Some((at, value.column.as_ref()?));
    values.iter().enumerate().filter_map(column).filter(|(_, column)| asked.references.contains(column))
}

/// SQL: the rows that share all values of a check, each with the first row of its group.
pub(in crate::target) fn groups(asked: &AskedRows<'_>, check: &DatabaseCheck) -> Option<String> {
    let DatabaseCheckKind::Unique { values, nulls_equal, .. } = &check.kind else { return None };
    let is_new = |at: usize| news(asked, values).any(|(place, _)| place == at);
    let mut keys: Vec<_> = (0..values.len()).map(|at| format!("_v{at}")).collect();
    let filled = |at: usize| match is_new(at) {
        true => format!("(_v{at} IS NOT NULL OR _n{at} IS NOT NULL)"),
        false => format!("_v{at} IS NOT NULL"),
    };
    let filled: Vec<_> = (0..values.len()).map(filled).collect();
    let filled = if *nulls_equal { String::new() } else { format!(" WHERE {}", filled.join(" AND ")) };
    keys.extend(news(asked, values).map(|(at, _)| format!("_n{at}")));
    Some(format!(
        "SELECT g._row, g._first FROM (
             SELECT u._row AS _row, min(u._row) OVER w AS _first, count(*) OVER w AS _count FROM {} AS u{filled}
             WINDOW w AS (PARTITION BY {})
         ) AS g WHERE g._count > 1 ORDER BY 1",
        compared_rows(asked, check),
        keys.join(", ")
    ))
}

/// SQL: the rows whose values conflict with a row `p` of production, which `table` reads. `give` is SQL for values of `p`.
pub(in crate::target) fn existing(
    asked: &AskedRows<'_>,
    check: &DatabaseCheck,
    table: &str,
    give: &str,
) -> Option<String> {
    let (values, condition) = compared(check)?;
    let nulls_equal = match &check.kind {
        DatabaseCheckKind::Unique { nulls_equal, .. } => *nulls_equal,
        DatabaseCheckKind::Exclusion { .. } => false,
        _ => return None,
    };
    let theirs: Vec<_> = values.iter().enumerate().map(|(at, value)| format!("{} AS _v{at}", value.sql)).collect();
    let same = values.iter().enumerate().map(|(at, value)| {
        let same = format!("p._v{at} {} u._v{at}", value.operator);
        let is_new = news(asked, values).any(|(place, _)| place == at);
        match (nulls_equal, is_new) {
            (false, _) => same,
            (true, false) => format!("({same} OR p._v{at} IS NULL AND u._v{at} IS NULL)"),
            (true, true) => format!("({same} OR p._v{at} IS NULL AND u._v{at} IS NULL AND u._n{at} IS NULL)"),
        }
    });
    let condition = only(check, condition);
    Some(format!(
        "SELECT u._row AS _id{give} FROM {} AS u JOIN (SELECT p.*, {} FROM {table} AS p{condition}) AS p ON {}",
        compared_rows(asked, check),
        theirs.join(", "),
        same.collect::<Vec<_>>().join(" AND ")
    ))
}

/// SQL: the pairs of rows that conflict. `compared` reads the rows of [`compared_rows`].
pub(in crate::target) fn conflicts(check: &DatabaseCheck, compared: &str) -> Option<String> {
    let DatabaseCheckKind::Exclusion { values, .. } = &check.kind else { return None };
    let conflict: Vec<_> =
        values.iter().enumerate().map(|(at, value)| format!("a._v{at} {} b._v{at}", value.operator)).collect();
    Some(format!(
        "SELECT a._row, b._row FROM {compared} AS a JOIN {compared} AS b ON a._row < b._row AND {} ORDER BY 2, 1",
        conflict.join(" AND ")
    ))
}

/// SQL: the rows whose values no row of a referenced table has.
pub(in crate::target) fn orphans(asked: &AskedRows<'_>, check: &DatabaseCheck, to: &str) -> Option<String> {
    let DatabaseCheckKind::Reference { values, to_columns, .. } = &check.kind else { return None };
    let filled: Vec<_> = (0..values.len()).map(|at| format!("u._v{at} IS NOT NULL")).collect();
    let same: Vec<_> = values
        .iter()
        .zip(to_columns)
        .enumerate()
        .map(|(at, (value, column))| format!("r.{} {} u._v{at}", ident(column), value.operator))
        .collect();
    Some(format!(
        "SELECT u._row, 0 FROM {} AS u WHERE {} AND NOT EXISTS (SELECT 1 FROM {to} AS r WHERE {})",
        compared_rows(asked, check),
        filled.join(" AND "),
        same.join(" AND ")
    ))
}
