//! Blocks of keys from a sequence. `delta.reserve` decides the same way, while no other session gets a number.

use super::catalog::Sequence;
use crate::error::{Error, Result};
use crate::journal::RunId;
use crate::spec::{SequenceNumbers, StartRowNumber};
use crate::target::{KeyBlock, KeyRequest};

/// Keys that a sequence would give.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) block: KeyBlock,
    /// The number that the sequence gives next, after that.
    pub(super) next: i128,
}

impl Sequence {
    /// Returns the keys of a request, if `next` is the sequence's next number.
    ///
    /// A key is a number that the sequence gives to this run alone, or is between two of these. So it is free if other programs use each
    /// number as a key, and if they use it for a block of keys that ends or begins with it. In steps of the sequence, keys are also free if
    /// the numbers between belong to other databases.
    ///
    /// # Errors
    /// If the sequence has too few numbers, or gives numbers between the requested keys later.
    pub(super) fn take(&self, next: i128, request: &KeyRequest) -> Result<Taken> {
        let (sign, step) = (i128::from(self.increment.signum()), i128::from(self.increment).abs());
        // Numbers as a sequence that counts upwards has them.
        let (free, count) = (sign * next, i128::from(request.count.max(1)));
        let (low, high) = match (request.start, request.sequence.numbers) {
            (StartRowNumber::At(first), _) => {
                let (first, last) = (i128::from(first), i128::from(first) + count - 1);
                if sign > 0 { (first, last) } else { (-last, -first) }
            }
            (StartRowNumber::Auto, SequenceNumbers::Keys) => (free, free + (count - 1) * step),
            (StartRowNumber::Auto, SequenceNumbers::Blocks) => (free, free + count - 1),
        };
        let is_stated = request.start != StartRowNumber::Auto;
        let distance = if is_stated || request.sequence.numbers == SequenceNumbers::Blocks { 1 } else { step };
        let first = if sign > 0 { low } else { -high };
        let block = request.block_by(first, i64::try_from(distance).unwrap_or(i64::MAX))?;
        if request.count == 0 || high <= free - step {
            return Ok(Taken { block, next });
        }
        if low < free {
            return Err(refuse(
                request,
                &format!(
                    "the keys {first} to {} reach over {next}, which the sequence {} gives next",
                    first + count - 1,
                    self.name
                ),
                "set `start_row_number: auto`; nothing was written",
            ));
        }
        let numbers = (high - free + step - 1) / step + 1;
        let end = free + (numbers - 1) * step;
        if end > sign * self.end() {
            return Err(refuse(
                request,
                &format!(
                    "the sequence {} ends at {}, and {numbers} of its numbers from {next} on are needed",
                    self.name,
                    self.end()
                ),
                "give the sequence a larger MAXVALUE; nothing was written",
            ));
        }
        Ok(Taken { block, next: sign * (end + step) })
    }

    /// Returns the last number that the sequence can give.
    fn end(&self) -> i128 {
        i128::from(if self.increment > 0 { self.max } else { self.min })
    }

    /// Refuses a sequence that is behind the keys in use: `extreme` is the last of them in its direction.
    ///
    /// # Errors
    /// If one of its next numbers is a key already.
    pub(super) fn refuse_lagging(&self, next: i128, extreme: Option<i128>, request: &KeyRequest) -> Result<()> {
        let Some(taken) = extreme.filter(|taken| if self.increment > 0 { *taken >= next } else { *taken <= next })
        else {
            return Ok(());
        };
        Err(refuse(
            request,
            &format!("the sequence {} would give {next} next, and key {taken} is taken", self.name),
            &format!("set it behind the last key: SELECT setval('{}', {taken}); nothing was written", self.name),
        ))
    }

    /// Refuses to foresee a block of a sequence that would give the keys again that a run has reserved.
    pub(super) fn refuse_reserved(
        &self,
        next: i128,
        block: Option<(RunId, i64, i64)>,
        request: &KeyRequest,
    ) -> Result<()> {
        let is_ahead = |first: i64, last: i64| match self.increment > 0 {
            true => i128::from(last) >= next,
            false => i128::from(first) <= next,
        };
        let Some((run, first, last)) = block.filter(|(_, first, last)| is_ahead(*first, *last)) else { return Ok(()) };
        Err(refuse(
            request,
            &format!(
                "the sequence {} would give {next} next, and run {run} has reserved the keys {first} to {last}",
                self.name
            ),
            &format!(
                "the sequence was set back, or the run reserved keys before the table had it: `pipeline runs FILE {run}` shows the run; \
                 nothing was written"
            ),
        ))
    }
}

fn refuse(request: &KeyRequest, why: &str, hint: &str) -> Error {
    Error::refused(format!("no keys for `{}`: {why}", request.table)).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::SequenceUse;

    fn sequence(increment: i64, min: i64, max: i64) -> Sequence {
        Sequence { schema: "public".into(), name: "s".into(), increment, min, max, cycle: false, cache: 1 }
    }

    fn request(count: u64, numbers: SequenceNumbers, start: StartRowNumber) -> KeyRequest {
        let sequence = SequenceUse { name: None, numbers };
        KeyRequest { table: "t".into(), column: "id".into(), start, sequence, count, text: None, largest: i64::MAX }
    }

    fn taken(sequence: &Sequence, next: i128, request: &KeyRequest) -> (i64, i64, i64, i128) {
        let Taken { block, next } = sequence.take(next, request).unwrap();
        (block.first, block.last, block.step, next)
    }

    #[test]
    fn each_key_is_a_number_of_the_sequence_or_between_two_of_a_run() {
        use SequenceNumbers::{Blocks, Keys};
        let auto = |count, numbers| request(count, numbers, StartRowNumber::Auto);
        let (one, fifty, down) = (sequence(1, 1, i64::MAX), sequence(50, 1, i64::MAX), sequence(-2, -100, -1));
        assert_eq!(taken(&one, 5, &auto(3, Keys)), (5, 7, 1, 8));
        assert_eq!(taken(&one, 5, &auto(3, Blocks)), (5, 7, 1, 8));
        assert_eq!(taken(&fifty, 101, &auto(3, Keys)), (101, 201, 50, 251));
        assert_eq!(taken(&fifty, 101, &auto(1, Blocks)), (101, 101, 1, 151));
        // The block of the number after the last key begins behind it, and the block that ends with it too.
        assert_eq!(taken(&fifty, 101, &auto(3, Blocks)), (101, 103, 1, 201));
        assert_eq!(taken(&fifty, 101, &auto(51, Blocks)), (101, 151, 1, 201));
        assert_eq!(taken(&fifty, 101, &auto(52, Blocks)), (101, 152, 1, 251));
        assert_eq!(taken(&down, -1, &auto(3, Keys)), (-5, -1, 2, -7));
        assert_eq!(taken(&down, -1, &auto(3, Blocks)), (-3, -1, 1, -5));
        assert_eq!(taken(&one, 5, &auto(0, Keys)), (5, 4, 1, 5));
    }

    #[test]
    fn stated_keys_are_never_given_by_the_sequence_again() {
        let at = |first, count| request(count, SequenceNumbers::Keys, StartRowNumber::At(first));
        let (one, fifty, down) = (sequence(1, 1, i64::MAX), sequence(50, 1, i64::MAX), sequence(-1, -1000, -1));
        assert_eq!(taken(&one, 5, &at(2, 3)), (2, 4, 1, 5));
        assert_eq!(taken(&one, 5, &at(5, 3)), (5, 7, 1, 8));
        assert_eq!(taken(&one, 5, &at(10, 3)), (10, 12, 1, 13));
        assert_eq!(taken(&fifty, 101, &at(20, 32)), (20, 51, 1, 101));
        assert_eq!(taken(&fifty, 101, &at(120, 3)), (120, 122, 1, 201));
        assert_eq!(taken(&down, -5, &at(-20, 3)), (-20, -18, 1, -21));
        assert_eq!(taken(&down, -5, &at(-4, 3)), (-4, -2, 1, -5));
        for (sequence, next, request) in
            [(&one, 5, at(4, 2)), (&fifty, 101, at(51, 2)), (&fifty, 101, at(100, 1)), (&down, -5, at(-6, 3))]
        {
            let error = sequence.take(next, &request).unwrap_err().to_string();
            assert!(error.contains("reach over"), "{error}");
        }
    }

    #[test]
    fn a_sequence_gives_its_last_number_and_no_more() {
        use SequenceNumbers::{Blocks, Keys};
        let auto = |count, numbers| request(count, numbers, StartRowNumber::Auto);
        let (fifty, down) = (sequence(50, 1, 200), sequence(-1, -3, -1));
        assert_eq!(taken(&fifty, 101, &auto(2, Keys)), (101, 151, 50, 201));
        assert_eq!(taken(&fifty, 101, &auto(51, Blocks)), (101, 151, 1, 201));
        assert_eq!(taken(&down, -1, &auto(3, Keys)), (-3, -1, 1, -4));
        for (sequence, next, request) in
            [(&fifty, 101, auto(3, Keys)), (&fifty, 101, auto(52, Blocks)), (&down, -1, auto(4, Keys))]
        {
            let error = sequence.take(next, &request).unwrap_err().to_string();
            assert!(error.contains("ends at"), "{error}");
        }
    }

    #[test]
    fn a_sequence_behind_the_keys_in_use_is_refused() {
        let request = request(1, SequenceNumbers::Keys, StartRowNumber::Auto);
        let (up, down) = (sequence(1, 1, 100), sequence(-1, -100, -1));
        assert!(up.refuse_lagging(5, Some(4), &request).is_ok());
        assert!(up.refuse_lagging(5, None, &request).is_ok());
        assert!(up.refuse_lagging(5, Some(5), &request).is_err());
        assert!(down.refuse_lagging(-5, Some(-4), &request).is_ok());
        assert!(down.refuse_lagging(-5, Some(-6), &request).is_err());
        let block = |first, last| Some((RunId::from("r"), first, last));
        assert!(up.refuse_reserved(5, block(1, 4), &request).is_ok());
        assert!(up.refuse_reserved(5, None, &request).is_ok());
        let refused = up.refuse_reserved(5, block(4, 5), &request).unwrap_err();
        assert!(refused.to_string().contains("run r has reserved the keys 4 to 5"), "{refused}");
        assert!(!refused.next_step().unwrap().contains("setval"), "{refused:?}");
        assert!(down.refuse_reserved(-5, block(-4, -1), &request).is_ok());
        assert!(down.refuse_reserved(-5, block(-5, -4), &request).is_err());
    }
}
