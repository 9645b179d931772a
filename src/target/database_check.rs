//! Constraints that only production can evaluate: it is asked in its own SQL about the rows of the delta, before anything is written.

use arrow::array::RecordBatch;

use super::Batches;
use crate::engine::RowNumber;
use crate::error::Result;

/// A constraint of production that the engine cannot evaluator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseCheck {
    /// The name of the check in reports.
    pub name: String,
    /// The columns of the table that it reads, also through generated columns.
    pub columns: Vec<String>,
    /// The requirement.
    pub kind: DatabaseCheckKind,
    /// The constraint as production declares it.
    pub declared: String,
    /// The condition of the rows of the partition that it belongs to; None for all rows.
    pub part: Option<String>,
    /// Whether the engine evaluates it for all rows except those with non-ASCII text in one of the columns.
    pub beyond_ascii: bool,
}

/// The requirement of a [`DatabaseCheck`]. All SQL is production's own, with unqualified columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseCheckKind {
    /// The column's type accepts the value and keeps it. The condition is true for values that it would change; None if it changes none.
    Value {
        /// The column.
        column: String,
        /// SQL for the value in the column's type. The column is the value as text.
        cast: String,
        /// SQL that is true for a value that the cast changes.
        changed: Option<String>,
    },
    /// The condition is not false.
    Condition(String),
    /// No two rows have the same values.
    Unique {
        /// The values.
        values: Vec<ComparedValue>,
        /// The condition of the rows that it applies to; None for all rows.
        condition: Option<String>,
        /// Whether NULL equals NULL.
        nulls_equal: bool,
    },
    /// No two rows have values that conflict: each pair of values satisfies its operator.
    Exclusion {
        /// The values with their operators.
        values: Vec<ComparedValue>,
        /// The condition of the rows that it applies to; None for all rows.
        condition: Option<String>,
        /// The access method of an index that finds conflicts; None without an index.
        method: Option<String>,
    },
    /// A row of production has the values, unless one of them is NULL.
    Reference {
        /// The referencing columns with their operators.
        values: Vec<ComparedValue>,
        /// The referenced table.
        to: String,
        /// The referenced columns.
        to_columns: Vec<String>,
    },
}

/// A value that is compared with that of another row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedValue {
    /// SQL for the value.
    pub sql: String,
    /// The column, if the value is one.
    pub column: Option<String>,
    /// The operator of the comparison, in SQL.
    pub operator: String,
}

/// A question about rows of the delta.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseCheckRequest<'a> {
    /// The table of production.
    pub table: &'a str,
    /// The checks.
    pub checks: &'a [&'a DatabaseCheck],
    /// The columns that the rows fill; production fills all others.
    pub filled: &'a [String],
    /// The filled columns that may refer to new rows. The rows then have `_new_<column>`, a number that stands for the key.
    pub references: &'a [String],
    /// The columns of production to return for a row that exists there.
    pub give: &'a [String],
}

impl DatabaseCheckRequest<'_> {
    /// Returns the columns of the rows that the checks read.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        self.filled.iter().filter(|name| self.checks.iter().any(|check| check.columns.contains(name)))
    }
}

/// The rows of a question: `_row`, [`DatabaseCheckRequest::columns`], and `_new_<column>` of those that are references. They can be read
/// more than once.
pub trait DatabaseCheckRows: Sync {
    /// Streams the rows.
    ///
    /// # Errors
    /// If the rows cannot be read.
    fn rows(&self) -> Result<Batches<'_>>;
}

/// Production's answer about one check.
#[derive(Debug, Clone, Default)]
pub struct DatabaseCheckResult {
    /// The rows that violate it, with production's reason if it gave one.
    pub rows: Vec<(RowNumber, Option<String>)>,
    /// The rows that share values: a row, and the first row of its group.
    pub groups: Vec<(RowNumber, RowNumber)>,
    /// The pairs of rows that conflict without being equal: the earlier row, and the later one.
    pub conflicts: Vec<(RowNumber, RowNumber)>,
    /// The rows whose values production has: `_id` is the row, then [`DatabaseCheckRequest::give`].
    pub existing: Vec<RecordBatch>,
    /// Why production can evaluate the check only when it inserts a row; None if it has answered.
    pub unanswered: Option<String>,
}

/// Returns the name of the column that stands for keys of new rows.
pub fn new_key_column(column: &str) -> String {
    format!("_new_{column}")
}

/// Returns which of these columns SQL may read: those that it names, in any notation.
pub(super) fn columns_in<'a>(sql: &str, columns: impl Iterator<Item = &'a str>, ignore_case: bool) -> Vec<String> {
    let words = words(sql);
    let is_named = |column: &&str| {
        words.iter().any(|word| if ignore_case { word.eq_ignore_ascii_case(column) } else { word == column })
    };
    columns.filter(is_named).map(str::to_owned).collect()
}

/// Returns the identifiers of SQL, without quotation marks.
fn words(sql: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let end = rest[1..].find('\'').map_or(rest.len(), |end| end + 2);
            rest = &rest[end..];
        } else if first == '"' || first == '`' {
            let mut word = String::new();
            let mut chars = rest.char_indices().skip(1).peekable();
            let mut end = rest.len();
            while let Some((at, char)) = chars.next() {
                if char != first {
                    word.push(char);
                } else if chars.next_if(|(_, next)| *next == first).is_some() {
                    word.push(first);
                } else {
                    end = at + 1;
                    break;
                }
            }
            words.push(word);
            rest = &rest[end..];
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|char: char| !(char.is_alphanumeric() || char == '_' || char == '$'));
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            words.push(word.to_owned());
            rest = after;
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_an_expression_are_its_identifiers() {
        let columns = ["a", "b c", "d\"e", "text", "Übung"];
        let named = |sql| columns_in(sql, columns.into_iter(), false);
        assert_eq!(named("lower(a) = 'text' AND \"b c\" > 1"), ["a", "b c"]);
        assert_eq!(named("\"d\"\"e\"::text <> 'it''s a'"), ["d\"e", "text"]);
        assert_eq!(named("Übung + 1 > aa AND A = 'unfinished"), ["Übung"]);
        assert_eq!(columns_in("A + `b c`", columns.into_iter(), true), ["a", "b c"]);
    }
}
