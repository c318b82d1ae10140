//! Sessions in which something fails: a system call, memory, cleanup, an alarm that nobody has set.
//!
//! What must hold of each, whatever happens, is in [`judge`]: it ends, it is answered once or not at all, `K` only where
//! the whole message is in the queue, never `D`, no panic, and the log says why. [`matrix`] has strace(1) let every system
//! call fail in turn, and prints a table; [`tracer`] does what strace cannot, for reads and writes of one byte and for
//! close(2).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

#[path = "faults/judge.rs"]
mod judge;
#[path = "faults/matrix.rs"]
mod matrix;
#[path = "faults/queue.rs"]
mod queue;
#[path = "faults/session.rs"]
mod session;
#[path = "faults/signals.rs"]
mod signals;
#[path = "faults/table.rs"]
mod table;
#[path = "faults/tracer.rs"]
mod tracer;

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use harness::cleanup::Say;
use harness::dialogue::at_once;
use harness::instance::mail_owner;
use harness::requests::Numbers;
use harness::trace::Call;
use judge::{Fault, Phase};
use session::{
    BLOCKED, METHODS, Meddling, Method, SMALL, Seen, Setting, Sink, can_replace_files, lines, run,
};
use tracer::Change;

/// How many sessions of each method are sent alarms, and where the generator starts (`QMQPD_SEED`).
const ALARMED: usize = 60;
const SEED: u64 = 20_261_122;

fn cannot_run(test: &str) -> bool {
    let reason = if mail_owner().is_none() {
        "not root, or no user postfix"
    } else if !Path::new("/usr/bin/strace").exists() {
        "strace is not installed"
    } else {
        return false;
    };
    harness::skip(test, reason);
    true
}

/// Writes past the capture of the test runner: what came of it is worth seeing where it is good, too.
fn tell(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// As [`judge::outcome`], of a fault that is in no one call.
fn outcome(setting: &Setting, clean: &Seen, seen: &Seen, words: &[&str]) -> Result<char, String> {
    let fault = Fault {
        errno: None,
        words,
        call: None,
        // An alarm before there is a handler, and so before there is a log, is the end.
        phase: if seen.log.is_empty() {
            Phase::Start
        } else {
            Phase::Serve
        },
    };
    judge::outcome(setting, clean, seen, &fault)
}

#[test]
fn every_system_call_may_fail_in_every_way() {
    if cannot_run("every_system_call_may_fail_in_every_way") {
        return;
    }
    let (table, failures) = matrix::whole();
    tell(&format!("\n{table}\n"));
    let count = failures.len();
    assert!(failures.is_empty(), "{count}:\n{}", failures.join("\n"));
    if matrix::restriction().is_none() {
        table.assert_complete();
    }
}

#[test]
fn a_signal_that_ends_the_process_leaves_mail_or_nothing() {
    if cannot_run("a_signal_that_ends_the_process_leaves_mail_or_nothing") {
        return;
    }
    let (said, unsaid, nothing) = signals::at_every_call();
    tell(&format!(
        "A signal at each call: {said} K, {unsaid} mail without K, {nothing} nothing\n"
    ));
    assert!(
        said > 10 && unsaid > 5 && nothing > 100,
        "{said} {unsaid} {nothing}"
    );
}

#[test]
fn one_byte_at_a_time_is_as_good_as_all_at_once() {
    let test = "one_byte_at_a_time_is_as_good_as_all_at_once";
    if cannot_run(test) {
        return;
    }
    if !tracer::POSSIBLE {
        return harness::skip(test, "the registers of this machine are not known");
    }
    for method in METHODS {
        let mut setting = Setting::new(method, Meddling::Nothing);
        setting.content.truncate(SMALL);
        let clean = run(&setting);
        setting.meddling = Meddling::Traced(Change::OneByte);
        let seen = run(&setting);
        assert_eq!(outcome(&setting, &clean, &seen, &[]), Ok('K'));
        assert_eq!(seen.log, clean.log);
    }
    tell("Every read and every write moves one byte: K for each method\n");
}

#[test]
fn an_alarm_may_come_at_any_moment() {
    if cannot_run("an_alarm_may_come_at_any_moment") {
        return;
    }
    let seed = std::env::var("QMQPD_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    for method in METHODS {
        let mut setting = Setting::new(method, Meddling::Nothing);
        // The programs that would replace files for it die of alarms themselves.
        setting.asks = false;
        let clean = run(&setting);
        let mut numbers = Numbers::new(seed);
        // As long as the session, on the whole.
        let range = usize::try_from(clean.elapsed.as_micros()).unwrap();
        let mut moments = || -> Vec<Duration> {
            let count = 1 + numbers.below(4);
            let pause = |_| u64::try_from(numbers.below(range) / count).unwrap();
            (0..count).map(pause).map(Duration::from_micros).collect()
        };
        let sessions: Vec<Vec<Duration>> = (0..ALARMED).map(|_| moments()).collect();
        let outcomes = Mutex::new(Vec::new());
        at_once(ALARMED, |index| {
            let setting = Setting {
                meddling: Meddling::Alarms(sessions[index].clone()),
                ..setting.clone()
            };
            let outcome = outcome(&setting, &clean, &run(&setting), &["close error"]);
            outcomes.lock().unwrap().push(outcome);
        });
        let outcomes = outcomes.into_inner().unwrap();
        let letters: Result<String, String> = outcomes.into_iter().collect();
        let letters = letters.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        tell(&format!("Alarms at any moment, {method:?}: {letters}\n"));
        assert!(letters.contains('K'), "{letters}");
    }
}

/// How long a log that takes no lines may keep a session, in all; and a whole session, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
const SESSION: Duration = Duration::from_secs(4);

#[test]
fn a_log_that_takes_no_lines_costs_five_seconds_and_no_mail() {
    let test = "a_log_that_takes_no_lines_costs_five_seconds_and_no_mail";
    if cannot_run(test) {
        return;
    }
    let sinks: Vec<Sink> = BLOCKED
        .into_iter()
        .filter(|&sink| sink != Sink::FullSyslog || can_replace_files())
        .collect();
    if sinks.len() < BLOCKED.len() {
        harness::skip(&format!("{test}, syslog"), "no mount namespaces");
    }
    let cases: Vec<(Method, Sink)> = METHODS
        .into_iter()
        .flat_map(|method| sinks.iter().map(move |&sink| (method, sink)))
        .collect();
    let told = Mutex::new(String::new());
    at_once(cases.len(), |index| {
        let (method, sink) = cases[index];
        let mut setting = Setting::new(method, Meddling::Nothing);
        setting.asks = false;
        setting.sink = sink;
        let seen = run(&setting);
        let reply = String::from_utf8_lossy(&seen.reply).into_owned();
        assert!(
            reply.contains(":KOk: queued as ") && seen.queued && seen.exit == "0",
            "{method:?} {sink:?} {seen:?}"
        );
        let took = seen.elapsed;
        assert!(
            (PATIENCE..PATIENCE + SESSION).contains(&took),
            "{method:?} {sink:?} {took:?}"
        );
        let seconds = took.as_secs_f64();
        *told.lock().unwrap() += &format!("{method:?} {sink:?}: K after {seconds:.1} s\n");
    });
    tell(&told.into_inner().unwrap());
}

#[test]
fn cleanup_may_close_after_any_record() {
    if cannot_run("cleanup_may_close_after_any_record") {
        return;
    }
    let mut setting = Setting::new(Method::Cleanup, Meddling::Nothing);
    setting.content.truncate(SMALL);
    let clean = run(&setting);
    let words = ["close error", "queue file write error"];
    let mut letters = String::new();
    let mut expect = |setting: &Setting| {
        let seen = run(setting);
        let letter = outcome(setting, &clean, &seen, &words);
        letters.push(letter.unwrap_or_else(|broken| panic!("{:?}: {broken}", setting.cleanup)));
        assert!(!seen.queued);
    };
    for records in 0..clean.records {
        setting.cleanup.closes_after = Some(records);
        expect(&setting);
    }
    setting.cleanup.closes_after = None;
    setting.cleanup.verdict = Say::Close;
    let seen = run(&setting);
    assert_eq!(outcome(&setting, &clean, &seen, &words), Ok('z'));
    assert!(
        clean.records > 20 && letters.chars().all(|letter| letter == 'Z'),
        "{letters}"
    );
    tell(&format!(
        "Cleanup closes after 0, 1, ... records: {letters}, and instead of its verdict: z\n"
    ));
}

/// The places at which memory is asked for from the first bytes of the client to its answer; whether the content was
/// still being read.
fn requests_for_memory(clean: &Seen) -> Vec<(usize, bool)> {
    let read = |call: &Call| call.name == "read" && call.object == "client";
    let begin = clean.calls.iter().position(read).unwrap();
    let end = clean.calls.iter().rposition(read).unwrap();
    let answered = clean.calls.iter().position(|call| call.name == "shutdown");
    let asks = |&index: &usize| ["mmap", "mremap", "brk"].contains(&&*clean.calls[index].name);
    let all = (begin..answered.unwrap()).filter(asks);
    all.map(|index| (index, index < end)).collect()
}

/// What refuses all memory from this call on.
fn no_memory_from(clean: &Seen, index: usize) -> Vec<String> {
    let fault = |(name, fault): (&str, &str)| {
        let before = clean.calls[..index].iter();
        let number = before.filter(|call| call.name == name).count() + 1;
        format!("{name}:{fault}:when={number}+")
    };
    [
        ("mmap", "error=ENOMEM"),
        ("mremap", "error=ENOMEM"),
        ("brk", "retval=0"),
    ]
    .map(fault)
    .to_vec()
}

#[test]
fn memory_may_be_refused_at_any_moment_of_a_message() {
    if cannot_run("memory_may_be_refused_at_any_moment_of_a_message") {
        return;
    }
    // The large one grows what holds the content; the small one, after it, what the records are written from.
    for (method, more) in [
        (Method::Cleanup, 0),
        (Method::Cleanup, 30_000),
        (Method::File, 0),
        (Method::File, 30_000),
    ] {
        let mut setting = Setting::new(method, Meddling::Strace(Vec::new()));
        setting.content.extend(lines(more));
        setting.sandbox = false;
        let clean = run(&setting);
        let mut letters = String::new();
        for (index, reading) in requests_for_memory(&clean) {
            setting.meddling = Meddling::Strace(no_memory_from(&clean, index));
            let seen = run(&setting);
            let letter = outcome(&setting, &clean, &seen, &["insufficient memory"]);
            let line = &clean.calls[index].line;
            let letter = letter.unwrap_or_else(|broken| panic!("{line}: {broken}"));
            if letter == 'Z' {
                assert_eq!(seen.reply, b"27:ZError: insufficient memory,", "{line}");
            }
            assert!(
                letter == 'Z' || letter == 'K' && !(reading && more > 0),
                "{line}"
            );
            letters.push(letter);
        }
        let length = setting.content.len();
        tell(&format!(
            "No memory from some point on, {method:?}, {length} bytes: {letters}\n"
        ));
        assert!(
            letters.len() >= if more > 0 { 4 } else { 1 },
            "{:?}",
            clean.calls
        );
    }
}
