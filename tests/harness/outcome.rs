//! What came of a connection, in lines that are the same on every machine, at every time and under every process id.

use std::time::SystemTime;

use super::cleanup::Item;
use super::{maillog, text, versions};

/// Where something can be seen. The letter is the one of a dialogue's lines.
pub const SECTIONS: [&str; 4] = ["s", "q", "l", "exit"];

/// The places of `q` and `l` in [`SECTIONS`].
pub const QUEUE: usize = 1;
pub const LOG: usize = 2;

/// What is logged on a machine without a name server, of addresses that its hosts file does not have: `::1` often.
pub const NO_NAME: &str = " cannot be looked up: Temporary failure in name resolution";

/// The lines of each of [`SECTIONS`]: to the client, to cleanup, to the log, and the exit status unless it is 0.
pub type Outcome = [Vec<String>; 4];

/// How the server ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client read on until there was no more.
    Eof,
    /// The kernel told the client that the server threw bytes away.
    Reset,
    /// The client stopped reading: the server neither spoke nor closed in time.
    Open,
    /// The client closed first and saw nothing.
    Unseen,
}

/// What was seen of one run, as it was.
pub struct Seen {
    pub reply: Vec<u8>,
    pub ending: Ending,
    pub cleanup: Vec<Item>,
    pub log: Vec<Vec<u8>>,
    pub stderr: Vec<u8>,
    /// As `exit: ` says it: a number, `signal N`, or `killed` when the test had to.
    pub exit: String,
    pub pid: u32,
    /// The client's port, of a TCP connection.
    pub port: Option<u16>,
    pub started: SystemTime,
    /// The instance's directory.
    pub dir: String,
    /// Whether to write all ten attributes of the client out.
    pub in_full: bool,
}

impl Seen {
    /// What Postfix did, as the version that we follow would have done it.
    ///
    /// Postfix closes with the client's bytes unread, and whether the client learns that is a race: no difference here.
    pub fn of_postfix(mut self) -> Seen {
        for item in &mut self.cleanup {
            if let Item::Record(b'N', data) = item {
                *data = versions::renew_record(std::mem::take(data));
            }
        }
        self.log = versions::renew_log(self.log);
        if self.ending == Ending::Reset {
            self.ending = Ending::Eof;
        }
        self
    }

    /// The lines to compare.
    pub fn outcome(&self) -> Outcome {
        let mut reply = Vec::new();
        if !self.reply.is_empty() {
            reply.push(text::show(&self.reply));
        }
        match self.ending {
            Ending::Eof => reply.push("<eof>".into()),
            Ending::Reset => reply.push("<reset>".into()),
            Ending::Open => reply.push("<open>".into()),
            Ending::Unseen => {}
        }
        let stderr = self.stderr.split_inclusive(|&byte| byte == b'\n');
        let log = self
            .log
            .iter()
            .map(|line| text::show(&maillog::text_of(line, self.pid)))
            .filter(|line| !line.contains(NO_NAME));
        let log = log.chain(stderr.map(|line| format!("<stderr> {}", text::show(line))));
        let exit = if self.exit == "0" {
            Vec::new()
        } else {
            vec![self.exit.clone()]
        };
        [reply, self.queue_lines(), log.collect(), exit].map(|lines| {
            let lines = lines.iter().map(|line| self.general(line));
            lines.collect()
        })
    }

    /// The same line without this run's port and directory, and without the name that this machine has for `::1`.
    fn general(&self, line: &str) -> String {
        let mut line = line.replace(&self.dir, "DIR");
        if let Some(port) = self.port {
            line = line
                .replace(&format!(":{port}"), ":PORT")
                .replace(&format!("={port}"), "=PORT");
        }
        if let Some(name) = self.log.iter().find_map(|line| name_of_ip6_loopback(line)) {
            line = line.replace(&format!("{name}[::1]"), "NAME[::1]");
            line = line.replace(&format!("client_name={name}"), "client_name=NAME");
            line = line.replace(&format!("from {name} ({name} "), "from NAME (NAME ");
        }
        line
    }

    fn queue_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut arrival = None;
        let mut items = self.cleanup.as_slice();
        while let Some((item, mut rest)) = items.split_first() {
            lines.push(match item {
                Item::Flags(list) => match list
                    .strip_prefix(b"flags\0")
                    .and_then(|list| list.strip_suffix(b"\0\0"))
                {
                    Some(flags) => format!("flags {}", text::show(flags)),
                    None => format!("<instead of flags> {}", text::show(list)),
                },
                Item::Record(b'T', data) => {
                    arrival = self.arrival(data);
                    arrival.map_or_else(|| record(b'T', data), |_| "T TIME".into())
                }
                Item::Record(b'A', _) if !self.in_full && usual_attributes(items).is_some() => {
                    rest = &items[10..];
                    usual_attributes(items).unwrap()
                }
                Item::Record(kind, data) => match arrival.and_then(|time| without_date(data, time))
                {
                    Some(text) => format!("{} {text}", char::from(*kind)),
                    None => record(*kind, data),
                },
                Item::Garbage(bytes) => format!("<garbage> {}", text::show(bytes)),
                Item::Eof => "<eof>".into(),
            });
            items = rest;
        }
        lines
    }

    /// Seconds of a `T` record that is well written and lies within the run.
    fn arrival(&self, data: &[u8]) -> Option<i64> {
        let (secs, usecs) = std::str::from_utf8(data).ok()?.split_once(' ')?;
        let number = |text: &str| {
            text.parse::<i64>()
                .ok()
                .filter(|number| number.to_string() == text)
        };
        let (secs, usecs) = (number(secs)?, number(usecs)?);
        let within = (since_1970(self.started)..=since_1970(SystemTime::now())).contains(&secs);
        (within && usecs < 1_000_000).then_some(secs)
    }
}

/// NAME of a line that ends in `connect from NAME[::1]`, with or without a port.
fn name_of_ip6_loopback(line: &[u8]) -> Option<&str> {
    let (_, peer) = std::str::from_utf8(line)
        .ok()?
        .split_once(": connect from ")?;
    Some(peer.split_once("[::1]")?.0)
}

fn record(kind: u8, data: &[u8]) -> String {
    let data = text::show(data);
    let blank = if data.is_empty() { "" } else { " " };
    format!("{}{blank}{data}", text::show(&[kind]))
}

/// `A... localhost[127.0.0.1]:0 type 0` for the ten `A` records that say who the client is, if they are exactly
/// those. With port logging the line says `logged with port`.
fn usual_attributes(items: &[Item]) -> Option<String> {
    let mut values = Vec::new();
    for item in items.get(..10)? {
        match item {
            Item::Record(b'A', data) => values.push(std::str::from_utf8(data).ok()?),
            Item::Record(..) | Item::Flags(_) | Item::Garbage(_) | Item::Eof => return None,
        }
    }
    let name = values[5].strip_prefix("client_name=")?;
    let address = values[6].strip_prefix("client_address=")?;
    let port = values[7].strip_prefix("client_port=")?;
    let family = values[8].strip_prefix("client_address_type=")?;
    let prefix = if address.contains(':') { "IPv6:" } else { "" };
    for (logged, remark) in [("", ""), (&*format!(":{port}"), ", logged with port")] {
        let usual = [
            format!("log_client_name={name}"),
            format!("log_client_address={prefix}{address}"),
            format!("log_client_port={port}"),
            format!("log_message_origin={name}[{address}]{logged}"),
            "log_protocol_name=QMQP".into(),
            format!("client_name={name}"),
            format!("client_address={address}"),
            format!("client_port={port}"),
            format!("client_address_type={family}"),
            "protocol_name=QMQP".into(),
        ];
        if values == usual {
            return Some(format!(
                "A... {name}[{address}]:{port} type {family}{remark}"
            ));
        }
    }
    None
}

/// The last line of a Received: header with `DATE` for the date, if that is the arrival time in the zone it names,
/// with a day of two digits.
fn without_date(data: &[u8], arrival: i64) -> Option<String> {
    let start = data.windows(2).rposition(|two| two == b"; ")? + 2;
    let (date, zone) = data[start..].split_at_checked(DATE_LENGTH)?;
    let zone = std::str::from_utf8(zone).ok()?;
    let offset: i64 = zone.get(..5)?.parse().ok()?;
    let east = (offset / 100 * 60 + offset % 100) * 60;
    // Within the hour west of Greenwich Postfix's offset has lost its sign.
    let offsets = if east < 3600 {
        [east, -east]
    } else {
        [east, east]
    };
    let right = |offset| date == date_of(arrival + offset).as_bytes();
    offsets.into_iter().any(right).then(|| {
        let start = text::show(&data[..start - 1]);
        format!("{start} DATE {}", text::show(zone.as_bytes()))
    })
}

/// Seconds since 1970.
pub fn since_1970(time: SystemTime) -> i64 {
    let secs = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    i64::try_from(secs).unwrap()
}

/// The length of `Sun, 22 Nov 2026 13:50:19 `.
const DATE_LENGTH: usize = 26;

/// `Sun, 22 Nov 2026 13:50:19 ` of so many seconds since 1970, counted day by day: slow, but plain to see.
pub fn date_of(secs: i64) -> String {
    let (mut day, of_day) = (secs / 86400, secs % 86400);
    let weekday =
        ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(day % 7).unwrap()];
    let (mut year, mut month) = (1970, 0);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while day >= days_in(month, leap(year)) {
        day -= days_in(month, leap(year));
        (year, month) = if month == 11 {
            (year + 1, 0)
        } else {
            (year, month + 1)
        };
    }
    let name = &"JanFebMarAprMayJunJulAugSepOctNovDec"[month * 3..month * 3 + 3];
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!(
        "{weekday}, {:02} {name} {year} {hour:02}:{minute:02}:{second:02} ",
        day + 1
    )
}

fn days_in(month: usize, leap: bool) -> i64 {
    match month {
        1 if leap => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}
