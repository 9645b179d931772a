//! Points where the crash tests end the program, as SIGKILL does.

/// Ends the program here where `FAILPOINTS=name=return` asks for it; without the feature `failpoints` it does nothing.
#[cfg(feature = "failpoints")]
pub fn stop_at(name: &str) {
    if fail::eval(name, |_| ()).is_some() {
        let pid = std::process::id().to_string();
        let killed = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        // Only where there is no `kill` does anything follow.
        eprintln!("cannot be killed at `{name}`: {killed:?}");
        std::process::abort();
    }
}

/// Without the feature `failpoints` there are no such points.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn stop_at(_: &str) {}
