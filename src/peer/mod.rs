//! Who is at the other end of the connection.
//!
//! Asks the socket (getpeername). A name counts only when it resolves back to the address.
//! Unlike Postfix, to whom a client is `unknown` whose name could not be looked up for now: its name is open. A list that
//! has names cannot refuse it for good because a name server restarts.
//! Unlike Postfix, where descriptor 0 is no Internet socket the launcher's environment is asked for the address first
//! (TCPREMOTEIP, REMOTE_ADDR, stunnel's REMOTE_HOST): behind a launcher that uses pipes everybody would else be
//! localhost[127.0.0.1], and a list that has 127.0.0.1 would let everybody in. Does not decide who may connect; that is
//! `lookup::MatchList`. Authority: the client access page of the specification, section 2.
#![forbid(unsafe_code)]

mod hosts;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ffi::{CStr, OsString};
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockaddrStorage, getpeername, getsockopt, sockopt};
use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::config::{Protocols, valid_hostname};
use crate::log::{self, Shown};
use crate::sys::child::bounded_child;
use crate::sys::name;

/// How long the name lookups of a session may take together.
pub const LOOKUP_LIMIT: Duration = Duration::from_secs(15);

const UNKNOWN: &str = "unknown";

/// The client, as log lines, replies, lists and headers show it. What is not known is `unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The confirmed host name, in the case in which the resolver has it.
    pub name: String,
    /// Whether the name could not be looked up, and is `unknown` only in what is shown.
    pub is_name_open: bool,
    /// The address in text, without brackets or scope.
    pub addr: String,
    /// The address as a Received: header has it: IPv6 with `IPv6:` before it.
    pub rfc_addr: String,
    /// Decimal; `0` where there are no ports.
    pub port: String,
    /// The address family as cleanup's attribute has it: AF_INET, AF_INET6, or 0 where the client is not on the network.
    pub family: u32,
}

/// What may be asked about the client, and by how much it may delay the session.
#[derive(Debug, Clone)]
pub struct Ask {
    /// inet_protocols: the families that a client may use.
    pub protocols: Protocols,
    /// qmqpd_peername_lookup: whether the resolver may be asked for a name.
    pub names: bool,
    /// Whether the launcher's environment may be asked: it speaks of one client only where the process serves one.
    pub environment: bool,
    /// Bound on the name lookups together: [`LOOKUP_LIMIT`].
    pub lookup_limit: Duration,
}

/// A client that the configuration does not allow for. The operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The connection is of a family that inet_protocols does not have.
    Family {
        family: &'static str,
        inet_protocols: Protocols,
    },
    /// There is no connection: the launcher leaves it to the program to accept one, and would start it again and again.
    Listening,
    /// The system does not say who it is.
    Untold(Errno),
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
                 (inetd: nowait, xinetd: wait = no, systemd: Accept=yes)",
            ),
            Error::Untold(errno) => {
                let why = log::errno_text(*errno);
                write!(f, "cannot tell who the client is: {why}")
            }
        }
    }
}

impl std::error::Error for Error {}

impl Peer {
    /// Finds out who is on `fd`, and logs what is wrong with the name.
    pub fn of(fd: BorrowedFd<'_>, ask: &Ask) -> Result<Peer, Error> {
        Peer::with_environment(fd, ask, &|name| std::env::var_os(name))
    }

    fn with_environment(
        fd: BorrowedFd<'_>,
        ask: &Ask,
        environment: Environment<'_>,
    ) -> Result<Peer, Error> {
        match client_on(fd, ask, environment) {
            Client::Local => Ok(Peer::local()),
            Client::Gone => Ok(Peer::unknown()),
            Client::Misnamed { variable, address } => {
                log::warning(format_args!(
                    "the environment's {variable} is no address: \"{}\"",
                    Shown(address.as_bytes())
                ));
                Ok(Peer::unknown())
            }
            Client::None => Err(Error::Listening),
            Client::Untold(errno) => Err(Error::Untold(errno)),
            Client::Remote { address, port } => Peer::remote(address, port, ask),
        }
    }

    /// A client on this machine, by way of a UNIX-domain socket, a pipe or a file.
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
            confirmed_name(address, &addr, ask.lookup_limit)
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

    /// The name that access lists go by; nothing where it is open.
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

/// The address of the client on `fd`, as [`Peer::of`] will show it, without asking anybody for its name. Nothing where
/// the client is going to be refused, or is unknown.
pub fn address_of(fd: BorrowedFd<'_>, ask: &Ask) -> Option<String> {
    match client_on(fd, ask, &|name| std::env::var_os(name)) {
        Client::Local => Some(Peer::local().addr),
        Client::Gone | Client::None | Client::Untold(_) | Client::Misnamed { .. } => None,
        Client::Remote { address, .. } => Some(text_of(unmapped(address, &ask.protocols))),
    }
}

/// An IPv6 socket shows IPv4 clients as ::ffff:a.b.c.d; lists and people know them by the IPv4 address.
fn unmapped(address: IpAddr, protocols: &Protocols) -> IpAddr {
    match address {
        IpAddr::V6(v6) if protocols.ipv4 => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// Looks up a variable of the environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

enum Client {
    /// No Internet connection, and nobody has said that there is one further away.
    Local,
    /// An Internet connection that is no longer one.
    Gone,
    /// The launcher has said whose the connection is, and not by an address.
    Misnamed {
        variable: &'static str,
        address: OsString,
    },
    /// A socket that clients are still to be accepted from.
    None,
    /// Unlike Postfix, to whom such a client is unknown and so refused for good: it may well be one that is let in.
    Untold(Errno),
    Remote {
        address: IpAddr,
        port: Option<u16>,
    },
}

fn client_on(fd: BorrowedFd<'_>, ask: &Ask, environment: Environment<'_>) -> Client {
    match getpeername::<SockaddrStorage>(fd.as_raw_fd()) {
        Ok(peer) => {
            if let Some(sin) = peer.as_sockaddr_in() {
                return Client::Remote {
                    address: sin.ip().into(),
                    port: Some(sin.port()),
                };
            }
            if let Some(sin6) = peer.as_sockaddr_in6() {
                return Client::Remote {
                    address: sin6.ip().into(),
                    port: Some(sin6.port()),
                };
            }
            client_named(ask, UNIX_VARIABLES, environment)
        }
        Err(Errno::ENOTSOCK) => match fstat(fd) {
            Ok(stat) if is_pipe(&stat) => client_named(ask, PIPE_VARIABLES, environment),
            Ok(_) => Client::Local,
            Err(errno) => Client::Untold(errno),
        },
        Err(Errno::ENOTCONN) if getsockopt(&fd, sockopt::AcceptConn) == Ok(true) => Client::None,
        Err(Errno::ENOTCONN) => Client::Gone,
        Err(errno) => Client::Untold(errno),
    }
}

/// Variables in which a launcher leaves the client's address and port: of UCSPI, of CGI and systemd, of stunnel.
const PIPE_VARIABLES: &[(&str, &str)] = &[
    ("TCPREMOTEIP", "TCPREMOTEPORT"),
    ("REMOTE_ADDR", "REMOTE_PORT"),
    ("REMOTE_HOST", "REMOTE_PORT"),
];

/// On a UNIX-domain socket REMOTE_ADDR is the other end's path (systemd), and only stunnel knows somebody farther away.
const UNIX_VARIABLES: &[(&str, &str)] = &[("REMOTE_HOST", "REMOTE_PORT")];

/// The client that the launcher names. A value that is no address leaves the client unknown: it came from somewhere,
/// and must not pass for localhost.
fn client_named(
    ask: &Ask,
    variables: &[(&'static str, &str)],
    environment: Environment<'_>,
) -> Client {
    if !ask.environment {
        return Client::Local;
    }
    let said = variables
        .iter()
        .find_map(|(variable, port)| Some((variable, environment(variable)?, port)));
    let Some((variable, address, port)) = said else {
        return Client::Local;
    };
    let port = environment(port).and_then(|port| port.to_str()?.parse().ok());
    match address.to_str().and_then(parse_scoped) {
        Some(address) => Client::Remote { address, port },
        None => Client::Misnamed { variable, address },
    }
}

/// Reads an address, and drops the scope that a link-local one may carry (`fe80::1%eth0`).
fn parse_scoped(text: &str) -> Option<IpAddr> {
    let (address, scope) = text.split_once('%').unwrap_or((text, ""));
    let address = address.parse().ok()?;
    match address {
        IpAddr::V4(_) if !scope.is_empty() => None,
        IpAddr::V4(_) | IpAddr::V6(_) => Some(address),
    }
}

fn is_pipe(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFIFO.bits()
}

/// An address as the C library writes it. The standard library differs in one form: the IPv4-compatible `::1.2.3.4`.
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

/// What is known of a client's name.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// It leads back to the address.
    Confirmed(String),
    /// There is none that does.
    None,
    /// That cannot be told for now.
    Open,
}

/// The name of `address`, if it has one that leads back to it. The resolver is asked in a child: it cannot be
/// interrupted, and may take minutes.
fn confirmed_name(address: IpAddr, addr: &str, limit: Duration) -> Name {
    if let Some(name) = hosts::confirmed_name(address) {
        if let Ok(text) = check_name(&name) {
            return Name::Confirmed(text.into_owned());
        }
    }
    let answer = match bounded_child(limit, || Answer::of(address, addr).into_bytes()) {
        Ok(Some(bytes)) => Answer::from_bytes(&bytes, addr),
        Ok(None) => {
            let seconds = limit.as_secs();
            Answer::open(format!(
                "the name lookup of {addr} took longer than {seconds} seconds"
            ))
        }
        Err(e) => Answer::cannot_look_up(addr, &log::error_text(&e)),
    };
    if let Some(warning) = answer.warning {
        log::warning(format_args!("{warning}"));
    }
    answer.name
}

/// What the lookup in the child has found, and what is to be logged about it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    name: Name,
    warning: Option<String>,
}

impl Answer {
    /// There is no name, or one that is not worth a line.
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
            // Most addresses have no name; that is worth no line.
            Err(reason) if reason.is_final() => return Answer::nothing(),
            Err(reason) => return Answer::cannot_look_up(addr, &reason),
        };
        match check_name(name.to_bytes()) {
            Ok(text) => confirm(&name, &text, address, addr),
            Err(warning) => Answer::none(warning),
        }
    }

    /// `c`, `n` or `o` for what there is to say about the name, and the name or the warning: what goes through the pipe.
    /// For a client without a name, as most are, it is nothing.
    fn into_bytes(self) -> Vec<u8> {
        let (kind, text) = match (self.name, self.warning) {
            (Name::Confirmed(name), _) => (b'c', name),
            (Name::None, None) => return Vec::new(),
            (Name::None, Some(warning)) => (b'n', warning),
            (Name::Open, warning) => (b'o', warning.unwrap_or_default()),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8], addr: &str) -> Answer {
        let text = |text| String::from_utf8_lossy(text).into_owned();
        match bytes.split_first() {
            None => Answer::nothing(),
            Some((b'c', name)) => Answer::confirmed(text(name)),
            Some((b'n', warning)) => Answer::none(text(warning)),
            Some((b'o', warning)) => Answer::open(text(warning)),
            Some(_) => Answer::cannot_look_up(addr, &"the child process answered with nonsense"),
        }
    }
}

/// A reverse zone can hold anything: what looks like an address would be taken for one in a list or a header.
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
