//! The nesting depth of SQL, counted over its tokens before anything parses it.
//!
//! A parser turns `a OR b OR c OR …` into a tree as deep as the chain is long, and every table, subquery, and branch of a
//! `UNION` deepens the plan. Code that walks such a tree is recursive, and a stack overflow would end the program.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::SqlDiagnostic;

/// The maximum number of dependent operators.
const OPERATORS: usize = 300;

/// The maximum number of tables and subqueries per query.
const SOURCES: usize = 64;

/// Refuses SQL that is nested too deeply. The parser reports invalid SQL.
pub(super) fn refuse_deep(sql: &str) -> Result<(), SqlDiagnostic> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let (mut levels, mut sources) = (vec![Level::default()], 0);
    for token in tokens {
        let word = match &token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            _ => String::new(),
        };
        sources += levels.last().map_or(0, |level| level.sources(&token, &word));
        match (&token, word.as_str()) {
            (Token::LParen | Token::LBracket, _) => levels.push(Level::default()),
            (_, "CASE") => levels.push(Level { is_case: true, ..Level::default() }),
            (Token::RParen | Token::RBracket, _) => close(&mut levels, false),
            (_, "END") => close(&mut levels, true),
            _ => levels.iter_mut().next_back().into_iter().for_each(|level| level.take(&token, &word)),
        }
    }
    let depth: usize = levels.iter().map(Level::depth).sum();
    if depth > OPERATORS {
        return Err(SqlDiagnostic::new(
            format!("{depth} nested operators; the limit is {OPERATORS}"),
            "use `x IN (…)` for many values, or `CASE` for many conditions",
        ));
    }
    if sources > SOURCES {
        return Err(SqlDiagnostic::new(
            format!("the query reads from {sources} tables and subqueries; the limit is {SOURCES}"),
            "split it into several checks",
        ));
    }
    Ok(())
}

/// Closes the last level if it is of this kind, because `end` can also be a name.
fn close(levels: &mut Vec<Level>, case: bool) {
    if let [.., outer, inner] = levels.as_mut_slice()
        && inner.is_case == case
    {
        outer.inside = outer.inside.max(inner.depth());
        levels.pop();
    }
}

/// The tokens between two brackets, or between `CASE` and `END`. AND and OR connect terms, and each term has its own
/// operators.
#[derive(Default)]
struct Level {
    is_case: bool,
    in_from: bool,
    terms: usize,
    /// The operators of this term, and the maximum of the terms before it.
    operators: usize,
    most_operators: usize,
    /// The maximum depth of the completed parts: arguments, branches, clauses.
    most: usize,
    /// The depth of the nested levels.
    inside: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.most.max(self.terms + self.most_operators.max(self.operators)) + self.inside
    }

    /// Returns the number of sources of a query that a token adds.
    fn sources(&self, token: &Token, word: &str) -> usize {
        let more = matches!(word, "SELECT" | "JOIN" | "UNION" | "EXCEPT" | "INTERSECT" | "MINUS");
        usize::from(more || (self.in_from && *token == Token::Comma))
    }

    fn take(&mut self, token: &Token, word: &str) {
        match (token, word) {
            (Token::Comma, _) | (_, "WHEN" | "THEN" | "ELSE") => self.end_part(),
            (_, "SELECT" | "FROM" | "WHERE" | "GROUP" | "ORDER" | "HAVING" | "LIMIT" | "ON" | "JOIN" | "UNION") => {
                self.end_part();
                self.in_from = matches!(word, "FROM" | "ON" | "JOIN");
            }
            (_, "AND" | "OR" | "XOR") => {
                self.terms += 1;
                self.end_term();
            }
            (_, "IS" | "LIKE" | "ILIKE" | "SIMILAR" | "IN" | "BETWEEN" | "NOT" | "COLLATE" | "AT") => {
                self.operators += 1;
            }
            (
                Token::Word(_)
                | Token::Number(..)
                | Token::SingleQuotedString(_)
                | Token::Whitespace(_)
                | Token::Period
                | Token::SemiColon
                | Token::EOF,
                _,
            ) => {}
            _ => self.operators += 1,
        }
    }

    fn end_term(&mut self) {
        self.most_operators = self.most_operators.max(self.operators);
        self.operators = 0;
    }

    fn end_part(&mut self) {
        self.end_term();
        self.most = self.most.max(self.terms + self.most_operators);
        (self.terms, self.most_operators) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(part: &str, by: &str, times: usize) -> String {
        vec![part; times].join(by)
    }

    #[test]
    fn what_is_long_and_flat_is_not_deep() {
        let cases = chain("WHEN a = 'x' AND b IS NOT NULL THEN 'y' || c", " ", 2000);
        for sql in [
            format!("a IN ({})", chain("'x'", ", ", 5000)),
            format!("CASE {cases} ELSE a END"),
            chain("a IS NOT NULL", " AND ", 200),
            chain("lower(trim(a || b))", ", ", 1000),
            format!("concat({})", chain("a || b", ", ", 1000)),
            format!("SELECT {} FROM t WHERE a = 1 AND b = 2", chain("a + 1", ", ", 500)),
        ] {
            assert_eq!(refuse_deep(&sql), Ok(()), "{}", &sql[..40]);
        }
    }

    #[test]
    fn a_chain_is_counted_whatever_is_around_it() {
        let brackets =
            format!("{} = 'x'", (0..20).fold("a".to_owned(), |sql, _| format!("({sql}){}", " + 1".repeat(20))));
        for sql in [
            chain("a", "||", 400),
            chain("a = 1", " OR ", 400),
            format!("CASE WHEN {} THEN 1 END", chain("a", " + ", 400)),
            format!("f(1, {}, 2)", chain("a", "::text || ", 400)),
            chain("a", " -> ", 400),
            format!("a{}", " IS NULL".repeat(400)),
            brackets,
        ] {
            assert!(refuse_deep(&sql).is_err(), "{}", &sql[..40]);
        }
        for sql in [
            chain("SELECT _row FROM t", " UNION ALL ", 100),
            format!("SELECT 1 FROM {}", chain("t", ", ", 100)),
            format!("SELECT 1 FROM t {}", chain("JOIN t ON a = b", " ", 100)),
            format!("WITH {} SELECT 1", chain("x AS (SELECT 1)", ", ", 100)),
        ] {
            assert!(refuse_deep(&sql).unwrap_err().message.contains("the limit is 64"), "{}", &sql[..40]);
        }
    }
}
