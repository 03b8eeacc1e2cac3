//! The store of the simulation: a faulty store over memory, behind a gate that lets one call through at a time.
//!
//! A call waits at the gate until the driver lets it through and says what goes wrong with it. While nothing is let
//! through every task stands still, so the calls that wait are the same in every run, and the seed alone decides
//! which of them comes first. A caller that died meanwhile is still in the list: its request was in the wire, and the
//! store may carry it out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::oneshot;
use wale_storage::{
    Body, BodyError, Fault, FaultPlan, FaultyStore, Looking, MemoryStore, Object, ObjectKey,
    ObjectMeta, Occurrence, PutOutcome, Store, StoreError, Verb, body_from,
};

/// A store that breaks its promises: what the simulation must find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// None: an honest store.
    None,
    /// Creating overwrites what is there.
    Overwrites,
    /// Some of the WAL that it confirmed it does not keep.
    Forgets,
    /// Some of the WAL that it confirmed it keeps garbled.
    Garbles,
    /// What it cannot answer does not exist.
    DeniesExistence,
}

/// A call that waits.
#[derive(Debug)]
pub(crate) struct Call {
    /// Which process asks.
    pub(crate) caller: String,
    pub(crate) verb: Verb,
    /// The key, or the prefix of a list.
    pub(crate) key: String,
    /// The body of a put, if it came whole.
    pub(crate) body: Option<Bytes>,
    number: u64,
    go: oneshot::Sender<Option<Fault>>,
}

impl Call {
    /// Whether the one that asked is dead.
    pub(crate) fn is_orphan(&self) -> bool {
        self.go.is_closed()
    }

    /// What a trace says of it.
    pub(crate) fn name(&self) -> String {
        format!("{} {:?} {}", self.caller, self.verb, self.key)
    }

    /// Lets it through; what it does then is done when everything stands still again.
    pub(crate) fn release(self, fault: Option<Fault>) {
        // A caller that has died meanwhile does not hear it.
        let _ = self.go.send(fault);
    }
}

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    memory: MemoryStore,
    faulty: FaultyStore,
    lie: Lie,
    waiting: Mutex<(u64, Vec<Call>)>,
}

impl Gate {
    pub(crate) fn new(memory: MemoryStore, lie: Lie) -> Arc<Self> {
        Arc::new(Self {
            faulty: FaultyStore::new(Arc::new(memory.clone()), FaultPlan::new()),
            memory,
            lie,
            waiting: Mutex::default(),
        })
    }

    /// The way in for one process.
    pub(crate) fn door(self: &Arc<Self>, caller: &str) -> Arc<dyn Store> {
        Arc::new(Door {
            gate: Arc::clone(self),
            caller: caller.to_owned(),
        })
    }

    /// Takes the call out at the position that `choose` names, among all that wait in an order that is the same in
    /// every run; and with it the other questions that are the same: which of two pushes of one process came first with
    /// its question is chance.
    pub(crate) fn take(&self, choose: impl FnOnce(&[Call]) -> usize) -> Option<(Call, Vec<Call>)> {
        let mut waiting = self.waiting();
        let calls = &mut waiting.1;
        if calls.is_empty() {
            return None;
        }
        calls.sort_by(|a, b| {
            (&a.caller, &a.key, a.verb as u8, a.number).cmp(&(
                &b.caller,
                &b.key,
                b.verb as u8,
                b.number,
            ))
        });
        let call = calls.remove(choose(calls));
        let is_same = |other: &mut Call| {
            let both = [&call, &*other];
            let are_questions = both
                .iter()
                .all(|one| one.body.is_none() && !one.is_orphan());
            are_questions && call.name() == other.name()
        };
        let same = calls.extract_if(.., is_same).collect();
        Some((call, same))
    }

    /// Forgets calls whose caller is dead, except the writes: those may be in the wire.
    pub(crate) fn forget_orphans(&self) {
        self.waiting()
            .1
            .retain(|call| !call.is_orphan() || call.body.is_some());
    }

    /// Carries out a put whose caller is dead, as the store does that has received it whole.
    pub(crate) async fn carry_out(&self, call: &Call) {
        let (Some(body), Ok(key)) = (&call.body, ObjectKey::new(&call.key)) else {
            return;
        };
        let body = body_from(body.clone());
        let stored = match call.verb {
            Verb::PutIfAbsent => self.memory.put_if_absent(&key, body).await.map(drop),
            _ => self.memory.put(&key, body).await.map(drop),
        };
        stored.expect("memory keeps everything");
    }

    fn waiting(&self) -> MutexGuard<'_, (u64, Vec<Call>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares what goes wrong with the call that was let through.
    fn prepare(&self, verb: Verb, key: &str, fault: Option<Fault>) {
        let mut plan = FaultPlan::new();
        for fault in fault.into_iter().chain(self.lie_about(verb, key)) {
            plan = plan.fail(Verb::Any, Occurrence::Nth(1), fault);
        }
        self.faulty.set_plan(plan);
    }

    fn lie_about(&self, verb: Verb, key: &str) -> Option<Fault> {
        let is_wal = verb == Verb::PutIfAbsent && key.starts_with("wal_005/");
        match self.lie {
            Lie::Overwrites if is_wal => Some(Fault::IgnoreCondition),
            Lie::Garbles if is_wal && key.as_bytes()[key.len() - 5].is_multiple_of(3) => {
                Some(Fault::CorruptByte(1000))
            }
            _ => None,
        }
    }
}

/// The gate as one process sees it.
#[derive(Debug)]
struct Door {
    gate: Arc<Gate>,
    caller: String,
}

impl Door {
    async fn wait(&self, verb: Verb, key: &str, body: Option<Bytes>) {
        let (go, gone) = oneshot::channel();
        {
            let mut waiting = self.gate.waiting();
            waiting.0 += 1;
            let number = waiting.0;
            waiting.1.push(Call {
                caller: self.caller.clone(),
                verb,
                key: key.to_owned(),
                body,
                number,
                go,
            });
        }
        let Ok(fault) = gone.await else {
            // The driver has dropped the call: this process gets no answer any more.
            std::future::pending().await
        };
        self.gate.prepare(verb, key, fault);
    }

    /// The body is received before the call waits: a sender that is blocked would keep the simulation from standing
    /// still.
    async fn receive(&self, verb: Verb, key: &ObjectKey, mut body: Body) -> Body {
        let mut whole = BytesMut::new();
        let failure = loop {
            match body.try_next().await {
                Ok(Some(piece)) => whole.extend_from_slice(&piece),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let whole = whole.freeze();
        let kept = failure.is_none().then(|| whole.clone());
        self.wait(verb, key.as_str(), kept).await;
        let pieces: [Result<Bytes, BodyError>; 2] = match failure {
            None => [Ok(whole), Ok(Bytes::new())],
            Some(error) => [Ok(whole), Err(error)],
        };
        stream::iter(pieces).boxed()
    }
}

#[async_trait]
impl Store for Door {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        let body = self.receive(Verb::PutIfAbsent, key, body).await;
        let answer = self.gate.faulty.put_if_absent(key, body).await;
        if self.gate.lie == Lie::Forgets
            && key.as_str().starts_with("wal_005/")
            && key.as_str().as_bytes()[key.as_str().len() - 5].is_multiple_of(3)
            && matches!(answer, Ok(PutOutcome::Created(_)))
        {
            self.gate.memory.delete(key).await?;
        }
        answer
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        let body = self.receive(Verb::Put, key, body).await;
        self.gate.faulty.put(key, body).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        self.wait(Verb::Get, key.as_str(), None).await;
        self.gate.faulty.get(key).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.wait(Verb::Head, key.as_str(), None).await;
        let answer = self.gate.faulty.head(key).await;
        if self.gate.lie == Lie::DeniesExistence && answer.is_err() {
            return Ok(None);
        }
        answer
    }

    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.wait(Verb::Confirm, key.as_str(), None).await;
        self.gate.faulty.confirm(key).await
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        self.wait(Verb::List, prefix, None).await;
        self.gate.faulty.list(prefix).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.wait(Verb::Delete, key.as_str(), None).await;
        self.gate.faulty.delete(key).await
    }

    async fn discard_unfinished(
        &self,
        _older_than: Duration,
        _ours: wale_storage::Ours,
    ) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn looking(&self) -> Looking {
        self.gate.faulty.looking()
    }

    fn location(&self) -> String {
        self.gate.faulty.location()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.wait(Verb::Check, "", None).await;
        self.gate.faulty.check().await
    }
}
