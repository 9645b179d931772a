//! Values that conform to a logical type are accepted by the server.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::texts::tricky;
use super::{PgType, Server};
use crate::target::logical_type::elements;

/// Returns the server's reading of a text as a value of a type, or its error.
async fn server_takes(client: &Client, text: &str, declared: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("NUL".to_owned());
    }
    let query = format!("SELECT ({}::text::{declared})::text", quoted(text));
    match client.simple_query(&query).await {
        Ok(messages) => Ok(messages
            .iter()
            .find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .unwrap()),
        Err(error) => Err(error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())),
    }
}

fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[tokio::test]
async fn what_has_a_form_is_taken_by_the_server() {
    let server = Server::start();
    let client = server.connect().await;
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (declared, pg, texts) in tricky() {
        let form = pg.form();
        for text in texts {
            asked += 1;
            let taken = server_takes(&client, &text, declared).await;
            match (form.canonical(&text), &taken) {
                (Some(_), Err(error)) => wrong.push(format!("{declared} {text:.200?}: {error}")),
                (None, Ok(value)) => println!("{declared} {text:.200?}: refused, the server has {value:.200?}"),
                (Some(canonical), Ok(value)) => {
                    let again = server_takes(&client, &canonical, declared).await;
                    if again.as_ref() != Ok(value) {
                        wrong.push(format!("{declared} {text:?}: {canonical:?} is {again:?} in place of {value:?}"));
                    }
                }
                (None, Err(_)) => {}
            }
        }
    }
    println!("{asked} texts asked");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Generates texts from fragments that have a meaning in a type.
fn made_of(pieces: &'static [&'static str], most: usize) -> BoxedStrategy<String> {
    proptest::collection::vec(proptest::sample::select(pieces), 0..most).prop_map(|pieces| pieces.concat()).boxed()
}

#[tokio::test]
async fn what_has_a_form_is_taken_by_the_server_however_odd_it_is() {
    let server = Server::start();
    let client = server.connect().await;
    client
        .batch_execute(
            "CREATE FUNCTION takes(value text, type text) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN EXECUTE format('SELECT %L::%s', value, type); RETURN true;
             EXCEPTION WHEN OTHERS THEN RETURN false; END $$",
        )
        .await
        .unwrap();
    let interval = [
        made_of(
            &[
                " ",
                " ",
                " ",
                "1",
                "2",
                "-3",
                "+4",
                "0",
                "1.5",
                ".5",
                "5.",
                "2147483647",
                "2147483648",
                "178000000",
                "years",
                "mon",
                "weeks",
                "day",
                "hours",
                "m",
                "min",
                "secs",
                "ms",
                "us",
                "decades",
                "century",
                "y",
                "04:05",
                "-04:05:06.789",
                "100:00:59",
                "1:2",
                "ago",
                "@",
                ",",
                "-",
                "P",
                "T",
                "e5",
            ],
            9,
        ),
        made_of(&["P", "P1Y", "T", "1", "-2", "3.5", "2147483647", "Y", "M", "W", "D", "H", "S", "T1H", "T-1M"], 8),
    ];
    let json = made_of(
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"b\":",
            "1",
            "-",
            "0",
            ".5",
            "e9",
            "E-9999",
            "true",
            "null",
            " ",
            "\n",
            "\\",
            "\\u0000",
            "\\ud83d",
            "\\ude00",
            "\\\"",
            "[1,2]",
            "{\"x\":0}",
        ],
        9,
    );
    let array =
        made_of(&["{", "}", "{", "}", ",", "\"", "\\", " ", "a", "1", "NULL", "null", "{1}", "{2}", "\u{b}", "\n"], 10);
    let uuid =
        made_of(&["{", "}", "-", "-", "0", "aF", "00112233", "4455", "445566778899aabb", "ccddeeff", "0011", " "], 12);
    let array_of = |pg| PgType::Array(Box::new(pg));
    let cases = [
        ("interval", PgType::Interval, interval[0].clone()),
        ("interval", PgType::Interval, interval[1].clone()),
        ("json", PgType::Json, json.clone()),
        ("jsonb", PgType::Jsonb, json),
        ("text[]", array_of(PgType::Text), array.clone()),
        ("int4[]", array_of(PgType::Int4), array.clone()),
        ("bytea[]", array_of(PgType::Bytea), array),
        ("uuid", PgType::Uuid, uuid),
    ];
    let mut runner = TestRunner::deterministic();
    for (declared, pg, texts) in cases {
        let form = pg.form();
        let all: Vec<String> = (0..20_000).map(|_| texts.new_tree(&mut runner).unwrap().current()).collect();
        let (taken, refused): (Vec<_>, Vec<_>) = all.iter().partition(|text| form.canonical(text).is_some());
        let query = "SELECT t FROM unnest($1::text[]) t WHERE takes(t, $2) = $3";
        let wrong = client.query(query, &[&taken, &declared, &false]).await.unwrap();
        let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
        let missed = client.query(query, &[&refused, &declared, &true]).await.unwrap();
        let some: Vec<String> = missed.iter().take(12).map(|row| row.get(0)).collect();
        println!(
            "{declared}: {} of 20000 taken, {} that the server takes are not: {some:?}",
            taken.len(),
            missed.len()
        );
        assert_eq!(wrong, [""; 0], "{declared}");
        if declared == "text[]" {
            let query = "SELECT e FROM unnest($1::text::text[]) WITH ORDINALITY u(e, n) ORDER BY n";
            let query = client.prepare(query).await.unwrap();
            for literal in taken {
                let rows = client.query(&query, &[literal]).await.unwrap();
                let expected: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
                assert_eq!(elements(literal), Some(expected), "{literal}");
            }
        }
    }
}
