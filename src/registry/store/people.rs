//! Who has signed in, or may.

use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use crate::domain::Timestamp;

use super::{
    port::{Past, StoreError},
    sqlite::wrong,
};

/// Somebody who signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// As whom, such as `user:dana`.
    pub identity: Box<str>,
    /// Who vouches for them; empty with a password.
    pub issuer: Box<str>,
    /// Who they are there.
    pub subject: Box<str>,
    /// What they may do, and their password's hash; of those without an issuer.
    pub local: Option<(Box<str>, Box<str>)>,
    /// Since when they are known.
    pub created: Timestamp,
}

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The digest of what they show.
    pub token: [u8; 32],
    /// As whom.
    pub identity: Box<str>,
    /// Who vouches for them; empty with a password.
    pub issuer: Box<str>,
    /// What they may do.
    pub role: Box<str>,
    /// What is said of how they signed in.
    pub assurance: Box<str>,
    /// Until when that counts as a step-up.
    pub strong_until: Option<Timestamp>,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// Accounts and sessions of a registry's file.
#[derive(Clone, Debug)]
pub struct People {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn account_of(row: &SqliteRow) -> Result<Account, StoreError> {
    let text = |name: &str| row.try_get::<String, _>(name).map(Box::from);
    let role: Option<String> = row.try_get("role")?;
    let password: Option<String> = row.try_get("password")?;
    Ok(Account {
        identity: text("identity")?,
        issuer: text("issuer")?,
        subject: text("subject")?,
        local: role
            .zip(password)
            .map(|(role, password)| (role.into(), password.into())),
        created: time(row.try_get("created")?),
    })
}

fn session_of(row: &SqliteRow) -> Result<Session, StoreError> {
    let text = |name: &str| row.try_get::<String, _>(name).map(Box::from);
    let token: Vec<u8> = row.try_get("token")?;
    let strong: Option<i64> = row.try_get("strong_until")?;
    Ok(Session {
        token: token
            .try_into()
            .map_err(|_| wrong("a token's digest of another length"))?,
        identity: text("identity")?,
        issuer: text("issuer")?,
        role: text("role")?,
        assurance: text("assurance")?,
        strong_until: strong.map(time),
        since: time(row.try_get("since")?),
        until: time(row.try_get("until")?),
    })
}

impl People {
    /// Everybody who has signed in, or may.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn accounts(&self) -> Past<Account> {
        let rows = sqlx::query("SELECT * FROM accounts ORDER BY identity")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(account_of).collect()
    }

    /// Whether anybody has a password.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn with_passwords(&self) -> Result<bool, StoreError> {
        let found =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE password IS NOT NULL)")
                .fetch_one(&self.readers)
                .await?;
        Ok(found)
    }

    /// The account of an identity.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn account(&self, identity: &str) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query("SELECT * FROM accounts WHERE identity = ?")
            .bind(identity)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(account_of).transpose()
    }

    /// Notes somebody who signs in with an issuer, if nobody else is called so; tells whose the
    /// identity is, and which identity the issuer's subject has.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn meet(&self, account: &Account) -> Past<Account> {
        sqlx::query("INSERT INTO accounts (identity, issuer, subject, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(&*account.identity)
            .bind(&*account.issuer)
            .bind(&*account.subject)
            .bind(account.created.micros())
            .execute(&self.writer)
            .await?;
        self.accounts_of(account).await
    }

    /// Whose an identity is, and which identity an issuer's subject has.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn accounts_of(&self, account: &Account) -> Past<Account> {
        let rows = sqlx::query(
            "SELECT * FROM accounts WHERE identity = ?1 OR (issuer = ?2 AND subject = ?3)",
        )
        .bind(&*account.identity)
        .bind(&*account.issuer)
        .bind(&*account.subject)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(account_of).collect()
    }

    /// Makes somebody who signs in with a password, or changes them, and ends their sessions; not
    /// where an issuer vouches for who is called so. Tells whether it did.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn put(&self, account: &Account) -> Result<bool, StoreError> {
        let (role, password) = account.local.clone().unzip();
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query("INSERT INTO accounts (identity, issuer, subject, role, password, created) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE SET role = excluded.role, password = excluded.password WHERE accounts.issuer = ''")
            .bind(&*account.identity)
            .bind(&*account.issuer)
            .bind(&*account.subject)
            .bind(role.as_deref())
            .bind(password.as_deref())
            .bind(account.created.micros())
            .execute(&mut *work)
            .await?;
        sqlx::query("DELETE FROM sessions WHERE identity = ?")
            .bind(&*account.identity)
            .execute(&mut *work)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        work.commit().await?;
        Ok(true)
    }

    /// Forgets somebody, ends their sessions, and takes the token back that they were granted.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn remove(&self, identity: &str) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM sessions WHERE identity = ?")
            .bind(identity)
            .execute(&mut *work)
            .await?;
        sqlx::query("DELETE FROM access WHERE identity = ? AND token IS NOT NULL")
            .bind(identity)
            .execute(&mut *work)
            .await?;
        sqlx::query("DELETE FROM accounts WHERE identity = ?")
            .bind(identity)
            .execute(&mut *work)
            .await?;
        Ok(work.commit().await?)
    }

    /// Everybody who is signed in.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn sessions(&self) -> Past<Session> {
        let rows = sqlx::query("SELECT sessions.*, accounts.issuer FROM sessions JOIN accounts USING (identity) ORDER BY since")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(session_of).collect()
    }

    /// Notes that somebody signed in, unless their account is not what it was when they began;
    /// tells whether it did.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn begin(&self, account: &Account, session: &Session) -> Result<bool, StoreError> {
        let (role, password) = account.local.clone().unzip();
        let done = sqlx::query("INSERT INTO sessions (token, identity, role, assurance, strong_until, since, until) SELECT ?, ?, ?, ?, ?, ?, ? FROM accounts WHERE identity = ? AND issuer = ? AND subject = ? AND role IS ? AND password IS ?")
            .bind(session.token.to_vec())
            .bind(&*session.identity)
            .bind(&*session.role)
            .bind(&*session.assurance)
            .bind(session.strong_until.map(Timestamp::micros))
            .bind(session.since.micros())
            .bind(session.until.micros())
            .bind(&*account.identity)
            .bind(&*account.issuer)
            .bind(&*account.subject)
            .bind(role.as_deref())
            .bind(password.as_deref())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends a session.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn end(&self, token: &[u8; 32]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE token = ?")
            .bind(token.to_vec())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Forgets sessions that are over.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn forget(&self, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE until <= ?")
            .bind(now.micros())
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}
