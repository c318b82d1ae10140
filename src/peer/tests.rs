//! Who is taken for whom.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::sys::socket::{SockFlag, SockType, socket};
use nix::unistd::pipe;

use super::*;
use crate::sys::alarm;

fn protocols(ipv4: bool, ipv6: bool) -> Protocols {
    Protocols { ipv4, ipv6 }
}

fn ask() -> Ask {
    Ask {
        protocols: protocols(true, true),
        names: false,
        environment: true,
        lookup_limit: LOOKUP_LIMIT,
    }
}

/// Who is on `fd`, where the environment is `variables`: `NAME[ADDR]:PORT RFC_ADDR FAMILY`, or the error.
fn on(fd: impl AsFd, ask: &Ask, variables: &[(&str, &str)]) -> String {
    let environment = |wanted: &str| {
        let found = variables.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| OsString::from(value))
    };
    match Peer::with_environment(fd.as_fd(), ask, &environment) {
        Ok(peer) => format!("{} {} {}", peer.namaddr_port(), peer.rfc_addr, peer.family),
        Err(e) => e.to_string(),
    }
}

/// The server's end of a connection to a listener on `address`, the client's end, and its port.
fn connected(address: &str, to: &str) -> (TcpStream, TcpStream, u16) {
    let listener = TcpListener::bind((address, 0)).expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let client = TcpStream::connect((to, port)).expect("connect");
    let (server, peer) = listener.accept().expect("accept");
    (server, client, peer.port())
}

const LOCAL: &str = "localhost[127.0.0.1]:0 127.0.0.1 0";
const NOBODY: &str = "unknown[unknown]:unknown unknown 0";
const UCSPI: &[(&str, &str)] = &[("TCPREMOTEIP", "192.0.2.7"), ("TCPREMOTEPORT", "4711")];
const CGI: &[(&str, &str)] = &[("REMOTE_ADDR", "2001:db8::5"), ("REMOTE_PORT", "99")];
const STUNNEL: &[(&str, &str)] = &[("REMOTE_HOST", "192.0.2.8"), ("REMOTE_PORT", "98")];

#[test]
fn a_client_on_this_machine_is_localhost() {
    let (ours, _theirs) = UnixStream::pair().expect("pair");
    let (read, _write) = pipe().expect("pipe");
    let file = File::open("/dev/null").expect("open");
    assert_eq!(on(&ours, &ask(), &[]), LOCAL);
    assert_eq!(on(&read, &ask(), &[]), LOCAL);
    assert_eq!(on(&file, &ask(), &[]), LOCAL);
}

#[test]
fn a_client_on_the_network_has_address_and_port() {
    let (server, _client, port) = connected("127.0.0.1", "127.0.0.1");
    let expected = format!("unknown[127.0.0.1]:{port} 127.0.0.1 2");
    assert_eq!(on(&server, &ask(), CGI), expected, "a socket settles it");
    let (server, _client, port) = connected("::1", "::1");
    let expected = format!("unknown[::1]:{port} IPv6:::1 10");
    assert_eq!(on(&server, &ask(), &[]), expected);
}

#[test]
fn an_ipv4_client_on_an_ipv6_socket_is_an_ipv4_client_unless_ipv4_is_off() {
    let (server, _client, port) = connected("::", "127.0.0.1");
    let expected = format!("unknown[127.0.0.1]:{port} 127.0.0.1 2");
    assert_eq!(on(&server, &ask(), &[]), expected);
    let only_ipv6 = Ask {
        protocols: protocols(false, true),
        ..ask()
    };
    let expected = format!("unknown[::ffff:127.0.0.1]:{port} IPv6:::ffff:127.0.0.1 10");
    assert_eq!(on(&server, &only_ipv6, &[]), expected);
}

#[test]
fn a_family_that_inet_protocols_does_not_have_is_an_error() {
    let only_ipv4 = Ask {
        protocols: protocols(true, false),
        ..ask()
    };
    let error = "cannot handle socket type AF_INET6 with \"inet_protocols = ipv4\"";
    assert_eq!(on(connected("::1", "::1").0, &only_ipv4, &[]), error);
    // Measured: the socket's family counts, also where the client is an IPv4 one.
    assert_eq!(on(connected("::", "127.0.0.1").0, &only_ipv4, &[]), error);
    let only_ipv6 = Ask {
        protocols: protocols(false, true),
        ..ask()
    };
    let error = "cannot handle socket type AF_INET with \"inet_protocols = ipv6\"";
    let (server, _client, _) = connected("127.0.0.1", "127.0.0.1");
    assert_eq!(on(&server, &only_ipv6, &[]), error);
}

#[test]
fn a_socket_without_a_peer_is_nobody_whatever_the_environment_says() {
    let unconnected = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .expect("socket");
    assert_eq!(on(&unconnected, &ask(), UCSPI), NOBODY);
}

#[test]
fn a_listening_socket_is_an_error() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    assert_eq!(Peer::of(listener.as_fd(), &ask()), Err(Error::Listening));
}

#[test]
fn a_socket_that_does_not_say_whose_it_is_is_an_error() {
    // What is open with O_PATH answers no question about its other end.
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_PATH.bits())
        .open("/dev/null")
        .expect("open");
    let error = Err(Error::Untold(Errno::EBADF));
    assert_eq!(Peer::of(file.as_fd(), &ask()), error);
}

#[test]
fn on_a_pipe_the_launcher_says_who_it_is() {
    let (read, _write) = pipe().expect("pipe");
    let on_pipe = |variables: &[(&str, &str)]| on(&read, &ask(), variables);
    assert_eq!(on_pipe(UCSPI), "unknown[192.0.2.7]:4711 192.0.2.7 2");
    assert_eq!(on_pipe(CGI), "unknown[2001:db8::5]:99 IPv6:2001:db8::5 10");
    assert_eq!(on_pipe(STUNNEL), "unknown[192.0.2.8]:98 192.0.2.8 2");
    assert_eq!(
        on_pipe(&[
            ("TCPREMOTEIP", "fe80::1%eth0"),
            ("TCPREMOTEHOST", "example.com")
        ]),
        "unknown[fe80::1]:unknown IPv6:fe80::1 10"
    );
    assert_eq!(
        on_pipe(&[("REMOTE_ADDR", "::ffff:192.0.2.9"), ("REMOTE_PORT", "x")]),
        "unknown[192.0.2.9]:unknown 192.0.2.9 2"
    );
}

#[test]
fn on_a_unix_domain_socket_only_stunnel_says_who_it_is() {
    let (ours, _theirs) = UnixStream::pair().expect("pair");
    let on_socket = |variables: &[(&str, &str)]| on(&ours, &ask(), variables);
    assert_eq!(on_socket(STUNNEL), "unknown[192.0.2.8]:98 192.0.2.8 2");
    assert_eq!(on_socket(UCSPI), LOCAL);
    assert_eq!(on_socket(&[("REMOTE_ADDR", "/run/client")]), LOCAL);
    assert_eq!(on_socket(&[("REMOTE_HOST", "mail.example.com")]), NOBODY);
}

#[test]
fn a_launcher_that_names_no_address_leaves_the_client_unknown() {
    let (read, _write) = pipe().expect("pipe");
    for value in [
        "",
        "localhost",
        "127.0.0.1:25",
        "127.0.0.01",
        "[::1]",
        "1.2.3.4%eth0",
    ] {
        let said = [("TCPREMOTEIP", value), ("REMOTE_ADDR", "127.0.0.1")];
        assert_eq!(on(&read, &ask(), &said), NOBODY, "{value}");
    }
}

#[test]
fn the_environment_is_not_asked_where_it_is_not_the_clients_nor_about_a_file() {
    let (read, _write) = pipe().expect("pipe");
    let resident = Ask {
        environment: false,
        ..ask()
    };
    assert_eq!(on(&read, &resident, UCSPI), LOCAL);
    assert_eq!(
        on(File::open("/dev/null").expect("open"), &ask(), UCSPI),
        LOCAL
    );
}

#[test]
fn addresses_are_written_as_the_c_library_does() {
    let text = |text: &str| text_of(text.parse().expect("address"));
    assert_eq!(text("2001:DB8:0:0:1::1"), "2001:db8::1:0:0:1");
    assert_eq!(text("::ffff:1.2.3.4"), "::ffff:1.2.3.4");
    assert_eq!(text("::1.2.3.4"), "::1.2.3.4");
    assert_eq!(text("::1:5"), "::0.1.0.5");
    assert_eq!(text("::5"), "::5");
}

#[test]
fn the_loopback_has_a_confirmed_name() {
    alarm::init().expect("alarm");
    let name = confirmed_name(Ipv4Addr::LOCALHOST.into(), "127.0.0.1", LOOKUP_LIMIT);
    assert_eq!(name, Name::Confirmed("localhost".to_owned()));
}

#[test]
fn a_name_that_leads_elsewhere_is_no_name() {
    let other: IpAddr = "127.0.0.71".parse().expect("address");
    assert_eq!(
        confirm(c"localhost", "localhost", other, "127.0.0.71"),
        Answer::none("hostname localhost does not resolve to address 127.0.0.71".to_owned())
    );
    assert_eq!(
        confirm(c"name.invalid", "name.invalid", other, "127.0.0.71")
            .warning
            .map(
                |w| w.starts_with("hostname name.invalid does not resolve to address 127.0.0.71: ")
            ),
        Some(true)
    );
}

#[test]
fn names_that_could_be_mistaken_for_something_else_are_refused() {
    let refused = |name: &CStr| check_name(name.to_bytes()).expect_err("refused");
    assert_eq!(refused(c"1.2.3.4"), "numeric hostname: 1.2.3.4");
    assert_eq!(refused(c"::9"), "numeric hostname: ::9");
    assert_eq!(refused(c"12345"), "valid_hostname: numeric hostname: 12345");
    assert_eq!(
        refused(c"a..b"),
        "valid_hostname: misplaced delimiter: a..b"
    );
    assert_eq!(
        check_name(b"Mixed_1.Example.COM"),
        Ok("Mixed_1.Example.COM".into())
    );
}

#[test]
fn what_the_child_found_survives_the_pipe() {
    let confirmed = || Answer::confirmed("mail.example.com".to_owned());
    let none = || Answer::none("w".to_owned());
    let open = || Answer::open("w".to_owned());
    let answers: [&dyn Fn() -> Answer; 4] = [&confirmed, &none, &open, &Answer::nothing];
    for answer in answers {
        assert_eq!(Answer::from_bytes(&answer().into_bytes(), "::1"), answer());
    }
    assert_eq!(Answer::from_bytes(b"x", "::1").name, Name::Open);
}
