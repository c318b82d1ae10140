//! The commands of the pages for administrators, run as they are printed, from the first to the last of a section.
//!
//! Each section has a machine of its own: a systemd in namespaces, whose network has a loopback interface, and in which
//! /etc, /usr, /root and /var can be changed and nothing of that stays. Postfix is installed there and not configured. The
//! source is in /run/keep/tree. cargo and apt-get are scripts: the program has been built, and packages cannot be fetched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::harness::launchers::{Launcher, PATIENCE, World, program, why_no_namespaces};
use super::harness::master::{self, until};
use super::{Block, ROOT, blocks, sections};

/// What is copied of the source.
const TREE: [&str; 7] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "inetd.conf.example",
    "scripts",
    "src",
];

/// Before systemd: directories of the machine get a layer of memory. Postfix is as after its installation.
const OWN_MACHINE: &str = "\
for dir in /etc /usr /root /var; do
    mkdir -p \"/run/over$dir/upper\" \"/run/over$dir/work\"
    mount -t overlay -o \"lowerdir=$dir,upperdir=/run/over$dir/upper,workdir=/run/over$dir/work\" overlay \"$dir\"
done
rm -rf /usr/sbin/policy-rc.d /usr/local/sbin/* /etc/postfix/*.cf /var/spool/postfix/* /var/lib/postfix/* /var/mail/*
mkdir -p /etc/postfix /var/spool/postfix /var/mail
cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf
cat >/etc/postfix/main.cf <<CF
compatibility_level = 3.6
myhostname = queue.example.org
mydestination = localhost
inet_interfaces = loopback-only
alias_maps =
maillog_file = /var/log/mail.log
CF
: >/var/log/mail.log
echo '127.0.0.1 localhost queue.example.org' >/etc/hosts
echo '::1 localhost' >>/etc/hosts
";

/// Takes the place of cargo: the program that is tested has been built.
const CARGO: &str = "#!/bin/sh
case $1 in
--version) echo 'cargo 1.85.0 (x 2025-01-01)' ;;
build) mkdir -p target/release && cp /run/keep/qmqpd target/release/qmqpd ;;
*) exit 1 ;;
esac
";

/// Takes the place of apt-get, which has nothing to install here.
const APT_GET: &str = "#!/bin/sh\n[ \"$1\" = install ]\n";

/// `send FROM TO SENDER RECIPIENT...`: one message, and the reply. TO is an address with a port, or the path of a socket.
const SEND: &str = r#"#!/usr/bin/perl -w
use IO::Socket::IP;
use IO::Socket::UNIX;
alarm 60;
my ($from, $to, @envelope) = @ARGV;
my $server = $to =~ m{^/} ? IO::Socket::UNIX->new(Peer => $to)
    : IO::Socket::IP->new(PeerAddr => $to, LocalHost => $from) or die "$to: $@ $!";
sub netstring { length($_[0]) . ":$_[0]," }
print $server netstring(join "", map netstring($_), "Subject: walk\n\nHello.\n", @envelope);
$server->flush;
print <$server>;
"#;

/// For the commands of this file: whether a reply is `K`, and patience.
const HELPERS: &str = "\
queued() { grep ':KOk: queued as '; }
not() { ! \"$@\"; }
await() { tries=0; until \"$@\"; do tries=$((tries + 1)); [ $tries -lt 200 ] || return 1; sleep 0.2; done; }
sent() { send \"$@\" s@client.example root@localhost | queued; }
refused() { send ::1 [::1]:628 s@client.example root@localhost | grep 'not authorized'; }
logged() { grep 'NOQUEUE: reject: CONNECT from localhost.::1.: ' /var/log/mail.log; }
by_ours() { refused && logged; }
by_postfix() { : >/var/log/mail.log; refused && sleep 0.5 && not logged; }
";

/// A section whose commands are run.
struct Walk {
    page: &'static str,
    heading: &'static str,
    /// Where blocks of main.cf go.
    main_cf: &'static str,
    /// Commands before its first block.
    before: &'static str,
    /// A command for each block, which succeeds when the block has done what the page says.
    after: &'static [&'static str],
}

const MAIN_CF: &str = "/etc/postfix/main.cf";

const QUICK_START: &str = "Quick start";

/// The program is installed, and not started.
const INSTALL: &str = "PREFIX=/usr QMQPD_BINARY=/run/keep/qmqpd scripts/install --systemd\n";

const WALKS: &[Walk] = &[
    Walk {
        page: "README.md",
        heading: QUICK_START,
        main_cf: MAIN_CF,
        before: "",
        after: &[
            "grep 'no errors' $said
            grep 'no recipients specified' $said
            await grep -q '^From root@localhost ' /var/mail/root
            await grep 'qmqpd.*: client=localhost.127.0.0.1.$' /var/log/mail.log",
        ],
    },
    Walk {
        page: "README.md",
        heading: "MailScanner and eFa",
        main_cf: MAIN_CF,
        before: "\
            dpkg-divert --local --rename --divert /usr/lib/postfix/sbin/qmqpd.postfix --add /usr/lib/postfix/sbin/qmqpd
            ln -s /usr/sbin/qmqpd /usr/lib/postfix/sbin/qmqpd\n",
        after: &[
            "postfix reload; await test -S /var/spool/postfix/public/qmqp",
            "postfix reload
            await sent - /var/spool/postfix/public/qmqp
            await grep 'connect from localhost.127.0.0.1.$' /var/log/mail.log
            [ \"$(postconf -h message_size_limit)\" = 133169152 ]",
        ],
    },
    Walk {
        page: "README.md",
        heading: "ezmlm",
        main_cf: MAIN_CF,
        before: "\
            ip addr add 192.0.2.25/32 dev lo
            postconf -e inet_interfaces=all
            chmod 755 /var/spool/postfix; systemctl start qmqpd-accept.socket\n",
        after: &[
            "send 192.0.2.25 192.0.2.25:628 list-return-17-@host.example-@[] root@localhost daemon@localhost | queued
            await grep 'size=.*nrcpt=2 (queued)' /var/log/mail.log
            await grep '^From list-return-17-root=localhost@host.example ' /var/mail/root
            await grep '^From list-return-17-daemon=localhost@host.example ' /var/mail/daemon
            not sent 127.0.0.1 127.0.0.1:628",
        ],
    },
    Walk {
        page: "README.md",
        heading: "nullmailer and mini-qmail",
        main_cf: MAIN_CF,
        before: "\
            mkdir -p /etc/nullmailer /var/qmail/control
            ip addr add 192.0.2.1/24 dev lo; ip addr add 2001:db8::1/64 dev lo nodad
            systemctl start qmqpd-accept.socket\n",
        after: &[
            "[ \"$(cat /var/qmail/control/qmqpservers)\" = 192.0.2.1 ]
            [ \"$(cat /etc/nullmailer/remotes)\" = 'queue.example.org qmqp' ]",
            "sent 192.0.2.1 192.0.2.1:628
            sent 2001:db8::1 [2001:db8::1]:628",
        ],
    },
    Walk {
        page: "README.md",
        heading: "From Postfix's qmqpd and back",
        main_cf: MAIN_CF,
        before: "\
            postconf -e 'qmqpd_authorized_clients = 127.0.0.1'
            postconf -M 'qmqp/inet=628 inet n - n - - qmqpd'
            postfix reload
            await by_postfix\n",
        after: &[
            "await by_ours
            postfix check
            sent 127.0.0.1 127.0.0.1:628",
            "not cmp /usr/lib/postfix/sbin/qmqpd /usr/sbin/qmqpd
            await by_postfix
            sent 127.0.0.1 127.0.0.1:628",
        ],
    },
    Walk {
        page: "README.md",
        heading: "From qmail-qmqpd",
        main_cf: "/etc/qmqpd/main.cf",
        before: "\
            mkdir -p /etc/qmqpd /var/qmail/bin
            useradd --system qmaild
            printf '#!/bin/sh\\ncat >/tmp/message && cat <&1 >/tmp/envelope\\n' >/var/qmail/bin/qmail-queue
            chmod 755 /var/qmail/bin/qmail-queue\n",
        after: &[
            "run=/usr/share/doc/qmqpd/examples/tcpserver
            cp $run/tcp.qmqp /etc/qmqpd
            tcprules /etc/qmqpd/tcp.qmqp.cdb /etc/qmqpd/tcp.qmqp.tmp </etc/qmqpd/tcp.qmqp
            tcpserver -R -H -l 0 -x /etc/qmqpd/tcp.qmqp.cdb 0 628 env MAIL_CONFIG=/etc/qmqpd /usr/sbin/qmqpd &
            by_qmail() { send 127.0.0.1 127.0.0.1:628 s@client.example r@rcpt.example | grep ':KOk: queued as qp '; }
            await by_qmail
            kill $!
            [ \"$(tr '\\0' ' ' </tmp/envelope)\" = 'Fs@client.example Tr@rcpt.example  ' ]
            ls -l /tmp/envelope | grep qmaild",
        ],
    },
    Walk {
        page: "README.md",
        heading: "Without Postfix",
        main_cf: "/etc/qmqpd/main.cf",
        before: "\
            postfix stop
            rm -rf /etc/postfix /var/spool/postfix\n",
        after: &[
            "scripts/probe 127.0.0.1",
            "grep 'no errors' $said; queued <$said; grep '^Subject: test$' $said; grep 'b@example.org' $said",
        ],
    },
    Walk {
        page: "scripts/stunnel/README.md",
        heading: "TLS with client certificates",
        main_cf: MAIN_CF,
        before: "\
            postconf -e 'qmqpd_authorized_clients = 127.0.0.1'
            mkdir -p /etc/stunnel\n",
        after: &[
            // The second host is this one.
            "systemctl is-active stunnel@qmqpd; systemctl is-enabled stunnel@qmqpd
            cp /usr/share/doc/qmqpd/examples/stunnel/client.conf /etc/stunnel/qmqpc.conf",
            "await scripts/probe 127.0.0.1
            await sent 127.0.0.1 127.0.0.1:628",
        ],
    },
    Walk {
        page: "scripts/container/README.md",
        heading: "Without Postfix",
        main_cf: MAIN_CF,
        before: "\
            postfix stop
            rm -rf /etc/postfix/* /var/spool/postfix
            install -d -o 12345 -m 700 /var/spool/qmqpd/incoming; chmod 755 /var/spool/qmqpd\n",
        after: &[
            "ip addr add 10.88.0.1/16 dev lo
            setpriv --reuid=12345 --regid=12345 --clear-groups \\
                tcpserver -R -H -l 0 0 2628 /usr/sbin/qmqpd 2>/tmp/log &
            await sent 10.88.0.1 10.88.0.1:2628
            kill $!
            await grep 'qmqpd.*: connect from ' /tmp/log
            find /var/spool/qmqpd/incoming -type f -uid 12345 -perm 0700 | grep .",
        ],
    },
];

/// A machine at the beginning of a section.
struct Machine(World);

impl Machine {
    fn boot() -> Machine {
        let world = World::start_after(OWN_MACHINE, &Launcher::LoneSystemd, &[]);
        let keep = world.master.dir.join("world");
        fs::create_dir_all(keep.join("tree")).unwrap();
        fs::create_dir_all(keep.join("bin")).unwrap();
        for name in TREE {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(Path::new(ROOT).join(name));
            assert!(copy.arg(keep.join("tree")).status().unwrap().success());
        }
        fs::copy(env!("CARGO_BIN_EXE_qmqpd"), keep.join("qmqpd")).unwrap();
        for (name, text) in [("cargo", CARGO), ("apt-get", APT_GET), ("send", SEND)] {
            let path = keep.join("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let up = || world.run(&["systemctl", "is-active", "only.target"]).0;
        assert!(until(PATIENCE, up), "{}", world.console());
        Machine(world)
    }

    /// Runs commands in the directory of the source. What they say is for the next ones in `$said`.
    fn run(&self, commands: &str, what: &str) {
        let keep = self.0.master.dir.join("world");
        fs::write(keep.join("commands"), commands).unwrap();
        let shell = "cd /run/keep/tree && exec env -i PATH=/run/keep/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
            said=/run/keep/said.before sh -e /run/keep/commands >/run/keep/said 2>&1 </dev/null";
        let (succeeded, _) = self.0.run(&["sh", "-c", shell]);
        let said = fs::read_to_string(keep.join("said")).unwrap_or_default();
        assert!(
            succeeded,
            "{what}:\n{commands}\n{said}\n{}",
            self.mail_log()
        );
        fs::rename(keep.join("said"), keep.join("said.before")).unwrap();
    }

    fn mail_log(&self) -> String {
        self.0.run(&["cat", "/var/log/mail.log"]).1 + &self.0.console()
    }
}

/// The blocks of a section that are for a machine.
fn runnable(page: &str, heading: &str) -> Vec<Block> {
    let text = super::shipped(page);
    let (_, section) = sections(&text)
        .into_iter()
        .find(|(found, _)| *found == heading)
        .unwrap_or_else(|| panic!("{page} has no section {heading}"));
    let blocks = blocks(&section).into_iter();
    // nullmailer's remotes is another host's; tests/launch/tls.rs has its settings.
    let is_run = |block: &Block| block.reason.is_none() && block.language != "remotes";
    blocks.filter(is_run).collect()
}

fn can_walk(test: &str) -> bool {
    if master::is_missing(test) {
        return false;
    }
    if let Some(reason) = why_no_namespaces() {
        super::harness::skip(test, reason);
        return false;
    }
    for name in ["systemd", "tcpserver", "stunnel4", "openssl", "perl"] {
        if program(name).is_none() {
            super::harness::skip(test, &format!("{name} is not installed"));
            return false;
        }
    }
    true
}

/// Runs the blocks of a section, and looks after each whether it has done what the page says.
fn is_walked(test: &str, page: &str, heading: &str) {
    if !can_walk(test) {
        return;
    }
    let is_meant = |walk: &&Walk| walk.page == page && walk.heading == heading;
    let walk = WALKS.iter().find(is_meant).unwrap();
    let (machine, what) = (Machine::boot(), format!("{page}, {heading}"));
    let install = if heading == QUICK_START { "" } else { INSTALL };
    machine.run(
        &format!("{HELPERS}postfix start\n{install}{}", walk.before),
        &what,
    );
    let blocks = runnable(page, heading);
    assert_eq!(blocks.len(), walk.after.len(), "{what}: blocks");
    for (block, after) in blocks.iter().zip(walk.after) {
        let append = |file| format!("cat >>{file} <<'BLOCK'\n{}BLOCK\n", block.text);
        let commands = match block.language.as_str() {
            "sh" => block.text.clone(),
            "" => append(walk.main_cf),
            "master.cf" => append("/etc/postfix/master.cf"),
            other => panic!("{what}: no test runs a block of {other}"),
        };
        machine.run(&commands, &what);
        machine.run(&format!("{HELPERS}{after}\n"), &what);
    }
}

macro_rules! walks {
    ($($name:ident: $page:literal, $heading:expr;)*) => {
        $(#[test]
        fn $name() {
            is_walked(stringify!($name), $page, $heading);
        })*

        /// The sections that these tests walk through.
        const WALKED: &[(&str, &str)] = &[$(($page, $heading)),*];
    };
}

walks! {
    the_quick_start_queues_a_message: "README.md", QUICK_START;
    mailscanner_sends_by_its_socket: "README.md", "MailScanner and eFa";
    a_list_host_sends_with_verp: "README.md", "ezmlm";
    nullmailer_and_mini_qmail_have_a_server: "README.md", "nullmailer and mini-qmail";
    postfix_qmqpd_is_replaced_and_comes_back: "README.md", "From Postfix's qmqpd and back";
    qmail_qmqpd_is_replaced: "README.md", "From qmail-qmqpd";
    a_machine_without_postfix_queues_a_message: "README.md", "Without Postfix";
    certificates_let_a_client_send: "scripts/stunnel/README.md", "TLS with client certificates";
    a_container_needs_no_postfix: "scripts/container/README.md", "Without Postfix";
}

#[test]
fn every_section_with_commands_is_walked() {
    let mut wrong = Vec::new();
    for page in super::administrators() {
        let text = super::shipped(&page);
        for (heading, section) in sections(&text) {
            let is_run = |block: &Block| block.reason.is_none();
            let walked = WALKED.contains(&(page.as_str(), heading));
            if blocks(&section).iter().any(is_run) && !walked {
                wrong.push(format!(
                    "{page}, {heading}: a block is neither run nor has it a reason"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(WALKS.len(), WALKED.len());
}
