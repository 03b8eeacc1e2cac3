//! Tells people: a ping for each base backup, a message for each thing that is wrong and when it is so no more, and one after a start with
//! all that is wrong, so that what was mended while nobody looked does not stay open at whoever was told.
//!
//! ```text
//!   what /status says ─ every 2 s ─▶ what is new ─▶ bounded queues ─▶ one request at a time, repeated
//! ```
//!
//! It is never in the way: nothing waits for it, and what cannot be delivered is dropped after a while and logged. It refuses to
//! know what is wrong: [`problems`] takes that from what is reported anyway. Addresses are secrets, and stand in no log.

mod post;
mod problems;
mod told;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use wale_ops::retry::Pauses;

use self::post::{Posted, Poster};
use self::problems::{Problem, problems, unjudged};
use self::told::{News, Told};
use crate::app::{App, moment};
use crate::options::NoticeOptions;

/// Between two looks at what is reported.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Messages that wait; more are dropped and counted. 100 × some 2 KiB.
const QUEUE: usize = 100;

/// The pause after a request that failed, doubled up to the second one.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// How long a message is repeated, and a ping, which is worth nothing later.
const MESSAGE_LASTS: Duration = Duration::from_hours(24);
const PING_LASTS: Duration = Duration::from_mins(10);

/// Tells for ever. May be dropped at any await: what was not delivered is lost.
pub(crate) async fn tell(app: Arc<App>, options: NoticeOptions) {
    if options.ping.is_none() && options.webhook.is_none() {
        return;
    }
    let client = match Poster::new(&options) {
        Ok(client) => client,
        Err(why) => {
            tracing::error!(
                hint = "correct the proxy, or the certificates of the system",
                "nobody is told of anything: {why}"
            );
            return;
        }
    };
    let (messages, to_post) = mpsc::channel(QUEUE);
    let (pings, to_ping) = mpsc::channel(QUEUE);
    let has_webhook = options.webhook.is_some();
    tokio::join!(
        look(&app, has_webhook.then_some(messages), pings),
        deliver_messages(&app, &client, to_post),
        deliver_pings(&client, to_ping),
    );
}

/// Looks at what is reported, and puts what is new into the queues.
async fn look(
    app: &App,
    messages: Option<mpsc::Sender<String>>,
    pings: mpsc::Sender<&'static str>,
) {
    let mut told = Told::default();
    let mut dropped = 0_u64;
    let mut backups = SeenBackups::new(app);
    loop {
        for end in backups.news(app) {
            // More than a hundred that wait are worth nothing.
            let _ = pings.try_send(end);
        }
        if let Some(messages) = &messages {
            let has_looked = has_looked(app);
            let now = problems(app, &app.credential_ends().await);
            let unjudged = unjudged(app);
            for news in told.news(&now, &unjudged, has_looked) {
                match messages.try_send(message(app, &news, dropped)) {
                    Ok(()) => dropped = 0,
                    Err(_) => dropped += 1,
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether everything was looked at since the start: until then what is not seen may only not have been looked for.
fn has_looked(app: &App) -> bool {
    let mut replicas = app.replicas.iter();
    app.journal.entries().has_looked && replicas.all(|one| one.was_looked_at())
}

fn message(app: &App, news: &News, dropped: u64) -> String {
    let about = |name: &str, problem: &Problem| json!({"problem": name, "message": problem.message, "hint": problem.hint});
    let (event, mut value) = match news {
        News::Problem(name, problem) => ("problem", about(name, problem)),
        News::Recovered(name, problem) => ("recovered", about(name, problem)),
        News::Started(all, unknown) => {
            let all = all.iter().map(|(name, problem)| about(name, problem));
            let all = all.collect::<Vec<Value>>();
            ("started", json!({"problems": all, "unknown": unknown}))
        }
    };
    let facts = [
        ("event", event.to_owned()),
        ("at", moment(app.archive.clock().now())),
        ("host", app.host_name.clone()),
        ("archive", app.archive.location()),
        ("version", app.version.to_owned()),
    ];
    if let Some(object) = value.as_object_mut() {
        object.extend(facts.map(|(name, fact)| (name.to_owned(), fact.into())));
        if dropped > 0 {
            object.insert("dropped_before".to_owned(), dropped.into());
        }
    }
    value.to_string()
}

/// What was seen of base backups.
struct SeenBackups {
    is_running: bool,
    completions: watch::Receiver<u64>,
    failed: Option<DateTime<Utc>>,
}

impl SeenBackups {
    fn new(app: &App) -> Self {
        Self {
            is_running: false,
            completions: app.backups.completions(),
            failed: app.journal.entries().last_backup_failure.map(|one| one.at),
        }
    }

    /// The ends of the pings that are due.
    fn news(&mut self, app: &App) -> Vec<&'static str> {
        let mut news = Vec::new();
        if self.completions.has_changed().unwrap_or(false) {
            self.completions.borrow_and_update();
            news.push("");
        }
        let failed = app.journal.entries().last_backup_failure.map(|one| one.at);
        if failed.is_some() && failed != self.failed {
            news.push("/fail");
        }
        self.failed = failed;
        let is_running = app.backups.running().is_some();
        if is_running && !self.is_running {
            news.push("/start");
        }
        self.is_running = is_running;
        news
    }
}

/// Delivers messages in turn: one that is not taken lets the others go before its next try.
async fn deliver_messages(app: &App, client: &Poster, mut messages: mpsc::Receiver<String>) {
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let mut pauses = Pauses::new(PAUSE, LONGEST_PAUSE);
    loop {
        if waiting.is_empty() {
            match messages.recv().await {
                Some(text) => waiting.push_back(Waiting::new(text)),
                None => return,
            }
        }
        while waiting.len() < QUEUE
            && let Ok(text) = messages.try_recv()
        {
            waiting.push_back(Waiting::new(text));
        }
        let mut is_taken = false;
        for _ in 0..waiting.len() {
            let Some(one) = waiting.pop_front() else {
                break;
            };
            let now = app.archive.clock().now().timestamp();
            match client.post(&one.text, now).await {
                Posted::Taken => is_taken = true,
                Posted::Refused(why) => refused("the webhook", &why),
                Posted::Failed(why) => waiting.extend(one.again(&why)),
            }
        }
        if is_taken {
            pauses = Pauses::new(PAUSE, LONGEST_PAUSE);
        }
        if !waiting.is_empty() {
            tokio::time::sleep(pauses.take()).await;
        }
    }
}

/// A message that waits to be taken.
struct Waiting {
    text: String,
    since: Instant,
    is_told: bool,
}

impl Waiting {
    fn new(text: String) -> Self {
        Self {
            text,
            since: Instant::now(),
            is_told: false,
        }
    }

    /// It, to be sent again, unless it is too old.
    fn again(mut self, why: &str) -> Option<Self> {
        if self.since.elapsed() >= MESSAGE_LASTS {
            too_old("the webhook", MESSAGE_LASTS, why);
            return None;
        }
        if !std::mem::replace(&mut self.is_told, true) {
            sent_again("the webhook", why);
        }
        Some(self)
    }
}

fn refused(what: &str, why: &str) {
    tracing::warn!(
        hint = "correct its address; this message is not sent again",
        "{what} was refused: {why}"
    );
}

fn too_old(what: &str, lasts: Duration, why: &str) {
    tracing::warn!("{what} could not be sent for {} s: {why}", lasts.as_secs());
}

fn sent_again(what: &str, why: &str) {
    tracing::warn!(
        hint = "nothing waits for it, and it is sent again",
        "{what} could not be sent: {why}"
    );
}

async fn deliver_pings(client: &Poster, mut pings: mpsc::Receiver<&'static str>) {
    while let Some(end) = pings.recv().await {
        repeat("the ping", PING_LASTS, || client.ping(end)).await;
    }
}

/// Repeats a request until it is taken or refused, for so long.
async fn repeat<F>(what: &str, lasts: Duration, send: impl Fn() -> F)
where
    F: Future<Output = Posted>,
{
    let begun = Instant::now();
    let mut pauses = Pauses::new(PAUSE, LONGEST_PAUSE);
    let mut is_told = false;
    loop {
        let why = match send().await {
            Posted::Taken => return,
            Posted::Refused(why) => return refused(what, &why),
            Posted::Failed(why) => why,
        };
        if begun.elapsed() >= lasts {
            return too_old(what, lasts, &why);
        }
        if !std::mem::replace(&mut is_told, true) {
            sent_again(what, &why);
        }
        tokio::time::sleep(pauses.take()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_is_repeated_until_it_is_taken_refused_or_too_old() {
        let failed = || Posted::Failed("away".to_owned());
        for (answers, lasts, tries) in [
            (vec![failed(), failed(), Posted::Taken], MESSAGE_LASTS, 3),
            (vec![Posted::Refused("404".to_owned())], MESSAGE_LASTS, 1),
            // After 0, 2, 6 and 14 seconds.
            (vec![failed(); 9], Duration::from_secs(10), 4),
        ] {
            let left = Mutex::new(answers.into_iter());
            let made = Mutex::new(0);
            let send = || {
                *made.lock().unwrap() += 1;
                std::future::ready(left.lock().unwrap().next().expect("no more is asked"))
            };
            repeat("it", lasts, send).await;
            assert_eq!(*made.lock().unwrap(), tries);
        }
    }
}
