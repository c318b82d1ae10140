//! Every dialogue of `tests/dialogue` through our program. `QMQPD_DIALOGUE=part-of-a-name` runs only some.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;
use std::process::Command;

use harness::requests::Numbers;
use harness::server::Server;
use harness::{dialogue, text};

#[test]
fn every_dialogue_goes_as_written() {
    dialogue::check(Server::Ours, &dialogue::all());
}

/// How much of a reply is looked for in the log: a longer one is cut there at another place.
const COMPARED: usize = 60;

/// The letter and the text of a dialogue's reply, and the lines of the log.
fn reply_and_log(file: &str) -> Option<(char, &str, Vec<&str>)> {
    let log = file.lines().filter_map(|line| line.strip_prefix("l: "));
    let reply = file.lines().find_map(|line| line.strip_prefix("s: "))?;
    let (_, reply) = reply.split_once(':')?;
    let text = reply.strip_suffix(',').unwrap_or(reply).get(1..)?;
    let end = text
        .find(['{', '?', '\\'])
        .unwrap_or(text.len())
        .min(COMPARED);
    Some((
        reply.chars().next()?,
        text.get(..end)?.trim_end(),
        log.collect(),
    ))
}

/// `tests/spec/differences.md`, 50.
#[test]
fn each_reply_but_acceptance_has_one_line_with_the_client() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for dialogue in dialogue::all() {
        let file = fs::read_to_string(&dialogue.path).unwrap();
        let Some((letter, text, log)) = reply_and_log(&file) else {
            continue;
        };
        if letter == 'K' {
            continue;
        }
        count += 1;
        let is_it = |line: &&&str| {
            let Some((before, _)) = line.split_once(text) else {
                return false;
            };
            before.ends_with("]: ") || before.contains("]:") && before.ends_with(": ")
        };
        let found = log.iter().filter(is_it).count();
        if found != 1 {
            wrong.push(format!(
                "{}: {found} lines with {text:?}",
                dialogue.path.display()
            ));
        }
    }
    assert!(
        count > 100 || std::env::var_os("QMQPD_DIALOGUE").is_some(),
        "{count}"
    );
    assert_eq!(wrong, [""; 0]);
}

/// A log with the lines of all dialogues; with `statistics` those that end a session have them.
fn whole_log(statistics: bool) -> String {
    let mut log = String::new();
    for (id, dialogue) in (1000..).zip(dialogue::all()) {
        let file = fs::read_to_string(&dialogue.path).unwrap();
        for line in file.lines().filter_map(|line| line.strip_prefix("l: ")) {
            let ends = statistics && line.starts_with("disconnect from ") && line.ends_with(']');
            let end = if ends {
                " queued=1 size=4096 nrcpt=3 reply=K"
            } else {
                ""
            };
            log.push_str(&format!(
                "Nov 26 12:00:00 mail postfix/qmqpd[{id}]: {line}{end}\n"
            ));
        }
    }
    log
}

/// What a program counts in a log, in an order of its own. `None` where it is not installed.
fn counted(command: &[&str], log: &str) -> Option<Vec<String>> {
    let file = std::env::temp_dir().join(format!("qmqpd-log-{}", std::process::id()));
    fs::write(&file, log).unwrap();
    let output = Command::new(command[0])
        .args(&command[1..])
        // One order of what Perl keeps in tables.
        .env("PERL_HASH_SEED", "0")
        .env("PERL_PERTURB_KEYS", "0")
        .stdin(fs::File::open(&file).unwrap())
        .output();
    fs::remove_file(&file).unwrap();
    let output = output.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| {
        // Lines that a program does not know are shown as they are.
        line.split(" queued=1 size=").next().unwrap().to_owned()
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    Some(lines)
}

#[test]
fn log_readers_count_the_same_with_and_without_statistics() {
    const LOGWATCH: &str = "/usr/share/logwatch/scripts/services/postfix";
    let [plain, with] = [false, true].map(whole_log);
    assert_ne!(plain, with);
    for (command, counts) in [
        (&["pflogsumm"][..], "Grand Totals"),
        (&["perl", LOGWATCH, "--detail", "10"], "Disconnections"),
    ] {
        let Some(expected) = counted(command, &plain) else {
            harness::skip(
                "log_readers_count_the_same",
                &format!("{command:?} does not run"),
            );
            continue;
        };
        assert!(
            expected.iter().any(|line| line.contains(counts)),
            "{expected:?}"
        );
        assert_eq!(counted(command, &with).unwrap(), expected, "{command:?}");
    }
}

/// So that recording changes nothing but what has changed.
#[test]
fn every_dialogue_file_is_written_as_recording_writes_it() {
    for dialogue in dialogue::all() {
        let file = fs::read_to_string(&dialogue.path).unwrap();
        assert_eq!(dialogue.text(), file, "{}", dialogue.path.display());
    }
}

#[test]
fn bytes_that_are_shown_read_as_the_same_bytes() {
    let mut numbers = Numbers::new(1);
    for length in 0..300 {
        let few = numbers.below(256) + 1;
        let bytes: Vec<u8> = (0..length)
            .map(|_| u8::try_from(numbers.below(few)).unwrap())
            .collect();
        assert_eq!(text::read(&text::show(&bytes)).unwrap(), bytes);
    }
    assert_eq!(text::read("{ab*3}\\{\\x41").unwrap(), b"ababab{A");
    assert_eq!(text::show(&[b'a'; 16]), "{a*16}");
}
