//! What strace(1) has written down with `-y`: the system calls of a session, and what each of them was about.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One system call.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    /// Which of the calls of this name it is, from 1.
    pub number: usize,
    pub line: String,
    /// Who or what is at the other end of it, if the trace tells.
    pub object: &'static str,
}

/// Whether strace has a name for the system call. It meddles with no other: that of Debian 11 knows nothing of Landlock.
pub fn strace_knows(call: &str) -> bool {
    let trace = format!("trace={call}");
    let traced = Command::new("strace")
        .args(["-qq", "-e", &trace, "true"])
        .output();
    traced.is_ok_and(|output| output.status.success())
}

impl Call {
    /// Whether strace has a name for it. It meddles with no other call.
    pub fn has_name(&self) -> bool {
        !self.name.starts_with("syscall_")
    }

    /// Whether the call is one that strace has meddled with.
    pub fn is_injected(&self) -> bool {
        self.line.ends_with("(INJECTED)")
    }
}

/// The system calls in the trace at `path`, in order.
pub fn read(path: &Path) -> Vec<Call> {
    let bytes = fs::read(path).unwrap();
    let trace = String::from_utf8_lossy(&bytes);
    let objects = Objects::of(&trace);
    let mut counts = HashMap::new();
    let mut calls = Vec::new();
    let mut serves = false;
    for line in trace.lines() {
        serves |= line.contains(FIRST_BYTE);
        let Some((name, arguments)) = line.split_once('(') else {
            continue;
        };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let number = counts.entry(name.to_owned()).or_insert(0);
        *number += 1;
        calls.push(Call {
            name: name.to_owned(),
            number: *number,
            line: line.to_owned(),
            object: objects.of_call(name, serves, arguments),
        });
    }
    calls
}

/// What is behind sockets and pipes, by the names that `-y` has for them: `socket:[123]`.
struct Objects<'a>(HashMap<&'a str, &'static str>);

/// The call that waits for the client's first byte: who is made before it looks up names, who after it is the queue's.
const FIRST_BYTE: &str = "MSG_PEEK";

/// The pipes to the queue's program, in the order in which they are made.
const PIPES: [&str; 2] = ["message", "envelope"];

/// The names of a path's part, the first that fits.
const PATHS: [(&str, &str); 10] = [
    ("public/postlog", "log"),
    ("public/cleanup", "cleanup"),
    ("public/qmgr", "qmgr"),
    ("/incoming", "incoming"),
    ("\"incoming", "incoming"),
    ("/conf/", "main.cf"),
    ("/program", "program"),
    ("/dev/null", "program"),
    ("\"/", "system"),
    ("</", "system"),
];

impl<'a> Objects<'a> {
    fn of(trace: &'a str) -> Self {
        let mut objects = HashMap::new();
        let mut pipes = PIPES.iter();
        let mut serves = false;
        for line in trace.lines() {
            serves |= line.contains(FIRST_BYTE);
            let Some((call, arguments)) = line.split_once('(') else {
                continue;
            };
            let mut names = names(arguments);
            match call {
                "connect" => {
                    let object = by_path(arguments);
                    objects.extend(names.next().map(|name| (name, object)));
                }
                "pipe2" if !serves => objects.extend(names.map(|name| (name, "lookup"))),
                "pipe2" => {
                    let object = pipes.next().unwrap_or(&"");
                    objects.extend(names.map(|name| (name, *object)));
                }
                "socketpair" => objects.extend(names.map(|name| (name, "program"))),
                "getpeername" => objects.extend(names.next().map(|name| (name, "client"))),
                _ => {}
            }
        }
        Objects(objects)
    }

    fn of_call(&self, name: &str, serves: bool, arguments: &str) -> &'static str {
        if matches!(name, "clone" | "clone3" | "vfork" | "wait4" | "waitid") {
            return if serves { "program" } else { "lookup" };
        }
        // Descriptors 0 and 1 have a name of their own, but not yet if the process ends early.
        if arguments.starts_with("0<socket") || arguments.starts_with("1<socket") {
            return "client";
        }
        let known = names(arguments).find_map(|name| self.0.get(name));
        known.copied().unwrap_or_else(|| by_path(arguments))
    }
}

/// Everything in `<...>` that is no path.
fn names(arguments: &str) -> impl Iterator<Item = &str> {
    let parts = arguments.split('<').skip(1);
    let names = parts.filter_map(|part| Some(part.split_once('>')?.0));
    names.filter(|name| name.contains(":["))
}

fn by_path(arguments: &str) -> &'static str {
    // The working directory stands in front of each path that has none of its own.
    let rest = arguments.split_once("AT_FDCWD<");
    let rest = rest.and_then(|(_, rest)| rest.split_once('>'));
    let arguments = rest.map_or(arguments, |(_, rest)| rest);
    let found = PATHS.iter().find(|(part, _)| arguments.contains(part));
    found.map_or("", |(_, object)| object)
}
