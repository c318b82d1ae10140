//! From the text of a list to its items, in order, with files read and tables opened.
//!
//! Happens once, while the process still has the rights it was started with. What is to be logged is collected here
//! and logged by `match_list`.

use std::fmt::{self, Display};
use std::io::Read;
use std::net::Ipv6Addr;
use std::rc::Rc;

use super::braces::next_item;
use super::table::Table;
use super::tables::Tables;
use super::{Error, Note, pattern};
use crate::config::lines::logical_lines;
use crate::config::open_file;
use crate::log::{self, Shown};

/// How much is shown of what follows a comment sign in a place where there are no comments.
const SHOWN_COMMENT: usize = 20;

/// One item of a list.
#[derive(Debug)]
pub struct Item {
    /// Whoever matches is not listed.
    pub(super) negated: bool,
    pub(super) what: What,
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
pub(super) enum What {
    /// A name or an address pattern, in lower case.
    Literal(String),
    Table(Rc<dyn Table>),
}

#[derive(Debug, Clone)]
pub(super) struct Place {
    file: Rc<str>,
    line: usize,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file, self.line)
    }
}

/// The item as a list would have it, and the file that it stands in, if any.
impl Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "!" } else { "" };
        match &self.what {
            What::Literal(pattern) => write!(f, "{not}{pattern}")?,
            What::Table(table) => write!(f, "{not}{}", table.name())?,
        }
        match &self.place {
            Some(place) => write!(f, " in {place}"),
            None => Ok(()),
        }
    }
}

/// The items of a list, as they are read.
#[derive(Debug)]
pub(super) struct Items<'a> {
    list: &'static str,
    tables: &'a mut Tables,
    pub(super) items: Vec<Item>,
    pub(super) notes: Vec<Note>,
    /// The files that are being read, the outermost first.
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

    /// Unlike Postfix, which takes `2001:db8::/32` for a table of type `2001` and then answers everybody with an error,
    /// an IPv6 address or network without brackets is one: no table type looks like that
    /// (`tests/spec/differences.md`, 9).
    fn bracket(&mut self, pattern: &str) -> What {
        let better = pattern::as_ipv4(pattern).unwrap_or_else(|| format!("[{pattern}]"));
        self.notes.push(Note::Warning(format!(
            "{}: IPv6 pattern \"{pattern}\" without brackets, perhaps you should use \"{better}\" instead",
            self.list
        )));
        What::Literal(format!("[{}]", pattern.to_ascii_lowercase()))
    }

    /// Puts the items of a file in the place of its name. In a negated file each of them means the opposite.
    fn add_file(&mut self, path: &str, negated: bool, place: Option<&Place>) -> Result<(), Error> {
        if self.reading.iter().any(|file| **file == *path) {
            // Postfix reads on until it has no descriptors left. The list ends up just as unusable
            // (`tests/spec/differences.md`, 33).
            let table = self.unopened_file(path, "the file is part of itself");
            self.push(false, What::Table(table), place);
            return Ok(());
        }
        let mut file = match open_file(path) {
            Ok(file) => file,
            Err(e) => {
                // The negation is lost, as in Postfix; an item that cannot answer has no use for it.
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
        let file: Rc<str> = path.into();
        self.reading.push(Rc::clone(&file));
        for logical in logical_lines(&bytes) {
            let place = Place {
                file: Rc::clone(&file),
                line: logical.first_line,
            };
            // Bytes that are no UTF-8 are in no host name, whatever becomes of them here.
            let text = String::from_utf8_lossy(&logical.text);
            self.add_text(&text, negated, Some(&place))?;
        }
        self.reading.pop();
        Ok(())
    }

    /// What stands in the list for a file that cannot be opened: a table that cannot answer.
    fn unopened_file(&mut self, path: &str, reason: &str) -> Rc<dyn Table> {
        let name = format!("non-existent:{path}");
        if let Some(table) = self.tables.opened(&name) {
            return table;
        }
        let reason = format!("open file {path}: {reason}");
        self.tables.unopened(&name, reason, &mut self.notes)
    }
}

/// Whether the pattern is an IPv6 address or network that lacks its brackets, and nothing else is amiss.
fn is_bare_ipv6(pattern: &str) -> bool {
    let (address, mask) = pattern.split_once('/').unwrap_or((pattern, "0"));
    let has_mask = !mask.is_empty() && mask.bytes().all(|b| b.is_ascii_digit());
    has_mask && address.parse::<Ipv6Addr>().is_ok()
}
