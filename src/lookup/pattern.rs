//! Address patterns: `ADDR`, `ADDR/LEN`, `[ADDR]`, `[ADDR]/LEN`, `[ADDR/LEN]`.
//!
//! A pattern is read when a client is compared with it, and only for a client of its family; so a mistake in an IPv4
//! pattern does not keep IPv6 clients out. The checks are stricter than a parser of addresses needs, because a misread
//! network would let other clients in. Follows `tests/spec/client-access.md`, section 1.4.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// The fault of a pattern, with the part that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadPattern {
    HostBits { pattern: String, network: IpNetwork },
    MaskLength(String),
    MaskValue(String),
    Network(String),
    Address(String),
    MissingBracket(String),
    Garbage(String),
}

impl Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPattern::HostBits { pattern, network } => write!(
                f,
                "non-null host address bits in \"{pattern}\", perhaps you should use \"{network}\" instead"
            ),
            BadPattern::MaskLength(p) => write!(f, "bad mask length in \"{p}\""),
            BadPattern::MaskValue(p) => write!(f, "bad mask value in \"{p}\""),
            BadPattern::Network(p) => write!(f, "bad network value in \"{p}\""),
            BadPattern::Address(p) => write!(f, "bad address pattern: \"{p}\""),
            BadPattern::MissingBracket(p) => write!(f, "missing ']' character after \"{p}\""),
            BadPattern::Garbage(p) => write!(f, "garbage after \"{p}\""),
        }
    }
}

/// Whether `text` can be an address. Other text is not compared with address patterns.
pub(super) fn is_numeric(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_hexdigit() || b == b'.' || b == b':')
}

/// Whether the address `addr` equals `pattern`, or is in its network. Both are in lower case.
pub(super) fn matches(pattern: &str, addr: &str) -> Result<bool, BadPattern> {
    let bracketed = pattern.strip_prefix('[').and_then(|p| p.strip_suffix(']'));
    if pattern == addr || bracketed == Some(addr) {
        return Ok(true);
    }
    if !is_candidate(pattern, addr) {
        return Ok(false);
    }
    let network = Network::parse(pattern)?;
    Ok(addr.parse().is_ok_and(|addr| network.contains(addr)))
}

/// Whether the pattern, in lower case, is well-formed. Host names are.
pub(super) fn check(pattern: &str) -> Result<(), BadPattern> {
    if ["::", "0.0.0.0"]
        .iter()
        .any(|addr| is_candidate(pattern, addr))
    {
        Network::parse(pattern)?;
    }
    Ok(())
}

/// Whether the pattern is meant for addresses like `addr`. Host names, and patterns that look like them, are not.
fn is_candidate(pattern: &str, addr: &str) -> bool {
    let (mut is_ipv6, mut has_mask) = (false, false);
    let has_digits_alone = pattern.bytes().all(|b| {
        is_ipv6 |= b == b':';
        has_mask |= b == b'/';
        b.is_ascii_hexdigit() || matches!(b, b'.' | b':' | b'/' | b'[' | b']')
    });
    has_digits_alone && (is_ipv6 || has_mask) && is_ipv6 == addr.contains(':')
}

/// An address, or all addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network(IpNetwork);

impl Network {
    /// Reads a pattern.
    pub(super) fn parse(pattern: &str) -> Result<Network, BadPattern> {
        if let Some(network) = Network::plain(pattern.as_bytes()) {
            return Ok(network);
        }
        let (address, mask) = split(pattern)?;
        let is_ipv6 = pattern.bytes().any(|b| b == b':');
        let Some(mask) = mask else {
            return match parse_address(is_ipv6, address) {
                Some(address) => Ok(Network(address.into())),
                None => Err(BadPattern::Address(address.to_owned())),
            };
        };
        let shown = || format!("{address}/{mask}");
        if mask.is_empty() || !mask.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadPattern::MaskValue(shown()));
        }
        let bits = if is_ipv6 { 128 } else { 32 };
        let Some(length) = mask.parse::<u8>().ok().filter(|length| *length <= bits) else {
            return Err(BadPattern::MaskLength(shown()));
        };
        let Some(ip) = parse_address(is_ipv6, address) else {
            return Err(BadPattern::Network(shown()));
        };
        let Ok(network) = IpNetwork::new(ip, length) else {
            return Err(BadPattern::MaskLength(shown()));
        };
        if network.network() != ip {
            let network = IpNetwork::new(network.network(), length).unwrap_or(network);
            let pattern = shown();
            return Err(BadPattern::HostBits { pattern, network });
        }
        Ok(Network(network))
    }

    /// Reads a pattern of the most frequent forms in a list of a million, `1.2.3.4` or `1.2.3.0/24`, fast. `None` for
    /// any other form, right or wrong.
    pub(super) fn plain(pattern: &[u8]) -> Option<Network> {
        let mut octets = [0; 4];
        let mut rest = pattern;
        for (index, octet) in octets.iter_mut().enumerate() {
            if index > 0 {
                rest = rest.strip_prefix(b".")?;
            }
            (*octet, rest) = number(rest)?;
        }
        let length = match rest.split_first() {
            None => 32,
            Some((b'/', mask)) => number(mask).filter(|(_, rest)| rest.is_empty())?.0,
            Some(_) => return None,
        };
        let hosts = u32::MAX.checked_shr(length.into()).unwrap_or_default();
        if length > 32 || u32::from_be_bytes(octets) & hosts != 0 {
            return None;
        }
        let network = IpNetwork::new(Ipv4Addr::from(octets).into(), length);
        network.ok().map(Network)
    }

    /// The first address of the network.
    pub(super) fn start(&self) -> IpAddr {
        self.0.network()
    }

    /// How many bits its addresses have in common.
    pub(super) fn length(&self) -> u8 {
        self.0.prefix()
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    pub(super) fn is_of_family(&self, address: IpAddr) -> bool {
        self.0.is_ipv4() == address.is_ipv4()
    }
}

/// Splits a number up to 255 without leading zeros off `text`.
fn number(text: &[u8]) -> Option<(u8, &[u8])> {
    let (first, mut rest) = text.split_first().filter(|(b, _)| b.is_ascii_digit())?;
    let mut value = first - b'0';
    while let Some((digit, after)) = rest.split_first().filter(|(b, _)| b.is_ascii_digit()) {
        if value == 0 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(digit - b'0')?;
        rest = after;
    }
    Some((value, rest))
}

/// Removes the brackets, and splits the mask from the address, on either side of the closing bracket.
fn split(pattern: &str) -> Result<(&str, Option<&str>), BadPattern> {
    let Some(open) = pattern.strip_prefix('[') else {
        return Ok(at_slash(pattern));
    };
    let Some((inside, after)) = open.split_once(']') else {
        return Err(BadPattern::MissingBracket(pattern.to_owned()));
    };
    if after.is_empty() {
        return Ok(at_slash(inside));
    }
    match after.strip_prefix('/') {
        Some(mask) => Ok((inside, Some(mask))),
        None => Err(BadPattern::Garbage(format!("[{inside}]"))),
    }
}

fn at_slash(text: &str) -> (&str, Option<&str>) {
    // For short texts this is faster than memchr(3).
    let slash = text.bytes().position(|b| b == b'/');
    match slash.and_then(|at| text.split_at_checked(at)) {
        Some((address, mask)) => (address, mask.get(1..)),
        None => (text, None),
    }
}

/// The IPv4 address or network of an IPv6 pattern, with or without brackets: a client with such an address is shown
/// with its IPv4 address, and does not match the pattern.
pub fn as_ipv4(pattern: &str) -> Option<String> {
    let inside = pattern.replace(['[', ']'], "");
    let (address, mask) = at_slash(&inside);
    let address = address.parse::<Ipv6Addr>().ok()?.to_ipv4_mapped()?;
    let Some(mask) = mask else {
        return Some(address.to_string());
    };
    let length = mask.parse::<u8>().ok()?.checked_sub(128 - 32)?;
    Some(format!("{address}/{length}"))
}

/// The standard library reads addresses as inet_pton(3) does: without leading zeros, short forms and scope.
fn parse_address(is_ipv6: bool, address: &str) -> Option<IpAddr> {
    if is_ipv6 {
        address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    } else {
        address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether the first `length` of `width` bits are equal: the obvious comparison, to test the arithmetic.
    fn agree(a: u128, b: u128, length: u8, width: u8) -> bool {
        (0..length).all(|i| (a >> (width - 1 - i)) & 1 == (b >> (width - 1 - i)) & 1)
    }

    fn text(bits: u128, width: u8) -> String {
        if width == 32 {
            Ipv4Addr::from_bits(u32::try_from(bits).expect("32 bits")).to_string()
        } else {
            Ipv6Addr::from_bits(bits).to_string()
        }
    }

    /// `bits` with zeros after the first `length`.
    fn network(bits: u128, length: u8, width: u8) -> u128 {
        (0..width - length).fold(bits, |bits, i| bits & !(1 << i))
    }

    fn check(address: u128, base: u128, length: u8, width: u8) {
        let start = network(base, length, width);
        let (addr, net) = (text(address, width), text(start, width));
        let expected = agree(address, start, length, width);
        for pattern in [
            format!("{net}/{length}"),
            format!("[{net}]/{length}"),
            format!("[{net}/{length}]"),
        ] {
            assert_eq!(matches(&pattern, &addr), Ok(expected), "{pattern} {addr}");
        }
        if start != base {
            let pattern = format!("{}/{length}", text(base, width));
            let bad = matches(&pattern, &addr).expect_err("host bits");
            let expected = format!(
                "non-null host address bits in \"{pattern}\", perhaps you should use \"{net}/{length}\" instead"
            );
            assert_eq!(bad.to_string(), expected);
        }
    }

    #[test]
    fn an_ipv4_address_is_seen_in_an_ipv6_pattern() {
        for (pattern, ipv4) in [
            ("[::ffff:10.0.0.1]", Some("10.0.0.1")),
            ("::ffff:a00:0/104", Some("10.0.0.0/8")),
            ("[::ffff:0:0/96]", Some("0.0.0.0/0")),
            ("[::ffff:0:0]/95", None),
            ("[::1]", None),
            ("10.0.0.1", None),
        ] {
            assert_eq!(as_ipv4(pattern).as_deref(), ipv4, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn networks_hold_what_a_bit_by_bit_comparison_says(
            base: u128, length in 0_u8..=128, bit in 0_u8..128, far: u128
        ) {
            // An address that differs in one bit shows a count that is wrong by one.
            check(base ^ (1 << bit), base, length, 128);
            check(far, base, length, 128);
            let (base, far) = (base & 0xffff_ffff, far & 0xffff_ffff);
            check(base ^ (1 << (bit % 32)), base, length % 33, 32);
            check(far, base, length % 33, 32);
        }

        #[test]
        fn a_plain_network_is_what_it_is_read_as_the_long_way(
            pattern in "(([0-9]{1,4}|0|10|25[4-6]|1[0-9]{2})\\.){2,4}([0-9]{1,3}|0)(/([0-9]{0,3}|8|24|32|33))?[0-9./ ]?"
        ) {
            let (address, mask) = at_slash(&pattern);
            let expected = address.parse::<Ipv4Addr>().ok().zip(mask.unwrap_or("32").parse().ok());
            let expected = expected.and_then(|(ip, length)| IpNetwork::new(ip.into(), length).ok());
            let expected = expected.filter(|network| network.network() == network.ip());
            if let Some(Network(found)) = Network::plain(pattern.as_bytes()) {
                prop_assert_eq!(Some(found), expected);
            } else if let Some(network) = expected {
                let as_written = [network.ip().to_string(), network.to_string()];
                prop_assert!(!as_written.contains(&pattern), "{}", pattern);
            }
        }

        #[test]
        fn no_pattern_is_too_odd(pattern in "[\\[\\]/:.0-9a-f]{0,24}|\\PC{0,24}") {
            for addr in ["127.0.0.1", "::1", "fe80::5", "dead"] {
                drop(matches(&pattern, addr));
            }
        }

        #[test]
        fn an_address_matches_itself_in_any_spelling(bits: u128) {
            let addr = text(bits, 128);
            let long = bits.to_be_bytes().chunks(2)
                .map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]))
                .collect::<Vec<_>>().join(":");
            prop_assert_eq!(matches(&format!("[{long}]"), &addr), Ok(true));
            prop_assert_eq!(matches(&format!("[{long}]/128"), &addr), Ok(true));
        }
    }
}
