//! What a process may still do that has a client's first byte before it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::harness::instance::mail_owner;
use crate::machine::{ACCEPTED, How, Machine, PATIENCE, REQUEST, Session, User, is_not_root};

/// What every descriptor is, without the numbers of sockets.
fn descriptors(session: &Session) -> BTreeMap<u32, String> {
    let directory = fs::read_dir(format!("/proc/{}/fd", session.child.id())).unwrap();
    let entries = directory.map(|entry| {
        let path = entry.unwrap().path();
        let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(&path).unwrap().display().to_string();
        let kind = target.split(":[").next().unwrap().to_owned();
        (number, kind)
    });
    entries.collect()
}

fn link(session: &Session, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{}/{name}", session.child.id())).unwrap()
}

/// Starts a session, sends one byte, looks at the process, and sends the rest.
fn look(how: &How, conf: &[&str], question: impl FnOnce(&Machine, &Session)) -> Vec<String> {
    look_on(Machine::new(conf), how, question)
}

fn look_on(machine: Machine, how: &How, question: impl FnOnce(&Machine, &Session)) -> Vec<String> {
    let cleanup = machine.cleanup(&[]);
    let mut session = machine.start(how);
    session.send(&REQUEST[..1]);
    machine.log.watch().wait_for("client=");
    session.wait_until_it_waits();
    question(&machine, &session);
    session.send(&REQUEST[1..]);
    assert_eq!(session.reply(PATIENCE), ACCEPTED);
    assert_eq!(session.exit(), "0");
    cleanup.finish();
    machine.finish(&session)
}

/// No way back, a filter, no capability, the owner of the mail, and nothing open but what the session needs.
fn has_nothing_left(machine: &Machine, session: &Session) {
    assert_eq!(session.status("NoNewPrivs"), "1");
    assert_eq!(session.status("Seccomp"), "2");
    assert_eq!(session.status("Threads"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(session.status(set), "0000000000000000", "{set}");
    }
    let owner = mail_owner().unwrap();
    let four = |id: u32| [id.to_string().as_str(); 4].join(" ");
    assert_eq!(session.status("Uid"), four(owner.uid.as_raw()));
    assert_eq!(session.status("Gid"), four(owner.gid.as_raw()));
    let diagnostics = machine.stderr();
    let expected = [
        (0, "socket"),
        (1, "socket"),
        (2, diagnostics.to_str().unwrap()),
        (3, "socket"),
        (4, "socket"),
    ];
    let expected = expected.map(|(number, kind)| (number, kind.to_owned()));
    assert_eq!(descriptors(session), BTreeMap::from(expected));
}

/// In the place of postmap(1): the first table has no client, and says so when the program of the second one runs. That one
/// writes down what it is asked.
const TWO_TABLES: &str = "#!/bin/sh
cd ${0%/*}/data
if [ $3 = pcre:first ]; then
    cat >/dev/null
    until [ -e started ]; do sleep 0.01; done
    exit 1
fi
: >asked
: >started
cat >>asked
";

/// The client's address does not settle it, so the programs are started; then the client's name does.
#[test]
fn a_table_program_that_is_not_asked_has_ended() {
    if is_not_root("a_table_program_that_is_not_asked_has_ended") {
        return;
    }
    let machine = Machine::new(&[
        "qmqpd_authorized_clients = pcre:first, localhost, pcre:second",
        "command_directory = DIR",
    ]);
    let data = machine.instance.dir.join("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    machine.instance.write_program("postmap", TWO_TABLES);
    look_on(machine, &How::default(), |machine, session| {
        assert_eq!(fs::read_to_string(data.join("asked")).unwrap(), "");
        has_nothing_left(machine, session);
    });
}

/// The groups that the system has for the owner of the mail.
fn groups_of_owner() -> String {
    let output = std::process::Command::new("id")
        .args(["-G", "postfix"])
        .output()
        .unwrap();
    let mut groups: Vec<u32> = String::from_utf8(output.stdout)
        .unwrap()
        .split_whitespace()
        .map(|group| group.parse().unwrap())
        .collect();
    groups.sort_unstable();
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    groups.join(" ")
}

#[test]
fn a_session_that_root_started_has_nothing_left() {
    if is_not_root("a_session_that_root_started_has_nothing_left") {
        return;
    }
    look(&How::default(), &[], |machine, session| {
        has_nothing_left(machine, session);
        assert_eq!(session.status("Groups"), groups_of_owner());
        assert_eq!(link(session, "root"), PathBuf::from("/"));
        assert_eq!(link(session, "cwd"), machine.instance.queue_directory());
    });
}

#[test]
fn a_session_that_mail_owner_started_has_nothing_left() {
    if is_not_root("a_session_that_mail_owner_started_has_nothing_left") {
        return;
    }
    let how = How {
        user: User::Owner,
        ..How::default()
    };
    look(&how, &[], has_nothing_left);
}

#[test]
fn with_c_the_root_directory_is_the_queue() {
    if is_not_root("with_c_the_root_directory_is_the_queue") {
        return;
    }
    let how = How {
        arguments: &["-c", "-S"],
        ..How::default()
    };
    look(&how, &[], |machine, session| {
        has_nothing_left(machine, session);
        assert_eq!(session.status("Groups"), groups_of_owner());
        let queue = machine.instance.queue_directory();
        assert_eq!(link(session, "root"), queue);
        assert_eq!(link(session, "cwd"), queue);
    });
}

/// Descriptors that a launcher leaves open may lead anywhere, and capabilities past every set of ids.
#[test]
fn what_the_launcher_left_is_gone() {
    if is_not_root("what_the_launcher_left_is_gone") {
        return;
    }
    let how = How {
        through: &["sh", "-c", "exec \"$@\" 5</etc/shadow 9>DIR/left", "sh"],
        ..How::default()
    };
    look(&how, &[], has_nothing_left);
    let all = "+chown,+dac_override,+kill,+net_bind_service,+setgid,+setuid,+sys_admin";
    let kept = ["setpriv", "--inh-caps", all, "--ambient-caps", all];
    let of_owner = ["--reuid=postfix", "--regid=postfix", "--init-groups"];
    // Root's, and those that systemd's AmbientCapabilities= gives to a user.
    for through in [kept.to_vec(), [&kept[..], &of_owner].concat()] {
        let how = How {
            through: &through,
            ..How::default()
        };
        look(&how, &[], has_nothing_left);
    }
}

/// Starts the server with these users, real and effective, and without these capabilities. The kernel makes the saved
/// user the effective one at exec. A process whose users differ does not believe MAIL_CONFIG, so main.cf is put where the
/// default is; no other process sees that.
const WITH_USERS: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount --bind DIR/conf /etc/postfix && real=$1 effective=$2 bounds=$3 && shift 3 &&
    exec setpriv --ruid=$real --euid=$effective --bounding-set=$bounds \"$@\"",
    "sh",
];

const DEFAULT_DIRECTORY: &[(&str, &str)] = &[("MAIL_CONFIG", "/etc/postfix")];

#[test]
fn root_in_any_of_its_ids_is_given_up_wholly() {
    if is_not_root("root_in_any_of_its_ids_is_given_up_wholly") {
        return;
    }
    for users in [
        ["0", "0"],
        ["0", "postfix"],
        ["postfix", "0"],
        ["0", "65534"],
        ["65534", "0"],
    ] {
        let through = [WITH_USERS, &users, &["+all"]].concat();
        for arguments in [&["-S"][..], &["-S", "-c"]] {
            let how = How {
                through: &through,
                arguments,
                env: DEFAULT_DIRECTORY,
                ..How::default()
            };
            let log = look(&how, &[], |machine, session| {
                has_nothing_left(machine, session);
                assert_eq!(session.status("Groups"), groups_of_owner(), "{users:?}");
            });
            assert!(
                !log.iter().any(|line| line.contains("warning")),
                "{users:?}: {log:?}"
            );
        }
    }
}

#[test]
fn a_process_that_cannot_give_root_up_does_not_serve() {
    if is_not_root("a_process_that_cannot_give_root_up_does_not_serve") {
        return;
    }
    for users in [["0", "0"], ["0", "postfix"], ["postfix", "0"]] {
        for missing in ["-setuid", "-setgid"] {
            let machine = Machine::new(&[]);
            let through = [WITH_USERS, &users, &[missing]].concat();
            let how = How {
                through: &through,
                env: DEFAULT_DIRECTORY,
                ..How::default()
            };
            let mut session = machine.start(&how);
            let reply = session.reply(PATIENCE);
            let exit = session.exit();
            let said = (reply.as_str(), exit.as_str());
            assert_eq!(said, ("34:ZError: server configuration error,", "1"));
            let log = machine.finish(&session);
            let is_named = log.iter().any(|line| line.starts_with("fatal: set"));
            assert!(is_named, "{missing} {users:?}: {log:?}");
        }
    }
}

#[test]
fn the_group_of_root_without_root_is_warned_of_once() {
    if is_not_root("the_group_of_root_without_root_is_warned_of_once") {
        return;
    }
    let warning = "warning: the process was started as an ordinary user in group 0: \
        start it as root, or with the groups of that user alone";
    for (groups, expected) in [
        (["--regid=postfix", "--clear-groups"], 0),
        (["--regid=postfix", "--init-groups"], 0),
        (["--regid=0", "--clear-groups"], 1),
        (["--rgid=0", "--clear-groups"], 1),
        (["--egid=0", "--clear-groups"], 1),
        (["--regid=postfix", "--groups=8,0"], 1),
        (["--regid=0", "--keep-groups"], 1),
    ] {
        let through = [&["setpriv", "--reuid=postfix"][..], &groups].concat();
        let how = How {
            through: &through,
            ..How::default()
        };
        let log = look(&how, &[], |_, _| {});
        let warned = log.iter().filter(|line| *line == warning).count();
        assert_eq!(warned, expected, "{groups:?}: {log:?}");
    }
}

#[test]
fn without_the_sandbox_there_is_no_filter() {
    if is_not_root("without_the_sandbox_there_is_no_filter") {
        return;
    }
    look(&How::default(), &["qmqpd_sandbox = no"], |_, session| {
        assert_eq!(session.status("Seccomp"), "0");
        assert_eq!(session.status("CapEff"), "0000000000000000");
    });
}
