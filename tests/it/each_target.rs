//! One test per kind of target. A new kind is one more line here.

/// Makes tests of functions that take the kind of target, `NAME::sqlite` and so on: `each_target! { name, … }`. With `async` in front, of
/// functions that are async; with `memory async`, also on the target in memory; with `name => function`, under another name than the
/// function's.
macro_rules! each_target {
    (memory async $($name:ident),* $(,)?) => {
        $(mod $name {
            each_target!(@kinds [tokio::test] async, |on| super::$name(on).await);
            each_target!(@one memory, Memory, [tokio::test] async, |on| super::$name(on).await);
        })*
    };
    (async $($name:ident),* $(,)?) => {
        $(mod $name {
            each_target!(@kinds [tokio::test] async, |on| super::$name(on).await);
        })*
    };
    ($($name:ident),* $(,)?) => {
        each_target! { $($name => $name;)* }
    };
    ($($name:ident => $test:ident;)*) => {
        $(mod $name {
            each_target!(@kinds [test], |on| super::$test(on));
        })*
    };
    (@kinds $attribute:tt $($async:ident)?, |$on:ident| $call:expr) => {
        each_target!(@one sqlite, Sqlite, $attribute $($async)?, |$on| $call);
        each_target!(@one postgres, Postgres, $attribute $($async)?, |$on| $call);
    };
    (@one $kind:ident, $variant:ident, [$($attribute:tt)*] $($async:ident)?, |$on:ident| $call:expr) => {
        #[$($attribute)*]
        $($async)? fn $kind() {
            let $on = crate::target::live::On::$variant;
            $call;
        }
    };
}
