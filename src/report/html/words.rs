//! The sentences of the HTML report.

use super::super::text::{is_commit_unknown, number};
use super::super::{Command, Report, Verdict};
use crate::journal::{Phase, State};
use crate::progress::Step;

/// Escapes text for HTML, and turns text between backticks into code.
pub(super) fn marked(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 16);
    let parts: Vec<&str> = text.split('`').collect();
    let pairs = parts.len().is_multiple_of(2).then(|| parts.len() - 1);
    for (index, part) in parts.iter().enumerate() {
        let is_unpaired = pairs == Some(index);
        html.push_str(match index % 2 {
            _ if is_unpaired => "`",
            0 if index > 0 => "</code>",
            1 => "<code>",
            _ => "",
        });
        for char in part.chars() {
            match char {
                '&' => html.push_str("&#38;"),
                '<' => html.push_str("&#60;"),
                '>' => html.push_str("&#62;"),
                '"' => html.push_str("&#34;"),
                '\'' => html.push_str("&#39;"),
                char => html.push(char),
            }
        }
    }
    html
}

/// Capitalizes the first letter.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

pub(super) fn command(command: Command) -> &'static str {
    match command {
        Command::Validate => "validation",
        Command::Plan => "plan",
        Command::Run => "run",
        Command::Resume => "resumed run",
        Command::Mock => "mock run",
        Command::Import => "key map import",
        Command::Restore => "key map restore",
    }
}

/// Returns the CSS class and the label of the outcome.
pub(super) fn sign(report: &Report, state: Option<&State>) -> (&'static str, &'static str) {
    match (report.verdict, state) {
        (_, Some(state)) if state.phase == Phase::RolledBack => ("warn", "rolled back"),
        (_, Some(state)) if state.phase == Phase::Abandoned => ("warn", "abandoned"),
        (_, Some(state)) if state.failed.is_some() => ("bad", "failed"),
        (_, Some(state)) if state.is_unfinished() => ("warn", "interrupted"),
        (Verdict::Loaded, _) => ("good", "loaded"),
        (Verdict::Failed, _) => ("bad", "failed"),
        (Verdict::Passed, _) => ("good", "passed"),
        (Verdict::Empty, _) => ("warn", "nothing to load"),
    }
}

pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return "0%".to_owned();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    match percent {
        _ if part == whole => "100%".to_owned(),
        percent if percent < 0.01 => "less than 0.01%".to_owned(),
        percent if percent < 1.0 => format!("{percent:.2}%"),
        percent => format!("{:.1}%", percent.min(99.9)),
    }
}

pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 100.0 => format!("{seconds:.2} s"),
        seconds => format!("{} min {:02} s", seconds as u64 / 60, seconds as u64 % 60),
    }
}

/// Returns what the report proves, and what it does not.
pub(super) fn proofs(report: &Report, state: Option<&State>) -> Vec<&'static str> {
    let mut proofs = vec!["Rows read = rejected + skipped + accepted."];
    let verified = state.is_some_and(|state| state.phase == Phase::Verified)
        || report.steps.iter().any(|timing| timing.step == Step::Verify);
    match (report.command, report.verdict) {
        (Command::Import | Command::Restore, _) => proofs.clear(),
        (Command::Mock, Verdict::Passed) => {
            proofs.push("All rows were inserted, verified, and rolled back. Production is unchanged.");
        }
        (_, Verdict::Loaded) => {
            proofs.push("Before the commit, the row count and each column's non-null count, sum, minimum, and maximum in production were compared with the expected values.");
            proofs.push(if verified {
                "After the commit, every row was read back from production and has the expected values."
            } else {
                "The rows have not been read back yet; run `pipeline resume`."
            });
        }
        _ if is_commit_unknown(state) => proofs.push("The outcome of the commit is unknown until `pipeline resume`."),
        _ => proofs.push("Nothing was loaded. Production is unchanged."),
    }
    proofs
}

pub(super) fn backup(report: &Report) -> String {
    let Some(key_map) = report.key_map.as_ref().filter(|_| report.verdict == Verdict::Loaded) else {
        return String::new();
    };
    let rows = |segments: &[crate::target::Segment]| number(segments.iter().map(|segment| segment.rows).sum());
    let own = match key_map.own.as_slice() {
        [] => String::new(),
        own => format!("After the commit, {} mappings of this run were added.", rows(own)),
    };
    match &key_map.store {
        None => "The key map was not backed up: the pipeline file has no `safeguards.backup`.".to_owned(),
        Some(store) if key_map.there == 0 && key_map.backed_up.is_empty() => {
            format!("Before the load, there were no mappings to back up in {store}. {own}")
        }
        Some(store) => format!(
            "Before the load, the key map was backed up in {store}: {} segments already present, {} written ({} mappings). {own}",
            number(key_map.there),
            number(key_map.backed_up.len() as u64),
            rows(&key_map.backed_up),
        ),
    }
}

pub(super) fn notes(report: &Report) -> Vec<String> {
    report.notes.iter().cloned().chain(report.table_notes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_never_rounded_to_0_or_100_percent() {
        let shares = [(0, 0), (0, 9), (9, 9), (1, 1_000_000), (1, 1_000), (1, 3), (99_999, 100_000)];
        let expected = ["0%", "0%", "100%", "less than 0.01%", "0.10%", "33.3%", "99.9%"];
        assert_eq!(shares.map(|(part, whole)| percent(part, whole)), expected);
    }

    #[test]
    fn text_between_backticks_is_code_and_all_else_is_escaped() {
        assert_eq!(marked("`a<b>`: \"c\" & `d`"), "<code>a&#60;b&#62;</code>: &#34;c&#34; &#38; <code>d</code>");
        assert_eq!([marked("`a` b ` c"), marked("`"), marked("")], ["<code>a</code> b ` c", "`", ""]);
    }
}
