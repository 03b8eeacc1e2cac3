//! A store that asks again when asking again may help, and gives up on one that is silent.
//!
//! It repeats transient failures ([`StoreError::is_transient`]) of head, confirm, list, delete, check, of the
//! opening of an object, and of a put whose body was not touched yet. It never repeats a put that has begun:
//! its body is consumed, and only the caller can produce it again. Nor does it repeat a body that is being
//! read: the caller knows how much of it he has used.

use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    Body, BodyError, CredentialEnd, Looking, Object, ObjectKey, ObjectMeta, PutOutcome, Store,
    StoreError,
};

/// What is retried, how long, and why.
///
/// Pauses grow exponentially and are drawn evenly between nothing and their bound ("full jitter"), so that
/// many callers that failed together do not come back together. With the defaults a store that is down
/// sees about a dozen attempts of one call in 30 seconds, and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Longest time from the start of a call to its answer, pauses included. No attempt is begun that
    /// could not end in time. 30 s: below the minute after which the callers' clients give up.
    pub deadline: Duration,
    /// Longest silence of the store: until it answers a request, and between two pieces of a body or two
    /// entries of a list. 20 s: a store that says nothing for so long has lost the connection; what
    /// answers later is too late for the deadline anyway.
    pub stall_timeout: Duration,
    /// Longest silence of the store during a put, counted while it is the store's turn and not the
    /// body's. 2 minutes: a file store writes out at the end what the system has buffered, and 1 GiB at
    /// 10 MB/s takes 100 s. A put has no other limit, for its length is its body's.
    pub put_stall_timeout: Duration,
    /// Bound of the first pause, 100 ms; each further one is twice as long.
    pub first_delay: Duration,
    /// Bound of any pause, 5 s: when the store is back, nobody waits longer for it.
    pub delay_max: Duration,
    /// Attempts in all, the first included; at least one. 20: the bound for stores that fail at once.
    pub attempts_max: u32,
    /// Whether nobody waits: then that the store is asked again stands in the log at debug level only, and the caller says
    /// what became of it.
    pub quiet: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(20),
            put_stall_timeout: Duration::from_mins(2),
            first_delay: Duration::from_millis(100),
            delay_max: Duration::from_secs(5),
            attempts_max: 20,
            quiet: false,
        }
    }
}

impl RetryPolicy {
    /// The longest pause after the given attempt, counted from 1.
    fn delay_bound(&self, attempt: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.saturating_sub(1));
        self.first_delay.saturating_mul(factor).min(self.delay_max)
    }
}

/// When a call has taken this long without success, its repetition is reported in the log. Half a second: a blip is
/// over by then, and a person at a terminal learns within a second why.
const TOLD_AFTER: Duration = Duration::from_millis(500);

/// Between two such lines of the process, however many calls wait for the store. 5 s: six lines for one that is given up.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// When the last line was written.
static LAST_TOLD: Mutex<Option<Instant>> = Mutex::new(None);

/// A store whose transient failures are retried.
#[derive(Debug)]
pub struct RetryStore {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
}

/// The attempts of one call. A store that alone can repeat something, such as a part of an upload that it
/// holds in memory, counts with this too, so that there is one policy.
pub(crate) struct Attempts<'a> {
    policy: &'a RetryPolicy,
    /// Set when the first attempt begins, or fails.
    deadline: Option<Instant>,
    begun: Instant,
    made: u32,
}

impl<'a> Attempts<'a> {
    /// Attempts whose time begins now.
    fn from_now(policy: &'a RetryPolicy) -> Self {
        Self {
            deadline: Some(Instant::now() + policy.deadline),
            ..Self::from_failure(policy)
        }
    }

    /// Attempts whose time begins with the first failure: for transfers, which may take as long as they move.
    pub(crate) fn from_failure(policy: &'a RetryPolicy) -> Self {
        Self {
            policy,
            deadline: None,
            begun: Instant::now(),
            made: 0,
        }
    }

    fn deadline(&mut self) -> Instant {
        let policy = self.policy;
        *self
            .deadline
            .get_or_insert_with(|| Instant::now() + policy.deadline)
    }

    /// Waits before the next attempt, or gives the error back when there is to be none.
    pub(crate) async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.made += 1;
        if !error.is_transient() || self.made >= self.policy.attempts_max {
            return Err(error);
        }
        let pause = self.policy.delay_bound(self.made).mul_f64(random_share());
        if Instant::now() + pause >= self.deadline() {
            return Err(error);
        }
        self.tell(&error, pause);
        sleep(pause).await;
        Ok(())
    }

    /// Logs that the store is asked again: as a warning when somebody has been waiting for a while.
    fn tell(&mut self, error: &StoreError, pause: Duration) {
        let (attempt, now) = (self.made, Instant::now());
        let is_quick = self.begun.elapsed() + pause < TOLD_AFTER;
        if self.policy.quiet || is_quick || !is_time_to_tell(now) {
            tracing::debug!(%error, attempt, pause_seconds = pause.as_secs_f64(), "the store is asked again");
            return;
        }
        let cause = std::error::Error::source(error);
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        let left = self.deadline().saturating_duration_since(now).as_secs();
        tracing::warn!(
            attempt,
            "{error}{cause}; it is asked again for up to {left} s"
        );
    }
}

/// Whether the last line is old enough; notes that there is one now.
fn is_time_to_tell(now: Instant) -> bool {
    let mut last = LAST_TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let is_time = last.is_none_or(|last| now.saturating_duration_since(last) >= TOLD_EVERY);
    if is_time {
        *last = Some(now);
    }
    is_time
}

/// A number from 0 up to but not including 1. The standard library seeds its hashers at random; that is
/// all the chance that is needed to keep callers apart.
fn random_share() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // 32 bits, because they fit an f64 exactly.
    let bits = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(bits).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

impl RetryStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts::from_now(&self.policy)
    }

    /// Makes a request until it succeeds, fails for good, or time is up.
    async fn request<'a, T>(
        &self,
        mut request: impl FnMut() -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut attempts = self.attempts();
        loop {
            let limit = (Instant::now() + self.policy.stall_timeout).min(attempts.deadline());
            let result = match timeout_at(limit, request()).await {
                Ok(result) => result,
                Err(_) => Err(silent(&self.inner.location(), self.policy.stall_timeout)),
            };
            match result {
                Ok(value) => return Ok(value),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// Makes a put, again as long as its body is untouched.
    async fn upload<'a, T>(
        &self,
        body: Body,
        mut put: impl FnMut(Body) -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let body = WatchedBody::new(body);
        let mut attempts = self.attempts();
        loop {
            body.restart();
            match self.watch(&body, put(body.clone().boxed())).await {
                Err(error) if !body.is_touched() => attempts.pause(error).await?,
                result => return result,
            }
        }
    }

    /// Waits for a put as long as the store moves, or the body does not.
    async fn watch<T>(
        &self,
        body: &WatchedBody,
        put: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.policy.put_stall_timeout;
        let mut put = std::pin::pin!(put);
        loop {
            let silence = body.silence();
            if silence >= limit {
                return Err(silent(&self.inner.location(), limit));
            }
            if let Ok(result) = timeout(limit.saturating_sub(silence), &mut put).await {
                return result;
            }
        }
    }

    /// The same stream, that fails when the store is silent for too long.
    fn limited<T: Send + 'static>(
        &self,
        stream: BoxStream<'static, Result<T, StoreError>>,
    ) -> BoxStream<'static, Result<T, StoreError>> {
        let (location, limit) = (self.inner.location(), self.policy.stall_timeout);
        stream::unfold(Some(stream), move |stream| {
            let location = location.clone();
            async move {
                let mut stream = stream?;
                match timeout(limit, stream.next()).await {
                    Ok(item) => item.map(|item| (item, Some(stream))),
                    Err(_) => Some((Err(silent(&location, limit)), None)),
                }
            }
        })
        .fuse()
        .boxed()
    }
}

fn silent(location: &str, limit: Duration) -> StoreError {
    StoreError::unavailable(location, format!("no answer within {limit:?}"))
}

/// A body that can be lent to several attempts while it is untouched, and that knows whose turn it is.
#[derive(Clone)]
struct WatchedBody {
    shared: Arc<Mutex<Watched>>,
}

struct Watched {
    body: Body,
    touched: bool,
    turn: Turn,
}

/// The side that has to act for the put to go on.
#[derive(Clone, Copy)]
enum Turn {
    /// The store, since this moment.
    Store(Instant),
    /// The producer of the body.
    Producer,
}

impl WatchedBody {
    fn new(body: Body) -> Self {
        let watched = Watched {
            body,
            touched: false,
            turn: Turn::Store(Instant::now()),
        };
        Self {
            shared: Arc::new(Mutex::new(watched)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_touched(&self) -> bool {
        self.lock().touched
    }

    fn restart(&self) {
        self.lock().turn = Turn::Store(Instant::now());
    }

    /// How long the store has been silent.
    fn silence(&self) -> Duration {
        match self.lock().turn {
            Turn::Store(since) => since.elapsed(),
            Turn::Producer => Duration::ZERO,
        }
    }
}

impl Stream for WatchedBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut watched = self.lock();
        watched.touched = true;
        let poll = watched.body.as_mut().poll_next(context);
        watched.turn = match poll {
            Poll::Ready(_) => Turn::Store(Instant::now()),
            Poll::Pending => Turn::Producer,
        };
        poll
    }
}

#[async_trait]
impl Store for RetryStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        self.upload(body, |body| self.inner.put_if_absent(key, body))
            .await
    }

    async fn put_unseen(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        self.upload(body, |body| self.inner.put_unseen(key, body))
            .await
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        self.upload(body, |body| self.inner.put(key, body)).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        let object = self.request(|| self.inner.get(key)).await?;
        Ok(Object {
            meta: object.meta,
            body: self.limited(object.body),
        })
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        let get = || self.inner.get_range(key, range.clone());
        let object = self.request(get).await?;
        Ok(Object {
            meta: object.meta,
            body: self.limited(object.body),
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.request(|| self.inner.head(key)).await
    }

    /// It may take as long as the end of a put, since it does the same: it writes out what the system has buffered.
    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let limit = self.policy.put_stall_timeout;
        let mut attempts = self.attempts();
        loop {
            let confirmed = timeout(limit, self.inner.confirm(key)).await;
            match confirmed.unwrap_or_else(|_| Err(silent(&self.inner.location(), limit))) {
                Ok(meta) => return Ok(meta),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        let entries = self.request(|| self.inner.list(prefix)).await?;
        Ok(self.limited(entries))
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        let list = || self.inner.list_after(prefix, after);
        let entries = self.request(list).await?;
        Ok(self.limited(entries))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.request(|| self.inner.delete(key)).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let mut attempts = self.attempts();
        let mut failed = Vec::new();
        let mut wanted = keys.to_vec();
        loop {
            let left = self.inner.delete_many(&wanted).await;
            let (again, for_good): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|(_, error)| error.is_transient());
            failed.extend(for_good);
            let mut again = again.into_iter();
            let Some((key, error)) = again.next() else {
                return failed;
            };
            // One error of many decides whether there is time left; all are of the same kind.
            let rest: Vec<_> = again.collect();
            if let Err(error) = attempts.pause(error).await {
                failed.push((key, error));
                failed.extend(rest);
                return failed;
            }
            wanted = std::iter::once(key)
                .chain(rest.into_iter().map(|(key, _)| key))
                .collect();
        }
    }

    async fn discard_unfinished(
        &self,
        older_than: Duration,
        ours: crate::Ours,
    ) -> Result<u64, StoreError> {
        self.inner.discard_unfinished(older_than, ours).await
    }

    fn looking(&self) -> Looking {
        self.inner.looking()
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.inner.credential_ends().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.request(|| self.inner.check()).await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.request(|| self.inner.try_out()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, FaultPlan, FaultyStore, MemoryStore, Occurrence, Verb, body_from};

    fn key() -> ObjectKey {
        ObjectKey::new("a").expect("valid")
    }

    fn body() -> Body {
        body_from(Bytes::from_static(b"content"))
    }

    fn retried(plan: FaultPlan) -> (Arc<FaultyStore>, RetryStore) {
        let memory = MemoryStore::new();
        memory.insert(&key(), "there");
        let faulty = Arc::new(FaultyStore::new(Arc::new(memory), plan));
        let store = RetryStore::new(faulty.clone(), RetryPolicy::default());
        (faulty, store)
    }

    fn fail(verb: Verb, occurrence: Occurrence, fault: Fault) -> FaultPlan {
        FaultPlan::new().fail(verb, occurrence, fault)
    }

    #[tokio::test]
    async fn conforms() {
        let memory = Arc::new(MemoryStore::new());
        let store = RetryStore::new(memory, RetryPolicy::default());
        crate::conformance(Arc::new(store)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn row_22_transient_failures_are_retried() {
        let first = Occurrence::Between(1, 3);
        let (faulty, store) = retried(fail(Verb::Any, first, Fault::Unavailable));
        store.head(&key()).await.expect("the fourth answers");
        assert_eq!(faulty.calls(Verb::Head), 4);
        for verb in [
            Verb::Get,
            Verb::Confirm,
            Verb::List,
            Verb::Delete,
            Verb::Check,
            Verb::Put,
            Verb::PutIfAbsent,
        ] {
            faulty.set_plan(fail(verb, first, Fault::Unavailable));
            let result = match verb {
                Verb::Get => store.get(&key()).await.map(drop),
                Verb::Confirm => store.confirm(&key()).await.map(drop),
                Verb::List => store.list("").await.map(drop),
                Verb::Delete => store.delete(&key()).await,
                Verb::Check => store.check().await,
                Verb::Put => store.put(&key(), body()).await.map(drop),
                _ => store.put_if_absent(&key(), body()).await.map(drop),
            };
            result.unwrap_or_else(|error| panic!("{verb:?}: {error}"));
            assert_eq!(faulty.calls(verb), 4, "{verb:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn row_23_a_store_that_stays_down_is_not_stormed() {
        let (faulty, store) = retried(fail(Verb::Any, Occurrence::Always, Fault::Unavailable));
        let start = Instant::now();
        let error = store.head(&key()).await.expect_err("it is down");
        assert!(error.is_transient());
        assert!(start.elapsed() <= RetryPolicy::default().deadline);
        let calls = faulty.calls(Verb::Head);
        assert!((3..=20).contains(&calls), "{calls} calls");
    }

    #[tokio::test(start_paused = true)]
    async fn a_confirmation_may_take_as_long_as_the_end_of_a_put() {
        let minute = Duration::from_mins(1);
        let (faulty, store) = retried(fail(
            Verb::Confirm,
            Occurrence::Always,
            Fault::Delay(minute),
        ));
        let meta = store.confirm(&key()).await.expect("it takes its time");
        assert_eq!(meta.expect("it is there").key, key());
        faulty.set_plan(fail(Verb::Confirm, Occurrence::Always, Fault::Hang));
        let start = Instant::now();
        let error = store.confirm(&key()).await.expect_err("it never answers");
        assert!(error.is_transient());
        assert!(start.elapsed() <= 2 * RetryPolicy::default().put_stall_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_transient_is_told_at_once() {
        for fault in [Fault::Full, Fault::PermissionDenied] {
            let (faulty, store) = retried(fail(Verb::Any, Occurrence::Always, fault));
            store.head(&key()).await.expect_err("fails");
            assert_eq!(faulty.calls(Verb::Head), 1);
        }
        let (faulty, store) = retried(FaultPlan::new());
        let absent = ObjectKey::new("b").expect("valid");
        assert!(store.get(&absent).await.expect_err("absent").is_not_found());
        assert_eq!(faulty.calls(Verb::Get), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn row_25_a_put_that_has_begun_is_the_callers() {
        for fault in [Fault::CutBody(3), Fault::LostReply] {
            let (faulty, store) = retried(fail(Verb::Put, Occurrence::Always, fault));
            let error = store.put(&key(), body()).await.expect_err("fails");
            assert!(error.is_transient());
            assert_eq!(faulty.calls(Verb::Put), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn row_26_silence_is_cut_short() {
        let start = Instant::now();
        let (faulty, store) = retried(fail(Verb::Head, Occurrence::Nth(1), Fault::Hang));
        store.head(&key()).await.expect("the second answers");
        assert_eq!(faulty.calls(Verb::Head), 2);
        assert!(start.elapsed() >= RetryPolicy::default().stall_timeout);

        let (_, store) = retried(fail(Verb::Put, Occurrence::Always, Fault::Hang));
        let error = store.put(&key(), body()).await.expect_err("never answers");
        assert!(error.is_transient());
        assert!(error.to_string().contains("no answer within"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_not_the_stores_silence() {
        let (_, store) = retried(FaultPlan::new());
        let hour = Duration::from_hours(1);
        let chunks = stream::iter(["a", "b"]).then(move |text| async move {
            sleep(hour).await;
            Ok(Bytes::from_static(text.as_bytes()))
        });
        let meta = store.put(&key(), chunks.boxed()).await.expect("in the end");
        assert_eq!(meta.size, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_an_error() {
        let store = RetryStore::new(Arc::new(MemoryStore::new()), RetryPolicy::default());
        let stops = stream::iter([Ok(1)]).chain(stream::pending()).boxed();
        let items: Vec<Result<i32, StoreError>> = store.limited(stops).collect().await;
        assert_eq!(items.len(), 2);
        let error = items[1].as_ref().expect_err("silence");
        assert!(error.is_transient());
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        let policy = RetryPolicy::default();
        let bounds: Vec<_> = [1, 2, 3, 6, 7, 100]
            .map(|attempt| policy.delay_bound(attempt).as_millis())
            .into();
        assert_eq!(bounds, [100, 200, 400, 3200, 5000, 5000]);
        let shares: Vec<_> = (0..100).map(|_| random_share()).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
        assert!(shares.iter().any(|share| *share < 0.5));
        assert!(shares.iter().any(|share| *share >= 0.5));
    }
}
