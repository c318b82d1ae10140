//! Tables that are text: a file that is opened early and read late, or rules in the table's name.
//!
//! The file is opened with the rights of the start, so that it may be readable by root alone, or outside a chroot. A
//! process that serves one client reads it when the evaluation comes to the table, because most clients are decided
//! before: once, in blocks, for all keys of the client, and keeps nothing else. A process that serves many clients
//! reads it before the first, and keeps its entries or its lines. [`Format`] is the part that differs between types.
//! Follows `tests/spec/client-access.md`, section 4.2.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::time::SystemTime;

use super::braces::{self, next_item};
use super::database;
use super::table::{ClientKeys, Keys, Problem, Reason, Table, unavailable};
use crate::config::lines::{last_beginning, lines_after, misplaced};
use crate::config::{open_file, read_settled};
use crate::log::{self, error_text};
use crate::sys::ignore;

/// The source of a table's text.
#[derive(Debug)]
pub(super) struct Source {
    /// The path, or the rules themselves.
    name: String,
    /// The table's name in messages about a line.
    label: String,
    /// `None` after it was closed.
    text: RefCell<Option<Text>>,
    /// What was in the file, if that is kept.
    kept: OnceCell<Vec<u8>>,
}

#[derive(Debug)]
enum Text {
    File(File),
    /// A file that is read when it has not changed for a second.
    Settled(File),
    /// The lines.
    Rules(Vec<u8>),
}

impl Source {
    /// Opens a file that may be incomplete when it is read.
    pub(super) fn settled(path: &str) -> Result<Source, Reason> {
        let file = open_file(path)
            .map_err(|error| Reason(format!("open database {path}: {}", error_text(&error))))?;
        Ok(Source {
            name: path.to_owned(),
            label: path.to_owned(),
            text: RefCell::new(Some(Text::Settled(file))),
            kept: OnceCell::new(),
        })
    }

    /// Opens the rules of a table: a file, or `{ {rule}, {rule} }`, one line for each rule. `kind` is the table's type.
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
        let kept = OnceCell::new();
        Ok(Source {
            name,
            label,
            text,
            kept,
        })
    }

    /// Lines in memory with the name `label` in messages.
    #[cfg(any(test, fuzzing))]
    pub(super) fn in_memory(label: &str, lines: &[u8]) -> Source {
        Source {
            name: "F".to_owned(),
            label: label.to_owned(),
            text: RefCell::new(Some(Text::Rules(lines.to_vec()))),
            kept: OnceCell::new(),
        }
    }

    /// Reads the text from its start with `take`, more than once if the file is changing.
    fn read<T>(&self, mut take: impl FnMut(&mut dyn Read) -> io::Result<T>) -> Result<T, String> {
        if let Some(kept) = self.kept.get() {
            return take(&mut &kept[..]).map_err(|error| error.to_string());
        }
        match &*self.text.borrow() {
            None => Err(format!("{}: closed", self.label)),
            Some(Text::File(file)) => from_start(file, &mut take)
                .map_err(|error| format!("{}: read error: {}", self.label, error_text(&error))),
            Some(Text::Settled(file)) => read_settled(|| {
                let taken = from_start(file, &mut take)?;
                Ok((taken, file.metadata()?.modified()?))
            })
            .map_err(|error: io::Error| format!("read {}: {}", self.name, error_text(&error))),
            Some(Text::Rules(lines)) => take(&mut &lines[..]).map_err(|error| error.to_string()),
        }
    }

    /// Reads the text once and for all.
    fn keep(&self) -> Result<(), String> {
        let text = self.read(|text| {
            let mut bytes = Vec::new();
            text.read_to_end(&mut bytes).map(|_| bytes)
        })?;
        self.kept.get_or_init(|| text);
        Ok(())
    }

    /// The time of the file's last change, if there is a file.
    fn written(&self) -> Option<SystemTime> {
        match &*self.text.borrow() {
            Some(Text::File(file) | Text::Settled(file)) => file.metadata().ok()?.modified().ok(),
            Some(Text::Rules(_)) | None => None,
        }
    }

    /// Whether the file has changed since that time. Rules in a name never do.
    fn has_changed(&self, written: Option<SystemTime>) -> bool {
        match &*self.text.borrow() {
            Some(Text::File(file) | Text::Settled(file)) => database::has_changed(file, written),
            Some(Text::Rules(_)) => false,
            None => true,
        }
    }
}

fn from_start<T>(
    mut file: &File,
    take: &mut impl FnMut(&mut dyn Read) -> io::Result<T>,
) -> io::Result<T> {
    file.rewind()?;
    take(&mut file)
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

/// The line of a table that is read, and the errors of this line and those before it.
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

/// A type of table that is text.
pub(super) trait Format: Debug {
    const KEYS: Keys;

    /// Whether a process that serves many clients keeps the lines and searches them for each: its entries would cost more.
    const KEPT_AS_TEXT: bool = false;

    /// All entries of the lines.
    type Whole: Contents;

    /// The entries of the lines for some keys.
    type Search: Contents;

    fn whole(&self) -> Self::Whole;

    fn search(&self, asked: Asked) -> Self::Search;
}

/// The receiver of lines, one after another.
pub(super) trait Contents: Debug {
    /// Takes the next line. The error is the reason why the table cannot be used.
    fn rule(&mut self, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String>;

    /// Called after the last line.
    fn end(&mut self, _reader: &mut Reader<'_>) {}

    /// Whether the following lines are not needed.
    fn is_done(&self) -> bool {
        false
    }

    /// The answer for a key; `None` if the lines have not been searched for it. An error is the reason why this key has
    /// no answer.
    fn answer(&self, key: &str) -> Option<Answer>;
}

pub(super) type Answer = Result<Option<Vec<u8>>, String>;

/// The keys of one client that a table is searched for. Without keys it is read to its end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The key that must have an answer.
    pub(super) key: Option<String>,
    pub(super) name: Option<String>,
    pub(super) addr: Option<String>,
}

impl Asked {
    pub(super) fn new(key: &str, client: &ClientKeys<'_>) -> Asked {
        Asked {
            key: Some(key.to_owned()),
            name: client.name.map(str::to_owned),
            addr: client.addr.map(str::to_owned),
        }
    }
}

/// A table that is searched anew for the keys of each client, or that has been read completely.
#[derive(Debug)]
pub(super) struct TextTable<F: Format> {
    name: String,
    source: Source,
    format: F,
    whole: OnceCell<Result<F::Whole, String>>,
    search: RefCell<Option<LastSearch<F>>>,
    /// The number of warnings about lines that have been logged. The warnings are the same at each reading, up to the
    /// line where it ends.
    warned: Cell<usize>,
    /// The time of the file's last change when it was read completely.
    written: Cell<Option<SystemTime>>,
}

/// The last search, or the keys and the error of a failed one.
type LastSearch<F> = Result<<F as Format>::Search, (Asked, String)>;

impl<F: Format> TextTable<F> {
    pub(super) fn new(name: &str, source: Source, format: F) -> TextTable<F> {
        TextTable {
            name: name.to_owned(),
            source,
            format,
            whole: OnceCell::new(),
            search: RefCell::new(None),
            warned: Cell::new(0),
            written: Cell::new(None),
        }
    }

    /// Reads everything, and keeps it. What is wrong with it is logged.
    fn keep(&self) -> Result<(), String> {
        if self.whole.get().is_none() && self.source.kept.get().is_none() {
            self.written.set(self.source.written());
            if F::KEPT_AS_TEXT {
                let kept = self.source.keep();
                let read = kept.and_then(|()| self.take(|| self.format.search(Asked::default())));
                if let Err(reason) = read {
                    self.whole.get_or_init(|| Err(reason));
                }
            } else {
                self.whole.get_or_init(|| self.take(|| self.format.whole()));
            }
        }
        match self.whole.get() {
            Some(Err(reason)) => Err(reason.clone()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Searches for the keys of a client, unless the last search has the answer.
    fn find_in_lines(&self, key: &str, client: &ClientKeys<'_>) -> Result<Answer, String> {
        let asked = Asked::new(key, client);
        let mut last = self.search.borrow_mut();
        let known = match &*last {
            Some(Ok(search)) => search.answer(key).map(Ok),
            Some(Err((failed, reason))) => (*failed == asked).then(|| Err(reason.clone())),
            None => None,
        };
        if let Some(known) = known {
            return known;
        }
        let search = self.take(|| self.format.search(asked.clone()));
        let answer = match &search {
            Ok(search) => Ok(search.answer(key).unwrap_or(Ok(None))),
            Err(reason) => Err(reason.clone()),
        };
        *last = Some(search.map_err(|reason| (asked, reason)));
        answer
    }

    /// Reads the source into a new value of `empty`, and logs the errors of its lines.
    fn take<C: Contents>(&self, empty: impl Fn() -> C) -> Result<C, String> {
        let (warnings, taken) = self
            .source
            .read(|text| take_lines(empty(), &self.source, text))?;
        for warning in warnings.iter().skip(self.warned.get()) {
            log::warning!("{warning}");
        }
        self.warned.set(self.warned.get().max(warnings.len()));
        taken
    }
}

/// Passes the lines to the contents, each up to a NUL. A line that continues no other one is skipped with a warning.
fn take_lines<C: Contents>(
    mut contents: C,
    source: &Source,
    text: &mut dyn Read,
) -> io::Result<(Vec<String>, Result<C, String>)> {
    let mut reader = Reader {
        label: &source.label,
        line: 0,
        warnings: Vec::new(),
    };
    let mut blocks = Blocks::new(text);
    let mut lines_read = 0;
    while blocks.next()? {
        let mut lines = lines_after(lines_read, blocks.block());
        for logical in lines.by_ref() {
            let line = logical.up_to_nul();
            reader.line = logical.first_line;
            if let Some(warning) = misplaced(&source.name, line) {
                reader.warnings.push(warning);
            } else if let Err(reason) = contents.rule(line, &mut reader) {
                return Ok((reader.warnings, Err(reason)));
            } else if contents.is_done() {
                return Ok((reader.warnings, Ok(contents)));
            }
        }
        lines_read = lines.lines_read();
    }
    contents.end(&mut reader);
    Ok((reader.warnings, Ok(contents)))
}

/// The size of a read.
const BLOCK: usize = 64 * 1024;

/// A text in pieces of whole logical lines.
struct Blocks<'a> {
    text: &'a mut dyn Read,
    buffer: Vec<u8>,
    /// The length of the text in the buffer, and of the part that has been returned.
    filled: usize,
    given: usize,
}

impl Blocks<'_> {
    fn new(text: &mut dyn Read) -> Blocks<'_> {
        Blocks {
            text,
            buffer: vec![0; BLOCK],
            filled: 0,
            given: 0,
        }
    }

    /// The piece of the last [`Blocks::next`].
    fn block(&self) -> &[u8] {
        self.buffer.get(..self.given).unwrap_or_default()
    }

    /// Reads the next piece. False at the end of the text.
    fn next(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.given..self.filled, 0);
        self.filled -= self.given;
        self.given = 0;
        loop {
            if self.filled == self.buffer.len() {
                // The beginning of a line that is longer than the buffer.
                self.buffer.resize(2 * self.filled, 0);
            }
            let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let new = match self.text.read(free) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let before = self.filled;
            self.filled += new;
            let filled = self.buffer.get(..self.filled).unwrap_or_default();
            if new == 0 {
                self.given = self.filled;
                return Ok(self.given > 0);
            }
            if let Some(end) = last_beginning(filled, before) {
                self.given = end;
                return Ok(true);
            }
        }
    }
}

impl<F: Format> Table for TextTable<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        F::KEYS
    }

    fn find(&self, key: &str, client: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        let answer = match self.whole.get() {
            Some(Ok(whole)) => Ok(whole.answer(key).unwrap_or(Ok(None))),
            Some(Err(reason)) => Err(reason.clone()),
            None => self.find_in_lines(key, client),
        };
        answer
            .map_err(|reason| unavailable(&self.name, &reason))?
            .map_err(|problem| Problem::from(format!("{}: {problem}", self.source.label)))
    }

    fn close(&self) {
        drop(self.source.text.take());
    }

    fn load(&self) -> Result<(), Problem> {
        self.keep().map_err(Problem::from)
    }

    fn take_snapshot(&self) {
        // Why it failed is the answer to each question.
        ignore(self.keep());
    }

    fn has_changed(&self) -> bool {
        self.source.has_changed(self.written.get())
    }
}

/// The answer of these lines, which must be the same for a search and for a complete reading.
#[cfg(test)]
pub(super) fn find<F: Format>(format: &F, bytes: &[u8], key: &str) -> Answer {
    let (_, whole) = parse(format.whole(), "F", bytes);
    let asked = Asked::new(key, &ClientKeys::default());
    let (_, search) = parse(format.search(asked), "F", bytes);
    let answer = whole.expect("a table").answer(key).expect("searched");
    let found = search.expect("a table").answer(key);
    assert_eq!(found.as_ref(), Some(&answer));
    answer
}

/// The contents of these lines with the warnings, or the error.
#[cfg(test)]
pub(super) fn parse<C: Contents>(
    contents: C,
    label: &str,
    bytes: &[u8],
) -> (Vec<String>, Result<C, String>) {
    let source = Source::in_memory(label, bytes);
    take_lines(contents, &source, &mut &bytes[..]).expect("bytes can be read")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::lines::logical_lines;

    /// A text that arrives a few bytes at a time, with interruptions.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1 * 5 % 7;
            if self.1 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = self.1.min(buffer.len());
            self.0.read(buffer.get_mut(..count).unwrap_or_default())
        }
    }

    /// The logical lines of a text, block by block.
    fn lines(text: &mut dyn Read, size: usize) -> Vec<(usize, Vec<u8>)> {
        let mut blocks = Blocks::new(text);
        blocks.buffer = vec![0; size];
        let (mut found, mut lines_read) = (Vec::new(), 0);
        while blocks.next().expect("read") {
            let mut lines = lines_after(lines_read, blocks.block());
            for logical in lines.by_ref() {
                found.push((logical.first_line, logical.text.into_owned()));
            }
            lines_read = lines.lines_read();
        }
        found
    }

    proptest! {
        #[test]
        fn blocks_end_where_lines_do(text in "([ab#]|[ab#]| |\n|\n|\0){0,40}", size in 1_usize..50) {
            let text = text.as_bytes();
            let expected: Vec<(usize, Vec<u8>)> = logical_lines(text)
                .map(|logical| (logical.first_line, logical.text.into_owned()))
                .collect();
            prop_assert_eq!(&lines(&mut Slowly(text, 3), size), &expected);
            prop_assert_eq!(&lines(&mut &text[..], size), &expected);
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_a_block_and_longer() {
        for length in [BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let text = format!("first\n{}\nlast\n", "x".repeat(length)).into_bytes();
            let lengths: Vec<(usize, usize)> = lines(&mut &text[..], BLOCK)
                .iter()
                .map(|(line, text)| (*line, text.len()))
                .collect();
            assert_eq!(lengths, [(1, 5), (2, length), (3, 4)]);
        }
    }
}
