//! The checks as SQL for people.

use crate::engine::{ident, literal};
use crate::plan::{CheckKind, Table, Unique};

/// Returns a query for the rows that fail a check. `d` is the delta; `production` and `key_map` are the schemas of the live tables and the key map.
pub fn check_sql(table: &Table, kind: &CheckKind) -> String {
    let name = ident(&table.name);
    let missing = |schema: &str, to: &str, pairs: &[(String, String)]| {
        let on: Vec<_> =
            pairs.iter().map(|(theirs, ours)| format!("p.{} = d.{}", ident(theirs), ident(ours))).collect();
        format!("NOT EXISTS (SELECT 1 FROM {schema}{} p WHERE {})", ident(to), on.join(" AND "))
    };
    match kind {
        CheckKind::Parse => "-- reported by the reader of the file format".into(),
        CheckKind::Filter => format!("-- the filter of the table: {}", table.filter.as_deref().unwrap_or_default()),
        CheckKind::LegacyKey => format!("SELECT _key FROM {name} d GROUP BY _key HAVING _key IS NULL OR count(*) > 1"),
        CheckKind::KeyMap => format!(
            "SELECT _row FROM {name} d\nWHERE EXISTS (SELECT 1 FROM key_map.{name} k WHERE k.legacy_key = d._key)"
        ),
        CheckKind::Cast { column } | CheckKind::Precision { column } => {
            let computed = table.computed().find(|(computed, _)| computed.name == *column);
            let (data_type, sql) =
                computed.map_or((String::new(), ""), |(column, sql)| (column.data_type.to_string(), sql));
            format!(
                "SELECT _row FROM source d\nWHERE ({sql}) IS NOT NULL\n  AND arrow_try_cast({sql}, {}) IS DISTINCT FROM ({sql})",
                literal(&data_type)
            )
        }
        CheckKind::Row { violated } => format!("SELECT _row FROM {name} d\nWHERE {violated}"),
        CheckKind::Unique(Unique { columns, condition, .. }) => {
            let names: Vec<_> = columns.iter().map(|column| ident(&table.kept_column(column))).collect();
            let names = names.join(", ");
            let filter = condition.as_ref().map_or(String::new(), |condition| format!(" WHERE {}", condition.sql));
            format!(
                "SELECT {names} FROM {name} d{filter} GROUP BY {names} HAVING count(*) > 1\n-- also fails if production.{name}{filter} has these values"
            )
        }
        CheckKind::Relationship { reference } => {
            let reference = &table.references[*reference];
            let text = reference.text_column();
            let pair = |column: &str| [(column.to_owned(), text.clone())];
            let conditions = match reference.by.as_slice() {
                [_, ..] => missing("production.", &reference.to, &pair(&reference.by.join(", "))),
                [] => format!(
                    "{}\n  AND {}",
                    missing("", &reference.to, &pair("_key")),
                    missing("key_map.", &reference.to, &pair("legacy_key"))
                ),
            };
            format!("SELECT _row FROM {name} d\nWHERE d.{} IS NOT NULL\n  AND {conditions}", ident(&text))
        }
        CheckKind::ParentRejected { reference } => {
            let reference = &table.references[*reference];
            format!(
                "SELECT d._row FROM {name} d\nJOIN {} p ON p._key = d.{}\n-- if p is rejected",
                ident(&reference.to),
                ident(&reference.text_column())
            )
        }
        CheckKind::ForeignKey { columns, to, to_columns } => {
            let pairs: Vec<_> = to_columns.iter().cloned().zip(columns.iter().cloned()).collect();
            format!("SELECT _row FROM {name} d\nWHERE {}", missing("production.", to, &pairs))
        }
        CheckKind::Database(check) => format!("-- judged by production: {}", check.declared),
        CheckKind::Query { sql } => sql.clone(),
    }
}
