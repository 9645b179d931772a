//! Production's own code, which runs inside this program's statements: the settings that it expects, and its errors.
//!
//! A trigger of production names tables without a schema as other programs do, and computes dates in their time zone. So while the session
//! inserts and commits, it has the server's settings for this login and not its own.

use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Row};

use super::names::{LOADER, Names, TableId};
use crate::engine::literal;
use crate::error::Error;

/// SQL for the settings of this program, until the transaction ends.
pub(super) const OURS: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL row_security = off;
    SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL TimeZone = 'UTC';
    SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'";

/// Returns SQL for the settings of the database and this login, until the transaction ends or [`OURS`] are set.
///
/// Other roles may create operators, functions, and types in the schemas of this search path. So SQL that is parsed after it must qualify
/// all of them.
///
/// The schema `"$user"` is the login's, whatever role it took. Production's schema comes last, for a login without a search path. Casts
/// depend on the other settings, so those are not changed with `as_cast`.
pub(super) fn production_settings(names: &Names, as_cast: bool) -> String {
    let schemas = std::iter::once(&names.production).chain(&names.schemas);
    let schemas: Vec<_> = schemas.map(|schema| format!("pg_catalog.quote_ident({})", literal(schema))).collect();
    let path = format!(
        "SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ',
             nullif(pg_catalog.replace(s.reset_val, '\"$user\"', pg_catalog.quote_ident(session_user)), ''), {}), true)
         FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'search_path'",
        schemas.join(", ")
    );
    let others = ["row_security", "DateStyle", "IntervalStyle", "TimeZone", "extra_float_digits", "bytea_output"];
    let others = if as_cast { &others[..1] } else { &others[..] };
    let others: String = others.iter().map(|name| format!("SET LOCAL {name} TO DEFAULT; ")).collect();
    format!("SET LOCAL search_path = pg_catalog, pg_temp; {others}{path}")
}

/// Error codes that do not come from a function of production: the server or another session ended the statement.
const OF_THE_SERVER: [&SqlState; 8] = [
    &SqlState::LOCK_NOT_AVAILABLE,
    &SqlState::QUERY_CANCELED,
    &SqlState::T_R_DEADLOCK_DETECTED,
    &SqlState::T_R_SERIALIZATION_FAILURE,
    &SqlState::DISK_FULL,
    &SqlState::OUT_OF_MEMORY,
    &SqlState::ADMIN_SHUTDOWN,
    &SqlState::CRASH_SHUTDOWN,
];

/// Returns the function of production that raised an error: the outermost, which is a trigger's if a trigger called it.
pub(super) fn function(error: &DbError) -> Option<&str> {
    if OF_THE_SERVER.contains(&error.code()) {
        return None;
    }
    let frames = error.where_()?.lines().filter_map(signature);
    frames.take_while(|frame| !frame.starts_with("delta.")).last()
}

/// Returns the function named in a line of an error's context, in any language: `PL/pgSQL function audited() line 3 at SQL statement`.
fn signature(line: &str) -> Option<&str> {
    if line.starts_with("PL/") {
        let open = line.find('(')?;
        let close = open + line[open..].find(')')? + 1;
        let start = line[..open].rfind(' ').map_or(0, |at| at + 1);
        return Some(&line[start..close]);
    }
    // For SQL functions, the server prints the bare name in quotation marks.
    let name = line.strip_prefix("SQL function \"")?;
    name.find('"').map(|end| &name[..end])
}

/// Returns the row that a COPY was at, counted from 1.
pub(super) fn copied_row(error: &DbError) -> Option<u64> {
    let line = error.where_()?.lines().rev().find(|line| line.starts_with("COPY "))?;
    // The table's name may contain digits and commas; the number follows it.
    let number = line.rsplit(", ").find_map(|part| part.split_whitespace().find_map(|word| word.parse().ok()));
    number.filter(|row| *row > 0)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) name: String,
}

/// Returns the triggers of these tables and their partitions that call a function.
pub(super) async fn calling(
    client: &Client,
    function: &str,
    tables: &[(String, String)],
) -> Result<Vec<Trigger>, tokio_postgres::Error> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
    let sql = "SELECT DISTINCT w.schema, w.name, t.tgname::text FROM unnest($1::text[], $2::text[]) AS w (schema, name)
               JOIN pg_namespace AS n ON n.nspname = w.schema JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name
               CROSS JOIN LATERAL (SELECT c.oid AS oid UNION SELECT relid FROM pg_partition_tree(c.oid)) AS part
               JOIN pg_trigger AS t ON t.tgrelid = part.oid AND NOT t.tgisinternal
               JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS o ON o.oid = p.pronamespace
               WHERE $3 IN (format('%I()', p.proname), format('%I.%I()', o.nspname, p.proname)) ORDER BY 1, 2, 3";
    let rows = client.query(sql, &[&schemas, &names, &function]).await?;
    Ok(rows.iter().map(|row| Trigger { schema: row.get(0), table: row.get(1), name: row.get(2) }).collect())
}

/// Returns notes on the functions of these tables' triggers. A function without SECURITY DEFINER has the rights of the role that inserts.
pub(super) async fn notes(client: &Client, tables: &[(String, String)]) -> Result<Vec<String>, tokio_postgres::Error> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
    let sql = "SELECT w.name, string_agg(DISTINCT t.tgname::text, ', '), p.oid::regprocedure::text
               FROM unnest($1::text[], $2::text[]) AS w (schema, name)
               JOIN pg_namespace AS n ON n.nspname = w.schema JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name
               CROSS JOIN LATERAL (SELECT c.oid AS oid UNION SELECT relid FROM pg_partition_tree(c.oid)) AS part
               JOIN pg_trigger AS t ON t.tgrelid = part.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 4 <> 0
               JOIN pg_proc AS p ON p.oid = t.tgfoid AND NOT p.prosecdef
               JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname NOT IN ('internal', 'c') GROUP BY 1, 3 ORDER BY 1, 2";
    let rows = client.query(sql, &[&schemas, &names]).await?;
    let note = |row: &Row| {
        let (table, triggers, function): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        format!(
            "`{table}`: the trigger {triggers} runs `{function}` with the rights of `{LOADER}`: grant that role what the function needs, \
             or make it SECURITY DEFINER"
        )
    };
    Ok(rows.iter().map(note).collect())
}

impl Trigger {
    /// Returns its table in the notation of [`TableId::relation`].
    pub(super) fn relation(&self) -> String {
        TableId { namespace: String::new(), schema: self.schema.clone(), name: self.table.clone() }.relation()
    }
}

/// Names the source of an error: the triggers that call its function, or else the function.
pub(super) fn named(error: &DbError, triggers: &[Trigger]) -> String {
    let names: Vec<_> = triggers.iter().map(|trigger| format!("`{}`", trigger.name)).collect();
    match names.as_slice() {
        [] => format!("function `{}`", function(error).unwrap_or_default()),
        [one] => format!("trigger {one}"),
        more => format!("triggers {}", more.join(", ")),
    }
}

/// Returns the message of an error, and its location in the function.
pub(super) fn reason(error: &DbError) -> String {
    let detail = error.detail().map(|detail| format!("; {detail}")).unwrap_or_default();
    let place = error.where_().and_then(|place| place.lines().find(|line| signature(line).is_some()));
    format!("{}{detail} ({})", error.message(), place.unwrap_or_default())
}

/// Returns whether an error is about the function, whatever the row: a right or an object is missing.
pub(super) fn is_about_itself(error: &DbError) -> bool {
    ["42", "3F"].contains(&&error.code().code()[..2])
}

/// Explains an error in production's own code; None if it is from elsewhere.
pub(super) fn explain(error: &DbError, triggers: &[Trigger]) -> Option<Error> {
    function(error)?;
    let message = format!("production's {} failed: {}", named(error, triggers), reason(error));
    Some(match error.code() {
        &SqlState::INSUFFICIENT_PRIVILEGE => Error::pipeline(message).hint(
            "nothing was changed; a trigger runs with the rights of the role that writes: grant that role what its function needs, or make \
             the function SECURITY DEFINER",
        ),
        _ if is_about_itself(error) => Error::pipeline(message).hint(
            "nothing was changed; a trigger runs with the search path of the database and the login: set it with ALTER ROLE … SET \
             search_path, or have its function name the schema",
        ),
        _ => Error::data(message).hint("nothing was changed; a trigger or a function of production raised this"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_is_found_in_error_context_of_any_language() {
        let cases = [
            ("PL/pgSQL function audited() line 3 at SQL statement", Some("audited()")),
            ("PL/pgSQL-Funktion app.\"It's\"() Zeile 3 bei RAISE", Some("app.\"It's\"()")),
            ("PL/pgSQL function pay(integer,text) line 3 at RAISE", Some("pay(integer,text)")),
            ("SQL function \"total\" statement 1", Some("total")),
            ("SQL statement \"INSERT INTO audit VALUES (lower(what))\"", None),
            ("COPY account, line 3", None),
        ];
        for (line, expected) in cases {
            assert_eq!(signature(line), expected, "{line}");
        }
    }
}
