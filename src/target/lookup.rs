//! Queries for rows that production or a key map has.

/// A query that finds which values of the delta exist.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The relation to search.
    pub place: Relation,
    /// The relation's columns that are compared with the columns of the query, in order.
    pub match_on: Vec<String>,
    /// The columns that are compared without regard to the case of ASCII letters.
    pub ignore_case: Vec<String>,
    /// A condition on the relation's rows, in production's SQL; None for all rows.
    pub condition: Option<String>,
    /// The relation's columns to return for each match.
    pub give: Vec<String>,
}

impl Lookup {
    /// Returns a query over all rows of a relation, with case-sensitive comparison.
    pub fn new(place: Relation, match_on: Vec<String>, give: Vec<String>) -> Self {
        Self { place, match_on, ignore_case: Vec::new(), condition: None, give }
    }
}

/// A filter on the rows of a production table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The column to test.
    pub column: String,
    /// The comparison.
    pub test: Test,
}

/// The test of a [`Filter`]. An operator is `=`, `<`, `<=`, `>`, or `>=`, and texts compare by their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The value is NULL.
    IsNull,
    /// The value is not NULL.
    IsNotNull,
    /// A comparison with a text.
    Text(&'static str, String),
    /// A comparison with an integer.
    Integer(&'static str, i64),
}

/// A relation to look values up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// A table of production.
    Production(String),
    /// The key map of a table; its columns are `legacy_key`, the table's key columns, and `run`.
    KeyMap(String),
}
