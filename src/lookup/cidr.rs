//! `cidr:FILE`, `cidr:{ {rule}, {rule} }`: networks, the first that has the address decides.
//!
//! `[!]NETWORK value`, and `if [!]NETWORK` ... `endif` around rules. A rule is for keys of its own address family, also
//! where it is negated. A rule that cannot be read is left out with a warning, as in Postfix. Authority: cidr_table(5),
//! and `tests/spec/client-access.md`, section 4.2.

use std::net::IpAddr;

use super::pattern::Network;
use super::table::{Keys, Problem, Reason, Table};
use super::text::{self, Once, Parsed, Source};
use crate::config::lines::{is_space, trim};
use crate::log::{Shown, error_text};

/// A table of networks.
#[derive(Debug)]
pub(super) struct Cidr {
    name: String,
    source: Source,
    rules: Once<Vec<Rule>>,
}

impl Cidr {
    pub(super) fn open(name: &str, text: &str) -> Result<Cidr, Reason> {
        Ok(Cidr::over(name, Source::rules("cidr", text)?))
    }

    pub(super) fn over(name: &str, source: Source) -> Cidr {
        Cidr {
            name: name.to_owned(),
            source,
            rules: Once::new(),
        }
    }

    fn read(&self) -> Parsed<Vec<Rule>> {
        let path = self.source.name();
        match self.source.read() {
            Ok(bytes) => parse(path, &bytes),
            Err(error) => Parsed {
                warnings: Vec::new(),
                result: Err(format!(
                    "cidr map {path}: read error: {}",
                    error_text(&error)
                )),
            },
        }
    }
}

impl Table for Cidr {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Pattern
    }

    fn find(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        let rules = self.rules.get(&self.name, || self.read())?;
        let found = key.parse().ok().and_then(|address| find(rules, address));
        Ok(found.map(<[u8]>::to_vec))
    }

    fn has_names(&self) -> bool {
        false
    }

    fn load(&self) -> Result<(), Problem> {
        self.rules.load(|| self.read())
    }
}

/// A line.
#[derive(Debug)]
enum Rule {
    Value {
        network: Condition,
        value: Vec<u8>,
    },
    /// The rules up to the one at `end` are for addresses that fulfil the condition.
    If {
        network: Condition,
        end: usize,
    },
}

#[derive(Debug)]
struct Condition {
    negated: bool,
    network: Network,
}

impl Condition {
    fn holds(&self, address: IpAddr) -> bool {
        self.network.is_of_family(address) && self.network.contains(address) != self.negated
    }
}

fn find(rules: &[Rule], address: IpAddr) -> Option<&[u8]> {
    let mut next = 0;
    while let Some(rule) = rules.get(next) {
        next += 1;
        match rule {
            Rule::Value { network, value } if network.holds(address) => return Some(value),
            Rule::If { network, end } if !network.holds(address) => next = *end,
            Rule::Value { .. } | Rule::If { .. } => {}
        }
    }
    None
}

/// Reads the rules.
fn parse(path: &str, bytes: &[u8]) -> Parsed<Vec<Rule>> {
    let mut rules = Vec::new();
    let mut warnings = Vec::new();
    let mut misplaced = Vec::new();
    // The positions of the conditions that no endif has closed yet, and their lines.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for line in text::lines(path, bytes, &mut |warning| misplaced.push(warning)) {
        let text = trim(&line.text);
        let problem = if let Some(rest) = keyword(text, b"endif") {
            end(&mut rules, &mut open, rest)
        } else if let Some(rest) = keyword(text, b"if") {
            condition(trim(rest)).map(|network| {
                open.push((rules.len(), line.first_line));
                let end = usize::MAX;
                rules.push(Rule::If { network, end });
            })
        } else {
            value(text).map(|rule| rules.push(rule))
        };
        if let Err(problem) = problem {
            let line = line.first_line;
            warnings.push(format!(
                "cidr map {path}, line {line}: {problem}: skipping this rule"
            ));
        }
    }
    for (_, line) in open.iter().rev() {
        warnings.push(format!(
            "cidr map {path}, line {line}: IF has no matching ENDIF"
        ));
    }
    misplaced.append(&mut warnings);
    Parsed {
        warnings: misplaced,
        result: Ok(rules),
    }
}

/// What follows the keyword that `text` begins with, in whatever case.
fn keyword<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(word.len())?;
    let ends = rest.first().is_none_or(|b| !b.is_ascii_alphanumeric());
    (ends && start.eq_ignore_ascii_case(word)).then_some(rest)
}

fn end(rules: &mut [Rule], open: &mut Vec<(usize, usize)>, rest: &[u8]) -> Result<(), String> {
    if !trim(rest).is_empty() {
        return Err("garbage after ENDIF".to_owned());
    }
    let Some((position, _)) = open.pop() else {
        return Err("ENDIF without IF".to_owned());
    };
    let next = rules.len();
    if let Some(Rule::If { end, .. }) = rules.get_mut(position) {
        *end = next;
    }
    Ok(())
}

fn value(text: &[u8]) -> Result<Rule, String> {
    let start = text
        .iter()
        .position(|&b| b != b'!' && !is_space(b))
        .unwrap_or(text.len());
    let pattern = text.get(start..).unwrap_or_default();
    let length = pattern
        .iter()
        .position(|&b| is_space(b))
        .unwrap_or(pattern.len());
    let network = condition(text.get(..start + length).unwrap_or_default())?;
    let value = trim(pattern.get(length..).unwrap_or_default());
    if value.is_empty() {
        return Err("no lookup result".to_owned());
    }
    let value = value.to_vec();
    Ok(Rule::Value { network, value })
}

/// Reads `!` signs and a network.
fn condition(text: &[u8]) -> Result<Condition, String> {
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
    let pattern = Shown(rest).to_string();
    let network = Network::read(&pattern).map_err(|bad| bad.to_string())?;
    Ok(Condition { negated, network })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(file: &str, key: &str) -> Option<String> {
        let rules = parse("F", file.as_bytes()).result.expect("rules");
        let value = find(&rules, key.parse().expect(key))?;
        Some(String::from_utf8(value.to_vec()).expect("UTF-8"))
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
            let parsed = parse("F", file.as_bytes());
            assert_eq!(
                parsed.warnings,
                [format!("cidr map F, line 1: {problem}")],
                "{file}"
            );
        }
    }

    #[test]
    fn conditions_without_end_are_named_from_the_innermost() {
        let parsed = parse("F", b"if 1.0.0.0/8\nif 2.0.0.0/8\n");
        assert_eq!(
            parsed.warnings,
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
            let table = Cidr::open(&format!("cidr:{text}"), text).expect(text);
            assert_eq!(
                table.find("1.1.1.1").map(|v| v.is_some()),
                Ok(found),
                "{text}"
            );
            assert_eq!(table.find("one.example"), Ok(None));
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
            let refused = Cidr::open("cidr:", text).expect_err(text);
            assert_eq!(refused.to_string(), reason);
        }
    }

    #[test]
    fn a_directory_is_an_error_when_it_is_asked() {
        let table = Cidr::open("cidr:/tmp", "/tmp").expect("opened");
        let unavailable = "cidr:/tmp is unavailable. cidr map /tmp: read error: Is a directory";
        assert_eq!(
            table.find("::1"),
            Err(Problem::from(unavailable.to_owned()))
        );
        let reason = "cidr map /tmp: read error: Is a directory";
        assert_eq!(table.load(), Err(Problem::from(reason.to_owned())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, text in "(if |endif|!|1.2.0.0/16|::/0| v|\n){0,30}") {
            drop(parse("F", &bytes));
            let rules = parse("F", text.as_bytes()).result.expect("rules");
            find(&rules, [1, 2, 3, 4].into());
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
