//! Named, owned, joined tasks. The first essential one to end stops the process.

use std::{future::Future, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// The tasks of a process, and the signal that tells them to stop.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<(&'static str, Result<(), String>)>,
    closing: JoinSet<(&'static str, Result<(), String>)>,
    lasting: JoinSet<(&'static str, Result<(), String>)>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

/// How long the tasks that tell what the others did may take once those have ended.
const CLOSING: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Asked,
    /// A task it cannot do without ended by itself.
    Failed {
        /// The task.
        task: String,
        /// What it said.
        why: String,
    },
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The signal to stop, for a task to wait on.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task whose end ends the process. It is to return soon after the signal to stop.
    pub fn essential(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.running.spawn(async move { (name, work.await) });
    }

    /// The signal that every essential task has ended, for a closing task to wait on.
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Starts a task that goes on while the essential ones stop, and ends soon after them: it tells
    /// what they did. Ending earlier ends the process as well.
    pub fn closing(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.closing.spawn(async move { (name, work.await) });
    }

    /// Starts a task that goes on while the others stop, and is cut after the last of them.
    pub fn outlasting(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.lasting.spawn(async move { (name, work.await) });
    }

    /// Runs until `asked` or until a task ends, then stops every task and waits for them, at most
    /// for `patience`.
    pub async fn run(mut self, asked: impl Future<Output = ()>, patience: Duration) -> End {
        let mut end = tokio::select! {
            () = asked => End::Asked,
            Some(ended) = self.running.join_next() => failed(ended),
            Some(ended) = self.closing.join_next() => failed(ended),
            Some(ended) = self.lasting.join_next() => failed(ended),
        };
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.running.join_next().await {
                if let (End::Asked, Ok((task, Err(why)))) = (&end, ended) {
                    end = End::Failed {
                        task: task.to_owned(),
                        why,
                    };
                }
            }
        };
        if timeout(patience, all).await.is_err() {
            tracing::warn!(
                left = self.running.len(),
                "the deadline for draining passed; cutting what is left"
            );
            self.running.shutdown().await;
        }
        self.stopped.cancel();
        let told = async { while self.closing.join_next().await.is_some() {} };
        if timeout(CLOSING, told).await.is_err() {
            self.closing.shutdown().await;
        }
        self.lasting.shutdown().await;
        end
    }
}

fn failed(ended: Result<(&'static str, Result<(), String>), tokio::task::JoinError>) -> End {
    match ended {
        Ok((task, Ok(()))) => End::Failed {
            task: task.to_owned(),
            why: "ended by itself".to_owned(),
        },
        Ok((task, Err(why))) => End::Failed {
            task: task.to_owned(),
            why,
        },
        Err(error) => End::Failed {
            task: "a task".to_owned(),
            why: error.to_string(),
        },
    }
}
