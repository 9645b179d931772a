//! What `check` and `explain` tell of checks: the constraint that each comes from, its SQL, and what its operators did.

use crate::support::Place;

const CUSTOMER: &str = "pipelines/customer-delta.yaml";

/// Constraints of the sample's production, as each check of theirs is told.
const FROM: [&str; 7] = [
    "not_null(account_no) (production: account_no VARCHAR(12) NOT NULL)",
    "length(account_no) (production: account_no VARCHAR(12))",
    "unique(email) (production: UNIQUE (email))",
    "unique(agreement_id, seq_no) (production: PRIMARY KEY (agreement_id, seq_no))",
    "relationship(rate_code) (production: FOREIGN KEY (rate_code) REFERENCES rate (rate_code))",
    "check(meter_digits_plausible) (production: CHECK (",
    "rate_still_offered (pipeline file: tables.agreement_rate.checks.0)",
];

#[test]
fn each_check_names_its_constraint() {
    let place = Place::samples_with_production();
    let explained = place.pipeline(&["explain", CUSTOMER]).passes().stdout.clone();
    let checked = place.pipeline(&["check", CUSTOMER, "-v"]).passes().stdout.clone();
    for from in FROM {
        assert!(explained.contains(&format!("-- {from}")), "{from}\n{explained}");
        let (name, place) = from.split_once(" (").unwrap();
        assert!(checked.contains(&format!("    {name}  ({place}")), "{from}\n{checked}");
    }
    // Without -v, numbers; and they add up.
    let plain = place.pipeline(&["check", CUSTOMER]).passes().stdout.clone();
    let numbers = |line: &str| -> Vec<usize> {
        line.split(|char: char| !char.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    let lines: Vec<_> = plain.lines().skip(2).map(numbers).collect();
    assert_eq!(lines.len(), 6, "{plain}");
    for line in &lines {
        assert_eq!(line[0], line[1..].iter().sum::<usize>(), "{plain}");
    }
    let all: usize = lines.iter().map(|line| line[0]).sum();
    assert!(plain.contains(&format!("6 tables, {all} checks, no problems")), "{plain}");
}

#[test]
fn explain_analyze_counts_and_times_and_writes_nothing() {
    let place = Place::samples_with_production();
    let before = place.files();
    let told = place.pipeline(&["explain", CUSTOMER, "--analyze"]).passes().stdout.clone();
    assert_eq!(place.files(), before);
    let section = |check: &str| {
        let (_, rest) = told.split_once(&format!("-- {check} (")).unwrap_or_else(|| panic!("no {check} in {told}"));
        rest.split("\n\n").next().unwrap().to_owned()
    };
    let unique = section("unique(email)");
    assert!(unique.contains("\n-- 3 rows fail\n"), "{unique}");
    let operators: Vec<_> = unique.lines().filter(|line| line.contains("Exec")).collect();
    assert!(operators.iter().any(|line| line.contains("AggregateExec") && line.contains(" ms  ")), "{unique}");
    // The operator on top gives the rows that share a value: two.
    let top: Vec<&str> = operators[0].split_whitespace().collect();
    assert_eq!(top[1], "2", "{unique}");
    // A check of one row is a filter, whose rows are those that fail.
    let digits = section("check(meter_digits_plausible)");
    let filter = digits.lines().find(|line| line.contains("FilterExec")).unwrap_or_else(|| panic!("{digits}"));
    assert_eq!(filter.split_whitespace().nth(1), Some("1"), "{digits}");
    assert!(told.contains("-- 500 rows read, 13 rejected, 0 skipped, 487 accepted\n"), "{told}");
    assert!(told.trim_end().ends_with("nothing was written"), "{told}");
}
