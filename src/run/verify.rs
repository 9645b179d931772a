//! Reading back: every inserted row, found by its key, is compared with what was meant.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::compute::kernels::cmp::distinct;

use crate::check::shown;
use crate::error::{Error, Result};
use crate::keys::{Keys, row_numbers};
use crate::target::{Destination, Load, Target};

/// Compares the rows of a table before the commit.
///
/// # Errors
/// Where a row is missing or differs: the load must not be committed.
pub(super) async fn before_commit(
    load: &mut dyn Load,
    destination: &Destination,
    keys: &Keys<'_>,
    at: usize,
) -> Result<()> {
    match difference(load.read_back(destination).await?, keys, at)? {
        None => Ok(()),
        Some(how) => Err(Error::pipeline(format!("`{}` is not what was meant: {how}", destination.table.name))
            .hint("nothing was loaded; a trigger of production that changes rows looks like this")),
    }
}

/// Compares the rows of a table after the commit.
///
/// # Errors
/// Where a row is missing or differs.
pub(super) async fn after_commit(
    target: &dyn Target,
    destination: &Destination,
    keys: &Keys<'_>,
    at: usize,
) -> Result<()> {
    match difference(target.read_back(destination).await?, keys, at)? {
        None => Ok(()),
        Some(how) => Err(Error::internal(format!("`{}` is not what was meant: {how}", destination.table.name))
            .hint("the run is committed; something changed its rows since: look at the table before anything else")),
    }
}

/// How the rows that were found differ from those that were meant; None where they do not.
fn difference(found: Vec<RecordBatch>, keys: &Keys<'_>, at: usize) -> Result<Option<String>> {
    let mut found = Reader { batches: found.into(), left: 0 };
    for meant in keys.rows(at)? {
        let meant = meant?;
        if meant.num_rows() == 0 {
            continue;
        }
        let Some(found) = found.take(meant.num_rows())?.filter(|found| row_numbers(found) == row_numbers(&meant))
        else {
            return Ok(Some("rows are missing".to_owned()));
        };
        for (column, field) in meant.schema().fields().iter().enumerate().skip(1) {
            let (there, here) = (found.column(column), meant.column(column));
            let differ = distinct(there, here)?;
            if let Some(row) = (0..differ.len()).find(|row| differ.value(*row)) {
                let text = format!(
                    "column `{}` is {} and {} was meant",
                    field.name(),
                    shown(there.as_ref(), row),
                    shown(here.as_ref(), row)
                );
                return Ok(Some(text));
            }
        }
    }
    Ok(found.take(1)?.map(|_| "there are more rows".to_owned()))
}

/// Gives rows in pieces of any size.
struct Reader {
    batches: std::collections::VecDeque<RecordBatch>,
    left: usize,
}

impl Reader {
    fn take(&mut self, rows: usize) -> Result<Option<RecordBatch>> {
        let mut parts = Vec::new();
        let mut wanted = rows;
        while wanted > 0 {
            let Some(first) = self.batches.front() else { return Ok(None) };
            let here = (first.num_rows() - self.left).min(wanted);
            parts.push(first.slice(self.left, here));
            self.left += here;
            wanted -= here;
            if self.left == first.num_rows() {
                self.batches.pop_front();
                self.left = 0;
            }
        }
        match parts.first() {
            Some(part) => Ok(Some(concat_batches(&part.schema(), &parts)?)),
            None => Ok(None),
        }
    }
}
