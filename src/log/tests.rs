//! Tests of the text of a message: printable, cut, in the form of its destination.
//!
//! They follow `tests/spec/logging.md`, sections 2 to 4.

use super::*;

#[test]
fn what_is_not_printable_becomes_question_marks() {
    for (text, utf8, expected) in [
        (
            "caf\u{e9} \u{20ac} \x01\x1b[1m tab\there\r\n\x7f",
            true,
            "caf\u{e9} \u{20ac} ??[1m tab?here???",
        ),
        ("caf\u{e9} \u{20ac}", false, "caf?? ???"),
        ("up to\0here", true, "up to"),
    ] {
        assert_eq!(printable(text, utf8), expected);
    }
}

#[test]
fn bytes_that_are_no_text_are_shown_one_by_one() {
    assert_eq!(
        Shown(b"caf\xc3\xa9 bad\xff\xc3").to_string(),
        "caf\u{e9} bad??"
    );
    assert_eq!(Shown(b"cut\0off").to_string(), "cut");
}

#[test]
fn a_text_is_cut_past_the_limit_and_not_at_it() {
    let at = "x".repeat(TEXT_LIMIT);
    assert_eq!(printable(&at, true), at);
    assert_eq!(printable(&(at.clone() + "y"), true), at);
    let wide = "\u{e9}".repeat(TEXT_LIMIT);
    assert_eq!(printable(&wide, true).len(), TEXT_LIMIT);
    assert_eq!(printable(&wide, false), "?".repeat(TEXT_LIMIT));
    let odd = format!("x{wide}");
    assert_eq!(
        printable(&odd, true).len(),
        TEXT_LIMIT - 1,
        "no half character"
    );
}

#[test]
fn a_syslog_line_has_priority_time_tag_and_process() {
    let line = Rfc3164 { facility: 19 }.line(Severity::LOG_CRIT, "foo/qmqpd", "fatal: x");
    let pid = std::process::id();
    assert!(line.starts_with("<154>"), "{line}");
    assert!(
        line.ends_with(&format!(" foo/qmqpd[{pid}]: fatal: x")),
        "{line}"
    );
    // `Nov 22 13:57:42`, the day padded with a blank.
    let time = &line["<154>".len()..][..15];
    assert!(time::MONTHS.contains(&&time[..3]), "{time}");
    assert_eq!(time.bytes().filter(|&b| b == b':').count(), 2, "{time}");
    assert!(!time[4..5].contains('0'), "{time}");
}

#[test]
fn a_postlog_line_has_time_host_tag_and_process() {
    let destination = Destination::Postlog {
        socket: PathBuf::new(),
        host: "mail".to_owned(),
    };
    let line = postlog_line(&destination, "postfix/qmqpd", "connect");
    let pid = std::process::id();
    assert!(
        line.ends_with(&format!(" mail postfix/qmqpd[{pid}]: connect")),
        "{line}"
    );
    assert!(line[4..6].bytes().all(|b| b.is_ascii_digit()), "{line}");
}

#[test]
fn system_errors_are_in_the_words_of_strerror() {
    assert_eq!(errno_text(Errno::ENOENT), "No such file or directory");
    assert_eq!(
        errno_text(Errno::ELOOP),
        "Too many levels of symbolic links"
    );
    assert_eq!(error_text(&io::Error::other("own words")), "own words");
}

#[test]
fn a_debug_line_below_its_level_costs_nothing() {
    let mut asked = 0;
    let mut ask = || {
        asked += 1;
        asked
    };
    debug!(u32::MAX, "{}", ask());
    assert_eq!(asked, 0);
}
