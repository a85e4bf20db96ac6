//! Who is let in, in SQLite.

use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use super::{
    port::{Access, Past, StoreError},
    sqlite::wrong,
};

pub(super) async fn all(readers: &SqlitePool) -> Past<Access> {
    let rows = sqlx::query("SELECT identity, role, scope, token FROM access ORDER BY identity")
        .fetch_all(readers)
        .await?;
    let access_of = |row: &SqliteRow| {
        let text = |at: usize| row.try_get::<String, _>(at).map(Box::from);
        let token: Option<Vec<u8>> = row.try_get(3)?;
        let token = token.map(TryInto::try_into).transpose();
        Ok(Access {
            identity: text(0)?,
            role: text(1)?,
            scope: text(2)?,
            token: token.map_err(|_: Vec<u8>| wrong("a token's digest of another length"))?,
        })
    };
    rows.iter().map(access_of).collect()
}

pub(super) async fn grant(writer: &SqlitePool, access: &Access) -> Result<bool, StoreError> {
    let done = sqlx::query("INSERT INTO access (identity, role, scope, token) VALUES (?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE SET role = excluded.role, scope = excluded.scope, token = excluded.token WHERE access.scope = '' OR excluded.scope <> ''")
            .bind(&*access.identity)
            .bind(&*access.role)
            .bind(&*access.scope)
            .bind(access.token.map(|token| token.to_vec()))
            .execute(writer)
            .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn expel(writer: &SqlitePool, identity: &str) -> Result<bool, StoreError> {
    let mut work = writer.begin_with("BEGIN IMMEDIATE").await?;
    // Also who only ever signed in.
    sqlx::query("INSERT INTO access (identity, role, scope, token) SELECT identity, 'viewer', '', NULL FROM accounts WHERE identity = ? ON CONFLICT DO NOTHING")
            .bind(identity)
            .execute(&mut *work)
            .await?;
    let done = sqlx::query("UPDATE access SET role = 'expelled', token = NULL WHERE identity = ? AND role <> 'expelled'")
            .bind(identity)
            .execute(&mut *work)
            .await?;
    sqlx::query("DELETE FROM sessions WHERE identity = ?")
        .bind(identity)
        .execute(&mut *work)
        .await?;
    work.commit().await?;
    Ok(done.rows_affected() > 0)
}
