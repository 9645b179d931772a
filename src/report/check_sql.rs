//! Each check as the SQL that it stands for.

use crate::engine::{ident, literal};
use crate::plan::{CheckKind, Table, Unique};

/// A query for the rows that fail a check, for people. `d` is the delta, `production` production, and `key_map` the history of the key map.
pub fn check_sql(table: &Table, kind: &CheckKind) -> String {
    let name = ident(&table.name);
    let exists = |place: &str, to: &str, pairs: &[(String, String)]| {
        let on: Vec<_> = pairs.iter().map(|(there, here)| format!("p.{} = d.{}", ident(there), ident(here))).collect();
        format!("NOT EXISTS (SELECT 1 FROM {place}{} p WHERE {})", ident(to), on.join(" AND "))
    };
    match kind {
        CheckKind::Parse => "-- the reader of the file's format".into(),
        CheckKind::Filter => format!("-- the WHERE of `select`: {}", table.filter.as_deref().unwrap_or_default()),
        CheckKind::LegacyKey => format!("SELECT _key FROM {name} d GROUP BY _key HAVING _key IS NULL OR count(*) > 1"),
        CheckKind::KeyMap => format!(
            "SELECT _row FROM {name} d\nWHERE EXISTS (SELECT 1 FROM key_map.{name} k WHERE k.legacy_key = d._key)"
        ),
        CheckKind::Cast { column } | CheckKind::Precision { column } => {
            let found = table.computed().find(|(computed, _)| computed.name == *column);
            let (wanted, sql) = found.map_or((String::new(), ""), |(column, sql)| (column.data_type.to_string(), sql));
            format!(
                "SELECT _row FROM source d\nWHERE ({sql}) IS NOT NULL\n  AND arrow_try_cast({sql}, {}) IS DISTINCT FROM ({sql})",
                literal(&wanted)
            )
        }
        CheckKind::Row { violated } => format!("SELECT _row FROM {name} d\nWHERE {violated}"),
        CheckKind::Unique(Unique { columns, condition, .. }) => {
            let here: Vec<_> = columns.iter().map(|column| ident(&table.kept_column(column))).collect();
            let here = here.join(", ");
            let about = condition.as_ref().map_or(String::new(), |condition| format!(" WHERE {}", condition.sql));
            format!(
                "SELECT {here} FROM {name} d{about} GROUP BY {here} HAVING count(*) > 1\n-- and none of these values in production.{name}{about}"
            )
        }
        CheckKind::Relationship { reference } => {
            let reference = &table.references[*reference];
            let text = reference.text_column();
            let pair = |there: &str| [(there.to_owned(), text.clone())];
            let places = match &reference.by {
                Some(by) => exists("production.", &reference.to, &pair(by)),
                None => format!(
                    "{}\n  AND {}",
                    exists("", &reference.to, &pair("_key")),
                    exists("key_map.", &reference.to, &pair("legacy_key"))
                ),
            };
            format!("SELECT _row FROM {name} d\nWHERE d.{} IS NOT NULL\n  AND {places}", ident(&text))
        }
        CheckKind::ParentRejected { reference } => {
            let reference = &table.references[*reference];
            format!(
                "SELECT d._row FROM {name} d\nJOIN {} p ON p._key = d.{}\n-- where p is rejected",
                ident(&reference.to),
                ident(&reference.text_column())
            )
        }
        CheckKind::ForeignKey { columns, to, to_columns } => {
            let pairs: Vec<_> = to_columns.iter().cloned().zip(columns.iter().cloned()).collect();
            format!("SELECT _row FROM {name} d\nWHERE {}", exists("production.", to, &pairs))
        }
        CheckKind::Query { sql } => sql.clone(),
    }
}
