//! Edits the content on its way into a queue file: headers are read, dropped and added.
//!
//! Records come in as the client's lines and leave as the queue has them. Unlike Postfix's cleanup, addresses in
//! headers are not changed, no table checks the content, and the headers of the parts of a MIME message count as body
//! (`tests/spec/differences.md`, 30). Follows `tests/spec/queue-file.md`, section 6, and RFC 822.

use std::borrow::Cow;

use crate::log::{self, Shown};
use crate::wire::record::Type;

/// The largest number of headers that name the message and are logged. The others are counted.
const MESSAGE_ID_LIMIT: usize = 10;

/// The bytes of a rejected record that are logged.
const SHOWN_RECORD: usize = 200;

/// The bytes of a malformed header that are logged.
const SHOWN_HEADER: usize = 100;

/// What main.cf sets for content.
#[derive(Debug)]
pub struct HeaderSettings {
    pub message_drop_headers: Vec<String>,
    /// In bytes; a longer header is cut.
    pub header_size_limit: usize,
    pub hopcount_limit: usize,
    /// The longest record, in bytes.
    pub line_length_limit: usize,
    /// CR and LF inside a line become blanks.
    pub cleanup_replace_stray_cr_lf: bool,
    /// An accepted message has none of these bytes.
    pub message_reject_characters: Vec<u8>,
    /// These bytes are removed from every record.
    pub message_strip_characters: Vec<u8>,
    /// The header for messages without recipients in their headers; empty means none.
    pub undisclosed_recipients_header: String,
    /// Whether Content-Transfer-Encoding: is read.
    pub detect_8bit_encoding_header: bool,
    /// Whether TLS-Required: is read.
    pub tls_required_enable: bool,
    /// Whether text may be UTF-8.
    pub smtputf8_enable: bool,
}

/// The values of headers that are added if the message has none of that name.
pub struct Missing {
    /// `<...>`
    pub message_id: String,
    pub date: String,
    pub from: Vec<u8>,
}

/// The findings about a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The number of Received: headers.
    pub hops: usize,
    /// Whether a header has non-ASCII bytes. Dropped headers do not count; of the added headers From: counts.
    pub non_ascii: bool,
    /// Whether Content-Transfer-Encoding: declares 8-bit content.
    pub eight_bit: bool,
    /// Whether the message is to be delivered even if TLS fails (RFC 8689).
    pub tls_optional: bool,
    /// Whether a malformed TLS-Required: header was found.
    tls_malformed: bool,
    /// The `<...>` of the first Message-Id: header that has such a value.
    pub named: Option<Vec<u8>>,
    /// The beginning of a record with one of message_reject_characters.
    pub rejected: Option<Vec<u8>>,
    pub message_ids: MessageIds,
    date: bool,
    from: bool,
    message_id: bool,
    resent_date: bool,
    resent_from: bool,
    resent_message_id: bool,
    /// Whether there is a header of a resent message.
    resent: bool,
    /// Whether there is a header with recipients, of the message or of a resent message.
    recipients: bool,
}

/// The headers that name the message.
///
/// Unlike Postfix, which logs each of them: at most [`MESSAGE_ID_LIMIT`], because a message can have a million of them
/// (`tests/spec/differences.md`, 41).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MessageIds {
    /// `message-id=<...>`
    first: Vec<String>,
    more: u64,
}

impl MessageIds {
    fn add(&mut self, name: &str, value: &str) {
        if self.first.len() < MESSAGE_ID_LIMIT {
            self.first.push([name, "=", value].concat());
        } else {
            self.more += 1;
        }
    }

    /// The ends of the log lines.
    pub fn lines(self) -> impl Iterator<Item = String> {
        let more = self.more;
        let rest = (more > 0).then(|| format!("{more} more Message-Id: headers"));
        self.first.into_iter().chain(rest)
    }
}

/// The headers of a resent message.
const RESENT: [&str; 8] = [
    "resent-bcc",
    "resent-cc",
    "resent-date",
    "resent-from",
    "resent-message-id",
    "resent-reply-to",
    "resent-sender",
    "resent-to",
];

/// Headers that message_drop_headers does not remove, in Postfix neither.
const MIME: [&str; 6] = [
    "content-description",
    "content-disposition",
    "content-id",
    "content-transfer-encoding",
    "content-type",
    "mime-version",
];

/// The editor between the client's records and `put`.
pub struct Content<'a, P> {
    settings: &'a HeaderSettings,
    missing: Missing,
    put: P,
    /// The present header, its lines joined by LF. Empty before the first header and in the body.
    header: Vec<u8>,
    in_body: bool,
    /// Whether the last record continues in the next one.
    unfinished: bool,
    found: Found,
}

impl<'a, P: FnMut(Type, &[&[u8]])> Content<'a, P> {
    pub fn new(settings: &'a HeaderSettings, missing: Missing, put: P) -> Self {
        Content {
            settings,
            missing,
            put,
            header: Vec::new(),
            in_body: false,
            unfinished: false,
            found: Found::default(),
        }
    }

    /// Takes the next record, of type Norm or Cont.
    pub fn record(&mut self, kind: Type, data: &[u8]) {
        let settings = self.settings;
        let has_any = |data: &[u8], set: &[u8]| set.iter().any(|byte| data.contains(byte));
        let mut data = Cow::Borrowed(data);
        if settings.cleanup_replace_stray_cr_lf && has_any(&data, b"\r\n") {
            let stray = data.to_mut().iter_mut();
            stray
                .filter(|byte| matches!(byte, b'\r' | b'\n'))
                .for_each(|byte| *byte = b' ');
        }
        if has_any(&data, &settings.message_reject_characters) && self.found.rejected.is_none() {
            let shown = data.get(..SHOWN_RECORD).unwrap_or(&data);
            self.found.rejected = Some(shown.to_vec());
        }
        if has_any(&data, &settings.message_strip_characters) {
            let strip = &settings.message_strip_characters;
            data.to_mut().retain(|byte| !strip.contains(byte));
        }
        self.line(kind, &data);
    }

    /// Ends the content, and returns the findings.
    pub fn end(mut self) -> Found {
        if !self.in_body {
            self.end_headers();
        } else if self.unfinished {
            (self.put)(Type::Norm, &[]);
        }
        self.found
    }

    fn line(&mut self, kind: Type, data: &[u8]) {
        let unfinished = std::mem::replace(&mut self.unfinished, kind == Type::Cont);
        if self.in_body {
            (self.put)(kind, &[data]);
            return;
        }
        // A NUL ends the readable part of a header, but does not make a line empty.
        let text = data.split(|&b| b == 0).next().unwrap_or_default();
        if unfinished && !self.header.is_empty() {
            self.append(text);
        } else if !self.header.is_empty() && matches!(data.first(), Some(b' ' | b'\t')) {
            self.append(&[b"\n", text].concat());
        } else if let Some((name, value)) = header_name(text) {
            self.end_header();
            self.header = [name, b":", value].concat();
        } else {
            self.end_headers();
            if !data.is_empty() {
                (self.put)(Type::Norm, &[]);
            }
            (self.put)(kind, &[data]);
        }
    }

    /// Adds the whole record if there is room for a part of it: the header is read completely even if it is cut when it
    /// is written.
    fn append(&mut self, text: &[u8]) {
        if self.header.len() < self.settings.header_size_limit {
            self.header.extend_from_slice(text);
        }
    }

    /// Reads, drops or writes the complete header.
    fn end_header(&mut self) {
        let header = std::mem::take(&mut self.header);
        if header.is_empty() {
            return;
        }
        let (name, value) = header_name(&header).unwrap_or_default();
        let name_text = String::from_utf8_lossy(name).to_ascii_lowercase();
        self.note(&name_text, value);
        self.note_tls(&name_text, &header, value);
        if self.settings.drops(&name_text) {
            return;
        }
        self.found.non_ascii |= !header.is_ascii();
        self.put_header(self.settings.cut(&header));
    }

    fn note(&mut self, name: &str, value: &[u8]) {
        let found = &mut self.found;
        found.resent |= RESENT.contains(&name);
        match name {
            "received" => found.hops += 1,
            "date" => found.date = true,
            "from" => found.from = true,
            "to" | "cc" | "resent-cc" | "resent-to" => found.recipients = true,
            "resent-date" => found.resent_date = true,
            "resent-from" => found.resent_from = true,
            "message-id" => found.message_id = true,
            "resent-message-id" => found.resent_message_id = true,
            "content-transfer-encoding" if self.settings.detect_8bit_encoding_header => {
                // As in Postfix, the word does not count with a comment or a blank after it.
                let value = trim_start(value);
                found.eight_bit |=
                    value.eq_ignore_ascii_case(b"8bit") || value.eq_ignore_ascii_case(b"binary");
            }
            _ => {}
        }
        if name == "message-id" && found.named.is_none() {
            found.named = message_name(value, self.settings.smtputf8_enable);
        }
        if matches!(name, "message-id" | "resent-message-id") {
            let value = trim_start(value);
            let shown = value.get(..log::TEXT_LIMIT).unwrap_or(value);
            found.message_ids.add(name, &String::from_utf8_lossy(shown));
        }
    }

    /// Unlike Postfix, which logs each of them: one header that is malformed (`tests/spec/differences.md`, 41).
    fn note_tls(&mut self, name: &str, header: &[u8], value: &[u8]) {
        if name != "tls-required" || !self.settings.tls_required_enable {
            return;
        }
        if trim_start(value).eq_ignore_ascii_case(b"no") {
            self.found.tls_optional = true;
        } else if !std::mem::replace(&mut self.found.tls_malformed, true) {
            let shown = Shown(header.get(..SHOWN_HEADER).unwrap_or(header));
            log::warning!("ignoring malformed header: '{shown}'");
        }
    }

    /// Ends the headers, and adds missing ones.
    ///
    /// Any header of a resent message marks the message as resent, also a Bcc: header that is dropped.
    fn end_headers(&mut self) {
        self.end_header();
        self.in_body = true;
        let found = &self.found;
        let (prefix, message_id, date, from) = if found.resent {
            (
                "Resent-",
                found.resent_message_id,
                found.resent_date,
                found.resent_from,
            )
        } else {
            ("", found.message_id, found.date, found.from)
        };
        if !message_id {
            let id = std::mem::take(&mut self.missing.message_id);
            self.put_header(format!("{prefix}Message-Id: {id}").as_bytes());
            let name = if self.found.resent {
                "resent-message-id"
            } else {
                "message-id"
            };
            self.found.message_ids.add(name, &id);
            if !self.found.resent {
                self.found.named = Some(id.into_bytes());
            }
        }
        if !date {
            self.put_header(format!("{prefix}Date: {}", self.missing.date).as_bytes());
        }
        if !from {
            let text = [prefix.as_bytes(), b"From: ", &self.missing.from].concat();
            self.found.non_ascii |= !text.is_ascii();
            self.put_header(&text);
        }
        if !self.found.recipients {
            self.put_undisclosed();
        }
        if prefix == "Resent-" && !self.found.message_id {
            self.found.message_ids.add("message-id", "<>");
        }
    }

    fn put_undisclosed(&mut self) {
        let settings = self.settings;
        let header = &settings.undisclosed_recipients_header;
        if header_name(header.as_bytes()).is_some() {
            self.put_header(header.as_bytes());
        } else if !header.is_empty() {
            log::warning!(
                "bad undisclosed_recipients_header header text \"{header}\" -- need \"headername: headervalue\""
            );
        }
    }

    /// Writes a header line by line. A line longer than a record continues in the next record.
    fn put_header(&mut self, header: &[u8]) {
        for line in header.split(|&b| b == b'\n') {
            // An empty line, which the limit can leave of a longer one, would end the headers.
            let mut pieces = line.chunks(self.settings.line_length_limit).peekable();
            while let Some(piece) = pieces.next() {
                let last = pieces.peek().is_none();
                let kind = if last { Type::Norm } else { Type::Cont };
                (self.put)(kind, &[piece]);
            }
        }
    }
}

impl HeaderSettings {
    /// The part of a header that the limit leaves: whole lines, or a part of a line that is longer than a tenth of the
    /// limit.
    fn cut<'h>(&self, header: &'h [u8]) -> &'h [u8] {
        let limit = self.header_size_limit;
        let Some((fits, _)) = header
            .split_at_checked(limit)
            .filter(|_| header.len() > limit)
        else {
            return header;
        };
        let least = limit.saturating_mul(9) / 10;
        let line_end = fits.iter().rposition(|&b| b == b'\n');
        let length = line_end.filter(|&end| end >= least).unwrap_or(limit);
        fits.get(..length).unwrap_or(fits)
    }

    fn drops(&self, name: &str) -> bool {
        let listed = |other: &String| other.eq_ignore_ascii_case(name);
        self.message_drop_headers.iter().any(listed) && !MIME.contains(&name)
    }
}

/// A header's value without leading blanks and line ends.
fn trim_start(value: &[u8]) -> &[u8] {
    let blanks = value
        .iter()
        .take_while(|b| matches!(b, b'\t'..=b'\r' | b' '));
    value.get(blanks.count()..).unwrap_or_default()
}

/// The first `<...>` of a Message-Id: header, if the value begins with it, with blanks for bytes that are not
/// printable.
fn message_name(value: &[u8], utf8: bool) -> Option<Vec<u8>> {
    let value = trim_start(value);
    let end = value.iter().position(|&b| b == b'>')?;
    let name = value.get(..=end).filter(|name| name.starts_with(b"<"))?;
    let mut printable = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid().bytes();
        printable.extend(valid.map(|byte| match byte {
            b' '..=b'~' => byte,
            0x80.. if utf8 => byte,
            _ => b' ',
        }));
        printable.extend(chunk.invalid().iter().map(|_| b' '));
    }
    Some(printable)
}

/// The name of a header, and the text after its colon. In the obsolete form there are blanks before the colon, which
/// belong to neither.
fn header_name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = text
        .iter()
        .take_while(|&&b| b.is_ascii_graphic() && b != b':')
        .count();
    let (name, rest) = text.split_at_checked(length)?;
    let blanks = rest
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    let value = rest.get(blanks..)?.strip_prefix(b":")?;
    (!name.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings() -> HeaderSettings {
        HeaderSettings {
            message_drop_headers: ["bcc", "content-length", "resent-bcc", "return-path"]
                .map(str::to_owned)
                .to_vec(),
            header_size_limit: 102_400,
            hopcount_limit: 50,
            line_length_limit: 16,
            cleanup_replace_stray_cr_lf: true,
            message_reject_characters: Vec::new(),
            message_strip_characters: Vec::new(),
            undisclosed_recipients_header: String::new(),
            detect_8bit_encoding_header: true,
            tls_required_enable: true,
            smtputf8_enable: true,
        }
    }

    /// The resulting records as `N(..)` and `L(..)`, with added headers in lower case.
    fn edited(settings: &HeaderSettings, records: &[(Type, &[u8])]) -> (String, Found) {
        let missing = Missing {
            message_id: "<m>".to_owned(),
            date: "d".to_owned(),
            from: b"f".to_vec(),
        };
        let mut out = String::new();
        let mut content = Content::new(settings, missing, |kind, pieces| {
            let data = pieces.concat();
            out += &format!(
                "{}({})",
                char::from(kind as u8),
                String::from_utf8_lossy(&data)
            );
        });
        for (kind, data) in records {
            content.record(*kind, data);
        }
        let found = content.end();
        (out, found)
    }

    /// The same for lines; the last one has no end if it ends in `\`.
    fn lines(settings: &HeaderSettings, text: &str) -> (String, Found) {
        let records: Vec<(Type, &[u8])> = text
            .split('|')
            .map(|line| match line.strip_suffix('\\') {
                Some(line) => (Type::Cont, line.as_bytes()),
                None => (Type::Norm, line.as_bytes()),
            })
            .collect();
        edited(settings, &records)
    }

    const COMPLETE: &str = "Message-Id: <x>|Date: y|From: z|";

    #[test]
    fn headers_end_where_postfix_ends_them() {
        for (text, expected) in [
            ("A: b", "N(A: b)"),
            ("A: b\\", "N(A: b)"),
            ("A: b||c", "N(A: b)N()N(c)"),
            ("A: b|c", "N(A: b)N()N(c)"),
            ("A: b|| c", "N(A: b)N()N( c)"),
            ("A: b| ||c\\", "N(A: b)N( )N()L(c)N()"),
            ("A: b|\r|B: c\r", "N(A: b)N( )N(B: c )"),
            ("A:|:x", "N(A:)N()N(:x)"),
            ("a b: c", "N()N(a b: c)"),
            ("caf\u{e9}: c", "N()N(caf\u{e9}: c)"),
            ("a(b;: c", "N(a(b;: c)"),
        ] {
            let (out, _) = lines(&settings(), &format!("{COMPLETE}{text}"));
            let rest = out.strip_prefix("N(Message-Id: <x>)N(Date: y)N(From: z)");
            assert_eq!(rest, Some(expected), "{text}");
        }
    }

    #[test]
    fn obsolete_blanks_before_the_colon_go() {
        let (out, _) = lines(&settings(), &format!("{COMPLETE}A \t : b| c"));
        assert!(out.ends_with("N(A: b)N( c)"), "{out}");
    }

    #[test]
    fn long_lines_are_cut_into_records_again() {
        let (out, _) = lines(
            &settings(),
            &format!("{COMPLETE}A: bcdefghijklmn\\|opq\\|r| stu"),
        );
        assert!(out.ends_with("L(A: bcdefghijklmn)N(opqr)N( stu)"), "{out}");
    }

    #[test]
    fn a_nul_ends_a_header_line_and_leaves_a_body_alone() {
        let (out, _) = lines(&settings(), &format!("{COMPLETE}A: b\0c| d\0e||\0"));
        assert!(out.ends_with("N(A: b)N( d)N()N(\0)"), "{out:?}");
    }

    #[test]
    fn what_is_missing_is_added_behind_the_last_header() {
        for (text, expected) in [
            (
                "A: b||c",
                "N(A: b)N(Message-Id: <m>)N(Date: d)N(From: f)N()N(c)",
            ),
            (
                "date:|MESSAGE-ID: <x>",
                "N(date:)N(MESSAGE-ID: <x>)N(From: f)",
            ),
            (
                "Resent-To: x|From: y",
                "N(Resent-To: x)N(From: y)N(Resent-Message-I)",
            ),
        ] {
            let mut settings = settings();
            settings.line_length_limit = if text.starts_with('R') { 16 } else { 99 };
            let out = lines(&settings, text).0.replace('L', "N");
            assert!(out.starts_with(expected), "{text}: {out}");
        }
    }

    #[test]
    fn headers_for_resending_make_the_missing_ones_such_even_when_dropped() {
        let mut settings = settings();
        settings.line_length_limit = 99;
        let (out, found) = lines(&settings, "Resent-Bcc: x|Resent-From: y|Message-Id: <z>");
        assert_eq!(
            out,
            "N(Resent-From: y)N(Message-Id: <z>)N(Resent-Message-Id: <m>)N(Resent-Date: d)"
        );
        assert_eq!(
            found.message_ids.first,
            ["message-id=<z>", "resent-message-id=<m>"]
        );
        let (_, found) = lines(&settings, "Resent-To: x");
        assert_eq!(
            found.message_ids.first,
            ["resent-message-id=<m>", "message-id=<>"]
        );
    }

    #[test]
    fn headers_that_name_the_message_are_logged_up_to_the_limit_and_counted_past_it() {
        for (headers, last) in [
            (MESSAGE_ID_LIMIT, "message-id=<x>"),
            (MESSAGE_ID_LIMIT + 1, "1 more Message-Id: headers"),
            (MESSAGE_ID_LIMIT + 700, "700 more Message-Id: headers"),
        ] {
            let text = "Message-Id: <x>|".repeat(headers);
            let (_, found) = lines(&settings(), &format!("{text}Date: y"));
            let logged: Vec<String> = found.message_ids.lines().collect();
            assert_eq!(logged.len(), headers.min(MESSAGE_ID_LIMIT + 1));
            assert_eq!(logged.last().unwrap(), last);
        }
    }

    #[test]
    fn of_a_header_that_names_the_message_no_more_is_kept_than_a_log_line_has() {
        let long = "\u{e9}".repeat(log::TEXT_LIMIT);
        let (_, found) = lines(&settings(), &format!("Message-Id: {long}"));
        let kept = &found.message_ids.first[0];
        assert_eq!(kept.len(), "message-id=".len() + log::TEXT_LIMIT);
    }

    #[test]
    fn dropped_headers_take_their_folded_lines_with_them() {
        let (out, found) = lines(&settings(), &format!("{COMPLETE}BCC : a,|\tb|\u{e9}: c"));
        assert!(out.ends_with("N(From: z)N()N(\u{e9}: c)"), "{out}");
        assert!(!found.non_ascii);
    }

    #[test]
    fn a_header_for_messages_that_show_no_recipients() {
        let mut settings = settings();
        settings.undisclosed_recipients_header = "To: none:;".to_owned();
        let added = |text: &str| lines(&settings, text).0.contains("N(To: none:;)");
        assert!(added("Bcc: x") && added("Apparently-To: x"));
        assert!(!added("to:") && !added("Resent-Cc: x"));
        for (header, stays) in [
            ("garbage", false),
            ("a b: c", false),
            (": c", false),
            ("To:", true),
            ("To : c", true),
        ] {
            settings.undisclosed_recipients_header = header.to_owned();
            let (out, _) = lines(&settings, "A: b");
            assert_eq!(out.contains(&format!("N({header})")), stays, "{header}");
        }
    }

    /// The lengths of the lines that remain of a header with lines of these lengths.
    fn left_of(limit: usize, lengths: &[usize]) -> Vec<usize> {
        let mut settings = settings();
        settings.header_size_limit = limit;
        settings.line_length_limit = 2048;
        let line = |length: &usize| format!("{:x<length$}", " ");
        let text: Vec<String> = lengths.iter().map(line).collect();
        let text = format!("X:{}|B: c||", &text.join("|")[2..]);
        let (out, _) = lines(&settings, &text);
        let (header, rest) = out.split_once("N(B: c)N(Message-Id").unwrap();
        assert!(rest.ends_with("N()"), "{out}");
        let lines = header.strip_suffix(')').unwrap().split(")N(");
        lines
            .map(|line| line.trim_start_matches("N(").len())
            .collect()
    }

    /// The cuts of cleanup: `tests/spec/queue-file.md`, section 6.
    #[test]
    fn a_long_header_is_cut_at_the_end_of_a_line_or_inside_one_that_is_long() {
        for (limit, lengths, left) in [
            (100, &[100][..], &[100][..]),
            (100, &[101], &[100]),
            (100, &[3000, 20], &[100]),
            (100, &[88, 50], &[88, 11]),
            (100, &[89, 50], &[89, 10]),
            (100, &[90, 50], &[90]),
            (100, &[99, 50], &[99]),
            (100, &[100, 50], &[100]),
            (100, &[50, 38, 50], &[50, 38, 10]),
            (100, &[50, 39, 50], &[50, 39]),
            (100, &[50, 49, 20], &[50, 49]),
            (100, &[50, 50, 20], &[50, 49]),
            (100, &[10, 79, 5, 3, 5], &[10, 79, 5, 3]),
            (100, &[10, 79, 5, 4, 5], &[10, 79, 5]),
            (100, &[95, 3000], &[95]),
            (19, &[16, 5], &[16, 2]),
            (19, &[17, 5], &[17]),
            (10, &[3, 4, 5], &[3, 4, 1]),
            (10, &[4, 4, 5], &[4, 4]),
        ] {
            assert_eq!(left_of(limit, lengths), left, "{limit} {lengths:?}");
        }
    }

    #[test]
    fn what_a_header_says_is_read_before_it_is_cut() {
        let mut settings = settings();
        settings.header_size_limit = 9;
        for (text, non_ascii) in [
            ("A: bbbbbbb\u{e9}", true),
            ("A: bbbbb| \u{e9}", true),
            ("A: bbbbbb| \u{e9}", false),
        ] {
            assert_eq!(lines(&settings, text).1.non_ascii, non_ascii, "{text}");
        }
        settings.header_size_limit = 28;
        assert!(
            lines(&settings, "Content-Transfer-Encoding:| 8bit")
                .1
                .eight_bit
        );
    }

    #[test]
    fn hops_and_encodings_are_those_of_the_first_headers_alone() {
        let (_, found) = lines(
            &settings(),
            "Received: x|received :y|A: \u{e9}|Content-Transfer-Encoding:| 8BIT||Received: z",
        );
        assert!(found.eight_bit && found.non_ascii);
        assert_eq!(found.hops, 2);
        let (_, found) = lines(
            &settings(),
            "A: b|Content-Transfer-Encoding: 8bit (x)||\u{e9}",
        );
        assert!(!found.eight_bit && !found.non_ascii);
    }

    /// The choice of cleanup of Postfix 3.10 and 3.11: `tests/spec/queue-file.md`, section 6.
    #[test]
    fn the_first_value_that_can_be_one_names_the_message() {
        for (text, named) in [
            ("Message-Id: <a@b> x", Some(&b"<a@b>"[..])),
            ("Message-Id:| <a@|\tb>", Some(b"<a@  b>")),
            (
                "Message-Id:\x0b<a\x01\u{e9}>b>",
                Some("<a \u{e9}>".as_bytes()),
            ),
            ("Message-Id: <>", Some(b"<>")),
            ("Message-Id: <<a>>", Some(b"<<a>")),
            ("Message-Id: x <a>", None),
            ("Message-Id: <a", None),
            ("Message-Id: a>", None),
            ("Message-Id:", None),
            ("Message-Id: <a>|Message-Id: <b>", Some(b"<a>")),
            ("Message-Id: a|Message-Id: <b>", Some(b"<b>")),
            ("A: b", Some(b"<m>")),
            ("Resent-Message-Id: <a>", None),
            ("Resent-To: a|Message-Id: <b>", Some(b"<b>")),
        ] {
            let mut settings = settings();
            settings.message_drop_headers.push("message-id".to_owned());
            let (_, found) = lines(&settings, text);
            assert_eq!(found.named.as_deref(), named, "{text}");
        }
        let invalid = [b'<', 0xff, b'a', 0xe2, 0x82, b'>'];
        assert_eq!(message_name(&invalid, true).unwrap(), b"< a  >");
        assert_eq!(message_name("<\u{e9}>".as_bytes(), false).unwrap(), b"<  >");
    }

    #[test]
    fn a_message_says_that_it_goes_on_without_tls_and_nothing_else_of_it() {
        let mut settings = settings();
        for (text, tls_optional, tls_malformed) in [
            ("TLS-Required: no", true, false),
            ("tls-required :| NO", true, false),
            ("TLS-Required: no ", false, true),
            ("TLS-Required: yes|TLS-Required: no", true, true),
            ("A: b||TLS-Required: no", false, false),
        ] {
            let (_, found) = lines(&settings, text);
            let is = (found.tls_optional, found.tls_malformed);
            assert_eq!(is, (tls_optional, tls_malformed), "{text}");
        }
        settings.tls_required_enable = false;
        assert!(!lines(&settings, "TLS-Required: no").1.tls_optional);
    }

    #[test]
    fn characters_go_before_anything_is_read_and_are_looked_for_before_that() {
        let mut settings = settings();
        settings.message_strip_characters = b"\0\rx".to_vec();
        let (out, _) = lines(&settings, &format!("{COMPLETE}xA\0: b|x c|x|d\r\\|x\\"));
        assert!(out.ends_with("N(A: b)N( c)N()L(d )L()N()"), "{out:?}");
        settings.message_reject_characters = b"x".to_vec();
        let record = format!("A:{}x", "b".repeat(SHOWN_RECORD - 3));
        for text in [record.clone(), format!("{record}y")] {
            let (_, found) = lines(&settings, &text);
            assert_eq!(found.rejected.as_deref(), Some(record.as_bytes()));
        }
        assert_eq!(lines(&settings, "A: b\r||c").1.rejected, None);
    }

    proptest! {
        #[test]
        fn any_records_leave_headers_then_a_body(
            records in proptest::collection::vec(("[a-z :\\t\\r\0-]{0,20}", any::<bool>()), 0..20)
        ) {
            let records: Vec<(Type, &[u8])> = records
                .iter()
                .map(|(data, whole)| (if *whole { Type::Norm } else { Type::Cont }, data.as_bytes()))
                .collect();
            let mut settings = settings();
            settings.line_length_limit = 20;
            let (out, _) = edited(&settings, &records);
            prop_assert!(!out.contains('\r'));
            let headers = out.split("N()").next().unwrap_or_default();
            prop_assert!(headers.ends_with(')') && headers.contains("N(From: f)"), "{}", out);
        }
    }
}
