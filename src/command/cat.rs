//! `qmqpd --cat FILE`: prints a queue file of this program or of Postfix, for machines without postcat(1).
//!
//! The output is that of postcat(1), byte for byte. Follows `tests/spec/queue-file.md`, section 3.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::config::main_cf::split;
use crate::exit::{EX_FATAL, EX_OK};
use crate::log::{self, Shown};
use crate::sys::time::{self, Moment};
use crate::wire::record;

use super::help::tell;

/// Prints the queue file at `path`. Returns the exit status.
pub fn run(path: &Path) -> u8 {
    time::init();
    let mut out = BufWriter::new(io::stdout().lock());
    let warn = |text: &str| {
        let printable = text.replace(|c: char| c.is_ascii_control(), "?");
        tell(&format!("qmqpd: warning: {printable}\n"));
    };
    let shown = std::fs::read(path)
        .and_then(|file| cat(path, &file, &mut out, warn))
        .and_then(|whole| out.flush().map(|()| whole));
    let problem = match shown {
        Ok(true) => return EX_OK,
        Ok(false) => "unexpected end of file".to_owned(),
        Err(error) => log::error_text(&error),
    };
    tell(&format!("qmqpd: fatal: {}: {problem}\n", path.display()));
    EX_FATAL
}

/// Writes the file's records to `out`, and passes warnings about them to `warn`. Returns false if the records end
/// early; the records before that are written.
///
/// A record is read once, even if several pointers lead to it: the pointers of a damaged file may form a loop.
pub fn cat(
    path: &Path,
    file: &[u8],
    out: &mut impl Write,
    mut warn: impl FnMut(&str),
) -> io::Result<bool> {
    let name = path.display();
    writeln!(out, "*** ENVELOPE RECORDS {name} ***")?;
    let mut seen = Seen::default();
    let mut rest = file;
    let mut unread = file.len();
    while let Some((kind, data, after)) = record::get(rest) {
        let Some(left) = unread.checked_sub(rest.len() - after.len()) else {
            return Ok(false);
        };
        unread = left;
        rest = after;
        if let Some(problem) = seen.problem(kind, data) {
            let place = if kind == b'C' {
                String::new()
            } else {
                format!("{name}: ")
            };
            warn(&format!("{place}{problem}"));
        }
        match kind {
            b'p' => match target(data) {
                Some(0) => {}
                Some(at) => rest = file.get(at..).unwrap_or_default(),
                None => return Ok(false),
            },
            b'w' => {}
            b'M' => writeln!(out, "*** MESSAGE CONTENTS {name} ***")?,
            b'X' => {
                if seen.unfinished {
                    writeln!(out)?;
                }
                writeln!(out, "*** HEADER EXTRACTED {name} ***")?;
            }
            b'E' => {
                writeln!(out, "*** MESSAGE FILE END {name} ***")?;
                return Ok(true);
            }
            b'L' if seen.in_content => out.write_all(data)?,
            _ => write_record(out, kind, data)?,
        }
    }
    Ok(false)
}

/// What the next record depends on.
#[derive(Default)]
struct Seen {
    in_content: bool,
    has_size: bool,
    /// The last content written, apart from markers and sizes, is a line that continues in the next record.
    unfinished: bool,
}

impl Seen {
    /// Takes the next record, and returns the warning about it.
    fn problem(&mut self, kind: u8, data: &[u8]) -> Option<String> {
        let was_in_content = self.in_content;
        let has_size = self.has_size;
        match kind {
            b'p' | b'w' => {}
            b'C' => self.has_size = true,
            b'M' => self.in_content = true,
            b'X' => self.in_content = false,
            _ => self.unfinished = kind == b'L' && was_in_content,
        }
        let shown = Shown(text(data));
        match kind {
            b'p' if target(data).is_none() => {
                Some(format!("malformed pointer record value: {shown}"))
            }
            b'C' if has_size => Some("file contains multiple size records".to_owned()),
            b'C' if !is_size(data) => Some(format!("invalid size record: {shown}")),
            b'M' if was_in_content => Some("out-of-order message content marker".to_owned()),
            b'X' if !was_in_content => Some("out-of-order extracted segment marker".to_owned()),
            b'E' if was_in_content => Some("out-of-order message end marker".to_owned()),
            b'A' => split(text(data))
                .err()
                .map(|problem| format!("malformed attribute: {problem}: {shown}")),
            _ => None,
        }
    }
}

fn write_record(out: &mut impl Write, kind: u8, data: &[u8]) -> io::Result<()> {
    if kind == b'A' {
        return match split(text(data)) {
            Ok((b"create_time", time)) => write_time(out, "create_time", time),
            Ok((name, value)) => write_line(out, &[b"named_attribute: ", name, b"=", value]),
            Err(_) => Ok(()),
        };
    }
    match name(kind) {
        "regular_text" => write_line(out, &[data]),
        name @ "content_filter" => write_line(out, &[name.as_bytes(), b": ", data]),
        name @ ("message_arrival_time" | "warning_message_time") => write_time(out, name, data),
        name => write_line(out, &[name.as_bytes(), b": ", text(data)]),
    }
}

/// The text of a record, which ends at a NUL unless the record is content.
fn text(data: &[u8]) -> &[u8] {
    data.split(|&b| b == 0).next().unwrap_or_default()
}

/// The form of ctime(3): `Sun Nov 22 13:50:19 2026`. A value that is no time counts as the epoch.
fn write_time(out: &mut impl Write, name: &str, data: &[u8]) -> io::Result<()> {
    let secs = leading_number(data).map_or(0, |(secs, _)| secs);
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

/// Reads the number after leading blanks as strtol(3) does, and returns the rest too. A number out of range becomes the
/// largest or the smallest.
fn leading_number(data: &[u8]) -> Option<(i64, &[u8])> {
    let data = trim_start(data);
    let sign = usize::from(data.starts_with(b"-") || data.starts_with(b"+"));
    let digits = data.iter().skip(sign).take_while(|b| b.is_ascii_digit());
    let (number, rest) = data.split_at_checked(sign + digits.count())?;
    let (_, digits) = number.split_at_checked(sign)?;
    let largest = if number.starts_with(b"-") {
        i64::MIN
    } else {
        i64::MAX
    };
    let number = std::str::from_utf8(number).ok()?;
    (!digits.is_empty()).then(|| (number.parse().unwrap_or(largest), rest))
}

/// The offset that a pointer leads to; 0 means none.
fn target(data: &[u8]) -> Option<usize> {
    match trim_start(text(data)) {
        b"" => Some(0),
        digits if digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Whether the first two numbers can be the size and the offset of the content.
fn is_size(data: &[u8]) -> bool {
    let size = leading_number(text(data));
    let place = size.and_then(|(_, rest)| leading_number(rest));
    size.is_some_and(|(size, _)| size > 0) && place.is_some_and(|(place, _)| place > 0)
}

fn trim_start(data: &[u8]) -> &[u8] {
    let blanks = data.iter().take_while(|b| is_space(**b)).count();
    data.get(blanks..).unwrap_or_default()
}

/// isspace(3).
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// postcat(1)'s name of a record outside the content.
fn name(kind: u8) -> &'static str {
    match kind {
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
        _ => "unknown_record_type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(file: &[u8]) -> (String, bool) {
        let mut out = Vec::new();
        let whole = cat(Path::new("F"), file, &mut out, |_| {}).unwrap();
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

    /// A file of two kilobytes must not make 200 megabytes of output.
    #[test]
    fn a_pointer_back_shows_nothing_much_twice() {
        let mut file = b"w\0S\xc0\x0f".to_vec();
        file.extend([b'x'; 1984]);
        file.extend(b"p\x012");
        let (out, whole) = shown(&file);
        assert!(!whole && out.len() < 2 * file.len(), "{} bytes", out.len());
    }

    /// The texts of postcat(1) of Postfix 3.7 to 3.11: `tests/spec/queue-file.md`, section 10.
    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        for (records, warning) in [
            (
                &b"M\0M\0X\0E\0"[..],
                "F: out-of-order message content marker",
            ),
            (b"X\0E\0", "F: out-of-order extracted segment marker"),
            (b"M\0E\0", "F: out-of-order message end marker"),
            (
                b"A\x01aE\0",
                "F: malformed attribute: missing '=' after attribute name: a",
            ),
            (
                b"A\x02=aE\0",
                "F: malformed attribute: missing attribute name: =a",
            ),
            (b"C\x031 0E\0", "invalid size record: 1 0"),
            (b"C\x031 1C\x011E\0", "file contains multiple size records"),
            (b"p\x02-1E\0", "F: malformed pointer record value: -1"),
        ] {
            let mut warnings = Vec::new();
            let warn = |text: &str| warnings.push(text.to_owned());
            let whole = cat(Path::new("F"), records, &mut Vec::new(), warn).unwrap();
            assert_eq!(warnings, [warning]);
            assert_eq!(whole, !records.starts_with(b"p"), "{warning}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_shown(file: Vec<u8>) {
            prop_assert!(shown(&file).0.starts_with("*** ENVELOPE"));
        }
    }
}
