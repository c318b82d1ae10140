//! Where log lines go, and in which form.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Stdio;
use std::time::Duration;

use crate::harness::maillog::{text_of, without_ids};
use crate::harness::queue_file::records;
use crate::harness::server::{Server, why_no_postfix};
use crate::machine::{ACCEPTED, How, Machine, PATIENCE, REQUEST, User, is_not_root};

/// A /dev that has two entries: null, and a log that is the test's. Everything else stays as it is, and nobody else
/// sees it.
pub const OWN_DEV: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --bind /dev/null DIR/dev/null && mount --rbind DIR/dev /dev && exec \"$@\"",
    "sh",
];

/// A line of syslog(3) without the process id, and with a time that is the same in every run.
fn general(line: &str, pid: u32) -> String {
    let (start, rest) = line.split_once('>').unwrap();
    let (time, text) = rest.split_at(15);
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let shape = shape.replace(":00", ":NN");
    assert!(shape.ends_with(":NN:NN"), "{line:?}");
    format!("{start}>TIME{}", text.replace(&format!("[{pid}]"), "[PID]"))
}

/// One session with a /dev/log of its own: the datagrams.
fn syslog_of(server: Server, arguments: &[&str], conf: &[&str], zone: &str) -> (Vec<String>, u32) {
    let machine = Machine::new(conf);
    let dev = machine.instance.dir.join("dev");
    fs::create_dir(&dev).unwrap();
    fs::write(dev.join("null"), b"").unwrap();
    let log = UnixDatagram::bind(dev.join("log")).unwrap();
    let mut open = fs::metadata(dev.join("log")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o666);
    fs::set_permissions(dev.join("log"), open).unwrap();
    log.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();

    let cleanup = machine.cleanup(&[]);
    let mut through = OWN_DEV.to_vec();
    if server == Server::Postfix {
        through.extend([
            "setpriv",
            "--reuid=postfix",
            "--regid=postfix",
            "--clear-groups",
        ]);
    }
    let how = How {
        server,
        user: User::Root,
        through: &through,
        arguments,
        env: &[("TZ", zone), ("POSTLOG_SERVICE", "")],
    };
    let mut session = machine.start(&how);
    session.send(REQUEST);
    let reply = session.reply(PATIENCE);
    session.exit();
    let stderr = fs::read_to_string(machine.stderr()).unwrap();
    assert_eq!((reply.as_str(), stderr.as_str()), (ACCEPTED, ""));
    cleanup.finish();
    let mut lines = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = log.recv(&mut buffer) {
        lines.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    let pid = session.child.id();
    assert!(machine.finish(&session).is_empty());
    (lines, pid)
}

#[test]
fn syslog_gets_datagrams_with_facility_and_local_time() {
    if is_not_root("syslog_gets_datagrams_with_facility_and_local_time") {
        return;
    }
    // With half an hour in it, so that it is nobody's by accident.
    let zone = "IST-5:30";
    let minute = || {
        let mut command = std::process::Command::new("date");
        let output = command.arg("+%b %e %H:%M").env("TZ", zone).output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    let conf = ["maillog_file =", "syslog_facility = local3"];
    let expected = [
        "<158>TIME postfix/qmqpd[PID]: connect from localhost[127.0.0.1]",
        "<158>TIME postfix/qmqpd[PID]: ABCDEF0123: client=localhost[127.0.0.1]",
        "<158>TIME postfix/qmqpd[PID]: disconnect from localhost[127.0.0.1]",
    ];
    // In a chroot there is no /dev/log: it has to be open by then.
    for arguments in [&["-S"][..], &["-c"]] {
        let before = minute();
        let (lines, pid) = syslog_of(Server::Ours, arguments, &conf, zone);
        let after = minute();
        let seen: Vec<String> = lines.iter().map(|line| general(line, pid)).collect();
        assert_eq!(seen, expected, "{arguments:?}");
        for line in &lines {
            let time = &line["<158>".len()..];
            let now = time.starts_with(&before) || time.starts_with(&after);
            assert!(now, "{line:?} is not of {before:?}");
        }
    }
}

#[test]
fn syslog_gets_from_us_what_it_gets_from_postfix() {
    if let Some(reason) = why_no_postfix() {
        return crate::harness::skip("syslog_gets_from_us_what_it_gets_from_postfix", reason);
    }
    for conf in [
        &["maillog_file =", "syslog_name = other/name"][..],
        &[
            "maillog_file =",
            "syslog_facility = news",
            "qmqpd_client_port_logging = yes",
        ],
    ] {
        let [ours, theirs] = [Server::Ours, Server::Postfix].map(|server| {
            let (lines, pid) = syslog_of(server, &["-S"], conf, "EST5");
            lines
                .iter()
                .map(|line| general(line, pid))
                .collect::<Vec<_>>()
        });
        assert_eq!(ours, theirs, "{conf:?}");
    }
}

#[test]
fn standard_error_gets_every_line_and_nothing_else_does() {
    let machine = Machine::new(&["qmqpd_log_stderr = yes"]);
    let cleanup = machine.cleanup(&[]);
    let mut session = machine.start(&How::default());
    session.send(REQUEST);
    assert_eq!(session.reply(PATIENCE), ACCEPTED);
    assert_eq!(session.exit(), "0");
    cleanup.finish();
    let expected = "\
postfix/qmqpd[PID]: connect from localhost[127.0.0.1]
postfix/qmqpd[PID]: ABCDEF0123: client=localhost[127.0.0.1]
postfix/qmqpd[PID]: disconnect from localhost[127.0.0.1]
";
    let said = fs::read_to_string(machine.stderr()).unwrap();
    assert_eq!(without_ids(&said), expected);
    let id = format!("postfix/qmqpd[{}]: ", session.child.id());
    assert!(said.lines().all(|line| line.starts_with(&id)), "{said}");
    assert!(machine.finish(&session).is_empty());
}

/// The variable says of which file it speaks, and systemd leaves it to programs whose output is elsewhere.
#[test]
fn the_journal_is_told_how_serious_a_line_is() {
    for (is_journal, priority) in [(true, "<6>"), (false, "")] {
        let machine = Machine::new(&["qmqpd_log_stderr = yes"]);
        let cleanup = machine.cleanup(&[]);
        fs::write(machine.stderr(), "").unwrap();
        let stderr = fs::metadata(machine.stderr()).unwrap();
        let inode = stderr.ino() + u64::from(!is_journal);
        let stream = format!("{}:{inode}", stderr.dev());
        let mut session = machine.start(&How {
            env: &[("JOURNAL_STREAM", &stream)],
            ..How::default()
        });
        session.send(REQUEST);
        assert_eq!(session.reply(PATIENCE), ACCEPTED);
        assert_eq!(session.exit(), "0");
        cleanup.finish();
        let said = fs::read_to_string(machine.stderr()).unwrap();
        let first = format!("{priority}postfix/qmqpd[PID]: connect from ");
        assert!(without_ids(&said).starts_with(&first), "{said}");
        machine.finish(&session);
    }
}

/// What is on standard error, a pipe, and in the log of before main.cf; the instance's directory is DIR.
fn said(conf: &[&str]) -> (String, String) {
    let machine = Machine::new(conf);
    let cleanup = machine.cleanup(&[]);
    let (client, server) = UnixStream::pair().unwrap();
    let mut command = machine.command(&How::default());
    command
        .stdin(OwnedFd::from(server.try_clone().unwrap()))
        .stdout(OwnedFd::from(server))
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop((command, client));
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    drop(cleanup);
    let dir = machine.instance.dir.display().to_string();
    let early = machine.log.finish();
    let early = early.iter().map(|line| {
        let text = text_of(line, pid);
        String::from_utf8_lossy(&text).into_owned() + "\n"
    });
    let early: String = early.collect();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    // The client may be gone before it is answered, and the reply has a line only if it was sent.
    let told = ": Error: server configuration error\n";
    let anonymous = |text: &str| {
        let lines = text
            .split_inclusive('\n')
            .filter(|line| !line.ends_with(told));
        let text = lines.collect::<String>().replace(&dir, "DIR");
        text.replace("main.cf, line 9", "main.cf, line N")
            .replace("main.cf, line 10", "main.cf, line N")
            .replace("main.cf, line 11", "main.cf, line N")
            .replace("main.cf, line 12", "main.cf, line N")
    };
    (anonymous(&stderr), anonymous(&early))
}

#[test]
fn warnings_of_main_cf_go_to_the_log_that_it_names() {
    let twice = ["qmqpd_timeout = 1", "qmqpd_timeout = 2"];
    let served = "connect from localhost[127.0.0.1]\n";
    let warning = "warning: DIR/conf/main.cf, line N: overriding earlier entry: qmqpd_timeout=1\n";
    let with = |more: &[&'static str]| said(&[&twice, more].concat());

    let (stderr, early) = with(&["qmqpd_log_stderr = yes", "syslog_name = a"]);
    let start = format!("a/qmqpd[PID]: {warning}a/qmqpd[PID]: {served}");
    let stderr = without_ids(&stderr);
    assert!(stderr.starts_with(&start), "{stderr}");
    assert_eq!(early, "");

    // The tag is wrong, and the log is known.
    let (stderr, early) = with(&["qmqpd_log_stderr = yes", "syslog_name ="]);
    let fatal = "fatal: DIR/conf/main.cf, line N: bad string length 0 < 1: syslog_name = \n";
    assert_eq!(
        without_ids(&stderr),
        format!("postfix/qmqpd[PID]: {warning}postfix/qmqpd[PID]: {fatal}")
    );
    assert_eq!(early, "");

    // Which log it is cannot be told.
    for (name, fatal) in [
        (
            "qmqpd_log_stderr = maybe",
            "fatal: DIR/conf/main.cf, line N: bad boolean configuration: qmqpd_log_stderr = maybe\n",
        ),
        (
            "maillog_file = /x",
            "fatal: DIR/conf/main.cf, line N: maillog_file value '/x' does not match any prefix in maillog_file_prefixes\n",
        ),
        (
            "myhostname =",
            "fatal: DIR/conf/main.cf, line N: bad string length 0 < 1: myhostname = \n",
        ),
    ] {
        let (stderr, early) = with(&[name]);
        assert_eq!(
            (stderr, early),
            (String::new(), format!("{warning}{fatal}"))
        );
    }
}

/// Postfix is stopped.
#[test]
fn without_postlogd_lines_go_to_syslog() {
    if is_not_root("without_postlogd_lines_go_to_syslog") {
        return;
    }
    let conf = &["postlog_service_name = nobody"];
    let (lines, pid) = syslog_of(Server::Ours, &["-S"], conf, "EST5");
    let lines: Vec<String> = lines.iter().map(|line| general(line, pid)).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[0].ends_with("connect from localhost[127.0.0.1]"),
        "{lines:?}"
    );
}

/// A log that is not there costs no mail.
#[test]
fn without_a_log_mail_is_taken_all_the_same() {
    let machine = Machine::new(&["postlog_service_name = nobody"]);
    let cleanup = machine.cleanup(&[]);
    let mut session = machine.start(&How::default());
    session.send(REQUEST);
    assert_eq!(session.reply(PATIENCE), ACCEPTED);
    assert_eq!(session.exit(), "0");
    cleanup.finish();
    assert!(machine.finish(&session).is_empty());
}

/// A container: a /dev without a log, no account but root's, and a user with a number and no name.
const CONTAINER: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --bind DIR/passwd /etc/passwd && mount --bind DIR/passwd /etc/group &&
    mount --bind /dev/null DIR/dev/null && mount --rbind DIR/dev /dev &&
    exec setpriv --reuid=10001 --regid=10001 --clear-groups \"$@\"",
    "sh",
];

/// Who that is.
const CONTAINER_ID: u32 = 10_001;

/// What has become of a message.
struct Queued {
    id: String,
    mode: u32,
    file: Vec<u8>,
    /// What is on standard error.
    log: String,
}

/// One message, queued as a file in there.
fn in_a_container(conf: &[&str]) -> Queued {
    let mut conf = conf.to_vec();
    conf.push("qmqpd_queue_method = file");
    let machine = Machine::new(&conf);
    let dir = &machine.instance.dir;
    fs::remove_file(machine.instance.socket("postlog")).unwrap();
    fs::write(dir.join("passwd"), "root:x:0:\n").unwrap();
    fs::create_dir(dir.join("dev")).unwrap();
    fs::write(dir.join("dev/null"), b"").unwrap();
    let incoming = dir.join("queue/incoming");
    chown(&incoming, Some(CONTAINER_ID), Some(CONTAINER_ID)).unwrap();
    let mut session = machine.start(&How {
        through: CONTAINER,
        ..How::default()
    });
    session.send(REQUEST);
    let reply = session.reply(PATIENCE);
    assert_eq!(session.exit(), "0", "{conf:?}");
    let log = fs::read_to_string(machine.stderr()).unwrap();
    let (_, id) = reply
        .trim_end_matches(',')
        .split_once(":KOk: queued as ")
        .unwrap_or_else(|| panic!("{conf:?}: {reply:?}, {log}"));
    let names: Vec<_> = fs::read_dir(&incoming)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(names, [incoming.join(id)], "{conf:?}");
    let status = fs::metadata(&names[0]).unwrap();
    assert_eq!(status.uid(), CONTAINER_ID);
    Queued {
        id: id.to_owned(),
        mode: status.mode() & 0o7777,
        file: fs::read(&names[0]).unwrap(),
        log,
    }
}

/// Neither syslogd nor postlogd, nor an account called postfix: a server that only queues needs none of them.
#[test]
fn in_a_container_standard_error_is_the_log_and_the_queue_is_a_directory() {
    let test = "in_a_container_standard_error_is_the_log_and_the_queue_is_a_directory";
    if is_not_root(test) {
        return;
    }
    for log in ["maillog_file =", "maillog_file = /var/log/x"] {
        let queued = in_a_container(&[log, "qmqpd_log_stderr = yes"]);
        is_whole(&queued);
        let (id, size) = (&queued.id, content_size(&queued.file));
        let expected = format!(
            "\
postfix/qmqpd[PID]: connect from localhost[127.0.0.1]
postfix/qmqpd[PID]: {id}: client=localhost[127.0.0.1]
postfix/qmqpd[PID]: {id}: message-id=<TIME.{id}@mail.spec.example>
postfix/qmqpd[PID]: {id}: from=<s@x.example>, size={size}, nrcpt=1 (queued)
postfix/qmqpd[PID]: disconnect from localhost[127.0.0.1]
"
        );
        assert_eq!(without_ids(&without_time(&queued.log)), expected, "{log}");

        // The lines are lost, and the mail is not.
        let queued = in_a_container(&[log]);
        is_whole(&queued);
        assert_eq!(queued.log, "", "{log}");
    }
}

/// The file as the queue manager takes it: its mode, and records from the size to the end, the message among them.
fn is_whole(queued: &Queued) {
    assert_eq!(queued.mode, 0o700);
    let records = records(&queued.file);
    let kinds: String = records.iter().map(|&(kind, _)| kind).collect();
    assert!(kinds.starts_with('C') && kinds.ends_with('E'), "{kinds}");
    let has = |kind: char, data: &[u8]| records.contains(&(kind, data.to_vec()));
    assert!(has('S', b"s@x.example") && has('R', b"r@y.example"));
    assert!(has('N', b"Subject: t") && has('N', b"b"));
}

/// How many bytes of a queue file the content of its message takes, the header with the queue id included.
fn content_size(file: &[u8]) -> usize {
    let records = records(file);
    let content = records.iter().skip_while(|record| record.0 != 'M').skip(1);
    let content = content.take_while(|record| record.0 != 'X');
    let sizes = content.map(|(_, data)| {
        assert!(data.len() < 128, "a length of two bytes");
        1 + 1 + data.len()
    });
    sizes.sum()
}

/// The one line that has the time in it, without.
fn without_time(log: &str) -> String {
    let (before, rest) = log.split_once("message-id=<").unwrap();
    let (time, after) = rest.split_at("YYYYMMDDHHMMSS".len());
    assert!(time.bytes().all(|byte| byte.is_ascii_digit()), "{log}");
    format!("{before}message-id=<TIME{after}")
}
