//! The pages for people who change the program (README.md in `src`, `tests` and `scripts`): what they name is there, and
//! what is there they name.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const PAGES: [&str; 3] = ["src/README.md", "tests/README.md", "scripts/README.md"];

/// The directories whose files are named from the top of the repository.
const DIRECTORIES: [&str; 4] = ["src/", "tests/", "scripts/", ".ci/"];

/// Stand in a page for a name that a reader chooses.
const PLACEHOLDERS: [&str; 5] = ["N", "NAME", "NUMBER", "PROGRAM", "ROOM"];

/// What a build makes, which a fresh clone does not have.
const MADE: [&str; 2] = ["target/", "tests/fuzz/target/"];

/// The longest line of prose, in characters. Tables and blocks may be wider.
const LINE_LIMIT: usize = 100;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The lines between fences, and the others.
fn split(page: &str) -> (Vec<&str>, Vec<&str>) {
    let mut inside = false;
    let (mut blocks, mut text) = (Vec::new(), Vec::new());
    for line in page.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside {
            blocks.push(line);
        } else {
            text.push(line);
        }
    }
    assert!(!inside, "a block that is not closed");
    (blocks, text)
}

/// What stands between backquotes, and the lines of blocks without their comments.
fn code(page: &str) -> Vec<String> {
    let (blocks, text) = split(page);
    let text = text.join("\n");
    let quoted = text.split('`').skip(1).step_by(2).map(str::to_owned);
    let lines = blocks.iter().filter_map(|line| line.split('#').next());
    quoted.chain(lines.map(str::to_owned)).collect()
}

/// The words of a piece of code that are names of files.
fn paths(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| c.is_whitespace() || ",;()\"'=".contains(c))
        .map(|word| word.trim_end_matches(['.', ':']))
        .filter(|word| {
            let ends = [".rs", ".md", ".toml", ".8"];
            let begins = DIRECTORIES.iter().any(|start| word.starts_with(start));
            let is_name = ends.iter().any(|end| word.ends_with(end) && word != end);
            (begins || is_name) && !word.starts_with('/')
        })
}

/// Whether a path exists; of one with a placeholder, the directory that it is in.
fn exists(path: &str) -> bool {
    if MADE.iter().any(|made| path.starts_with(made)) {
        return true;
    }
    let is_chosen = |part: &str| PLACEHOLDERS.contains(&part.split('.').next().unwrap());
    let kept: PathBuf = path
        .split('/')
        .take_while(|part| !is_chosen(part))
        .collect();
    let found = Path::new(ROOT).join(kept);
    found.exists() && (!path.ends_with('/') || found.is_dir())
}

/// Fails with all that is wrong, if anything is.
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in PAGES {
        let text = read(page);
        for piece in code(&text) {
            for path in paths(&piece) {
                count += 1;
                if !exists(path) {
                    wrong.push(format!("{page}: there is no {path}"));
                }
            }
        }
        let links = text.split("](").skip(1);
        for link in links.map(|rest| rest.split(')').next().unwrap()) {
            count += 1;
            let directory = Path::new(ROOT).join(page);
            if !directory.parent().unwrap().join(link).exists() {
                wrong.push(format!("{page}: the link {link} leads nowhere"));
            }
        }
    }
    assert!(count > 150, "only {count} names: is the scan broken?");
    assert_none(&wrong);
}

/// All text below a directory but the pages, a corpus and what a build makes.
fn sources(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["corpus", "target", "artifacts", "coverage"].contains(&name) {
                sources(&path, found);
            }
        } else if !["README.md", "pages.rs"].contains(&name) {
            // What is no text is none of the names.
            found.push_str(&fs::read_to_string(&path).unwrap_or_default());
            found.push('\n');
        }
    }
}

fn all_sources() -> String {
    let mut found = read("Cargo.toml");
    for directory in ["src", "tests", "scripts"] {
        sources(&Path::new(ROOT).join(directory), &mut found);
    }
    found
}

/// Constants, types and functions: `METHODS`, `Verdict::Queued`, `from_config`.
fn is_identifier(piece: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    piece.split("::").all(part) && piece.contains(|c: char| c.is_uppercase() || c == '_')
}

#[test]
fn every_constant_type_and_function_that_a_page_names_is_there() {
    let sources = all_sources();
    let words: Vec<&str> = sources
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in PAGES {
        let pieces = code(&read(page));
        for piece in pieces.iter().filter(|piece| is_identifier(piece)) {
            for part in piece
                .split("::")
                .filter(|part| !PLACEHOLDERS.contains(part))
            {
                count += 1;
                if !words.contains(&part) {
                    wrong.push(format!("{page}: nothing is called {part}"));
                }
            }
        }
    }
    assert!(count > 20, "only {count} names: is the scan broken?");
    assert_none(&wrong);
}

/// What is wrong with a command that runs tests: a test program or a test that is not there.
fn check_test_command(command: &str, functions: &[&str], wrong: &mut Vec<String>) {
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        if word == "--test" {
            let program = words.next().unwrap();
            let chosen = PLACEHOLDERS.contains(&program);
            if !chosen && !Path::new(ROOT).join(format!("tests/{program}.rs")).exists() {
                wrong.push(format!("{command}: there is no test program {program}"));
            }
        } else if !word.starts_with('-') {
            for part in word.split("::").filter(|part| !PLACEHOLDERS.contains(part)) {
                if !functions.iter().any(|name| name.contains(part)) {
                    wrong.push(format!("{command}: no test or room is called {part}"));
                }
            }
        }
    }
}

#[test]
fn every_test_that_a_page_has_run_is_there() {
    let sources = all_sources();
    let functions: Vec<&str> = sources
        .lines()
        .filter_map(|line| {
            let line = line.trim_start().trim_start_matches("pub ");
            let name = line.strip_prefix("fn ").or(line.strip_prefix("mod "))?;
            name.split(['(', '<', ';', ' ']).next()
        })
        .collect();
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in PAGES {
        for piece in code(&read(page)) {
            if let Some((_, command)) = piece.split_once("cargo test") {
                count += 1;
                check_test_command(command, &functions, &mut wrong);
            }
        }
    }
    assert!(count > 20, "only {count} commands: is the scan broken?");
    assert_none(&wrong);
}

/// The first cells of a page's tables, without backquotes.
fn first_cells(page: &str) -> Vec<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| row.split(" |").next().unwrap().replace('`', ""))
        .collect()
}

#[test]
fn the_rooms_are_those_of_the_program_in_their_order() {
    let lib = read("src/lib.rs");
    let rooms: Vec<&str> = lib
        .lines()
        .filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';')
        })
        .collect();
    let page = read("src/README.md");
    let (_, page) = page.split_once("\n## The rooms\n").unwrap();
    let (page, _) = page.split_once("\n## ").unwrap();
    let mut listed = first_cells(page);
    assert_eq!(listed.remove(0), "room");
    assert_eq!(listed, rooms);
}

/// The names in a directory of the repository, but for hidden ones; those of directories end in a slash.
fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join(directory)).unwrap();
    let names = entries.map(|entry| {
        let entry = entry.unwrap();
        let slash = if entry.path().is_dir() { "/" } else { "" };
        format!("{}{slash}", entry.file_name().to_str().unwrap())
    });
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn every_test_program_and_every_script_has_a_row() {
    let mut wrong = Vec::new();
    for (page, directory) in [
        ("tests/README.md", "tests"),
        ("scripts/README.md", "scripts"),
    ] {
        let cells = first_cells(&read(page));
        let listed: Vec<&str> = cells.iter().flat_map(|cell| cell.split(", ")).collect();
        let names = names_in(directory);
        assert!(names.len() > 10, "{names:?}");
        for name in names.iter().filter(|name| *name != "README.md") {
            let path = format!("{directory}/{name}");
            if !listed.contains(&path.as_str()) {
                wrong.push(format!("{page}: there is no row for {path}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn lines_of_prose_are_short() {
    let mut wrong = Vec::new();
    for page in PAGES {
        let text = read(page);
        let (_, text) = split(&text);
        let long = |line: &&&str| !line.starts_with('|') && line.chars().count() > LINE_LIMIT;
        wrong.extend(
            text.iter()
                .filter(long)
                .map(|line| format!("{page}: {line}")),
        );
    }
    assert_none(&wrong);
}

#[test]
fn the_readme_leads_to_the_pages() {
    let readme = read("README.md");
    for page in PAGES {
        assert!(readme.contains(&format!("]({page})")), "{page}");
    }
}
