//! The default owner of the control schema.

use tokio_postgres::Client;

use super::super::catalog::PgCatalog;
use crate::engine::list;
use crate::error::{Error, Result};
use crate::target::Destination;

/// Returns the default owner: the login itself, or the role that owns the control schema if the login is its member. For a superuser it is
/// production's owner, because the control functions run with their owner's rights, and a superuser has too many. A database that was just
/// created belongs to the login in any case.
pub(in super::super) async fn of_control(
    client: &Client,
    known: &PgCatalog,
    destinations: &[Destination],
    is_made: bool,
) -> Result<Result<String>, tokio_postgres::Error> {
    let sql = "SELECT session_user::text, r.rolsuper, (SELECT pg_get_userbyid(n.nspowner)::text FROM pg_namespace AS n
                   WHERE n.nspname = 'delta' AND pg_has_role(session_user, n.nspowner, 'MEMBER'))
               FROM pg_roles AS r WHERE r.rolname = session_user";
    let row = client.query_one(sql, &[]).await?;
    let (login, is_superuser, existing): (String, bool, Option<String>) = (row.get(0), row.get(1), row.get(2));
    if is_made {
        return Ok(Ok(login));
    }
    if !is_superuser {
        return Ok(Ok(existing.unwrap_or(login)));
    }
    let loaded = destinations.iter().filter_map(|destination| known.tables.get(&destination.table.name));
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        loaded.map(|table| (table.schema.as_str(), table.name.as_str())).unzip();
    let sql = "SELECT DISTINCT r.rolname::text, r.rolsuper FROM unnest($1::text[], $2::text[]) AS t (schema, name)
               JOIN pg_namespace AS n ON n.nspname = t.schema JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.name
               JOIN pg_roles AS r ON r.oid = c.relowner ORDER BY 1";
    let owners = client.query(sql, &[&schemas, &names]).await?;
    let found: Vec<String> = owners.iter().map(|row| row.get(0)).collect();
    Ok(match owners.as_slice() {
        [one] if !one.get::<_, bool>(1) => Ok(one.get(0)),
        _ => Err(Error::refused(format!(
            "cannot choose the owner of the control schema: the login `{login}` is a superuser, and production belongs to {}",
            list(&found)
        ))
        .hint(
            "name the role that owns production, or one made for it: `pipeline setup FILE --owner ROLE`; its functions act with that \
             role's rights. Nothing was changed",
        )),
    })
}
