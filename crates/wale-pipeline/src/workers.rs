//! A fixed number of blocking threads over a list of work.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::CancellationToken;

/// How many threads do the work, and whose they are.
#[derive(Clone, Copy, Debug)]
pub struct Crew {
    /// So many at most; one at least.
    pub threads: usize,
    /// Where they come from.
    pub from: ThreadSource,
}

/// Where the threads of a [`Crew`] come from.
#[derive(Clone, Copy, Debug)]
pub enum ThreadSource {
    /// The runtime's pool of blocking threads, which other work uses before and after.
    Pool,
    /// They are made for the work and end with it. Each calls this first: what a thread does to itself, such as lowering its
    /// priority for good, then reaches no other work.
    Own(fn()),
}

/// Does `work` for every item on at most as many blocking threads as `crew` has, and answers the
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
    crew: Crew,
    cancel: &CancellationToken,
    work: F,
) -> Result<Vec<R>, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
    F: Fn(T, CancellationToken) -> Result<R, E> + Send + Sync + Clone + 'static,
{
    let threads = crew.threads.max(1).min(items.len());
    let token = cancel.child_token();
    let _cancel_when_dropped = token.clone().drop_guard();
    let job = Arc::new(Mutex::new(Job::new(items)));
    let handles: Vec<_> = (0..threads)
        .map(|_| {
            let (job, token, work) = (Arc::clone(&job), token.clone(), work.clone());
            start(crew.from, move || work_through(&job, &token, &work))
        })
        .collect();
    let mut panic = None;
    for handle in handles {
        match handle.await {
            Ok(Ok(())) => {}
            Ok(Err(payload)) => drop(panic.get_or_insert(payload)),
            Err(error) => panic!("a worker could not run, the runtime shuts down: {error}"),
        }
    }
    if let Some(payload) = panic {
        resume_unwind(payload);
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

/// How the work of one thread ended: well, or with this panic.
type Ended = oneshot::Receiver<Result<(), Box<dyn Any + Send>>>;

/// Begins the work of one thread. It is joined by waiting for what it says; nothing of it runs after that but its end.
fn start(from: ThreadSource, work: impl FnOnce() + Send + 'static) -> Ended {
    let (told, ended) = oneshot::channel();
    let work = move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        // Nobody listens any more when the future was dropped.
        let _ = told.send(result);
    };
    match from {
        ThreadSource::Pool => drop(tokio::task::spawn_blocking(work)),
        ThreadSource::Own(begin) => {
            let runtime = Handle::current();
            let thread = std::thread::Builder::new().name("wale-own".to_owned());
            let thread = thread.spawn(move || {
                begin();
                let _entered = runtime.enter();
                work();
            });
            thread.expect("the system gives a thread, as a runtime expects it, too");
        }
    }
    ended
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

    const fn pool(threads: usize) -> Crew {
        let from = ThreadSource::Pool;
        Crew { threads, from }
    }

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
            let results = run_workers((0..50).collect(), pool(workers), &cancel, |n: u32, _| {
                Ok::<_, String>(n * 2)
            })
            .await;
            let expected: Vec<u32> = (0..50).map(|n| n * 2).collect();
            assert_eq!(results, Ok(expected), "{workers} workers");
        }
        let none = run_workers(Vec::<u32>::new(), pool(4), &cancel, |n, _| {
            Ok::<_, String>(n)
        })
        .await;
        assert_eq!(none, Ok(vec![]));
    }

    #[tokio::test]
    async fn never_more_threads_than_asked_for() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        run_workers(
            (0..40).collect(),
            pool(3),
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
        let result = run_workers((0..10).collect(), pool(2), &CancellationToken::new(), {
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
        let result = run_workers(vec![1, 2], pool(2), &cancel, |n: u32, token| {
            if token.is_cancelled() {
                Err("told to stop")
            } else {
                Ok(n)
            }
        })
        .await;
        assert_eq!(result, Err("told to stop"));
        let parent = CancellationToken::new();
        run_workers(vec![1], pool(1), &parent, |_: u32, _| {
            Err::<(), _>("failed")
        })
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
        let run = run_workers((0..10).collect(), pool(2), &cancel, {
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
        let mut run = Box::pin(run_workers(vec![()], pool(1), &cancel, move |(), token| {
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

    thread_local! {
        static MARKED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    #[tokio::test]
    async fn threads_of_ones_own_begin_as_told_and_are_nobody_elses() {
        let crew = Crew {
            threads: 2,
            from: ThreadSource::Own(|| MARKED.set(true)),
        };
        let cancel = CancellationToken::new();
        let look = |_: u32, _| {
            // The runtime is at hand, as on a thread of its pool.
            Handle::current().block_on(tokio::task::yield_now());
            Ok::<_, String>(MARKED.get())
        };
        for (crew, marked) in [(crew, true), (pool(2), false)] {
            let seen = run_workers((0..8).collect(), crew, &cancel, look).await;
            assert_eq!(seen, Ok(vec![marked; 8]));
        }

        let panics = run_workers(vec![()], crew, &cancel, |(), _| -> Result<(), String> {
            panic!("its own thread panics")
        });
        let payload = AssertUnwindSafe(panics).catch_unwind().await;
        let payload = payload.expect_err("panics");
        assert_eq!(
            payload.downcast_ref::<&str>(),
            Some(&"its own thread panics")
        );
    }
}
