//! Turns the text of a list into its items, in order; reads files and opens tables.
//!
//! Happens once, with the rights of the start. Lines for the log are collected here, and `match_list` logs them. Lines
//! of a file with only names and address patterns stay text: they are split when a client is compared with them, so
//! that a file of a million lines only has to be searched. Follows `tests/spec/client-access.md`, section 1.1.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::Read;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::rc::Rc;

use super::braces::{next_item, trim};
use super::table::{ClientKeys, Table};
use super::tables::Tables;
use super::{Error, Note, pattern};
use crate::config::lines::logical_lines;
use crate::config::open_file;
use crate::log::{self, Shown};
use crate::sys::bytes;

/// The length of the text after a misplaced comment sign that is shown.
const SHOWN_COMMENT: usize = 20;

/// The content of one place of a list.
#[derive(Debug)]
pub struct Item {
    /// Whether a client that matches is not listed.
    pub(super) negated: bool,
    pub(super) what: What,
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
pub(super) enum What {
    /// A name or an address pattern, in lower case.
    Literal(String),
    Table(Rc<dyn Table>),
    /// Lines of a file with only names and address patterns, from their place on.
    Lines {
        text: Rc<String>,
        range: Range<usize>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Place {
    file: Rc<str>,
    line: usize,
}

/// One item of a list, also of a line of a file.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// Whether a client that matches is not listed.
    pub(super) negated: bool,
    pub(super) what: PartWhat<'a>,
    file: Option<&'a Rc<str>>,
    line: usize,
}

#[derive(Debug, Clone)]
pub(super) enum PartWhat<'a> {
    /// A name or an address pattern, in lower case.
    Literal(Cow<'a, str>),
    Table(&'a Rc<dyn Table>),
}

impl Item {
    /// The items in this place.
    pub(super) fn parts(&self) -> Parts<'_, '_> {
        self.parts_for(None)
    }

    /// The same without some that cannot match the client.
    pub(super) fn parts_for<'c>(&self, client: Option<ClientKeys<'c>>) -> Parts<'_, 'c> {
        let (one, lines) = match &self.what {
            What::Literal(pattern) => (Some(PartWhat::Literal(pattern.as_str().into())), ""),
            What::Table(table) => (Some(PartWhat::Table(table)), ""),
            What::Lines { text, range } => (None, text.get(range.clone()).unwrap_or_default()),
        };
        let place = self.place.as_ref();
        Parts {
            negated: self.negated,
            file: place.map(|place| &place.file),
            next_line: place.map_or(0, |place| place.line),
            one,
            line: "",
            lines,
            client,
        }
    }
}

/// The items in one place.
#[derive(Debug)]
pub(super) struct Parts<'a, 'c> {
    negated: bool,
    file: Option<&'a Rc<str>>,
    /// The number of the first one of `lines`.
    next_line: usize,
    one: Option<PartWhat<'a>>,
    /// The rest of a line.
    line: &'a str,
    /// The lines after it.
    lines: &'a str,
    /// Lines with one name or address are passed over, unless it is this client's.
    client: Option<ClientKeys<'c>>,
}

impl Parts<'_, '_> {
    fn is_passed_over(&self, line: &str) -> bool {
        let has = |client: ClientKeys<'_>| client.has(line.as_bytes());
        is_word(line.as_bytes()) && self.client.is_some_and(|client| !has(client))
    }
}

impl<'a> Iterator for Parts<'a, '_> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let (negated, file) = (self.negated, self.file);
        if let Some(what) = self.one.take() {
            let line = self.next_line;
            return Some(Part {
                negated,
                what,
                file,
                line,
            });
        }
        loop {
            if let Some(pattern) = next_item(&mut self.line) {
                let what = PartWhat::Literal(folded(pattern));
                let line = self.next_line - 1;
                return Some(Part {
                    negated,
                    what,
                    file,
                    line,
                });
            }
            if self.lines.is_empty() {
                return None;
            }
            let end = bytes::position(self.lines.as_bytes(), b'\n').unwrap_or(self.lines.len());
            let (line, rest) = self.lines.split_at(end);
            self.lines = rest.get(1..).unwrap_or_default();
            self.next_line += 1;
            if self.is_passed_over(line) {
                continue;
            }
            let text = trim(line);
            let has_items = !text.is_empty() && !text.starts_with('#');
            self.line = if has_items { line } else { "" };
        }
    }
}

fn folded(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

/// The item in the form of a list, and its file, if any.
impl Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "!" } else { "" };
        match &self.what {
            PartWhat::Literal(pattern) => write!(f, "{not}{pattern}")?,
            PartWhat::Table(table) => write!(f, "{not}{}", table.name())?,
        }
        match self.place() {
            Some(place) => write!(f, " in {place}"),
            None => Ok(()),
        }
    }
}

impl Part<'_> {
    /// `FILE, line N`; `None` for an item in the parameter itself.
    pub(super) fn place(&self) -> Option<String> {
        let file = self.file?;
        Some(format!("{file}, line {}", self.line))
    }
}

/// The items of a list while it is read.
#[derive(Debug)]
pub(super) struct Items<'a> {
    list: &'static str,
    tables: &'a mut Tables,
    pub(super) items: Vec<Item>,
    pub(super) notes: Vec<Note>,
    /// The files being read, the outermost first.
    reading: Vec<Rc<str>>,
}

impl Items<'_> {
    pub(super) fn new<'a>(list: &'static str, tables: &'a mut Tables) -> Items<'a> {
        Items {
            list,
            tables,
            items: Vec::new(),
            notes: Vec::new(),
            reading: Vec::new(),
        }
    }

    /// Adds the items of a parameter's value.
    pub(super) fn add(&mut self, patterns: &str) -> Result<(), Error> {
        self.add_text(patterns, false, None)
    }

    fn add_text(&mut self, text: &str, negated: bool, place: Option<&Place>) -> Result<(), Error> {
        let mut rest = text;
        while let Some(item) = next_item(&mut rest) {
            if item.starts_with('#') {
                self.refuse_comment(item, rest);
                return Ok(());
            }
            let pattern = item.trim_start_matches('!');
            let negated = negated ^ ((item.len() - pattern.len()) % 2 == 1);
            if pattern.is_empty() {
                return Err(Error::NoPattern { list: self.list });
            }
            if pattern.starts_with('/') {
                self.add_file(pattern, negated, place)?;
                continue;
            }
            let what = if !pattern.contains(':') || pattern.starts_with('[') {
                What::Literal(pattern.to_ascii_lowercase())
            } else if is_bare_ipv6(pattern) {
                self.bracket(pattern)
            } else {
                What::Table(self.tables.open(pattern, &mut self.notes))
            };
            self.push(negated, what, place);
        }
        Ok(())
    }

    fn push(&mut self, negated: bool, what: What, place: Option<&Place>) {
        self.items.push(Item {
            negated,
            what,
            place: place.cloned(),
        });
    }

    fn refuse_comment(&mut self, item: &str, rest: &str) {
        let shown = Shown(
            rest.as_bytes()
                .get(..SHOWN_COMMENT)
                .unwrap_or(rest.as_bytes()),
        );
        self.notes.push(Note::Warning(format!(
            "{}: #comment after other text is not allowed: {item} {shown}...",
            self.list
        )));
    }

    /// Unlike Postfix, which takes `2001:db8::/32` for a table of type `2001`, and then answers every client with an
    /// error: an IPv6 address or network without brackets counts as one, because no table type has such a name
    /// (`tests/spec/differences.md`, 9).
    fn bracket(&mut self, pattern: &str) -> What {
        let better = pattern::as_ipv4(pattern).unwrap_or_else(|| format!("[{pattern}]"));
        self.notes.push(Note::Warning(format!(
            "{}: IPv6 pattern \"{pattern}\" without brackets, perhaps you should use \"{better}\" instead",
            self.list
        )));
        What::Literal(format!("[{}]", pattern.to_ascii_lowercase()))
    }

    /// Replaces the name of a file by its items, which a negated file negates.
    fn add_file(&mut self, path: &str, negated: bool, place: Option<&Place>) -> Result<(), Error> {
        if self.reading.iter().any(|file| **file == *path) {
            // Postfix reads on until it has no descriptors left. The list is unusable in both cases
            // (`tests/spec/differences.md`, 33).
            let table = self.unopened_file(path, "the file is part of itself");
            self.push(false, What::Table(table), place);
            return Ok(());
        }
        let mut file = match open_file(path) {
            Ok(file) => file,
            Err(e) => {
                // The negation is lost, as in Postfix: an item without an answer needs none.
                let table = self.unopened_file(path, &log::error_text(&e));
                self.push(false, What::Table(table), place);
                return Ok(());
            }
        };
        let mut bytes = Vec::new();
        if let Err(error) = file.read_to_end(&mut bytes) {
            let path = path.to_owned();
            return Err(Error::ReadFile { path, error });
        }
        drop(file);
        // No host name has bytes that are not UTF-8, so that any replacement will do.
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let file: Rc<str> = path.into();
        self.reading.push(Rc::clone(&file));
        self.add_lines(&Rc::new(text), negated, &file)?;
        self.reading.pop();
        Ok(())
    }

    /// Adds the lines of a file: plain lines as text, all others item by item.
    fn add_lines(&mut self, text: &Rc<String>, negated: bool, file: &Rc<str>) -> Result<(), Error> {
        // The start of the plain lines at the end of the text read so far.
        let mut plain: Option<(usize, usize)> = None;
        let push_plain = |items: &mut Self, plain: Option<(usize, usize)>, end: usize| {
            let Some((start, line)) = plain else {
                return;
            };
            let (text, file) = (Rc::clone(text), Rc::clone(file));
            let what = What::Lines {
                text,
                range: start..end,
            };
            items.push(negated, what, Some(&Place { file, line }));
        };
        for logical in logical_lines(text.as_bytes()) {
            if matches!(logical.text, Cow::Borrowed(line) if is_plain(line)) {
                plain.get_or_insert((logical.start, logical.first_line));
                continue;
            }
            push_plain(self, plain.take(), logical.start);
            let place = Place {
                file: Rc::clone(file),
                line: logical.first_line,
            };
            let text = String::from_utf8_lossy(&logical.text);
            self.add_text(&text, negated, Some(&place))?;
        }
        push_plain(self, plain, text.len());
        Ok(())
    }

    /// A table without answers, in place of a file that cannot be opened.
    fn unopened_file(&mut self, path: &str, reason: &str) -> Rc<dyn Table> {
        let name = format!("non-existent:{path}");
        if let Some(table) = self.tables.opened(&name) {
            return table;
        }
        let reason = format!("open file {path}: {reason}");
        self.tables.unopened(&name, reason, &mut self.notes)
    }
}

/// Whether the line has only names and address patterns, separated by blanks and commas: no file, table, negation or
/// warning. May be false for some such lines.
fn is_plain(line: &[u8]) -> bool {
    // Most lines are one address or one name.
    if is_word(line) {
        return true;
    }
    let mut before = b' ';
    let mut has_bracket = false;
    line.iter().all(|&b| {
        let is_first = matches!(
            std::mem::replace(&mut before, b),
            b' ' | b'\t' | b'\r' | b','
        );
        has_bracket = b == b'[' && is_first || has_bracket && !is_first;
        match b {
            b' ' | b'\t' | b'\r' | b',' | b'[' | b']' => true,
            b'/' => !is_first,
            b':' => has_bracket,
            _ => is_word(&[b]),
        }
    })
}

/// Whether all bytes are such as names and IPv4 addresses have.
fn is_word(text: &[u8]) -> bool {
    let is_ordinary = |b: u8| WORDS.get(usize::from(b)) == Some(&true);
    // To look at all bytes takes fewer steps than to look after each whether to go on.
    text.iter().fold(true, |word, &b| word & is_ordinary(b))
}

/// The bytes of a word.
#[expect(clippy::indexing_slicing, reason = "the compiler's own loop")]
const WORDS: [bool; 256] = {
    let mut words = [false; 256];
    let mut b = 0_u8;
    while b.is_ascii() {
        words[b as usize] =
            matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'A'..=b'Z');
        b += 1;
    }
    words
};

/// Whether the pattern is an IPv6 address or network whose only fault is that it lacks brackets.
fn is_bare_ipv6(pattern: &str) -> bool {
    let (address, mask) = pattern.split_once('/').unwrap_or((pattern, "0"));
    let has_mask = !mask.is_empty() && mask.bytes().all(|b| b.is_ascii_digit());
    has_mask && address.parse::<Ipv6Addr>().is_ok()
}
