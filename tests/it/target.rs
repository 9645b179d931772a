//! What a target promises, whatever is behind it: the same tests on SQLite and on PostgreSQL.
//!
//! A test is a function of the kind of target; [`contract!`] makes two tests of it, `…::sqlite` and `…::postgres`.

macro_rules! contract {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use crate::target::live::On;

            #[tokio::test]
            async fn sqlite() {
                super::$name(On::Sqlite).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$name(On::Postgres).await;
            }
        }
    )*};
}

mod ask;
mod catalog;
mod history;
mod keys;
pub mod live;
mod load;
mod mode;
mod refusal;
mod rollback;
mod rows;
mod straight;
mod types;
