//! Tests of lists that are evaluated for a client whose name could not be looked up.
//!
//! They follow `tests/spec/differences.md`, 16.

use std::fs;

use proptest::prelude::*;

use super::{Files, parse};
use crate::lookup::Listing;
use crate::lookup::items::{Part, PartWhat};
use crate::lookup::table::Keys;
use crate::lookup::table::ParentStyle::{self, DotOnly, ParentAlso};

const ADDR: &str = "192.0.2.7";

/// P permitted, D refused, Z not known for now; and the item that decides.
fn outcome(patterns: &str, parents: ParentStyle) -> (char, String) {
    let list = parse(patterns, parents).1.expect("list");
    match list.decide(None, ADDR) {
        Ok(decision) => {
            let letter = match decision.listing {
                Listing::Listed => 'P',
                Listing::NotListed => 'D',
                Listing::Undecided => 'Z',
            };
            let item = decision.item.map(|item| item.to_string());
            (letter, item.unwrap_or_default())
        }
        Err(_) => ('Z', "cannot tell".to_owned()),
    }
}

#[test]
fn an_answer_is_given_where_the_name_makes_no_difference() {
    for (patterns, letter, item) in [
        ("", 'D', ""),
        // The address matches before the name matters.
        (".a.example, 192.0.2.7", 'P', "192.0.2.7"),
        ("192.0.2.7, !.a.example", 'P', "192.0.2.7"),
        ("!192.0.2.7, .a.example", 'D', "!192.0.2.7"),
        ("!192.0.2.0/24, a.example", 'D', "!192.0.2.0/24"),
        // All cases have the same answer.
        (
            "a.example, !192.0.2.9, localhost, 192.0.2.0/24",
            'P',
            "192.0.2.0/24",
        ),
        (
            "!a.example, !unknown, !192.0.2.0/24, b.example",
            'D',
            "!192.0.2.0/24",
        ),
        ("!a.example !b.example", 'D', ""),
        // The cases have different answers.
        ("!.a.example, 192.0.2.0/24", 'Z', "!.a.example"),
        (".a.example", 'Z', ".a.example"),
        ("a.example, !192.0.2.7", 'Z', "a.example"),
        ("192.0.2.9 unknown", 'Z', "unknown"),
        ("localhost", 'Z', "localhost"),
        ("!a.example, b.example, 192.0.2.7", 'Z', "!a.example"),
        ("a.example, !b.example, 192.0.2.7", 'Z', "a.example"),
        // No name is an address, or has characters that no host name has.
        (
            "192.0.2.9, 192.0.2.10/32, [192.0.2.11], [2001:db8::7], 2001:db8::/32",
            'D',
            "",
        ),
        ("a.example. *.a.example -a a..b 7 192.0.2 .", 'D', ""),
        ("under_score", 'Z', "under_score"),
        // Tables are asked for the address. They could have the name, except for tables of networks.
        ("inline:{192.0.2.7=x}", 'P', "inline:{192.0.2.7=x}"),
        (
            "!inline:{192.0.2.7=x} a.example",
            'D',
            "!inline:{192.0.2.7=x}",
        ),
        ("inline:{a.example=x}", 'Z', "inline:{a.example=x}"),
        ("inline:{192.0.2.9=x} 192.0.2.7", 'P', "192.0.2.7"),
        ("!inline:{a.example=x}", 'D', ""),
        ("cidr:{{192.0.2.0/24 x}}", 'P', "cidr:{{192.0.2.0/24 x}}"),
        ("cidr:{{192.0.2.9 x}}", 'D', ""),
        ("regexp:{{/^192/ x}}", 'P', "regexp:{{/^192/ x}}"),
        ("regexp:{{/example/ x}}", 'Z', "regexp:{{/example/ x}}"),
        ("static:x", 'P', "static:x"),
        ("!static:x", 'D', "!static:x"),
        ("a.example static:x", 'P', "static:x"),
        ("!a.example static:x", 'Z', "!a.example"),
        // An item that cannot be evaluated ends the evaluation.
        ("fail:x 192.0.2.7", 'Z', "cannot tell"),
        ("a.example fail:x 192.0.2.7", 'Z', "cannot tell"),
        ("192.0.2.7 fail:x", 'P', "192.0.2.7"),
        ("192.0.2.1/24", 'Z', "cannot tell"),
        ("/nonexistent/list 192.0.2.7", 'Z', "cannot tell"),
    ] {
        for parents in [ParentAlso, DotOnly] {
            let expected = (letter, item.to_owned());
            assert_eq!(outcome(patterns, parents), expected, "{patterns}");
        }
    }
}

#[test]
fn a_table_of_networks_has_no_names_for_any_reader() {
    let patterns = "proxy:cidr:/x proxy:texthash:/cidr: cidr:{{192.0.2.9 x}}";
    let list = parse(patterns, ParentAlso).1;
    let list = list.expect("list");
    let has_names = |item: Part<'_>| match item.what {
        PartWhat::Table(table) => table.keys() != Keys::Networks,
        PartWhat::Literal(_) => panic!("{patterns}"),
    };
    let found: Vec<bool> = list.parts().map(has_names).collect();
    assert_eq!(found, [false, true, false]);
}

#[test]
fn items_of_files_are_open_as_those_of_the_list() {
    let files = Files::new("open-name", &[("inner", "# c\n!a.example\n")]);
    fs::write(files.0.join("outer"), files.at("192.0.2.9 !@/inner\n")).expect("file");
    let outcome = |patterns: &str| outcome(&files.at(patterns), ParentAlso);
    // Negated twice: the name would let the client in.
    let place = files.at("in @/inner, line 2");
    assert_eq!(outcome("@/outer"), ('Z', format!("a.example {place}")));
    assert_eq!(outcome("@/outer 192.0.2.7").0, 'P');
    assert_eq!(outcome("!@/outer !192.0.2.7").0, 'D');
    assert_eq!(
        outcome("!@/outer 192.0.2.7"),
        ('Z', format!("!a.example {place}"))
    );
}

/// An item, and the result of comparing it with the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Yes,
    No,
    YesOrNo,
    CannotTell,
}

const ITEMS: &[(&str, Found)] = &[
    ("192.0.2.7", Found::Yes),
    ("192.0.2.0/24", Found::Yes),
    ("static:x", Found::Yes),
    ("cidr:{{192.0.2.7 x}}", Found::Yes),
    ("inline:{192.0.2.7=x}", Found::Yes),
    ("192.0.2.9", Found::No),
    ("[2001:db8::]/32", Found::No),
    ("cidr:{{192.0.2.9 x}}", Found::No),
    ("a.example", Found::YesOrNo),
    (".b.example", Found::YesOrNo),
    ("unknown", Found::YesOrNo),
    ("localhost", Found::YesOrNo),
    ("inline:{c.example=x}", Found::YesOrNo),
    ("regexp:{{/d/ x}}", Found::YesOrNo),
    ("fail:x", Found::CannotTell),
    ("192.0.2.1/24", Found::CannotTell),
];

/// The answer of a list if it is decided which items match.
fn answer(items: &[(Found, bool)]) -> char {
    for (found, negated) in items {
        match found {
            Found::No => {}
            Found::Yes if *negated => return 'D',
            Found::Yes => return 'P',
            Found::CannotTell | Found::YesOrNo => return 'Z',
        }
    }
    'D'
}

/// The answer if all decisions about the open items agree, one after another; else Z.
fn expected(items: &[(Found, bool)]) -> char {
    let is_open = |(found, _): &&(Found, bool)| *found == Found::YesOrNo;
    let open = items.iter().filter(is_open).count();
    let answers: Vec<char> = (0..1_u32 << open)
        .map(|way| {
            let mut number = 0;
            let settled = items.iter().map(|&(found, negated)| {
                if found != Found::YesOrNo {
                    return (found, negated);
                }
                number += 1;
                let matches = way >> (number - 1) & 1 == 1;
                (if matches { Found::Yes } else { Found::No }, negated)
            });
            answer(&settled.collect::<Vec<_>>())
        })
        .collect();
    if answers.iter().all(|answer| *answer == answers[0]) {
        answers[0]
    } else {
        'Z'
    }
}

proptest! {
    #[test]
    fn the_answer_is_the_one_in_which_all_ways_agree(
        chosen in prop::collection::vec((prop::sample::select(ITEMS), any::<bool>()), 0..8),
        parents in prop::sample::select(&[ParentAlso, DotOnly][..]),
    ) {
        let not = |negated| if negated { "!" } else { "" };
        let texts: Vec<String> = chosen
            .iter()
            .map(|((text, _), negated)| format!("{}{text}", not(*negated)))
            .collect();
        let items: Vec<(Found, bool)> = chosen
            .iter()
            .map(|((_, found), negated)| (*found, *negated))
            .collect();
        prop_assert_eq!(outcome(&texts.join(", "), parents).0, expected(&items), "{:?}", texts);
    }
}
