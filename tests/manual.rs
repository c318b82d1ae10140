//! The manual page: rendered without a warning, and complete where that can be seen from the program.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use harness::instance::Instance;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/qmqpd.8");

/// What a formatter says on standard error, with its output where `all` asks for it. `None` where it is not installed.
fn formatted(test: &str, program: &str, arguments: &[&str]) -> Option<(String, String)> {
    let output = Command::new(program)
        .args(arguments)
        .arg(PAGE)
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8")
        .output();
    match output {
        Ok(output) => Some((
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            harness::skip(test, &format!("{program} is not installed"));
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[test]
fn man_renders_the_page_without_a_warning() {
    let arguments = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"];
    if let Some((_, warnings)) = formatted("man_renders_the_page", "man", &arguments) {
        assert_eq!(warnings, "");
    }
}

#[test]
fn mandoc_finds_nothing_to_complain_about() {
    if let Some((complaints, errors)) = formatted("mandoc_finds_nothing", "mandoc", &["-Tlint"]) {
        assert_eq!((complaints.as_str(), errors.as_str()), ("", ""));
    }
}

/// The formatters, and the page as each shows it on a terminal of 80 columns, without its backspaces.
fn rendered(test: &str) -> Vec<(&'static str, String)> {
    let formatters: [(&str, &[&str]); 2] = [
        ("man", &["-E", "UTF-8", "-l"]),
        ("mandoc", &["-Tutf8", "-Owidth=80"]),
    ];
    let rendered = formatters.into_iter().filter_map(|(program, arguments)| {
        let (page, _) = formatted(test, program, arguments)?;
        let mut plain = String::new();
        for c in page.chars() {
            match c {
                '\u{8}' => drop(plain.pop()),
                c => plain.push(c),
            }
        }
        Some((program, plain))
    });
    rendered.collect()
}

#[test]
fn every_line_of_the_page_fits_a_terminal() {
    for (program, page) in rendered("every_line_of_the_page_fits") {
        let mut count = 0;
        for line in page.lines() {
            count += 1;
            assert!(line.chars().count() <= 80, "{program}: {line}");
        }
        assert!(count > 1000, "only {count} lines of {program}");
    }
}

/// A name that is cut at the end of a line cannot be searched for, and cannot be copied.
#[test]
fn no_word_of_the_page_is_hyphenated() {
    for (program, page) in rendered("no_word_of_the_page_is_hyphenated") {
        let cut = page.lines().find(|line| line.ends_with('\u{2010}'));
        let names = page.matches("qmqpd_authorized_clients").count();
        assert!(names > 5, "{program}: only {names}");
        // A hyphen that the text has (UNIX-domain) may end a line.
        let whole = cut.is_none_or(|line| text().contains(&last_word(line)));
        assert!(whole, "{program}: {cut:?}");
    }
}

fn last_word(line: &str) -> String {
    let word = line.split_whitespace().next_back().unwrap_or_default();
    word.replace('\u{2010}', "-")
}

/// What was once said and was not so.
const FALSE: [&str; 10] = [
    "every reply and every log line",
    "ten times as fast",
    "replies are qmail's",
    "words of qmail's own server",
    "40 of 100",
    "whatever fails before leaves no file",
    "is repeated in a warning",
    "names file, line and parameter",
    "reads master.cf",
    "64 if",
];

#[test]
fn what_was_found_to_be_false_has_not_come_back() {
    let help = Command::new(env!("CARGO_BIN_EXE_qmqpd"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let page = plain(&text());
    assert!(page.contains("qmqpd receives one mail message"), "{page}");
    for text in [page, plain(&help)] {
        let text = text.replace("--check reads it", "").to_lowercase();
        for statement in FALSE {
            assert!(!text.contains(statement), "{statement}");
        }
    }
}

/// The page as one line of plain text, without its macros.
fn text() -> String {
    let page = fs::read_to_string(PAGE).unwrap();
    let words = page
        .replace("\\-", "-")
        .replace("\\(dq", "\"")
        .replace("\\fR,\\fP", "");
    let lines = words.lines().map(|line| match line.split_once(' ') {
        Some((name, rest)) if name.starts_with('.') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join(" ")
}

fn source(name: &str) -> String {
    fs::read_to_string(format!("{}/src/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn every_reply_is_explained() {
    let text = text();
    let source = source("session/answer.rs");
    let replies: Vec<&str> = source
        .split('"')
        .skip(1)
        .step_by(2)
        .filter_map(|literal| literal.strip_prefix("Error: "))
        .collect();
    assert!(replies.len() > 9, "only {replies:?}: is the scan broken?");
    for reply in replies {
        // What stands in braces is the message's or the client's.
        for part in reply.split(['{', '}', '\\']).step_by(2).map(str::trim) {
            assert!(text.contains(part), "not in the manual: {part}");
        }
    }
}

/// What stands before the text of a line or a reply.
const BEFORE_A_TEXT: [&str; 17] = [
    "log::info!(",
    "log::warning!(",
    "log::error!(",
    "log::fatal!(",
    "write!(",
    "f.write_str(",
    "Fatal::Text(",
    "Note::Warning(",
    "Note::Error(",
    "Problem::from(",
    "Reply::accepted(",
    "Reply::try_later(",
    "Reply::refused(",
    "Reply::try_later_with(",
    "Reply::refused_with(",
    "Verdict::Refused(",
    "Verdict::Failed(",
];

/// The literal behind such words, if one is there.
fn literal(after: &str) -> Option<String> {
    let mut rest = after.trim_start();
    for word in ["f,", "&", "format!("] {
        rest = rest.strip_prefix(word).unwrap_or(rest).trim_start();
    }
    let mut text = String::new();
    let mut escaped = false;
    for c in rest.strip_prefix('"')?.chars() {
        match c {
            '"' if !escaped => return Some(text),
            '\\' if !escaped => escaped = true,
            // A line end in the source, or in the text.
            'n' | '\n' if escaped => escaped = false,
            c => {
                escaped = false;
                text.push(c);
            }
        }
    }
    None
}

/// The source files whose texts reach the log or the client, without their tests.
fn sources(directory: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path().display().to_string();
        let is_dir = fs::metadata(&path).unwrap().is_dir();
        // Commands write to people and not to the log; escape.rs is for tests.
        let others = ["/command", "/tests", "tests.rs", "escape.rs"];
        if others.iter().any(|part| path.ends_with(part)) {
            continue;
        }
        if is_dir {
            sources(&path, found);
        } else if path.ends_with(".rs") {
            let source = fs::read_to_string(&path).unwrap();
            let program = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
            found.push((path, program.to_owned()));
        }
    }
}

/// Without quotes, and with one blank where there are several.
fn plain(text: &str) -> String {
    let text = text.replace('"', " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_log_line_and_every_reply_is_listed() {
    let page = plain(&text());
    let mut files = Vec::new();
    sources(concat!(env!("CARGO_MANIFEST_DIR"), "/src"), &mut files);
    let mut count = 0;
    let mut missing = Vec::new();
    for (path, source) in files {
        let texts = BEFORE_A_TEXT
            .iter()
            .flat_map(|word| source.split(word).skip(1))
            .filter_map(literal);
        for text in texts {
            count += 1;
            if text.starts_with("escape: ") {
                continue;
            }
            // What stands in braces differs.
            let constant = text.split('{').map(|part| part.rsplit('}').next().unwrap());
            for part in constant.map(|part| plain(part.trim_matches([' ', ':']))) {
                if part.len() > 3
                    && part != "Regex"
                    && !part.starts_with("escape")
                    && !page.contains(&part)
                {
                    missing.push(format!("{path}: {text}: {part}"));
                }
            }
        }
    }
    assert!(count > 100, "only {count}: is the scan broken?");
    assert_eq!(missing, [""; 0]);
}

/// The lines of the list "All log lines". Each is an item; a long one goes on in the next lines of the page.
fn listed_lines() -> Vec<String> {
    let page = fs::read_to_string(PAGE).unwrap();
    let page = page.replace("\\-", "-").replace("\\(dq", "\"");
    let (_, list) = page.split_once(".SS \"All log lines\"\n").unwrap();
    let (list, _) = list.split_once("\n.SS ").unwrap();
    let items = list.split(".IP \\(bu 2\n").skip(1);
    let line = |item: &str| {
        let text = item.lines().take_while(|line| !line.starts_with('.'));
        text.collect::<Vec<_>>().join(" ")
    };
    items.map(line).collect()
}

/// The other way round: a line that the program no longer has is not left in the list.
#[test]
fn every_listed_log_line_is_one_of_the_program() {
    let mut files = Vec::new();
    sources(concat!(env!("CARGO_MANIFEST_DIR"), "/src"), &mut files);
    // A start on a terminal is logged as well.
    files.push((String::new(), source("command/help.rs")));
    let program: String = files.into_iter().map(|(_, source)| source).collect();
    let program = program.replace("\\n", " ").replace('\\', "");
    let program = plain(&program.replace("{{", "{").replace("}}", "}"));
    let is_placeholder = |word: &&str| {
        let start = word.trim_start_matches(|c: char| !c.is_alphanumeric());
        let first = start.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        !first.is_empty() && first.bytes().all(|b| b.is_ascii_uppercase()) && first != "NOQUEUE"
    };
    let lines = listed_lines();
    for line in &lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        for part in words.split(is_placeholder) {
            let part = plain(&part.join(" "));
            let level = ["warning:", "error:", "fatal:"]
                .into_iter()
                .find_map(|level| part.strip_prefix(level));
            let part = level.unwrap_or(&part).trim_end_matches(" while").trim();
            if part.len() > 12 && !part.contains(['=', '[', '(', '{']) {
                assert!(program.contains(part), "not in the program: {part}: {line}");
            }
        }
    }
    let count = lines.len();
    assert!(count > 120, "only {count}: is the scan broken?");
}

/// The types of tables that the program reads itself: where it is told which they are, before all others, which are
/// postmap's.
fn types_of_tables() -> Vec<String> {
    let source = source("lookup/tables.rs");
    let (_, arms) = source.split_once("match kind {").unwrap();
    let (arms, _) = arms.split_once("_ => ").unwrap();
    let types = arms.lines().filter_map(|line| {
        let (name, _) = line.trim().strip_prefix('"')?.split_once("\" => ")?;
        Some(name.to_owned())
    });
    types.collect()
}

#[test]
fn every_type_of_table_that_is_read_here_is_named() {
    let text = text();
    let (_, text) = text.split_once(" \"Lookup tables\" ").unwrap();
    let (text, _) = text.split_once(" reads the table, if ").unwrap();
    let named: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    let types = types_of_tables();
    assert!(types.len() > 7, "only {types:?}: is the scan broken?");
    for name in types {
        assert!(named.contains(&name.as_str()), "not in the manual: {name}");
    }
}

#[test]
fn every_option_is_explained() {
    let text = text();
    let source = source("options.rs");
    let (_, grammar) = source.split_once("fn grammar()").unwrap();
    let (grammar, _) = grammar.split_once("\n}\n").unwrap();
    let names: Vec<&str> = grammar
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.len() > 18, "only {names:?}: is the scan broken?");
    let help = Command::new(env!("CARGO_BIN_EXE_qmqpd"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for name in names {
        let option = if name.len() == 1 {
            format!("-{name}")
        } else {
            format!("--{name}")
        };
        assert!(text.contains(&option), "not in the manual: {option}");
        if name.len() > 1 {
            assert!(help.contains(&option), "not in --help: {option}");
        }
    }
}

#[test]
fn the_line_that_removes_unfinished_files_removes_no_mail() {
    let page = fs::read_to_string(PAGE).unwrap().replace("\\-", "-");
    let incoming = "/var/spool/postfix/incoming";
    let is_it = |line: &&str| line.starts_with(&format!("find {incoming} "));
    let line = page.lines().find(is_it).unwrap();
    // The default of daemon_timeout, which the page has too, and a day.
    assert!(page.contains(".BR daemon_timeout \" (time, default: 18000s)\""));
    let minutes = 18_000 / 60 + 24 * 60;
    assert!(line.contains(&format!(" -mmin +{minutes} ")), "{line}");
    let instance = Instance::new(&[]);
    let own = instance.queue_directory().join("incoming");
    let own = own.display().to_string();
    fs::create_dir(format!("{own}/A")).unwrap();
    for (name, mode, age, stays) in [
        ("ABCDEF01234", 0o600, minutes + 2, false),
        ("A/ABCDEF01235", 0o600, minutes + 2, false),
        ("123456.789", 0o600, minutes + 2, false),
        ("ABCDEF01236", 0o600, minutes - 2, true),
        ("ABCDEF01237", 0o700, minutes * 10, true),
        ("A/ABCDEF01238", 0o700, minutes * 10, true),
    ] {
        let path = format!("{own}/{name}");
        let file = File::create(&path).unwrap();
        file.set_permissions(PermissionsExt::from_mode(mode))
            .unwrap();
        let age = Duration::from_secs(60 * age);
        file.set_modified(SystemTime::now() - age).unwrap();
        let line = line.replace(incoming, &own);
        let status = Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(status.success(), "{line}");
        assert_eq!(fs::exists(&path).unwrap(), stays, "{name}");
    }
}

/// The exit status of a command line, and its standard output and error together. Standard input ends at once.
fn result(instance: &Instance, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_qmqpd"))
        .env_clear()
        .env("MAIL_CONFIG", instance.config_directory())
        .args(arguments)
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

/// The section "Exit status", row by row.
#[test]
fn the_exit_statuses_are_those_of_the_page() {
    let list = "qmqpd_authorized_clients = 192.0.2.1, fail:x";
    let settings = [list, "qmqpd_peername_lookup = no", "qmqpd_log_stderr = yes"];
    let instance = Instance::new(&settings.map(str::to_owned));
    let no_file = instance.dir.join("none").display().to_string();
    for (arguments, status) in [
        // A client that leaves at once is served.
        (&["-S"][..], 0),
        (&["--help"], 0),
        (&["-h"], 0),
        (&["--version"], 0),
        (&["--explain", "192.0.2.1"], 0),
        (
            &["-o", "qmqpd_authorized_clients=", "--explain", "192.0.2.1"],
            1,
        ),
        (&["--cat", &no_file], 1),
        (&["-S", "-x"], 1),
        (&["-S", "-o", "qmqpd_timeout=1y"], 1),
        (&["--accept", "-t", "inet"], 1),
        (&["--accept", "-S"], 1),
        (&["--accept"], 1),
        (&["--explain"], 64),
        (&["--explain", "a.example"], 64),
        (&["--explain", "192.0.2.1", "a.example", "-o", "a=b"], 64),
        (&["--cat"], 64),
        (&["--check", "x"], 64),
        (&["--explain", "192.0.2.2"], 78),
        (&["--explain", "192.0.2.2", "a.example", "192.0.2.1"], 78),
        (
            &["-o", "message_size_limit=x", "--check", "--configuration"],
            78,
        ),
    ] {
        let (code, text) = result(&instance, arguments);
        assert_eq!(code, Some(status), "{arguments:?}: {text}");
    }
}

#[test]
fn options_set_what_the_page_says() {
    let settings = ["qmqpd_log_stderr = yes"];
    let instance = Instance::new(&settings.map(str::to_owned));
    let tag = "syslog_name=a/$service_name";
    for (arguments, expected) in [
        (&["-S", "-n", "b", "-o", tag][..], "a/b/qmqpd["),
        (&["-S", "-o", tag], "a/qmqpd/qmqpd["),
        // Of two values the last one counts.
        (
            &["-S", "-o", "syslog_name=x", "-o", "syslog_name=y"],
            "y/qmqpd[",
        ),
        (
            &["-i", "1y", "--check", "--configuration"],
            "max_idle: bad time value or unit: 1y",
        ),
        (&["--accept", "-t", "inet"], "--accept excludes -t"),
        (&["--accept", "-S"], "--accept excludes -S"),
        (
            &["-S", "-D", "-u", "-z", "-d", "-r", "1"],
            "disconnect from localhost[127.0.0.1]",
        ),
    ] {
        let (_, text) = result(&instance, arguments);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}
