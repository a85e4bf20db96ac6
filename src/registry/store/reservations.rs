//! Uses that were set aside for sidecars.

use sqlx::{Row, SqlitePool};

use crate::{
    domain::{ExceptionId, Timestamp, UsageLimits},
    engine::reserving::{Reserved, granted},
};

use super::{
    port::StoreError,
    sqlite::{Sqlite, count, number},
};

/// A reservation's id.
pub type ReservationId = [u8; 16];

/// Reservations of a registry.
#[derive(Clone, Debug)]
pub struct Reservations {
    writer: SqlitePool,
}

impl Sqlite {
    /// What is set aside of limited exceptions.
    pub fn reservations(&self) -> Reservations {
        Reservations {
            writer: self.writer.clone(),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asks<'a> {
    /// Of which exception.
    pub exception: &'a ExceptionId,
    /// What its limits are.
    pub limits: UsageLimits,
    /// By whom.
    pub sidecar: &'a str,
    /// Under which id; none where something only goes back.
    pub id: Option<ReservationId>,
    /// How many.
    pub uses: u64,
    /// Most that one sidecar is given at once.
    pub share: u64,
    /// What goes back: reservations, and how many of each are not used.
    pub returned: &'a [(ReservationId, u64)],
    /// When.
    pub now: Timestamp,
}

impl Reservations {
    /// Sets uses aside, at the most as many as there are left; asked again under the same id, it is
    /// the same answer. What goes back is taken first.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn reserve(&self, asks: &Asks<'_>) -> Result<u64, StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (id, unused) in asks.returned {
            // Once, and never more than there were.
            sqlx::query("UPDATE reservations SET returned = min(uses, ?) WHERE id = ? AND exception = ? AND sidecar = ? AND returned = 0")
                .bind(number(*unused))
                .bind(id.to_vec())
                .bind(asks.exception.as_str())
                .bind(asks.sidecar)
                .execute(&mut *work)
                .await?;
        }
        let Some(id) = asks.id else {
            work.commit().await?;
            return Ok(0);
        };
        let known = sqlx::query("SELECT uses, exception, sidecar FROM reservations WHERE id = ?")
            .bind(id.to_vec())
            .fetch_optional(&mut *work)
            .await?;
        if let Some(known) = known {
            let (exception, sidecar): (String, String) = (known.try_get(1)?, known.try_get(2)?);
            let same = exception == asks.exception.as_str() && sidecar == asks.sidecar;
            let uses = count(known.try_get(0)?)?;
            work.commit().await?;
            return Ok(if same { uses } else { 0 });
        }
        let since = Reserved::window(asks.now);
        let row = sqlx::query("SELECT coalesce(sum(uses - returned), 0), coalesce(sum(uses - returned) FILTER (WHERE time > ?2), 0) FROM reservations WHERE exception = ?1")
            .bind(asks.exception.as_str())
            .bind(since.micros())
            .fetch_one(&mut *work)
            .await?;
        let reserved = Reserved {
            total: count(row.try_get(0)?)?,
            lately: count(row.try_get(1)?)?,
        };
        let uses = granted(asks.limits, reserved, asks.uses, asks.share);
        if uses > 0 {
            sqlx::query("INSERT INTO reservations (id, exception, sidecar, uses, time) VALUES (?, ?, ?, ?, ?)")
                .bind(id.to_vec())
                .bind(asks.exception.as_str())
                .bind(asks.sidecar)
                .bind(number(uses))
                .bind(asks.now.micros())
                .execute(&mut *work)
                .await?;
        }
        work.commit().await?;
        Ok(uses)
    }

    /// How many uses of an exception are set aside or used.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn total(&self, exception: &ExceptionId) -> Result<u64, StoreError> {
        let total: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(uses - returned), 0) FROM reservations WHERE exception = ?",
        )
        .bind(exception.as_str())
        .fetch_one(&self.writer)
        .await?;
        count(total)
    }

    /// Takes everything for used of which a copy that is put back does not know how much was.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn close(
        &self,
        exceptions: &[(ExceptionId, UsageLimits, ReservationId)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (exception, limits, id) in exceptions {
            let most = limits
                .max_uses
                .or(limits.max_uses_per_hour.map(u64::from))
                .unwrap_or(0);
            sqlx::query("INSERT INTO reservations (id, exception, sidecar, uses, time) VALUES (?, ?, '', ?, ?)")
                .bind(id.to_vec())
                .bind(exception.as_str())
                .bind(number(most))
                .bind(now.micros())
                .execute(&mut *work)
                .await?;
        }
        Ok(work.commit().await?)
    }
}
