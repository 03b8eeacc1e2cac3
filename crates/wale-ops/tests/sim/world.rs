//! One simulation: servers, sidecars, readers and a store, moved one step at a time by one seed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::task::JoinHandle;
use wale_format::Codec;
use wale_ops::wal_fetch::{fetch, prove_absent};
use wale_ops::{Kind, OpError};
use wale_pg::ArchiveFileName;
use wale_storage::{Fault, Looking, MemoryStore, Verb};

use crate::expiry;
use crate::gate::{Call, Gate, Lie};
use crate::judge::{Judge, Verdict};
use crate::random::Random;
use crate::server::{Server, archive};

const CLUSTER: u64 = 7_447_234_573_249_283_074;
const ANOTHER_CLUSTER: u64 = 7_447_234_573_249_999_999;
/// Each start of a sidecar chooses one: an archive may hold several. Half of the starts compress nothing, which is
/// quicker.
const CODECS: [Codec; 4] = [Codec::None, Codec::None, Codec::Lz4, Codec::Zstd];
/// How the store is asked, by the seed.
const LOOKINGS: [Looking; 3] = [Looking::FromAnyKey, Looking::ByPrefix, Looking::ByName];
/// Steps of one simulation before the faults end; where retention runs, it takes longer until there is something to retain.
const STEPS: u32 = 400;
const STEPS_ALONE: u32 = 900;
/// Steps that are more than enough for everything to end once the faults have ended.
const HEALED_STEPS_MAX: u32 = 20_000;

/// What a simulation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Everything that happened, in order.
    pub(crate) trace: Vec<String>,
    pub(crate) acknowledgements: u64,
    pub(crate) refusals: u64,
    pub(crate) faults: u64,
    pub(crate) crashes: u64,
    pub(crate) reads: u64,
    /// Names under which two servers have stored different contents: not both acknowledged, and told as damaged.
    pub(crate) disputes: u64,
    /// Files of WAL that retention has removed.
    pub(crate) removed: u64,
}

/// A promise that was broken, and how it came to that.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) why: String,
    pub(crate) trace: Vec<String>,
}

/// How often each thing happens in this run; drawn anew for each seed, so that runs differ in kind.
struct Mood {
    fault_percent: u64,
    weights: [u64; 10],
}

/// What a reader asked for.
enum Question {
    Fetch(JoinHandle<Result<Vec<u8>, OpError>>),
    Prove(JoinHandle<Result<(), OpError>>),
}

struct Reading {
    name: ArchiveFileName,
    /// Whether the name, or a later one of its timeline, was stored when the question was put.
    was_stored: bool,
    question: Question,
}

struct World {
    random: Random,
    memory: MemoryStore,
    gate: Arc<Gate>,
    judge: Judge,
    servers: Vec<Server>,
    readings: Vec<Reading>,
    mood: Mood,
    is_down: bool,
    readers: u32,
    backups: u32,
    retaining: Option<JoinHandle<Result<(), OpError>>>,
    summary: Summary,
    trace: Vec<String>,
}

/// Runs the simulation of `seed`. Must be called on a single-threaded runtime with paused time and one blocking
/// thread.
pub(crate) async fn simulate(seed: u64, lie: Lie) -> Result<Summary, Broken> {
    let mut world = World::new(seed, lie);
    let verdict = world.run().await;
    world.summary.removed = world.judge.removed.len() as u64;
    world.summary.acknowledgements = world.judge.acknowledgements;
    match verdict {
        Ok(()) => Ok(Summary {
            trace: world.trace,
            ..world.summary
        }),
        Err(why) => Err(Broken {
            why,
            trace: world.trace,
        }),
    }
}

impl World {
    fn new(seed: u64, lie: Lie) -> Self {
        let mut random = Random::new(seed);
        let memory = MemoryStore::new();
        memory.set_now(expiry::now());
        // A lie is to be found within few runs: the more is asked, the longer a writer stands between its look and its write.
        memory.set_looking(match lie {
            Lie::None => LOOKINGS[usize::try_from(seed % 3).expect("below three")],
            _ => Looking::ByName,
        });
        let gate = Gate::new(memory.clone(), lie);
        let mut servers = vec![Server::new("a", CLUSTER, 1)];
        let alone = random.chance(40);
        if !alone && random.chance(70) {
            // A clone that archives into the same prefix; or the same server seen twice, which is harmless.
            let lineage = if random.chance(80) { 2 } else { 1 };
            servers.push(Server::new("b", CLUSTER, lineage));
        }
        if !alone && random.chance(40) {
            servers.push(Server::new("c", ANOTHER_CLUSTER, 3));
        }
        // write, promote, ask, let through, hang up, crash, read, back up, retain, outage. Retention judges by backups of one
        // history, so it runs where one server is alone.
        let alone = u64::from(servers.len() == 1);
        let weights = [
            6 + random.below(10),
            random.below(2),
            20,
            100 + random.below(200),
            random.below(6),
            random.below(6),
            random.below(20),
            alone * (2 + random.below(4)),
            alone * (2 + random.below(8)),
            random.below(3),
        ];
        Self {
            mood: Mood {
                fault_percent: *random.pick(&[0, 2, 10, 30]),
                weights,
            },
            judge: Judge::new(memory.clone()),
            random,
            memory,
            gate,
            servers,
            readings: Vec::new(),
            is_down: false,
            readers: 0,
            backups: 0,
            retaining: None,
            summary: Summary::default(),
            trace: Vec::new(),
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        self.trace.push(what.into());
    }

    async fn run(&mut self) -> Verdict {
        let alone = self.servers.len() == 1;
        for _ in 0..if alone { STEPS_ALONE } else { STEPS } {
            self.step().await;
            self.settle().await?;
        }
        self.heal().await?;
        self.read_everything().await
    }

    async fn step(&mut self) {
        let server = self.random.index(self.servers.len());
        if !self.servers[server].is_running() {
            self.start(server);
        }
        match self.random.weighted(&self.mood.weights) {
            0 => {
                let name = self.servers[server].write_segment();
                self.note(format!("{} writes {name}", self.servers[server].label));
            }
            1 => {
                let name = self.servers[server].promote();
                self.note(format!("{} begins {name}", self.servers[server].label));
            }
            2 => self.ask(server),
            3 => self.let_one_through().await,
            4 => {
                if let Some(name) = self.servers[server].hang_up() {
                    self.note(format!("{} hangs up on {name}", self.servers[server].label));
                }
            }
            5 => {
                self.servers[server].crash();
                self.summary.crashes += 1;
                self.note(format!("{} is killed", self.servers[server].label));
            }
            6 => self.read(),
            7 => self.back_up(),
            8 => self.retain(),
            _ => {
                self.is_down = !self.is_down;
                self.note(format!("down: {}", self.is_down));
            }
        }
    }

    fn start(&mut self, server: usize) {
        let codec = *self.random.pick(&CODECS);
        let look_ahead = self.random.index(4);
        let gate = Arc::clone(&self.gate);
        let caller = self.servers[server].start(|caller| gate.door(caller), codec, look_ahead);
        self.note(format!("{caller} starts, {codec:?}, {look_ahead} ahead"));
    }

    fn ask(&mut self, server: usize) {
        let further = if self.random.chance(20) {
            self.random.index(3)
        } else {
            0
        };
        let server = &mut self.servers[server];
        if server.request.is_some() {
            return;
        }
        let label = server.label;
        if let Some(name) = server.ask(further) {
            self.note(format!("{label} asks for {name}"));
        } else {
            let recycled = server.recycle();
            self.note(format!("{label} recycles {recycled}"));
        }
    }

    fn back_up(&mut self) {
        if let Some(segment) = self.judge.newest_segment() {
            self.backups += 1;
            let name = expiry::put_backup(&self.memory, CLUSTER, segment, self.backups);
            self.note(format!("{name} is committed"));
        }
    }

    /// Begins retention, or kills the one that runs.
    fn retain(&mut self) {
        if let Some(running) = &self.retaining {
            if self.random.chance(20) {
                running.abort();
                self.retaining = None;
                self.summary.crashes += 1;
                self.note("retention is killed");
            }
            return;
        }
        self.readers += 1;
        let caller = format!("k{}", self.readers);
        self.note(format!("{caller} retains"));
        self.retaining = Some(expiry::begin(archive(self.gate.door(&caller), Codec::None)));
    }

    async fn hear_retention(&mut self) -> Verdict {
        if !self.retaining.as_ref().is_some_and(JoinHandle::is_finished) {
            return Ok(());
        }
        let ended = self.retaining.take().expect("just seen");
        match ended.await.expect("retention does not panic") {
            Err(error) if error.kind == Kind::Internal => {
                Err(format!("retention ended with {}", error.chain()))
            }
            result => {
                self.note(format!(
                    "retention ends: {:?}",
                    result.err().map(|error| error.kind)
                ));
                Ok(())
            }
        }
    }

    fn read(&mut self) {
        let mut names: Vec<String> = self
            .servers
            .iter()
            .flat_map(|server| server.written.keys().cloned())
            .collect();
        names.push("0000000100000FFF00000FFF".to_owned());
        let name = ArchiveFileName::parse(self.random.pick::<String>(&names)).expect("a name");
        let was_stored = self.judge.is_stored(&name);
        self.readers += 1;
        let caller = format!("r{}", self.readers);
        let archive = archive(self.gate.door(&caller), Codec::None);
        let proof = self.random.chance(40);
        let question = if proof {
            Question::Prove(tokio::spawn(async move {
                prove_absent(&archive, &name).await.map(drop)
            }))
        } else {
            Question::Fetch(tokio::spawn(
                async move { fetch_whole(&archive, &name).await },
            ))
        };
        self.note(format!("{caller} reads {name}, proof: {proof}"));
        self.summary.reads += 1;
        self.readings.push(Reading {
            name,
            was_stored,
            question,
        });
    }

    async fn let_one_through(&mut self) {
        let random = &mut self.random;
        let Some((call, same)) = self.gate.take(|calls| random.index(calls.len())) else {
            return;
        };
        if call.is_orphan() {
            let carried_out = self.random.chance(50);
            self.note(format!(
                "{} of the dead, carried out: {carried_out}",
                call.name()
            ));
            if carried_out {
                self.gate.carry_out(&call).await;
            }
            return;
        }
        let fault = if self.is_down {
            Some(Fault::Unavailable)
        } else if self.random.chance(self.mood.fault_percent) {
            Some(self.fault_for(&call))
        } else {
            None
        };
        self.summary.faults += u64::from(fault.is_some());
        self.note(format!("{} {fault:?}", call.name()));
        for call in std::iter::once(call).chain(same) {
            call.release(fault.clone());
        }
    }

    /// Something that can go wrong with this call and that a store may do. A body that arrives garbled and is kept so
    /// is not among them: nobody could tell, and stores are asked for better.
    fn fault_for(&mut self, call: &Call) -> Fault {
        let at = self.random.below(SOME_BYTES);
        // Where nothing is compressed there is no checksum, and what a store garbles silently nobody can tell.
        let has_checksum = call.key.ends_with(".zst") || call.key.ends_with(".lz4");
        let faults = match call.verb {
            Verb::PutIfAbsent | Verb::Put => vec![
                Fault::Unavailable,
                Fault::LostReply,
                Fault::LostReply,
                Fault::Full,
                Fault::PermissionDenied,
                Fault::CutBody(at),
            ],
            Verb::Get if has_checksum => vec![
                Fault::Unavailable,
                Fault::CutBody(at),
                Fault::Truncate(at),
                Fault::CorruptByte(at),
            ],
            // Retention believes the listing: a store whose listing is stale loses what it does not list.
            Verb::List if call.caller.starts_with('k') => {
                vec![Fault::Unavailable, Fault::CutBody(at % 3)]
            }
            Verb::List => vec![
                Fault::Unavailable,
                Fault::CutBody(at % 3),
                Fault::OmitFromList(self.some_key()),
            ],
            Verb::Confirm => vec![
                Fault::Unavailable,
                Fault::LostReply,
                Fault::Full,
                Fault::PermissionDenied,
            ],
            _ => vec![
                Fault::Unavailable,
                Fault::LostReply,
                Fault::PermissionDenied,
            ],
        };
        self.random.pick(&faults).clone()
    }

    /// A key that a stale listing does not have yet.
    fn some_key(&mut self) -> String {
        let keys = self.memory.keys();
        if keys.is_empty() {
            return "wal_005/".to_owned();
        }
        self.random.pick(&keys).to_string()
    }

    /// Waits until everything stands still: the clock moves only then. Then hears what has ended, and judges.
    async fn settle(&mut self) -> Verdict {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.gate.forget_orphans();
        for server in 0..self.servers.len() {
            self.hear(server).await?;
        }
        self.hear_retention().await?;
        let (ended, waiting) = std::mem::take(&mut self.readings)
            .into_iter()
            .partition(Reading::has_ended);
        self.readings = waiting;
        for reading in ended {
            self.judge_reading(reading).await?;
        }
        self.judge.look()
    }

    /// Hears the answer to the archiver's request, if there is one.
    async fn hear(&mut self, server: usize) -> Verdict {
        let server = &mut self.servers[server];
        if !server
            .request
            .as_ref()
            .is_some_and(|request| request.answer.is_finished())
        {
            return Ok(());
        }
        let request = server.request.take().expect("just seen");
        let name = request.name;
        let written = Arc::clone(&server.written[&name.to_string()]);
        match request.answer.await.expect("a push does not panic") {
            Ok(report) => {
                let line = format!(
                    "{} hears {name}: {:?} {}",
                    server.label, report.outcome, report.key
                );
                server.done(&name);
                let system_identifier = server.system_identifier;
                self.note(line);
                if self.judge.owner() != Some(system_identifier) {
                    return Err(format!(
                        "{name} was acknowledged into the archive of another cluster"
                    ));
                }
                self.judge.acknowledged(&report, &written)
            }
            Err(error) => {
                let line = format!("{} hears {name}: {:?}", server.label, error.kind);
                self.summary.refusals += 1;
                self.note(line);
                self.judge_refusal(&name, &written, &error)
            }
        }
    }

    /// Some answers claim something about the archive, and that must be so.
    fn judge_refusal(&self, name: &ArchiveFileName, written: &[u8], error: &OpError) -> Verdict {
        match error.kind {
            Kind::ArchiveConflict if !self.judge.is_taken(name, written) => Err(format!(
                "{name} is refused as a conflict, and there is none"
            )),
            Kind::NotFound | Kind::Internal => Err(format!(
                "a push of {name} ended with {:?}: {}",
                error.kind,
                error.chain()
            )),
            _ => Ok(()),
        }
    }

    async fn judge_reading(&mut self, reading: Reading) -> Verdict {
        let Reading {
            name,
            was_stored,
            question,
        } = reading;
        match question {
            Question::Fetch(handle) => {
                let result = handle.await.expect("a fetch does not panic");
                let kind = result.as_ref().err().map(|error| error.kind);
                self.note(format!("{name} is fetched: {kind:?}"));
                // Retention may take it away while it is asked for.
                let stays = was_stored && !self.judge.removed.contains(&name.to_string());
                self.judge.fetched(&name, stays, &result)
            }
            Question::Prove(handle) => {
                let result = handle.await.expect("a proof does not panic");
                let kind = result.as_ref().err().map(|error| error.kind);
                self.note(format!("{name} is proven absent: {kind:?}"));
                if result.is_ok() && was_stored && !self.judge.removed.contains(&name.to_string()) {
                    return Err(format!("{name} is stored, and was proven absent"));
                }
                Ok(())
            }
        }
    }

    /// The faults end. Everything must now be archived without a human, except what can never be (I6).
    async fn heal(&mut self) -> Verdict {
        self.note("healed");
        (self.is_down, self.mood.fault_percent) = (false, 0);
        for server in 0..self.servers.len() {
            if !self.servers[server].is_running() {
                self.start(server);
            }
        }
        // What the last one left half done, the next one finishes.
        if self.servers.len() == 1 && self.retaining.is_none() {
            self.retain();
        }
        for _ in 0..HEALED_STEPS_MAX {
            // Two things at a time would race: what was asked for below has begun before anything is let through.
            self.settle().await?;
            self.let_one_through().await;
            self.settle().await?;
            let mut waiting = !self.readings.is_empty() || self.retaining.is_some();
            for server in 0..self.servers.len() {
                self.give_up_on_what_is_taken(server);
                if self.servers[server].request.is_none() {
                    self.ask(server);
                }
                waiting |= self.servers[server].request.is_some();
            }
            if !waiting {
                return self.judge.check_all();
            }
        }
        Err("I6: the faults have ended, and archiving has not resumed".to_owned())
    }

    /// A server whose file can never be stored (the name is another's, or the archive is) loses it: its operator
    /// finds out. Everything else must be acknowledged.
    fn give_up_on_what_is_taken(&mut self, server: usize) {
        let server = &mut self.servers[server];
        if server.request.is_some() {
            return;
        }
        let Some(name) = server.ready.first().copied() else {
            return;
        };
        let is_foreign = self
            .judge
            .owner()
            .is_some_and(|owner| owner != server.system_identifier);
        let taken = !matches!(name, ArchiveFileName::Partial(_))
            && self
                .judge
                .is_taken(&name, &server.written[&name.to_string()]);
        if taken || is_foreign {
            server.done(&name);
        }
    }

    /// A reader that never saw a fault gets everything that was promised.
    async fn read_everything(&mut self) -> Verdict {
        let archive = archive(Arc::new(self.memory.clone()), Codec::None);
        for (name, promised) in self.judge.promises() {
            match fetch_whole(&archive, name).await {
                Ok(bytes) if bytes == **promised => {}
                Ok(_) => return Err(format!("I1: other bytes of {name} are fetched")),
                Err(error) if error.kind == Kind::CorruptData && self.judge.is_disputed(name) => {
                    self.summary.disputes += 1;
                }
                Err(error) => return Err(format!("I1: {name} is not fetched: {}", error.chain())),
            }
        }
        Ok(())
    }
}

/// Positions at which bodies break or are garbled: most of them within what is stored.
const SOME_BYTES: u64 = 1 << 20;

impl Reading {
    fn has_ended(&self) -> bool {
        match &self.question {
            Question::Fetch(handle) => handle.is_finished(),
            Question::Prove(handle) => handle.is_finished(),
        }
    }
}

async fn fetch_whole(
    archive: &wale_ops::Archive,
    name: &ArchiveFileName,
) -> Result<Vec<u8>, OpError> {
    let fetched = fetch(archive, name).await?;
    let pieces: Vec<bytes::Bytes> = fetched.body.try_collect().await?;
    Ok(pieces.concat())
}
