//! How this program's own objects are called, and production's.

use crate::engine::ident;

/// The schema of the control objects.
pub(super) const CONTROL: &str = "delta";

/// The role that loads.
pub(super) const LOADER: &str = "delta_loader";

/// The role that decides what loads may do, and takes them back.
pub(super) const ROLLBACK: &str = "delta_rollback";

/// The most bytes of a name.
const LONGEST: usize = 63;

/// The schemas of one target, and what errors call it.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) shown: String,
    pub(super) production: String,
    pub(super) staging: String,
}

impl Names {
    pub(super) fn staging(&self, table: &str) -> String {
        qualified(&self.staging, &own("", table))
    }

    pub(super) fn staged_keys(&self, table: &str) -> String {
        qualified(&self.staging, &own("ck_", table))
    }

    /// The bare names of a table's two staging tables.
    pub(super) fn staging_names(table: &str) -> [String; 2] {
        [own("", table), own("ck_", table)]
    }

    pub(super) fn history(table: &str) -> String {
        qualified(CONTROL, &Self::history_name(table))
    }

    pub(super) fn history_name(table: &str) -> String {
        own("key_map_", table)
    }

    /// The mappings behind a history: those of a run that has not committed are among them, and do not count.
    pub(super) fn mappings(table: &str) -> String {
        qualified(CONTROL, &Self::mappings_name(table))
    }

    pub(super) fn mappings_name(table: &str) -> String {
        own("mapping_", table)
    }

    /// The index by which the mappings of one run are found.
    pub(super) fn by_run_name(table: &str) -> String {
        own("segment_", table)
    }
}

/// `"schema"."name"`.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A name made of a table's; one that the server would cut ends with a hash instead.
fn own(prefix: &str, table: &str) -> String {
    let name = format!("{prefix}{table}");
    if name.len() <= LONGEST {
        return name;
    }
    let hash = blake3::hash(table.as_bytes()).to_hex();
    let mut end = LONGEST - 9;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{}", &name[..end], &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_apart_where_the_server_would_cut_them() {
        let (one, two) = ("ä".repeat(31) + "a", "ä".repeat(31) + "b");
        assert_ne!(Names::history_name(&one), Names::history_name(&two));
        assert!(Names::history_name(&one).len() <= LONGEST);
        assert_eq!(Names::history_name("account"), "key_map_account");
    }
}
