//! The file of an indexed table, as it was when the table was opened.
//!
//! It is opened with the rights of the start. postmap(1) writes a database anew, over the old one or in its place.
//! Follows `tests/spec/client-access.md`, section 4.2. The format is left to `lookup::cdb` and postmap(1).

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use nix::errno::Errno;

use super::table::Reason;
use crate::config::open_file;
use crate::log::error_text;

/// A watched file.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) path: String,
    /// `None` after it was closed.
    file: RefCell<Option<File>>,
    pub(super) size: u64,
    /// The time of its last change.
    pub(super) written: Option<SystemTime>,
}

impl Database {
    /// Opens the file at `path`, which must exist.
    pub(super) fn at(path: String) -> Result<Database, Reason> {
        let opened = open_file(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened
            .map_err(|error| Reason(format!("open database {path}: {}", error_text(&error))))?;
        Ok(Database {
            path,
            file: RefCell::new(Some(file)),
            size: metadata.size(),
            written: metadata.modified().ok(),
        })
    }

    /// Whether the file has been replaced or written to.
    pub(super) fn has_changed(&self) -> bool {
        let file = self.file.borrow();
        file.as_ref()
            .is_none_or(|file| has_changed(file, self.written))
    }

    /// Reads bytes that must exist.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match &*self.file.borrow() {
            Some(file) => file.read_exact_at(buffer, at),
            None => Err(Errno::EBADF.into()),
        }
    }

    /// Closes the file. Its path and size stay known.
    pub(super) fn close(&self) {
        drop(self.file.take());
    }
}

/// Whether a file with this time of its last change has been removed or written to.
pub(super) fn has_changed(file: &File, written: Option<SystemTime>) -> bool {
    let Ok(now) = file.metadata() else {
        return true;
    };
    now.nlink() == 0 || written.is_some() && now.modified().ok() != written
}
