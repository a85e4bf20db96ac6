//! Connections to a store's file.

use sqlx::{Connection as _, sqlite::SqlitePoolOptions};

/// Connections of which at the `most` so many are open. One that is still in a transaction when it is
/// asked for again is not believed, and another is opened: after an error of the disk SQLite has
/// rolled back by itself, and the library goes on counting a transaction that is none.
pub(super) fn pool(most: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(most)
        .before_acquire(|connection, _| {
            Box::pin(async move {
                let stuck = connection.is_in_transaction();
                if stuck {
                    tracing::warn!("a connection to the store is given up after an error, and another is opened");
                }
                Ok(!stuck)
            })
        })
}
