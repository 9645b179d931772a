//! A whole SELECT instead of `columns`: taken apart into one expression a column and a condition.
//!
//! A source row becomes at most one target row, so that its file and line stay known: the SELECT has one table, `source`,
//! and nothing that folds rows together.

use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Statement, TableFactor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// What a SELECT looks like.
pub(super) const SHAPE: &str = "write `SELECT expression AS column, … FROM source WHERE condition`";

/// The parts of a SELECT.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Target column and expression.
    pub(super) columns: Vec<(String, String)>,
    /// The condition of its WHERE.
    pub(super) filter: Option<String>,
}

/// Takes a SELECT apart.
///
/// # Errors
/// As text, where it is no SELECT or folds rows together.
pub(super) fn parts(sql: &str, source_columns: &[String]) -> Result<Parts, String> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| error.to_string())?;
    let query = match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => query,
        _ => return Err("`select` holds one SELECT and nothing else: no DDL, no DML, no COPY, no SET".into()),
    };
    let select = row_by_row(*query)?;
    let mut columns = Vec::new();
    for item in select.projection {
        match item {
            SelectItem::ExprWithAlias { expr, alias } => columns.push((alias.value, expr.to_string())),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => columns.push((name.value.clone(), name.to_string())),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) if parts.len() == 2 => {
                columns.push((parts[1].value.clone(), parts[1].to_string()));
            }
            SelectItem::Wildcard(_) => {
                columns.extend(source_columns.iter().map(|name| (name.clone(), crate::engine::ident(name))));
            }
            other => return Err(format!("name the target column: `{other} AS column`")),
        }
    }
    Ok(Parts { columns, filter: select.selection.map(|condition| condition.to_string()) })
}

fn row_by_row(query: Query) -> Result<Select, String> {
    let plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
    let SetExpr::Select(select) = *query.body else { return Err(FOLDS.into()) };
    let no_groups = matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty());
    let source = match select.from.as_slice() {
        [table] if table.joins.is_empty() => {
            matches!(&table.relation, TableFactor::Table { name, .. } if name.to_string() == "source")
        }
        _ => false,
    };
    if !(plain && source && no_groups && select.distinct.is_none() && select.having.is_none()) {
        return Err(FOLDS.into());
    }
    Ok(*select)
}

const FOLDS: &str = "a source row becomes at most one target row: write `SELECT … FROM source WHERE …`, without joins, groups, \
                     DISTINCT, ORDER BY and LIMIT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_select_is_taken_apart() {
        let names = ["a".to_owned(), "b".to_owned()];
        let found = parts("SELECT *, upper(a) AS c, source.b FROM source WHERE a <> 'x'", &names).unwrap();
        let columns: Vec<_> = found.columns.iter().map(|(name, sql)| format!("{name}={sql}")).collect();
        assert_eq!(columns, ["a=\"a\"", "b=\"b\"", "c=upper(a)", "b=b"]);
        assert_eq!(found.filter.as_deref(), Some("a <> 'x'"));
    }

    #[test]
    fn what_folds_rows_or_is_no_query_is_refused() {
        for sql in [
            "SELECT a FROM source GROUP BY a",
            "SELECT DISTINCT a FROM source",
            "SELECT a FROM source JOIN other ON true",
            "SELECT a FROM source UNION SELECT b FROM source",
            "SELECT a FROM other",
            "SELECT a FROM source LIMIT 1",
            "WITH x AS (SELECT 1) SELECT a FROM source",
            "DELETE FROM source",
            "SELECT a FROM source; DROP TABLE source",
            "COPY source TO 'x.csv'",
            "SELECT a + 1 FROM source",
        ] {
            assert!(parts(sql, &[]).is_err(), "{sql}");
        }
    }
}
