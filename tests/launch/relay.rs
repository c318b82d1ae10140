//! socat, ncat and stunnel, which stand between the program and a client of the network.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::harness;
use crate::harness::launchers::{connect_from, program};
use crate::harness::master::{free_port, until};
use crate::machine::{ACCEPTED, How, Machine, PATIENCE, REQUEST};

const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// In 127.0.0.0/8, and not in the list.
const STRANGER: [u8; 4] = [127, 0, 0, 2];

/// Commands of a shell that listen at `$PORT` for IPv4 or for both families, the program being `$1`.
const IPV4: &[&str] = &[
    "socat TCP4-LISTEN:$PORT,fork,reuseaddr,bind=127.0.0.1 EXEC:$1",
    "socat TCP4-LISTEN:$PORT,fork,reuseaddr,bind=127.0.0.1 EXEC:$1,pipes",
    "socat TCP4-LISTEN:$PORT,fork,reuseaddr,bind=127.0.0.1 EXEC:$1,nofork",
    "socat TCP4-LISTEN:$PORT,fork,reuseaddr,bind=127.0.0.1 SYSTEM:$1",
    "ncat -k -l 127.0.0.1 $PORT -e $1",
    "ncat -k -l 127.0.0.1 $PORT -c $1",
];
const BOTH: &[&str] = &[
    "socat TCP6-LISTEN:$PORT,fork,reuseaddr,ipv6-v6only=0 EXEC:$1",
    "socat TCP6-LISTEN:$PORT,fork,reuseaddr,ipv6-v6only=0 EXEC:$1,pipes",
    "ncat -k -l $PORT -e $1",
];

/// At the path `$AT`.
const UNIX: &[&str] = &[
    "socat UNIX-LISTEN:$AT,fork EXEC:$1",
    "socat UNIX-LISTEN:$AT,fork EXEC:$1,pipes",
    "socat UNIX-LISTEN:$AT,fork EXEC:$1,nofork",
    "ncat -k -U -l $AT -e $1",
];

/// A relay that listens. It ends with the value, and its programs with their connections.
struct Relay {
    machine: Machine,
    child: Child,
    port: u16,
}

impl Relay {
    fn start(command: &str, env: &[(&str, &str)]) -> Relay {
        Relay::start_script(&format!("exec {command}"), env)
    }

    /// Runs lines of the shell that end in the relay.
    fn start_script(lines: &str, env: &[(&str, &str)]) -> Relay {
        let machine = Machine::new(&[
            "qmqpd_authorized_clients = 127.0.0.1",
            "qmqpd_peername_lookup = no",
            "qmqpd_error_delay = 0",
        ]);
        let port = free_port();
        let at = machine.instance.dir.join("relay").display().to_string();
        let script = format!("PORT={port} AT={at}\n{lines}");
        let how = How {
            through: &["sh", "-c", &script, "sh"],
            env,
            ..How::default()
        };
        let child = machine.command(&how).spawn().unwrap();
        Relay {
            machine,
            child,
            port,
        }
    }

    fn path(&self) -> PathBuf {
        self.machine.instance.dir.join("relay")
    }

    /// Returns when somebody listens; the log says so of the client that asked.
    fn wait_for(&self, connect: impl Fn() -> bool) {
        assert!(until(PATIENCE, connect), "nothing listens");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_missing(test: &str) -> bool {
    for name in ["socat", "ncat"] {
        if program(name).is_none() {
            harness::skip(test, &format!("{name} is not installed"));
            return true;
        }
    }
    false
}

/// What is said up to the comma of the reply's netstring. A relay may keep the connection after that.
fn reply(mut client: impl Read + Write, request: &[u8]) -> String {
    client.write_all(request).unwrap();
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b",") && client.read(&mut byte).unwrap() == 1 {
        said.push(byte[0]);
    }
    String::from_utf8(said).unwrap()
}

fn refusal(client: &str) -> String {
    let text = format!("DError: {client} is not authorized to use this service");
    format!("{}:{text},", text.len())
}

#[test]
fn a_client_of_the_network_behind_a_relay_has_its_own_address() {
    if is_missing("a_client_of_the_network_behind_a_relay_has_its_own_address") {
        return;
    }
    for command in IPV4.iter().chain(BOTH) {
        let relay = Relay::start(command, &[]);
        let cleanup = relay.machine.cleanup(&[]);
        relay.wait_for(|| TcpStream::connect(("127.0.0.1", relay.port)).is_ok());
        let said = |from| reply(connect_from(from, relay.port), REQUEST);
        assert_eq!(said(STRANGER), refusal("unknown[127.0.0.2]"), "{command}");
        assert_eq!(said(LOCALHOST), ACCEPTED, "{command}");
        if BOTH.contains(command) {
            let client = TcpStream::connect((Ipv6Addr::LOCALHOST, relay.port)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let said = reply(client, REQUEST);
            assert_eq!(said, refusal("unknown[::1]"), "{command}");
        }
        cleanup.finish();
    }
}

#[test]
fn a_client_of_a_relay_on_a_unix_domain_socket_is_localhost() {
    if is_missing("a_client_of_a_relay_on_a_unix_domain_socket_is_localhost") {
        return;
    }
    for command in UNIX {
        let relay = Relay::start(command, &[]);
        let cleanup = relay.machine.cleanup(&[]);
        let connect = || UnixStream::connect(relay.path());
        relay.wait_for(|| connect().is_ok());
        let client = connect().unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(reply(client, REQUEST), ACCEPTED, "{command}");
        cleanup.finish();
    }
}

/// What openssl says of a reply to a request from this address.
fn over_tls(from: &str, port: u16) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-bind", from, "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(REQUEST).unwrap();
    let mut said = Vec::new();
    let mut byte = [0];
    let mut output = client.stdout.take().unwrap();
    while !said.ends_with(b",") && output.read(&mut byte).unwrap() == 1 {
        said.push(byte[0]);
    }
    drop(input);
    drop(client.kill());
    client.wait().unwrap();
    String::from_utf8(said).unwrap()
}

const STUNNEL: &str = "\
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=relay -keyout $AT.key -out $AT.pem 2>/dev/null || exit
printf '%s\\n' foreground=yes pid= [qmqp] accept=127.0.0.1:$PORT cert=$AT.pem key=$AT.key exec=$1 >$AT.conf
exec stunnel4 $AT.conf";

#[test]
fn a_client_of_stunnel_has_its_own_address() {
    let test = "a_client_of_stunnel_has_its_own_address";
    for name in ["stunnel4", "openssl"] {
        if program(name).is_none() {
            return harness::skip(test, &format!("{name} is not installed"));
        }
    }
    let relay = Relay::start_script(STUNNEL, &[]);
    let cleanup = relay.machine.cleanup(&[]);
    relay.wait_for(|| TcpStream::connect(("127.0.0.1", relay.port)).is_ok());
    let refused = over_tls("127.0.0.2", relay.port);
    assert_eq!(refused, refusal("unknown[127.0.0.2]"));
    assert_eq!(over_tls("127.0.0.1", relay.port), ACCEPTED);
    cleanup.finish();
}

/// A relay that somebody starts from a shell that another launcher has started.
#[test]
fn a_relay_that_has_inherited_another_client_serves_nobody_as_that_one() {
    if is_missing("a_relay_that_has_inherited_another_client_serves_nobody_as_that_one") {
        return;
    }
    for command in [IPV4[0], "ncat -k -l 127.0.0.1 $PORT -e $1"] {
        let relay = Relay::start(command, &[("TCPREMOTEIP", "127.0.0.1")]);
        relay.wait_for(|| TcpStream::connect(("127.0.0.1", relay.port)).is_ok());
        let said = reply(connect_from(STRANGER, relay.port), REQUEST);
        assert_eq!(said, "34:ZError: server configuration error,", "{command}");
    }
}

/// A socket of a family that no client of the network and none of this machine has.
#[test]
fn a_client_on_a_socket_of_another_family_is_told_to_try_again() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let machine = Machine::new(&[
        "qmqpd_authorized_clients = static:all",
        "qmqpd_timeout = 10s",
    ]);
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, None).unwrap();
    let mut command: Command = machine.command(&How::default());
    command.stdin(netlink).stdout(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "34:ZError: server configuration error,");
    let log = machine.log.finish();
    let line = String::from_utf8_lossy(&log[log.len() - 2]).into_owned();
    let fatal = "fatal: cannot tell who the client is: standard input is neither an Internet nor a UNIX-domain socket";
    assert!(line.ends_with(fatal), "{line}");
}
