//! The types of columns: the base types of domains, and the constraints of domains and enums.

use std::collections::HashMap;

use arrow::datatypes::DataType;

use super::catalog::Row;
use super::types::PgType;
use crate::target::{Component, LogicalType};

pub(super) struct Types {
    types: HashMap<u32, Type>,
}

pub(super) struct Type {
    pub(super) name: String,
    builtin: bool,
    kind: String,
    base: u32,
    modifier: i32,
    element: u32,
    /// The type of a range's bounds.
    bound: u32,
    /// The types of a composite type's columns, with their modifiers.
    columns: Vec<(u32, i32)>,
    pub(super) not_null: bool,
    pub(super) has_default: bool,
    base_declared: String,
    base_unlimited: String,
    pub(super) labels: Vec<String>,
    pub(super) checks: Vec<DomainCheck>,
}

/// A CHECK of a domain, as the server prints it.
pub(super) struct DomainCheck {
    pub(super) name: String,
    pub(super) validated: bool,
    pub(super) expr: String,
}

/// A column's base type, below its domains.
pub(super) struct Base<'a> {
    pub(super) pg_type: PgType,
    /// The type's notation, if it differs from the column's own.
    pub(super) declared: Option<&'a str>,
    /// The type's notation without its modifier, if it differs from the column's own.
    pub(super) unlimited: Option<&'a str>,
    pub(super) max_length: Option<u64>,
    /// The fractional digits of seconds, if fewer than six.
    pub(super) digits: Option<u32>,
    pub(super) domains: Vec<&'a Type>,
    pub(super) of: Option<&'a Type>,
    /// Whether only production knows the valid elements.
    pub(super) loose: bool,
    /// Whether the type limits its values by a modifier that the server applies silently in a cast.
    pub(super) is_limited: bool,
    modifier: i32,
}

impl Base<'_> {
    /// Returns the name of the type if it is the server's own.
    pub(super) fn builtin(&self) -> Option<&str> {
        self.of.filter(|of| of.builtin).map(|of| of.name.as_str())
    }

    /// Returns whether the type, or that of its elements, is the server's own.
    pub(super) fn is_builtin(&self) -> bool {
        self.builtin().is_some()
    }

    /// Returns the notation of an array behind the type of its elements.
    pub(super) fn brackets(&self) -> &'static str {
        if matches!(self.pg_type, PgType::Array(_)) { "[]" } else { "" }
    }

    /// Returns the cast that a text needs before the one to the type. A text of `money` depends on the locale; a number does not.
    pub(super) fn through(&self) -> &'static str {
        match self.builtin() {
            Some("money") => "::numeric",
            Some("_money") => "::numeric[]",
            _ => "",
        }
    }
}

impl Types {
    /// Builds the types from the query results: types, labels of enums, and CHECKs of domains.
    pub(super) fn new(types: &[Row], labels: &[Row], checks: &[Row]) -> Self {
        let made = |row: &Row| Type {
            name: row.text("name").to_owned(),
            builtin: row.is("builtin"),
            kind: row.text("kind").to_owned(),
            base: row.number("base"),
            modifier: row.number("modifier"),
            element: row.number("element"),
            bound: row.number("bound"),
            columns: row.text("columns").split(',').filter_map(typed).collect(),
            not_null: row.is("not_null"),
            has_default: row.is("has_default"),
            base_declared: row.text("base_declared").to_owned(),
            base_unlimited: row.text("base_unlimited").to_owned(),
            labels: Vec::new(),
            checks: Vec::new(),
        };
        let mut types: HashMap<u32, Type> = types.iter().map(|row| (row.number("oid"), made(row))).collect();
        for row in labels {
            if let Some(of) = types.get_mut(&row.number("type")) {
                of.labels.push(row.text("label").to_owned());
            }
        }
        for row in checks {
            if let Some(of) = types.get_mut(&row.number("type")) {
                let (name, expr) = (row.text("name").to_owned(), row.text("expr").to_owned());
                of.checks.push(DomainCheck { name, validated: row.is("validated"), expr });
            }
        }
        Self { types }
    }

    /// Returns the base type of a column's type, below all domains.
    pub(super) fn base(&self, oid: u32, modifier: i32) -> Base<'_> {
        let (mut oid, mut modifier) = (oid, modifier);
        let (mut declared, mut unlimited, mut domains) = (None, None, Vec::new());
        let of = loop {
            match self.types.get(&oid) {
                Some(domain) if domain.kind == "d" => {
                    (oid, modifier, declared) = (domain.base, domain.modifier, Some(domain.base_declared.as_str()));
                    unlimited = Some(domain.base_unlimited.as_str());
                    domains.push(domain);
                }
                other => break other,
            }
        };
        let mut base = Base {
            pg_type: PgType::Other,
            declared,
            unlimited,
            max_length: None,
            digits: None,
            domains,
            of,
            loose: false,
            is_limited: modifier >= 0,
            modifier,
        };
        let Some(of) = of else { return base };
        if of.element != 0 {
            let element = self.base(of.element, modifier);
            let any = matches!(element.pg_type, PgType::Enum | PgType::Other) || !element.domains.is_empty();
            base.loose = any || element.loose || element.max_length.is_some();
            base.pg_type = PgType::Array(Box::new(element.pg_type));
            return base;
        }
        base.pg_type = match (of.builtin, of.name.as_str()) {
            _ if of.kind == "e" => PgType::Enum,
            (true, "bool") => PgType::Bool,
            (true, "int2") => PgType::Int2,
            (true, "int4") => PgType::Int4,
            (true, "int8") => PgType::Int8,
            (true, "float4") => PgType::Float4,
            (true, "float8") => PgType::Float8,
            (true, "numeric") => numeric(modifier),
            (true, "text" | "varchar") => PgType::Text,
            (true, "bpchar") => PgType::Padded,
            (true, "json") => PgType::Json,
            (true, "jsonb") => PgType::Jsonb,
            (true, "uuid") => PgType::Uuid,
            (true, "bytea") => PgType::Bytea,
            (true, "date") => PgType::Date,
            (true, "time") => PgType::Time,
            (true, "timestamp") => PgType::Timestamp,
            (true, "timestamptz") => PgType::Timestamptz,
            (true, "interval") => PgType::Interval,
            _ => PgType::Other,
        };
        let timed = matches!(base.pg_type, PgType::Time | PgType::Timestamp | PgType::Timestamptz);
        base.digits = u32::try_from(modifier).ok().filter(|digits| timed && *digits < 6);
        let limited = matches!(base.pg_type, PgType::Text | PgType::Padded);
        base.max_length = u64::try_from(modifier - 4).ok().filter(|_| limited);
        base
    }
}

impl Types {
    /// Returns the constraints on the values of a type. A server accepts more texts of ranges, composite values, and times with a zone
    /// than it keeps.
    pub(super) fn form(&self, base: &Base<'_>) -> LogicalType {
        let Some(of) = base.of else { return base.pg_type.form() };
        match &base.pg_type {
            PgType::Array(element) => {
                LogicalType::Array(Box::new((element.arrow(), self.form(&self.base(of.element, -1)))))
            }
            PgType::Other if of.builtin && of.name == "timetz" => LogicalType::ZonedTime,
            PgType::Other if of.bound != 0 => {
                let bound = self.component(of.bound, -1);
                match of.kind.as_str() {
                    _ if bound.is_open() => LogicalType::Opaque,
                    "m" => LogicalType::Multirange(Box::new(bound)),
                    _ => LogicalType::Range(Box::new(bound)),
                }
            }
            PgType::Other if of.kind == "c" => {
                let columns: Vec<_> =
                    of.columns.iter().map(|(oid, modifier)| self.component(*oid, *modifier)).collect();
                match columns.iter().all(Component::is_open) {
                    true => LogicalType::Opaque,
                    false => LogicalType::Composite(columns),
                }
            }
            pg_type => pg_type.form(),
        }
    }

    /// Returns the type of a bound or of a composite type's column. It is open if the server keeps each value or rejects it.
    fn component(&self, oid: u32, modifier: i32) -> Component {
        let base = self.base(oid, modifier);
        let digits = u32::try_from(base.modifier).ok().filter(|_| base.builtin() == Some("timetz"));
        let (data_type, form) = match &base.pg_type {
            // The server rounds their fractions, or removes whole units.
            PgType::Interval if base.is_limited => (DataType::Utf8, LogicalType::Unforeseen),
            PgType::Array(element) if base.is_limited && !matches!(**element, PgType::Numeric { .. }) => {
                (DataType::Utf8, LogicalType::Unforeseen)
            }
            PgType::Float4
            | PgType::Float8
            | PgType::Numeric { precision: Some(_), .. }
            | PgType::Date
            | PgType::Time
            | PgType::Timestamp
            | PgType::Timestamptz
            | PgType::Padded
            | PgType::Interval
            | PgType::Array(_)
            | PgType::Other => (base.pg_type.arrow(), self.form(&base)),
            _ => (DataType::Utf8, LogicalType::Opaque),
        };
        Component { data_type, form, max_length: base.max_length, digits: digits.or(base.digits) }
    }
}

/// Decodes the type and the modifier of a composite type's column.
fn typed(column: &str) -> Option<(u32, i32)> {
    let (oid, modifier) = column.split_once(' ')?;
    Some((oid.parse().ok()?, modifier.parse().ok()?))
}

/// Decodes a number's type modifier: sixteen bits of precision, eleven of scale.
fn numeric(modifier: i32) -> PgType {
    match modifier - 4 {
        none if none < 0 => PgType::Numeric { precision: None, scale: 0 },
        both => PgType::Numeric {
            precision: u16::try_from(both >> 16).ok(),
            scale: (((both & 0x7ff) ^ 0x400) - 0x400) as i16,
        },
    }
}
