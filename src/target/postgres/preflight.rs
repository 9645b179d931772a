//! Preconditions of a run: the required objects, the login's missing rights, and its excess rights.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::PgTarget;
use super::catalog::PgCatalog;
use super::commit_checks;
use super::control::{Kind, VERSION, rights};
use super::names::{LOADER, Names, qualified};
use super::staging::{MARK, Staged};
use super::trigger;
use crate::engine::{ident, list};
use crate::error::{Error, Result};
use crate::spec::{ForeignKeys, LeastPrivilege, Lock, SequenceNumbers, StartRowNumber};
use crate::target::{Access, AssignedKey, CatalogColumn, Destination, Preflight, refuse_set_based};

type PgResult<T> = Result<T, tokio_postgres::Error>;

/// The note of a plan whose references are checked as sets.
const SET_BASED: &str = "referenced rows are locked and references checked as sets before the commit; the server's own check of \
                         each row is off for the insertion (session_replication_role = replica)";

impl PgTarget {
    pub(super) async fn check(&self, destinations: &[Destination], access: Access) -> Result<Preflight> {
        let known = self.known().await?;
        let mut preflight = Preflight { warnings: self.connector.warnings().to_vec(), notes: Vec::new() };
        if self.load.foreign_keys == ForeignKeys::SetBased {
            refuse_set_based(destinations)?;
            preflight.notes.push(SET_BASED.to_owned());
        }
        if self.load.lock == Lock::None {
            refuse_unknown_keys(&known, &self.names, destinations)?;
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
                    .hint(
                        "nothing was loaded; run the statements, or `pipeline setup FILE`, which runs all of them (`--print` shows the SQL)",
                    ));
                }
                _ if self.unfinished => {}
                _ => preflight.warnings.extend(reasons.iter().map(|reason| format!("not ready for a run: {reason}"))),
            }
        }
        let excess = excess(&session, &known, destinations).await.map_err(fault)?;
        if let Some(excess) = excess {
            if self.least_privilege == LeastPrivilege::Require && access == Access::Write {
                return Err(Error::refused(format!("{excess}, and `safeguards.least_privilege` is `require`")).hint(
                    format!("connect as a login that has only this role: CREATE ROLE … LOGIN IN ROLE {LOADER}"),
                ));
            }
            preflight.warnings.push(excess);
        }
        let loaded = destinations.iter().filter_map(|destination| known.tables.get(&destination.table.name));
        let loaded: Vec<_> = loaded.map(|table| (table.schema.clone(), table.name.clone())).collect();
        preflight.notes.extend(trigger::notes(&session, &loaded).await.map_err(fault)?);
        for destination in destinations {
            preflight.notes.extend(self.note(&known, destination));
            preflight.notes.extend(commit_checks::notes(&self.load, destination));
        }
        Ok(preflight)
    }

    /// Describes how a table gets its keys, and whether other writers must wait.
    fn note(&self, known: &PgCatalog, destination: &Destination) -> Option<String> {
        let table = &destination.table.name;
        let assigned = destination.assigned.as_ref()?;
        Some(match (known.sequence(&self.names, destination), assigned.start) {
            (Some(sequence), StartRowNumber::Auto)
                if sequence.increment != 1 && assigned.sequence.numbers == SequenceNumbers::Keys =>
            {
                format!(
                    "keys of `{table}` are numbers of the sequence `{0}`, which counts by {1}. If other programs use each of them for a \
                     block of {2} keys, `numbers: blocks` in the table's `key` takes fewer",
                    sequence.name,
                    sequence.increment,
                    sequence.increment.unsigned_abs()
                )
            }
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

    /// Returns the reasons that a run cannot begin.
    async fn reasons(&self, client: &Client, known: &PgCatalog, destinations: &[Destination]) -> PgResult<Vec<String>> {
        let mut reasons = Vec::new();
        for destination in destinations {
            let Some(table) = known.tables.get(&destination.table.name) else { continue };
            reasons.extend(table.broken.iter().map(|what| format!("`{}`: {what}", destination.table.name)));
        }
        if let Some(reason) = self.control(client).await? {
            reasons.push(reason);
            return Ok(reasons);
        }
        let sql = "SELECT (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1)";
        match client.query_one(sql, &[&self.names.staging]).await?.get::<_, Option<bool>>(0) {
            None => reasons.push(format!("the staging schema `{}` is missing", self.names.staging)),
            Some(false) => {
                let staging = &self.names.staging;
                reasons.push(format!(
                    "the role lacks USAGE on the schema `{staging}` for staging: GRANT USAGE ON SCHEMA {} TO {LOADER}",
                    ident(staging)
                ));
            }
            Some(true) => {}
        }
        reasons.extend(missing_rights(client, known, &self.names, destinations).await?);
        for destination in destinations {
            self.table(client, known, destination, &mut reasons).await?;
        }
        if self.load.foreign_keys == ForeignKeys::SetBased {
            reasons.extend(cannot_replicate(client).await?);
        }
        Ok(reasons)
    }

    /// Returns the problem with the control schema, if any.
    async fn control(&self, client: &Client) -> PgResult<Option<String>> {
        let sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'delta'),
                          EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                                  WHERE n.nspname = 'delta' AND c.relname = 'migration'),
                          has_schema_privilege((SELECT oid FROM pg_namespace WHERE nspname = 'delta'), 'USAGE')";
        let row = client.query_one(sql, &[]).await?;
        let (there, own, may): (bool, bool, Option<bool>) = (row.get(0), row.get(1), row.get(2));
        if !there {
            return Ok(Some("the control schema `delta` is missing".into()));
        }
        if !own {
            return Ok(Some("the schema `delta` was not created by pipeline".into()));
        }
        if may != Some(true) {
            let user: String = client.query_one("SELECT current_user::text", &[]).await?.get(0);
            return Ok(Some(format!(
                "the user `{user}` may not use the control schema `delta`: GRANT {LOADER} TO {user}"
            )));
        }
        let version: Option<i32> = client.query_one("SELECT max(version) FROM delta.migration", &[]).await?.get(0);
        Ok(match usize::try_from(version.unwrap_or(0)).unwrap_or(0) {
            version if version > VERSION => Some(format!(
                "the control schema has version {version}, but this program supports {VERSION}: use a newer version of it"
            )),
            version if version < VERSION => {
                Some(format!("the control schema has version {version}, but this program requires {VERSION}"))
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
    ) -> PgResult<()> {
        let name = &destination.table.name;
        let Some(table) = known.tables.get(name) else { return Ok(()) };
        let id = known.id(&self.names, name);
        let sequence = known.sequence(&self.names, destination);
        let sql = "SELECT EXISTS (SELECT FROM delta.loaded_table WHERE table_name = $1 AND staging_schema = $2 AND key_columns = $3::text[]::name[]
                              AND sequence_schema IS NOT DISTINCT FROM $4 AND sequence_name IS NOT DISTINCT FROM $5),
                          to_regclass($6) IS NOT NULL AND has_table_privilege(to_regclass($6), 'SELECT') AND to_regclass($7) IS NOT NULL";
        let sql = match destination.is_referred_only {
            // Whatever loads it decides the rest.
            true => sql.replace("AND staging_schema = $2", "AND coalesce($2, '') IS NOT NULL").replace(
                "AND sequence_schema IS NOT DISTINCT FROM $4 AND sequence_name IS NOT DISTINCT FROM $5",
                "AND coalesce($4::name, '') IS NOT NULL AND coalesce($5::name, '') IS NOT NULL",
            ),
            false => sql.to_owned(),
        };
        let row = client
            .query_one(
                &sql,
                &[
                    &id.key_map(),
                    &self.names.staging,
                    &destination.key,
                    &sequence.map(|sequence| &sequence.schema),
                    &sequence.map(|sequence| &sequence.name),
                    &id.mappings(),
                    &id.key_map_view(),
                ],
            )
            .await?;
        let [registered, history]: [Option<bool>; 2] = std::array::from_fn(|at| row.get(at));
        if registered != Some(true) || history != Some(true) {
            reasons.push(format!("`{name}` was not set up for loading, or was changed after its setup"));
        } else {
            reasons.extend(commit_checks::unregistered(client, &self.names, known, destination).await?);
        }
        if table.row_security {
            reasons.push(format!(
                "`{name}` has row-level security, which would hide rows from the checks: ALTER ROLE {LOADER} BYPASSRLS"
            ));
        }
        if table.foreign {
            reasons.push(format!("a partition of `{name}` is on another server, so the load would not be atomic"));
        }
        if let Some(other) = taken(client, &Staged { known, names: &self.names, destination }).await? {
            reasons.push(other);
        }
        Ok(())
    }
}

/// Refuses integer keys without a sequence in the catalog. Applications may take keys from sequences that no column names. The largest key
/// plus one would then be the sequence's next number, and production's own inserts would fail after the load.
fn refuse_unknown_keys(known: &PgCatalog, names: &Names, destinations: &[Destination]) -> Result<()> {
    for destination in destinations {
        let (table, Some(AssignedKey { column, start, .. })) = (&destination.table, &destination.assigned) else {
            continue;
        };
        let is_integer = table.column(column).is_some_and(CatalogColumn::holds_numbers);
        if *start == StartRowNumber::Auto && is_integer && known.sequence(names, destination).is_none() {
            return Err(Error::pipeline(format!(
                "`{column}` of `{}` has no sequence, so the keys that other programs take next are unknown",
                table.name
            ))
            .hint(format!(
                "name the sequence that they take keys from (`key: {{ column: {column}, sequence: schema.name }}`), state a \
                 `start_row_number` that they never reach, or, if they take the largest key plus one, write `load: {{ lock: table }}`; \
                 nothing was loaded"
            )));
        }
    }
    Ok(())
}

/// Returns the rights that loads of these tables need and the role lacks, each with the role and the object.
async fn missing_rights(
    client: &Client,
    known: &PgCatalog,
    names: &Names,
    destinations: &[Destination],
) -> PgResult<Vec<String>> {
    let user: String = client.query_one("SELECT current_user::text", &[]).await?.get(0);
    let mut missing = Vec::new();
    for right in rights(known, names, destinations) {
        let (ask, object) = match right.kind {
            Kind::Schema => ("bool_and(has_schema_privilege($1::text, w.what))", right.name.clone()),
            Kind::Table => ("bool_and(has_table_privilege($1::text, w.what))", qualified(&right.schema, &right.name)),
            Kind::Sequence => {
                ("bool_and(has_sequence_privilege($1::text, w.what))", qualified(&right.schema, &right.name))
            }
        };
        let sql = format!("SELECT {ask} FROM regexp_split_to_table($2::text, ', ') AS w (what)");
        match client.query_one(&sql, &[&object, &right.what]).await {
            Ok(row) if row.get::<_, Option<bool>>(0) == Some(true) => {}
            Ok(_) => {
                let (what, object) = (right.what, right.object());
                missing.push(format!(
                    "the role `{user}` lacks {what} on {object}: GRANT {what} ON {object} TO {}",
                    ident(&user)
                ));
            }
            // The lookup of the name needs USAGE of its schema, which is reported separately.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Returns a right of the login that a load never needs. It may have the right itself, or by `SET ROLE` as a role that it is a member of.
async fn excess(client: &Client, known: &PgCatalog, destinations: &[Destination]) -> PgResult<Option<String>> {
    let sql = "SELECT session_user::text,
                      string_agg(DISTINCT r.rolname, ', ') FILTER (WHERE r.rolsuper),
                      string_agg(DISTINCT r.rolname, ', ') FILTER (WHERE r.rolcreaterole OR r.rolbypassrls AND r.rolname <> $1 OR r.rolreplication)
               FROM pg_roles AS r WHERE pg_has_role(session_user, r.oid, 'MEMBER')";
    let row = client.query_one(sql, &[&LOADER]).await?;
    let (user, superuser, powerful): (String, Option<String>, Option<String>) = (row.get(0), row.get(1), row.get(2));
    if let Some(superuser) = superuser {
        let by = if superuser.split(", ").any(|name| name == user) { "is" } else { "can become" };
        return Ok(Some(format!(
            "the login `{user}` {by} a superuser: it can do anything to production, but a load needs only SELECT and INSERT"
        )));
    }
    if let Some(powerful) = powerful {
        return Ok(Some(format!(
            "the login `{user}` may act as {powerful}, which can create roles, replicate, or bypass row security; loads need none of these"
        )));
    }
    let mut tables = Vec::new();
    for destination in destinations {
        let Some(table) = known.tables.get(&destination.table.name) else { continue };
        let live = qualified(&table.schema, &table.name);
        let sql = "SELECT r.rolname::text FROM pg_roles AS r WHERE pg_has_role(session_user, r.oid, 'MEMBER') AND EXISTS (
                       SELECT FROM (SELECT $1::text::regclass AS relid UNION SELECT relid FROM pg_partition_tree($1::text::regclass)) AS p
                       WHERE has_table_privilege(r.oid, p.relid, 'UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(r.oid, p.relid, 'UPDATE'))
                   ORDER BY r.rolname = session_user DESC, 1 LIMIT 1";
        if let Some(row) = client.query_opt(sql, &[&live]).await? {
            let role: String = row.get(0);
            let by = if role == user { String::new() } else { format!(" as `{role}`") };
            tables.push(format!("{}{by}", destination.table.name));
        }
    }
    if !tables.is_empty() {
        return Ok(Some(format!(
            "the login `{user}` may update, delete, or truncate {}, but a load needs only SELECT and INSERT",
            list(&tables)
        )));
    }
    plantable(client, known, destinations, &user).await
}

/// Returns a place for code that other sessions would run: triggers on production, or names that a trigger of production finds.
async fn plantable(
    client: &Client,
    known: &PgCatalog,
    destinations: &[Destination],
    user: &str,
) -> PgResult<Option<String>> {
    let loaded = destinations.iter().filter_map(|destination| known.tables.get(&destination.table.name));
    let (mut schemas, tables): (Vec<String>, Vec<String>) =
        loaded.map(|table| (table.schema.clone(), qualified(&table.schema, &table.name))).unzip();
    schemas.push("public".into());
    let sql = "SELECT r.rolname::text, w.what FROM pg_roles AS r CROSS JOIN LATERAL (
                   SELECT 'create objects in the schema ' || quote_ident(n.nspname) AS what FROM pg_namespace AS n
                       WHERE n.nspname = ANY ($1::text[]) AND has_schema_privilege(r.oid, n.oid, 'CREATE')
                   UNION ALL
                   SELECT 'put triggers on ' || t.name FROM unnest($2::text[]) AS t (name)
                       WHERE has_table_privilege(r.oid, t.name::regclass, 'TRIGGER')) AS w
               WHERE pg_has_role(session_user, r.oid, 'MEMBER') ORDER BY r.rolname = session_user DESC, 1, 2 LIMIT 1";
    Ok(client.query_opt(sql, &[&schemas, &tables]).await?.map(|row| {
        let (role, what): (String, String) = (row.get(0), row.get(1));
        let by = if role == user { String::new() } else { format!(" as `{role}`") };
        format!(
            "the login `{user}` may {what}{by}, and so run code in sessions of other programs; a load needs only SELECT and INSERT"
        )
    }))
}

/// Refuses `set_based` for checks of the server that it would switch off without a replacement. These are deferrable constraints, foreign
/// keys of a single partition, and `MATCH FULL` with only some columns NULL. Rules would be bypassed as well.
async fn refuse_unchecked(client: &Client, known: &PgCatalog, destinations: &[Destination]) -> PgResult<Result<()>> {
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
        return Ok(Err(Error::pipeline(format!("`foreign_keys: set_based` does not support {what}"))
            .hint("set `load.foreign_keys` to `triggers`, the default")));
    }
    Ok(Ok(()))
}

/// Returns why `foreign_keys: set_based` is impossible for the login, if it is.
async fn cannot_replicate(client: &Client) -> PgResult<Option<String>> {
    let sql = "SELECT rolsuper, current_setting('server_version_num')::int / 10000, current_user::text FROM pg_roles WHERE rolname = current_user";
    let row = client.query_one(sql, &[]).await?;
    let (is_superuser, version, user): (bool, i32, String) = (row.get(0), row.get(1), row.get(2));
    if is_superuser {
        return Ok(None);
    }
    if version < 15 {
        return Ok(Some(format!(
            "PostgreSQL {version} cannot grant session_replication_role, which `foreign_keys: set_based` needs: \
             use PostgreSQL 15 or newer, or leave `load.foreign_keys` at `triggers`"
        )));
    }
    let sql = "SELECT has_parameter_privilege('session_replication_role', 'SET')";
    let may: bool = client.query_one(sql, &[]).await?.get(0);
    Ok((!may).then(|| {
        format!(
            "the role `{user}` may not set session_replication_role, which `foreign_keys: set_based` needs: \
             GRANT SET ON PARAMETER session_replication_role TO {LOADER}"
        )
    }))
}

/// Returns a table that has the name of a staging table but was not created for staging.
async fn taken(client: &Client, staged: &Staged<'_>) -> PgResult<Option<String>> {
    let id = staged.id();
    for name in [id.staging_rows(), id.staging_keys()] {
        let sql = "SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = $2 AND NOT starts_with(coalesce(obj_description(c.oid, 'pg_class'), ''), $3)";
        if client.query_opt(sql, &[&staged.names.staging, &name, &MARK]).await?.is_some() {
            return Ok(Some(format!(
                "`{}.{name}` exists and was not created by pipeline; set `target.staging` to another schema",
                staged.names.staging
            )));
        }
    }
    Ok(None)
}

/// Refuses to create a staging table if its name belongs to another table.
pub(super) async fn refuse_taken(client: &Client, staged: &Staged<'_>) -> PgResult<Result<()>> {
    Ok(match taken(client, staged).await? {
        Some(what) => Err(Error::pipeline(what).hint("nothing was written")),
        None => Ok(()),
    })
}
