//! A fixed number of blocking threads over a list of work.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::CancellationToken;

/// Does `work` for every item on at most `workers` blocking threads (at least one), and answers the
/// results in the order of the items. Items are started in order.
///
/// Each call of `work` gets a token. It is cancelled when `cancel` is, when another item has failed, and
/// when the returned future is dropped; `work` checks it between its steps and then returns an error of
/// its own. After a failure no further item is started. When only `cancel` was cancelled, items are still
/// handed out, and it is `work` that refuses, because only it can name the error.
///
/// All threads have ended before this returns. Only when the future is dropped they are left to end by
/// themselves, which they do soon, their token being cancelled.
///
/// # Errors
///
/// The first error of any item, by time.
///
/// # Panics
///
/// When `work` panics: the others are cancelled and joined, and the panic goes on here.
pub async fn run_workers<T, R, E, F>(
    items: Vec<T>,
    workers: usize,
    cancel: &CancellationToken,
    work: F,
) -> Result<Vec<R>, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
    F: Fn(T, CancellationToken) -> Result<R, E> + Send + Sync + Clone + 'static,
{
    let threads = workers.max(1).min(items.len());
    let token = cancel.child_token();
    let _cancel_when_dropped = token.clone().drop_guard();
    let job = Arc::new(Mutex::new(Job::new(items)));
    let handles: Vec<_> = (0..threads)
        .map(|_| {
            let (job, token, work) = (Arc::clone(&job), token.clone(), work.clone());
            tokio::task::spawn_blocking(move || work_through(&job, &token, &work))
        })
        .collect();
    let mut panic = None;
    for handle in handles {
        if let Err(error) = handle.await {
            panic.get_or_insert(error);
        }
    }
    if let Some(error) = panic {
        match error.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            Err(error) => panic!("a worker could not run: {error}"),
        }
    }
    let mut job = lock(&job);
    if let Some(error) = job.error.take() {
        return Err(error);
    }
    let results = job.results.drain(..);
    Ok(results
        .map(|result| result.expect("without an error every item has a result"))
        .collect())
}

/// What the threads share: the items left, the results so far, the first error.
struct Job<T, R, E> {
    left: std::iter::Enumerate<std::vec::IntoIter<T>>,
    results: Vec<Option<R>>,
    error: Option<E>,
    stopped: bool,
}

impl<T, R, E> Job<T, R, E> {
    fn new(items: Vec<T>) -> Self {
        Self {
            results: items.iter().map(|_| None).collect(),
            left: items.into_iter().enumerate(),
            error: None,
            stopped: false,
        }
    }

    fn next(&mut self) -> Option<(usize, T)> {
        if self.stopped {
            return None;
        }
        self.left.next()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // `work` runs without the lock, so a panic of it leaves the job whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work_through<T, R, E>(
    job: &Mutex<Job<T, R, E>>,
    token: &CancellationToken,
    work: &impl Fn(T, CancellationToken) -> Result<R, E>,
) {
    let stop_on_panic = StopOnPanic { job, token };
    loop {
        let next = lock(job).next();
        let Some((index, item)) = next else { break };
        match work(item, token.clone()) {
            Ok(result) => lock(job).results[index] = Some(result),
            Err(error) => {
                let mut job = lock(job);
                job.stopped = true;
                job.error.get_or_insert(error);
                token.cancel();
            }
        }
    }
    drop(stop_on_panic);
}

/// Stops the other threads when this one unwinds.
struct StopOnPanic<'a, T, R, E> {
    job: &'a Mutex<Job<T, R, E>>,
    token: &'a CancellationToken,
}

impl<T, R, E> Drop for StopOnPanic<'_, T, R, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(self.job).stopped = true;
            self.token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    /// Blocks until the token is cancelled, as a worker in the middle of its work would notice.
    fn wait_cancelled(token: &CancellationToken) {
        while !token.is_cancelled() {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn results_keep_the_order_of_the_items() {
        let cancel = CancellationToken::new();
        for workers in [0, 1, 3, 100] {
            let results = run_workers((0..50).collect(), workers, &cancel, |n: u32, _| {
                Ok::<_, String>(n * 2)
            })
            .await;
            let expected: Vec<u32> = (0..50).map(|n| n * 2).collect();
            assert_eq!(results, Ok(expected), "{workers} workers");
        }
        let none = run_workers(Vec::<u32>::new(), 4, &cancel, |n, _| Ok::<_, String>(n)).await;
        assert_eq!(none, Ok(vec![]));
    }

    #[tokio::test]
    async fn never_more_threads_than_asked_for() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        run_workers(
            (0..40).collect(),
            3,
            &CancellationToken::new(),
            move |_: u32, _| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, String>(())
            },
        )
        .await
        .expect("all done");
        assert!((1..=3).contains(&seen.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn the_first_error_cancels_the_others_and_wins() {
        let both_run = Arc::new(Barrier::new(2));
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let result = run_workers((0..10).collect(), 2, &CancellationToken::new(), {
            move |n: u32, token| {
                started.fetch_add(1, Ordering::SeqCst);
                both_run.wait();
                if n == 1 {
                    return Err("item 1 failed");
                }
                wait_cancelled(&token);
                Err::<(), _>("cancelled")
            }
        })
        .await;
        assert_eq!(result, Err("item 1 failed"));
        assert_eq!(
            count.load(Ordering::SeqCst),
            2,
            "no further item was started"
        );
    }

    #[tokio::test]
    async fn cancelling_from_outside_reaches_the_work() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let result = run_workers(vec![1, 2], 2, &cancel, |n: u32, token| {
            if token.is_cancelled() {
                Err("told to stop")
            } else {
                Ok(n)
            }
        })
        .await;
        assert_eq!(result, Err("told to stop"));
        let parent = CancellationToken::new();
        run_workers(vec![1], 1, &parent, |_: u32, _| Err::<(), _>("failed"))
            .await
            .expect_err("fails");
        assert!(!parent.is_cancelled(), "the caller's token is the caller's");
    }

    #[tokio::test]
    async fn a_panic_is_passed_on_after_all_have_ended() {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        let both_run = Arc::new(Barrier::new(2));
        let cancel = CancellationToken::new();
        let run = run_workers((0..10).collect(), 2, &cancel, {
            move |n: u32, token| {
                both_run.wait();
                assert!(n != 0, "item 0 panics");
                wait_cancelled(&token);
                ended.fetch_add(1, Ordering::SeqCst);
                Ok::<_, String>(())
            }
        });
        let payload = std::panic::AssertUnwindSafe(run)
            .catch_unwind()
            .await
            .expect_err("panics");
        let text = payload.downcast_ref::<&str>().expect("a text");
        assert!(text.contains("item 0 panics"));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn dropping_the_future_cancels_the_work() {
        let (sender, ended) = tokio::sync::oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let cancel = CancellationToken::new();
        let mut run = Box::pin(run_workers(vec![()], 1, &cancel, move |(), token| {
            wait_cancelled(&token);
            lock(&sender)
                .take()
                .expect("once")
                .send(())
                .expect("test waits");
            Ok::<_, String>(())
        }));
        assert!(futures_util::poll!(&mut run).is_pending());
        drop(run);
        ended.await.expect("the worker saw it");
    }
}
