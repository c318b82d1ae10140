//! Names from the hosts file: what is read there by our own code is what the C library says.
//!
//! Each made-up file is asked twice, in namespaces where it is /etc/hosts: with `files` first in nsswitch.conf, where our
//! own code reads it if there is no doubt, and with an action behind `files` that changes nothing, where the C library
//! always does. `QMQPD_SEED` is where the generator starts.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;
use std::process::{Command, Stdio};

use harness::instance::Instance;
use harness::lists::in_private_network;
use harness::requests::Numbers;

const OURS: &str = env!("CARGO_BIN_EXE_qmqpd");

/// How many files are made up.
const FILES: usize = 120;

const SEED: u64 = 20_261_122;

const NSSWITCH: &str = "/etc/nsswitch.conf";

const ADDRESSES: &[&str] = &[
    "10.0.0.1",
    "10.0.0.2",
    "127.0.0.1",
    "::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
];

/// Spellings of these addresses, and words that are none.
const OTHER_ADDRESSES: &[&str] = &[
    "2001:DB8:0:0::1",
    "0:0:0:0:0:0:0:1",
    "010.0.0.1",
    "10.0.1",
    "10.0.0.1.",
    "::10.0.0.1",
    "2001:db8::1%lo",
    "mail",
];

const NAMES: &[&str] = &[
    "a",
    "A",
    "mail.example.com",
    "Mail.Example.COM",
    "b.example.com",
    "localhost",
    "10.0.0.1",
    "-bad",
    "under_score",
    "dot.",
    "\u{e9}.example.com",
];

fn hosts(numbers: &mut Numbers) -> String {
    let mut text = String::new();
    for _ in 0..1 + numbers.below(5) {
        text.push_str(numbers.pick(&["", "", "", " ", "\t", "#"]));
        text.push_str(match numbers.below(5) {
            0 => numbers.pick(OTHER_ADDRESSES),
            _ => numbers.pick(ADDRESSES),
        });
        for _ in 0..numbers.below(4) {
            text.push_str(numbers.pick(&[" ", "\t", "  ", " \u{b}", " \r"]));
            text.push_str(numbers.pick(NAMES));
        }
        text.push_str(numbers.pick(&["", "", "", " ", "#c", " # c d", "\r"]));
        text.push_str(numbers.pick(&["\n", "\n", "\n", "\n\n"]));
    }
    if numbers.one_in(4) {
        text.pop();
    }
    text
}

/// What `--explain` says of each address: its name first, and what is wrong with it.
fn explained(instance: &Instance, nsswitch: &str) -> Vec<String> {
    fs::write(NSSWITCH, nsswitch).unwrap();
    let explain = |address: &&str| {
        let output = Command::new(OURS)
            .args(["--explain", address])
            .env_clear()
            .env("MAIL_CONFIG", instance.config_directory())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    ADDRESSES.iter().map(explain).collect()
}

#[test]
fn names_of_the_hosts_file_are_those_of_the_c_library() {
    let test = "names_of_the_hosts_file_are_those_of_the_c_library";
    if !nix::unistd::geteuid().is_root() {
        harness::skip(test, "not root");
        return;
    }
    if !in_private_network(test) {
        return;
    }
    let seed = std::env::var("QMQPD_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut numbers = Numbers::new(seed);
    let instance = Instance::new(&[]);
    let mut named = 0;
    for _ in 0..FILES {
        let file = hosts(&mut numbers);
        fs::write("/etc/hosts", &file).unwrap();
        let ours = explained(&instance, "hosts: files\n");
        let theirs = explained(&instance, "hosts: files [SUCCESS=return]\n");
        assert_eq!(ours, theirs, "{file:?}");
        named += ours
            .iter()
            .filter(|text| !text.contains("unknown["))
            .count();
    }
    assert!(named > FILES / 2, "only {named} names were found at all");
}
