//! Similarity of names, such as `ServicePoints`, `service_point`, and `SERVICE-POINT_2025.csv`.

/// Words in file names that do not identify a table.
const FILE_WORDS: [&str; 12] =
    ["delta", "export", "extract", "dump", "data", "new", "full", "part", "load", "file", "tbl", "table"];

/// First words of table names that do not identify a table.
const TABLE_WORDS: [&str; 2] = ["tbl", "table"];

/// Final words of key columns.
const KEY_WORDS: [&str; 12] = ["id", "ref", "key", "no", "code", "legacy", "old", "ext", "fk", "uid", "uuid", "guid"];

/// Splits a name into words in lower case and in the singular.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for char in name.chars() {
        let begins = !before.is_alphanumeric() || (before.is_lowercase() && char.is_uppercase());
        if char.is_alphanumeric() {
            match words.last_mut().filter(|_| !begins) {
                Some(word) => word.extend(char.to_lowercase()),
                None => words.push(char.to_lowercase().collect()),
            }
        }
        before = char;
    }
    words.iter().map(|word| singular(word)).collect()
}

/// Returns the singular of a word, and one word for synonyms.
fn singular(word: &str) -> String {
    match word {
        "nr" | "num" | "number" | "numbers" => "no".into(),
        "reference" | "refs" => "ref".into(),
        "identifier" | "ids" => "id".into(),
        "status" | "address" => word.into(),
        _ => match word.strip_suffix("ies").filter(|stem| stem.chars().count() > 1) {
            Some(stem) => format!("{stem}y"),
            None => match word.strip_suffix("es").filter(|stem| stem.ends_with(['s', 'x', 'z', 'h'])) {
                Some(stem) => stem.to_owned(),
                None => {
                    let stem = word.strip_suffix('s').filter(|stem| stem.chars().count() > 2 && !stem.ends_with('s'));
                    stem.unwrap_or(word).to_owned()
                }
            },
        },
    }
}

/// Returns the words of a file name that identify its table, without extensions, numbers, dates, and words such as `export`.
pub(super) fn file_words(name: &str) -> Vec<String> {
    let stem = name.split('.').next().unwrap_or_default();
    let all = words(stem);
    let mut words: Vec<String> = all
        .iter()
        .map(|word| word.trim_end_matches(|char: char| char.is_ascii_digit()).to_owned())
        .filter(|word| !word.is_empty() && !FILE_WORDS.contains(&word.as_str()))
        .collect();
    if words.is_empty() {
        words = all;
    }
    words
}

/// Returns the words of a name without key words such as `id`, or all words if there are no others.
pub(super) fn stem(name: &str) -> Vec<String> {
    let all = words(name);
    let rest: Vec<String> = all.iter().filter(|word| !KEY_WORDS.contains(&word.as_str())).cloned().collect();
    if rest.is_empty() { all } else { rest }
}

/// Returns whether a name ends with a key word.
pub(super) fn is_key(name: &str) -> bool {
    words(name).last().is_some_and(|word| KEY_WORDS.contains(&word.as_str()))
}

/// Returns whether a name is that of a number within a parent, such as `LineNo` or `position`.
pub(super) fn is_position(name: &str) -> bool {
    const WORDS: [&str; 8] = ["line", "pos", "position", "seq", "sequence", "item", "row", "no"];
    words(name).iter().any(|word| WORDS.contains(&word.as_str()))
}

/// Returns whether a list of words is a proper prefix or suffix of another list.
pub(super) fn part_of(part: &[String], whole: &[String]) -> bool {
    !part.is_empty() && part.len() < whole.len() && (whole.starts_with(part) || whole.ends_with(part))
}

/// The similarity of two column names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alike {
    /// A shared word.
    Word,
    /// One name is a part of the other.
    Part,
    /// Equal words, possibly after the table's name.
    Words,
    /// Equal but for the case.
    Case,
    /// Equal.
    Same,
}

/// Returns the similarity of a source column and a column of a table; None if the names have nothing in common.
pub(super) fn alike(source: &str, column: &str, table: &str) -> Option<Alike> {
    if source == column {
        return Some(Alike::Same);
    }
    if source.eq_ignore_ascii_case(column) {
        return Some(Alike::Case);
    }
    let (table, ours, theirs) = (words(relation(table)), words(source), words(column));
    let without = |words: &[String]| -> Vec<String> {
        words.strip_prefix(table.as_slice()).filter(|rest| !rest.is_empty()).unwrap_or(words).to_vec()
    };
    if ours == theirs || without(&ours) == without(&theirs) || ours.concat() == theirs.concat() {
        Some(Alike::Words)
    } else if part_of(&ours, &theirs) || part_of(&theirs, &ours) {
        Some(Alike::Part)
    } else {
        let shares = without(&ours).iter().any(|word| without(&theirs).contains(word));
        shares.then_some(Alike::Word)
    }
}

/// Splits the name of a table into its schema, if it names one, and its name there.
fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once('.') {
        Some((schema, relation)) if !schema.is_empty() && !relation.is_empty() => (Some(schema), relation),
        _ => (None, name),
    }
}

/// Returns the name of a table without its schema.
pub(super) fn relation(name: &str) -> &str {
    split(name).1
}

/// A match by a part of the words only.
pub(super) const PART: u8 = 1;

/// The best match.
pub(super) const EXACT: u8 = 10;

/// The name of a table, prepared for comparisons.
pub(super) struct TableName<'a> {
    pub(super) name: &'a str,
    schema: Option<&'a str>,
    relation: &'a str,
    /// The words of its name within the schema, and with the schema.
    words: Vec<String>,
    all_words: Vec<String>,
}

impl<'a> TableName<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        let (schema, relation) = split(name);
        Self { name, schema, relation, words: table_words(name), all_words: words(name) }
    }

    /// Returns how well a name of files in a folder matches, from 0 to [`EXACT`]. A name with the schema matches best. Any other name
    /// matches a table of the production schema better than one of another schema, and counts more if the case is the same.
    pub(super) fn score_name(&self, file: &str, folder: Option<&str>) -> u8 {
        let same = |one: &str, other: &str| match () {
            () if one == other => Some(true),
            () if one.to_lowercase() == other.to_lowercase() => Some(false),
            () => None,
        };
        let in_folder = self.schema.zip(folder).and_then(|(schema, folder)| same(schema, folder));
        let full = same(file, self.name).filter(|_| self.schema.is_some());
        match (full, same(file, self.relation), in_folder) {
            (Some(is_exact), _, _) => EXACT - u8::from(!is_exact),
            (None, Some(is_exact), Some(in_case)) => EXACT - u8::from(!is_exact || !in_case),
            (None, Some(is_exact), None) => 8 - 2 * u8::from(!is_exact) - u8::from(self.schema.is_some()),
            (None, None, _) => 0,
        }
    }

    /// Returns how well a file's words match: 4 or 3 for the same words, [`PART`] for a part of them, 0 for no match.
    pub(super) fn score(&self, file: &[String]) -> u8 {
        let same = |words: &[String]| *file == *words || file.concat() == words.concat();
        if same(&self.words) || same(&self.all_words) {
            4 - u8::from(self.schema.is_some() && !same(&self.all_words))
        } else {
            PART * u8::from(part_of(&self.words, file) || part_of(file, &self.words))
        }
    }
}

/// Returns the words of a table's name, without its schema and without a prefix such as `tbl`.
pub(super) fn table_words(name: &str) -> Vec<String> {
    let all = words(relation(name));
    match all.split_first() {
        Some((first, rest)) if TABLE_WORDS.contains(&first.as_str()) && !rest.is_empty() => rest.to_vec(),
        _ => all,
    }
}

/// Returns whether a sequence is named after a table of its schema: `artist_seq`, `seq_artist`, or `artist_artist_id_seq`.
pub(super) fn is_sequence_of(sequence: &str, table: &str) -> bool {
    let (ours, theirs) = (split(sequence), split(table));
    let mut words = words(ours.1);
    words.retain(|word| !["seq", "sequence", "sq", "id"].contains(&word.as_str()));
    let of = table_words(table);
    ours.0 == theirs.0 && (words == of || words == [of.clone(), of].concat())
}

/// Returns the letters and digits of a name's stem as one word: `shipmethod` for `ShipMethodID`, `shipmethodid`, and `ship_method`.
pub(super) fn bare(name: &str) -> String {
    let stem = stem(name).concat();
    let shortened = KEY_WORDS.iter().filter_map(|word| stem.strip_suffix(word)).find(|rest| rest.chars().count() > 3);
    shortened.map_or_else(|| stem.clone(), ToOwned::to_owned)
}

/// Returns whether two names have a word or its beginning in common, or differ in spelling alone. Such a name is only worth a question.
pub(super) fn resembles(source: &str, other: &str) -> bool {
    let (ours, theirs) = (stem(source), stem(other));
    let begins = |a: &str, b: &str| a.chars().count() > 3 && b.starts_with(a);
    let related = |a: &String| theirs.iter().any(|b| a == b || begins(a, b) || begins(b, a));
    let (our, their) = (bare(source), bare(other));
    let contains = |a: &str, b: &str| a.chars().count() > 3 && b.contains(a);
    ours.iter().any(related) || contains(&our, &their) || contains(&their, &our) || is_misspelling(&our, &their)
}

/// Returns whether two words of at least six characters differ in one character, or in two exchanged ones.
fn is_misspelling(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().min(other.len()) < 6 || one.len().abs_diff(other.len()) > 1 {
        return false;
    }
    let front = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let back = one[front..].iter().rev().zip(other[front..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (left, right) = (&one[front..one.len() - back], &other[front..other.len() - back]);
    match (left, right) {
        ([a, b], [c, d]) => a == d && b == c,
        (left, right) => left.len() < 2 && right.len() < 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_into_words() {
        for (name, expected) in [
            ("ServicePoints", "service point"),
            ("SERVICE_POINT", "service point"),
            ("service-point", "service point"),
            ("account_no", "account no"),
            ("AccountNumber", "account no"),
            ("companies", "company"),
            ("addresses", "address"),
            ("status", "status"),
            ("bus", "bus"),
            ("Größe_m2", "größe m2"),
            ("__", ""),
        ] {
            assert_eq!(words(name).join(" "), expected, "{name}");
        }
    }

    #[test]
    fn file_names_match_without_dates_numbers_and_extensions() {
        for (name, expected) in [
            ("person-1.csv", "person"),
            ("Export_Accounts_2025-11-30.csv.gz", "account"),
            ("reads-2025-11.csv", "read"),
            ("delta.csv", "delta"),
            ("20251130.csv", "20251130"),
        ] {
            assert_eq!(file_words(name).join(" "), expected, "{name}");
        }
        for (file, table, expected) in
            [("accounts.csv", "account", 4), ("reads-1.csv", "meter_read", 1), ("persons.csv", "account", 0)]
        {
            assert_eq!(TableName::new(table).score(&file_words(file)), expected, "{file} {table}");
        }
        assert_eq!(TableName::new("tblInsuree").score(&file_words("insurees.csv")), 4);
    }

    #[test]
    fn files_match_tables_of_other_schemas() {
        let (own, sales, hr) = (TableName::new("person"), TableName::new("sales.person"), TableName::new("hr.person"));
        let scores = |file: &str, folder: Option<&str>| {
            [&own, &sales, &hr].map(|table| table.score_name(file, folder).max(table.score(&file_words(file))))
        };
        for (file, folder, expected) in [
            ("person", None, [8, 7, 7]),
            ("Person", None, [6, 5, 5]),
            ("persons", None, [4, 3, 3]),
            ("person", Some("sales"), [8, 10, 7]),
            ("Person", Some("Sales"), [6, 9, 5]),
            ("hr.person", None, [0, 0, 10]),
            ("hr_person", None, [1, 1, 4]),
            ("order", Some("sales"), [0, 0, 0]),
        ] {
            assert_eq!(scores(file, folder), expected, "{file} {folder:?}");
        }
        assert_eq!(alike("PersonName", "name", "sales.person"), Some(Alike::Words));
        for (sequence, table, expected) in [
            ("artist_seq", "artist", true),
            ("sales.order_order_id_seq", "sales.order", true),
            ("seq_artists", "artist", true),
            ("artist_seq", "sales.artist", false),
            ("artist_name_seq", "artist", false),
        ] {
            assert_eq!(is_sequence_of(sequence, table), expected, "{sequence} {table}");
        }
    }

    #[test]
    fn other_spellings_are_worth_a_question() {
        for (source, other) in [
            ("shipmethod", "shipmethodid"),
            ("shipper", "shippers"),
            ("cust_name", "customer_title"),
            ("telefon", "telefone_no"),
            ("adress", "address"),
            ("managerref", "manager_id"),
        ] {
            assert!(resembles(source, other), "{source} {other}");
        }
        for (source, other) in [("title", "person_type"), ("city", "region"), ("note", "notary"), ("qty", "total")] {
            assert!(!resembles(source, other), "{source} {other}");
        }
        assert_eq!(bare("ShipMethodID"), "shipmethod");
        assert_eq!(bare("shipmethodid"), "shipmethod");
        assert_eq!(bare("paid"), "paid");
    }

    #[test]
    fn columns_are_compared_by_name() {
        for (source, column, expected) in [
            ("status", "status", Some(Alike::Same)),
            ("STATUS", "status", Some(Alike::Case)),
            ("AccountStatus", "status", Some(Alike::Words)),
            ("account_nr", "account_no", Some(Alike::Words)),
            ("birthdate", "birth_date", Some(Alike::Words)),
            ("name", "last_name", Some(Alike::Part)),
            ("bill_month", "bill_cycle", Some(Alike::Word)),
            ("title", "person_type", None),
        ] {
            assert_eq!(alike(source, column, "account"), expected, "{source} {column}");
        }
    }
}
