//! Tests of the file, of its lines, and of `-o`.
//!
//! They follow `tests/spec/main-cf.md`, sections 1, 2 and 4.

use std::fs;
use std::time::{Duration, SystemTime};

use super::super::main_cf::read_settled;
use super::*;

/// Warnings, and the error if there is one, of loading this main.cf.
fn said(main_cf: impl AsRef<[u8]>) -> Vec<String> {
    let directory = directory_with(main_cf);
    let mut said = Vec::new();
    match directory.load(&[]) {
        Ok(config) => said.extend(config.take_warnings()),
        Err(error) => {
            said.extend(error.warnings().iter().cloned());
            said.push(error.to_string());
        }
    }
    said.iter().map(|line| directory.anonymous(line)).collect()
}

#[test]
fn lines_that_set_nothing_end_the_reading() {
    let comments = "# 1\n# 2\n# 3\n# 4\n# 5\n";
    let fatal = |line: &str| said(format!("{comments}{line}\n")).join("|");
    assert_eq!(
        fatal("foo"),
        "DIR/main.cf, line 6: missing '=' after attribute name: \"foo\""
    );
    assert_eq!(
        fatal("foo bar\n  baz"),
        "DIR/main.cf, line 6: missing '=' after attribute name: \"foo bar  baz\""
    );
    assert_eq!(
        fatal("= bar"),
        "DIR/main.cf, line 6: missing attribute name: \"= bar\""
    );
    assert_eq!(
        fatal("foo   "),
        "DIR/main.cf, line 6: missing '=' after attribute name: \"foo   \""
    );
    assert_eq!(
        fatal("\0x = 1").rsplit('|').next(),
        Some("DIR/main.cf, line 6: missing attribute name: \"\"")
    );
    assert_eq!(
        fatal("fo\0o = ab"),
        "DIR/main.cf, line 6: text after null byte may be ignored|\
         DIR/main.cf, line 6: missing '=' after attribute name: \"fo\""
    );
}

#[test]
fn an_indented_line_at_the_top_is_warned_of_and_left_out() {
    assert_eq!(
        said("  foo = 1\nbar = 2\n"),
        ["DIR/main.cf: logical line must not start with whitespace: \"  foo = 1\""]
    );
    assert_eq!(
        said(" foo = 123456789012345678901234567890\n"),
        [
            "DIR/main.cf: logical line must not start with whitespace: \" foo = 12345678901234567890123...\""
        ]
    );
}

#[test]
fn the_last_of_two_lines_wins_with_a_warning_if_they_differ() {
    let main_cf = "qmqpd_timeout = 1s\nqmqpd_timeout = 2s\n";
    assert_eq!(
        said(main_cf),
        ["DIR/main.cf, line 2: overriding earlier entry: qmqpd_timeout=1s"]
    );
    assert_eq!(config(main_cf).qmqpd_timeout(), Ok(Duration::from_secs(2)));
    assert_eq!(said("a = 1\na=1\n"), [""; 0]);
}

#[test]
fn a_warning_is_given_out_once() {
    let config = config("a = 1\na = 2\n");
    assert_eq!(config.take_warnings().len(), 1);
    assert_eq!(config.take_warnings(), [""; 0]);
}

#[test]
fn a_value_ends_at_a_nul() {
    let directory = directory_with(b"undisclosed_recipients_header = a\0b\n  c\n");
    let config = directory.load(&[]).unwrap();
    assert_eq!(config.undisclosed_recipients_header().as_deref(), Ok("a"));
    let warnings = config.take_warnings().join("");
    assert_eq!(
        directory.anonymous(&warnings),
        "DIR/main.cf, line 1-2: text after null byte may be ignored"
    );
}

#[test]
fn whitespace_around_names_and_values_goes_and_bytes_stay() {
    let directory = directory_with(b"content_filter  \t=\t caf\xe9 \xff\x01 x\r\n");
    let config = directory.load(&[]).unwrap();
    assert_eq!(
        config.content_filter().as_deref(),
        Ok(&b"caf\xe9 \xff\x01 x"[..])
    );
}

#[test]
fn text_that_is_not_utf8_is_replaced() {
    let directory = directory_with(b"undisclosed_recipients_header = caf\xe9\n");
    let config = directory.load(&[]).unwrap();
    assert_eq!(
        config.undisclosed_recipients_header().as_deref(),
        Ok("caf\u{fffd}")
    );
}

#[test]
fn an_empty_value_is_set_and_an_empty_file_sets_nothing() {
    let config = config("debug_peer_list =\n");
    assert!(config.as_set("debug_peer_list").is_some());
    assert!(config.as_set("content_filter").is_none());
    assert_eq!(said(""), [""; 0]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = directory_with("");
    fs::remove_file(directory.main_cf()).unwrap();
    let missing = directory.load(&[]).unwrap_err().to_string();
    assert_eq!(
        directory.anonymous(&missing),
        "open DIR/main.cf: No such file or directory"
    );
    fs::create_dir(directory.main_cf()).unwrap();
    let unreadable = directory.load(&[]).unwrap_err().to_string();
    assert_eq!(
        directory.anonymous(&unreadable),
        "read DIR/main.cf: Is a directory"
    );
}

#[test]
fn a_directory_that_is_empty_text_means_the_root() {
    let main_cf = super::super::main_cf_in(Path::new(""));
    assert_eq!(main_cf, Path::new("/main.cf"));
}

#[test]
fn an_override_takes_the_place_of_the_file_and_the_last_one_wins() {
    let directory = directory_with("undisclosed_recipients_header = file\nx = X\n");
    let config = directory
        .load(&[
            "undisclosed_recipients_header=one",
            " undisclosed_recipients_header = two = $x ",
        ])
        .unwrap();
    assert_eq!(
        config.undisclosed_recipients_header().as_deref(),
        Ok("two = X")
    );
    assert_eq!(config.take_warnings(), [""; 0]);
}

#[test]
fn overrides_that_set_nothing_are_refused() {
    let refused = |argument: &str| {
        Override::parse(argument.as_bytes())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("foo"),
        "invalid \"-o foo\" option value: missing '=' after attribute name"
    );
    assert_eq!(
        refused("=foo"),
        "invalid \"-o =foo\" option value: missing attribute name"
    );
    let braces = Override::parse(b"{foo = bar}").unwrap();
    assert_eq!(braces, Override::new(b"{foo", b"bar}"));
}

#[test]
fn a_file_that_was_just_changed_is_read_again() {
    let mut times = vec![
        SystemTime::now() - Duration::from_secs(60),
        SystemTime::now() + Duration::from_secs(60),
    ];
    for settled in times.drain(..) {
        let mut readings = 0;
        let result = read_settled(|| {
            readings += 1;
            let changed = if readings == 1 {
                SystemTime::now()
            } else {
                settled
            };
            Ok::<_, ()>((vec![readings], changed))
        });
        assert_eq!(result, Ok(vec![2]));
    }
}

#[test]
fn a_file_that_never_rests_is_used_in_the_end() {
    let mut readings = 0;
    let result = read_settled(|| {
        readings += 1;
        Ok::<_, ()>((vec![readings], SystemTime::now()))
    });
    assert_eq!(result, Ok(vec![10]));
}
