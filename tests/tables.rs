//! Lookup tables in the access lists, against Postfix's own qmqpd and with Postfix's own tools.
//!
//! `QMQPD_SEED` is where the generator of lists starts.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use harness::dialogue;
use harness::instance::{Instance, install_program, mail_owner};
use harness::launchers::connect_from;
use harness::lists::{self, CLIENTS, Client, LOG, List, Maker, letter};
use harness::master::{self, Master};
use harness::server::{Server, our_program};
use harness::versions;
use nix::unistd::chown;

/// How many lists are made up.
const LISTS: usize = 250;

/// Where the generator starts.
const SEED: u64 = 20_261_122;

/// Runs `check` for every number below `count`, and fails with everything that it found wrong.
fn all_of(count: usize, check: impl Fn(usize) -> Result<(), String> + Sync) {
    let failures = Mutex::new(Vec::new());
    dialogue::at_once(count, |index| {
        if let Err(report) = check(index) {
            failures.lock().unwrap().push(report);
        }
    });
    let failures = failures.into_inner().unwrap();
    let failed = failures.len();
    assert!(
        failures.is_empty(),
        "{failed} of {count}:\n{}",
        failures.join("\n")
    );
}

#[test]
fn made_up_lists_decide_as_with_postfix() {
    let test = "made_up_lists_decide_as_with_postfix";
    if master::is_missing(test) || !lists::in_private_network(test) {
        return;
    }
    let seed = std::env::var("QMQPD_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut maker = Maker::new(seed);
    let cases: Vec<List> = (0..LISTS).map(|_| maker.make()).collect();
    let letters = Mutex::new(String::new());
    all_of(LISTS * 2, |index| {
        let list = &cases[index / 2];
        let client = CLIENTS[(index * 7 + index / 2) % CLIENTS.len()];
        let outcome = lists::compare(list, client).map_err(|report| {
            let files = list.files.iter().map(|(name, content)| {
                format!("    {name}: {:?}\n", String::from_utf8_lossy(content))
            });
            let files: String = files.collect();
            format!(
                "list {}, {client:?}: {:?}\n{files}{report}",
                index / 2,
                list.conf
            )
        })?;
        letters.lock().unwrap().push(letter(&outcome));
        Ok(())
    });
    let letters = letters.into_inner().unwrap();
    for letter in ['P', 'D', 'Z'] {
        let count = letters.matches(letter).count();
        assert!(count > LISTS / 10, "{letter} only {count} times");
    }
}

const LOCAL4: &str = "127.0.0.1";
const LOCAL6: &str = "::1";
const GOOD: &str = "127.0.0.5";
const MIXED: &str = "127.0.0.7";
const NINE: &str = "127.0.0.9";
const DEEP: &str = "127.0.0.11";
const NONE: &str = "127.0.0.99";
const SIX: &str = "2001:db8::5";

/// Number, list (after `pdms= `: with parent_domain_matches_subdomains empty), client, what becomes of it.
type Example = (u32, &'static str, &'static str, char);

/// The worked examples of `tests/spec/client-access.md`, section 5. Not here: 5, 6 and 27 (bare IPv6 is taken for
/// IPv6), 32 (a file of dialogues), 54 (below, with a proxymap), 57 (needs inet_protocols), 60 (a dialogue).
#[rustfmt::skip]
const EXAMPLES: &[Example] = &[
    // The slowest.
    (55, "tcp:127.0.0.1:1", LOCAL4, 'Z'),
    (1, "", LOCAL4, 'D'),
    (2, "127.0.0.1", LOCAL4, 'P'),
    (3, "localhost", LOCAL6, 'P'),
    (3, "localhost", LOCAL4, 'P'),
    (4, "[::1]", LOCAL6, 'P'),
    (7, "127.0.0.1:628", LOCAL4, 'Z'),
    (8, "127.0.0.1/8", LOCAL4, 'Z'),
    (9, "127.0.0.1/8 [::1]", LOCAL6, 'P'),
    (10, "127.0.0.0/33 127.0.0.1", LOCAL4, 'Z'),
    (11, "!127.0.0.5, 127.0.0.0/8", GOOD, 'D'),
    (12, "!127.0.0.5, 127.0.0.0/8", NINE, 'P'),
    (13, "127.0.0.0/8 !127.0.0.5", GOOD, 'P'),
    (14, "!127.0.0.5", NINE, 'D'),
    (15, "!!127.0.0.1", LOCAL4, 'P'),
    (15, "!!!127.0.0.1 127.0.0.1", LOCAL4, 'D'),
    (16, "! 127.0.0.1", LOCAL4, 'F'),
    (17, "example.com", GOOD, 'P'),
    (18, ".example.com", GOOD, 'D'),
    (19, "pdms= example.com", GOOD, 'D'),
    (20, "pdms= .example.com", GOOD, 'P'),
    (21, "pdms= .example.org", DEEP, 'P'),
    (22, "pdms= .good.example.com", GOOD, 'D'),
    (23, "com", GOOD, 'P'),
    (24, "GOOD.Example.COM", GOOD, 'P'),
    (24, "mixed.example.com", MIXED, 'P'),
    (25, "unknown", NONE, 'P'),
    (26, "[2001:db8::]/32", SIX, 'P'),
    (26, "[2001:db8::/32]", SIX, 'P'),
    (26, "[2001:0DB8:0:0::0005]", SIX, 'P'),
    (28, "[127.0.0.1]", LOCAL4, 'P'),
    (28, "[127.0.0.0]/8", LOCAL4, 'P'),
    (28, "[127.0.0.0/8]", LOCAL4, 'P'),
    (28, "0.0.0.0/0", LOCAL4, 'P'),
    (29, "[::]/0", LOCAL4, 'D'),
    (29, "0.0.0.0/0", LOCAL6, 'D'),
    (30, "127/8 127.0.0.1", LOCAL4, 'Z'),
    (30, "127.0.0.0/255.0.0.0", LOCAL4, 'Z'),
    (31, "{127.0.0.1}", LOCAL4, 'D'),
    (31, "127.0.0.9;127.0.0.1", LOCAL4, 'D'),
    (31, "*", LOCAL4, 'D'),
    (31, "127.0.0.01", LOCAL4, 'D'),
    (31, "\"127.0.0.1\"", LOCAL4, 'D'),
    (33, "DIR/list", LOCAL4, 'P'),
    (34, "!DIR/list 127.0.0.0/8", LOCAL4, 'D'),
    (35, "!DIR/f", GOOD, 'P'),
    (36, "/nosuch 127.0.0.1", LOCAL4, 'Z'),
    (36, "!/nosuch 127.0.0.1", LOCAL4, 'Z'),
    (37, "127.0.0.1 /nosuch", LOCAL4, 'P'),
    (38, "DIR 127.0.0.1", LOCAL4, 'F'),
    (39, "inline:{127.0.0.9=}", NINE, 'P'),
    (40, "inline:{example.com=OK}", GOOD, 'P'),
    (40, "pdms= inline:{example.com=OK}", GOOD, 'D'),
    (41, "inline:{.example.com=OK}", GOOD, 'D'),
    (41, "pdms= inline:{.example.com=OK}", GOOD, 'P'),
    (42, "inline:{GOOD.example.com=OK}", GOOD, 'D'),
    (43, "inline:{127.0.0.0/8=OK}", NINE, 'D'),
    (43, "inline:{127.0.0=x}", LOCAL4, 'D'),
    (44, "!inline:{127.0.0.9=OK} 127.0.0.0/8", NINE, 'D'),
    (44, "!inline:{127.0.0.9=OK} 127.0.0.0/8", GOOD, 'P'),
    (45, "hash:DIR/made", DEEP, 'P'),
    (45, "btree:DIR/tree", DEEP, 'P'),
    (45, "cdb:DIR/made", DEEP, 'P'),
    (45, "lmdb:DIR/made", DEEP, 'P'),
    (45, "texthash:DIR/text", DEEP, 'D'),
    (46, "hash:DIR/x 127.0.0.1", LOCAL4, 'Z'),
    (47, "static:OK", NONE, 'P'),
    (48, "cidr:{{!127.0.0.0/8 OK}}", NINE, 'D'),
    (48, "cidr:{{!127.0.0.0/16 OK}}", "127.9.0.7", 'P'),
    (48, "cidr:{{!127.0.0.0/8 OK}}", SIX, 'D'),
    (49, "regexp:DIR/r49", GOOD, 'D'),
    (50, "regexp:DIR/r50", NINE, 'P'),
    (50, "regexp:DIR/r50", GOOD, 'D'),
    (51, "unionmap:{inline:{example.com=b},regexp:DIR/r50}", GOOD, 'P'),
    (52, "pipemap:{inline:{127.0.0.9=q},inline:{z=r}}", NINE, 'D'),
    (53, "fail:x 127.0.0.1", LOCAL4, 'Z'),
    (53, "127.0.0.1 fail:x", LOCAL4, 'P'),
    (53, "!fail:x 127.0.0.1", LOCAL4, 'Z'),
    (56, "127.0.0.0/8", "mapped 127.0.0.1", 'P'),
    (58, "t1:x t2:x t3:x t4:x t5:x t6:x t7:x t8:x t9:x ta:x tb:x tc:x td:x", LOCAL4, 'F'),
    (59, "localhost", "pipe", 'P'),
    (61, "$mynetworks", LOCAL4, 'P'),
];

#[test]
fn the_worked_examples_end_as_the_specification_says() {
    let test = "the_worked_examples_end_as_the_specification_says";
    if master::is_missing(test) || !lists::in_private_network(test) {
        return;
    }
    let dir = lists::temporary("examples");
    let mut files: Vec<(String, Vec<u8>)> = [
        ("list", "127.0.0.0/8\n"),
        ("f", "!127.0.0.5\n127.0.0.0/8\n"),
        ("text", "EXAMPLE.org x\n"),
        ("r49", "/GOOD/i OK\n"),
        ("r50", "!/^(127|good)/ OK\n"),
    ]
    .map(|(name, content)| (name.to_owned(), content.into()))
    .to_vec();
    for (kind, name) in [
        ("hash", "made"),
        ("btree", "tree"),
        ("cdb", "made"),
        ("lmdb", "made"),
    ] {
        let (suffix, bytes) = lists::postmap(&dir, kind, &[], "EXAMPLE.org x\n");
        files.push((format!("{name}.{suffix}"), bytes));
    }
    fs::remove_dir_all(dir).unwrap();
    all_of(EXAMPLES.len(), |index| {
        let (number, items, client, expected) = EXAMPLES[index];
        if lists::has_inline_rules(items) && !versions::has(9) {
            return Ok(());
        }
        let plain = items.strip_prefix("pdms= ");
        let mut list = List::new(plain.unwrap_or(items));
        list.files.clone_from(&files);
        if plain.is_some() {
            list.conf
                .push("parent_domain_matches_subdomains =".to_owned());
        }
        let postfix = lists::outcome(Server::Postfix, &list, Client(client));
        let ours = lists::outcome(Server::Ours, &list, Client(client));
        let told = letter(&ours);
        // `tests/spec/differences.md`, 5: who would be left without a reply hears that the configuration is at fault.
        let right =
            letter(&postfix) == expected && told == if expected == 'F' { 'Z' } else { expected };
        if right && (postfix[LOG] == ours[LOG] || number == 55) {
            return Ok(());
        }
        let difference = dialogue::difference(&postfix, &ours);
        Err(format!(
            "{number}: {items} {client}: {told}, not {expected}\n{difference}"
        ))
    });
}

/// Runs our program as root, as it is started by a launcher that leaves the change of user to it, and gives its reply
/// and its log.
fn as_root(instance: &Instance, wrapper: &[&str], arguments: &[&str]) -> (String, String) {
    with_config(&instance.config_directory(), wrapper, arguments)
}

fn with_config(config: &Path, wrapper: &[&str], arguments: &[&str]) -> (String, String) {
    let program = env!("CARGO_BIN_EXE_qmqpd");
    let words: Vec<&str> = wrapper.iter().copied().chain([program]).collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .args(["-S", "-o", "qmqpd_log_stderr=yes"])
        .args(arguments)
        .env_clear()
        .env("MAIL_CONFIG", config)
        .env("SECRET", "not for postmap")
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

/// An instance with this list.
fn instance(list: &str, conf: &[&str]) -> Instance {
    let mut lines = vec![format!("qmqpd_authorized_clients = {list}")];
    lines.extend(conf.iter().map(|&line| line.to_owned()));
    Instance::new(&lines)
}

const REFUSED: &str = "66:DError: localhost[127.0.0.1] is not authorized to use this service,";
const CANNOT_TELL: &str = "34:ZError: server configuration error,";

/// A client that is let in, and leaves without a word, is not answered.
const LET_IN: &str = "";

#[test]
fn databases_of_every_size_are_read_in_a_few_pages() {
    let test = "databases_of_every_size_are_read_in_a_few_pages";
    if master::is_missing(test) {
        return;
    }
    let dir = lists::temporary("sizes");
    for count in [10, 100_000] {
        let mut source = String::new();
        for i in 0..count {
            source += &format!("host{i}.example x\n");
        }
        let with_client = format!("{source}localhost x\n");
        for kind in ["hash", "btree", "lmdb", "cdb"] {
            let instance = instance(&format!("{kind}:DIR/yes, fail:x"), &[]);
            let put = |name: &str, source: &str| {
                let (suffix, bytes) = lists::postmap(&dir, kind, &[], source);
                instance.write(&format!("{name}.{suffix}"), &bytes);
            };
            put("yes", &with_client);
            let (reply, log) = as_root(&instance, &[], &[]);
            assert_eq!(reply, LET_IN, "{kind} {count} {log}");
            if count > 10 && kind != "cdb" {
                continue;
            }
            put("no", &source);
            let list = format!(
                "qmqpd_authorized_clients={kind}:{}/no",
                instance.dir.display()
            );
            let (reply, log) = as_root(&instance, &[], &["-o", &list]);
            assert_eq!(reply, REFUSED, "{kind} {count} {log}");
            if kind == "cdb" {
                for name in ["yes", "no"] {
                    let list = format!(
                        "qmqpd_authorized_clients=cdb:{}/{name}",
                        instance.dir.display()
                    );
                    check_reads(&instance, &dir.join("trace"), &list, name);
                }
            }
        }
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Looks at the system calls on a cdb file: none maps it or reads more than a few pages of it.
fn check_reads(instance: &Instance, trace: &Path, list: &str, name: &str) {
    let file = format!("{}/{name}.cdb", instance.dir.display());
    let wrapper = ["strace", "-qq", "-o", trace.to_str().unwrap(), "-P", &file];
    as_root(instance, &wrapper, &["-o", list]);
    let calls = fs::read_to_string(trace).unwrap();
    let reads: Vec<&str> = calls
        .lines()
        .filter(|call| call.starts_with("pread64"))
        .collect();
    let bytes = reads
        .iter()
        .filter_map(|call| call.rsplit("= ").next()?.parse::<usize>().ok());
    // Name and address in two forms each: an entry of the directory, some slots, and a record if there is one.
    assert!(
        (2..=10).contains(&reads.len()) && bytes.sum::<usize>() < 4096,
        "{calls}"
    );
    // Debug builds ask with fcntl whether a descriptor that is closed was open.
    let harmless = "openat statx fstat newfstatat stat fcntl close";
    let mut others = calls.lines().filter(|call| !call.starts_with("pread64"));
    assert!(
        others.all(|call| harmless.contains(call.split('(').next().unwrap())),
        "{calls}"
    );
}

#[test]
fn a_file_that_only_root_can_read_is_opened_before_root_is_given_up() {
    let test = "a_file_that_only_root_can_read_is_opened_before_root_is_given_up";
    if master::is_missing(test) {
        return;
    }
    let tables = "texthash:DIR/text, cidr:DIR/cidr, regexp:DIR/regexp, cdb:DIR/made, hash:DIR/made, btree:DIR/tree, \
                  lmdb:DIR/made";
    let files = tables_for_root();
    for options in [&[][..], &["-c"]] {
        for table in tables.split(", ") {
            let instance = instance(&format!("!{table} fail:x"), &[]);
            write_for_root_alone(&instance, &files);
            let (reply, log) = as_root(&instance, &[], options);
            assert_eq!(reply, REFUSED, "{table} {options:?} {log}");
            let other = format!("qmqpd_authorized_clients={table}");
            let other = other.replace("DIR", &instance.dir.join("other").display().to_string());
            let (reply, log) = as_root(&instance, &[], &["-o", &other]);
            assert_eq!(reply, REFUSED, "{other} {log}");
        }
    }
}

/// The files of tables that have the client `localhost`, and below `other` of tables that do not have it.
fn tables_for_root() -> Vec<(String, Vec<u8>)> {
    let dir = lists::temporary("root");
    let mut files = Vec::new();
    for (place, name, addr) in [
        ("", "localhost", "127.0.0.1"),
        ("other/", "other", "127.0.0.2"),
    ] {
        let mut put = |file: &str, bytes: Vec<u8>| files.push((format!("{place}{file}"), bytes));
        put("text", format!("{name} x\n").into_bytes());
        put("regexp", format!("/^{name}/ x\n").into_bytes());
        put("cidr", format!("{addr} x\n").into_bytes());
        for (kind, base) in [
            ("cdb", "made"),
            ("hash", "made"),
            ("btree", "tree"),
            ("lmdb", "made"),
        ] {
            let (suffix, bytes) = lists::postmap(&dir, kind, &[], &format!("{name} x\n"));
            put(&format!("{base}.{suffix}"), bytes);
        }
    }
    fs::remove_dir_all(dir).unwrap();
    files
}

/// Puts files into an instance that only root can read.
fn write_for_root_alone(instance: &Instance, files: &[(String, Vec<u8>)]) {
    fs::create_dir(instance.dir.join("other")).unwrap();
    for (name, bytes) in files {
        instance.write(name, bytes);
        set_mode(&instance.dir.join(name), 0o600);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_pattern_table_that_only_root_can_read_is_unavailable_and_check_says_what_to_do() {
    let test = "a_pattern_table_that_only_root_can_read_is_unavailable_and_check_says_what_to_do";
    if master::is_missing(test) {
        return;
    }
    let owner = mail_owner().unwrap();
    for options in [&[][..], &["-c"]] {
        let instance = instance("!pcre:DIR/regexp fail:x", &[]);
        write_for_root_alone(
            &instance,
            &[("regexp".to_owned(), b"/^localhost/ x\n".to_vec())],
        );
        let file = instance.dir.join("regexp");
        let why = format!("open {}: Permission denied", file.display());
        let (reply, log) = as_root(&instance, &[], options);
        assert_eq!(reply, CANNOT_TELL, "{log}");
        assert!(log.contains(&why), "{log}");
        let (report, _) = as_root(&instance, &[], &["--check"]);
        assert!(report.contains(&why), "{report}");
        assert!(
            report.contains("User postfix reads this table: \"chgrp postfix\""),
            "{report}"
        );
        // What it says helps.
        chown(&file, None, Some(owner.gid)).unwrap();
        set_mode(&file, 0o640);
        let (reply, log) = as_root(&instance, &[], options);
        assert_eq!(reply, REFUSED, "{log}");
        let (report, _) = as_root(&instance, &[], &["--check"]);
        assert!(!report.contains("unavailable"), "{report}");
    }
}

#[test]
fn a_table_of_networks_that_is_a_directory_is_named_in_the_log() {
    let test = "a_table_of_networks_that_is_a_directory_is_named_in_the_log";
    if master::is_missing(test) {
        return;
    }
    let instance = instance("cidr:DIR/data, 127.0.0.1", &[]);
    let data = instance.dir.join("data");
    let (reply, log) = as_root(&instance, &[], &[]);
    assert_eq!(reply, CANNOT_TELL, "{log}");
    let table = format!("cidr:{}", data.display());
    let why = format!("cidr map {}: read error: Is a directory", data.display());
    for warning in [
        format!("warning: {table} is unavailable. {why}\n"),
        format!("warning: qmqpd_authorized_clients: {table}: table lookup problem\n"),
    ] {
        assert_eq!(log.matches(&warning).count(), 1, "{warning}{log}");
    }
}

/// A program in the place of postmap(1).
fn fake_postmap(instance: &Instance, script: &str) {
    instance.write_program("postmap", &format!("#!/bin/sh\n{script}\n"));
}

/// The script; what is logged; whether the client is refused by the item after the table, which is without error then.
#[rustfmt::skip]
const SCRIPTS: &[(&str, &str, bool)] = &[
    (
        "",
        "cannot run DIR/postmap: No such file or directory, perhaps you should use \"proxy:pcre:x\" instead",
        false,
    ),
    ("cat >/dev/null; exit 1", "", true),
    (
        "cat >/dev/null; echo 'postmap: warning: odd, not fatal: or error: at all' >&2; exit 1",
        "warning: odd, not fatal: or error: at all",
        true,
    ),
    // Newer versions say something like this of a type at every start; memcache with a backup warns for every key.
    (
        "cat >/dev/null; for i in 1 2 3; do echo 'postmap: warning: type is old' >&2; done; echo 'BDB1 note' >&2; exit 1",
        "warning: type is old",
        true,
    ),
    (
        "cat >/dev/null; echo 'postmap: warning: odd' >&2; echo 'postmap: error: broken' >&2; exit 1",
        "error: broken",
        false,
    ),
    (
        "cat >/dev/null; echo 'postmap: panic: broken' >&2; exit 1",
        "panic: broken",
        false,
    ),
    (
        "cat >/dev/null; echo 'postmap: warning: pcre map x, line 1: match limit exceeded' >&2; exit 1",
        "pcre:x: table lookup problem",
        false,
    ),
    (
        "sed 's/$/\tx/'; echo 'postmap: warning: pcre map x, line 1: heap limit exceeded' >&2",
        "pcre:x: table lookup problem",
        false,
    ),
    (
        "cat >/dev/null; yes 'postmap: warning: odd' | head -c 1048577 >&2; exit 1",
        "pcre:x: table lookup problem",
        false,
    ),
    (
        "cat >/dev/null; yes 'postmap: warning: odd' | head -c 1048576 >&2; exit 1",
        "warning: odd",
        true,
    ),
    // It may not signal itself: the kernel does.
    (
        "cat >/dev/null; echo 'postmap: warning: odd' >&2; exec perl -e 'alarm 1; sleep 50'",
        "postmap(1): signal: 14",
        false,
    ),
    (
        "echo 'postmap: fatal: broken' >&2; exit 1",
        "pcre:x is unavailable. broken",
        false,
    ),
    (
        "cat >/dev/null; echo 'postmap: fatal: table pcre:x: query error' >&2; exit 1",
        "pcre:x: table lookup problem",
        false,
    ),
    (
        "cat >/dev/null; echo; exit 1",
        "pcre:x: table lookup problem",
        false,
    ),
    (
        "exec perl -e 'print unpack q(p), pack q(J), 1'",
        "postmap(1): signal: 11",
        false,
    ),
    ("exit 7", "postmap(1): exit status: 7", false),
    (
        "exec sleep 100",
        "postmap(1) took longer than 15 seconds",
        false,
    ),
    (
        "exec sleep 100 >/dev/null 2>&1",
        "postmap(1) took longer than 15 seconds",
        false,
    ),
];

#[test]
fn a_postmap_that_fails_in_any_way_lets_nobody_in() {
    let test = "a_postmap_that_fails_in_any_way_lets_nobody_in";
    if master::is_missing(test) {
        return;
    }
    all_of(SCRIPTS.len() * 2, |index| {
        let (script, logged, refused) = SCRIPTS[index / 2];
        let not = ["", "!"][index % 2];
        let instance = instance(
            &format!("{not}pcre:x !0.0.0.0/0"),
            &["command_directory = DIR"],
        );
        if !script.is_empty() {
            fake_postmap(&instance, script);
        }
        let begin = Instant::now();
        let (reply, log) = as_root(&instance, &[], &[]);
        let expected = if refused { REFUSED } else { CANNOT_TELL };
        let logged = logged.replace("DIR", &instance.dir.display().to_string());
        let told = if refused && !logged.is_empty() {
            log.matches(&logged).count() == 1
        } else {
            log.contains(&logged)
        };
        if reply == expected && told && begin.elapsed() < Duration::from_secs(20) {
            return Ok(());
        }
        Err(format!(
            "{not} {script}: {reply} after {:?}\n{log}",
            begin.elapsed()
        ))
    });
}

/// Postfix 3.11 has tables of the type debug (`tests/spec/versions.md`, 8): a line for each key, which decides nothing.
#[test]
fn lines_about_single_keys_are_information() {
    let test = "lines_about_single_keys_are_information";
    if master::is_missing(test) {
        return;
    }
    let line = |key: &str, value: &str| format!("DIR/list lookup: \"{key}\" = \"{value}\"");
    let found = line("localhost", "error: no more memory");
    let (name, address) = (
        line("localhost", "not_found"),
        line("127.0.0.1", "not_found"),
    );
    let script = |lines: &[&String], end: &str| {
        let say = |line: &&String| format!("echo 'postmap: texthash:{line}' >&2; ");
        format!(
            "cat >/dev/null; {}{end}",
            lines.iter().map(say).collect::<String>()
        )
    };
    let not_found = script(&[&name, &address], "exit 1");
    let is_found = script(&[&found], "printf 'localhost\\terror: no more memory\\n'");
    for (source, script, lines, expected) in [
        ("", not_found, vec![&name, &address], REFUSED),
        (
            "localhost error: no more memory\n",
            is_found,
            vec![&found],
            LET_IN,
        ),
    ] {
        let scripted = instance("debug:texthash:DIR/list", &["command_directory = DIR"]);
        let dir = scripted.dir.display().to_string();
        fake_postmap(&scripted, &script.replace("DIR", &dir));
        let real = instance("debug:texthash:DIR/list", &[]);
        real.write("list", source.as_bytes());
        let instances = [Some(scripted), versions::has(8).then_some(real)];
        for instance in instances.iter().flatten() {
            let (reply, log) = as_root(instance, &[], &[]);
            assert_eq!(reply, expected, "{log}");
            for line in &lines {
                let line = line.replace("DIR", &instance.dir.display().to_string());
                assert!(
                    log.contains(&format!(": texthash:{line}\n")),
                    "{line} {log}"
                );
            }
            assert!(!log.contains("warning: "), "{log}");
        }
    }
}

/// Types of tables, what makes one that has something to warn of, and the warning. None of them has the client.
const WARNING: &[(&str, &str, &str)] = &[
    ("hash", "hash:DIR/made", "made.db is older than source file"),
    (
        "btree",
        "btree:DIR/made",
        "made.db is older than source file",
    ),
    (
        "lmdb",
        "lmdb:DIR/made",
        "made.lmdb is older than source file",
    ),
    ("", "pcre:DIR/rules", "error in regex at offset"),
    (
        "hash",
        "unionmap:{hash:DIR/made,pcre:DIR/rules}",
        "made.db is older than source file",
    ),
];

/// Puts the files of a table that warns into a directory.
fn write_warning(dir: &Path, kind: &str) {
    if !kind.is_empty() {
        let made = dir.join("making");
        fs::create_dir(&made).unwrap();
        let (suffix, bytes) = lists::postmap(&made, kind, &[], "other.example x\n");
        fs::remove_dir_all(made).unwrap();
        // Postfix takes a source that was written in the last minutes for one that is still being written.
        for (name, age) in [(format!("made.{suffix}"), 7200), ("made".to_owned(), 3600)] {
            fs::write(dir.join(&name), &bytes).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            let file = File::options().write(true).open(dir.join(name)).unwrap();
            file.set_modified(time).unwrap();
        }
    }
    fs::write(dir.join("rules"), "/other/ x\n/local(/ x\n").unwrap();
}

#[test]
fn a_table_that_only_warns_is_an_answer() {
    let test = "a_table_that_only_warns_is_an_answer";
    if master::is_missing(test) {
        return;
    }
    for (kind, table, warning) in WARNING {
        let instance = instance(&format!("{table}, 127.0.0.1"), &[]);
        write_warning(&instance.dir, kind);
        let (reply, log) = as_root(&instance, &[], &[]);
        assert_eq!(reply, LET_IN, "{table} {log}");
        assert_eq!(log.matches(warning).count(), 1, "{table} {log}");
        let (report, _) = as_root(&instance, &[], &["--check"]);
        assert_eq!(report.matches(warning).count(), 1, "{table} {report}");
        let instance = self::instance(table, &[]);
        write_warning(&instance.dir, kind);
        let (reply, log) = as_root(&instance, &[], &[]);
        assert_eq!(reply, REFUSED, "{table} {log}");
    }
}

#[test]
fn under_master_a_table_that_only_warns_is_an_answer() {
    let test = "under_master_a_table_that_only_warns_is_an_answer";
    if master::is_missing(test) {
        return;
    }
    let request = master::request(b"Subject: t\n\nb\n", "s@x.example", &["r@y.example"]);
    for (kind, table, warning) in WARNING {
        let port = master::free_port();
        let postfix = Master::start_with(
            &format!("qmqpd_authorized_clients = {table}, 127.0.0.1\n"),
            // A machine may have no name server.
            &format!("{port} inet n - n - - qmqpd -o qmqpd_peername_lookup=no"),
            |dir| write_warning(dir, kind),
        );
        let send = |from: u8| {
            let stream = connect_from([127, 0, 0, from], port);
            master::send(stream, &request).unwrap()
        };
        let reply = send(1);
        assert!(reply.contains(":KOk: queued as "), "{table} {reply}");
        postfix.wait_for_log(warning);
        let log = postfix.log();
        let mut lines = log.lines().filter(|line| line.contains("qmqpd["));
        let said = lines.by_ref().filter(|line| line.contains(warning)).count();
        assert_eq!(said, 1, "{table} {log}");
        let reply = send(3);
        assert!(reply.contains("is not authorized"), "{table} {reply}");
    }
}

/// A table of postmap's that cannot tell, though it does not call that fatal; its rules, and what is logged.
struct Untold {
    table: &'static str,
    rules: &'static str,
    logged: &'static str,
}

/// With PCRE2, and with the PCRE of older versions (`tests/spec/versions.md`, 10).
#[rustfmt::skip]
const UNTOLD: [&[Untold]; 2] = [
    &[
        Untold { table: "pcre:DIR/rules", rules: "/(*LIMIT_MATCH=1)(a|b|l|o|c)*t$/ x\n", logged: "match limit exceeded" },
        Untold { table: "pcre:DIR/rules", rules: "/(*LIMIT_DEPTH=1)(a|b|l|o|c)*t$/ x\n", logged: "matching depth limit exceeded" },
        Untold { table: "pcre:DIR/rules", rules: "/(?R)/ x\n", logged: "nested recursion at the same subject position" },
        Untold { table: "unionmap:{inline:{a=b},pcre:DIR/rules}", rules: "/(*LIMIT_MATCH=1)(a|b|l|o|c)*t$/ x\n", logged: "match limit exceeded" },
    ],
    &[
        Untold { table: "pcre:DIR/rules", rules: "/(*LIMIT_MATCH=1)(a|b|l|o|c)*t$/ x\n", logged: "backtracking limit exceeded" },
        Untold { table: "unionmap:{inline:{a=b},pcre:DIR/rules}", rules: "/(*LIMIT_MATCH=1)(a|b|l|o|c)*t$/ x\n", logged: "backtracking limit exceeded" },
    ],
];

#[test]
fn a_rule_that_pcre_gives_up_lets_nobody_past() {
    let test = "a_rule_that_pcre_gives_up_lets_nobody_past";
    if master::is_missing(test) {
        return;
    }
    for Untold {
        table,
        rules,
        logged,
    } in UNTOLD[usize::from(!versions::has(10))]
    {
        let instance = instance(&format!("!{table}, 127.0.0.1"), &[]);
        instance.write("rules", rules.as_bytes());
        let (reply, log) = as_root(&instance, &[], &[]);
        assert_eq!(reply, CANNOT_TELL, "{table} {rules} {log}");
        assert!(log.contains(logged), "{table} {rules} {log}");
    }
}

/// Has a program in the place of postmap(1) write down what it is given: arguments, environment, descriptors, rights and
/// input. The report is data/TYPE.
const CONFESSION: &str = "\
for table; do :; done; exec >DATA/${table%%:*}; echo \"$# $*\"; env | grep -v PWD= | sort; ls /proc/self/fd | tr '\\n' ' '; echo
grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs):' /proc/self/status | tr -s '\\t ' ' '; cat; exit 1";

/// An instance with this list, where postmap(1) writes down what it is given.
fn confessing(list: &str) -> Instance {
    let instance = instance(list, &["command_directory = DIR", "meta_directory = DIR"]);
    let data = instance.dir.join("data");
    set_mode(&data, 0o777);
    fake_postmap(
        &instance,
        &CONFESSION.replace("DATA", &data.display().to_string()),
    );
    instance
}

fn confession(dir: &Path, kind: &str) -> String {
    fs::read_to_string(dir.join("data").join(kind)).unwrap()
}

/// The rights of a program that is told a name.
fn few_rights(uid: u32, gid: u32, groups: &str) -> String {
    let ids = |id: u32| format!("{id} {id} {id} {id}");
    let none = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| format!("{set}: {:016x}\n", 0));
    format!(
        "Uid: {}\nGid: {}\nGroups: {groups}\n{}NoNewPrivs: 1\n",
        ids(uid),
        ids(gid),
        none.concat()
    )
}

/// What a program reports that was given nothing but these.
fn given(arguments: &str, config: &Path, rights: &str, input: &str) -> String {
    let config = config.display();
    format!("{arguments}\nMAIL_CONFIG={config}\n0 1 2 3 \n{rights}{input}")
}

#[test]
fn postmap_gets_its_keys_and_nothing_else() {
    let test = "postmap_gets_its_keys_and_nothing_else";
    if master::is_missing(test) {
        return;
    }
    let owner = mail_owner().unwrap();
    let groups = nix::unistd::getgrouplist(c"postfix", owner.gid).unwrap();
    let groups: String = groups.iter().map(|group| format!("{group} ")).collect();
    let rights = few_rights(owner.uid.as_raw(), owner.gid.as_raw(), &groups);
    // Root with groups, and with rights that outlive a change of user.
    let launcher = [
        "setpriv",
        "--groups",
        "0,4",
        "--inh-caps",
        "+chown,+kill",
        "--ambient-caps",
        "+chown,+kill",
    ];
    for options in [&[][..], &["-c"]] {
        let instance = confessing("pcre:a;b $(x), new:y, 127.0.0.1, hash:z");
        instance.write("dynamicmaps.cf", b"# c\nnew postfix-new.so open_new\n");
        let (reply, log) = as_root(&instance, &launcher, options);
        assert_eq!(reply, LET_IN, "{log}");
        for table in ["pcre:a;b", "new:y"] {
            let kind = table.split(':').next().unwrap();
            let expected = given(
                &format!("3 -q - {table}"),
                &instance.config_directory(),
                &rights,
                "localhost\n127.0.0.1\n",
            );
            assert_eq!(confession(&instance.dir, kind), expected, "{options:?}");
        }
        let not_reached = instance.dir.join("data/hash");
        assert!(!not_reached.exists(), "started for nothing");
    }
    for command in [&["--explain", "127.0.0.1", "localhost"][..], &["--check"]] {
        let instance = confessing("pcre:x");
        as_root(&instance, &launcher, command);
        let said = confession(&instance.dir, "pcre");
        assert!(said.contains(&rights), "{command:?} {said}");
    }
}

#[test]
fn a_user_starts_postmap_as_itself() {
    let test = "a_user_starts_postmap_as_itself";
    if master::is_missing(test) {
        return;
    }
    let instance = confessing("pcre:x, 127.0.0.1");
    let launcher = [
        "setpriv",
        "--reuid",
        "54321",
        "--regid",
        "54322",
        "--clear-groups",
        "--inh-caps",
        "+chown,+kill",
        "--ambient-caps",
        "+chown,+kill",
    ];
    let program = our_program(&instance);
    let output = Command::new(launcher[0])
        .args(&launcher[1..])
        .arg(program)
        .args(["-S", "-o", "qmqpd_log_stderr=yes"])
        .env_clear()
        .env("MAIL_CONFIG", instance.config_directory())
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    let expected = given(
        "3 -q - pcre:x",
        &instance.config_directory(),
        &few_rights(54321, 54322, ""),
        "localhost\n127.0.0.1\n",
    );
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(confession(&instance.dir, "pcre"), expected, "{log}");
}

#[test]
fn root_is_told_no_name() {
    let test = "root_is_told_no_name";
    if master::is_missing(test) {
        return;
    }
    let group = mail_owner().unwrap().gid;
    // Mode of the directory and of the file, group of both, and whether mail_owner can read the file.
    for (directory, file, group, readable) in [
        (0o755, 0o644, None, true),
        (0o755, 0o640, Some(group), true),
        (0o710, 0o640, Some(group), true),
        (0o755, 0o640, None, false),
        (0o755, 0o600, Some(group), false),
        // Its class has no right, though all others have it.
        (0o755, 0o604, Some(group), false),
        (0o700, 0o644, None, false),
    ] {
        let instance = confessing("hash:DIR/tables/made, 127.0.0.1");
        let tables = instance.dir.join("tables");
        fs::create_dir(&tables).unwrap();
        instance.write("tables/made.db", b"");
        for (path, mode) in [(tables.join("made.db"), file), (tables.clone(), directory)] {
            chown(&path, None, group).unwrap();
            set_mode(&path, mode);
        }
        let (_, log) = as_root(&instance, &[], &[]);
        let said = confession(&instance.dir, "hash");
        let case = format!("{directory:o} {file:o} {group:?}: {said} {log}");
        assert_eq!(said.contains("\nUid: 0 0 0 0\n"), !readable, "{case}");
        assert_eq!(said.contains("localhost"), readable, "{case}");
        let arguments = if readable {
            "3 -q - hash:"
        } else {
            "2 -s hash:"
        };
        assert!(said.starts_with(arguments), "{case}");
        assert!(said.contains("NoNewPrivs: 1"), "{case}");
        assert!(said.contains("\n0 1 2 3 \n"), "{case}");
    }
}

#[test]
fn a_dump_that_is_not_read_holds_nobody_up() {
    let test = "a_dump_that_is_not_read_holds_nobody_up";
    if master::is_missing(test) {
        return;
    }
    let instance = instance(
        "127.0.0.0/8, hash:DIR/made",
        &[
            "debug_peer_list = localhost, hash:DIR/made",
            "command_directory = DIR",
        ],
    );
    instance.write("made.db", b"");
    set_mode(&instance.dir.join("made.db"), 0o600);
    fake_postmap(&instance, "echo $1 >${0%/*}/said; exec yes 'key value'");
    let begin = Instant::now();
    let (reply, log) = as_root(&instance, &[], &[]);
    assert_eq!(reply, LET_IN, "{log}");
    assert!(begin.elapsed() < Duration::from_secs(2), "{log}");
    let said = fs::read_to_string(instance.dir.join("said"));
    assert_eq!(said.unwrap(), "-s\n");
}

#[test]
fn under_master_postmap_gets_its_keys_and_nothing_else() {
    let test = "under_master_postmap_gets_its_keys_and_nothing_else";
    if master::is_missing(test) {
        return;
    }
    let owner = mail_owner().unwrap();
    let port = master::free_port();
    let main_cf =
        "command_directory = DIR\nqmqpd_authorized_clients = pcre:x, hash:DIR/made, 127.0.0.1\n";
    let service = format!("{port} inet n - n - - qmqpd");
    let postfix = Master::start_with(main_cf, &service, |dir| {
        let script = CONFESSION.replace("DATA", &dir.join("data").display().to_string());
        // The dump of the indexed file is an empty one.
        let script = format!("#!/bin/sh\n[ $1 = -q ] || exit 0\n{script}\n");
        fs::write(dir.join("draft"), script).unwrap();
        install_program(&dir.join("draft"), &dir.join("postmap"));
        fs::write(dir.join("made.db"), "").unwrap();
        set_mode(&dir.join("made.db"), 0o600);
    });
    let request = master::request(b"Subject: t\n\nb\n", "s@x.example", &["r@y.example"]);
    let stream = connect_from([127, 0, 0, 1], port);
    let reply = master::send(stream, &request).unwrap();
    assert!(
        reply.contains(":KOk: queued as "),
        "{reply} {}",
        postfix.log()
    );
    let said = confession(&postfix.dir, "pcre");
    assert!(said.starts_with("3 -q - pcre:x\n"), "{said}");
    assert!(said.contains("\n0 1 2 3 \n"), "{said}");
    let uid = owner.uid;
    assert!(
        said.contains(&format!("\nUid: {uid} {uid} {uid} {uid}\n")),
        "{said}"
    );
    assert!(said.contains("\nCapPrm: 0000000000000000\n"), "{said}");
    assert!(said.contains("\nCapInh: 0000000000000000\n"), "{said}");
    assert!(
        said.ends_with("NoNewPrivs: 1\nlocalhost\n127.0.0.1\n"),
        "{said}"
    );
}

/// What a scripted proxymap says when it is asked to open a table, and when it is asked for a key.
struct Said {
    greeting: &'static [u8],
    open: &'static [u8],
    lookup: &'static [u8],
    /// One byte a second.
    slowly: bool,
}

const GREETING: &[u8] = b"protocol\0proxymap_protocol\0\0";
const FIXED: &[u8] = b"status\x000\0flags\x0016\0\0";
const FOUND: &[u8] = b"status\x000\0value\0x\0\0";
const NOT_FOUND: &[u8] = b"status\x001\0value\0\0\0";

impl Said {
    fn new(open: &'static [u8], lookup: &'static [u8]) -> Said {
        Said {
            greeting: GREETING,
            open,
            lookup,
            slowly: false,
        }
    }

    /// Serves one connection. Nothing to say is a reason to hang up.
    fn serve(&self, mut stream: impl Read + Write) -> Option<()> {
        self.say(&mut stream, self.greeting)?;
        let mut request = [0; 4096];
        loop {
            let length = stream
                .read(&mut request)
                .ok()
                .filter(|&length| length > 0)?;
            let is_open = request[..length].starts_with(b"request\0open\0");
            let answer = if is_open { self.open } else { self.lookup };
            if answer.is_empty() {
                return None;
            }
            self.say(&mut stream, answer)?;
        }
    }

    fn say(&self, stream: &mut impl Write, bytes: &[u8]) -> Option<()> {
        for piece in bytes.chunks(if self.slowly { 1 } else { bytes.len().max(1) }) {
            stream.write_all(piece).ok()?;
            if self.slowly {
                thread::sleep(Duration::from_secs(1));
            }
        }
        Some(())
    }
}

/// Listens as proxymap in an instance; each connection gets the next of `said`, and then the last one again.
fn proxymap(instance: &Instance, said: Vec<Said>) {
    let path = instance.queue_directory().join("private/proxymap");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    // Ends with the test.
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            said[index.min(said.len() - 1)].serve(stream.unwrap());
        }
    });
}

/// What the server says; what the client hears; what is logged.
#[rustfmt::skip]
fn proxymaps() -> Vec<(Vec<Said>, &'static str, &'static str)> {
    let gave_up = "the proxymap service has not answered within 15 seconds";
    let denied = "is unavailable. proxymap service is not configured for table \"hash:x\"";
    let silent = Said {
        greeting: b"protocol\0",
        ..Said::new(FIXED, FOUND)
    };
    let old = Said {
        greeting: b"",
        ..Said::new(FIXED, FOUND)
    };
    let slow = Said {
        slowly: true,
        ..Said::new(FIXED, FOUND)
    };
    let wrong = Said {
        greeting: b"protocol\0cleanup_protocol\0\0",
        ..Said::new(FIXED, FOUND)
    };
    vec![
        (vec![], CANNOT_TELL, "connect #1 to subsystem private/proxymap: No such file or directory"),
        (vec![silent], CANNOT_TELL, gave_up),
        (vec![slow], CANNOT_TELL, gave_up),
        (vec![wrong], CANNOT_TELL, "unexpected protocol cleanup_protocol"),
        (vec![Said::new(b"garbage", b"")], CANNOT_TELL, gave_up),
        (vec![Said::new(b"\0", b"")], CANNOT_TELL, "dict_proxy_open: service proxymap: malformed reply"),
        (vec![Said::new(b"status\0x\0flags\x0016\0\0", b"")], CANNOT_TELL, "malformed reply"),
        (vec![Said::new(b"status\x009\0flags\x000\0\0", b"")], CANNOT_TELL, "unexpected reply status 9"),
        (vec![Said::new(b"", b"")], CANNOT_TELL, "dict_proxy_open: service proxymap: unexpected end-of-input"),
        (vec![Said::new(b"status\x004\0flags\x000\0\0", b"")], CANNOT_TELL, denied),
        (vec![Said::new(b"status\x003\0flags\x000\0\0", b"")], CANNOT_TELL, "invalid request"),
        (vec![Said::new(FIXED, b"status\x004\0value\0\0\0")], CANNOT_TELL, denied),
        (vec![Said::new(FIXED, b"status\x003\0value\0\0\0")], CANNOT_TELL, "key \"localhost\": invalid request"),
        (vec![Said::new(FIXED, b"status\x002\0value\0\0\0")], CANNOT_TELL, "proxy:hash:x: table lookup problem"),
        (vec![Said::new(FIXED, b"status\x005\0value\0\0\0")], CANNOT_TELL, "proxy:hash:x: table lookup problem"),
        (vec![Said::new(FIXED, b"")], CANNOT_TELL, "dict_proxy_lookup: service proxymap: unexpected end-of-input"),
        (vec![Said::new(FIXED, b""), Said::new(FIXED, FOUND)], LET_IN, "dict_proxy_lookup: service proxymap"),
        (vec![Said::new(FIXED, FOUND)], LET_IN, ""),
        (vec![old], LET_IN, ""),
        (vec![Said::new(FIXED, NOT_FOUND)], REFUSED, ""),
    ]
}

#[test]
fn a_proxymap_that_fails_in_any_way_lets_nobody_in() {
    let test = "a_proxymap_that_fails_in_any_way_lets_nobody_in";
    if master::is_missing(test) {
        return;
    }
    let cases = Mutex::new(proxymaps());
    let count = cases.lock().unwrap().len();
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let (said, expected, logged) = cases.lock().unwrap().pop().unwrap();
                let instance = instance("proxy:hash:x, !0.0.0.0/0", &[]);
                if !said.is_empty() {
                    proxymap(&instance, said);
                }
                let begin = Instant::now();
                let (reply, log) = as_root(&instance, &[], &[]);
                assert_eq!(reply, expected, "{logged}: {log}");
                assert!(log.contains(logged), "no {logged:?} in {log}");
                assert!(begin.elapsed() < Duration::from_secs(20), "{log}");
            });
        }
    });
}

/// Serves one request after another: what the client says to the byte, and what proxymap of Postfix 3.11 answers.
fn converse(mut stream: impl Read + Write, requests: &[(String, &[u8])]) {
    stream.write_all(GREETING).unwrap();
    for (request, answer) in requests {
        let mut bytes = vec![0; request.len()];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(
            bytes.escape_ascii().to_string(),
            request.replace('|', "\\x00")
        );
        stream.write_all(answer).unwrap();
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// The bytes are those that passed between this program and proxymap 3.11.7.
#[test]
fn a_proxymap_of_3_11_is_asked_again_in_its_own_form() {
    let lookup = |key: &str| {
        format!("request|lookup|table|hash:x|instance_flags|0|flags|524352|key|{key}||")
    };
    for (answer, last_key, expected) in [
        (
            &b"status\x000\0flags\x00524352\0value\0x\0\0"[..],
            "localhost",
            LET_IN,
        ),
        (
            b"status\x001\0flags\x00524352\0value\0\0\0",
            "127.0.0.1",
            REFUSED,
        ),
        (
            b"status\x002\0flags\x00524352\0value\0\0\0",
            "localhost",
            CANNOT_TELL,
        ),
    ] {
        let instance = instance("proxy:hash:x", &[]);
        let path = instance.queue_directory().join("private/proxymap");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let open = "request|open|table|hash:x|";
        let mut requests = vec![(
            format!("{open}instance_flags|0||"),
            &b"status\x000\0flags\x0016\0\0"[..],
        )];
        requests.push((lookup("localhost"), answer));
        if last_key != "localhost" {
            requests.push((lookup(last_key), answer));
        }
        let server = thread::spawn(move || {
            let old = (
                format!("{open}flags|0||"),
                &b"status\x003\0flags\x000\0\0"[..],
            );
            converse(listener.accept().unwrap().0, &[old]);
            converse(listener.accept().unwrap().0, &requests);
        });
        let (reply, log) = as_root(&instance, &[], &[]);
        assert_eq!(reply, expected, "{log}");
        server.join().unwrap();
    }
}

#[test]
fn a_real_proxymap_answers_for_the_tables_it_is_allowed() {
    let test = "a_real_proxymap_answers_for_the_tables_it_is_allowed";
    if master::is_missing(test) {
        return;
    }
    let main_cf =
        "proxy_read_maps = proxy:texthash:DIR/yes proxy:regexp:DIR/rules proxy:texthash:DIR/none\n";
    let postfix = Master::start_with(main_cf, "proxymap unix - - n - - proxymap\n", |dir| {
        fs::write(dir.join("yes"), "example x\nlocalhost x\n").unwrap();
        fs::write(dir.join("rules"), "/^127/ x\n").unwrap();
    });
    let dir = postfix.dir.display();
    for (list, expected, logged) in [
        (format!("proxy:texthash:{dir}/yes"), LET_IN, ""),
        (format!("!proxy:texthash:{dir}/yes, 0.0.0.0/0"), REFUSED, ""),
        (format!("proxy:regexp:{dir}/rules"), LET_IN, ""),
        (
            format!("proxy:texthash:{dir}/none"),
            CANNOT_TELL,
            "table lookup problem",
        ),
        (
            format!("!proxy:texthash:{dir}/other, 0.0.0.0/0"),
            CANNOT_TELL,
            "proxymap service is not configured for table",
        ),
    ] {
        let list = format!("qmqpd_authorized_clients={list}");
        for options in [&["-o", &list][..], &["-c", "-o", &list]] {
            let (reply, log) = with_config(&postfix.dir.join("conf"), &[], options);
            assert_eq!(reply, expected, "{list} {log} {}", postfix.log());
            assert!(log.contains(logged), "no {logged:?} in {log}");
        }
    }
}

#[test]
fn under_master_a_table_is_read_before_the_chroot_and_watched() {
    let test = "under_master_a_table_is_read_before_the_chroot_and_watched";
    if master::is_missing(test) {
        return;
    }
    let dir = lists::temporary("watched");
    let port = master::free_port();
    let service = format!("{port} inet n - y - - qmqpd");
    let request = master::request(b"Subject: t\n\nb\n", "s@x.example", &["r@y.example"]);
    for kind in ["hash", "btree", "lmdb", "cdb"] {
        let made = |source: &str| lists::postmap(&dir, kind, &[], source);
        // The chroot has nothing to ask the DNS with.
        let main_cf =
            format!("qmqpd_authorized_clients = {kind}:DIR/clients\nqmqpd_peername_lookup = no\n");
        let postfix = Master::start_with(&main_cf, &service, |dir| {
            let (suffix, bytes) = made("127.0.0.1 x\n");
            fs::write(dir.join(format!("clients.{suffix}")), bytes).unwrap();
        });
        let send = || {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            master::send(stream, &request).unwrap()
        };
        for _ in 0..2 {
            assert!(
                send().contains(":KOk: queued as "),
                "{kind} {}",
                postfix.log()
            );
        }
        // As postmap does it for some types, and whoever is careful for all: a new file in the place of the old one.
        let (suffix, bytes) = made("127.0.0.2 x\n");
        let new = postfix.dir.join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, postfix.dir.join(format!("clients.{suffix}"))).unwrap();
        let reply = send();
        assert!(
            reply.contains("is not authorized"),
            "{kind} {reply} {}",
            postfix.log()
        );
        postfix.wait_for_log("clients(0,lock|utf8_request) has changed -- restarting");
        assert_eq!(postfix.trouble(), [""; 0], "{kind}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn under_master_a_text_table_is_read_once_and_watched() {
    let test = "under_master_a_text_table_is_read_once_and_watched";
    if master::is_missing(test) {
        return;
    }
    let port = master::free_port();
    // One process, and so one that reads the table.
    let service = format!("{port} inet n - y - 1 qmqpd");
    let request = master::request(b"Subject: t\n\nb\n", "s@x.example", &["r@y.example"]);
    for (kind, with, without, warning) in [
        (
            "cidr",
            "127.0.0.1 x\nbad\n",
            "127.0.0.2 x\n",
            "bad address pattern",
        ),
        (
            "regexp",
            "/^127/ x\nbad\n",
            "/^128/ x\n",
            "unrecognized request",
        ),
        (
            "texthash",
            "127.0.0.1 x\nbad\n",
            "127.0.0.2 x\n",
            "expected format",
        ),
    ] {
        let main_cf =
            format!("qmqpd_authorized_clients = {kind}:DIR/clients\nqmqpd_peername_lookup = no\n");
        let postfix = Master::start_with(&main_cf, &service, |dir| {
            fs::write(dir.join("clients"), with).unwrap();
        });
        let send = || {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            master::send(stream, &request).unwrap()
        };
        for _ in 0..3 {
            let reply = send();
            assert!(reply.contains(":KOk: queued as "), "{kind} {reply}");
        }
        let log = postfix.log();
        assert_eq!(log.matches(warning).count(), 1, "{kind} {log}");
        let new = postfix.dir.join("new");
        fs::write(&new, without).unwrap();
        fs::rename(new, postfix.dir.join("clients")).unwrap();
        let reply = send();
        assert!(reply.contains("is not authorized"), "{kind} {reply}");
        postfix.wait_for_log("clients(0,lock|utf8_request) has changed -- restarting");
    }
}

#[test]
fn under_master_a_table_of_any_type_is_read_by_a_program_unless_there_is_a_chroot() {
    let test = "under_master_a_table_of_any_type_is_read_by_a_program_unless_there_is_a_chroot";
    if master::is_missing(test) {
        return;
    }
    let (open, closed) = (master::free_port(), master::free_port());
    let services = format!("{open} inet n - n - - qmqpd\n{closed} inet n - y - - qmqpd");
    let main_cf = "qmqpd_authorized_clients = unionmap:{inline:{127.0.0.1=x}}\n\
                   qmqpd_peername_lookup = no\n";
    let postfix = Master::start(main_cf, &services);
    let request = master::request(b"Subject: t\n\nb\n", "s@x.example", &["r@y.example"]);
    let send = |from: u8, port: u16| {
        let stream = connect_from([127, 0, 0, from], port);
        master::send(stream, &request).unwrap()
    };
    for _ in 0..2 {
        let reply = send(1, open);
        assert!(
            reply.contains(":KOk: queued as "),
            "{reply} {}",
            postfix.log()
        );
        let reply = send(3, open);
        assert!(
            reply.contains("is not authorized"),
            "{reply} {}",
            postfix.log()
        );
    }
    assert_eq!(postfix.trouble(), [""; 0]);
    let reply = send(1, closed);
    assert!(
        reply.contains("ZError: server configuration error"),
        "{reply}"
    );
    postfix.wait_for_log(
        "are not read from inside a chroot, perhaps you should use \"proxy:unionmap:",
    );
}
