//! What must hold of every session, whatever was done to it.

use nix::errno::Errno;

use crate::harness::outcome::Ending;
use crate::harness::trace::Call;
use crate::session::{Method, Seen, Setting};

/// What was done to a session.
#[derive(Debug)]
pub struct Fault<'a> {
    /// The error that a call is said to have had; nothing for a signal.
    pub errno: Option<Errno>,
    /// What the log may say of it, besides what strerror(3) says, or that time is up.
    pub words: &'a [&'a str],
    /// The call that it happened in.
    pub call: Option<&'a Call>,
    /// Where in the session.
    pub phase: Phase,
}

impl Fault<'_> {
    /// The message cannot be known to be in the queue.
    fn is_in_the_way(&self) -> bool {
        let necessary = self.call.is_some_and(|call| {
            let is_it =
                |(name, object): &(&str, &str)| call.name == *name && call.object == *object;
            NECESSARY.iter().any(is_it)
        });
        necessary && self.errno.is_some_and(|errno| errno != Errno::EINTR)
    }
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The loader and the standard library are at work: nothing of ours has run.
    Load,
    /// There is no handler for alarms yet.
    Start,
    /// The log is not open yet.
    Configure,
    Serve,
}

/// Calls on whose success `K` depends, with their other end. An interrupted one may be made again.
const NECESSARY: [(&str, &str); 13] = [
    ("read", "client"),
    ("read", "cleanup"),
    ("write", "cleanup"),
    ("openat", "incoming"),
    ("renameat", "incoming"),
    ("mkdirat", "incoming"),
    ("write", "incoming"),
    ("pwrite64", "incoming"),
    ("fchmod", "incoming"),
    ("fsync", "incoming"),
    ("write", "message"),
    ("write", "envelope"),
    ("wait4", "program"),
];

/// The letter that a table has for what came of it: K and Z as the client heard it, `-` for silence; `z` and `q` the
/// same where the message is in the queue all the same, so that it may come twice. An error is a promise broken.
pub fn outcome(
    setting: &Setting,
    clean: &Seen,
    seen: &Seen,
    fault: &Fault,
) -> Result<char, String> {
    judged(setting, clean, seen, fault).map_err(|broken| {
        let Seen {
            exit, log, stderr, ..
        } = seen;
        let reply = String::from_utf8_lossy(&seen.reply);
        let log = log.join("\n  ");
        let method = setting.method;
        format!("{method:?}: {broken}\n  reply {reply:?}, exit {exit}, stderr {stderr:?}\n  {log}")
    })
}

fn judged(setting: &Setting, clean: &Seen, seen: &Seen, fault: &Fault) -> Result<char, String> {
    let letter = letter(seen)?;
    if seen.ending == Ending::Open || seen.exit == "killed" {
        return Err(format!("hangs, {:?}", seen.elapsed));
    }
    if letter == 'K' && !seen.queued {
        return Err("K, and nothing is queued".to_owned());
    }
    if letter == 'K' && fault.is_in_the_way() {
        return Err("K, and nobody knows".to_owned());
    }
    if letter == 'D' {
        return Err("D for a fault of ours".to_owned());
    }
    if fault.phase > Phase::Load {
        ended_well(seen, fault)?;
    }
    if !seen.left.is_empty() {
        return Err(format!("{:?} left in the queue", seen.left));
    }
    if setting.method == Method::File && letter == 'Z' && seen.queued {
        return Err("Z, and it is queued".to_owned());
    }
    if fault.phase == Phase::Serve && !is_explained(letter, clean, seen, fault) {
        return Err("no line names the cause".to_owned());
    }
    Ok(match letter {
        'Z' if seen.queued => 'z',
        '-' if seen.queued => 'q',
        letter => letter,
    })
}

/// Without a panic, and not by a signal but the one that nothing catches yet.
fn ended_well(seen: &Seen, fault: &Fault) -> Result<(), String> {
    let panicked = |line: &str| line.contains("panic");
    if panicked(&seen.stderr) || seen.log.iter().any(|line| panicked(line)) {
        return Err("a panic".to_owned());
    }
    let by_alarm = fault.phase == Phase::Start && seen.exit == "signal 14";
    if by_alarm || ["0", "1"].contains(&&*seen.exit) {
        return Ok(());
    }
    Err(format!("ends by {}", seen.exit))
}

/// The first byte of the reply, of which there is one at most.
fn letter(seen: &Seen) -> Result<char, String> {
    let reply = String::from_utf8_lossy(&seen.reply);
    if reply.is_empty() {
        return Ok('-');
    }
    let text = reply
        .split_once(':')
        .filter(|(length, text)| text.ends_with(',') && *length == (text.len() - 1).to_string());
    match text.and_then(|(_, text)| text.chars().next()) {
        Some(letter @ ('K' | 'Z' | 'D')) => Ok(letter),
        _ => Err(format!("not one reply: {reply:?}")),
    }
}

/// What is said of a wait that an alarm has ended, each by another part of the program.
const TIME_IS_UP: [&str; 3] = ["timeout", "timed out", "took longer than"];

/// A line has the words for the fault, or nothing can be told from the outside: accepted, and the same lines.
fn is_explained(letter: char, clean: &Seen, seen: &Seen, fault: &Fault) -> bool {
    let same = letter == 'K' && seen.log == clean.log && seen.exit == clean.exit;
    let object = fault.call.map_or("", |call| call.object);
    let said = |words: &str| seen.log.iter().any(|line| line.contains(words));
    let usual = match fault.errno {
        Some(errno) => said(strerror(errno).as_str()),
        None => TIME_IS_UP.iter().any(|words| said(words)),
    };
    same || usual
        || object == "log"
        || fault.words.iter().any(|words| said(words))
        || object == "client" && (said("lost connection while ") || said("timeout while "))
        // Postfix's own word for a conversation with cleanup that has broken off.
        || object == "cleanup" && said("mail_stream_cleanup: close error")
        // The C library does not always say why it could not find an account or a name.
        || object == "system" && (said("warning: ") || said("fatal: "))
}

fn strerror(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let (words, _) = text.split_once(" (os error ").unwrap();
    words.to_owned()
}
