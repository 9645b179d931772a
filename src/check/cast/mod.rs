//! Casts of the delta's values to the types of production, and their losses.

mod convert;
mod decimal;
mod float;
mod logical;
mod numbers;
mod zoned;

pub(super) use convert::{convert, text};
pub(super) use logical::kept;
pub(super) use numbers::NumberStyle;
pub(super) use zoned::{localized, reason};

/// The loss of a cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) enum CastLoss {
    Nothing,
    Value,
    Digits,
}
