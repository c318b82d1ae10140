//! Networks by the thousand: those that have an address are found without a look at the others.
//!
//! The networks of one length stand in order, a few bytes each, so that a process that is forked for a client has few
//! pages to take over. What a network stands for is a number, and its meaning is left to the reader.

use std::net::IpAddr;

use super::pattern::Network;

/// Networks with numbers.
#[derive(Debug, Default)]
pub(super) struct NetworkIndex {
    ipv4: Vec<SameLength<4>>,
    ipv6: Vec<SameLength<16>>,
}

/// The networks that have addresses of so many bytes, and of these `length` bits in common.
#[derive(Debug)]
struct SameLength<const BYTES: usize> {
    length: u8,
    networks: Vec<([u8; BYTES], u32)>,
}

impl NetworkIndex {
    pub(super) fn add(&mut self, network: &Network, number: u32) {
        match network.start() {
            IpAddr::V4(start) => add(&mut self.ipv4, network.length(), start.octets(), number),
            IpAddr::V6(start) => add(&mut self.ipv6, network.length(), start.octets(), number),
        }
    }

    /// Puts the networks in order, after the last one.
    pub(super) fn sort(&mut self) {
        self.ipv4.iter_mut().for_each(SameLength::sort);
        self.ipv6.iter_mut().for_each(SameLength::sort);
    }

    /// The lowest number of a network that has the address.
    pub(super) fn lowest(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => lowest(&self.ipv4, address.octets()),
            IpAddr::V6(address) => lowest(&self.ipv6, address.octets()),
        }
    }
}

fn add<const BYTES: usize>(
    all: &mut Vec<SameLength<BYTES>>,
    length: u8,
    start: [u8; BYTES],
    number: u32,
) {
    match all.iter_mut().find(|same| same.length == length) {
        Some(same) => same.networks.push((start, number)),
        None => all.push(SameLength {
            length,
            networks: vec![(start, number)],
        }),
    }
}

fn lowest<const BYTES: usize>(all: &[SameLength<BYTES>], address: [u8; BYTES]) -> Option<u32> {
    all.iter().filter_map(|same| same.number(address)).min()
}

impl<const BYTES: usize> SameLength<BYTES> {
    fn sort(&mut self) {
        self.networks.sort_unstable();
        self.networks.shrink_to_fit();
    }

    /// The lowest number of the network that has the address.
    fn number(&self, address: [u8; BYTES]) -> Option<u32> {
        let sought = start_of(address, self.length);
        let before = self.networks.partition_point(|(start, _)| *start < sought);
        let (start, number) = self.networks.get(before)?;
        (*start == sought).then_some(*number)
    }
}

/// The first address of the network of this length that has the address.
fn start_of<const BYTES: usize>(address: [u8; BYTES], length: u8) -> [u8; BYTES] {
    let mut bits = u32::from(length);
    address.map(|byte| {
        let own = bits.min(8);
        bits -= own;
        byte & !u8::MAX.checked_shr(own).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATTERNS: [&str; 11] = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.128.0.0/9",
        "10.1.2.0/24",
        "10.1.2.3",
        "10.1.2.2/31",
        "[::]/0",
        "[2001:db8::]/32",
        "[2001:db8::]/33",
        "[2001:db8::1]",
        "[::ffff:10.1.2.3]",
    ];

    const ADDRESSES: [&str; 10] = [
        "10.1.2.3",
        "10.1.2.2",
        "10.1.3.3",
        "10.200.0.0",
        "255.255.255.255",
        "2001:db8::1",
        "2001:db8:8000::",
        "2001:db9::",
        "::",
        "::ffff:10.1.2.3",
    ];

    proptest! {
        #[test]
        fn the_first_network_in_order_has_the_lowest_number(
            chosen in proptest::collection::vec(0..PATTERNS.len(), 0..20)
        ) {
            let network = |at: usize| Network::parse(PATTERNS[at]).expect("network");
            let networks: Vec<Network> = chosen.into_iter().map(network).collect();
            let mut index = NetworkIndex::default();
            for (number, network) in (0..).zip(&networks) {
                index.add(network, number);
            }
            index.sort();
            for address in ADDRESSES {
                let address: IpAddr = address.parse().expect("address");
                let has = |network: &Network| network.is_of_family(address) && network.contains(address);
                let first = networks.iter().position(has);
                prop_assert_eq!(index.lowest(address).map(|number| number as usize), first, "{}", address);
            }
        }

        #[test]
        fn a_network_starts_where_ipnetwork_says(
            ipv4: std::net::Ipv4Addr, short in 0_u8..=32, ipv6: std::net::Ipv6Addr, long in 0_u8..=128
        ) {
            let network = ipnetwork::Ipv4Network::new(ipv4, short).expect("network");
            prop_assert_eq!(start_of(ipv4.octets(), short), network.network().octets());
            let network = ipnetwork::Ipv6Network::new(ipv6, long).expect("network");
            prop_assert_eq!(start_of(ipv6.octets(), long), network.network().octets());
        }
    }
}
