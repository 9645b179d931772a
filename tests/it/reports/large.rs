//! A report stays small however much there is to say.

use std::fmt::Write as _;

use super::small;

#[test]
fn report_of_very_many_violations_is_small() {
    const ROWS: u64 = 200_000;
    let mut csv = String::from("ref,name,price\n");
    for row in 0..ROWS {
        // Long values, all different, and a few that are frequent.
        let name = if row % 4 == 0 { "often <b>".to_owned() } else { format!("{row}-{}", "x".repeat(150)) };
        writeln!(csv, "{row},{name},-{row}").unwrap();
    }
    let mut checks = String::new();
    for number in 0..12 {
        write!(checks, "      - expression: price > {number}\n        name: check_{number}\n").unwrap();
    }
    let place = small(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, ref TEXT, name VARCHAR(5), price INTEGER)",
        &csv,
        &format!("    key: {{ column: id }}\n    max_rejects: 100%\n    checks:\n{checks}"),
    );
    let report = place.report(&["validate", "p.yaml", "--report", "html=r.html,json=r.json,md=r.md,junit=r.xml"], 0);
    let table = &report["tables"][0];
    assert_eq!(table["rejected"], ROWS);
    let violations: u64 =
        table["checks"].as_array().unwrap().iter().map(|check| check["violations"].as_u64().unwrap()).sum();
    assert!(violations > 2_000_000, "{violations}");
    for (name, most) in [("r.html", 300_000), ("r.json", 64 << 10), ("r.md", 64 << 10), ("r.xml", 64 << 10)] {
        let size = place.text(name).len();
        assert!(size < most, "{name} has {size} bytes");
    }
    let length = table["checks"].as_array().unwrap().iter().find(|check| check["name"] == "length(name)").unwrap();
    let evidence = &length["evidence"];
    assert_eq!(evidence["values"][0]["value"], "often <b>");
    let counted = evidence["counted"].as_u64().unwrap();
    assert!(counted > 10_000 && counted < ROWS, "{counted}");
    assert!(evidence["values"][1]["value"].as_str().unwrap().chars().count() <= 81);
    let places = &table["places"][0];
    assert_eq!(
        (places["rows"].as_u64(), places["first"].as_u64(), places["last"].as_u64()),
        (Some(ROWS), Some(2), Some(ROWS + 1))
    );
    let parts: Vec<u64> = places["parts"].as_array().unwrap().iter().map(|rows| rows.as_u64().unwrap()).collect();
    assert!(parts.iter().all(|rows| (ROWS / 80 - 1..=ROWS / 80 + 1).contains(rows)), "evenly spread: {parts:?}");
}
