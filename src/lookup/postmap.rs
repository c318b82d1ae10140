//! Tables of all other types: Postfix's own postmap(1) reads them.
//!
//! No process that serves clients loads a database library or a plugin. Follows `tests/spec/client-access.md`, section
//! 4, and postmap(1). Starting and ending the program is left to `sys::program`.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::database::Database;
use super::table::{
    ClientKeys, Keys, ParentStyle, Problem, Reason, Table, parents_of, unavailable,
};
use super::{Note, TableSettings};
use crate::config::{self, Owner, read_file};
use crate::jail;
use crate::log::{self, Shown, error_text};
use crate::sys::program::{Confinement, Output, Program, Rights};

/// The end of the warning about a type that may be in a package of its own.
pub const PACKAGE_QUESTION: &str = " package installed?";

/// The limit for an answer. With the error delay a client still has its reply within 20 s.
const LIMIT: Duration = Duration::from_secs(15);

/// The age at which the program is ended: the lookup of the client's name may take 15 s before the first key.
const FUSE: Duration = Duration::from_secs(40);

/// The longest answer that is read.
const OUTPUT_LIMIT: usize = 1024 * 1024;

/// The limits for writing out a whole table: time and size.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);
const SNAPSHOT_SIZE: usize = 256 * 1024 * 1024;

/// The largest number of warnings that are passed on.
const COMPLAINTS: usize = 20;

/// The largest number of lines about single keys that are passed on. A name has at most 127 parents.
const REMARKS: usize = 1000;

/// The beginning of postmap's own lines, as opposed to those of a library.
const SPEAKER: &str = "postmap: ";

/// The level of lines that do not end a lookup.
const WARNING: &str = "warning: ";

/// The levels of lines that end a lookup, after the program's name.
const FAILURES: &[&str] = &["fatal: ", "panic: ", "error: "];

/// The text of warnings with which postmap takes a key for not found without having looked it up.
///
/// Unlike Postfix, which continues with the next rule when PCRE or the C library gives up a match, and takes a nis
/// table without a domain for an empty one: the rule or the table may be the one that keeps the client out
/// (`tests/spec/differences.md`, 20).
const UNANSWERED: &[&str] = &[
    " limit exceeded",
    "JIT stack limit reached",
    "nested recursion at the same subject position",
    "no more memory",
    "Memory exhausted",
    "NIS lookups disabled",
];

/// The types of Postfix and of its packages, each with its kind of keys if the table's name does not decide it.
const TYPES: &[(&str, Keys)] = &[
    ("btree", Keys::Fixed),
    ("dbm", Keys::Fixed),
    ("debug", Keys::Fixed),
    ("environ", Keys::Fixed),
    ("hash", Keys::Fixed),
    ("internal", Keys::Fixed),
    ("ldap", Keys::Fixed),
    ("lmdb", Keys::Fixed),
    ("memcache", Keys::Fixed),
    ("mongodb", Keys::Fixed),
    ("mysql", Keys::Fixed),
    ("netinfo", Keys::Fixed),
    ("nis", Keys::Fixed),
    ("nisplus", Keys::Fixed),
    ("pcre", Keys::Pattern),
    ("pgsql", Keys::Fixed),
    ("pipemap", Keys::Fixed),
    ("randmap", Keys::Pattern),
    ("sdbm", Keys::Fixed),
    ("socketmap", Keys::Pattern),
    ("sqlite", Keys::Fixed),
    ("tcp", Keys::Pattern),
    ("unionmap", Keys::Fixed),
    ("unix", Keys::Fixed),
];

/// The types with patterns as keys, of those that this program reads itself.
const NATIVE_PATTERNS: &[&str] = &["cidr", "fail", "regexp"];

/// Returns the account for a program that is told a client's name; `None` if it runs as the user of this process.
/// Called only if there is such a program.
pub type RunAs<'a> = &'a dyn Fn() -> Result<Option<Owner>, config::Error>;

/// A table that postmap(1) reads.
///
/// `postmap -q - TYPE:NAME` is started before a chroot, and waits until the client is known. It then gets all keys that
/// a list may look up, one on each line, and prints those that the table has. Its exit status is 1 both for "not found"
/// and for an error. An error always ends in a line `fatal:`, for every type of table, damaged file and dead server
/// that was tried; a warning alone (a source newer than its database, a malformed rule) is no error.
///
/// Unlike Postfix, which opens every table as root and asks it as mail_owner, a program that is told a client's name
/// runs as mail_owner from its start, without capabilities: the owner of the reverse zone has chosen the name
/// (`tests/spec/differences.md`, 17). If mail_owner may not read an indexed file, `postmap -s` writes out all its keys
/// as root, and is told no name. A file of another type is then unavailable.
///
/// A resident process has `postmap -s` write out all keys of an indexed file once, and watches the file. For tables of
/// other types each child starts a program, except in a chroot, which has none.
#[derive(Debug)]
pub(super) struct Postmap {
    name: String,
    keys: Keys,
    settings: TableSettings,
    /// The file of an indexed type, as it was when the table was opened.
    file: Option<Database>,
    /// All keys of the table, if they were read in advance, or the errors of the reading.
    snapshot: OnceCell<Result<BTreeSet<Vec<u8>>, Vec<String>>>,
    /// The styles of parents of the lists that may come to the table.
    styles: RefCell<Vec<ParentStyle>>,
    /// The program until it is asked, or the reason why there is none.
    program: RefCell<Option<Result<Running, String>>>,
    found: OnceCell<Result<Vec<String>, Vec<String>>>,
}

/// A started program, and its task.
#[derive(Debug)]
enum Running {
    /// Reads keys, and prints those that the table has.
    Query(Program),
    /// Writes the whole table out.
    Dump(Program),
}

impl Postmap {
    /// Checks without a program that the type exists, and that an indexed file is there.
    pub(super) fn new(
        table: &str,
        (kind, name): (&str, &str),
        settings: &TableSettings,
        notes: &mut Vec<Note>,
    ) -> Result<Postmap, Reason> {
        let known = TYPES.iter().any(|(own, _)| *own == kind);
        if !known && !is_plugin(kind, settings) {
            let reason = format!("unsupported dictionary type: {kind}");
            notes.push(Note::Warning(format!(
                "{reason}. Is the postfix-{kind}{PACKAGE_QUESTION}"
            )));
            return Err(Reason(reason));
        }
        let suffix = match kind {
            "hash" | "btree" => Some("db"),
            "lmdb" => Some("lmdb"),
            _ => None,
        };
        let file = suffix
            .map(|suffix| Database::at(format!("{name}.{suffix}")))
            .transpose()?
            .map(|mut file| {
                // The time of an lmdb file changes without a change of its content.
                file.written = file.written.filter(|_| kind != "lmdb");
                file
            });
        Ok(Postmap {
            name: table.to_owned(),
            keys: keys_of(kind, name),
            settings: settings.clone(),
            file,
            snapshot: OnceCell::new(),
            styles: RefCell::default(),
            program: RefCell::default(),
            found: OnceCell::new(),
        })
    }

    /// Starts the program for the lookups, unless all keys are known. `parents` is the style of the list.
    pub(super) fn start(&self, parents: ParentStyle, run_as: RunAs<'_>) {
        if self.snapshot.get().is_some() {
            return;
        }
        let mut styles = self.styles.borrow_mut();
        if !styles.contains(&parents) {
            styles.push(parents);
        }
        let mut program = self.program.borrow_mut();
        if program.is_none() {
            *program = Some(self.start_query(run_as));
        }
    }

    /// Ends the program if it has not been asked.
    pub(super) fn dismiss(&self) {
        if let Some(Ok(Running::Query(program) | Running::Dump(program))) = self.program.take() {
            program.dismiss();
        }
    }

    /// Whether a program is started for each client.
    pub(super) fn runs_a_program(&self) -> bool {
        self.file.is_none()
    }

    /// All keys that the lists may look up for a client.
    fn keys_for(&self, client: &ClientKeys<'_>) -> Vec<String> {
        let mut keys: Vec<String> = client.name.into_iter().map(str::to_owned).collect();
        if let (Some(name), Keys::Fixed) = (client.name, self.keys) {
            for style in self.styles.borrow().iter() {
                keys.extend(parents_of(name, *style).map(str::to_owned));
            }
        }
        keys.extend(client.addr.map(str::to_owned));
        keys.retain(|key| !key.is_empty() && !key.contains('\n'));
        keys
    }

    fn ask(&self, client: &ClientKeys<'_>) -> Result<Vec<String>, Vec<String>> {
        let refuse = |reason: &str| Err(unavailable(&self.name, reason).0);
        let running = match self.program.take() {
            Some(Ok(running)) => running,
            Some(Err(reason)) => return refuse(&reason),
            None => {
                return refuse(
                    &self.use_proxy("tables of this type are not read from inside a chroot"),
                );
            }
        };
        let keys = self.keys_for(client);
        match running {
            Running::Query(program) => {
                let input: String = keys.iter().map(|key| format!("{key}\n")).collect();
                let output = self.finished(program, input.as_bytes(), LIMIT, OUTPUT_LIMIT)?;
                self.answer(&output, &keys)
            }
            Running::Dump(program) => {
                let all = self.keys_of_dump(program, LIMIT)?;
                let has = |key: &&String| all.contains(key.as_bytes());
                Ok(keys.iter().filter(has).cloned().collect())
            }
        }
    }

    fn finished(
        &self,
        program: Program,
        input: &[u8],
        limit: Duration,
        kept: usize,
    ) -> Result<Output, Vec<String>> {
        program.finish(input, limit, kept).map_err(|error| {
            let text = if error.kind() == io::ErrorKind::TimedOut {
                format!("postmap(1) took longer than {} seconds", limit.as_secs())
            } else {
                format!("postmap(1): {}", error_text(&error))
            };
            unavailable(&self.name, &text).0
        })
    }

    /// Starts the program for the lookups, as mail_owner if this process is root.
    fn start_query(&self, run_as: RunAs<'_>) -> Result<Running, String> {
        let owner = run_as().map_err(|error| error.to_string())?;
        let rights = match &owner {
            None => Rights::User,
            Some(Owner {
                uid, gid, groups, ..
            }) => Rights::Account {
                uid: *uid,
                gid: *gid,
                groups,
                file: self.file.as_ref().map(|file| Path::new(&file.path)),
            },
        };
        let filter = if self.settings.sandbox {
            jail::program_filter()
        } else {
            Vec::new()
        };
        let confinement = Confinement {
            rights,
            filter: &filter,
        };
        match self.run(&["-q", "-", &self.name], confinement, FUSE) {
            Ok(program) => Ok(Running::Query(program)),
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && owner.is_some()
                    && self.file.is_some() =>
            {
                self.start_dump(FUSE).map(Running::Dump)
            }
            Err(error) => Err(self.cannot_run(&error)),
        }
    }

    /// Starts the program that writes the table out, with all rights: it is told no name.
    fn start_dump(&self, fuse: Duration) -> Result<Program, String> {
        self.run(&["-s", &self.name], Confinement::NONE, fuse)
            .map_err(|error| self.cannot_run(&error))
    }

    fn cannot_run(&self, error: &io::Error) -> String {
        let (postmap, error) = (self.settings.postmap.display(), error_text(error));
        self.use_proxy(&format!("cannot run {postmap}: {error}"))
    }

    fn run(
        &self,
        arguments: &[&str],
        confinement: Confinement<'_>,
        fuse: Duration,
    ) -> io::Result<Program> {
        let TableSettings {
            postmap,
            config_directory,
            ..
        } = &self.settings;
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let environment = [(OsStr::new("MAIL_CONFIG"), config_directory.as_os_str())];
        Program::start(postmap, &arguments, &environment, confinement, fuse)
    }

    /// All keys of the table.
    fn read_all(&self) -> Result<BTreeSet<Vec<u8>>, Vec<String>> {
        let program = self
            .start_dump(SNAPSHOT_LIMIT)
            .map_err(|reason| unavailable(&self.name, &reason).0)?;
        self.keys_of_dump(program, SNAPSHOT_LIMIT)
    }

    /// The keys that the program has written.
    fn keys_of_dump(
        &self,
        program: Program,
        limit: Duration,
    ) -> Result<BTreeSet<Vec<u8>>, Vec<String>> {
        let output = self.finished(program, b"", limit, SNAPSHOT_SIZE)?;
        log_remarks(&output.stderr);
        let complaints = self.complaints(&output.stderr);
        if output.status.code() != Some(0) || output.cut {
            return Err(complaints);
        }
        log_all(&complaints);
        let lines = output.stdout.split(|&b| b == b'\n');
        let key = |line: &[u8]| {
            Some(
                line.split_at(line.iter().position(|&b| b == b'\t')?)
                    .0
                    .to_vec(),
            )
        };
        Ok(lines.filter_map(key).collect())
    }

    /// The keys that were found, or the errors of the lookup.
    fn answer(&self, output: &Output, keys: &[String]) -> Result<Vec<String>, Vec<String>> {
        log_remarks(&output.stderr);
        let complaints = self.complaints(&output.stderr);
        let is_answer = !output.cut && !says_failure(&output.stderr);
        match output.status.code() {
            Some(0) if is_answer => {
                log_all(&complaints);
                Ok(found(&output.stdout, keys))
            }
            Some(1) if is_answer && output.stdout.is_empty() => {
                log_all(&complaints);
                Ok(Vec::new())
            }
            Some(0 | 1) => Err(complaints),
            Some(_) | None => {
                let mut complaints = complaints;
                complaints.push(format!("{}: postmap(1): {}", self.name, output.status));
                Err(complaints)
            }
        }
    }

    /// postmap's warnings in the form of a daemon's, each once: a warning may come with every key.
    fn complaints(&self, stderr: &[u8]) -> Vec<String> {
        let name = &self.name;
        let lines = stderr
            .split(|&b| b == b'\n')
            .filter(|line| !line.is_empty());
        let translate = |line: &[u8]| {
            if remark(line).is_some() {
                return None;
            }
            let line = Shown(line).to_string();
            let text = line.strip_prefix(SPEAKER).unwrap_or(&line);
            if let Some(text) = text.strip_prefix(WARNING) {
                // An empty value is an error for the author of a table, not for a list.
                let about_value = text
                    .strip_prefix(&format!("table {name}"))
                    .is_some_and(|rest| {
                        rest.ends_with(": empty string result is not allowed")
                            || rest == " should return NO RESULT in case of NOT FOUND"
                    });
                return (!about_value).then(|| text.to_owned());
            }
            match text.strip_prefix("fatal: ") {
                // The list logs the same.
                Some(text) if text.starts_with(&format!("table {name}: query error")) => None,
                Some(text) => Some(format!("{name} is unavailable. {text}")),
                None => Some(text.to_owned()),
            }
        };
        let mut complaints: Vec<String> = Vec::new();
        for complaint in lines.filter_map(translate) {
            if complaints.len() < COMPLAINTS && !complaints.contains(&complaint) {
                complaints.push(complaint);
            }
        }
        complaints
    }

    fn use_proxy(&self, problem: &str) -> String {
        let name = &self.name;
        format!("{problem}, perhaps you should use \"proxy:{name}\" instead")
    }
}

impl Table for Postmap {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        self.keys
    }

    fn take_snapshot(&self) {
        if self.file.is_some() {
            self.snapshot.get_or_init(|| self.read_all());
        }
    }

    fn has_changed(&self) -> bool {
        self.file.as_ref().is_some_and(Database::has_changed)
    }

    fn close(&self) {
        self.dismiss();
        if let Some(file) = &self.file {
            file.close();
        }
    }

    fn find(&self, key: &str, client: &ClientKeys<'_>) -> Result<Option<Vec<u8>>, Problem> {
        match self.snapshot.get() {
            Some(Ok(keys)) => return Ok(keys.contains(key.as_bytes()).then(Vec::new)),
            Some(Err(complaints)) => return Err(Problem(complaints.clone())),
            None => {}
        }
        match self.found.get_or_init(|| self.ask(client)) {
            Ok(found) => Ok(found.iter().any(|own| own == key).then(Vec::new)),
            Err(complaints) => Err(Problem(complaints.clone())),
        }
    }
}

/// Whether a line reports that a lookup failed.
fn says_failure(stderr: &[u8]) -> bool {
    let mut lines = stderr.split(|&b| b == b'\n');
    lines.any(|line| {
        let line = String::from_utf8_lossy(line);
        let Some(text) = line.strip_prefix(SPEAKER) else {
            return false;
        };
        FAILURES.iter().any(|level| text.starts_with(level))
            || text.starts_with(WARNING) && UNANSWERED.iter().any(|what| text.contains(what))
    })
}

/// A line of postmap's without a level. Tables of the type debug write one for each key.
fn remark(line: &[u8]) -> Option<&[u8]> {
    let text = line.strip_prefix(SPEAKER.as_bytes())?;
    let has_level = |level: &&'static str| text.starts_with(level.as_bytes());
    let is_remark = !FAILURES.iter().chain(&[WARNING]).any(has_level);
    is_remark.then_some(text)
}

fn log_remarks(stderr: &[u8]) {
    let lines = stderr.split(|&b| b == b'\n');
    for text in lines.filter_map(remark).take(REMARKS) {
        log::info!("{}", Shown(text));
    }
}

fn log_all(complaints: &[String]) {
    for complaint in complaints {
        log::warning!("{complaint}");
    }
}

/// The keys, of those looked up, at the beginning of lines `KEY TAB VALUE`.
fn found(stdout: &[u8], keys: &[String]) -> Vec<String> {
    let has = |key: &str| {
        let mut lines = stdout.split(|&b| b == b'\n');
        lines.any(|line| {
            line.strip_prefix(key.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&b'\t'))
        })
    };
    keys.iter().filter(|key| has(key)).cloned().collect()
}

/// The kind of a table's keys. Unknown types count as names, which most databases have.
fn keys_of(kind: &str, name: &str) -> Keys {
    let of_inner = |table: &str| match table.split_once(':') {
        Some((kind, name)) => keys_of(kind, name),
        None => Keys::Fixed,
    };
    match kind {
        "debug" => of_inner(name),
        // The first of several tables decides.
        "pipemap" | "unionmap" => of_inner(name.trim_start_matches(['{', ',', ' ', '\t'])),
        _ if NATIVE_PATTERNS.contains(&kind) => Keys::Pattern,
        _ => {
            let known = TYPES.iter().find(|(own, _)| *own == kind);
            known.map_or(Keys::Fixed, |(_, keys)| *keys)
        }
    }
}

/// Whether dynamicmaps.cf has a line for the type.
fn is_plugin(kind: &str, settings: &TableSettings) -> bool {
    let directory = settings.meta_directory.clone();
    let directory = directory.unwrap_or_else(config::default_meta_directory);
    let main = directory.join("dynamicmaps.cf");
    let parts = fs::read_dir(directory.join("dynamicmaps.cf.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()));
    std::iter::once(main)
        .chain(parts)
        .any(|path| names(&path, kind))
}

fn names(path: &Path, kind: &str) -> bool {
    let text = read_file(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .any(|line| line.split_whitespace().next() == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fixed_or_patterns_by_type() {
        for (kind, name, keys) in [
            ("hash", "/x", Keys::Fixed),
            ("pcre", "/x", Keys::Pattern),
            ("new", "/x", Keys::Fixed),
            ("debug", "tcp:localhost:1", Keys::Pattern),
            ("unionmap", "{inline:{a=b},pcre:/f}", Keys::Fixed),
            ("pipemap", "{ regexp:/f, inline:{a=b} }", Keys::Pattern),
            (
                "unionmap",
                "{ {unionmap:{pcre:/f}}, inline:{a=b} }",
                Keys::Pattern,
            ),
        ] {
            assert_eq!(keys_of(kind, name), keys, "{kind}:{name}");
        }
    }

    #[test]
    fn a_failure_is_known_by_its_level_or_by_what_postmap_did_not_do() {
        for (stderr, failed) in [
            ("", false),
            (
                "postmap: warning: database x.db is older than source file x\n",
                false,
            ),
            ("postmap: warning: table fatal: x\npostmap: note\n", false),
            ("BDB0061 PANIC: x\nfatal: y\nerror: z\n", false),
            ("postmap: warning: x\npostmap: fatal: y\n", true),
            ("postmap: panic: y", true),
            ("postmap: error: y\npostmap: z", true),
            (
                "postmap: texthash:/x lookup: \"a\" = \"no more memory\"\n",
                false,
            ),
            (
                "postmap: warning: pcre map x, line 1: match limit exceeded\n",
                true,
            ),
            (
                "postmap: warning: pcre map x, line 1: matching depth limit exceeded\n",
                true,
            ),
            (
                "postmap: warning: dict_nis_init: NIS domain name not set - NIS lookups disabled",
                true,
            ),
        ] {
            assert_eq!(says_failure(stderr.as_bytes()), failed, "{stderr}");
        }
    }

    #[test]
    fn only_keys_at_the_beginning_of_lines_are_found() {
        let keys = ["a.example", "example", ".example", "127.0.0.1"].map(str::to_owned);
        let output = b"example\tx\nb\na.example\n127.0.0.11\ty\n.example\t\n";
        assert_eq!(found(output, &keys), ["example", ".example"]);
    }
}
