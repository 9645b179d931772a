//! The rows of production that a load refers to, each once. They are few even if the load's rows are many.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::HashMap;

use super::{CatalogColumn, Destination};
use crate::engine::row_field;
use crate::error::Result;

/// The values of a table's foreign keys that refer to rows of production, collected while its rows pass by.
pub(super) struct References {
    foreign_keys: Vec<Reference>,
    /// Whether rows of the table are staged with a level.
    self_referencing: bool,
}

/// The values of one foreign key.
pub(super) struct Distinct {
    /// The index among the table's foreign keys.
    pub(super) foreign_key: usize,
    /// A batch of `_row` (and `_level`), the first row that has the values, and the key's columns.
    pub(super) rows: RecordBatch,
}

/// One foreign key.
struct Reference {
    foreign_key: usize,
    /// Its columns, by their position in a batch.
    at: Vec<usize>,
    fields: Vec<Field>,
    /// The keys of rows that this load inserts.
    of_load: Option<RangeInclusive<i64>>,
    found: Found,
}

/// The values, each with the first row that has it.
enum Found {
    Integers(HashMap<i64, i64>),
    Rows(RowConverter, HashMap<OwnedRow, i64>),
}

impl References {
    /// Returns collectors for the foreign keys that the load fills; `keys` are the blocks of all its tables.
    pub(super) fn try_new(
        destination: &Destination,
        all: &[Destination],
        keys: &BTreeMap<String, (String, String)>,
    ) -> Result<Self> {
        let in_front = 1 + usize::from(destination.self_referencing);
        let mut foreign_keys = Vec::new();
        for (foreign_key, reference) in destination.table.foreign_keys.iter().enumerate() {
            let place = |name: &String| destination.columns.iter().position(|column| column == name);
            let Some(at) = reference.columns.iter().map(place).collect::<Option<Vec<_>>>() else { continue };
            let fields: Vec<Field> = reference
                .columns
                .iter()
                .filter_map(|name| destination.table.column(name))
                .map(CatalogColumn::field)
                .collect();
            let of_load =
                all.iter().any(|parent| parent.table.name == reference.to && parent.key == reference.to_columns);
            let block = keys.get(&reference.to).filter(|_| of_load);
            let block = block.and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
            let found = match fields.as_slice() {
                [one] if *one.data_type() == DataType::Int64 => Found::Integers(HashMap::default()),
                _ => {
                    let types = fields.iter().map(|field| SortField::new(field.data_type().clone()));
                    Found::Rows(RowConverter::new(types.collect())?, HashMap::default())
                }
            };
            let at = at.into_iter().map(|at| in_front + at).collect();
            foreign_keys.push(Reference { foreign_key, at, fields, of_load: block, found });
        }
        Ok(Self { foreign_keys, self_referencing: destination.self_referencing })
    }

    /// Adds a batch as it is staged.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let numbers = batch.column(0).as_primitive::<Int64Type>();
        self.foreign_keys.iter_mut().try_for_each(|reference| reference.add(batch, numbers))
    }

    /// Returns the collected values per foreign key.
    pub(super) fn distinct(self) -> Result<Vec<Distinct>> {
        let self_referencing = self.self_referencing;
        let distinct = |reference: Reference| {
            Ok(Distinct { foreign_key: reference.foreign_key, rows: reference.distinct(self_referencing)? })
        };
        self.foreign_keys.into_iter().map(distinct).collect()
    }
}

impl Reference {
    fn add(&mut self, batch: &RecordBatch, numbers: &Int64Array) -> Result<()> {
        let columns: Vec<ArrayRef> = self.at.iter().map(|at| batch.column(*at).clone()).collect();
        match &mut self.found {
            Found::Integers(found) => {
                let values = columns[0].as_primitive::<Int64Type>();
                for (value, number) in values.iter().zip(numbers.values()) {
                    let Some(value) = value else { continue };
                    if !self.of_load.as_ref().is_some_and(|block| block.contains(&value)) {
                        found.entry(value).or_insert(*number);
                    }
                }
            }
            Found::Rows(converter, found) => {
                let rows = converter.convert_columns(&columns)?;
                for (at, number) in numbers.values().iter().enumerate() {
                    // A reference that is NULL in part refers to nothing.
                    if columns.iter().all(|column| column.is_valid(at)) {
                        found.entry(rows.row(at).owned()).or_insert(*number);
                    }
                }
            }
        }
        Ok(())
    }

    fn distinct(self, self_referencing: bool) -> Result<RecordBatch> {
        let (numbers, columns): (Vec<i64>, Vec<ArrayRef>) = match self.found {
            Found::Integers(found) => {
                let (values, numbers): (Vec<i64>, _) = found.into_iter().unzip();
                (numbers, vec![Arc::new(Int64Array::from(values))])
            }
            Found::Rows(converter, found) => {
                let (rows, numbers): (Vec<OwnedRow>, _) = found.into_iter().unzip();
                (numbers, converter.convert_rows(rows.iter().map(OwnedRow::row))?)
            }
        };
        let mut fields = vec![row_field("_row")];
        let levels: Option<ArrayRef> =
            self_referencing.then(|| Arc::new(Int64Array::from(vec![0; numbers.len()])) as ArrayRef);
        if self_referencing {
            fields.push(row_field("_level"));
        }
        fields.extend(self.fields);
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers));
        let columns = [numbers].into_iter().chain(levels).chain(columns).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}
