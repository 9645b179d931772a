//! The values that a mock run writes into columns that production fills from a sequence.
//!
//! A rollback does not return numbers to a sequence. So a mock run does not call sequences and writes numbers itself. It uses numbers that
//! the sequence would reach only after other programs are done with theirs. If an index keeps the next numbers unique, using those would
//! block other programs' inserts until the mock run ends.

use std::ops::Range;

use super::super::catalog::{Numbered, PgColumn};
use super::super::names::qualified;
use super::super::types::PgType;
use super::PgLoad;
use crate::engine::ident;
use crate::error::{Error, Result};
use crate::target::Destination;

/// The distance between a mock run's numbers and the sequence's next ones, if the sequence is long enough.
const CLEAR: i128 = 1 << 20;

/// The distance from a sequence's beginning that is assumed unused if this user cannot read its position.
const FAR: i128 = 1_000_000_000;

/// A column that a mock run fills with the number of a sequence.
pub(super) struct NumberedColumn {
    pub(super) column: String,
    /// SQL for its value in a staged row `s`.
    pub(super) sql: String,
    /// Whether the SQL means the same with every search path.
    pub(super) is_qualified: bool,
}

/// A call of `nextval` in a default: its position, and its argument as an SQL literal.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Call {
    pub(in super::super) place: Range<usize>,
    pub(in super::super) names: String,
}

struct Sequence {
    shown: String,
    /// The next number; None if this user cannot read it.
    next: Option<i128>,
    increment: i128,
    /// The first and the last possible number.
    ends: (i128, i128),
    cycles: bool,
    /// Whether this user may call the sequence.
    granted: bool,
}

impl Sequence {
    /// Returns how many numbers remain, beginning with this one.
    fn left(&self, from: i128) -> i128 {
        ((self.ends.1 - from) / self.increment + 1).max(0)
    }

    /// Returns the first of this many numbers at a distance from the next ones; None if too few remain.
    fn clear(&self, rows: i128) -> Option<i128> {
        let from = self.next.filter(|next| self.left(*next) >= rows);
        // At its end, a cycling sequence begins again. A sequence that cannot be read may be anywhere in its range.
        let from = from.or_else(|| (self.cycles || self.next.is_none()).then_some(self.ends.0))?;
        let left = self.left(from) - rows;
        let skipped = left.min(if self.next.is_none() { FAR } else { CLEAR });
        (left >= 0).then_some(from + skipped * self.increment)
    }
}

impl PgLoad {
    /// Returns whether a sequence fills a column of this table that the delta omits.
    pub(super) fn would_take_numbers(&self, destination: &Destination) -> bool {
        self.numbered(destination).next().is_some()
    }

    fn numbered<'a>(&'a self, destination: &'a Destination) -> impl Iterator<Item = (&'a PgColumn, &'a Numbered)> {
        let columns = self.known.tables.get(&destination.table.name).into_iter().flat_map(|table| &table.columns);
        let left_out = columns.filter(|column| !destination.columns.contains(&column.name));
        left_out.filter_map(|column| Some((column, column.numbered.as_ref()?)))
    }

    /// Returns the columns that sequences fill. A default that production cannot evaluate for this user stays unchanged.
    pub(super) async fn numbers(&self, destination: &Destination) -> Result<Vec<NumberedColumn>> {
        let mut values = Vec::new();
        for (column, default) in self.numbered(destination) {
            let (mut sql, mut is_qualified) = (default.sql.clone(), false);
            for call in calls(&default.sql).into_iter().rev() {
                let Some(sequence) = self.sequence(&call.names, &column.pg_type).await? else { continue };
                if sequence.granted || default.is_identity {
                    is_qualified = call.place == (0..default.sql.len());
                    let number = self.number(destination, column, &sequence, is_qualified).await?;
                    sql.replace_range(call.place, &number);
                }
            }
            values.push(NumberedColumn { column: column.name.clone(), sql, is_qualified });
        }
        Ok(values)
    }

    /// Returns SQL for an unused number of a sequence, for each staged row.
    async fn number(
        &self,
        destination: &Destination,
        column: &PgColumn,
        sequence: &Sequence,
        is_value: bool,
    ) -> Result<String> {
        let fault = self.fault("cannot look for numbers of a mock run");
        let staged = self.staged(destination);
        let rows = format!("SELECT coalesce(max(_row) + 1, 0) FROM {}", staged.rows());
        let rows = i128::from(self.main.query_one(&rows, &[]).await.map_err(&fault)?.get::<_, i64>(0));
        let Some(mut first) = sequence.clear(rows) else {
            let left = sequence.next.map_or(0, |next| sequence.left(next));
            return Err(Error::data(format!(
                "cannot insert into `{}`: the sequence {} of `{}` has {left} numbers left, and {rows} rows take one each",
                staged.table(),
                sequence.shown,
                column.name
            ))
            .hint("nothing was loaded; give the sequence a larger MAXVALUE, or fill the column"));
        };
        // Numbers that conflict in the mock run would conflict in the run as well.
        let is_indexed = destination.table.uniques.iter().map(|unique| &unique.columns);
        let is_indexed =
            is_indexed.chain([&destination.table.primary_key]).any(|columns| columns.first() == Some(&column.name));
        if let Some(next) = sequence.next.filter(|_| is_value && is_indexed) {
            let length = (rows - 1).max(0) * sequence.increment;
            let taken = |from: i128| {
                let (least, most) = (from.min(from + length), from.max(from + length));
                format!(
                    "EXISTS (SELECT FROM {} AS p WHERE p.{} BETWEEN {least} AND {most})",
                    staged.live(),
                    ident(&column.name)
                )
            };
            let sql = format!("SELECT {} OR {}", taken(next), taken(first));
            if self.main.query_one(&sql, &[]).await.map_err(&fault)?.get(0) {
                first = next;
            }
        }
        Ok(format!(
            "({first}::bigint OPERATOR(pg_catalog.+) ({}::bigint OPERATOR(pg_catalog.*) s._row))",
            sequence.increment
        ))
    }

    /// Returns SQL for the number that a sequence would give in row `g.n`; None if this user cannot read it.
    pub(super) async fn next_number(&self, name: &str, column: &PgColumn) -> Result<Option<String>> {
        let Some(sequence) = self.sequence(name, &column.pg_type).await? else { return Ok(None) };
        let Some(next) = sequence.next else { return Ok(None) };
        Ok(Some(format!("({next}::bigint + {}::bigint * (g.n - 1))", sequence.increment)))
    }

    /// Returns a sequence by its name; None if it does not exist.
    async fn sequence(&self, name: &str, of: &PgType) -> Result<Option<Sequence>> {
        let fault = self.fault("cannot look at a sequence");
        let sql = format!(
            "SELECT n.nspname, c.relname, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
                    has_sequence_privilege(c.oid, 'USAGE, UPDATE'), has_sequence_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
             FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE s.seqrelid = to_regclass({name})"
        );
        let Some(row) = self.main.query_opt(&sql, &[]).await.map_err(&fault)? else { return Ok(None) };
        let shown = qualified(row.get(0), row.get(1));
        let number = |at: usize| i128::from(row.get::<_, i64>(at));
        let (increment, min, max) = (number(2), number(3), number(4));
        // A column's type may be narrower than its sequence's.
        let (min, max) = match of {
            PgType::Int2 => (min.max(i16::MIN.into()), max.min(i16::MAX.into())),
            PgType::Int4 => (min.max(i32::MIN.into()), max.min(i32::MAX.into())),
            _ => (min, max),
        };
        let mut next = None;
        if row.get(7) {
            let sql = format!("SELECT last_value, is_called FROM {shown}");
            let row = self.main.query_one(&sql, &[]).await.map_err(&fault)?;
            let step = if row.get(1) { increment } else { 0 };
            next = Some(i128::from(row.get::<_, i64>(0)) + step);
        }
        let ends = if increment > 0 { (min, max) } else { (max, min) };
        Ok(Some(Sequence { shown, next, increment, ends, cycles: row.get(5), granted: row.get(6) }))
    }

    /// Returns the sequences that gave numbers in this transaction. Each holds a lock of this kind, which proves it.
    pub(super) async fn sequences_moved(&self) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT n.nspname, c.relname FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
                   JOIN pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE l.pid = pg_backend_pid() AND l.mode = 'RowExclusiveLock' AND c.relkind = 'S' ORDER BY 1, 2";
        let moved = self.main.query(sql, &[]).await.map_err(self.fault("cannot look at the sequences"))?;
        Ok(moved.iter().map(|row| qualified(row.get(0), row.get(1))).collect())
    }
}

/// Returns the calls of `nextval` in an expression as the server prints it.
pub(in super::super) fn calls(sql: &str) -> Vec<Call> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(char) = sql[at..].chars().next() {
        let rest = &sql[at..];
        at += match char {
            '\'' | '"' => quoted(rest),
            char if char.is_alphabetic() || char == '_' => match call(rest).filter(|_| !sql[..at].ends_with('.')) {
                Some((length, names)) => {
                    found.push(Call { place: at..at + length, names: names.to_owned() });
                    length
                }
                None => rest.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(rest.len()),
            },
            char => char.len_utf8(),
        };
    }
    found
}

/// Returns the length of the call at the start of a text, and its argument; None if the argument is not a literal.
fn call(sql: &str) -> Option<(usize, &str)> {
    let argument = sql.strip_prefix("nextval(")?;
    let (inner, cast) = match argument.strip_prefix('(') {
        Some(inner) => (inner, "::text)::regclass)"),
        None => (argument, "::regclass)"),
    };
    let names = inner.get(..quoted(inner)).filter(|names| names.starts_with('\''))?;
    let rest = inner[names.len()..].strip_prefix(cast)?;
    Some((sql.len() - rest.len(), names))
}

/// Returns the length of the string or quoted name at the start of a text.
fn quoted(sql: &str) -> usize {
    let mut chars = sql.char_indices();
    let Some((_, quote)) = chars.next() else { return 0 };
    let mut chars = chars.peekable();
    while let Some((at, char)) = chars.next() {
        if char == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    sql.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_nextval_are_found_where_they_are_calls() {
        let of =
            |sql: &str| calls(sql).into_iter().map(|call| (sql[call.place].to_owned(), call.names)).collect::<Vec<_>>();
        let one = |call: &str, names: &str| vec![(call.to_owned(), names.to_owned())];
        let plain = "nextval('a.\"b''\"'::regclass)";
        assert_eq!(of(plain), one(plain, "'a.\"b''\"'"));
        let late = "nextval(('a'::text)::regclass)";
        assert_eq!(of(&format!("('A'::text || lpad(({late})::text, 5, '0'::text))")), one(late, "'a'"));
        assert_eq!(of(&format!("({plain} + {late})")).len(), 2);
        for none in [
            "'nextval(''a''::regclass)'::text",
            "\"nextval\"('a'::regclass)",
            "x.nextval('a'::regclass)",
            "my_nextval('a'::regclass)",
            "nextval(f('a'))",
        ] {
            assert_eq!(of(none), [], "{none}");
        }
    }

    fn sequence(next: Option<i128>, increment: i128, ends: (i128, i128), cycles: bool) -> Sequence {
        Sequence { shown: String::new(), next, increment, ends, cycles, granted: true }
    }

    #[test]
    fn numbers_of_a_mock_run_are_clear_of_the_next_ones() {
        let most = i128::from(i64::MAX);
        assert_eq!(sequence(Some(5), 1, (1, most), false).clear(10), Some(5 + CLEAR));
        assert_eq!(sequence(Some(5), 50, (1, most), false).clear(10), Some(5 + 50 * CLEAR));
        assert_eq!(sequence(Some(-5), -1, (-1, -most), false).clear(10), Some(-5 - CLEAR));
        assert_eq!(sequence(Some(5), 1, (1, 100), false).clear(10), Some(91));
        assert_eq!(sequence(Some(91), 1, (1, 100), false).clear(10), Some(91));
        assert_eq!(sequence(Some(92), 1, (1, 100), false).clear(10), None);
        assert_eq!(sequence(Some(92), 1, (1, 100), true).clear(10), Some(91));
        assert_eq!(sequence(Some(92), 1, (1, 100), true).clear(101), None);
        assert_eq!(sequence(None, 1, (1, 100), false).clear(10), Some(91));
        assert_eq!(sequence(None, 1, (1, most), false).clear(10), Some(1 + FAR));
        assert_eq!(sequence(None, -2, (100, 1), false).clear(10), Some(20));
    }
}
