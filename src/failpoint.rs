//! Points at which the crash tests kill the program.

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
