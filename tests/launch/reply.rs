//! Whether an early reply arrives: the client has not been listened to, and is still sending.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::harness::dialogue::at_once;
use crate::harness::master::{self, Master};
use crate::harness::outcome::Ending;
use crate::harness::patience::{accept, end_of, output_of};
use crate::harness::server::{Server, why_no_postfix};
use crate::harness::{self, peers};
use crate::machine::{How, Machine, PATIENCE, User, tell};

/// How many times each reply is tried.
const TIMES: usize = 100;

/// How many times nullmailer sends.
const TIMES_NULLMAILER: usize = 20;

/// More than the buffers of any kernel hold.
const LARGE: usize = 20_000_000;

/// Less than message_size_limit.
const SMALL: usize = 1_000_000;

/// Something that is answered while there is more to read.
struct Case {
    name: &'static str,
    conf: &'static str,
    request: Vec<u8>,
    /// What is in the reply.
    reply: &'static str,
}

impl Case {
    fn is_heard_in(&self, said: &[u8]) -> bool {
        let said = String::from_utf8_lossy(said);
        said.contains(self.reply) && said.ends_with(',')
    }
}

fn cases() -> [Case; 4] {
    let content = |length: usize| {
        let head = format!("{length}:");
        [head.as_bytes(), &vec![b'x'; length], b","].concat()
    };
    let request = |message: &[u8]| {
        let inner = [message, b"11:s@x.example,11:r@y.example,"].concat();
        [format!("{}:", inner.len()).as_bytes(), &inner, b","].concat()
    };
    [
        Case {
            name: "unauthorized",
            conf: "qmqpd_authorized_clients =",
            request: request(&content(LARGE)),
            reply: "is not authorized to use this service,",
        },
        Case {
            name: "malformed",
            conf: "",
            request: request(&vec![b'x'; LARGE]),
            reply: ":Dnetstring format error while receiving message content,",
        },
        Case {
            name: "oversize",
            conf: "",
            request: request(&content(LARGE)),
            reply: ":Dnetstring length exceeds storage limit while receiving message content,",
        },
        Case {
            name: "accepted, and a byte more",
            conf: "",
            request: [request(&content(SMALL)), b"x".to_vec()].concat(),
            reply: ":KOk: queued as ",
        },
    ]
}

/// How a client comes to a server: its end of the connection, and the server if nobody else waits for that.
type Connect<'a> = dyn Fn() -> (OwnedFd, Option<Child>) + Sync + 'a;

/// Sends everything, or up to the first error; then listens. The reply, and whether there was an error.
fn send_then_read(client: OwnedFd, request: &[u8]) -> (Vec<u8>, bool) {
    let mut client = File::from(client);
    let stopped = client.write_all(request).is_err();
    let (reply, ending) = peers::listen(&client, Instant::now() + PATIENCE);
    assert!(ending != Ending::Open, "no end of the reply");
    (reply, stopped)
}

/// Of [`TIMES`] clients, how many were reached by the reply, and how many of those had no error before: most clients do
/// not listen after one.
fn count(case: &Case, connect: &Connect) -> (usize, usize) {
    let (heard, unhindered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    at_once(TIMES, |_| {
        let (client, server) = connect();
        let (reply, stopped) = send_then_read(client, &case.request);
        let is_heard = case.is_heard_in(&reply);
        heard.fetch_add(usize::from(is_heard), Relaxed);
        unhindered.fetch_add(usize::from(is_heard && !stopped), Relaxed);
        if let Some(mut server) = server {
            end_of(&mut server);
        }
    });
    (heard.into_inner(), unhindered.into_inner())
}

/// The same with a server for each connection, whose ends `wire` makes.
fn count_started(server: Server, case: &Case, wire: fn() -> (OwnedFd, OwnedFd)) -> (usize, usize) {
    let machine = Machine::new(&["qmqpd_peername_lookup = no", case.conf]);
    let cleanup = machine.cleanup(&[]);
    let counted = count(case, &|| {
        let (client, inner) = wire();
        (client, Some(start(&machine, server, inner)))
    });
    cleanup.finish();
    machine.log.finish();
    counted
}

fn start(machine: &Machine, server: Server, connection: OwnedFd) -> Child {
    let how = How {
        server,
        arguments: &["-S"],
        user: User::Owner,
        ..How::default()
    };
    let mut command = machine.command(&how);
    let input = connection.try_clone().unwrap();
    command.stdin(input).stdout(connection);
    command.spawn().unwrap()
}

/// Ours has to reach everybody without an error. What Postfix does is not ours to judge, and is told.
fn compare(name: &str, count: impl Fn(Server, &Case) -> (usize, usize)) {
    let postfix = why_no_postfix();
    if let Some(reason) = postfix {
        harness::skip(&format!("early replies of Postfix's, {name}"), reason);
    }
    for case in cases() {
        let ours = count(Server::Ours, &case);
        tell(&format!("{name}, {}: {}", case.name, text("ours", ours)));
        if postfix.is_none() {
            let theirs = text("Postfix's", count(Server::Postfix, &case));
            tell(&format!("{name}, {}: {theirs}", case.name));
        }
        assert_eq!(ours, (TIMES, TIMES), "{name}, {}", case.name);
    }
}

fn text(whose: &str, (heard, unhindered): (usize, usize)) -> String {
    format!("{whose} reached {heard} of {TIMES} clients, {unhindered} of them without an error")
}

#[test]
fn an_early_reply_reaches_a_client_that_is_still_sending() {
    compare("TCP", |server, case| {
        count_started(server, case, || {
            let (client, inner) = peers::tcp([127, 0, 0, 1].into(), false);
            (client.into(), inner.into())
        })
    });
}

#[test]
fn an_early_reply_reaches_a_client_on_a_unix_domain_socket() {
    compare("UNIX-domain socket", |server, case| {
        count_started(server, case, || {
            let (client, inner) = UnixStream::pair().unwrap();
            (client.into(), inner.into())
        })
    });
}

#[test]
fn an_early_reply_reaches_a_client_of_a_service_of_master_s() {
    if master::is_missing("an_early_reply_reaches_a_client_of_a_service_of_master_s") {
        return;
    }
    let programs = [(Server::Ours, "qmqpd"), (Server::Postfix, "qmqpd-postfix")];
    let services: Vec<(u16, Server, &str, String)> = cases()
        .into_iter()
        .flat_map(|case| programs.map(|program| (program, case.name, case.conf)))
        .map(|((server, program), name, conf)| {
            let port = master::free_port();
            let option = conf.replace(' ', "");
            let option = option.split('=').next().filter(|name| !name.is_empty());
            let option = option.map_or(String::new(), |name| format!(" -o {name}="));
            let line = format!("{port} inet n - n - - {program}{option}\n");
            (port, server, name, line)
        })
        .collect();
    let lines: String = services.iter().map(|(.., line)| line.as_str()).collect();
    let _master = Master::start("", &lines);
    compare("master", |server, case| {
        let found = services
            .iter()
            .find(|service| (service.1, service.2) == (server, case.name));
        let port = found.unwrap().0;
        count(case, &|| {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            (client.into(), None)
        })
    });
}

/// A client that people have. It gives up at the first error, and tries again for days.
#[test]
fn nullmailer_is_told_why() {
    let nullmailer = std::env::var_os("QMQPD_NULLMAILER").map(PathBuf::from);
    let Some(nullmailer) = nullmailer.filter(|path| path.exists()) else {
        return harness::skip("nullmailer_is_told_why", "nullmailer is not there");
    };
    for server in [Server::Ours, Server::Postfix] {
        if server == Server::Postfix && why_no_postfix().is_some() {
            continue;
        }
        let machine = Machine::new(&["qmqpd_authorized_clients ="]);
        let message = machine.instance.dir.join("message");
        let head = "s@x.example\nr@y.example\n\nSubject: t\n\n";
        let line = [vec![b'x'; 99], b"\n".to_vec()].concat();
        fs::write(
            &message,
            [head.as_bytes(), &line.repeat(LARGE / 100)].concat(),
        )
        .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = (0..TIMES_NULLMAILER).filter(|_| {
            let client = start_nullmailer(&nullmailer, &message, port);
            let mut server = start(&machine, server, accept(&listener).into());
            let said = output_of(client);
            end_of(&mut server);
            String::from_utf8_lossy(&said.stdout).contains("not authorized to use this service")
        });
        let told = told.count();
        tell(&format!(
            "nullmailer was told why {told} times of {TIMES_NULLMAILER} by {server:?}"
        ));
        assert!(server == Server::Postfix || told == TIMES_NULLMAILER);
        machine.log.finish();
    }
}

fn start_nullmailer(program: &Path, message: &Path, port: u16) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" 3<\"$1\""])
        .args([program, message])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    write!(input, "host=127.0.0.1\nport={port}\n\n").unwrap();
    child
}

/// Past the limit of the drain the process ends, whatever the client wants.
#[test]
fn a_client_that_sends_without_end_is_left() {
    let machine = Machine::new(&["qmqpd_authorized_clients ="]);
    let session = machine.start_tcp(&How::default(), "127.0.0.1");
    let mut client = &session.client;
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while client.write_all(&piece).is_ok() {
        sent += 1;
        assert!(sent < 200, "the server reads without end");
    }
    tell(&format!("a refused client could send {sent} MiB"));
    assert!(sent >= 64, "the server has read only {sent} MiB");
}
