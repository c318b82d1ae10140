//! Looks a client's name up in the hosts file, if the name service begins with it.
//!
//! The C library's resolver must be asked in a child process, which costs more than all the rest of a small session.
//! Clients of a mail queue are few, and often have a line in /etc/hosts. That line is used only if the C library would
//! certainly give the same answer: `hosts:` in nsswitch.conf begins with `files`, no earlier line has the name or an
//! address that could stand for this one, and the name leads back to the same line. All else is left to the C library
//! in `peer`. Follows hosts(5) and nsswitch.conf(5).

use std::fs::OpenOptions;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

pub(super) const NSSWITCH: &str = "/etc/nsswitch.conf";
const HOSTS: &str = "/etc/hosts";

/// Longer files, in bytes, are left to the C library, which need not read them completely.
const SIZE_LIMIT: u64 = 64 * 1024;

/// The size of the file on most machines, in bytes.
const USUAL_SIZE: usize = 4096;

/// The name of `address`, if the name leads back to it; `None` if the hosts file does not decide that.
pub fn confirmed_name(address: IpAddr) -> Option<Vec<u8>> {
    if !files_come_first(&read(NSSWITCH)?) {
        return None;
    }
    name_in(&read(HOSTS)?, address).map(<[u8]>::to_vec)
}

fn read(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL_SIZE);
    // O_NONBLOCK: a pipe in place of the file does not block, and is left to the C library.
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).ok()?;
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= SIZE_LIMIT && !bytes.contains(&0)).then_some(bytes)
}

/// Lines without comments and surrounding blanks, and without blank lines.
pub(super) fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|&b| b == b'\n')
        .map(|line| line.split(|&b| b == b'#').next().unwrap_or_default())
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
}

pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// Whether nsswitch.conf has `files` first, and without an action behind it.
fn files_come_first(nsswitch: &[u8]) -> bool {
    let mut orders = lines(nsswitch).filter_map(|line| line.strip_prefix(b"hosts"));
    let (Some(order), None) = (orders.next(), orders.next()) else {
        return false;
    };
    let Some(services) = order.trim_ascii().strip_prefix(b":") else {
        return false;
    };
    let mut services = words(services);
    services.next() == Some(b"files") && services.next().is_none_or(|next| !next.starts_with(b"["))
}

/// The name on the first line with `address`, if no earlier line has that name.
fn name_in(hosts: &[u8], address: IpAddr) -> Option<&[u8]> {
    let mut named_before = Vec::new();
    for line in lines(hosts) {
        let mut words = words(line);
        let listed: Option<IpAddr> = words.next().and_then(|word| {
            let text = std::str::from_utf8(word).ok()?;
            text.parse().ok()
        });
        let Some(listed) = listed else { continue };
        if listed == address {
            let name = words.next()?;
            let doubtful = named_before
                .iter()
                .any(|before: &&[u8]| before.eq_ignore_ascii_case(name));
            return (!doubtful).then_some(name);
        }
        if may_pass_for(listed, address) {
            return None;
        }
        named_before.extend(words);
    }
    None
}

/// Whether the C library may take this IPv6 address for this IPv4 address: a mapped one, or the loopback address.
fn may_pass_for(listed: IpAddr, address: IpAddr) -> bool {
    match (listed, address) {
        (IpAddr::V6(listed), IpAddr::V4(v4)) => {
            listed.to_ipv4_mapped() == Some(v4) || listed.is_loopback() && v4.is_loopback()
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_counts_where_it_is_asked_first_and_last() {
        for (text, first) in [
            ("hosts: files dns", true),
            ("passwd: files\n# hosts: dns\n hosts:\tfiles # all\n", true),
            ("hosts : files", true),
            ("hosts: files mdns4_minimal [NOTFOUND=return] dns", true),
            ("hosts: files [SUCCESS=continue] dns", false),
            ("hosts: files[SUCCESS=continue] dns", false),
            ("hosts: mymachines resolve [!UNAVAIL=return] files", false),
            ("hosts: dns files", false),
            ("hosts:", false),
            ("hosts: files\nhosts: dns", false),
            ("hostsx: files", false),
            ("passwd: files", false),
            ("", false),
        ] {
            assert_eq!(files_come_first(text.as_bytes()), first, "{text:?}");
        }
    }

    #[test]
    fn a_name_is_taken_only_where_there_is_no_doubt() {
        for (hosts, address, name) in [
            ("127.0.0.1 localhost\n", "127.0.0.1", Some("localhost")),
            ("127.0.0.1 localhost", "127.0.0.2", None),
            (
                "\t10.0.0.1\tMail.Example mail # ours\n",
                "10.0.0.1",
                Some("Mail.Example"),
            ),
            (
                "#10.0.0.1 a\n10.0.0.1 b\n10.0.0.1 c\n",
                "10.0.0.1",
                Some("b"),
            ),
            ("10.0.0.1 a b\n10.0.0.2 c\n", "10.0.0.2", Some("c")),
            // The C library's answer for a name with two addresses depends on host.conf.
            ("10.0.0.1 a b\n10.0.0.2 B\n", "10.0.0.2", None),
            ("10.0.0.1 # nothing\n", "10.0.0.1", None),
            ("::1 localhost\n127.0.0.1 localhost\n", "127.0.0.1", None),
            ("::1 localhost\n10.0.0.1 b\n", "10.0.0.1", Some("b")),
            ("::ffff:10.0.0.1 a\n10.0.0.1 b\n", "10.0.0.1", None),
            ("2001:db8::1 a\n10.0.0.1 b\n", "10.0.0.1", Some("b")),
            ("127.0.0.1 a\n::1 localhost\n", "::1", Some("localhost")),
            ("2001:DB8:0::1 a\n", "2001:db8::1", Some("a")),
            ("10.0.0 a\n10.0.0.01 b\nx 10.0.0.1\n", "10.0.0.1", None),
        ] {
            let found = name_in(hosts.as_bytes(), address.parse().unwrap());
            assert_eq!(found, name.map(str::as_bytes), "{hosts:?} {address}");
        }
    }
}
