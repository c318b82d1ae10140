//! Access lists: whether a client is listed, against item by item, character by character and bit by bit.

use std::net::Ipv6Addr;

use crate::lookup::{in_memory, parent_style};

use super::input::Input;
use super::obvious::network::Network;
use super::surroundings::{tables, with_log};

const LIST: &str = "qmqpd_authorized_clients";

const NAMES: &[&str] = &[
    "localhost",
    "unknown",
    "a.b.example",
    "B.Example",
    "example",
    "1.example",
];
const ADDRS: &[&str] = &[
    "127.0.0.1",
    "::1",
    "192.0.2.1",
    "2001:DB8::5",
    "unknown",
    "fe80::1",
];

/// What a list, or an item of one, says of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    CannotTell,
    /// The list is none.
    NoList,
    /// Nobody here knows: it takes a table to tell.
    AskTheTable,
}

/// Bytes for the client's name, its address, and whether `example` is what is below it too; then the list.
pub fn match_list(data: &[u8]) {
    let mut input = Input(data);
    let client = Client {
        name: input.choice(NAMES),
        addr: input.choice(ADDRS),
        parents_too: input.bit(),
    };
    let list = String::from_utf8_lossy(input.0);
    if leaves_the_test(&list) {
        return;
    }
    let found = with_log(|| client.ask(&list));
    let expected = client.expect(&list);
    if expected != Answer::AskTheTable {
        assert_eq!(found, expected, "{list:?} {client:?}");
    }
}

/// Whether files and servers of this machine would be asked, or the C library for its expressions.
fn leaves_the_test(list: &str) -> bool {
    let mut slashes = list.match_indices('/');
    let is_mask = |(at, _): (usize, &str)| list[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    !slashes.all(is_mask) || list.contains("proxy:") || list.contains("regexp:")
}

#[derive(Debug)]
struct Client {
    name: &'static str,
    addr: &'static str,
    parents_too: bool,
}

impl Client {
    fn ask(&self, list: &str) -> Answer {
        let mut tables = tables(true);
        let parents = if self.parents_too { LIST } else { "" };
        let parents = parent_style(parents, LIST, &mut tables).unwrap();
        let Ok(list) = in_memory::match_list(list, parents, &mut tables) else {
            return Answer::NoList;
        };
        match list.match_client(self.name, self.addr) {
            Ok(true) => Answer::Yes,
            Ok(false) => Answer::No,
            Err(_) => Answer::CannotTell,
        }
    }

    fn expect(&self, list: &str) -> Answer {
        let items = items(list);
        if items.iter().any(|(pattern, _)| pattern.is_empty()) {
            return Answer::NoList;
        }
        for (pattern, negated) in items {
            match self.matches(&pattern) {
                Answer::No => {}
                Answer::Yes if negated => return Answer::No,
                other => return other,
            }
        }
        Answer::No
    }

    fn matches(&self, pattern: &str) -> Answer {
        if pattern.starts_with('/') {
            return Answer::CannotTell;
        }
        if !pattern.contains(':') || pattern.starts_with('[') {
            return self.matches_literal(&pattern.to_ascii_lowercase());
        }
        let (address, mask) = pattern.split_once('/').unwrap_or((pattern, "0"));
        let is_mask = !mask.is_empty() && mask.bytes().all(|b| b.is_ascii_digit());
        if is_mask && address.parse::<Ipv6Addr>().is_ok() {
            return self.matches_literal(&format!("[{}]", pattern.to_ascii_lowercase()));
        }
        match pattern.split_once(':') {
            Some(("", _) | (_, "") | ("fail", _)) => Answer::CannotTell,
            Some(("static", value)) if !value.starts_with('{') => Answer::Yes,
            _ => Answer::AskTheTable,
        }
    }

    fn matches_literal(&self, pattern: &str) -> Answer {
        let addr = self.addr.to_ascii_lowercase();
        if self.is_named(pattern) {
            return Answer::Yes;
        }
        if addr == "unknown" {
            return Answer::No;
        }
        if pattern == addr || pattern == format!("[{addr}]") {
            return Answer::Yes;
        }
        // Whatever may be a host name, and whatever is of the other family, is passed over without a look.
        let is_ipv6 = pattern.contains(':');
        let may_be_network = is_ipv6 || pattern.contains('/');
        let has_name = pattern
            .chars()
            .any(|c| !"0123456789abcdef.:/[]".contains(c));
        if !may_be_network || has_name || is_ipv6 != addr.contains(':') {
            return Answer::No;
        }
        match Network::parse(pattern) {
            None => Answer::CannotTell,
            Some(network) if network.contains(addr.parse().unwrap()) => Answer::Yes,
            Some(_) => Answer::No,
        }
    }

    fn is_named(&self, pattern: &str) -> bool {
        let name = self.name.to_ascii_lowercase();
        let is_below = if self.parents_too {
            name.ends_with(&format!(".{pattern}"))
        } else {
            pattern.starts_with('.') && name.ends_with(pattern) && name != pattern
        };
        name == pattern || is_below
    }
}

/// The patterns of a list, and whether each is negated.
fn items(list: &str) -> Vec<(String, bool)> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for c in list.chars() {
        match c {
            ',' | ' ' | '\t' | '\r' | '\n' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            '{' => depth += 1,
            '}' => depth = (depth - 1).max(0),
            _ => {}
        }
        items.last_mut().unwrap().push(c);
    }
    items.retain(|item| !item.is_empty());
    let before_comment = items.into_iter().take_while(|item| !item.starts_with('#'));
    before_comment
        .map(|item| {
            let pattern = item.trim_start_matches('!');
            (pattern.to_owned(), (item.len() - pattern.len()) % 2 == 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random;

    #[test]
    fn lists_decide_as_item_by_item() {
        random::run("match_list", match_list, |random| {
            let mut input = vec![random.byte(), random.byte(), random.byte()];
            for _ in 0..random.below(5) {
                input.extend(random.text(2, &["!", ""]));
                input.extend(random.text(
                    1,
                    &[
                        "localhost",
                        "unknown",
                        "example",
                        ".example",
                        "B.example",
                        "127.0.0.1",
                        "127.0.0.0/8",
                        "127.0.0.1/8",
                        "[::1]",
                        "::1",
                        "2001:DB8::/32",
                        "[2001:db8::/32]",
                        "[2001:db8::]/33",
                        "fe80::/10",
                        "192.0.2.0/24",
                        "192.0.2.0/33",
                        "[::1",
                        "static:x",
                        "fail:x",
                        "dead/8",
                        "#",
                        "inline:{a=b, b=c}",
                        "cidr:{{0.0.0.0/0 x}}",
                        "{a b}",
                        "/8",
                        ":x",
                        "x:",
                        "nosuch:type",
                    ],
                ));
                input.extend(random.text(2, &[" ", ",", "\t"]));
            }
            random.damage(&mut input);
            input
        });
    }
}
