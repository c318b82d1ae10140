//! Whether an early reply arrives: the client has not been listened to, and is still sending.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::harness::dialogue::at_once;
use crate::harness::server::{Server, why_no_postfix};
use crate::harness::{self, peers};
use crate::machine::{How, Machine, PATIENCE, User, tell};

/// How many times each reply is tried.
const TIMES: usize = 100;

/// How many times Postfix is, for comparison.
const TIMES_POSTFIX: usize = 20;

const CONTENT: usize = 20_000_000;

/// A client that has no business here, or no manners.
struct Offence {
    name: &'static str,
    from: &'static str,
    request: Vec<u8>,
    text: &'static str,
}

impl Offence {
    fn reply(&self) -> Vec<u8> {
        format!("{}:{},", self.text.len(), self.text).into_bytes()
    }
}

fn offences() -> [Offence; 3] {
    let content = vec![b'x'; CONTENT];
    let request = |message: &[u8]| {
        let inner = [message, b"11:s@x.example,11:r@y.example,"].concat();
        [format!("{}:", inner.len()).as_bytes(), &inner, b","].concat()
    };
    let whole = [format!("{CONTENT}:").as_bytes(), &content, b","].concat();
    [
        Offence {
            name: "unauthorized",
            from: "127.0.0.9",
            request: request(&whole),
            text: "DError: unknown[127.0.0.9] is not authorized to use this service",
        },
        Offence {
            name: "malformed",
            from: "127.0.0.1",
            request: request(&content),
            text: "Dnetstring format error while receiving message content",
        },
        Offence {
            name: "oversize",
            from: "127.0.0.1",
            request: request(&whole),
            text: "Dnetstring length exceeds storage limit while receiving message content",
        },
    ]
}

/// Sends everything, or up to the first error; then listens. The reply, and whether there was an error.
fn send_then_read(mut client: &TcpStream, request: &[u8]) -> (Vec<u8>, bool) {
    let stopped = client.write_all(request).is_err();
    let mut reply = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return (reply, stopped),
            Ok(length) => reply.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no end of the reply"),
            Err(_) => return (reply, stopped),
        }
    }
}

/// How many replies arrive, and how many clients could send everything.
fn count(server: Server, offence: &Offence, times: usize) -> (usize, usize) {
    let machine = Machine::new(&["qmqpd_peername_lookup = no"]);
    let cleanup = machine.cleanup(&[]);
    let how = How {
        server,
        arguments: &["-S"],
        user: User::Owner,
        ..How::default()
    };
    let (arrived, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
    at_once(times, |_| {
        let (client, inner) = peers::tcp(offence.from.parse().unwrap(), false);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        let inner = OwnedFd::from(inner);
        let mut command = machine.command(&how);
        command.stdin(inner.try_clone().unwrap()).stdout(inner);
        let mut child = command.spawn().unwrap();
        drop(command);
        let (reply, stopped) = send_then_read(&client, &offence.request);
        arrived.fetch_add(usize::from(reply == offence.reply()), Relaxed);
        sent.fetch_add(usize::from(!stopped), Relaxed);
        drop(client);
        child.wait().unwrap();
    });
    cleanup.finish();
    machine.log.finish();
    (arrived.into_inner(), sent.into_inner())
}

#[test]
fn an_early_reply_reaches_a_client_that_is_still_sending() {
    for offence in offences() {
        let begin = Instant::now();
        let (arrived, sent) = count(Server::Ours, &offence, TIMES);
        let took = begin.elapsed();
        let name = offence.name;
        tell(&format!(
            "{name}: {arrived} of {TIMES} replies arrived, in {took:.1?}"
        ));
        // Whether a client reads at its first error or after it has sent everything is the same: there is no error.
        assert_eq!((arrived, sent), (TIMES, TIMES), "{name}");
    }
}

/// For comparison only: what Postfix does is not ours to judge. Its clients see an error while they send, and those
/// that give up then do not find the reply that may be waiting for them.
#[test]
fn how_many_early_replies_of_postfix_arrive() {
    if let Some(reason) = why_no_postfix() {
        return harness::skip("how_many_early_replies_of_postfix_arrive", reason);
    }
    for offence in offences() {
        let (arrived, sent) = count(Server::Postfix, &offence, TIMES_POSTFIX);
        let name = offence.name;
        tell(&format!(
            "{name}: {arrived} of {TIMES_POSTFIX} replies of Postfix arrived, {sent} clients could send everything"
        ));
    }
}

/// Past the limit of the drain the process ends, whatever the client wants.
#[test]
fn a_client_that_sends_without_end_is_left() {
    let machine = Machine::new(&["qmqpd_authorized_clients ="]);
    let session = machine.start_tcp(&How::default(), "127.0.0.1");
    let mut client = &session.client;
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while client.write_all(&piece).is_ok() {
        sent += 1;
        assert!(sent < 200, "the server reads without end");
    }
    tell(&format!("a refused client could send {sent} MiB"));
    assert!(sent >= 64, "the server has read only {sent} MiB");
}
