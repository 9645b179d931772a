//! What must be there before a run, what the login may do, and what it may do too much.

use tokio_postgres::Client;

use super::PostgresTarget;
use super::catalog::PgCatalog;
use super::names::{CONTROL, LOADER, Names, qualified};
use super::setup::VERSION;
use super::staging::MARK;
use crate::engine::list;
use crate::error::{Error, Result};
use crate::spec::{ForeignKeys, LeastPrivilege, StartRowNumber};
use crate::target::{Access, Destination, Preflight, refuse_set_based};

type Asked<T> = Result<T, tokio_postgres::Error>;

/// What a plan says of references that are checked as a set.
const SET_BASED: &str = "referenced rows are locked and references checked as sets before the commit; the server's own check of \
                         each row is off for the insertion (session_replication_role = replica)";

impl PostgresTarget {
    pub(super) async fn check(&self, destinations: &[Destination], access: Access) -> Result<Preflight> {
        let known = self.known().await?;
        let mut preflight = Preflight { warnings: self.connector.warnings().to_vec(), notes: Vec::new() };
        if self.load.foreign_keys == ForeignKeys::SetBased {
            refuse_set_based(destinations)?;
            preflight.notes.push(SET_BASED.to_owned());
        }
        let session = self.session.lock().await;
        let fault = |error| self.connector.explain("cannot read the catalog", &error);
        if self.load.foreign_keys == ForeignKeys::SetBased {
            refuse_unchecked(&session, &known, destinations).await.map_err(fault)??;
        }
        let reasons = self.reasons(&session, &known, destinations).await.map_err(fault)?;
        if !reasons.is_empty() {
            match access {
                Access::Write => {
                    return Err(Error::pipeline(format!(
                        "`{}` is not ready for a load:\n  {}",
                        self.names.shown,
                        reasons.join("\n  ")
                    ))
                    .hint("`pipeline setup FILE` makes what is missing (`--print` shows it as SQL for a DBA); nothing was loaded"));
                }
                _ if self.unfinished => {}
                _ => preflight.warnings.extend(reasons.iter().map(|reason| format!("not ready for a run: {reason}"))),
            }
        }
        let excess = excess(&session, &known, destinations).await.map_err(fault)?;
        if let Some(excess) = excess {
            if self.least_privilege == LeastPrivilege::Require && access == Access::Write {
                return Err(Error::refused(format!("{excess}, and `safeguards.least_privilege` is `require`")).hint(
                    format!("connect as a login that has nothing but the role: CREATE ROLE … LOGIN IN ROLE {LOADER}"),
                ));
            }
            preflight.warnings.push(excess);
        }
        for destination in destinations {
            preflight.notes.extend(Self::note(&known, destination));
        }
        Ok(preflight)
    }

    /// How a table gets its keys, and who waits for it.
    fn note(known: &PgCatalog, destination: &Destination) -> Option<String> {
        let table = &destination.table.name;
        Some(match (known.sequence(destination), destination.assigned?) {
            (Some(sequence), _) => format!("keys of `{table}` are a block of the sequence `{}`", sequence.name),
            (None, StartRowNumber::Auto) => format!(
                "`{table}` has no sequence: from the reading of its largest key to the commit, other programs wait when they write to it"
            ),
            (None, StartRowNumber::At(first)) => {
                format!(
                    "keys of `{table}` begin at {first}; nothing but its primary key keeps other programs from using them"
                )
            }
        })
    }

    /// Why a run cannot begin.
    async fn reasons(&self, client: &Client, known: &PgCatalog, destinations: &[Destination]) -> Asked<Vec<String>> {
        let mut reasons = Vec::new();
        for destination in destinations {
            let Some(table) = known.tables.get(&destination.table.name) else { continue };
            reasons.extend(table.broken.iter().map(|what| format!("`{}`: {what}", destination.table.name)));
        }
        if let Some(reason) = self.control(client).await? {
            reasons.push(reason);
            return Ok(reasons);
        }
        let may: Option<bool> = client
            .query_one(
                "SELECT (SELECT has_schema_privilege(oid, 'USAGE, CREATE') FROM pg_namespace WHERE nspname = $1)",
                &[&self.names.staging],
            )
            .await?
            .get(0);
        match may {
            None => reasons.push(format!("the schema `{}` for staging is missing", self.names.staging)),
            Some(false) => {
                reasons.push(format!("this user may not make tables in the schema `{}`", self.names.staging));
            }
            Some(true) => {}
        }
        for destination in destinations {
            self.table(client, known, destination, &mut reasons).await?;
        }
        if self.load.foreign_keys == ForeignKeys::SetBased && !may_replicate(client).await? {
            reasons.push(format!("the role may not set session_replication_role, which `foreign_keys: set_based` needs (PostgreSQL 15: GRANT SET ON PARAMETER session_replication_role TO {LOADER})"));
        }
        Ok(reasons)
    }

    /// What is wrong with the control schema.
    async fn control(&self, client: &Client) -> Asked<Option<String>> {
        let sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'delta'),
                          EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                                  WHERE n.nspname = 'delta' AND c.relname = 'version'),
                          has_schema_privilege((SELECT oid FROM pg_namespace WHERE nspname = 'delta'), 'USAGE')";
        let row = client.query_one(sql, &[]).await?;
        let (there, own, may): (bool, bool, Option<bool>) = (row.get(0), row.get(1), row.get(2));
        if !there {
            return Ok(Some("the control schema `delta` is missing".into()));
        }
        if !own {
            return Ok(Some("the schema `delta` belongs to something else".into()));
        }
        if may != Some(true) {
            let user: String = client.query_one("SELECT current_user::text", &[]).await?.get(0);
            return Ok(Some(format!(
                "the user `{user}` may not use the control schema `delta`: GRANT {LOADER} TO {user}"
            )));
        }
        let version: Option<i32> = client.query_one("SELECT max(version) FROM delta.version", &[]).await?.get(0);
        Ok(match version.unwrap_or(0) {
            version if version > VERSION => Some(format!(
                "the control schema has version {version}, and this program knows {VERSION}: use a newer one"
            )),
            version if version < VERSION => {
                Some(format!("the control schema has version {version}, and {VERSION} is needed"))
            }
            _ => None,
        })
    }

    async fn table(
        &self,
        client: &Client,
        known: &PgCatalog,
        destination: &Destination,
        reasons: &mut Vec<String>,
    ) -> Asked<()> {
        let name = &destination.table.name;
        let Some(table) = known.tables.get(name) else { return Ok(()) };
        let live = qualified(&table.schema, &table.name);
        let sequence = known.sequence(destination);
        let sql = "SELECT EXISTS (SELECT FROM delta.loaded_table WHERE table_name = $1 AND schema_name = $2 AND staging_schema = $3
                              AND sequence_schema IS NOT DISTINCT FROM $4 AND sequence_name IS NOT DISTINCT FROM $5),
                          to_regclass($6) IS NOT NULL AND has_table_privilege(to_regclass($6), 'INSERT') AND to_regclass($8) IS NOT NULL
                              AND to_regclass($9) IS NOT NULL,
                          has_table_privilege($7::text::regclass, 'SELECT'), has_table_privilege($7::text::regclass, 'INSERT')";
        let row = client
            .query_one(
                sql,
                &[
                    name,
                    &table.schema,
                    &self.names.staging,
                    &sequence.map(|sequence| &sequence.schema),
                    &sequence.map(|sequence| &sequence.name),
                    &Names::mappings(name),
                    &live,
                    &qualified(CONTROL, &Names::by_run_name(name)),
                    &Names::history(name),
                ],
            )
            .await?;
        let [registered, history, select, insert]: [Option<bool>; 4] = std::array::from_fn(|at| row.get(at));
        if registered != Some(true) || history != Some(true) {
            reasons.push(format!("`{name}` was not set up for loading, or was set up before it was changed"));
        }
        if select != Some(true) || insert != Some(true) {
            reasons.push(format!("this user may not both read `{name}` and insert into it"));
        }
        if table.row_security {
            reasons.push(format!("`{name}` has row-level security, which would hide rows from the checks: give {LOADER} a way around it (ALTER ROLE {LOADER} BYPASSRLS)"));
        }
        if table.foreign {
            reasons.push(format!(
                "a partition of `{name}` is on another server: its rows would not go in with the others or not at all"
            ));
        }
        if let Some(other) = taken(client, &self.names, destination).await? {
            reasons.push(other);
        }
        Ok(())
    }
}

/// What the login could do to production though a load never does.
async fn excess(client: &Client, known: &PgCatalog, destinations: &[Destination]) -> Asked<Option<String>> {
    let row =
        client.query_one("SELECT session_user::text, rolsuper FROM pg_roles WHERE rolname = session_user", &[]).await?;
    let (user, superuser): (String, bool) = (row.get(0), row.get(1));
    if superuser {
        return Ok(Some(format!(
            "the login `{user}` is a superuser: it may do anything to production, and a load needs SELECT and INSERT"
        )));
    }
    let mut tables = Vec::new();
    for destination in destinations {
        let Some(table) = known.tables.get(&destination.table.name) else { continue };
        let live = qualified(&table.schema, &table.name);
        let sql = "SELECT has_table_privilege(session_user, $1::text::regclass, 'UPDATE, DELETE, TRUNCATE')";
        if client.query_one(sql, &[&live]).await?.get(0) {
            tables.push(destination.table.name.as_str());
        }
    }
    Ok((!tables.is_empty()).then(|| {
        format!(
            "the login `{user}` may update, delete or truncate {}, and a load needs SELECT and INSERT",
            list(&tables)
        )
    }))
}

/// Refuses `set_based` where the server would check something by a trigger of its own, which is off then, and no set is held against it:
/// deferrable constraints, foreign keys that a partition has for itself, and `MATCH FULL` where only some of its columns are NULL. Nor would
/// rules be asked.
async fn refuse_unchecked(client: &Client, known: &PgCatalog, destinations: &[Destination]) -> Asked<Result<()>> {
    let sql = "SELECT CASE WHEN k.contype <> 'f' THEN 'deferrable constraints' WHEN k.conrelid <> $1::text::regclass THEN 'foreign keys of a partition alone'
                           ELSE 'foreign keys of several columns with MATCH FULL' END, k.conname::text
               FROM pg_constraint AS k
               WHERE (k.conrelid = $1::text::regclass OR k.conrelid IN (SELECT relid FROM pg_partition_tree($1::text::regclass)))
                   AND (k.contype IN ('p', 'u', 'x') AND k.condeferrable
                        OR k.contype = 'f' AND k.conparentid = 0 AND k.conrelid <> $1::text::regclass
                        OR k.contype = 'f' AND k.confmatchtype = 'f' AND cardinality(k.conkey) > 1 AND EXISTS (
                            SELECT FROM pg_attribute AS a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND NOT a.attnotnull))
               ORDER BY 1, 2";
    for destination in destinations {
        let name = &destination.table.name;
        let Some(table) = known.tables.get(name) else { continue };
        let found = client.query(sql, &[&qualified(&table.schema, &table.name)]).await?;
        let what = match found.first() {
            _ if !table.rules.is_empty() => format!("tables with rules on INSERT: {} of `{name}`", list(&table.rules)),
            Some(row) => format!("{}: `{}` of `{name}`", row.get::<_, &str>(0), row.get::<_, &str>(1)),
            None => continue,
        };
        return Ok(Err(Error::pipeline(format!("`foreign_keys: set_based` is not for {what}"))
            .hint("write `foreign_keys: triggers`, which is what runs without `load`")));
    }
    Ok(Ok(()))
}

async fn may_replicate(client: &Client) -> Asked<bool> {
    let sql = "SELECT rolsuper OR current_setting('server_version_num')::int >= 150000 FROM pg_roles WHERE rolname = current_user";
    if !client.query_one(sql, &[]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    let sql = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
    if client.query_one(sql, &[]).await?.get(0) {
        return Ok(true);
    }
    Ok(client.query_one("SELECT has_parameter_privilege('session_replication_role', 'SET')", &[]).await?.get(0))
}

/// What has the name of a staging table and is none.
async fn taken(client: &Client, names: &Names, destination: &Destination) -> Asked<Option<String>> {
    for name in Names::staging_names(&destination.table.name) {
        let sql = "SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = $2 AND NOT starts_with(coalesce(obj_description(c.oid, 'pg_class'), ''), $3)";
        if client.query_opt(sql, &[&names.staging, &name, &MARK]).await?.is_some() {
            return Ok(Some(format!(
                "`{}.{name}` is a table of its own: choose another `target.staging`",
                names.staging
            )));
        }
    }
    Ok(None)
}

/// Refuses to make a staging table in the place of another table.
pub(super) async fn refuse_taken(client: &Client, names: &Names, destination: &Destination) -> Asked<Result<()>> {
    Ok(match taken(client, names, destination).await? {
        Some(what) => Err(Error::pipeline(what).hint("nothing was written")),
        None => Ok(()),
    })
}
