//! Behind a proxy: the client that the PROXY header names, and connections on which no proxy names one.

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::cleanup::Item;
use crate::harness::patience::output_of;
use crate::harness::peers;
use crate::machine::{ACCEPTED, How, Machine, PATIENCE, REQUEST, Session};

const PROXY: &str = "127.0.0.3";
const V4: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 628\r\n";
const V6: &[u8] = b"PROXY TCP6 2001:db8::7 ::1 56324 628\r\n";
const UNLISTED: &[u8] = b"PROXY TCP4 127.0.0.1 127.0.0.1 56324 628\r\n";
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\xdc\x04\x02\x74";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x03\x04\0\0";
const UNIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\0";

/// A main.cf with this list of proxies.
fn behind(proxies: &str, more: &[&str]) -> Machine {
    let proxies = format!("qmqpd_upstream_proxy_clients = {proxies}");
    let mut conf = vec![
        "qmqpd_upstream_proxy_protocol = haproxy",
        &proxies,
        "qmqpd_authorized_clients = 192.0.2.7, [2001:db8::7], 127.0.0.3",
        "qmqpd_peername_lookup = no",
        "qmqpd_error_delay = 0",
        "qmqpd_client_port_logging = yes",
    ];
    conf.extend(more);
    Machine::new(&conf)
}

fn behind_a_proxy(more: &[&str]) -> Machine {
    behind("127.0.0.3, .example", more)
}

fn start(machine: &Machine, from: &str, first: &[u8]) -> Session {
    let mut session = machine.start_tcp(&How::default(), from);
    session.send(first);
    session
}

fn text_of(item: &Item) -> String {
    match item {
        Item::Record(_, bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other @ (Item::Flags(_) | Item::Garbage(_) | Item::Eof) => format!("{other:?}"),
    }
}

#[test]
fn the_client_is_the_one_that_the_proxy_names() {
    for (header, shown, for_cleanup) in [
        (V4, "unknown[192.0.2.7]:56324", "192.0.2.7"),
        (BINARY, "unknown[192.0.2.7]:56324", "192.0.2.7"),
        (V6, "unknown[2001:db8::7]:56324", "IPv6:2001:db8::7"),
    ] {
        let machine = behind_a_proxy(&[]);
        let cleanup = machine.cleanup(&[]);
        let mut session = start(&machine, PROXY, &[header, REQUEST].concat());
        assert_eq!(session.reply(PATIENCE), ACCEPTED);
        assert_eq!(session.exit(), "0");
        let records: Vec<String> = cleanup.finish().iter().map(text_of).collect();
        let received = format!("Received: from unknown (unknown [{for_cleanup}])");
        assert!(records.contains(&received), "{records:?}");
        assert!(!records.concat().contains(PROXY), "{records:?}");
        let log = machine.finish(&session);
        assert_eq!(log[0], format!("connect from {shown}"));
    }
}

/// Each with what is sent first, from where, and what is logged and, after `Error: `, answered.
const NOBODY: &[(&[u8], &str, &str)] = &[
    (REQUEST, PROXY, "missing PROXY header"),
    (
        b"PROXY TCP4 localhost localhost 1 2\r\n",
        PROXY,
        "malformed PROXY header",
    ),
    (UNIX, PROXY, "PROXY header without a client's address"),
    (V4, "127.0.0.1", "127.0.0.1 may not send a PROXY header"),
    (
        REQUEST,
        "127.0.0.1",
        "127.0.0.1 may not send a PROXY header",
    ),
];

#[test]
fn a_client_that_no_proxy_names_is_told_to_try_later() {
    for (first, from, why) in NOBODY {
        let machine = behind_a_proxy(&[]);
        let mut session = start(&machine, from, first);
        let text = format!("ZError: {why}");
        assert_eq!(session.reply(PATIENCE), format!("{}:{text},", text.len()));
        assert_eq!(session.exit(), "0");
        let line = format!("warning: NOQUEUE: unknown[{from}]: Error: {why}");
        assert_eq!(machine.finish(&session), [line]);
    }
}

/// A UNIX-domain socket or a pipe is no proxy's, even if the environment names a client.
#[test]
fn localhost_is_no_proxy() {
    let machine = behind("127.0.0.1, 0.0.0.0/0", &[]);
    let how = How {
        env: &[("TCPREMOTEIP", "127.0.0.1")],
        ..How::default()
    };
    let mut session = machine.start(&how);
    session.send(&[V4, REQUEST].concat());
    let why = "unknown may not send a PROXY header";
    let text = format!("ZError: {why}");
    assert_eq!(session.reply(PATIENCE), format!("{}:{text},", text.len()));
    session.exit();
    let line = format!("warning: NOQUEUE: unknown[unknown]: Error: {why}");
    assert_eq!(machine.finish(&session), [line]);
}

#[test]
fn without_a_list_nobody_is_a_proxy() {
    let machine = behind("", &[]);
    let session = start(&machine, PROXY, V4);
    let reply = session.reply(PATIENCE);
    assert!(reply.contains(":ZError: 127.0.0.3 may not send"), "{reply}");
}

#[test]
fn a_header_that_names_a_stranger_lets_nobody_in() {
    let machine = behind_a_proxy(&[]);
    let session = start(&machine, PROXY, UNLISTED);
    let reply = session.reply(PATIENCE);
    let refused = ":DError: unknown[127.0.0.1]:56324 is not authorized to use this service,";
    assert!(reply.ends_with(refused), "{reply}");
}

#[test]
fn a_late_or_cut_header_is_for_later() {
    for (is_cut, why) in [
        (false, "timeout while receiving PROXY header"),
        (true, "lost connection while receiving PROXY header"),
    ] {
        let machine = behind_a_proxy(&["qmqpd_upstream_proxy_timeout = 1s"]);
        let mut session = start(&machine, PROXY, &V4[..20]);
        if is_cut {
            session.exit();
        }
        let reply = session.reply(PATIENCE);
        assert!(reply.ends_with(&format!(":ZError: {why},")), "{reply}");
        session.exit();
        let log = machine.finish(&session);
        assert!(log[0].ends_with(why) && log.len() == 1, "{log:?}");
    }
}

/// The limit is for the whole header, and bytes that drip in do not renew it.
#[test]
fn a_dripping_header_has_the_same_time() {
    let machine = behind_a_proxy(&["qmqpd_upstream_proxy_timeout = 2s"]);
    let session = start(&machine, PROXY, &V4[..1]);
    let mut client = session.client.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        for byte in V4[1..].iter().take(40) {
            thread::sleep(Duration::from_millis(300));
            if client.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let reply = session.reply(PATIENCE);
    let elapsed = session.started.elapsed();
    assert!(reply.contains("ZError: timeout"), "{reply}");
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
    drop(session);
    dripping.join().unwrap();
}

#[test]
fn a_health_check_is_served_in_silence() {
    for (header, level) in [(LOCAL, None), (b"PROXY UNKNOWN\r\n".as_slice(), Some("-v"))] {
        let machine = behind_a_proxy(&[]);
        let arguments: Vec<&str> = level.into_iter().collect();
        let how = How {
            arguments: &arguments,
            ..How::default()
        };
        let mut session = machine.start_tcp(&how, PROXY);
        session.send(header);
        assert_eq!(session.reply(PATIENCE), "");
        assert_eq!(session.end(), "0");
        let log = machine.finish(&session);
        let line = "proxy 127.0.0.3 checks the service".to_owned();
        assert_eq!(log.contains(&line), level.is_some(), "{log:?}");
        assert!(level.is_some() || log.is_empty(), "{log:?}");
    }
}

fn lines_of(machine: Machine) -> Vec<String> {
    let lines = machine.log.finish();
    let texts = lines.iter().map(|line| String::from_utf8_lossy(line));
    texts.map(|line| line.into_owned()).collect()
}

/// So HAProxy ends a check that only tries to connect.
#[test]
fn a_connection_that_has_been_reset_is_served_in_silence() {
    for level in [None, Some("-v")] {
        let machine = behind_a_proxy(&[]);
        let (client, server) = peers::tcp(PROXY.parse().unwrap(), false);
        setsockopt(&client, sockopt::Linger, &peers::NO_LINGER).unwrap();
        drop(client);
        let arguments: Vec<&str> = level.into_iter().collect();
        let how = How {
            arguments: &arguments,
            ..How::default()
        };
        let server = OwnedFd::from(server);
        let child = machine.command(&how).stdin(server).spawn().unwrap();
        assert!(output_of(child).status.success());
        let said = lines_of(machine);
        let is_said = said
            .iter()
            .any(|line| line.ends_with("connection reset before the PROXY header"));
        assert_eq!(is_said, level.is_some(), "{said:?}");
        assert!(level.is_some() || said.is_empty(), "{said:?}");
    }
}

#[test]
fn a_listening_socket_is_no_proxy() {
    let machine = behind_a_proxy(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = machine
        .command(&How::default())
        .stdin(OwnedFd::from(listener))
        .spawn()
        .unwrap();
    assert_eq!(output_of(child).status.code(), Some(1));
    let said = lines_of(machine);
    assert!(
        said[0].contains("fatal: standard input is a listening socket"),
        "{said:?}"
    );
}
