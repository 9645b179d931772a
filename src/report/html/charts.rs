//! The charts of an HTML report, as numbers and as SVG. They contain counts only, and no texts from data.

use std::fmt::Write as _;

/// The heights of a table's band, from the rows read to the rows inserted. The first block is 52 units high.
#[derive(Debug, PartialEq)]
pub(super) struct Band {
    /// The height without the rejected rows.
    pub(super) remaining: String,
    /// The height without the rejected and the skipped rows.
    pub(super) last: String,
    pub(super) rejected: String,
    pub(super) rejected_from: String,
    pub(super) rejected_end: String,
    pub(super) skipped: String,
    pub(super) skipped_from: String,
    pub(super) skipped_end: String,
    pub(super) class: &'static str,
}

const HEIGHT: f64 = 52.0;
const GAP: f64 = 5.0;
/// The smallest height of a part that has rows, so that it is visible.
const LEAST: f64 = 2.0;

impl Band {
    /// Returns the band of a table; None if no rows were read. `failed` means that the accepted rows are not loaded.
    pub(super) fn new(read: u64, rejected: u64, skipped: u64, failed: bool) -> Option<Self> {
        if read == 0 {
            return None;
        }
        let high = |rows: u64| match rows {
            0 => 0.0,
            rows => (rows as f64 * HEIGHT / read as f64).max(LEAST),
        };
        let left = read.saturating_sub(rejected).saturating_sub(skipped);
        let last = high(left).min(HEIGHT - high(rejected) - high(skipped)).max(if left > 0 { LEAST } else { 0.0 });
        let remaining = last + high(skipped);
        let text = |number: f64| format!("{number:.1}");
        Some(Self {
            remaining: text(remaining),
            last: text(last),
            rejected: text(high(rejected)),
            rejected_from: text(remaining + GAP),
            rejected_end: text(remaining + GAP + high(rejected)),
            skipped: text(high(skipped)),
            skipped_from: text(last + GAP),
            skipped_end: text(last + GAP + high(skipped)),
            class: if failed { "green would" } else { "green" },
        })
    }
}

/// Draws a histogram over the lines of a file, with one bar per part.
pub(super) fn bars(parts: &[u64], class: &str) -> String {
    let width = parts.len().max(1) * 10;
    let most = parts.iter().copied().max().unwrap_or(0).max(1);
    let fill = if class.ends_with("warned") { "amber" } else { "red" };
    let mut path = String::new();
    for (index, rows) in parts.iter().enumerate().filter(|(_, rows)| **rows > 0) {
        let height = (*rows as f64 * 26.0 / most as f64).max(5.0).round();
        let _infallible = write!(path, "M{} 26v-{height}h8v{height}z", index * 10 + 1);
    }
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width} 26\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"track\" width=\"{width}\" height=\"26\"/><path class=\"{fill}\" d=\"{path}\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_of_a_band_are_visible_and_all_parts_fit() {
        assert_eq!(Band::new(0, 0, 0, false), None);
        let band = Band::new(1_000_000, 1, 1, false).unwrap();
        assert_eq!((band.rejected.as_str(), band.skipped.as_str(), band.last.as_str()), ("2.0", "2.0", "48.0"));
        let all = Band::new(10, 10, 0, true).unwrap();
        assert_eq!((all.remaining.as_str(), all.last.as_str(), all.rejected.as_str()), ("0.0", "0.0", "52.0"));
    }

    #[test]
    fn a_bar_is_as_high_as_its_share_of_rows() {
        let svg = bars(&[1, 0, 2, 0, 100], "");
        assert!(svg.contains("d=\"M1 26v-5h8v5zM21 26v-5h8v5zM41 26v-26h8v26z\""), "{svg}");
    }
}
