//! Queue files that we write, held against those of Postfix's cleanup, and against its queue manager.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, wherever it is written"
)]

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use harness::dialogue::at_once;
use harness::instance::Instance;
use harness::master::{self, Master, free_port, handed_over, queue_id, until};
use harness::patience::PATIENCE;
use harness::queue_file::{files, records, send, start, take};
use harness::requests::Numbers;
use harness::sinks::full_listener;
use harness::trace::{self, Call};
use harness::versions::installed;

const FILE: &str = "qmqpd_queue_method = file";

/// The same setting for our program and for cleanup, which gets it from a service of its own.
const VARIANTS: [&str; 24] = [
    "mail_name=Postfix",
    "mail_name=Postfix",
    "mail_name=Postfix",
    "header_size_limit=70",
    "header_size_limit=300",
    "hopcount_limit=4",
    "enable_original_recipient=no",
    "duplicate_filter_limit=2",
    "duplicate_filter_limit=0",
    "undisclosed_recipients_header=To: undisclosed-recipients:;",
    "undisclosed_recipients_header=garbage",
    "delay_warning_time=1h",
    "enable_long_queue_ids=yes",
    "message_drop_headers=subject, x-y  foo bcc return-path",
    "message_drop_headers=received message-id tls-required",
    "smtputf8_enable=no",
    "cleanup_replace_stray_cr_lf=no",
    "hash_queue_names=incoming",
    r"message_strip_characters=fo\0\r\351\j",
    "message_strip_characters=R",
    r"message_reject_characters=\0\rK",
    "append_at_myorigin=no",
    "detect_8bit_encoding_header=no",
    "tls_required_enable=no",
];

/// How many messages are made up, and where the generator starts (`QMQPD_SEED`).
const CASES: usize = 400;
const SEED: u64 = 20_261_122;

/// A cleanup for each of [`VARIANTS`], named `cleanupN`, and a trivial-rewrite where the option is one of its own.
fn variants() -> String {
    let service = |(number, option): (usize, &&str)| {
        let rewrite = match option.split_once('=') {
            Some(("append_at_myorigin", _)) => format!("rewrite{number}"),
            _ => "rewrite".to_owned(),
        };
        format!(
            "cleanup{number} unix n - n - 0 cleanup -o rewrite_service_name={rewrite} -o {{ {option} }}\n\
             rewrite{number} unix - - n - - trivial-rewrite -o {{ {option} }}\n"
        )
    };
    VARIANTS.iter().enumerate().map(service).collect()
}

/// Those with addresses have another behind them: a folded line would have cleanup rewrite it.
const HEADERS: [&[u8]; 40] = [
    b"Message-Id: <x y\xc3\xa9\xff\x01@b> z\n",
    b"Message-Id: none\n",
    b"Message-Id:\n <f@\n g>\n",
    b"Message-Id:\x0b<no end\n",
    b"TLS-Required: no\n",
    b"tls-required :\n NO\n",
    b"TLS-Required: no \n",
    b"Y: x\n",
    b"Subject: t\n",
    b"Subject \t : t\n",
    b"X-Y: a@b.c\n",
    b"To: x@y.example, \"A B\" <c@d.e>\nK: v\n",
    b"Cc: q@z.example\nK: v\n",
    b"Bcc: a@b.c\n",
    b"From: a@b.c\nFoo: x\n",
    b"Message-Id: <a@b>\n",
    b"message-id:<c@d> \n",
    b"Date: x\n",
    b" (folded)\n",
    b"\t(folded)\n",
    b"Received: from x\n",
    b"received : from x\n",
    b"Resent-Date: x\n",
    b"Resent-From: x@y.example\nK: v\n",
    b"Resent-To: x@y.example\nK: v\n",
    b"Resent-Message-Id: <f>\n",
    b"Content-Length: 3\n",
    b"Return-Path: <>\n",
    b"Content-Transfer-Encoding: 8bit\n",
    b"MIME-Version: 1.0\nContent-Type: text/plain\n",
    b"A\0: b\n",
    b"A: b\0c\n",
    b"A: \xc3\xa9\n",
    b"A: \xff\n",
    b"From x\n",
    b"bad line\n",
    b" \n",
    b"A: b\r\n",
    b"a: b\rc\n",
    b"-\n",
];

const BODY: [&[u8]; 12] = [
    b"body\n",
    b"\n",
    b"A : b\n",
    b"x\0y\n",
    b"\r\n",
    b"\xc3\xa9\n",
    b"\r",
    b".\n",
    b"From z\n",
    b"end",
    b".  sp\n",
    b"\n\n",
];

const RECIPIENTS: [&[u8]; 12] = [
    b"r@y.example",
    b"R@Y.example",
    b"a@b.c",
    b"caf\xc3\xa9@c.d",
    b"\xff@c.d",
    b"a b@c.d",
    b"\"q r\"@c.d",
    b"root",
    b"",
    b"root@mail.spec.example",
    b"MAILER-DAEMON",
    b"a+b@c.d",
];

const SENDERS: [&[u8]; 10] = [
    b"s@x.example",
    b"s@x.example",
    b"",
    b"foo",
    b"caf\xc3\xa9@c.d",
    b"\xff@x.y",
    b"a b@c.d",
    b"list-@x.example-@[]",
    b"MAILER-DAEMON",
    b"MAILER-DAEMON-@mail.spec.example-@[]",
];

struct Case {
    request: Vec<u8>,
    variant: usize,
    autodetect: bool,
}

fn make_case(numbers: &mut Numbers) -> Case {
    let variant = numbers.below(VARIANTS.len());
    let mut message = Vec::new();
    for _ in 0..numbers.below(8) {
        message.extend_from_slice(HEADERS[numbers.below(HEADERS.len())]);
    }
    if numbers.below(8) == 0 {
        let length = 2040 + numbers.below(12) + 2048 * numbers.below(2);
        message.extend_from_slice(b"X: ");
        message.resize(message.len() + length, b'x');
        message.push(b'\n');
    }
    if VARIANTS[variant].starts_with("detect_8bit") {
        message.extend_from_slice(b"Content-Transfer-Encoding: 8bit\n");
    }
    if VARIANTS[variant].starts_with("header_size_limit") {
        message.extend_from_slice(&folded_header(numbers));
    }
    if numbers.below(5) > 0 {
        message.push(b'\n');
    }
    for _ in 0..numbers.below(6) {
        message.extend_from_slice(BODY[numbers.below(BODY.len())]);
    }
    if numbers.below(8) == 0 {
        message.resize(message.len() + 2047 + numbers.below(3), b'y');
    }
    let recipients = [0, 1, 1, 1, 2, 3, 7][numbers.below(7)];
    let mut parts = netstring(&message);
    parts.extend(netstring(SENDERS[numbers.below(SENDERS.len())]));
    for _ in 0..recipients {
        parts.extend(netstring(RECIPIENTS[numbers.below(RECIPIENTS.len())]));
    }
    Case {
        request: netstring(&parts),
        variant,
        autodetect: numbers.below(3) == 0,
    }
}

/// A header with a line end near the limit of 300 bytes, or near nine tenths of it, and more lines after that.
fn folded_header(numbers: &mut Numbers) -> Vec<u8> {
    let mut header = b"Y:".to_vec();
    let end = [265, 295][numbers.below(2)] + numbers.below(10);
    let begin = header.len() + 2 + numbers.below(200);
    let ends = [begin, end, end + 2 + numbers.below(50), end + 60];
    for end in ends {
        header.push(b' ');
        header.resize(end, b'z');
        header.push(b'\n');
    }
    header
}

fn netstring(bytes: &[u8]) -> Vec<u8> {
    [bytes.len().to_string().as_bytes(), b":", bytes, b","].concat()
}

/// The version from which on a queue file has what names the message and says how it takes TLS, and from which on a
/// From: header that is added counts as one of those that are not ASCII.
const SENDOPTS: (u32, u32) = (3, 10);

/// What a file of an older version than [`SENDOPTS`] lacks.
fn is_newer(kind: char, data: &[u8]) -> bool {
    kind == 'A' && data.starts_with(b"message_id=") && installed() < SENDOPTS
}

/// Records without what differs between two messages: id, times, and what depends on how many digits a time has.
fn comparable(file: &[u8], id: &str) -> Vec<(char, String)> {
    let mut shift = 0;
    let record = |(kind, data): (char, Vec<u8>)| {
        let text = data.escape_ascii().to_string().replace(id, "QID");
        let text = match kind {
            'T' => {
                shift = data.len();
                String::new()
            }
            'A' if text.starts_with("create_time=") => String::new(),
            'W' => data.len().to_string(),
            'A' | 'N' => without_times(&text),
            _ => text,
        };
        (kind, text)
    };
    let known = |(kind, data): &(char, Vec<u8>)| !is_newer(*kind, data);
    let records = records(file).into_iter().filter(known);
    let mut records: Vec<(char, String)> = records.map(record).collect();
    let mut numbers: Vec<usize> = records[0]
        .1
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    numbers[1] -= shift;
    if installed() < SENDOPTS {
        let is_utf8 = |(_, text): &(char, String)| text.contains("From: ") && text.contains("\\x");
        let of_from = if records.iter().any(is_utf8) { 3 } else { 0 };
        numbers[5] = numbers[5] & 15 | of_from;
    }
    records[0].1 = format!("{numbers:?}");
    records
}

fn without_times(line: &str) -> String {
    for name in ["Message-Id: <", "message_id=<"] {
        if let Some((start, rest)) = line.split_once(&format!("{name}20")) {
            let end = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            return format!("{start}{name}TIME{end}");
        }
    }
    let zone = "+0000 (UTC)";
    if !line.ends_with(zone) {
        return line.to_owned();
    }
    // `Sun, 22 Nov 2026 13:50:19 `
    let start = line.len() - zone.len() - 26;
    format!("{}DATE", &line[..start])
}

#[test]
fn our_queue_files_are_those_of_cleanup() {
    if master::is_missing("our_queue_files_are_those_of_cleanup") {
        return;
    }
    let postfix = Master::start("", &variants());
    let seed = std::env::var("QMQPD_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut numbers = Numbers::new(seed);
    let cases: Vec<Case> = (0..CASES).map(|_| make_case(&mut numbers)).collect();
    let failures = Mutex::new(Vec::new());
    at_once(CASES, |index| {
        if let Err(difference) = compare(&postfix, &cases[index], index) {
            let case = &cases[index];
            let request = case.request.escape_ascii();
            let report = format!("{}\n{request}\n{difference}", VARIANTS[case.variant]);
            failures.lock().unwrap().push(report);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of {CASES} messages, seed {seed}:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn compare(postfix: &Master, case: &Case, index: usize) -> Result<(), String> {
    let service = format!("cleanup_service_name=cleanup{}", case.variant);
    let autodetect = if case.autodetect {
        "smtputf8_autodetect_classes=all"
    } else {
        "mail_version=3.7.11"
    };
    let theirs = send(postfix, &[], &[&service, autodetect], &case.request);
    let variant = VARIANTS[case.variant];
    let ours = send(postfix, &[], &[FILE, variant, autodetect], &case.request);
    if !theirs.contains("queued as") || !ours.contains("queued as") {
        return if ours == theirs {
            Ok(())
        } else {
            Err(format!("{theirs}\n{ours}"))
        };
    }
    // postcat looks into the flat queue of the configuration alone.
    if index % 10 == 0 && !variant.starts_with("hash") {
        let [theirs, ours] =
            [&theirs, &ours].map(|reply| verbose_postcat(postfix, queue_id(reply)));
        if theirs != ours {
            return Err(format!("postcat -v:\n{theirs}\n{ours}"));
        }
    }
    let [theirs, ours] = [&theirs, &ours].map(|reply| {
        let id = queue_id(reply);
        comparable(&take(postfix, id), id)
    });
    if theirs == ours {
        return Ok(());
    }
    let pairs = theirs.iter().zip(&ours).filter(|(one, other)| one != other);
    let pairs: Vec<String> = pairs
        .map(|(one, other)| format!("{one:?}\n{other:?}"))
        .collect();
    Err(format!(
        "{} and {} records\n{}",
        theirs.len(),
        ours.len(),
        pairs.join("\n")
    ))
}

/// What `postcat -v` names each record, in order: the offsets differ with the times.
fn verbose_postcat(postfix: &Master, id: &str) -> String {
    let output = Command::new("postcat")
        .arg("-v")
        .arg("-c")
        .arg(postfix.dir.join("conf"))
        .arg(postfix.dir.join("queue/incoming").join(id))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout);
    let newer = |line: &str| line.contains(": message_id=") && installed() < SENDOPTS;
    let names = shown
        .lines()
        .filter(|line| !line.starts_with("***") && !newer(line));
    let names: Vec<&str> = names
        .filter_map(|line| line.split_once(": ").map(|(name, _)| name))
        .collect();
    assert!(names.len() > 20, "{shown}");
    names.join(" ")
}

/// Settings, the beginning of content that they concern, and what both log of it.
const COMPLAINTS: [(&str, &[u8], &str); 5] = [
    (
        "message_reject_characters=q",
        b"A: b\n a\xc3\xa9\x01\xff\0q\n\nq\n",
        "QID: reject: content  a\u{e9}?? from localhost[127.0.0.1]; from=<\"a b\"@c.d> to=<root@mail.spec.example> \
         proto=QMQP: 5.7.1 disallowed character",
    ),
    (
        r"message_reject_characters=\161",
        b"\nxq",
        "QID: reject: content xqzzz",
    ),
    (
        "message_strip_characters=R",
        b"S: t\n",
        "warning: QID: message rejected: no Received: header",
    ),
    (
        "undisclosed_recipients_header=a b: c",
        b"S: t\n",
        "warning: bad undisclosed_recipients_header header text \"a b: c\" -- need \"headername: headervalue\"",
    ),
    (
        "tls_required_enable=yes",
        b"TLS-Required: \n yes\xff\n",
        "warning: ignoring malformed header: 'TLS-Required: ? yes?",
    ),
];

#[test]
fn complaints_about_content_are_those_of_cleanup() {
    if master::is_missing("complaints_about_content_are_those_of_cleanup") {
        return;
    }
    let service = |(number, (option, ..)): (usize, &(&str, &[u8], &str))| {
        format!("cleanup{number} unix n - n - 0 cleanup -o {{ {option} }}\n")
    };
    let services: String = COMPLAINTS.iter().enumerate().map(service).collect();
    let postfix = Master::start("", &services);
    for (number, (option, content, complaint)) in COMPLAINTS.iter().enumerate() {
        let content = [content, "z".repeat(300).as_bytes(), b"\n"].concat();
        let request = master::request(&content, "a b@c.d", &["r@y.example", "root"]);
        let cleanup = format!("cleanup_service_name=cleanup{number}");
        let logged = |options: &[&str], program: &str| {
            let begin = postfix.log().len();
            let reply = send(&postfix, &[], options, &request);
            let said = |line: &str| complaint_in(line, program);
            assert!(until(Duration::from_secs(60), || {
                postfix.log()[begin..]
                    .lines()
                    .any(|line| said(line).is_some())
            }));
            let log = postfix.log();
            let lines: Vec<String> = log[begin..].lines().filter_map(said).collect();
            let reply = reply.split("queued as").next().unwrap().to_owned();
            (reply, lines)
        };
        let ours = logged(&[FILE, option], "qmqpd");
        assert!(ours.1[0].starts_with(complaint), "{ours:?}");
        if option.starts_with("tls") && installed() < SENDOPTS {
            continue;
        }
        assert_eq!(logged(&[&cleanup], "cleanup"), ours, "{option}");
    }
}

/// What the program has to say about the message, its id apart.
fn complaint_in(line: &str, program: &str) -> Option<String> {
    let (_, text) = line.split_once(&format!("postfix/{program}["))?;
    let (_, text) = text.split_once("]: ")?;
    let known = ["reject: ", "rejected: ", "bad ", "malformed"];
    let words = text.replace("warning: ", "");
    known.iter().any(|word| words.contains(word)).then(|| {
        let id = words.split(':').next().unwrap_or_default();
        let is_id = id.len() > 5 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id {
            text.replace(id, "QID")
        } else {
            text.to_owned()
        }
    })
}

#[test]
fn a_queue_file_is_shown_as_postcat_shows_it() {
    if master::is_missing("a_queue_file_is_shown_as_postcat_shows_it") {
        return;
    }
    let milters = "milters unix n - n - 0 cleanup -o non_smtpd_milters=inet:127.0.0.1:1 \
                   -o milter_default_action=accept -o delay_warning_time=1h\n";
    let master = Master::start("content_filter = x:y\n", milters);
    let content = format!("S: x\nL: {}\n\n\x1bb\nno end", "l".repeat(3000));
    let request = master::request(
        content.as_bytes(),
        "list-@x.example-@[]",
        &["r@y.example", ""],
    );
    // With milters a file of Postfix's has pointers and padding.
    for option in ["cleanup_service_name=milters", "mail_version=3.7.11", FILE] {
        let reply = send(&master, &[], &[option], &request);
        let path = master.dir.join("queue/incoming").join(queue_id(&reply));
        let shown = |program: &str, options: &[&str]| {
            let mut command = Command::new(program);
            let output = command.args(options).arg(&path).env("TZ", "UTC0").output();
            output.unwrap()
        };
        let conf = master.dir.join("conf");
        let theirs = shown("postcat", &["-c", conf.to_str().unwrap()]);
        let ours = shown(env!("CARGO_BIN_EXE_qmqpd"), &["--cat"]);
        assert!(ours.status.success(), "{ours:?}");
        assert_eq!(
            String::from_utf8_lossy(&ours.stdout),
            String::from_utf8_lossy(&theirs.stdout),
            "{option}"
        );
        let file = fs::read(&path).unwrap();
        fs::write(&path, &file[..file.len() - 2]).unwrap();
        let cut = shown(env!("CARGO_BIN_EXE_qmqpd"), &["--cat"]);
        assert!(!cut.status.success());
        assert!(String::from_utf8_lossy(&cut.stderr).contains("unexpected end of file"));
    }
}

/// Records of a file that may be damaged, without lengths. The first of them are there more often than the others.
const PIECES: [&[u8]; 44] = [
    b"M",
    b"X",
    b"M",
    b"X",
    b"Lpart",
    b"Lpart",
    b"Nline",
    b"Aa=b",
    b"C1 2",
    b"E",
    b"N",
    b"L",
    b"Na\0b",
    b"La\0b",
    b"w  0",
    b"p0",
    b"p  ",
    b"p00",
    b"px",
    b"p0 ",
    b"p-1",
    b"Ss@x\0y",
    b"T5 6",
    b"T-5",
    b"T",
    b"Tx",
    b"W  5",
    b"cx",
    b"Zz\0z",
    b"\x01q",
    b"\xe9",
    b"Rr@y.example",
    b"Or",
    b"A",
    b"Aa",
    b"A=b",
    b"A a = b ",
    b"Aa b=c",
    b"A\ta\x01\xff",
    b"Aa=b\0c",
    b"Acreate_time=5 x",
    b"Acreate_time =",
    b"C0 1",
    b"C1x 2",
];

const DAMAGED: usize = 50;

#[test]
fn damaged_queue_files_are_shown_as_postcat_shows_them() {
    if master::is_missing("damaged_queue_files_are_shown_as_postcat_shows_them") {
        return;
    }
    let instance = Instance::new(&[]);
    let path = instance.dir.join("damaged");
    let shown = |program: &str, options: &[&str], name: &str| {
        let mut command = Command::new(program);
        let command = command.args(options).arg(&path).env("TZ", "UTC0");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).replace(name, "PROGRAM: ");
        // What ends it is said in other words.
        let warnings = said.lines().filter(|line| line.contains(": warning: "));
        let warnings: Vec<String> = warnings.map(str::to_owned).collect();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text, warnings)
    };
    let conf = instance.config_directory().display().to_string();
    let mut numbers = Numbers::new(SEED);
    let (mut warned, mut whole) = (0, 0);
    for _ in 0..DAMAGED {
        // Postfix 3.5 shows no file with such a size.
        let choice = if installed() < (3, 7) {
            PIECES.len() - 2
        } else {
            PIECES.len()
        };
        let mut file = b"C\x035 5".to_vec();
        for _ in 0..numbers.below(12) {
            let set = if numbers.below(2) == 0 { 10 } else { choice };
            let (kind, data) = PIECES[numbers.below(set)].split_at(1);
            file.extend_from_slice(kind);
            file.push(u8::try_from(data.len()).unwrap());
            file.extend_from_slice(data);
        }
        file.extend_from_slice(b"E\0");
        fs::write(&path, &file).unwrap();
        let theirs = shown("postcat", &["-c", &conf], "postcat: ");
        let ours = shown(env!("CARGO_BIN_EXE_qmqpd"), &["--cat"], "qmqpd: ");
        assert_eq!(ours, theirs, "{}", file.escape_ascii());
        warned += usize::from(!ours.2.is_empty());
        whole += usize::from(ours.0 == Some(0));
    }
    assert!(
        warned > DAMAGED / 3 && whole > DAMAGED / 3,
        "{warned} {whole}"
    );
}

/// The queue manager, who delivers everything to nowhere. It is woken by us, or else after `wakeup` seconds.
fn with_queue_manager(main_cf: &str, wakeup: u32) -> Master {
    with_queue_manager_and(main_cf, wakeup, "")
}

/// The same, with more services.
fn with_queue_manager_and(main_cf: &str, wakeup: u32, services: &str) -> Master {
    let main_cf = format!(
        "default_transport = discard\nlocal_transport = discard\nrelay_transport = discard\n\
         virtual_transport = discard\nmaximal_queue_lifetime = 1d\n{FILE}\n{main_cf}"
    );
    let master_cf = format!(
        "qmgr unix n - n {wakeup} 1 qmgr\ndiscard unix - - n - - discard\n\
         bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\n\
         error unix - - n - - error\nretry unix - - n - - error\n{services}"
    );
    let master = Master::start(&main_cf, &master_cf);
    let qmgr = master.dir.join("queue/public/qmgr");
    assert!(until(Duration::from_secs(10), || qmgr.exists()));
    master
}

const BAD_WORDS: [&str; 6] = [
    "corrupt",
    "rejected",
    "mismatch",
    "weird",
    "invalid size",
    "ignoring bad",
];

fn assert_no_complaint(master: &Master) {
    let log = master.log();
    for word in BAD_WORDS {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

#[test]
fn the_queue_manager_delivers_what_we_write_at_once() {
    if master::is_missing("the_queue_manager_delivers_what_we_write_at_once") {
        return;
    }
    let master = with_queue_manager("", 300);
    let senders = [
        "s@x.example",
        "",
        "list-@x.example-@[]",
        "foo",
        "a b@x.example",
    ];
    for sender in senders {
        for options in [
            &["mail_name=Postfix"][..],
            &["enable_long_queue_ids=yes"],
            &["hash_queue_names=deferred"],
        ] {
            let content = b"Subject: t\nTLS-Required: no\n\nbody\n.\nFrom x\nno end";
            let request = master::request(content, sender, &["r@y.example", "root", ""]);
            let reply = send(&master, &[], options, &request);
            let removed = format!("{}: removed", queue_id(&reply));
            let begin = Instant::now();
            master.wait_for_log(&removed);
            assert!(begin.elapsed() < Duration::from_secs(5), "{options:?}");
        }
    }
    let log = master.log();
    assert_eq!(log.matches("nrcpt=3 (queued)").count(), 15, "{log}");
    assert_eq!(log.matches("nrcpt=3 (queue active)").count(), 15, "{log}");
    assert!(
        log.contains("list-root=mail.spec.example@x.example") || log.contains("list@x.example")
    );
    assert_no_complaint(&master);
}

/// The system calls of a whole session, in order.
fn traced(master: &Master, options: &[&str], request: &[u8]) -> Vec<Call> {
    let to = master.dir.join("trace.out");
    let tracer = ["strace", "-y", "-o", to.to_str().unwrap()];
    let reply = send(master, &tracer, options, request);
    assert!(reply.contains("queued as"), "{reply}");
    trace::read(&to)
}

fn strace_is_missing(test: &str) -> bool {
    let missing = !Path::new("/usr/bin/strace").exists();
    if missing {
        harness::skip(test, "strace is not installed");
    }
    missing || master::is_missing(test)
}

#[test]
fn the_client_hears_of_it_when_the_disk_has_it_and_the_queue_manager_after_that() {
    let test = "the_client_hears_of_it_when_the_disk_has_it_and_the_queue_manager_after_that";
    if strace_is_missing(test) {
        return;
    }
    let master = with_queue_manager("", 300);
    let request = master::request(b"x\n", "s@x.example", &["r@y.example"]);
    let calls = traced(&master, &[], &request);
    let place = |name: &str, part: &str| {
        let is_it = |call: &Call| call.name == name && call.line.contains(part);
        let found = calls.iter().position(is_it);
        found.unwrap_or_else(|| panic!("no {name} {part}"))
    };
    let steps = [
        place("pwrite64", "/incoming/"),
        place("fchmod", ", 0700"),
        place("fsync", "/incoming/"),
        place("fsync", "/incoming>"),
        place("write", ":KOk"),
        place("connect", "public/qmgr"),
        place("write", "\"W\""),
    ];
    assert!(steps.is_sorted(), "{steps:?}");
}

/// Postfix's own queue manager, whose scan comes after 300 s.
#[test]
fn under_master_the_queue_manager_is_woken_as_soon_as_the_process_of_a_client_has_ended() {
    let test =
        "under_master_the_queue_manager_is_woken_as_soon_as_the_process_of_a_client_has_ended";
    if master::is_missing(test) {
        return;
    }
    let port = free_port();
    let services = format!(
        "127.0.0.1:{port} inet n - n - 1 qmqpd\nclients unix n - n - 1 qmqpd\n\
         handed pass n - n - 1 qmqpd\nrooted unix n - y - 1 qmqpd\n"
    );
    let master = with_queue_manager_and("", 300, &services);
    let request = master::request(b"x\n", "s@x.example", &["r@y.example"]);
    let removed = |reply: std::io::Result<String>| {
        let begin = Instant::now();
        let line = format!("{}: removed", queue_id(&reply.unwrap()));
        master.wait_for_log(&line);
        assert!(begin.elapsed() < Duration::from_secs(10), "{line}");
    };
    let unix = |name: &str| UnixStream::connect(master.socket(name)).unwrap();
    // The second client of each service has the same resident process.
    for _ in 0..2 {
        let inet = TcpStream::connect(("127.0.0.1", port)).unwrap();
        removed(master::send(inet, &request));
        removed(master::send(unix("clients"), &request));
        removed(master::send(unix("rooted"), &request));
        let handed = handed_over(&master.socket("handed"));
        removed(master::send(handed, &request));
    }
    assert_eq!(files(&master), []);
    let ours = master.trouble().into_iter();
    let ours: Vec<String> = ours.filter(|line| line.contains("/qmqpd[")).collect();
    assert_eq!(ours, Vec::<String>::new());
}

/// The resident process is free for the next client even if the queue manager takes no connection, or does not run.
#[test]
fn under_master_a_queue_manager_that_takes_no_connection_holds_nobody_up() {
    let test = "under_master_a_queue_manager_that_takes_no_connection_holds_nobody_up";
    if master::is_missing(test) {
        return;
    }
    let master = Master::start(FILE, "clients unix n - n - 1 qmqpd\n");
    let request = master::request(b"x\n", "s@x.example", &["r@y.example"]);
    let send_three = || {
        for _ in 0..3 {
            let begin = Instant::now();
            let client = UnixStream::connect(master.socket("clients")).unwrap();
            queue_id(&master::send(client, &request).unwrap());
            assert!(begin.elapsed() < Duration::from_secs(2));
        }
    };
    send_three();
    // The child of the last client may not have ended yet.
    let processes = || master.processes("qmqpd");
    assert!(until(PATIENCE, || processes().len() == 1));
    let resident = processes();
    let listener = full_listener(&master.socket("qmgr"));
    fs::set_permissions(master.socket("qmgr"), fs::Permissions::from_mode(0o666)).unwrap();
    send_three();
    assert!(until(PATIENCE, || processes() == resident));
    assert_eq!(files(&master).len(), 6);
    assert_eq!(master.trouble(), Vec::<String>::new());
    drop(listener);
}

#[test]
fn a_queue_manager_that_takes_no_connection_holds_nobody_up_for_long() {
    let test = "a_queue_manager_that_takes_no_connection_holds_nobody_up_for_long";
    if master::is_missing(test) {
        return;
    }
    let master = Master::start(FILE, "");
    let path = master.socket("qmgr");
    let flags = SockFlag::SOCK_CLOEXEC;
    let qmgr = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    bind(qmgr.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    listen(&qmgr, Backlog::new(0).unwrap()).unwrap();
    let _in_front = UnixStream::connect(&path).unwrap();
    let (mut child, mut client) = start(&master, &[], &[]);
    let begin = Instant::now();
    let request = master::request(b"x\n", "s@x.example", &["r@y.example"]);
    client.write_all(&request).unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert!(reply.contains(":KOk") && begin.elapsed() < Duration::from_secs(1));
    assert!(child.wait().unwrap().success());
    let elapsed = begin.elapsed();
    assert!((1..5).contains(&elapsed.as_secs()), "{elapsed:?}");
}

#[test]
fn a_request_that_breaks_off_leaves_nothing() {
    if master::is_missing("a_request_that_breaks_off_leaves_nothing") {
        return;
    }
    let master = Master::start(FILE, "");
    let whole = master::request(b"x\n", "s@x.example", &["r@y.example"]);
    for length in 1..whole.len() {
        let reply = send(&master, &[], &[], &whole[..length]);
        assert!(!reply.contains(":K"), "{length}: {reply}");
    }
    let nobody = master::request(b"x\n", "s@x.example", &[]);
    assert!(send(&master, &[], &[], &nobody).contains(":DError: no recipients specified"));
    assert!(files(&master).is_empty());
}

#[test]
fn a_process_killed_at_any_call_has_queued_the_message_or_not_said_so() {
    let test = "a_process_killed_at_any_call_has_queued_the_message_or_not_said_so";
    if strace_is_missing(test) {
        return;
    }
    let master = with_queue_manager("", 1);
    let request = master::request(
        b"Subject: t\n\nb\n",
        "s@x.example",
        &["r@y.example", "a@b.c"],
    );
    let calls = traced(&master, &[], &request);
    // The first byte is peeked at, and then read.
    let peek = calls
        .iter()
        .position(|call| call.line.contains("MSG_PEEK"))
        .unwrap();
    let (mut said, mut unsaid) = (0, 0);
    for call in &calls[peek + 1..] {
        if call.name == "exit_group" {
            break;
        }
        if !call.has_name() {
            continue;
        }
        let inject = format!("inject={}:signal=KILL:when={}", call.name, call.number);
        let tracer = ["strace", "-o", "/dev/null", "-e", &inject];
        let reply = send(&master, &tracer, &[], &request);
        if reply.contains(":K") {
            said += 1;
            master.wait_for_log(&format!("{}: removed", queue_id(&reply)));
        } else {
            unsaid += 1;
            assert_eq!(reply, "", "{}", call.line);
        }
        for (path, mode, content) in files(&master) {
            let whole = content.ends_with(b"E\0") && !content.starts_with(b"C\x5f              0");
            assert!(
                mode == 0o600 || mode == 0o700 && whole,
                "{}: {}",
                call.line,
                path.display()
            );
        }
    }
    assert!(said > 3 && unsaid > 10, "{said} {unsaid}");
    assert_no_complaint(&master);
}

#[test]
fn a_message_larger_than_the_limit_leaves_nothing() {
    if master::is_missing("a_message_larger_than_the_limit_leaves_nothing") {
        return;
    }
    let master = Master::start(FILE, "");
    let request = master::request(&b"x\n".repeat(700), "s@x.example", &["r@y.example"]);
    // The file is longer than the message.
    let size_of = |limit: usize| {
        let limit = format!("message_size_limit={limit}");
        send(&master, &[], &[&limit], &request)
    };
    let accepted = size_of(100_000);
    let length = take(&master, queue_id(&accepted)).len();
    assert!(size_of(length - 8).contains("DError: message too large"));
    let mut request = many(1000);
    request.push(b',');
    let reply = send(&master, &[], &["message_size_limit=9000"], &request);
    assert!(reply.contains("DError: envelope too large"), "{reply}");
    assert!(files(&master).is_empty());
    // A time has up to five digits fewer than another.
    assert!(size_of(length + 8).contains("queued as"));
    assert!(master.log_has("queue file size limit exceeded"));
}

/// The launcher of a process may limit the files that it writes (`ulimit -f`, LimitFSIZE=). The message is not to blame.
#[test]
fn a_file_size_limit_of_the_launcher_is_for_later_and_leaves_nothing() {
    let test = "a_file_size_limit_of_the_launcher_is_for_later_and_leaves_nothing";
    if master::is_missing(test) {
        return;
    }
    let master = Master::start(FILE, "");
    let request = master::request(&b"x\n".repeat(50_000), "s@x.example", &["r@y.example"]);
    let limited = |limit: usize| {
        let launcher = ["prlimit".to_owned(), format!("--fsize={limit}")];
        let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
        send(&master, &launcher, &[], &request)
    };
    let accepted = limited(10_000_000);
    let length = take(&master, queue_id(&accepted)).len();
    // The kernel's limit is in bytes: the file may be as long, and no longer. A time has a digit more or less.
    for limit in [0, 1, 4096, length / 2, length - 8] {
        let reply = limited(limit);
        let expected = "ZError: queue file write error";
        assert!(reply.contains(expected), "{limit}: {reply}");
        assert!(files(&master).is_empty());
    }
    assert!(limited(length + 8).contains("queued as"));
    assert!(master.log_has(": File too large"));
    assert!(!master.log_has("queue file size limit exceeded"));
}

/// Recipients that differ, by how long they are and how many digits their lengths have.
const ENVELOPES: [(usize, usize, usize); 5] = [
    (2000, 4, 1),
    (2000, 4, 20),
    (5000, 30, 2),
    (200, 127, 20),
    (60, 2000, 4),
];

/// The netstrings of a sender and of these recipients.
fn envelope((count, length, digits): (usize, usize, usize)) -> Vec<u8> {
    let mut envelope = netstring(b"s@x.example");
    for number in 0..count {
        // Four characters are enough for all of them.
        let mut recipient = format!("{number:x}");
        recipient += &"@y.example.with.a.name.that.is.longer"[..length.min(20) - recipient.len()];
        recipient += &"x".repeat(length - recipient.len());
        envelope.extend(format!("{length:0digits$}:{recipient},").bytes());
    }
    envelope
}

#[test]
fn what_the_limit_of_the_envelope_refuses_postfix_refuses_too() {
    let test = "what_the_limit_of_the_envelope_refuses_postfix_refuses_too";
    if master::is_missing(test) {
        return;
    }
    let envelopes = ENVELOPES.map(envelope);
    // The limit is the length of the envelope, one byte less, and what the queue file of it cannot exceed.
    let limits = |length: usize| [length, length - 1, 20 * length];
    let services: String = envelopes
        .iter()
        .flat_map(|envelope| limits(envelope.len()))
        .map(|limit| {
            format!(
                "cleanup{limit} unix n - n - 0 cleanup -o message_size_limit={limit}\n\
                 theirs{limit} unix n - n - - qmqpd-postfix -o message_size_limit={limit} \
                 -o cleanup_service_name=cleanup{limit}\n"
            )
        })
        .collect();
    let postfix = Master::start("", &services);
    let all = |envelope: &[u8], limit: usize| {
        let request = netstring(&[netstring(b"S: t\n\nb\n"), envelope.to_vec()].concat());
        let stream = UnixStream::connect(postfix.socket(&format!("theirs{limit}"))).unwrap();
        let theirs = master::send(stream, &request).unwrap();
        let limited = format!("message_size_limit={limit}");
        let cleanup = format!("cleanup_service_name=cleanup{limit}");
        let ours = send(&postfix, &[], &[&limited, &cleanup], &request);
        let file = send(&postfix, &[], &[&limited, FILE], &request);
        [theirs, ours, file]
    };
    for envelope in &envelopes {
        let [at, past, far] = limits(envelope.len());
        let too_large = "25:DError: message too large,";
        assert_eq!(all(envelope, at), [too_large; 3], "{at}");
        let refused = "26:DError: envelope too large,";
        assert_eq!(all(envelope, past), [too_large, refused, refused], "{at}");
        for reply in all(envelope, far) {
            assert!(reply.contains(":KOk: queued as"), "{reply}");
        }
        // A recipient that is there already takes no room in Postfix's queue, and it is read all the same.
        let first = envelope.iter().position(|&b| b == b',').unwrap() + 1;
        let same = [&envelope[..first], &b"1:r,".repeat(past / 4)].concat();
        let [theirs, ours, file] = all(&same, past);
        assert!(theirs.contains(":KOk: queued as"), "{theirs}");
        assert_eq!([ours, file], [refused; 2]);
    }
}

#[test]
fn a_queue_that_is_not_ours_or_full_is_for_later() {
    if master::is_missing("a_queue_that_is_not_ours_or_full_is_for_later") {
        return;
    }
    let master = Master::start(FILE, "");
    let request = master::request(b"x\n", "s@x.example", &["r@y.example"]);
    let full = format!("queue_minfree={}", i64::MAX);
    let reply = send(&master, &[], &[&full], &request);
    assert!(
        reply.contains("ZError: queue service unavailable"),
        "{reply}"
    );
    master.wait_for_log("insufficient system storage");
    let incoming = master.dir.join("queue/incoming");
    fs::rename(&incoming, master.dir.join("queue/other")).unwrap();
    let reply = send(&master, &[], &[], &request);
    assert!(
        reply.contains("ZError: queue service unavailable"),
        "{reply}"
    );
    master.wait_for_log("open incoming: No such file or directory");
    fs::create_dir(&incoming).unwrap();
    fs::set_permissions(&incoming, PermissionsExt::from_mode(0o777)).unwrap();
    let reply = send(&master, &[], &[], &request);
    assert!(
        reply.contains("ZError: queue service unavailable"),
        "{reply}"
    );
    master.wait_for_log("the directory belongs to uid 0");
    assert!(files(&master).is_empty());
}

/// A request with so many recipients, less its last byte.
fn many(recipients: usize) -> Vec<u8> {
    let mut parts = netstring(b"Subject: t\n\nb\n");
    parts.extend(netstring(b"list-@x.example-@[]"));
    for number in 0..recipients {
        parts.extend(netstring(
            format!("recipient-{number}@y.example").as_bytes(),
        ));
    }
    let mut request = netstring(&parts);
    request.pop();
    request
}

/// The most memory, in KiB, that our program had in use before it saw the last byte.
fn memory(master: &Master, recipients: usize) -> usize {
    let (mut child, mut client) = start(master, &[], &[]);
    client.write_all(&many(recipients)).unwrap();
    // It has read everything when it waits for more.
    let status = format!("/proc/{}/status", child.id());
    let stat = format!("/proc/{}/wchan", child.id());
    let waits = || fs::read_to_string(&stat).is_ok_and(|channel| channel.contains("wait"));
    until(Duration::from_secs(2), waits);
    std::thread::sleep(Duration::from_millis(500));
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    client.write_all(b",").unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    child.wait().unwrap();
    take(master, queue_id(&reply));
    kib
}

#[test]
fn fifty_thousand_recipients_take_no_more_memory_and_less_time_than_cleanup() {
    let test = "fifty_thousand_recipients_take_no_more_memory_and_less_time_than_cleanup";
    if master::is_missing(test) {
        return;
    }
    let master = Master::start(FILE, "");
    let (few, all) = (memory(&master, 2_000), memory(&master, 50_000));
    assert!(all < few + 256, "{few} KiB, {all} KiB");
    let mut request = many(50_000);
    request.push(b',');
    let time = |option: &str| {
        let begin = Instant::now();
        let reply = send(&master, &[], &[option], &request);
        let elapsed = begin.elapsed();
        take(&master, queue_id(&reply));
        elapsed
    };
    let theirs = time("qmqpd_queue_method=cleanup");
    let ours = time(FILE);
    let times = format!("50000 recipients: {all} KiB, cleanup {theirs:?}, file {ours:?}\n");
    std::io::stderr().write_all(times.as_bytes()).unwrap();
    assert!(ours < theirs, "{times}");
}
