//! The script of `create_from`. It runs statement by statement inside one transaction, so that nothing remains unless it is committed.
//!
//! If a script ended the transaction, its earlier effects would remain whatever follows. So its outermost `BEGIN` and `COMMIT` are skipped,
//! and statements that cannot be part of one transaction are refused before anything is sent. Each statement is sent in a message that can
//! hold one command only. So no second command hides in a text that the server reads differently from this module.

use futures::TryStreamExt;
use tokio_postgres::types::{ToSql, Type};

use super::connect::{Connector, Session};
use crate::engine::ident;
use crate::error::{Error, Result};

#[derive(Debug, PartialEq, Eq)]
struct Statement<'s> {
    line: usize,
    text: &'s str,
    /// Its words in capital letters, without quoted ones and comments.
    words: Vec<String>,
}

/// The treatment of a statement.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    Send,
    /// It begins or ends the script's own transaction, and is skipped.
    Skip,
    /// It is refused, with this reason.
    Refuse(String),
}

/// Words of functions with effects outside of the transaction, which a rollback does not undo.
const OUTSIDE: [&str; 8] = [
    "DBLINK",
    "DBLINK_EXEC",
    "DBLINK_SEND_QUERY",
    "LO_EXPORT",
    "PG_FILE_WRITE",
    "PG_FILE_RENAME",
    "PG_FILE_UNLINK",
    "PG_LOGICAL_EMIT_MESSAGE",
];

impl Statement<'_> {
    fn role(&self, is_kept: bool) -> Role {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        let has = |one: &str, other: &str| words.windows(2).any(|pair| pair == [one, other]);
        let refuse = |why: &str| Role::Refuse(why.to_owned());
        match words.as_slice() {
            ["BEGIN" | "COMMIT" | "END", rest @ ..] if !rest.contains(&"PREPARED") => Role::Skip,
            ["START", "TRANSACTION", ..] => Role::Skip,
            ["ROLLBACK", rest @ ..] if rest.contains(&"TO") => Role::Send,
            [word @ ("ROLLBACK" | "ABORT" | "COMMIT" | "END"), ..] => {
                Role::Refuse(format!("`{word}` ends the transaction that creates the database"))
            }
            ["PREPARE", "TRANSACTION", ..] => {
                refuse("`PREPARE TRANSACTION` ends the transaction that creates the database")
            }
            ["COPY", ..] if has("FROM", "STDIN") || has("TO", "STDOUT") => {
                refuse("only psql can send the rows of `COPY … FROM stdin`: write them as INSERT")
            }
            ["COPY", rest @ ..] if !is_kept && (rest.contains(&"TO") || rest.contains(&"PROGRAM")) => {
                refuse("`COPY` to a file or a program writes outside of the database")
            }
            words if !is_kept => match words.iter().find(|word| OUTSIDE.contains(word)) {
                Some(word) => Role::Refuse(format!("`{}` writes outside of the transaction", word.to_lowercase())),
                None => Role::Send,
            },
            _ => Role::Send,
        }
    }

    /// Returns whether the next semicolon is inside the body of a function that is written as statements.
    fn in_body(&self) -> bool {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        let makes_function = matches!(
            words.as_slice(),
            ["CREATE", "FUNCTION" | "PROCEDURE", ..] | ["CREATE", "OR", "REPLACE", "FUNCTION" | "PROCEDURE", ..]
        );
        let Some(body) = words.windows(2).position(|pair| pair == ["BEGIN", "ATOMIC"]).filter(|_| makes_function)
        else {
            return false;
        };
        let depth = words[body..].iter().fold(0_usize, |depth, word| match *word {
            "BEGIN" | "CASE" => depth + 1,
            "END" => depth.saturating_sub(1),
            _ => depth,
        });
        depth > 0
    }
}

/// A lexer that reads a script as the server does: strings, quoted names, dollar quotes, and comments.
struct Lexer<'s> {
    script: &'s str,
    at: usize,
    line: usize,
}

/// A line number, and the error in it.
type Fault = (usize, String);

impl<'s> Lexer<'s> {
    fn new(script: &'s str) -> Self {
        Self { script: script.strip_prefix('\u{feff}').unwrap_or(script), at: 0, line: 1 }
    }

    fn rest(&self) -> &'s str {
        &self.script[self.at..]
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.rest()[..bytes].matches('\n').count();
        self.at += bytes;
    }

    /// Returns the next statement; None at the end of the script.
    fn next(&mut self) -> Result<Option<Statement<'s>>, Fault> {
        let mut statement = Statement { line: 0, text: "", words: Vec::new() };
        let (mut begin, mut depth) = (self.at, 0_usize);
        loop {
            let rest = self.rest();
            let Some(char) = rest.chars().next() else { break };
            let is_blank = char.is_whitespace() || rest.starts_with("--") || rest.starts_with("/*");
            if statement.line == 0 && !is_blank {
                (statement.line, begin) = (self.line, self.at);
            }
            match char {
                ';' if depth == 0 && !statement.in_body() => {
                    statement.text = &self.script[begin..self.at];
                    self.skip(1);
                    if statement.text.is_empty() {
                        statement.line = 0;
                        continue;
                    }
                    return Ok(Some(statement));
                }
                '\\' => {
                    let command: String = rest.chars().take_while(|char| !char.is_whitespace()).take(40).collect();
                    return Err((self.line, format!("`{command}` is a psql command, not SQL: remove it")));
                }
                '(' | ')' => {
                    depth = if char == '(' { depth + 1 } else { depth.saturating_sub(1) };
                    self.skip(1);
                }
                '\'' | '"' => self.quoted(char, false)?,
                '$' if dollar_tag(rest).is_some() => {
                    let tag = dollar_tag(rest).unwrap_or_default();
                    let end = rest[tag.len()..].find(tag).ok_or_else(|| self.open("a dollar quote"))?;
                    self.skip(tag.len() + end + tag.len());
                }
                '-' if rest.starts_with("--") => self.skip(rest.find('\n').unwrap_or(rest.len())),
                '/' if rest.starts_with("/*") => self.comment()?,
                char if is_word(char) => {
                    let end = rest.find(|char| !is_word(char) && char != '$').unwrap_or(rest.len());
                    let word = &rest[..end];
                    self.skip(end);
                    if word.eq_ignore_ascii_case("e") && self.rest().starts_with('\'') {
                        self.quoted('\'', true)?;
                    } else {
                        statement.words.push(word.to_ascii_uppercase());
                    }
                }
                char => self.skip(char.len_utf8()),
            }
        }
        statement.text = self.script[begin..].trim_end();
        Ok(Some(statement).filter(|statement| statement.line > 0))
    }

    /// Skips a string or a quoted name; a doubled quote is part of it.
    fn quoted(&mut self, quote: char, has_escapes: bool) -> Result<(), Fault> {
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((at, char)) = chars.next() {
            if char == '\\' && has_escapes {
                chars.next();
            } else if char == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
                self.skip(at + 1);
                return Ok(());
            }
        }
        Err(self.open(if quote == '"' { "a quoted name" } else { "a string" }))
    }

    /// Skips a comment, with nested ones.
    fn comment(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let (mut at, mut depth) = (2, 1);
        while depth > 0 {
            let next = rest[at..].find(['/', '*']).map(|next| at + next).ok_or_else(|| self.open("a comment"))?;
            (at, depth) = match rest.get(next..next + 2) {
                Some("/*") => (next + 2, depth + 1),
                Some("*/") => (next + 2, depth - 1),
                _ => (next + 1, depth),
            };
        }
        self.skip(at);
        Ok(())
    }

    fn open(&self, what: &str) -> Fault {
        (self.line, format!("{what} has no end"))
    }
}

/// Returns whether a character can begin or continue a name or a number. Confusing the two is harmless here.
fn is_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || !char.is_ascii()
}

/// Returns `$$` or `$tag$` at the start of a text.
fn dollar_tag(text: &str) -> Option<&str> {
    let tag = &text[1..];
    let end = tag.find('$').filter(|end| tag[..*end].chars().all(is_word))?;
    (!tag.starts_with(|char: char| char.is_ascii_digit())).then(|| &text[..end + 2])
}

/// A script that creates a database.
pub(super) struct Script<'a> {
    pub(super) connector: &'a Connector,
    pub(super) session: &'a Session,
    /// Its name in errors.
    pub(super) name: String,
    /// The schema of names without a schema.
    pub(super) production: &'a str,
}

impl Script<'_> {
    /// Runs a script. Unless it is kept, only this session sees the result, inside a transaction that is never committed.
    ///
    /// # Errors
    /// If the script is not one transaction, a statement fails, or a sequence moved that existed before.
    pub(super) async fn run(&self, sql: &str, is_kept: bool) -> Result<()> {
        // Nothing is sent if any statement is refused.
        let mut lexer = Lexer::new(sql);
        let mut statements = Vec::new();
        while let Some(statement) = lexer.next().map_err(|(line, what)| self.fault(line, what))? {
            match statement.role(is_kept) {
                Role::Send => statements.push(statement),
                Role::Skip => {}
                Role::Refuse(why) => return Err(self.fault(statement.line, why)),
            }
        }
        let failed = |error: tokio_postgres::Error| self.connector.explain("cannot create the database", &error);
        let schema = ident(self.production);
        let begin = format!("BEGIN; CREATE SCHEMA IF NOT EXISTS {schema}; SET LOCAL search_path TO {schema}");
        let there: Vec<u32> = {
            let sequences = self.session.query("SELECT oid FROM pg_class WHERE relkind = 'S'", &[]).await;
            sequences.map_err(failed)?.iter().map(|row| row.get(0)).collect()
        };
        self.session.batch_execute(&begin).await.map_err(failed)?;
        let before = self.transaction().await.map_err(failed)?;
        for statement in &statements {
            self.send(statement.text).await.map_err(|error| match error.as_db_error() {
                Some(error) => self.fault(statement.line, error.message()),
                None => failed(error),
            })?;
        }
        if self.transaction().await.map_err(failed)? != before {
            return Err(Error::input(format!("`{}` ends the transaction that it runs in", self.name))
                .hint("remove that from the script; its earlier statements may have taken effect"));
        }
        if is_kept {
            self.session.batch_execute("COMMIT").await.map_err(failed)?;
        } else {
            self.refuse_moved(&there).await?;
        }
        // The script may have changed any setting.
        let settings = format!("SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; {}", self.connector.settings());
        self.session.batch_execute(&settings).await.map_err(failed)
    }

    async fn send(&self, statement: &str) -> Result<(), tokio_postgres::Error> {
        let none: [(&(dyn ToSql + Sync), Type); 0] = [];
        let rows = self.session.query_typed_raw(statement, none).await?;
        rows.try_for_each(|_| async { Ok(()) }).await
    }

    async fn transaction(&self) -> Result<String, tokio_postgres::Error> {
        let sql = "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text";
        Ok(self.session.query_one(sql, &[]).await?.get(0))
    }

    /// Refuses a script that took numbers from sequences, because a rollback does not return them. The sequence's lock proves it.
    async fn refuse_moved(&self, there: &[u32]) -> Result<()> {
        let sql = "SELECT DISTINCT c.oid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_locks AS l
                   JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
                   WHERE l.pid = pg_catalog.pg_backend_pid() AND l.mode = 'RowExclusiveLock' AND c.oid = ANY ($1) ORDER BY 1";
        let moved = self.session.query(sql, &[&there]).await;
        let moved = moved.map_err(|error| self.connector.explain("cannot create the database", &error))?;
        let Some(sequence) = moved.first().map(|row| row.get::<_, String>(0)) else { return Ok(()) };
        Err(Error::input(format!(
            "`{}` takes numbers from the sequence {sequence}, which existed before, and a rollback does not return them",
            self.name
        ))
        .hint("use only sequences that the script creates; its other effects were rolled back"))
    }

    fn fault(&self, line: usize, what: impl std::fmt::Display) -> Error {
        Error::input(format!("`{}` cannot create the database: line {line}: {what}", self.name))
            .hint("its effects were rolled back; check the SQL in it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(script: &str) -> Result<Vec<(usize, &str)>, Fault> {
        let mut lexer = Lexer::new(script);
        let mut found = Vec::new();
        while let Some(statement) = lexer.next()? {
            found.push((statement.line, statement.text));
        }
        Ok(found)
    }

    #[test]
    fn a_script_is_split_as_the_server_splits_it() {
        for whole in [
            "SELECT 'a;b''c;'",
            r"SELECT E'a\';b'",
            r"SELECT 'a\'",
            "SELECT \"a;\"\"b\"",
            "DO $$ BEGIN COMMIT; END $$",
            "DO $a$ ; $$ ; $b$ ; $a$",
            "SELECT a$b$c, 1",
            "SELECT 1 /* ; /* ; */ ; */ + 1",
            "SELECT 1 -- ;\n + 1",
            "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; DELETE FROM v)",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
            "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC DELETE FROM t; END",
            "SELECT 1 AS größe$x$",
        ] {
            let end = 3 + whole.matches('\n').count();
            let script = format!("\u{feff}\n;; {whole} ;\n/* c */ COMMIT -- c");
            assert_eq!(statements(&script).unwrap(), [(2, &*format!("{whole} ")), (end, "COMMIT -- c")], "{whole}");
        }
        assert_eq!(statements(" -- nothing\n;").unwrap(), []);
    }

    #[test]
    fn unterminated_text_and_psql_commands_name_their_line() {
        for (script, line, what) in [
            ("SELECT 1;\nSELECT 'a;", 2, "a string has no end"),
            ("\"a", 1, "a quoted name has no end"),
            ("\n\n$x$ $$", 3, "a dollar quote has no end"),
            ("/* /* */", 1, "a comment has no end"),
            ("SELECT 1;\n\\connect other\n", 2, "`\\connect` is a psql command"),
            ("COPY t FROM stdin;\n1\n\\.\n", 3, "`\\.` is a psql command"),
        ] {
            let (at, message) = statements(script).unwrap_err();
            assert!(at == line && message.contains(what), "{script:?}: line {at}: {message}");
        }
    }

    #[test]
    fn only_what_is_part_of_one_transaction_is_sent() {
        let role = |script: &str, is_kept| Lexer::new(script).next().unwrap().unwrap().role(is_kept);
        for script in [
            "BEGIN",
            "begin isolation level serializable",
            "START TRANSACTION",
            "/**/ COMMIT",
            "end work",
            "COMMIT AND CHAIN",
        ] {
            assert_eq!(role(script, false), Role::Skip, "{script}");
        }
        for script in [
            "ROLLBACK",
            "abort",
            "-- c\nROLLBACK AND CHAIN",
            "PREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "ROLLBACK PREPARED 'x'",
            "COPY t FROM stdin",
        ] {
            assert!([true, false].iter().all(|is_kept| matches!(role(script, *is_kept), Role::Refuse(_))), "{script}");
        }
        for script in [
            "COPY t TO '/tmp/x'",
            "COPY t FROM PROGRAM 'x'",
            "SELECT dblink_exec('x', 'y')",
            "SELECT lo_export(1, 'x')",
        ] {
            assert!(matches!(role(script, false), Role::Refuse(_)), "{script}");
            assert_eq!(role(script, true), Role::Send, "{script}");
        }
        for script in [
            "ROLLBACK TO SAVEPOINT a",
            "SAVEPOINT a",
            "COPY t FROM '/tmp/x'",
            "PREPARE a AS SELECT 1",
            "SELECT 'COMMIT'",
        ] {
            assert_eq!(role(script, false), Role::Send, "{script}");
        }
    }
}
