//! A cleanup(8) that queues nothing: it notes what it is sent and answers, or misbehaves, as the dialogue says.
//!
//! One message per connection: greeting, flags, records up to `E`, verdict.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use super::patience::PATIENCE;
use super::text;

/// The queue id of every message.
pub const QUEUE_ID: &str = "ABCDEF0123";

/// What is said at one of the two points at which cleanup speaks.
#[derive(Debug, Clone)]
pub enum Say {
    Bytes(Vec<u8>),
    /// Not a word, but the connection stays open.
    Nothing,
    /// Not a word, and the connection is closed.
    Close,
}

/// How cleanup behaves.
#[derive(Debug, Clone)]
pub struct Script {
    /// Whether there is a socket at all.
    pub present: bool,
    pub greeting: Say,
    pub verdict: Say,
    /// The verdict comes after so many records; else after the first `E`.
    pub verdict_after: Option<usize>,
    /// Everything ends when the greeting has been said.
    pub closes_after_greeting: bool,
    /// Everything ends after so many records.
    pub closes_after: Option<usize>,
}

impl Default for Script {
    fn default() -> Script {
        let greeting = format!("protocol\0cleanup_protocol\0queue_id\0{QUEUE_ID}\0\0");
        Script {
            present: true,
            greeting: Say::Bytes(greeting.into_bytes()),
            verdict: verdict(b"0", b""),
            verdict_after: None,
            closes_after_greeting: false,
            closes_after: None,
        }
    }
}

fn verdict(status: &[u8], reason: &[u8]) -> Say {
    Say::Bytes([b"status\0", status, b"\0reason\0", reason, b"\0\0"].concat())
}

impl Script {
    /// Takes one `cleanup:` line of a dialogue.
    pub fn add(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let records = || {
            let count = rest
                .strip_prefix("after ")
                .and_then(|rest| rest.strip_suffix(" records"))?;
            count.parse().ok()
        };
        match word {
            "absent" => self.present = false,
            "greets" => self.greeting = say(rest)?,
            "answers" if records().is_some() => self.verdict_after = records(),
            "answers" => self.verdict = say(rest)?,
            "closes" if rest == "after greeting" => self.closes_after_greeting = true,
            "closes" => self.closes_after = Some(records().ok_or("closes after N records")?),
            "status" => {
                let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                self.verdict = verdict(status.as_bytes(), &text::read(reason)?);
            }
            _ => return Err(format!("cleanup cannot do {line:?}")),
        }
        Ok(())
    }
}

fn say(text: &str) -> Result<Say, String> {
    match text {
        "<nothing>" => Ok(Say::Nothing),
        "<close>" => Ok(Say::Close),
        _ => text::read(text).map(Say::Bytes),
    }
}

/// One thing that cleanup received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The attribute list at the start, with its NULs.
    Flags(Vec<u8>),
    Record(u8, Vec<u8>),
    /// Bytes that are neither, up to the end of the connection.
    Garbage(Vec<u8>),
    /// The connection ended before an `E` record.
    Eof,
}

/// The listening end of `public/cleanup`.
pub struct Cleanup {
    path: PathBuf,
    done: Arc<AtomicBool>,
    server: JoinHandle<Vec<Item>>,
}

impl Cleanup {
    pub fn listen(path: &Path, script: Script) -> Cleanup {
        let listener = UnixListener::bind(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let server = thread::spawn(move || {
            let mut items = Vec::new();
            loop {
                let (stream, _) = listener.accept().unwrap();
                if told.load(SeqCst) && is_over(&stream) {
                    return items;
                }
                // A server that hangs up while it is being answered is what some dialogues are about.
                let _gone = converse(stream, &script, &mut items);
            }
        });
        Cleanup {
            path: path.to_path_buf(),
            done,
            server,
        }
    }

    /// Everything that was received. To be called when the server has ended.
    pub fn finish(self) -> Vec<Item> {
        self.done.store(true, SeqCst);
        UnixStream::connect(&self.path)
            .unwrap()
            .write_all(OVER)
            .unwrap();
        self.server.join().unwrap()
    }
}

/// What only [`Cleanup::finish`] sends: connections of the server that are still waiting come before it.
const OVER: &[u8] = b"\xff";

fn is_over(mut stream: &UnixStream) -> bool {
    let mut first = [0];
    matches!(stream.read(&mut first), Ok(1)) && first == *OVER
}

fn converse(stream: UnixStream, script: &Script, items: &mut Vec<Item>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    speak(&stream, &script.greeting)?;
    if script.closes_after_greeting {
        stream.shutdown(Shutdown::Both)?;
    }
    let mut input = BufReader::new(&stream);
    let flags = read_attributes(&mut input)?;
    if flags.is_empty() {
        items.push(Item::Eof);
        return Ok(());
    }
    items.push(Item::Flags(flags));
    let mut count = 0;
    loop {
        if script.closes_after == Some(count) {
            return Ok(());
        }
        if script.verdict_after == Some(count) {
            speak(&stream, &script.verdict)?;
        }
        let item = read_record(&mut input)?;
        items.push(item.clone());
        count += 1;
        match item {
            Item::Record(b'E', _) => break,
            Item::Record(..) => {}
            Item::Flags(_) | Item::Garbage(_) | Item::Eof => return Ok(()),
        }
    }
    if script.verdict_after.is_none() {
        speak(&stream, &script.verdict)?;
        if !matches!(script.verdict, Say::Nothing) {
            stream.shutdown(Shutdown::Write)?;
        }
    }
    let mut rest = Vec::new();
    input.read_to_end(&mut rest)?;
    if !rest.is_empty() {
        items.push(Item::Garbage(rest));
    }
    Ok(())
}

fn speak(mut stream: &UnixStream, say: &Say) -> io::Result<()> {
    match say {
        Say::Bytes(bytes) => stream.write_all(bytes),
        Say::Nothing => Ok(()),
        Say::Close => stream.shutdown(Shutdown::Both),
    }
}

/// Names and values up to the empty name that ends the list.
fn read_attributes(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut list = Vec::new();
    loop {
        let name = input.read_until(0, &mut list)?;
        if name <= 1 {
            return Ok(list);
        }
        input.read_until(0, &mut list)?;
    }
}

fn read_record(input: &mut impl BufRead) -> io::Result<Item> {
    let mut head = Vec::new();
    let mut length = 0;
    for shift in [0, 0, 7, 14, 21] {
        let mut byte = [0];
        if input.read(&mut byte)? == 0 {
            return Ok(if head.is_empty() {
                Item::Eof
            } else {
                Item::Garbage(head)
            });
        }
        head.push(byte[0]);
        if head.len() > 1 {
            length |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
    }
    let mut data = Vec::new();
    input.take(length as u64).read_to_end(&mut data)?;
    if data.len() < length {
        head.extend(data);
        return Ok(Item::Garbage(head));
    }
    Ok(Item::Record(head[0], data))
}
