//! Behind a proxy: the client that the PROXY header names is the one that is counted.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};

use nix::sys::signal::Signal;

use crate::harness::launchers::reply;
use crate::harness::patience::{PATIENCE, until};
use crate::launcher::{Launcher, finish, message, sees_descriptors, signal, wait_for_end};

const CONF: [&str; 3] = [
    "qmqpd_upstream_proxy_protocol = haproxy",
    "qmqpd_upstream_proxy_clients = 127.0.0.1",
    "qmqpd_authorized_clients = 192.0.2.0/24, [2001:db8::]/32",
];

/// LOCAL of version 2.
const CHECK: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn start(limit: &str) -> Launcher {
    let limit = format!("qmqpd_client_connection_count_limit = {limit}");
    Launcher::start(&[&CONF[..], &[&limit]].concat())
}

/// A connection that the proxy passes on for this client.
fn connect(launcher: &Launcher, client: &str) -> TcpStream {
    let address: IpAddr = client.parse().unwrap();
    let (family, own) = match address {
        IpAddr::V4(_) => ("TCP4", "192.0.2.10"),
        IpAddr::V6(_) => ("TCP6", "2001:db8::10"),
    };
    let mut stream = launcher.connect();
    let header = format!("PROXY {family} {client} {own} 56324 628\r\n");
    stream.write_all(header.as_bytes()).unwrap();
    stream
}

/// A session in progress.
fn begin(launcher: &Launcher, client: &str) -> TcpStream {
    let begun = launcher.count_in_log("client=");
    let mut stream = connect(launcher, client);
    stream.write_all(&message()[..20]).unwrap();
    let is_received = until(PATIENCE, || launcher.count_in_log("client=") > begun);
    assert!(is_received, "{}", launcher.log());
    stream
}

fn send(launcher: &Launcher, client: &str) -> String {
    reply(connect(launcher, client), &message())
}

fn is_accepted(said: &str) -> bool {
    said.contains(":KOk: queued as ")
}

#[test]
fn the_client_that_a_proxy_names_has_its_share_and_hears_z_past_it() {
    let launcher = start("2");
    let mut sessions: Vec<TcpStream> = (0..2).map(|_| begin(&launcher, "192.0.2.7")).collect();
    for _ in 0..5 {
        let said = send(&launcher, "192.0.2.7");
        assert_eq!(said, "43:ZError: too many connections from 192.0.2.7,");
    }
    // The proxy has these two as well, and is not counted.
    sessions.extend((0..2).map(|_| begin(&launcher, "192.0.2.8")));
    launcher.wait_for_log(
        "warning: too many connections from 192.0.2.7: it has 2, and 1 more",
        "",
    );
    assert_eq!(launcher.count_in_log("too many connections"), 1);
    // A place that is free again is free for it.
    assert!(is_accepted(&finish(sessions.remove(0))));
    assert!(until(PATIENCE, || launcher.children().len() == 3));
    assert!(is_accepted(&send(&launcher, "192.0.2.7")));
    for session in sessions {
        assert!(is_accepted(&finish(session)));
    }
    assert_eq!(launcher.queued(), 5);
    assert_eq!(launcher.processes().len(), 1, "{}", launcher.log());
}

#[test]
fn a_named_host_with_a_network_of_ipv6_has_one_share() {
    let launcher = start("3");
    let sessions: Vec<TcpStream> = (1..=3)
        .map(|host| begin(&launcher, &format!("2001:db8::{host}")))
        .collect();
    let said = send(&launcher, "2001:db8::4:5:6:7");
    assert!(
        said.contains(":ZError: too many connections from 2001:db8::4:5:6:7,"),
        "{said}"
    );
    launcher.wait_for_log("too many connections from 2001:db8::/64: it has 3", "");
    assert!(is_accepted(&send(&launcher, "2001:db8:0:1::1")));
    for session in sessions {
        assert!(is_accepted(&finish(session)));
    }
}

/// An IPv4 client is the same one, in whichever form a proxy names it.
#[test]
fn an_ipv4_client_is_one_in_both_forms() {
    let launcher = start("1");
    let session = begin(&launcher, "::ffff:192.0.2.7");
    let said = send(&launcher, "192.0.2.7");
    assert!(said.contains(":ZError: too many connections"), "{said}");
    assert!(is_accepted(&finish(session)));
}

#[test]
fn connections_without_a_client_are_not_counted_and_keep_none_waiting() {
    let launcher = start("1");
    let silent: Vec<TcpStream> = (0..5).map(|_| launcher.connect()).collect();
    for _ in 0..3 {
        let mut check = launcher.connect();
        check.write_all(CHECK).unwrap();
        let mut said = Vec::new();
        check.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"");
    }
    assert!(is_accepted(&send(&launcher, "192.0.2.7")));
    drop(silent);
    assert!(until(PATIENCE, || launcher.children().is_empty()));
    assert_eq!(launcher.count_in_log("too many"), 0, "{}", launcher.log());
}

/// Nothing is asked where there is no limit.
#[test]
fn without_a_limit_no_named_client_is_turned_away() {
    let launcher = start("0");
    let sessions: Vec<TcpStream> = (0..50).map(|_| begin(&launcher, "192.0.2.7")).collect();
    for session in sessions {
        assert!(is_accepted(&finish(session)));
    }
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// When a message is received, nothing is left of the question on either side.
#[test]
fn nothing_is_kept_of_a_question() {
    if !sees_descriptors("nothing_is_kept_of_a_question") {
        return;
    }
    let without = Launcher::start(&[]);
    let (client, child) = without.begin();
    let usual = (descriptors(child), descriptors(without.resident()));
    let launcher = start("40");
    let sessions: Vec<TcpStream> = (0..5).map(|_| begin(&launcher, "192.0.2.7")).collect();
    let children = launcher.children();
    assert_eq!(children.len(), 5);
    for child in children {
        assert_eq!(descriptors(child), usual.0);
    }
    assert_eq!(descriptors(launcher.resident()), usual.1);
    assert!(is_accepted(&finish(client)));
    for session in sessions {
        assert!(is_accepted(&finish(session)));
    }
}

/// The next process does not know of it, and this one is no longer there.
#[test]
fn a_child_whose_process_has_gone_serves_the_client() {
    let launcher = start("1");
    let mut late = launcher.connect();
    assert!(until(PATIENCE, || launcher.children().len() == 1));
    let resident = launcher.resident();
    signal(resident, Signal::SIGHUP);
    wait_for_end(resident);
    late.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.10 1 628\r\n")
        .unwrap();
    assert!(is_accepted(&reply(late, &message())));
}

/// Its children wait for an answer, and the others in the line for a child.
#[test]
fn at_the_limit_of_processes_questions_are_answered() {
    let launcher = Launcher::start(&[&CONF[..], &["qmqpd_process_limit = 2"]].concat());
    let clients: Vec<TcpStream> = (1..=6)
        .map(|host| connect(&launcher, &format!("192.0.2.{host}")))
        .collect();
    for client in clients {
        assert!(is_accepted(&reply(client, &message())));
    }
}
