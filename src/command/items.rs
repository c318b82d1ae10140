//! Finds items of an access list that no client can match, and suggests what is meant; for `--check`.
//!
//! A name matches a client's name, which is a valid host name; an address or a network matches the client's address.
//! Any other item matches no client, and a serving process does not report it. Tables and malformed networks are left
//! to `lookup`. Follows `tests/spec/client-access.md`, section 1.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::{TABLE, valid_hostname};
use crate::lookup::{Literal, as_ipv4};

const EVERYBODY: &str = "Write 0.0.0.0/0, [::]/0 if every client is meant.";

const FORMS: &str = "Write a name (host.example.com), an address (192.0.2.1, [2001:db8::1]), a network (192.0.2.0/24), \
                     a file (/etc/...) or a table (type:name).";

/// The same as [`advice`], for an item of the list of proxies.
pub fn advice_for_a_proxy(item: &Literal<'_>) -> Option<String> {
    advice(item, true).or_else(|| {
        let is_name = !is_address(&item.pattern);
        is_name.then(|| "Write an address: the name of a proxy is not looked up.".to_owned())
    })
}

/// The form to write in place of an item that no client can match; `None` if a client can match it. `names` tells
/// whether clients can have names.
pub fn advice(item: &Literal<'_>, names: bool) -> Option<String> {
    let pattern = item.pattern.as_ref();
    if let Some(ipv4) = as_ipv4(pattern) {
        return Some(format!(
            "A client with this address is known as {ipv4}: write that."
        ));
    }
    if is_address(pattern) {
        return None;
    }
    if let Some(advice) = for_a_network(pattern) {
        return Some(advice);
    }
    let domain = pattern.strip_prefix('.').unwrap_or(pattern);
    if valid_hostname(domain.as_bytes()).is_err() {
        return Some(for_no_name(item));
    }
    if domain != pattern && item.includes_subdomains {
        return Some(format!(
            "Write {domain}, which includes all names below it, because parent_domain_matches_subdomains has this list."
        ));
    }
    for_a_word(pattern).or_else(|| {
        // A client on a UNIX-domain socket has the name localhost, and a client without a name is unknown.
        let has_name = names || ["localhost", "unknown"].contains(&pattern);
        (!has_name).then(|| {
            "Write an address: with qmqpd_peername_lookup = no a client has no name.".to_owned()
        })
    })
}

/// Whether the pattern is an address or a network. A pattern in brackets with only the characters of an address is one:
/// a malformed one is reported elsewhere.
fn is_address(pattern: &str) -> bool {
    let inside = pattern.strip_prefix('[').and_then(|p| p.strip_suffix(']'));
    if inside.unwrap_or(pattern).parse::<IpAddr>().is_ok() {
        return true;
    }
    let has_form = pattern.contains('/') || pattern.starts_with('[') && pattern.contains(':');
    has_form
        && pattern
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || b".:/[]".contains(&b))
}

/// The advice for IPv4 addresses and networks in the forms of other programs.
fn for_a_network(pattern: &str) -> Option<String> {
    if let Some((first, last)) = pattern.split_once('-') {
        let first: Ipv4Addr = first.parse().ok()?;
        // The end of a range: a whole address, or its last number.
        let last: Ipv4Addr = match last.parse::<u8>() {
            Ok(number) => {
                let [a, b, c, _] = first.octets();
                [a, b, c, number].into()
            }
            Err(_) => last.parse().ok()?,
        };
        return Some(match range(first, last) {
            networks if networks.is_empty() => FORMS.to_owned(),
            networks => format!("Write networks: {networks}."),
        });
    }
    let mut numbers: Vec<&str> = pattern.split('.').collect();
    let wildcards = numbers
        .iter()
        .rev()
        .take_while(|n| ["", "*", "x"].contains(n));
    let known = numbers.len() - wildcards.count();
    let has_wildcard = known < numbers.len();
    numbers.truncate(known);
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if numbers.is_empty() || !numbers.iter().all(is_number) {
        return None;
    }
    let parsed: Option<Vec<u8>> = numbers.iter().map(|number| octet(number)).collect();
    let (Some(parsed), 1..=4) = (parsed, known) else {
        return Some("An address has four numbers from 0 to 255.".to_owned());
    };
    let mut octets = [0; 4];
    octets
        .iter_mut()
        .zip(parsed)
        .for_each(|(octet, number)| *octet = number);
    let address = Ipv4Addr::from(octets);
    Some(match (known, has_wildcard) {
        (4, false) => format!("Write {address}, without zeros in front of a number."),
        (4, true) => format!("Write {address}."),
        _ => format!("Write {address}/{} if the network is meant.", known * 8),
    })
}

/// A number of an address from its digits, which may begin with zeros.
fn octet(digits: &str) -> Option<u8> {
    match digits.trim_start_matches('0') {
        "" => Some(0),
        number => number.parse().ok(),
    }
}

/// The fewest networks that cover the addresses from `first` to `last`.
fn range(first: Ipv4Addr, last: Ipv4Addr) -> String {
    let (mut from, to) = (u64::from(first.to_bits()), u64::from(last.to_bits()));
    let mut networks = Vec::new();
    while from <= to {
        let mut bits = from.trailing_zeros().min(32);
        while from + (1 << bits) - 1 > to {
            bits -= 1;
        }
        let address = Ipv4Addr::from_bits(u32::try_from(from).unwrap_or(u32::MAX));
        networks.push(match bits {
            0 => address.to_string(),
            _ => format!("{address}/{}", 32 - bits),
        });
        from += 1 << bits;
    }
    networks.join(", ")
}

/// The advice for a pattern that is no host name.
fn for_no_name(item: &Literal<'_>) -> String {
    let pattern = item.pattern.as_ref();
    let write = |better: &str, why: &str| {
        if better.is_empty() {
            return FORMS.to_owned();
        }
        format!("Write {better}: {why}.")
    };
    if let Some(rest) = pattern.strip_prefix('\u{feff}') {
        return write(rest, "the file begins with a byte order mark");
    }
    if pattern == "*" {
        return EVERYBODY.to_owned();
    }
    if let Some(domain) = pattern.strip_prefix("*.") {
        let dot = if item.includes_subdomains { "" } else { "." };
        return write(&format!("{dot}{domain}"), "it has all names below it");
    }
    if pattern.contains(['"', '\'']) {
        return write(
            &pattern.replace(['"', '\''], ""),
            "quotes are part of an item",
        );
    }
    if pattern.contains(';') {
        let items: Vec<&str> = pattern.split(';').filter(|item| !item.is_empty()).collect();
        return write(&items.join(", "), "commas and blanks separate items");
    }
    if let Some((_, domain)) = pattern.rsplit_once('@') {
        return write(domain, "a list has clients and not senders");
    }
    if let Some((address, _)) = pattern.split_once('%') {
        return write(
            &format!("{address}]"),
            "a client's address has no interface",
        );
    }
    if pattern.contains(['[', ']']) {
        let inside = pattern.trim_matches(['[', ']']);
        return write(inside, "brackets are for IPv6 addresses, and come in pairs");
    }
    if let Some(name) = pattern.strip_suffix('.') {
        return write(name, "a client's name has no dot at its end");
    }
    if !pattern.is_ascii() {
        return "Write the name as the DNS has it, in ASCII (xn--...).".to_owned();
    }
    FORMS.to_owned()
}

/// The advice for a host name of one label that is a word of Postfix.
fn for_a_word(pattern: &str) -> Option<String> {
    if pattern.contains('.') {
        return None;
    }
    if ["all", "any", "everybody", "everyone"].contains(&pattern) {
        return Some(EVERYBODY.to_owned());
    }
    let parameter = pattern.strip_prefix("permit_").unwrap_or(pattern);
    if TABLE.iter().any(|param| param.name == parameter) {
        return Some(format!(
            "Write ${parameter} if the value of that parameter is meant."
        ));
    }
    pattern.contains('_').then(|| FORMS.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str, includes_subdomains: bool) -> Option<String> {
        let item = Literal {
            pattern: pattern.into(),
            includes_subdomains,
            negated: false,
            place: None,
        };
        advice(&item, true)
    }

    #[test]
    fn what_a_client_can_match_is_no_mistake() {
        for pattern in [
            "10.0.0.1",
            "[10.0.0.1]",
            "10.0.0.0/8",
            "[10.0.0.0]/8",
            "[2001:db8::1]",
            "[2001:db8::]/32",
            "[2001:db8::/32]",
            "[::]/0",
            "localhost",
            "unknown",
            "mx1",
            "example.com",
            "my_host.example.com",
            "1-2-3-4.example.net",
            "4.3.2.1.in-addr.example",
            "dead.beef",
        ] {
            assert_eq!(of(pattern, true), None, "{pattern}");
        }
        assert_eq!(of(".example.com", false), None);
    }

    #[test]
    fn a_range_is_as_few_networks() {
        for (first, last, networks) in [
            (
                "10.0.0.1",
                "10.0.0.9",
                "10.0.0.1, 10.0.0.2/31, 10.0.0.4/30, 10.0.0.8/31",
            ),
            ("10.0.0.0", "10.0.0.255", "10.0.0.0/24"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
            ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
            ("255.255.255.254", "255.255.255.255", "255.255.255.254/31"),
        ] {
            assert_eq!(
                range(first.parse().unwrap(), last.parse().unwrap()),
                networks
            );
        }
    }
}
