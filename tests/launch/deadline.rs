//! How long others can keep a process: a client, cleanup, the DNS. Nearly all of it is waiting, so it is done together.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use crate::harness::cleanup::Cleanup;
use crate::harness::instance::mail_owner;
use crate::harness::maillog::without_ids;
use crate::harness::sinks::{deaf_datagram, drain, full_listener, full_pipe};
use crate::machine::{ACCEPTED, How, Machine, REQUEST, Session, greeting, tell};

/// Longer than every limit of the program.
const LIMIT: Duration = Duration::from_secs(60);

/// How much later the end of a wait may be seen on a busy machine, in seconds. Limits that could be mistaken for one another
/// are five seconds apart.
const LATE: f64 = 4.0;

const UNAVAILABLE: &str = "33:ZError: queue service unavailable,";
const WRITE_ERROR: &str = "30:ZError: queue file write error,";

/// A wait, and what is to come of it.
type Case = (&'static str, fn() -> Waited);

/// What came of it.
struct Waited {
    reply: String,
    exit: String,
    took: Duration,
    log: Vec<String>,
}

impl Waited {
    fn of(machine: Machine, mut session: Session, cleanup: Option<Cleanup>) -> Waited {
        let reply = session.reply(LIMIT);
        let took = session.started.elapsed();
        let exit = session.exit();
        cleanup.map(Cleanup::finish);
        let log = machine.finish(&session);
        Waited {
            reply,
            exit,
            took,
            log,
        }
    }

    /// Fails unless it was answered so, logged so, and after so many seconds, or a little later.
    fn check(&self, reply: &str, part: &str, seconds: std::ops::RangeInclusive<u64>) {
        assert_eq!(self.reply, reply, "{:?}", self.log);
        assert!(
            self.log.iter().any(|line| line.contains(part)),
            "no {part:?} in {:?}",
            self.log
        );
        let took = self.took.as_secs_f64();
        let (from, to) = (*seconds.start() as f64, *seconds.end() as f64);
        assert!(
            from - 0.1 < took && took < to + LATE,
            "after {took:.1} s: {:?}",
            self.log
        );
        let exit = if part.starts_with("fatal: ") {
            "1"
        } else {
            "0"
        };
        assert_eq!(self.exit, exit, "{:?}", self.log);
    }
}

const CASES: &[Case] = &[
    ("cleanup is not there", absent_cleanup),
    ("cleanup's backlog is full", full_backlog),
    ("cleanup never greets", silent_cleanup),
    ("cleanup greets a byte a second", dripping_cleanup),
    ("cleanup dies before it has accepted", dying_cleanup),
    ("cleanup does not answer", unanswering_cleanup),
    ("cleanup does not read", unreading_cleanup),
    ("a client sends nothing", silent_client),
    ("a client sends one byte", client_after_a_byte),
    ("a client sends a byte now and then", dripping_client),
    (
        "daemon_timeout during a wait for cleanup",
        daemon_timeout_at_cleanup,
    ),
    ("qmail-queue does not read the message", unreading_program),
    (
        "qmail-queue does not read the envelope",
        half_reading_program,
    ),
    ("a refused client does not go", staying_client),
    ("a refused client pauses", pausing_client),
    ("a refused client says nothing", silent_refused_client),
    (
        "a client says nothing to a server that cannot start",
        silent_client_of_none,
    ),
    ("a DNS server does not answer", silent_dns),
    ("a DNS server does not say who may send", needed_dns),
    ("a log daemon does not take lines", deaf_log),
    ("standard error is full", full_stderr),
    ("standard error is full, and a copy", full_copy),
    ("standard error is full at the first line", full_early),
    ("standard error is full for a while", full_for_a_while),
    #[cfg(debug_assertions)]
    ("standard error is full at the last line", full_at_last),
];

/// How often a wait is tried once more, and alone, that was too long beside the others: a busy machine makes it long once,
/// a mistake each time.
const TRIES: usize = 3;

#[test]
fn every_wait_ends() {
    let failures: Vec<Case> = thread::scope(|scope| {
        let runs: Vec<_> = CASES
            .iter()
            .map(|&case| scope.spawn(move || (!ends(case)).then_some(case)))
            .collect();
        runs.into_iter()
            .filter_map(|run| run.join().unwrap())
            .collect()
    });
    let failures = failures.into_iter();
    let failures = failures.filter(|&case| !(0..TRIES).any(|_| ends(case)));
    let failures: Vec<&str> = failures.map(|(name, _)| name).collect();
    assert!(failures.is_empty(), "{failures:?}");
}

/// Whether it came out as it has to.
fn ends((name, case): Case) -> bool {
    let waited = catch_unwind(AssertUnwindSafe(case));
    if let Ok(waited) = &waited {
        tell(&format!(
            "{name}: {:?} after {:.1} s",
            waited.reply,
            waited.took.as_secs_f64()
        ));
    }
    waited.is_ok()
}

/// A session that has sent a whole request.
fn requested(machine: &Machine) -> Session {
    let mut session = machine.start(&How::default());
    session.send(REQUEST);
    session
}

fn absent_cleanup() -> Waited {
    let machine = Machine::new(&["qmqpd_error_delay = 1s"]);
    let session = requested(&machine);
    let waited = Waited::of(machine, session, None);
    waited.check(
        UNAVAILABLE,
        "to subsystem public/cleanup: No such file or directory",
        12..=19,
    );
    waited
}

fn full_backlog() -> Waited {
    let machine = Machine::new(&["qmqpd_error_delay = 1s"]);
    let _full = full_listener(&machine.instance.socket("cleanup"));
    machine.open_to_all("cleanup");
    let session = requested(&machine);
    let waited = Waited::of(machine, session, None);
    waited.check(
        UNAVAILABLE,
        "warning: connect #1 to subsystem public/cleanup: ",
        14..=19,
    );
    waited
}

fn silent_cleanup() -> Waited {
    let machine = Machine::new(&[]);
    let mut held = Vec::new();
    machine.cleanup_that(move |stream| held.push(stream));
    let session = requested(&machine);
    let waited = Waited::of(machine, session, None);
    waited.check(
        UNAVAILABLE,
        "warning: timeout on public/cleanup socket",
        44..=45,
    );
    waited
}

/// Each byte comes in time; all of them together do not.
fn dripping_cleanup() -> Waited {
    let machine = Machine::new(&[]);
    machine.cleanup_that(|mut stream| {
        for byte in greeting() {
            thread::sleep(Duration::from_secs(1));
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    let session = requested(&machine);
    let waited = Waited::of(machine, session, None);
    waited.check(
        UNAVAILABLE,
        "warning: timeout on public/cleanup socket",
        44..=45,
    );
    waited
}

fn dying_cleanup() -> Waited {
    let machine = Machine::new(&[]);
    let listener = UnixListener::bind(machine.instance.socket("cleanup")).unwrap();
    machine.open_to_all("cleanup");
    let session = requested(&machine);
    session.wait_until_it_waits();
    drop(listener);
    let waited = Waited::of(machine, session, None);
    waited.check(
        UNAVAILABLE,
        "warning: NOQUEUE: localhost[127.0.0.1]: Error: ",
        0..=2,
    );
    waited
}

fn unanswering_cleanup() -> Waited {
    let machine = Machine::new(&["ipc_timeout = 2s"]);
    let cleanup = machine.cleanup(&["answers <nothing>"]);
    let session = requested(&machine);
    let waited = Waited::of(machine, session, Some(cleanup));
    waited.check(
        WRITE_ERROR,
        "warning: mail_stream_cleanup: close error",
        2..=3,
    );
    waited
}

/// The buffers on the way take a part of the write, and that does not start the clock anew.
fn unreading_cleanup() -> Waited {
    let machine = Machine::new(&["ipc_timeout = 2s"]);
    let mut held = Vec::new();
    machine.cleanup_that(move |mut stream| {
        stream.write_all(&greeting()).unwrap();
        held.push(stream);
    });
    let mut session = machine.start(&How::default());
    let message = vec![b'x'; 4_000_000];
    let rest = b",11:s@x.example,11:r@y.example,";
    session.send(format!("{}:{}:", 8 + message.len() + rest.len(), message.len()).as_bytes());
    session.send(&message);
    session.send(&[rest.as_slice(), b","].concat());
    let waited = Waited::of(machine, session, None);
    waited.check(
        WRITE_ERROR,
        "warning: mail_stream_cleanup: close error",
        2..=2,
    );
    waited
}

/// Longer than a pipe.
const LONG: usize = 4_000_000;

/// A request with so much of content and of a second recipient.
fn long_request(content: usize, recipients: usize) -> Vec<u8> {
    let netstring = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes, b","].concat();
    let recipients = b"11:r@y.example,".repeat(recipients / 15);
    let inner = [
        netstring(&vec![b'x'; content]),
        b"11:s@x.example,".to_vec(),
        recipients,
    ];
    netstring(&inner.concat())
}

/// A qmail-queue that is this script, with `request` on its way to it.
fn stuck_program(script: &str, request: Vec<u8>, part: &str) -> Waited {
    let machine = Machine::new(&["ipc_timeout = 2s", "qmqpd_queue_method = qmail:DIR/stuck"]);
    machine.instance.write_program("stuck", script);
    let session = machine.start(&How::default());
    let mut output = session.client.try_clone().unwrap();
    let speaker = thread::spawn(move || drop(output.write_all(&request)));
    let waited = Waited::of(machine, session, None);
    speaker.join().unwrap();
    waited.check(STUCK, part, 2..=2);
    waited
}

const STUCK: &str = "30:Zqq temporary problem (#4.3.0),";

fn unreading_program() -> Waited {
    let script = "#!/bin/sh\nexec sleep 8\n";
    stuck_program(script, long_request(LONG, 15), "stuck: timed out")
}

fn half_reading_program() -> Waited {
    let script = "#!/bin/sh\ncat >/dev/null\nexec sleep 8\n";
    stuck_program(script, long_request(9, LONG), "stuck: timed out")
}

fn silent_client() -> Waited {
    let machine = Machine::new(&["qmqpd_timeout = 2s"]);
    let session = machine.start_tcp(&How::default(), "127.0.0.1");
    let waited = Waited::of(machine, session, None);
    waited.check(
        "",
        "NOQUEUE: localhost[127.0.0.1]: read/write timeout while receiving QMQP packet header",
        2..=3,
    );
    waited
}

fn client_after_a_byte() -> Waited {
    let machine = Machine::new(&["qmqpd_timeout = 2s"]);
    let cleanup = machine.cleanup(&[]);
    let mut session = machine.start_tcp(&How::default(), "127.0.0.1");
    session.send(&REQUEST[..1]);
    let waited = Waited::of(machine, session, Some(cleanup));
    waited.check(
        "",
        "read/write timeout while receiving QMQP packet header",
        2..=3,
    );
    waited
}

/// Never silent for as long as qmqpd_timeout; the session ends all the same.
fn dripping_client() -> Waited {
    let machine = Machine::new(&["daemon_timeout = 4s", "qmqpd_timeout = 2s"]);
    let cleanup = machine.cleanup(&[]);
    let session = machine.start(&How::default());
    let mut output = session.client.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        for byte in REQUEST {
            if output.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(300));
        }
    });
    let waited = Waited::of(machine, session, Some(cleanup));
    dripping.join().unwrap();
    waited.check("", "fatal: watchdog timeout", 4..=5);
    waited
}

fn daemon_timeout_at_cleanup() -> Waited {
    let machine = Machine::new(&["daemon_timeout = 3s"]);
    let cleanup = machine.cleanup(&["answers <nothing>"]);
    let session = requested(&machine);
    let waited = Waited::of(machine, session, Some(cleanup));
    waited.check(
        WRITE_ERROR,
        "warning: mail_stream_cleanup: close error",
        3..=4,
    );
    waited
}

/// A client that has its reply and stays, with a byte now and then, is left after ten seconds.
fn staying_client() -> Waited {
    refused_client(Duration::from_millis(500), 10..=11)
}

/// Just less than the two seconds after which a client counts as one that says nothing.
fn pausing_client() -> Waited {
    refused_client(Duration::from_millis(1800), 10..=11)
}

/// Just more.
fn silent_refused_client() -> Waited {
    refused_client(Duration::from_millis(2300), 2..=2)
}

/// A client that sends a byte each `pause`, whatever it hears; how long its place is taken.
fn refused_client(pause: Duration, seconds: std::ops::RangeInclusive<u64>) -> Waited {
    let machine = Machine::new(&["qmqpd_authorized_clients =", "qmqpd_error_delay = 0s"]);
    let mut session = machine.start(&How::default());
    let mut output = session.client.try_clone().unwrap();
    let staying = thread::spawn(move || {
        while output.write_all(b"x").is_ok() {
            thread::sleep(pause);
        }
    });
    let reply = session.reply(LIMIT);
    let exit = session.end();
    let took = session.started.elapsed();
    staying.join().unwrap();
    let waited = Waited {
        reply,
        exit,
        took,
        log: machine.finish(&session),
    };
    let text = "DError: localhost[127.0.0.1] is not authorized to use this service";
    waited.check(
        &format!("{}:{text},", text.len()),
        "NOQUEUE: reject: CONNECT from ",
        seconds,
    );
    waited
}

const CANNOT_START: &str = "34:ZError: server configuration error,";

/// It is told why, and then has as little time as one that is refused.
fn silent_client_of_none() -> Waited {
    let machine = Machine::new(&["qmqpd_timeout = soon"]);
    let mut session = machine.start(&How::default());
    let reply = session.reply(LIMIT);
    let exit = session.end();
    let took = session.started.elapsed();
    let waited = Waited {
        reply,
        exit,
        took,
        log: machine.finish(&session),
    };
    waited.check(CANNOT_START, "fatal: ", 2..=2);
    waited
}

fn silent_dns() -> Waited {
    without_dns("127.0.0.0/8", ACCEPTED)
}

fn needed_dns() -> Waited {
    let text = "ZError: unknown[127.0.0.77]: name lookup failed, try again later";
    without_dns(
        "!a.example, 127.0.0.0/8",
        &format!("{}:{text},", text.len()),
    )
}

/// A DNS server that takes questions and says nothing. Nobody but the server under test is told to ask it.
fn without_dns(list: &str, reply: &str) -> Waited {
    let machine = Machine::new(&[&format!("qmqpd_authorized_clients = {list}")]);
    // Another run of this test may have the first.
    let bind = |last| Some((UdpSocket::bind(format!("127.53.53.{last}:53")).ok()?, last));
    let Some((_server, last)) = (1..=254).find_map(bind) else {
        assert!(
            mail_owner().is_none(),
            "no address in 127.53.53.0/24 is to be had"
        );
        return Waited {
            reply: "not run: not root".into(),
            exit: "0".into(),
            took: Duration::ZERO,
            log: Vec::new(),
        };
    };
    let dir = &machine.instance.dir;
    fs::write(
        dir.join("resolv.conf"),
        format!("nameserver 127.53.53.{last}\noptions timeout:30 attempts:5\n"),
    )
    .unwrap();
    fs::write(dir.join("nsswitch.conf"), "hosts: dns\n").unwrap();
    let script = "for file in resolv.conf nsswitch.conf; do mount --bind DIR/$file /etc/$file || exit 1; done; exec \"$@\"";
    let how = How {
        through: &["unshare", "--mount", "sh", "-c", script, "sh"],
        ..How::default()
    };
    let cleanup = machine.cleanup(&[]);
    let mut session = machine.start_tcp(&how, "127.0.0.77");
    session.send(REQUEST);
    let waited = Waited::of(machine, session, Some(cleanup));
    let warning = "warning: the name lookup of 127.0.0.77 took longer than 15 seconds";
    waited.check(reply, warning, 15..=16);
    assert_eq!(waited.log[1], "connect from unknown[127.0.0.77]");
    waited
}

/// With -v there are dozens of lines, and only the first is waited for. The line at which that is seen is lost.
fn deaf_log() -> Waited {
    let machine = Machine::new(&["postlog_service_name = deaf"]);
    let path = machine.instance.socket("deaf");
    let _deaf = deaf_datagram(&path);
    machine.open_to_all("deaf");
    let cleanup = machine.cleanup(&[]);
    let how = How {
        arguments: &["-v", "-v"],
        ..How::default()
    };
    let mut session = machine.start(&how);
    session.send(REQUEST);
    let mut waited = Waited::of(machine, session, Some(cleanup));
    waited.log.push("not a line".into());
    waited.check(ACCEPTED, "not a line", 5..=6);
    waited
}

/// A session whose standard error is a pipe that takes nothing, and its end to read from.
fn start_with_full_stderr(machine: &Machine, how: &How) -> (Session, OwnedFd) {
    let (output, input) = full_pipe();
    let session = machine.start_to(how, input);
    (session, output)
}

/// With -v there are dozens of lines.
fn full_stderr() -> Waited {
    let machine = Machine::new(&["qmqpd_log_stderr = yes"]);
    let cleanup = machine.cleanup(&[]);
    let how = How {
        arguments: &["-v", "-v"],
        ..How::default()
    };
    let (mut session, _held) = start_with_full_stderr(&machine, &how);
    session.send(REQUEST);
    let mut waited = Waited::of(machine, session, Some(cleanup));
    waited.log.push("not a line".into());
    waited.check(ACCEPTED, "not a line", 4..=6);
    waited
}

/// The log has all lines, and the copies of them are lost.
fn full_copy() -> Waited {
    let machine = Machine::new(&[]);
    let cleanup = machine.cleanup(&[]);
    let how = How {
        arguments: &["-V"],
        ..How::default()
    };
    let (mut session, _held) = start_with_full_stderr(&machine, &how);
    session.send(REQUEST);
    let waited = Waited::of(machine, session, Some(cleanup));
    waited.check(ACCEPTED, "disconnect from localhost[127.0.0.1]", 4..=6);
    waited
}

/// main.cf cannot be used: its client hears so all the same.
fn full_early() -> Waited {
    let machine = Machine::new(&["qmqpd_timeout = soon"]);
    let how = How {
        arguments: &["-V"],
        ..How::default()
    };
    let (session, _held) = start_with_full_stderr(&machine, &how);
    let waited = Waited::of(machine, session, None);
    waited.check(CANNOT_START, "fatal: ", 4..=7);
    waited
}

/// The line at which the session waits is lost, and the next one says so.
fn full_for_a_while() -> Waited {
    let machine = Machine::new(&["qmqpd_log_stderr = yes"]);
    let cleanup = machine.cleanup(&[]);
    let (mut session, output) = start_with_full_stderr(&machine, &How::default());
    // Past the wait for the log.
    thread::sleep(Duration::from_secs(7));
    drain(&output);
    session.send(REQUEST);
    let mut waited = Waited::of(machine, session, Some(cleanup));
    let said = String::from_utf8(drain(&output)).unwrap();
    waited.log = without_ids(&said).lines().map(str::to_owned).collect();
    waited.check(ACCEPTED, "disconnect from localhost[127.0.0.1]", 7..=8);
    let first = "postfix/qmqpd[PID]: warning: 1 log lines were dropped";
    assert_eq!(waited.log[0], first);
    assert!(
        waited.log[1].ends_with("client=localhost[127.0.0.1]"),
        "{said}"
    );
    assert_eq!(said.matches("dropped").count(), 1, "{said}");
    waited
}

/// A call outside the filter: its line waits as long as all lines before it, and the process ends.
#[cfg(debug_assertions)]
fn full_at_last() -> Waited {
    let machine = Machine::new(&["qmqpd_log_stderr = yes"]);
    let cleanup = machine.cleanup(&[]);
    let how = How {
        env: &[("QMQPD_ESCAPE", "session:open")],
        ..How::default()
    };
    let (mut session, _held) = start_with_full_stderr(&machine, &how);
    session.send(REQUEST);
    let mut waited = Waited::of(machine, session, Some(cleanup));
    waited.log.push("fatal: not a line".into());
    waited.check("", "fatal: not a line", 9..=11);
    waited
}
