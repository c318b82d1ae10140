//! Tables that are text: a file that is opened early and read late, or rules in the table's name.
//!
//! The file is opened with the rights of the start, so that it may be root's alone, and stay outside a chroot. It is
//! read when a client's evaluation comes to the table: most clients are settled before.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read, Seek};

use super::braces::{self, next_item};
use super::table::{Problem, Reason, unavailable};
use crate::config::lines::{Logical, logical_lines, misplaced};
use crate::config::{open_file, read_settled};
use crate::log::{self, error_text};

/// Where the text of a table comes from.
#[derive(Debug)]
pub(super) enum Source {
    File {
        path: String,
        file: File,
    },
    /// `{ {rule}, {rule} }`, one line for each rule.
    Rules {
        text: String,
        lines: Vec<u8>,
    },
}

impl Source {
    /// Opens a file. The error is the system's.
    pub(super) fn file(path: &str) -> io::Result<Source> {
        Ok(Source::File {
            path: path.to_owned(),
            file: open_file(path)?,
        })
    }

    /// Opens what a table of rules is named after: a file, or the rules themselves. `kind` is the table's type.
    pub(super) fn rules(kind: &str, name: &str) -> Result<Source, Reason> {
        if !name.starts_with('{') {
            return Source::file(name)
                .map_err(|error| Reason(format!("open {name}: {}", error_text(&error))));
        }
        let refuse = |error: braces::Error<'_>| Reason(format!("{kind} map: {error}"));
        let mut rest = braces::inside(name).map_err(refuse)?;
        let mut lines = Vec::new();
        while let Some(item) = next_item(&mut rest) {
            lines.extend_from_slice(braces::inside(item).map_err(refuse)?.as_bytes());
            lines.push(b'\n');
        }
        Ok(Source::Rules {
            text: name.to_owned(),
            lines,
        })
    }

    /// The path, or the rules: what messages call the table.
    pub(super) fn name(&self) -> &str {
        match self {
            Source::File { path, .. } => path,
            Source::Rules { text, .. } => text,
        }
    }

    /// All of the text.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Source::File { file, .. } => read_from_start(file),
            Source::Rules { lines, .. } => Ok(lines.clone()),
        }
    }

    /// All of the text, once nobody has written to the file for a second.
    pub(super) fn read_settled(&self) -> io::Result<Vec<u8>> {
        match self {
            Source::File { file, .. } => read_settled(|| {
                let bytes = read_from_start(file)?;
                Ok((bytes, file.metadata()?.modified()?))
            }),
            Source::Rules { lines, .. } => Ok(lines.clone()),
        }
    }
}

fn read_from_start(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What came of reading: the table, or why it has none; and what is to be logged about it.
#[derive(Debug)]
pub(super) struct Parsed<T> {
    pub(super) warnings: Vec<String>,
    pub(super) result: Result<T, String>,
}

/// The contents of a table, once it has been read.
#[derive(Debug)]
pub(super) struct Once<T>(OnceCell<Result<T, String>>);

impl<T> Once<T> {
    pub(super) fn new() -> Once<T> {
        Once(OnceCell::new())
    }

    /// Reads with `read` the first time, and logs its warnings. `name` is the table's.
    pub(super) fn get(&self, name: &str, read: impl FnOnce() -> Parsed<T>) -> Result<&T, Problem> {
        let result = self.0.get_or_init(|| {
            let parsed = read();
            for warning in parsed.warnings {
                log::warning(format_args!("{warning}"));
            }
            parsed.result
        });
        result.as_ref().map_err(|reason| unavailable(name, reason))
    }

    /// As [`Once::get`], with the reason alone where the table cannot be used.
    pub(super) fn load(&self, read: impl FnOnce() -> Parsed<T>) -> Result<(), Problem> {
        drop(self.get("", read));
        match self.0.get() {
            Some(Err(reason)) => Err(Problem::from(reason.clone())),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

/// The logical lines of a table, up to a NUL in each of them, with their numbers. A line that should continue
/// another, and has none before it, is left out with a warning.
pub(super) fn lines<'a>(
    path: &'a str,
    bytes: &'a [u8],
    warn: &'a mut dyn FnMut(String),
) -> impl Iterator<Item = Logical> + 'a {
    logical_lines(bytes).filter_map(move |mut line| {
        if let Some(nul) = line.text.iter().position(|&b| b == 0) {
            line.text.truncate(nul);
        }
        if let Some(warning) = misplaced(path, &line.text) {
            warn(warning);
            return None;
        }
        Some(line)
    })
}
