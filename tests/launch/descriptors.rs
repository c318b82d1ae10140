//! Which descriptors a process has that has a client's first byte before it: in each mode, with each queue method, each one
//! by its name. The lists and tables are root's alone; the process has asked some of them, and has passed over others.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use crate::harness::instance::install_program;
use crate::harness::master::{self, Master, free_port, handed_over, queue_id, send, until};
use crate::harness::peers;
use crate::machine::{PATIENCE, REQUEST};

/// The first list is asked as a whole. In the second one the tables up to the client's address are.
const MAIN_CF: &str = "\
debug_peer_list = DIR/list, texthash:DIR/debug, cidr:DIR/none
qmqpd_authorized_clients = DIR/list, texthash:DIR/asked, cidr:DIR/networks, regexp:DIR/expressions,
    cdb:DIR/database, 127.0.0.1, cdb:DIR/late, texthash:DIR/late, cidr:DIR/late, regexp:DIR/late, hash:DIR/late
";

/// The files that the lists name. A cdb without a record is a directory of 256 empty tables.
const FILES: [(&str, &[u8]); 10] = [
    ("list", b"192.0.2.1\n"),
    ("debug", b"192.0.2.2 x\n"),
    ("none", b"192.0.2.0/24 x\n"),
    ("asked", b"192.0.2.3 x\n"),
    ("networks", b"192.0.2.0/24 x\n"),
    ("expressions", b"/^192/ x\n"),
    ("database.cdb", &[0; 2048]),
    ("late.cdb", &[0; 2048]),
    ("late", b"/^192/ x\n"),
    ("late.db", b""),
];

/// Takes the place of qmail-queue(8).
const QMAIL_QUEUE: &str = "#!/bin/sh\ncat >/dev/null\ncat <&1 >/dev/null\n";

/// The queue methods, and what a message takes with each of them. That it is a session of its own makes a difference with
/// the method `file` alone: another process wakes the queue manager for a child of master's.
const METHODS: [(&str, &[&str], &[&str]); 3] = [
    ("cleanup", &["cleanup"], &["cleanup"]),
    (
        "file",
        &["message", "incoming", "queue manager"],
        &["message", "incoming"],
    ),
    (
        "qmail:DIR/qmail-queue",
        &["pipe", "pipe"],
        &["pipe", "pipe"],
    ),
];

/// A socket's number, if a descriptor is one.
fn socket_of(target: &str) -> Option<&str> {
    target.strip_prefix("socket:[")?.strip_suffix(']')
}

/// What a UNIX-domain socket is, by its type and state in the kernel's list.
fn kind_of(inode: &str) -> Option<&'static str> {
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    let fields = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let found = all
        .lines()
        .map(fields)
        .find(|fields| fields.get(6).is_some_and(|own| own == inode))?;
    match (found[4].as_str(), found[5].as_str()) {
        ("0002", _) => Some("log"),
        ("0001", "03") => Some("cleanup"),
        ("0001", "01") => Some("queue manager"),
        _ => None,
    }
}

/// Each descriptor of a process by its name, sorted.
fn descriptors(pid: Pid, master: &Master) -> Vec<String> {
    let directory = format!("/proc/{pid}/fd");
    let target = |name: &str| {
        let target = fs::read_link(format!("{directory}/{name}")).unwrap();
        target.display().to_string()
    };
    let client = target("0");
    let queue = master.dir.join("queue").display().to_string();
    let name = |target: String| {
        if target == client {
            return "client".to_owned();
        }
        if let Some(inode) = socket_of(&target) {
            return kind_of(inode).unwrap_or("socket").to_owned();
        }
        match target.strip_prefix(&queue) {
            Some("/incoming") => "incoming".to_owned(),
            Some(path) if path.starts_with("/incoming/") => "message".to_owned(),
            Some(_) | None if target.starts_with("pipe:") => "pipe".to_owned(),
            Some(_) | None => target,
        }
    };
    let entries = fs::read_dir(&directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| name(target(entry.unwrap().file_name().to_str().unwrap())))
        .collect();
    names.sort_unstable();
    names
}

fn expected(method: &[&str]) -> Vec<String> {
    let common = ["client", "client", "/dev/null", "log"];
    let mut names: Vec<String> = common
        .iter()
        .chain(method)
        .map(ToString::to_string)
        .collect();
    names.sort_unstable();
    names
}

fn status_of(pid: Pid, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap_or_default().trim().to_owned()
}

/// The process of a resident one's that serves.
fn child(master: &Master) -> Option<Pid> {
    let all = master.processes("qmqpd");
    let is_child = |pid: &&Pid| {
        let parent = status_of(**pid, "PPid:").parse().map(Pid::from_raw);
        parent.is_ok_and(|parent| all.contains(&parent))
    };
    all.iter().find(is_child).copied()
}

/// Sends one byte, waits for the process to be confined, looks at its descriptors, and sends the rest.
fn look(
    mut client: impl Write + AsFd,
    master: &Master,
    server: impl Fn() -> Option<Pid>,
    expected: &[String],
    what: &str,
) {
    let clients = || master.log().matches(": client=").count();
    let before = clients();
    client.write_all(&REQUEST[..1]).unwrap();
    assert!(
        until(PATIENCE, || clients() > before),
        "{what}: {}",
        master.log()
    );
    let pid = server().unwrap();
    // Between the log line and the next read nothing is opened or closed.
    assert_eq!(descriptors(pid, master), expected, "{what}");
    let reply = send(client, &REQUEST[1..]).unwrap();
    queue_id(&reply);
    assert!(
        until(PATIENCE, || child(master).is_none()),
        "{what} goes on"
    );
}

/// Starts the program as a launcher does, on this connection.
fn launch(master: &Master, method: &str, connection: OwnedFd) -> std::process::Child {
    let mut command = Command::new(master.dir.join("daemons/qmqpd"));
    command
        .args(["-S", "-o", &format!("qmqpd_queue_method={method}")])
        .env("MAIL_CONFIG", master.dir.join("conf"))
        .stdin(connection.try_clone().unwrap())
        .stdout(Stdio::from(connection))
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn write_files(dir: &Path) {
    for (name, content) in FILES {
        fs::write(dir.join(name), content).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(dir.join("draft"), QMAIL_QUEUE).unwrap();
    install_program(&dir.join("draft"), &dir.join("qmail-queue"));
}

#[test]
fn a_confined_process_has_the_client_the_log_and_its_message() {
    if master::is_missing("a_confined_process_has_the_client_the_log_and_its_message") {
        return;
    }
    let ports = METHODS.map(|_| free_port());
    let services = METHODS.iter().zip(ports).enumerate();
    let lines = services.map(|(at, ((method, ..), port))| {
        let run = format!("n - n - - qmqpd -o qmqpd_queue_method={method}");
        format!("127.0.0.1:{port} inet {run}\nunix-{at} unix {run}\npass-{at} pass {run}\n")
    });
    let master = Master::start_with(MAIN_CF, &lines.collect::<String>(), write_files);
    for (at, ((method, launched, resident), port)) in METHODS.into_iter().zip(ports).enumerate() {
        let method = method.replace("DIR", &master.dir.display().to_string());
        let (tcp, tcp_server) = peers::tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), false);
        let (unix, unix_server) = UnixStream::pair().unwrap();
        for (client, server) in [
            (OwnedFd::from(tcp), OwnedFd::from(tcp_server)),
            (unix.into(), unix_server.into()),
        ] {
            let mut server = launch(&master, &method, server);
            let pid = Pid::from_raw(i32::try_from(server.id()).unwrap());
            let what = format!("{method}, launched");
            look(
                fs::File::from(client),
                &master,
                || Some(pid),
                &expected(launched),
                &what,
            );
            assert!(server.wait().unwrap().success());
        }
        let resident = expected(resident);
        let find = || child(&master);
        let inet = TcpStream::connect(("127.0.0.1", port)).unwrap();
        look(inet, &master, find, &resident, &format!("{method}, inet"));
        let unix = UnixStream::connect(master.socket(&format!("unix-{at}"))).unwrap();
        look(unix, &master, find, &resident, &format!("{method}, unix"));
        let pass = handed_over(&master.socket(&format!("pass-{at}")));
        look(pass, &master, find, &resident, &format!("{method}, pass"));
    }
}
