//! Where a queue file comes to lie, what happens when its name is taken, and what of an earlier message is removed.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use harness::instance::mail_owner;
use harness::master::{self, Master, queue_id, until};
use harness::queue_file::{below, files, send, start};
use harness::trace;

const FILE: &str = "qmqpd_queue_method = file\n";

/// Names are tried this often (`TRIES` in `src/queue/file/incoming.rs`).
const TRIES: usize = 1000;

fn is_missing(test: &str) -> bool {
    let missing = !Path::new("/usr/bin/strace").exists();
    if missing {
        harness::skip(test, "strace is not installed");
    }
    missing || master::is_missing(test)
}

fn small_request() -> Vec<u8> {
    master::request(b"Subject: t\n\nb\n", "s@x.example", &["r@y.example"])
}

/// Sends the small request to a server whose system calls strace meddles with as `inject` says. An error that strace
/// injects is no call that the filter knows.
fn send_injected(master: &Master, inject: &str, options: &[&str]) -> String {
    let tracer = ["strace", "-o", "/dev/null", "-e", inject];
    let options = [&["qmqpd_sandbox=no"], options].concat();
    send(master, &tracer, &options, &small_request())
}

/// Where the queue manager looks for a message of a hashed queue: the first two characters are directories.
fn hashed(queue: &str, id: &str) -> String {
    format!("{queue}/{}/{}/{id}", &id[..1], &id[1..2])
}

#[test]
fn the_queue_manager_finds_a_message_in_a_hashed_incoming_queue() {
    if master::is_missing("the_queue_manager_finds_a_message_in_a_hashed_incoming_queue") {
        return;
    }
    let main_cf = format!(
        "default_transport = discard\nlocal_transport = discard\nrelay_transport = discard\n\
         {FILE}hash_queue_names = incoming, deferred, defer\n"
    );
    let master_cf = "qmgr unix n - n 300 1 qmgr\ndiscard unix - - n - - discard\n\
                     bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n";
    for depth in [1, 2] {
        let main_cf = format!("{main_cf}hash_queue_depth = {depth}\n");
        let master = Master::start(&main_cf, master_cf);
        assert!(until(Duration::from_secs(10), || {
            master.socket("qmgr").exists()
        }));
        let reply = send(&master, &[], &[], &small_request());
        // Woken at once: its own scan comes after 300 s.
        master.wait_for_log(&format!("{}: removed", queue_id(&reply)));
        assert_eq!(files(&master), []);
    }
}

#[test]
fn a_message_lies_below_the_first_characters_of_its_id() {
    if master::is_missing("a_message_lies_below_the_first_characters_of_its_id") {
        return;
    }
    let master = Master::start(FILE, "");
    let queue = master.dir.join("queue");
    let lies = |options: &[&str], place: &dyn Fn(&str) -> String| {
        let reply = send(&master, &[], options, &small_request());
        let path = queue.join(place(queue_id(&reply)));
        assert!(path.is_file(), "{options:?}: {}", path.display());
    };
    lies(&[], &|id| format!("incoming/{id}"));
    lies(&["hash_queue_names=deferred"], &|id| {
        format!("incoming/{id}")
    });
    lies(
        &["hash_queue_names=incoming", "hash_queue_depth=1"],
        &|id| format!("incoming/{}/{id}", &id[..1]),
    );
    lies(&["hash_queue_names=defer incoming"], &|id| {
        format!("incoming/{}/{id}", &id[..1])
    });
    lies(
        &["hash_queue_names=incoming", "hash_queue_depth=2"],
        &|id| hashed("incoming", id),
    );
}

#[test]
fn the_directory_above_a_new_one_is_on_disk_before_the_client_hears_of_it() {
    let test = "the_directory_above_a_new_one_is_on_disk_before_the_client_hears_of_it";
    if is_missing(test) {
        return;
    }
    let master = Master::start(FILE, "");
    let to = master.dir.join("trace.out");
    let tracer = ["strace", "-y", "-o", to.to_str().unwrap()];
    let options = ["hash_queue_names=incoming", "hash_queue_depth=2"];
    let reply = send(&master, &tracer, &options, &small_request());
    let (outer, inner) = levels(queue_id(&reply));
    let made = [("mkdirat", quoted(&outer)), ("mkdirat", quoted(&inner))];
    assert_are_in_order(&to, &made, queue_id(&reply));
}

/// The names of the directories that a message lies in, with two levels of them.
fn levels(id: &str) -> (String, String) {
    (id[..1].to_owned(), format!("{}/{}", &id[..1], &id[1..2]))
}

fn quoted(path: &str) -> String {
    format!("\"{path}\"")
}

/// Of a message with two directories: after these calls the directories come to disk, then the message, then the reply.
fn assert_are_in_order(trace: &Path, first: &[(&str, String)], id: &str) {
    let (outer, inner) = levels(id);
    let mut steps = first.to_vec();
    steps.extend([
        ("fsync", "/incoming>".to_owned()),
        ("fsync", format!("/incoming/{outer}>")),
        ("fchmod", ", 0700".to_owned()),
        ("fsync", format!("/incoming/{inner}/{id}>")),
        ("fsync", format!("/incoming/{inner}>")),
        ("write", ":KOk".to_owned()),
    ]);
    let calls = trace::read(trace);
    let places = steps.iter().map(|(name, part)| {
        let has = |call: &trace::Call| call.name == *name && call.line.contains(part);
        let place = calls.iter().position(has);
        place.unwrap_or_else(|| panic!("no {name} {part}: {calls:#?}"))
    });
    let places: Vec<usize> = places.collect();
    assert!(places.is_sorted(), "{steps:?}: {places:?}");
}

/// Another process has made the directories a moment ago, and has not made certain that they are on disk: before this
/// process looks, or after the first look.
#[test]
fn a_directory_that_another_process_has_just_made_comes_to_disk_as_well() {
    let test = "a_directory_that_another_process_has_just_made_comes_to_disk_as_well";
    if is_missing(test) {
        return;
    }
    let master = Master::start(FILE, "");
    // The first character of an id is that of a number below a million in hexadecimal.
    for outer in "0123456789ABCDEF".chars() {
        for inner in "0123456789ABCDEF".chars() {
            make_directory(&master.dir.join(format!("queue/incoming/{outer}/{inner}")));
        }
        make_directory(&master.dir.join(format!("queue/incoming/{outer}")));
    }
    let to = master.dir.join("trace.out");
    let two = ["hash_queue_names=incoming", "hash_queue_depth=2"];
    let tracer = ["strace", "-y", "-o", to.to_str().unwrap()];
    let reply = send(&master, &tracer, &two, &small_request());
    assert_are_in_order(&to, &[], queue_id(&reply));
    let inject = ["-e", "inject=renameat:error=ENOENT:when=1"];
    let options = [&["qmqpd_sandbox=no"][..], &two].concat();
    let tracer = [&tracer[..], &inject].concat();
    let reply = send(&master, &tracer, &options, &small_request());
    let (outer, inner) = levels(queue_id(&reply));
    let made = [("mkdirat", quoted(&outer)), ("mkdirat", quoted(&inner))];
    let lines = trace::read(&to);
    let exists = |call: &&trace::Call| call.name == "mkdirat" && call.line.contains("EEXIST");
    assert_eq!(lines.iter().filter(exists).count(), 2, "{lines:#?}");
    assert_are_in_order(&to, &made, queue_id(&reply));
}

#[test]
fn a_failure_to_reach_the_disk_is_for_later() {
    if is_missing("a_failure_to_reach_the_disk_is_for_later") {
        return;
    }
    let master = Master::start(FILE, "");
    // The file and its directory; with two directories to make, those above them come first.
    for (options, fsyncs) in [
        (&[][..], 2),
        (&["hash_queue_names=incoming", "hash_queue_depth=2"], 4),
    ] {
        for number in 1..=fsyncs {
            drop(fs::remove_dir_all(master.dir.join("queue/incoming")));
            make_directory(&master.dir.join("queue/incoming"));
            let inject = format!("inject=fsync:error=EIO:when={number}");
            let reply = send_injected(&master, &inject, options);
            assert!(reply.contains(":Z"), "{options:?} fsync {number}: {reply}");
            assert_eq!(files(&master), [], "{options:?} fsync {number}");
        }
        make_directory(&master.dir.join("queue/incoming"));
        let inject = format!("inject=fsync:error=EIO:when={}", fsyncs + 1);
        let reply = send_injected(&master, &inject, options);
        assert!(reply.contains(":K"), "{options:?}: {reply}");
    }
}

fn make_directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
    let owner = mail_owner().unwrap();
    chown(path, Some(owner.uid.as_raw()), None).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn a_name_that_is_taken_once_is_replaced_and_one_that_is_always_taken_is_for_later() {
    let test = "a_name_that_is_taken_once_is_replaced_and_one_that_is_always_taken_is_for_later";
    if is_missing(test) {
        return;
    }
    let master = Master::start(FILE, "");
    // Of the temporary name: the first openat(2) that makes a file.
    let to = master.dir.join("trace.out");
    let tracer = ["strace", "-y", "-o", to.to_str().unwrap()];
    queue_id(&send(&master, &tracer, &[], &small_request()));
    let calls = trace::read(&to);
    let creates = |call: &&trace::Call| call.name == "openat" && call.line.contains("O_CREAT");
    let create = calls.iter().find(creates).unwrap().number;
    let mut accepted = 1;
    for (name, error, first) in [
        ("openat", "EEXIST", create),
        ("renameat", "EISDIR", 1),
        ("renameat", "EPERM", 1),
    ] {
        let last_try = first + TRIES - 1;
        for (when, is_accepted) in [
            (format!("{first}"), true),
            (format!("{first}..{}", last_try - 1), true),
            (format!("{first}..{last_try}"), false),
        ] {
            let inject = format!("inject={name}:error={error}:when={when}");
            let reply = send_injected(&master, &inject, &[]);
            if is_accepted {
                assert!(reply.contains(":K"), "{inject}: {reply}");
                accepted += 1;
            } else {
                assert!(
                    reply.contains("ZError: queue service unavailable"),
                    "{inject}: {reply}"
                );
                master.wait_for_log(": File exists");
            }
            let complete = files(&master);
            assert_eq!(complete.len(), accepted, "{inject}");
            assert!(complete.iter().all(|(_, mode, _)| *mode == 0o700));
        }
    }
}

/// The server is held up right after it has given the file its name, for long enough that leftovers of that name can be
/// made.
#[test]
fn logs_of_an_earlier_message_with_the_same_id_are_removed() {
    if is_missing("logs_of_an_earlier_message_with_the_same_id_are_removed") {
        return;
    }
    let master = Master::start(FILE, "");
    for options in [
        &["hash_queue_names=deferred"][..],
        &["hash_queue_names=defer", "hash_queue_depth=2"],
    ] {
        let tracer = [
            "strace",
            "-o",
            "/dev/null",
            "-e",
            "inject=renameat:delay_exit=1500000",
        ];
        let (mut child, mut client) = start(&master, &tracer, options);
        client.write_all(&small_request()).unwrap();
        let mut id = None;
        let has_name = || {
            id = files(&master).into_iter().find_map(|(path, mode, _)| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (mode == 0o600 && !name.contains('.')).then_some(name)
            });
            id.is_some()
        };
        assert!(until(Duration::from_secs(30), has_name));
        let id = id.unwrap();
        let queue = master.dir.join("queue");
        let defer = if options.len() > 1 {
            for directory in [&id[..1], &format!("{}/{}", &id[..1], &id[1..2])] {
                make_directory(&queue.join("defer").join(directory));
            }
            hashed("defer", &id)
        } else {
            format!("defer/{id}")
        };
        let leftovers = [defer, format!("bounce/{id}"), format!("trace/{id}")];
        let leftovers = leftovers.map(|name| queue.join(name));
        for path in &leftovers {
            fs::write(path, "x").unwrap();
        }
        let other = queue.join("bounce/1234567890");
        fs::write(&other, "x").unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        child.wait().unwrap();
        assert_eq!(queue_id(&reply), id);
        for path in &leftovers {
            assert!(!path.exists(), "{options:?}: {}", path.display());
        }
        assert_eq!(below(&queue.join("bounce")).len(), 1);
        fs::remove_file(other).unwrap();
        fs::remove_file(queue.join("incoming").join(id)).unwrap();
    }
}

/// The content alone is within message_size_limit. Its lines are short, so that the file is not, and what is too much
/// comes several writes later.
#[test]
fn a_file_that_outgrows_the_limit_after_several_writes_is_refused_and_gone() {
    let test = "a_file_that_outgrows_the_limit_after_several_writes_is_refused_and_gone";
    if master::is_missing(test) {
        return;
    }
    let master = Master::start(FILE, "");
    let content = b"x\n".repeat(200_000);
    let request = master::request(&content, "s@x.example", &["r@y.example"]);
    let reply = send(&master, &[], &["message_size_limit=500000"], &request);
    assert!(reply.contains("DError: message too large"), "{reply}");
    assert_eq!(files(&master), []);
    let reply = send(&master, &[], &["message_size_limit=700000"], &request);
    let (path, mode, file) = files(&master).remove(0);
    assert!(path.ends_with(queue_id(&reply)) && mode == 0o700);
    assert!((500_000..700_000).contains(&file.len()), "{}", file.len());
}
