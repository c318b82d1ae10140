//! TLS with client certificates: the files of `scripts/stunnel`, with real stunnels on both sides.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness;
use crate::harness::cleanup::Item;
use crate::harness::launchers::{program, shipped};
use crate::harness::master::{free_port, request, until};
use crate::harness::patience::output_of;
use crate::harness::server::our_program;
use crate::machine::{ACCEPTED, How, Machine, PATIENCE, REQUEST, is_not_root};

/// Where the client's stunnel connects from.
const CLIENT: &str = "127.0.0.2";

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// How the server's stunnel hands connections to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Exec,
    Proxy,
}

/// What the server's stunnel wants of a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// That the CA has signed it.
    Chain,
    /// That it is this one.
    Peer(&'static str),
}

/// A directory with certificates.
struct Certificates(PathBuf);

impl Certificates {
    /// `good`, `other` and `expired` are clients of one CA, `stranger` is one of another.
    fn make(machine: &Machine) -> Certificates {
        let dir = machine.instance.dir.join("tls");
        let elsewhere = machine.instance.dir.join("elsewhere");
        for (dir, days, arguments) in [
            (&dir, "2", "ca"),
            (&dir, "2", "server localhost"),
            (&dir, "2", "client good"),
            (&dir, "2", "client other"),
            (&dir, "0", "client expired"),
            (&elsewhere, "2", "ca"),
            (&elsewhere, "2", "client stranger"),
        ] {
            fs::create_dir_all(dir).unwrap();
            let output = Command::new(format!("{ROOT}/scripts/stunnel/certificates"))
                .args(arguments.split(' '))
                .env("DAYS", days)
                .current_dir(dir)
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments}: {output:?}");
        }
        for kind in ["pem", "key"] {
            let name = format!("stranger.{kind}");
            fs::copy(elsewhere.join(&name), dir.join(&name)).unwrap();
        }
        Certificates(dir)
    }
}

/// Processes that end with the value.
#[derive(Default)]
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A client's stunnel, a server's, and what the latter needs.
struct Tunnel {
    children: Children,
    machine: Machine,
    /// Where the client's stunnel listens, and where the server's does.
    port: u16,
    public: u16,
    certificates: PathBuf,
}

impl Tunnel {
    /// The client has this certificate, if it has one.
    fn start(variant: Variant, wanted: Wanted, certificate: Option<&str>, listed: &str) -> Tunnel {
        let listed = format!("qmqpd_authorized_clients = {listed}");
        let mut conf = vec![
            listed.as_str(),
            "qmqpd_peername_lookup = no",
            "qmqpd_error_delay = 0",
            "message_size_limit = 30000000",
        ];
        if variant == Variant::Proxy {
            conf.push("qmqpd_upstream_proxy_protocol = haproxy");
            conf.push("qmqpd_upstream_proxy_clients = 127.0.0.1");
        }
        let machine = Machine::new(&conf);
        let certificates = Certificates::make(&machine);
        let mut tunnel = Tunnel {
            children: Children::default(),
            machine,
            port: free_port(),
            public: free_port(),
            certificates: certificates.0.clone(),
        };
        let (public, inner) = (tunnel.public, free_port());
        if variant == Variant::Proxy {
            tunnel.start_tcpserver(inner);
        }
        tunnel.start_server(variant, wanted, public, inner, &certificates);
        tunnel.start_client(certificate, public, &certificates);
        tunnel
    }

    fn start_tcpserver(&mut self, port: u16) {
        let port = port.to_string();
        let how = How {
            through: &["tcpserver", "-R", "-H", "-l", "0", "127.0.0.1", &port],
            ..How::default()
        };
        let child = self.machine.command(&how).spawn().unwrap();
        self.children.0.push(child);
    }

    fn start_server(
        &mut self,
        variant: Variant,
        wanted: Wanted,
        public: u16,
        inner: u16,
        Certificates(dir): &Certificates,
    ) {
        let file = match variant {
            Variant::Exec => "scripts/stunnel/server.conf",
            Variant::Proxy => "scripts/stunnel/server-proxy.conf",
        };
        let mut text = shipped(file)
            .replace("queue.example.org", "localhost")
            .replace(":::6280", &format!("127.0.0.1:{public}"))
            .replace("127.0.0.1:628\n", &format!("127.0.0.1:{inner}\n"));
        if let Wanted::Peer(name) = wanted {
            fs::copy(dir.join(format!("{name}.pem")), dir.join("clients.pem")).unwrap();
            text = text
                .replace("CAfile = /etc/stunnel/ca.pem\nverifyChain = yes\n", "")
                .replace("\n#CAfile", "\nCAfile")
                .replace("\n#verifyPeer", "\nverifyPeer");
        }
        let ours = our_program(&self.machine.instance);
        let text = text.replace("/usr/sbin/qmqpd\n", &format!("{}\n", ours.display()));
        self.start_stunnel("server", &text, dir);
    }

    fn start_client(
        &mut self,
        certificate: Option<&str>,
        public: u16,
        Certificates(dir): &Certificates,
    ) {
        let own =
            "cert = /etc/stunnel/list.example.org.pem\nkey = /etc/stunnel/list.example.org.key\n";
        let text = shipped("scripts/stunnel/client.conf")
            .replace("127.0.0.1:628\n", &format!("127.0.0.1:{}\n", self.port))
            .replace("queue.example.org:6280", &format!("127.0.0.1:{public}"));
        assert!(text.contains(own), "{text}");
        let text = text.replace("queue.example.org", "localhost");
        let text = match certificate {
            Some(name) => text.replace("list.example.org", name),
            None => text.replace(own, ""),
        };
        self.start_stunnel("client", &format!("{text}local = {CLIENT}\n"), dir);
    }

    fn start_stunnel(&mut self, name: &str, text: &str, certificates: &Path) {
        let file = self.machine.instance.dir.join(name);
        let log = self.log(name);
        let log = log.display().to_string();
        let text = text
            .replace("/etc/stunnel", &certificates.display().to_string())
            .replace("syslog = yes", "syslog = no");
        fs::write(&file, text).unwrap();
        let path = file.display().to_string();
        let how = How {
            through: &["sh", "-c", "exec stunnel4 \"$0\" 2>\"$1\"", &path, &log],
            ..How::default()
        };
        let child = self.machine.command(&how).spawn().unwrap();
        self.children.0.push(child);
        let up = until(PATIENCE, || {
            self.said_by(name).contains("Configuration successful")
        });
        assert!(up, "{}", self.said_by(name));
    }

    fn log(&self, name: &str) -> PathBuf {
        self.machine.instance.dir.join(format!("{name}.log"))
    }

    fn said_by(&self, name: &str) -> String {
        fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// What the program says to this request, up to the comma of its netstring.
    fn reply(&self, request: &[u8]) -> String {
        let mut client = None;
        let connected = until(PATIENCE, || {
            client = TcpStream::connect(("127.0.0.1", self.port)).ok();
            client.is_some()
        });
        assert!(connected);
        let mut client = client.unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // A server that has answered, or refused, need not listen to the end.
        drop(client.write_all(request));
        let mut said = Vec::new();
        let mut byte = [0];
        while !said.ends_with(b",") && matches!(client.read(&mut byte), Ok(1)) {
            said.push(byte[0]);
        }
        String::from_utf8(said).unwrap()
    }
}

fn is_missing(test: &str) -> bool {
    for name in ["stunnel4", "openssl", "tcpserver"] {
        if program(name).is_none() {
            harness::skip(test, &format!("{name} is not installed"));
            return true;
        }
    }
    is_not_root(test)
}

const BOTH: [Variant; 2] = [Variant::Exec, Variant::Proxy];

#[test]
fn a_client_with_a_certificate_has_its_own_address() {
    if is_missing("a_client_with_a_certificate_has_its_own_address") {
        return;
    }
    for variant in BOTH {
        for wanted in [Wanted::Chain, Wanted::Peer("good")] {
            let tunnel = Tunnel::start(variant, wanted, Some("good"), CLIENT);
            let cleanup = tunnel.machine.cleanup(&[]);
            let said = tunnel.reply(REQUEST);
            assert_eq!(said, ACCEPTED, "{variant:?}: {}", tunnel.said_by("server"));
            let watch = tunnel.machine.log.watch();
            watch.wait_for(&format!("disconnect from unknown[{CLIENT}]"));
            let received = format!("Received: from unknown (unknown [{CLIENT}])");
            let has_address = |item: &Item| matches!(item, Item::Record(_, text) if text.starts_with(received.as_bytes()));
            assert!(cleanup.finish().iter().any(has_address), "{variant:?}");
        }
    }
}

#[test]
fn a_client_without_the_right_certificate_reaches_nothing() {
    if is_missing("a_client_without_the_right_certificate_reaches_nothing") {
        return;
    }
    for variant in BOTH {
        for (wanted, certificate) in [
            (Wanted::Chain, None),
            (Wanted::Chain, Some("stranger")),
            (Wanted::Chain, Some("expired")),
            (Wanted::Peer("good"), None),
            (Wanted::Peer("good"), Some("other")),
            (Wanted::Peer("good"), Some("stranger")),
            (Wanted::Peer("expired"), Some("expired")),
        ] {
            let tunnel = Tunnel::start(variant, wanted, certificate, CLIENT);
            let case = format!("{variant:?} {wanted:?} {certificate:?}");
            assert_eq!(tunnel.reply(REQUEST), "", "{case}");
            let refused = until(PATIENCE, || {
                let said = tunnel.said_by("server");
                said.contains("peer did not return a certificate")
                    || said.contains("certificate verify failed")
            });
            assert!(refused, "{case}: {}", tunnel.said_by("server"));
            let Tunnel {
                machine, children, ..
            } = tunnel;
            drop(children);
            // No process has come to serve this client.
            assert_eq!(machine.log.finish().len(), 0, "{case}");
        }
    }
}

#[test]
fn large_messages_and_early_replies_come_through() {
    if is_missing("large_messages_and_early_replies_come_through") {
        return;
    }
    let line = [&[b'x'; 999][..], b"\n"].concat();
    let large = request(&line.repeat(20_000), "s@x.example", &["r@y.example"]);
    for variant in BOTH {
        let tunnel = Tunnel::start(variant, Wanted::Chain, Some("good"), CLIENT);
        let cleanup = tunnel.machine.cleanup(&[]);
        assert_eq!(tunnel.reply(&large), ACCEPTED, "{variant:?}");
        cleanup.finish();
        let tunnel = Tunnel::start(variant, Wanted::Chain, Some("good"), "127.0.0.1");
        let text = format!("DError: unknown[{CLIENT}] is not authorized to use this service");
        let refusal = format!("{}:{text},", text.len());
        assert_eq!(tunnel.reply(&large), refusal, "{variant:?}");
    }
}

/// nullmailer has TLS of its own, with these settings.
#[test]
fn nullmailer_sends_over_tls() {
    let test = "nullmailer_sends_over_tls";
    let nullmailer = std::env::var_os("QMQPD_NULLMAILER").map(PathBuf::from);
    let Some(nullmailer) = nullmailer.filter(|path| path.exists()) else {
        return harness::skip(test, "nullmailer is not there");
    };
    if is_missing(test) {
        return;
    }
    let tunnel = Tunnel::start(Variant::Proxy, Wanted::Chain, None, "127.0.0.1");
    let cleanup = tunnel.machine.cleanup(&[]);
    let message = tunnel.machine.instance.dir.join("message");
    fs::write(&message, "s@x.example\nr@y.example\n\nSubject: t\n\nb\n").unwrap();
    let send = |certificate: &str| {
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" 3<\"$1\""])
            .args([&nullmailer, &message])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let dir = tunnel.certificates.display();
        let mut input = child.stdin.take().unwrap();
        write!(
            input,
            "host=localhost\nport={}\ntls\nx509certfile={dir}/{certificate}.pem\n\
             x509keyfile={dir}/{certificate}.key\nx509cafile={dir}/ca.pem\n\n",
            tunnel.public
        )
        .unwrap();
        drop(input);
        output_of(child)
    };
    let refused = send("stranger");
    assert!(!refused.status.success(), "{refused:?}");
    let sent = send("good");
    assert!(sent.status.success(), "{sent:?}");
    let received = b"Received: from unknown (unknown [127.0.0.1])";
    let has_address =
        |item: &Item| matches!(item, Item::Record(_, text) if text.starts_with(received));
    assert!(cleanup.finish().iter().any(has_address));
}
