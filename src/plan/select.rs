//! Splits the SELECT that replaces `columns` into one expression per column, and a condition.
//!
//! A source row becomes at most one target row, so that its file and line stay known. The SELECT therefore reads one
//! table, `source`, and does not combine rows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, TableFactor,
    visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The hint for an invalid SELECT.
pub(super) const SHAPE: &str = "write `SELECT expression AS column, … FROM source WHERE condition`";

/// The parts of a SELECT.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Target columns, each with its expression.
    pub(super) columns: Vec<(String, String)>,
    /// The condition of its WHERE.
    pub(super) filter: Option<String>,
}

/// Splits a SELECT into its parts.
///
/// # Errors
/// Returns the problem, as text, of anything but a row-by-row SELECT with an optional WHERE.
pub(super) fn parts(sql: &str, source_columns: &[String]) -> Result<Parts, String> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| error.to_string())?;
    let (Some(Statement::Query(query)), true) = (statements.pop(), statements.is_empty()) else {
        return Err("expected one SELECT and no other statement".into());
    };
    let mut select = row_by_row(*query)?;
    let mut columns = Vec::new();
    for item in select.projection {
        match item {
            SelectItem::ExprWithAlias { expr, alias } => columns.push((alias.value, expr.to_string())),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => columns.push((name.value.clone(), name.to_string())),
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
                columns.extend(source_columns.iter().map(|name| (name.clone(), crate::engine::ident(name))));
            }
            other => return Err(format!("a column needs a name: `{other} AS column`")),
        }
    }
    let mut seen = BTreeSet::new();
    if let Some((name, _)) = columns.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(format!(
            "`{name}` is defined twice; list the columns instead of `*`, which includes every source column"
        ));
    }
    Ok(Parts { columns, filter: select.selection.take().map(|condition| condition.to_string()) })
}

/// Returns the SELECT of a query that consists of expressions, `FROM source`, and WHERE, with `source.` removed from
/// column names.
///
/// The allowed parts are rendered again and compared with the query, so that no clause of any dialect is dropped
/// silently.
fn row_by_row(query: Query) -> Result<Select, String> {
    let written = query.to_string();
    let SetExpr::Select(mut select) = *query.body else { return Err(PLAIN.into()) };
    let source = match select.from.as_slice() {
        [table] => match &table.relation {
            TableFactor::Table { name, .. } if is_source(&name.to_string()) => name.to_string(),
            _ => return Err(PLAIN.into()),
        },
        _ => return Err(PLAIN.into()),
    };
    let items: Vec<_> = select.projection.iter().map(plain_item).collect();
    let condition = select.selection.as_ref().map_or(String::new(), |condition| format!(" WHERE {condition}"));
    let plain = format!("SELECT {} FROM {source}{condition}", items.join(", "));
    if written != plain {
        return Err(format!("`{}` is not allowed: {PLAIN}", first_difference(&written, &plain)));
    }
    if let ControlFlow::Break(what) = visit_expressions(&*select, reads_other_rows) {
        return Err(what);
    }
    let mut unqualified = |expression: &mut Expr| {
        if let Expr::CompoundIdentifier(parts) = expression
            && let [table, column] = parts.as_slice()
            && is_source(&table.to_string())
        {
            *expression = Expr::Identifier(column.clone());
        }
        ControlFlow::<()>::Continue(())
    };
    match visit_expressions_mut(&mut *select, &mut unqualified) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => Ok(*select),
    }
}

/// Renders an item of the projection without the options that some dialects allow after `*`.
fn plain_item(item: &SelectItem) -> String {
    match item {
        SelectItem::Wildcard(_) => "*".into(),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _)
            if is_source(&name.to_string()) =>
        {
            format!("{name}.*")
        }
        SelectItem::QualifiedWildcard(..) => String::new(),
        other => other.to_string(),
    }
}

fn is_source(name: &str) -> bool {
    name == "\"source\"" || name.eq_ignore_ascii_case("source")
}

/// Breaks with the reason if an expression cannot be computed from one row.
fn reads_other_rows(expression: &Expr) -> ControlFlow<String> {
    match expression {
        Expr::Function(function) if function.over.is_some() => ControlFlow::Break(format!(
            "`{}` is a window function, which reads other rows; to find duplicates, use `unique` and `duplicates: first`",
            function.name
        )),
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(
            "a subquery reads other rows; to find a key, use `relationships`; to query production, use a `sql` check"
                .into(),
        ),
        _ => ControlFlow::Continue(()),
    }
}

/// Returns the part of a query that differs from the plain one, from the beginning of the word.
fn first_difference(written: &str, plain: &str) -> String {
    let same: usize = written.chars().zip(plain.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let word = written[..same].rfind(' ').map_or(0, |space| space + 1);
    let rest =
        if same < written.len() && written[same..].starts_with(' ') { &written[same + 1..] } else { &written[word..] };
    match rest.char_indices().nth(40) {
        Some((end, _)) => format!("{} …", &rest[..end]),
        None => rest.to_owned(),
    }
}

const PLAIN: &str = "write only `SELECT … FROM source WHERE …`, because a source row becomes at most one target row";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_select_is_split_into_parts() {
        let names = ["a".to_owned(), "b".to_owned()];
        let found =
            parts("SELECT *, upper(source.a) AS c, source.d FROM source WHERE source.a <> 'x'", &names).unwrap();
        let columns: Vec<_> = found.columns.iter().map(|(name, sql)| format!("{name}={sql}")).collect();
        assert_eq!(columns, ["a=\"a\"", "b=\"b\"", "c=upper(a)", "d=d"]);
        assert_eq!(found.filter.as_deref(), Some("a <> 'x'"));
        let found = parts("select source.* from SOURCE -- all of it", &names).unwrap();
        assert_eq!((found.columns.len(), found.filter), (2, None));
        assert!(parts("SELECT \"a b\" AS a, CASE WHEN b THEN 1 END AS b FROM \"source\";", &names).is_ok());
    }

    #[test]
    fn a_select_that_combines_rows_is_refused() {
        for sql in [
            "SELECT a FROM source GROUP BY a",
            "SELECT DISTINCT a FROM source",
            "SELECT a FROM source JOIN other ON true",
            "SELECT a FROM source, source",
            "SELECT a FROM source UNION SELECT b FROM source",
            "SELECT a FROM other",
            "SELECT a FROM source LIMIT 1",
            "SELECT a FROM source OFFSET 1",
            "WITH x AS (SELECT 1) SELECT a FROM source",
            "DELETE FROM source",
            "SELECT a FROM source; DROP TABLE source",
            "COPY source TO 'x.csv'",
            "SELECT a + 1 FROM source",
            "(SELECT a FROM source)",
        ] {
            assert!(parts(sql, &[]).is_err(), "{sql}");
        }
    }

    #[test]
    fn no_clause_is_dropped_silently() {
        for sql in [
            "SELECT * REPLACE (upper(a) AS a) FROM source",
            "SELECT * EXCLUDE (a) FROM source",
            "SELECT * EXCEPT (a) FROM source",
            "SELECT * RENAME (a AS c) FROM source",
            "SELECT * ILIKE '%a%' FROM source",
            "SELECT source.* EXCLUDE (a) FROM source",
            "SELECT other.* FROM source",
            "SELECT a FROM source FETCH FIRST 1 ROW ONLY",
            "SELECT TOP 1 a FROM source",
            "SELECT a FROM source QUALIFY row_number() OVER (ORDER BY a) = 1",
            "SELECT a FROM source TABLESAMPLE BERNOULLI (10)",
            "SELECT a INTO b FROM source",
            "SELECT a FROM source FOR UPDATE",
            "SELECT a FROM source SORT BY a",
            "SELECT a FROM source CLUSTER BY a",
            "SELECT a FROM source DISTRIBUTE BY a",
            "SELECT a FROM source LATERAL VIEW explode(a) t AS b",
            "SELECT a FROM source AS s",
            "SELECT a FROM source AS s (a, b)",
            "SELECT a FROM source SETTINGS x = 1",
            "SELECT a FROM source FORMAT CSV",
            "SELECT a FROM source PREWHERE a = 1",
            "SELECT a FROM source HAVING a = 1",
            "SELECT a FROM source WINDOW w AS (ORDER BY a)",
            "SELECT a FROM source ORDER BY a",
            "SELECT AS STRUCT a FROM source",
            "SELECT a FROM source WITH (NOLOCK)",
            "SELECT a FROM source('x')",
            "SELECT a FROM source PARTITION (p)",
            "SELECT a FROM source FOR SYSTEM_TIME AS OF '2020-01-01'",
            "FROM source SELECT a",
            "FROM source",
            "SELECT a FROM source |> LIMIT 1",
        ] {
            assert!(parts(sql, &["a".into(), "b".into()]).is_err(), "{sql}");
        }
    }

    #[test]
    fn a_disallowed_part_is_named() {
        let refused = |sql: &str| parts(sql, &["a".into()]).unwrap_err();
        assert!(refused("SELECT a FROM source FETCH FIRST 1 ROW ONLY").starts_with("`FETCH FIRST 1 ROWS ONLY` is"));
        assert!(refused("SELECT * EXCLUDE (a) FROM source").starts_with("`EXCLUDE (a) FROM source` is"));
        assert!(
            refused("SELECT s.a FROM source s").starts_with("`s` is not allowed"),
            "{}",
            refused("SELECT s.a FROM source s")
        );
    }

    #[test]
    fn an_expression_reads_only_its_own_row() {
        let refused = |sql: &str| parts(sql, &["a".into()]).unwrap_err();
        assert!(
            refused("SELECT 1 + row_number() OVER () AS a FROM source").contains("`row_number` is a window function")
        );
        assert!(refused("SELECT a FROM source WHERE a IN (SELECT b FROM c)").contains("a subquery reads other rows"));
        assert!(refused("SELECT (SELECT 1) AS a FROM source").contains("a subquery reads other rows"));
    }

    #[test]
    fn a_target_column_is_given_once() {
        for sql in ["SELECT *, upper(a) AS a FROM source", "SELECT a, b AS a FROM source"] {
            assert!(parts(sql, &["a".into()]).unwrap_err().starts_with("`a` is defined twice"), "{sql}");
        }
    }
}
