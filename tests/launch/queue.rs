//! Messages of real clients in the queue of a real Postfix: through our program, and through Postfix's own.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::instance::{install_program, mail_owner};
use crate::harness::master::{Master, is_missing, queue_id, request, send, until};
use crate::harness::outcome::NO_NAME;
use crate::harness::server::{POSTFIX_QMQPD, Server};
use crate::harness::{self, peers};
use crate::machine::PATIENCE;

const SENDER: &str = "sender@client.example";
const RECIPIENT: &str = "recipient@elsewhere.example";

/// tcpserver(1) in front of one of the two programs.
struct Listener {
    child: Child,
    port: u16,
}

impl Listener {
    /// Debian's tcpserver, told to give the server its user if that cannot leave root by itself.
    fn start(master: &Master, server: Server) -> Listener {
        let owner = mail_owner().unwrap();
        let mut command = Command::new("tcpserver");
        command.args(["-1", "-H", "-R", "-l", "localhost"]);
        if server == Server::Postfix {
            command.args(["-u", &owner.uid.to_string(), "-g", &owner.gid.to_string()]);
        }
        command
            .args(["127.0.0.1", "0"])
            .arg(program(master, server))
            .arg("-S")
            .env("MAIL_CONFIG", master.dir.join("conf"))
            .env_remove("POSTLOG_SERVICE")
            .current_dir(master.dir.join("queue"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        Listener { child, port }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Both under one name: it stands in log lines.
fn program(master: &Master, server: Server) -> PathBuf {
    match server {
        Server::Ours => master.dir.join("ours/qmqpd"),
        Server::Postfix => POSTFIX_QMQPD.into(),
    }
}

/// Postfix without a qmqpd of its own, and a copy of ours that mail_owner can run.
fn start_postfix() -> Master {
    Master::start_with("", "", |dir| {
        fs::create_dir(dir.join("ours")).unwrap();
        install_program(
            env!("CARGO_BIN_EXE_qmqpd").as_ref(),
            &dir.join("ours/qmqpd"),
        );
    })
}

/// A client that sends one message to a port.
type Client = fn(u16, &Path);

const CLIENTS: &[(&str, Client)] = &[
    ("qmqp-source", qmqp_source),
    ("nullmailer", nullmailer),
    ("a list's own sender", by_hand),
];

fn qmqp_source(port: u16, _: &Path) {
    let status = Command::new("qmqp-source")
        .args(["-f", SENDER, "-t", RECIPIENT, "-l", "5000", "-m", "1"])
        .args(["-M", "client.example"])
        .arg(format!("inet:127.0.0.1:{port}"))
        .status()
        .unwrap();
    assert!(status.success());
}

/// What nullmailer(7) wants of a protocol module: options on standard input, the queue file on descriptor 3.
fn nullmailer(port: u16, dir: &Path) {
    let Some(program) = env::var_os("QMQPD_NULLMAILER").filter(|path| Path::new(path).exists())
    else {
        // The test names it as not run.
        return by_hand(port, dir);
    };
    let file = dir.join("nullmailer-message");
    let content = "From: a <sender@client.example>\nTo: b\nSubject: from nullmailer\n\nHello.\nFrom here on.\n.\n";
    let message = format!("{SENDER}\n{RECIPIENT}\nsecond@elsewhere.example\n\n{content}");
    fs::write(&file, message).unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$1\" 3<\"$2\"", "sh"])
        .args([Path::new(&program), &file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let options = format!("host=127.0.0.1\nport={port}\n\n");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(options.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A sender that asks for one return address per recipient, and two recipients.
fn by_hand(port: u16, _: &Path) {
    let content = b"Received: from a\n\tby b; Sun, 22 Nov 2026 10:00:00 +0000\nSubject: list\n\n.\nFrom x\n\xff\0\r\nend";
    let request = request(
        content,
        "list-@lists.example-@[]",
        &[RECIPIENT, "\"two words\"@x.example"],
    );
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let reply = send(stream, &request).unwrap();
    assert!(reply.contains("KOk: queued as "), "{reply}");
}

/// What one message has left: the queue file, and the lines that the two programs have logged about it.
fn left(master: &Master, deliver: impl FnOnce()) -> (String, Vec<String>) {
    let (before, _) = master.incoming();
    let logged = master.log().lines().count();
    deliver();
    let new = || -> Vec<String> {
        let (names, _) = master.incoming();
        names
            .into_iter()
            .filter(|name| !before.contains(name))
            .collect()
    };
    assert!(
        until(PATIENCE, || !new().is_empty()),
        "no message: {}",
        master.log()
    );
    let id = new().remove(0);
    let lines = || -> Vec<String> {
        let log = master.log();
        let lines = log
            .lines()
            .skip(logged)
            .filter(|line| !line.contains(NO_NAME))
            .filter_map(|line| line.split_once("/qmqpd["));
        lines
            .map(|(_, rest)| rest.split_once("]: ").unwrap().1.replace(&id, "ID"))
            .collect()
    };
    let ended = || {
        lines()
            .iter()
            .any(|line| line.starts_with("disconnect from "))
    };
    assert!(until(PATIENCE, ended), "{}", master.log());
    (master.postcat(&id), lines())
}

#[test]
fn messages_of_real_clients_are_queued_as_by_postfix() {
    let test = "messages_of_real_clients_are_queued_as_by_postfix";
    if is_missing(test) {
        return;
    }
    if !Path::new("/usr/bin/tcpserver").exists() {
        return harness::skip(test, "tcpserver is not installed");
    }
    if !env::var_os("QMQPD_NULLMAILER").is_some_and(|path| Path::new(&path).exists()) {
        harness::skip(test, "no nullmailer at $QMQPD_NULLMAILER");
    }
    let master = start_postfix();
    let listeners = [Server::Ours, Server::Postfix].map(|server| Listener::start(&master, server));
    for (name, client) in CLIENTS {
        let [ours, theirs] = [0, 1].map(|which| {
            let port = listeners[which].port;
            left(&master, || client(port, &master.dir))
        });
        assert_eq!(ours, theirs, "{name}");
        assert!(
            ours.0
                .contains("named_attribute: log_client_address=127.0.0.1\n"),
            "{}",
            ours.0
        );
    }
    let trouble = master.trouble();
    assert!(trouble.is_empty(), "{trouble:?}");
}

/// Hands a connection to one of the two programs, as a launcher without a name would.
fn serve(master: &Master, server: Server, from: &str) -> TcpStream {
    let (client, inner) = peers::tcp(from.parse().unwrap(), false);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let inner = OwnedFd::from(inner);
    let mut command = Command::new(program(master, server));
    let owner = mail_owner().unwrap();
    std::os::unix::process::CommandExt::uid(&mut command, owner.uid.as_raw());
    std::os::unix::process::CommandExt::gid(&mut command, owner.gid.as_raw());
    let child = command
        .arg("-S")
        .env("MAIL_CONFIG", master.dir.join("conf"))
        .env_remove("POSTLOG_SERVICE")
        .current_dir(master.dir.join("queue"))
        .stdin(inner.try_clone().unwrap())
        .stdout(inner)
        .stderr(File::create(master.dir.join("stderr")).unwrap())
        .spawn()
        .unwrap();
    std::thread::spawn(move || child.wait_with_output());
    client
}

#[test]
fn messages_by_ipv6_are_queued_as_by_postfix() {
    if is_missing("messages_by_ipv6_are_queued_as_by_postfix") {
        return;
    }
    let master = start_postfix();
    let message = request(b"Subject: six\n\nb\n", "", &[RECIPIENT]);
    let [ours, theirs] = [Server::Ours, Server::Postfix].map(|server| {
        left(&master, || {
            let reply = send(serve(&master, server, "::1"), &message).unwrap();
            queue_id(&reply);
        })
    });
    assert_eq!(ours, theirs);
    assert!(ours.0.contains("[IPv6:::1]"), "{}", ours.0);
}

#[test]
fn a_refused_client_leaves_nothing_in_the_queue() {
    if is_missing("a_refused_client_leaves_nothing_in_the_queue") {
        return;
    }
    let master = start_postfix();
    let message = request(b"Subject: no\n\nb\n", SENDER, &[RECIPIENT]);
    let reply = send(serve(&master, Server::Ours, "127.0.0.9"), &message).unwrap();
    let text = "DError: unknown[127.0.0.9] is not authorized to use this service";
    assert_eq!(reply, format!("{}:{text},", text.len()));
    master.wait_for_log("disconnect from unknown[127.0.0.9]");
    master.wait_for_log(&format!(
        "NOQUEUE: reject: CONNECT from unknown[127.0.0.9]: {}",
        &text[1..]
    ));
    assert_eq!(master.incoming(), (Vec::new(), Vec::new()));
    // A malformed request has been given a queue file, which goes with it.
    let reply = send(serve(&master, Server::Ours, "127.0.0.1"), b"9:nonsense,").unwrap();
    assert_eq!(
        reply,
        "55:Dnetstring format error while receiving message content,"
    );
    let empty = || master.incoming() == (Vec::new(), Vec::new());
    assert!(
        until(Duration::from_secs(5), empty),
        "{:?}",
        master.incoming()
    );
}
