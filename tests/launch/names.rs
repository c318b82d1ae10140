//! A name server that fails: clients whose admission depends on their name come again, and are not refused for good.
//!
//! The server is a thread here, in a network of its own, and is who the resolver asks.

use std::fs;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::harness::cleanup::Item;
use crate::harness::lists::in_private_network;
use crate::machine::{ACCEPTED, How, Machine, PATIENCE, REQUEST, User, is_not_root};

const CLIENT: &str = "192.0.2.7";

const Z: &str = "63:ZError: unknown[192.0.2.7]: name lookup failed, try again later,";

/// What the server says to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// The client's name, or its address.
    Yes,
    /// Another address.
    Elsewhere,
    /// A response code.
    Code(u8),
    NoData,
    Garbage,
    Nothing,
}

const SERVFAIL: Says = Says::Code(2);
const NXDOMAIN: Says = Says::Code(3);
const REFUSED: Says = Says::Code(5);
const FORMERR: Says = Says::Code(1);

const PTR: u8 = 12;
const A: u8 = 1;

impl Says {
    /// The answer to the question in `asked`.
    fn answer(self, asked: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = asked.split_at(12);
        let end = rest.iter().position(|&b| b == 0).unwrap() + 5;
        let question = &rest[..end];
        let kind = question[end - 3];
        let data: Vec<u8> = match (self, kind) {
            (Says::Nothing, _) => return None,
            (Says::Garbage, _) => return Some([&header[..2], b"\x81\x80?"].concat()),
            (Says::Yes, PTR) => b"\x02mx\x01a\x07example\0".to_vec(),
            (Says::Yes, A) => vec![192, 0, 2, 7],
            (Says::Elsewhere, A) => vec![192, 0, 2, 99],
            _ => Vec::new(),
        };
        let code = if let Says::Code(code) = self { code } else { 0 };
        let count = u8::from(!data.is_empty());
        let mut answer = [
            &header[..2],
            &[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0],
            question,
        ]
        .concat();
        if count > 0 {
            answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0]);
            answer.push(u8::try_from(data.len()).unwrap());
            answer.extend(data);
        }
        Some(answer)
    }
}

/// A name server on 127.0.0.1, until it is dropped.
struct NameServer {
    told: Sender<(Says, Says)>,
}

impl NameServer {
    fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let (told, orders) = channel();
        thread::spawn(move || {
            let mut says = (NXDOMAIN, NXDOMAIN);
            let mut asked = [0; 1024];
            loop {
                let (length, from) = socket.recv_from(&mut asked).unwrap();
                // Orders are given between sessions, and questions asked in them.
                says = orders.try_iter().last().unwrap_or(says);
                let question = &asked[..length];
                let is_reverse = question.windows(4).any(|part| part == b"arpa");
                let said = if is_reverse { says.0 } else { says.1 };
                if let Some(answer) = said.answer(question) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        NameServer { told }
    }

    /// What is said of addresses, and of names.
    fn say(&self, reverse: Says, forward: Says) {
        self.told.send((reverse, forward)).unwrap();
    }
}

/// Runs the named test once more where it has a network and files of its own for the resolver: [`in_private_network`].
fn is_with_resolver(test: &str) -> bool {
    if is_not_root(test) || !in_private_network(&format!("names::{test}")) {
        return false;
    }
    let added = Command::new("ip")
        .args(["addr", "add", &format!("{CLIENT}/32"), "dev", "lo"])
        .status();
    assert!(added.unwrap().success());
    resolve("files dns");
    let resolv = std::env::temp_dir().join(format!("qmqpd-resolv-{}", std::process::id()));
    fs::write(&resolv, "options timeout:1 attempts:1\n").unwrap();
    let mounted = Command::new("mount")
        .args(["--bind"])
        .arg(&resolv)
        .arg("/etc/resolv.conf")
        .status();
    assert!(mounted.unwrap().success());
    fs::remove_file(resolv).unwrap();
    true
}

/// Has the resolver ask these services.
fn resolve(services: &str) {
    let text = format!("hosts: {services}\npasswd: files\ngroup: files\n");
    fs::write("/etc/nsswitch.conf", text).unwrap();
}

/// What comes of a client with this list.
struct Served {
    reply: String,
    log: Vec<String>,
    queue: Vec<Item>,
}

fn serve(list: &str, how: &How) -> Served {
    let list = format!("qmqpd_authorized_clients = {list}");
    // `.a.example` is what is below it.
    let machine = Machine::new(&[&list, "parent_domain_matches_subdomains ="]);
    let cleanup = machine.cleanup(&[]);
    let mut session = machine.start_tcp(how, CLIENT);
    session.send(REQUEST);
    let reply = session.reply(PATIENCE);
    assert_eq!(session.exit(), "0");
    let queue = cleanup.finish();
    let log = machine.finish(&session);
    Served { reply, log, queue }
}

/// Lists, and what comes of a client whose name is open, who has none, who is mx.a.example.
const LISTS: [(&str, &str); 5] = [
    (".a.example, 192.0.2.7", "KKK"),
    ("!.a.example, 192.0.2.0/24", "ZKD"),
    (".a.example", "ZDK"),
    ("unknown", "ZKD"),
    ("192.0.2.9 !.a.example", "DDD"),
];

/// What the name server does, and what is said about it where that is logged.
const FAILURES: [(Says, Says, &str); 9] = [
    (
        SERVFAIL,
        NXDOMAIN,
        "the name of 192.0.2.7 cannot be looked up: Temporary failure in name resolution",
    ),
    (
        REFUSED,
        NXDOMAIN,
        "the name of 192.0.2.7 cannot be looked up: Temporary failure in name resolution",
    ),
    (
        FORMERR,
        NXDOMAIN,
        "the name of 192.0.2.7 cannot be looked up: Non-recoverable failure in name resolution",
    ),
    (
        Says::Garbage,
        NXDOMAIN,
        "the name of 192.0.2.7 cannot be looked up: Temporary failure in name resolution",
    ),
    (
        Says::Nothing,
        NXDOMAIN,
        "the name of 192.0.2.7 cannot be looked up: Temporary failure in name resolution",
    ),
    (
        Says::Yes,
        SERVFAIL,
        "hostname mx.a.example does not resolve to address 192.0.2.7: Temporary failure in name resolution",
    ),
    (
        Says::Yes,
        REFUSED,
        "hostname mx.a.example does not resolve to address 192.0.2.7: Temporary failure in name resolution",
    ),
    (
        Says::Yes,
        FORMERR,
        "hostname mx.a.example does not resolve to address 192.0.2.7: Non-recoverable failure in name resolution",
    ),
    (
        Says::Yes,
        Says::Nothing,
        "hostname mx.a.example does not resolve to address 192.0.2.7: Temporary failure in name resolution",
    ),
];

const ANSWERS: [(Says, Says, &str); 5] = [
    (NXDOMAIN, NXDOMAIN, ""),
    (Says::NoData, NXDOMAIN, ""),
    (
        Says::Yes,
        NXDOMAIN,
        "hostname mx.a.example does not resolve to address 192.0.2.7: Name or service not known",
    ),
    (
        Says::Yes,
        Says::NoData,
        "hostname mx.a.example does not resolve to address 192.0.2.7: No address associated with hostname",
    ),
    (
        Says::Yes,
        Says::Elsewhere,
        "hostname mx.a.example does not resolve to address 192.0.2.7",
    ),
];

/// Fails unless the client has the reply for its list, and the log says why.
fn check(served: &Served, letter: char, warning: &str, case: &str) {
    let Served { reply, log, .. } = served;
    assert_eq!(
        reply.split(':').nth(1).unwrap().chars().next(),
        Some(letter),
        "{case}: {log:?}"
    );
    let warnings: Vec<&String> = log
        .iter()
        .filter(|line| line.contains("resol") || line.contains("looked up"))
        .collect();
    if warning.is_empty() {
        assert!(warnings.is_empty(), "{case}: {log:?}");
    } else {
        assert_eq!(
            warnings,
            [&format!("warning: {warning}")],
            "{case}: {log:?}"
        );
    }
    let noqueue: Vec<&String> = log
        .iter()
        .filter(|line| line.contains("NOQUEUE: "))
        .collect();
    let expected = match letter {
        'Z' => {
            "warning: NOQUEUE: unknown[192.0.2.7]: Error: unknown[192.0.2.7]: name lookup failed, try again later"
        }
        'D' => "NOQUEUE: reject: CONNECT from ",
        _ => {
            assert!(noqueue.is_empty(), "{case}: {log:?}");
            return;
        }
    };
    assert!(
        noqueue.len() == 1 && noqueue[0].starts_with(expected),
        "{case}: {log:?}"
    );
    assert!(letter != 'Z' || reply == Z, "{reply}");
}

#[test]
fn a_name_server_that_fails_makes_nobody_hear_d() {
    if !is_with_resolver("a_name_server_that_fails_makes_nobody_hear_d") {
        return;
    }
    let server = NameServer::start();
    let kinds = FAILURES.iter().map(|case| (0, case));
    let kinds = kinds.chain(ANSWERS.iter().map(|case| (1, case)));
    for (kind, (reverse, forward, warning)) in kinds.chain([(2, &(Says::Yes, Says::Yes, ""))]) {
        server.say(*reverse, *forward);
        for (list, letters) in LISTS {
            let served = serve(list, &How::default());
            let case = format!("{reverse:?} {forward:?} {list}");
            check(&served, letters.chars().nth(kind).unwrap(), warning, &case);
        }
    }
    // A service behind the DNS that does not know the name hides a failure from who asks for the result alone.
    resolve("dns files");
    for (reverse, letter) in [(SERVFAIL, 'Z'), (FORMERR, 'Z'), (NXDOMAIN, 'K')] {
        server.say(reverse, NXDOMAIN);
        let served = serve("!.a.example, 192.0.2.0/24", &How::default());
        assert_eq!(
            served.reply.contains("ZError: unknown["),
            letter == 'Z',
            "{reverse:?}"
        );
        assert_eq!(served.reply == ACCEPTED, letter == 'K', "{reverse:?}");
    }
}

#[test]
fn an_open_client_that_its_address_lets_in_is_shown_as_unknown() {
    if !is_with_resolver("an_open_client_that_its_address_lets_in_is_shown_as_unknown") {
        return;
    }
    let server = NameServer::start();
    server.say(Says::Yes, SERVFAIL);
    let served = serve(".a.example, 192.0.2.7", &How::default());
    assert_eq!(served.reply, ACCEPTED);
    assert_eq!(served.log[1], "connect from unknown[192.0.2.7]");
    for (kind, text) in [
        (b'A', "log_client_name=unknown"),
        (b'A', "client_name=unknown"),
        (b'N', "Received: from unknown (unknown [192.0.2.7])"),
    ] {
        let item = Item::Record(kind, text.into());
        assert!(served.queue.contains(&item), "{text}: {:?}", served.queue);
    }
}

#[test]
fn a_debug_list_that_depends_on_an_open_name_is_without_the_client() {
    let test = "a_debug_list_that_depends_on_an_open_name_is_without_the_client";
    if !is_with_resolver(test) {
        return;
    }
    let server = NameServer::start();
    server.say(SERVFAIL, NXDOMAIN);
    let lines = |debug_peer_list: &str| {
        let how = How {
            arguments: &["-o", debug_peer_list],
            ..How::default()
        };
        serve("192.0.2.7", &how).log.len()
    };
    let plain = lines("debug_peer_list=");
    assert_eq!(lines("debug_peer_list=a.example"), plain);
    assert!(lines("debug_peer_list=192.0.2.7") > plain);
}

#[test]
fn who_cannot_ask_does_not_know() {
    if !is_with_resolver("who_cannot_ask_does_not_know") {
        return;
    }
    let list = "!.a.example, 192.0.2.0/24";
    let warning = "the name of 192.0.2.7 cannot be looked up: ";
    let no_server = serve(list, &How::default());
    let temporary = format!("{warning}Temporary failure in name resolution");
    check(&no_server, 'Z', &temporary, "no name server");
    let in_chroot = How {
        arguments: &["-c"],
        ..How::default()
    };
    check(
        &serve(list, &in_chroot),
        'Z',
        &temporary,
        "a chroot without files for the resolver",
    );
    let no_child = How {
        user: User::Owner,
        through: &["prlimit", "--nproc=1"],
        ..How::default()
    };
    let refused = format!("{warning}Resource temporarily unavailable");
    check(&serve(list, &no_child), 'Z', &refused, "no child");
    let unasked = How {
        arguments: &["-o", "qmqpd_peername_lookup=no"],
        ..How::default()
    };
    check(&serve(list, &unasked), 'K', "", "not asked");
}

/// What a command for people says, and its exit status.
fn said(machine: &Machine, arguments: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_qmqpd"))
        .args(arguments)
        .env_clear()
        .env("MAIL_CONFIG", machine.instance.config_directory())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let directory = machine.instance.dir.display().to_string();
    (text.replace(&directory, "DIR"), output.status.code())
}

#[test]
fn check_tells_of_a_machine_or_a_chroot_without_a_name_server() {
    if !is_with_resolver("check_tells_of_a_machine_or_a_chroot_without_a_name_server") {
        return;
    }
    let machine = Machine::new(&[]);
    let checked = |arguments: &[&str]| {
        let (text, _) = said(&machine, &[&["--check"], arguments].concat());
        let mut lines = text.lines();
        let found = lines.find(|line| line.contains("name server"))?.to_owned();
        assert!(
            lines.any(|line| line.contains("qmqpd_peername_lookup = no")),
            "{text}"
        );
        Some(found)
    };
    let tells = |file: &str, why: &str| {
        let text = format!(
            "warning: there is no name server: {file}: {why}, and no server listens on port 53 of 127.0.0.1"
        );
        Some(text)
    };
    let on_machine = || tells("/etc/resolv.conf", "it names no server");
    let in_chroot = tells("DIR/queue/etc/resolv.conf", "No such file or directory");
    assert_eq!(checked(&[]), on_machine());
    assert_eq!(checked(&["-c"]), in_chroot);
    assert_eq!(checked(&["-o", "qmqpd_peername_lookup=no"]), None);
    resolve("files");
    assert_eq!(checked(&[]), None);
    resolve("files dns");
    fs::write("/etc/resolv.conf", "nameserver 192.0.2.53\n").unwrap();
    assert_eq!(checked(&[]), None);
    assert_eq!(checked(&["-c"]), in_chroot);
    let etc = machine.instance.queue_directory().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::copy("/etc/resolv.conf", etc.join("resolv.conf")).unwrap();
    assert_eq!(checked(&["-c"]), None);
    fs::write("/etc/resolv.conf", "").unwrap();
    assert_eq!(checked(&[]), on_machine());
    let _server = NameServer::start();
    assert_eq!(checked(&[]), None);
}

#[test]
fn explain_says_what_comes_of_a_lookup_that_fails() {
    if !is_with_resolver("explain_says_what_comes_of_a_lookup_that_fails") {
        return;
    }
    let server = NameServer::start();
    let machine = Machine::new(&["parent_domain_matches_subdomains ="]);
    let explained = |list: &str, name: &[&str]| {
        let list = format!("qmqpd_authorized_clients={list}");
        said(
            &machine,
            &[&["-o", &list, "--explain", CLIENT], name].concat(),
        )
    };
    let hears = "ZError: unknown[192.0.2.7]: name lookup failed, try again later";
    server.say(Says::Yes, Says::Yes);
    let place = "qmqpd_authorized_clients: listed, because of .a.example\n    (option -o)\n";
    let let_in = format!("client mx.a.example[192.0.2.7]\n{place}The client is let in.\n");
    let otherwise = format!(
        "If the name of the client cannot be looked up for now, the client is told to try later, because of .a.example:\n    {hears}\n"
    );
    assert_eq!(
        explained(".a.example", &[]),
        (let_in.clone() + &otherwise, Some(0))
    );
    assert_eq!(
        explained(".a.example", &["mx.a.example"]),
        (let_in, Some(0))
    );
    let (text, code) = explained("!.a.example 192.0.2.0/24", &[]);
    assert!(
        text.contains("DError: ")
            && text.ends_with(&otherwise.replace(".a.example:", "!.a.example:")),
        "{text}"
    );
    assert_eq!(code, Some(1));
    let (text, code) = explained(".a.example 192.0.2.7", &[]);
    assert!(!text.contains("looked up"), "{text}");
    assert_eq!(code, Some(0));

    server.say(SERVFAIL, NXDOMAIN);
    let (text, code) = explained("!.a.example 192.0.2.0/24", &[]);
    let line = "qmqpd_authorized_clients: depends on its name, because of !.a.example\n";
    assert!(text.contains(line), "{text}");
    let expected = format!(
        "The client is told to try later: {hears}\nnote: the name of 192.0.2.7 cannot be looked up: Temporary failure in name resolution\n"
    );
    assert!(text.ends_with(&expected), "{text}");
    assert_eq!(code, Some(78));
    assert_eq!(explained("192.0.2.7", &[]).1, Some(0));
    let (text, code) = explained("192.0.2.9", &[]);
    assert!(!text.contains("Names in the list"), "{text}");
    assert_eq!(code, Some(1));
}
