//! Tests of lists: their items, their answers for a client, and their log lines.
//!
//! They follow `tests/spec/client-access.md`, sections 1, 4 and 5.

mod open_name;

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use super::items::{Item, What};
use super::match_list::ItemProblem;
use super::table::ParentStyle::{self, DotOnly, ParentAlso};
use super::table::{ClientKeys, Keys, Problem, Table};
use super::*;

const LIST: &str = "qmqpd_authorized_clients";
const LOCAL4: (&str, &str) = ("localhost", "127.0.0.1");
const LOCAL6: (&str, &str) = ("localhost", "::1");
const GOOD: (&str, &str) = ("good.example.com", "127.0.0.5");
const MIXED: (&str, &str) = ("Mixed.Example.COM", "127.0.0.7");
const NINE: (&str, &str) = ("unknown", "127.0.0.9");
const DEEP: (&str, &str) = ("a.b.sub.example.org", "127.0.0.11");
const SIX: (&str, &str) = ("six.example.net", "2001:db8::5");
const GONE: (&str, &str) = ("unknown", "unknown");

/// A directory with the files of one test, removed at its end.
struct Files(PathBuf);

impl Files {
    fn new(test: &str, files: &[(&str, &str)]) -> Files {
        let directory = std::env::temp_dir().join(format!("qmqpd-{test}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("directory");
        for (name, content) in files {
            fs::write(directory.join(name), content).expect("file");
        }
        Files(directory)
    }

    /// `text` with `@` replaced by the directory.
    fn at(&self, text: &str) -> String {
        text.replace('@', self.0.to_str().expect("UTF-8"))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("remove");
    }
}

fn tables() -> Tables {
    Tables::new(TableSettings {
        smtputf8_enable: true,
        daemon_table_open_error_is_fatal: false,
        proxymap_service_name: "proxymap".to_owned(),
        ipc_timeout: Duration::from_secs(3600),
        postmap: "/nonexistent/postmap".into(),
        sandbox: true,
        config_directory: "/nonexistent".into(),
        meta_directory: Some("/nonexistent".into()),
    })
}

fn parse(patterns: &str, parents: ParentStyle) -> (Vec<String>, Result<MatchList, Error>) {
    let (notes, list) = MatchList::parse(LIST, patterns, parents, &mut tables());
    let lines = notes.into_iter().map(|note| match note {
        Note::Warning(text) => format!("warning: {text}"),
        Note::Error(text) => format!("error: {text}"),
    });
    (lines.collect(), list)
}

/// The result for a client - P permitted, D refused, Z not known, F fatal - and the log lines.
fn outcome(patterns: &str, parents: ParentStyle, client: (&str, &str)) -> (char, Vec<String>) {
    let (mut lines, list) = parse(patterns, parents);
    let list = match list {
        Ok(list) => list,
        Err(e) => {
            lines.push(format!("fatal: {e}"));
            return ('F', lines);
        }
    };
    match list
        .decide(Some(client.0), client.1)
        .map(|decision| decision.listing)
    {
        Ok(Listing::Listed) => ('P', lines),
        Ok(Listing::NotListed) => ('D', lines),
        Ok(Listing::Undecided) => panic!("the name is known"),
        Err(unavailable) => {
            let warnings = unavailable.warnings.iter();
            lines.extend(warnings.map(|text| format!("warning: {text}")));
            ('Z', lines)
        }
    }
}

/// Row, list, style of domains, client, and the result.
type Example = (
    u32,
    &'static str,
    ParentStyle,
    (&'static str, &'static str),
    char,
);

/// Rows of the worked examples of `tests/spec/client-access.md`, section 5, that need no working table. In 5, 6 and 27
/// bare IPv6 counts as IPv6.
#[rustfmt::skip]
const EXAMPLES: &[Example] = &[
    (1, "", ParentAlso, LOCAL4, 'D'),
    (2, "127.0.0.1", ParentAlso, LOCAL4, 'P'),
    (3, "localhost", ParentAlso, LOCAL6, 'P'),
    (3, "localhost", ParentAlso, LOCAL4, 'P'),
    (4, "[::1]", ParentAlso, LOCAL6, 'P'),
    (5, "::1", ParentAlso, LOCAL6, 'P'),
    (5, "::1", ParentAlso, LOCAL4, 'D'),
    (6, "2001:db8::5", ParentAlso, SIX, 'P'),
    (6, "2001:db8::5", ParentAlso, LOCAL4, 'D'),
    (7, "127.0.0.1:628", ParentAlso, LOCAL4, 'Z'),
    (8, "127.0.0.1/8", ParentAlso, LOCAL4, 'Z'),
    (9, "127.0.0.1/8 [::1]", ParentAlso, LOCAL6, 'P'),
    (10, "127.0.0.0/33 127.0.0.1", ParentAlso, LOCAL4, 'Z'),
    (11, "!127.0.0.5, 127.0.0.0/8", ParentAlso, GOOD, 'D'),
    (12, "!127.0.0.5, 127.0.0.0/8", ParentAlso, NINE, 'P'),
    (13, "127.0.0.0/8 !127.0.0.5", ParentAlso, GOOD, 'P'),
    (14, "!127.0.0.5", ParentAlso, NINE, 'D'),
    (15, "!!127.0.0.1", ParentAlso, LOCAL4, 'P'),
    (15, "!!!127.0.0.1 127.0.0.1", ParentAlso, LOCAL4, 'D'),
    (16, "! 127.0.0.1", ParentAlso, LOCAL4, 'F'),
    (17, "example.com", ParentAlso, GOOD, 'P'),
    (18, ".example.com", ParentAlso, GOOD, 'D'),
    (19, "example.com", DotOnly, GOOD, 'D'),
    (20, ".example.com", DotOnly, GOOD, 'P'),
    (21, ".example.org", DotOnly, DEEP, 'P'),
    (22, ".good.example.com", DotOnly, GOOD, 'D'),
    (23, "com", ParentAlso, GOOD, 'P'),
    (24, "GOOD.Example.COM", ParentAlso, GOOD, 'P'),
    (24, "mixed.example.com", ParentAlso, MIXED, 'P'),
    (25, "unknown", ParentAlso, ("unknown", "127.0.0.99"), 'P'),
    (26, "[2001:db8::]/32", ParentAlso, SIX, 'P'),
    (26, "[2001:db8::/32]", ParentAlso, SIX, 'P'),
    (26, "[2001:0DB8:0:0::0005]", ParentAlso, SIX, 'P'),
    (27, "2001:db8::/32", ParentAlso, SIX, 'P'),
    (28, "[127.0.0.1]", ParentAlso, LOCAL4, 'P'),
    (28, "[127.0.0.0]/8", ParentAlso, LOCAL4, 'P'),
    (28, "[127.0.0.0/8]", ParentAlso, LOCAL4, 'P'),
    (28, "0.0.0.0/0", ParentAlso, LOCAL4, 'P'),
    (29, "[::]/0", ParentAlso, LOCAL4, 'D'),
    (29, "0.0.0.0/0", ParentAlso, LOCAL6, 'D'),
    (30, "127/8 127.0.0.1", ParentAlso, LOCAL4, 'Z'),
    (30, "127.0.0.0/255.0.0.0", ParentAlso, LOCAL4, 'Z'),
    (31, "{127.0.0.1}", ParentAlso, LOCAL4, 'D'),
    (31, "127.0.0.9;127.0.0.1", ParentAlso, LOCAL4, 'D'),
    (31, "*", ParentAlso, LOCAL4, 'D'),
    (31, "127.0.0.01", ParentAlso, LOCAL4, 'D'),
    (31, "\"127.0.0.1\"", ParentAlso, LOCAL4, 'D'),
    (32, "127.0.0.9 # 127.0.0.1", ParentAlso, LOCAL4, 'D'),
    (33, "@/list", ParentAlso, LOCAL4, 'P'),
    (34, "!@/list 127.0.0.0/8", ParentAlso, LOCAL4, 'D'),
    (35, "!@/f", ParentAlso, GOOD, 'P'),
    (36, "@/nosuch 127.0.0.1", ParentAlso, LOCAL4, 'Z'),
    (36, "!@/nosuch 127.0.0.1", ParentAlso, LOCAL4, 'Z'),
    (37, "127.0.0.1 @/nosuch", ParentAlso, LOCAL4, 'P'),
    (38, "@ 127.0.0.1", ParentAlso, LOCAL4, 'F'),
    (46, "nosuch:/x 127.0.0.1", ParentAlso, LOCAL4, 'Z'),
    (53, "nosuch:x 127.0.0.1", ParentAlso, LOCAL4, 'Z'),
    (53, "127.0.0.1 nosuch:x", ParentAlso, LOCAL4, 'P'),
    (53, "!nosuch:x 127.0.0.1", ParentAlso, LOCAL4, 'Z'),
    (56, "127.0.0.0/8", ParentAlso, LOCAL4, 'P'),
    (57, "127.0.0.0/8", ParentAlso, ("unknown", "::ffff:127.0.0.1"), 'D'),
    (57, "[::ffff:127.0.0.0]/104", ParentAlso, ("unknown", "::ffff:127.0.0.1"), 'P'),
    (59, "localhost", ParentAlso, LOCAL4, 'P'),
    (60, "unknown", ParentAlso, GONE, 'P'),
    (60, "0.0.0.0/0 [::]/0", ParentAlso, GONE, 'D'),
    (61, "127.0.0.0/8 [::1]/128", ParentAlso, LOCAL4, 'P'),
];

#[test]
fn the_worked_examples_end_as_the_specification_says() {
    let files = Files::new(
        "examples",
        &[
            ("list", "127.0.0.0/8\n"),
            ("f", "!127.0.0.5\n127.0.0.0/8\n"),
        ],
    );
    for (row, patterns, parents, client, expected) in EXAMPLES {
        let (result, lines) = outcome(&files.at(patterns), *parents, *client);
        assert_eq!(result, *expected, "{row}: {patterns} {client:?} {lines:?}");
    }
}

/// The log lines of a list after an evaluation for `client`.
fn logged(patterns: &str, client: (&str, &str)) -> Vec<String> {
    outcome(patterns, ParentAlso, client).1
}

#[test]
fn a_malformed_pattern_is_named_with_what_is_wrong_with_it() {
    #[rustfmt::skip]
    let bad = [
        ("127.0.0.1/8", r#"non-null host address bits in "127.0.0.1/8", perhaps you should use "127.0.0.0/8" instead"#),
        ("127.0.0.1/0", r#"non-null host address bits in "127.0.0.1/0", perhaps you should use "0.0.0.0/0" instead"#),
        ("[2001:db8::1]/32", r#"non-null host address bits in "2001:db8::1/32", perhaps you should use "2001:db8::/32" instead"#),
        ("127.0.0.0/33", r#"bad mask length in "127.0.0.0/33""#),
        ("127/33", r#"bad mask length in "127/33""#),
        ("127.0.0.0/4294967304", r#"bad mask length in "127.0.0.0/4294967304""#),
        ("[::1]/129", r#"bad mask length in "::1/129""#),
        ("127.0.0.0/", r#"bad mask value in "127.0.0.0/""#),
        ("127.0.0.0/255.0.0.0", r#"bad mask value in "127.0.0.0/255.0.0.0""#),
        ("127.0.0.0/abc", r#"bad mask value in "127.0.0.0/abc""#),
        ("127.0.0.0//8", r#"bad mask value in "127.0.0.0//8""#),
        ("[127.0.0.0]/8/8", r#"bad mask value in "127.0.0.0/8/8""#),
        ("[127.0.0.0]/8]", r#"bad mask value in "127.0.0.0/8]""#),
        ("127/8", r#"bad network value in "127/8""#),
        ("127.0.00.0/8", r#"bad network value in "127.0.00.0/8""#),
        ("deadbeef/8", r#"bad network value in "deadbeef/8""#),
        ("[127.0.0.0/8]/8", r#"bad network value in "127.0.0.0/8/8""#),
        ("[]/8", r#"bad network value in "/8""#),
        ("[12345::1]", r#"bad address pattern: "12345::1""#),
        ("[2001:DB8:::5]", r#"bad address pattern: "2001:db8:::5""#),
        ("[127.0.0.0/8", r#"missing ']' character after "[127.0.0.0/8""#),
        ("[::1", r#"missing ']' character after "[::1""#),
        ("[127.0.0.0]8/8", r#"garbage after "[127.0.0.0]""#),
        ("[[127.0.0.0]]/8", r#"garbage after "[[127.0.0.0]""#),
    ];
    for (pattern, problem) in bad {
        let (client, other) = if pattern.contains(':') {
            (SIX, LOCAL4)
        } else {
            (LOCAL4, SIX)
        };
        let warning = format!("warning: {LIST}: {problem}");
        assert_eq!(logged(pattern, client), [warning], "{pattern}");
        let unseen = outcome(pattern, ParentAlso, other);
        assert_eq!(unseen, ('D', vec![]), "{pattern}: the other family");
    }
    for ignored in [
        "xyz/8",
        "[127.0.0.0]x/8",
        "127.0.0.0/+8",
        "[127.0.0.1",
        "127.0.0",
    ] {
        let outcome = outcome(ignored, ParentAlso, LOCAL4);
        assert_eq!(outcome, ('D', vec![]), "{ignored}");
    }
}

#[test]
fn a_table_that_cannot_be_opened_is_an_error_once_and_a_warning_whenever_it_is_reached() {
    assert_eq!(
        logged("foo:bar !foo:bar", LOCAL4),
        [
            "warning: unsupported dictionary type: foo. Is the postfix-foo package installed?",
            "error: unsupported dictionary type: foo",
            "warning: foo:bar is unavailable. unsupported dictionary type: foo",
            "warning: qmqpd_authorized_clients: foo:bar: table lookup problem",
        ]
    );
    assert_eq!(
        logged("/nosuch /nosuch", LOCAL4),
        [
            "error: open file /nosuch: No such file or directory",
            "warning: non-existent:/nosuch is unavailable. open file /nosuch: No such file or directory",
            "warning: qmqpd_authorized_clients: non-existent:/nosuch: table lookup problem",
        ]
    );
    for name in [":bar", "foo:"] {
        let reason = format!("open dictionary: expecting \"type:name\" form instead of \"{name}\"");
        assert_eq!(
            logged(name, LOCAL4),
            [
                format!("error: {reason}"),
                format!("warning: {name} is unavailable. {reason}"),
                format!("warning: {LIST}: {name}: table lookup problem"),
            ]
        );
    }
}

#[test]
fn what_makes_a_list_unusable_is_told_in_postfix_words() {
    assert_eq!(
        logged("127.0.0.1 !!", LOCAL4),
        ["fatal: qmqpd_authorized_clients: no pattern after '!'"]
    );
    assert_eq!(
        logged("/tmp", LOCAL4),
        ["fatal: match_list_parse: read file /tmp: Is a directory"]
    );
}

#[test]
fn a_comment_after_text_is_dropped_with_a_warning() {
    let files = Files::new(
        "comment",
        &[("list", "# c\n127.0.0.9 # x\n  # c\n 127.0.0.1\n[::1]\n")],
    );
    assert_eq!(
        logged("127.0.0.9 #foo   bar, baz quux and so on", LOCAL4),
        [
            "warning: qmqpd_authorized_clients: #comment after other text is not allowed: #foo   bar, baz quux and ..."
        ]
    );
    let list = files.at("@/list");
    assert_eq!(
        outcome(&list, ParentAlso, LOCAL6),
        (
            'P',
            vec![
                "warning: qmqpd_authorized_clients: #comment after other text is not allowed: # x 127.0.0.1..."
                    .to_owned()
            ]
        )
    );
    assert_eq!(outcome(&list, ParentAlso, LOCAL4).0, 'D');
}

#[test]
fn ipv6_without_brackets_is_ipv6_with_a_warning() {
    assert_eq!(
        logged("!2001:DB8::/32", SIX),
        [
            "warning: qmqpd_authorized_clients: IPv6 pattern \"2001:DB8::/32\" without brackets, \
             perhaps you should use \"[2001:DB8::/32]\" instead"
        ]
    );
    for table in ["2001:db8", "2001:db8::/x", "::1]", "127.0.0.1:628"] {
        assert_eq!(outcome(table, ParentAlso, SIX).0, 'Z', "{table}");
    }
    let (result, lines) = outcome("2001:db8::1/32", ParentAlso, SIX);
    assert_eq!(result, 'Z');
    assert!(lines[1].contains("non-null host address bits"), "{lines:?}");
}

#[test]
fn braces_keep_separators_together() {
    let (_, list) = parse("{a, {b c}} d,e} f{ g", ParentAlso);
    let list = list.expect("list");
    let items: Vec<String> = list.parts().map(|item| item.to_string()).collect();
    assert_eq!(items, ["{a, {b c}}", "d", "e}", "f{ g"]);
}

#[test]
fn the_item_that_decided_is_known_with_its_place() {
    let files = Files::new(
        "place",
        &[("list", "# c\n\n10.0.0.0/8\n!EXAMPLE.com 127.0.0.0/8\n")],
    );
    let (_, list) = parse(&files.at("!192.0.2.1 !@/list [::1]"), ParentAlso);
    let list = list.expect("list");
    let decided = |client: (&str, &str)| {
        let decision = list.decide(Some(client.0), client.1).expect("decision");
        let listed = decision.listing == Listing::Listed;
        (listed, decision.item.map(|item| item.to_string()))
    };
    let place = files.at("in @/list, line 4");
    assert_eq!(decided(GOOD), (true, Some(format!("example.com {place}"))));
    assert_eq!(
        decided(LOCAL4),
        (false, Some(format!("!127.0.0.0/8 {place}")))
    );
    assert_eq!(decided(LOCAL6), (true, Some("[::1]".to_owned())));
    assert_eq!(decided(SIX), (false, None));
}

/// The items of a list whose file is `file`, each with its place, after the splitting of plain lines.
fn items_of_file(text: &str) -> Vec<String> {
    use crate::config::lines::logical_lines;
    let mut items = Vec::new();
    for logical in logical_lines(text.as_bytes()) {
        let line = String::from_utf8_lossy(&logical.text).into_owned();
        let mut rest = &*line;
        while let Some(item) = braces::next_item(&mut rest) {
            if item.starts_with('#') {
                break;
            }
            let pattern = item.trim_start_matches('!').to_ascii_lowercase();
            let not = if (item.len() - pattern.len()) % 2 == 0 {
                "!"
            } else {
                ""
            };
            items.push(format!(
                "{not}{pattern} in @/list, line {}",
                logical.first_line
            ));
        }
    }
    items
}

proptest::proptest! {
    #[test]
    fn the_first_line_that_a_client_matches_decides(
        text in "(([aA]|b\\.[aB]|\\.a|c|192\\.0\\.2\\.[0-2](/32)?|UNKNOWN|#|)([ ,]|\n|\n|\n)){0,12}",
        name in "[ab]|(b\\.){1,2}[ab]|unknown|cb\\.a",
    ) {
        let files = Files::new("first", &[("list", &*text)]);
        let (_, list) = parse(&files.at("@/list"), ParentAlso);
        let list = list.expect("list");
        let is_of_client = |item: &str| {
            let (pattern, _) = item.split_once(' ').expect("a place");
            let below = name.strip_suffix(pattern);
            below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
                || pattern.trim_end_matches("/32") == "192.0.2.1"
        };
        let expected = list.parts().map(|item| item.to_string()).find(|item| is_of_client(item));
        let decision = list.decide(Some(&name), "192.0.2.1").expect("decision");
        proptest::prop_assert_eq!(decision.item.map(|item| item.to_string()), expected);
    }

    #[test]
    fn lines_that_stay_as_they_are_have_the_items_that_they_had(
        text in "(([a-cA-C.]{1,3}|1\\.2\\.3\\.4/8|\\[::1\\]|\\[a|!!?b|\u{e9}|\\{a b\\}|#|#c|)([ ,\t]|\n|\n|\r\n|\n \0|\n#|\x0b\n)){0,20}"
    ) {
        let files = Files::new("plain", &[("list", &*text)]);
        let (_, list) = parse(&files.at("!@/list"), ParentAlso);
        let list = list.expect("list");
        let found: Vec<String> = list.parts().map(|item| item.to_string()).collect();
        let expected = items_of_file(&text);
        let expected: Vec<String> = expected.iter().map(|item| files.at(item)).collect();
        proptest::prop_assert_eq!(found, expected);
    }
}

#[test]
fn lines_of_a_file_stay_as_they_are_up_to_the_first_that_is_not_plain() {
    let plain = "192.0.2.1\n# c\n\na.example 192.0.2.0/24,\t[::1]/128\n";
    for (more, count) in [("", 1), ("!b\n", 2), ("x\n y\n", 2), ("static:x\nz\n", 3)] {
        let files = Files::new("stay", &[("list", &format!("{plain}{more}"))]);
        let (_, list) = parse(&files.at("@/list"), ParentAlso);
        assert_eq!(
            list.expect("list").items.len(),
            count + usize::from(more.starts_with('x'))
        );
    }
}

#[test]
fn a_file_that_names_itself_cannot_be_used_and_does_not_hang() {
    let files = Files::new("loop", &[("a", "127.0.0.9\n"), ("b", "127.0.0.7")]);
    fs::write(files.0.join("a"), files.at("127.0.0.9 @/b\n")).expect("file");
    fs::write(files.0.join("b"), files.at("127.0.0.7 @/a\n")).expect("file");
    let list = files.at("@/a 127.0.0.1");
    assert_eq!(outcome(&list, ParentAlso, MIXED).0, 'P');
    let (result, lines) = outcome(&list, ParentAlso, LOCAL4);
    assert_eq!(result, 'Z');
    assert_eq!(
        lines[0],
        files.at("error: open file @/a: the file is part of itself")
    );
}

#[test]
fn a_file_may_stand_in_a_list_twice() {
    let files = Files::new("twice", &[("a", "127.0.0.9\n")]);
    assert_eq!(
        outcome(&files.at("@/a @/a"), ParentAlso, NINE),
        ('P', vec![])
    );
}

/// A table that reports its lookups.
#[derive(Debug)]
struct Asked {
    keys: Keys,
    has: &'static str,
    asked: std::cell::RefCell<Vec<String>>,
}

impl Table for Asked {
    fn name(&self) -> &str {
        "test:asked"
    }

    fn keys(&self) -> Keys {
        self.keys
    }

    fn find(&self, key: &str, _: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        self.asked.borrow_mut().push(key.to_owned());
        Ok((key == self.has).then(Vec::new))
    }

    fn has_changed(&self) -> bool {
        self.has == "changed"
    }
}

/// A list of one table.
fn list_of(table: &Rc<Asked>, parents: ParentStyle) -> MatchList {
    let mut list = MatchList::parse(LIST, "", parents, &mut tables())
        .1
        .expect("list");
    list.items.push(Item {
        negated: false,
        what: What::Table(Rc::clone(table) as Rc<dyn Table>),
        place: None,
    });
    list
}

/// Programs are started for these tables only.
#[test]
fn tables_behind_an_item_that_decides_are_not_reached() {
    const TABLE: &str = "inline:{a=b}";
    const OTHER: &str = "inline:{c=d}";
    let here = Some("192.0.2.1");
    for (patterns, addr, reached) in [
        ("inline:{a=b}, inline:{c=d}", here, &[TABLE, OTHER][..]),
        ("192.0.2.1, inline:{a=b}", here, &[]),
        ("!192.0.2.0/24, inline:{a=b}", here, &[]),
        ("192.0.2.1, inline:{a=b}", Some("192.0.2.2"), &[TABLE]),
        ("192.0.2.1, inline:{a=b}", Some("unknown"), &[TABLE]),
        ("192.0.2.1, inline:{a=b}", None, &[TABLE]),
        ("192.0.2.1/99, inline:{a=b}", here, &[]),
        (
            "inline:{a=b}, static:x, inline:{c=d}",
            here,
            &[TABLE, "static:x"],
        ),
    ] {
        let list = parse(patterns, ParentAlso).1.expect(patterns);
        let found: Vec<&str> = list.reached(addr).iter().map(|(name, _)| *name).collect();
        assert_eq!(found, reached, "{patterns} {addr:?}");
    }
}

#[test]
fn a_table_that_has_changed_is_named() {
    for (has, named) in [
        ("changed", Some("test:asked(0,lock|utf8_request)")),
        ("", None),
    ] {
        let table = Rc::new(Asked {
            keys: Keys::Fixed,
            has,
            asked: std::cell::RefCell::default(),
        });
        let mut tables = tables();
        tables.opened.push(table);
        assert_eq!(tables.changed_table().as_deref(), named);
    }
}

/// The keys that a table is asked for, and whether the client is listed.
fn asked(keys: Keys, parents: ParentStyle, has: &'static str) -> (Vec<String>, bool) {
    let table = Rc::new(Asked {
        keys,
        has,
        asked: std::cell::RefCell::default(),
    });
    let list = list_of(&table, parents);
    let decision = list
        .decide(Some("A.b.example.COM"), "127.0.0.5")
        .expect("decision");
    let listed = decision.listing == Listing::Listed;
    (table.asked.take(), listed)
}

#[test]
fn a_table_with_fixed_keys_is_asked_for_parent_domains() {
    assert_eq!(
        asked(Keys::Fixed, ParentAlso, "").0,
        [
            "a.b.example.com",
            "b.example.com",
            "example.com",
            "com",
            "127.0.0.5"
        ]
    );
    assert_eq!(
        asked(Keys::Fixed, DotOnly, "").0,
        [
            "a.b.example.com",
            ".b.example.com",
            ".example.com",
            ".com",
            "127.0.0.5"
        ]
    );
    assert_eq!(
        asked(Keys::Pattern, ParentAlso, "").0,
        ["a.b.example.com", "127.0.0.5"]
    );
}

#[test]
fn a_value_in_a_table_counts_even_if_it_is_empty() {
    assert_eq!(
        asked(Keys::Fixed, ParentAlso, "example.com"),
        (
            ["a.b.example.com", "b.example.com", "example.com"]
                .map(str::to_owned)
                .to_vec(),
            true
        )
    );
    assert!(asked(Keys::Pattern, ParentAlso, "127.0.0.5").1);
    assert!(!asked(Keys::Pattern, ParentAlso, "example.com").1);
}

#[test]
fn parent_domain_matches_subdomains_is_a_list_of_strings() {
    let style = |value: &str| parent_style(value, LIST, &mut tables()).expect("style");
    let default = "debug_peer_list,fast_flush_domains,mynetworks,permit_mx_backup_networks,\
                   qmqpd_authorized_clients,relay_domains,smtpd_access_maps";
    assert_eq!(style(default), ParentAlso);
    assert_eq!(
        style("debug_peer_list, Qmqpd_Authorized_Clients"),
        ParentAlso
    );
    assert_eq!(style(""), DotOnly);
    assert_eq!(style("qmqpd_authorized"), DotOnly);
    assert_eq!(
        style("!qmqpd_authorized_clients qmqpd_authorized_clients"),
        DotOnly
    );
    assert_eq!(style("!x Qmqpd_Authorized_Clients"), ParentAlso);
    assert_eq!(
        parent_style("!", LIST, &mut tables()).map_err(|e| e.to_string()),
        Err("parent_domain_matches_subdomains: no pattern after '!'".to_owned())
    );
}

#[test]
fn a_table_problem_in_parent_domain_matches_subdomains_is_fatal_only_if_it_is_reached() {
    let style = |value: &str| parent_style(value, LIST, &mut tables()).map_err(|e| e.to_string());
    assert_eq!(
        style("foo:bar qmqpd_authorized_clients"),
        Err("parent_domain_matches_subdomains: foo:bar: table lookup problem".to_owned())
    );
    assert_eq!(style("qmqpd_authorized_clients foo:bar"), Ok(ParentAlso));
}

#[test]
fn each_item_is_checked_by_itself_without_a_client() {
    let files = Files::new("problems", &[("list", "a.example\n10.0.0.1/8 [::1]\n")]);
    let patterns = files.at("127.0.0.1 [::1]/129 @/list xyz/8 foo:bar");
    let (_, list) = parse(&patterns, ParentAlso);
    let problems = list.expect("list").problems(&tables(), &|| Ok(None));
    let text = |text: &str| format!("{LIST}: {text}");
    let expected = [
        (None, text("bad mask length in \"::1/129\"")),
        (
            Some(files.at("@/list, line 2")),
            text(
                "non-null host address bits in \"10.0.0.1/8\", perhaps you should use \"10.0.0.0/8\" instead",
            ),
        ),
        (
            None,
            text("foo:bar is unavailable. unsupported dictionary type: foo"),
        ),
    ];
    let expected = expected.map(|(place, text)| ItemProblem { place, text });
    assert_eq!(problems, expected);
}
