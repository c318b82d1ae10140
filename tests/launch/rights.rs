//! A queue in which other users can write, with the method that makes queue files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::harness::instance::mail_owner;
use crate::machine::{How, Machine, PATIENCE, REQUEST, is_not_root};

/// The modes of queue_directory, of incoming, and of the directories on two levels below.
type Modes = [u32; 4];

/// What is served: as Postfix makes it, as it is made by hand, and where users can add files and not move those of others.
const SERVED: &[Modes] = &[
    [0o755, 0o700, 0o700, 0o700],
    [0o755, 0o755, 0o755, 0o2755],
    [0o1777, 0o700, 0o700, 0o700],
];

/// What is not, with the path, the mode and the advice that the log names; a digit of a queue id is X there.
#[rustfmt::skip]
const REFUSED: &[(Modes, &str, &str, &str)] = &[
    ([0o777, 0o700, 0o700, 0o700], "DIR/queue", "0777", "go-w"),
    ([0o775, 0o700, 0o700, 0o700], "DIR/queue", "0775", "go-w"),
    ([0o755, 0o777, 0o700, 0o700], "DIR/queue/incoming", "0777", "0700"),
    ([0o755, 0o1777, 0o700, 0o700], "DIR/queue/incoming", "1777", "0700"),
    ([0o755, 0o770, 0o700, 0o700], "DIR/queue/incoming", "0770", "0700"),
    ([0o755, 0o702, 0o700, 0o700], "DIR/queue/incoming", "0702", "0700"),
    ([0o755, 0o700, 0o777, 0o700], "DIR/queue/incoming/X", "0777", "0700"),
    ([0o755, 0o700, 0o700, 0o720], "DIR/queue/incoming/X/X", "0720", "0700"),
];

/// Sends a message; the reply, the log, and how many files there are. The instance's directory is DIR.
fn send(modes: Modes, arguments: &[&str]) -> (String, Vec<String>, usize) {
    let [above, own, first_level, second_level] = modes;
    let machine = Machine::new(&[
        "qmqpd_queue_method = file",
        "hash_queue_names = incoming",
        "hash_queue_depth = 2",
    ]);
    let queue = machine.instance.queue_directory();
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let owner = mail_owner().unwrap();
    let incoming = queue.join("incoming");
    chown(&queue, Some(0), Some(0)).unwrap();
    chown(&incoming, None, Some(0)).unwrap();
    // The id of a message begins with digits of the time's microseconds.
    for first in "0123456789ABCDEF".chars() {
        let first = incoming.join(first.to_string());
        fs::create_dir(&first).unwrap();
        for second in "0123456789ABCDEF".chars() {
            let second = first.join(second.to_string());
            fs::create_dir(&second).unwrap();
            chown(&second, Some(owner.uid.as_raw()), None).unwrap();
            set(&second, second_level);
        }
        chown(&first, Some(owner.uid.as_raw()), None).unwrap();
        set(&first, first_level);
    }
    set(&incoming, own);
    set(&queue, above);
    let how = How {
        arguments,
        ..How::default()
    };
    let mut session = machine.start(&how);
    session.send(REQUEST);
    let reply = session.reply(PATIENCE);
    assert_eq!(session.exit(), "0");
    let files = count(&incoming);
    let dir = machine.instance.dir.display().to_string();
    let log = machine.finish(&session);
    let log = log.iter().map(|line| line.replace(&dir, "DIR"));
    (reply, log.collect(), files)
}

/// The files in a directory and below.
fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let counts = entries.map(|entry| {
        if entry.file_type().unwrap().is_dir() {
            count(&entry.path())
        } else {
            1
        }
    });
    counts.sum()
}

#[test]
fn a_queue_that_others_can_write_to_is_for_later() {
    if is_not_root("a_queue_that_others_can_write_to_is_for_later") {
        return;
    }
    for &(modes, path, mode, wanted) in REFUSED {
        let expected = format!(
            "warning: open {path}: its mode {mode} lets other users than its owner write to it: chmod {wanted} {path}"
        );
        for arguments in [&["-S"][..], &["-S", "-c"]] {
            let (reply, log, files) = send(modes, arguments);
            assert_eq!(reply, "33:ZError: queue service unavailable,", "{expected}");
            assert_eq!(files, 0, "{expected}");
            let without_id = |line: &String| hide_levels(line);
            let log: Vec<String> = log.iter().map(without_id).collect();
            assert!(log.contains(&expected), "{expected}: {log:?}");
        }
    }
}

/// Subdirectories, which depend on the time, as X.
fn hide_levels(line: &str) -> String {
    let mut parts = line.split("incoming/");
    let mut hidden = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([':', ' ']).unwrap_or(part.len());
        let (path, rest) = part.split_at(end);
        let levels = vec!["X"; path.split('/').count()].join("/");
        hidden.push_str(&format!("incoming/{levels}{rest}"));
    }
    hidden
}

#[test]
fn the_queue_of_postfix_and_one_made_by_hand_are_served() {
    if is_not_root("the_queue_of_postfix_and_one_made_by_hand_are_served") {
        return;
    }
    for &modes in SERVED {
        for arguments in [&["-S"][..], &["-S", "-c"]] {
            let (reply, log, files) = send(modes, arguments);
            assert!(reply.contains(":KOk: queued as "), "{reply}: {log:?}");
            assert_eq!(files, 1);
            assert!(!log.iter().any(|line| line.contains("warning")), "{log:?}");
        }
    }
}
