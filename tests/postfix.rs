//! The dialogues, and many requests made up by a generator, against Postfix's own qmqpd.
//!
//! `QMQPD_RECORD=1 cargo test --test postfix` writes what Postfix does into the dialogue files. Read them before
//! they are committed: what Postfix does is not always what we want.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::sync::Mutex;
use std::time::SystemTime;

use harness::cleanup::Item;
use harness::outcome::{LOG, Seen, date_of, since_1970};
use harness::peers::Act;
use harness::requests::{Case, Numbers};
use harness::server::{self, Server, Setting};
use harness::{dialogue, reading, versions};

/// Says why nothing is compared on this machine; with `CI=true` that is a failure.
fn postfix_is_missing(test: &str) -> bool {
    let Some(reason) = server::why_no_postfix() else {
        return false;
    };
    harness::skip(test, reason);
    true
}

#[test]
fn postfix_agrees_with_every_dialogue() {
    if postfix_is_missing("postfix_agrees_with_every_dialogue") {
        return;
    }
    let mut dialogues = dialogue::all();
    dialogues.retain(|dialogue| dialogue.unasked.is_none());
    if std::env::var_os("QMQPD_RECORD").is_some() {
        dialogue::record(&mut dialogues);
    } else {
        dialogue::check(Server::Postfix, &dialogues);
    }
}

/// A day below ten is what tells the versions of Postfix apart. It is made with a time zone that is weeks ahead.
#[test]
fn the_day_of_the_month_has_two_digits() {
    if postfix_is_missing("the_day_of_the_month_has_two_digits") {
        return;
    }
    let now = since_1970(SystemTime::now());
    let ahead = (1..)
        .map(|days| days * 86400)
        .find(|ahead| date_of(now + ahead)[5..7] == *"05")
        .unwrap();
    let setting = Setting {
        files: vec![("zone".into(), time_zone(i32::try_from(ahead).unwrap()))],
        env: vec![("TZ".into(), ":DIR/zone".into())],
        client: vec![Act::Send(
            b"48:14:Subject: t\n\nb\n,11:s@x.example,11:r@y.example,,".to_vec(),
        )],
        ..Setting::default()
    };
    for server in [Server::Postfix, Server::Ours] {
        let mut seen = server::run(server, &setting);
        if server == Server::Postfix {
            seen = seen.of_postfix();
        }
        let record = |kind: u8, start: &[u8]| {
            let found = seen.cleanup.iter().find_map(|item| match item {
                Item::Record(other, data) if *other == kind && data.starts_with(start) => {
                    Some(data)
                }
                Item::Record(..) | Item::Flags(_) | Item::Garbage(_) | Item::Eof => None,
            });
            String::from_utf8_lossy(found.expect("a record that every accepted message has"))
                .into_owned()
        };
        let (arrival, received) = (record(b'T', b""), record(b'N', b"\tfor "));
        let arrival: i64 = arrival.split(' ').next().unwrap().parse().unwrap();
        let expected = date_of(arrival + ahead);
        assert!(
            received.contains(&format!("; {expected}")),
            "{server:?}: {received:?}, not {expected:?}"
        );
    }
}

/// A zone file, as tzfile(5) has them, of one time so many seconds ahead of Greenwich.
fn time_zone(ahead: i32) -> Vec<u8> {
    let mut file = b"TZif".to_vec();
    file.resize(20, 0);
    for count in [0, 0, 0, 0, 1, 4] {
        file.extend(i32::to_be_bytes(count));
    }
    file.extend(ahead.to_be_bytes());
    file.extend(b"\0\0FAR\0");
    file
}

/// How many requests are made up.
const CASES: usize = 400;

/// Where the generator starts. Another number is another set of requests: `QMQPD_SEED`.
const SEED: u64 = 20_261_122;

#[test]
fn made_up_requests_go_as_with_postfix_but_for_the_wanted_differences() {
    if postfix_is_missing("made_up_requests_go_as_with_postfix_but_for_the_wanted_differences") {
        return;
    }
    let seed = std::env::var("QMQPD_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut numbers = Numbers::new(seed);
    let cases: Vec<Case> = (0..CASES).map(|_| Case::make(&mut numbers)).collect();
    let failures = Mutex::new(Vec::new());
    dialogue::at_once(CASES, |index| {
        if let Err(report) = compare(&cases[index]) {
            failures
                .lock()
                .unwrap()
                .push(format!("case {index}\n{}{report}", cases[index].text()));
        }
    });
    let failures = failures.into_inner().unwrap();
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{count} of {CASES} requests, seed {seed}:\n\n{}",
        failures.join("\n")
    );
}

/// Runs both servers. What Postfix does is what we have to do, unless the request shows one of the wanted differences;
/// then it is what that difference says.
fn compare(case: &Case) -> Result<(), String> {
    let setting = case.setting();
    let postfix = server::run(Server::Postfix, &setting).of_postfix();
    let mut ours = server::run(Server::Ours, &setting).outcome();
    let mut expected = Seen {
        reply: printable(&postfix.reply),
        ..postfix
    }
    .outcome();
    if let Err(fault) = reading::read(case) {
        let wanted = fault.outcome(case.soft_bounce, &expected);
        if fault.differs.is_none() && !dialogue::agree(&wanted, &expected) {
            return Err(format!(
                "the test reads this as {fault:?}\n{}",
                dialogue::difference(&wanted, &expected)
            ));
        }
        expected = wanted;
    }
    for outcome in [&mut expected, &mut ours] {
        outcome[LOG] = versions::coarsen(std::mem::take(&mut outcome[LOG]));
    }
    if dialogue::agree(&expected, &ours) {
        return Ok(());
    }
    Err(dialogue::difference(&expected, &ours))
}

/// `tests/spec/differences.md`, 6: no control characters in a reply.
fn printable(reply: &[u8]) -> Vec<u8> {
    reply
        .iter()
        .map(|&byte| if byte.is_ascii_control() { b'?' } else { byte })
        .collect()
}

/// How many values of content_filter are made up.
const VALUES: usize = 200;

/// What cleanup is told is what a value of main.cf has become, byte for byte.
#[test]
fn values_reach_cleanup_as_postfix_expands_them() {
    if postfix_is_missing("values_reach_cleanup_as_postfix_expands_them") {
        return;
    }
    let mut numbers = Numbers::new(SEED);
    let values: Vec<String> = (0..VALUES).map(|_| value(&mut numbers, 3)).collect();
    let failures = Mutex::new(Vec::new());
    dialogue::at_once(VALUES, |index| {
        let setting = Setting {
            conf: vec![
                "full = text".into(),
                "none =".into(),
                "num = 10".into(),
                "also = <$full>".into(),
                format!("content_filter = {}", values[index]),
            ],
            client: vec![Act::Send(
                b"48:14:Subject: t\n\nb\n,11:s@x.example,11:r@y.example,,".to_vec(),
            )],
            ..Setting::default()
        };
        let filter = |server| {
            let seen = server::run(server, &setting);
            assert!(
                seen.reply.starts_with(b"25:K"),
                "{server:?}: {}",
                values[index]
            );
            seen.cleanup.into_iter().find_map(|item| match item {
                Item::Record(b'L', data) => Some(data),
                Item::Record(..) | Item::Flags(_) | Item::Garbage(_) | Item::Eof => None,
            })
        };
        let (theirs, ours) = (filter(Server::Postfix), filter(Server::Ours));
        if theirs.is_none() || theirs != ours {
            let report = format!("{}\n  {theirs:?}\n  {ours:?}", values[index]);
            failures.lock().unwrap().push(report);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A value with references in it, `depth` deep.
fn value(numbers: &mut Numbers, depth: u32) -> String {
    const NAMES: [&str; 7] = [
        "full",
        "none",
        "num",
        "also",
        "undefd",
        "process_name",
        "myhostname",
    ];
    const OPERATORS: [&str; 7] = ["==", "!=", "<", "<=", ">", ">=", "== "];
    const PLAIN: [&str; 8] = ["a", "10", "9", "x y", "$$", ":", "b?c", "3.10"];
    let count = 1 + numbers.below(3);
    let mut text = String::from("v");
    for _ in 0..count {
        let name = NAMES[numbers.below(NAMES.len())];
        let form = numbers.below(if depth == 0 { 4 } else { 9 });
        let inner = |numbers: &mut Numbers| value(numbers, depth.saturating_sub(1));
        text += &match form {
            0 => PLAIN[numbers.below(PLAIN.len())].to_owned(),
            1 => format!("${name}"),
            2 => format!("$({name})"),
            3 => format!("${{ {name} }}"),
            4 => format!("${{{name}?{}}}", inner(numbers)),
            5 => format!("${{{name}:{}}}", inner(numbers)),
            6 => format!(
                "${{{name} ? {{{}}} : {{{}}}}}",
                inner(numbers),
                inner(numbers)
            ),
            7 => {
                let operator = OPERATORS[numbers.below(OPERATORS.len())];
                format!(
                    "${{{{${name}}}{operator}{{10}}?{{{}}}:{{{}}}}}",
                    inner(numbers),
                    inner(numbers)
                )
            }
            _ => format!("${{{{{}}} == {{{}}}}}", inner(numbers), inner(numbers)),
        };
    }
    text
}

/// A line that is not translated fails as a difference; one that is translated by mistake would hide a difference.
#[test]
fn lines_of_another_version_are_translated_and_no_others() {
    let lines = |text: &str| -> Vec<Vec<u8>> { text.lines().map(Vec::from).collect() };
    let from = &["error: no {TYPE}"];
    let to = &["warning: is {TYPE} there? {TYPE:2}", "error: no {TYPE}"];
    let old = "a[1]: x\na[1]: error: no foo\nb[2]: warning: error: no foo\na[1]: error: no ";
    let new = "a[1]: x\na[1]: warning: is foo there? fo\na[1]: error: no foo\n\
               b[2]: warning: error: no foo\na[1]: error: no ";
    assert_eq!(versions::replace(from, to, lines(old)), lines(new));
    assert_eq!(versions::replace(to, from, lines(new)), lines(old));
    let swapped = |text| versions::replace(&["{ADDR} is {B}"], &["{B} is {ADDR}"], lines(text));
    assert_eq!(swapped("::1 is a.example"), lines("a.example is ::1"));
    assert_eq!(swapped("a.example is ::1"), lines("a.example is ::1"));
    let day = |text| versions::replace(&["{A}; {DAY},  {B}"], &["{A}; {DAY}, 0{B}"], lines(text));
    assert_eq!(day("x; y; Sun,  1 Nov"), lines("x; y; Sun, 01 Nov"));
    assert_eq!(day("x; Sun, 11 Nov"), lines("x; Sun, 11 Nov"));
}
