//! Casts of the delta's values to the types of production, and what a cast loses.

mod convert;
mod decimal;
mod logical;

pub(super) use convert::{convert, text};
pub(super) use logical::kept;

/// What of a value its type does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) enum CastLoss {
    Nothing,
    Value,
    Digits,
}
