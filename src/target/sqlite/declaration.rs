//! Parts of the SQL that declares a table or an index, in the words of the declaration.
//!
//! SQLite's dialect has expressions that a parser of SQL in general does not know. To ask SQLite itself, their text is enough.

use datafusion::sql::sqlparser::dialect::SQLiteDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// A CHECK of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeclaredCheck {
    pub(super) name: Option<String>,
    pub(super) sql: String,
}

/// The values and the condition of an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeclaredIndex {
    pub(super) values: Vec<String>,
    pub(super) condition: Option<String>,
}

/// Returns the CHECKs of a table, in order. Columns are unqualified.
pub(super) fn checks(sql: &str, table: &str) -> Vec<DeclaredCheck> {
    let tokens = tokens(sql);
    let mut checks = Vec::new();
    for at in 0..tokens.len() {
        if is_word(&tokens[at], "CHECK")
            && let Some(inside) = parenthesized(&tokens, at + 1)
        {
            let named = at.checked_sub(2).filter(|at| is_word(&tokens[*at], "CONSTRAINT"));
            let name = named.and_then(|at| identifier(&tokens[at + 1]));
            checks.push(DeclaredCheck { name, sql: text(inside, table) });
        }
    }
    checks
}

/// Returns the expressions of generated columns, in order.
pub(super) fn generated(sql: &str, table: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let as_at = (0..tokens.len()).filter(|at| is_word(&tokens[*at], "AS"));
    as_at.filter_map(|at| parenthesized(&tokens, at + 1)).map(|inside| text(inside, table)).collect()
}

/// Returns the values and the condition of an index; None if its text is not understood.
pub(super) fn index(sql: &str, table: &str) -> Option<DeclaredIndex> {
    let tokens = tokens(sql);
    let on = tokens.iter().position(|token| is_word(token, "ON"))?;
    let open = on + tokens[on..].iter().position(|token| *token == Token::LParen)?;
    let inside = parenthesized(&tokens, open)?;
    let mut values = Vec::new();
    let (mut depth, mut first) = (0, 0);
    for (at, token) in inside.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => {
                values.push(value(&inside[first..at], table));
                first = at + 1;
            }
            _ => {}
        }
    }
    values.push(value(&inside[first..], table));
    let rest = &tokens[open + inside.len() + 2..];
    let condition = match rest.first() {
        Some(token) if is_word(token, "WHERE") => Some(text(&rest[1..], table)),
        _ => None,
    };
    Some(DeclaredIndex { values, condition })
}

/// Returns whether a trigger updates a table.
pub(super) fn updates(sql: &str, table: &str) -> bool {
    let tokens = tokens(sql);
    let is_table = |at: usize| tokens.get(at).and_then(identifier).is_some_and(|name| name.eq_ignore_ascii_case(table));
    (0..tokens.len()).any(|at| is_word(&tokens[at], "UPDATE") && (is_table(at + 1) || is_table(at + 3)))
}

/// Returns the text of an indexed value, without its order.
fn value(tokens: &[Token], table: &str) -> String {
    let tokens = match tokens {
        [value @ .., last] if is_word(last, "ASC") || is_word(last, "DESC") => value,
        all => all,
    };
    text(tokens, table)
}

/// Returns tokens without white space and comments.
fn tokens(sql: &str) -> Vec<Token> {
    let tokens = Tokenizer::new(&SQLiteDialect {}, sql).tokenize().unwrap_or_default();
    tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_) | Token::SemiColon | Token::EOF)).collect()
}

/// Returns the tokens between a parenthesis and the one that closes it.
fn parenthesized(tokens: &[Token], open: usize) -> Option<&[Token]> {
    if tokens.get(open) != Some(&Token::LParen) {
        return None;
    }
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&tokens[open + 1..at]);
        }
    }
    None
}

/// Returns the text of tokens, with columns that are not qualified by the table.
fn text(tokens: &[Token], table: &str) -> String {
    let mut words = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_table = identifier(&tokens[at]).is_some_and(|name| name.eq_ignore_ascii_case(table));
        if is_table && tokens.get(at + 1) == Some(&Token::Period) {
            at += 2;
            continue;
        }
        words.push(tokens[at].to_string());
        at += 1;
    }
    words.join(" ")
}

fn identifier(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    }
}

fn is_word(token: &Token, expected: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_of_a_table_are_found_in_its_text() {
        let sql = "CREATE TABLE \"my check\" (a TEXT CONSTRAINT \"c 1\" CHECK (a GLOB '[a-z]*' /* ) */), -- CHECK (no)
                       b INT check(\"my check\".b % 2 = 0), g AS (a || ')') STORED, CHECK ((b > 1) OR a IS 'x'))";
        let check =
            |name: Option<&str>, sql: &str| DeclaredCheck { name: name.map(str::to_owned), sql: sql.to_owned() };
        assert_eq!(
            checks(sql, "my check"),
            [check(Some("c 1"), "a GLOB '[a-z]*'"), check(None, "b % 2 = 0"), check(None, "( b > 1 ) OR a IS 'x'")]
        );
        assert_eq!(generated(sql, "my check"), ["a || ')'"]);
    }

    #[test]
    fn the_values_of_an_index_are_found_in_its_text() {
        let found =
            index("CREATE UNIQUE INDEX i ON t (lower(a, 'x,y') DESC, \"b c\" COLLATE NOCASE) WHERE t.d IS NULL;", "t");
        let values = vec!["lower ( a , 'x,y' )".to_owned(), "\"b c\" COLLATE NOCASE".to_owned()];
        assert_eq!(found, Some(DeclaredIndex { values, condition: Some("d IS NULL".to_owned()) }));
        assert!(updates("CREATE TRIGGER s AFTER INSERT ON t BEGIN UPDATE T SET a = 1 WHERE b = NEW.b; END", "t"));
        assert!(!updates("CREATE TRIGGER s AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('UPDATE t'); END", "t"));
        assert_eq!(index("CREATE UNIQUE INDEX i ON t (a)", "t").unwrap().condition, None);
    }
}
