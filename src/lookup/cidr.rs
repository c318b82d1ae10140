//! `cidr:FILE`, `cidr:{ {rule}, {rule} }`: networks, of which the first with the address decides.
//!
//! `[!]NETWORK value`, and `if [!]NETWORK` ... `endif` around rules. A rule applies to keys of its own address family,
//! also if it is negated. A malformed rule is skipped with a warning, as in Postfix. Follows cidr_table(5), and
//! `tests/spec/client-access.md`, section 4.2. The order of rules is `lookup::rules`'.

use std::net::IpAddr;

use super::networks::NetworkIndex;
use super::pattern::Network;
use super::rules::{Condition, Receiver, skipped};
use super::table::Keys;
use super::text::Reader;
use crate::config::lines::{is_space, trim};
use crate::log::Shown;

/// The addresses of a network, or all others of its family.
#[derive(Debug)]
pub(super) struct Networks {
    negated: bool,
    network: Network,
}

impl Condition for Networks {
    const KIND: &'static str = "cidr";

    const KEYS: Keys = Keys::Networks;

    type Key = IpAddr;

    type Index = NetworkIndex;

    fn key(key: &str) -> Result<Option<IpAddr>, String> {
        Ok(key.parse().ok())
    }

    fn holds(&self, key: &IpAddr) -> Result<bool, String> {
        let network = &self.network;
        Ok(network.is_of_family(*key) && network.contains(*key) != self.negated)
    }

    fn add_to(&self, index: &mut NetworkIndex, value: usize) -> bool {
        let Ok(number) = u32::try_from(value) else {
            return false;
        };
        if !self.negated {
            index.add(&self.network, number);
        }
        !self.negated
    }

    fn sort(index: &mut NetworkIndex) {
        index.sort();
    }

    fn first_in(index: &NetworkIndex, key: &IpAddr) -> Option<usize> {
        index
            .lowest(*key)
            .and_then(|number| usize::try_from(number).ok())
    }

    fn rule(
        rules: &mut impl Receiver<Networks>,
        line: &[u8],
        reader: &mut Reader<'_>,
    ) -> Result<(), String> {
        add(rules, trim(line), reader.line).map_err(|problem| skipped(&problem))
    }
}

fn add(rules: &mut impl Receiver<Networks>, text: &[u8], line: usize) -> Result<(), String> {
    if let Some(rest) = keyword(text, b"endif") {
        if !trim(rest).is_empty() {
            return Err("garbage after ENDIF".to_owned());
        }
        if !rules.end_if() {
            return Err("ENDIF without IF".to_owned());
        }
    } else if let Some(rest) = keyword(text, b"if") {
        rules.begin_if(network(trim(rest))?, line);
    } else {
        let (pattern, value) = split(text);
        let network = network(pattern)?;
        if value.is_empty() {
            return Err("no lookup result".to_owned());
        }
        rules.add_value(network, value);
    }
    Ok(())
}

/// The text after the keyword that `text` begins with, in upper or lower case.
fn keyword<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let first = text.first()?.to_ascii_lowercase();
    // Nearly all lines begin with a digit.
    let (start, rest) =
        (word.first() == Some(&first)).then(|| text.split_at_checked(word.len()))??;
    let ends = rest.first().is_none_or(|b| !b.is_ascii_alphanumeric());
    (ends && start.eq_ignore_ascii_case(word)).then_some(rest)
}

/// Splits the value from the network and its `!` signs, which may have blanks between them.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let is_sign = |b: u8| b == b'!' || is_space(b);
    let mut bytes = text.iter();
    // The first byte of the network is no blank, and can be skipped.
    let begins = bytes.any(|&b| !is_sign(b));
    let ends = begins && bytes.any(|&b| b <= b' ' && is_space(b));
    let length = text.len() - bytes.len() - usize::from(ends);
    let (pattern, value) = text.split_at(length);
    (pattern, trim(value))
}

/// Reads `!` signs and a network.
fn network(text: &[u8]) -> Result<Networks, String> {
    let mut negated = false;
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        if first == b'!' {
            negated = !negated;
        } else if !is_space(first) {
            break;
        }
        rest = after;
    }
    if rest.is_empty() {
        return Err("no address pattern".to_owned());
    }
    let network = match Network::plain(rest) {
        Some(network) => network,
        None => {
            let pattern = Shown(rest).to_string();
            Network::parse(&pattern).map_err(|bad| bad.to_string())?
        }
    };
    Ok(Networks { negated, network })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lookup::rules::{RuleTable, Rules};
    use crate::lookup::table::{ClientKeys, Problem, Reason, Table};
    use crate::lookup::text::{self, TextTable};

    fn parse(file: &[u8]) -> (Vec<String>, Result<Rules<Networks>, String>) {
        text::parse(Rules::new(), "cidr map F", file)
    }

    fn lookup(file: &str, key: &str) -> Option<String> {
        let format = RuleTable::<Networks>::new();
        let value = text::find(&format, file.as_bytes(), key).expect("an answer")?;
        Some(String::from_utf8(value).expect("UTF-8"))
    }

    fn named(text: &str) -> Result<TextTable<RuleTable<Networks>>, Reason> {
        RuleTable::open(&format!("cidr:{text}"), text)
    }

    #[rustfmt::skip]
    #[test]
    fn rules_decide_as_in_postfix() {
        let nested = "if 1.0.0.0/8\nif 1.1.0.0/16\n1.1.1.1 a\nendif\n1.0.0.1 b\nendif\n2.2.2.2 c\n";
        for (file, key, value) in [
            ("127.0.0.0/8 OK\n", "127.0.0.1", Some("OK")),
            ("127.0.0.0/8 OK\n", "::1", None),
            ("!127.0.0.0/8 OK", "::1", None),
            ("!127.0.0.0/8 OK", "10.0.0.1", Some("OK")),
            ("! 127.0.0.0/8 OK", "10.0.0.1", Some("OK")),
            ("! !127.0.0.0/8 OK", "127.0.0.1", Some("OK")),
            ("[127.0.0.0/8] OK", "127.0.0.1", Some("OK")),
            ("[127.0.0.0]/8 OK", "127.0.0.1", Some("OK")),
            ("1.1.1.1\tx y z  \n", "1.1.1.1", Some("x y z")),
            ("1.1.1.1 a\n1.1.1.1 b", "1.1.1.1", Some("a")),
            ("::/0 x\n", "2001:db8::5", Some("x")),
            ("if 127.0.0.0/8\n127.0.0.1 A\nendif\n127.0.0.2 B\n", "127.0.0.1", Some("A")),
            ("if 127.0.0.0/8\n127.0.0.1 A\nendif\n127.0.0.2 B\n", "127.0.0.2", Some("B")),
            ("IF !127.0.0.0/8\n0.0.0.0/0 A\n::/0 B\nENDIF\n", "127.0.0.1", None),
            ("IF !127.0.0.0/8\n0.0.0.0/0 A\n::/0 B\nENDIF\n", "1.1.1.1", Some("A")),
            ("IF !127.0.0.0/8\n0.0.0.0/0 A\n::/0 B\nENDIF\n", "::1", None),
            ("if!1.0.0.0/8\n2.2.2.2 x\nendif\n", "2.2.2.2", Some("x")),
            (nested, "1.1.1.1", Some("a")),
            (nested, "1.0.0.1", Some("b")),
            (nested, "2.2.2.2", Some("c")),
            ("if 1.0.0.0/8\n2.2.2.2 x\n", "2.2.2.2", None),
            ("if x\n1.1.1.1 x\nendif\n2.2.2.2 b", "1.1.1.1", Some("x")),
        ] {
            assert_eq!(lookup(file, key).as_deref(), value, "{file:?} {key}");
        }
    }

    #[rustfmt::skip]
    #[test]
    fn a_rule_that_cannot_be_read_is_named_and_left_out() {
        for (file, problem) in [
            ("127.0.0.0/33 x", "bad mask length in \"127.0.0.0/33\": skipping this rule"),
            ("127.0.0.0/x y", "bad mask value in \"127.0.0.0/x\": skipping this rule"),
            ("1.1.1.1/ z", "bad mask value in \"1.1.1.1/\": skipping this rule"),
            ("127/8 z", "bad network value in \"127/8\": skipping this rule"),
            ("/8 x", "bad network value in \"/8\": skipping this rule"),
            ("foo a", "bad address pattern: \"foo\": skipping this rule"),
            ("[] x", "bad address pattern: \"\": skipping this rule"),
            ("iffy", "bad address pattern: \"iffy\": skipping this rule"),
            ("! if 1.1.1.1", "bad address pattern: \"if\": skipping this rule"),
            ("if127.0.0.0/8", "bad network value in \"if127.0.0.0/8\": skipping this rule"),
            ("::1/x", "bad mask value in \"::1/x\": skipping this rule"),
            ("127.0.0.1", "no lookup result: skipping this rule"),
            ("!", "no address pattern: skipping this rule"),
            ("if", "no address pattern: skipping this rule"),
            ("if !", "no address pattern: skipping this rule"),
            ("if 127.0.0.0/8 foo", "bad mask value in \"127.0.0.0/8 foo\": skipping this rule"),
            ("[::1 x", "missing ']' character after \"[::1\": skipping this rule"),
            ("[1.1.1.1]x/8 y", "garbage after \"[1.1.1.1]\": skipping this rule"),
            ("endif", "ENDIF without IF: skipping this rule"),
            ("endif x", "garbage after ENDIF: skipping this rule"),
            ("endif!", "garbage after ENDIF: skipping this rule"),
            ("if 1.0.0.0/8", "IF has no matching ENDIF"),
            (
                "127.0.0.1/8 OK",
                "non-null host address bits in \"127.0.0.1/8\", perhaps you should use \"127.0.0.0/8\" \
                 instead: skipping this rule",
            ),
        ] {
            let (warnings, _) = parse(file.as_bytes());
            assert_eq!(
                warnings,
                [format!("cidr map F, line 1: {problem}")],
                "{file}"
            );
        }
    }

    #[test]
    fn conditions_without_end_are_named_from_the_innermost() {
        let (warnings, _) = parse(b"if 1.0.0.0/8\nif 2.0.0.0/8\n");
        assert_eq!(
            warnings,
            [
                "cidr map F, line 2: IF has no matching ENDIF",
                "cidr map F, line 1: IF has no matching ENDIF"
            ]
        );
    }

    #[test]
    fn rules_may_stand_in_the_name() {
        for (text, found) in [
            ("{ {1.1.1.1 x}, {2.2.2.2 y} }", true),
            ("{ {#1.1.1.1 x}, {1.1.1.1 z} }", true),
            ("{ {  1.1.1.1 x} }", true),
            ("{}", false),
            ("{ {} }", false),
        ] {
            let table = named(text).expect(text);
            assert_eq!(
                table
                    .find("1.1.1.1", &ClientKeys::default())
                    .map(|v| v.is_some()),
                Ok(found),
                "{text}"
            );
            assert_eq!(table.find("one.example", &ClientKeys::default()), Ok(None));
        }
        for (text, reason) in [
            ("/nosuch", "open /nosuch: No such file or directory"),
            (
                "{ {1.1.1.1 x}x }",
                "cidr map: syntax error after '}' in \"{1.1.1.1 x}x\"",
            ),
            ("{ {1.1.1.1 x", "cidr map: missing '}' in \"{ {1.1.1.1 x\""),
            (
                "{ 1.1.1.1 x }",
                "cidr map: no '{' at start of text in \"1.1.1.1\"",
            ),
        ] {
            let refused = named(text).expect_err(text);
            assert_eq!(refused.to_string(), reason);
        }
    }

    #[test]
    fn a_directory_is_an_error_when_it_is_asked() {
        let table = named("/tmp").expect("opened");
        let unavailable = "cidr:/tmp is unavailable. cidr map /tmp: read error: Is a directory";
        assert_eq!(
            table.find("::1", &ClientKeys::default()),
            Err(Problem::from(unavailable.to_owned()))
        );
        let reason = "cidr map /tmp: read error: Is a directory";
        assert_eq!(table.load(), Err(Problem::from(reason.to_owned())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, text in "(if |endif|!|1.2.0.0/16|::/0| v|\n){0,30}") {
            drop(parse(&bytes));
            lookup(&text, "1.2.3.4");
        }

        #[test]
        fn the_first_network_with_the_address_decides(
            rules in proptest::collection::vec((any::<bool>(), 0_u32..8, 28_u32..=32), 0..6), last in 0_u8..8
        ) {
            let mut file = String::new();
            let mut expected = None;
            for (i, (negated, base, length)) in rules.iter().enumerate() {
                let shift = 32 - length;
                let base = base >> shift << shift;
                let sign = if *negated { "!" } else { "" };
                file.push_str(&format!("{sign}10.0.0.{base}/{length} {i}\n"));
                let inside = u32::from(last) >> shift == base >> shift;
                if expected.is_none() && inside != *negated {
                    expected = Some(i.to_string());
                }
            }
            prop_assert_eq!(lookup(&file, &format!("10.0.0.{last}")), expected);
        }
    }
}
