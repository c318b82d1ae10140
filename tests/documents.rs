//! What we tell administrators to type, run or parsed: README.md, inetd.conf.example, master.cf.example, run files.
//!
//! A block of the README is a shell script (```sh), a piece of master.cf, or of main.cf (no language). The files that a
//! launcher reads are started for real in `tests/launchers.rs`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;
#[path = "documents/page.rs"]
mod page;
#[path = "documents/walk.rs"]
mod walk;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::instance::Instance;
use harness::launchers::shipped;
use harness::peers::Act;
use harness::server::{self, Server, Setting};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where the documents have our program.
const INSTALLED: &str = "/usr/sbin/qmqpd";

/// The pages for administrators.
fn administrators() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for entry in fs::read_dir(Path::new(ROOT).join("scripts")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let page = format!("scripts/{name}/README.md");
        if Path::new(ROOT).join(&page).exists() {
            pages.push(page);
        }
    }
    pages
}

/// The pages for people who change the program, which have commands as well.
const DEVELOPERS: [&str; 5] = [
    "scripts/README.md",
    "src/README.md",
    "tests/README.md",
    "tests/bench/README.md",
    "tests/dialogue/README.md",
];

/// Before a block that no test runs: why none does.
const REASON: &str = "<!-- not run: ";

/// A block between two fences: its language, its lines, and why it is not run, where it is not.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
    reason: Option<String>,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut before, mut is_open) = ("", false);
    for line in document.lines() {
        if let Some(language) = line.strip_prefix("```") {
            if !is_open {
                let reason = before.strip_prefix(REASON).map(|reason| {
                    let reason = reason
                        .strip_suffix(" -->")
                        .expect("a reason that is closed");
                    assert!(reason.ends_with('.'), "a reason is a sentence: {reason}");
                    reason.to_owned()
                });
                let (language, text) = (language.to_owned(), String::new());
                blocks.push(Block {
                    language,
                    text,
                    reason,
                });
            }
            is_open = !is_open;
        } else if is_open {
            let block = blocks.last_mut().unwrap();
            block.text += line;
            block.text.push('\n');
        } else {
            before = line;
        }
    }
    assert!(!is_open, "a block that is not closed");
    blocks
}

/// The sections of a page, with their headings; what stands under a heading of the next level is a section of its own.
fn sections(page: &str) -> Vec<(&str, String)> {
    let mut sections: Vec<(&str, String)> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        is_open ^= line.starts_with("```");
        let heading = line.trim_start_matches('#').strip_prefix(' ');
        match heading.filter(|_| line.starts_with('#') && !is_open) {
            Some(heading) => sections.push((heading, String::new())),
            None => {
                if let Some((_, text)) = sections.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    sections
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Our program takes these arguments. Commands for people are carried out.
fn is_understood(arguments: &[&str]) {
    let instance = Instance::new(&[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_qmqpd"));
    command.args(arguments).stdin(Stdio::null());
    command.env("MAIL_CONFIG", instance.config_directory());
    let commands = ["--check", "--explain", "--help", "-h", "--version"];
    if arguments.iter().any(|word| commands.contains(word)) {
        let output = command.output().unwrap();
        let status = output.status.code();
        assert!(
            matches!(status, Some(0 | 1 | 78)) && !said(&output).contains("invalid option"),
            "{arguments:?}: {output:?}"
        );
        return;
    }
    let output = command.arg("--version").output().unwrap();
    assert!(
        said(&output).starts_with("qmqpd "),
        "{arguments:?}: {output:?}"
    );
}

/// A line of a shell script, or of a comment: if our program is started in it, with these arguments.
fn check_command(line: &str) {
    let command = line.split(" (").next().unwrap();
    let command = command.split(" #").next().unwrap();
    let words: Vec<&str> = command.split_whitespace().collect();
    let first = words.first() == Some(&"qmqpd");
    let start = if first {
        Some(0)
    } else {
        let copied = ["cp", "ln", "install", "rm", "dpkg-divert"];
        let started = !words.first().is_some_and(|word| copied.contains(word));
        words
            .iter()
            .position(|&word| word == INSTALLED)
            .filter(|_| started)
    };
    if let Some(start) = start {
        is_understood(&words[start + 1..]);
    }
}

fn check_shell(text: &str) {
    let mut shell = Command::new("sh")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}{output:?}");
    for word in text.split_whitespace() {
        let named = word.starts_with("scripts/") || word == "inetd.conf.example";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(word);
        assert!(!named || path.exists(), "{text}: there is no {word}");
    }
    text.replace("\\\n", " ").lines().for_each(check_command);
}

/// Postfix and our program take these lines of main.cf, and have nothing against them.
fn check_main_cf(text: &str) {
    let conf: Vec<String> = text.lines().map(str::to_owned).collect();
    let names = conf.iter().filter_map(|line| line.split_once('='));
    let names: Vec<&str> = names.map(|(name, _)| name.trim()).collect();
    assert!(!names.is_empty(), "no parameter in {text:?}");
    let instance = Instance::new(&conf);
    if Path::new("/usr/sbin/postconf").exists() {
        let output = Command::new("postconf")
            .arg("-n")
            .arg("-c")
            .arg(instance.config_directory())
            .output()
            .unwrap();
        let set = said(&output);
        // Postfix does not know those of our own.
        let strangers = [
            "qmqpd_queue_method",
            "qmqpd_peername_lookup",
            "qmqpd_log_stderr",
        ];
        for name in names.iter().filter(|name| !strangers.contains(name)) {
            assert!(set.contains(&format!("{name} = ")), "{name}: {set}");
        }
        assert!(output.status.success(), "{set}");
    } else {
        harness::skip("check_main_cf", "Postfix is not installed");
    }
    let setting = Setting {
        conf,
        client: vec![Act::Send(
            b"48:14:Subject: t\n\nb\n,11:s@x.example,11:r@y.example,,".to_vec(),
        )],
        ..Setting::default()
    };
    let seen = server::run(Server::Ours, &setting);
    let log: String = seen
        .log
        .iter()
        .map(|line| String::from_utf8_lossy(line).into_owned() + "\n")
        .collect();
    let good = !log.contains("warning: ") && !log.contains("fatal: ");
    assert!(good && seen.exit == "0", "{text}{log}");
}

#[test]
fn every_block_is_what_it_looks_like() {
    let mut count = 0;
    let pages = administrators().into_iter();
    for page in pages.chain(DEVELOPERS.map(str::to_owned)) {
        for block in blocks(&shipped(&page)) {
            count += 1;
            match block.language.as_str() {
                "sh" => check_shell(&block.text),
                "master.cf" => check_master_cf(&block.text),
                "" if page.ends_with("src/README.md") || block.text.contains(OWN_QUEUE) => {}
                "" => check_main_cf(&block.text),
                "remotes" => {}
                _ => panic!("{page}: no test knows {block:?}"),
            }
        }
    }
    assert!(count > 15, "{count} blocks");
}

/// In a main.cf with a queue of its own: `tests/documents/walk.rs` makes that queue.
const OWN_QUEUE: &str = "queue_directory = ";

#[test]
fn the_pages_for_developers_have_their_reasons() {
    for page in DEVELOPERS {
        for block in blocks(&shipped(page)) {
            let is_run = block.language == "sh" && block.reason.is_none();
            assert!(!is_run, "{page}: {}", block.text);
        }
    }
}

/// The fields of inetd.conf before the arguments.
const FIELDS: usize = 6;

#[test]
fn every_line_of_inetd_conf_is_one() {
    let mut count = 0;
    for line in shipped("inetd.conf.example").lines() {
        let text = line.strip_prefix('#').unwrap_or(line);
        if text.is_empty() || text.starts_with(' ') && !line.contains(INSTALLED) {
            continue;
        }
        if text.starts_with(' ') {
            check_command(text);
            continue;
        }
        count += 1;
        check_inetd_line(text);
    }
    assert!(count > 5, "{count} lines");
}

fn check_inetd_line(line: &str) {
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert!(fields.len() > FIELDS, "too few fields: {line}");
    let [service, kind, protocol, wait, user, program] = fields[..FIELDS] else {
        panic!("too few fields: {line}");
    };
    let services = ["qmqp", "127.0.0.1:qmqp", "/run/qmqp/socket"];
    assert!(services.contains(&service), "{line}");
    assert_eq!(kind, "stream", "{line}");
    let is_path = service.starts_with('/');
    let protocols: &[&str] = if is_path {
        &["unix"]
    } else {
        &["tcp", "tcp4", "tcp6"]
    };
    assert!(protocols.contains(&protocol), "{line}");
    let (word, limit) = wait.split_once('.').unwrap_or((wait, "1"));
    let accepts = line.split_whitespace().any(|word| word == "--accept");
    assert_eq!(word, if accepts { "wait" } else { "nowait" }, "{line}");
    assert!(limit.parse::<u32>().is_ok(), "{line}");
    assert!(["postfix", "root"].contains(&user), "{line}");
    let mut arguments = &fields[FIELDS..];
    assert_eq!(arguments[0], program.rsplit('/').next().unwrap(), "{line}");
    if program == "/usr/bin/env" {
        let own = arguments.iter().position(|&word| word == INSTALLED);
        arguments = &arguments[own.unwrap()..];
    } else {
        assert_eq!(program, INSTALLED, "{line}");
    }
    is_understood(&arguments[1..]);
}

#[test]
fn the_parameters_that_inetd_conf_speaks_of_are_ones() {
    let example = shipped("inetd.conf.example");
    let lines = example
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .filter(|line| line.contains(" = "));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 1);
    check_main_cf(&format!("{}\n", lines[0]));
}

/// Postfix finds these services in master.cf.
fn check_master_cf(text: &str) {
    let instance = Instance::new(&[]);
    instance.write("conf/master.cf", text.as_bytes());
    let output = postconf(&instance, &["-M"]);
    let services = text
        .lines()
        .filter(|line| !line.starts_with([' ', '#']) && !line.is_empty());
    assert!(output.status.success(), "{}", said(&output));
    let found = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(found, services.count(), "{text}{}", said(&output));
}

fn postconf(instance: &Instance, arguments: &[&str]) -> Output {
    Command::new("postconf")
        .arg("-c")
        .arg(instance.config_directory())
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_lines_and_commands_for_master_cf_work_in_their_order() {
    let test = "the_lines_and_commands_for_master_cf_work_in_their_order";
    if !Path::new("/usr/sbin/postconf").exists() {
        return harness::skip(test, "Postfix is not installed");
    }
    let example = shipped("scripts/postfix/master.cf.example");
    check_master_cf(&example);
    let instance = Instance::new(&[]);
    instance.write("conf/master.cf", b"");
    let commands = example.lines().filter_map(|line| line.strip_prefix("#   "));
    let commands: String = commands
        .filter(|line| !line.starts_with(' '))
        .map(|line| format!("{line}\n"))
        .collect();
    check_shell(&commands);
    let (mut seen, mut count) = (String::new(), 0);
    for command in commands.lines() {
        let Some(arguments) = command.strip_prefix("postconf ") else {
            continue;
        };
        let (option, argument) = arguments.split_once(' ').unwrap();
        let output = postconf(&instance, &[option, argument.trim_matches('\'')]);
        assert!(
            output.status.success() && said(&output).is_empty(),
            "{command}: {}",
            said(&output)
        );
        seen += &said(&postconf(&instance, &["-M"]));
        count += 1;
    }
    assert_eq!(count, 6, "{commands}");
    for part in ["argv=/usr/sbin/qmqpd", "unix  n", "- qmqpd"] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&seen).contains(&words(part)), "{part}: {seen}");
    }
    // What the last two of them are for.
    assert_eq!(said(&postconf(&instance, &["-M"])), "");
}

/// The number that stands between these in a file.
fn number(path: &str, before: &str, after: &str) -> u64 {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let rest = text.split_once(before).unwrap().1;
    rest.split_once(after).unwrap().0.parse().unwrap()
}

/// The process ends itself, with an answer and a line in the log, before systemd does.
#[test]
fn the_unit_gives_a_session_longer_than_the_program_does() {
    let unit = number("scripts/systemd/qmqpd@.service", "\nRuntimeMaxSec=", "\n");
    let total = number("src/config/table.rs", "daemon_timeout: Time = \"", "s\"");
    let grace = number(
        "src/service/resident.rs",
        "CHILD_GRACE: Duration = Duration::from_secs(",
        ")",
    );
    assert!(unit > total + grace, "{unit} {total} {grace}");
    assert!(unit < total + 10 * grace, "{unit} {total} {grace}");
}

#[test]
fn the_run_file_is_a_script_and_its_comments_too() {
    let run = shipped("scripts/tcpserver/run");
    check_shell(&run);
    let comments = run.lines().filter_map(|line| line.strip_prefix("# "));
    comments.for_each(|line| {
        if let Some(command) = line.strip_prefix("  ") {
            check_shell(&format!("{}\n", command.split(" (").next().unwrap()));
        }
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tcpserver/run");
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111);
}
