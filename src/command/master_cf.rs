//! Reads the lines of master.cf that start this program; for `--check`.
//!
//! Reads only how qmqpd is started: service, type, chroot and arguments. All else is left to master(8). Follows
//! master(5) and `tests/spec/master.md`, section 2.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::lines::logical_lines;
use crate::config::{Config, read_file};

/// The name of the program in master.cf.
const PROGRAM: &str = "qmqpd";

/// A service whose program is qmqpd, this one or Postfix's.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// `FILE, line N`.
    pub place: String,
    /// `inet`, `unix` or `pass`.
    pub kind: String,
    pub has_chroot: bool,
    /// The program that is started: a bare name is below daemon_directory.
    pub program: PathBuf,
    /// The arguments, with those that master adds.
    pub arguments: Vec<OsString>,
}

/// The services in the master.cf beside main.cf; none if there is no such file.
pub fn services(config: &Config) -> Vec<Service> {
    let path = Path::new(&config.main_cf()).with_file_name("master.cf");
    let text = read_file(&path).unwrap_or_default();
    let daemons = config.expanded("daemon_directory").unwrap_or_default();
    let daemons = PathBuf::from(String::from_utf8_lossy(&daemons).into_owned());
    let old = config
        .expanded("compatibility_level")
        .is_some_and(|level| level.starts_with(b"0"));
    let services = logical_lines(&text).filter_map(|line| {
        let text = String::from_utf8_lossy(&line.text).into_owned();
        let place = format!("{}, line {}", path.display(), line.first_line);
        service(place, &text, old, &daemons)
    });
    services.collect()
}

/// The service of a line, if it starts a program of this name. `old` tells whether the default of the chroot field is
/// yes.
fn service(place: String, line: &str, old: bool, daemons: &Path) -> Option<Service> {
    let words = words(line);
    let [
        name,
        kind,
        _private,
        _unpriv,
        chroot,
        _wakeup,
        _limit,
        command,
        arguments @ ..,
    ] = &*words
    else {
        return None;
    };
    let has_chroot = match chroot.as_str() {
        "y" => true,
        "-" => old,
        _ => false,
    };
    let is_ours = |path: &str| {
        Path::new(path)
            .file_name()
            .is_some_and(|file| file == PROGRAM)
    };
    if is_ours(command) {
        let own = ["-n", name, "-t", kind].map(OsString::from);
        return Some(Service {
            place,
            kind: kind.clone(),
            has_chroot,
            program: daemons.join(command),
            arguments: own
                .into_iter()
                .chain(arguments.iter().map(OsString::from))
                .collect(),
        });
    }
    // spawn(8) starts the program for each connection, on standard input.
    let argv = arguments
        .iter()
        .position(|word| word.starts_with("argv="))?;
    let (first, rest) = arguments.get(argv..)?.split_first()?;
    let program = first.strip_prefix("argv=").filter(|path| is_ours(path))?;
    Some(Service {
        place,
        kind: kind.clone(),
        has_chroot: false,
        program: program.into(),
        arguments: rest.iter().map(OsString::from).collect(),
    })
}

/// The words of a line. Text in braces is one word, without the braces.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let braced = rest
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'));
        let (word, after) = match braced {
            Some((inside, after)) => (inside.trim(), after),
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_started_and_how() {
        let of = |line: &str, old: bool| service("m".to_owned(), line, old, Path::new("/d"));
        let inet = of("628 inet n - - - - qmqpd -o a=b -o { c = d e }", false).unwrap();
        assert_eq!(inet.program, Path::new("/d/qmqpd"));
        assert_eq!(
            inet.arguments,
            ["-n", "628", "-t", "inet", "-o", "a=b", "-o", "c = d e"]
        );
        assert_eq!((inet.has_chroot, &*inet.kind), (false, "inet"));
        assert!(of("628 inet n - - - - qmqpd", true).unwrap().has_chroot);
        assert!(of("628 inet n - y - - qmqpd", false).unwrap().has_chroot);
        let spawn = of(
            "qmqp inet n n n - 50 spawn user=nobody argv=/usr/sbin/qmqpd -v",
            false,
        )
        .unwrap();
        assert_eq!(
            (spawn.program, spawn.arguments),
            ("/usr/sbin/qmqpd".into(), vec!["-v".into()])
        );
        assert_eq!(of("smtp inet n - y - - smtpd", false), None);
        assert_eq!(of("qmqpd", false), None);
    }
}
