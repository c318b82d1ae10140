//! `cidr:` tables: what a file says of an address, against rule by rule and bit by bit.

use std::net::IpAddr;

use crate::lookup::in_memory::InMemory;

use super::obvious::lines::{is_space, of_table, sign, trim, word};
use super::obvious::network::Network;
use super::surroundings::with_log;

const KEYS: &[&str] = &[
    "127.0.0.1",
    "10.1.2.3",
    "::1",
    "2001:db8::5",
    "::ffff:10.1.2.3",
];

/// The file.
pub fn cidr(file: &[u8]) {
    let (searched, kept) = (InMemory::cidr(file), InMemory::cidr(file));
    with_log(|| kept.take_snapshot());
    for table in [searched, kept] {
        for key in KEYS {
            let found = with_log(|| table.find(key));
            let expected = find(file, key.parse().unwrap());
            assert_eq!(found, Ok(expected.clone()), "{key}");
            let name = "client.example";
            let ask = |asked| with_log(|| table.find_of(Some(name), Some(key), asked));
            assert_eq!((ask(name), ask(key)), (Ok(None), Ok(expected)), "{key}");
        }
    }
}

fn find(file: &[u8], address: IpAddr) -> Option<Vec<u8>> {
    let mut conditions = Vec::new();
    for line in of_table(file) {
        let line = trim(&line);
        match word(line) {
            (word, rest) if word == b"endif" => {
                if trim(rest).is_empty() {
                    conditions.pop();
                }
            }
            (word, rest) if word == b"if" => conditions.extend(holds(trim(rest), address)),
            _ => {
                let (_, pattern) = sign(line);
                let length = pattern
                    .iter()
                    .position(|&b| is_space(b))
                    .unwrap_or(pattern.len());
                let value = trim(&pattern[length..]);
                let rule = &line[..line.len() - pattern.len() + length];
                let holds = !value.is_empty() && holds(rule, address) == Some(true);
                if holds && !conditions.contains(&false) {
                    return Some(value.to_vec());
                }
            }
        }
    }
    None
}

/// Whether a network with its `!` signs is for the address; none where it is no network.
fn holds(text: &[u8], address: IpAddr) -> Option<bool> {
    let (negated, network) = sign(text);
    let network = Network::parse(std::str::from_utf8(network).ok()?)?;
    Some(network.is_of_family(address) && network.contains(address) != negated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random;

    #[test]
    fn cidr_tables_are_read_as_rule_by_rule() {
        random::run("cidr", cidr, |random| {
            let mut input = Vec::new();
            for _ in 0..random.below(6) {
                let start = ["if ", "if !", "endif", "!", "! ", "", "", "# ", " "];
                let networks = [
                    "127.0.0.0/8",
                    "10.1.2.3",
                    "10.1.0.0/16",
                    "[10.1.2.3]",
                    "0.0.0.0/0",
                    "::/0",
                    "[::1]",
                    "[::]/1",
                    "[2001:db8::/32]",
                    "::ffff:0:0/96",
                    "10.1.2.3/16",
                    "127.0.0.1/33",
                    "x",
                ];
                let end = [" yes\n", "\tno\n", "\n", " a\0b\n"];
                let line = [random.below(9), random.below(13), random.below(4)];
                input.extend(
                    format!("{}{}{}", start[line[0]], networks[line[1]], end[line[2]]).bytes(),
                );
            }
            random.damage(&mut input);
            input
        });
    }
}
