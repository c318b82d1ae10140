//! Three queue hosts behind HAProxy, with the shipped configuration: what scripts/haproxy/README.md promises.
//!
//! Twenty clients send a hundred messages each, one of them by nullmailer's own program. Each sends the same message again
//! until it hears `K`. In the middle one host is drained, and another one is killed. A message that was answered with `K` is
//! in one queue, or in more where its client had been cut off before; none is lost.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

#[path = "balancer/network.rs"]
mod network;

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use harness::instance::{Instance, mail_owner};
use harness::launchers::{program, shipped};
use harness::master::request;
use harness::patience::{PATIENCE, output_of, until};
use network::{Host, WIRING};

/// Clients, from 198.51.100.1 on, and the messages of each.
const CLIENTS: usize = 20;
const EACH: usize = 100;

/// The last one sends by nullmailer's program, where that is there.
const NULLMAILER: usize = CLIENTS;

/// How many messages have had their `K` when a host is drained, and when another one is killed.
const DRAINED_AT: usize = 600;
const KILLED_AT: usize = 1000;

/// How long a client waits before it sends again.
const PAUSE: Duration = Duration::from_millis(100);

const BALANCER: [u8; 4] = [192, 0, 2, 10];
const HOSTS: [&str; 3] = ["queue1", "queue2", "queue3"];
const DRAINED: usize = 0;
const KILLED: usize = 1;

/// When HAProxy has noticed that a host is gone: half a minute by haproxy.cfg, and a little more.
const GIVEN_UP: Duration = Duration::from_secs(45);

/// Set inside of the network namespace in which the test goes on.
const INSIDE: &str = "QMQPD_TEST_BALANCER";

/// A queue host.
struct Queue {
    instance: Instance,
    host: Host,
}

impl Queue {
    fn start(number: usize) -> Queue {
        let conf = [
            "qmqpd_queue_method = file",
            "qmqpd_authorized_clients = 198.51.100.0/24",
            "qmqpd_upstream_proxy_protocol = haproxy",
            "qmqpd_upstream_proxy_clients = 192.0.2.10",
            "qmqpd_peername_lookup = no",
            "qmqpd_log_stderr = yes",
            "maillog_file =",
        ];
        let instance = Instance::new(&conf.map(str::to_owned));
        let incoming = instance.queue_directory().join("incoming");
        fs::set_permissions(&incoming, fs::Permissions::from_mode(0o700)).unwrap();
        let program = env!("CARGO_BIN_EXE_qmqpd");
        let config = instance.config_directory();
        let set = format!("MAIL_CONFIG={}", config.display());
        // One host has a process that accepts, the others a launcher that does.
        let words = if number == 2 {
            vec![
                "systemd-socket-activate",
                "-E",
                &set,
                "-l",
                "0.0.0.0:628",
                program,
                "--accept",
            ]
        } else {
            vec!["tcpserver", "-HRDl0", "-c", "100", "0", "628", program]
        };
        let address = format!("192.0.2.{}", number + 1);
        let log = instance.dir.join("log");
        let host = Host::start(HOSTS[number], &address, &words, &config, &log);
        Queue { instance, host }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.instance.dir.join("log")).unwrap()
    }

    /// The whole messages in the queue.
    fn messages(&self) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.instance.queue_directory().join("incoming")).unwrap();
        let is_whole =
            |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o100 != 0;
        files
            .map(|entry| entry.unwrap().path())
            .filter(is_whole)
            .map(|path| fs::read(path).unwrap())
            .collect()
    }
}

/// HAProxy, with the shipped file.
struct Balancer {
    directory: Instance,
    _host: Host,
}

impl Balancer {
    fn start() -> Balancer {
        let directory = Instance::new(&[]);
        let dir = directory.dir.display();
        let mut text = shipped("scripts/haproxy/haproxy.cfg");
        for (from, to) in [
            (
                "log /dev/log local0",
                "log stderr format raw local0".to_owned(),
            ),
            ("/run/haproxy/admin.sock", format!("{dir}/admin.sock")),
        ] {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, &to);
        }
        directory.write("haproxy.cfg", text.as_bytes());
        let file = directory.dir.join("haproxy.cfg").display().to_string();
        let log = directory.dir.join("log");
        let words = ["haproxy", "-db", "-f", &file];
        let host = Host::start("balancer", "192.0.2.10", &words, Path::new("/"), &log);
        let balancer = Balancer {
            directory,
            _host: host,
        };
        let are_up = || {
            let hosts = balancer.hosts();
            HOSTS
                .iter()
                .all(|host| hosts.get(*host).is_some_and(|host| host.is_up))
        };
        assert!(
            until(PATIENCE, are_up),
            "{:?} {}",
            balancer.hosts(),
            balancer.log()
        );
        balancer
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.dir.join("log")).unwrap()
    }

    /// What the admin socket says to a command.
    fn say(&self, command: &str) -> String {
        let mut said = String::new();
        if let Ok(mut socket) = UnixStream::connect(self.directory.dir.join("admin.sock")) {
            socket.write_all(format!("{command}\n").as_bytes()).unwrap();
            socket.read_to_string(&mut said).unwrap();
        }
        said
    }

    /// The table of servers, by the names of its columns.
    fn hosts(&self) -> HashMap<String, Seen> {
        let said = self.say("show stat qmqp 4 -1");
        let mut lines = said.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = lines.next().unwrap_or_default();
        let column = |wanted: &str| names.iter().position(|name| *name == wanted);
        let (Some(name), Some(sessions), Some(status), Some(checked)) = (
            column("svname"),
            column("scur"),
            column("status"),
            column("check_status"),
        ) else {
            return HashMap::new();
        };
        lines
            .filter(|line| line.len() > checked)
            .map(|line| {
                let sessions = line[sessions].parse().unwrap();
                let is_up = line[status] == "UP" && line[checked] == "L4OK";
                (line[name].to_owned(), Seen { sessions, is_up })
            })
            .collect()
    }
}

#[derive(Debug)]
struct Seen {
    sessions: usize,
    is_up: bool,
}

/// What a client hears of one attempt.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Accepted,
    TryLater,
    /// The end of the connection, or a reset, without a whole reply.
    CutOff,
    Refused(String),
}

/// The message of a client with this number.
fn message(client: usize, number: usize) -> String {
    format!(
        "Subject: t\nX-Number: <{client}.{number}>\n\n{}",
        "Hello.\n".repeat(200)
    )
}

/// Connects from the client's address, if HAProxy takes the connection.
fn connect_from(client: usize) -> Option<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let own = [198, 51, 100, u8::try_from(client).unwrap()];
    let at = |address: [u8; 4], port| SockaddrStorage::from(SocketAddr::from((address, port)));
    bind(stream.as_raw_fd(), &at(own, 0)).unwrap();
    connect(stream.as_raw_fd(), &at(BALANCER, 628)).ok()?;
    let stream = TcpStream::from(stream);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

fn attempt(client: usize, request: &[u8]) -> Heard {
    connect_from(client).map_or(Heard::CutOff, |stream| finish(stream, request))
}

/// Sends the rest of a request.
fn finish(mut stream: TcpStream, rest: &[u8]) -> Heard {
    drop(stream.write_all(rest));
    let mut said = Vec::new();
    drop(stream.read_to_end(&mut said));
    heard(&String::from_utf8(said).unwrap())
}

fn heard(said: &str) -> Heard {
    let Some((_, text)) = said.split_once(':').filter(|(_, text)| text.ends_with(',')) else {
        return Heard::CutOff;
    };
    match text.as_bytes()[0] {
        b'K' => Heard::Accepted,
        b'Z' => Heard::TryLater,
        _ => Heard::Refused(said.to_owned()),
    }
}

/// The same by nullmailer's program, which says how it went by its exit status, and why on standard output.
fn attempt_by(nullmailer: &Path, file: &Path) -> Heard {
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" 3<\"$1\""])
        .args([nullmailer, file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = format!("host=192.0.2.10\nport=628\nsource=198.51.100.{NULLMAILER}\n\n");
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = output_of(child);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Heard::Accepted
    } else if said.contains("Error: ") {
        Heard::TryLater
    } else {
        Heard::CutOff
    }
}

/// What came of a message before it had its `K`.
#[derive(Debug, Default, Clone, Copy)]
struct Course {
    tried_later: usize,
    cut_off: usize,
}

/// Sends the messages of a client, each until it is accepted.
fn send_all(client: usize, directory: &Path, accepted: &AtomicUsize) -> Vec<Course> {
    let nullmailer = std::env::var_os("QMQPD_NULLMAILER").map(PathBuf::from);
    let nullmailer = nullmailer.filter(|path| client == NULLMAILER && path.exists());
    let file = directory.join("message");
    let messages = (0..EACH).map(|number| {
        let text = message(client, number);
        let request = request(text.as_bytes(), "s@client.example", &["r@rcpt.example"]);
        if nullmailer.is_some() {
            fs::write(&file, format!("s@client.example\nr@rcpt.example\n\n{text}")).unwrap();
        }
        let mut course = Course::default();
        let is_accepted = until(PATIENCE, || {
            let heard = match &nullmailer {
                Some(nullmailer) => attempt_by(nullmailer, &file),
                None => attempt(client, &request),
            };
            match heard {
                Heard::Accepted => return true,
                Heard::TryLater => course.tried_later += 1,
                Heard::CutOff => course.cut_off += 1,
                Heard::Refused(said) => panic!("{client}.{number}: {said}"),
            }
            thread::sleep(PAUSE);
            false
        });
        assert!(is_accepted, "{client}.{number}: {course:?}");
        accepted.fetch_add(1, Relaxed);
        course
    });
    messages.collect()
}

/// Whose message this is, and which.
fn number_of(message: &[u8]) -> (usize, usize) {
    let text = String::from_utf8_lossy(message);
    let number = text.split("X-Number: <").nth(1).unwrap();
    let (client, number) = number.split('>').next().unwrap().split_once('.').unwrap();
    (client.parse().unwrap(), number.parse().unwrap())
}

fn is_missing(test: &str) -> bool {
    let needed = ["haproxy", "tcpserver", "systemd-socket-activate"];
    let missing = needed.iter().find(|name| program(name).is_none());
    let reason = match (missing, network::why_none()) {
        (Some(name), _) => format!("{name} is not installed"),
        (None, _) if mail_owner().is_none() => "root and the user postfix are needed".to_owned(),
        (None, Some(why)) => why.to_owned(),
        (None, None) => return false,
    };
    harness::skip(test, &reason);
    true
}

fn say(line: &str) {
    let mut stderr = std::io::stderr();
    stderr.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Runs the test once more, in a network of its own.
fn in_a_network(test: &str) {
    let steps = format!("{WIRING}exec \"$0\" --exact \"$3\" --nocapture");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", &steps])
        .arg(std::env::current_exe().unwrap())
        .args(["1", &CLIENTS.to_string(), test])
        .env(INSIDE, "1");
    // Each wait in there has its limit. All of them together may take longer than one.
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let counted = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{counted}"
    );
    say(counted.trim_end());
}

#[test]
fn no_message_is_lost_when_one_host_is_drained_and_one_dies() {
    let test = "no_message_is_lost_when_one_host_is_drained_and_one_dies";
    if std::env::var_os(INSIDE).is_none() {
        if !is_missing(test) {
            in_a_network(test);
        }
        return;
    }
    let mut queues = [0, 1, 2].map(Queue::start);
    let balancer = Balancer::start();
    let begin = Instant::now();
    let accepted = AtomicUsize::new(0);
    let directory = balancer.directory.dir.clone();
    let mut drained = 0;
    let courses: Vec<Vec<Course>> = thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|client| {
                scope.spawn({
                    let (accepted, directory) = (&accepted, &directory);
                    move || send_all(client, directory, accepted)
                })
            })
            .collect();
        wait_for(&accepted, DRAINED_AT);
        let name = HOSTS[DRAINED];
        assert_eq!(
            balancer
                .say(&format!("set server qmqp/{name} state drain"))
                .trim(),
            ""
        );
        assert!(until(PATIENCE, || balancer.hosts()[name].sessions == 0));
        drained = queues[DRAINED].messages().len();
        wait_for(&accepted, KILLED_AT);
        queues[KILLED].host.kill();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    assert_eq!(
        queues[DRAINED].messages().len(),
        drained,
        "messages after it was drained"
    );
    is_complete(&queues, &courses, begin.elapsed());
    has_clients_addresses(&queues);
}

/// Returns when so many messages have been accepted; fails when there is no further one for a while.
fn wait_for(accepted: &AtomicUsize, count: usize) {
    loop {
        let seen = accepted.load(Relaxed);
        if seen >= count {
            return;
        }
        assert!(
            until(PATIENCE, || accepted.load(Relaxed) > seen),
            "{seen} messages"
        );
    }
}

/// A host that is silent all at once, as when its power is cut. HAProxy hears of no end of a connection.
#[test]
fn a_silent_host_is_given_up_and_its_clients_can_send_again() {
    let test = "a_silent_host_is_given_up_and_its_clients_can_send_again";
    if std::env::var_os(INSIDE).is_none() {
        if !is_missing(test) {
            in_a_network(test);
        }
        return;
    }
    let queues = [0, 1, 2].map(Queue::start);
    let _balancer = Balancer::start();
    let text = message(1, 0);
    let request = request(text.as_bytes(), "s@client.example", &["r@rcpt.example"]);
    let (first, rest) = request.split_at(request.len() - 10);
    // Two for each host.
    let sessions: Vec<TcpStream> = (1..=6)
        .map(|client| {
            let mut session = connect_from(client).unwrap();
            session.write_all(first).unwrap();
            session
        })
        .collect();
    let is_at = |queue: &Queue, client: usize| {
        queue
            .log()
            .contains(&format!("client=unknown[198.51.100.{client}]\n"))
    };
    let clients_of = |queue| {
        (1..=6)
            .filter(|client| is_at(queue, *client))
            .collect::<Vec<_>>()
    };
    let are_received = || queues.iter().all(|queue| clients_of(queue).len() == 2);
    assert!(until(PATIENCE, are_received));
    let lost = clients_of(&queues[0]);
    queues[0].host.unplug();
    let begin = Instant::now();
    thread::scope(|scope| {
        for (client, session) in (1..).zip(sessions) {
            let lost = &lost;
            scope.spawn(move || {
                // HAProxy has nothing to send to the host for one of the two clients, and something for the other.
                let rest = if client == lost[0] { b"" } else { rest };
                let heard = finish(session, rest);
                if lost.contains(&client) {
                    let took = begin.elapsed();
                    assert_eq!(heard, Heard::CutOff);
                    assert!(took < GIVEN_UP, "{client} of {lost:?}: {took:?}");
                } else {
                    assert_eq!(heard, Heard::Accepted);
                }
            });
        }
    });
    assert_eq!(attempt(1, &request), Heard::Accepted);
}

/// Each message is in one queue, or in more where its client was cut off.
fn is_complete(queues: &[Queue], courses: &[Vec<Course>], took: Duration) {
    let mut copies: HashMap<(usize, usize), usize> = HashMap::new();
    let mut each = Vec::new();
    for queue in queues {
        let messages = queue.messages();
        each.push(messages.len());
        for message in messages {
            *copies.entry(number_of(&message)).or_default() += 1;
        }
    }
    let (mut tried_later, mut cut_off, mut twice) = (0, 0, 0);
    for (client, courses) in (1..).zip(courses) {
        for (number, course) in courses.iter().enumerate() {
            let found = copies.remove(&(client, number)).unwrap_or(0);
            assert!(found > 0, "{client}.{number} is lost: {course:?}");
            assert!(
                found <= 1 + course.cut_off,
                "{client}.{number}: {found} times, {course:?}"
            );
            tried_later += course.tried_later;
            cut_off += course.cut_off;
            twice += found - 1;
        }
    }
    assert_eq!(copies, HashMap::new(), "messages that were not sent");
    assert!(each.iter().all(|&count| count > 0), "{each:?}");
    say(&format!(
        "{} messages in {took:.1?}: {each:?} in the queues, {tried_later} Z, {cut_off} connections cut off, {twice} \
         messages twice",
        CLIENTS * EACH
    ));
}

/// In the Received: header and in the log.
fn has_clients_addresses(queues: &[Queue]) {
    for queue in queues {
        for message in queue.messages() {
            let (client, _) = number_of(&message);
            let received = format!("Received: from unknown (unknown [198.51.100.{client}])");
            let text = String::from_utf8_lossy(&message);
            assert!(text.contains(&received), "{text}");
        }
        let log = queue.log();
        assert!(log.contains("connect from unknown[198.51.100."), "{log}");
        assert!(!log.contains("192.0.2.10"), "{log}");
        assert!(!log.contains("PROXY header"), "{log}");
    }
}
