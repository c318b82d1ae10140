//! Tests of the client for each kind of socket and environment.
//!
//! They follow `tests/spec/client-access.md`, section 2.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener, UnixStream};

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
        sandbox: true,
        lookup_limit: LOOKUP_LIMIT,
    }
}

/// The client on `fd` with the environment `variables`: `NAME[ADDR]:PORT RFC_ADDR FAMILY`, or the error.
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
const NO_CLIENT: &str = "unknown[unknown]:unknown unknown 0";
const UCSPI: &[(&str, &str)] = &[("TCPREMOTEIP", "192.0.2.7"), ("TCPREMOTEPORT", "4711")];
const CGI: &[(&str, &str)] = &[("REMOTE_ADDR", "2001:db8::5"), ("REMOTE_PORT", "99")];
const SOCAT: &[(&str, &str)] = &[
    (
        "SOCAT_PEERADDR",
        "[2001:0db8:0000:0000:0000:0000:0000:0006]",
    ),
    ("SOCAT_PEERPORT", "97"),
];
const NCAT: &[(&str, &str)] = &[
    ("NCAT_REMOTE_ADDR", "192.0.2.6"),
    ("NCAT_REMOTE_PORT", "96"),
];
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
fn a_connection_over_the_loopback_may_be_stunnels_own() {
    for (address, family) in [("127.0.0.1", "127.0.0.1 2"), ("::1", "IPv6:::1 10")] {
        let (server, _client, port) = connected(address, address);
        let on_socket = |variables: &[(&str, &str)]| on(&server, &ask(), variables);
        assert_eq!(on_socket(STUNNEL), "unknown[192.0.2.8]:98 192.0.2.8 2");
        let itself = format!("unknown[{address}]:{port} {family}");
        assert_eq!(on_socket(&[("REMOTE_HOST", address)]), itself);
        assert_eq!(on_socket(&[("REMOTE_HOST", "mail.example.com")]), itself);
        assert_eq!(on_socket(&[]), itself);
        // tcpserver describes this connection, and REMOTE_HOST an earlier one.
        let inherited = [&[("TCPREMOTEIP", address)], STUNNEL].concat();
        let said = on_socket(&inherited);
        assert!(said.starts_with("cannot tell who the client is"), "{said}");
        let resident = Ask {
            environment: false,
            ..ask()
        };
        assert_eq!(on(&server, &resident, STUNNEL), itself);
    }
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
    // The socket's family counts, also if the client has an IPv4 address.
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
fn a_socket_without_a_peer_is_unknown_in_any_environment() {
    let unconnected = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .expect("socket");
    assert_eq!(on(&unconnected, &ask(), UCSPI), NO_CLIENT);
}

#[test]
fn a_listening_socket_is_an_error() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    assert_eq!(Peer::of(listener.as_fd(), &ask()), Err(Error::Listening));
}

#[test]
fn a_socket_that_does_not_say_whose_it_is_is_an_error() {
    // A descriptor with O_PATH does not give its peer.
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

/// The server's end of a connection to a UNIX-domain socket that listens.
fn accepted(address: &UnixSocketAddr) -> (UnixStream, UnixStream) {
    let listener = UnixListener::bind_addr(address).expect("bind");
    let client = UnixStream::connect_addr(address).expect("connect");
    (listener.accept().expect("accept").0, client)
}

#[test]
fn on_an_accepted_unix_domain_socket_only_stunnel_says_who_it_is() {
    let name = format!("qmqpd-peer-{}", std::process::id());
    let path = std::env::temp_dir().join(&name);
    for address in [
        UnixSocketAddr::from_abstract_name(name).expect("name"),
        UnixSocketAddr::from_pathname(&path).expect("path"),
    ] {
        let (ours, _theirs) = accepted(&address);
        let on_socket = |variables: &[(&str, &str)]| on(&ours, &ask(), variables);
        assert_eq!(on_socket(STUNNEL), "unknown[192.0.2.8]:98 192.0.2.8 2");
        assert_eq!(on_socket(UCSPI), LOCAL);
        assert_eq!(on_socket(SOCAT), LOCAL);
        assert_eq!(on_socket(&[("REMOTE_ADDR", "/run/client")]), LOCAL);
        assert_eq!(on_socket(&[("REMOTE_HOST", "mail.example.com")]), NO_CLIENT);
    }
    std::fs::remove_file(path).expect("remove");
}

#[test]
fn behind_a_socket_pair_or_a_pipe_the_launcher_says_who_it_is() {
    let (pair, _other) = UnixStream::pair().expect("pair");
    let (pipe, _write) = pipe().expect("pipe");
    for fd in [pair.as_fd(), pipe.as_fd()] {
        for (variables, client) in [
            (UCSPI, "unknown[192.0.2.7]:4711 192.0.2.7 2"),
            (CGI, "unknown[2001:db8::5]:99 IPv6:2001:db8::5 10"),
            (STUNNEL, "unknown[192.0.2.8]:98 192.0.2.8 2"),
            (SOCAT, "unknown[2001:db8::6]:97 IPv6:2001:db8::6 10"),
            (NCAT, "unknown[192.0.2.6]:96 192.0.2.6 2"),
        ] {
            assert_eq!(on(fd, &ask(), variables), client, "{variables:?}");
        }
    }
}

#[test]
fn socat_and_ncat_write_addresses_in_ways_of_their_own() {
    let (pair, _other) = UnixStream::pair().expect("pair");
    for (variable, value, port, client) in [
        (
            "SOCAT",
            "192.0.2.1",
            "9",
            "unknown[192.0.2.1]:9 192.0.2.1 2",
        ),
        (
            "SOCAT",
            "[0000:0000:0000:0000:0000:ffff:c000:0201]",
            "9",
            "unknown[192.0.2.1]:9 192.0.2.1 2",
        ),
        ("SOCAT", "[::1]", "9", "unknown[::1]:9 IPv6:::1 10"),
        ("SOCAT", "::1", "9", "unknown[::1]:9 IPv6:::1 10"),
        ("SOCAT", "[::1", "9", NO_CLIENT),
        ("SOCAT", "", "9", NO_CLIENT),
        ("SOCAT", "192.0.2.1", "", NO_CLIENT),
        ("SOCAT", "192.0.2.1", "65536", NO_CLIENT),
        ("SOCAT", "<anon>", "", LOCAL),
        ("SOCAT", "/run/client", "", LOCAL),
        ("SOCAT", "\\0client", "", LOCAL),
        ("SOCAT", "client", "", NO_CLIENT),
        ("SOCAT", "2", "1023", NO_CLIENT),
        (
            "NCAT",
            "192.0.2.1",
            "65535",
            "unknown[192.0.2.1]:65535 192.0.2.1 2",
        ),
        (
            "NCAT",
            "::ffff:192.0.2.1",
            "9",
            "unknown[192.0.2.1]:9 192.0.2.1 2",
        ),
        (
            "NCAT",
            "fe80::1%lo",
            "9",
            "unknown[fe80::1]:9 IPv6:fe80::1 10",
        ),
        ("NCAT", "localhost", "", LOCAL),
        ("NCAT", "localhost", "9", NO_CLIENT),
        ("NCAT", "192.0.2.1", "", NO_CLIENT),
    ] {
        let (address_variable, port_variable) = match variable {
            "SOCAT" => ("SOCAT_PEERADDR", "SOCAT_PEERPORT"),
            _ => ("NCAT_REMOTE_ADDR", "NCAT_REMOTE_PORT"),
        };
        let variables = [(address_variable, value), (port_variable, port)];
        assert_eq!(on(&pair, &ask(), &variables), client, "{variables:?}");
    }
    let without_a_port = [("SOCAT_PEERADDR", "<anon>")];
    assert_eq!(on(&pair, &ask(), &without_a_port), LOCAL);
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
        let said = [("TCPREMOTEIP", value)];
        assert_eq!(on(&read, &ask(), &said), NO_CLIENT, "{value}");
    }
}

/// A process has the variables of all launchers before it.
#[test]
fn launchers_that_differ_about_the_client_leave_it_open() {
    let (read, _write) = pipe().expect("pipe");
    let on_pipe = |variables: &[(&str, &str)]| on(&read, &ask(), variables);
    let all = [UCSPI, CGI, SOCAT, NCAT, &[("REMOTE_HOST", "192.0.2.8")]];
    for one in all {
        for other in all.iter().filter(|other| **other != one) {
            let said = on_pipe(&[one, *other].concat());
            assert!(
                said.contains("cannot tell who the client is: the environment has "),
                "{said}"
            );
            assert!(
                said.contains(one[0].1) && said.contains(other[0].1),
                "{said}"
            );
        }
    }
    let local = [("REMOTE_ADDR", "/run/client")];
    for one in [UCSPI, SOCAT, NCAT] {
        let said = on_pipe(&[one, &local].concat());
        assert!(said.starts_with("cannot tell"), "{said}");
    }
    let said = on_pipe(&[("TCPREMOTEIP", ""), ("REMOTE_ADDR", "127.0.0.1")]);
    assert!(said.starts_with("cannot tell"), "{said}");
}

#[test]
fn launchers_that_agree_about_the_client_are_believed() {
    let (read, _write) = pipe().expect("pipe");
    let on_pipe = |variables: &[(&str, &str)]| on(&read, &ask(), variables);
    let mapped = [
        ("TCPREMOTEIP", "192.0.2.7"),
        (
            "SOCAT_PEERADDR",
            "[0000:0000:0000:0000:0000:ffff:c000:0207]",
        ),
        ("SOCAT_PEERPORT", "4711"),
    ];
    assert_eq!(on_pipe(&mapped), "unknown[192.0.2.7]:unknown 192.0.2.7 2");
    let cgi_with_a_name = [CGI, &[("REMOTE_HOST", "mail.example.com")]].concat();
    assert_eq!(on_pipe(&cgi_with_a_name), on_pipe(CGI));
    let both_here = [("REMOTE_ADDR", "@client"), ("SOCAT_PEERADDR", "<anon>")];
    assert_eq!(on_pipe(&both_here), LOCAL);
}

#[test]
fn a_socket_of_another_family_is_an_error() {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::empty(),
        None,
    )
    .expect("socket");
    for environment in [true, false] {
        let ask = Ask {
            environment,
            ..ask()
        };
        let error = "cannot tell who the client is: standard input is neither an Internet nor a UNIX-domain socket";
        assert_eq!(on(&netlink, &ask, SOCAT), error);
        assert_eq!(address_of(netlink.as_fd(), &ask), None);
    }
}

#[test]
fn the_environment_is_not_asked_where_it_is_not_the_clients() {
    let (read, _write) = pipe().expect("pipe");
    let (pair, _other) = UnixStream::pair().expect("pair");
    let resident = Ask {
        environment: false,
        ..ask()
    };
    for variables in [UCSPI, SOCAT, NCAT, STUNNEL] {
        assert_eq!(on(&read, &resident, variables), LOCAL);
        assert_eq!(on(&pair, &resident, variables), LOCAL);
    }
}

/// A terminal or a file counts like a pipe.
#[test]
fn the_environment_is_asked_for_all_that_is_no_socket() {
    let terminal = File::open("/dev/ptmx").expect("terminal");
    let file = File::open("/dev/null").expect("open");
    for fd in [terminal.as_fd(), file.as_fd()] {
        assert_eq!(
            on(fd, &ask(), SOCAT),
            "unknown[2001:db8::6]:97 IPv6:2001:db8::6 10"
        );
    }
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
    let name = confirmed_name(Ipv4Addr::LOCALHOST.into(), "127.0.0.1", &ask());
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

#[test]
fn a_name_from_the_child_is_checked_again() {
    let of = |name: &str| Answer::from_bytes(format!("c{name}").as_bytes(), "::1");
    let label = "a".repeat(63);
    let long = [label.as_str(); 4].join(".");
    assert_eq!(of(&long), Answer::confirmed(long.clone()));
    for name in [
        "",
        "1.2.3.4",
        "::1",
        "a..b",
        "a b",
        "a\n",
        "\u{e9}",
        &(long + "b"),
    ] {
        let answer = of(name);
        assert_eq!(answer.name, Name::Open, "{name}");
        let warning = answer.warning.expect("warning");
        let text =
            "the name of ::1 cannot be looked up: the child process answered with nonsense: ";
        assert!(warning.starts_with(text), "{warning}");
    }
}

#[test]
fn a_warning_of_the_child_is_cut_at_its_limit() {
    let of = |length: usize| Answer::none("w".repeat(length));
    let whole = of(ANSWER_LIMIT - 1);
    assert_eq!(
        Answer::from_bytes(&of(ANSWER_LIMIT - 1).into_bytes(), "::1"),
        whole
    );
    let cut = of(ANSWER_LIMIT).into_bytes();
    assert_eq!(
        (cut.len(), Answer::from_bytes(&cut, "::1")),
        (ANSWER_LIMIT, whole)
    );
}
