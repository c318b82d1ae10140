//! Services of a real Postfix: master(8) starts our program as it starts Postfix's own, and is as content with it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use harness::instance::mail_owner;
use harness::master::{self, Master, handed_over, queue_id, request, send, until};
use harness::patience::{PATIENCE, output};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn message() -> Vec<u8> {
    request(
        b"Subject: t\n\nb\n",
        "s@client.example",
        &["r@rcpt.example"],
    )
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(Pid::from_raw(rest.split(' ').nth(1)?.parse().unwrap()))
}

/// Our processes that serve a client, apart from those that wait for one, or for such a child.
fn children(master: &Master) -> (Vec<Pid>, Vec<Pid>) {
    let ours = master.processes("qmqpd");
    // One that has ended meanwhile is neither.
    let with_parent = ours
        .iter()
        .filter_map(|&pid| Some((pid, parent_of(pid)?)))
        .collect::<Vec<_>>();
    let (children, residents): (Vec<_>, Vec<_>) = with_parent
        .into_iter()
        .partition(|(_, parent)| ours.contains(parent));
    let pids = |found: Vec<(Pid, Pid)>| found.into_iter().map(|(pid, _)| pid).collect();
    (pids(children), pids(residents))
}

/// A client in the middle of its message, and the rest of it. The server has a queue file by then.
fn half_sent(mut stream: TcpStream, master: &Master) -> (TcpStream, Vec<u8>) {
    let message = message();
    let (first, rest) = message.split_at(20);
    let before = master.incoming().1.len();
    stream.write_all(first).unwrap();
    let begun = until(PATIENCE, || master.incoming().1.len() > before);
    assert!(begun, "{}", master.log());
    (stream, rest.to_vec())
}

/// The client hears nothing but the end of the connection, which is a reset where the server had not read everything.
fn hears_nothing(mut client: TcpStream) {
    let mut reply = Vec::new();
    if let Err(error) = client.read_to_end(&mut reply) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(reply, b"");
}

fn no_trouble(master: &Master) {
    assert_eq!(master.trouble(), Vec::<String>::new());
}

/// Messages of which each is special in its way.
fn messages() -> Vec<Vec<u8>> {
    let long = [b"x".repeat(5000).as_slice(), b"\n.\n"].concat();
    let many: Vec<String> = (0..50).map(|n| format!("r{n}@rcpt.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    vec![
        message(),
        request(b"", "", &["r@rcpt.example"]),
        request(b"Subject: t\n\n", "list-@client.example-@[]", &many),
        request(
            b"From: f@client.example\nSubject: \xe4\n\n\0\r\n",
            "s@client.example",
            &["r@rcpt.example", "\"r r\"@rcpt.example"],
        ),
        request(&long, "s@client.example", &["r@rcpt.example"]),
    ]
}

/// Sends over one of the ways in; the reply.
type Way = Box<dyn Fn(&[u8]) -> String>;

fn over_tcp(host: impl Into<IpAddr>, port: u16) -> Way {
    let host = host.into();
    Box::new(move |request| send(TcpStream::connect((host, port)).unwrap(), request).unwrap())
}

fn over_unix(master: &Master, name: &str) -> Way {
    let path = master.socket(name);
    Box::new(move |request| send(UnixStream::connect(&path).unwrap(), request).unwrap())
}

/// By way of a program that accepts connections and hands them on.
fn over_pass(master: &Master, name: &str) -> Way {
    let path = master.socket(name);
    Box::new(move |request| send(handed_over(&path), request).unwrap())
}

#[test]
fn a_message_is_queued_as_postfix_queues_it_whatever_the_service() {
    if master::is_missing("a_message_is_queued_as_postfix_queues_it_whatever_the_service") {
        return;
    }
    let [ours, theirs, our_jail, their_jail] = [(); 4].map(|()| master::free_port());
    let master = Master::start(
        "",
        &format!(
            "{ours} inet n - n - - qmqpd
{theirs} inet n - n - - qmqpd-postfix
ours unix n - n - - qmqpd
theirs unix n - n - - qmqpd-postfix
our_pass pass n - n - - qmqpd
their_pass pass n - n - - qmqpd-postfix
127.0.0.1:{our_jail} inet n - y - - qmqpd -o qmqpd_peername_lookup=no
127.0.0.1:{their_jail} inet n - y - - qmqpd-postfix
"
        ),
    );
    let pairs: [(&str, Way, Way); 5] = [
        (
            "IPv4",
            over_tcp(LOCALHOST, ours),
            over_tcp(LOCALHOST, theirs),
        ),
        (
            "IPv6",
            over_tcp(Ipv6Addr::LOCALHOST, ours),
            over_tcp(Ipv6Addr::LOCALHOST, theirs),
        ),
        (
            "unix",
            over_unix(&master, "ours"),
            over_unix(&master, "theirs"),
        ),
        (
            "pass",
            over_pass(&master, "our_pass"),
            over_pass(&master, "their_pass"),
        ),
        (
            "chroot",
            over_tcp(LOCALHOST, our_jail),
            over_tcp(LOCALHOST, their_jail),
        ),
    ];
    for (kind, ours, theirs) in pairs {
        for message in messages() {
            let [our_reply, their_reply] = [ours(&message), theirs(&message)];
            let ours = master.postcat(queue_id(&our_reply));
            let theirs = master.postcat(queue_id(&their_reply));
            assert_eq!(ours, theirs, "{kind}");
        }
    }
    no_trouble(&master);
}

/// The resident process has given up system calls by then; the child must still be able to write a queue file.
#[test]
fn queue_files_can_be_written_without_cleanup() {
    if master::is_missing("queue_files_can_be_written_without_cleanup") {
        return;
    }
    let [plain, jail] = [(); 2].map(|()| master::free_port());
    let master = Master::start(
        "",
        &format!(
            "{plain} inet n - n - - qmqpd -o qmqpd_queue_method=file
127.0.0.1:{jail} inet n - y - - qmqpd -o qmqpd_queue_method=file -o qmqpd_peername_lookup=no
"
        ),
    );
    for port in [plain, jail] {
        for message in messages() {
            let reply = send(connect(port), &message).unwrap();
            let shown = master.postcat(queue_id(&reply));
            assert!(shown.contains("id ID"), "{shown}");
        }
    }
    assert!(!master.log_has("/cleanup["));
    no_trouble(&master);
}

/// MailScanner's client on the eFa appliance, which takes the whole of what it reads until EOF for the reply.
const EFA_CLIENT: &str = r#"
use IO::Socket::UNIX;
my ($path, $size) = @ARGV;
my $sock = IO::Socket::UNIX->new(Peer => $path) or die "connect: $!";
my $line = ("x" x 76) . "\n";
my $msg = "Subject: large\n\n" . ($line x int($size / 77));
sub ns { length($_[0]) . ":" . $_[0] . "," }
print $sock ns(ns($msg) . ns('s@client.example') . ns('r@rcpt.example')) or die "print: $!";
$sock->flush;
my $reply = do { local $/; <$sock> };
$reply =~ /^(\d+):(\S)(.+),$/ or die "no reply: $reply";
length("$2$3") == $1 or die "length: $reply";
print "$2 $3\n";
"#;

#[test]
fn mailscanner_sends_a_hundred_megabytes() {
    if master::is_missing("mailscanner_sends_a_hundred_megabytes") {
        return;
    }
    let master = Master::start(
        "qmqpd_authorized_clients = 127.0.0.1,::1\nmessage_size_limit = 133169152\n",
        "qmqp unix n - n - - qmqpd",
    );
    let size = 100 * 1024 * 1024;
    let mut client = Command::new("perl");
    client.args(["-we", EFA_CLIENT]).arg(master.socket("qmqp"));
    let client = output(client.arg(size.to_string()));
    assert!(client.status.success(), "{client:?}");
    let reply = String::from_utf8(client.stdout).unwrap();
    let id = reply.trim().strip_prefix("K Ok: queued as ").unwrap();
    let file = master.dir.join("queue/incoming").join(id);
    assert!(fs::metadata(file).unwrap().len() > size - 1000);
    // Of this list `::1` is an item in a form that Postfix does not have.
    let trouble = master.trouble();
    assert!(
        trouble.iter().all(|line| line.contains("::1")),
        "{trouble:?}"
    );
}

/// Sends `count` messages with Postfix's own load generator, twenty at a time.
fn qmqp_source(port: u16, count: u32) -> Child {
    let mut command = Command::new("qmqp-source");
    command.args(["-s", "20", "-m", &count.to_string()]);
    command.args(["-f", "s@client.example", "-t", "r@rcpt.example"]);
    command.arg(format!("inet:127.0.0.1:{port}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Fails as well where no message comes for a while.
fn all_queued(master: &Master, mut source: Child, count: usize) {
    let (mut queued, mut last) = (0, Instant::now());
    while source.try_wait().unwrap().is_none() {
        let now = master.incoming().0.len();
        if now > queued {
            (queued, last) = (now, Instant::now());
        }
        assert!(last.elapsed() < PATIENCE, "{queued} {}", master.log());
        sleep(Duration::from_millis(100));
    }
    let output = source.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?} {}", master.log());
    let (complete, partial) = master.incoming();
    assert_eq!((complete.len(), partial.len()), (count, 0), "{output:?}");
}

#[test]
fn processes_come_and_go_without_a_word_from_master() {
    if master::is_missing("processes_come_and_go_without_a_word_from_master") {
        return;
    }
    let [often, once] = [(); 2].map(|()| master::free_port());
    let master = Master::start(
        "",
        &format!("{often} inet n - n - - qmqpd\n{once} inet n - n - - qmqpd -o max_use=1\n"),
    );
    all_queued(&master, qmqp_source(often, 2000), 2000);
    all_queued(&master, qmqp_source(once, 2000), 4000);
    no_trouble(&master);
}

#[test]
fn a_reload_loses_no_connection_and_cuts_no_session() {
    if master::is_missing("a_reload_loses_no_connection_and_cuts_no_session") {
        return;
    }
    let port = master::free_port();
    let master = Master::start("", &format!("{port} inet n - n - - qmqpd"));
    let (mut client, rest) = half_sent(connect(port), &master);
    let mut source = qmqp_source(port, 3000);
    let mut reloads = 0;
    while source.try_wait().unwrap().is_none() {
        master.reload();
        reloads += 1;
        sleep(Duration::from_millis(500));
    }
    assert!(reloads > 3, "the run was too short");
    let reply = send(&mut client, &rest).unwrap();
    assert!(reply.contains("queued as"), "{reply}");
    all_queued(&master, source, 3001);
    // Postfix's own programs have lost each other; they try again.
    let trouble = master.trouble().into_iter();
    let trouble = trouble.filter(|line| !line.contains("/cleanup["));
    assert_eq!(trouble.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_stop_in_the_middle_of_slow_sessions_leaves_nothing() {
    if master::is_missing("a_stop_in_the_middle_of_slow_sessions_leaves_nothing") {
        return;
    }
    let port = master::free_port();
    let mut master = Master::start("", &format!("{port} inet n - n - - qmqpd"));
    let mut clients: Vec<TcpStream> = (0..20).map(|_| connect(port)).collect();
    for client in &mut clients {
        client.write_all(&message()[..20]).unwrap();
    }
    // With its queue id cleanup has also noted which file to remove at the end: before that it leaves one behind itself.
    let opened = || master.log().matches(": client=").count() == 20;
    assert!(until(PATIENCE, opened));
    assert_eq!(master.incoming().1.len(), 20);
    assert_eq!(children(&master).0.len(), 20);
    master.stop();
    clients.into_iter().for_each(hears_nothing);
    let gone = || master.everything().is_empty();
    assert!(until(PATIENCE, gone), "{:?}", master.everything());
    assert_eq!(master.incoming(), (vec![], vec![]));
    no_trouble(&master);
}

#[test]
fn a_process_leaves_when_it_is_idle_and_when_master_is_gone() {
    if master::is_missing("a_process_leaves_when_it_is_idle_and_when_master_is_gone") {
        return;
    }
    let [short, long] = [(); 2].map(|()| master::free_port());
    let mut master = Master::start(
        "",
        &format!("{short} inet n - n - - qmqpd -v -o max_idle=2\n{long} inet n - n - - qmqpd -v\n"),
    );
    let (client, rest) = half_sent(connect(short), &master);
    assert_eq!(children(&master).1.len(), 1);
    send(client, &rest).unwrap();
    assert!(until(PATIENCE, || master.processes("qmqpd").is_empty()));
    master.wait_for_log("idle timeout -- exiting");
    for line in [
        "process generation: ",
        "master_notify: status 0",
        "connection closed",
    ] {
        assert!(master.log_has(line), "{line}");
    }

    send(connect(long), &message()).unwrap();
    master.reload();
    master.wait_for_log("master disconnect -- exiting");
    assert!(until(PATIENCE, || master.processes("qmqpd").is_empty()));

    // Three wait for clients, or for the lock; one serves a client, and does so to the end.
    let started: Vec<_> = (0..3).map(|_| half_sent(connect(long), &master)).collect();
    let last = half_sent(connect(long), &master);
    for (client, rest) in started {
        send(client, &rest).unwrap();
    }
    assert!(until(PATIENCE, || children(&master).1.len() == 4));
    no_trouble(&master);
    master.end_with(Signal::SIGKILL);
    assert!(until(PATIENCE, || master.processes("qmqpd").len() == 2));
    // Without master cleanup cannot queue. That the session goes on shows in the answer to a mistake.
    let reply = send(last.0, b"and nonsense").unwrap();
    assert!(reply.contains("Dnetstring format error"), "{reply}");
    assert!(until(PATIENCE, || master.processes("qmqpd").is_empty()));
}

/// The one of these processes that has a lock which was taken with flock(2).
fn holder(processes: &[Pid]) -> Option<Pid> {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let has = |pid: &&Pid| {
        let pid = pid.to_string();
        locks.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1) == Some(&"FLOCK") && words.get(4) == Some(&pid.as_str())
        })
    };
    processes.iter().find(has).copied()
}

/// The process before it in the line does not end, and keeps the lock.
#[test]
fn a_process_that_waits_for_the_lock_leaves_when_master_is_gone() {
    if master::is_missing("a_process_that_waits_for_the_lock_leaves_when_master_is_gone") {
        return;
    }
    let port = master::free_port();
    let mut master = Master::start("", &format!("{port} inet n - n - - qmqpd -v\n"));
    let started: Vec<_> = (0..2).map(|_| half_sent(connect(port), &master)).collect();
    for (client, rest) in started {
        send(client, &rest).unwrap();
    }
    let mut residents = Vec::new();
    let idle = until(PATIENCE, || {
        residents = children(&master).1;
        residents.len() == 2 && children(&master).0.is_empty() && holder(&residents).is_some()
    });
    assert!(idle, "{residents:?}");
    let first = holder(&residents).unwrap();
    kill(first, Signal::SIGSTOP).unwrap();
    master.end_with(Signal::SIGKILL);
    let left = until(PATIENCE, || master.processes("qmqpd") == [first]);
    kill(first, Signal::SIGCONT).unwrap();
    assert!(left);
    assert!(until(PATIENCE, || master.processes("qmqpd").is_empty()));
}

/// Puts a shell script before our program.
fn wrapper(dir: &Path, name: &str, command: &str) {
    let path = dir.join("daemons").join(name);
    let program = env!("CARGO_BIN_EXE_qmqpd");
    fs::write(
        &path,
        format!("#!/bin/sh\nexec {command} {program} \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn odd_starts_do_not_keep_it_from_serving() {
    if master::is_missing("odd_starts_do_not_keep_it_from_serving") {
        return;
    }
    let [old, deaf] = [(); 2].map(|()| master::free_port());
    let master = Master::start_with(
        "",
        &format!(
            "{old} inet n - n - - qmqpd-old\n{deaf} inet n - n - 1 qmqpd-deaf -o daemon_timeout=4\n"
        ),
        |dir| {
            wrapper(dir, "qmqpd-old", "env GENERATION=7777");
            let signals = "env --ignore-signal=CHLD,ALRM,TERM --block-signal=CHLD,ALRM,TERM";
            wrapper(dir, "qmqpd-deaf", signals);
        },
    );
    // master does not believe a process of another generation; clients are served one after the other.
    for _ in 0..3 {
        let reply = send(connect(old), &message()).unwrap();
        assert!(reply.contains("queued as"), "{reply}");
    }
    master.wait_for_log(&format!("generation {}", 0o7777));
    let ignored = |line: &String| line.contains("ignoring status update");
    assert!(
        master.trouble().iter().all(ignored),
        "{:?}",
        master.trouble()
    );

    // A session that outlives daemon_timeout, where signals came down ignored and blocked.
    let (client, _) = half_sent(connect(deaf), &master);
    let resident = children(&master).1;
    hears_nothing(client);
    master.wait_for_log("fatal: watchdog timeout");
    let reply = send(connect(deaf), &message()).unwrap();
    assert!(reply.contains("queued as"), "{reply}");
    assert_eq!(children(&master).1, resident);
    assert!(!master.log_has("exit status") && !master.log_has("throttling"));
}

#[test]
fn a_mistake_in_the_configuration_is_answered_at_once_and_costs_no_process() {
    if master::is_missing("a_mistake_in_the_configuration_is_answered_at_once") {
        return;
    }
    let port = master::free_port();
    let master = Master::start("", &format!("{port} inet n - n - 1 qmqpd stray"));
    let mut residents = Vec::new();
    let start = Instant::now();
    for _ in 0..2 {
        let reply = send(connect(port), &message()).unwrap();
        assert!(
            reply.contains("ZError: server configuration error"),
            "{reply}"
        );
        residents.extend(children(&master).1);
    }
    // The first child stays for a second after its answer, and there is one process only.
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(residents.len(), 2);
    assert_eq!(residents[0], residents[1]);
    let fatal = "fatal: unexpected command-line argument: stray";
    // postlogd may write the second line after the client has its answer.
    until(PATIENCE, || master.log().matches(fatal).count() == 2);
    let mut trouble = master.trouble();
    trouble.retain(|line| !line.ends_with(": Error: server configuration error"));
    assert!(
        trouble.iter().all(|line| line.contains(fatal)) && trouble.len() == 2,
        "{trouble:?}"
    );
}

#[test]
fn clients_that_connect_and_leave_cost_a_line_each() {
    if master::is_missing("clients_that_connect_and_leave_cost_a_line_each") {
        return;
    }
    let port = master::free_port();
    // So many processes that master has nothing to say about their number.
    let master = Master::start("", &format!("{port} inet n - n - 250 qmqpd"));
    drop(connect(port));
    master.wait_for_log("disconnect from");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let clients: Vec<TcpStream> = (0..50).map(|_| connect(port)).collect();
                drop(clients);
            });
        }
    });
    let lines = |part: &str| master.log().matches(part).count();
    let all = || lines(": disconnect from") == 201;
    assert!(until(PATIENCE, all), "{}", lines(": disconnect from"));
    assert_eq!(
        lines("lost connection while receiving QMQP packet header"),
        201
    );
    assert_eq!(master.incoming(), (vec![], vec![]));
    assert!(send(connect(port), &message()).unwrap().contains("queued"));
    no_trouble(&master);
}

/// What a process has open: number and what it is.
fn descriptors(pid: Pid) -> Vec<(i32, String)> {
    let mut found: Vec<(i32, String)> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            let target = fs::read_link(entry.path()).unwrap();
            (number, target.display().to_string())
        })
        .collect();
    found.sort();
    found
}

fn status(pid: Pid, field: &str) -> String {
    let all = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = all.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

#[test]
fn a_child_has_its_client_the_log_and_the_queue_and_no_rights() {
    if master::is_missing("a_child_has_its_client_the_log_and_the_queue_and_no_rights") {
        return;
    }
    let port = master::free_port();
    let master = Master::start("", &format!("{port} inet n - n - - qmqpd"));
    let (client, rest) = half_sent(connect(port), &master);
    let (child, resident) = children(&master);
    let ([child], [resident]) = (child.as_slice(), resident.as_slice()) else {
        panic!("{child:?} {resident:?}");
    };

    let open = descriptors(*child);
    assert_eq!(open.len(), 5, "{open:?}");
    assert!(open[0].1.starts_with("socket:") && open[0].1 == open[1].1);
    assert_eq!(open[2], (2, "/dev/null".to_owned()));
    // The log's socket and cleanup's.
    assert!(
        open[3..]
            .iter()
            .all(|(_, what)| what.starts_with("socket:"))
    );

    let kept = descriptors(*resident);
    let null = || "/dev/null".to_owned();
    assert_eq!(&kept[..3], [(0, null()), (1, null()), (2, null())]);
    // Status channel, two listening sockets, log, lock file; not the pipe for flow control, nor the client. Only the log
    // is the child's as well.
    assert_eq!(kept.len(), 8, "{kept:?}");
    let lock = format!("queue/pid/inet.{port}");
    assert!(kept.iter().any(|(_, what)| what.ends_with(&lock)));
    assert!(kept.iter().all(|(_, what)| !what.starts_with("pipe:")));
    let common = kept[3..]
        .iter()
        .filter(|(_, what)| open.iter().any(|(_, other)| other == what));
    assert_eq!(common.count(), 1, "{open:?} {kept:?}");

    let owner = mail_owner().unwrap();
    for pid in [*child, *resident] {
        let uid = owner.uid.to_string();
        assert_eq!(status(pid, "Uid"), [uid.as_str(); 4].join("\t"));
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(status(pid, "Seccomp"), "2");
        assert_eq!(status(pid, "CapEff"), "0000000000000000");
    }
    assert_eq!(status(*child, "Seccomp_filters"), "2");
    assert_eq!(status(*resident, "Seccomp_filters"), "1");
    let reply = send(client, &rest).unwrap();
    assert!(reply.contains("queued as"), "{reply}");
}

#[test]
fn the_end_of_the_resident_process_leaves_no_unfinished_file() {
    if master::is_missing("the_end_of_the_resident_process_leaves_no_unfinished_file") {
        return;
    }
    let port = master::free_port();
    let method = "qmqpd_queue_method = file";
    // One process: both clients of a round reach the same one.
    let mut master = Master::start(method, &format!("{port} inet n - n - 1 qmqpd"));
    let gone = |master: &Master, client, child| {
        hears_nothing(client);
        assert!(until(PATIENCE, || !master
            .processes("qmqpd")
            .contains(&child)));
        assert_eq!(master.incoming().1, Vec::<String>::new());
    };
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        // Master makes the next client wait a minute where a process has ended badly before it has served one.
        assert!(send(connect(port), &message()).unwrap().contains("queued"));
        let (client, _) = half_sent(connect(port), &master);
        let child = children(&master).0[0];
        kill(parent_of(child).unwrap(), signal).unwrap();
        gone(&master, client, child);
    }
    // The child's own end is a line of the log, as with each queue method.
    let (client, _) = half_sent(connect(port), &master);
    let child = children(&master).0[0];
    kill(child, Signal::SIGTERM).unwrap();
    gone(&master, client, child);
    master.wait_for_log(&format!("warning: process {child} killed by signal 15"));
    // As `postfix stop`.
    let (client, _) = half_sent(connect(port), &master);
    let child = children(&master).0[0];
    master.stop();
    gone(&master, client, child);
}

#[test]
fn a_child_that_is_killed_is_a_warning_and_a_parent_takes_its_child_along() {
    if master::is_missing("a_child_that_is_killed_is_a_warning") {
        return;
    }
    let port = master::free_port();
    let master = Master::start("", &format!("{port} inet n - n - - qmqpd"));
    let (client, _) = half_sent(connect(port), &master);
    let child = children(&master).0[0];
    let resident = parent_of(child).unwrap();
    kill(child, Signal::SIGKILL).unwrap();
    hears_nothing(client);
    let warning = format!("[{resident}]: warning: process {child} killed by signal 9");
    master.wait_for_log(&warning);
    assert!(send(connect(port), &message()).unwrap().contains("queued"));
    assert!(children(&master).1.contains(&resident));
    let trouble = master.trouble();
    assert!(
        trouble.len() == 1 && trouble[0].contains(&warning),
        "{trouble:?}"
    );

    let (client, _) = half_sent(connect(port), &master);
    let child = children(&master).0[0];
    kill(parent_of(child).unwrap(), Signal::SIGKILL).unwrap();
    hears_nothing(client);
    assert!(until(PATIENCE, || !master
        .processes("qmqpd")
        .contains(&child)));
    assert!(until(PATIENCE, || master.incoming().1.is_empty()));
}

/// The child reads the header of a proxy, and the client is the one that it names.
#[test]
fn a_proxy_names_the_client_of_a_service() {
    if master::is_missing("a_proxy_names_the_client_of_a_service") {
        return;
    }
    let port = master::free_port();
    let master = Master::start(
        "qmqpd_upstream_proxy_protocol = haproxy\nqmqpd_upstream_proxy_clients = 127.0.0.1\n\
         qmqpd_authorized_clients = 192.0.2.7\nqmqpd_peername_lookup = no\nqmqpd_error_delay = 0\n",
        &format!("127.0.0.1:{port} inet n - n - - qmqpd\nclients unix n - n - - qmqpd\n"),
    );
    let message = request(b"x\n", "s@x.example", &["r@y.example"]);
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 628\r\n";
    let behind = [&header[..], &message].concat();
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let said = send(connect(), &behind).unwrap();
    assert!(said.contains(":KOk: queued as "), "{said}");
    master.wait_for_log("disconnect from unknown[192.0.2.7]");
    let said = send(connect(), &message).unwrap();
    assert!(said.contains(":ZError: missing PROXY header"), "{said}");
    let local = UnixStream::connect(master.socket("clients")).unwrap();
    let said = send(local, &behind).unwrap();
    assert!(said.contains(":ZError: unknown may not send"), "{said}");
}
