//! `qmqpd --cat FILE`: what a queue file holds, ours or Postfix's, for machines that have no postcat(1).
//!
//! The form is postcat's, byte for byte. Authority: `tests/spec/queue-file.md`, section 3.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::exit::{EX_FATAL, EX_OK};
use crate::log;
use crate::sys::time::{self, Moment};
use crate::wire::record;

use super::help::tell;

/// Shows the queue file at `path`, and answers whether that worked.
pub fn run(path: &Path) -> u8 {
    time::init();
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = std::fs::read(path)
        .and_then(|file| cat(path, &file, &mut out))
        .and_then(|whole| out.flush().map(|()| whole));
    let problem = match shown {
        Ok(true) => return EX_OK,
        Ok(false) => "unexpected end of file".to_owned(),
        Err(error) => log::error_text(&error),
    };
    tell(&format!("qmqpd: fatal: {}: {problem}\n", path.display()));
    EX_FATAL
}

/// Writes the file's records to `out`. False where they end early: what is there has been written.
///
/// A record is read once, whichever pointers lead to it; those of a damaged file may lead back for ever.
pub fn cat(path: &Path, file: &[u8], out: &mut impl Write) -> io::Result<bool> {
    let name = path.display();
    writeln!(out, "*** ENVELOPE RECORDS {name} ***")?;
    let mut rest = file;
    let mut in_content = false;
    let mut unread = file.len();
    while let Some((kind, data, after)) = record::get(rest) {
        let Some(left) = unread.checked_sub(rest.len() - after.len()) else {
            return Ok(false);
        };
        unread = left;
        rest = after;
        match kind {
            b'p' => match number(data) {
                Some(0) => {}
                target => rest = target.and_then(|at| file.get(at..)).unwrap_or_default(),
            },
            b'w' => {}
            b'M' => {
                in_content = true;
                writeln!(out, "*** MESSAGE CONTENTS {name} ***")?;
            }
            b'X' => {
                in_content = false;
                writeln!(out, "*** HEADER EXTRACTED {name} ***")?;
            }
            b'E' => {
                writeln!(out, "*** MESSAGE FILE END {name} ***")?;
                return Ok(true);
            }
            b'N' if in_content => write_line(out, &[data])?,
            b'L' if in_content => out.write_all(data)?,
            _ => write_record(out, kind, data)?,
        }
    }
    Ok(false)
}

fn write_record(out: &mut impl Write, kind: u8, data: &[u8]) -> io::Result<()> {
    if let (b'A', Some(time)) = (kind, data.strip_prefix(b"create_time=")) {
        return write_time(out, "create_time", time);
    }
    match name(kind) {
        Some(
            name @ ("message_arrival_time" | "queue_file_create_time" | "warning_message_time"),
        ) => write_time(out, name, data),
        Some(name) => write_line(out, &[name.as_bytes(), b": ", data]),
        None => write_line(out, &[b"unknown record type ", &[kind], b": ", data]),
    }
}

/// As ctime(3) has it: `Sun Nov 22 13:50:19 2026`. What is no time is shown as it is.
fn write_time(out: &mut impl Write, name: &str, data: &[u8]) -> io::Result<()> {
    let secs = data
        .trim_ascii()
        .split(|&b| b == b' ')
        .next()
        .unwrap_or(b"");
    let Some(secs) = number(secs).and_then(|secs| i64::try_from(secs).ok()) else {
        return write_line(out, &[name.as_bytes(), b": ", data]);
    };
    let at = Moment { secs, usecs: 0 }.local();
    let weekday = time::WEEKDAYS.get(at.weekday).unwrap_or(&"Sun");
    let month = time::MONTHS.get(at.month).unwrap_or(&"Jan");
    writeln!(
        out,
        "{name}: {weekday} {month} {:>2} {:02}:{:02}:{:02} {}",
        at.day, at.hour, at.minute, at.second, at.year
    )
}

fn write_line(out: &mut impl Write, pieces: &[&[u8]]) -> io::Result<()> {
    for piece in pieces {
        out.write_all(piece)?;
    }
    out.write_all(b"\n")
}

fn number(data: &[u8]) -> Option<usize> {
    std::str::from_utf8(data).ok()?.trim().parse().ok()
}

/// What postcat(1) calls a record outside the content.
fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        b'C' => "message_size",
        b'T' => "message_arrival_time",
        b'c' => "queue_file_create_time",
        b'F' => "sender_fullname",
        b'I' => "content_inspector",
        b'L' => "content_filter",
        b'S' => "sender",
        b'D' => "done_recipient",
        b'R' => "recipient",
        b'O' => "original_recipient",
        b'/' => "canceled_recipient",
        b'W' => "warning_message_time",
        b'A' => "named_attribute",
        b'K' => "killed_record",
        b'>' => "redirect_to",
        b'N' => "regular_text",
        b'r' => "return_receipt",
        b'e' => "errors_to",
        b'P' => "priority",
        b'V' => "verp_delimiters",
        b'<' => "dsn_return_flags",
        b'i' => "dsn_envelope_id",
        b'o' => "dsn_original_recipient",
        b'n' => "dsn_notify_flags",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(file: &[u8]) -> (String, bool) {
        let mut out = Vec::new();
        let whole = cat(Path::new("F"), file, &mut out).unwrap();
        (String::from_utf8_lossy(&out).into_owned(), whole)
    }

    #[test]
    fn lines_are_put_together_and_pointers_followed() {
        let (out, whole) = shown(b"S\x01sp\x0299R\x01xM\0L\x01aN\x01bX\0E\0");
        assert!(
            !whole && out == "*** ENVELOPE RECORDS F ***\nsender: s\n",
            "{out}"
        );
        let (out, whole) = shown(b"S\x01sp\x0210R\x01xM\0L\x01aN\x01bX\0E\0");
        let expected = "*** ENVELOPE RECORDS F ***\nsender: s\n*** MESSAGE CONTENTS F ***\nab\n\
                        *** HEADER EXTRACTED F ***\n*** MESSAGE FILE END F ***\n";
        assert_eq!((out.as_str(), whole), (expected, true));
    }

    #[test]
    fn a_pointer_to_itself_comes_to_an_end() {
        assert!(!shown(b"p\x010S\x01sp\x013").1);
        assert!(!shown(b"S\x01sp\x010p\x013").1);
    }

    /// Two kilobytes used to make 200 megabytes.
    #[test]
    fn a_pointer_back_shows_nothing_much_twice() {
        let mut file = b"w\0S\xc0\x0f".to_vec();
        file.extend([b'x'; 1984]);
        file.extend(b"p\x012");
        let (out, whole) = shown(&file);
        assert!(!whole && out.len() < 2 * file.len(), "{} bytes", out.len());
    }

    proptest! {
        #[test]
        fn any_file_is_shown(file: Vec<u8>) {
            prop_assert!(shown(&file).0.starts_with("*** ENVELOPE"));
        }
    }
}
