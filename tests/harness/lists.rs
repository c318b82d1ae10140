//! Access lists that nobody wrote, with the tables and files they name; and whether two servers agree about a client.
//!
//! The names of clients are those of a private hosts file, see [`in_private_network`].

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::dialogue;
pub use super::outcome::LOG;
use super::outcome::Outcome;
use super::peers::{Act, Launch};
use super::requests::Numbers;
use super::server::{self, Server, Setting};
use super::versions;

/// Who is who in the private network.
const HOSTS: &str = "\
127.0.0.1 localhost
::1 localhost
127.0.0.5 good.example.com
127.0.0.7 Mixed.Example.COM
127.0.0.11 a.b.sub.example.org
2001:db8::5 six.example.net
";

/// Set in the process that has the private network.
const INSIDE: &str = "QMQPD_TEST_NETWORK";

/// What makes the network: loopback with one more address, and names from the hosts file alone.
const SCRIPT: &str = "\
mount --make-rprivate / && mount --bind $0/hosts /etc/hosts && mount --bind $0/nsswitch /etc/nsswitch.conf &&
ip link set lo up && ip addr add 2001:db8::5/128 dev lo && exec \"$@\"";

/// Runs the named test once more, in namespaces with a network and a hosts file of their own; there this answers yes.
pub fn in_private_network(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let dir = temporary(test);
    fs::write(dir.join("hosts"), HOSTS).unwrap();
    fs::write(
        dir.join("nsswitch"),
        "hosts: files\npasswd: files\ngroup: files\n",
    )
    .unwrap();
    let status = Command::new("unshare")
        .args(["-m", "-n", "sh", "-c", SCRIPT])
        .arg(&dir)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(status.success(), "{test}: {status}");
    false
}

/// A new directory that other users can look into.
pub fn temporary(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("qmqpd-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Has postmap(1) make a database of the type out of `source`; the file.
pub fn postmap(dir: &Path, kind: &str, options: &[&str], source: &str) -> (String, Vec<u8>) {
    let suffix = match kind {
        "hash" | "btree" => "db",
        other => other,
    };
    fs::write(dir.join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    fs::write(dir.join("table"), source).unwrap();
    let output = Command::new("postmap")
        .arg("-c")
        .arg(dir)
        .args(options)
        .arg(format!("{kind}:{}/table", dir.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let made = dir.join(format!("table.{suffix}"));
    let bytes = fs::read(&made).unwrap();
    fs::remove_file(&made).unwrap();
    (suffix.to_owned(), bytes)
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(pub &'static str);

pub const CLIENTS: [Client; 8] = [
    Client("127.0.0.1"),
    Client("::1"),
    Client("127.0.0.5"),
    Client("127.0.0.7"),
    Client("127.0.0.9"),
    Client("127.0.0.11"),
    Client("2001:db8::5"),
    Client("mapped 127.0.0.5"),
];

impl Client {
    pub fn launch(self) -> Launch {
        if self.0 == "pipe" {
            return Launch::Pipe;
        }
        let (mapped, from) = match self.0.strip_prefix("mapped ") {
            Some(from) => (true, from),
            None => (false, self.0),
        };
        let from: IpAddr = from.parse().unwrap();
        Launch::Tcp { from, mapped }
    }
}

/// A list and what it names.
#[derive(Debug, Clone)]
pub struct List {
    pub conf: Vec<String>,
    pub files: Vec<(String, Vec<u8>)>,
}

impl List {
    pub fn new(list: &str) -> List {
        List {
            conf: vec![format!("qmqpd_authorized_clients = {list}")],
            files: Vec::new(),
        }
    }

    pub fn setting(&self, client: Client) -> Setting {
        let request = b"48:14:Subject: t\n\nb\n,11:s@x.example,11:r@y.example,,";
        Setting {
            conf: self.conf.clone(),
            files: self.files.clone(),
            launch: client.launch(),
            client: vec![Act::Send(request.to_vec()), Act::Eof],
            ..Setting::default()
        }
    }
}

/// What becomes of the client, and what is logged on the way.
pub fn outcome(server: Server, list: &List, client: Client) -> Outcome {
    let seen = server::run(server, &list.setting(client));
    let mut outcome = if server == Server::Postfix {
        seen.of_postfix().outcome()
    } else {
        seen.outcome()
    };
    outcome[LOG] = versions::coarsen(std::mem::take(&mut outcome[LOG]));
    // `tests/spec/differences.md`, 8 and 50: a refused client is logged, and each reply. And postmap has a log of its own.
    outcome[LOG].retain(|line| {
        !line.starts_with("NOQUEUE: reject: CONNECT")
            && !line.ends_with(": Error: server configuration error")
            && !line.contains("postfix/postmap[")
            && !versions::is_passed_on(line)
    });
    for line in &mut outcome[LOG] {
        without_place(line);
    }
    outcome
}

/// Takes from a fatal line the place and the parameter, which Postfix does not name (`tests/spec/differences.md`, 49).
fn without_place(line: &mut String) {
    let Some((_, text)) = line
        .strip_prefix("fatal: DIR/conf/main.cf, line ")
        .and_then(|rest| rest.split_once(": "))
    else {
        return;
    };
    let own = "qmqpd_authorized_clients: match_list_parse: ";
    let start = if text.starts_with(own) {
        "qmqpd_authorized_clients: ".len()
    } else {
        0
    };
    *line = format!("fatal: {}", &text[start..]);
}

/// Places in an outcome.
pub const REPLY: usize = 0;

/// P, D, Z, or F for no reply at all.
pub fn letter(outcome: &Outcome) -> char {
    let reply = outcome[REPLY].first().map_or("", String::as_str);
    match reply.split_once(':') {
        Some((_, rest)) if rest.starts_with('K') => 'P',
        Some((_, rest)) => rest.chars().next().unwrap_or('F'),
        None => 'F',
    }
}

/// What a table's text is said to be wrong with. Postfix reads it at the start, we when a client's evaluation comes to it.
fn is_about_text(line: &str) -> bool {
    line.starts_with("warning: cidr map ")
        || line.starts_with("warning: regexp map ")
        || line.starts_with("warning: DIR/")
        || line.starts_with("warning: empty macro name")
        || line.starts_with("warning: truncated macro")
        || (line.starts_with("error: DIR/") && line.contains("duplicate entry"))
}

/// Compares what both servers do: all is the same, but for when a table's text is complained about, and whether.
pub fn compare(list: &List, client: Client) -> Result<Outcome, String> {
    let mut postfix = outcome(Server::Postfix, list, client);
    let mut ours = outcome(Server::Ours, list, client);
    let all = ours.clone();
    let about_text = |outcome: &mut Outcome| {
        let lines = std::mem::take(&mut outcome[LOG]).into_iter();
        let (text, rest): (Vec<String>, _) = lines.partition(|line| is_about_text(line));
        outcome[LOG] = rest;
        text
    };
    let (theirs, own) = (about_text(&mut postfix), about_text(&mut ours));
    // `tests/spec/versions.md`, 11.
    let is_newer = versions::has(11);
    let is_ours_alone = |line: &str| is_newer && line.contains(": non-UTF-8 input ");
    let mut unknown = own.iter().filter(|line| !is_ours_alone(line));
    if let Some(line) = unknown.find(|line| !theirs.contains(line)) {
        return Err(format!("  + l: {line}\n  of {theirs:?}\n"));
    }
    let is_duplicate = |line: &&String| line.contains("duplicate entry");
    let unseen =
        theirs.iter().filter(is_duplicate).count() > own.iter().filter(is_duplicate).count();
    // A search does not see keys that are not the client's (`tests/spec/differences.md`, 53).
    if unseen || dialogue::agree(&postfix, &ours) {
        return Ok(all);
    }
    Err(dialogue::difference(&postfix, &ours))
}

const NAMES: &[&str] = &[
    "good.example.com",
    "example.com",
    ".example.com",
    "com",
    "mixed.example.com",
    "Example.COM",
    "a.b.sub.example.org",
    "sub.example.org",
    ".example.org",
    "org",
    "six.example.net",
    "localhost",
    "unknown",
    "nobody.example",
];

const ADDRESSES: &[&str] = &[
    "127.0.0.1",
    "127.0.0.5",
    "127.0.0.7",
    "127.0.0.9",
    "::1",
    "2001:db8::5",
    "192.0.2.1",
];

const NETWORKS: &[&str] = &[
    "127.0.0.0/8",
    "127.0.0.4/30",
    "127.0.0.8/29",
    "[::1]/128",
    "[2001:db8::]/32",
    "0.0.0.0/0",
    "[::]/0",
    "127.0.0.1/8",
    "127/8",
    "[2001:db8::1]/32",
    "10.0.0.0/33",
];

/// Whether there are rules in the list itself, which older versions do not have (`tests/spec/versions.md`, 9).
pub fn has_inline_rules(items: &str) -> bool {
    ["cidr:{", "regexp:{"]
        .iter()
        .any(|form| items.contains(form))
}

/// Makes lists. Databases are made once, since postmap takes its time.
pub struct Maker {
    numbers: Numbers,
    databases: Vec<(&'static str, String, Vec<u8>)>,
}

impl Maker {
    pub fn new(seed: u64) -> Maker {
        let mut maker = Maker {
            numbers: Numbers::new(seed),
            databases: Vec::new(),
        };
        let dir = temporary("databases");
        for kind in ["cdb", "cdb", "cdb", "cdb", "hash", "btree", "lmdb"] {
            let source = maker.unique_pairs();
            let options: &[&str] = maker.numbers.pick(&[&[], &["-N"], &["-n"]]);
            let (suffix, bytes) = postmap(&dir, kind, options, &source);
            maker.databases.push((kind, suffix, bytes));
        }
        fs::remove_dir_all(dir).unwrap();
        maker
    }

    /// The next list.
    pub fn make(&mut self) -> List {
        let mut list = List::new("");
        let count = 1 + self.numbers.below(4);
        let items: Vec<String> = (0..count).map(|_| self.item(&mut list, 0)).collect();
        list.conf[0] += &items.join(self.numbers.pick(&[" ", ", ", ","]));
        if self.numbers.one_in(3) {
            list.conf
                .push("parent_domain_matches_subdomains =".to_owned());
        }
        if self.numbers.one_in(6) {
            list.conf.push("smtputf8_enable = no".to_owned());
        }
        list
    }

    fn item(&mut self, list: &mut List, depth: usize) -> String {
        let not = self.numbers.pick(&["", "", "", "!", "!!"]);
        let item = match self.numbers.below(if depth < 2 { 15 } else { 14 }) {
            0 => self.numbers.pick(NAMES).to_owned(),
            1 => match self.numbers.pick(ADDRESSES) {
                address if address.contains(':') => format!("[{address}]"),
                address => address.to_owned(),
            },
            2 => self.numbers.pick(NETWORKS).to_owned(),
            3 => format!("inline:{{{}}}", self.inline_pairs()),
            4 => self
                .numbers
                .pick(&["static:x", "static:{a b}", "static:{a"])
                .to_owned(),
            5 => self
                .numbers
                .pick(&["fail:x", "foo:x", "texthash:DIR/nosuch", "cidr:DIR/nosuch"])
                .to_owned(),
            6 => self
                .numbers
                .pick(&[
                    "regexp:DIR/no",
                    "cdb:DIR/no",
                    "hash:DIR/no",
                    "inline:{}",
                    "cidr:{x}",
                ])
                .to_owned(),
            7 | 8 => self.file(list, "texthash", Maker::pairs),
            9 => self.file(list, "cidr", Maker::networks),
            10 => format!("cidr:{{ {{{}}} }}", self.network_rule()),
            11 => self.file(list, "regexp", Maker::expressions),
            12 => format!("regexp:{{ {{{}}} }}", self.expression().replace('$', "$$")),
            13 => self.database(list),
            _ => self.list_file(list, depth),
        };
        if has_inline_rules(&item) && !versions::has(9) {
            return format!("{not}192.0.2.9");
        }
        format!("{not}{item}")
    }

    fn file(&mut self, list: &mut List, kind: &str, make: fn(&mut Maker) -> String) -> String {
        let name = format!("table{}", list.files.len());
        let mut content = make(self).into_bytes();
        if self.numbers.one_in(12) {
            content.extend(b"caf\xe9 x\n");
        }
        list.files.push((name.clone(), content));
        format!("{kind}:DIR/{name}")
    }

    fn list_file(&mut self, list: &mut List, depth: usize) -> String {
        let count = 1 + self.numbers.below(3);
        let mut content = "# a list\n".to_owned();
        for _ in 0..count {
            // An instance's directory is known only when it runs; a list in a file can name no table there.
            let item = self.item(&mut List::new(""), depth + 1);
            // And a brace that nothing closes would keep older versions' newline.
            if !item.contains("DIR") && item.matches('{').count() == item.matches('}').count() {
                content += &format!("{item}\n");
            }
        }
        let name = format!("list{}", list.files.len());
        list.files.push((name.clone(), content.into_bytes()));
        format!("DIR/{name}")
    }

    fn database(&mut self, list: &mut List) -> String {
        let (kind, suffix, bytes) = &self.databases[self.numbers.below(self.databases.len())];
        let name = format!("base{}", list.files.len());
        list.files.push((format!("{name}.{suffix}"), bytes.clone()));
        format!("{kind}:DIR/{name}")
    }

    fn key(&mut self) -> &'static str {
        let from = if self.numbers.one_in(2) {
            NAMES
        } else {
            ADDRESSES
        };
        self.numbers.pick(from)
    }

    fn inline_pairs(&mut self) -> String {
        let count = 1 + self.numbers.below(3);
        let pair = |maker: &mut Maker| {
            let key = maker.key();
            maker
                .numbers
                .pick(&["K=", "K=x", "{K = a b}"])
                .replace('K', key)
        };
        let pairs: Vec<String> = (0..count).map(|_| pair(self)).collect();
        pairs.join(", ")
    }

    /// Lines of a table with some that are odd.
    fn pairs(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..1 + self.numbers.below(4) {
            let key = self.key();
            text += &self
                .numbers
                .pick(&[
                    "K x\n",
                    "K\tx y\n",
                    "K x\n  z\n",
                    "# K x\n",
                    "K\n",
                    "K: x\n",
                    "\"K x\n",
                    " K x\n",
                ])
                .replace('K', key);
        }
        text
    }

    fn unique_pairs(&mut self) -> String {
        let start = self.numbers.below(NAMES.len());
        let names = NAMES.iter().cycle().skip(start).take(4);
        let start = self.numbers.below(ADDRESSES.len());
        let addresses = ADDRESSES.iter().cycle().skip(start).take(2);
        names
            .chain(addresses)
            .map(|key| format!("{key} x\n"))
            .collect()
    }

    fn networks(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..1 + self.numbers.below(5) {
            text += &match self.numbers.below(6) {
                0 => format!("if {}\n", self.network()),
                1 => self
                    .numbers
                    .pick(&["endif\n", "ENDIF\n", "endif x\n"])
                    .to_owned(),
                _ => self.network_rule() + "\n",
            };
        }
        text
    }

    fn network(&mut self) -> String {
        let not = self.numbers.pick(&["", "", "!", "! "]);
        let from = if self.numbers.one_in(3) {
            ADDRESSES
        } else {
            NETWORKS
        };
        format!("{not}{}", self.numbers.pick(from))
    }

    fn network_rule(&mut self) -> String {
        let value = self.numbers.pick(&[" x", "\tx y", " x", ""]);
        self.network() + value
    }

    fn expressions(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..1 + self.numbers.below(5) {
            text += &match self.numbers.below(6) {
                0 => format!("if {}\n", self.expression()),
                1 => self
                    .numbers
                    .pick(&["endif\n", "ENDIF x\n", "foo\n"])
                    .to_owned(),
                _ => {
                    self.expression() + self.numbers.pick(&[" x", "", " $1", " $", " ${2}"]) + "\n"
                }
            };
        }
        text
    }

    fn expression(&mut self) -> String {
        let not = self.numbers.pick(&["", "", "!"]);
        let pattern = self.numbers.pick(&[
            "example",
            "^127",
            "GOOD",
            "\\.com$",
            "(a|b)\\.",
            "[",
            "(",
            "^unknown$",
            "",
            ":",
            "(.)\\1",
        ]);
        let flags = self.numbers.pick(&["", "", "i", "m", "x", "ii", "q"]);
        let also = self.numbers.pick(&["", "", "", "!/org/", "!/(x/"]);
        format!("{not}/{pattern}/{flags}{also}")
    }
}
