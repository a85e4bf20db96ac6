//! What is told elsewhere, and what came from there, in SQLite.

use sqlx::{Row, Sqlite as Db, SqlitePool, Transaction as Work, sqlite::SqliteRow};

use crate::domain::{DomainId, News, Notice, Timestamp};

use super::{
    port::{Heard, Past, StoreError, Told},
    sqlite::{count, number, wrong},
};

/// Most notices looked at in one go.
const MOST: i64 = 500;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is tried until it succeeds or its time is over.
    Waiting,
    /// The receiver took it.
    Delivered,
    /// Nobody tries any more.
    Dead,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Delivered, Self::Dead];

    /// The name as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Delivered => "DELIVERED",
            Self::Dead => "DEAD",
        }
    }

    /// The state called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One notice on its way to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub endpoint: Box<str>,
    /// Its place among everything that was told.
    pub number: u64,
    /// What.
    pub told: Told,
    /// Where it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last, or is to be tried next.
    pub next: Timestamp,
    /// What the receiver said, or why there was no answer.
    pub why: Box<str>,
}

/// The outbox of a registry, and its inbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

/// Ids hold no blanks.
fn domains(notice: &Notice) -> Option<String> {
    let ids: Vec<_> = notice.domains.iter().map(DomainId::as_str).collect();
    (!ids.is_empty()).then(|| ids.join(" "))
}

fn facts(notice: &Notice) -> String {
    let fact = |(name, value): &(Box<str>, Box<str>)| vec![name.to_string(), value.to_string()];
    let facts: serde_json::Value = notice.facts.iter().map(fact).collect();
    facts.to_string()
}

/// Notes an event with what it did: who sends it twice does nothing the second time.
pub(super) async fn heard(work: &mut Work<'_, Db>, event: &Heard) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO received (issuer, id, time, done) VALUES (?, ?, ?, ?)")
        .bind(&*event.issuer)
        .bind(&*event.id)
        .bind(event.time.micros())
        .bind(&*event.done)
        .execute(&mut **work)
        .await?;
    Ok(())
}

/// Writes notices with the change they tell of; one that was told already is not told again.
pub(super) async fn write(work: &mut Work<'_, Db>, told: &[Told]) -> Result<(), StoreError> {
    for Told { id, notice } in told {
        sqlx::query("INSERT INTO outbox (id, time, news, about, domain, facts) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING")
            .bind(&**id)
            .bind(notice.time.micros())
            .bind(notice.news.name())
            .bind(&*notice.about)
            .bind(domains(notice))
            .bind(facts(notice))
            .execute(&mut **work)
            .await?;
    }
    Ok(())
}

const TOLD: &str = "o.number, o.id, o.time, o.news, o.about, o.domain, o.facts";

fn told_of(row: &SqliteRow) -> Result<(u64, Told), StoreError> {
    let text = |at: usize| row.try_get::<String, _>(at);
    let news = News::parse(&text(3)?).ok_or_else(|| wrong("unknown news"))?;
    let domains: Option<String> = row.try_get(5)?;
    let domains = domains.unwrap_or_default();
    let domains = domains.split_whitespace().map(DomainId::parse);
    let facts: Vec<(Box<str>, Box<str>)> =
        serde_json::from_str(&text(6)?).map_err(|_| wrong("facts that are none"))?;
    let notice = Notice {
        news,
        about: text(4)?.into(),
        domains: domains
            .collect::<Result<_, _>>()
            .map_err(|_| wrong("an unknown domain"))?,
        time: Timestamp::from_micros(row.try_get(2)?),
        facts,
    };
    let id = text(1)?.into();
    Ok((count(row.try_get(0)?)?, Told { id, notice }))
}

fn delivery_of(row: &SqliteRow) -> Result<Delivery, StoreError> {
    let (number, told) = told_of(row)?;
    let state: String = row.try_get(8)?;
    let endpoint: String = row.try_get(7)?;
    let why: String = row.try_get(11)?;
    Ok(Delivery {
        endpoint: endpoint.into(),
        number,
        told,
        state: DeliveryState::parse(&state).ok_or_else(|| wrong("an unknown delivery"))?,
        attempts: u32::try_from(row.try_get::<i64, _>(9)?).unwrap_or(u32::MAX),
        next: Timestamp::from_micros(row.try_get(10)?),
        why: why.into(),
    })
}

impl Outbox {
    /// Tells what time alone gives to tell; what was told already is not told again.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn tell(&self, told: &[Told]) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        write(&mut work, told).await?;
        Ok(work.commit().await?)
    }

    /// Notes that an endpoint is told from now on; one that is known goes on where it was, unless it
    /// was left out of the settings in between.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn enrol(&self, endpoint: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO endpoints (name, seen) SELECT ?, coalesce(max(number), 0) FROM outbox WHERE true ON CONFLICT (name) DO UPDATE SET seen = excluded.seen, gone = 0 WHERE endpoints.gone = 2")
            .bind(endpoint)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Gives up what is on its way to endpoints that are in the settings no more.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn retire(&self, known: &[Box<str>]) -> Result<(), StoreError> {
        let known: serde_json::Value = known.iter().map(|name| &**name).collect();
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "UPDATE endpoints SET gone = 2 WHERE name NOT IN (SELECT value FROM json_each(?))",
        )
        .bind(known.to_string())
        .execute(&mut *work)
        .await?;
        sqlx::query("UPDATE deliveries SET state = 'DEAD', why = 'is in the settings no more' WHERE state = 'WAITING' AND endpoint IN (SELECT name FROM endpoints WHERE gone = 2)")
            .execute(&mut *work)
            .await?;
        Ok(work.commit().await?)
    }

    /// Whether an endpoint said that it receives nothing any more.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn is_gone(&self, endpoint: &str) -> Result<bool, StoreError> {
        let gone: Option<i64> = sqlx::query_scalar("SELECT gone FROM endpoints WHERE name = ?")
            .bind(endpoint)
            .fetch_optional(&self.readers)
            .await?;
        Ok(gone == Some(1))
    }

    /// Sets out deliveries to an endpoint of everything new that it wants; tells whether there may
    /// be more.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn spread(
        &self,
        endpoint: &str,
        now: Timestamp,
        wants: impl Fn(&Notice) -> bool + Send,
    ) -> Result<bool, StoreError> {
        let text = format!(
            "SELECT {TOLD} FROM outbox o WHERE o.number > (SELECT seen FROM endpoints WHERE name = ?) ORDER BY o.number LIMIT ?"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(endpoint)
            .bind(MOST)
            .fetch_all(&self.readers)
            .await?;
        let told: Vec<(u64, Told)> = rows.iter().map(told_of).collect::<Result<_, _>>()?;
        let Some((last, _)) = told.last() else {
            return Ok(false);
        };
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (at, _) in told.iter().filter(|(_, told)| wants(&told.notice)) {
            sqlx::query("INSERT INTO deliveries (endpoint, number, state, attempts, next, why) VALUES (?, ?, 'WAITING', 0, ?, '') ON CONFLICT DO NOTHING")
                .bind(endpoint)
                .bind(number(*at))
                .bind(now.micros())
                .execute(&mut *work)
                .await?;
        }
        sqlx::query("UPDATE endpoints SET seen = ? WHERE name = ?")
            .bind(number(*last))
            .bind(endpoint)
            .execute(&mut *work)
            .await?;
        work.commit().await?;
        Ok(i64::try_from(told.len()).unwrap_or(i64::MAX) >= MOST)
    }

    /// Sets out one delivery of its own, of something told to nobody else.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn tell_only(&self, endpoint: &str, told: &Told) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        write(&mut work, std::slice::from_ref(told)).await?;
        sqlx::query("INSERT INTO deliveries (endpoint, number, state, attempts, next, why) SELECT ?, number, 'WAITING', 0, ?, '' FROM outbox WHERE id = ?")
            .bind(endpoint)
            .bind(told.notice.time.micros())
            .bind(&*told.id)
            .execute(&mut *work)
            .await?;
        sqlx::query("UPDATE endpoints SET gone = 0 WHERE name = ?")
            .bind(endpoint)
            .execute(&mut *work)
            .await?;
        Ok(work.commit().await?)
    }

    /// What is to be tried now, the oldest first.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn due(&self, endpoint: &str, now: Timestamp, most: u32) -> Past<Delivery> {
        let text = format!(
            "SELECT {TOLD}, d.endpoint, d.state, d.attempts, d.next, d.why FROM deliveries d JOIN outbox o USING (number) WHERE d.endpoint = ? AND d.state = 'WAITING' AND d.next <= ? ORDER BY d.number LIMIT ?"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(endpoint)
            .bind(now.micros())
            .bind(most)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(delivery_of).collect()
    }

    /// When something is to be tried next.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn next(&self, endpoint: &str) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT min(next) FROM deliveries WHERE endpoint = ? AND state = 'WAITING'",
        )
        .bind(endpoint)
        .fetch_one(&self.readers)
        .await?;
        Ok(next.map(Timestamp::from_micros))
    }

    /// Notes how a try went, unless somebody had it begin anew meanwhile.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn settle(&self, before: &Delivery, delivery: &Delivery) -> Result<(), StoreError> {
        sqlx::query("UPDATE deliveries SET state = ?, attempts = ?, next = ?, why = ? WHERE endpoint = ? AND number = ? AND state = 'WAITING' AND attempts = ? AND next = ?")
            .bind(delivery.state.name())
            .bind(i64::from(delivery.attempts))
            .bind(delivery.next.micros())
            .bind(&*delivery.why)
            .bind(&*delivery.endpoint)
            .bind(number(delivery.number))
            .bind(i64::from(before.attempts))
            .bind(before.next.micros())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Gives up on an endpoint that says it receives nothing any more.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn give_up(&self, endpoint: &str, why: &str) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE endpoints SET gone = 1 WHERE name = ?")
            .bind(endpoint)
            .execute(&mut *work)
            .await?;
        sqlx::query("UPDATE deliveries SET state = 'DEAD', why = ? WHERE endpoint = ? AND state = 'WAITING'")
            .bind(why)
            .bind(endpoint)
            .execute(&mut *work)
            .await?;
        Ok(work.commit().await?)
    }

    /// Deliveries, the latest first, after one of them; to one endpoint, and in one state, if named.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn list(
        &self,
        endpoint: Option<&str>,
        state: Option<DeliveryState>,
        after: Option<(u64, &str)>,
        most: u32,
    ) -> Past<Delivery> {
        let text = format!(
            "SELECT {TOLD}, d.endpoint, d.state, d.attempts, d.next, d.why FROM deliveries d JOIN outbox o USING (number) WHERE (d.number < ?1 OR d.number = ?1 AND d.endpoint > ?5) AND (?2 IS NULL OR d.endpoint = ?2) AND (?3 IS NULL OR d.state = ?3) ORDER BY d.number DESC, d.endpoint LIMIT ?4"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(number(after.map_or(u64::MAX, |(number, _)| number)))
            .bind(endpoint)
            .bind(state.map(DeliveryState::name))
            .bind(most)
            .bind(after.map_or("", |(_, endpoint)| endpoint))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(delivery_of).collect()
    }

    /// Has what was not delivered tried again from now on: one message, or all of an endpoint's dead
    /// ones. Tells how many.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn again(
        &self,
        endpoint: &str,
        id: Option<&str>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query("UPDATE deliveries SET state = 'WAITING', attempts = 0, next = ?1, why = '' WHERE endpoint = ?2 AND (?3 IS NULL AND state = 'DEAD' OR number = (SELECT number FROM outbox WHERE id = ?3))")
            .bind(now.micros())
            .bind(endpoint)
            .bind(id)
            .execute(&mut *work)
            .await?
            .rows_affected();
        sqlx::query("UPDATE endpoints SET gone = 0 WHERE name = ?")
            .bind(endpoint)
            .execute(&mut *work)
            .await?;
        work.commit().await?;
        Ok(done)
    }

    /// Forgets what was told, and what came, before a time; what is still on its way, or was not
    /// yet looked at for somebody, stays.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn forget(&self, before: Timestamp) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM deliveries WHERE state != 'WAITING' AND number IN (SELECT number FROM outbox WHERE time < ?)")
            .bind(before.micros())
            .execute(&mut *work)
            .await?;
        sqlx::query(
            "DELETE FROM outbox WHERE time < ? AND number NOT IN (SELECT number FROM deliveries) AND number <= (SELECT coalesce(min(seen), number) FROM endpoints WHERE gone != 2)",
        )
        .bind(before.micros())
        .execute(&mut *work)
        .await?;
        sqlx::query("DELETE FROM received WHERE time < ?")
            .bind(before.micros())
            .execute(&mut *work)
            .await?;
        Ok(work.commit().await?)
    }

    /// What was done about an event when it came first; nothing if it did not yet.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn received(&self, issuer: &str, id: &str) -> Result<Option<String>, StoreError> {
        let done = sqlx::query_scalar("SELECT done FROM received WHERE issuer = ? AND id = ?")
            .bind(issuer)
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        Ok(done)
    }

    /// Notes an event that changed nothing.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn receive(&self, event: &Heard) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        heard(&mut work, event).await?;
        Ok(work.commit().await?)
    }
}
