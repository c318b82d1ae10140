//! The file of an indexed table, as it was when the table was opened.
//!
//! It is opened with the rights of the start. postmap(1) writes a database anew, in the place of the old one or in the
//! same file. Authority: `tests/spec/client-access.md`, section 4.2.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use super::table::Reason;
use crate::config::open_file;
use crate::log::error_text;

/// A file that is watched.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) path: String,
    pub(super) file: File,
    pub(super) size: u64,
    /// When it was last written to.
    pub(super) written: Option<SystemTime>,
}

impl Database {
    /// The file at `path`. It has to be there.
    pub(super) fn at(path: String) -> Result<Database, Reason> {
        let opened = open_file(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened
            .map_err(|error| Reason(format!("open database {path}: {}", error_text(&error))))?;
        Ok(Database {
            path,
            file,
            size: metadata.size(),
            written: metadata.modified().ok(),
        })
    }

    /// Whether there is another one by now, or it has been written to.
    pub(super) fn has_changed(&self) -> bool {
        let Ok(now) = self.file.metadata() else {
            return true;
        };
        now.nlink() == 0 || self.written.is_some() && now.modified().ok() != self.written
    }
}
