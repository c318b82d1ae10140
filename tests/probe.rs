//! `scripts/probe`, which monitoring runs, against the program as master(8) starts it: its exit status and what it prints.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::net::TcpListener;
use std::process::Command;

use harness::master::{self, Master, free_port};

/// Its exit status, and its output.
fn probe(arguments: &[&str]) -> (i32, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/probe");
    let output = Command::new(script).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn the_status_says_whether_the_server_accepts_mail_from_this_host() {
    if master::is_missing("the_status_says_whether_the_server_accepts_mail_from_this_host") {
        return;
    }
    let ports: [u16; 4] = std::array::from_fn(|_| free_port());
    let [open, file, refused, broken] = ports;
    let options = [
        (open, "qmqpd_authorized_clients=127.0.0.1"),
        (
            file,
            "qmqpd_authorized_clients=127.0.0.1 -o qmqpd_queue_method=file",
        ),
        (refused, "qmqpd_authorized_clients=192.0.2.1"),
        (broken, "qmqpd_authorized_clients=cdb:/no/table"),
    ];
    let lines = options.map(|(port, options)| {
        format!("127.0.0.1:{port} inet n - n - - qmqpd -o qmqpd_error_delay=0 -o {options}\n")
    });
    let master = Master::start("", &lines.concat());
    let at = |port: u16| probe(&[&format!("127.0.0.1:{port}")]);
    for port in [open, file] {
        let (status, text) = at(port);
        assert_eq!(status, 0, "{text}");
        assert!(text.starts_with("D (0."), "{text}");
        assert!(
            text.ends_with(" s): Error: no recipients specified\n"),
            "{text}"
        );
    }
    let (status, text) = at(refused);
    assert_eq!(status, 1, "{text}");
    assert!(
        text.ends_with("is not authorized to use this service\n"),
        "{text}"
    );
    let (status, text) = at(broken);
    assert_eq!(status, 2, "{text}");
    assert!(text.starts_with("Z (0."), "{text}");
    assert_eq!(master.incoming().0.len(), 0);
}

#[test]
fn no_answer_and_no_server_are_one_status() {
    let (status, text) = probe(&[&format!("127.0.0.1:{}", free_port())]);
    assert_eq!(status, 2);
    assert!(text.contains("refused"), "{text}");
    let silent = TcpListener::bind("[::1]:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (status, text) = probe(&["-t", "1", &address]);
    assert_eq!((status, text.as_str()), (2, "no reply within 1 s\n"));
}

#[test]
fn other_arguments_are_usage_errors() {
    let wrong: [&[&str]; 4] = [&[], &["a", "b"], &["-t", "0", "a"], &["-x", "a"]];
    for arguments in wrong {
        assert_eq!(probe(arguments).0, 64, "{arguments:?}");
    }
    let (status, text) = probe(&["-h"]);
    assert_eq!(status, 0);
    assert!(text.contains("Exit status"), "{text}");
}
