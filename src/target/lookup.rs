//! What is asked of a target about rows that it has.

/// A question about rows that exist: which of the delta's values are there?
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Where to look.
    pub place: Relation,
    /// The columns there that are held against the columns of the question, in order.
    pub match_on: Vec<String>,
    /// Those of them that are compared without regard to the case of ASCII letters.
    pub ignore_case: Vec<String>,
    /// Which rows there count, where it is not all of them: production's own SQL.
    pub condition: Option<String>,
    /// The columns there that are wanted for each match.
    pub give: Vec<String>,
}

impl Lookup {
    /// A question about all rows of a place, by values as they are.
    pub fn new(place: Relation, match_on: Vec<String>, give: Vec<String>) -> Self {
        Self { place, match_on, ignore_case: Vec::new(), condition: None, give }
    }
}

/// Which rows of a production table are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The column that decides.
    pub column: String,
    /// What it is held against.
    pub test: Test,
}

/// What a [`Filter`] holds a column against; an operator is `=`, `<`, `<=`, `>` or `>=`, and texts compare by their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Nothing is there.
    IsNull,
    /// Something is there.
    IsNotNull,
    /// A text.
    Text(&'static str, String),
    /// A whole number.
    Integer(&'static str, i64),
}

/// A place to look things up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// A table of production.
    Production(String),
    /// The key map's history of a table; its columns are `legacy_key`, the table's key columns and `run`.
    KeyMap(String),
}
