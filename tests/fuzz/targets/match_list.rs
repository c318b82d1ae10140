//! Access lists: whether a client is listed, against item by item, character by character and bit by bit.

use std::fs::File;
use std::io::Write;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::lookup::{Listing, in_memory, parent_style};

use super::input::Input;
use super::obvious::lines::logical;
use super::obvious::network::Network;
use super::surroundings::{tables, with_log};

const LIST: &str = "qmqpd_authorized_clients";

const NAMES: &[Option<&str>] = &[
    Some("localhost"),
    Some("unknown"),
    Some("a.b.example"),
    Some("B.Example"),
    Some("example"),
    Some("1.example"),
    // It could not be looked up.
    None,
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
    /// Also where it would take the name to tell, and that is open.
    CannotTell,
    /// An item may match or not: that is for the name to tell, which is open.
    Open,
    /// The list is none.
    NoList,
    /// Nobody here knows: it takes a table to tell.
    AskTheTable,
}

/// Bytes for the client's name, its address, and whether `example` is what is below it too; a file; then the list, in
/// which `@` stands for the file's name, as it does in the file.
pub fn match_list(data: &[u8]) {
    let mut input = Input(data);
    let mut client = Client {
        name: input.choice(NAMES),
        addr: input.choice(ADDRS),
        parents_too: input.bit(),
    };
    if client.addr == "unknown" {
        // There is nothing to look up.
        client.name = client.name.or(Some("unknown"));
    }
    let file = String::from_utf8_lossy(input.data());
    let list = String::from_utf8_lossy(input.0);
    if leaves_the_test(&list) || leaves_the_test(&file) {
        return;
    }
    let mut memory = File::from(memfd_create(c"list", MFdFlags::MFD_CLOEXEC).unwrap());
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let (file, list) = (file.replace('@', &path), list.replace('@', &path));
    memory.write_all(file.as_bytes()).unwrap();
    let found = with_log(|| client.ask(&list));
    let expected = client.expect(&items_with_file(&list, &path, file.as_bytes()));
    if expected != Answer::AskTheTable {
        assert_eq!(found, expected, "{list:?} {file:?} {client:?}");
    }
}

/// Whether files and servers of this machine would be asked, or the C library for its expressions.
fn leaves_the_test(list: &str) -> bool {
    let next = |at: usize| list[at + 1..].chars().next();
    let is_mask = |(at, _): (usize, &str)| next(at).is_some_and(|c| c.is_ascii_digit());
    let is_file = |(at, _): (usize, &str)| next(at).is_none_or(is_separator);
    !list.match_indices('/').all(is_mask)
        || !list.match_indices('@').all(is_file)
        || list.contains("proxy:")
        || list.contains("regexp:")
}

#[derive(Debug)]
struct Client {
    name: Option<&'static str>,
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
            Ok(Listing::Listed) => Answer::Yes,
            Ok(Listing::NotListed) => Answer::No,
            Ok(Listing::Undecided) | Err(_) => Answer::CannotTell,
        }
    }

    fn expect(&self, items: &[(String, bool)]) -> Answer {
        if items.iter().any(|(pattern, _)| pattern.is_empty()) {
            return Answer::NoList;
        }
        let Some(((pattern, negated), rest)) = items.split_first() else {
            return Answer::No;
        };
        let matched = if *negated { Answer::No } else { Answer::Yes };
        match self.matches(pattern) {
            Answer::No => self.expect(rest),
            Answer::Yes => matched,
            Answer::Open => match self.expect(rest) {
                Answer::AskTheTable => Answer::AskTheTable,
                unmatched if unmatched == matched => matched,
                _ => Answer::CannotTell,
            },
            other => other,
        }
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
        let by_addr = self.matches_addr(pattern);
        match self.name {
            Some(name) if self.is_named(name, pattern) => Answer::Yes,
            None if by_addr == Answer::No && may_be_name(pattern) => Answer::Open,
            Some(_) | None => by_addr,
        }
    }

    fn matches_addr(&self, pattern: &str) -> Answer {
        let addr = self.addr.to_ascii_lowercase();
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

    fn is_named(&self, name: &str, pattern: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let is_below = if self.parents_too {
            name.ends_with(&format!(".{pattern}"))
        } else {
            pattern.starts_with('.') && name.ends_with(pattern) && name != pattern
        };
        name == pattern || is_below
    }
}

/// Whether a host name may be meant: labels of letters, digits, `-` and `_`, and a dot in front at most.
fn may_be_name(pattern: &str) -> bool {
    let name = pattern.strip_prefix('.').unwrap_or(pattern);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    name.len() <= 255
        && name.split('.').all(is_label)
        && name.contains(|c: char| !c.is_ascii_digit() && c != '.')
}

/// The patterns of a list, and whether each is negated; those of the file in the place of its name.
fn items_with_file(list: &str, path: &str, file: &[u8]) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for (pattern, negated) in items(list) {
        if pattern != path {
            all.push((pattern, negated));
            continue;
        }
        for line in logical(file) {
            let inner = items(&String::from_utf8_lossy(&line));
            all.extend(
                inner
                    .into_iter()
                    .map(|(pattern, own)| (pattern, own != negated)),
            );
        }
    }
    all
}

/// The patterns of a text.
fn items(text: &str) -> Vec<(String, bool)> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            c if depth == 0 && is_separator(c) => {
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

fn is_separator(c: char) -> bool {
    ", \t\r\n".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random::{self, Random};

    #[test]
    fn lists_decide_as_item_by_item() {
        random::run("match_list", match_list, |random| {
            let mut input = vec![random.byte(), random.byte(), random.byte()];
            let file = list(random, &["\n", " ", "\n "]);
            input.extend(u16::try_from(file.len()).unwrap().to_le_bytes());
            input.extend(file);
            input.extend(list(random, &[" ", ",", "\t"]));
            random.damage(&mut input);
            input
        });
    }

    fn list(random: &mut Random, separators: &[&str]) -> Vec<u8> {
        const ITEMS: &[&str] = &[
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
            "{a b}",
            "/8",
            ":x",
            "x:",
            "cidr:{{0.0.0.0/0 x}}",
            "nosuch:type",
            "@",
            "@",
            "@",
        ];
        let mut list = Vec::new();
        for _ in 0..random.below(5) {
            list.extend(random.text(2, &["!", ""]));
            list.extend(random.text(1, ITEMS));
            list.extend(random.text(2, separators));
        }
        list
    }
}
