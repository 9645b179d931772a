//! Casts of the delta's values to the types of production, and their losses.

mod components;
mod convert;
mod decimal;
mod float;
mod logical;
mod numbers;
mod zoned;

pub(super) use components::{localized_bounds, loss_reason};
pub(super) use convert::{convert, text};
pub(super) use logical::kept;
pub(super) use numbers::NumberStyle;
pub(super) use zoned::localized;

/// The loss of a cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) enum CastLoss {
    Nothing,
    Value,
    Digits,
}
