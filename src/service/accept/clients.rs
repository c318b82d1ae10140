//! Counts the connections of each client.
//!
//! A client is the network of an address, because one host of the Internet has a /64 of IPv6 and could take all places.
//! Clients on UNIX-domain sockets are not counted: all of them are this machine. Which connections are accepted is left
//! to `accept`. The difference from Postfix is `tests/spec/differences.md`, 18.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use crate::config::{self, Config};
use crate::log;

use super::seldom::Seldom;

/// The largest number of clients without a connection that are remembered because they were turned away.
const REMEMBERED: usize = 1000;

/// A client: the addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    first: IpAddr,
    prefix: u32,
}

impl Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = match self.first {
            IpAddr::V4(_) => u32::BITS,
            IpAddr::V6(_) => u128::BITS,
        };
        match self.prefix {
            prefix if prefix == bits => self.first.fmt(f),
            prefix => write!(f, "{}/{prefix}", self.first),
        }
    }
}

/// The limits that main.cf sets.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The largest number of connections of one client; 0 is no limit.
    pub limit: u32,
    pub ipv4_prefix: u32,
    pub ipv6_prefix: u32,
}

impl Settings {
    pub fn from_config(config: &Config) -> Result<Settings, config::Error> {
        Ok(Settings {
            limit: config.qmqpd_client_connection_count_limit()?,
            ipv4_prefix: config.qmqpd_client_ipv4_prefix_length()?,
            ipv6_prefix: config.qmqpd_client_ipv6_prefix_length()?,
        })
    }

    /// The client with this address. An IPv6 socket shows an IPv4 client as ::ffff:a.b.c.d.
    fn network(&self, address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) => Network {
                first: Ipv4Addr::from_bits(
                    v4.to_bits() & !u32::MAX.checked_shr(self.ipv4_prefix).unwrap_or(0),
                )
                .into(),
                prefix: self.ipv4_prefix,
            },
            IpAddr::V6(v6) => Network {
                first: Ipv6Addr::from_bits(
                    v6.to_bits() & !u128::MAX.checked_shr(self.ipv6_prefix).unwrap_or(0),
                )
                .into(),
                prefix: self.ipv6_prefix,
            },
        }
    }
}

/// The clients that have connections, or were turned away in the last minute.
#[derive(Debug)]
pub struct Clients {
    settings: Settings,
    shares: BTreeMap<Network, Share>,
}

#[derive(Debug, Default)]
struct Share {
    connections: u32,
    turned_away: Seldom,
}

impl Clients {
    pub fn new(settings: Settings) -> Clients {
        Clients {
            settings,
            shares: BTreeMap::new(),
        }
    }

    /// Whether each client has a limit.
    pub fn have_a_limit(&self) -> bool {
        self.settings.limit > 0
    }

    /// The client with this address, if it may have one more connection. Otherwise the client is to be turned away;
    /// that is logged once in a minute for each client.
    pub fn admit(&mut self, address: IpAddr, now: Instant) -> Option<Network> {
        let network = self.settings.network(address);
        let limit = self.settings.limit;
        let share = self.shares.entry(network).or_default();
        if limit == 0 || share.connections < limit {
            return Some(network);
        }
        if let Some(count) = share.turned_away.happened(now) {
            report(network, limit, count);
        }
        None
    }

    pub fn begin(&mut self, network: Network) {
        self.shares.entry(network).or_default().connections += 1;
    }

    pub fn end(&mut self, network: Network, now: Instant) {
        if let Some(share) = self.shares.get_mut(&network) {
            share.connections = share.connections.saturating_sub(1);
        }
        self.forget(now);
    }

    /// When the next line is to be logged.
    pub fn due(&self) -> Option<Instant> {
        let times = self.shares.values();
        times.filter_map(|share| share.turned_away.due()).min()
    }

    /// Logs how many connections of each client were turned away since its last line.
    pub fn report(&mut self, now: Instant) {
        for (&network, share) in &mut self.shares {
            if let Some(count) = share.turned_away.due_at(now) {
                report(network, self.settings.limit, count);
            }
        }
        self.forget(now);
    }

    /// Forgets clients without a connection and without a line to log. If more than `REMEMBERED` are left, forgets all
    /// clients without a connection.
    fn forget(&mut self, now: Instant) {
        self.shares
            .retain(|_, share| share.connections > 0 || !share.turned_away.is_over(now));
        let without = self.shares.values().filter(|share| share.connections == 0);
        if without.count() > REMEMBERED {
            self.shares.retain(|_, share| share.connections > 0);
        }
    }
}

fn report(network: Network, limit: u32, count: u64) {
    log::warning!(
        "too many connections from {network}: it has {limit}, and {count} more were turned away"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: Settings = Settings {
        limit: 2,
        ipv4_prefix: 32,
        ipv6_prefix: 64,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_the_network_of_its_address() {
        let wide = Settings {
            ipv4_prefix: 24,
            ipv6_prefix: 128,
            ..SETTINGS
        };
        let all = Settings {
            ipv4_prefix: 0,
            ipv6_prefix: 0,
            ..SETTINGS
        };
        for (settings, address, expected) in [
            (SETTINGS, "192.0.2.7", "192.0.2.7"),
            (SETTINGS, "::ffff:192.0.2.7", "192.0.2.7"),
            (SETTINGS, "2001:db8::1:2:3:4", "2001:db8::/64"),
            (wide, "192.0.2.7", "192.0.2.0/24"),
            (wide, "2001:db8::1", "2001:db8::1"),
            (all, "192.0.2.7", "0.0.0.0/0"),
            (all, "2001:db8::1", "::/0"),
        ] {
            let network = settings.network(self::address(address));
            assert_eq!(network.to_string(), expected, "{address}");
        }
    }

    #[test]
    fn each_client_has_its_share_and_no_more() {
        let now = Instant::now();
        let mut clients = Clients::new(SETTINGS);
        for host in ["2001:db8::1", "2001:db8::2"] {
            let network = clients.admit(address(host), now).unwrap();
            clients.begin(network);
        }
        assert_eq!(clients.admit(address("2001:db8::3"), now), None);
        let other = clients.admit(address("2001:db8:0:1::1"), now);
        let network = clients.settings.network(address("2001:db8::1"));
        assert!(other.is_some_and(|other| other != network));
        clients.end(network, now);
        assert_eq!(clients.admit(address("2001:db8::3"), now), Some(network));
    }

    #[test]
    fn without_a_limit_no_client_is_turned_away() {
        let settings = Settings {
            limit: 0,
            ..SETTINGS
        };
        let mut clients = Clients::new(settings);
        for _ in 0..1000 {
            let network = clients.admit(address("192.0.2.7"), Instant::now());
            clients.begin(network.unwrap());
        }
    }

    /// Of a client without a connection nothing stays but that it was turned away in the last minute, and of many of those
    /// not even that.
    #[test]
    fn clients_are_forgotten() {
        let now = Instant::now();
        let mut clients = Clients::new(Settings {
            limit: 1,
            ..SETTINGS
        });
        let come_and_go = |clients: &mut Clients, address: IpAddr| {
            let network = clients.admit(address, now).unwrap();
            clients.begin(network);
            assert_eq!(clients.admit(address, now), None);
            assert_eq!(clients.admit(address, now), None);
            clients.end(network, now);
        };
        come_and_go(&mut clients, address("192.0.2.1"));
        let minute = now + Duration::from_secs(60);
        assert_eq!(clients.due(), Some(minute));
        clients.report(minute);
        assert_eq!((clients.due(), clients.shares.len()), (None, 1));
        clients.report(minute + Duration::from_secs(60));
        assert_eq!(clients.shares.len(), 0);
        for number in 0..u32::try_from(REMEMBERED).unwrap() {
            come_and_go(&mut clients, IpAddr::V4(Ipv4Addr::from_bits(number << 8)));
        }
        assert_eq!(clients.shares.len(), REMEMBERED);
        come_and_go(&mut clients, address("255.0.0.1"));
        assert_eq!(clients.shares.len(), 0);
    }
}
