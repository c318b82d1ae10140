//! A postlogd(8) that writes nothing down: every line that a server logs, without what changes from run to run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use super::instance::LOG_HOST;
use super::patience::PATIENCE;

/// What tells the catcher that no more lines will come. No program logs a bare NUL.
const LAST: &[u8] = b"\0";

type Lines = Arc<(Mutex<Vec<Vec<u8>>>, Condvar)>;

/// The listening end of `public/postlog`.
pub struct MailLog {
    path: PathBuf,
    lines: Lines,
    reader: JoinHandle<()>,
}

impl MailLog {
    /// Listens at `path`. A thread takes the lines away at once: the kernel holds ten and then makes a sender wait.
    pub fn listen(path: &Path) -> MailLog {
        let socket = UnixDatagram::bind(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        let lines = Lines::default();
        let shared = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let length = socket.recv(&mut buffer).unwrap();
                if buffer[..length] == *LAST {
                    return;
                }
                shared.0.lock().unwrap().push(buffer[..length].to_vec());
                shared.1.notify_all();
            }
        });
        let path = path.to_path_buf();
        MailLog {
            path,
            lines,
            reader,
        }
    }

    /// A way to wait for a line while the server runs.
    pub fn watch(&self) -> Watch {
        Watch {
            lines: Arc::clone(&self.lines),
        }
    }

    /// Every line that came, in order. To be called when the server has ended.
    pub fn finish(self) -> Vec<Vec<u8>> {
        UnixDatagram::unbound()
            .unwrap()
            .send_to(LAST, &self.path)
            .unwrap();
        self.reader.join().unwrap();
        std::mem::take(&mut self.lines.0.lock().unwrap())
    }
}

/// Waits for log lines.
pub struct Watch {
    lines: Lines,
}

impl Watch {
    /// Returns when a line that contains `part` has come; fails if none does.
    pub fn wait_for(&self, part: &str) {
        let is_missing = |lines: &mut Vec<Vec<u8>>| {
            !lines
                .iter()
                .any(|line| String::from_utf8_lossy(line).contains(part))
        };
        let lines = self.lines.0.lock().unwrap();
        let waited = self.lines.1.wait_timeout_while(lines, PATIENCE, is_missing);
        assert!(!waited.unwrap().1.timed_out(), "no {part:?} in the log");
    }
}

/// A line without date, host, tag and process id, if they are as postlogd(8) wants them; else the whole line. Of a tag
/// that is not the usual one the name stays.
pub fn text_of(line: &[u8], pid: u32) -> Vec<u8> {
    let (host, end) = (format!(" {LOG_HOST} "), format!("[{pid}]: "));
    let rest = line.get(DATE..).filter(|_| is_date(&line[..DATE]));
    let rest = rest.and_then(|rest| rest.strip_prefix(host.as_bytes()));
    let tag = rest.and_then(|rest| {
        rest.windows(end.len())
            .position(|part| part == end.as_bytes())
    });
    match (rest, tag) {
        (Some(rest), Some(tag)) if rest[..tag] == *TAG => rest[tag + end.len()..].to_vec(),
        (Some(rest), Some(tag)) => [&rest[..tag], b": ", &rest[tag + end.len()..]].concat(),
        _ => line.to_vec(),
    }
}

/// What lines are tagged with by default.
const TAG: &[u8] = b"postfix/qmqpd";

/// The length of `Nov 02 13:50:19`.
const DATE: usize = 15;

fn is_date(text: &[u8]) -> bool {
    let shape = text.iter().map(|byte| match byte {
        b'A'..=b'Z' => 'A',
        b'a'..=b'z' => 'a',
        b'0'..=b'9' => '0',
        other => char::from(*other),
    });
    shape.eq("Aaa 00 00:00:00".chars())
}

/// Lines of standard error with the process id of each as PID.
pub fn without_ids(lines: &str) -> String {
    let lines = lines.split_inclusive('\n').map(|line| {
        let Some((tag, rest)) = line.split_once("qmqpd[") else {
            return line.to_owned();
        };
        match rest.split_once("]: ") {
            Some((id, text)) if id.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{tag}qmqpd[PID]: {text}")
            }
            _ => line.to_owned(),
        }
    });
    lines.collect()
}
