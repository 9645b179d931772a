//! The columns of a table's files, matched by name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::SourceFile;
use super::columnar::plain;
use super::nested::is_supported;
use crate::error::{Error, Result};

/// The prefix of additional columns in reject files, so that a corrected reject file is a valid delta.
const REJECT_PREFIX: &str = "_reject_";

/// A column that only reject files have.
pub(super) const REJECT_LINE: &str = "_reject_line";

/// The columns found in a file.
pub(super) enum ColumnMatch {
    /// Names, in order, all of type text: CSV.
    Named(Vec<String>),
    /// Names that any row may omit: JSON.
    Keys(Vec<String>),
    /// Names and types: Parquet and Arrow.
    Typed(SchemaRef),
}

/// Matches the files' columns: sets each file's `columns`, and returns the source's schema.
pub(super) fn align(files: &mut [SourceFile], found: &[ColumnMatch], ignore: &[String]) -> Result<SchemaRef> {
    let dropped = |name: &str| name.starts_with(REJECT_PREFIX) || ignore.iter().any(|column| column == name);
    let text = |name: &String| Field::new(name, DataType::Utf8, true);
    let mut columns: Vec<Field> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (index, found) in found.iter().enumerate() {
        let (names, optional): (Vec<Field>, bool) = match found {
            ColumnMatch::Named(names) => (names.iter().map(text).collect(), false),
            ColumnMatch::Keys(names) => (names.iter().map(text).collect(), true),
            ColumnMatch::Typed(schema) => (schema.fields().iter().map(|field| field.as_ref().clone()).collect(), false),
        };
        let mut kept = Vec::with_capacity(names.len());
        for field in names {
            kept.push(if dropped(field.name()) { None } else { Some(typed(&field, &files[index])?) });
        }
        well_named(kept.iter().flatten(), &files[index])?;
        if index > 0 && !optional {
            same_names(&columns, &kept, &files[0], &files[index])?;
        }
        files[index].columns = Vec::with_capacity(kept.len());
        for field in kept {
            let Some(field) = field else {
                files[index].columns.push(None);
                continue;
            };
            let place = if let Some(&place) = places.get(field.name()) {
                same_type(&mut columns[place], &field, &files[0], &files[index])?;
                place
            } else {
                places.insert(field.name().clone(), columns.len());
                columns.push(field);
                columns.len() - 1
            };
            files[index].columns.push(Some(place));
        }
    }
    let columns: Vec<FieldRef> = columns.into_iter().map(Arc::new).collect();
    Ok(Arc::new(Schema::new(columns)))
}

/// Returns a field with the plain type of its values.
fn typed(field: &Field, file: &SourceFile) -> Result<Field> {
    let plain = plain(field.data_type());
    if plain.is_nested() && is_supported(&plain) {
        return Ok(Field::new(field.name(), DataType::Utf8, true));
    }
    if plain.is_nested() {
        return Err(Error::input(format!("`{}`: column \"{}\" has the nested type {plain}", file.name, field.name()))
            .hint(format!("ignore it with `ignore: [{}]` under `source`, or flatten it in the export", field.name())));
    }
    Ok(Field::new(field.name(), plain, true))
}

fn well_named<'a>(fields: impl Iterator<Item = &'a Field>, file: &SourceFile) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, field) in fields.enumerate() {
        if field.name().is_empty() {
            return Err(Error::input(format!("`{}`: column {} has no name", file.name, index + 1)).hint(format!(
                "add `csv: {{ rename: {{ {}: row_number }} }}` to name it, or `ignore: [\"\"]` to ignore it; if each \
                     line ends with a delimiter, set `trailing_delimiter: true`",
                index + 1
            )));
        }
        if !seen.insert(field.name()) {
            return Err(Error::input(format!("`{}` has two columns named \"{}\"", file.name, field.name())).hint(
                format!(
                    "add `csv: {{ rename: {{ {}: {}_2 }} }}` to rename the second one, or list both in `ignore`",
                    index + 1,
                    field.name()
                ),
            ));
        }
    }
    Ok(())
}

fn same_names(columns: &[Field], kept: &[Option<Field>], first: &SourceFile, file: &SourceFile) -> Result<()> {
    let ours: HashSet<&str> = columns.iter().map(|field| field.name().as_str()).collect();
    let theirs: HashSet<&str> = kept.iter().flatten().map(|field| field.name().as_str()).collect();
    let lacks: Vec<&str> = columns.iter().map(|field| field.name().as_str()).filter(|n| !theirs.contains(n)).collect();
    let has: Vec<&str> =
        kept.iter().flatten().map(|field| field.name().as_str()).filter(|n| !ours.contains(n)).collect();
    let message = match (lacks.is_empty(), has.is_empty()) {
        (true, true) => return Ok(()),
        (false, true) => format!("lacks {}, which `{}` has", quoted(&lacks), first.name),
        (true, false) => format!("has {}, which `{}` lacks", quoted(&has), first.name),
        (false, false) => format!("lacks {} and has {}, unlike `{}`", quoted(&lacks), quoted(&has), first.name),
    };
    Err(Error::input(format!("`{}` {message}", file.name)).hint(
        "give all files of a table the same columns, in any order; list columns that are not loaded under `source.ignore`",
    ))
}

/// Keeps the first file's type if all values of this file's type fit into it.
fn same_type(column: &mut Field, field: &Field, first: &SourceFile, file: &SourceFile) -> Result<()> {
    let (ours, theirs) = (column.data_type(), field.data_type());
    if fits(theirs, ours) {
        return Ok(());
    }
    if *ours == DataType::Null {
        // The files so far had no values in the column, and therefore no type.
        *column = field.clone();
        return Ok(());
    }
    Err(Error::input(format!(
        "column \"{}\" is {theirs} in `{}` and {ours} in `{}`",
        field.name(),
        file.name,
        first.name
    ))
    .hint("export all files of one table with the same types"))
}

/// Returns whether every value of `from` is a value of `to`.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Null, UInt8, UInt16, UInt32, UInt64};
    match (from, to) {
        (Int8, Int16 | Int32 | Int64)
        | (Int16, Int32 | Int64)
        | (Int32, Int64)
        | (UInt8, UInt16 | UInt32 | UInt64 | Int16 | Int32 | Int64)
        | (UInt16, UInt32 | UInt64 | Int32 | Int64)
        | (UInt32, UInt64 | Int64)
        | (Float32, Float64)
        | (Null, _) => true,
        (Decimal128(digits, scale), Decimal128(more, same)) => digits <= more && scale == same,
        _ => from == to,
    }
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let noun = if names.len() == 1 { "column" } else { "columns" };
    format!("{noun} {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::files::Compression;
    use arrow::datatypes::{UnionFields, UnionMode};

    use super::*;
    use crate::spec::Format;

    fn files(count: usize) -> Vec<SourceFile> {
        let file = |index: usize| SourceFile {
            path: "x".into(),
            name: format!("{}.csv", ["a", "b", "c"][index]),
            format: Format::Csv,
            bytes: 1,
            compression: Compression::None,
            columns: Vec::new(),
            numbered: false,
        };
        (0..count).map(file).collect()
    }

    fn named(names: &[&str]) -> ColumnMatch {
        ColumnMatch::Named(names.iter().map(ToString::to_string).collect())
    }

    fn one_type(data_type: DataType) -> ColumnMatch {
        ColumnMatch::Typed(Arc::new(Schema::new(vec![Field::new("n", data_type, true)])))
    }

    fn names(schema: &Schema) -> Vec<&str> {
        schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    fn refused(found: &[ColumnMatch]) -> String {
        let error = align(&mut files(found.len()), found, &[]).unwrap_err();
        assert!(error.next_step().is_some());
        error.to_string()
    }

    #[test]
    fn columns_match_by_name_in_any_order() {
        let mut files = files(2);
        let schema = align(&mut files, &[named(&["x", "y", "z"]), named(&["z", "x", "y"])], &[]).unwrap();
        assert_eq!(names(&schema), ["x", "y", "z"]);
        assert_eq!(files[1].columns, [Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn a_column_more_or_less_is_refused_with_both_files() {
        assert_eq!(refused(&[named(&["x", "y"]), named(&["y"])]), "`b.csv` lacks column \"x\", which `a.csv` has");
        assert_eq!(
            refused(&[named(&["x"]), named(&["x", "y", "z"])]),
            "`b.csv` has columns \"y\", \"z\", which `a.csv` lacks"
        );
        assert_eq!(
            refused(&[named(&["x"]), named(&["X"])]),
            "`b.csv` lacks column \"x\" and has column \"X\", unlike `a.csv`"
        );
    }

    #[test]
    fn reject_and_ignored_columns_take_no_part() {
        let mut files = files(2);
        let found = [named(&["x", "old"]), named(&["_reject_line", "x", "_reject_reason"])];
        let schema = align(&mut files, &found, &["old".into()]).unwrap();
        assert_eq!(names(&schema), ["x"]);
        assert_eq!(files[0].columns, [Some(0), None]);
        assert_eq!(files[1].columns, [None, Some(0), None]);
    }

    #[test]
    fn double_and_empty_names_are_refused() {
        assert_eq!(refused(&[named(&["x", "y", "x"])]), "`a.csv` has two columns named \"x\"");
        assert_eq!(refused(&[named(&["x", ""])]), "`a.csv`: column 2 has no name");
        assert!(align(&mut files(1), &[named(&["x", "y", "y"])], &["y".into()]).is_ok());
    }

    #[test]
    fn json_keys_are_the_union_of_all_files() {
        let mut files = files(2);
        let keys = |names: &[&str]| ColumnMatch::Keys(names.iter().map(ToString::to_string).collect());
        let schema = align(&mut files, &[keys(&["b", "a"]), keys(&["c", "a"])], &[]).unwrap();
        assert_eq!(names(&schema), ["b", "a", "c"]);
    }

    #[test]
    fn narrower_integers_fit_and_wider_ones_are_refused() {
        let found = [one_type(DataType::Int64), one_type(DataType::Int32), one_type(DataType::Null)];
        let schema = align(&mut files(3), &found, &[]).unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Int64);
        assert_eq!(
            refused(&[one_type(DataType::Int32), one_type(DataType::Int64)]),
            "column \"n\" is Int64 in `b.csv` and Int32 in `a.csv`"
        );
    }

    #[test]
    fn nested_columns_are_json_and_unions_are_refused() {
        let list = || one_type(DataType::new_list(DataType::Int32, true));
        assert_eq!(align(&mut files(1), &[list()], &[]).unwrap().field(0).data_type(), &DataType::Utf8);
        let union = || one_type(DataType::Union(UnionFields::empty(), UnionMode::Sparse));
        assert!(refused(&[union()]).starts_with("`a.csv`: column \"n\" has the nested type"));
        assert!(align(&mut files(1), &[union()], &["n".into()]).is_ok());
    }
}
