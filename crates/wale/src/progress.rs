//! What a person sees of a long verb: a bar on a terminal, otherwise a line of the log every ten seconds.

use std::fmt::Write;
use std::future::Future;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wale_pipeline::{Progress, ProgressSnapshot};

const BAR_PERIOD: Duration = Duration::from_millis(200);
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// Runs the work and shows its progress until it ends.
pub(crate) async fn watch<T>(
    bar: &ProgressBar,
    progress: &Progress,
    work: impl Future<Output = T>,
) -> T {
    let on_terminal = std::io::stderr().is_terminal();
    if on_terminal {
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    }
    let period = if on_terminal { BAR_PERIOD } else { LINE_PERIOD };
    let mut work = pin!(work);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    let mut earlier = progress.snapshot();
    let mut styled = false;
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = ticks.tick() => {
                let now = progress.snapshot();
                if on_terminal {
                    draw(bar, &now, &mut styled);
                } else {
                    tracing::info!("{}", line(&now, &earlier));
                }
                earlier = now;
            }
        }
    };
    bar.finish_and_clear();
    bar.set_draw_target(ProgressDrawTarget::hidden());
    result
}

fn draw(bar: &ProgressBar, now: &ProgressSnapshot, styled: &mut bool) {
    if let Some(total) = now.total_bytes {
        if !*styled {
            let template = "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(template)
                .expect("the template is constant and sound")
                .progress_chars("=> ");
            bar.set_style(style);
            *styled = true;
        }
        bar.set_length(total.max(now.done_bytes));
    }
    bar.set_message(now.phase);
    bar.set_position(now.done_bytes);
}

/// One line: phase, share, amounts, rate since the line before, time that is left at that rate.
fn line(now: &ProgressSnapshot, earlier: &ProgressSnapshot) -> String {
    let rate = now.bytes_per_second(earlier);
    let done = bytes(now.done_bytes);
    let phase = now.phase;
    let files = now.files;
    let Some(total) = now.total_bytes else {
        return format!("{phase}: {done} done, {files} files");
    };
    let percent = now.fraction().unwrap_or(0.0).clamp(0.0, 1.0) * 100.0;
    let left = total.saturating_sub(now.done_bytes);
    let mut text = format!(
        "{phase}: {percent:.0} %, {done} of {}, {files} files",
        bytes(total)
    );
    if rate >= 1.0 {
        #[expect(clippy::cast_precision_loss, reason = "an estimate for a person")]
        let seconds = (left as f64 / rate).min(1e7);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded"
        )]
        let (rate, seconds) = (rate as u64, seconds as u64);
        let _ = write!(
            text,
            ", {}/s, {} left",
            bytes(rate),
            duration(Duration::from_secs(seconds))
        );
    }
    text
}

/// A number of bytes for a person: `512 B`, `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A length of time for a person: `1.2s`, `12s`, `3min 5s`, `2h 7min`.
pub(crate) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) if s < 10 => format!("{:.1}s", length.as_secs_f64()),
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}min {s}s"),
        (h, m, _) => format!("{h}h {m}min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_for_people() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 40, "3.0 TiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in [
            (0, "0.0s"),
            (59, "59s"),
            (185, "3min 5s"),
            (7620, "2h 7min"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn lines_tell_what_is_known() {
        let at = |elapsed, done_bytes, total_bytes| ProgressSnapshot {
            total_bytes,
            done_bytes,
            files: 7,
            total_files: None,
            phase: "copy",
            elapsed: Duration::from_secs(elapsed),
        };
        let start = at(0, 0, None);
        assert_eq!(
            line(&at(10, 1 << 20, None), &start),
            "copy: 1.0 MiB done, 7 files"
        );
        let half = at(10, 10 << 20, Some(20 << 20));
        let expected = "copy: 50 %, 10.0 MiB of 20.0 MiB, 7 files, 1.0 MiB/s, 10s left";
        assert_eq!(line(&half, &start), expected);
        assert!(line(&at(20, 10 << 20, Some(0)), &half).starts_with("copy: 100 %"));
    }
}
