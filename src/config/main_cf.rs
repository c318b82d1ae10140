//! Reads main.cf when no program is writing it, and splits its lines of `name = value`.
//!
//! Follows `tests/spec/main-cf.md`, sections 1 and 2, and postconf(5). Parameters and references are left to `config`
//! and `config::expand`.

use std::borrow::Cow;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::FileStat;

use super::error::Error;
use super::file::open_with_metadata;
use super::key_index::KeyIndex;
use super::lines::{self, Logical, is_space, skip_space, split_where, trim, up_to_nul};
use crate::log::{Shown, error_text};
use crate::sys::bytes;

/// A program may still be writing a file that has changed less than this before it was read.
const SETTLE: Duration = Duration::from_secs(1);

/// The pause before such a file is read again.
const PAUSE: Duration = Duration::from_millis(300);

/// The largest number of readings. Four pauses are enough for a file that no longer changes. Postfix reads on for ever,
/// and a program that keeps rewriting the file would keep every client waiting (`tests/spec/differences.md`, 31).
const READINGS: u32 = 10;

/// Reads with `attempt`, which returns what it read and the time of the file's last change; again and again while that
/// time is so recent that the file may have been half written.
pub fn read_settled<T, E>(mut attempt: impl FnMut() -> Result<(T, SystemTime), E>) -> Result<T, E> {
    for _ in 1..READINGS {
        let start = SystemTime::now();
        let (found, changed) = attempt()?;
        // A time in the future comes from a wrong clock.
        let recent = start.checked_sub(SETTLE).is_none_or(|from| changed >= from);
        if !recent || changed > SystemTime::now() {
            return Ok(found);
        }
        std::thread::sleep(PAUSE);
    }
    attempt().map(|(found, _)| found)
}

/// What tells a file from one that has taken its place, or from the same one after it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub(super) fn of_status(status: &FileStat) -> Stamp {
        Stamp {
            file: (status.st_dev, status.st_ino),
            size: status.st_size.unsigned_abs(),
            written: (status.st_mtime, status.st_mtime_nsec),
            changed: (status.st_ctime, status.st_ctime_nsec),
        }
    }
}

/// The contents of main.cf, and which file that was.
pub(super) fn contents(path: &Path) -> Result<(Vec<u8>, Option<Stamp>), Error> {
    let failed = |verb: &str, error: &io::Error| {
        let (path, reason) = (path.display(), error_text(error));
        Error::new(format!("{verb} {path}: {reason}"))
    };
    let mut stamp = None;
    let bytes = read_settled(|| {
        let opened = open_with_metadata(path).map_err(|error| failed("open", &error))?;
        let (mut file, found) = opened;
        // One byte more than the file has, to see its end. `take` without a limit keeps the standard library
        // from asking for the size once more. The time is asked for last, so that it shows a change during the reading.
        let size = usize::try_from(found.size()).unwrap_or_default();
        let mut bytes = Vec::new();
        let changed = bytes
            .try_reserve_exact(size.saturating_add(1))
            .map_err(io::Error::from)
            .and_then(|()| {
                Read::by_ref(&mut file)
                    .take(u64::MAX)
                    .read_to_end(&mut bytes)
            })
            .and_then(|_| {
                let metadata = file.metadata()?;
                stamp = Some(Stamp::of(&metadata));
                metadata.modified()
            });
        match changed {
            Ok(changed) => Ok((bytes, changed)),
            Err(error) => Err(failed("read", &error)),
        }
    })?;
    Ok((bytes, stamp))
}

/// The lines of main.cf by their names, each as it stands there: a process needs few of them.
#[derive(Debug)]
pub(super) struct MainCf {
    bytes: Vec<u8>,
    names: KeyIndex,
}

impl MainCf {
    /// Takes the contents of the file `path`, and calls `warn` with what looks like a mistake but is none.
    pub(super) fn parse(
        path: &str,
        bytes: Vec<u8>,
        warn: &mut dyn FnMut(String),
    ) -> Result<MainCf, Error> {
        let mut names = KeyIndex::default();
        for line in lines::logical_lines(&bytes) {
            let first = line.first_line;
            if line.has_nul {
                warn(nul_in(path, &line));
            }
            let text = line.up_to_nul();
            if let Some(warning) = lines::misplaced(path, text) {
                warn(warning);
                continue;
            }
            let name = name_of(text).map_err(|problem| {
                let text = Shown(text);
                Error::new(format!("{path}, line {first}: {problem}: \"{text}\""))
            })?;
            let earlier = names.insert(name, line.start, |start| has_name(&bytes, start, name));
            let earlier = earlier.map(|start| value_at(&bytes, start));
            if let Some(earlier) = earlier.filter(|earlier| **earlier != *value_of(text)) {
                let (name, earlier) = (Shown(name), Shown(&earlier));
                warn(format!(
                    "{path}, line {first}: overriding earlier entry: {name}={earlier}"
                ));
            }
        }
        Ok(MainCf { bytes, names })
    }

    /// The value of a name.
    pub(super) fn get(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        let bytes = &self.bytes;
        let start = self.names.find(name, |start| has_name(bytes, start, name));
        start.map(|start| value_at(bytes, start))
    }

    /// The names that are set, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.places().filter_map(|start| {
            let line = self.bytes.get(start..)?;
            Some(split_where(line, is_of_name).0)
        })
    }
}

/// Whether the line that begins there sets this name.
fn has_name(bytes: &[u8], start: usize, name: &[u8]) -> bool {
    let line = bytes.get(start..).unwrap_or_default();
    let rest = line.strip_prefix(name);
    rest.is_some_and(|rest| !rest.first().is_some_and(|&b| is_of_name(b)))
}

/// The value that the line sets that begins there.
fn value_at(bytes: &[u8], start: usize) -> Cow<'_, [u8]> {
    let line = bytes.get(start..).unwrap_or_default();
    let Some(line) = lines::logical_line(line) else {
        return Cow::default();
    };
    match line.text {
        Cow::Borrowed(text) => Cow::Borrowed(value_of(up_to_nul(text))),
        Cow::Owned(text) => Cow::Owned(value_of(up_to_nul(&text)).to_vec()),
    }
}

fn nul_in(path: &str, line: &Logical<'_>) -> String {
    let (first, last) = (line.first_line, line.last_line);
    let lines = if first == last {
        format!("{first}")
    } else {
        format!("{first}-{last}")
    };
    format!("{path}, line {lines}: text after null byte may be ignored")
}

/// Splits `name = value`, or says why the text is none. Any bytes make a name, save whitespace and `=`.
pub fn split(text: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let text = skip_space(text);
    Ok((name_of(text)?, value_of(text)))
}

/// The name in a line that begins with it.
fn name_of(line: &[u8]) -> Result<&[u8], &'static str> {
    let (name, rest) = line.split_at(bytes::position(line, b'=').unwrap_or(line.len()));
    let name = trim(name);
    // To find the lowest byte takes few steps, and nearly all names show by it that they have no space.
    let lowest = name.iter().fold(u8::MAX, |lowest, &b| lowest.min(b));
    if name.is_empty() {
        Err("missing attribute name")
    } else if rest.is_empty() || lowest <= b' ' && name.iter().any(|&b| is_space(b)) {
        Err("missing '=' after attribute name")
    } else {
        Ok(name)
    }
}

fn is_of_name(b: u8) -> bool {
    b != b'=' && !is_space(b)
}

/// The value in a line that has a name.
fn value_of(line: &[u8]) -> &[u8] {
    let value = bytes::position(line, b'=').and_then(|at| line.get(at + 1..));
    trim(value.unwrap_or_default())
}
