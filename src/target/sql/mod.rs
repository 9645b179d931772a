//! SQL that every database understands, and decisions that every SQL target makes alike.

pub(super) mod database_checks;
pub(super) mod violations;
