//! What a message costs in memory, whatever is in it: contents are made up of every header name that the program knows.
//!
//! What counts is the peak of the process, as the kernel has it, against the bytes of the request: the envelope is part
//! of that, as a message is its recipients too. `QMQPD_SEED` is where the generator starts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::sync::Mutex;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::harness::dialogue::at_once;
use crate::harness::master::until;
use crate::harness::requests::Numbers;
use crate::machine::{How, Machine, PATIENCE, tell};
use crate::memory::patient;

/// Of the content.
const SIZE: usize = 8 << 20;

/// The most bytes of memory for a hundred bytes of a request.
const PERCENT: u64 = 130;

/// The most log lines of a session: those that name the message, one with their number, and a few for all else.
const LINES: usize = 16;

const SEED: u64 = 20_261_126;

/// How many contents are made up besides one for each name.
const MIXED: usize = 6;

/// How many bytes of a pipe are filled before the server writes to it: all that there are.
const PIPE_SIZE: usize = 65_536;

/// Everything in the source that looks like the name of a header, and those that are dropped by default.
fn names() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
    let read = |file: &str| fs::read_to_string(format!("{root}{file}")).unwrap();
    let source = read("queue/file/header.rs");
    let (program, _) = source.split_once("#[cfg(test)]").unwrap();
    let table = read("config/table.rs");
    let (_, dropped) = table.split_once("message_drop_headers: Text = \"").unwrap();
    let (dropped, _) = dropped.split_once('"').unwrap();
    let quoted = program.lines().filter(|line| !line.contains("//"));
    let quoted = quoted.flat_map(|line| line.split('"').skip(1).step_by(2));
    let is_name =
        |word: &&str| word.len() > 1 && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'-'));
    let names: BTreeSet<&str> = quoted.chain(dropped.split(", ")).filter(is_name).collect();
    for name in [
        "received",
        "message-id",
        "resent-message-id",
        "mime-version",
        "return-path",
    ] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    let other = ["From", ">From", "X-Mailbox-Line", "x"];
    names.into_iter().chain(other).map(str::to_owned).collect()
}

/// A header of this name, in one of the forms that a header can have.
fn header(name: &str, numbers: &mut Numbers) -> Vec<u8> {
    let value: Vec<u8> = match numbers.below(8) {
        0 => Vec::new(),
        1 => b" ".to_vec(),
        2 => b" <x@y.example>".to_vec(),
        3 => b" a\n b\n\tc\n ".to_vec(),
        4 => b"\xff\x80\xe9\0\xc3\xa9".to_vec(),
        5 => b"\r \r".to_vec(),
        6 => b"v".repeat(1 + numbers.below(5000)),
        _ => b" 8bit\n\xff".repeat(numbers.below(20_000)),
    };
    let blanks = ["", "", " ", "\t \t"];
    let blanks = numbers.pick(&blanks);
    [name.as_bytes(), blanks.as_bytes(), b":", &value, b"\n"].concat()
}

/// `SIZE` bytes: one header again and again, or many kinds, or one line.
fn content(names: &[String], index: usize, numbers: &mut Numbers) -> (String, Vec<u8>) {
    let mut content = Vec::new();
    let kind = match names.get(index) {
        // The shortest headers are the most.
        Some(name) if index % 2 == 0 => {
            content = format!("{name}:\n").into_bytes();
            format!("{name}: empty")
        }
        Some(name) => {
            content = header(name, numbers);
            format!("{name} of {} bytes", content.len())
        }
        None => match index - names.len() {
            0 => {
                content = b"x".to_vec();
                "one line".to_owned()
            }
            1 => {
                content = [b"Subject: ".as_slice(), &b"x".repeat(SIZE)].concat();
                "one line of a header".to_owned()
            }
            2 => {
                content = [b"Subject:\n".as_slice(), &b" \n".repeat(SIZE / 2)].concat();
                "one folded header".to_owned()
            }
            3 => {
                content = b"\n".to_vec();
                "empty lines".to_owned()
            }
            _ => {
                while content.len() < SIZE {
                    let name = &names[numbers.below(names.len())];
                    let header = header(name, numbers);
                    let times = 1 + numbers.below(200_000) / header.len();
                    content.extend(header.repeat(times));
                }
                "all kinds".to_owned()
            }
        },
    };
    let repeated = content.repeat(SIZE / content.len() + 1);
    (kind, repeated[..SIZE].to_vec())
}

fn netstring(bytes: &[u8]) -> Vec<u8> {
    [bytes.len().to_string().as_bytes(), b":", bytes, b","].concat()
}

/// One request in three has many recipients, of all lengths.
fn request(content: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut parts = netstring(content);
    parts.extend(netstring(b"s@x.example"));
    let (count, longest) = numbers.pick(&[(1, 9), (20_000, 30), (2000, 2000)]);
    for number in 0..count {
        let length = numbers.below(longest);
        let recipient = format!("{number}{}@y.example", "r".repeat(length));
        parts.extend(netstring(recipient.as_bytes()));
    }
    netstring(&parts)
}

/// A server with a client that does not take the answer yet.
fn start(machine: &Machine, request: &[u8]) -> (Child, File) {
    let (stdin, client) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (answer, stdout) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (mut client, mut stdout) = (File::from(client), File::from(stdout));
    stdout.write_all(&[0; PIPE_SIZE]).unwrap();
    let mut command = machine.command(&How::default());
    let child = command
        .stdin(stdin)
        .stdout(Stdio::from(stdout))
        .spawn()
        .unwrap();
    client.write_all(request).unwrap();
    (child, answer.into())
}

/// The peak of memory, in bytes. The pages of files are shared with all other processes; those of a program on a tmpfs are
/// counted as shared memory.
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    (kib("VmHWM:") - kib("RssFile:") - kib("RssShmem:")) * 1024
}

/// Takes the answer, and waits for the end.
fn finish(mut child: Child, mut answer: File) {
    let mut said = Vec::new();
    answer.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said[PIPE_SIZE..]).into_owned();
    assert!(said.contains(":KOk: queued as"), "{said}");
    assert!(child.wait().unwrap().success());
}

/// The peak with method `file`, once the message is in the queue; and how many lines are logged.
fn with_file(request: &[u8]) -> (u64, usize) {
    let machine = Machine::new(&[
        "qmqpd_queue_method = file",
        "message_size_limit = 0",
        "hopcount_limit = 99999999",
    ]);
    let (child, answer) = start(&machine, request);
    let incoming = machine.instance.queue_directory().join("incoming");
    let is_mail = || {
        let mut files = fs::read_dir(&incoming).unwrap();
        files.any(|file| {
            let file = file.unwrap().metadata();
            file.is_ok_and(|file| file.permissions().mode() & 0o777 == 0o700)
        })
    };
    assert!(until(PATIENCE, is_mail), "the message is not queued");
    let peak = peak(&child);
    finish(child, answer);
    (peak, machine.log.finish().len())
}

/// The same with method `cleanup`, once that has read all of the message.
fn with_cleanup(request: &[u8]) -> (u64, usize) {
    let machine = Machine::new(&["message_size_limit = 0"]);
    let (has_read, may_answer) = patient(&machine);
    let (child, answer) = start(&machine, request);
    has_read.recv_timeout(PATIENCE).unwrap();
    let peak = peak(&child);
    may_answer.send(()).unwrap();
    finish(child, answer);
    (peak, machine.log.finish().len())
}

/// The worst there was.
#[derive(Default)]
struct Worst {
    percent: u64,
    memory: String,
    lines: usize,
    log: String,
}

#[test]
fn no_content_takes_much_more_memory_than_its_bytes_or_many_log_lines() {
    let seed = std::env::var("QMQPD_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let names = names();
    let worst = Mutex::new(Worst::default());
    at_once(names.len() + 4 + MIXED, |index| {
        let mut numbers = Numbers::new(seed + index as u64);
        let (kind, content) = content(&names, index, &mut numbers);
        let request = request(&content, &mut numbers);
        let length = request.len() as u64;
        let mut peaks = vec![("file", with_file(&request))];
        // Names of headers make no difference to what cleanup is sent.
        if index >= names.len() {
            peaks.push(("cleanup", with_cleanup(&request)));
        }
        for (method, (peak, lines)) in peaks {
            let percent = peak * 100 / length;
            let mut worst = worst.lock().unwrap();
            if percent > worst.percent {
                worst.percent = percent;
                worst.memory = format!("{peak} bytes for {length}, method {method}, {kind}");
            }
            if lines > worst.lines {
                worst.lines = lines;
                worst.log = format!("method {method}, {kind}");
            }
        }
    });
    let worst = worst.into_inner().unwrap();
    let (percent, memory) = (worst.percent, worst.memory);
    let (lines, log) = (worst.lines, worst.log);
    tell(&format!(
        "the most memory for a message: {percent} %, {memory}; seed {seed}"
    ));
    assert!(percent <= PERCENT, "{percent} %: {memory}, seed {seed}");
    assert!(lines <= LINES, "{lines} log lines: {log}, seed {seed}");
}
