//! `--check` and `--explain`, as people call them: real files, a real queue directory, the whole output.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use harness::instance::{Instance, install_program, mail_owner};
use harness::maillog::MailLog;
use harness::peers::Act;
use harness::trace::strace_knows;

const OURS: &str = env!("CARGO_BIN_EXE_qmqpd");

/// What was written to standard output, with the instance's directory as DIR, and the exit code.
fn said(instance: &Instance, arguments: &[&str]) -> (String, Option<i32>) {
    said_by(Command::new(OURS), instance, arguments)
}

/// Has --check not look for a name server, which this machine may have or not; and the line that shows it.
const UNASKED: [&str; 2] = ["-o", "qmqpd_peername_lookup=no"];
const UNASKED_LINE: &str = "  qmqpd_peername_lookup = no    (-o)\n";

fn said_by(mut ours: Command, instance: &Instance, arguments: &[&str]) -> (String, Option<i32>) {
    if arguments.contains(&"--check") && !arguments.contains(&"--configuration") {
        ours.args(UNASKED);
    }
    let output = ours
        .args(arguments)
        .env_clear()
        .env("MAIL_CONFIG", instance.config_directory())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    let directory = instance.dir.to_string_lossy();
    let text = text.replace(&*directory, "DIR").replace(UNASKED_LINE, "");
    let is_of_machine = |line: &&str| line.starts_with(WALLS);
    let (of_machine, rest): (Vec<_>, Vec<_>) = text.split_inclusive('\n').partition(is_of_machine);
    assert_eq!(
        of_machine.len(),
        usize::from(
            rest.concat().starts_with("Parameters come from ")
                && !arguments.contains(&"--configuration")
        ),
        "{text}"
    );
    (rest.concat(), output.status.code())
}

/// How the line begins that says what the kernel has, which differs between machines.
const WALLS: &str = "The kernel has ";

fn instance(conf: &[&str]) -> Instance {
    let conf: Vec<String> = conf.iter().map(ToString::to_string).collect();
    Instance::new(&conf)
}

/// As master(8) leaves cleanup's socket.
fn cleanup(instance: &Instance) -> UnixListener {
    let path = instance.socket("cleanup");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn can_run(test: &str) -> bool {
    if mail_owner().is_none() {
        harness::skip(test, "not root, or no postfix user");
    }
    mail_owner().is_some()
}

#[test]
fn a_configuration_in_order_is_said_to_be() {
    if !can_run("a_configuration_in_order_is_said_to_be") {
        return;
    }
    let instance = instance(&["message_size_limit = 0", "qmqpd_timeout = 300s"]);
    let cleanup = cleanup(&instance);
    let log = MailLog::listen(&instance.socket("postlog"));
    let (report, code) = said(&instance, &["--check", "-o", "soft_bounce=yes"]);
    assert_eq!(
        report,
        "Parameters come from DIR/conf/main.cf.\n\
         \x20 compatibility_level = 3.6    (line 3)\n\
         \x20 maillog_file = /var/log/x    (line 6)\n\
         \x20 myhostname = mail.spec.example    (line 4)\n\
         \x20 queue_directory = DIR/queue    (line 1)\n\
         \x20 message_size_limit = 0    (line 9)\n\
         \x20 soft_bounce = yes    (-o)\n\
         \x20 mynetworks = 127.0.0.0/8 [::1]/128    (line 5)\n\
         \x20 qmqpd_error_delay = 0    (line 8)\n\
         \x20 qmqpd_authorized_clients = 127.0.0.1 [::1]    (line 7)\n\
         no errors, no warnings\n"
    );
    assert_eq!(code, Some(0));
    let connected = cleanup.accept().map(drop).unwrap_err();
    assert_eq!(
        connected.kind(),
        ErrorKind::WouldBlock,
        "cleanup was disturbed"
    );
    assert_eq!(log.finish().len(), 0);
}

/// Without Landlock, where strace(1) has the kernel say that it has none, everything else is as it was.
#[test]
fn the_walls_of_the_machine_are_named() {
    let test = "the_walls_of_the_machine_are_named";
    if !can_run(test) {
        return;
    }
    if !std::path::Path::new("/usr/bin/strace").exists() {
        return harness::skip(test, "strace is not installed");
    }
    let instance = instance(&[]);
    let _cleanup = cleanup(&instance);
    let trace = instance.dir.join("trace");
    let lines = |mut command: Command| {
        let output = command
            .args(["--check"])
            .args(UNASKED)
            .env_clear()
            .env("MAIL_CONFIG", instance.config_directory())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (walls, rest): (Vec<_>, Vec<_>) = text
            .lines()
            .map(str::to_owned)
            .partition(|line| line.starts_with(WALLS));
        (walls, rest, output.status.code())
    };
    let (walls, rest, code) = lines(Command::new(OURS));
    let [walls] = walls.as_slice() else {
        panic!("{walls:?}");
    };
    let start = format!("{WALLS}no_new_privs, seccomp, ");
    let landlock = walls.strip_prefix(&start).unwrap();
    assert!(
        landlock.starts_with("Landlock (version ") || landlock == "no Landlock.",
        "{walls}"
    );
    if !strace_knows("landlock_create_ruleset") {
        let test = "the_walls_of_the_machine_are_named (without Landlock)";
        return harness::skip(test, "strace does not know Landlock");
    }
    let mut without = Command::new("strace");
    without
        .args(["-qq", "-e", "inject=landlock_create_ruleset:error=ENOSYS"])
        .args(["-e", "trace=landlock_create_ruleset", "-o"])
        .args([trace.as_os_str(), OURS.as_ref()]);
    let none = format!("{start}no Landlock.");
    assert_eq!(lines(without), (vec![none], rest, code));
    assert!(fs::read_to_string(trace).unwrap().contains("INJECTED"));
}

#[test]
fn every_mistake_is_found_in_one_run() {
    if !can_run("every_mistake_is_found_in_one_run") {
        return;
    }
    let instance = instance(&[
        "qmqpd_timeout = 1s",
        "qmqpd_timeout = 5x",
        "qmqpd_authorised_clients = 192.0.2.1",
        "qmqpd_authorized_clients = 10.0.0.1/8 ::1 DIR/list DIR/nosuch foo:bar",
        "mydestination = ${f",
        "inet_interfaces = 192.0.2.1",
        "mail_owner = postfix",
        "default_privs = postfix",
        "setgid_group = nosuch",
    ]);
    instance.write("list", b"# our own\n!a.example\n[::1]/129\n");
    let (report, code) = said(&instance, &["--check"]);
    let start = report.find("warning: ").unwrap();
    assert_eq!(
        &report[start..],
        "warning: DIR/conf/main.cf, line 9: overriding earlier entry: qmqpd_timeout=1s\n\
         error: DIR/conf/main.cf, line 12: dictionary mail_dict: macro processing error: truncated macro reference: \"${f\"\n\
         \x20   The domains that are delivered on this machine. mydestination takes text; its default is \
         $myhostname, localhost.$mydomain, localhost\n\
         error: DIR/conf/main.cf, line 9: parameter qmqpd_timeout: bad time value or unit: 5x\n\
         \x20   The limit of each wait for the client. qmqpd_timeout takes a time (30s, 5m, 2h, 1d, 1w) of at least 1s; \
         its default is 300s\n\
         warning: DIR/conf/main.cf, line 10: there is no parameter qmqpd_authorised_clients\n\
         \x20   Did you mean qmqpd_authorized_clients?\n\
         error: DIR/conf/main.cf, line 16: parameter setgid_group: unknown group name: nosuch\n\
         error: DIR/conf/main.cf, line 15: parameters default_privs and mail_owner specify the same user postfix\n\
         warning: DIR/conf/main.cf, line 11: qmqpd_authorized_clients: IPv6 pattern \"::1\" without brackets, perhaps you \
         should use \"[::1]\" instead\n\
         error: DIR/conf/main.cf, line 11: open file DIR/nosuch: No such file or directory\n\
         error: DIR/conf/main.cf, line 11: unsupported dictionary type: foo\n\
         \x20   The text before a colon is a type of table. Some types have packages of their own (postfix-pcre). The items of a list have no port and no protocol.\n\
         warning: DIR/list, line 2: qmqpd_authorized_clients: \"a.example\" can match no client\n\
         \x20   Write an address: with qmqpd_peername_lookup = no a client has no name.\n\
         error: DIR/conf/main.cf, line 11: qmqpd_authorized_clients: non-null host address bits in \"10.0.0.1/8\", perhaps you \
         should use \"10.0.0.0/8\" instead\n\
         \x20   A client whose evaluation comes to this item is answered Z, try later.\n\
         error: DIR/list, line 3: qmqpd_authorized_clients: bad mask length in \"::1/129\"\n\
         \x20   A client whose evaluation comes to this item is answered Z, try later.\n\
         warning: the log is out of reach: DIR/queue/public/postlog: No such file or directory\n\
         \x20   Log lines go to syslog while Postfix is stopped. \"qmqpd_log_stderr = yes\" writes them to standard error.\n\
         error: cleanup is out of reach: DIR/queue/public/cleanup: No such file or directory\n\
         \x20   Start Postfix (postfix start); its master makes the socket.\n\
         9 errors, 5 warnings\n"
    );
    assert_eq!(code, Some(78));
}

/// What is typed into main.cf, and what is said about it: one of the file's sections.
struct Mistake<'a> {
    title: &'a str,
    typed: Vec<u8>,
    said: String,
}

/// `\r`, `\0` and the like, and `\xNN` for any byte.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pieces = text.split('\\');
    bytes.extend(pieces.next().unwrap().bytes());
    for piece in pieces {
        let (byte, length) = match piece.as_bytes()[0] {
            b'r' => (b'\r', 1),
            b'0' => (0, 1),
            b'x' => (u8::from_str_radix(&piece[1..3], 16).unwrap(), 3),
            other => panic!("\\{} is no escape", char::from(other)),
        };
        bytes.push(byte);
        bytes.extend(piece.as_bytes().split_at(length).1);
    }
    bytes
}

/// The sections of a file like tests/check/mistakes.txt: a title, what is typed, and what is said behind `> `.
fn mistakes(text: &str) -> Vec<Mistake<'_>> {
    let sections = text.split("\n## ").skip(1).map(|section| {
        let (title, lines) = section.split_once('\n').unwrap();
        let mut mistake = Mistake {
            title,
            typed: Vec::new(),
            said: String::new(),
        };
        for line in lines.lines().filter(|line| !line.is_empty()) {
            if let Some(said) = line.strip_prefix("> ") {
                mistake.said.push_str(&format!("{said}\n"));
            } else {
                mistake.typed.extend(unescaped(line));
                mistake.typed.push(b'\n');
            }
        }
        mistake
    });
    sections.collect()
}

#[test]
fn each_mistake_is_answered() {
    let all = mistakes(include_str!("check/mistakes.txt"));
    assert!(all.len() > 45, "is the file whole?");
    let mut wrong = String::new();
    for Mistake {
        title,
        typed,
        said: expected,
    } in all
    {
        let instance = instance(&[]);
        let list = b"qmqpd_authorized_clients";
        let rest = if typed.windows(list.len()).any(|part| part == list) {
            &b""[..]
        } else {
            b"qmqpd_authorized_clients = 192.0.2.1\n"
        };
        instance.write("conf/main.cf", &[&typed, rest].concat());
        let (report, _) = said(&instance, &["--check", "--configuration"]);
        let is_finding = |line: &&str| !line.starts_with("  ") || line.starts_with("    ");
        let found: String = report
            .replace("DIR/conf/", "")
            .lines()
            .filter(is_finding)
            .filter(|line| *line != "Parameters come from main.cf.")
            .filter(|line| {
                !(line.starts_with("no errors, ")
                    || line.contains(" error, ")
                    || line.contains(" errors, "))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        if found != expected {
            wrong.push_str(&format!(
                "## {title}\nexpected:\n{expected}said:\n{found}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Examples that packages of Debian have: postfix, postfix-doc, postsrsd, a module for puppet.
const EXAMPLES: [&str; 7] = [
    "/etc/postfix/main.cf.proto",
    "/usr/share/postfix/main.cf.debian",
    "/usr/share/postfix/main.cf.dist",
    "/usr/share/postfix/main.cf.tls",
    "/usr/share/doc/postfix/examples/main.cf.default",
    "/usr/share/doc/postsrsd/main.cf.ex",
    "/usr/share/puppet/modules.available/camptocamp-postfix/files/main.cf",
];

#[test]
fn examples_of_packages_have_no_slips() {
    let found: Vec<_> = EXAMPLES
        .into_iter()
        .filter_map(|path| Some((path, fs::read(path).ok()?)))
        .collect();
    if found.is_empty() {
        harness::skip(
            "examples_of_packages_have_no_slips",
            "no package with a main.cf",
        );
    }
    for (path, example) in found {
        let instance = instance(&[]);
        instance.write("conf/main.cf", &example);
        let (report, _) = said(&instance, &["--check", "--configuration"]);
        let warnings: Vec<&str> = report
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .filter(|line| !line.ends_with("qmqpd_authorized_clients is empty: no client may send"))
            .filter(|line| !line.contains(": overriding earlier entry: "))
            .collect();
        assert_eq!(warnings, [""; 0], "{path}");
    }
}

#[test]
fn a_copy_of_the_program_is_the_same_program() {
    if !can_run("a_copy_of_the_program_is_the_same_program") {
        return;
    }
    let instance = instance(&["qmqpd_log_stderr = yes", "daemon_directory = DIR/daemons"]);
    let _cleanup = cleanup(&instance);
    instance.write("conf/master.cf", b"628 inet n - n - - qmqpd\n");
    let directory = instance.dir.join("daemons");
    fs::create_dir(&directory).unwrap();
    for (program, is_another) in [(OURS, false), ("/bin/true", true)] {
        fs::copy(program, directory.join("qmqpd")).unwrap();
        let (report, code) = said(&instance, &["--check"]);
        let is_noted = report.contains("/daemons/qmqpd is another program than this one.");
        assert_eq!((is_noted, code), (is_another, Some(0)), "{report}");
    }
}

#[test]
fn the_services_of_master_cf_are_checked() {
    if !can_run("the_services_of_master_cf_are_checked") {
        return;
    }
    let instance = instance(&[
        "qmqpd_log_stderr = yes",
        "soft_bounce = maybe",
        &format!(
            "daemon_directory = {}",
            OURS.strip_suffix("/qmqpd").unwrap()
        ),
    ]);
    let _cleanup = cleanup(&instance);
    instance.write(
        "conf/master.cf",
        b"smtp inet n - y - - smtpd -o nonsense\n\
          628 inet n - n - - qmqpd\n    -o qmqpd_timeout=soon -o qmqpd_authorized_clients=10.0.0.*,192.0.2.1\n\
          629 inet n - n - - qmqpd -o qmqpd_timeout=soon\n\
          qmqp unix n - n - - qmqpd -o { qmqpd_eror_delay = 2s }\n\
          630 inet n - n - - qmqpd -o nonsense\n\
          631 inet n - n - - qmqpd stray\n\
          632 inet n n n - 50 spawn user=nobody argv=DIR/nosuch/qmqpd -v\n\
          633 inet n n n - 50 spawn user=nobody argv=/bin/sh/qmqpd\n\
          634 inet n - y - - qmqpd\n",
    );
    fs::create_dir(instance.queue_directory().join("etc")).unwrap();
    fs::write(instance.queue_directory().join("etc/hosts"), "").unwrap();
    let findings = |more: &[&str]| {
        let (report, code) = said(&instance, &[&["--check"], more].concat());
        assert_eq!(code, Some(78), "{report}");
        let lines = report
            .lines()
            .filter(|line| line.contains("conf/master.cf"));
        lines
            .map(|line| line.replace("DIR/conf/", "") + "\n")
            .collect::<String>()
    };
    let configuration = "\
error: master.cf, line 2: invalid qmqpd_timeout: 0 (min 1)
warning: master.cf, line 2: qmqpd_authorized_clients: \"10.0.0.*\" can match no client
error: master.cf, line 4: invalid qmqpd_timeout: 0 (min 1)
warning: master.cf, line 5: there is no parameter qmqpd_eror_delay
error: master.cf, line 6: invalid option -o nonsense
error: master.cf, line 7: unexpected command-line argument: stray
";
    let configuration = configuration.replace(
        "invalid option -o nonsense",
        "invalid \"-o nonsense\" option value: missing '=' after attribute name",
    );
    assert_eq!(findings(&["--configuration"]), configuration);
    let machine = "\
error: master.cf, line 8: DIR/nosuch/qmqpd: No such file or directory
error: master.cf, line 9: /bin/sh/qmqpd: Not a directory
warning: master.cf, line 10: the service has a chroot without DIR/queue/etc/nsswitch.conf
warning: master.cf, line 10: the service has a chroot without DIR/queue/etc/resolv.conf
";
    assert_eq!(findings(&[]), configuration + machine);
}

#[test]
fn the_queue_is_looked_for_as_mail_owner() {
    if !can_run("the_queue_is_looked_for_as_mail_owner") {
        return;
    }
    let instance = instance(&["qmqpd_log_stderr = yes"]);
    let socket = instance.socket("cleanup");
    let findings = || {
        let (report, code) = said(&instance, &["--check"]);
        let start = report.find("error: ").unwrap();
        assert_eq!(code, Some(78));
        report[start..].to_owned()
    };
    drop(cleanup(&instance));
    assert_eq!(
        findings(),
        "error: cleanup is out of reach: DIR/queue/public/cleanup: Connection refused\n\
         \x20   Start Postfix: its socket exists, and no process listens on it.\n\
         1 error, no warnings\n"
    );
    let public = socket.parent().unwrap();
    nix::unistd::chown(public, Some(0.into()), Some(0.into())).unwrap();
    fs::set_permissions(public, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(
        findings(),
        "error: cleanup is out of reach: DIR/queue/public/cleanup: Permission denied\n\
         \x20   User postfix must be mail_owner, or in the group of that directory (setgid_group).\n\
         1 error, no warnings\n"
    );
    let (report, code) = said(
        &instance,
        &["--check", "-o", "queue_directory=/nonexistent"],
    );
    let start = report.find("error: ").unwrap();
    assert_eq!(
        &report[start..],
        "error: option -o: chdir(\"/nonexistent\"): No such file or directory\n\
         \x20   queue_directory must exist, and user postfix must be allowed to enter it.\n\
         1 error, no warnings\n"
    );
    assert_eq!(code, Some(78));
}

#[test]
fn a_method_without_cleanup_has_other_needs() {
    if !can_run("a_method_without_cleanup_has_other_needs") {
        return;
    }
    let instance = instance(&[
        "qmqpd_log_stderr = yes",
        "qmqpd_queue_method = file",
        "header_checks = regexp:/etc/postfix/header_checks",
        "setgid_group = nosuch",
    ]);
    let findings = || {
        let (report, code) = said(&instance, &["--check"]);
        let start = report.find("warning: ").unwrap();
        (report[start..].to_owned(), code)
    };
    let warnings = "warning: DIR/conf/main.cf, line 12: parameter setgid_group: unknown group name: nosuch\n\
         \x20   No program of Postfix starts here.\n\
         warning: DIR/conf/main.cf, line 11: header_checks does not apply: messages do not pass cleanup(8)\n\
         \x20   qmqpd_queue_method = cleanup makes it apply.\n";
    let fine = format!("{warnings}no errors, 2 warnings\n");
    assert_eq!(findings(), (fine, Some(0)));
    let incoming = instance.queue_directory().join("incoming");
    nix::unistd::chown(&incoming, Some(65534.into()), None).unwrap();
    let broken = format!(
        "{warnings}\
         error: no queue file can be made: DIR/queue/incoming: belongs to user nobody\n\
         \x20   It must be a directory of user postfix, with all rights.\n\
         1 error, 2 warnings\n"
    );
    assert_eq!(findings(), (broken, Some(78)));
}

/// The names that the manual has below this word in its list of cleanup's parameters.
fn in_the_manual(word: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/src/qmqpd.8");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page
        .split_once(".SS \"Queue method file: all parameters of cleanup(8)\"\n")
        .unwrap();
    let (section, _) = section.split_once("\n.SS ").unwrap();
    let mut items = section.split(".TP\n");
    let item = items.find(|item| item.starts_with(&format!("{word}\n")));
    let names = item.unwrap().lines().filter_map(|line| {
        // The last word of a sentence ends in a semicolon or names a section.
        let (name, after) = line.strip_prefix(".BR ")?.split_once(' ')?;
        [",", "."].contains(&after).then(|| name.to_owned())
    });
    names.collect()
}

/// The parameters in the manual page cleanup(8) of Debian's Postfix 3.7.11 and 3.11.7.
const CLEANUP_PARAMETERS: &str = include_str!("check/cleanup-parameters.txt");

#[test]
fn all_parameters_of_cleanup_are_accounted_for() {
    let mut listed = ["Done", "Not done", "Does not apply"]
        .map(in_the_manual)
        .concat();
    assert!(listed.len() > 80, "only {listed:?}: is the scan broken?");
    listed.sort();
    let count = listed.len();
    listed.dedup();
    assert_eq!(listed.len(), count, "one of these twice: {listed:?}");
    let theirs: Vec<&str> = CLEANUP_PARAMETERS.lines().collect();
    assert!(theirs.len() > 80, "only {theirs:?}: is the list whole?");
    // Systems without manual pages are common.
    let page = Command::new("zcat")
        .arg("/usr/share/man/man8/cleanup.8.gz")
        .output()
        .unwrap();
    if page.status.success() {
        let page = String::from_utf8_lossy(&page.stdout).replace("\\-", "-");
        let documented: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix(".IP \"\\fB")?.split_once(" ("))
            .map(|(name, _)| name)
            .collect();
        let added = documented.iter().filter(|name| !theirs.contains(name));
        assert_eq!(added.count(), 0, "new in cleanup(8): {documented:?}");
    }
    for name in theirs {
        assert!(
            listed.iter().any(|listed| listed == name),
            "not in the manual: {name}"
        );
    }
}

#[test]
fn settings_that_only_cleanup_heeds_are_named() {
    let test = "settings_that_only_cleanup_heeds_are_named";
    if !can_run(test) {
        return;
    }
    let names = in_the_manual("Not done");
    assert!(names.len() > 20, "only {names:?}: is the scan broken?");
    let warned_of = |value: fn(&str) -> &'static str| {
        let set = names.iter().map(|name| format!("{name} = {}", value(name)));
        let set: Vec<String> = set
            .chain(["qmqpd_queue_method = file".to_owned()])
            .collect();
        let (report, _) = said(&Instance::new(&set), &["--check"]);
        let warned_of = report.lines().filter_map(|line| {
            let text = line.strip_suffix(" does not apply: messages do not pass cleanup(8)")?;
            text.rsplit(' ').next().map(str::to_owned)
        });
        warned_of.collect::<Vec<_>>()
    };
    let in_use = |name: &str| match name {
        "in_flow_delay" | "queue_file_attribute_count_limit" => "7",
        name if name.starts_with("strict_") || name.starts_with("force_") => "yes",
        _ => "static:x",
    };
    assert_eq!(warned_of(in_use), names);
    let out_of_use = |name: &str| match name {
        "in_flow_delay" => "0",
        "queue_file_attribute_count_limit" => "100",
        "info_log_address_format" => "external",
        "non_empty_end_of_header_action" => "fix_quietly",
        name if name.starts_with("strict_") || name.starts_with("force_") => "no",
        _ => "",
    };
    assert_eq!(warned_of(out_of_use), Vec::<String>::new());
}

#[test]
fn a_queue_that_others_can_write_to_is_an_error() {
    if !can_run("a_queue_that_others_can_write_to_is_an_error") {
        return;
    }
    let instance = instance(&[
        "qmqpd_log_stderr = yes",
        "qmqpd_queue_method = file",
        "hash_queue_names = incoming",
        "hash_queue_depth = 2",
    ]);
    let owner = mail_owner().unwrap();
    let queue = instance.queue_directory();
    for name in ["incoming/A", "incoming/A/B"] {
        fs::create_dir(queue.join(name)).unwrap();
        nix::unistd::chown(&queue.join(name), Some(owner.uid), Some(owner.gid)).unwrap();
    }
    let set = |name: &str, mode| {
        fs::set_permissions(queue.join(name), Permissions::from_mode(mode)).unwrap();
    };
    set("incoming/A", 0o700);
    set("incoming/A/B", 0o700);
    // As in Postfix, as it is made by hand, and what does no harm.
    for (above, incoming) in [(0o755, 0o700), (0o755, 0o755), (0o1777, 0o2755)] {
        set("", above);
        set("incoming", incoming);
        let (report, code) = said(&instance, &["--check"]);
        assert!(report.ends_with("no errors, no warnings\n"), "{report}");
        assert_eq!(code, Some(0));
    }
    set("", 0o775);
    set("incoming", 0o1777);
    set("incoming/A", 0o770);
    set("incoming/A/B", 0o702);
    let (report, code) = said(&instance, &["--check"]);
    let start = report.find("error: ").unwrap();
    let error = |path: &str, mode: &str, wanted: &str| {
        format!(
            "error: no queue file can be made: DIR/queue{path}: its mode {mode} lets other users than its owner write to it\n\
             \x20   chmod {wanted} DIR/queue{path} mends it.\n"
        )
    };
    let expected = [
        error("", "0775", "go-w"),
        error("/incoming", "1777", "0700"),
        error("/incoming/A", "0770", "0700"),
        error("/incoming/A/B", "0702", "0700"),
        "4 errors, no warnings\n".to_owned(),
    ];
    assert_eq!(&report[start..], expected.concat());
    assert_eq!(code, Some(78));
    // Where names have no subdirectories, those that are left from another time do not matter.
    set("", 0o755);
    set("incoming", 0o700);
    let (report, _) = said(&instance, &["--check", "-o", "hash_queue_names=deferred"]);
    assert!(report.ends_with("no errors, no warnings\n"), "{report}");
}

#[test]
fn who_is_not_root_hears_what_was_not_checked() {
    if !can_run("who_is_not_root_hears_what_was_not_checked") {
        return;
    }
    let instance = instance(&[
        "qmqpd_log_stderr = yes",
        "qmqpd_authorized_clients = DIR/list",
    ]);
    instance.write("list", b"127.0.0.1\n");
    fs::set_permissions(instance.dir.join("list"), Permissions::from_mode(0o600)).unwrap();
    let _cleanup = cleanup(&instance);
    // The build directory may be nobody's business.
    let copy = instance.dir.join("qmqpd");
    install_program(OURS.as_ref(), &copy);
    let mut as_nobody = Command::new(&copy);
    as_nobody.uid(65534).gid(65534);
    let (report, code) = said_by(as_nobody, &instance, &["--check"]);
    let start = report.find("error: ").unwrap();
    assert_eq!(
        &report[start..],
        "error: DIR/conf/main.cf, line 9: open file DIR/list: Permission denied\n\
         \x20   Lists are opened as the user that starts qmqpd: start qmqpd as root, or let that user read them.\n\
         note: You are not root: the queue and the files were checked as user nobody, and not as mail_owner; what qmqpd can \
         reach if it is started as root or as that user was not checked.\n\
         1 error, no warnings\n"
    );
    assert_eq!(code, Some(78));
}

#[test]
fn what_a_launcher_has_left_of_root_is_seen() {
    if !can_run("what_a_launcher_has_left_of_root_is_seen") {
        return;
    }
    let instance = instance(&["qmqpd_log_stderr = yes"]);
    let _cleanup = cleanup(&instance);
    let copy = instance.dir.join("qmqpd");
    install_program(OURS.as_ref(), &copy);
    let check = |ids: &[&str]| {
        let mut setpriv = Command::new("/usr/bin/setpriv");
        setpriv.args(ids).arg(&copy);
        said_by(setpriv, &instance, &["--check"])
    };
    let (report, code) = check(&["--euid=postfix"]);
    assert!(report.ends_with("no errors, no warnings\n"), "{report}");
    assert!(!report.contains("You are not root"), "{report}");
    assert_eq!(code, Some(0));

    let (report, code) = check(&["--reuid=postfix", "--keep-groups"]);
    let start = report.find("warning: ").unwrap();
    assert_eq!(
        &report[start..],
        "warning: the process was started as an ordinary user in group 0: start it as root, or with the groups of that user \
         alone\nno errors, 1 warning\n"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn a_list_that_lets_in_nobody_or_everybody_is_a_warning() {
    let instance = instance(&["qmqpd_log_stderr = yes"]);
    let line = |list: &str| {
        let list = format!("qmqpd_authorized_clients={list}");
        let (report, _) = said(&instance, &["--check", "-o", &list]);
        let found = report.lines().find(|line| line.starts_with("warning: "));
        found.map(str::to_owned)
    };
    assert_eq!(
        line(" ,").as_deref(),
        Some("warning: option -o: qmqpd_authorized_clients is empty: no client may send")
    );
    for everybody in ["0.0.0.0/0", "!192.0.2.1 unknown", "static:all"] {
        // Only where there are such tables.
        let (report, _) = said(
            &instance,
            &[
                "--check",
                "-o",
                &format!("qmqpd_authorized_clients={everybody}"),
            ],
        );
        if report.contains("unsupported dictionary type") {
            continue;
        }
        assert_eq!(
            line(everybody).as_deref(),
            Some("warning: option -o: qmqpd_authorized_clients lets every client in"),
            "{everybody}"
        );
    }
    assert_eq!(line("10.0.0.0/8 127.0.0.1"), None);
}

#[test]
fn a_client_is_explained_by_the_item_that_decides() {
    let instance = instance(&[
        "qmqpd_peername_lookup = no",
        "debug_peer_list = 10.0.0.1",
        "qmqpd_authorized_clients = !10.0.0.9 DIR/list",
    ]);
    instance.write("list", b"10.0.0.0/8\nexample.com\n");
    for (client, code, report) in [
        (
            &["10.0.0.1"][..],
            0,
            "client unknown[10.0.0.1]\n\
             debug_peer_list: listed, because of 10.0.0.1\n    (DIR/conf/main.cf, line 9)\n\
             qmqpd_authorized_clients: listed, because of 10.0.0.0/8 in DIR/list, line 1\n    (DIR/conf/main.cf, line 10)\n\
             The client is let in.\n",
        ),
        (
            &["[2001:db8::1]", "mx.Example.com"],
            0,
            "client mx.Example.com[2001:db8::1]\n\
             debug_peer_list: not listed, no item matches\n    (DIR/conf/main.cf, line 9)\n\
             qmqpd_authorized_clients: listed, because of example.com in DIR/list, line 2\n    (DIR/conf/main.cf, line 10)\n\
             The client is let in.\n",
        ),
        (
            &["10.0.0.9", "mx.example.com"],
            1,
            "client mx.example.com[10.0.0.9]\n\
             debug_peer_list: not listed, no item matches\n    (DIR/conf/main.cf, line 9)\n\
             qmqpd_authorized_clients: not listed, because of !10.0.0.9\n    (DIR/conf/main.cf, line 10)\n\
             The client is refused: DError: mx.example.com[10.0.0.9] is not authorized to use this service\n\
             To let it in, put 10.0.0.9 before what excludes it, or anywhere if nothing does, in\n\
             qmqpd_authorized_clients in DIR/conf/main.cf.\n",
        ),
        (
            &["::ffff:192.0.2.1"],
            1,
            "client unknown[192.0.2.1]\n\
             debug_peer_list: not listed, no item matches\n    (DIR/conf/main.cf, line 9)\n\
             qmqpd_authorized_clients: not listed, no item matches\n    (DIR/conf/main.cf, line 10)\n\
             The client is refused: DError: unknown[192.0.2.1] is not authorized to use this service\n\
             To let it in, put 192.0.2.1 before what excludes it, or anywhere if nothing does, in\n\
             qmqpd_authorized_clients in DIR/conf/main.cf.\n\
             Names in the list do not match this client: it has no name that resolves back to its address,\n\
             or its name was not looked up (qmqpd_peername_lookup).\n",
        ),
    ] {
        let arguments = [&["--explain"][..], client].concat();
        assert_eq!(said(&instance, &arguments), (report.to_owned(), Some(code)));
    }
}

#[test]
fn several_clients_are_several_answers() {
    let instance = instance(&[
        "qmqpd_peername_lookup = no",
        "qmqpd_authorized_clients = 10.0.0.1 mx.example.com",
    ]);
    let verdicts = |words: &[&str]| {
        let (report, code) = said(&instance, &[&["--explain"], words].concat());
        let verdicts: Vec<String> = report
            .lines()
            .filter(|line| line.starts_with("client ") || line.starts_with("The client is "))
            .map(|line| line.split(": ").next().unwrap().to_owned())
            .collect();
        (verdicts.join("; "), code)
    };
    for (words, expected, code) in [
        (
            &["10.0.0.1", "10.0.0.2"][..],
            "client unknown[10.0.0.1]; The client is let in.; client unknown[10.0.0.2]; The client is refused",
            1,
        ),
        (
            &["10.0.0.2", "mx.example.com.", "[10.0.0.1]"],
            "client mx.example.com[10.0.0.2]; The client is let in.; client unknown[10.0.0.1]; The client is let in.",
            0,
        ),
        (&["10.0.0.1", "mx.example.com", "mx.example.org"], "", 64),
        (&["10.0.0.1", "10.0.0"], "", 64),
        (&["10.0.0.1", ""], "", 64),
    ] {
        assert_eq!(
            verdicts(words),
            (expected.to_owned(), Some(code)),
            "{words:?}"
        );
    }
    // A list of the command line is not mended in main.cf.
    let only = [
        "-o",
        "qmqpd_authorized_clients=10.0.0.1",
        "--explain",
        "10.0.0.2",
    ];
    let (report, _) = said(&instance, &only);
    assert!(
        report.contains("qmqpd_authorized_clients in the option -o.\n"),
        "{report}"
    );
}

#[test]
fn a_table_is_tried_and_explained() {
    if !can_run("a_table_is_tried_and_explained") {
        return;
    }
    let instance = instance(&[
        "qmqpd_peername_lookup = no",
        "qmqpd_log_stderr = yes",
        "qmqpd_authorized_clients = hash:DIR/unmade texthash:DIR/table",
    ]);
    instance.write("table", b"10.0.0.1 ok\n");
    let (report, code) = said(&instance, &["--check"]);
    let unmade = "error: DIR/conf/main.cf, line 10: open database DIR/unmade.db: No such file or directory\n\
         \x20   postmap(1) makes the database of an indexed table.\n";
    assert!(report.contains(unmade), "{report}");
    assert_eq!(code, Some(78));
    let only = "qmqpd_authorized_clients=texthash:DIR/table";
    let only = only.replace("DIR", &instance.dir.to_string_lossy());
    for (addr, expected) in [("10.0.0.1", 0), ("10.0.0.2", 1)] {
        let (report, code) = said(&instance, &["-o", &only, "--explain", addr]);
        assert_eq!(code, Some(expected), "{report}");
        let decided = report.contains("listed, because of texthash:DIR/table");
        assert_eq!(decided, expected == 0, "{report}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_found() {
    let test = "a_key_that_is_there_twice_is_found";
    if !can_run(test) {
        return;
    }
    let instance = instance(&["qmqpd_authorized_clients = texthash:DIR/table, cidr:DIR/rules"]);
    let _cleanup = cleanup(&instance);
    instance.write("table", b"192.0.2.1 x\n192.0.2.2 x\n192.0.2.1 y\n");
    instance.write("rules", b"0.0.0.0/0 x\nbad x\n");
    let (report, _) = said(&instance, &["--check"]);
    for mistake in [
        "DIR/table, line 3: duplicate entry: \"192.0.2.1\"",
        "cidr map DIR/rules, line 2: bad address pattern: \"bad\"",
    ] {
        assert!(report.contains(mistake), "{report}");
    }
    // One client is told of what concerns it.
    for (client, is_told) in [("192.0.2.1", true), ("192.0.2.2", false)] {
        let (report, _) = said(&instance, &["--explain", client]);
        assert_eq!(report.contains("duplicate entry"), is_told, "{report}");
    }
}

#[test]
fn what_cannot_be_told_about_a_client_has_a_code_of_its_own() {
    let instance = instance(&["qmqpd_peername_lookup = no"]);
    for (arguments, report) in [
        (
            &[
                "-o",
                "qmqpd_authorized_clients=127.0.0.0/33 127.0.0.1",
                "--explain",
                "127.0.0.1",
            ][..],
            "cannot tell: qmqpd_authorized_clients: bad mask length in \"127.0.0.0/33\"\n",
        ),
        (
            &["-o", "inet_protocols=ipv4", "--explain", "::1"],
            "cannot tell: option -o: cannot handle socket type AF_INET6 with \"inet_protocols = ipv4\"\n",
        ),
        (
            &["-o", "soft_bounce=maybe", "--explain", "127.0.0.1"],
            "cannot tell: option -o: bad boolean configuration: soft_bounce = maybe\n",
        ),
        (
            &[
                "-o",
                "qmqpd_authorized_clients=/nonexistent",
                "--explain",
                "127.0.0.1",
            ],
            "cannot tell: /nonexistent is unavailable. open file /nonexistent: No such file or directory\n    \
             qmqpd_authorized_clients: /nonexistent: table lookup problem\n\
             note: open file /nonexistent: No such file or directory\n",
        ),
    ] {
        let rest = "Such a client is answered Z, try later. \"qmqpd --check\" says more.\n";
        let report = format!("{report}{rest}");
        assert_eq!(said(&instance, arguments), (report, Some(78)));
    }
    let (report, code) = said(&instance, &["--explain", "mx.example.com"]);
    assert_eq!(code, Some(64), "{report}");
}

#[test]
fn an_explanation_agrees_with_what_happens() {
    use harness::server::{Server, Setting, run};
    let lists = [
        "127.0.0.1",
        "!127.0.0.1",
        "[::1]",
        "127.0.0.0/33",
        "DIR/nosuch",
        "127.0.0.0/8",
    ];
    for list in lists {
        let conf = vec![
            format!("qmqpd_authorized_clients = {list}"),
            "qmqpd_peername_lookup = no".to_owned(),
        ];
        let instance = Instance::new(&conf);
        let (_, code) = said(&instance, &["--explain", "127.0.0.1", "localhost"]);
        let seen = run(
            Server::Ours,
            &Setting {
                conf,
                client: vec![Act::Eof],
                ..Setting::default()
            },
        );
        let reply = String::from_utf8_lossy(&seen.reply).into_owned();
        let expected = match reply.split(':').nth(1).and_then(|text| text.chars().next()) {
            None => 0,
            Some('D') => 1,
            Some(_) => 78,
        };
        assert_eq!(code, Some(expected), "{list}: {reply}");
    }
}

#[test]
fn a_slip_of_the_keyboard_is_answered_where_it_was_made() {
    let output = Command::new(OURS)
        .args(["--check", "--verbos"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "qmqpd: invalid option: verbos\n\"qmqpd --help\" lists the options.\n"
    );
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn a_main_cf_that_cannot_be_read_is_all_there_is_to_say() {
    let instance = instance(&["no equals sign"]);
    let (report, code) = said(&instance, &["--check"]);
    assert!(
        report.starts_with(
            "error: DIR/conf/main.cf, line 9: missing '=' after attribute name: \"no equals sign\"\n"
        ),
        "{report}"
    );
    assert!(report.ends_with("\n1 error, no warnings\n"), "{report}");
    assert_eq!(code, Some(78));
}

#[test]
fn proxies_that_make_no_sense_are_named() {
    let set = "qmqpd_upstream_proxy_protocol = haproxy";
    for (lines, expected) in [
        (
            &[set][..],
            "qmqpd_upstream_proxy_clients is empty: no client may send",
        ),
        (
            &[
                set,
                "qmqpd_upstream_proxy_clients = 192.0.2.1, [2001:db8::]/32",
            ],
            "each address of [2001:db8::]/32 may be a proxy",
        ),
        (
            &[set, "qmqpd_upstream_proxy_clients = static:all"],
            "qmqpd_upstream_proxy_clients lets every client be a proxy",
        ),
        (
            &["qmqpd_upstream_proxy_clients = 192.0.2.1"],
            "qmqpd_upstream_proxy_clients has no effect",
        ),
        (
            &[
                set,
                "qmqpd_upstream_proxy_clients = 192.0.2.1, 192.0.2.2/32, [::1]/128",
            ],
            "",
        ),
        (
            &[
                set,
                "qmqpd_upstream_proxy_clients = !192.0.2.0/24, 198.51.100.1",
            ],
            "",
        ),
        (
            &[set, "qmqpd_upstream_proxy_clients = DIR/conf/proxies"],
            "DIR/conf/proxies, line 2: qmqpd_upstream_proxy_clients: each address of 192.0.2.0/31 may be",
        ),
        (
            &[set, "qmqpd_upstream_proxy_clients = proxy.example"],
            "qmqpd_upstream_proxy_clients: \"proxy.example\" can match no proxy",
        ),
    ] {
        let instance = instance(&[lines, &["qmqpd_authorized_clients = 192.0.2.7"]].concat());
        instance.write("conf/proxies", b"192.0.2.1\n192.0.2.0/31\n");
        let _cleanup = cleanup(&instance);
        let (report, code) = said(&instance, &["--check"]);
        let warnings: Vec<&str> = report
            .lines()
            .filter(|line| line.starts_with("warning: ") && line.contains("_proxy_"))
            .collect();
        let named = |warning: &&str| warning.contains(expected);
        assert!(warnings.iter().all(named), "{report}");
        assert_eq!(warnings.is_empty(), expected.is_empty(), "{report}");
        assert_eq!(code, Some(0), "{report}");
    }
}

#[test]
fn a_protocol_that_is_not_known_is_an_error() {
    let instance = instance(&["qmqpd_upstream_proxy_protocol = nginx"]);
    let (report, code) = said(&instance, &["--check"]);
    let error = "parameter qmqpd_upstream_proxy_protocol: unknown protocol: nginx";
    assert!(report.contains(error) && code == Some(78), "{report}");
}

/// Where connections do not come from a proxy itself.
#[test]
fn services_that_no_proxy_reaches_are_named() {
    let unset = "qmqpd_upstream_proxy_protocol=";
    for (protocol, expected) in [
        (
            "haproxy",
            "\
warning: master.cf, line 2: qmqpd_upstream_proxy_protocol is set: no proxy connects to a UNIX-domain socket, and each connection is answered Z
warning: master.cf, line 4: qmqpd_upstream_proxy_protocol is set: a connection of which another program has read the header is answered Z
warning: master.cf, line 5: qmqpd_upstream_proxy_protocol is set: no proxy connects to a UNIX-domain socket, and each connection is answered Z
",
        ),
        (
            "",
            "\
warning: master.cf, line 6: qmqpd_upstream_proxy_protocol is set: no proxy connects to a UNIX-domain socket, and each connection is answered Z
",
        ),
    ] {
        let set = format!("qmqpd_upstream_proxy_protocol = {protocol}");
        let instance = instance(&[
            &set,
            "qmqpd_upstream_proxy_clients = 192.0.2.1",
            "qmqpd_authorized_clients = 192.0.2.7",
        ]);
        let also = if protocol.is_empty() { "haproxy" } else { "" };
        let master_cf = format!(
            "628 inet n - n - - qmqpd\n\
             qmqp unix n - n - - qmqpd\n\
             other unix n - n - - qmqpd -o {unset}\n\
             passed pass n - n - - qmqpd\n\
             spawned unix n n n - 50 spawn user=nobody argv=/usr/sbin/qmqpd\n\
             last unix n - n - - qmqpd -o {unset}{also}\n"
        );
        instance.write("conf/master.cf", master_cf.as_bytes());
        let (report, _) = said(&instance, &["--check", "--configuration"]);
        // A service reads the list, if not main.cf does.
        assert!(!report.contains("has no effect"), "{report}");
        let found: String = report
            .lines()
            .filter(|line| line.contains("master.cf"))
            .map(|line| line.replace("DIR/conf/", "") + "\n")
            .collect();
        assert_eq!(found, expected, "{report}");
    }
}

/// In a namespace in which the units of the machine are those of the test.
#[test]
fn a_unit_that_no_proxy_reaches_is_named() {
    let test = "a_unit_that_no_proxy_reaches_is_named";
    if !can_run(test) {
        return;
    }
    if let Some(reason) = harness::launchers::why_no_namespaces() {
        return harness::skip(test, reason);
    }
    let instance = instance(&[
        "qmqpd_upstream_proxy_protocol = haproxy",
        "qmqpd_upstream_proxy_clients = 192.0.2.1",
        "qmqpd_authorized_clients = 192.0.2.7",
    ]);
    let _cleanup = cleanup(&instance);
    for (listens, option, is_named) in [
        ("/run/qmqpd", "", true),
        ("628", "", false),
        ("/run/qmqpd", " -o qmqpd_upstream_proxy_protocol=", false),
    ] {
        fs::create_dir_all(instance.dir.join("units")).unwrap();
        let socket = format!("[Socket]\nListenStream={listens}\n");
        instance.write("units/qmqpd-accept.socket", socket.as_bytes());
        let service = format!("[Service]\nExecStart=/usr/sbin/qmqpd --accept{option}\n");
        instance.write("units/qmqpd-accept.service", service.as_bytes());
        let mut ours = Command::new("/usr/bin/unshare");
        ours.args(["--mount", "/bin/sh", "-c"])
            .arg("/bin/mount --bind \"$1\" /etc/systemd/system && shift && exec \"$0\" \"$@\"")
            .arg(OURS)
            .arg(instance.dir.join("units"));
        let (report, _) = said_by(ours, &instance, &["--check"]);
        let line = "warning: /etc/systemd/system/qmqpd-accept.socket: ListenStream=/run/qmqpd: \
                    qmqpd_upstream_proxy_protocol is set: no proxy connects to a UNIX-domain socket";
        assert_eq!(report.contains(line), is_named, "{report}");
    }
}
