//! The page in a real Chromium, before a real sidecar, over an archive with two timelines, a gap, three base backups and an
//! object with a hostile name. Some moments are on both timelines.

use std::time::Duration;

use serde_json::Value;
use wale_testkit::{Sidecar, SidecarOptions, shell, wait_until, wale_command};

use crate::browser::{Browser, DOWN, HOME, LEFT, TAB};
use crate::support::{Stage, WALE, archive_all, archiving};

const LONG: Duration = Duration::from_secs(120);

/// An object of another tool's, in the place of a segment, by somebody who means harm.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";

/// The moments of the test, as PostgreSQL tells them.
struct Moments {
    /// Between the first backup and the gap.
    early: String,
    /// In the gap.
    lost: String,
    /// After the second backup, before the fork.
    common: String,
    /// After the fork, on the timeline that was left.
    left: String,
    /// On the timeline of now, while the other one went on.
    present: String,
}

/// A moment that is seconds away from everything else.
fn moment(cluster: &wale_testkit::Cluster) -> String {
    cluster.sql("insert into t values (1)");
    cluster.sql("select pg_sleep(2)");
    let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')";
    let now = cluster.sql(now);
    cluster.sql("select pg_sleep(2)");
    cluster.sql("insert into t values (2)");
    now
}

/// Timeline 1 with a gap between two backups; timeline 2 from a moment before its end, with a third backup. The sidecar of now.
fn history(stage: &Stage) -> (Sidecar, SidecarOptions, Moments) {
    let first = &stage.cluster;
    first.sql("create table t (v int)");
    stage.backup();
    let early = moment(first);
    stage.archive_all();
    first.sql("insert into t values (0)");
    let gap = stage.archive_all();
    let lost = moment(first);
    stage.archive_all();
    stage.backup();
    let common = moment(first);
    stage.archive_all();
    let back = moment(first);
    stage.archive_all();
    let left = moment(first);
    stage.archive_all();
    let addition =
        format!("recovery_target_time = '{back}+00'\nrecovery_target_action = 'promote'");
    let (second, options) = stage.restore_options("second", &addition);
    let restoring = Sidecar::start(&stage.sandbox, WALE, &options);
    restoring.wait_ready(LONG);
    second.configure(&archiving(options.port));
    second.start();
    second.wait_promoted();
    let present = moment(&second);
    archive_all(&second);
    // The first one goes on meanwhile: both timelines have the moments of now.
    first.sql("insert into t values (3)");
    stage.archive_all();
    first.kill();
    let taken = restoring.get("/backup-push");
    assert_eq!(taken.status, 200, "{}", taken.text());
    drop(restoring);
    let wal = stage.archive().join("wal_005");
    std::fs::rename(
        wal.join(format!("{gap}.zst")),
        wal.join(format!("{gap}.{HOSTILE}")),
    )
    .expect("renamed");
    let options = options.unset("START_MODE").unset("RECOVERY_ADDITION");
    let sidecar = Sidecar::start(&stage.sandbox, WALE, &options);
    wait_until("the sidecar to have looked", LONG, || {
        let status = sidecar.get("/status").json();
        let has_looked = status["holdings"]["backups"] == 3 && !status["wal"]["sealed"].is_null();
        has_looked.then_some(())
    });
    let moments = Moments {
        early,
        lost,
        common,
        left,
        present,
    };
    second.stop("fast");
    (sidecar, options, moments)
}

/// The arguments of a command, as a shell reads them.
fn arguments(command: &str) -> Vec<String> {
    let read = shell(&format!(
        "set -- {command}; for word; do printf '%s\\n' \"$word\"; done"
    ));
    read.lines().map(str::to_owned).collect()
}

/// Runs the command that the page shows, which must be one that plans; what it plans.
fn planned(stage: &Stage, command: &str) -> Value {
    let words = arguments(command);
    assert_eq!(words[..3], ["wale", "restore", "--dry-run"], "{command}");
    let mut options: SidecarOptions = stage.options.clone();
    for name in ["PGDATA", "PGWAL", "PGPORT", "PGHOST", "WALE_LISTEN_PORT"] {
        options = options.unset(name);
    }
    let output = wale_command(WALE, "wale", &options)
        .args(&words[1..])
        .arg("--json")
        .output()
        .expect("wale starts");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Types a moment where a person would.
fn choose(browser: &Browser, moment: &str) -> String {
    browser.script(
        "document.getElementById('moment').focus(); document.getElementById('moment').select()",
    );
    browser.press(moment);
    let said = format!("return document.getElementById('verdict').innerText.includes('{moment}')");
    browser.wait("the page to judge the moment", &said);
    browser.text("return document.getElementById('verdict').innerText")
}

fn command(browser: &Browser, id: &str) -> String {
    browser.text(&format!("return document.getElementById('{id}').innerText"))
}

#[test]
fn a_person_finds_the_command_for_every_moment_in_a_real_browser() {
    let Some(browser) = Browser::start("page") else {
        return;
    };
    let stage = Stage::new("page", 18);
    let (sidecar, options, moments) = history(&stage);
    let _ = browser.asked_for();
    let origin = format!("http://127.0.0.1:{}", sidecar.port);
    browser.look(1100, 900, "light");
    browser.open(&format!("{origin}/"));
    let told = "return document.querySelectorAll('#backups tbody tr').length === 3";
    browser.wait("the page to show three backups", told);
    let seen = stage.sandbox.folder("seen").to_string_lossy().into_owned();
    browser.script("document.getElementById('directory').focus(); document.getElementById('directory').select()");
    browser.press(&seen);

    the_picture_and_its_tables(&browser, &sidecar);
    the_commands(&browser, &stage, &moments);
    two_timelines(&browser, &stage, &moments);
    another_server_and_an_outage(&browser, &stage, &moments);
    by_keyboard_alone(&browser);
    every_look(&browser, &stage);
    nobody_else_was_asked(&browser, &origin);
    the_sidecar_goes_away(&browser, sidecar);
    behind_the_token(&browser, &stage, &options.set("WALE_HTTP_TOKEN", "s3cret"));
}

/// Picture and table say what `/status` says, and a hostile name is text.
fn the_picture_and_its_tables(browser: &Browser, sidecar: &Sidecar) {
    let holdings = sidecar.get("/status").json()["holdings"].clone();
    let count = |selector: &str| {
        let found = format!("return document.querySelectorAll('{selector}').length");
        browser.script(&found).as_u64().expect("a number")
    };
    let windows = holdings["windows"].as_array().expect("windows").len();
    let left = holdings["left"].as_array().expect("windows").len();
    assert_eq!((windows, left), (2, 1), "{holdings}");
    assert_eq!(count("#windows tbody tr"), 3);
    assert_eq!(count("#picture svg[role=img] path.backup"), 3);
    assert_eq!(count("#picture svg .gapbox"), 1);
    assert_eq!(count("#picture svg .fork"), 1);
    assert_eq!(count("#picture svg text.lane"), 2);
    assert!(count("#picture svg rect.can") >= 3, "{holdings}");
    assert_eq!(count("#picture svg rect.left"), 1);
    let table = browser.text("return document.getElementById('windows').innerText");
    for window in holdings["windows"].as_array().expect("windows") {
        let backup = window["backup"].as_str().expect("a name");
        assert!(table.contains(backup), "{table}");
    }
    assert!(table.contains("--timeline 1"), "{table}");
    let health = browser.text("return document.getElementById('health').innerText");
    assert!(health.contains(HOSTILE), "it is shown as it is: {health}");
    assert_eq!(count("img"), 0);
    assert!(browser.text("return document.title").starts_with("wale: "));
    let backups = browser.text("return document.getElementById('backups').innerText");
    assert_eq!(backups.matches("the present").count(), 2, "{backups}");
}

/// The command of each moment is accepted by `wale restore`, and plans what the page says.
fn the_commands(browser: &Browser, stage: &Stage, moments: &Moments) {
    let cases = [
        (&moments.early, None),
        (&moments.common, None),
        (&moments.left, Some("1")),
        (&moments.present, None),
    ];
    for (moment, timeline) in cases {
        let verdict = choose(browser, moment);
        assert!(verdict.contains("can be restored"), "{moment}: {verdict}");
        let plan = command(browser, "plan");
        assert!(plan.contains(&format!("--to-time '{moment}+00'")), "{plan}");
        assert_eq!(plan.contains("--timeline"), timeline.is_some(), "{plan}");
        let told = planned(stage, &plan);
        let backup = told["plan"]["backup"].as_str().expect("a name");
        assert!(verdict.contains(backup), "{verdict}\n{told}");
        assert_ne!(told["plan"]["target"]["reached"], "no", "{told}");
        let followed = timeline.map_or(2, |number| number.parse().expect("a number"));
        assert_eq!(told["plan"]["timelines"]["followed"], followed, "{told}");
        let compose = command(browser, "compose");
        assert!(
            compose.contains(&format!("WALE_RESTORE_TO_TIME: \"{moment}+00\"")),
            "{compose}"
        );
        let named = compose.contains("WALE_RESTORE_TIMELINE: \"1\"");
        assert_eq!(named, timeline.is_some(), "{compose}");
        let docker = command(browser, "docker");
        assert!(
            docker.starts_with("docker exec wale wale restore --to-time "),
            "{docker}"
        );
    }
    let verdict = choose(browser, &moments.lost);
    assert!(verdict.contains("cannot be restored"), "{verdict}");
    assert!(verdict.contains("gap"), "{verdict}");
    assert!(
        verdict.contains("Nearest before") && verdict.contains("Nearest after"),
        "{verdict}"
    );
    let plan = "return document.getElementById('plan') === null";
    assert_eq!(
        browser.script(plan),
        true,
        "no command for what cannot be had"
    );
    browser.script("document.getElementById('nearest-before').click()");
    assert!(!planned(stage, &command(browser, "plan"))["plan"].is_null());
    // A time with a zone is the same moment; what is none is refused.
    let verdict = choose(browser, &moments.common);
    browser.press("+00");
    assert_eq!(
        browser.text("return document.getElementById('verdict').innerText"),
        verdict
    );
    browser.press("x");
    let invalid =
        "return document.getElementById('moment').getAttribute('aria-invalid') === 'true'";
    browser.wait("the page to refuse what is no moment", invalid);
}

/// A moment of two timelines: the one that a restore follows by itself first, and the other one by keyboard and by pointing.
fn two_timelines(browser: &Browser, stage: &Stage, moments: &Moments) {
    let chosen = || browser.text("return document.getElementById('branch').value");
    let followed =
        || planned(stage, &command(browser, "plan"))["plan"]["timelines"]["followed"].clone();
    choose(browser, &moments.early);
    let hidden = "return document.getElementById('branch-label').hidden";
    assert_eq!(browser.script(hidden), true, "there is one timeline only");
    let verdict = choose(browser, &moments.present);
    assert!(
        verdict.contains("The commands lead to timeline 2; for timeline 1"),
        "{verdict}"
    );
    assert_eq!((chosen(), followed()), ("2".to_owned(), 2.into()));
    for _ in 0..4 {
        browser.press(TAB);
    }
    let focused = browser.text("return document.activeElement.id");
    assert_eq!(focused, "branch");
    browser.press(DOWN);
    assert_eq!((chosen(), followed()), ("1".to_owned(), 1.into()));
    let compose = command(browser, "compose");
    assert!(
        compose.contains("WALE_RESTORE_TIMELINE: \"1\""),
        "{compose}"
    );
    // At the same time on both lanes.
    for (bar, timeline) in [("can", 2), ("left", 1), ("can", 2)] {
        choose(browser, &moments.present);
        browser.script(&format!(
            "const bars = document.querySelectorAll('#picture rect.{bar}'), bar = bars[bars.length - 1].getBoundingClientRect();
             document.querySelector('#picture svg').dispatchEvent(new MouseEvent('click', {{bubbles: true,
                 clientX: document.getElementById('cursor').getBoundingClientRect().x + 1, clientY: bar.y + bar.height / 2}}))"
        ));
        assert_eq!(
            (chosen(), followed()),
            (timeline.to_string(), timeline.into())
        );
        let named = command(browser, "plan").contains("--timeline");
        assert_eq!(named, timeline == 1, "{bar}");
    }
}

/// The page as if `/status` said something else.
fn as_if(browser: &Browser, change: &str) {
    browser.script(&format!(
        "window.kept = window.kept || window.fetch; window.answered = 0;
         window.fetch = async (url, how) => {{
             const reply = await window.kept(url, how);
             if (!String(url).endsWith('/status')) return reply;
             const s = await reply.json();
             {change};
             window.answered += 1;
             return new Response(JSON.stringify(s));
         }};
         document.getElementById('again').click()"
    ));
    let answered = "return window.answered > 0 && !document.getElementById('again').disabled";
    browser.wait("the page to have asked again", answered);
}

/// Where the newest timeline is another server's nothing is left to the default; where WAL waits the end is not certain.
fn another_server_and_an_outage(browser: &Browser, stage: &Stage, moments: &Moments) {
    let end = || {
        browser.script("document.activeElement.blur(); document.getElementById('end').click()");
        browser.text("return document.getElementById('verdict').innerText")
    };
    let another = "s.newest_timeline_is_anothers = 'another server went on'";
    as_if(
        browser,
        &format!("{another}; s.server = {{...s.server, timeline: 1}}"),
    );
    let verdict = choose(browser, &moments.present);
    assert!(
        verdict.contains("the commands name backup and timeline"),
        "{verdict}"
    );
    let plan = command(browser, "plan");
    assert!(
        plan.contains(" --backup base_") && plan.contains(" --timeline 1 "),
        "{plan}"
    );
    assert_eq!(
        planned(stage, &plan)["plan"]["timelines"]["followed"],
        1,
        "{plan}"
    );
    let compose = command(browser, "compose");
    assert!(compose.contains("WALE_RESTORE_LABEL: \"base_"), "{compose}");
    assert!(
        compose.contains("WALE_RESTORE_TIMELINE: \"1\""),
        "{compose}"
    );
    end();
    let plan = command(browser, "plan");
    assert!(plan.contains("--latest --backup base_"), "{plan}");
    assert_eq!(
        planned(stage, &plan)["plan"]["timelines"]["followed"],
        1,
        "{plan}"
    );
    as_if(
        browser,
        &format!("{another}; s.server = {{...s.server, timeline: 9}}"),
    );
    let verdict = end();
    assert!(verdict.contains("No command is shown"), "{verdict}");
    assert_eq!(
        browser.script("return document.getElementById('plan') === null"),
        true
    );

    as_if(browser, "s.wal.ready_files = 40");
    let verdict = end();
    assert!(
        verdict.contains("the last moments may not be reached"),
        "{verdict}"
    );
    let grade = "return document.getElementById('verdict').className";
    assert_eq!(browser.text(grade), "look");
    // What lies before the newest base backup was stored before it ended.
    let verdict = choose(browser, &moments.common);
    assert!(!verdict.contains("may not be reached"), "{verdict}");
    a_beginning_within_a_second(browser, moments);
    as_if(browser, "window.fetch = window.kept");
}

fn a_beginning_within_a_second(browser: &Browser, moments: &Moments) {
    // A target has whole seconds: what began within one does not have its beginning.
    let began = moments.present.replace(' ', "T");
    as_if(
        browser,
        &format!(
            "for (const one of [...s.holdings.windows, ...s.holdings.left]) for (const leg of one.legs) leg.from = '{began}.7Z'"
        ),
    );
    let verdict = choose(browser, &moments.present);
    assert!(verdict.contains("cannot be restored"), "{verdict}");
}

/// From the top by Tab to the slider, and along it.
fn by_keyboard_alone(browser: &Browser) {
    browser.script("document.activeElement.blur(); window.getSelection().removeAllRanges(); document.getElementById('end').click()");
    browser.script("document.getElementById('again').focus()");
    let focused = || browser.text("return document.activeElement.id");
    for expected in ["span", "local", "slide"] {
        browser.press(TAB);
        assert_eq!(focused(), expected);
    }
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.text(outline), "solid", "the focus is seen");
    let moment = || browser.text("return document.getElementById('moment').value");
    let before = moment();
    browser.press(LEFT);
    assert!(moment() < before, "{} {before}", moment());
    browser.press(HOME);
    let said =
        browser.text("return document.getElementById('slide').getAttribute('aria-valuetext')");
    assert!(said.contains("cannot be restored"), "{said}");
    for expected in ["moment", "earlier", "later", "end"] {
        browser.press(TAB);
        assert_eq!(focused(), expected);
    }
    browser.press("\u{E007}");
    assert!(command(browser, "plan").contains("--latest"));
    // Everything that can be focused has a name for a screen reader.
    let nameless = "return [...document.querySelectorAll('button, input, select')].filter((one) => \
        !(one.getAttribute('aria-label') || (one.labels && one.labels.length) || one.textContent.trim())).map((one) => one.id)";
    assert_eq!(browser.script(nameless), serde_json::json!([]));
}

/// Wide and narrow, light and dark. The pictures stay with the test's folder (`WALE_TEST_KEEP=1`), to be looked at.
fn every_look(browser: &Browser, stage: &Stage) {
    let mut grounds = Vec::new();
    for (width, scheme) in [
        (1100, "light"),
        (1100, "dark"),
        (360, "light"),
        (360, "dark"),
    ] {
        browser.look(width, 800, scheme);
        let fits = format!(
            "return innerWidth === {width} && document.querySelector('#picture svg').viewBox.baseVal.width <= {width}"
        );
        browser.wait("the picture to fit", &fits);
        let wide = "return document.documentElement.scrollWidth";
        assert_eq!(
            browser.script(wide),
            width,
            "nothing is wider than the screen"
        );
        grounds.push(browser.text("return getComputedStyle(document.body).backgroundColor"));
        let name = format!("page-{width}-{scheme}.png");
        browser.picture(&stage.sandbox.path().join(name));
    }
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!(grounds[..2], grounds[2..]);
}

fn nobody_else_was_asked(browser: &Browser, origin: &str) {
    let asked = browser.asked_for();
    assert!(
        asked.iter().any(|url| *url == format!("{origin}/backups")),
        "{asked:?}"
    );
    for url in &asked {
        let path = url.strip_prefix(origin);
        let is_own = matches!(path, Some("/" | "/status" | "/backups"));
        assert!(is_own || url.starts_with("data:"), "{asked:?}");
    }
    let console = browser.console();
    assert!(console.is_empty(), "{console:?}");
}

/// A sidecar that does not answer is told, with what is known of before.
fn the_sidecar_goes_away(browser: &Browser, sidecar: Sidecar) {
    drop(sidecar);
    browser.script("document.getElementById('again').click()");
    browser.wait(
        "the page to say that nobody answers",
        "return document.getElementById('silence').checkVisibility()",
    );
    let said = browser.text("return document.getElementById('silence').innerText");
    assert!(said.contains("No answer since"), "{said}");
    assert!(said.contains("What stands here is of"), "{said}");
}

/// Without the token there is no page; with it, given to the browser as a password, the page's own requests have it, too.
fn behind_the_token(browser: &Browser, stage: &Stage, options: &SidecarOptions) {
    let sidecar = Sidecar::start(&stage.sandbox, WALE, options);
    let shown = "return document.querySelectorAll('#backups tbody tr').length === 3";
    browser.open(&format!("http://127.0.0.1:{}/status", sidecar.port));
    let said = browser.text("return document.body.innerText");
    assert!(!said.contains("base_"), "{said}");
    browser.open(&format!("http://wale:s3cret@127.0.0.1:{}/ui", sidecar.port));
    browser.wait("the page to show three backups", shown);
    assert_eq!(
        browser.script("return document.getElementById('silence').hidden"),
        true
    );
}
