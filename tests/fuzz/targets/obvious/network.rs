//! Addresses and networks as strings of bits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network: the bits that its addresses begin with, and how many an address has.
#[derive(Debug, PartialEq, Eq)]
pub struct Network {
    start: String,
    width: usize,
}

impl Network {
    /// `ADDR`, `ADDR/LEN`, `[ADDR]`, `[ADDR]/LEN` or `[ADDR/LEN]`; none for everything else.
    pub fn parse(text: &str) -> Option<Network> {
        let plain = match text.strip_prefix('[') {
            None => text.to_owned(),
            Some(open) => {
                let (inside, after) = open.split_once(']')?;
                if !after.is_empty() && !after.starts_with('/') {
                    return None;
                }
                format!("{inside}{after}")
            }
        };
        let (address, length) = match plain.split_once('/') {
            None => (plain.as_str(), None),
            Some((address, length)) => (address, Some(length)),
        };
        let address = if text.contains(':') {
            IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)
        } else {
            IpAddr::V4(address.parse::<Ipv4Addr>().ok()?)
        };
        let bits = bits(address);
        let length = match length {
            None => bits.len(),
            Some(digits) if digits.bytes().any(|b| !b.is_ascii_digit()) => return None,
            Some(digits) => digits.parse().ok()?,
        };
        let host = bits.get(length..)?;
        (!host.contains('1')).then(|| Network {
            start: bits[..length].to_owned(),
            width: bits.len(),
        })
    }

    pub fn is_of_family(&self, address: IpAddr) -> bool {
        bits(address).len() == self.width
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_of_family(address) && bits(address).starts_with(&self.start)
    }
}

fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("{:0128b}", address.to_bits()),
    }
}
