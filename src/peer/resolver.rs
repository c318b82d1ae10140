//! Finds out whether there is a name server, as far as files tell; for `--check`.
//!
//! Without a name server every lookup fails, and every client that depends on its name is told to try later. Asks no
//! server: reads the files that the C library reads, and the kernel's table of sockets. In doubt there is a server.
//! Follows resolv.conf(5), nsswitch.conf(5) and proc(5).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::hosts::{NSSWITCH, lines, words};
use crate::log;

const RESOLV: &str = "/etc/resolv.conf";

/// The datagram sockets of this network namespace.
const SOCKETS: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];

/// The socket of systemd-resolved.
const RESOLVED: &str = "/run/systemd/resolve/io.systemd.Resolve";

/// Services that know this machine and its link only, and so have no name for most clients.
const LOCAL_SERVICES: [&[u8]; 4] = [b"dns", b"files", b"myhostname", b"mymachines"];

const PORT: u16 = 53;

/// Whether a server listens on this machine, which the C library asks if no name server is set. To be called before a
/// chroot.
pub fn has_local_server() -> bool {
    let listens = |path: &str| fs::read(path).map_or(true, |table| has_server(&table));
    SOCKETS.into_iter().any(listens)
}

/// Why a process with this root directory can look up no name; `None` if it may. `local` is [`has_local_server`].
pub fn no_server(local: bool) -> Option<String> {
    let nsswitch = fs::read(NSSWITCH).unwrap_or_default();
    if local || !asks_dns_alone(&nsswitch, Path::new(RESOLVED).exists()) {
        return None;
    }
    let why = match fs::read(RESOLV) {
        Ok(resolv) if names_server(&resolv) => return None,
        Ok(_) => "it names no server".to_owned(),
        Err(error) => log::error_text(&error),
    };
    Some(format!("{RESOLV}: {why}"))
}

/// Whether the DNS is the only service for other machines' names. It is if `hosts:` is not set.
fn asks_dns_alone(nsswitch: &[u8], resolved: bool) -> bool {
    let mut orders = lines(nsswitch).filter_map(|line| {
        let rest = line.strip_prefix(b"hosts")?;
        rest.trim_ascii().strip_prefix(b":")
    });
    let Some(order) = orders.next() else {
        return true;
    };
    // Actions are in brackets, with or without blanks.
    let mut inside = false;
    let order: Vec<u8> = order
        .iter()
        .map(|&b| {
            inside = (inside || b == b'[') && b != b']';
            if inside || b == b']' { b' ' } else { b }
        })
        .collect();
    let is_local = |service: &[u8]| {
        LOCAL_SERVICES.contains(&service)
            || service.starts_with(b"mdns")
            || service == b"resolve" && !resolved
    };
    words(&order).any(|service| service == b"dns") && words(&order).all(is_local)
}

/// Whether resolv.conf has a name server.
fn names_server(resolv: &[u8]) -> bool {
    let is_address = |word: &[u8]| {
        let text = std::str::from_utf8(word).unwrap_or_default();
        let address = text.split('%').next().unwrap_or_default();
        address.parse::<IpAddr>().is_ok()
    };
    resolv.split(|&b| b == b'\n').any(|line| {
        let mut words = words(line);
        line.starts_with(b"nameserver")
            && words.next() == Some(b"nameserver")
            && words.next().is_some_and(is_address)
    })
}

/// Whether the kernel's table has a socket for port 53 of 127.0.0.1.
fn has_server(table: &[u8]) -> bool {
    let text = String::from_utf8_lossy(table);
    text.lines().any(|line| {
        let local = line.split_whitespace().nth(1);
        local.and_then(socket).is_some_and(|(address, port)| {
            port == PORT && (address.is_unspecified() || address == IpAddr::V4(Ipv4Addr::LOCALHOST))
        })
    })
}

/// Reads an address in the kernel's form: words of four bytes in the machine's byte order, and the port.
fn socket(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    if let Ok(octets) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some((Ipv4Addr::from(octets).into(), port));
    }
    let octets = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some((Ipv6Addr::from(octets).to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_dns_is_asked_alone_where_others_know_this_machine_only() {
        for (text, alone) in [
            ("", true),
            ("passwd: files\n", true),
            ("hosts: files dns\n", true),
            (" hosts:\tdns # resolve\n", true),
            ("hosts: files mdns4_minimal [NOTFOUND=return] dns", true),
            ("hosts: files [ SUCCESS = return ] dns myhostname", true),
            (
                "hosts: mymachines resolve [!UNAVAIL=return] files dns",
                true,
            ),
            ("hosts: files", false),
            ("hosts:", false),
            ("hosts: files [dns]", false),
            ("hosts: files dns ldap", false),
        ] {
            assert_eq!(asks_dns_alone(text.as_bytes(), false), alone, "{text:?}");
        }
        assert!(!asks_dns_alone(b"hosts: resolve dns", true));
        assert!(asks_dns_alone(b"hosts: dns", true));
    }

    #[test]
    fn a_server_is_an_address_behind_its_keyword() {
        for (text, names) in [
            ("nameserver 192.0.2.1", true),
            ("search x\nnameserver\t::1 # c\n", true),
            ("nameserver fe80::1%eth0\n", true),
            ("", false),
            ("# nameserver 192.0.2.1\n;nameserver 192.0.2.1", false),
            ("nameserver\nnameserver x\nnameservers 192.0.2.1", false),
            (" nameserver 192.0.2.1", false),
        ] {
            assert_eq!(names_server(text.as_bytes()), names, "{text:?}");
        }
    }

    #[test]
    fn a_socket_is_read_from_the_kernels_table() {
        for ours in [
            "127.0.0.1:0",
            "[::1]:0",
            "[::ffff:127.0.0.1]:0",
            "0.0.0.0:0",
            "[::]:0",
        ] {
            let Ok(bound) = UdpSocket::bind(ours) else {
                continue;
            };
            let own = bound.local_addr().expect("bound");
            let table: String = SOCKETS
                .iter()
                .filter_map(|path| fs::read_to_string(path).ok())
                .collect();
            let found = table
                .lines()
                .filter_map(|line| socket(line.split_whitespace().nth(1)?))
                .any(|socket| socket == (own.ip().to_canonical(), own.port()));
            assert!(found, "{own} in {table}");
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_local_server_has_the_port_on_an_address_that_the_loopback_leads_to() {
        for (local, has) in [
            ("0100007F:0035", true),
            ("00000000:0035", true),
            ("00000000000000000000000000000000:0035", true),
            ("0000000000000000FFFF00000100007F:0035", true),
            ("0100007F:0036", false),
            ("3500007F:0035", false),
            ("00000000000000000000000001000000:0035", false),
            ("local_address", false),
        ] {
            let table = format!("  sl  local_address rem_address\n  7: {local} 00000000:0000 07\n");
            assert_eq!(has_server(table.as_bytes()), has, "{local}");
        }
    }
}
