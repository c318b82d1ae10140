//! Determines the client's address and name.
//!
//! The address comes from the socket (getpeername), or from the launcher's environment if descriptor 0 is no Internet
//! socket. A name counts only if it resolves back to the address. Follows `tests/spec/client-access.md`, section 2.
//! Whether the client may send is left to `lookup::MatchList`.
#![forbid(unsafe_code)]

mod hosts;
mod resolver;
#[cfg(test)]
mod tests;
pub mod upstream;

use std::borrow::Cow;
use std::ffi::{CStr, OsString};
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockaddrLike, SockaddrStorage, UnixAddr, getpeername, getsockname, getsockopt,
    sockopt,
};

use crate::config::{Protocols, valid_hostname};
use crate::jail;
use crate::log::{self, Shown};
use crate::sys::child::isolated_child;
#[cfg(debug_assertions)]
use crate::sys::escape;
use crate::sys::name;

pub use resolver::{has_local_server, no_server};

/// The limit for all name lookups of a session together.
pub const LOOKUP_LIMIT: Duration = Duration::from_secs(15);

/// The longest answer of the child that looks a name up, in bytes: a name, or a warning with a name. A longer warning
/// is cut.
const ANSWER_LIMIT: usize = 512;

const UNKNOWN: &str = "unknown";

/// The client in log lines, replies, lists and headers. An unknown part is `unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The confirmed host name, in the case in which the resolver has it.
    pub name: String,
    /// Whether the name could not be looked up. Then `name` is `unknown`, for messages only.
    ///
    /// Unlike Postfix, to which such a client is `unknown`: a list with names must not refuse a client permanently
    /// because a name server restarts (`tests/spec/differences.md`, 16).
    pub is_name_open: bool,
    /// The address in text, without brackets or scope.
    pub addr: String,
    /// The address as a Received: header has it: IPv6 with `IPv6:` before it.
    pub rfc_addr: String,
    /// Decimal; `0` where there are no ports.
    pub port: String,
    /// The address family in cleanup's attribute: AF_INET, AF_INET6, or 0 if the client is not on the network.
    pub family: u32,
}

/// The sources that may be asked about the client, and the limit for them.
#[derive(Debug, Clone)]
pub struct Ask {
    /// inet_protocols: the families that a client may use.
    pub protocols: Protocols,
    /// qmqpd_peername_lookup: whether the resolver may be asked for a name.
    pub names: bool,
    /// Whether the launcher's environment may be asked: only if the process serves one client.
    pub environment: bool,
    /// qmqpd_sandbox: whether the child that asks the resolver is confined.
    pub sandbox: bool,
    /// Bound on the name lookups together: [`LOOKUP_LIMIT`].
    pub lookup_limit: Duration,
}

/// A client that the configuration excludes, or whose address is not known. The administrator has to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The connection is of a family that inet_protocols does not have.
    Family {
        family: &'static str,
        inet_protocols: Protocols,
    },
    /// Standard input is a listening socket, which the launcher does not accept on, and it would start the program
    /// again and again.
    Listening,
    /// The system does not give the address.
    Untold(Errno),
    /// The socket is neither an Internet nor a UNIX-domain socket (vsock, netlink, ...).
    Foreign,
    /// Two launchers have left their variables in the environment, and the clients differ.
    Disputed(Box<[Said; 2]>),
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Family {
                family,
                inet_protocols,
            } => write!(
                f,
                "cannot handle socket type {family} with \"inet_protocols = {inet_protocols}\""
            ),
            Error::Listening => f.write_str(
                "standard input is a listening socket: the launcher has to accept connections \
                 (inetd: nowait, xinetd: wait = no, systemd: Accept=yes), or to start this program with --accept",
            ),
            Error::Untold(errno) => {
                let why = log::errno_text(*errno);
                write!(f, "cannot tell who the client is: {why}")
            }
            Error::Foreign => f.write_str(
                "cannot tell who the client is: standard input is neither an Internet nor a UNIX-domain socket",
            ),
            Error::Disputed(said) => {
                let [one, other] = &**said;
                write!(
                    f,
                    "cannot tell who the client is: the environment has {one} and {other}: start the launcher \
                     without the variable that is not its own (env -u)"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

impl Peer {
    /// Determines the client on `fd`, and logs a problem of its name.
    pub fn of(fd: BorrowedFd<'_>, ask: &Ask) -> Result<Peer, Error> {
        Peer::with_environment(fd, ask, &|name| std::env::var_os(name))
    }

    fn with_environment(
        fd: BorrowedFd<'_>,
        ask: &Ask,
        environment: Environment<'_>,
    ) -> Result<Peer, Error> {
        match client_on(fd, ask, environment) {
            Endpoint::Local => Ok(Peer::local()),
            Endpoint::Gone => Ok(Peer::unknown()),
            Endpoint::Misnamed(said) => {
                log::warning!(
                    "the environment's {} is no address: \"{}\"",
                    said.variable,
                    Shown(said.value.as_bytes())
                );
                Ok(Peer::unknown())
            }
            Endpoint::Refused(error) => Err(error),
            Endpoint::Remote { address, port } => Peer::remote(address, port, ask),
        }
    }

    /// A client on this machine: on a UNIX-domain socket, a pipe or a file.
    fn local() -> Peer {
        Peer {
            name: "localhost".to_owned(),
            is_name_open: false,
            addr: "127.0.0.1".to_owned(),
            rfc_addr: "127.0.0.1".to_owned(),
            port: "0".to_owned(),
            family: 0,
        }
    }

    fn unknown() -> Peer {
        Peer {
            name: UNKNOWN.to_owned(),
            is_name_open: false,
            addr: UNKNOWN.to_owned(),
            rfc_addr: UNKNOWN.to_owned(),
            port: UNKNOWN.to_owned(),
            family: 0,
        }
    }

    /// A client on the network.
    pub fn remote(address: IpAddr, port: Option<u16>, ask: &Ask) -> Result<Peer, Error> {
        let (enabled, family) = match address {
            IpAddr::V4(_) => (ask.protocols.ipv4, "AF_INET"),
            IpAddr::V6(_) => (ask.protocols.ipv6, "AF_INET6"),
        };
        if !enabled {
            return Err(Error::Family {
                family,
                inet_protocols: ask.protocols,
            });
        }
        let address = unmapped(address, &ask.protocols);
        let addr = text_of(address);
        let (rfc_addr, family) = match address {
            IpAddr::V4(_) => (addr.clone(), AddressFamily::Inet),
            IpAddr::V6(_) => (format!("IPv6:{addr}"), AddressFamily::Inet6),
        };
        let name = if ask.names {
            confirmed_name(address, &addr, ask)
        } else {
            Name::None
        };
        let is_name_open = name == Name::Open;
        let name = match name {
            Name::Confirmed(name) => name,
            Name::None | Name::Open => UNKNOWN.to_owned(),
        };
        Ok(Peer {
            name,
            is_name_open,
            addr,
            rfc_addr,
            port: port.map_or_else(|| UNKNOWN.to_owned(), |port| port.to_string()),
            family: (family as i32).unsigned_abs(),
        })
    }

    /// The name for access lists; `None` if it is open.
    pub fn name_for_lists(&self) -> Option<&str> {
        (!self.is_name_open).then_some(self.name.as_str())
    }

    /// `NAME[ADDR]`.
    pub fn namaddr(&self) -> String {
        format!("{}[{}]", self.name, self.addr)
    }

    /// `NAME[ADDR]:PORT`, for qmqpd_client_port_logging.
    pub fn namaddr_port(&self) -> String {
        format!("{}[{}]:{}", self.name, self.addr, self.port)
    }
}

/// The client's address on `fd`, the same as in [`Peer::of`], without a lookup of its name. `None` if the client will
/// be refused, or is unknown.
pub fn address_of(fd: BorrowedFd<'_>, ask: &Ask) -> Option<String> {
    match client_on(fd, ask, &|name| std::env::var_os(name)) {
        Endpoint::Local => Some(Peer::local().addr),
        Endpoint::Gone | Endpoint::Refused(_) | Endpoint::Misnamed(_) => None,
        Endpoint::Remote { address, .. } => Some(text_of(unmapped(address, &ask.protocols))),
    }
}

/// The client on `fd` in a log line before main.cf is known: without a name, and of any family.
pub fn shown(fd: BorrowedFd<'_>, environment: bool) -> String {
    let ask = Ask {
        protocols: Protocols {
            ipv4: true,
            ipv6: true,
        },
        names: false,
        environment,
        sandbox: false,
        lookup_limit: LOOKUP_LIMIT,
    };
    match client_on(fd, &ask, &|name| std::env::var_os(name)) {
        Endpoint::Local => Peer::local().namaddr(),
        Endpoint::Gone | Endpoint::Refused(_) | Endpoint::Misnamed(_) => Peer::unknown().namaddr(),
        Endpoint::Remote { address, .. } => {
            format!("unknown[{}]", text_of(unmapped(address, &ask.protocols)))
        }
    }
}

/// An IPv6 socket gives an IPv4 client as ::ffff:a.b.c.d; lists and log lines use the IPv4 address.
fn unmapped(address: IpAddr, protocols: &Protocols) -> IpAddr {
    match address {
        IpAddr::V6(v6) if protocols.ipv4 => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// Looks up a variable of the environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

enum Endpoint {
    /// No Internet connection, and no launcher has named a client on the network.
    Local,
    /// The Internet connection has ended.
    Gone,
    /// A launcher's variable has a value that is no address.
    Misnamed(Said),
    /// Unlike Postfix, to which a client without a known address is `unknown` and refused permanently: the client may
    /// be in the list (`tests/spec/differences.md`, 22).
    Refused(Error),
    Remote {
        address: IpAddr,
        port: Option<u16>,
    },
}

fn client_on(fd: BorrowedFd<'_>, ask: &Ask, environment: Environment<'_>) -> Endpoint {
    match getpeername::<SockaddrStorage>(fd.as_raw_fd()) {
        Ok(peer) => {
            if let Some(sin) = peer.as_sockaddr_in() {
                return client_on_network(sin.ip().into(), sin.port(), ask, environment);
            }
            if let Some(sin6) = peer.as_sockaddr_in6() {
                return client_on_network(sin6.ip().into(), sin6.port(), ask, environment);
            }
            client_on_other_socket(fd, &peer, ask, environment)
        }
        Err(Errno::ENOTSOCK) => client_named(ask, LAUNCHERS, environment),
        Err(Errno::ENOTCONN) if getsockopt(&fd, sockopt::AcceptConn) == Ok(true) => {
            Endpoint::Refused(Error::Listening)
        }
        Err(Errno::ENOTCONN) => Endpoint::Gone,
        Err(errno) => Endpoint::Refused(Error::Untold(errno)),
    }
}

/// The address of an Internet socket counts, with one exception: stunnel can be joined to the program by a TCP
/// connection over the loopback interface.
fn client_on_network(
    address: IpAddr,
    port: u16,
    ask: &Ask,
    environment: Environment<'_>,
) -> Endpoint {
    let on_socket = Endpoint::Remote {
        address,
        port: Some(port),
    };
    let peer = address.to_canonical();
    if !peer.is_loopback() || environment(STUNNEL.address).is_none() {
        return on_socket;
    }
    match client_named(ask, LAUNCHERS, environment) {
        Endpoint::Remote { address, .. } if address.to_canonical() == peer => on_socket,
        Endpoint::Local | Endpoint::Gone | Endpoint::Misnamed(_) => on_socket,
        client @ (Endpoint::Remote { .. } | Endpoint::Refused(_)) => client,
    }
}

/// A UNIX-domain socket that was accepted has the name of the listening socket, and its client is on this machine. A
/// socket without a name is one of a pair: the launcher has the other one, and may have a client of the network.
fn client_on_other_socket(
    fd: BorrowedFd<'_>,
    peer: &SockaddrStorage,
    ask: &Ask,
    environment: Environment<'_>,
) -> Endpoint {
    if peer.family() != Some(AddressFamily::Unix) {
        return Endpoint::Refused(Error::Foreign);
    }
    match getsockname::<UnixAddr>(fd.as_raw_fd()) {
        Ok(own) if own.path_len() == 0 => client_named(ask, LAUNCHERS, environment),
        Ok(_) => client_named(ask, NAMED_SOCKET_LAUNCHERS, environment),
        Err(errno) => Endpoint::Refused(Error::Untold(errno)),
    }
}

/// How a launcher names the client.
struct Launcher {
    address: &'static str,
    port: &'static str,
    /// Reads the value of `address`. The port decides for launchers that give one with every Internet address.
    parse: fn(&str, Option<u16>) -> Place,
}

/// The place of the client according to a launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Address(IpAddr),
    /// The client is on a UNIX-domain socket of the launcher.
    Here,
    Unreadable,
}

impl Place {
    /// Whether this is the same client. An IPv4 address equals its IPv6 form.
    fn is(self, other: Place) -> bool {
        match (self, other) {
            (Place::Address(one), Place::Address(other)) => {
                one.to_canonical() == other.to_canonical()
            }
            (one, other) => one == other,
        }
    }
}

/// A variable of the environment about the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    variable: &'static str,
    value: OsString,
}

impl Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.variable, Shown(self.value.as_bytes()))
    }
}

/// UCSPI; CGI and systemd; socat; ncat; stunnel.
///
/// Unlike Postfix, which does not ask the environment: behind a launcher with pipes or a socket pair every client would
/// be localhost[127.0.0.1], and in a list that has 127.0.0.1 (`tests/spec/differences.md`, 12).
const LAUNCHERS: &[Launcher] = &[
    Launcher {
        address: "TCPREMOTEIP",
        port: "TCPREMOTEPORT",
        parse: place_of,
    },
    Launcher {
        address: "REMOTE_ADDR",
        port: "REMOTE_PORT",
        parse: place_of_systemd,
    },
    Launcher {
        address: "SOCAT_PEERADDR",
        port: "SOCAT_PEERPORT",
        parse: place_of_socat,
    },
    Launcher {
        address: "NCAT_REMOTE_ADDR",
        port: "NCAT_REMOTE_PORT",
        parse: place_of_ncat,
    },
    STUNNEL,
];

const STUNNEL: Launcher = Launcher {
    address: "REMOTE_HOST",
    port: "REMOTE_PORT",
    parse: place_of,
};

/// On a UNIX-domain socket with a name only stunnel can have a client on the network.
const NAMED_SOCKET_LAUNCHERS: &[Launcher] = &[STUNNEL];

/// The client that the launcher names. A value that is no address makes the client unknown: it must not pass for
/// localhost. A process inherits the variables of all earlier launchers in no known order; if they differ, the client
/// cannot be determined.
fn client_named(ask: &Ask, launchers: &[Launcher], environment: Environment<'_>) -> Endpoint {
    let mut client = Endpoint::Local;
    if !ask.environment {
        return client;
    }
    let mut first: Option<(Place, Said)> = None;
    for launcher in launchers {
        let Some(value) = environment(launcher.address) else {
            continue;
        };
        let port = environment(launcher.port).and_then(|port| port.to_str()?.parse().ok());
        let place = value
            .to_str()
            .map_or(Place::Unreadable, |value| (launcher.parse)(value, port));
        let said = Said {
            variable: launcher.address,
            value,
        };
        match first {
            // CGI's REMOTE_HOST is a name, which belongs to REMOTE_ADDR.
            Some(_) if place == Place::Unreadable && said.variable == STUNNEL.address => {}
            Some((before, _)) if before.is(place) => {}
            Some((_, before)) => {
                return Endpoint::Refused(Error::Disputed(Box::new([before, said])));
            }
            None => {
                client = match place {
                    Place::Address(address) => Endpoint::Remote { address, port },
                    Place::Here => Endpoint::Local,
                    Place::Unreadable => Endpoint::Misnamed(said.clone()),
                };
                first = Some((place, said));
            }
        }
    }
    client
}
fn place_of(value: &str, _: Option<u16>) -> Place {
    parse_scoped(value).map_or(Place::Unreadable, Place::Address)
}

/// For a client on a UNIX-domain socket systemd gives a path, or an abstract name with `@` before it.
fn place_of_systemd(value: &str, port: Option<u16>) -> Place {
    if value.starts_with(['/', '@']) {
        return Place::Here;
    }
    place_of(value, port)
}

/// socat gives an IPv6 address in brackets and in full. For a client on a UNIX-domain socket it gives the path of the
/// client's socket, `\0` and an abstract name, or `<anon>`. Such a path may look like an address, but it comes without
/// a port.
fn place_of_socat(value: &str, port: Option<u16>) -> Place {
    if value == "<anon>" || value.starts_with('/') || value.starts_with("\\0") {
        return Place::Here;
    }
    let bare = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match port {
        Some(_) => place_of(bare.unwrap_or(value), port),
        None => Place::Unreadable,
    }
}

/// ncat gives `localhost` without a port for every client on a UNIX-domain socket.
fn place_of_ncat(value: &str, port: Option<u16>) -> Place {
    match port {
        Some(_) => place_of(value, port),
        None if value == "localhost" => Place::Here,
        None => Place::Unreadable,
    }
}

/// Reads an address without its scope, which a link-local address may have (`fe80::1%eth0`).
fn parse_scoped(text: &str) -> Option<IpAddr> {
    let (address, scope) = text.split_once('%').unwrap_or((text, ""));
    let address = address.parse().ok()?;
    match address {
        IpAddr::V4(_) if !scope.is_empty() => None,
        IpAddr::V4(_) | IpAddr::V6(_) => Some(address),
    }
}

/// The C library's form of an address. The standard library differs for `::1.2.3.4` only.
fn text_of(address: IpAddr) -> String {
    if let IpAddr::V6(v6) = address {
        let [start @ .., high, _] = v6.segments();
        if start == [0; 6] && high != 0 {
            let [.., a, b, c, d] = v6.octets();
            return format!("::{}", Ipv4Addr::new(a, b, c, d));
        }
    }
    address.to_string()
}

/// The result of the lookup of a client's name.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// The name resolves back to the address.
    Confirmed(String),
    /// No name resolves back to the address.
    None,
    /// Not known for now.
    Open,
}

/// The name of `address`, if it resolves back. A child asks the resolver, because a lookup cannot be interrupted and
/// may take minutes. The child reads data of foreign name servers: it has few rights, and its answer is checked.
fn confirmed_name(address: IpAddr, addr: &str, ask: &Ask) -> Name {
    if let Some(name) = hosts::confirmed_name(address) {
        if let Ok(text) = check_name(&name) {
            return Name::Confirmed(text.into_owned());
        }
    }
    let work = || ask_resolver(address, addr, ask.sandbox).into_bytes();
    let answer = match isolated_child(ask.lookup_limit, ANSWER_LIMIT, work) {
        Ok(Some(bytes)) => Answer::from_bytes(&bytes, addr),
        Ok(None) => {
            let seconds = ask.lookup_limit.as_secs();
            Answer::open(format!(
                "the name lookup of {addr} took longer than {seconds} seconds"
            ))
        }
        Err(e) => Answer::cannot_look_up(addr, &log::error_text(&e)),
    };
    if let Some(warning) = answer.warning {
        log::warning!("{warning}");
    }
    answer.name
}

/// The lookup, in the child.
fn ask_resolver(address: IpAddr, addr: &str, sandbox: bool) -> Answer {
    if sandbox {
        if let Err(error) = jail::confine_resolver() {
            return Answer::cannot_look_up(addr, &error);
        }
    }
    #[cfg(debug_assertions)]
    if let Some(line) = escape::outcome(escape::Place::Resolver) {
        return Answer::open(line);
    }
    Answer::of(address, addr)
}

/// The result of the child's lookup, and the line to log.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    name: Name,
    warning: Option<String>,
}

impl Answer {
    /// No name, and no line to log.
    fn nothing() -> Answer {
        Answer {
            name: Name::None,
            warning: None,
        }
    }

    fn none(warning: String) -> Answer {
        Answer {
            name: Name::None,
            warning: Some(warning),
        }
    }

    fn open(warning: String) -> Answer {
        Answer {
            name: Name::Open,
            warning: Some(warning),
        }
    }

    fn cannot_look_up(addr: &str, reason: &dyn Display) -> Answer {
        Answer::open(format!("the name of {addr} cannot be looked up: {reason}"))
    }

    fn confirmed(name: String) -> Answer {
        Answer {
            name: Name::Confirmed(name),
            warning: None,
        }
    }

    fn of(address: IpAddr, addr: &str) -> Answer {
        let name = match name::name_of(address) {
            Ok(name) => name,
            // Most addresses have no name, which is not logged.
            Err(reason) if reason.is_final() => return Answer::nothing(),
            Err(reason) => return Answer::cannot_look_up(addr, &reason),
        };
        match check_name(name.to_bytes()) {
            Ok(text) => confirm(&name, &text, address, addr),
            Err(warning) => Answer::none(warning),
        }
    }

    /// The form for the pipe: `c`, `n` or `o` for the kind, and the name or the warning. Empty for a client without a
    /// name, the most frequent case.
    fn into_bytes(self) -> Vec<u8> {
        let (kind, text) = match (self.name, self.warning) {
            (Name::Confirmed(name), _) => (b'c', name),
            (Name::None, None) => return Vec::new(),
            (Name::None, Some(warning)) => (b'n', warning),
            (Name::Open, warning) => (b'o', warning.unwrap_or_default()),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(text.as_bytes());
        bytes.truncate(ANSWER_LIMIT);
        bytes
    }

    /// Reads that form, and checks the name again, because another process has written it.
    fn from_bytes(bytes: &[u8], addr: &str) -> Answer {
        let text = |text| String::from_utf8_lossy(text).into_owned();
        let nonsense = "the child process answered with nonsense";
        match bytes.split_first() {
            None => Answer::nothing(),
            Some((b'c', name)) => match check_name(name) {
                Ok(name) => Answer::confirmed(name.into_owned()),
                Err(why) => Answer::cannot_look_up(addr, &format_args!("{nonsense}: {why}")),
            },
            Some((b'n', warning)) => Answer::none(text(warning)),
            Some((b'o', warning)) => Answer::open(text(warning)),
            Some(_) => Answer::cannot_look_up(addr, &nonsense),
        }
    }
}

/// A reverse zone can hold any text. A name that looks like an address would be taken for one in a list or a header.
fn check_name(name: &[u8]) -> Result<Cow<'_, str>, String> {
    let text = String::from_utf8_lossy(name);
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("numeric hostname: {text}"));
    }
    valid_hostname(name).map(|()| text)
}

fn confirm(name: &CStr, text: &str, address: IpAddr, addr: &str) -> Answer {
    match name::addresses_of(name, address) {
        Ok(addresses) if addresses.contains(&address) => Answer::confirmed(text.to_owned()),
        Ok(_) => Answer::none(format!(
            "hostname {text} does not resolve to address {addr}"
        )),
        Err(reason) => {
            let warning = format!("hostname {text} does not resolve to address {addr}: {reason}");
            if reason.is_final() {
                Answer::none(warning)
            } else {
                Answer::open(warning)
            }
        }
    }
}
