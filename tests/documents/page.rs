//! What the pages for administrators promise of themselves: their length, their order, links that lead somewhere, figures
//! that the bench has, and no statement that has been found to be false.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::harness::instance::Instance;
use super::harness::patience::output;
use super::{ROOT, administrators, blocks, sections, shipped};

/// The longest README, in lines, and the longest line of prose, in characters. Tables and blocks may be wider.
const LINES: usize = 250;
const WIDTH: usize = 100;

/// The longest recipe in the README, in lines that are not empty. A longer one has a page of its own below scripts.
const RECIPE: usize = 12;

/// The sections of the README, in their order. A reader who has ten minutes reads from the top.
const ORDER: [&str; 16] = [
    "qmqpd",
    "Quick start",
    "Contents",
    "Choosing a launcher",
    "Recipes",
    "MailScanner and eFa",
    "ezmlm",
    "nullmailer and mini-qmail",
    "From Postfix's qmqpd and back",
    "From qmail-qmqpd",
    "Without Postfix",
    "Container, TLS, many hosts",
    "When something is not right",
    "Speed",
    "Security",
    "Where the rest is",
];

/// Statements that were false. A page that has one of these says it again.
const FALSE: [&str; 11] = [
    "every reply and every log line",
    "a reply other than k is repeated in a warning",
    "each reply other than k is repeated in a warning",
    "names file, line and parameter",
    "ten times as fast",
    "a tenth of the time",
    "replies are qmail's",
    "same replies",
    "one host has no more than 40 of 100",
    "whatever fails before leaves no file",
    "never not at all",
];

/// A page as one line, without the marks of Markdown and roff.
fn flat(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| {
        let is_macro = word.len() < 4 && word.starts_with('.') && word.len() > 1;
        !is_macro
    });
    let text = words.collect::<Vec<_>>().join(" ");
    text.replace(['`', '*', '"', '\\'], "").to_lowercase()
}

fn prose(page: &str) -> Vec<String> {
    let mut is_open = false;
    let mut lines = Vec::new();
    for line in page.lines() {
        is_open ^= line.starts_with("```");
        if !is_open && !line.starts_with('|') {
            lines.push(line.to_owned());
        }
    }
    lines
}

#[test]
fn the_readme_is_short_and_lines_of_prose_are() {
    let readme = shipped("README.md");
    let lines = readme.lines().count();
    assert!(lines <= LINES, "{lines} lines");
    let mut wrong = Vec::new();
    for page in administrators() {
        for line in prose(&shipped(&page)) {
            if line.chars().count() > WIDTH {
                wrong.push(format!("{page}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_has_its_sections_in_their_order() {
    let readme = shipped("README.md");
    let headings: Vec<&str> = sections(&readme)
        .iter()
        .map(|(heading, _)| *heading)
        .collect();
    assert_eq!(headings, ORDER);
    let (_, first) = &sections(&readme)[0];
    let lines = first.lines().filter(|line| !line.is_empty()).count();
    assert_eq!(lines, 4, "what it is and for whom");
}

#[test]
fn recipes_are_short_or_have_a_page_of_their_own() {
    let readme = shipped("README.md");
    let recipes = sections(&readme);
    let from = ORDER
        .iter()
        .position(|heading| *heading == "Recipes")
        .unwrap()
        + 1;
    let to = ORDER
        .iter()
        .position(|heading| *heading == "When something is not right")
        .unwrap();
    for (heading, text) in &recipes[from..to] {
        let is_counted = |line: &&str| !line.is_empty() && !line.starts_with("```");
        let lines = text.lines().filter(is_counted).count();
        assert!(lines <= RECIPE, "{heading}: {lines} lines");
        assert!(
            !blocks(text).is_empty() || text.contains("README.md)"),
            "{heading}"
        );
    }
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.replace(|c: char| !c.is_alphanumeric() && c != ' ' && c != '-', "");
    kept.replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in administrators() {
        let text = shipped(&page);
        let anchors: Vec<String> = sections(&text)
            .iter()
            .map(|(name, _)| anchor(name))
            .collect();
        let directory = Path::new(ROOT).join(&page);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            count += 1;
            let leads = match link.strip_prefix('#') {
                Some(name) => anchors.iter().any(|anchor| anchor == name),
                None => link.starts_with("https://") || directory.with_file_name(link).exists(),
            };
            if !leads {
                wrong.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(count > 30, "{count} links");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_contents_name_every_section() {
    let readme = shipped("README.md");
    let (_, contents) = readme.split_once("\n## Contents\n").unwrap();
    let (contents, rest) = contents.split_once("\n## ").unwrap();
    for (heading, _) in sections(&format!("## {rest}")) {
        let is_group = heading == "Recipes";
        let link = format!("](#{})", anchor(heading));
        assert!(is_group || contents.contains(&link), "{heading}");
    }
}

/// The files that a table of the README names as its evidence.
#[test]
fn every_test_that_is_named_is_there() {
    let mut count = 0;
    for page in administrators() {
        for piece in shipped(&page).split('`').skip(1).step_by(2) {
            let is_ours = ["tests/", "src/", "scripts/"]
                .iter()
                .any(|start| piece.starts_with(start));
            let name = piece.split(' ').next().unwrap();
            if is_ours && !name.contains('\n') {
                count += 1;
                assert!(Path::new(ROOT).join(name).exists(), "{page}: {name}");
            }
        }
    }
    assert!(count > 10, "{count} names");
}

/// The cells of the rows of a table that begins with this cell.
fn table(page: &str, first: &str) -> Vec<Vec<String>> {
    let start = page
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {first} |")));
    let rows = start.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace("**", "")).collect()
    });
    cells.collect()
}

/// Which columns of the bench's table the README shows, in its order.
const SHOWN: [&str; 7] = [
    "queue in memory",
    "Postfix's `qmqpd -S`, tcpserver",
    "qmqpd `cleanup`, tcpserver",
    "qmqpd `file`, tcpserver",
    "Postfix, master(8)",
    "qmqpd `cleanup`, master(8)",
    "qmqpd `file`, master(8)",
];

#[test]
fn the_figures_of_the_readme_are_those_of_the_bench() {
    let (readme, bench) = (shipped("README.md"), shipped("tests/bench/README.md"));
    let (ours, theirs) = (table(&readme, SHOWN[0]), table(&bench, SHOWN[0]));
    let columns = SHOWN.map(|name| theirs[0].iter().position(|cell| cell == name).unwrap());
    assert!(ours.len() > 5, "{ours:?}");
    for row in &ours[2..] {
        let found = theirs.iter().find(|other| other[0] == row[0]);
        let found = found.unwrap_or_else(|| panic!("the bench has no row {}", row[0]));
        let expected: Vec<&String> = columns.iter().map(|&column| &found[column]).collect();
        assert_eq!(row.iter().collect::<Vec<_>>(), expected);
    }
    // The costs in the table of launchers.
    let costs = table(&readme, "launcher");
    for row in &costs[2..] {
        let cost = row.last().unwrap();
        let is_known = cost == "not measured" || bench.contains(&format!("| {cost} |"));
        assert!(is_known, "the bench has no {cost:?}");
    }
}

#[test]
fn no_page_says_again_what_was_false() {
    let mut pages = administrators();
    pages.extend(["scripts/README.md", "tests/README.md", "src/README.md"].map(str::to_owned));
    pages.extend(["inetd.conf.example", "src/qmqpd.8", "tests/bench/README.md"].map(str::to_owned));
    let mut wrong = Vec::new();
    for page in pages {
        let text = flat(&fs::read_to_string(Path::new(ROOT).join(&page)).unwrap());
        for statement in FALSE {
            if text.contains(statement) {
                wrong.push(format!("{page}: {statement}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A statement of the README about a file, and what the file has.
const HELD: [(&str, &str, &str); 12] = [
    (
        "100 connections, 40 of a client (IPv6: of a /64)",
        TABLE,
        "qmqpd_process_limit: Count = \"100\"",
    ),
    (
        "100 connections, 40 of a client (IPv6: of a /64)",
        TABLE,
        "qmqpd_client_connection_count_limit: Count = \"40\"",
    ),
    (
        "100 connections, 40 of a client (IPv6: of a /64)",
        TABLE,
        "qmqpd_client_ipv6_prefix_length: Count = \"64\"",
    ),
    (
        "100 connections, 40 of an address",
        "scripts/systemd/qmqpd.socket",
        "MaxConnections=100\nMaxConnectionsPerSource=40\n",
    ),
    (
        "100 connections, 40 of an address",
        "scripts/xinetd/qmqpd",
        "instances\t= 100\n\tper_source\t= 40\n",
    ),
    (
        "100 connections; addresses",
        "scripts/tcpserver/run",
        " -c 100 ",
    ),
    (
        "100 connections; addresses",
        "scripts/tcpserver/run",
        " -x /etc/qmqpd/tcp.qmqp.cdb ",
    ),
    (
        "6000 connections a minute",
        "inetd.conf.example",
        "\nqmqp  stream  tcp4  nowait.6000 ",
    ),
    (
        "port 628",
        "scripts/systemd/qmqpd-accept.socket",
        "\nListenStream=628\n",
    ),
    (
        "Rust from [rustup.rs](https://rustup.rs): version 1.85",
        "Cargo.toml",
        "rust-version = \"1.85\"",
    ),
    (
        "`postfix check` may warn",
        "scripts/postfix/master.cf.example",
        "ln -s /usr/sbin/qmqpd",
    ),
    (
        "with systemd 255 and later",
        "scripts/systemd/drop-ins/poll-limit.conf",
        "with systemd 255 and newer",
    ),
];

const TABLE: &str = "src/config/table.rs";

#[test]
fn what_the_readme_says_of_a_file_is_in_the_file() {
    let readme = shipped("README.md");
    for (statement, file, text) in HELD {
        assert!(readme.contains(statement), "README.md: {statement}");
        assert!(shipped(file).contains(text), "{file}: {text}");
    }
}

/// Words that name no one and nothing. A sentence with one of them has to be read twice.
const UNNAMED: [&str; 5] = ["whoever", "somebody", "whatever", "everybody", "anybody"];

/// The files that administrators copy, with the pages and scripts beside them.
fn files_below(directory: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(Path::new(ROOT).join(directory)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{directory}/{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files_below(&name, found);
        } else {
            found.push(name);
        }
    }
}

#[test]
fn sentences_name_their_subjects() {
    let mut files = ["README.md", "inetd.conf.example"]
        .map(str::to_owned)
        .to_vec();
    files_below("scripts", &mut files);
    assert!(files.len() > 40, "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let text = shipped(&file).to_lowercase();
        for word in text.split(|c: char| !c.is_alphabetic()) {
            if UNNAMED.contains(&word) {
                wrong.push(format!("{file}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Stand in a log line of the README for words that differ.
const STAND_INS: [&str; 5] = ["NAME", "ADDRESS", "CLIENT", "N", "..."];

#[test]
fn every_log_line_of_the_readme_is_one_of_the_program() {
    let mut files = Vec::new();
    files_below("src", &mut files);
    files_below("tests/dialogue", &mut files);
    let sources: String = files.iter().map(|file| shipped(file)).collect();
    let mut count = 0;
    for row in &table(&shipped("README.md"), "the log says")[2..] {
        for line in row[0].split('`').skip(1).step_by(2) {
            let words = line.split(|c: char| " []:".contains(c));
            let mut rest = line;
            for word in words.filter(|word| STAND_INS.contains(word)) {
                let (part, after) = rest.split_once(word).unwrap();
                is_in_the_sources(part, &sources, line);
                rest = after;
            }
            is_in_the_sources(rest, &sources, line);
            count += 1;
        }
    }
    assert!(count > 8, "{count} lines");
}

fn is_in_the_sources(part: &str, sources: &str, line: &str) {
    let part = part.trim_matches(|c: char| " []:".contains(c));
    assert!(sources.contains(part), "{line}: {part:?}");
}

/// The exit status of our program with these arguments and this list.
fn status(list: &str, arguments: &[&str]) -> i32 {
    let list = format!("qmqpd_authorized_clients = {list}");
    let conf = [list, "qmqpd_log_stderr = yes".to_owned()];
    let instance = Instance::new(&conf);
    let mut ours = Command::new(env!("CARGO_BIN_EXE_qmqpd"));
    ours.env("MAIL_CONFIG", instance.config_directory());
    let output = output(ours.args(arguments));
    output.status.code().unwrap()
}

#[test]
fn the_exit_statuses_of_the_readme_are_those_of_the_commands() {
    let rows = table(&shipped("README.md"), "command");
    let statuses = |command: &str| {
        let row = rows
            .iter()
            .find(|row| row[0].starts_with(&format!("`qmqpd {command}")));
        row.unwrap()[2].clone()
    };
    let (listed, table) = ("192.0.2.17", "cdb:/no/table");
    let explain = |list, address| status(list, &["--explain", address, "mail.client.example"]);
    assert_eq!(
        statuses("--explain"),
        format!(
            "{} yes, {} no, {} cannot tell, {} no address",
            explain(listed, "192.0.2.17"),
            explain(listed, "192.0.2.18"),
            explain(table, "192.0.2.17"),
            explain(listed, "mail.client.example"),
        )
    );
    let check = |list| status(list, &["--check", "--configuration"]);
    assert_eq!(
        statuses("--check"),
        format!("{}; {} with an error", check(listed), check(table))
    );
    let unreadable = status(listed, &["--cat", "/no/file"]);
    assert_eq!(statuses("--cat"), format!("0; {unreadable} unreadable"));
}
