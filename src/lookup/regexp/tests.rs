//! Tests of `regexp` tables: rules, flags, values, and conditions.
//!
//! They follow `tests/spec/client-access.md`, section 4.2.

use proptest::prelude::*;

use super::*;
use crate::lookup::rules::{RuleTable, Rules};
use crate::lookup::table::{ClientKeys, Reason, Table};
use crate::lookup::text::{self, TextTable};

fn parse(file: &[u8]) -> (Vec<String>, Result<Rules<Expressions>, String>) {
    text::parse(Rules::new(), "regexp map F", file)
}

fn lookup(file: &str, key: &str) -> Option<String> {
    let format = RuleTable::<Expressions>::new();
    let value = text::find(&format, file.as_bytes(), key).expect("no problem")?;
    Some(String::from_utf8(value).expect("UTF-8"))
}

fn warnings(file: &str) -> Vec<String> {
    parse(file.as_bytes()).0
}

fn named(text: &str) -> Result<TextTable<RuleTable<Expressions>>, Reason> {
    RuleTable::open("regexp:F", text)
}

#[test]
fn rules_decide_as_in_postfix() {
    let nested = "if /a/\nif /b/\n/ab/ x\nendif\n/a/ y\nendif\n/c/ z\n";
    for (file, keys, value) in [
        ("/a/ x", "a A ba", Some("x")),
        ("/a/ x", "b", None),
        ("/a/i x", "a", Some("x")),
        ("/a/i x", "A", None),
        ("/a/ii x", "A", Some("x")),
        ("!/a/ x", "b", Some("x")),
        ("!/a/ x", "a", None),
        ("! /c/ x", "a", Some("x")),
        ("!!/d/ x", "d", Some("x")),
        ("/a/!/b/ x", "a", Some("x")),
        ("/a/!/b/ x", "ab", None),
        ("/a/!  /b/ x", "a", Some("x")),
        ("/a/!!/b/ x", "ab", Some("x")),
        ("!/a/!/b/ x", "c", Some("x")),
        ("/a/ !/b/ x", "ab", Some("!/b/ x")),
        ("/a/", "a", Some("")),
        ("|a| b", "a", Some("b")),
        ("\"a\" z", "a", Some("z")),
        ("/a\\/b/ x", "a/b", Some("x")),
        ("//  x", "z", Some("x")),
        ("/a+/x x", "a+", Some("x")),
        ("/\\(a\\)/x $1", "a", Some("$1")),
        ("/(c)/!/b/ $1", "c", Some("$1")),
        ("if /a/\n/ab/ x\nendif\n/c/ y", "ab", Some("x")),
        ("if !/a/\n/b/ x\nendif\n", "ab", None),
        ("if !  /a/\n/b/ x\nendif\n", "b", Some("x")),
        ("if /a/i\n/A/ x\nendif", "A", None),
        ("if/a/\n/./ x\nENDIF\n/./ y", "b", Some("y")),
        ("if /a/\n/b/ x\n", "b", None),
        ("if /[/\n/a/ x\nendif\n/b/ y\n", "a", Some("x")),
        (nested, "ab", Some("x")),
        (nested, "a", Some("y")),
        (nested, "c", Some("z")),
    ] {
        for key in keys.split(' ') {
            assert_eq!(lookup(file, key).as_deref(), value, "{file:?} {key}");
        }
    }
}

#[rustfmt::skip]
#[test]
fn what_is_odd_is_named_with_its_line() {
    for (file, expected) in [
        ("/a/", &["no replacement text: using empty string"][..]),
        ("/b", &["no closing regexp delimiter \"/\": skipping this rule"]),
        ("axa b", &["ignoring unrecognized request"]),
        ("ENDIFx", &["ignoring unrecognized request"]),
        ("/a/q x", &["unknown regexp option \"q\": skipping this rule"]),
        ("/a/x,y z", &["unknown regexp option \",\": skipping this rule"]),
        ("/f/g/ x", &["unknown regexp option \"g\": skipping this rule"]),
        ("/a/! x", &["no closing regexp delimiter \"x\": skipping this rule"]),
        ("!", &["no regexp: skipping this rule"]),
        ("if", &["no regexp: skipping this rule"]),
        ("if a", &["no closing regexp delimiter \"a\": skipping this rule"]),
        ("/a(b/ x", &["Unmatched ( or \\("]),
        ("/[/", &["no replacement text: using empty string", "Invalid regular expression"]),
        ("/[/!/(/ x", &["Invalid regular expression"]),
        ("/a/ $x", &["non-numeric replacement index \"x\"", "bad replacement syntax: skipping this rule"]),
        ("/b/ $2", &["out of range replacement index \"2\": skipping this rule"]),
        ("/[(]/ $1", &["out of range replacement index \"1\": skipping this rule"]),
        ("!/g/ $1", &["$number found in negative match replacement text: skipping this rule"]),
        ("endif garbage", &["ignoring ENDIF without matching IF"]),
        ("if /a/ c\nendif x", &["ignoring extra text after IF statement: \"c\"", "do not prepend whitespace to statements between IF and ENDIF"]),
        ("if /a/", &["IF has no matching ENDIF"]),
    ] {
        let expected: Vec<String> = expected
            .iter()
            .map(|text| format!("regexp map F, line 1: {text}"))
            .collect();
        let mut all = warnings(file);
        all.truncate(expected.len());
        assert_eq!(all, expected, "{file}");
    }
    assert_eq!(
        warnings("/a/ x$"),
        [
            "empty macro name: \"x$\"",
            "regexp map F, line 1: bad replacement syntax: skipping this rule"
        ]
    );
    assert_eq!(
        warnings("if /a/\n/b/ c\nendif x\n"),
        ["regexp map F, line 3: ignoring extra text after ENDIF"]
    );
}

#[test]
fn groups_are_counted_as_the_c_library_counts_them() {
    for (pattern, extended, count) in [
        ("[[](a)", true, 1),
        ("((a)(b))", true, 3),
        ("[(]", true, 0),
        ("\\((a)", true, 1),
        ("(a)", false, 0),
        ("\\(a\\)\\(b\\)", false, 2),
        ("[]()]", true, 0),
        ("[^]()]", true, 0),
        ("[[:alpha:](]", true, 0),
        ("[[.(.](]()", true, 1),
        ("(|a)", true, 1),
        ("()", true, 1),
    ] {
        assert_eq!(groups(pattern.as_bytes(), extended), count, "{pattern}");
    }
}

#[test]
fn rules_may_stand_in_the_name() {
    for text in [
        "{ {/a/ x}, {/b/ y} }",
        "{{#/a/ x},{!/b/ q}}",
        "{{/a{1,2}/ x}}",
    ] {
        let table = named(text).expect(text);
        assert_eq!(
            table
                .find("a", &ClientKeys::default())
                .map(|value| value.is_some()),
            Ok(true),
            "{text}"
        );
    }
    let refused = named("{ /a/ x }").expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "regexp map: no '{' at start of text in \"/a/\""
    );
}

/// Whether `key` contains `literal`, by an obvious search.
fn has(key: &str, literal: &str) -> bool {
    (0..=key.len()).any(|i| key[i..].starts_with(literal))
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes: Vec<u8>, text in "[/!|a$\\{}\\[\\]()if \n\\\\]{0,40}") {
        drop(parse(&bytes));
        drop(parse(text.as_bytes()));
    }

    #[test]
    fn the_first_rule_that_matches_decides(
        rules in proptest::collection::vec((any::<bool>(), "[ab]{1,2}", proptest::option::of("[ab]{1,2}")), 0..6),
        key in "[ab]{0,3}"
    ) {
        let mut file = String::new();
        let mut expected = None;
        for (i, (negated, first, second)) in rules.iter().enumerate() {
            let sign = if *negated { "!" } else { "" };
            let also = second.as_ref().map(|second| format!("!/{second}/")).unwrap_or_default();
            file.push_str(&format!("{sign}/{first}/{also} {i}\n"));
            let matches = has(&key, first) != *negated && !second.as_ref().is_some_and(|s| has(&key, s));
            if expected.is_none() && matches {
                expected = Some(i.to_string());
            }
        }
        prop_assert_eq!(lookup(&file, &key), expected);
    }
}
