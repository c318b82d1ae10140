//! Reads main.cf when no program is writing it, and splits its lines of `name = value`.
//!
//! Follows `tests/spec/main-cf.md`, sections 1 and 2, and postconf(5). Parameters and references are left to `config`
//! and `config::expand`.

use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::FileStat;

use super::error::Error;
use super::file::open_file;
use super::lines::{self, Logical, is_space, trim};
use crate::log::{Shown, error_text};
use crate::sys::bytes;

/// A file changed less than this before it was read may still be in somebody's hands.
const SETTLE: Duration = Duration::from_secs(1);

/// The pause before such a file is read again.
const PAUSE: Duration = Duration::from_millis(300);

/// The largest number of readings. Four pauses are enough for a file that no longer changes. Postfix reads on for ever,
/// and a program that keeps rewriting the file would keep every client waiting (`tests/spec/differences.md`, 31).
const READINGS: u32 = 10;

/// Debian's main.cf has 27 kB with all its comments, and most others a tenth of that.
const USUAL_SIZE: usize = 32 * 1024;

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
        let mut file = open_file(path).map_err(|error| failed("open", &error))?;
        let mut bytes = Vec::with_capacity(USUAL_SIZE);
        // `take` without a limit keeps the standard library from asking for the size first. The time is asked for last,
        // so that it shows a change during the reading.
        let changed = Read::by_ref(&mut file)
            .take(u64::MAX)
            .read_to_end(&mut bytes)
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

/// Takes a name and its value, and returns the different value that the name had before.
type Set<'a> = dyn FnMut(&[u8], &[u8]) -> Option<Vec<u8>> + 'a;

/// Calls `set` for each line of the file `path`, and `warn` with what looks like a mistake but is none.
pub(super) fn parse(
    path: &str,
    bytes: &[u8],
    warn: &mut dyn FnMut(String),
    set: &mut Set<'_>,
) -> Result<(), Error> {
    for line in lines::logical_lines(bytes) {
        let first = line.first_line;
        if line.has_nul {
            warn(nul_in(path, &line));
        }
        let text = line.up_to_nul();
        if let Some(warning) = lines::misplaced(path, text) {
            warn(warning);
            continue;
        }
        let (name, value) = split(text).map_err(|problem| {
            let text = Shown(text);
            Error::new(format!("{path}, line {first}: {problem}: \"{text}\""))
        })?;
        if let Some(earlier) = set(name, value) {
            let (name, earlier) = (Shown(name), Shown(&earlier));
            warn(format!(
                "{path}, line {first}: overriding earlier entry: {name}={earlier}"
            ));
        }
    }
    Ok(())
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
    let text = trim(text);
    let at = bytes::position(text, b'=').unwrap_or(text.len());
    let (name, rest) = text.split_at(at);
    let name = trim(name);
    let has_space = name.iter().any(|&b| b <= b' ' && is_space(b));
    match rest.split_first() {
        Some((_, value)) if !has_space && !name.is_empty() => Ok((name, trim(value))),
        _ if name.is_empty() => Err("missing attribute name"),
        _ => Err("missing '=' after attribute name"),
    }
}
