//! The default of mynetworks: the networks of this machine's own addresses.
//!
//! Asks the kernel for its interfaces, so that it must run before confinement. Follows `tests/spec/main-cf.md`, section
//! 7.1, and postconf(5), mynetworks_style and inet_interfaces.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

use ipnetwork::IpNetwork;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use super::error::Error;
use super::keywords::Style;
use super::params::Param;
use super::{Config, Protocols, lines};
use crate::log::errno_text;

/// The default of mynetworks. Each network is followed by a space, also the last one.
pub(super) fn mynetworks(config: &Config, _: &Param) -> Result<Vec<u8>, Error> {
    let style = config.mynetworks_style()?;
    let interfaces = config.inet_interfaces()?;
    let protocols = config.inet_protocols()?;
    let mut warn = |warning| config.warn(warning);
    let local = local_addresses(protocols, &mut warn)?;
    let chosen = choose(&interfaces, protocols, local)?;
    Ok(networks(style, &chosen).into_bytes())
}

/// The addresses of the interfaces that are up, each with the length of its network's prefix; IPv4 first.
fn local_addresses(
    protocols: Protocols,
    warn: &mut dyn FnMut(String),
) -> Result<Vec<IpNetwork>, Error> {
    let all =
        getifaddrs().map_err(|errno| Error::new(format!("getifaddrs: {}", errno_text(errno))))?;
    let mut found: Vec<IpNetwork> = all
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| own_address(&interface))
        .filter(|own| has_family(protocols, own.ip()))
        .collect();
    found.sort_by_key(IpNetwork::is_ipv6);
    found.retain(|own| {
        if own.prefix() == 0 {
            let family = if own.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            warn(format!(
                "ignoring interface with null netmask, address family {family}"
            ));
        }
        own.prefix() > 0
    });
    Ok(found)
}

/// The Internet address of an interface, and the length of its network's prefix.
fn own_address(interface: &InterfaceAddress) -> Option<IpNetwork> {
    let ip = |address: &SockaddrStorage| -> Option<IpAddr> {
        let ipv4 = address.as_sockaddr_in().map(|ipv4| ipv4.ip().into());
        ipv4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
    };
    let (address, mask) = (interface.address.as_ref()?, interface.netmask.as_ref()?);
    IpNetwork::with_netmask(ip(address)?, ip(mask)?).ok()
}

fn has_family(protocols: Protocols, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => protocols.ipv4,
        IpAddr::V6(_) => protocols.ipv6,
    }
}

/// The addresses of `local` that inet_interfaces names.
fn choose(
    interfaces: &str,
    protocols: Protocols,
    local: Vec<IpNetwork>,
) -> Result<Vec<IpNetwork>, Error> {
    let mut chosen = local;
    match interfaces {
        "all" => {}
        "loopback-only" => chosen.retain(|own| own.ip().is_loopback()),
        _ => return named(interfaces, protocols, &chosen),
    }
    if chosen.is_empty() {
        let text = "could not find any active network interfaces";
        return Err(Error::new(text));
    }
    Ok(chosen)
}

fn named(
    interfaces: &str,
    protocols: Protocols,
    local: &[IpNetwork],
) -> Result<Vec<IpNetwork>, Error> {
    let mut chosen = Vec::new();
    for name in lines::items(interfaces.as_bytes()) {
        let name = String::from_utf8_lossy(name);
        for address in resolve(&name, protocols)? {
            let own = local.iter().find(|own| own.ip() == address);
            let own = own.ok_or_else(|| {
                Error::new(format!(
                    "parameter inet_interfaces: no local interface found for {address}"
                ))
            })?;
            chosen.push(*own);
        }
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

fn resolve(name: &str, protocols: Protocols) -> Result<Vec<IpAddr>, Error> {
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let bare = bare.unwrap_or(name);
    let mut addresses: Vec<IpAddr> = match bare.parse() {
        Ok(address) => vec![address],
        // The reason why a name has no address is not reported.
        Err(_) => (bare, 0)
            .to_socket_addrs()
            .map(|found| found.map(|socket| socket.ip()).collect())
            .unwrap_or_default(),
    };
    addresses.retain(|&address| has_family(protocols, address));
    if addresses.is_empty() {
        return Err(Error::new(format!(
            "config variable inet_interfaces: host not found: {name}"
        )));
    }
    Ok(addresses)
}

/// The networks, without repetitions.
fn networks(style: Style, own: &[IpNetwork]) -> String {
    let mut networks = Vec::new();
    for own in own {
        let around = around(style, *own);
        let network = match around.network() {
            IpAddr::V4(address) => format!("{address}/{} ", around.prefix()),
            IpAddr::V6(address) => format!("[{address}]/{} ", around.prefix()),
        };
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    networks.concat()
}

/// The network of an address of this machine under `style`.
fn around(style: Style, own: IpNetwork) -> IpNetwork {
    match (style, own.ip()) {
        (Style::Host, address) => address.into(),
        (Style::Class, IpAddr::V4(address)) => IpNetwork::new(address.into(), class(address))
            .expect("the prefix of a class has 24 bits at most"),
        (Style::Class, IpAddr::V6(_)) | (Style::Subnet, _) => own,
    }
}

fn class(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        [192..=223, ..] => 24,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Protocols = Protocols {
        ipv4: true,
        ipv6: true,
    };

    fn machine() -> Vec<IpNetwork> {
        let own = [
            "127.0.0.1/8",
            "192.0.2.10/24",
            "198.51.100.7/32",
            "2001:db8:1::9/128",
            "2001:db8::5/64",
            "::1/128",
        ];
        own.map(|own| own.parse().unwrap()).into()
    }

    fn value(style: Style, interfaces: &str) -> Result<String, String> {
        let chosen = choose(interfaces, BOTH, machine()).map_err(|fault| fault.to_string())?;
        Ok(networks(style, &chosen))
    }

    #[test]
    fn each_style_makes_the_networks_that_postfix_makes() {
        let cases = [
            (
                Style::Host,
                "127.0.0.1/32 192.0.2.10/32 198.51.100.7/32 [2001:db8:1::9]/128 [2001:db8::5]/128 [::1]/128 ",
            ),
            (
                Style::Subnet,
                "127.0.0.0/8 192.0.2.0/24 198.51.100.7/32 [2001:db8:1::9]/128 [2001:db8::]/64 [::1]/128 ",
            ),
            (
                Style::Class,
                "127.0.0.0/8 192.0.2.0/24 198.51.100.0/24 [2001:db8:1::9]/128 [2001:db8::]/64 [::1]/128 ",
            ),
        ];
        for (style, expected) in cases {
            assert_eq!(value(style, "all").as_deref(), Ok(expected));
        }
    }

    #[test]
    fn inet_interfaces_narrows_the_list_and_sorts_it() {
        let subnet = |interfaces| value(Style::Subnet, interfaces).unwrap();
        assert_eq!(subnet("loopback-only"), "127.0.0.0/8 [::1]/128 ");
        assert_eq!(
            subnet("[::1], 127.0.0.1 127.0.0.1"),
            "127.0.0.0/8 [::1]/128 "
        );
        assert_eq!(subnet(""), "");
    }

    #[test]
    fn interfaces_that_this_machine_has_not_are_errors() {
        let fails = |interfaces| value(Style::Subnet, interfaces).unwrap_err();
        assert_eq!(
            fails("10.9.9.9"),
            "parameter inet_interfaces: no local interface found for 10.9.9.9"
        );
        assert_eq!(
            fails("no such"),
            "config variable inet_interfaces: host not found: no"
        );
        let none = choose("all", BOTH, Vec::new()).map_err(|fault| fault.to_string());
        assert_eq!(
            none,
            Err("could not find any active network interfaces".to_owned())
        );
    }

    #[test]
    fn an_address_of_a_family_that_is_off_is_no_host() {
        let ipv4 = Protocols {
            ipv4: true,
            ipv6: false,
        };
        let fault = choose("::1", ipv4, machine()).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "config variable inet_interfaces: host not found: ::1"
        );
    }

    #[test]
    fn two_addresses_in_one_network_make_one_entry() {
        let own = ["192.0.2.1/24", "192.0.2.2/24"].map(|own| own.parse().unwrap());
        let list = networks(Style::Subnet, &own);
        assert_eq!(list, "192.0.2.0/24 ");
    }
}
