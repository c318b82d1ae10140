//! A machine whose name has no dot, as in most containers.

use std::fs;

use crate::harness;
use crate::harness::server::{Server, why_no_postfix};
use crate::machine::{How, Machine, PATIENCE, is_not_root};

/// Gives the machine another name, which no other process sees.
const CALLED_BOX: &[&str] = &[
    "unshare",
    "--uts",
    "sh",
    "-c",
    "echo box > /proc/sys/kernel/hostname && exec \"$@\"",
    "sh",
];

const CONFIGURATION_ERROR: &str = "34:ZError: server configuration error,";

/// A machine with these lines of main.cf, and none for myhostname unless it is among them.
fn machine(main_cf: &str) -> Machine {
    let lines: Vec<&str> = main_cf.lines().collect();
    let machine = Machine::new(&lines);
    let path = machine.instance.config_directory().join("main.cf");
    let own: String = fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter(|line| !line.contains("mail.spec.example"))
        .map(|line| format!("{line}\n"))
        .collect();
    machine.instance.write("conf/main.cf", own.as_bytes());
    machine
}

/// What is logged, and what the client hears; the instance's directory is DIR.
fn served(server: Server, main_cf: &str) -> (Vec<String>, String, String) {
    let machine = machine(main_cf);
    let how = How {
        server,
        through: CALLED_BOX,
        arguments: &["-S"],
        ..How::default()
    };
    let mut session = machine.start(&how);
    let reply = session.reply(PATIENCE);
    let exit = session.exit();
    let dir = machine.instance.dir.display().to_string();
    let log = machine.finish(&session);
    let log = log.iter().map(|line| line.replace(&dir, "DIR")).collect();
    (log, reply, exit)
}

/// Values of mydomain that end in the default of myhostname, which needs a domain.
#[rustfmt::skip]
const CASES: &[(&str, &str)] = &[
    ("mydomain = $myhostname\n", "box."),
    ("mydomain = mail.$myhostname\n", "box.mail."),
    ("mydomain = ${{$myhostname} == {} ? {} : {b}}\n", "box."),
    ("mydomain = $myorigin\nmyorigin = $myhostname\n", "box."),
];

#[test]
fn a_domain_that_refers_to_the_host_name_is_a_configuration_error() {
    let test = "a_domain_that_refers_to_the_host_name_is_a_configuration_error";
    if is_not_root(test) {
        return;
    }
    for (main_cf, name) in CASES {
        let expected = [
            format!("warning: valid_hostname: misplaced delimiter: {name}"),
            format!(
                "fatal: file DIR/conf/main.cf: parameter myhostname: bad parameter value: {name}"
            ),
        ];
        let (mut log, reply, exit) = served(Server::Ours, main_cf);
        let told = log.pop().unwrap_or_default();
        assert!(
            told.ends_with(": Error: server configuration error"),
            "{told}"
        );
        assert_eq!(log, expected, "{main_cf}");
        assert_eq!(
            (reply.as_str(), exit.as_str()),
            (CONFIGURATION_ERROR, "1"),
            "{main_cf}"
        );
        if why_no_postfix().is_none() {
            assert_eq!(served(Server::Postfix, main_cf).0, expected, "{main_cf}");
        }
    }
    if let Some(why) = why_no_postfix() {
        harness::skip(test, why);
    }
}

#[test]
fn the_commands_for_people_say_so_as_well() {
    if is_not_root("the_commands_for_people_say_so_as_well") {
        return;
    }
    for (main_cf, name) in CASES {
        let machine = machine(main_cf);
        let expected = format!("parameter myhostname: bad parameter value: {name}");
        for (arguments, status) in [(&["--check"][..], 78), (&["--explain", "192.0.2.1"], 78)] {
            let how = How {
                through: CALLED_BOX,
                arguments,
                ..How::default()
            };
            let output = machine
                .command(&how)
                .stdout(std::process::Stdio::piped())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                output.status.code(),
                Some(status),
                "{arguments:?} {main_cf}{said}"
            );
            if arguments == ["--check"] {
                assert!(said.contains(&expected), "{said}");
            }
        }
        drop(machine.log.finish());
    }
}
