//! Rows of the fault battery that every server of objects meets alike, on its stage. What a server answers in its own way
//! stands in that server's tests.

use std::time::{Duration, Instant};

use wale_testkit::s3::{Action, Answer, Fault, FaultProxy, Kind};
use wale_testkit::{Sidecar, StoreServer, wait_until};

use crate::s3_stage::StoreStage;
use crate::support::WALE;

const LONG: Duration = Duration::from_secs(60);

impl<S: StoreServer> StoreStage<S> {
    /// Starts the sidecar anew: it must not know from memory.
    pub(crate) fn restart(&mut self) {
        self.stage.sidecar.kill();
        self.stage.sidecar = Sidecar::start(&self.stage.sandbox, WALE, &self.stage.options);
        self.stage.sidecar.wait_ready(LONG);
    }

    /// How many puts of this object were answered with success.
    pub(crate) fn created(&self, key: &str) -> usize {
        let requests = self.proxy.requests();
        let is_put = |kind: Kind, name: &str| kind == Kind::Put && name.contains(key);
        let put = requests
            .iter()
            .filter(|seen| is_put(seen.kind, &seen.key) && [200, 201].contains(&seen.status));
        put.count()
    }

    /// Row 22: after each of these, two times, the third put is acknowledged.
    pub(crate) fn assert_failures_pass(&self, answers: impl IntoIterator<Item = Answer>) {
        for answer in answers {
            let segment = self.segment();
            let fault = Fault::on(&[Kind::Put]).key(&segment).times(2);
            self.proxy.fault(fault, Action::Answer(answer.clone()));
            let start = Instant::now();
            assert_eq!(self.push(&segment), 200, "after two times {answer:?}");
            assert!(start.elapsed() < Duration::from_secs(30));
            assert_eq!(self.proxy.count(Kind::Put, &segment), 3, "{answer:?}");
            self.assert_stored(&segment);
        }
    }

    /// Row 25, and a connection that ends in mid-upload.
    pub(crate) fn assert_lost_replies_are_made_good(&self) {
        for action in [
            Action::LoseReply,
            Action::CutUpload(1000),
            Action::CutBefore,
        ] {
            let is_stored = matches!(action, Action::LoseReply);
            let segment = self.segment();
            let fault = Fault::on(&[Kind::Put]).key(&segment).once();
            self.proxy.fault(fault, action);
            assert_eq!(self.push(&segment), 200);
            // Where the object is stored and the answer is lost, what is there is compared, and nothing is written again:
            // the only put that wrote got no answer.
            let written = self.created(&segment);
            assert_eq!(written, usize::from(!is_stored));
            self.assert_stored(&segment);
        }
        // The store was tried, in the background too.
        wait_until("no trial to be left", LONG, || {
            let left = self.server.objects_with("wale_probe");
            left.is_empty().then_some(())
        });
    }

    /// Row 27: what a store refuses as garbled is sent again.
    pub(crate) fn assert_garbled_uploads_are_sent_again(&self) {
        for action in [Action::garble_upload(), Action::shorten_upload()] {
            let segment = self.segment();
            let fault = Fault::on(&[Kind::Put]).key(&segment).times(3);
            self.proxy.fault(fault, action);
            assert_eq!(self.push(&segment), 200);
            assert_eq!(self.created(&segment), 1);
            self.assert_stored(&segment);
            self.proxy.clear();
        }
    }

    /// Row 27 on the way down. Every fetch must read the object: what was fetched ahead would be delivered from memory, and
    /// is whole.
    pub(crate) fn assert_garbled_replies_are_not_delivered(&self, segment: &str) {
        for action in [
            Action::garble_reply(),
            Action::shorten_reply(),
            // With some bytes each time it would be read on to its end.
            Action::CutReply(0),
        ] {
            let fault = Fault::on(&[Kind::Get]).key(segment);
            self.proxy.fault(fault, action);
            self.assert_not_delivered(segment);
            self.proxy.clear();
        }
        // A connection that breaks once is taken up where it broke, by a request for the rest.
        let fault = Fault::on(&[Kind::Get]).key(segment).once();
        self.proxy.fault(fault, Action::CutReply(100));
        self.assert_stored(segment);
    }

    /// Row 28: corrupted where it lies, a bit, the end, and another segment in its place.
    pub(crate) fn assert_damage_is_not_delivered(&self, segment: &str) {
        let object = self.object(segment);
        let good = self.server.content(&object);
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let other = self.segment();
        assert_eq!(self.push(&other), 200);
        let swapped = self.server.content(&self.object(&other));
        for bad in [flipped, good[..good.len() - 1].to_vec(), swapped] {
            self.server.tamper(&object, &bad);
            let told = self.assert_not_delivered(segment);
            assert!(told.contains(segment), "it is named: {told}");
        }
        self.server.tamper(&object, &good);
        self.assert_stored(segment);
    }

    /// A fetch fails as damaged or unavailable, never as absent, and gives no bytes. Returns what it said.
    pub(crate) fn assert_not_delivered(&self, segment: &str) -> String {
        let reply = self.stage.sidecar.get(&format!("/wal/{segment}"));
        assert!([500, 503].contains(&reply.status), "{}", reply.text());
        assert!(reply.body.len() < 4096, "no WAL is sent");
        let absent = self.stage.sidecar.get(&format!("/wal-absent/{segment}"));
        assert_ne!(absent.status, 200, "{}", absent.text());
        reply.text()
    }

    /// Other bytes under the name of an archived segment, pushed by a sidecar that remembers nothing.
    pub(crate) fn assert_conflict_is_refused(&mut self, segment: &str) {
        let object = self.object(segment);
        let before = self.server.content(&object);
        let file = self.stage.cluster.wal.join(segment);
        let good = std::fs::read(&file).unwrap();
        let mut bad = good.clone();
        bad[9000] ^= 1;
        std::fs::write(&file, &bad).unwrap();
        self.restart();
        assert_eq!(self.push(segment), 409);
        std::fs::write(&file, &good).unwrap();
        assert!(self.server.content(&object) == before, "the object stays");
        self.restart();
        assert_eq!(self.push(segment), 200);
        assert!(self.server.content(&object) == before, "the object stays");
    }

    /// Row 34: `keep` has the store refuse to delete one segment, whose name it gets. The deletion tells it in these words,
    /// and all else goes; the segment goes when it may.
    pub(crate) fn assert_what_is_retained_is_told(
        &self,
        keep: impl Fn(&FaultProxy, &str),
        words: &[&str],
    ) {
        self.stage.backup();
        let (kept, gone) = (self.segment(), self.segment());
        self.stage.backup();
        self.stage.cluster.wait_archived();
        keep(&self.proxy, &kept);
        let line = ["delete", "--confirm", "retain", "1"];
        let told = self.stage.sidecar.verb(WALE, "wal-e", &line);
        assert_eq!(told.code(), 1, "{}", told.stderr);
        let mut lines = told.stdout.split("\r\n");
        assert_eq!(lines.next(), Some("key\terror_code\terror_message"));
        let refused: Vec<&str> = lines.filter(|line| line.contains('\t')).collect();
        assert_eq!(refused.len(), 1, "{refused:?}");
        for word in [&[&*kept], words].concat() {
            assert!(refused[0].contains(word), "{word}: {}", refused[0]);
        }
        assert!(told.stderr.contains("1 objects are retained"));
        let asked = self.proxy.count(Kind::Delete, &kept);
        assert!(asked <= 2, "no loop: {asked} requests");
        assert_eq!(self.server.objects_with(&kept).len(), 1);
        assert_eq!(self.server.objects_with(&gone), [""; 0]);
        assert_eq!(self.server.objects_with("sentinel").len(), 1);
        self.proxy.clear();
        let told = self.stage.sidecar.verb(WALE, "wal-e", &line);
        assert_eq!(told.code(), 0, "{}", told.stderr);
        assert_eq!(self.server.objects_with(&kept), [""; 0]);
    }
}

/// Answers the deletion of what has this in its name.
pub(crate) fn refuse_deletion(proxy: &FaultProxy, name: &str, refusal: &Answer) {
    let fault = Fault::on(&[Kind::Delete]).key(name);
    proxy.fault(fault, Action::Answer(refusal.clone()));
}
