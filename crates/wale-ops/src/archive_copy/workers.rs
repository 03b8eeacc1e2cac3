//! A bounded number of objects that move at a time.

use tokio::task::JoinSet;

use crate::error::{OpError, Result};

/// Tasks at work; all of them have ended when this was told to, or are stopped when it is dropped.
pub(super) struct Workers<T> {
    tasks: JoinSet<Result<T>>,
    most: usize,
}

impl<T: Send + 'static> Workers<T> {
    /// At most `most` at a time, one at least.
    pub(super) fn new(most: usize) -> Self {
        Self {
            tasks: JoinSet::new(),
            most: most.max(1),
        }
    }

    /// Begins one more, when there is room. Gives the result of the one that made room.
    ///
    /// # Errors
    /// That of a task which failed; the others are stopped.
    pub(super) async fn begin(
        &mut self,
        task: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<Option<T>> {
        let ended = if self.tasks.len() < self.most {
            None
        } else {
            self.end().await?
        };
        self.tasks.spawn(task);
        Ok(ended)
    }

    /// The next result; `None` when all tasks have ended.
    ///
    /// # Errors
    /// As [`Workers::begin`].
    pub(super) async fn end(&mut self) -> Result<Option<T>> {
        let ended = match self.tasks.join_next().await {
            None => return Ok(None),
            Some(Ok(Ok(result))) => return Ok(Some(result)),
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => OpError::internal("a task that copies panicked").source(error),
        };
        self.tasks.shutdown().await;
        Err(ended)
    }
}
