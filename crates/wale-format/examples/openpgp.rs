//! OpenPGP over a file of your own. Its speed, beside what its cipher and its hash alone take:
//! `cargo run --release -p wale-format --example openpgp -- SECRET-KEYS FILE`. With `open` before them, FILE is a message, and its
//! content goes to standard output; a passphrase comes in `PASSPHRASE`.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "an example prints"
)]

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Duration;

use aes::Aes256;
use cfb_mode::cipher::inout::InOutBuf;
use cfb_mode::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use cfb_mode::{Decryptor, Encryptor};
use sha1::{Digest as _, Sha1};
use wale_format::crypt::openpgp::{self, SecretKeys};

/// Pieces as the pipeline makes them.
const PIECE_BYTES: usize = 1 << 20;
/// What fits into a processor's nearest cache.
const STEP_BYTES: usize = 8 << 10;
const ROUNDS: usize = 7;

/// Processor time of this thread (Linux: Documentation/scheduler/sched-stats, first field, nanoseconds).
fn processor_time() -> Duration {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    let field = text.split(' ').next().unwrap_or_default();
    Duration::from_nanos(field.parse().expect("a number of nanoseconds"))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a speed is shown with two digits"
)]
fn speed(what: &str, bytes: usize, mut work: impl FnMut()) {
    let time = (0..ROUNDS)
        .map(|_| {
            let start = processor_time();
            work();
            processor_time().saturating_sub(start)
        })
        .min()
        .unwrap_or_default();
    let speed = bytes as f64 / time.as_secs_f64() / 1e6;
    println!("{what:<36} {speed:>8.0} MB/s");
}

fn speeds(keys: &SecretKeys, plain: &[u8]) {
    let key = [7; 32];
    let start = [0; 16];
    speed("AES-256-CFB and SHA-1 alone, write", plain.len(), || {
        let mut cipher = Encryptor::<Aes256>::new(&key.into(), &start.into());
        let (mut hash, mut step) = (Sha1::new(), [0; STEP_BYTES]);
        for bytes in plain.chunks_exact(STEP_BYTES) {
            step.copy_from_slice(bytes);
            hash.update(step);
            cipher.encrypt_blocks_inout_mut(InOutBuf::from(&mut step[..]).into_chunks().0);
        }
        black_box(hash.finalize());
    });
    let mut message = Vec::new();
    let recipients = keys.recipients(chrono::Utc::now()).expect("usable");
    speed("writer", plain.len(), || {
        let mut sink = std::mem::take(&mut message);
        sink.clear();
        let mut writer = openpgp::writer(&recipients, sink).expect("a vector");
        for piece in plain.chunks(PIECE_BYTES) {
            writer.write_all(piece).expect("a vector");
        }
        message = writer.finish().expect("a vector");
    });
    speed("AES-256-CFB and SHA-1 alone, read", plain.len(), || {
        let mut cipher = Decryptor::<Aes256>::new(&key.into(), &start.into());
        let (mut hash, mut step) = (Sha1::new(), [0; STEP_BYTES]);
        for bytes in plain.chunks_exact(STEP_BYTES) {
            step.copy_from_slice(bytes);
            cipher.decrypt_blocks_inout_mut(InOutBuf::from(&mut step[..]).into_chunks().0);
            hash.update(step);
        }
        black_box(hash.finalize());
    });
    // A reader owns its source; the one copy ends with the program.
    let message: &'static [u8] = message.leak();
    let mut piece = vec![0; PIECE_BYTES];
    speed("reader", plain.len(), || {
        let mut reader = openpgp::reader(keys, message).expect("ours");
        while reader.read(&mut piece).expect("whole") > 0 {}
    });
    let short = openpgp::writer(&recipients, Vec::new()).and_then(openpgp::PgpWriter::finish);
    let short: &'static [u8] = short.expect("a vector").leak();
    for (what, is_read) in [
        ("an empty message, written", false),
        ("an empty message, read", true),
    ] {
        let start = processor_time();
        for _ in 0..20 {
            if is_read {
                let mut reader = openpgp::reader(keys, short).expect("ours");
                reader.read_to_end(&mut Vec::new()).expect("whole");
            } else {
                let writer = openpgp::writer(&recipients, io::sink());
                writer.and_then(openpgp::PgpWriter::finish).expect("a sink");
            }
        }
        let time = processor_time().saturating_sub(start) / 20;
        println!("{what:<36} {time:>10.2?}");
    }
}

fn main() -> io::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let opens = arguments.first().is_some_and(|first| first == "open");
    if opens {
        arguments.remove(0);
    }
    let [keys, file] = arguments.as_slice() else {
        return Err(io::Error::other("name a file of secret keys, and a file"));
    };
    let passphrase = std::env::var("PASSPHRASE").ok();
    let keys = std::fs::read(keys)?;
    let keys = SecretKeys::from_keys(&keys, passphrase.as_deref()).map_err(io::Error::other)?;
    if opens {
        io::copy(
            &mut openpgp::reader(&keys, File::open(file)?)?,
            &mut io::stdout(),
        )?;
        return Ok(());
    }
    let plain = std::fs::read(file)?;
    println!("{} bytes, processor time, best of {ROUNDS}", plain.len());
    speeds(&keys, &plain);
    Ok(())
}
