//! What source, tests and documents cite of the pages in `tests/spec` is there: the page, the section, the number.
//!
//! A citation is a path and a section (`tests/spec/qmqp.md`, section 2), or the path of the differences from Postfix
//! or of its versions, and a number (`tests/spec/differences.md`, 7). The pages cite one another without the directory.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the pages are.
const SPEC: &str = "tests/spec/";

/// The pages whose rows have numbers.
const DIFFERENCES: &str = "differences.md";
const VERSIONS: &str = "versions.md";

/// How a comment begins that tells of a difference.
const UNLIKE: &str = "Unlike Postfix";

/// What is looked through. The pages themselves are part of it.
const PLACES: [&str; 4] = ["src", "tests", "scripts", "README.md"];

/// The numbers of a page's sections or rows, by the page's name.
type Pages = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn find(path: &Path, found: &mut Vec<PathBuf>) {
    let name = path.file_name().unwrap_or_default();
    if path.is_dir() {
        if name != "target" && name != "corpus" {
            let entries = fs::read_dir(path).unwrap();
            entries.for_each(|entry| find(&entry.unwrap().path(), found));
        }
    } else if name != "citations.rs" {
        found.push(path.into());
    }
}

/// Every text file that may cite a page: its name, and what is in it.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for place in PLACES {
        find(&root().join(place), &mut found);
    }
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    found
        .iter()
        .filter_map(|path| Some((name(path), fs::read_to_string(path).ok()?)))
        .collect()
}

fn pages() -> Pages {
    let mut pages = Pages::new();
    for entry in fs::read_dir(root().join(SPEC)).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let heading = if has_rows(name) { "| " } else { "##" };
        let numbers = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(heading)?.trim_start_matches('#');
            let number = rest.split_whitespace().next()?.trim_end_matches('.');
            number.starts_with(is_digit).then(|| number.to_owned())
        });
        pages.insert(name.to_owned(), numbers.collect());
    }
    pages
}

fn has_rows(page: &str) -> bool {
    page == DIFFERENCES || page == VERSIONS
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// The text in one line, without the marks of comments, so that a citation may go on in the next line.
fn joined(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim();
        let marks = ["//!", "///", "//"];
        let comment = marks.iter().find_map(|mark| line.strip_prefix(mark));
        comment.unwrap_or(line).trim()
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// The numbers that a text begins with: `2, 2.1 and 5`, or `1 to 4`.
fn numbers(mut text: &str) -> Vec<String> {
    let mut found = Vec::new();
    while text.starts_with(is_digit) {
        let end = text.find(|c: char| !is_digit(c) && c != '.');
        let (number, rest) = text.split_at(end.unwrap_or(text.len()));
        found.push(number.trim_end_matches('.').to_owned());
        let next = [", ", " and ", " to "];
        let Some(rest) = next.iter().find_map(|word| rest.strip_prefix(word)) else {
            break;
        };
        text = rest;
    }
    found
}

/// Each page that a text names, with the numbers behind it.
fn citations(text: &str, directory: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(".md") {
        let (before, after) = text.split_at(at);
        let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c));
        let path = &before[start.map_or(0, |at| at + 1)..];
        let Some(page) = path
            .strip_prefix(directory)
            .filter(|page| !page.contains('/'))
        else {
            continue;
        };
        let rest = after.strip_prefix(".md").unwrap_or_default();
        let rest = rest.strip_prefix('`').unwrap_or(rest);
        let rest = rest.strip_prefix(", ").unwrap_or_default();
        let words = ["sections ", "section "];
        let section = words.iter().find_map(|word| rest.strip_prefix(word));
        let is_list = has_rows(&format!("{page}.md"));
        let place = if is_list { Some(rest) } else { section };
        let numbers = numbers(place.unwrap_or_default());
        found.push((format!("{page}.md"), numbers));
    }
    found
}

/// What is wrong with the citations of a file.
fn broken(name: &str, text: &str, pages: &Pages) -> Vec<String> {
    let mut broken = Vec::new();
    let own = name.starts_with(SPEC);
    // A document may name a page as a whole; what is code says where in it.
    let whole = name.ends_with(".md");
    for (page, numbers) in citations(&joined(text), if own { "" } else { SPEC }) {
        let Some(known) = pages.get(&page) else {
            broken.push(format!("{name}: there is no {SPEC}{page}"));
            continue;
        };
        if numbers.is_empty() && !whole {
            broken.push(format!("{name}: no section of {SPEC}{page} is named"));
        }
        let missing = numbers.iter().filter(|number| !known.contains(*number));
        broken.extend(missing.map(|number| format!("{name}: {SPEC}{page} has no {number}")));
    }
    broken
}

#[test]
fn what_is_cited_is_there() {
    let pages = pages();
    assert!(pages.len() > 7 && pages.values().all(|numbers| !numbers.is_empty()));
    let files = files();
    let wrong = files
        .iter()
        .flat_map(|(name, text)| broken(name, text, &pages));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let count = |name: &str| {
        files
            .iter()
            .filter(|(path, _)| path.starts_with(name))
            .count()
    };
    assert!(count("src/") > 50 && count("tests/dialogue/") > 300 && count("scripts/") > 5);
}

#[test]
fn a_citation_that_leads_nowhere_is_found() {
    let pages = Pages::from([
        (
            "qmqp.md".to_owned(),
            BTreeSet::from(["2".to_owned(), "4.1".to_owned()]),
        ),
        (DIFFERENCES.to_owned(), BTreeSet::from(["7".to_owned()])),
    ]);
    let wrong = |name: &str, text: &str| broken(name, text, &pages).len();
    for good in [
        "/// See `tests/spec/qmqp.md`, sections\n/// 2 and 4.1.",
        "// (`tests/spec/differences.md`, 7)",
        "differs: tests/spec/differences.md, 7: because",
        "another/tests/spec/page.md, and README.md",
    ] {
        assert_eq!(wrong("src/x.rs", good), 0, "{good}");
    }
    for bad in [
        "/// See `tests/spec/qmqp.md`, section 3.",
        "/// See `tests/spec/qmqp.md`, sections 2 to 5.",
        "/// See `tests/spec/qmtp.md`, section 2.",
        "/// See `tests/spec/qmqp.md`.",
        "// (`tests/spec/differences.md`, 8)",
    ] {
        assert_eq!(wrong("src/x.rs", bad), 1, "{bad}");
    }
    assert_eq!(wrong("README.md", "[a page](tests/spec/qmqp.md)"), 0);
    assert_eq!(
        wrong("tests/spec/x.md", "qmqp.md, section 2; qmqp.md, section 5"),
        1
    );
}

#[test]
fn no_page_is_cited_by_a_name_alone() {
    for (name, text) in files() {
        let text = joined(&text);
        assert!(!text.contains("page of the specification"), "{name}");
    }
}

/// What is cited of the list of differences, in all files but the list.
fn cited() -> BTreeSet<String> {
    let files = files()
        .into_iter()
        .filter(|(name, _)| !name.starts_with(SPEC));
    let all = files.flat_map(|(_, text)| citations(&joined(&text), SPEC));
    let numbers = all.filter(|(page, _)| page == DIFFERENCES);
    numbers.flat_map(|(_, numbers)| numbers).collect()
}

#[test]
fn every_difference_is_cited_or_has_a_test_and_what_its_row_names_is_there() {
    let cited = cited();
    let list = fs::read_to_string(root().join(SPEC).join(DIFFERENCES)).unwrap();
    let mut last = 0;
    for row in list.lines().filter_map(|line| line.strip_prefix("| ")) {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let Ok(number) = cells[0].parse::<u32>() else {
            continue;
        };
        assert_eq!(cells.len(), 4, "{row}");
        assert!(number > last, "{number} after {last}");
        last = number;
        let shown = cells[3];
        let named = shown.contains("tests/") || shown.contains("tests.rs");
        assert!(
            named || cited.contains(cells[0]),
            "{number}: neither cited nor shown"
        );
        let mut text = String::new();
        for word in shown.split('`').skip(1).step_by(2) {
            if word.contains('/') {
                text = fs::read_to_string(root().join(word))
                    .unwrap_or_else(|error| panic!("{number}: {word}: {error}"));
            } else {
                let test = format!("fn {word}(");
                assert!(text.contains(&test), "{number}: there is no {word}");
            }
        }
        assert!(!text.is_empty(), "{number}: nothing shows it");
    }
    assert!(last >= 17, "{last}");
}

#[test]
fn a_comment_that_tells_of_a_difference_has_its_number() {
    let mut count = 0;
    for (name, text) in files() {
        if !name.starts_with("src/") || !name.ends_with(".rs") {
            continue;
        }
        let comment = |line: &str| line.trim().starts_with("//");
        let lines: Vec<&str> = text.lines().collect();
        for block in lines.chunk_by(|a, b| comment(a) == comment(b)) {
            let block = joined(&block.join("\n"));
            for told in block.split(UNLIKE).skip(1) {
                count += 1;
                let numbered = citations(told, SPEC)
                    .iter()
                    .any(|(page, numbers)| page == DIFFERENCES && !numbers.is_empty());
                assert!(numbered, "{name}: {UNLIKE}{told} ({SPEC}{DIFFERENCES}, ?)");
            }
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn a_dialogue_that_differs_says_by_which_number() {
    let mut count = 0;
    for (name, text) in files() {
        if !name.starts_with("tests/dialogue/") || !name.ends_with(".txt") {
            continue;
        }
        for reason in text
            .lines()
            .filter_map(|line| line.strip_prefix("differs: "))
        {
            count += 1;
            let place = reason.strip_prefix(&format!("{SPEC}{DIFFERENCES}, "));
            let number = place.and_then(|place| place.split_once(": "));
            let good = number
                .is_some_and(|(number, why)| number.parse::<u32>().is_ok() && !why.is_empty());
            assert!(good, "{name}: {reason}");
        }
    }
    assert!(count > 50, "{count}");
}
