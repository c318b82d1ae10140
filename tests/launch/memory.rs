//! What a message costs in memory, as the kernel has counted it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::Duration;

use crate::machine::{ACCEPTED, How, Machine, PATIENCE, Session, greeting, tell};

const MIB: u64 = 1 << 20;

/// What a session may cost besides the message.
const ALLOWED: u64 = 4 * MIB;

const LARGE: usize = 100 << 20;

/// The last two records of a message, which have no content.
const END: &[u8] = b"X\0E\0";

/// A cleanup that says when it has read a whole message, and answers when it is told to.
pub fn patient(machine: &Machine) -> (Receiver<u64>, Sender<()>) {
    let (read, has_read) = channel();
    let (answer, may_answer) = channel::<()>();
    machine.cleanup_that(move |mut stream: UnixStream| {
        stream.write_all(&greeting()).unwrap();
        let mut tail = Vec::new();
        let mut total = 0;
        let mut buffer = vec![0; 1 << 16];
        while !tail.ends_with(END) {
            let length = stream.read(&mut buffer).unwrap();
            if length == 0 {
                return;
            }
            total += length as u64;
            tail.extend_from_slice(&buffer[..length]);
            tail.drain(..tail.len().saturating_sub(END.len()));
        }
        read.send(total).unwrap();
        may_answer.recv().unwrap();
        stream.write_all(b"status\x000\0reason\0\0\0").unwrap();
    });
    (has_read, answer)
}

/// What a session has needed that has read one byte.
fn idle(session: &mut Session, machine: &Machine) -> u64 {
    session.send(b"1");
    machine.log.watch().wait_for("client=");
    session.wait_until_it_waits();
    session.kib("VmHWM") * 1024
}

#[test]
fn a_message_of_100_mib_costs_little_more_than_itself() {
    let machine = Machine::new(&["message_size_limit = 200000000"]);
    let (has_read, answer) = patient(&machine);
    let line = [vec![b'x'; 1023], vec![b'\n']].concat();
    let content = line.repeat(LARGE / line.len());
    let rest = b"11:s@x.example,11:r@y.example,";
    let head = format!("{}:", content.len());
    let mut session = machine.start(&How::default());
    let before = idle(&mut session, &machine);
    let total = head.len() + content.len() + 1 + rest.len();
    // The first digit is sent already.
    let digits = total.to_string();
    assert!(digits.starts_with('1'), "{digits}");
    session.send(&digits.as_bytes()[1..]);
    session.send(format!(":{head}").as_bytes());
    session.send(&content);
    session.send(&[b",".as_slice(), rest, b","].concat());
    let sent = has_read.recv_timeout(PATIENCE).unwrap();
    assert!(sent > LARGE as u64, "{sent}");
    let peak = session.kib("VmHWM");
    // The pages of a program built for debugging are many; they are the file's, and shared by all processes. Those of a file
    // on a tmpfs are counted as shared memory.
    let of_files = session.kib("RssFile") + session.kib("RssShmem");
    answer.send(()).unwrap();
    assert_eq!(session.reply(PATIENCE), ACCEPTED);
    let message = LARGE as u64 / 1024;
    tell(&format!(
        "a message of {message} KiB: peak {peak} KiB, of which {of_files} of files; an idle session: {} KiB",
        before / 1024
    ));
    let counted = if cfg!(debug_assertions) {
        peak - of_files
    } else {
        peak
    };
    assert!(counted * 1024 < LARGE as u64 + ALLOWED, "{counted} KiB");
}

#[test]
fn an_announced_gibibyte_costs_nothing() {
    let machine = Machine::new(&["message_size_limit = 0"]);
    let (_has_read, _answer) = patient(&machine);
    let mut session = machine.start(&How::default());
    let before = idle(&mut session, &machine);
    session.send(b"200000000:1073741824:");
    session.send(&[b'x'; 1024]);
    sleep(Duration::from_millis(300));
    session.wait_until_it_waits();
    let grown = (session.kib("VmHWM") * 1024).saturating_sub(before);
    tell(&format!(
        "1 GiB announced, 1 KiB sent: {} KiB",
        grown / 1024
    ));
    assert!(grown < ALLOWED, "{grown}");
    assert!(
        session.kib("VmSize") * 1024 < 64 * MIB,
        "{}",
        session.kib("VmSize")
    );
}

/// A limit that the launcher has set (softlimit(1), MemoryMax=) is the client's bad luck, and not the end. The last one has
/// room for the program, the message once, and little else.
#[test]
fn memory_that_cannot_be_had_is_try_later() {
    let content = vec![b'x'; 9_000_000];
    let rest = b",11:s@x.example,11:r@y.example,";
    let head = format!("{}:{}:", 8 + content.len() + rest.len(), content.len());
    let request = [head.as_bytes(), &content, rest, b","].concat();
    let refused = "27:ZError: insufficient memory,";
    for (limit, reply) in [
        ("--as=9000000", refused),
        ("--as=13000000", refused),
        ("--data=6000000", refused),
        ("--data=10000000", ACCEPTED),
    ] {
        let machine = Machine::new(&[]);
        let cleanup = machine.cleanup(&[]);
        let how = How {
            through: &["prlimit", limit],
            ..How::default()
        };
        let mut session = machine.start(&how);
        session.send(&request);
        assert_eq!(session.reply(PATIENCE), reply, "{limit}");
        assert_eq!(session.exit(), "0", "{limit}");
        cleanup.finish();
        machine.finish(&session);
    }
}
