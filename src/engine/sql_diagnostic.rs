//! Explanations of DataFusion's errors for the author of the SQL.

use std::fmt;

use datafusion::error::DataFusionError;

use super::{bounded, list};

/// Prefixes of DataFusion's messages.
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

/// A mistake in the user's SQL, for a message at its location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlDiagnostic {
    /// The message.
    pub message: String,
    /// The hint.
    pub hint: String,
}

impl SqlDiagnostic {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for SqlDiagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Explains an error of a query or an expression; `tables` and `columns` are the names it can use.
pub(super) fn explain(error: &DataFusionError, tables: &[String], columns: &[&String]) -> SqlDiagnostic {
    let text = error.strip_backtrace();
    let mut text = text.split("\n\n").next().unwrap_or_default().trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim_start();
    }
    if let Some(text) = text.strip_prefix("ParserError(\"").and_then(|text| text.strip_suffix("\")")) {
        return SqlDiagnostic::new(format!("invalid SQL: {text}"), "check for a missing bracket, quote, or operand");
    }
    if text.ends_with("RecursionLimitExceeded") {
        return SqlDiagnostic::new(
            "the SQL is nested too deeply",
            "remove brackets, or compute a part in another column",
        );
    }
    if text.ends_with(bounded::ARE_THE_MOST) {
        return SqlDiagnostic::new(text, "shorten the constant, or move it to the delta");
    }
    if ["DDL not supported", "DML not supported", "Statement not supported"]
        .iter()
        .any(|refused| text.starts_with(refused))
    {
        let message = "only a query is allowed here: no DDL, DML, COPY, or SET";
        return SqlDiagnostic::new(message, "write one SELECT that returns the failing rows");
    }
    for (what, sign) in [
        ("an aggregate", "AggregateFunction("),
        ("a window function", "WindowFunction("),
        ("a subquery", "ScalarSubquery("),
        ("a subquery", "InSubquery("),
        ("a subquery", "Exists("),
    ] {
        if text.contains(sign) {
            return SqlDiagnostic::new(
                format!("{what} is not allowed in an expression over one row"),
                "use a `sql` check",
            );
        }
    }
    if let Some(rest) = text.strip_prefix("No field named ") {
        let name = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split(['.', ' ']).next(),
        };
        let name = name.unwrap_or(rest);
        let valid: Vec<_> = columns.iter().filter(|name| !name.starts_with('_')).collect();
        return SqlDiagnostic::new(format!("no column `{name}`"), nearest(name, &valid));
    }
    if let Some((_, rest)) = text.split_once("table 'datafusion.")
        && rest.contains("not found")
    {
        let name = rest.split('\'').next().unwrap_or_default();
        let name = name.strip_prefix("public.").unwrap_or(name);
        return SqlDiagnostic::new(format!("no table `{name}`"), format!("the tables are {}", list(tables)));
    }
    let text = text.replace("datafusion.public.", "");
    let (message, more) = text.split_once('\n').unwrap_or((&text, ""));
    let hint = match more.trim() {
        "" => {
            "check the SQL against DataFusion's dialect; cast values of different types, for example `CAST(x AS DATE)`"
        }
        more => more,
    };
    SqlDiagnostic::new(message.trim_end_matches('.'), hint)
}

/// Returns a hint with the most similar name, or with all names.
fn nearest(name: &str, valid: &[&&String]) -> String {
    let distance = |other: &&&String| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    match valid.iter().min_by_key(|other| distance(other)).filter(|other| distance(other) <= 2) {
        Some(near) if near.chars().any(char::is_uppercase) => {
            format!("did you mean `\"{near}\"`? names with capitals need quotes")
        }
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the columns are {}", list(valid)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use crate::engine::{Engine, Limits, Space};

    fn engine() -> Engine {
        Engine::try_new(Limits::default()).unwrap()
    }

    #[test]
    fn wrong_expression_is_explained_with_the_next_step() {
        let schema =
            Schema::new(vec![Field::new("email", DataType::Utf8, true), Field::new("Ref No", DataType::Utf8, true)]);
        for (sql, message, hint) in [
            ("lower(emial)", "no column `emial`", "did you mean `email`?"),
            ("upper(\"ref no\")", "no column `ref no`", "did you mean `\"Ref No\"`? names with capitals need quotes"),
            (
                "lower(",
                "invalid SQL: Expected: an expression, found: EOF",
                "check for a missing bracket, quote, or operand",
            ),
            ("count(*)", "an aggregate is not allowed in an expression over one row", "use a `sql` check"),
            ("lowr(email)", "Invalid function 'lowr'", "Did you mean 'lower'?"),
        ] {
            let mistake = engine().expression(sql, &schema).unwrap_err();
            assert_eq!((mistake.message.as_str(), mistake.hint.as_str()), (message, hint), "{sql}");
        }
    }

    #[tokio::test]
    async fn anything_but_a_query_over_known_tables_is_refused() {
        let engine = engine();
        let schema = Arc::new(Schema::new(vec![Field::new("_row", DataType::Int64, false)]));
        engine.register_batches(Space::Delta, "account", schema, Vec::new()).unwrap();
        for sql in [
            "DELETE FROM account",
            "CREATE TABLE x AS SELECT 1",
            "COPY account TO 'x.csv'",
            "SET x = 1",
            "SELECT 1; SELECT 2",
            "SELECT _row FROM 'x.csv'",
            "SELECT * FROM information_schema.tables",
            "SELECT _row FROM account WHERE random() < 0.5",
        ] {
            assert!(engine.plan(sql).await.is_err(), "{sql}");
        }
        assert!(engine.plan("SELECT _row FROM account").await.is_ok());
    }
}
