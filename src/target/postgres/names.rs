//! The names of this program's own objects and of production's.

use tokio_postgres::Client;

use crate::engine::ident;

pub(super) const CONTROL: &str = "delta";

pub(super) const LOADER: &str = "delta_loader";

/// The role that may set policy and mode, and roll runs back.
pub(super) const ROLLBACK: &str = "delta_rollback";

/// PostgreSQL's limit on the bytes of a name.
const LONGEST: usize = 63;

/// The schemas of one target, its namespace of legacy keys, and its name in errors.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) shown: String,
    pub(super) production: String,
    /// Further schemas with tables of the pipeline, which are named `schema.table`.
    pub(super) schemas: Vec<String>,
    pub(super) staging: String,
    /// Separates the legacy keys of this pipeline from those of another legacy system; empty for the default one.
    pub(super) namespace: String,
}

impl Names {
    pub(super) fn id(&self, schema: &str, name: &str) -> TableId {
        TableId { namespace: self.namespace.clone(), schema: schema.to_owned(), name: name.to_owned() }
    }
}

/// Returns the schemas with tables that this user may use: without the production schema, the system's, this program's own, and those
/// that extensions created. A name with a point could be confused with that of a table.
pub(super) async fn schemas(client: &Client, names: &Names) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "SELECT n.nspname::text FROM pg_namespace AS n
               WHERE n.nspname NOT IN ($1, $2, $3, 'information_schema') AND left(n.nspname, 3) <> 'pg_' AND strpos(n.nspname, '.') = 0
                   AND has_schema_privilege(n.oid, 'USAGE')
                   AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
                   AND EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND NOT c.relispartition)
               ORDER BY 1";
    let found = client.query(sql, &[&names.production, &names.staging, &CONTROL]).await?;
    Ok(found.iter().map(|row| row.get(0)).collect())
}

/// A loaded table: its schema and name, and the namespace of its legacy keys. All three are part of the names of its control objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableId {
    pub(super) namespace: String,
    pub(super) schema: String,
    pub(super) name: String,
}

impl TableId {
    /// Returns the table's name: `public.account`.
    pub(super) fn relation(&self) -> String {
        let part = |part: &str| if part.contains(['.', ':', '"']) { ident(part) } else { part.to_owned() };
        format!("{}.{}", part(&self.schema), part(&self.name))
    }

    /// Returns its key map's name: `public.account`, or `acme:public.account`.
    pub(super) fn key_map(&self) -> String {
        if self.namespace.is_empty() { self.relation() } else { format!("{}:{}", self.namespace, self.relation()) }
    }

    pub(super) fn staging_rows(&self) -> String {
        self.own("")
    }

    pub(super) fn staging_keys(&self) -> String {
        self.own("ck_")
    }

    /// Returns the view of the key map.
    pub(super) fn key_map_view(&self) -> String {
        qualified(CONTROL, &self.key_map_view_name())
    }

    pub(super) fn key_map_view_name(&self) -> String {
        self.own("key_map_")
    }

    /// Returns the table behind the key map. It includes the mappings of uncommitted runs, which do not count.
    pub(super) fn mappings(&self) -> String {
        qualified(CONTROL, &self.mappings_name())
    }

    pub(super) fn mappings_name(&self) -> String {
        self.own("mapping_")
    }

    /// Returns the name of the index on the run of a mapping.
    pub(super) fn by_run_name(&self) -> String {
        self.own("segment_")
    }

    /// Derives a name from the table's: `key_map_account`, or `key_map_sales__account` outside of `public`. A name that is too long or
    /// ambiguous ends with a hash.
    fn own(&self, prefix: &str) -> String {
        let schema = if self.schema == "public" && self.namespace.is_empty() { "" } else { self.schema.as_str() };
        let parts: Vec<&str> =
            [self.namespace.as_str(), schema, &self.name].into_iter().filter(|part| !part.is_empty()).collect();
        let name = format!("{prefix}{}", parts.join("__"));
        let is_plain = |part: &&str| !part.contains("__") && !part.starts_with('_') && !part.ends_with('_');
        if name.len() <= LONGEST && parts.iter().all(is_plain) {
            return name;
        }
        let hash = blake3::hash(self.key_map().as_bytes()).to_hex();
        let mut end = name.len().min(LONGEST - 9);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}_{}", &name[..end], &hash[..8])
    }
}

pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(namespace: &str, schema: &str, name: &str) -> TableId {
        TableId { namespace: namespace.into(), schema: schema.into(), name: name.into() }
    }

    #[test]
    fn names_stay_apart_if_the_server_would_cut_them() {
        let (one, two) = (id("", "public", &("ä".repeat(31) + "a")), id("", "public", &("ä".repeat(31) + "b")));
        assert_ne!(one.key_map_view_name(), two.key_map_view_name());
        assert!(one.key_map_view_name().len() <= LONGEST);
        assert_eq!(id("", "public", "account").key_map_view_name(), "key_map_account");
    }

    #[test]
    fn tables_of_other_schemas_and_namespaces_have_other_names() {
        let ids = [
            id("", "a", "b__c"),
            id("", "a__b", "c"),
            id("a", "b", "c"),
            id("", "a_", "b"),
            id("", "a", "_b"),
            id("", "a.b", "c"),
            id("", "a", "b.c"),
            id("", "b", "c"),
            id("", "public", "b__c"),
            id("", "public", "c"),
            id("b", "public", "c"),
        ];
        for (at, one) in ids.iter().enumerate() {
            for other in &ids[..at] {
                assert_ne!(one.key_map(), other.key_map());
                assert_ne!(one.mappings_name(), other.mappings_name());
                assert_ne!(one.staging_rows(), other.staging_rows());
            }
        }
        assert_eq!(id("acme", "public", "account").key_map(), "acme:public.account");
    }
}
