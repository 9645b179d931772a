//! Points at which the crash tests kill the program, and the row number at which tests begin to count.

/// Kills the program if `FAILPOINTS=name=return` is set. Without the feature `failpoints` it does nothing.
#[cfg(feature = "failpoints")]
pub fn stop_at(name: &str) {
    if fail::eval(name, |_| ()).is_some() {
        let pid = std::process::id().to_string();
        let killed = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        // Reached only if there is no `kill` command.
        eprintln!("cannot be killed at `{name}`: {killed:?}");
        std::process::abort();
    }
}

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn stop_at(_: &str) {}

/// Returns the number of each table's first row: 0, or `DELTA_FIRST_ROW`, so that few rows have the numbers that follow four
/// billion others. Without the feature `failpoints` it is always 0.
#[cfg(feature = "failpoints")]
pub fn first_row() -> u64 {
    std::env::var("DELTA_FIRST_ROW").ok().and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// Returns 0.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn first_row() -> u64 {
    0
}
