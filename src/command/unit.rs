//! Reads the installed systemd unit, for `--check`: whether main.cf and the queue agree with it.
//!
//! Reads only files, and does not ask systemd. Follows systemd.unit(5), systemd.exec(5) and
//! systemd.resource-control(5).

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, User, getgrouplist};

/// The unit of one session.
const UNIT: &str = "qmqpd@.service";

/// The units that listen, each with the unit of its service.
const SOCKETS: [[&str; 2]; 2] = [
    ["qmqpd.socket", UNIT],
    ["qmqpd-accept.socket", "qmqpd-accept.service"],
];

/// The directories of units and drop-ins; an earlier one has precedence.
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The memory of the program besides the message, in bytes.
const PROGRAM_MEMORY: u64 = 4 << 20;

/// The settings of the installed unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// The file of the unit, without its drop-ins.
    pub path: PathBuf,
    /// User=; root if it is not set.
    pub user: String,
    /// MemoryMax= in bytes; `None` if it is not set or has another form.
    pub memory: Option<u64>,
}

impl Unit {
    /// The unit of this machine, if it is installed.
    pub fn installed() -> Option<Unit> {
        Unit::below(&DIRECTORIES.map(PathBuf::from))
    }

    fn below(directories: &[PathBuf]) -> Option<Unit> {
        let (path, texts) = read(directories, UNIT)?;
        let mut unit = Unit {
            user: "root".to_owned(),
            ..Unit::default()
        };
        for text in texts {
            unit.read(&text);
        }
        unit.path = path;
        Some(unit)
    }

    fn read(&mut self, text: &str) {
        for setting in settings(text) {
            match setting {
                ("User", "") => "root".clone_into(&mut self.user),
                ("User", user) => user.clone_into(&mut self.user),
                ("MemoryMax", value) => self.memory = bytes(value),
                _ => {}
            }
        }
    }

    /// The smallest sufficient MemoryMax=, if a session with messages of up to `limit` bytes (0 is no limit) can need
    /// more memory than the unit has.
    pub fn lacks_memory(&self, limit: u64) -> Option<u64> {
        let needed = limit.saturating_add(PROGRAM_MEMORY);
        let memory = self.memory?;
        (limit == 0 || needed > memory).then_some(needed)
    }
}

/// A unit that listens.
#[derive(Debug, PartialEq, Eq)]
pub struct Socket {
    pub path: PathBuf,
    /// ListenStream=.
    listens: Vec<String>,
    /// The arguments with which its service starts the program.
    pub arguments: Vec<OsString>,
}

impl Socket {
    /// The listening units of this machine.
    pub fn installed() -> Vec<Socket> {
        Socket::below(&DIRECTORIES.map(PathBuf::from))
    }

    fn below(directories: &[PathBuf]) -> Vec<Socket> {
        let sockets = SOCKETS.iter().filter_map(|[socket, service]| {
            let (path, texts) = read(directories, socket)?;
            let (_, of_service) = read(directories, service)?;
            let listens = values(&texts, "ListenStream");
            let commands = values(&of_service, "ExecStart");
            let words = commands.last()?.split_whitespace().skip(1);
            Some(Socket {
                path,
                listens,
                arguments: words.map(OsString::from).collect(),
            })
        });
        sockets.collect()
    }

    /// The path of its UNIX-domain socket, if it has one.
    pub fn unix(&self) -> Option<&str> {
        let mut listens = self.listens.iter();
        let is_unix = |at: &&String| at.starts_with(['/', '@']);
        listens.find(is_unix).map(String::as_str)
    }
}

/// The file of a unit, and its text and those of its drop-ins in the order of their precedence.
fn read(directories: &[PathBuf], unit: &str) -> Option<(PathBuf, Vec<String>)> {
    let path = directories
        .iter()
        .map(|directory| directory.join(unit))
        .find(|path| path.is_file())?;
    let mut files = BTreeMap::new();
    // Of drop-ins with the same name the one in the first directory counts.
    for directory in directories.iter().rev() {
        let drop_ins = fs::read_dir(directory.join(format!("{unit}.d")));
        let names = drop_ins.into_iter().flatten().flatten();
        for entry in names.filter(|entry| entry.file_name().as_encoded_bytes().ends_with(b".conf"))
        {
            files.insert(entry.file_name(), entry.path());
        }
    }
    let texts = [&path].into_iter().chain(files.values());
    let texts = texts.map(|file| fs::read_to_string(file).unwrap_or_default());
    let texts = texts.collect();
    Some((path, texts))
}

/// Names and values.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim()))
}

/// The values of a setting that may be repeated. An empty value removes the earlier ones.
fn values(texts: &[String], wanted: &str) -> Vec<String> {
    let mut values = Vec::new();
    for (_, value) in texts
        .iter()
        .flat_map(|text| settings(text))
        .filter(|(name, _)| *name == wanted)
    {
        if value.is_empty() {
            values.clear();
        } else {
            values.push(value.to_owned());
        }
    }
    values
}

/// A size in systemd's form: a number and K, M, G or T to the base of 1024.
fn bytes(value: &str) -> Option<u64> {
    let (digits, shift) = match value.as_bytes().last()? {
        b'K' => (value.strip_suffix('K')?, 10),
        b'M' => (value.strip_suffix('M')?, 20),
        b'G' => (value.strip_suffix('G')?, 30),
        b'T' => (value.strip_suffix('T')?, 40),
        _ => (value, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The first part of `path` that the user may not use: a directory to enter, or the last part to write to. Root may use
/// all. A missing part is reported elsewhere.
pub fn out_of_reach(user: &User, path: &Path) -> Option<PathBuf> {
    if user.uid.is_root() {
        return None;
    }
    let name = CString::new(user.name.clone()).ok()?;
    let groups = getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]);
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    parts.into_iter().find_map(|part| {
        let there = fs::metadata(part).ok()?;
        let wanted = if part == path { 0o2 } else { 0o1 };
        let shift = if there.uid() == user.uid.as_raw() {
            6
        } else if groups.contains(&Gid::from_raw(there.gid())) {
            3
        } else {
            0
        };
        (there.mode() >> shift & wanted == 0).then(|| part.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_come_after_the_unit_and_the_first_directory_counts() {
        let dir = std::env::temp_dir().join(format!("qmqpd-unit-{}", std::process::id()));
        let [etc, lib] = ["etc", "lib"].map(|name| dir.join(name));
        assert_eq!(Unit::below(&[etc.clone(), lib.clone()]), None);
        for (path, text) in [
            (lib.join(UNIT), "[Service]\nUser=postfix\nMemoryMax=64M\n"),
            (
                lib.join("qmqpd@.service.d/10-a.conf"),
                "[Service]\nMemoryMax=1G\n",
            ),
            (
                etc.join("qmqpd@.service.d/10-a.conf"),
                "[Service]\nMemoryMax=100M\n",
            ),
            (etc.join("qmqpd@.service.d/20-b.conf"), "[Service]\nUser=\n"),
            (
                etc.join("qmqpd@.service.d/30-c"),
                "[Service]\nUser=nobody\n",
            ),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let unit = Unit::below(&[etc, lib.clone()]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let (path, user) = (lib.join(UNIT), "root".to_owned());
        assert_eq!(
            unit,
            Unit {
                path,
                user,
                memory: Some(100 << 20)
            }
        );
    }

    #[test]
    fn a_socket_unit_listens_where_its_last_lines_say() {
        let dir = std::env::temp_dir().join(format!("qmqpd-socket-{}", std::process::id()));
        let [etc, lib] = ["etc", "lib"].map(|name| dir.join(name));
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (socket, service, command) in [
            ("qmqpd.socket", UNIT, "/usr/sbin/qmqpd"),
            (
                "qmqpd-accept.socket",
                "qmqpd-accept.service",
                "-/usr/sbin/qmqpd --accept -o a=b",
            ),
        ] {
            write(lib.join(socket), "[Socket]\nListenStream=628\n");
            let text = format!("[Service]\nExecStart={command}\n");
            write(lib.join(service), &text);
        }
        let at = || -> Vec<Option<String>> {
            let sockets = Socket::below(&[etc.clone(), lib.clone()]);
            sockets
                .iter()
                .map(|socket| socket.unix().map(str::to_owned))
                .collect()
        };
        assert_eq!(at(), [None, None]);
        for (value, expected) in [
            ("/run/a", Some("/run/a")),
            ("@a", Some("@a")),
            ("[::1]:628", None),
            ("/run/a\nListenStream=\nListenStream=628", None),
        ] {
            let text = format!("[Socket]\nListenStream=\nListenStream={value}\n");
            write(etc.join("qmqpd.socket.d/a.conf"), &text);
            assert_eq!(at(), [expected.map(str::to_owned), None], "{value}");
        }
        let sockets = Socket::below(&[lib]);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(sockets[0].arguments, [""; 0]);
        assert_eq!(sockets[1].arguments, ["--accept", "-o", "a=b"]);
    }

    #[test]
    fn a_message_must_fit_beside_the_program() {
        let with = |memory: Option<u64>| Unit {
            memory,
            ..Unit::default()
        };
        let limit = 60 << 20;
        assert_eq!(with(bytes("64M")).lacks_memory(limit), None);
        assert_eq!(
            with(bytes("64M")).lacks_memory(limit + 1),
            Some((64 << 20) + 1)
        );
        assert_eq!(with(bytes("64M")).lacks_memory(0), Some(PROGRAM_MEMORY));
        assert_eq!(with(bytes("infinity")).lacks_memory(0), None);
        assert_eq!(
            [bytes("5"), bytes("2K"), bytes("1T"), bytes("10%")],
            [Some(5), Some(2048), Some(1 << 40), None]
        );
    }

    #[test]
    fn a_directory_that_a_user_may_not_enter_is_found() {
        let dir = std::env::temp_dir().join(format!("qmqpd-reach-{}", std::process::id()));
        let inner = dir.join("public");
        fs::create_dir_all(&inner).unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let socket = inner.join("cleanup");
        fs::write(&socket, "").unwrap();
        for (of_inner, of_socket, expected) in [
            (0o755, 0o666, None),
            (0o750, 0o666, Some(inner.clone())),
            (0o711, 0o644, Some(socket.clone())),
        ] {
            set(&inner, of_inner);
            set(&socket, of_socket);
            assert_eq!(
                out_of_reach(&nobody, &socket),
                expected,
                "{of_inner:o} {of_socket:o}"
            );
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
