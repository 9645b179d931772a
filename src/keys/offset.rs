//! Assigned keys: a block's first number plus a step for each accepted row before the row.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::engine::{RankedRowSet, RowNumber};
use crate::error::Result;
use crate::target::TextKey;

/// Returns `first`, `first + step`, … for the rows that are not in `excluded`, and NULL for the others and for NULL rows. `start` is the
/// table's first row.
pub fn offset(excluded: &RankedRowSet, start: RowNumber, rows: &Int64Array, first: i64, step: i64) -> Int64Array {
    let start = start.get().cast_signed();
    let number = |rank: i64| first.wrapping_add(rank.wrapping_mul(step));
    if excluded.mask().is_empty() {
        // NULL rows have any number.
        return rows.unary(|row| number(row.wrapping_sub(start)));
    }
    rows.unary_opt(|row| {
        let at = RowNumber::new(row.cast_unsigned());
        (!excluded.mask().contains(at)).then(|| number(row - start - excluded.before(at).cast_signed()))
    })
}

/// Returns keys as production stores them: numbers of the column's type, or text of a fixed width.
///
/// # Errors
/// Returns an error if a number does not fit the type, which reserving the block has excluded.
pub fn written(keys: &Int64Array, text: Option<&TextKey>, data_type: &DataType) -> Result<ArrayRef> {
    let Some(text) = text else {
        return Ok(cast(keys, data_type)?);
    };
    let digits = text.width.saturating_sub(text.prefix.chars().count());
    let mut builder = StringBuilder::with_capacity(keys.len(), keys.len() * text.width);
    for key in keys {
        match key {
            Some(number) => {
                // Write directly into the builder's buffer, without allocating a string per key.
                let _infallible = write!(builder, "{}{number:0digits$}", text.prefix);
                builder.append_value("");
            }
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use proptest::prelude::*;

    use crate::engine::{RowSet, row_array};

    const START: RowNumber = RowNumber::new((1 << 32) - 3);

    fn numbers(start: RowNumber, count: usize) -> Int64Array {
        row_array(start.through(count))
    }

    proptest! {
        #[test]
        fn keys_are_dense_over_the_accepted_rows(rejected in prop::collection::vec(any::<bool>(), 0..300), first in 0_i64..1_000_000, start in prop::sample::select(vec![RowNumber::new(0), START])) {
            let excluded: RowSet = start.through(rejected.len()).zip(&rejected).filter(|(_, rejected)| **rejected).map(|(row, _)| row).collect();
            let keys = offset(&excluded.ranked(), start, &numbers(start, rejected.len()), first, 1);
            let given: Vec<i64> = keys.iter().flatten().collect();
            let accepted = rejected.iter().filter(|rejected| !**rejected).count() as i64;
            prop_assert!(given.iter().copied().eq(first..first + accepted));
            prop_assert!(rejected.iter().enumerate().all(|(row, rejected)| keys.is_null(row) == *rejected));
        }
    }

    #[test]
    fn a_block_may_end_at_the_largest_number() {
        let mut excluded = RowSet::default();
        let keys = offset(&excluded.clone().ranked(), START, &numbers(START, 2), i64::MAX - 1, 1);
        assert_eq!(keys.values()[..], [i64::MAX - 1, i64::MAX]);
        excluded.insert(START + 2);
        let keys = offset(&excluded.ranked(), START, &numbers(START, 3), i64::MAX - 1, 1);
        assert_eq!(keys.iter().flatten().last(), Some(i64::MAX));
    }

    #[test]
    fn a_row_that_is_null_has_no_key() {
        let rows = Int64Array::from(vec![Some((START + 5).get().cast_signed()), None]);
        for excluded in [RowSet::default(), RowSet::from_iter([START])] {
            let before = i64::from(!excluded.is_empty());
            let keys = offset(&excluded.ranked(), START, &rows, 100, 1);
            assert_eq!(keys.iter().collect::<Vec<_>>(), [Some(105 - before), None]);
        }
    }

    #[test]
    fn keys_keep_their_distance_whatever_is_rejected() {
        let mut excluded = RowSet::default();
        excluded.insert(START + 1);
        let keys = offset(&excluded.ranked(), START, &numbers(START, 4), 101, 50);
        assert_eq!(keys.iter().flatten().collect::<Vec<_>>(), [101, 151, 201]);
    }

    #[test]
    fn a_text_key_has_its_prefix_and_its_width() {
        let text = TextKey { prefix: "M".into(), width: 6 };
        let keys = written(&Int64Array::from(vec![Some(7), None, Some(99_999)]), Some(&text), &DataType::Utf8).unwrap();
        let keys: Vec<_> = keys.as_string::<i32>().iter().collect();
        assert_eq!(keys, [Some("M00007"), None, Some("M99999")]);
        assert_eq!(text.largest(), 99_999);
        assert_eq!(text.format(7), "M00007");
    }
}
