//! Casts of the delta's values to the types of production, and their losses.

mod convert;
mod decimal;
mod float;
mod logical;

pub(super) use convert::{convert, text};
pub(super) use logical::kept;

/// The loss of a cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) enum CastLoss {
    Nothing,
    Value,
    Digits,
}
