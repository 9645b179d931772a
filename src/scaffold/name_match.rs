//! Similarity of names, such as `ServicePoints`, `service_point`, and `SERVICE-POINT_2025.csv`.

/// Words in file names that do not identify a table.
const FILE_WORDS: [&str; 12] =
    ["delta", "export", "extract", "dump", "data", "new", "full", "part", "load", "file", "tbl", "table"];

/// Final words of key columns.
const KEY_WORDS: [&str; 11] = ["id", "ref", "key", "no", "code", "legacy", "old", "ext", "fk", "uid", "uuid"];

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
    let (table, ours, theirs) = (words(table), words(source), words(column));
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

/// Returns how well a file's words match a table: 2 for the same words, 1 for a part of them, 0 for no match.
pub(super) fn score(file: &[String], table: &str) -> u8 {
    let table = words(table);
    if *file == table || file.concat() == table.concat() {
        2
    } else {
        u8::from(part_of(&table, file) || part_of(file, &table))
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
        assert_eq!(score(&file_words("accounts.csv"), "account"), 2);
        assert_eq!(score(&file_words("reads-1.csv"), "meter_read"), 1);
        assert_eq!(score(&file_words("persons.csv"), "account"), 0);
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
