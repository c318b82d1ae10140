//! Messages handed to programs that take the place of qmail-queue: one that writes down what it reads, and ones that fail.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::instance::{Instance, mail_owner};
use harness::master::{request, until};

/// Keeps message, envelope and its open descriptors, and moves them into place when it is done.
const RECORDER: &str = "#!/bin/sh
cd DIR/out || exit 61
ls /proc/$$/fd >fds
cat >message || exit 54
cat <&1 >envelope || exit 54
grep -E 'Sig(Ign|Blk)' /proc/self/status >signals
touch done
";

struct Run {
    reply: String,
    log: String,
}

fn instance(script: &str) -> Instance {
    let conf = [
        "qmqpd_queue_method = qmail:DIR/program",
        "qmqpd_log_stderr = yes",
        "ipc_timeout = 2s",
    ];
    let instance = Instance::new(&conf.map(str::to_owned));
    let dir = instance.dir.display().to_string();
    instance.write_program("program", &script.replace("DIR", &dir));
    let out = instance.dir.join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
    instance
}

/// Sends `request` to our program, started by way of `launcher`.
fn run(instance: &Instance, launcher: &[&str], request: &[u8]) -> Run {
    let (mut client, server) = UnixStream::pair().unwrap();
    let log = instance.dir.join("log");
    let mut words = launcher.to_vec();
    words.extend([env!("CARGO_BIN_EXE_qmqpd"), "-S"]);
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .env("MAIL_CONFIG", instance.config_directory())
        .stdin(OwnedFd::from(server.try_clone().unwrap()))
        .stdout(OwnedFd::from(server))
        .stderr(Stdio::from(fs::File::create(&log).unwrap()))
        .spawn()
        .unwrap();
    client.write_all(request).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    child.wait().unwrap();
    let log = fs::read_to_string(log).unwrap();
    Run { reply, log }
}

/// As root we become the owner of the mail, who must exist.
fn cannot_run(test: &str) -> bool {
    let missing = nix::unistd::geteuid().is_root() && mail_owner().is_none();
    if missing {
        harness::skip(test, "there is no user postfix");
    }
    missing
}

fn read(instance: &Instance, name: &str) -> Vec<u8> {
    fs::read(instance.dir.join("out").join(name)).unwrap()
}

#[test]
fn message_and_envelope_are_passed_on() {
    if cannot_run("message_and_envelope_are_passed_on") {
        return;
    }
    let instance = instance(RECORDER);
    let content = b"Subject: t\n\n.\nFrom x\n\0\r\nno end";
    let sender = "list-@x.example-@[]";
    // A launcher that has SIGCHLD ignored would keep the exit status from us.
    let launcher = ["sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"];
    let recipients = ["r@y.example", "", "r@y.example"];
    let seen = run(&instance, &launcher, &request(content, sender, &recipients));
    assert!(seen.reply.contains(":KOk: queued as qp "), "{}", seen.reply);
    let (header, rest) = {
        let message = read(&instance, "message");
        let end = message.len() - content.len();
        (message[..end].to_vec(), message[end..].to_vec())
    };
    assert_eq!(rest, content);
    let header = String::from_utf8(header).unwrap();
    assert!(
        header.starts_with(
            "Received: from localhost (127.0.0.1)\n  by mail.spec.example with QMQP; "
        )
    );
    assert!(
        header.ends_with(" -0000\n") && header.lines().count() == 2,
        "{header}"
    );
    let envelope = format!("F{sender}\0Tr@y.example\0T\0Tr@y.example\0\0");
    assert_eq!(read(&instance, "envelope"), envelope.as_bytes());
    let id = seen
        .reply
        .split("qp ")
        .nth(1)
        .unwrap()
        .trim_end_matches(',');
    let line = format!("qp {id}: from=<list@x.example>, size=");
    assert!(
        seen.log.contains("nrcpt=3 (queued)") && seen.log.contains(&line),
        "{}",
        seen.log
    );
}

#[test]
fn an_envelope_may_be_as_long_as_message_size_limit() {
    let test = "an_envelope_may_be_as_long_as_message_size_limit";
    if cannot_run(test) {
        return;
    }
    let recipients = vec![""; 20_000];
    let request = request(b"x\n", "s", &recipients);
    // Netstrings: the sender, and three bytes for each recipient.
    let length = 4 + 3 * recipients.len();
    for (limit, is_accepted) in [(length, true), (length - 1, false)] {
        let instance = instance(RECORDER);
        let command = format!("exec \"$@\" -o message_size_limit={limit}");
        let seen = run(&instance, &["sh", "-c", &command, "sh"], &request);
        assert!(until(Duration::from_secs(20), || {
            instance.dir.join("out/done").exists()
        }));
        let envelope = read(&instance, "envelope");
        if is_accepted {
            assert!(seen.reply.contains(":KOk: queued as qp "), "{}", seen.reply);
            assert_eq!(envelope.len(), b"Fs\0\0".len() + 2 * recipients.len());
        } else {
            assert_eq!(seen.reply, "26:DError: envelope too large,");
            // Nothing that the program could take for a message.
            assert_eq!(envelope, b"");
            assert!(
                seen.log.contains("Error: envelope too large"),
                "{}",
                seen.log
            );
        }
    }
}

#[test]
fn the_program_finds_three_descriptors_and_no_ignored_signal() {
    let test = "the_program_finds_three_descriptors_and_no_ignored_signal";
    if cannot_run(test) {
        return;
    }
    let instance = instance(RECORDER);
    let seen = run(&instance, &["env"], &request(b"x\n", "s@x", &["r@y"]));
    assert!(seen.reply.contains(":K"), "{}{}", seen.reply, seen.log);
    let descriptors = String::from_utf8(read(&instance, "fds")).unwrap();
    // The shell keeps its script on a descriptor of ten or more, and `ls` the directory on 3 of its own.
    let above: Vec<&str> = descriptors
        .lines()
        .filter(|fd| (3..10).contains(&fd.parse::<u32>().unwrap()))
        .collect();
    assert!(above.is_empty(), "{descriptors}");
    let signals = String::from_utf8(read(&instance, "signals")).unwrap();
    assert_eq!(signals.lines().count(), 2);
    for line in signals.lines() {
        // Above 31 are those of the C library's own.
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        assert_eq!(mask & 0x7fff_ffff, 0, "{signals}");
    }
}

#[test]
fn every_exit_status_has_its_reply() {
    if cannot_run("every_exit_status_has_its_reply") {
        return;
    }
    for (exit, reply) in [
        ("exit 11", "Denvelope address too long for qq (#5.1.3)"),
        (
            "exit 31",
            "Dmail server permanently rejected message (#5.3.0)",
        ),
        ("exit 32", "Dqq permanent problem (#5.3.0)"),
        ("exit 51", "Zqq out of memory (#4.3.0)"),
        ("exit 52", "Zqq timeout (#4.3.0)"),
        ("exit 53", "Zqq write error or disk full (#4.3.0)"),
        ("exit 54", "Zqq read error (#4.3.0)"),
        ("exit 55", "Zqq unable to read configuration (#4.3.0)"),
        ("exit 56", "Zqq temporary problem (#4.3.0)"),
        ("exit 61", "Zqq trouble in home directory (#4.3.0)"),
        ("exit 62", "Zqq trouble creating files in queue (#4.3.0)"),
        ("exit 66", "Zqq trouble creating files in queue (#4.3.0)"),
        (
            "exit 71",
            "Zmail server temporarily rejected message (#4.3.0)",
        ),
        ("exit 72", "Zconnection to mail server timed out (#4.4.1)"),
        ("exit 73", "Zconnection to mail server rejected (#4.4.1)"),
        ("exit 74", "Zcommunication with mail server failed (#4.4.2)"),
        ("exit 81", "Zqq internal bug (#4.3.0)"),
        ("exit 91", "Zqq internal bug (#4.3.0)"),
        ("exit 120", "Zqq temporary problem (#4.3.0)"),
        ("kill -KILL $$", "Zqq temporary problem (#4.3.0)"),
    ] {
        let script = format!("#!/bin/sh\ncat >/dev/null\ncat <&1 >/dev/null\n{exit}\n");
        let instance = instance(&script);
        let seen = run(&instance, &["env"], &request(b"x\n", "s@x", &["r@y"]));
        assert!(
            seen.reply.ends_with(&format!(":{reply},")),
            "{exit}: {}",
            seen.reply
        );
    }
}

#[test]
fn a_program_that_reads_nothing_or_hangs_is_for_later() {
    if cannot_run("a_program_that_reads_nothing_or_hangs_is_for_later") {
        return;
    }
    let large = "x\n".repeat(500_000);
    for script in [
        "exit 0",
        "exec <&-; exec 1<&-; exit 0",
        "exec sleep 5",
        "echo x; echo y >&0; exit 91",
    ] {
        let instance = instance(&format!("#!/bin/sh\n{script}\n"));
        for content in [large.as_bytes(), b"x\n"] {
            let begin = Instant::now();
            let seen = run(&instance, &["env"], &request(content, "s@x", &["r@y"]));
            // A program that is content with a small message unread has only itself to blame.
            let may_be_done = script.ends_with("exit 0") && content.len() < 65_536;
            assert!(
                seen.reply.contains(":Zqq ") || may_be_done && seen.reply.contains(":K"),
                "{script}: {}",
                seen.reply
            );
            assert!(begin.elapsed() < Duration::from_secs(10), "{script}");
        }
    }
}

#[test]
fn a_malformed_request_leaves_the_envelope_without_its_end() {
    if cannot_run("a_malformed_request_leaves_the_envelope_without_its_end") {
        return;
    }
    let whole = request(b"x\n", "s@x", &["r@y", "a@b"]);
    let mut bad = whole.clone();
    let length = bad.len();
    bad[length - 2] = b';';
    for (bytes, reply) in [
        (&bad[..], ":Dnetstring format error"),
        (&whole[..length - 1], ""),
        (&whole[..length - 9], ""),
    ] {
        let instance = instance(RECORDER);
        let seen = run(&instance, &["env"], bytes);
        assert!(
            seen.reply.contains(reply) && !seen.reply.contains(":K"),
            "{}",
            seen.reply
        );
        let done = instance.dir.join("out/done");
        assert!(until(Duration::from_secs(5), || done.exists()));
        assert!(!read(&instance, "envelope").ends_with(b"\0\0"));
    }
}

#[test]
fn fifty_thousand_recipients_get_through() {
    if cannot_run("fifty_thousand_recipients_get_through") {
        return;
    }
    let instance = instance(RECORDER);
    let names: Vec<String> = (0..50_000).map(|n| format!("r{n}@y.example")).collect();
    let recipients: Vec<&str> = names.iter().map(String::as_str).collect();
    let seen = run(&instance, &["env"], &request(b"x\n", "s@x", &recipients));
    assert!(seen.reply.contains(":K"), "{}", seen.reply);
    let envelope = read(&instance, "envelope");
    assert!(envelope.ends_with(b"Tr49999@y.example\0\0"));
    assert_eq!(envelope.iter().filter(|&&byte| byte == 0).count(), 50_002);
}

#[test]
fn a_program_that_cannot_be_started_is_for_later_and_named() {
    let test = "a_program_that_cannot_be_started_is_for_later_and_named";
    if cannot_run(test) {
        return;
    }
    let instance = instance(RECORDER);
    let program = instance.dir.join("program");
    if Path::new("/usr/bin/setpriv").exists() {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        let launcher = ["setpriv", "--no-new-privs"];
        let seen = run(&instance, &launcher, &request(b"x\n", "s@x", &["r@y"]));
        assert!(
            seen.reply.contains("ZError: queue service unavailable"),
            "{}",
            seen.reply
        );
        assert!(
            seen.log.contains("program: a set-uid program"),
            "{}",
            seen.log
        );
    }
    fs::remove_file(program).unwrap();
    let seen = run(&instance, &["env"], &request(b"x\n", "s@x", &["r@y"]));
    assert!(
        seen.reply.contains("ZError: queue service unavailable"),
        "{}",
        seen.reply
    );
    assert!(
        seen.log.contains("program: No such file or directory"),
        "{}",
        seen.log
    );
}
