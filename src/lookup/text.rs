//! Tables that are text: a file that is opened early and read late, or rules in the table's name.
//!
//! The file is opened with the rights of the start, so that it may be root's alone, and stay outside a chroot. It is
//! read when a client's evaluation comes to the table: most clients are settled before. [`Contents`] is what differs
//! from type to type.

use std::cell::{OnceCell, RefCell};
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Seek};

use super::braces::{self, next_item};
use super::table::{ClientKeys, Keys, Problem, Reason, Table, unavailable};
use crate::config::lines::{logical_lines, misplaced};
use crate::config::{open_file, read_settled};
use crate::log::{self, error_text};

/// Where the text of a table comes from.
#[derive(Debug)]
pub(super) struct Source {
    /// The path, or the rules themselves.
    name: String,
    /// What messages about a line call the table.
    label: String,
    /// Nothing once it has been read, or is closed.
    text: RefCell<Option<Text>>,
}

#[derive(Debug)]
enum Text {
    File(File),
    /// A file that is read when nobody has written to it for a second.
    Settled(File),
    /// The lines.
    Rules(Vec<u8>),
}

impl Source {
    /// Opens a file that may be half written when it is read.
    pub(super) fn settled(path: &str) -> Result<Source, Reason> {
        let file = open_file(path)
            .map_err(|error| Reason(format!("open database {path}: {}", error_text(&error))))?;
        Ok(Source {
            name: path.to_owned(),
            label: path.to_owned(),
            text: RefCell::new(Some(Text::Settled(file))),
        })
    }

    /// Opens what a table of rules is named after: a file, or `{ {rule}, {rule} }`, one line for each rule. `kind` is the
    /// table's type.
    pub(super) fn rules(kind: &str, name: &str) -> Result<Source, Reason> {
        let label = format!("{kind} map {name}");
        let text = if name.starts_with('{') {
            let refuse = |error: braces::Error<'_>| Reason(format!("{kind} map: {error}"));
            Text::Rules(lines_in_braces(name).map_err(refuse)?)
        } else {
            Text::File(
                open_file(name)
                    .map_err(|error| Reason(format!("open {name}: {}", error_text(&error))))?,
            )
        };
        let name = name.to_owned();
        let text = RefCell::new(Some(text));
        Ok(Source { name, label, text })
    }

    /// Lines in memory, which messages call `label`.
    #[cfg(any(test, fuzzing))]
    pub(super) fn in_memory(label: &str, lines: &[u8]) -> Source {
        Source {
            name: "F".to_owned(),
            label: label.to_owned(),
            text: RefCell::new(Some(Text::Rules(lines.to_vec()))),
        }
    }

    /// All of the text, once, or why it cannot be had.
    fn take(&self) -> Result<Vec<u8>, String> {
        let Some(text) = self.text.take() else {
            return Err(format!("{}: closed", self.label));
        };
        match text {
            Text::File(file) => read_from_start(&file)
                .map_err(|error| format!("{}: read error: {}", self.label, error_text(&error))),
            Text::Settled(file) => read_settled(|| {
                let bytes = read_from_start(&file)?;
                Ok((bytes, file.metadata()?.modified()?))
            })
            .map_err(|error: io::Error| format!("read {}: {}", self.name, error_text(&error))),
            Text::Rules(lines) => Ok(lines),
        }
    }
}

fn read_from_start(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn lines_in_braces(text: &str) -> Result<Vec<u8>, braces::Error<'_>> {
    let mut rest = braces::inside(text)?;
    let mut lines = Vec::new();
    while let Some(item) = next_item(&mut rest) {
        lines.extend_from_slice(braces::inside(item)?.as_bytes());
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Where in a table the line is that is being read, and what is wrong with this line and those before it.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    label: &'a str,
    /// The number of the first physical line.
    pub(super) line: usize,
    pub(super) warnings: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn place(&self) -> String {
        format!("{}, line {}", self.label, self.line)
    }

    pub(super) fn warn(&mut self, problem: &str) {
        self.warnings.push(format!("{}: {problem}", self.place()));
    }
}

/// What a type of table makes of its lines.
pub(super) trait Contents: Debug {
    const KEYS: Keys;

    /// Takes the next line. An error says why the table cannot be used at all.
    fn rule(&mut self, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String>;

    /// There are no more lines.
    fn end(&mut self, _reader: &mut Reader<'_>) {}

    /// The value of a key in the lines that have been taken. An error says why this key has no answer.
    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, String>;
}

/// A table that is read when it is first asked.
#[derive(Debug)]
pub(super) struct TextTable<C> {
    name: String,
    source: Source,
    contents: RefCell<C>,
    /// What came of reading the source, once it has been read.
    outcome: OnceCell<Result<(), String>>,
}

impl<C: Contents> TextTable<C> {
    /// A table with these contents so far, which are none.
    pub(super) fn new(name: &str, source: Source, contents: C) -> TextTable<C> {
        TextTable {
            name: name.to_owned(),
            source,
            contents: RefCell::new(contents),
            outcome: OnceCell::new(),
        }
    }

    /// Reads the source the first time, and logs what is wrong with its lines.
    fn outcome(&self) -> Result<(), &str> {
        let outcome = self.outcome.get_or_init(|| {
            let bytes = self.source.take()?;
            let mut contents = self.contents.borrow_mut();
            let (warnings, taken) = take_lines(&mut *contents, &self.source, &bytes);
            for warning in warnings {
                log::warning!("{warning}");
            }
            taken
        });
        outcome.as_ref().copied().map_err(String::as_str)
    }
}

/// Gives the contents their lines, each up to a NUL in it. A line that should continue another, and has none before it,
/// is left out with a warning.
fn take_lines(
    contents: &mut impl Contents,
    source: &Source,
    bytes: &[u8],
) -> (Vec<String>, Result<(), String>) {
    let mut reader = Reader {
        label: &source.label,
        line: 0,
        warnings: Vec::new(),
    };
    for logical in logical_lines(bytes) {
        let line = logical.up_to_nul();
        reader.line = logical.first_line;
        if let Some(warning) = misplaced(&source.name, line) {
            reader.warnings.push(warning);
            continue;
        }
        if let Err(reason) = contents.rule(line, &mut reader) {
            return (reader.warnings, Err(reason));
        }
    }
    contents.end(&mut reader);
    (reader.warnings, Ok(()))
}

impl<C: Contents> Table for TextTable<C> {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        C::KEYS
    }

    fn find(&self, key: &str, _: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        self.outcome()
            .map_err(|reason| unavailable(&self.name, reason))?;
        let value = self.contents.borrow().value(key);
        value.map_err(|problem| Problem::from(format!("{}: {problem}", self.source.label)))
    }

    fn close(&self) {
        drop(self.source.text.take());
    }

    fn load(&self) -> Result<(), Problem> {
        self.outcome()
            .map_err(|reason| Problem::from(reason.to_owned()))
    }
}

/// The contents that these lines make, with the warnings, or why there are none.
#[cfg(test)]
pub(super) fn parse<C: Contents>(
    mut contents: C,
    label: &str,
    bytes: &[u8],
) -> (Vec<String>, Result<C, String>) {
    let source = Source::in_memory(label, bytes);
    let (warnings, taken) = take_lines(&mut contents, &source, bytes);
    (warnings, taken.map(|()| contents))
}
