//! What DataFusion says of the user's SQL, in the user's words.

use datafusion::error::DataFusionError;

use super::list;

/// What DataFusion puts in front of what it says.
const PREFIXES: [&str; 9] = [
    "Error during planning: ",
    "Schema error: ",
    "SQL error: ",
    "Execution error: ",
    "Arrow error: ",
    "This feature is not implemented: ",
    "Internal error: ",
    "type_coercion",
    "caused by",
];

/// An error in planning a query or an expression; `tables` are the ones that a query can read.
pub(super) fn explain(error: &DataFusionError, tables: &[String]) -> String {
    let text = error.strip_backtrace();
    let mut text = text.split("\n\n").next().unwrap_or_default().trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim_start();
    }
    let text = text.strip_prefix("ParserError(\"").and_then(|text| text.strip_suffix("\")")).unwrap_or(text);
    if ["DDL not supported", "DML not supported", "Statement not supported"]
        .iter()
        .any(|refused| text.starts_with(refused))
    {
        return "only a query is allowed here: no DDL, no DML, no COPY, no SET".to_owned();
    }
    for (what, sign) in [
        ("an aggregate", "AggregateFunction("),
        ("a window function", "WindowFunction("),
        ("a subquery", "ScalarSubquery("),
        ("a subquery", "InSubquery("),
        ("a subquery", "Exists("),
    ] {
        if text.contains(sign) {
            return format!("{what} does not belong here: the expression is about one row; use a `sql` check");
        }
    }
    match text.split_once("table 'datafusion.") {
        Some((_, rest)) if rest.contains("not found") => {
            let name = rest.split('\'').next().unwrap_or_default();
            let name = name.strip_prefix("public.").unwrap_or(name);
            format!("there is no table `{name}` here; there are {}", list(tables))
        }
        _ => text.replace("datafusion.public.", "").replace('\n', " "),
    }
}

/// An error in an expression over columns: names those that are there.
pub(super) fn explain_columns(error: &DataFusionError, columns: &[&String]) -> String {
    let text = explain(error, &[]);
    match text.strip_prefix("No field named ") {
        Some(rest) => {
            let name = rest.split(['.', ' ']).next().unwrap_or(rest).trim_matches('"');
            let valid: Vec<_> = columns.iter().filter(|name| !name.starts_with('_')).collect();
            format!("there is no column `{name}`; there are {}", list(&valid))
        }
        None => text,
    }
}
